"""Which algorithm a token claims and which it was made with: none, HMAC with what is public, another."""

from __future__ import annotations

import hmac
import json
from typing import Any

from tests.jose.smith import (
    D1,
    E1,
    E384,
    E521,
    E_KOBLITZ,
    R1,
    Private,
    as_json,
    compact,
    hmac_signed,
    jwk,
    public_forms,
    spell,
    with_signature,
)
from tests.jose.table import JWKS, SPARE, Table


def no_algorithm(on: Table) -> None:
    spellings: dict[str, Any] = {
        "none": "none",
        "None": "None",
        "NONE": "NONE",
        "nOnE": "nOnE",
        "empty": "",
        "space-after": "none ",
        "space-before": " none",
        "nul-after": "none\0",
        "missing": ...,
        "null": None,
        "number": 5,
        "true": True,
        "false": False,
        "list": ["none"],
        "list-of-ours": ["ES256"],
        "object": {"alg": "none"},
    }
    for name, alg in spellings.items():
        head = on.head(alg)
        on.add(f"none/{name}/unsigned", with_signature(head, on.claims, b""), "alg")
        on.add(f"none/{name}/signed", compact(head, on.claims, E1), "alg")
    escaped = json.dumps(on.head("?")).replace("?", "n\\u006fne").encode()
    on.add("none/escaped", with_signature(escaped, on.claims, b""), "alg")
    on.add("none/without-kid", with_signature(on.head("none", ...), on.claims, b""), "alg")
    on.add("none/any-signature", with_signature(on.head("none"), on.claims, b"x" * 64), "alg")
    on.add("none/ES256-unsigned", with_signature(on.head(), on.claims, b""), "form", app="sig")


def symmetric(on: Table) -> None:
    for kid, key in (("r1", R1), ("e1", E1)):
        for form, secret in public_forms(key, JWKS).items():
            on.add(
                f"hmac/{kid}/{form}", hmac_signed(on.head("HS256", kid), on.claims, secret, "sha256"), "alg"
            )
    for alg, digest in (("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")):
        for name, secret in {
            "client-secret": b"s3cret",
            "empty": b"",
            "zero": bytes(64),
            "kid": b"e1",
        }.items():
            token = hmac_signed(on.head(alg), on.claims, secret, digest)
            on.add(f"hmac/{alg}/{name}", token, "alg")
    octets = as_json({"keys": [{"kty": "oct", "k": spell(b"s" * 32), "kid": "o1", "alg": "HS256"}, SPARE]})
    token = hmac_signed(on.head("HS256", "o1"), on.claims, b"s" * 32, "sha256")
    on.add("hmac/published", token, "alg", octets)
    # The signature is HMAC's while the header says otherwise.
    message = f"{spell(as_json(on.head()))}.{spell(as_json(on.claims))}".encode()
    mac = hmac.digest(public_forms(E1, JWKS)["pem"], message, "sha256")
    on.add("hmac/called-ES256", f"{message.decode()}.{spell(mac)}", "sig")


def swapped(on: Table) -> None:
    on.add("swap/RS256", on.signed(R1, "RS256", "r1"), app="alg")
    on.add("swap/PS256", on.signed(R1, "PS256", "r1"), app="alg")
    on.add("swap/ES256", on.signed())
    on.add("swap/EdDSA", on.signed(D1, "EdDSA", "d1"), app="alg")
    crossed: list[tuple[str, str, Private, str]] = [
        ("RS256", "e1", E1, "ES256"),
        ("RS256", "d1", D1, "EdDSA"),
        ("PS256", "e1", E1, "ES256"),
        ("EdDSA", "e1", E1, "ES256"),
        ("EdDSA", "r1", R1, "RS256"),
    ]
    for alg, kid, key, by in crossed:
        on.add(f"swap/{alg}-at-{kid}", compact(on.head(alg, kid), on.claims, key, by), "alg")
    for kid, key, by in (("r1", R1, "RS256"), ("d1", D1, "EdDSA")):
        on.add(f"swap/ES256-at-{kid}", compact(on.head("ES256", kid), on.claims, key, by), "alg", app="kid")
    on.add("swap/RS256-in-PSS", compact(on.head("RS256", "r1"), on.claims, R1, "PS256"), "sig", app="alg")
    on.add("swap/PS256-in-PKCS1", compact(on.head("PS256", "r1"), on.claims, R1, "RS256"), "sig", app="alg")
    fixed = as_json({"keys": [jwk(R1, "r1", alg="PS256"), SPARE]})
    on.add("swap/RS256-by-a-key-for-PS256", on.signed(R1, "RS256", "r1"), "alg", fixed)
    others: list[tuple[str, Private]] = [(alg, R1) for alg in ("RS384", "RS512", "PS384", "PS512")]
    others += [("ES384", E1), ("ES512", E1), ("ES256K", E1), ("Ed25519", D1), ("Ed448", D1), ("ESB256", E1)]
    for alg, key in others:
        kid = {R1: "r1", E1: "e1", D1: "d1"}[key]
        on.add(f"swap/not-ours/{alg}", compact(on.head(alg, kid), on.claims, key, alg), "alg")
    for alg in (
        "es256",
        "Es256",
        "ES256 ",
        " ES256",
        "ES256\0",
        "ES256\n",
        "ES256,none",
        "Р256",
        "dir",
        "A128KW",
    ):
        on.add(f"swap/spelled/{alg!r}", compact(on.head(alg), on.claims, E1), "alg")
    # RFC 7518 3.4: ES256 is of P-256 and of no other curve.
    for name, key in (("P-384", E384), ("P-521", E521), ("secp256k1", E_KOBLITZ)):
        published = as_json({"keys": [jwk(key, "e1"), SPARE]})
        on.add(f"swap/curve/{name}", compact(on.head(), on.claims, key), "kid", published)
        on.add(f"swap/curve/{name}-unpublished", compact(on.head(), on.claims, key), "sig")
