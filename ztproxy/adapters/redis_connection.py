"""The connection to Redis or Valkey: from a state URL to a client whose every wait has an end.

Knows: the URL's forms, redis-py, the words in which a server says no. Promises: a command ends within about
three seconds, or three times the `timeout` asked for, and whatever goes wrong on the way is
`WorldError(STATE_UNAVAILABLE)` with a short label (`state: readonly`) for logs and metrics, never an address,
a key or a password. Leaves to the caller: when to try again; only a connection found dead is replaced and the
command sent once more.

    redis://[user:password@]host[:port][/db]            rediss:// the same over TLS (?ca= &cert= &key= files)
    unix:///path/of/the.sock[?db=0]
    redis+sentinel://[user:password@]host:port,host:port/master_name[/db]
    redis+cluster://[user:password@]host:port,host:port

Under Sentinel a connection whose server says that it is no primary, or may not write as one, is given up, and
the next one asks the sentinels who is. Nothing is ever read from a replica.
"""

from __future__ import annotations

import logging
import re
from types import TracebackType
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.asyncio import (
    BlockingConnectionPool,
    Redis,
    RedisCluster,
    Sentinel,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ztproxy.core.reasons import Reason
from ztproxy.errors import OperatorError, WorldError

_SENTINEL = "redis+sentinel://"
_CLUSTER = "redis+cluster://"

COMMAND_SECONDS = 1.0
MAX_CONNECTIONS = 64
LEAST_VERSION = (6, 2)  # GETDEL

_log = logging.getLogger("ztproxy.state")

# What a server answers, as the label that logs and metrics show; each is a 503 that leaves the cookie alone.
_LABELS: tuple[tuple[type[Exception], str], ...] = (
    (BusyLoadingError, "loading"),
    (AuthenticationError, "auth"),
    (AuthorizationError, "auth"),
    (NoPermissionError, "noperm"),
    (OutOfMemoryError, "oom"),
    (ReadOnlyError, "readonly"),
    (MasterNotFoundError, "no_primary"),
    (RedisTimeoutError, "timeout"),
    (TimeoutError, "timeout"),
    (RedisConnectionError, "unreachable"),
    (OSError, "unreachable"),
    (RedisClusterException, "cluster"),
)
_SPOKEN = {
    "MISCONF": "misconf",
    "NOREPLICAS": "noreplicas",
    "NOAUTH": "auth",
    "LOADING": "loading",
    "READONLY": "readonly",
    "OOM": "oom",
    "NOPERM": "noperm",
    "MASTERDOWN": "readonly",
    "CLUSTERDOWN": "cluster",
    "TRYAGAIN": "cluster",
    "MOVED": "cluster",
    "ASK": "cluster",
    "CROSSSLOT": "cluster",
    "BUSY": "busy",
    "WRONGTYPE": "wrongtype",
}


# What a server of before version 7 puts around the words in which a script's command was refused.
_IN_SCRIPT = re.compile(r"Error running script .*?: -([A-Z]+) ", re.DOTALL)


class translate:
    """Around each use of a client: every way in which Redis fails becomes `WorldError(STATE_UNAVAILABLE)`."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, (RedisError, RedisClusterException, OSError, TimeoutError)):
            # The cause is cut off: redis-py puts addresses and commands into its messages.
            raise WorldError(Reason.STATE_UNAVAILABLE, f"state: {_label(error)}") from None


def _label(error: BaseException) -> str:
    # A refused AUTH while connecting comes wrapped as a plain connection error.
    if type(error) is RedisConnectionError and isinstance(error.__cause__, RedisError):
        error = error.__cause__
    for kind, label in _LABELS:
        if isinstance(error, kind):
            return label
    if isinstance(error, ResponseError):
        # redis-py cuts the first word off the codes it has a class for and keeps it in `status_code`.
        said = getattr(error, "status_code", None) or str(error)
        if inside := _IN_SCRIPT.search(str(error)):
            said = inside[1]
        if "unauthenticated" in str(error):
            return "auth"  # so many words as our scripts have are not even read before a password
        return _SPOKEN.get(said.partition(" ")[0], "error")
    return "error"


class _Bounds(NamedTuple):
    """How long one client may take, how many connections it may have, how often it tries again by itself."""

    timeout: float
    connections: int
    retries: int

    def options(self) -> dict[str, Any]:
        return {
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
            "socket_keepalive": True,
            "health_check_interval": 0,
            # Once more, at once, and only where the connection was found dead. After a time-out the command
            # may still run, and waiting again would only make the person wait longer for the same 503.
            "retry": Retry(NoBackoff(), self.retries, supported_errors=(RedisConnectionError,)),
            "protocol": 2,
            "driver_info": None,
        }


def connect(
    url: str,
    *,
    timeout: float = COMMAND_SECONDS,
    connections: int = MAX_CONNECTIONS,
    retries: int = 1,
) -> Redis:
    """A client for the state at `url`; connects when first used. Raises `OperatorError` on a wrong URL.

    `timeout` bounds, in seconds, each opening of a connection and each answer. `retries` is how often a
    command is sent again over a fresh connection; who asks again anyway, in a rhythm of his own, takes 0, so
    that a server that resets every connection is not stormed. The client of a cluster has the same commands,
    but for `connection_pool`, and wants all keys of one command in one slot. The URL may hold a password, so
    no error quotes it.
    """
    bounds = _Bounds(timeout, connections, retries)
    try:
        # A list of hosts is no authority of RFC 3986, and newer `urlsplit`s refuse brackets inside one: the
        # hosts are taken out first.
        hosts = ""
        for scheme in (_SENTINEL, _CLUSTER):
            if url.startswith(scheme):
                hosts, slash, rest = url.removeprefix(scheme).partition("/")
                url = f"{scheme}{slash}{rest}"
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        match parts.scheme:
            case "redis" | "rediss":
                return _direct(parts, options, bounds)
            case "unix":
                return _unix(parts, options, bounds)
            case "redis+sentinel":
                return _sentinel(hosts, parts.path, options, bounds)
            case "redis+cluster":
                return _cluster(hosts, parts.path, options, bounds)
    except ValueError:
        raise OperatorError("the state URL cannot be read", "write redis://host:6379/0") from None
    raise OperatorError(
        f"the state URL has the unknown scheme `{parts.scheme}`",
        "write redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://",
    )


def kind_of(client: Any) -> Literal["standalone", "sentinel", "cluster"]:
    """What is behind a client that `connect` made."""
    if isinstance(client, RedisCluster):
        return "cluster"
    return "sentinel" if isinstance(client.connection_pool, SentinelConnectionPool) else "standalone"


def _direct(parts: SplitResult, options: dict[str, str], bounds: _Bounds) -> Redis:
    tls = parts.scheme == "rediss"
    files = {name: options.pop(name, None) for name in ("ca", "cert", "key")} if tls else {}
    _none_left(options)
    kwargs: dict[str, Any] = {
        "host": parts.hostname or "localhost",
        "port": parts.port or 6379,
        "db": _database(parts.path.strip("/")),
        **_credentials(parts.username, parts.password),
    }
    if tls:
        kwargs |= {
            "ssl_ca_certs": files["ca"],
            "ssl_certfile": files["cert"],
            "ssl_keyfile": files["key"],
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
        }
    return _client(_TLSConnection if tls else _TCPConnection, kwargs, bounds)


def _unix(parts: SplitResult, options: dict[str, str], bounds: _Bounds) -> Redis:
    database = _database(options.pop("db", ""))
    _none_left(options)
    if not parts.path or parts.hostname:  # `unix://state/x.sock` would silently mean `/x.sock`
        raise ValueError
    credentials = _credentials(parts.username, parts.password)
    place = {"path": unquote(parts.path), "db": database, **credentials}
    return _client(_UnixConnection, place, bounds)


class _Told:
    """Mixed into each kind of connection: uvloop has a word of its own for one that the other end has reset.
    redis-py takes it for a mistake of ours, and neither tries again nor says that nobody answers (FI08)."""

    async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        send: Any = super()
        try:
            await send.send_packed_command(*args, **kwargs)
        except RuntimeError:
            raise RedisConnectionError("the connection was closed") from None


class _TCPConnection(_Told, Connection):
    pass


class _TLSConnection(_Told, SSLConnection):
    pass


class _UnixConnection(_Told, UnixDomainSocketConnection):
    pass


class _PrimaryConnection(_Told, SentinelManagedConnection):
    """redis-py leaves a connection on READONLY. NOREPLICAS is the word of a primary that has lost sight of
    its replicas, and so maybe of the sentinels too, which have made another one by then (FI15)."""

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        except ResponseError as error:
            if _label(error) == "noreplicas":
                self.mark_for_reconnect()  # type: ignore[no-untyped-call]
            raise


class _PrimaryPool(SentinelConnectionPool):
    """redis-py leaves the connections to the sentinels open when a client is closed."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            await self.sentinel_manager.aclose()


def _sentinel(authority: str, path: str, options: dict[str, str], bounds: _Bounds) -> Redis:
    _none_left(options)
    credentials, addresses = _hosts(authority, 26379)
    name, _, database = path.strip("/").partition("/")
    if not name:
        raise OperatorError("the state URL names no primary", "write redis+sentinel://host:26379/name/0")
    settings: dict[str, Any] = {"db": _database(database), **credentials}
    make: Any = Sentinel  # redis-py leaves this class untyped
    shared = {"max_connections": bounds.connections, "connection_class": _PrimaryConnection}
    sentinel = make(addresses, sentinel_kwargs=bounds.options(), **shared, **bounds.options())
    client: Redis = sentinel.master_for(name, connection_pool_class=_PrimaryPool, **settings)
    return client


class _Cluster(RedisCluster):
    """redis-py sends what comes before it knows the slots to any node, and takes the answers for a change of
    the cluster: it closes every connection, in use or not."""

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        default: Any = self.get_default_node()
        if default is None:
            await self.initialize()
        return await super().execute_command(*args, **kwargs)


def _cluster(authority: str, path: str, options: dict[str, str], bounds: _Bounds) -> Redis:
    _none_left(options)
    credentials, addresses = _hosts(authority, 6379)
    if path.strip("/"):
        raise OperatorError("the state URL of a cluster names a database", "leave it out: there is but one")
    make: Any = _Cluster
    client = make(
        startup_nodes=[ClusterNode(host, port) for host, port in addresses],
        max_connections=bounds.connections,
        # Whether one slot may be served while another is not is for the server to say.
        require_full_coverage=False,
        # A slot that has moved is looked up by itself; anew with all others would close every connection.
        reinitialize_steps=0,
        **credentials,
        # Once at least: one connection found dead makes redis-py close others, which may be in use by then.
        **bounds._replace(retries=max(1, bounds.retries)).options(),
    )
    client.get_connection_kwargs()["connection_class"] = _TCPConnection
    for node in client.startup_nodes:
        node.connection_class = _TCPConnection
    return cast(Redis, client)


def _hosts(authority: str, port: int) -> tuple[dict[str, str], list[tuple[str, int]]]:
    """The credentials and the addresses of a list of hosts; `port` for those that name none."""
    user_part, _, hosts = authority.rpartition("@")
    username, _, password = user_part.partition(":")
    return _credentials(username, password), [_host_and_port(each, port) for each in hosts.split(",")]


def _host_and_port(text: str, port: int) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?", text)
    if not found:
        raise ValueError
    return found[1].strip("[]"), int(found[2] or port)


def _none_left(options: dict[str, str]) -> None:
    for name in options:
        raise OperatorError(f"the state URL has the unknown option `{name}`", "leave it out")


def _database(text: str) -> int:
    if text and not re.fullmatch(r"\d{1,4}", text, re.ASCII):
        raise ValueError
    return int(text or 0)


def _credentials(username: str | None, password: str | None) -> dict[str, str]:
    given = {"username": username, "password": password}
    return {name: unquote(value) for name, value in given.items() if value}


def _client(connection_class: type[Any], kwargs: dict[str, Any], bounds: _Bounds) -> Redis:
    options = bounds.options()
    if connection_class is _UnixConnection:
        del options["socket_keepalive"]
    pool = BlockingConnectionPool(
        connection_class=connection_class,
        max_connections=bounds.connections,
        timeout=bounds.timeout,
        **options,
        **kwargs,
    )
    return Redis.from_pool(pool)


async def command(client: Redis, *words: Any) -> Any:
    """The answer to one command; raises `WorldError`."""
    send: Any = client.execute_command  # untyped in redis-py
    with translate():
        return await send(*words)


async def ping(client: Redis) -> None:
    """Answers if the state does; else raises `WorldError`."""
    await command(client, "PING")


async def check_state(client: Redis) -> None:
    """At start: refuses a server that is too old, or that may throw sessions away when its memory is full.

    Evicting *any* key (`allkeys-*`) can drop a revocation and keep the session it revoked. Where CONFIG is
    forbidden (managed Redis) the policy is not known, and the log says so. Raises `OperatorError`,
    `WorldError`.
    """
    for node in await _primaries(client):
        send: Any = client.execute_command
        with translate():
            server = await send("INFO", "server", **node)
        said = str(server.get("redis_version", "0"))
        if tuple(int(number) for number in re.findall(r"\d+", said)[:2]) < LEAST_VERSION:
            raise OperatorError(f"the state server is version `{said}`", "use Redis 6.2 or later, or Valkey")
        with translate():
            try:
                answer = await send("CONFIG GET", "maxmemory-policy", **node)
            except ResponseError:
                answer = {}
        policy = answer.get("maxmemory-policy")
        if policy is None:
            _log.warning("the state server does not show maxmemory-policy; see that it is noeviction")
        elif policy.startswith("allkeys-"):
            raise OperatorError(
                f"the state server has maxmemory-policy `{policy}` and may drop revocations",
                "set it to noeviction",
            )


async def _primaries(client: Redis) -> list[dict[str, Any]]:
    """For each server that may hold something of ours, what makes `execute_command` ask it."""
    if kind_of(client) != "cluster":
        return [{}]
    cluster = cast(RedisCluster, client)
    with translate():
        await cluster.initialize()
    return [{"target_nodes": node} for node in cluster.get_primaries()]
