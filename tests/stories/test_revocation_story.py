"""Revoking, seen from outside: two nodes on one store, whoever is told "confirmed", and nobody let in after.

Both nodes know the same sessions. What was used at a node a moment ago is cached there, what never came there
is not; a revocation asks about neither.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
from redis import Redis

from tests.stories.administering import SOCKET, TOKEN, Admin
from tests.stories.endings import audit_is_whole, request, session_of
from tests.stories.house import House
from tests.stories.neighbours import SUBJECTS, Knocking, admin_of, let_in, neighbour, sign_in_again
from tests.stories.talking import PATIENCE, Gate, until
from tests.wire.recording import OK, Line

OTHER = """\
  - from: https://app.test
    prefix: /other
    name: other
    to: http://127.0.0.1:$upstream
    allow_any_authenticated_user: true
"""


class Nodes(NamedTuple):
    here: House
    there: House


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[Nodes]:
    with (
        neighbour(tmp_path_factory.mktemp("here"), valkey_url, routes=OTHER) as here,
        neighbour(tmp_path_factory.mktemp("there"), valkey_url, here, routes=OTHER) as there,
    ):
        yield Nodes(here, there)
    for node in (here, there):
        audit_is_whole(node)


def refused(home: House, cookie: str, path: str = "/u") -> bool:
    """Whether a session has ended; of one whose record is cleared away already, nobody knows any more why."""
    answer = home.get(path, cookie)
    return answer.status == 401 and (b"session_revoked" in answer.body or b"session_unknown" in answer.body)


def revoke(home: House, person: str, at: House) -> float:
    """Ends every session that a person has by the provider of `home`; the moment at which that was
    confirmed."""
    answer = admin_of(at).revoke("user", SUBJECTS[person], home.issuer)
    moment = time.monotonic()
    assert answer.confirmed, answer
    return moment


def shown(home: House, cookie: str) -> dict[str, Any]:
    """A session as the administration shows it."""
    return admin_of(home).ask("GET", f"/sessions/{session_of(home, cookie)}").body


# -- whom it meets ----------------------------------------------------------------------------------------

Aim = Callable[[dict[str, Any]], tuple[str, str, str]]
"""(kind, name, issuer) of a target, for the first of Alice's sessions."""


@pytest.mark.parametrize(
    ("aim", "ended"),
    [
        pytest.param(lambda one: ("session", one["id"], ""), "1", id="V01 a session"),
        pytest.param(
            lambda one: ("user", one["user"]["subject"], one["user"]["issuer"]), "12", id="V02 a person"
        ),
        pytest.param(
            lambda one: ("idp_session", one["idp_session"], one["user"]["issuer"]),
            "1",
            id="V03 a session at the provider",
        ),
        pytest.param(lambda one: ("device", "no-such-device", ""), "", id="V04 a device nobody has"),
        pytest.param(lambda one: ("group", one["user"]["groups"][0], ""), "12", id="V05 a group"),
        pytest.param(lambda one: ("all", "", ""), "12b", id="V06 all"),
        pytest.param(
            lambda one: ("user", one["user"]["subject"], "https://other.test"),
            "",
            id="T10 the same name at another provider",
        ),
        pytest.param(lambda one: ("user", "*", one["user"]["issuer"]), "", id="A17 a pattern"),
        pytest.param(lambda one: ("session", one["id"][:-1], ""), "", id="A18 an id cut short"),
    ],
)
def test_whom_a_revocation_meets(nodes: Nodes, aim: Aim, ended: str) -> None:
    """At both nodes, on new connections and on kept ones, cached or not; and nobody else."""
    here, there = nodes
    bob = sign_in_again(here, "bob")
    people = {"1": sign_in_again(here, "alice"), "2": here.sign_in("alice"), "b": bob}
    known = people["1"], people["b"]
    for cookie in known:
        assert let_in(here, cookie) and let_in(there, cookie)
    with here.wire() as kept, there.wire("tls") as kept_there:
        get = request(people["1"])
        assert kept.send(get).ok().startswith(b"HTTP/1.1 200 ")
        assert kept_there.send(get).ok().startswith(b"HTTP/1.1 200 ")
        kind, name, issuer = aim(shown(here, people["1"]))
        answer = admin_of(there).revoke(kind, name, issuer, reason="a story")
        assert answer.confirmed, answer
        status = b"HTTP/1.1 401 " if "1" in ended else b"HTTP/1.1 200 "
        assert kept.send(get).until(b"\r\n\r\n").startswith(status)
        assert kept_there.send(get).until(b"\r\n\r\n").startswith(status)
    for node in nodes:
        for person, cookie in people.items():
            assert refused(node, cookie) if person in ended else let_in(node, cookie), (person, node)
            assert node.get("/public/x", cookie).status == 200, "as a stranger"
    # Whoever signs in again is somebody new; the old cookie does not come back with them (INV-5).
    again = sign_in_again(here, "alice")
    for node in nodes:
        assert let_in(node, again)
        assert "1" not in ended or refused(node, people["1"])


