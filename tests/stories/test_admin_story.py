"""The administration of a running proxy: locks, limits, a log that cannot be written, and doors it does not
have.

One house with two workers, started a second time on what it revoked the first time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.stories.administering import TOKEN
from tests.stories.endings import CLOSE, answers, audit_is_whole, echo, frames, opened, session_of
from tests.stories.house import Guest, House, house
from tests.stories.neighbours import SUBJECTS, admin_of, sign_in_again
from tests.stories.talking import Heard, until
from tests.wire.recording import OK, Line
from ztproxy.adapters.keys import write_private

MESSAGE = "The books are being closed. Ask the finance desk."
SETTINGS = "session: {max_per_person: 2, max_in_group: {till: 1}}"
OTHER = """\
  - from: https://app.test
    prefix: /other
    name: other
    to: http://127.0.0.1:$upstream
    policy:
      - allow: {public: true, path: {prefix: /other/public}}
      - allow: {authenticated: true}
  - from: https://app.test
    prefix: /till
    name: till
    to: http://127.0.0.1:$upstream
    session_group: till
    policy:
      - allow: {authenticated: true}
"""


class Before(NamedTuple):
    """Whose session ended before the second start, and whose did not."""

    ended: str
    kept: str


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[House]:
    parts = {"settings": SETTINGS, "routes": OTHER}
    with house(tmp_path_factory.mktemp("admin"), valkey_url, parts=parts) as it:
        it.app.play = play
        admin_of(it).ready()
        yield it
    said = audit_is_whole(it)
    assert "from the beginning" in said and "written late" in said


@pytest.fixture(scope="module", autouse=True)
def before(home: House) -> Before:
    known = Before(home.sign_in("mallory"), home.sign_in("carol"))
    assert admin_of(home).revoke("session", session_of(home, known.ended)).confirmed
    assert home.stop() == 0
    written = home.config.read_text().replace("workers: 1", "workers: 2")
    write_private(home.config, written, replace=True)
    home.start()
    admin_of(home).ready()
    until(lambda: home.get("/u", known.kept).status == 200)
    until(lambda: len(home.workers()) == 2 and home.metric("ztproxy_lease_seconds") > 0)
    return known


async def play(line: Line, request: bytes) -> None:
    await (echo(line, request) if request.startswith(b"GET /ws ") else line.send(OK))


def everywhere(home: House, cookie: str = "", path: str = "/u") -> int:
    """The one status with which both workers answer: the kernel spreads connections over them."""
    (status,) = {home.get(path, cookie).status for _ in range(10)}
    return status


def test_what_was_revoked_before_the_start(home: House, before: Before) -> None:
    """INV-4."""
    assert everywhere(home, before.ended) == 401
    assert everywhere(home, before.kept) == 200


# -- locks ------------------------------------------------------------------------------------------------

ALICE, BOB, NOBODY = "alice", "bob", ""


@pytest.mark.parametrize(
    ("kind", "name", "met", "met_in_public"),
    [
        pytest.param("user", SUBJECTS["alice"], {ALICE}, {ALICE}, id="a person"),
        pytest.param("group", "engineering", {ALICE}, {ALICE}, id="a group"),
        pytest.param("route", "app", {ALICE, BOB, NOBODY}, {ALICE, BOB, NOBODY}, id="a route"),
        pytest.param("all", "", {ALICE, BOB, NOBODY}, {ALICE, BOB, NOBODY}, id="all"),
    ],
)
def test_a_closed_door(home: House, kind: str, name: str, met: set[str], met_in_public: set[str]) -> None:
    """Whoever it meets reads why, also after signing in again; everybody else goes on. Lifted, it was never
    there: nobody's session ended."""
    cookies = {ALICE: home.sign_in("alice"), BOB: home.sign_in("bob"), NOBODY: ""}
    admin = admin_of(home)
    issuer = home.issuer if kind == "user" else ""
    made = admin.lock("deny", kind, name, issuer, expires_in=600, message=MESSAGE)
    assert made.confirmed, made
    for person, cookie in cookies.items():
        usual = 200 if person else 401
        assert everywhere(home, cookie) == (403 if person in met else usual), person
        assert everywhere(home, cookie, "/public/x") == (403 if person in met_in_public else 200), person
        # Another route of the same host is another door.
        elsewhere = person in met and kind != "route"
        assert everywhere(home, cookie, "/other/public/x") == (403 if elsewhere else 200), person
        if person in met:
            answer = home.get("/u", cookie)
            assert MESSAGE.encode() in answer.body and b'"locked"' in answer.body
            page = browse(home, cookie)
            assert page.status == 403 and MESSAGE.encode() in page.body
    assert home.run(signs_in(home, "alice")) == 403
    assert any(lock["id"] == made["id"] and lock["message"] == MESSAGE for lock in admin.locks())
    lifted = admin.lift(made["id"])
    assert lifted.status == 200 and lifted["confirmed"]
    assert everywhere(home, cookies[BOB]) == 200
    assert everywhere(home, cookies[ALICE]) == 200
    assert everywhere(home) == 401 and everywhere(home, path="/public/x") == 200
    assert admin.lift(made["id"]).status == 404


