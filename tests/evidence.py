"""What a module of tests has tried, in the words of the page for readers (`docs/security-tests.md`).

A module that carries a table of hostile input says so in `TRIED`; `tests/security_page.py` gathers them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tried:
    """One table. `part` is the heading it stands under, `what` is tried, `rows` how many inputs, `sent` how
    often in all (each listener, each way of sending), `outcome` what every one of them must come to.

    `rows` and `sent` are lengths of the very tables the tests run over, never numbers written by hand.
    """

    part: str
    what: str
    rows: int
    sent: int
    outcome: str