def test_a_route_alone(nodes: Nodes) -> None:
    """Sessions from before are worth nothing there, and everything elsewhere."""
    here, there = nodes
    alice = sign_in_again(here, "alice")
    assert here.get("/other/x", alice).status == there.get("/other/x", alice).status == 200
    assert admin_of(here).revoke("route", "other").confirmed
    for node in nodes:
        assert refused(node, alice, "/other/x")
        assert let_in(node, alice)
    again = sign_in_again(there, "alice")
    assert here.get("/other/x", again).status == there.get("/other/x", again).status == 200


# -- while it happens -------------------------------------------------------------------------------------


class Asked(NamedTuple):
    began: float
    status: int


async def asking(home: House, data: bytes, over: threading.Event, heard: list[Asked]) -> None:
    """Asks again and again, each time on a new connection."""
    while not over.is_set():
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", home.ports["plain"])
        writer.write(data)
        answer = await reader.read(65536)
        heard.append(Asked(began, int(answer[9:12] or b"0")))
        writer.transport.abort()


@pytest.mark.parametrize("kind", ["session", "user"])
def test_v07_two_hundred_requests_under_way(nodes: Nodes, kind: str) -> None:
    """Half at each node, held by the app; and a crowd that goes on asking for the same session meanwhile."""
    here, there = nodes
    alice = sign_in_again(there, "alice")
    one = shown(there, alice)
    names = {"session": (one["id"], ""), "user": (one["user"]["subject"], one["user"]["issuer"])}
    over, heard = threading.Event(), list[Asked]()
    gates = [node.shut_gate() for node in nodes]

    def holding(gate: Gate) -> Callable[[Line, bytes], Awaitable[None]]:
        async def play(line: Line, request: bytes) -> None:
            if request.startswith(b"GET /held "):
                await gate.wait()
            await line.send(OK)

        return play

    marks = [len(node.app.requests) for node in nodes]

    async def story() -> tuple[float, list[bytes]]:
        get, held = request(alice), request(alice, "/held")
        ports = [node.ports["plain"] for node in nodes] * 100
        wires = [await asyncio.open_connection("127.0.0.1", port) for port in ports]
        for _, writer in wires:
            writer.write(held)
        crowd = [asyncio.create_task(asking(node, get, over, heard)) for node in (*nodes, *nodes)]
        while waiting() < 200 or sum(one.status == 200 for one in heard) < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        answer = await asyncio.to_thread(admin_of(here).revoke, kind, *names[kind])
        confirmed = time.monotonic()
        assert answer.confirmed, answer
        for gate in gates:
            gate.open()
        told = await asyncio.gather(*(reader.read() for reader, _ in wires))
        while sum(one.began > confirmed for one in heard) < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        over.set()
        await asyncio.gather(*crowd)
        for _, writer in wires:
            writer.close()
        return confirmed, told

    def waiting() -> int:
        asked = (*here.app.requests[marks[0] :], *there.app.requests[marks[1] :])
        return sum(one.startswith(b"GET /held ") for one in asked)

    with here.app.playing(holding(gates[0])), there.app.playing(holding(gates[1])):
        confirmed, told = asyncio.run(asyncio.wait_for(story(), PATIENCE * 2))
    assert {answer[9:12] for answer in told} == {b"401"}
    assert all(b"\r\nConnection: close\r\n" in answer for answer in told)
    assert {one.status for one in heard if one.began > confirmed} == {401}


def test_v12_what_is_used_while_it_ends_does_not_come_back(nodes: Nodes) -> None:
    """The other node reads, and so touches, thirty sessions for the first time while they are revoked."""
    here, there = nodes
    cookies = [sign_in_again(here, "bob"), *(here.sign_in("bob") for _ in range(29))]
    admin = admin_of(here)
    whom = ("user", SUBJECTS["bob"], here.issuer)
    assert len(admin.sessions(*whom)) >= len(cookies)
    with ThreadPoolExecutor(8) as crowd:
        asked = [crowd.submit(there.get, "/u", cookie) for cookie in cookies * 3]
        until(lambda: any(one.done() for one in asked))
        confirmed = revoke(here, "bob", at=here)
        assert {one.result().status for one in asked} <= {200, 401}
    until(lambda: admin.sessions(*whom) == [])
    began = time.monotonic()
    assert began > confirmed
    for cookie in cookies:
        assert there.get("/u", cookie).status == here.get("/u", cookie).status == 401
    assert admin.sessions(*whom) == [], "a touch brought one back"


def test_v23_a_burst(nodes: Nodes) -> None:
    """Four administrators at once; each is confirmed, and others are served meanwhile."""
    here, there = nodes
    alice, bobs = sign_in_again(here, "alice"), [sign_in_again(here, "bob") for _ in range(4)]
    office = [administrator(here, f"burst-{number}") for number in range(4)]
    targets = [{"kind": "session", "name": f"nobody-{number}"} for number in range(246)]
    targets[100:100] = [{"kind": "session", "name": session_of(here, cookie)} for cookie in bobs]

    def one(number: int) -> Any:
        return office[number % 4].ask("POST", "/revocations", {"target": targets[number]})

    with Knocking(there, alice) as knocking:
        began = time.monotonic()
        with ThreadPoolExecutor(16) as crowd:
            answers = list(crowd.map(one, range(len(targets))))
    assert {(answer.status, answer["confirmed"]) for answer in answers} == {(200, True)}
    assert len({answer["number"] for answer in answers}) == len(targets) == 250
    assert {answer["matched"] for answer in answers} == {0, 1}
    assert all(refused(node, cookie) for node in nodes for cookie in bobs)
    assert knocking.begun_after(began) and {knock.status for knock in knocking.knocks} == {200}


