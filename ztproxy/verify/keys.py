"""The keys an assertion may be signed with: read from a JWKS (RFC 7517), fetched, kept and renewed.

What is promised: only P-256 signature keys are used, by exact `kid`; a document that cannot be fetched or
holds no usable key never replaces a good one; and no flood of unknown `kid` values causes more than one fetch
in 30 s. Thread-safe. What is left to the caller: `RemoteKeys.get` blocks while it fetches, unless told not
to.
"""

import http.client
import logging
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import IO, Protocol
from urllib.parse import urlsplit

from jwt import PyJWK
from jwt.exceptions import PyJWTError

from ztproxy.verify.identity import FetchNeeded
from ztproxy.verify.strict_json import read_object

_log = logging.getLogger("ztproxy.verify")

MAX_DOCUMENT_BYTES = 64 * 1024
MAX_KEYS = 64
REFETCH_SECONDS = 30.0
FIRST_FETCH_RETRY_SECONDS = 1.0
FRESH_SECONDS = 600.0
USABLE_SECONDS = 24 * 3600.0
_PRIVATE = frozenset({"d", "k"})
_COORDINATE = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")


class Keys(Protocol):
    """Where the verifier looks a key up. `ready` is false while there has never been a usable set."""

    @property
    def ready(self) -> bool: ...

    def get(self, kid: str, *, may_fetch: bool) -> PyJWK | None: ...


def usable_keys(document: Mapping[str, object]) -> dict[str, PyJWK]:
    """The keys of a JWKS that may verify an ES256 assertion, by `kid`; all others are left out.

    Stricter than RFC 7517 §4 demands: a key must carry a `kid`; a `kid` given twice makes *both* unusable,
    for which of the two is meant would be decided by the order of the list; `use`, `key_ops` and `alg` are
    obeyed where present; a key that shows its private half (`d`) is known to everyone, so it proves nothing;
    and the coordinates are 32 bytes in their one spelling (RFC 7518 §6.2.1.2).
    """
    listed = document.get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        return {}
    usable: dict[str, PyJWK] = {}
    seen: set[str] = set()
    for jwk in listed:
        kid = jwk.get("kid") if isinstance(jwk, dict) else None
        if not isinstance(kid, str) or not kid:
            continue
        if kid in seen:
            usable.pop(kid, None)
            continue
        seen.add(kid)
        key = _es256_key(jwk)
        if key is not None:
            usable[kid] = key
    return usable


def _es256_key(jwk: dict[str, object]) -> PyJWK | None:
    operations = jwk.get("key_ops", ["verify"])
    fits = (
        jwk.get("kty") == "EC"
        and jwk.get("crv") == "P-256"
        and jwk.get("use", "sig") == "sig"
        and jwk.get("alg", "ES256") == "ES256"
        and isinstance(operations, list)
        and "verify" in operations
        and _PRIVATE.isdisjoint(jwk)
        and all(isinstance(value, str) and _COORDINATE.fullmatch(value) for value in map(jwk.get, "xy"))
    )
    if not fits:
        return None
    try:
        return PyJWK(jwk, "ES256")
    except (PyJWTError, ValueError, TypeError):  # coordinates of the wrong kind or size, or off the curve
        return None


class StaticKeys:
    """A key set given as a value, for an application that cannot or will not fetch one."""

    ready = True

    def __init__(self, document: Mapping[str, object]) -> None:
        self._keys = usable_keys(document)
        if not self._keys:
            raise ValueError("the key set holds no usable ES256 key")

    def get(self, kid: str, *, may_fetch: bool) -> PyJWK | None:
        return self._keys.get(kid)


class RemoteKeys:
    """The key set at a URL, fetched when first needed and renewed every ten minutes while it is in use.

    A set that can no longer be renewed serves for a day, so that a restart of ztproxy does not take the
    application down; after that nothing is accepted. `monotonic` is seconds on a clock that never goes back.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 3.0,
        unsafe_plain_http: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        # Nothing is quoted before this: a password may stand anywhere in what is not understood.
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ValueError("the URL of the key set is no URL") from None
        if "@" in parts.netloc:
            raise ValueError(
                "the URL of the key set holds a user or a password; it is public, leave them out"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the URL of the key set is not an http or https URL")
        # Whoever can alter this answer can sign in as anyone, so plain HTTP is for one's own machine only.
        if parts.scheme == "http" and not unsafe_plain_http and not _is_loopback(parts.hostname):
            raise ValueError(f"`{url}` is fetched without TLS; use https, or say `unsafe_plain_http=True`")
        self._url = url
        self._timeout = timeout
        self._monotonic = monotonic
        self._fetching = threading.Lock()
        self._keys: dict[str, PyJWK] = {}
        self._fetched: float | None = None
        self._attempted: float | None = None

    @property
    def ready(self) -> bool:
        return self._fetched is not None and self._monotonic() - self._fetched < USABLE_SECONDS

    def get(self, kid: str, *, may_fetch: bool) -> PyJWK | None:
        """The key named `kid`, or `None`. Raises `FetchNeeded` where it would fetch and may not."""
        key = self._known(kid)
        if (key is not None and not self._stale()) or not self._due():
            return key
        if not may_fetch:
            raise FetchNeeded
        # Who holds a key that merely aged does not wait for another thread's fetch; who holds none must.
        if not self._fetching.acquire(blocking=key is None):
            return key
        try:
            if self._due():
                self._fetch()
        finally:
            self._fetching.release()
        return self._known(kid)

    def _known(self, kid: str) -> PyJWK | None:
        return self._keys.get(kid) if self.ready else None

    def _stale(self) -> bool:
        return self._fetched is None or self._monotonic() - self._fetched >= FRESH_SECONDS

    def _due(self) -> bool:
        # INVARIANT: `_attempted` is written when a fetch *ends*. Written at its start, the requests that
        # arrive during the very first fetch would be refused instead of waiting for it.
        if self._attempted is None:
            return True
        pause = REFETCH_SECONDS if self.ready else FIRST_FETCH_RETRY_SECONDS
        return self._monotonic() - self._attempted >= pause

    def _fetch(self) -> None:
        try:
            keys = usable_keys(read_object(_download(self._url, self._timeout)))
            if not keys:
                raise ValueError("it holds no usable ES256 key")
            self._keys, self._fetched = keys, self._monotonic()
        except (OSError, http.client.HTTPException, ValueError) as error:
            _log.warning("the key set at `%s` could not be read: %s", self._url, error)
        finally:
            self._attempted = self._monotonic()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A key set that moved is a change for the operator to make, not for whoever answers to announce."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> None:
        return None


def _download(url: str, timeout: float) -> bytes:
    """The document at `url`, at most 64 KiB of it and within `timeout` seconds of reading."""
    # A proxy of the environment (`http_proxy`) could alter what is read without TLS, also from one's own
    # machine. One for https sees but a tunnel.
    proxies = {name: proxy for name, proxy in urllib.request.getproxies().items() if name != "http"}
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler(proxies))
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 scheme checked
    deadline = time.monotonic() + timeout
    body = bytearray()
    with opener.open(request, timeout=timeout) as response:
        if response.status != 200:
            raise ValueError(f"it answers {response.status}")
        while chunk := response.read1(8192):
            body += chunk
            if len(body) > MAX_DOCUMENT_BYTES:
                raise ValueError("it is larger than 64 KiB")
            if time.monotonic() > deadline:
                raise ValueError("it takes too long")
    return bytes(body)
