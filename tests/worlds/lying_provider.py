"""An OpenID provider on a real socket that can lie in every way. What it says is `world.lies`, by path.

`LyingProvider()` is honest until told otherwise: `lie("/jwks", Says(...))` replaces one answer, `claims`
changes the ID token, `header` and `signer` change how it is signed. It counts what it was asked in `hits` and
keeps the last token request in `asked`. Its sign-in page is skipped: `sign_in(url)` is what a browser would
come back with.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
CLIENT_ID, CLIENT_SECRET = "ztp", "s3cret: with /odd+ characters, 32"

_RSA = {name: rsa.generate_private_key(65537, 2048) for name in ("k1", "k3")}


@dataclass(frozen=True)
class Key:
    kid: str | None
    alg: str
    private: Private = field(repr=False)

    def jwk(self, **changes: Any) -> dict[str, Any]:
        public = self.private.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            jwk: dict[str, Any] = RSAAlgorithm.to_jwk(public, as_dict=True)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            jwk = ECAlgorithm.to_jwk(public, as_dict=True)
        else:
            jwk = OKPAlgorithm.to_jwk(public, as_dict=True)
        jwk.pop("key_ops", None)
        named = {} if self.kid is None else {"kid": self.kid}
        return {**jwk, **named, "alg": self.alg, "use": "sig", **changes}


def rsa_key(kid: str | None = "k1", alg: str = "RS256", which: str = "k1") -> Key:
    return Key(kid, alg, _RSA[which])


def ec_key(kid: str | None = "k2") -> Key:
    return Key(kid, "ES256", ec.generate_private_key(ec.SECP256R1()))


def ed_key(kid: str | None = "k4") -> Key:
    return Key(kid, "EdDSA", ed25519.Ed25519PrivateKey.generate())


@dataclass(frozen=True)
class Says:
    """An answer instead of the honest one. `drip`: seconds between single bytes. `after`: seconds of
    silence."""

    body: bytes | str | dict[str, Any] = b""
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    after: float = 0.0


class LyingProvider:
    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.keys: list[Key] = [rsa_key()]
        self.signer: Key = self.keys[0]
        self.lies: dict[str, Says] = {}
        self.hits: Counter[str] = Counter()
        self.asked: list[tuple[dict[str, str], dict[str, str]]] = []
        self.metadata: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self.token: dict[str, Any] = {}
        self.raw_token: str | None = None
        self.person: dict[str, Any] = {"sub": "alice"}
        self.userinfo: dict[str, Any] = {}
        self.issuer = ""
        self._nonces: dict[str, str] = {}
        self._challenges: dict[str, str] = {}
        self.token_asked = asyncio.Event()
        self._live_refresh: set[str] = set()

    def lie(self, path: str, says: Says) -> None:
        self.lies[path] = says

    def sign_in(self, authorization_url: str) -> list[tuple[str, str]]:
        """The parameters of the callback, after a person signed in at once."""
        params = dict(parse_qsl(urlsplit(authorization_url).query))
        code = secrets.token_urlsafe(8)
        self._nonces[code], self._challenges[code] = params["nonce"], params["code_challenge"]
        return [("code", code), ("state", params["state"]), ("iss", self.issuer)]

    def id_token(self, nonce: str | None, **changes: Any) -> str:
        now = self.clock()
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": int(now),
            "exp": int(now) + 300,
            **({} if nonce is None else {"nonce": nonce}),
            **self.person,
            **self.claims,
            **changes,
        }
        claims = {name: value for name, value in claims.items() if value is not ...}
        kid = {} if self.signer.kid is None else {"kid": self.signer.kid}
        return jwt.encode(claims, self.signer.private, self.signer.alg, headers={**kid, **self.header})

    def logout_token(self, **changes: Any) -> str:
        """A good one about the session `i-1`; `...` takes a claim away, `header` and `signer` apply."""
        now = self.clock()
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": int(now),
            "exp": int(now) + 120,
            "jti": secrets.token_urlsafe(16),
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
            "sid": "i-1",
            **changes,
        }
        claims = {name: value for name, value in claims.items() if value is not ...}
        kid = {} if self.signer.kid is None else {"kid": self.signer.kid}
        headers = {"typ": "logout+jwt", **kid, **self.header}
        return jwt.encode(claims, self.signer.private, self.signer.alg, headers=headers)

    def revoke_refresh_tokens(self) -> None:
        self._live_refresh.clear()

    # what it answers

    def _discovery(self) -> dict[str, Any]:
        honest = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize?tenant=1",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "end_session_endpoint": f"{self.issuer}/logout",
            "response_types_supported": ["code"],
            "authorization_response_iss_parameter_supported": True,
            **self.metadata,
        }
        return {name: value for name, value in honest.items() if value is not ...}

    def _tokens(self, form: dict[str, str]) -> dict[str, Any] | None:
        nonce: str | None = None
        if form["grant_type"] == "authorization_code":
            challenge = self._challenges.pop(form["code"], None)
            proof = hashlib.sha256(form["code_verifier"].encode()).digest()
            if challenge != base64.urlsafe_b64encode(proof).rstrip(b"=").decode():
                return None
            nonce = self._nonces.pop(form["code"])
        elif form["refresh_token"] not in self._live_refresh:
            return None
        self._live_refresh.discard(form.get("refresh_token", ""))
        fresh = secrets.token_urlsafe(8)
        self._live_refresh.add(fresh)
        honest = {
            "access_token": "at-" + fresh,
            "token_type": "Bearer",
            "expires_in": 300,
            "refresh_token": fresh,
            "id_token": self.raw_token or self.id_token(nonce),
            **self.token,
        }
        return {name: value for name, value in honest.items() if value is not ...}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.hits[request.path] += 1
        form = dict(parse_qsl(await request.text()))
        if request.method == "POST":
            self.asked.append((form, dict(request.headers)))
            self.token_asked.set()
        lie = self.lies.get(request.path)
        if lie is not None:
            await asyncio.sleep(lie.after)
            body = json.dumps(lie.body) if isinstance(lie.body, dict) else lie.body
            raw = body.encode() if isinstance(body, str) else body
            headers = {"Content-Type": lie.content_type, **lie.headers}
            return web.Response(body=raw, status=lie.status, headers=headers)
        match request.path:
            case "/.well-known/openid-configuration":
                return web.json_response(self._discovery())
            case "/jwks":
                return web.json_response({"keys": [key.jwk() for key in self.keys]})
            case "/token":
                tokens = self._tokens(form)
                if tokens is None:
                    return web.json_response({"error": "invalid_grant"}, status=400)
                return web.json_response(tokens)
            case "/userinfo":
                return web.json_response({**self.person, **self.userinfo})
        return web.Response(status=404)


@asynccontextmanager
async def serving(handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """The origin at which `handler` answers, on a free port of this machine."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def lying_provider(clock: Callable[[], float]) -> AsyncIterator[LyingProvider]:
    provider = LyingProvider(clock)
    async with serving(provider.handle) as origin:
        provider.issuer = origin
        yield provider