def administrator(home: House, name: str) -> Admin:
    """Somebody with a token of their own, who may ask as often as everybody else."""
    made = admin_of(home).ask("POST", "/tokens", {"name": name, "role": "admin", "expires_in": 600})
    home.seen(made["secret"])
    desk = home.directory / name
    desk.mkdir()
    (desk / TOKEN).write_text(made["secret"])
    (desk / SOCKET).symlink_to(home.directory / "state" / SOCKET)
    return Admin(desk)


# -- once, however often it is asked ----------------------------------------------------------------------


def test_v24_the_same_key_and_another(nodes: Nodes) -> None:
    here, there = nodes
    admin, whom = admin_of(here), ("user", SUBJECTS["bob"], here.issuer)
    first = sign_in_again(here, "bob")
    told = admin.revoke(*whom, key="laptop-1")
    assert told.confirmed and refused(there, first)
    second = sign_in_again(here, "bob")
    # Asked again, it is what was asked before: the session that began since goes on.
    repeated = admin.revoke(*whom, key="laptop-1")
    assert repeated.confirmed and (repeated["id"], repeated["number"]) == (told["id"], told["number"])
    assert let_in(here, second) and let_in(there, second)
    other = admin.revoke("user", SUBJECTS["alice"], here.issuer, key="laptop-1")
    assert (other.status, other.problem) == (422, "idempotency_mismatch")
    anew = admin.revoke(*whom, key="laptop-2")
    assert anew.confirmed and anew["number"] > told["number"]
    assert refused(here, second) and refused(there, second)
    assert [lock["number"] for lock in admin.locks()].count(told["number"]) == 1


# -- workers and the channel that tells them --------------------------------------------------------------
# Last: for two minutes after a worker was killed each confirmation waits for its lease to be over.


def test_v13_a_worker_that_is_killed_meanwhile(nodes: Nodes) -> None:
    """Its lease is waited out, and the one that starts in its place has never heard of the session but for
    the log."""
    here, there = nodes
    bob, alice = sign_in_again(there, "bob"), sign_in_again(there, "alice")
    (worker,) = there.workers()
    with Knocking(there, bob) as knocking:
        until(lambda: 200 in knocking.begun_after(0.0))
        os.kill(worker, signal.SIGSTOP)  # so that it cannot have heard of the revocation
        newest = admin_of(here).locks()[0]["number"]
        with ThreadPoolExecutor(1) as office:
            pending = office.submit(revoke, there, "bob", at=here)
            try:
                until(lambda: admin_of(here).locks()[0]["number"] > newest)
                assert not pending.done(), "confirmed before it was heard"
            finally:
                os.kill(worker, signal.SIGKILL)
            confirmed = pending.result()
        until(lambda: 401 in knocking.begun_after(confirmed))
    assert 200 not in knocking.begun_after(confirmed)
    assert there.workers() != [worker]
    until(lambda: let_in(there, alice))


def test_v13_a_worker_that_starts_meanwhile(nodes: Nodes) -> None:
    """Killed first: the new one's first question to the log and the revocation go by each other."""
    here, there = nodes
    bob = sign_in_again(there, "bob")
    assert let_in(there, bob)
    (worker,) = there.workers()
    os.kill(worker, signal.SIGKILL)
    with Knocking(there, bob) as knocking:
        until(lambda: there.workers() not in ([], [worker]))
        confirmed = revoke(there, "bob", at=here)
        until(lambda: 401 in knocking.begun_after(confirmed))
    assert 200 not in knocking.begun_after(confirmed)


def test_v16_nobody_is_told_at_once(nodes: Nodes, valkey_url: str) -> None:
    """Without the channel that only makes it quicker: each worker asks for itself, and the answer waits."""
    here, there = nodes
    bob = sign_in_again(here, "bob")
    assert let_in(here, bob) and let_in(there, bob)

    def pushed() -> set[float]:
        return {node.metric("ztproxy_revocation_push_connected") for node in nodes}

    until(lambda: pushed() == {1})
    with Redis.from_url(valkey_url) as store:
        store.execute_command("ACL", "SETUSER", "default", "-xread")
        try:
            for client in store.client_list():
                if client["cmd"] == "xread":
                    store.client_kill_filter(_id=client["id"])
            until(lambda: pushed() == {0})
            with Knocking(there, bob) as knocking:
                until(lambda: 200 in knocking.begun_after(0.0))
                confirmed = revoke(here, "bob", at=here)
                until(lambda: 401 in knocking.begun_after(confirmed))
            assert 200 not in knocking.begun_after(confirmed)
        finally:
            store.execute_command("ACL", "SETUSER", "default", "+xread")
    until(lambda: pushed() == {1})
