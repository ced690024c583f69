"""Signatures that are no signatures, and keys under which anybody could make one."""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.jose.smith import (
    D1,
    D2,
    DIGEST_INFO,
    E1,
    E2,
    ED_ORDER,
    ED_PRIME,
    P256_ORDER,
    P256_PRIME,
    R1,
    R_SMALL,
    R_THREE,
    as_json,
    certificate,
    digest_info,
    jwk,
    number,
    padded,
    pkcs1,
    raw_pair,
    sign,
    spell,
    with_signature,
)
from tests.jose.table import JWKS, SPARE, Table, next_letter

SMALL_ORDER = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
"""The y coordinate of a point of order 8 (Ed25519)."""


def ecdsa(on: Table) -> None:
    n = P256_ORDER
    odd = {"0": 0, "1": 1, "n-1": n - 1, "n": n, "n+1": n + 1, "p": P256_PRIME, "max": 2**256 - 1}
    for left, r in odd.items():
        for right, s in odd.items():
            token = with_signature(on.head(), on.claims, raw_pair(r, s))
            on.add(f"ecdsa/r={left}/s={right}", token, "sig")
    message = f"{spell(as_json(on.head()))}.{spell(as_json(on.claims))}"
    der = E1.sign(message.encode(), ec.ECDSA(hashes.SHA256()))
    r, s = decode_dss_signature(der)
    good = raw_pair(r, s)

    def put(name: str, signature: bytes, reason: str = "sig") -> None:
        on.add(f"ecdsa/{name}", f"{message}.{spell(signature)}", reason)

    put("good", good, "")
    put("malleable", raw_pair(r, n - s), "")
    put("swapped", raw_pair(s, r))
    put("r-negated", raw_pair(n - r, s))
    put("s-reduced", raw_pair(r, (s + n) % 2**256))
    put("der", der)
    put("der-cut", der[:64])
    put("der-padded", der.ljust(72, b"\0"))
    put("asn1-head", b"\x30\x3e" + good[:62])
    for size in (1, 31, 32, 63):
        put(f"first-{size}", good[:size])
    put("65-zero-after", good + b"\0")
    put("65-zero-before", b"\0" + good)
    put("66-each-with-a-zero", b"\0" + good[:32] + b"\0" + good[32:])
    put("96", raw_pair(r, s, 48))
    put("132", raw_pair(r, s, 66))
    put("twice", good + good)
    put("of-SHA-384", sign(E1, "ES384", message.encode()))
    put("of-SHA-512", sign(E1, "ES512", message.encode()))
    put("of-the-payload", sign(E1, "ES256", message.partition(".")[2].encode()))
    put("of-the-bytes-unspelled", sign(E1, "ES256", as_json(on.head()) + b"." + as_json(on.claims)))
    put("with-a-dot-after", sign(E1, "ES256", (message + ".").encode()))
    put("by-another-key", sign(E2, "ES256", message.encode()))
    put("by-an-rsa-key", sign(R1, "RS256", message.encode()))
    for count in range(10_000):
        numbered = on.claims | {"n": count}
        text = f"{spell(as_json(on.head()))}.{spell(as_json(numbered))}"
        made = sign(E1, "ES256", text.encode())
        if made[0] == 0 or made[32] == 0:
            on.add("ecdsa/leading-zero", f"{text}.{spell(made)}")
            stripped = made[1:] if made[0] == 0 else made[:32] + made[33:]
            on.add("ecdsa/leading-zero-left-out", f"{text}.{spell(stripped)}", "sig")
            break


