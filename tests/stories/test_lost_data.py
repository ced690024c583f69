"""What was revoked, after the store was killed, came back without its last moment, without anything, or with
an older copy of itself (FI10 to FI13). Real servers, killed with SIGKILL."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.stories.house import House
from tests.stories.neighbours import (
    SUBJECTS,
    Knocking,
    admin_of,
    let_in,
    locked,
    neighbour,
    revoke,
    sign_in_again,
    visit,
)
from tests.stories.talking import until
from tests.worlds.servers import Server, server

SHORT = "  lease: 800ms\n  quarantine: 1s\n"
PUT_BACK = "which are in it again"
"""What a worker says that had to tell the store what it had lost."""


@pytest.fixture(scope="module")
def store() -> Iterator[Server]:
    with server() as one:
        yield one


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, store: Server) -> Iterator[House]:
    with neighbour(tmp_path_factory.mktemp("strict"), store.url, revocation=SHORT) as it:
        yield it


@pytest.fixture(scope="module")
def forgetful() -> Iterator[Server]:
    with server(appendfsync="everysec") as one:
        yield one


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory, forgetful: Server) -> Iterator[House]:
    """A house whose store may lose its last second, and whose people stay signed in when it does: so that
    who is refused is refused for what was put back, and for nothing else."""
    settings = SHORT + "  on_rollback: continue\n"
    with neighbour(tmp_path_factory.mktemp("bounded"), forgetful.url, revocation=settings) as it:
        yield it


def test_fi10_a_store_killed_right_after_it_acknowledged(home: House, store: Server) -> None:
    """Every write is on the disk before it is answered: nothing is lost, and nothing has to be put back."""
    assert admin_of(home).status()["promise"] == "strict"
    alice = home.sign_in("alice")
    for name in ("first", "second", "third"):
        wanted = [f"{name} {number}" for number in range(20)]
        for one in wanted:
            answer = admin_of(home).revoke("user", one, home.issuer)
            assert answer.confirmed and answer.promise == "strict", answer
        store.restart()
        until(lambda: let_in(home, alice))
        assert locked(home).issuperset(wanted)
    assert PUT_BACK not in home.log("proxy")


def test_fi11_a_store_that_lost_its_last_moment(bounded: House, forgetful: Server) -> None:
    """The worker that lives knows what was acknowledged in it, and says so before it lets anybody in."""
    assert admin_of(bounded).status()["promise"] == "bounded"
    alice, bob = bounded.sign_in("alice"), visit(bounded, "bob")
    assert let_in(bounded, bob.cookie)
    older = forgetful.copy()
    with Knocking(bounded, bob.cookie) as knocking:
        confirmed = revoke(bob, at=bounded)
        forgetful.restore(older)
        until(lambda: bob.session in locked(bounded))
        until(lambda: let_in(bounded, alice))
        until(lambda: 401 in knocking.begun_after(confirmed)[-1:])
    assert 200 not in knocking.begun_after(confirmed)
    assert PUT_BACK in bounded.log("proxy")


def test_fi11_only_a_journal_is_left(bounded: House, forgetful: Server) -> None:
    """Store and node are killed at once: what the node had written down is enough."""
    alice, bob = bounded.sign_in("alice"), visit(bounded, "bob")
    older = forgetful.copy()
    revoke(bob, at=bounded)
    assert bounded.process is not None
    children = bounded.children()
    bounded.stop(signal.SIGKILL)
    for pid in children:
        try_to_kill(pid)
    forgetful.restore(older)
    bounded.start()
    with Knocking(bounded, bob.cookie) as knocking:
        until(lambda: let_in(bounded, alice))
        until(lambda: 401 in knocking.begun_after(0.0))
    assert 200 not in knocking.begun_after(0.0)
    admin_of(bounded).ready()
    assert bob.session in locked(bounded)


def try_to_kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it went with its supervisor


@pytest.mark.parametrize("how", ["FLUSHALL", "restarted with nothing"])
def test_fi12_a_store_without_its_data(home: House, store: Server, how: str) -> None:
    """An empty list of what was revoked opens no door: the sessions are gone too, and it is put back."""
    alice, bob = home.sign_in("alice"), visit(home, "bob")
    with Knocking(home, alice) as hers, Knocking(home, bob.cookie) as his:
        confirmed = revoke(bob, at=home)
        if how == "FLUSHALL":
            store.ask("FLUSHALL")
        else:
            store.restart(data=False)
        until(lambda: 401 in hers.begun_after(confirmed))
        until(lambda: bob.session in locked(home))
        anew = sign_in_again(home, "alice")
        until(lambda: let_in(home, anew))
        assert home.get("/u", alice).status == 401
    assert 200 not in his.begun_after(confirmed)
    assert "the store came back with other data" in home.log("proxy")
    assert PUT_BACK in home.log("proxy")


def test_fi13_an_older_copy_of_the_store(home: House, store: Server) -> None:
    """It brings back whom it does not know to be revoked, and nobody knows how many more: everybody signs in
    again, and whoever was revoked is so still."""
    alice, bob = home.sign_in("alice"), visit(home, "bob")
    assert let_in(home, bob.cookie)
    older = store.copy()
    with Knocking(home, bob.cookie) as knocking:
        confirmed = revoke(bob, at=home)
        answer = admin_of(home).revoke("user", SUBJECTS["mallory"], home.issuer)
        assert answer.confirmed
        store.restore(older)
        until(lambda: home.get("/u", alice).status == 401)
        until(lambda: {bob.session, SUBJECTS["mallory"]} <= locked(home))
        anew = sign_in_again(home, "alice")
        until(lambda: let_in(home, anew))
        until(lambda: 401 in knocking.begun_after(confirmed)[-1:])
    assert 200 not in knocking.begun_after(confirmed)
    everybody = [lock for lock in admin_of(home).locks() if lock["target"]["kind"] == "all"]
    assert {"the store came back with an older state"} == {lock["reason"] for lock in everybody}