def browse(home: House, cookie: str) -> Heard:
    return home.get(
        "/u", cookie, fields="Accept: text/html\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n"
    )


async def signs_in(home: House, person: str) -> int:
    async with home.guest(person) as guest:
        return (await guest.open("https://app.test/u")).status


def test_a_door_that_opens_by_itself(home: House) -> None:
    alice = home.sign_in("alice")
    with home.wire() as wire:
        opened(wire, alice)
        assert answers(wire, b"one")
        assert admin_of(home).lock("deny", "user", SUBJECTS["alice"], home.issuer, expires_in=2).confirmed
        assert everywhere(home, alice) == 403
        last = list(frames(wire.rest().data))[-1]
        assert (last.kind, last.code) == (CLOSE, 1008)
    until(lambda: home.get("/u", alice).status == 200)
    assert everywhere(home, alice) == 200


@pytest.mark.parametrize("lasting", [False, True], ids=["whom it meets now", "whoever comes, too"])
@pytest.mark.parametrize(
    ("action", "enough"), [pytest.param("require_login", "pwd"), pytest.param("require_step_up", "mfa")]
)
def test_a_lock_that_asks_for_something(home: House, action: str, enough: str, lasting: bool) -> None:
    """The person signs in once more, as strongly as is asked; what was open ended."""
    admin = admin_of(home)
    more: dict[str, Any] = {"expires_in": 600} if lasting else {}

    async def opens(guest: Guest) -> int:
        return (await guest.open("https://app.test/u")).status

    async def enter(guest: Guest) -> str:
        await guest.__aenter__()
        assert await opens(guest) == 200
        return guest.session("https://app.test")

    guest, bob = home.guest("alice"), home.sign_in("bob")
    alice = home.run(enter(guest))
    try:
        with home.wire() as wire, home.wire() as other:
            opened(other, bob)
            opened(wire, alice)
            made = admin.lock(action, "user", SUBJECTS["alice"], home.issuer, **more)
            assert made.confirmed, made
            assert [one.code for one in frames(wire.rest().data)] == [1008]
            assert answers(other, b"still here")
        answer = home.get("/u", alice)
        assert answer.status == 401 and b"lock_sign_in" in answer.body
        assert everywhere(home, alice) == 401 and everywhere(home, alice, "/public/x") == 200
        assert everywhere(home, bob) == 200
        guest.method = enough
        assert home.run(opens(guest)) == 200
        stronger = guest.session("https://app.test")
        assert everywhere(home, stronger) == 200
        # Who comes later is asked for as much, where the lock has an end.
        weak = home.run(signs_in(home, "alice"))
        assert weak == (403 if lasting and enough == "mfa" else 200)
    finally:
        home.run(guest.__aexit__(None, None, None))
        assert admin.lift(made["id"]).status == 200


# -- how many ---------------------------------------------------------------------------------------------


def test_s27_one_session_too_many(home: House) -> None:
    """Of three the oldest ends, at every worker, and what it had open."""
    first = home.sign_in("bob")
    with home.wire() as wire:
        opened(wire, first)
        second = home.sign_in("bob")
        assert everywhere(home, first) == everywhere(home, second) == 200
        assert answers(wire, b"two")
        third = home.sign_in("bob")
        assert [one.code for one in frames(wire.rest().data)] == [1008]
    assert everywhere(home, first) == 401
    assert everywhere(home, second) == everywhere(home, third) == 200


def test_one_session_at_a_time_on_some_routes(home: House) -> None:
    """Who comes second to the till ends who was there first, and signing in alone ends nobody."""
    first = home.sign_in("bob")
    second = home.sign_in("bob")
    assert everywhere(home, first, "/till") == 200
    assert everywhere(home, second) == everywhere(home, first) == 200
    assert everywhere(home, second, "/till") == 200
    assert everywhere(home, first) == everywhere(home, first, "/till") == 401
    assert everywhere(home, second, "/till") == 200


# -- doors it does not have -------------------------------------------------------------------------------


