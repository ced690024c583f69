"""A person's browser as far as ztproxy notices: cookies by host, what a page or a script sends, and answers.

Knows: the rules of the `__Host-` prefix, and that `*.localhost` is this machine and counts as secure (RFC
6761 6.3). Promises: pure. Leaves the sockets to `users`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

from loadtests.people.promises import Outcome

SESSION_COOKIE = "__Host-ztproxy"
PAGE = {
    "Accept": "text/html,application/xhtml+xml",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Site": "none",
}
SCRIPT = {"Accept": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_REFRESH = re.compile(r"0; *url=(\S+)")
_SIGN_IN = "/.ztproxy/sign_in"


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` 0: there was none, and `body` says why. From `began`, before the request left, to `ended`,
    when all of the answer was there. `fields` are (name in lower case, value)."""

    url: str
    status: int
    fields: Sequence[tuple[str, str]]
    body: str
    began: float
    ended: float

    def get(self, name: str) -> str:
        return next((value for given, value in self.fields if given == name), "")

    @property
    def set_cookies(self) -> list[str]:
        return [value for name, value in self.fields if name == "set-cookie"]

    @property
    def onward(self) -> str:
        """Where it leads on by itself, if it does."""
        found = _REFRESH.fullmatch(self.get("refresh"))
        to = self.get("location") or (found[1] if found else "")
        return urljoin(self.url, to) if to else ""

    @property
    def json(self) -> Any:
        """None where it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def outcome(self) -> Outcome:
        to = urlsplit(self.get("location")).path
        match self.status:
            case 200:
                return Outcome.DONE
            case 401:
                return Outcome.REFUSED
            case 302 | 303:
                return Outcome.REFUSED if to == _SIGN_IN else Outcome.ONWARD
            case 502 if self.get("content-type").startswith("text/html") and not to:
                return Outcome.NO_PROVIDER
            case 503 if self.get("retry-after").isdigit() and not to and not self._signs_out:
                return Outcome.BUSY
        return Outcome.WRONG

    @property
    def _signs_out(self) -> bool:
        return any(one.startswith(f"{SESSION_COOKIE}=") for one in self.set_cookies)

    def __str__(self) -> str:
        return f"{self.status} at {urlsplit(self.url).path}: {self.body[:120]!r}"


@dataclass(slots=True)
class Cookies:
    """By host name: a browser does not tell ports apart (RFC 6265 8.5)."""

    _by_host: dict[str, dict[str, str]] = field(default_factory=dict)

    def header(self, url: str) -> dict[str, str]:
        kept = self._by_host.get(urlsplit(url).hostname or "", {})
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in kept.items())} if kept else {}

    def keep(self, answer: Answer) -> None:
        """Raises `ValueError` for a cookie that a browser would refuse."""
        host = urlsplit(answer.url).hostname or ""
        for line in answer.set_cookies:
            pair, *attributes = (part.strip() for part in line.split(";"))
            name, _, value = pair.partition("=")
            said = {key.lower(): given for key, _, given in (one.partition("=") for one in attributes)}
            if name.startswith("__Host-") and (
                "secure" not in said or said.get("path") != "/" or "domain" in said
            ):
                raise ValueError(f"a browser would refuse the cookie `{name}`")
            if said.get("max-age") == "0":
                self._by_host.get(host, {}).pop(name, None)
            else:
                self._by_host.setdefault(host, {})[name] = value
