"""Every target by its name: the function, how long an input may be, and the words of its language.

A target is `target(data: bytes) -> None`: it raises for a property that does not hold, and lets out what the
product must not let out. The words become libFuzzer's dictionary and the twins' insertions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import cast


@dataclass(frozen=True)
class Target:
    """`function` is `module.name` below `targets`; `what` is tried, as it reads in a list. `examples`: how
    many inputs its twin tries in the suite, fewer where one costs milliseconds."""

    name: str
    function: str
    what: str
    words: tuple[bytes, ...] = ()
    longest: int = 2048
    examples: int = 100

    @cached_property
    def run(self) -> Callable[[bytes], None]:
        """The target, imported when it is asked for: each runs in a process of its own, which starts faster
        without the others."""
        module, name = self.function.split(".")
        return cast("Callable[[bytes], None]", getattr(import_module(f"tests.fuzz.targets.{module}"), name))


def _words(text: bytes) -> tuple[bytes, ...]:
    return tuple(text.split(b"|"))


_HTTP = _words(
    b"Host: |Content-Length: |Transfer-Encoding: chunked|Connection: |Upgrade: websocket|Expect: 100-continue"
    b"|Cookie: |close|keep-alive|\r\n|\r\n\r\n| HTTP/1.1|\x0b|X-Forwarded-For: |X_Team: a|Traceparent: |TE: a"
    b"|POST |OPTIONS |http://"
)
_ANSWER = (*_words(b"HTTP/1.1 |Set-Cookie: __Host-ztp|Alt-Svc: |101 |204 |304 |0\r\n\r\n"), *_HTTP)
_URL = _words(
    rb"%2e|%2F|%5c|%3b|%25|%00|%c0%af|%u002e|..|//|;|\|/./|.ztproxy|.well-known/ztproxy|%EF%BC%8F|?|#|@|https://"
)
_JSON = _words(
    rb'{"|":|null|true|1e999|\ud800|[]|{}|"iss"|"aud"|"sub"|"exp"|"kid"|"alg"|"kty"|"keys"|ES256|none|HS256|NaN|'
    rb'"sid"|"nonce"'
)
_YAML = _words(
    b"allow:|deny:|any_of:|all_of:|none_of:|group: |path: |prefix: |\n  - |claim/|public: true|device:|time:|"
    b"authenticated: true|${SECRET}|&a |*a|!!|<<: |service: |source_network: |acr: |{|}|[|]|: |'|\"|\n"
)
_DER = _words(b"\x30\x82|\x06\x03\x55\x1d|\x04|\x0c\x01\x00|\x86|\x82|\xa0")
_MSGPACK = _words(b"\x80|\x90|\xc0|\xcb\x7f\xf8|\xdc\xff\xff|\xdf\xff\xff\xff\xff|\xa6issuer")

_ALL = (
    # What a client sends.
    Target("request-head", "requests.request_head", "request heads, and what is forwarded of them", _HTTP),
    Target("host", "requests.host", "hosts", _words(b"[::|]|:80|0x7f|xn--|.|@|127"), 300),
    Target(
        "cookies",
        "requests.cookies",
        "Cookie fields",
        _words(b'__Host-ztproxy=|__Secure-ztp|; |=|"|\n'),
        600,
    ),
    Target("path", "requests.path", "paths", _URL, 300),
    Target(
        "chunked-body",
        "requests.chunked_body",
        "chunked bodies",
        _words(b"\r\n|0\r\n\r\n|;|fffffffffffffff|X: y"),
        1024,
    ),
    Target("redirect", "requests.redirect", "return addresses", _URL, 300),
    # What stands in front of us says.
    Target(
        "forwarding",
        "fronts.forwarding",
        "X-Forwarded-For and its kin",
        (*_words(b"10.0.0.2|fd00::1|::ffff:|%|, "), *_HTTP),
        600,
    ),
    Target(
        "certificate-fields",
        "fronts.certificate_fields",
        "certificates in fields",
        _words(b'Cert=|Chain=|"|;|,|:|%0A|SUCCESS|NONE'),
        3000,
    ),
    Target(
        "proxy-protocol",
        "fronts.proxy_protocol",
        "PROXY protocol headers",
        _words(b"\r\n\r\n\x00\r\nQUIT\n|\x21\x11\x00\x0c|\x20\x00"),
        600,
    ),
    Target("client-hello", "fronts.client_hello", "ClientHellos", _words(b"\x16\x03\x01|\x00\x00|app.test")),
    # What an app sends back.
    Target("answer-head", "apps.answer_head", "heads of answers", _ANSWER),
    Target("answer-stream", "streams.answer_stream", "all that an app sends on a connection", _ANSWER),
    Target(
        "websocket-frames",
        "apps.websocket_frames",
        "WebSocket frames",
        _words(b"\x81\x7e|\x81\x7f|\x88\x00|\x89\x7d|\x01\x80"),
        1024,
    ),
    # What comes from a provider.
    Target("jws", "tokens.jws", "tokens in compact form", (b".", b"eyJhbGciOiJFUzI1NiJ9", *_JSON)),
    Target(
        "jwks", "tokens.jwks", "key sets", (*_words(b'"RSA"|"AQAB"|"EC"|"OKP"|"use":"sig"|"d":"a"'), *_JSON)
    ),
    Target(
        "discovery",
        "tokens.discovery",
        "discovery documents",
        (*_words(rb"https://|@|\\|#|?|:443|op.test|[::1]"), *_JSON),
    ),
    Target(
        "logout-token", "tokens.logout_token", "claims of logout tokens", (b'"events":', b'"jti"', *_JSON)
    ),
    Target(
        "id-token", "tokens.id_token", "claims of ID tokens", (b'"email_verified":true', b"\\u000d", *_JSON)
    ),
    # What is read back from the store.
    Target("session-record", "records.session_record", "session records", _MSGPACK),
    Target("device-record", "records.device_record", "device records", _MSGPACK),
    Target("lock-record", "records.lock_record", "entries of the log of revocations", (b'{"at":', *_MSGPACK)),
    Target("sealed", "records.sealed", "sealed values", (b"\x01",), 600),
    # Certificates, and what operators write.
    Target("certificate", "certificates.certificate", "client certificates", _DER, 1200, 80),
    Target(
        "revocation-list",
        "certificates.revocation_list",
        "revocation lists",
        (b"-----BEGIN X509 CRL-----\n", *_DER),
        1200,
        100,
    ),
    Target("config", "operators.config", "configurations", _YAML, 2048, 25),
    Target("policy", "operators.policy", "policies", _YAML, 1024, 40),
    Target("spiffe", "operators.spiffe", "SPIFFE IDs and patterns", _words(b"spiffe://|/*|..|%|@"), 300),
    Target(
        "device-files",
        "operators.device_files",
        "files of devices",
        _words(b'id,|owners|posture.|"|\n|{"id":|\xef\xbb\xbf'),
    ),
)
TARGETS: dict[str, Target] = {target.name: target for target in _ALL}
