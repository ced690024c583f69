"""A smith of assertions for the tests: `KEY` is ztproxy's, `OTHER` a stranger's, `sign` makes any token.

`HOSTILE` is the table every verifier of this repository is tried on, whatever language it is written in.
"""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm

from ztproxy.verify import Rejection

AUDIENCE = "https://app.example.com"
ISSUER = "https://app.example.com"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of the group of P-256


class Key(NamedTuple):
    kid: str
    private: ec.EllipticCurvePrivateKey

    def jwk(self, **changes: object) -> dict[str, object]:
        public = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**public, "kid": self.kid, "use": "sig", "alg": "ES256", **changes}

    def pem(self) -> bytes:
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


def new_key(kid: str) -> Key:
    return Key(kid, ec.generate_private_key(ec.SECP256R1()))


KEY = new_key("zt-1")
OTHER = new_key("zt-2")
JWKS: dict[str, object] = {"keys": [KEY.jwk()]}


def b64(raw: bytes | Mapping[str, object]) -> str:
    data = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(**changes: object) -> dict[str, object]:
    """Alice's claims at this moment; a change to `...` leaves the claim out."""
    now = int(time.time())
    ordinary: dict[str, object] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "5f1c",
        "iat": now,
        "exp": now + 300,
        "jti": "9c9b2f",
        "sid": "s-1",
        "email": "alice@example.com",
        "name": "Alice",
        "preferred_username": "alice",
        "groups": ["engineering"],
        "acr": "urn:ztproxy:demo:mfa",
        "amr": ["pwd", "otp", "mfa"],
        "auth_time": now - 60,
        "idp": "https://op.example.com",
        "device": "laptop-1",
        "scope": "deploy read",
    }
    return {name: value for name, value in {**ordinary, **changes}.items() if value is not ...}


def sign_raw(
    header: bytes | Mapping[str, object], payload: bytes | Mapping[str, object], key: Key = KEY
) -> str:
    """A token with exactly these bytes, signed properly with ES256 whatever the header says."""
    signed = f"{b64(header)}.{b64(payload)}"
    signature = ECAlgorithm(ECAlgorithm.SHA256, ec.SECP256R1).sign(signed.encode(), key.private)
    return f"{signed}.{b64(signature)}"


def header(**changes: object) -> dict[str, object]:
    ordinary: dict[str, object] = {"alg": "ES256", "kid": KEY.kid, "typ": "JWT"}
    return {name: value for name, value in {**ordinary, **changes}.items() if value is not ...}


def sign(key: Key = KEY, /, **changes: object) -> str:
    return sign_raw(header(kid=key.kid), claims(**changes), key)


def with_header(**changes: object) -> str:
    return sign_raw(header(**changes), claims())


def parts(token: str) -> tuple[str, str, str]:
    first, second, third = token.split(".")
    return first, second, third


def with_signature(raw: bytes) -> str:
    first, second, _ = parts(sign())
    return f"{first}.{second}.{b64(raw)}"


def _unsigned(alg: object) -> str:
    return f"{b64(header(alg=alg))}.{b64(claims())}."


def _hs256(secret: bytes) -> str:
    signed = f"{b64(header(alg='HS256'))}.{b64(claims())}"
    mac = hmac.HMAC(secret, hashes.SHA256())
    mac.update(signed.encode())
    return f"{signed}.{b64(mac.finalize())}"


def _rs256() -> str:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return jwt.encode(claims(), private, "RS256", headers={"kid": KEY.kid})


def _der_signature() -> str:
    first, second, _ = parts(sign())
    return (
        f"{first}.{second}.{b64(KEY.private.sign(f'{first}.{second}'.encode(), ec.ECDSA(hashes.SHA256())))}"
    )


def _claims_swapped() -> str:
    first, _, third = parts(sign())
    return f"{first}.{b64(claims(sub='carol', groups=['admins']))}.{third}"


