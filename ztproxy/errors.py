"""The only exceptions of ztproxy, sorted by whose fault they are, because that chooses what happens next.

    ZtproxyError
    ├─ ClientError     what came over the wire is wrong; answer 4xx, tell them what, change nothing
    ├─ OperatorError   the configuration or the command is wrong; name file, line, key and the mend
    └─ WorldError      something we depend on is away, slow or lying; answer 5xx, try again later

A refusal by policy is none of these: it is a value (`core.decision.Deny`), never an exception.
Messages are lower case without a full stop, quote input in backticks and never hold a secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ztproxy.core.reasons import Reason


class ZtproxyError(Exception):
    """The root, for the one `except` at each border."""


class ClientError(ZtproxyError):
    """What the client (or the identity provider on the browser's way) sent cannot be accepted.

    `reason` is what people and logs see; the message is for the log alone and may quote a little input.
    """

    def __init__(self, reason: Reason, message: str = "") -> None:
        super().__init__(message or reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a file an operator's mistake stands; `line` counts from 1, 0 when it has no line."""

    file: str
    line: int
    key: str

    def __str__(self) -> str:
        line = f":{self.line}" if self.line else ""
        return f"{self.file}{line}: {self.key}" if self.key else f"{self.file}{line}"


class OperatorError(ZtproxyError):
    """The operator wrote something wrong: where it stands, what is wrong, what to write instead."""

    def __init__(self, problem: str, mend: str = "", place: Place | None = None) -> None:
        text = f"{problem}, {mend}" if mend else problem
        super().__init__(f"{place}: {text}" if place else text)
        self.problem, self.mend, self.place = problem, mend, place


class WorldError(ZtproxyError):
    """A dependency did not do its part; `reason` says which, and becomes the answer's reason."""

    def __init__(self, reason: Reason, message: str = "") -> None:
        super().__init__(message or reason.value)
        self.reason = reason
