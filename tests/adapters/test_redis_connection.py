"""State URLs, what a server can answer or fail to, and the real thing killed, stopped and back again."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import trustme
import uvloop
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from tests.adapters.state_worlds import ALICE, KEY_A, LIMITS, SECRETS
from tests.worlds.fault_proxy import FaultProxy, fault_proxy
from ztproxy.adapters.embedded_valkey import EmbeddedValkey, _binary
from ztproxy.adapters.redis_connection import check_state, command, connect, kind_of, ping, translate
from ztproxy.adapters.redis_one_time import RedisLocks, RedisOneTime
from ztproxy.adapters.redis_sessions import RedisSessions
from ztproxy.adapters.sealing import Sealer
from ztproxy.core.reasons import Reason
from ztproxy.errors import OperatorError, WorldError


def settings(client: Any) -> dict[str, Any]:
    return dict(client.connection_pool.connection_kwargs)


# ── URLs ──


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param("redis://", {"host": "localhost", "port": 6379, "db": 0}, id="shortest"),
        pytest.param("redis://r.test:6380/2", {"host": "r.test", "port": 6380, "db": 2}, id="port-and-db"),
        pytest.param("redis://[::1]:6380", {"host": "::1", "port": 6380}, id="ipv6"),
        pytest.param("redis://u:p%40ss@r.test", {"username": "u", "password": "p@ss"}, id="user"),
        pytest.param("redis://:pw@r.test", {"password": "pw"}, id="password-alone"),
        pytest.param(
            "rediss://r.test?ca=/etc/ca.pem",
            {"ssl_ca_certs": "/etc/ca.pem", "ssl_cert_reqs": "required", "ssl_check_hostname": True},
            id="tls",
        ),
        pytest.param("unix:///run/v.sock?db=3", {"path": "/run/v.sock", "db": 3}, id="unix"),
        pytest.param("unix:///run/with%20space.sock", {"path": "/run/with space.sock"}, id="unix-escaped"),
        pytest.param("unix://u:pw@/run/v.sock", {"username": "u", "password": "pw"}, id="unix-user"),
        pytest.param(
            "redis+sentinel://u:pw@a.test,b.test:26380/primary/4",
            {"username": "u", "password": "pw", "db": 4},
            id="sentinel",
        ),
    ],
)
def test_a_url_is_read_and_every_wait_is_bounded(url: str, expected: dict[str, Any]) -> None:
    given = settings(connect(url))
    assert given | expected == given
    assert given["socket_timeout"] == given["socket_connect_timeout"] == 1.0
    assert given["retry"]._retries == 1
    assert not given.get("decode_responses", False)


CLUSTER = "redis+cluster://u:p%40ss@a.test,[::1]:7001"


async def test_a_cluster_is_entered_by_any_of_its_hosts() -> None:
    client: Any = connect(CLUSTER, timeout=0.3, connections=5)
    assert kind_of(client) == "cluster"
    assert [(node.host, node.port) for node in client.startup_nodes] == [("a.test", 6379), ("::1", 7001)]
    given = client.connection_kwargs
    assert (given["username"], given["password"], given["max_connections"]) == ("u", "p@ss", 5)
    assert given["socket_timeout"] == given["socket_connect_timeout"] == 0.3
    assert client.read_from_replicas is False


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        pytest.param("redis://r.test", "standalone", id="redis"),
        pytest.param("unix:///run/v.sock", "standalone", id="unix"),
        pytest.param("redis+sentinel://a.test/main", "sentinel", id="sentinel"),
    ],
)
def test_the_bounds_can_be_chosen(url: str, kind: str) -> None:
    client = connect(url, timeout=0.25, connections=3, retries=0)
    assert kind_of(client) == kind
    given = settings(client)
    assert given["socket_timeout"] == given["socket_connect_timeout"] == 0.25
    assert client.connection_pool.max_connections == 3
    assert given["retry"]._retries == 0


async def test_many_at_once_on_a_cluster_nobody_has_asked_yet(cluster_url: str) -> None:
    for _ in range(5):
        client = connect(cluster_url)
        answers = await asyncio.gather(*(command(client, "GET", f"{{ztp}}:{n}") for n in range(30)))
        assert answers == [None] * 30
        await client.aclose()


def test_sentinels_are_all_asked() -> None:
    client = connect("redis+sentinel://a.test,[::1]:26380/primary")
    manager: Any = client.connection_pool.sentinel_manager  # type: ignore[attr-defined]
    asked = [settings(sentinel) for sentinel in manager.sentinels]
    assert [(each["host"], each["port"]) for each in asked] == [("a.test", 26379), ("::1", 26380)]
    assert all(each["socket_timeout"] == 1.0 for each in asked)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        pytest.param("", "unknown scheme ``", id="empty"),
        pytest.param("http://r.test", "unknown scheme `http`, write redis://", id="http"),
        pytest.param("redis://r.test/zero", "cannot be read", id="db-text"),
        pytest.param("redis://r.test/99999", "cannot be read", id="db-large"),
        pytest.param("redis://r.test:port", "cannot be read", id="port-text"),
        pytest.param("redis://r.test:99999", "cannot be read", id="port-large"),
        pytest.param("redis://r.test?socket_timeout=60", "unknown option `socket_timeout`", id="option"),
        pytest.param("redis://r.test?ca=/x", "unknown option `ca`", id="ca-without-tls"),
        pytest.param("rediss://r.test?ssl_cert_reqs=none", "unknown option `ssl_cert_reqs`", id="no-verify"),
        pytest.param("redis://r.test?db", "cannot be read", id="broken-query"),
        pytest.param("unix://", "cannot be read", id="unix-without-path"),
        pytest.param("unix://state/v.sock", "cannot be read", id="unix-relative"),
        pytest.param("redis+sentinel://a.test", "names no primary", id="sentinel-without-name"),
        pytest.param("redis+cluster://a.test/1", "of a cluster names a database", id="cluster-with-database"),
        pytest.param("redis+cluster://a.test/?db=1", "unknown option `db`", id="cluster-option"),
        pytest.param("redis+cluster://", "cannot be read", id="cluster-without-hosts"),
        pytest.param("redis+cluster://a.test,,b.test", "cannot be read", id="cluster-with-a-hole"),
        pytest.param("redis+sentinel:///primary", "cannot be read", id="sentinel-without-host"),
        pytest.param("redis+sentinel://a.test,,b.test/primary", "cannot be read", id="sentinel-empty-host"),
        pytest.param("redis+sentinel://a.test:x/primary", "cannot be read", id="sentinel-port"),
        pytest.param("redis://[::1", "cannot be read", id="bracket"),
    ],
)
def test_a_wrong_url_is_the_operators_error(url: str, message: str) -> None:
    with pytest.raises(OperatorError) as caught:
        connect(url)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2@r.test:port",
        "redis://user:hunter2@r.test/x",
        "redis+sentinel://user:hunter2@a.test",
        "postgres://user:hunter2@r.test",
        "redis://user:hunter2@r.test?x=hunter2",
    ],
)
def test_no_error_shows_the_password(url: str) -> None:
    with pytest.raises(OperatorError) as caught:
        connect(url)
    assert "hunter2" not in str(caught.value)


# ── what a server can say (FI21) ──


@asynccontextmanager
async def server_that_says(answer: bytes) -> AsyncIterator[Redis]:
    """A server on a unix socket that gives `answer` to every command, and the client that asks it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            writer.write(answer)
        writer.close()

    with tempfile.TemporaryDirectory(prefix="ztproxy-test-") as directory:
        path = f"{directory}/s"
        async with await asyncio.start_unix_server(serve, path):
            client = connect(f"unix://{path}")
            yield client
            await client.aclose()


