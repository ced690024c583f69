"""One issuer of bearer tokens for services, its keys pinned. Fulfils `gateway.ports.devices.TokenIssuer`.

Knows: where the issuer's keys are (a file, a URL, or what its metadata says), and the type of its tokens
(RFC 9068 2.1, RFC 8725 3.11). Promises: the algorithm is one of the configured, the key is found by exact
`kid`, and a token never brings or chooses a key; nothing is fetched before a token came; a key withdrawn at
the issuer stops counting within an hour, one taken out of the file at once. Leaves every claim to
`core.service_tokens`, and remembering verdicts to `gateway.services`.

A refusal is `ClientError(TOKEN_INVALID)` with a code of `adapters.jwt`.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from ztproxy.adapters.jwt import (
    ALGORITHMS,
    Compact,
    UsableKey,
    claims_of,
    decode_compact,
    read_object,
    usable_keys,
)
from ztproxy.adapters.oidc_fetch import MAX_BYTES, Kept, away, by_keys, fetch
from ztproxy.adapters.oidc_metadata import (
    WELL_KNOWN,
    Pins,
    check_issuer,
    host_of,
    is_allowed_url,
    is_here_without_reason,
)
from ztproxy.core.identity import JSON
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, OperatorError, WorldError
from ztproxy.gateway.ports import Clock
from ztproxy.gateway.ports.providers import FirstHosts

KEYS_FRESH = 3600.0

# Thumbprints of the signer's certificate (RFC 7515 4.1.7, 4.1.8), which several issuers write on every token.
# They name a key and bring none, and the key is found by `kid` without them.
_UNREAD = frozenset({"x5t", "x5t#S256"})
# The registered types of what is signed by an issuer of tokens and is no access token.
_OF_OTHERS = frozenset(
    {
        "dpop+jwt",
        "entity-statement+jwt",
        "introspection+jwt",
        "kb+jwt",
        "logout+jwt",
        "oauth-authz-req+jwt",
        "secevent+jwt",
        "token-introspection+jwt",
    }
)

Keys = dict[str | None, UsableKey]


@dataclass(frozen=True, slots=True)
class IssuerSettings:
    """One issuer as configured. Raises `OperatorError` where it cannot work.

    `jwks` is a file, `jwks_url` an address; without either the metadata of `issuer` says where the keys are
    (Discovery 4). `types` are what `typ` may be, lower-case and without `application/`. With `jwt` among them
    it may be absent too, as RFC 7519 5.1 has it. Empty: any but that of another kind of token.
    """

    name: str
    issuer: str
    algorithms: frozenset[str] = frozenset({"RS256"})
    jwks: Path | None = None
    jwks_url: str | None = None
    types: frozenset[str] = frozenset({"at+jwt", "jwt"})
    dangerous_allow_http: bool = False

    def __post_init__(self) -> None:
        if not self.algorithms or not self.algorithms <= ALGORITHMS:
            raise OperatorError(
                "an algorithm is not accepted", f"write one of {', '.join(sorted(ALGORITHMS))}"
            )
        if self.jwks is not None:
            return
        if self.jwks_url is None:
            check_issuer(self.issuer, dangerous_allow_http=self.dangerous_allow_http)
        elif not is_allowed_url(self.jwks_url, dangerous_allow_http=self.dangerous_allow_http):
            raise OperatorError(f"`{self.jwks_url}` is no usable URL", "write an https URL")


class TokenVerifier:
    """Fulfils `TokenIssuer`. `http` is best made by `oidc_fetch.provider_session`; `tls` trusts an own CA;
    `first` remembers where its keys are, if its metadata says so."""

    def __init__(
        self,
        settings: IssuerSettings,
        http: aiohttp.ClientSession,
        clock: Clock,
        tls: ssl.SSLContext | None = None,
        first: FirstHosts | None = None,
    ) -> None:
        self.name, self.issuer = settings.name, settings.issuer
        self._settings, self._http, self._tls = settings, http, tls
        mend = "write `jwks_url`"
        self._pins = Pins(f"tokens {self.issuer}", self.issuer, frozenset(), first, mend)
        self._keys: Kept[Keys] | KeyFile = (
            Kept(self._load, clock, KEYS_FRESH, f"token issuer `{self.name}`")
            if settings.jwks is None
            else KeyFile(settings.jwks)
        )

    @property
    def trouble(self) -> str | None:
        """What went wrong last in reading the keys, though older ones may still serve; None if nothing."""
        return self._keys.trouble

    async def verify(self, token: str) -> dict[str, JSON]:
        """See `TokenIssuer.verify`."""
        try:
            return await self._verify(token)
        except ClientError as refusal:
            raise ClientError(Reason.TOKEN_INVALID, str(refusal)) from refusal

    async def _verify(self, token: str) -> dict[str, JSON]:
        compact = decode_compact(token, types=None, unread=_UNREAD)
        self._check_type(compact)
        alg = str(compact.header["alg"])
        # INVARIANT: the configuration fixes the algorithms, the token only picks among them (J05).
        if alg not in self._settings.algorithms:
            raise ClientError(Reason.TOKEN_INVALID, "alg: not what this issuer signs with")
        return await by_keys(self._keys, "kid" in compact.header, lambda keys: claims_of(compact, alg, keys))

    def _check_type(self, compact: Compact) -> None:
        """RFC 7515 4.1.9: a media type, so in any case, and `application/` may be left out."""
        found = str(compact.header.get("typ", "jwt")).lower().removeprefix("application/")
        types = self._settings.types
        if found not in types if types else found in _OF_OTHERS:
            raise ClientError(Reason.TOKEN_INVALID, "typ: a token of another kind")

    # ── keys ──

    async def _load(self) -> Keys:
        url = self._settings.jwks_url or await self._where()
        return _usable(await self._document(url, "jwks"))

    async def _where(self) -> str:
        """The address of the keys by the metadata, which an issuer without a sign-in has too (Kubernetes)."""
        document = await self._document(self.issuer.rstrip("/") + WELL_KNOWN, "metadata")
        if document.get("issuer") != self.issuer:
            raise away("metadata: it is of another issuer")
        where = document.get("jwks_uri")
        http = self.issuer.startswith("http:")
        if not isinstance(where, str) or not (http or where.startswith("https:")):
            raise away("metadata: `jwks_uri` is not https")
        if not is_allowed_url(where, dangerous_allow_http=http and self._settings.dangerous_allow_http):
            raise away("metadata: `jwks_uri` is no usable URL")
        if is_here_without_reason(where, self.issuer):
            raise away("metadata: `jwks_uri` is on this machine, its issuer is not")
        await self._pins.hold(frozenset({host_of(where)}))
        return where

    async def _document(self, url: str, what: str) -> dict[str, JSON]:
        answer = await fetch(self._http, url, tls=self._tls)
        if answer.status != 200:
            raise away(f"{what}: status {answer.status}")
        return _object(answer.body, what)


class KeyFile:
    """The keys in a file, read again whenever it is another one. A file is small and at hand: nothing to wait
    for. One that cannot be read leaves the last good keys in force, as `Kept` does; `trouble` says so."""

    def __init__(self, path: Path) -> None:
        self._path, self._mark = path, (0, 0, 0, 0)
        self._value: Keys | None = None
        self.trouble: str | None = None

    async def get(self) -> Keys:
        try:
            self._read()
        except WorldError as error:
            self.trouble = str(error)
        if self._value is None:
            raise away(self.trouble or "jwks: not read yet")
        return self._value

    async def newer_than(self, seen: Keys) -> Keys:
        return await self.get()

    def _read(self) -> None:
        try:
            found = self._path.stat()
            mark = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)
            if mark == self._mark and self.trouble is None:
                return
            with self._path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise away(f"jwks: `{self._path}`: {error.strerror}") from error
        if len(raw) > MAX_BYTES:
            raise away("jwks: the file is larger than 512 KiB")
        self._value = _usable(_object(raw, "jwks"))
        self._mark, self.trouble = mark, None


def _object(raw: bytes, what: str) -> dict[str, JSON]:
    try:
        return read_object(raw)
    except ClientError as refusal:
        raise away(f"{what}: no JSON object") from refusal


def _usable(document: dict[str, JSON]) -> Keys:
    try:
        keys = usable_keys(document)
    except ClientError as refusal:
        raise away("jwks: it is no key set") from refusal
    if not keys:
        raise away("jwks: no key can be used")
    return keys
