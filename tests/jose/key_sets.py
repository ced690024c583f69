"""Key sets with keys that must not be used, and documents that are no key set."""

from __future__ import annotations

from typing import Any

from tests.jose.smith import (
    D1,
    E1,
    E2,
    E384,
    E_KOBLITZ,
    P256_PRIME,
    R1,
    as_json,
    compact,
    jwk,
    number,
    raw_pair,
    spell,
)
from tests.jose.table import JWKS, SPARE, Table, Vector, next_letter


def elliptic_keys(on: Table) -> None:
    point = E1.public_key().public_numbers()
    x, y = number(point.x, 32), number(point.y, 32)
    off = number((point.y + 1) % P256_PRIME, 32)
    odd: dict[str, dict[str, Any]] = {
        "off-the-curve": {"y": off},
        "infinity": {"x": number(0, 32), "y": number(0, 32)},
        "x-zero": {"x": number(0, 32)},
        "x-is-p": {"x": number(P256_PRIME, 32)},
        "x-max": {"x": number(2**256 - 1, 32)},
        "coordinates-swapped": {"x": y, "y": x},
        "y-missing": {"y": ...},
        "y-empty": {"y": ""},
        "x-missing": {"x": ...},
        "x-number": {"x": 7},
        "x-null": {"x": None},
        "x-list": {"x": [x]},
        "short": {"x": "AA", "y": "AA"},
        "33-bytes": {"x": spell(b"\0" + point.x.to_bytes(32, "big"))},
        "compressed": {"x": spell(b"\2" + point.x.to_bytes(32, "big")), "y": ...},
        "uncompressed-in-x": {"x": spell(b"\4" + raw_pair(point.x, point.y)), "y": ...},
        "padded": {"x": x + "="},
        "newline": {"x": x + "\n"},
        "space": {"x": " " + x},
        "spare-bits": {"x": x[:-1] + next_letter(x[-1])},
        "hex": {"x": f"{point.x:064x}"},
        "crv-P-384": {"crv": "P-384"},
        "crv-P-521": {"crv": "P-521"},
        "crv-secp256k1": {"crv": "secp256k1"},
        "crv-lower-case": {"crv": "p-256"},
        "crv-old-name": {"crv": "secp256r1"},
        "crv-unknown": {"crv": "P-999"},
        "crv-missing": {"crv": ...},
        "crv-null": {"crv": None},
        "crv-list": {"crv": ["P-256"]},
        "kty-lower-case": {"kty": "ec"},
        "kty-RSA": {"kty": "RSA"},
        "kty-OKP": {"kty": "OKP"},
        "kty-oct": {"kty": "oct"},
        "kty-missing": {"kty": ...},
        "kty-number": {"kty": 2},
        "kty-list": {"kty": ["EC"]},
    }
    for name, changes in odd.items():
        published = as_json({"keys": [jwk(E1, "e1", **changes), SPARE]})
        on.add(f"ec-key/{name}", on.signed(), "kid", published)
    for name, key in (("P-384", E384), ("secp256k1", E_KOBLITZ)):
        published = as_json({"keys": [jwk(key, "e1", crv="P-256"), SPARE]})
        on.add(f"ec-key/{name}-called-P-256", compact(on.head(), on.claims, key), "kid", published)