SAID = [
    pytest.param(b"-READONLY You can't write against a read only replica.\r\n", "readonly", id="readonly"),
    pytest.param(b"-LOADING Valkey is loading the dataset in memory\r\n", "loading", id="loading"),
    pytest.param(b"-MISCONF Errors writing to the AOF file\r\n", "misconf", id="misconf"),
    pytest.param(b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "oom", id="oom"),
    pytest.param(b"-NOREPLICAS Not enough good replicas to write.\r\n", "noreplicas", id="noreplicas"),
    pytest.param(b"-NOAUTH Authentication required.\r\n", "auth", id="noauth"),
    pytest.param(
        b"-ERR Protocol error: unauthenticated multibulk length\r\n", "auth", id="noauth-to-many-words"
    ),
    pytest.param(b"-WRONGPASS invalid username-password pair\r\n", "auth", id="wrongpass"),
    pytest.param(b"-NOPERM this user has no permissions\r\n", "noperm", id="noperm"),
    pytest.param(b"-CLUSTERDOWN The cluster is down\r\n", "cluster", id="clusterdown"),
    pytest.param(b"-TRYAGAIN Multiple keys request during rehashing\r\n", "cluster", id="tryagain"),
    pytest.param(b"-MOVED 3999 127.0.0.1:6381\r\n", "cluster", id="moved"),
    pytest.param(b"-CROSSSLOT Keys in request don't hash\r\n", "cluster", id="crossslot"),
    pytest.param(b"-MASTERDOWN Link with MASTER is down\r\n", "readonly", id="masterdown"),
    pytest.param(b"-BUSY Valkey is busy running a script.\r\n", "busy", id="busy"),
    pytest.param(b"-WRONGTYPE Operation against a key\r\n", "wrongtype", id="wrongtype"),
    pytest.param(
        b"-ERR Error running script (call to f_1): @user_script:8: @user_script: 8: -NOREPLICAS Not\r\n",
        "noreplicas",
        id="noreplicas-in-a-script-of-redis-6",
    ),
    pytest.param(b"-ERR max number of clients reached\r\n", "unreachable", id="max-clients"),
    pytest.param(b"-ERR something with hunter2 in it\r\n", "error", id="other"),
    pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", "error", id="not-redis"),
]


