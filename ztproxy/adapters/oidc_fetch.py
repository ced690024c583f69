"""One bounded question to a provider over HTTP, and documents of it that are kept.

Knows: aiohttp's client, and in how many ways a provider can hurt whoever listens to it (T25, T26). Promises:
an answer within 10 s, at most 512 KiB, not compressed, never redirected; all else is `WorldError`; a kept
document is fetched by one caller at a time, replaced only by a better one, and served stale for a day; newer
keys are asked for only where the ones at hand do not know a signer; nothing is ever fetched from a link-local
address, where clouds hand a machine its own credentials (names are held to that by `provider_session`).
Leaves to `adapters.oidc` and `adapters.service_tokens` what the answers mean. Errors name what happened,
never the URL or the body.

Private addresses are no reason to refuse (T26): a provider inside, at 10.x, is the ordinary case. What a
refusal of them would be for is closed by others: TLS to a name cannot be pointed at another machine by DNS,
and metadata cannot move an endpoint to another host (D02).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import aiohttp
from aiohttp.abc import ResolveResult
from yarl import URL

from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.ports import Clock

TOTAL_SECONDS = 10.0
MAX_BYTES = 512 * 1024
USABLE_SECONDS = 24 * 3600.0
RETRY_SECONDS = 30.0
FIRST_RETRY_SECONDS = 1.0

# Where clouds answer a machine that asks who it is, besides 169.254.169.254: AWS and Google over IPv6,
# Alibaba, Azure's wire server, Oracle over both.
_INSTANCE_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "fd00:ec2::254",
        "fd20:ce::254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:c1::a9fe:a9fe",
    )
)

# IPv6 addresses that a box on the way turns into IPv4 ones, and which of their bytes are those: RFC 4291
# 2.5.5.1, RFC 3056 2, RFC 6052 2.2. A NAT64 of one's own (RFC 8215) has them in one of four places.
_CARRIERS = tuple(
    (ipaddress.IPv6Network(network), bytes(places))
    for network, places in (
        ("::/96", (12, 13, 14, 15)),
        ("2002::/16", (2, 3, 4, 5)),
        ("64:ff9b::/96", (12, 13, 14, 15)),
        ("64:ff9b:1::/48", (6, 7, 9, 10)),
        ("64:ff9b:1::/48", (7, 9, 10, 11)),
        ("64:ff9b:1::/48", (9, 10, 11, 12)),
        ("64:ff9b:1::/48", (12, 13, 14, 15)),
    )
)

_log = logging.getLogger("ztproxy.providers")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
T = TypeVar("T")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Answer:
    """`media_type` is lower-case, without parameters."""

    status: int
    media_type: str
    body: bytes = field(repr=False)


def provider_session() -> aiohttp.ClientSession:
    """The one client session for all providers: no cookies, no proxies or passwords from the environment, and
    no name leads to a link-local address."""
    connector = aiohttp.TCPConnector(resolver=_WithinLimits())
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)


def address_of(host: str) -> Address | None:
    """The address that is written there, in each spelling a connection would understand (`0xa9fea9fe`,
    `127.1`, a dot at the end); None for a name. One of IPv4 in the form of IPv6 (`::ffff:127.0.0.1`) is the
    one of IPv4; an interface (`%eth0`) is left out."""
    host = host.rstrip(".")
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        pass
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address


def is_off_limits(host: str) -> bool:
    """Whether `host` is an address no provider is at: link-local (RFC 3927, RFC 4291 2.5.6), one at which a
    cloud answers a machine about itself, many, or none; or one that is turned into such a one on the way
    (NAT64, 6to4). A name is not, whatever it leads to: that is looked at when it is resolved."""
    address = address_of(host)
    if address is None:
        return False
    if address.is_multicast or address.is_unspecified:
        return True
    return any(one.is_link_local or one in _INSTANCE_METADATA for one in _readings(address))


def _readings(address: Address) -> list[Address]:
    carried = (places for network, places in _CARRIERS if address in network)
    return [
        address,
        *(ipaddress.IPv4Address(bytes(address.packed[at] for at in places)) for places in carried),
    ]


class _OffLimits(OSError):
    """A name leads to where no provider is."""


class _WithinLimits(aiohttp.ThreadedResolver):
    """Leaves out what a name must not lead to. Asked at each connection, so that a name that changes its
    answer between two looks (DNS rebinding) gains nothing."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = [one for one in await super().resolve(host, port, family) if not is_off_limits(one["host"])]
        if not found:
            raise _OffLimits("off limits")
        return found


def away(problem: str) -> WorldError:
    return WorldError(Reason.PROVIDER_UNAVAILABLE, problem)


