"""A store that answers, but not as it should: refusals of all kinds, records somebody else wrote, settings
nobody may rely on, a server that is busy with itself (FI20 to FI24). What is forced here is forced on a real
server; its clock alone cannot be (FI23), which is why the model of leases moves it instead."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from tests.stories.house import House
from tests.stories.neighbours import admin_of, let_in, neighbour, refused_politely, visit
from tests.stories.talking import PATIENCE, until
from tests.worlds.servers import HOST, Server, server

RECORDS = "{ztp}:s:"


@pytest.fixture(scope="module")
def store() -> Iterator[Server]:
    with server() as one:
        yield one


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, store: Server) -> Iterator[House]:
    with neighbour(tmp_path_factory.mktemp("answers"), store.url) as it:
        yield it


@pytest.fixture(scope="module")
def alice(home: House) -> str:
    return home.sign_in("alice")


@pytest.fixture
def console(store: Server) -> Iterator[Redis]:
    """A connection that is there before anything is refused."""
    with contextlib.closing(Redis(HOST, store.port)) as one:
        assert one.ping()
        yield one


def occupy(store: Server, words: tuple[str, ...]) -> None:
    with contextlib.suppress(OSError):
        store.ask(*words)


# -- refusals ---------------------------------------------------------------------------------------------


def out_of_memory(console: Redis, store: Server) -> Callable[[], object]:
    console.config_set("maxmemory", 1)
    return lambda: console.config_set("maxmemory", 0)


def disk_full(console: Redis, store: Server) -> Callable[[], object]:
    """A snapshot that cannot be put in its place, because a directory is there."""
    (store.directory / "dump.rdb").mkdir(exist_ok=True)
    console.config_set("save", "3600 1")
    console.bgsave()
    until(lambda: console.info("persistence")["rdb_last_bgsave_status"] == "err")
    return lambda: console.config_set("save", "")


def a_replica(console: Redis, store: Server) -> Callable[[], object]:
    console.replicaof(HOST, 1)
    return lambda: console.replicaof("NO", "ONE")


def no_replicas(console: Redis, store: Server) -> Callable[[], object]:
    console.config_set("min-replicas-to-write", 1)
    return lambda: console.config_set("min-replicas-to-write", 0)


def a_password(console: Redis, store: Server) -> Callable[[], object]:
    console.config_set("requirepass", "let nobody in")
    console.client_kill_filter(_type="normal", skipme=True)
    return lambda: console.config_set("requirepass", "")


def no_scripts(console: Redis, store: Server) -> Callable[[], object]:
    store.ask("ACL", "SETUSER", "default", "-eval", "-evalsha")
    return lambda: store.ask("ACL", "SETUSER", "default", "+@all")


def loading(console: Redis, store: Server) -> Callable[[], object]:
    """As after a restart of a large one: it reads its file anew, and takes its time."""
    store.ask("EVAL", "for i = 1, 8000 do redis.call('SET', 'junk' .. i, i) end", "0")
    console.config_set("key-load-delay", 500)
    reading = threading.Thread(target=occupy, args=(store, ("DEBUG", "LOADAOF")))
    reading.start()

    def read() -> None:
        reading.join()
        console.config_set("key-load-delay", 0)

    return read


@pytest.mark.parametrize(
    ("refuse", "label"),
    [
        pytest.param(out_of_memory, "oom", id="OOM"),
        pytest.param(disk_full, "misconf", id="MISCONF"),
        pytest.param(a_replica, "readonly", id="READONLY"),
        pytest.param(no_replicas, "noreplicas", id="NOREPLICAS"),
        pytest.param(a_password, "auth", id="NOAUTH"),
        pytest.param(no_scripts, "noperm", id="NOPERM"),
        pytest.param(loading, "loading", id="LOADING"),
    ],
)
def test_fi21_each_refusal_closes_the_door_and_says_why(
    home: House,
    alice: str,
    store: Server,
    console: Redis,
    refuse: Callable[[Redis, Server], Callable[[], object]],
    label: str,
) -> None:
    until(lambda: let_in(home, alice))
    heal = refuse(console, store)
    try:
        until(lambda: refused_politely(home, alice))
        until(lambda: home.operations("/readyz").status == 503)
        answer = admin_of(home).revoke("user", "nobody", home.issuer)
        assert (answer.status, answer.problem) == (503, "not_applied")
        until(lambda: f"state: {label}\n" in home.log("proxy"))
    finally:
        heal()
    until(lambda: let_in(home, alice))


# -- records that somebody else wrote -----------------------------------------------------------------------


def test_fi20_a_record_that_another_wrote(home: House, alice: str, console: Redis) -> None:
    """Bob's session, moved to where Alice's is: sealed by us, for another place. She signs in again."""
    hers = visit(home, "carol")
    his = visit(home, "bob")
    kept = console.hget(RECORDS + hers.session, "s")
    assert isinstance(kept, bytes) and let_in(home, hers.cookie)
    for forged in (console.hget(RECORDS + his.session, "s"), b"\x00" * len(kept), b""):
        console.hset(RECORDS + hers.session, "s", forged)
        until(lambda: home.get("/u", hers.cookie).status == 401)
        console.hset(RECORDS + hers.session, "s", kept)
        until(lambda: let_in(home, hers.cookie))
    assert f"CRITICAL ztproxy.state: the seal at `{RECORDS}{hers.session}:s:" in home.log("proxy")
    assert let_in(home, alice)


def test_fi20_an_entry_that_another_wrote(home: House, alice: str, console: Redis) -> None:
    """Who can write to the log cannot take back anything by it: everybody signs in anew."""
    until(lambda: let_in(home, alice))
    bob = visit(home, "bob")
    assert admin_of(home).revoke("session", bob.session).confirmed
    console.incr("{ztp}:seq")
    number = console.get("{ztp}:seq")
    assert isinstance(number, bytes)
    console.xadd("{ztp}:rev", {"i": "0" * 64, "e": "nobody sealed this", "t": 0}, id=number + b"-0")
    until(lambda: home.get("/u", alice).status == 401)
    assert home.get("/u", bob.cookie).status == 401
    assert f"entry {int(number)} of the revocation log is sealed by somebody else" in home.log("proxy")


# -- a server that is busy with itself ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "busy",
    [
        pytest.param(("EVAL", "while true do end", "0"), id="a script without an end"),
        pytest.param(("DEBUG", "SLEEP", "3"), id="asleep"),
    ],
)
def test_fi24_a_server_that_has_no_time(
    home: House, store: Server, console: Redis, busy: tuple[str, ...]
) -> None:
    """As one that is too slow (FI05): closed, not open on old facts."""
    alice = home.sign_in("alice")
    console.config_set("busy-reply-threshold", 200)
    occupying = threading.Thread(target=occupy, args=(store, busy))
    occupying.start()
    try:
        until(lambda: refused_politely(home, alice))
    finally:
        if busy[0] == "EVAL":
            until(lambda: "OK" in store.ask("SCRIPT", "KILL"))
        occupying.join()
    until(lambda: let_in(home, alice))


# -- a server that may forget -------------------------------------------------------------------------------


def test_fi22_a_server_that_may_drop_anything_is_not_relied_on(
    home: House, store: Server, console: Redis
) -> None:
    """Neither when it is there at the start, nor when it comes later."""
    alice = home.sign_in("alice")
    assert home.stop() == 0
    console.config_set("maxmemory-policy", "allkeys-lru")
    store.options["maxmemory-policy"] = "allkeys-lru"
    with (home.directory / "proxy.log").open("ab") as log:
        proxy = subprocess.Popen(
            [sys.executable, "-m", "ztproxy.cli", "run", str(home.config)], stdout=log, stderr=log
        )
    try:
        said = "maxmemory-policy `allkeys-lru` and may drop revocations"
        until(lambda: said in home.log("proxy"))
        assert home.operations("/readyz").status == 503
        with pytest.raises(OSError):
            home.get("/public/x")
    finally:
        proxy.terminate()
        proxy.wait(PATIENCE)

    store.kill()
    home.start()
    assert refused_politely(home, alice)
    store.start()
    until(lambda: said.encode() in home.operations("/readyz").body)
    assert refused_politely(home, alice)
    assert home.operations("/readyz").status == 503
