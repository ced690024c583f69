"""Houses that share a store, and somebody who knocks at a door without a pause while things go wrong.

A house of its own has keys of its own; `neighbour` gives one the keys of another, so that who signed in at
one is known at the other, as on two nodes of one installation.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.stories.administering import Admin
from tests.stories.house import House, house
from tests.stories.talking import until
from ztproxy.adapters.keys import write_private
from ztproxy.demo.people import PEOPLE

SUBJECTS = {person.username: person.sub for person in PEOPLE}

SHORT = "  lease: 800ms\n  stream_grace: 1s\n"
"""The default lease, and streams that do not wait for long."""


@contextlib.contextmanager
def neighbour(
    directory: Path, state: str, of: House | None = None, revocation: str = SHORT, **parts: str
) -> Iterator[House]:
    """A running house whose administration answers too; with the keys of another, if there is one."""

    def move_in(it: House) -> None:
        if of is not None:
            write_private(it.directory / "keys.yaml", (of.directory / "keys.yaml").read_text(), replace=True)
            it.secrets |= of.secrets

    parts = {"settings": f"revocation:\n{revocation}", **parts}
    with house(directory, state, parts=parts, prepare=move_in) as it:
        admin_of(it).ready()
        yield it


def admin_of(home: House) -> Admin:
    return Admin(home.directory / "state")


def sign_in_again(home: House, person: str) -> str:
    """Signs somebody in as soon as that can be: the store may be away for a moment. And the provider says in
    whole seconds when it asked, so that for the rest of the one in which somebody was revoked it cannot be
    told whether it was before or after."""
    found: list[str] = []

    def signed_in() -> bool:
        try:
            found.append(home.sign_in(person))
        except AssertionError:
            return False
        return True

    until(signed_in)
    return found[0]


class Visit(NamedTuple):
    """Somebody signed in: the Cookie field, and the public id of the session."""

    cookie: str
    session: str


def visit(home: House, person: str) -> Visit:
    """Signs somebody in at `home`, whose administration can reach the store."""
    cookie = sign_in_again(home, person)
    newest, *_ = admin_of(home).sessions("user", SUBJECTS[person], home.issuer)
    return Visit(cookie, newest["id"])


def revoke(who: Visit, at: House) -> float:
    """Ends a session as the command line does: asked again under one key until it is confirmed. The moment of
    that."""
    key = str(uuid.uuid4())
    until(lambda: admin_of(at).revoke("session", who.session, key=key).confirmed)
    return time.monotonic()


def locked(home: House) -> set[str]:
    """The names of what was revoked, as the store has it; none while it does not say."""
    return {lock["target"]["name"] for lock in admin_of(home).locks()}


class Knock(NamedTuple):
    """A request: when it began, and what was answered; 0 where nothing was."""

    began: float
    status: int
    cookies: tuple[str, ...]


class Knocking:
    """Asks for one page with one cookie, again and again, from a thread of its own."""

    def __init__(self, home: House, cookie: str) -> None:
        self._home, self._cookie = home, cookie
        self.knocks: list[Knock] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                answer = self._home.get("/u", self._cookie)
                self.knocks.append(Knock(began, answer.status, tuple(answer.fields("Set-Cookie"))))
            except OSError:
                self.knocks.append(Knock(began, 0, ()))
            self._ended.wait(0.01)

    def begun_after(self, moment: float) -> list[int]:
        """What was answered to requests that began later."""
        return [knock.status for knock in tuple(self.knocks) if knock.began > moment]

    @property
    def cookies(self) -> list[str]:
        """What anybody was told to set or clear."""
        return [cookie for knock in tuple(self.knocks) for cookie in knock.cookies]

    def __enter__(self) -> Knocking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def refused_politely(home: House, cookie: str) -> bool:
    """Whether somebody is answered 503 at the door and keeps the cookie (FI03), while strangers are
    served."""
    answer = home.get("/u", cookie)
    assert answer.fields("Set-Cookie") == []
    # Who was let in a moment before the door closed, and is put out, is told so in plain text.
    at_the_door = answer.status == 503 and b"state_unavailable" in answer.body
    if at_the_door:
        assert answer.fields("Retry-After") == ["1"]
        assert home.get("/public/x").body == b"ok"
    return at_the_door


def let_in(home: House, cookie: str) -> bool:
    return home.get("/u", cookie).status == 200