async def fetch(
    http: aiohttp.ClientSession,
    url: str,
    *,
    form: str | None = None,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    within: float = TOTAL_SECONDS,
) -> Answer:
    """GET, or POST with an already encoded `form`. Any status is an answer; 3xx are not followed (D05).

    An address is looked at here. Where a name leads is looked at only if `http` is of `provider_session`.
    """
    fields = {"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})}
    if form is not None:
        fields["Content-Type"] = "application/x-www-form-urlencoded"
    try:
        target = URL(url, encoded=True)
        if is_off_limits(target.host or ""):
            raise away("no provider is at such an address")
        # One limit around everything: a byte a second never runs into a limit between two bytes.
        async with (
            asyncio.timeout(within),
            http.request(
                "GET" if form is None else "POST",
                target,
                data=None if form is None else form.encode(),
                headers=fields,
                allow_redirects=False,
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),
                ssl=True if tls is None else tls,
            ) as response,
        ):
            # Asked not to compress, it did: a bomb, or a box in between that rewrites what it passes on.
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise away("the answer is compressed")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise away("the answer is larger than 512 KiB")
            return Answer(response.status, response.content_type.lower(), bytes(body))
    except TimeoutError:
        raise away(f"no answer within {within:g} s") from None
    except ssl.SSLError:
        raise away("TLS: the provider did not prove who it is") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, _OffLimits):
            raise away("the name leads to an address no provider is at") from None
        # ValueError: what aiohttp says of some malformed answers. Its texts quote URLs, so only the kind is
        # told.
        kind = "TLS: " if isinstance(error, aiohttp.ClientSSLError) else ""
        raise away(f"{kind}no usable answer (`{type(error).__name__}`)") from None


class Kept(Generic[T]):
    """A document of the provider. `load` fetches and checks it, or raises `WorldError`.

    It is renewed when older than `fresh` seconds; while that fails, the last good one serves for a day, asked
    for anew every 30 s. `trouble` is what went wrong last, None when all is well; the log hears of it when it
    begins and when it ends, as of `whose`.
    """

    def __init__(
        self, load: Callable[[], Awaitable[T]], clock: Clock, fresh: float, whose: str = "a provider"
    ) -> None:
        self._load, self._clock, self._fresh, self._whose = load, clock, fresh, whose
        self._lock = asyncio.Lock()
        self._value: T | None = None
        self._loaded = self._tried = self._forced = float("-inf")
        self.trouble: str | None = None

    async def get(self) -> T:
        if not self._within(self._loaded, self._fresh):
            async with self._lock:
                pause = FIRST_RETRY_SECONDS if self._value is None else RETRY_SECONDS
                if not self._within(self._loaded, self._fresh) and not self._within(self._tried, pause):
                    await self._renew()
        return self._usable()

    async def newer_than(self, seen: T) -> T:
        """Another one than `seen`, if the provider has it: what is missing in `seen` may be in a newer one.

        INVARIANT: asks the provider at most once in 30 s, however many callers find something missing (J21).
        """
        async with self._lock:
            if self._value is seen and not self._within(self._forced, RETRY_SECONDS):
                self._forced = self._clock()
                await self._renew()
        return self._usable()

    async def _renew(self) -> None:
        try:
            self._value = await self._load()
            self._loaded = self._clock()
            if self.trouble is not None:
                _log.warning("%s: well again", self._whose)
            self.trouble = None
        except WorldError as error:
            if self.trouble != str(error):
                _log.error("%s: %s", self._whose, error)
            self.trouble = str(error)
        self._tried = self._clock()

    def _usable(self) -> T:
        if self._value is None or not self._within(self._loaded, USABLE_SECONDS):
            raise away(self.trouble or "no answer yet")
        return self._value

    def _within(self, since: float, seconds: float) -> bool:
        # A clock that was put back must not make a document fresh for ever.
        return 0 <= self._clock() - since < seconds


class KeySource(Protocol[T]):
    """Keys that may be renewed: `Kept`, or a file that is read again."""

    async def get(self) -> T: ...

    async def newer_than(self, seen: T) -> T: ...


async def by_keys(source: KeySource[T], named: bool, verify: Callable[[T], V]) -> V:
    """What `verify` answers with the keys at hand, or with newer ones where those do not know the signer's.

    The signer may have turned to a new key: one it names (`named`: the token has a `kid`) and we have not
    seen, or one without a name. Nothing else is worth asking for (J21).
    """
    keys = await source.get()
    try:
        return verify(keys)
    except ClientError as refusal:
        code = str(refusal)
        if code != "kid" and (named or code != "sig"):
            raise
        newer = await source.newer_than(keys)
        if newer is keys:
            raise
    return verify(newer)