@pytest.mark.parametrize(("answer", "label"), SAID)
async def test_each_refusal_of_the_server_has_its_label(answer: bytes, label: str) -> None:
    async with server_that_says(answer) as client:
        with pytest.raises(WorldError) as caught:
            await command(client, "GET", "hunter2")
    assert caught.value.reason is Reason.STATE_UNAVAILABLE
    assert str(caught.value) == f"state: {label}"
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(("answer", "label"), SAID)
async def test_the_stores_let_nothing_else_through(answer: bytes, label: str) -> None:
    async with server_that_says(answer) as client:
        sealer = Sealer([KEY_A])
        store, one_time = RedisSessions(client, sealer, LIMITS), RedisOneTime(client, sealer)
        for call in (
            store.load("A" * 43),
            store.create(ALICE, SECRETS, "app.test", None),
            store.end("A" * 43),
            one_time.put("tx", "key", b"value", 60.0),
            one_time.take("tx", "key"),
            RedisLocks(client).acquire("name", 1.0),
            ping(client),
        ):
            with pytest.raises(WorldError) as caught:
                await call
            assert str(caught.value) == f"state: {label}"


async def test_a_server_that_hangs_up_is_unreachable() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    with tempfile.TemporaryDirectory(prefix="ztproxy-test-") as directory:
        async with await asyncio.start_unix_server(hang_up, f"{directory}/s"):
            client = connect(f"unix://{directory}/s")
            with pytest.raises(WorldError, match="state: unreachable"):
                await ping(client)
            await client.aclose()


def test_fi08_on_uvloop_a_connection_that_was_reset_is_one_too(valkey_url: str) -> None:
    """It has another word for writing to one, which is neither redis-py's nor an `OSError`."""

    async def asking(network: FaultProxy) -> list[str]:
        said = []
        client = connect(f"redis://127.0.0.1:{network.port}", retries=0)
        for number in range(40):
            try:
                await asyncio.gather(*(ping(client) for _ in range(5)))
            except WorldError as error:
                said.append(str(error))
            network.reset()
            await asyncio.sleep(0.001 * (number % 10))
        await client.aclose()
        return said

    with fault_proxy(unquote(valkey_url.removeprefix("unix://"))) as network:
        said = uvloop.run(asking(network))
    assert set(said) == {"state: unreachable"}


