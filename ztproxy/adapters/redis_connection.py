"""The connection to Redis or Valkey: from a state URL to a client whose every wait has an end.

Knows: the URL's forms, redis-py, the words in which a server says no. Promises: a command ends within about
three seconds, and whatever goes wrong on the way is `WorldError(STATE_UNAVAILABLE)` with a short label
(`state: readonly`) for logs and metrics, never an address, a key or a password. Leaves to the caller: when to
try again; only a connection found dead is replaced and the command sent once more.

    redis://[user:password@]host[:port][/db]            rediss:// the same over TLS (?ca= &cert= &key= files)
    unix:///path/of/the.sock[?db=0]
    redis+sentinel://[user:password@]host:port,host:port/master_name[/db]
"""

from __future__ import annotations

import logging
import re
from types import TracebackType
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis, Sentinel, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ztproxy.core.reasons import Reason
from ztproxy.errors import OperatorError, WorldError

_SENTINEL = "redis+sentinel://"

CONNECT_SECONDS = 1.0
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


class translate:
    """Around each use of a client: every way in which Redis fails becomes `WorldError(STATE_UNAVAILABLE)`."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, (RedisError, OSError, TimeoutError)):
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
        return _SPOKEN.get(said.partition(" ")[0], "error")
    return "error"


def connect(url: str) -> Redis:
    """A client for the state at `url`; connects when first used. Raises `OperatorError` on a wrong URL.

    The URL may hold a password, so no error quotes it.
    """
    try:
        # A list of hosts is no authority of RFC 3986, and newer `urlsplit`s refuse brackets inside one: the
        # hosts of a Sentinel URL are taken out first.
        hosts = ""
        if url.startswith(_SENTINEL):
            hosts, slash, rest = url.removeprefix(_SENTINEL).partition("/")
            url = f"{_SENTINEL}{slash}{rest}"
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        match parts.scheme:
            case "redis" | "rediss":
                return _direct(parts, options)
            case "unix":
                return _unix(parts, options)
            case "redis+sentinel":
                return _sentinel(hosts, parts.path, options)
    except ValueError:
        raise OperatorError("the state URL cannot be read", "write redis://host:6379/0") from None
    raise OperatorError(
        f"the state URL has the unknown scheme `{parts.scheme}`",
        "write redis://, rediss://, unix:// or redis+sentinel://",
    )


def _direct(parts: SplitResult, options: dict[str, str]) -> Redis:
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
    return _client(SSLConnection if tls else Connection, kwargs)


def _unix(parts: SplitResult, options: dict[str, str]) -> Redis:
    database = _database(options.pop("db", ""))
    _none_left(options)
    if not parts.path or parts.hostname:  # `unix://state/x.sock` would silently mean `/x.sock`
        raise ValueError
    credentials = _credentials(parts.username, parts.password)
    return _client(UnixDomainSocketConnection, {"path": unquote(parts.path), "db": database, **credentials})


def _sentinel(authority: str, path: str, options: dict[str, str]) -> Redis:
    _none_left(options)
    user_part, _, hosts = authority.rpartition("@")
    username, _, password = user_part.partition(":")
    name, _, database = path.strip("/").partition("/")
    if not name:
        raise OperatorError("the state URL names no primary", "write redis+sentinel://host:26379/name/0")
    addresses = [_host_and_port(each) for each in hosts.split(",")]
    settings: dict[str, Any] = {"db": _database(database), **_credentials(username, password)}
    make: Any = Sentinel  # redis-py leaves this class untyped
    sentinel = make(addresses, sentinel_kwargs=_bounded(), max_connections=MAX_CONNECTIONS, **_bounded())
    client: Redis = sentinel.master_for(name, **settings)
    return client


def _host_and_port(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?", text)
    if not found:
        raise ValueError
    return found[1].strip("[]"), int(found[2] or 26379)


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


def _bounded() -> dict[str, Any]:
    return {
        "socket_timeout": COMMAND_SECONDS,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": 0,
        # Once more, at once, and only where the connection was found dead. After a time-out the command may
        # still run, and waiting again would only make the person wait longer for the same 503.
        "retry": Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        "protocol": 2,
        "driver_info": None,
    }


def _client(connection_class: type[Any], kwargs: dict[str, Any]) -> Redis:
    bounds = _bounded()
    if connection_class is UnixDomainSocketConnection:
        del bounds["socket_keepalive"]
    pool = BlockingConnectionPool(
        connection_class=connection_class,
        max_connections=MAX_CONNECTIONS,
        timeout=CONNECT_SECONDS,
        **bounds,
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
    server = await command(client, "INFO", "server")
    send: Any = client.execute_command
    with translate():
        try:
            answer = await send("CONFIG", "GET", "maxmemory-policy")
        except ResponseError:
            answer = None
    said = str(server.get("redis_version", "0"))
    if tuple(int(number) for number in re.findall(r"\d+", said)[:2]) < LEAST_VERSION:
        raise OperatorError(f"the state server is version `{said}`", "use Redis 6.2 or later, or Valkey")
    policy = _policy(answer)
    if policy is None:
        _log.warning("the state server does not show maxmemory-policy; see that it is noeviction")
    elif policy.startswith("allkeys-"):
        raise OperatorError(
            f"the state server has maxmemory-policy `{policy}` and may drop revocations",
            "set it to noeviction",
        )


def _policy(answer: Any) -> str | None:
    match answer:
        case [_, bytes(value)]:
            return value.decode("ascii", "replace")
    return None