@pytest.mark.parametrize("listener", ["plain", "tls"])
@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        # Where a host of ours has an app, every path but ours is the app's, and judged as that.
        pytest.param("/api/v1/whoami", "app.test", {401}, id="its path"),
        pytest.param("/%61pi/v1/whoami", "app.test", {401}, id="escaped"),
        pytest.param("/public/../api/v1/whoami", "app.test", {400, 401}, id="by way of a public path"),
        pytest.param("//api/v1/whoami", "app.test", {400, 401, 404}, id="an empty segment"),
        pytest.param("/.ztproxy/admin", "app.test", {404}, id="below our own"),
        pytest.param("/.ztproxy/api/v1/whoami", "app.test", {404}, id="the API below our own"),
        pytest.param("/.ztproxy/%61dmin", "app.test", {404}, id="below our own, escaped"),
        pytest.param("/.ztproxy/console", "app.test", {404}, id="the console"),
        pytest.param("/.ztproxy/../api/v1/whoami", "app.test", {400, 404}, id="out of our own"),
        pytest.param("/.well-known/ztproxy/admin", "app.test", {404}, id="well known"),
        pytest.param("/api/v1/whoami", "localhost", {421}, id="the name of its own listener"),
        pytest.param("/api/v1/whoami", "127.0.0.1", {421}, id="an address"),
        pytest.param("/.ztproxy/admin", "admin.sock", {421}, id="the socket's name"),
        pytest.param("http://localhost/api/v1/whoami", "localhost", {400, 421}, id="absolute"),
        pytest.param("http://app.test/.ztproxy/admin", "app.test", {400, 404}, id="absolute, below our own"),
        pytest.param("http://unix/api/v1/whoami", "app.test", {400, 421}, id="absolute, another host"),
    ],
)
def test_a01_no_way_in_by_the_data_listeners(
    home: House, listener: str, target: str, host: str, status: set[int]
) -> None:
    """With the very token that opens it elsewhere."""
    token = (home.directory / "state" / TOKEN).read_text().strip()
    home.seen(token)
    before = len(home.app.requests)
    for method in ("GET", "POST"):
        data = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        length = "Content-Length: 0\r\n" if method == "POST" else ""
        answer = home.plain(f"{data}{length}\r\n".encode(), listener)
        assert answer.status in (status if method == "GET" else {*status, 405}), answer
        assert answer.fields("Ztproxy-Revocation") == []
        assert b'"role"' not in answer.body
    assert len(home.app.requests) == before


# -- what cannot be written down --------------------------------------------------------------------------


def sign_out(cookie: str) -> bytes:
    """The form of our own page, sent."""
    return (
        f"POST /.ztproxy/sign_out HTTP/1.1\r\nHost: app.test\r\nCookie: {cookie}\r\n"
        "Sec-Fetch-Site: same-origin\r\nContent-Length: 0\r\n\r\n"
    ).encode()


class Unwritable:
    """A folder where the audit log should be: not even root can write into that."""

    def __init__(self, home: House) -> None:
        self._path = home.directory / "state" / "audit.log"
        self._aside = self._path.with_name("aside")

    def __enter__(self) -> None:
        self._path.rename(self._aside)
        self._path.mkdir()

    def __exit__(self, *_: object) -> None:
        self._path.rmdir()
        self._aside.rename(self._path)


def test_fi47_a_log_that_cannot_be_written(home: House) -> None:
    """Nothing is done that could not be told of, but for an emergency; nobody else notices."""
    admin = admin_of(home)
    alice, bob = sign_in_again(home, "alice"), sign_in_again(home, "bob")
    ids = {cookie: session_of(home, cookie) for cookie in (alice, bob)}
    standing = admin.locks()
    with Unwritable(home):
        for answer in (
            admin.revoke("session", ids[alice]),
            admin.ask("DELETE", f"/sessions/{ids[alice]}"),
            admin.revoke("all"),
            admin.lock("deny", "user", SUBJECTS["alice"], home.issuer, expires_in=600),
            admin.ask("POST", "/tokens", {"name": "unrecorded", "role": "admin"}),
            admin.ask("POST", "/keys/rotate", {}),
        ):
            assert (answer.status, answer.problem) == (503, "audit_unavailable")
        assert admin.locks() == standing, "something was done"
        assert all(token["name"] != "unrecorded" for token in admin.ask("GET", "/tokens")["tokens"])
        assert everywhere(home, alice) == everywhere(home, bob) == 200
        until(lambda: home.metric("ztproxy_audit_failures_total") >= 5)
        # People sign in and out as ever; signing out is a revocation too.
        carol = home.sign_in("carol")
        assert home.plain(sign_out(carol)).status == 200
        assert everywhere(home, carol) == 401

        told = admin.revoke("session", ids[alice], emergency=True, reason="seen at the airport")
        assert told.confirmed and told["audit"] == "late"
        assert everywhere(home, alice) == 401 and everywhere(home, bob) == 200
        until(lambda: home.metric("ztproxy_audit_queued") > 0)
    until(lambda: home.metric("ztproxy_audit_queued") == 0)
    records = [json.loads(line) for line in (home.directory / "state" / "audit.log").read_text().splitlines()]
    late = [
        record for record in records if record.get("late") and record.get("target") == f"session:{ids[alice]}"
    ]
    assert [record["outcome"] for record in late] == ["intent", "done"]
    again = admin.revoke("session", ids[bob])
    assert again.confirmed and again["audit"] == "written"
    assert "late" in audit_is_whole(home)