@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster"])
async def test_nobody_there_is_unreachable(scheme: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        name = "/primary" if "sentinel" in scheme else ""
        client = connect(f"{scheme}://127.0.0.1:{port}{name}")
        label = {"redis": "unreachable", "redis+sentinel": "no_primary", "redis+cluster": "cluster"}[scheme]
        with pytest.raises(WorldError, match=f"state: {label}$"):
            await ping(client)
        await client.aclose()


@pytest.mark.parametrize("kind", [ValueError, KeyError, OperatorError, asyncio.CancelledError])
def test_our_own_errors_pass(kind: type[BaseException]) -> None:
    with pytest.raises(kind), translate():
        raise kind("ours")


@pytest.mark.parametrize(
    "kind", [RedisError, ResponseError, ConnectionResetError, TimeoutError, socket.gaierror]
)
def test_the_worlds_errors_are_translated(kind: type[Exception]) -> None:
    with pytest.raises(WorldError, match=r"^state: [a-z_]+$"), translate():
        raise kind("hunter2")


# ── check_state (FI22) ──


async def test_every_primary_of_a_cluster_is_looked_at(cluster_client: Any) -> None:
    await check_state(cluster_client)
    *_, last = cluster_client.get_primaries()
    await cluster_client.config_set("maxmemory-policy", "allkeys-lru", target_nodes=last)
    try:
        with pytest.raises(OperatorError, match="`allkeys-lru` and may drop"):
            await check_state(cluster_client)
    finally:
        await cluster_client.config_set("maxmemory-policy", "noeviction", target_nodes=last)


@pytest.mark.parametrize(
    "policy", ["noeviction", "volatile-lru", "volatile-ttl", "allkeys-lru", "allkeys-random", "allkeys-lfu"]
)
async def test_a_policy_that_drops_any_key_is_refused(state_client: Redis, policy: str) -> None:
    await state_client.config_set("maxmemory-policy", policy)
    try:
        if policy.startswith("allkeys"):
            with pytest.raises(OperatorError, match=f"`{policy}` and may drop revocations, set it to"):
                await check_state(state_client)
        else:
            await check_state(state_client)
    finally:
        await state_client.config_set("maxmemory-policy", "noeviction")


async def test_a_server_that_hides_its_policy_is_used_with_a_warning(
    state_client: Redis, valkey_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    execute: Any = state_client.execute_command
    await execute("ACL", "SETUSER", "small", "on", ">pw", "~ztp:*", "+@all", "-config")
    client = connect(valkey_url.replace("unix://", "unix://small:pw@"))
    try:
        await check_state(client)
        assert "does not show maxmemory-policy" in caplog.text
        with pytest.raises(WorldError, match="state: noperm"):
            await command(client, "GET", "other:key")
    finally:
        await client.aclose()
        await execute("ACL", "DELUSER", "small")


async def test_a_wrong_password_is_named_as_such_and_not_shown(valkey_url: str) -> None:
    client = connect(valkey_url.replace("unix://", "unix://nobody:hunter2@"))
    with pytest.raises(WorldError) as caught:
        await ping(client)
    assert str(caught.value) == "state: auth"
    await client.aclose()


@pytest.mark.parametrize("version", [b"5.0.14", b"6.0.16", b"unknown"])
async def test_an_old_server_is_refused(version: bytes) -> None:
    text = b"redis_version:" + version
    async with server_that_says(b"$%d\r\n%s\r\n" % (len(text), text)) as client:
        with pytest.raises(OperatorError, match=r"use Redis 6\.2 or later, or Valkey"):
            await check_state(client)


# ── the real server, killed and stopped ──


@pytest.fixture
def server() -> Iterator[EmbeddedValkey]:
    directory = tempfile.TemporaryDirectory(prefix="ztproxy-test-")
    with directory, EmbeddedValkey(Path(directory.name)) as started:
        yield started


async def test_a_killed_server_is_a_503_and_its_sessions_come_back(
    server: EmbeddedValkey,
) -> None:
    client = connect(server.url)
    sessions = RedisSessions(client, Sealer([KEY_A]), LIMITS)
    handle = await sessions.create(ALICE, SECRETS, "app.test", None)
    seen = await sessions.load(handle)
    assert seen is not None
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    for _ in range(3):
        with pytest.raises(WorldError, match="state: unreachable"):
            await sessions.load(handle)
        with pytest.raises(WorldError, match="state: unreachable"):
            await sessions.load(handle, seen.bookmark)
    server.stop()
    server.start()
    # the same client, and at the first try: the dead connection is replaced
    loaded = await sessions.load(handle, seen.bookmark)
    assert loaded is not None
    assert loaded.session == seen.session
    assert await sessions.touch(handle) is True  # the scripts come back too
    await client.aclose()


async def test_a_restart_between_two_commands_is_not_noticed(server: EmbeddedValkey) -> None:
    client = connect(server.url)
    sessions = RedisSessions(client, Sealer([KEY_A]), LIMITS)
    handle = await sessions.create(ALICE, SECRETS, "app.test", None)
    server.stop()
    server.start()
    assert await sessions.load(handle) is not None
    await client.aclose()


async def test_a_stopped_server_is_a_time_out_and_then_serves_again(server: EmbeddedValkey) -> None:
    client = connect(server.url)
    await ping(client)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(WorldError, match="state: timeout"):
            await ping(client)
        # no matter how many ask at once, and more than there are connections
        answers = await asyncio.gather(*(ping(client) for _ in range(100)), return_exceptions=True)
        assert {type(answer) for answer in answers} == {WorldError}
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await ping(client)
    await client.aclose()


async def test_more_callers_than_connections_wait_for_their_turn(state_client: Redis) -> None:
    answers = await asyncio.gather(*(command(state_client, "ECHO", str(number)) for number in range(300)))
    assert [int(answer) for answer in answers] == list(range(300))


async def test_an_answer_never_goes_to_another_caller(state_client: Redis) -> None:
    # a caller that gives up at any point of a command must not leave its answer for the next
    for number in range(60):
        task = asyncio.create_task(command(state_client, "ECHO", f"given-up-{number}"))
        for _ in range(number % 6):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert await command(state_client, "ECHO", f"mine-{number}") == f"mine-{number}".encode()


# ── TLS and Sentinel, real ──


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(directory: str, *words: str, port: int) -> Iterator[None]:
    """The binary with other options than the embedded server's, until it accepts connections."""
    with Path(directory, f"log-{port}").open("wb") as log:
        process = subprocess.Popen(
            [str(_binary()), *words], cwd=directory, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, Path(directory, f"log-{port}").read_text()
            time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def sentinel_ports() -> Iterator[tuple[int, int]]:
    """A primary with a password, and one sentinel that watches it as `main`."""
    primary, sentinel = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="ztproxy-test-") as directory:
        Path(directory, "sentinel.conf").write_text(
            f"port {sentinel}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {primary} 1\n"
            "sentinel auth-pass main pw\n"
        )
        options = ("--port", str(primary), "--bind", "127.0.0.1", "--save", "", "--requirepass", "pw")
        with (
            running(directory, *options, port=primary),
            running(directory, "sentinel.conf", "--sentinel", port=sentinel),
        ):
            yield primary, sentinel


async def test_sentinel_leads_to_the_primary(sentinel_ports: tuple[int, int]) -> None:
    primary, sentinel = sentinel_ports
    # the first sentinel is not there, and the second is asked
    client = connect(f"redis+sentinel://:pw@127.0.0.1:{free_port()},127.0.0.1:{sentinel}/main/2")
    sessions = RedisSessions(client, Sealer([KEY_A]), LIMITS)
    handle = await sessions.create(ALICE, SECRETS, "app.test", None)
    assert await sessions.load(handle) is not None
    await client.aclose()
    direct = connect(f"redis://:pw@127.0.0.1:{primary}/2")
    assert len(await direct.keys("*:s:*")) == 1
    await direct.aclose()


async def test_a_primary_no_sentinel_knows_is_a_failing_state(sentinel_ports: tuple[int, int]) -> None:
    client = connect(f"redis+sentinel://:pw@127.0.0.1:{sentinel_ports[1]}/other")
    with pytest.raises(WorldError, match="state: no_primary"):
        await ping(client)
    await client.aclose()


async def test_tls_verifies_the_server() -> None:
    ca, stranger = trustme.CA(), trustme.CA()
    with tempfile.TemporaryDirectory(prefix="ztproxy-test-") as directory:
        ca.cert_pem.write_to_path(f"{directory}/ca.pem")
        stranger.cert_pem.write_to_path(f"{directory}/stranger.pem")
        server_context = ca.issue_cert("127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_context.configure_cert(context)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(4096):
                writer.write(b"+PONG\r\n")
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as tls:
            port = tls.sockets[0].getsockname()[1]
            for ca_file, label in (("ca.pem", None), ("stranger.pem", "state: unreachable")):
                client = connect(f"rediss://127.0.0.1:{port}?ca={directory}/{ca_file}")
                if label is None:
                    await ping(client)
                else:
                    with pytest.raises(WorldError, match=label):
                        await ping(client)
                await client.aclose()
            by_another_name = connect(f"rediss://localhost:{port}?ca={directory}/ca.pem")
            with pytest.raises(WorldError):
                await ping(by_another_name)
            await by_another_name.aclose()