def key_sets(on: Table) -> None:
    good, other = jwk(E1, "e1"), jwk(E2, "e1")

    def put(name: str, keys: list[Any], reason: str = "kid", token: str | None = None, **unlike: str) -> None:
        on.add(f"keys/{name}", token or on.signed(), reason, as_json({"keys": keys}), **unlike)

    uses: dict[str, dict[str, Any]] = {
        "use-enc": {"use": "enc"},
        "use-SIG": {"use": "SIG"},
        "use-null": {"use": None},
        "use-list": {"use": ["sig"]},
        "use-empty": {"use": ""},
        "key_ops-encrypt": {"key_ops": ["encrypt"]},
        "key_ops-sign": {"key_ops": ["sign"]},
        "key_ops-empty": {"key_ops": []},
        "key_ops-text": {"key_ops": "verify"},
        "key_ops-null": {"key_ops": None},
        "key_ops-object": {"key_ops": {"verify": True}},
        "alg-ES384": {"alg": "ES384"},
        "alg-RS256": {"alg": "RS256"},
        "alg-HS256": {"alg": "HS256"},
        "alg-none": {"alg": "none"},
        "alg-ECDH-ES": {"alg": "ECDH-ES"},
        "alg-null": {"alg": None},
        "alg-list": {"alg": ["ES256"]},
        "alg-lower-case": {"alg": "es256"},
        "private-d": {"d": number(E1.private_numbers().private_value, 32)},
        "private-d-empty": {"d": ""},
        "private-d-null": {"d": None},
        "symmetric-k": {"k": "AAAA"},
    }
    for name, changes in uses.items():
        put(name, [jwk(E1, "e1", **changes), SPARE])
    fine: dict[str, dict[str, Any]] = {
        "use-missing": {"use": ...},
        "use-and-key_ops": {"key_ops": ["verify"]},
        "key_ops-sign-and-verify": {"use": ..., "key_ops": ["sign", "verify"]},
        "alg-ES256": {"alg": "ES256"},
        "certificate-not-looked-at": {"x5c": ["AAAA"], "x5t": "AA", "x5u": "https://evil.test/"},
        "unknown-member": {"ext": True, "nbf": 0},
    }
    for name, changes in fine.items():
        put(f"fine/{name}", [jwk(E1, "e1", **changes), SPARE], "")
    octets = {"kty": "oct", "k": spell(b"s" * 32), "kid": "e1", "alg": "HS256"}
    put("oct-of-that-name", [octets, SPARE])
    doubles = {
        "another": other,
        "itself": good,
        "encrypting": jwk(E2, "e1", use="enc"),
        "oct": octets,
        "rsa": jwk(R1, "e1"),
    }
    for name, second in doubles.items():
        put(f"kid-twice/{name}", [good, second, SPARE])
        put(f"kid-twice/{name}-first", [second, good, SPARE])
    put("kid-three-times", [good, other, good, SPARE])
    for name, kid in {"number": 7, "null": None, "list": ["e1"], "missing": ...}.items():
        put(f"kid-of-the-key/{name}", [jwk(E1, None) if kid is ... else {**good, "kid": kid}, SPARE])
    nameless = compact(on.head(kid=...), on.claims, E1)
    put("no-kid/one-key", [good], "", nameless, app="header")
    put("no-kid/one-for-it", [good, jwk(R1, "r1"), jwk(D1, "d1")], "", nameless, app="header")
    put("no-kid/two-for-it", [good, SPARE], "kid", nameless, app="header")
    put("no-kid/unnamed-key", [jwk(E1, None)], "", nameless, app="jwks")
    put("no-kid/two-unnamed", [jwk(E1, None), jwk(E2, None), jwk(R1, "r1")], "kid", nameless, app="jwks")
    put("no-kid/another-kind", [jwk(R1, "r1")], "kid", nameless, app="jwks")
    put("no-kid/wrong-key", [jwk(E2, "e2")], "sig", nameless, app="header")
    for row in ("no-kid/unnamed-key", "no-kid/two-unnamed", "no-kid/another-kind"):
        if on.kind == "app":  # it looks at the header before it looks for keys
            was = on.rows[f"keys/{row}"]
            on.rows[f"keys/{row}"] = Vector(was.name, was.token, "header", was.jwks)
    many = [jwk(E2, f"k{count}") for count in range(63)]
    put("64", [*many, good], "")
    put("65", [*many, SPARE, good], "jwks")
    put("junk-beside", [None, 7, "e1", [], {}, {"kid": "e1x"}, good], "")
    put("none-usable", [octets], "jwks")
    put("empty", [], "jwks")
    documents = {
        "no-object": b"[]",
        "text": b'"keys"',
        "html": b"<html>keys</html>",
        "nothing": b"",
        "keys-object": b'{"keys":{}}',
        "keys-null": b'{"keys":null}',
        "keys-missing": b"{}",
        "keys-of-another-case": JWKS.replace(b'"keys"', b'"Keys"'),
        "keys-twice": JWKS[:-1] + b',"keys":[]}',
        "keys-twice-escaped": JWKS[:-1] + b',"\\u006beys":[]}',
        "trailing": JWKS + b" x",
        "two": JWKS + JWKS,
        "byte-order-mark": b"\xef\xbb\xbf" + JWKS,
        "utf-16": JWKS.decode().encode("utf-16"),
        "not-utf-8": JWKS[:-1] + b',"x":"\xff"}',
        "nan": JWKS[:-1] + b',"x":NaN}',
        "surrogate": JWKS[:-1] + b',"x":"\\ud800"}',
        "5000-digits": JWKS[:-1] + b',"x":' + b"9" * 5000 + b"}",
        "deep-10000": JWKS[:-1] + b',"x":' + b"[" * 10000 + b"]" * 10000 + b"}",
        "member-twice": JWKS.replace(b'"kty":"EC"', b'"kty":"EC","kty":"oct"'),
        "cut": JWKS[:-2],
        "a-key-alone": as_json(good),
        "a-jwt": on.signed().encode(),
    }
    for name, document in documents.items():
        on.add(f"keys/document/{name}", on.signed(), "jwks", document)
    on.add("keys/document/large", on.signed(), "jwks", JWKS + b" " * (512 * 1024))
