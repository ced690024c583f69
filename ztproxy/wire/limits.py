"""How much and how long: the bounds of one client connection.

Knows: rule 11 of the wire policy, and what we read ahead. Promises: the defaults are that policy. Leaves the
size of a head to `head` and of a body's framing to `bodies`. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one listener.

    `held`: bytes read ahead (pipelined requests, a body nobody wants yet) before reading stops.
    `drained`: of an unwanted body this much is read and dropped to keep the connection; more closes it.
    `last_words`: how long one side of a tunnel may take for what is left after the other has gone.
    `body_rate`: bytes per second averaged over the body, judged once `body_rate_after` has passed.
    """

    held: int = 64 * 1024
    drained: int = 64 * 1024
    first_byte: float = 10.0
    head_time: float = 10.0
    keep_alive: float = 75.0
    body_stall: float = 30.0
    body_rate: int = 1024
    body_rate_after: float = 10.0
    write_stall: float = 60.0
    linger: float = 0.5
    hand_over: float = 60.0
    last_words: float = 5.0
    connections: int = 16384
    connections_per_address: int = 1024