def _spare_bits() -> str:
    """The same 64 bytes in another spelling: the two unused bits of the last character are set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = sign()
    return token[:-1] + alphabet[alphabet.index(token[-1]) | 1]


def _padded() -> str:
    return sign() + "=="


def _in_the_middle(text: str) -> str:
    first, second, third = parts(sign())
    return f"{first}.{second[:20]}{text}{second[20:]}.{third}"


def _payload(raw: bytes) -> str:
    return sign_raw(header(), raw)


def _twice(name: str, value: str) -> str:
    return _payload(json.dumps(claims()).encode()[:-1] + f', "{name}": {value}}}'.encode())


def row(name: str, forge: Callable[[], str], reason: Rejection) -> Any:
    return pytest.param(forge, reason, id=name)


NOW = time.time

HOSTILE = [
    row("alg none", lambda: _unsigned("none"), Rejection.ALGORITHM),
    row("alg nOnE", lambda: _unsigned("nOnE"), Rejection.ALGORITHM),
    row("alg empty", lambda: _unsigned(""), Rejection.ALGORITHM),
    row("alg missing", lambda: with_header(alg=...), Rejection.ALGORITHM),
    row("alg a list", lambda: with_header(alg=["ES256"]), Rejection.ALGORITHM),
    row("alg null", lambda: with_header(alg=None), Rejection.ALGORITHM),
    row("alg ES384", lambda: with_header(alg="ES384"), Rejection.ALGORITHM),
    row("HS256 keyed with the public key in PEM", lambda: _hs256(KEY.pem()), Rejection.ALGORITHM),
    row("HS256 keyed with the key set", lambda: _hs256(json.dumps(JWKS).encode()), Rejection.ALGORITHM),
    row("RS256", _rs256, Rejection.ALGORITHM),
    row("ES256 without a signature", lambda: ".".join(parts(sign())[:2]) + ".", Rejection.SIGNATURE),
    row("signature of zeros", lambda: with_signature(bytes(64)), Rejection.SIGNATURE),
    row("signature r = n", lambda: with_signature(ORDER.to_bytes(32) + b"\1" * 32), Rejection.SIGNATURE),
    row("signature s = n", lambda: with_signature(b"\1" * 32 + ORDER.to_bytes(32)), Rejection.SIGNATURE),
    row("signature in DER", _der_signature, Rejection.SIGNATURE),
    row("signature of 63 bytes", lambda: with_signature(b"\1" * 63), Rejection.SIGNATURE),
    row("signature of 65 bytes", lambda: with_signature(b"\1" * 65), Rejection.SIGNATURE),
    row("another's key under our kid", lambda: sign_raw(header(), claims(), OTHER), Rejection.SIGNATURE),
    row("claims swapped", _claims_swapped, Rejection.SIGNATURE),
    row("kid unknown", lambda: sign(OTHER), Rejection.UNKNOWN_KEY),
    row("kid a path", lambda: with_header(kid="../../../dev/null"), Rejection.UNKNOWN_KEY),
    row("kid with NUL", lambda: with_header(kid="zt-1\0"), Rejection.UNKNOWN_KEY),
    row("kid in another case", lambda: with_header(kid="ZT-1"), Rejection.UNKNOWN_KEY),
    row("kid a name of the runtime", lambda: with_header(kid="__proto__"), Rejection.UNKNOWN_KEY),
    row("kid missing", lambda: with_header(kid=...), Rejection.HEADER),
    row("kid empty", lambda: with_header(kid=""), Rejection.HEADER),
    row("kid a number", lambda: with_header(kid=7), Rejection.HEADER),
    row("kid a list", lambda: with_header(kid=["zt-1"]), Rejection.HEADER),
    row("kid of 10 KiB", lambda: with_header(kid="k" * 10240), Rejection.HEADER),
    row("typ missing", lambda: with_header(typ=...), Rejection.HEADER),
    row("typ logout+jwt", lambda: with_header(typ="logout+jwt"), Rejection.HEADER),
    row("typ at+jwt", lambda: with_header(typ="at+jwt"), Rejection.HEADER),
    row("brings its own key", lambda: sign_raw(header(jwk=OTHER.jwk()), claims(), OTHER), Rejection.HEADER),
    row("points to a key set", lambda: with_header(jku="https://evil.test/jwks"), Rejection.HEADER),
    row("points to a certificate", lambda: with_header(x5u="https://evil.test/c"), Rejection.HEADER),
    row("crit", lambda: with_header(crit=["b64"], b64=False), Rejection.HEADER),
    row("crit empty", lambda: with_header(crit=[]), Rejection.HEADER),
    row("header a list", lambda: sign_raw(b'["ES256"]', claims()), Rejection.HEADER),
    row("header not JSON", lambda: sign_raw(b"{alg:ES256}", claims()), Rejection.HEADER),
    row(
        "header names alg twice",
        lambda: sign_raw(b'{"alg":"none","alg":"ES256","kid":"zt-1","typ":"JWT"}', claims()),
        Rejection.HEADER,
    ),
    row("empty", lambda: "", Rejection.MISSING),
    row("not a token", lambda: "alice", Rejection.FORMAT),
    row("two parts", lambda: "e30.e30", Rejection.FORMAT),
    row("four parts", lambda: sign() + ".e30", Rejection.FORMAT),
    row("five parts of a JWE", lambda: "e30.e30.e30.e30.e30", Rejection.FORMAT),
    row("padded", _padded, Rejection.FORMAT),
    row("spare bits set", _spare_bits, Rejection.FORMAT),
    row("a length no base64url has", lambda: "e30aa." + ".".join(parts(sign())[1:]), Rejection.FORMAT),
    row("a plus", lambda: _in_the_middle("+"), Rejection.FORMAT),
    row("a space", lambda: _in_the_middle(" "), Rejection.FORMAT),
    row("two in one value", lambda: f"{sign()}, {sign()}", Rejection.FORMAT),
    row("Bearer before it", lambda: f"Bearer {sign()}", Rejection.FORMAT),
    row("iss missing", lambda: sign(iss=...), Rejection.CLAIMS),
    row("iss a list", lambda: sign(iss=[ISSUER]), Rejection.CLAIMS),
    row("aud missing", lambda: sign(aud=...), Rejection.CLAIMS),
    row("aud a list", lambda: sign(aud=[AUDIENCE, "https://other.example.com"]), Rejection.CLAIMS),
    row("aud a number", lambda: sign(aud=7), Rejection.CLAIMS),
    row("aud of another app", lambda: sign(aud="https://other.example.com"), Rejection.AUDIENCE),
    row("aud with a slash", lambda: sign(aud=AUDIENCE + "/"), Rejection.AUDIENCE),
    row("aud a part of ours", lambda: sign(aud=AUDIENCE[:-1]), Rejection.AUDIENCE),
    row("aud in capitals", lambda: sign(aud=AUDIENCE.upper()), Rejection.AUDIENCE),
    row("sub missing", lambda: sign(sub=...), Rejection.CLAIMS),
    row("sub empty", lambda: sign(sub=""), Rejection.CLAIMS),
    row("sub a number", lambda: sign(sub=5), Rejection.CLAIMS),
    row("jti missing", lambda: sign(jti=...), Rejection.CLAIMS),
    row("iat missing", lambda: sign(iat=...), Rejection.CLAIMS),
    row("iat a text", lambda: sign(iat="0"), Rejection.CLAIMS),
    row("iat negative", lambda: sign(iat=-1), Rejection.CLAIMS),
    row(
        "iat in an hour", lambda: sign(iat=int(NOW()) + 3600, exp=int(NOW()) + 3900), Rejection.NOT_YET_VALID
    ),
    row("exp missing", lambda: sign(exp=...), Rejection.CLAIMS),
    row("exp null", lambda: sign(exp=None), Rejection.CLAIMS),
    row("exp true", lambda: sign(exp=True), Rejection.CLAIMS),
    row("exp a fraction", lambda: sign(exp=NOW() + 300.5), Rejection.CLAIMS),
    row("exp before iat", lambda: sign(exp=int(NOW()) - 1), Rejection.CLAIMS),
    row("expired", lambda: sign(iat=int(NOW()) - 400, exp=int(NOW()) - 100), Rejection.EXPIRED),
    row("groups a text", lambda: sign(groups="admins"), Rejection.CLAIMS),
    row("groups null", lambda: sign(groups=None), Rejection.CLAIMS),
    row("groups with a null", lambda: sign(groups=["admins", None]), Rejection.CLAIMS),
    row("email a list", lambda: sign(email=["alice@example.com"]), Rejection.CLAIMS),
    row("auth_time a text", lambda: sign(auth_time="now"), Rejection.CLAIMS),
    row("a lone surrogate", lambda: sign(sub="a\ud800"), Rejection.CLAIMS),
    row("sub twice", lambda: _twice("sub", '"carol"'), Rejection.CLAIMS),
    row("NaN", lambda: _twice("x", "NaN"), Rejection.CLAIMS),
    row("1e999", lambda: _twice("x", "1e999"), Rejection.CLAIMS),
    row("a number of 5,000 digits", lambda: _twice("x", "9" * 5000), Rejection.CLAIMS),
    row("claims a list", lambda: _payload(b"[]"), Rejection.CLAIMS),
    row("claims not UTF-8", lambda: _payload(b'{"sub":"\xff"}'), Rejection.CLAIMS),
    row("claims with a byte order mark", lambda: _payload(b"\xef\xbb\xbf{}"), Rejection.CLAIMS),
    row("nested 5,000 deep", lambda: _payload(b'{"a":' * 2000 + b"1" + b"}" * 2000), Rejection.CLAIMS),
]

# What no HTTP field can carry, for verifiers that are called with a text.
HOSTILE_TEXTS = [
    row("100 KiB", lambda: sign(name="n" * 102400), Rejection.SIZE),
    row("100 KiB of nothing", lambda: "a" * 102400, Rejection.SIZE),
    row("a line break after it", lambda: sign() + "\n", Rejection.FORMAT),
    row("a line break in it", lambda: _in_the_middle("\n"), Rejection.FORMAT),
    row("a letter that looks like ours", lambda: _in_the_middle("\u0430"), Rejection.FORMAT),
    row("a NUL", lambda: _in_the_middle("\0"), Rejection.FORMAT),
]


class KeySetServer(ThreadingHTTPServer):
    """Serves a key set on loopback as it is told to, and counts how often it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _KeySetHandler)
        self.body: bytes = json.dumps(JWKS).encode()
        self.status = 200
        self.location: str | None = None
        self.hits = 0
        self.hold = threading.Event()
        self.hold.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/jwks.json"

    def publish(self, *keys: Mapping[str, object]) -> None:
        self.body = json.dumps({"keys": list(keys)}).encode()


class _KeySetHandler(BaseHTTPRequestHandler):
    server: KeySetServer

    def do_GET(self) -> None:
        self.server.hits += 1
        self.server.hold.wait(10)
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", str(len(self.server.body)))
        try:
            self.end_headers()
            self.wfile.write(self.server.body)
        except ConnectionError:
            pass  # the client had enough, which some tests are about

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def key_set_server() -> Iterator[KeySetServer]:
    server = KeySetServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()
