"""`python -m tests.security_page`: writes `docs/security-tests.md`, what is tried and what must come of it.

Everything in it is read off the tables that the tests run over (`TRIED` of each module, see
`tests.evidence`), so no figure can be out of date: `test_security_page` asks whether the page is what this
would write.
"""

from __future__ import annotations

import importlib
from itertools import groupby
from pathlib import Path

from tests.evidence import Tried

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "security-tests.md"
PARTS = (
    "Requests",
    "Paths",
    "Identity headers",
    "Cookies and sessions",
    "Redirects",
    "Upstream answers",
    "WebSockets",
    "Agreement with servers",
    "Sign-in",
    "Tokens",
    "Conformance",
    "Fuzzing",
    "Incidents elsewhere",
)
HEAD = """\
# What is tried against ztproxy

Generated from the tables the tests run over, by `python -m tests.security_page`; a test asks whether it is up
to date. Every row is tried by `make test`, over real sockets against a running ztproxy unless its module says
otherwise. *Inputs* are different ones, *sent* counts the ways each was sent (plain and TLS; whole, a byte at
a time, cut at every offset).

A refusal means: exactly one answer, with a constant body; the connection closed; not one byte for the app;
and the counter `ztproxy_http_refused_total` one higher, under its reason.

**{inputs:,} inputs, sent {sent:,} times.** How ztproxy does while it is flooded is on a page of its own,
measured by `make overload`: [overload.md](overload.md).
"""


def modules() -> list[str]:
    """Every module of tests that says what it has tried."""
    files = [file for file in sorted((ROOT / "tests").rglob("test_*.py")) if "\nTRIED" in file.read_text()]
    return [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]


def gathered() -> list[tuple[Tried, str]]:
    """All that was tried, with the file it is in, in the order of the page."""
    found = [(one, name) for name in modules() for one in importlib.import_module(name).TRIED]
    return sorted(found, key=lambda each: PARTS.index(each[0].part))


def page() -> str:
    tried = gathered()
    lines = [HEAD.format(inputs=sum(one.rows for one, _ in tried), sent=sum(one.sent for one, _ in tried))]
    for part, rows in groupby(tried, key=lambda each: each[0].part):
        lines += [f"## {part}", "", "| what is tried | inputs | sent | what must come of it | in |"]
        lines += ["|--|--:|--:|--|--|"]
        for one, name in rows:
            path = name.replace(".", "/") + ".py"
            link = f"[{path.removeprefix('tests/')}](../{path})"
            lines.append(f"| {one.what} | {one.rows:,} | {one.sent:,} | {one.outcome} | {link} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