def rsa_signatures(on: Table) -> None:
    head, n = on.head("RS256", "r1"), R1.private_numbers().public_numbers.n
    message = f"{spell(as_json(head))}.{spell(as_json(on.claims))}"
    raw = message.encode()
    info, digest = digest_info(raw), hashlib.sha256(raw).digest()
    good = sign(R1, "RS256", raw)
    as_number = int.from_bytes(good, "big")
    sha1 = bytes.fromhex("3021300906052b0e03021a05000414") + hashlib.sha1(raw).digest()
    sha384 = bytes.fromhex("3041300d060960864801650304020205000430") + hashlib.sha384(raw).digest()
    long_form = b"\x30\x81\x31" + info[2:]
    trailing = b"\x30\x33" + info[2:] + b"\5\0"
    forged = {
        "garbage-after": b"\0\1" + b"\xff" * 8 + b"\0" + info + b"g" * (245 - len(info)),
        "garbage-inside": padded(trailing),
        "long-form-length": padded(long_form),
        "kind-0": padded(info, kind=b"\0\0", filler=b"\0"),
        "kind-2": padded(info, kind=b"\0\2", filler=b"\x17"),
        "filler-not-ff": padded(info, filler=b"\xfe"),
        "filler-short": padded(info, size=254).ljust(256, b"\0"),
        "no-separator": b"\0\1" + b"\xff" * (254 - len(info)) + info,
        "no-digest-info": padded(digest),
        "indefinite-length": padded(b"\x30\x80" + info[2:] + b"\0\0"),
        "digest-of-31": padded(DIGEST_INFO[:-1] + b"\x1f" + digest[:31]),
        "sha-1": padded(sha1),
        "sha-384": padded(sha384),
        "empty": padded(b""),
        "wrong-oid": padded(DIGEST_INFO.replace(b"\x02\x01\x05", b"\x02\x04\x05") + digest),
    }

    def put(name: str, signature: bytes, reason: str = "sig") -> None:
        on.add(f"rsa/{name}", f"{message}.{spell(signature)}", reason, app="alg")

    put("good", good, "")
    for name, encoded in forged.items():
        put(name, pkcs1(R1, encoded))
    for name, value in {"0": 0, "1": 1, "n-1": n - 1, "n": n, "negated": n - as_number}.items():
        put(f"value-{name}", value.to_bytes(256, "big"))
    put("plus-n", (as_number + n).to_bytes(257, "big"))
    put("zero-before", b"\0" + good)
    put("zero-after", good + b"\0")
    put("one-short", good[:-1])
    put("by-another-key", sign(R_THREE, "RS256", raw))
    put("of-SHA-512", sign(R1, "RS512", raw))

    pss = on.head("PS256", "r1")
    text = f"{spell(as_json(pss))}.{spell(as_json(on.claims))}"
    sha256 = hashes.SHA256()
    for name, salt in {"0": 0, "20": 20, "31": 31, "33": 33, "most": 222}.items():
        made = R1.sign(text.encode(), padding.PSS(padding.MGF1(sha256), salt), sha256)
        on.add(f"rsa/pss-salt-{name}", f"{text}.{spell(made)}", "sig", app="alg")
    made = R1.sign(text.encode(), padding.PSS(padding.MGF1(hashes.SHA1()), 32), sha256)
    on.add("rsa/pss-mgf1-sha-1", f"{text}.{spell(made)}", "sig", app="alg")
    made = R1.sign(text.encode(), padding.PSS(padding.MGF1(hashes.SHA384()), 48), hashes.SHA384())
    on.add("rsa/pss-sha-384", f"{text}.{spell(made)}", "sig", app="alg")


def rsa_keys(on: Table) -> None:
    numbers = R1.private_numbers().public_numbers

    def put(name: str, published: dict[str, Any], key: Any = R1, reason: str = "kid") -> None:
        token = on.signed(key, "RS256", "r1")
        on.add(f"rsa-key/{name}", token, reason, as_json({"keys": [published, SPARE]}), app="alg")

    put("exponent-3", jwk(R_THREE, "r1"), R_THREE, "")
    put("leading-zero", jwk(R1, "r1", n=spell(b"\0" + numbers.n.to_bytes(256, "big"))), reason="")
    put("1024-bits", jwk(R_SMALL, "r1"), R_SMALL)
    for name, e in {
        "0": 0,
        "1": 1,
        "2": 2,
        "even": 65536,
        "2^32+1": 2**32 + 1,
        "huge": numbers.n - 2,
    }.items():
        put(f"exponent-{name}", jwk(R1, "r1", e=number(e)))
    changed = {"even": numbers.n - 1, "2047-bits": numbers.n >> 1 | 1, "zero": 0, "9000-bits": 2**9000 + 1}
    for name, n in changed.items():
        put(f"modulus-{name}", jwk(R1, "r1", n=number(n)))
    text = number(numbers.n)
    spelled = {"padded": text + "==", "newline": text + "\n", "plus": "+" + text[1:]}
    for name, n_text in (spelled | {"empty": "", "spare-bits": text[:-1] + next_letter(text[-1])}).items():
        put(f"modulus-spelled-{name}", jwk(R1, "r1", n=n_text))
    put("modulus-number", jwk(R1, "r1", n=7))
    put("modulus-list", jwk(R1, "r1", n=[text]))
    put("x5c-alone", jwk(R1, "r1", n=..., x5c=[spell(certificate(R1).tbs_certificate_bytes)]))
    put("exponent-missing", jwk(R1, "r1", e=...))
    # With an exponent of 1 the encoding is its own signature, and with 3 and a careless reader its cube root.
    head = on.head("RS256", "r1")
    text = f"{spell(as_json(head))}.{spell(as_json(on.claims))}"
    info = digest_info(text.encode())
    one = as_json({"keys": [jwk(R1, "r1", e="AQ"), SPARE]})
    on.add("rsa-key/exponent-1-forged", f"{text}.{spell(padded(info))}", "kid", one, app="alg")
    lead = b"\0\1" + b"\xff" * 8 + b"\0" + info
    root = _cube_root(int.from_bytes(lead.ljust(256, b"\xff"), "big"))
    assert root.to_bytes(256, "big") and (root**3).to_bytes(256, "big").startswith(lead)
    three = as_json({"keys": [jwk(R_THREE, "r1"), SPARE]})
    on.add(
        "rsa-key/exponent-3-cube-root", f"{text}.{spell(root.to_bytes(256, 'big'))}", "sig", three, app="alg"
    )


def _cube_root(value: int) -> int:
    low, high = 0, 1 << (value.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= value else (low, middle - 1)
    return low


def ed25519_vectors(on: Table) -> None:
    head = on.head("EdDSA", "d1")
    message = f"{spell(as_json(head))}.{spell(as_json(on.claims))}"
    good = sign(D1, "EdDSA", message.encode())
    r, s = good[:32], int.from_bytes(good[32:], "little")

    def put(name: str, signature: bytes, reason: str = "sig", published: Any = None) -> None:
        keys = JWKS if published is None else as_json({"keys": [published, SPARE]})
        on.add(f"ed25519/{name}", f"{message}.{spell(signature)}", reason, keys, app="alg")

    def little(value: int) -> bytes:
        return value.to_bytes(32, "little")

    put("good", good, "")
    put("s-plus-order", r + little(s + ED_ORDER))
    put("s-zero", r + bytes(32))
    put("s-order", r + little(ED_ORDER))
    put("all-zero", bytes(64))
    put("all-ff", b"\xff" * 64)
    put("r-identity-s-zero", little(1) + bytes(32))
    put("63", good[:-1])
    put("65", good + b"\0")
    put("halves-swapped", good[32:] + good[:32])
    put("by-another-key", sign(D2, "EdDSA", message.encode()))
    top = 2**255
    weak = {"0": 0, "1": 1, "p-1": ED_PRIME - 1, "eighth": SMALL_ORDER, "eighth-2": ED_PRIME - SMALL_ORDER}
    weak |= {"p": ED_PRIME, "p+1": ED_PRIME + 1, "p+3": ED_PRIME + 3}
    for name, y in weak.items():
        for sign_bit in (0, top):
            key = jwk(D1, "d1", x=spell(little(y + sign_bit)))
            # R is the identity and S is 0: good under the identity always, under the others now and then.
            put(f"small-order-{name}{'-negative' if sign_bit else ''}", little(1) + bytes(32), "kid", key)
    raw = D1.public_key().public_bytes_raw()
    odd: dict[str, Any] = {
        "key-of-31": {"x": spell(raw[:31])},
        "key-of-33": {"x": spell(raw + b"\0")},
        "key-empty": {"x": ""},
        "key-number": {"x": 7},
        "key-padded": {"x": spell(raw) + "="},
        "key-as-Ed448": {"crv": "Ed448"},
        "key-as-X25519": {"crv": "X25519"},
        "key-in-lower-case": {"crv": "ed25519"},
        "key-as-EC": {"kty": "EC"},
        "key-with-d": {"d": spell(raw)},
    }
    for name, changes in odd.items():
        put(name, good, "kid", jwk(D1, "d1", **changes))
