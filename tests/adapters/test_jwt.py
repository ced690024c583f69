"""The rows J01-J40 of our catalogue, an accepted token beside each family of refused ones; our assertions."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from ztproxy.adapters.jwt import (
    AssertionJWTs,
    AssertionVerifier,
    Compact,
    UsableKey,
    check_signature,
    choose_key,
    claims_of,
    decode_compact,
    read_object,
    usable_keys,
)
from ztproxy.adapters.keys import fresh_keys, parse, rotate
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError

RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
WEAK_RSA = rsa.generate_private_key(65537, 1024)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
CLAIMS = b'{"iss":"https://op.test","sub":"alice"}'
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


# ── the words: letters, jwk, sign, token, refusal, usable, verified ──


def letters(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value: int, size: int | None = None) -> str:
    return letters(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def jwk(key: Any, **members: Any) -> dict[str, Any]:
    """The public JWK of a private key; `members` are added or, when None, left out."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        made: dict[str, Any] = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
    elif isinstance(public, ec.EllipticCurvePublicKey):
        point = public.public_numbers()
        size = (public.curve.key_size + 7) // 8
        crv = {256: "P-256", 384: "P-384"}[public.curve.key_size]
        made = {"kty": "EC", "crv": crv, "x": number(point.x, size), "y": number(point.y, size)}
    else:
        made = {"kty": "OKP", "crv": "Ed25519", "x": letters(public.public_bytes_raw())}
    made |= {"kid": "k1", "use": "sig"} | members
    return {name: value for name, value in made.items() if value is not None}


def sign(key: Any, alg: str, message: bytes) -> bytes:
    if alg == "RS256":
        return bytes(key.sign(message, padding.PKCS1v15(), hashes.SHA256()))
    if alg == "PS256":
        return bytes(key.sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()))
    if alg == "ES256":
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return bytes(key.sign(message))


def token(
    key: Any = RSA,
    alg: str = "RS256",
    header: dict[str, Any] | bytes | None = None,
    payload: bytes = CLAIMS,
    signature: bytes | None = None,
) -> str:
    if not isinstance(header, bytes):
        header = json.dumps({"alg": alg, "kid": "k1", "typ": "JWT"} if header is None else header).encode()
    message = f"{letters(header)}.{letters(payload)}"
    made = sign(key, alg, message.encode()) if signature is None else signature
    return f"{message}.{letters(made)}"


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    assert caught.value.reason is Reason.LOGIN_TOKEN
    return str(caught.value)


def usable(key: Any, **members: Any) -> UsableKey:
    return usable_keys({"keys": [jwk(key, **members)]})["k1"]


def verified(made: str, key: UsableKey, alg: str) -> Compact:
    compact = decode_compact(made)
    check_signature(compact, key, alg)
    return compact


# ── what is accepted ──


@pytest.mark.parametrize(
    ("key", "alg"),
    [
        pytest.param(RSA, "RS256", id="RS256"),
        pytest.param(RSA, "PS256", id="PS256"),
        pytest.param(EC, "ES256", id="ES256"),
        pytest.param(ED, "EdDSA", id="EdDSA"),
    ],
)
def test_a_good_token_is_taken_apart_and_verified(key: Any, alg: str) -> None:
    made = token(key, alg)
    compact = verified(made, usable(key), alg)
    assert compact.header == {"alg": alg, "kid": "k1", "typ": "JWT"}
    assert read_object(compact.payload) == {"iss": "https://op.test", "sub": "alice"}
    assert decode_compact(made) == compact
    assert compact.signing_input == made.rpartition(".")[0].encode()


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({"alg": "RS256"}, id="alg-alone"),
        pytest.param({"alg": "RS256", "typ": "application/jwt"}, id="long-typ"),
        pytest.param({"alg": "RS256", "kid": ""}, id="empty-kid"),
        pytest.param({"alg": "RS256", "kid": "../../../dev/null"}, id="J17-path-kid-is-only-a-name"),
        pytest.param({"alg": "RS256", "kid": "k1' OR '1'='1\0"}, id="J17-sql-kid-is-only-a-name"),
    ],
)
def test_a_harmless_header_is_read(header: dict[str, Any]) -> None:
    assert decode_compact(token(header=header)).header == header


# ── headers (J01-J18, J40) ──


def rs(**members: Any) -> dict[str, Any]:
    return {"alg": "RS256", "kid": "k1"} | members


HEADERS = [
    pytest.param({"alg": "none"}, "alg", id="J01-none"),
    pytest.param({"alg": "None"}, "alg", id="J02-None"),
    pytest.param({"alg": "NONE"}, "alg", id="J02-NONE"),
    pytest.param({"alg": "nOnE"}, "alg", id="J02-nOnE"),
    pytest.param({"alg": ""}, "alg", id="J02-empty"),
    pytest.param({"kid": "k1"}, "alg", id="J02-missing"),
    pytest.param({"alg": 5}, "alg", id="J02-number"),
    pytest.param({"alg": None}, "alg", id="J02-null"),
    pytest.param({"alg": ["RS256"]}, "alg", id="J02-list"),
    pytest.param({"alg": "rs256"}, "alg", id="lower-case"),
    pytest.param({"alg": "HS256"}, "alg", id="J04-HS256"),
    pytest.param({"alg": "RS512"}, "alg", id="not-on-our-list"),
    pytest.param({"alg": "ES256K"}, "alg", id="ES256K"),
    pytest.param(rs(jwk=jwk(OTHER_RSA)), "header", id="J10-jwk"),
    pytest.param(rs(jku="https://evil.test/jwks"), "header", id="J11-jku"),
    pytest.param(rs(x5u="https://evil.test/x"), "header", id="J12-x5u"),
    pytest.param(rs(x5c=["AA=="]), "header", id="x5c"),
    pytest.param(rs(crit=["b64"], b64=False), "header", id="J14-b64"),
    pytest.param(rs(crit=["ext"]), "header", id="J15-crit"),
    pytest.param(rs(crit=[]), "header", id="J15-crit-empty"),
    pytest.param(rs(crit="exp"), "header", id="J15-crit-text"),
    pytest.param(rs(b64=True), "header", id="b64"),
    pytest.param(rs(zip="DEF"), "header", id="zip"),
    pytest.param(rs(enc="A128GCM"), "header", id="enc"),
    pytest.param(rs(cty="JWT"), "header", id="nested"),
    pytest.param(rs(kid="k" * 2000), "header", id="J18-long"),
    pytest.param(rs(kid=["k1"]), "header", id="J18-list"),
    pytest.param(rs(kid={"k": 1}), "header", id="J18-object"),
    pytest.param(rs(kid=7), "header", id="J18-number"),
    pytest.param(rs(kid=None), "header", id="kid-null"),
    pytest.param(rs(typ="at+jwt"), "typ", id="J40-access-token"),
    pytest.param(rs(typ="logout+jwt"), "typ", id="J40-logout-token"),
    pytest.param(rs(typ="secevent+jwt"), "typ", id="J40-security-event"),
    pytest.param(rs(typ="dpop+jwt"), "typ", id="J40-dpop"),
    pytest.param(rs(typ=["JWT"]), "typ", id="typ-list"),
    pytest.param(rs(typ=None), "typ", id="typ-null"),
    pytest.param(rs(typ=""), "typ", id="typ-empty"),
    pytest.param(b"[]", "json", id="J38-array"),
    pytest.param(b'"RS256"', "json", id="J38-text"),
    pytest.param(b"7", "json", id="J38-number"),
    pytest.param(b'{"alg":"RS256","alg":"none"}', "json", id="alg-twice"),
    pytest.param(b'{"alg":"RS256"} x', "json", id="trailing"),
]


@pytest.mark.parametrize(("header", "code"), HEADERS)
def test_a_hostile_header_is_refused(header: Any, code: str) -> None:
    made = token(header=header)
    assert refusal(lambda: decode_compact(made)) == code
    assert refusal(lambda: verified(made, usable(RSA), "RS256")) == code


def test_an_unsigned_token_is_refused_for_its_alg() -> None:
    head = letters(json.dumps({"alg": "none"}).encode())
    made = f"{head}.{letters(CLAIMS)}."
    assert refusal(lambda: decode_compact(made)) == "alg"


def test_another_kind_of_token_is_read_only_when_asked_for() -> None:
    made = token(header={"alg": "RS256", "kid": "k1", "typ": "logout+jwt"})
    assert decode_compact(made, types={"logout+jwt"}).header["typ"] == "logout+jwt"
    assert refusal(lambda: decode_compact(token(), types={"logout+jwt"})) == "typ"


def test_a_caller_may_judge_the_type_itself_and_pass_over_members() -> None:
    made = token(header=rs(typ="at+jwt", x5t="t"))
    assert decode_compact(made, types=None, unread={"x5t"}).header["typ"] == "at+jwt"
    assert refusal(lambda: decode_compact(made, types=None)) == "header"
    assert refusal(lambda: decode_compact(token(header=rs(typ=["at+jwt"])), types=None)) == "typ"
    assert refusal(lambda: decode_compact(token(header=rs(jku="j")), types=None, unread={"x5t"})) == "header"


def test_a_token_taken_apart_is_verified_as_it_is() -> None:
    compact = decode_compact(token())
    check_signature(compact, usable(RSA), "RS256")
    assert refusal(lambda: check_signature(compact, usable(OTHER_RSA), "RS256")) == "sig"
    assert refusal(lambda: check_signature(compact, usable(RSA), "PS256")) == "alg"
    assert refusal(lambda: check_signature(compact, usable(RSA, alg="PS256"), "RS256")) == "alg"


# ── the compact form (J34, J35) ──

GOOD = token()
HEAD, BODY, SIGNATURE = GOOD.split(".")


def next_letter(text: str) -> str:
    """Sets an unused bit of the last letter: the same bytes to a lenient decoder."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) + 1]


UNEVEN = letters(b"7 bytes")
FORMS = [
    pytest.param("", "format", id="empty"),
    pytest.param("..", "format", id="two-dots"),
    pytest.param(f"{HEAD}.{BODY}", "format", id="two-segments"),
    pytest.param(f"{GOOD}.{SIGNATURE}", "format", id="four-segments"),
    pytest.param(f"{GOOD}..", "format", id="five-segments"),
    pytest.param(f"{HEAD}..{SIGNATURE}", "format", id="empty-payload"),
    pytest.param(f"{HEAD}.{BODY}.", "format", id="empty-signature"),
    pytest.param(f"{HEAD}=.{BODY}.{SIGNATURE}", "format", id="J35-padding"),
    pytest.param(f"{HEAD}.{BODY}.{SIGNATURE}==", "format", id="J35-padding-at-the-end"),
    pytest.param(f"{HEAD}.{BODY}.+{SIGNATURE[1:]}", "format", id="J35-plus"),
    pytest.param(f"{HEAD}.{BODY}./{SIGNATURE[1:]}", "format", id="J35-slash"),
    pytest.param(f" {GOOD}", "format", id="J35-space"),
    pytest.param(f"{GOOD}\n", "format", id="J35-newline"),
    pytest.param(f"{HEAD}\r\n.{BODY}.{SIGNATURE}", "format", id="J35-crlf"),
    pytest.param(f"{HEAD}.{BODY}.{SIGNATURE}é", "format", id="J35-non-ascii"),
    pytest.param(f"{HEAD}.{BODY}.{SIGNATURE}\ud800", "format", id="J35-surrogate"),
    pytest.param(f"{HEAD}.{next_letter(UNEVEN)}.{SIGNATURE}", "format", id="J35-unused-bits-payload"),
    pytest.param(f"{HEAD}.{BODY}.{next_letter(UNEVEN)}", "format", id="J35-unused-bits-signature"),
    pytest.param(f"{HEAD}.{BODY}.AAAAA", "format", id="J35-impossible-length"),
    pytest.param(f"{HEAD}.{'A' * 17000}.{SIGNATURE}", "size", id="J34-large"),
    pytest.param("!" * 16385, "size", id="J34-size-before-form"),
]


@pytest.mark.parametrize(("made", "code"), FORMS)
def test_another_form_is_refused(made: str, code: str) -> None:
    assert refusal(lambda: decode_compact(made)) == code
    assert refusal(lambda: verified(made, usable(RSA), "RS256")) == code


def test_the_size_is_the_callers_to_lower() -> None:
    assert refusal(lambda: decode_compact(GOOD, max_size=len(GOOD) - 1)) == "size"
    assert isinstance(decode_compact(GOOD, max_size=len(GOOD)), Compact)


# ── strict JSON (J37, J38) ──


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="J38-array"),
        pytest.param(b'"x"', id="J38-text"),
        pytest.param(b"1", id="J38-number"),
        pytest.param(b"null", id="J38-null"),
        pytest.param(b'{"a":NaN}', id="J37-nan"),
        pytest.param(b'{"a":Infinity}', id="J37-infinity"),
        pytest.param(b'{"a":-Infinity}', id="J37-minus-infinity"),
        pytest.param(b'{"a":1e999}', id="J37-overflow"),
        pytest.param(b'{"exp":' + b"9" * 5000 + b"}", id="J37-5000-digits"),
        pytest.param(b'{"exp":' + b"9" * 21 + b"}", id="21-digits"),
        pytest.param(b'{"sub":"\\ud800"}', id="J37-lone-surrogate"),
        pytest.param(b'{"\\udfff":1}', id="J37-lone-surrogate-name"),
        pytest.param(b'{"a":["\\ud800"]}', id="J37-lone-surrogate-nested"),
        pytest.param(b"\xef\xbb\xbf{}", id="J37-bom"),
        pytest.param(b"{} {}", id="J37-trailing"),
        pytest.param(b"{}\0", id="J37-trailing-nul"),
        pytest.param(b'{"a":' * 10000 + b"1" + b"}" * 10000, id="J37-deep-objects"),
        pytest.param(b'{"a":' + b"[" * 10000 + b"]" * 10000 + b"}", id="J37-deep-arrays"),
        pytest.param(b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", id="40-levels"),
        pytest.param(b'{"sub":"alice","sub":"mallory"}', id="name-twice"),
        pytest.param(b'{"a":{"b":1,"\\u0062":2}}', id="name-twice-escaped-nested"),
        pytest.param(b'{"sub":"\xff"}', id="not-utf-8"),
        pytest.param(b'{"sub":"\xed\xa0\x80"}', id="surrogate-in-utf-8"),
        pytest.param('{"sub":"alice"}'.encode("utf-16"), id="utf-16"),
        pytest.param(b"{'sub':'alice'}", id="single-quotes"),
        pytest.param(b'{"sub":"alice",}', id="trailing-comma"),
        pytest.param(b'{"sub":"a\nb"}', id="raw-control"),
        pytest.param(b'{"a":01}', id="leading-zero"),
        pytest.param(b'{"a":0x1}', id="hex"),
    ],
)
def test_json_that_could_be_read_in_two_ways_is_refused(raw: bytes) -> None:
    assert refusal(lambda: read_object(raw)) == "json"


def test_plain_json_is_read() -> None:
    raw = b' {"a": [1, -2.5, 1e3, true, null, {"b": "\\u00e9\\ud83d\\ude00"}], "exp": 1893456000} '
    expected = {"a": [1, -2.5, 1000.0, True, None, {"b": "é😀"}], "exp": 1893456000}
    assert read_object(raw) == expected


# ── signatures (J05-J08, J20) ──


def der(key: ec.EllipticCurvePrivateKey) -> bytes:
    message = ".".join(token(key, "ES256").split(".")[:2]).encode()
    return key.sign(message, ec.ECDSA(hashes.SHA256()))


def hs256(secret: bytes) -> bytes:
    code = hmac.HMAC(secret, hashes.SHA256())
    code.update(b".".join(part.encode() for part in token(signature=b"x").split(".")[:2]))
    return code.finalize()


WRONG_SIGNATURES = [
    pytest.param(EC, "ES256", b"\0" * 64, id="J07-all-zero"),
    pytest.param(EC, "ES256", ORDER.to_bytes(32, "big") * 2, id="J07-r-and-s-are-n"),
    pytest.param(EC, "ES256", (1).to_bytes(32, "big") + ORDER.to_bytes(32, "big"), id="J07-s-is-n"),
    pytest.param(EC, "ES256", der(EC), id="J08-der"),
    pytest.param(EC, "ES256", b"\1" * 65, id="J08-65-bytes"),
    pytest.param(EC, "ES256", b"\1" * 63, id="J08-63-bytes"),
    pytest.param(RSA, "RS256", b"\0" * 256, id="rsa-zero"),
    pytest.param(RSA, "RS256", b"\1" * 255, id="rsa-short"),
    pytest.param(RSA, "RS256", b"\xff" * 256, id="rsa-above-the-modulus"),
    pytest.param(RSA, "RS256", hs256(b"client-secret"), id="J05-hmac"),
    pytest.param(RSA, "PS256", sign(RSA, "RS256", b"x"), id="pss-with-pkcs1"),
    pytest.param(ED, "EdDSA", b"\0" * 64, id="ed-zero"),
    pytest.param(ED, "EdDSA", b"\0" * 63, id="ed-short"),
]


@pytest.mark.parametrize(("key", "alg", "signature"), WRONG_SIGNATURES)
def test_a_wrong_signature_is_refused(key: Any, alg: str, signature: bytes) -> None:
    made = token(key, alg, signature=signature)
    assert refusal(lambda: verified(made, usable(key), alg)) == "sig"


def test_a_token_signed_by_another_key_is_refused() -> None:
    made = token(OTHER_RSA)
    assert refusal(lambda: verified(made, usable(RSA), "RS256")) == "sig"


@pytest.mark.parametrize("part", [0, 1])
def test_a_changed_segment_is_refused(part: int) -> None:
    segments = GOOD.split(".")
    segments[part] = letters([b'{"alg":"RS256","typ":"JWT"}', CLAIMS.replace(b"alice", b"carol")][part])
    assert refusal(lambda: verified(".".join(segments), usable(RSA), "RS256")) == "sig"


def test_the_claims_of_a_token_are_those_its_key_signed() -> None:
    keys = usable_keys({"keys": [jwk(RSA), jwk(EC, kid="k2")]})
    assert claims_of(decode_compact(token()), "RS256", keys) == json.loads(CLAIMS)
    assert claims_of(decode_compact(token(EC, "ES256", {"alg": "ES256"})), "ES256", keys) == json.loads(
        CLAIMS
    )
    assert refusal(lambda: claims_of(decode_compact(token(OTHER_RSA)), "RS256", keys)) == "sig"
    assert refusal(lambda: claims_of(decode_compact(token()), "RS256", {})) == "kid"
    assert refusal(lambda: claims_of(decode_compact(token(payload=b"[]")), "RS256", keys)) == "json"


def test_the_algorithm_is_the_issuers_and_not_the_tokens() -> None:
    # valid under PS256, but the issuer is fixed to RS256
    assert refusal(lambda: verified(token(RSA, "PS256"), usable(RSA), "RS256")) == "alg"
    # header and issuer agree, the key is of another kind
    assert refusal(lambda: verified(token(RSA), usable(EC), "RS256")) == "alg"
    # the key is published for PS256 only
    assert refusal(lambda: verified(token(RSA), usable(RSA, alg="PS256"), "RS256")) == "alg"


# ── key sets (J17-J30) ──


def off_curve() -> dict[str, Any]:
    made = jwk(EC)
    return made | {"y": number((EC.public_key().public_numbers().y + 1) % 2**256, 32)}


P384 = jwk(ec.generate_private_key(ec.SECP384R1()))
UNUSABLE = [
    pytest.param({"kty": "oct", "kid": "k1", "k": letters(b"s" * 32)}, id="J28-oct"),
    pytest.param({"kty": "oct", "kid": "k1"}, id="oct-without-key"),
    pytest.param(jwk(RSA, d=number(RSA.private_numbers().d)), id="J28-rsa-private"),
    pytest.param(jwk(EC, d="AA"), id="J28-ec-private"),
    pytest.param(jwk(ED, d="AA"), id="J28-ed-private"),
    pytest.param(jwk(RSA, p="AA"), id="rsa-prime"),
    pytest.param(jwk(RSA, use="enc"), id="J25-use-enc"),
    pytest.param(jwk(RSA, use=["sig"]), id="use-list"),
    pytest.param(jwk(RSA, key_ops=["encrypt"]), id="J25-key-ops"),
    pytest.param(jwk(RSA, key_ops=[]), id="key-ops-empty"),
    pytest.param(jwk(RSA, key_ops="verify"), id="key-ops-text"),
    pytest.param(off_curve(), id="J27-off-curve"),
    pytest.param(jwk(EC, alg="ES384"), id="J27-alg-of-another-curve"),
    pytest.param(jwk(EC, crv="P-999"), id="J27-unknown-curve"),
    pytest.param(jwk(EC, crv="secp256k1"), id="other-curve"),
    pytest.param(P384, id="p-384"),
    pytest.param(P384 | {"crv": "P-256"}, id="p-384-called-p-256"),
    pytest.param(jwk(EC, x="AA", y="AA"), id="short-coordinates"),
    pytest.param(jwk(EC, y=None), id="coordinate-missing"),
    pytest.param(jwk(EC, x=7), id="coordinate-number"),
    pytest.param(jwk(ED, x="AA"), id="ed-short"),
    pytest.param(jwk(ED, crv="Ed448"), id="ed448"),
    pytest.param(jwk(ED, crv="X25519"), id="x25519"),
    pytest.param(jwk(ED, x=letters(bytes(32))), id="ed-all-zero"),
    pytest.param(jwk(ED, x=letters(bytes(31) + b"\x80")), id="ed-all-zero-negative"),
    pytest.param(jwk(ED, x=letters(b"\1" + bytes(31))), id="ed-identity"),
    pytest.param(jwk(ED, x=letters((2**255 - 20).to_bytes(32, "little"))), id="ed-order-2"),
    pytest.param(
        jwk(ED, x=letters(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"))),
        id="ed-order-8",
    ),
    pytest.param(
        jwk(ED, x=letters(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"))),
        id="ed-order-8-another",
    ),
    pytest.param(jwk(ED, x=letters((2**255 - 16).to_bytes(32, "little"))), id="ed-not-below-the-prime"),
    pytest.param(jwk(WEAK_RSA), id="rsa-1024"),
    pytest.param(jwk(RSA, n=letters(b"\xff" * 1025)), id="rsa-too-large"),
    pytest.param(jwk(RSA, n=letters(b"\xff" * 255 + b"\xfe")), id="rsa-even"),
    pytest.param(jwk(RSA, e="AQ"), id="exponent-1"),
    pytest.param(jwk(RSA, e="BA"), id="exponent-even"),
    pytest.param(jwk(RSA, e=letters(b"\1" * 200)), id="exponent-long"),
    pytest.param(jwk(RSA, n=jwk(RSA)["n"] + "="), id="padded-modulus"),
    pytest.param(jwk(RSA, crv="P-256"), id="rsa-with-curve"),
    pytest.param(jwk(RSA, alg="HS256"), id="rsa-for-hmac"),
    pytest.param(jwk(RSA, alg="RSA-OAEP"), id="rsa-for-encryption"),
    pytest.param(jwk(RSA, alg="RS512"), id="rsa-for-another-algorithm"),
    pytest.param(jwk(RSA, alg=["RS256"]), id="alg-list"),
    pytest.param(jwk(RSA, alg=None) | {"alg": None}, id="alg-null"),
    pytest.param(jwk(RSA, kty="rsa"), id="kty-case"),
    pytest.param(jwk(RSA, kty=["RSA"]), id="kty-list"),
    pytest.param(jwk(RSA, kty=None), id="kty-missing"),
    pytest.param(jwk(RSA, kid=7), id="kid-number"),
    pytest.param({"kid": "k1"}, id="no-key"),
    pytest.param("k1", id="not-an-object"),
    pytest.param(None, id="null"),
]


@pytest.mark.parametrize("bad", UNUSABLE)
def test_an_unusable_key_is_left_out_and_the_others_stay(bad: Any) -> None:
    keys = usable_keys({"keys": [bad, jwk(EC, kid="k2")]})
    assert list(keys) == ["k2"]


@pytest.mark.parametrize(
    ("key", "members", "algorithms"),
    [
        pytest.param(RSA, {}, {"RS256", "PS256"}, id="rsa"),
        pytest.param(RSA, {"alg": "RS256"}, {"RS256"}, id="rsa-fixed"),
        pytest.param(RSA, {"use": None, "key_ops": ["verify"]}, {"RS256", "PS256"}, id="key-ops"),
        pytest.param(RSA, {"x5t": "AA", "x5c": ["AA"]}, {"RS256", "PS256"}, id="certificate-not-looked-at"),
        pytest.param(EC, {}, {"ES256"}, id="ec"),
        pytest.param(ED, {"alg": "EdDSA"}, {"EdDSA"}, id="ed"),
    ],
)
def test_a_usable_key_says_what_it_is_for(key: Any, members: Any, algorithms: set[str]) -> None:
    assert usable(key, **members).algorithms == algorithms


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(jwk(EC), id="two-good-keys"),
        pytest.param(jwk(RSA), id="the-same-key-twice"),
        pytest.param(jwk(RSA, use="enc"), id="one-for-another-use"),
        pytest.param({"kty": "oct", "kid": "k1", "k": "AA"}, id="one-symmetric"),
    ],
)
def test_a_name_given_twice_makes_all_its_keys_unusable(second: dict[str, Any]) -> None:
    for pair in ([jwk(RSA), second], [second, jwk(RSA)], [second, jwk(RSA), jwk(EC)]):
        assert list(usable_keys({"keys": [*pair, jwk(ED, kid="k2")]})) == ["k2"]


def test_unnamed_keys() -> None:
    nameless = jwk(RSA, kid=None)
    assert list(usable_keys({"keys": [nameless]})) == [None]
    # two that could be meant are none; one that never could does not count
    assert usable_keys({"keys": [nameless, jwk(EC, kid=None)]}) == {}
    assert list(usable_keys({"keys": [jwk(EC, kid=None, use="enc"), nameless]})) == [None]


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({}, id="no-keys"),
        pytest.param({"keys": {}}, id="keys-object"),
        pytest.param({"keys": None}, id="keys-null"),
        pytest.param({"keys": [jwk(EC, kid=str(count)) for count in range(65)]}, id="J30-65-keys"),
    ],
)
def test_what_is_no_key_set_is_refused(document: dict[str, Any]) -> None:
    assert refusal(lambda: usable_keys(document)) == "jwks"


def test_an_empty_key_set_has_no_key() -> None:
    assert usable_keys({"keys": []}) == {}


KEYS = usable_keys({"keys": [jwk(RSA), jwk(EC, kid="k2"), jwk(ED, kid=None)]})


@pytest.mark.parametrize(
    ("kid", "alg", "expected"),
    [
        pytest.param("k1", "RS256", "k1", id="by-name"),
        pytest.param("k2", "RS256", "k2", id="J20-by-name-even-if-it-cannot-fit"),
        pytest.param(None, "ES256", "k2", id="J22-the-only-one-for-the-algorithm"),
        pytest.param(None, "EdDSA", None, id="J22-unnamed"),
    ],
)
def test_the_key_is_chosen(kid: str | None, alg: str, expected: str | None) -> None:
    assert choose_key(KEYS, kid, alg) is KEYS[expected]


@pytest.mark.parametrize("kid", ["", "K1", "k1 ", "k3", "../../../dev/null", "k1' OR '1'='1", "k1\0"])
def test_an_unknown_name_finds_no_key(kid: str) -> None:
    assert refusal(lambda: choose_key(KEYS, kid, "RS256")) == "kid"


def test_without_a_name_and_with_a_choice_there_is_no_key() -> None:
    two = usable_keys({"keys": [jwk(RSA), jwk(OTHER_RSA, kid="k2")]})
    assert refusal(lambda: choose_key(two, None, "RS256")) == "kid"
    assert refusal(lambda: choose_key({}, None, "RS256")) == "kid"


def test_no_repr_shows_a_key() -> None:
    assert "public" not in repr(usable(RSA))


# ── our own assertions ──


def test_an_assertion_verifies_under_its_published_key() -> None:
    signer = AssertionJWTs(parse(fresh_keys(), "").assertions)
    made = signer.sign({"iss": "https://app.test", "sub": "alice", "groups": ["a"], "exp": 1893456000})
    keys = usable_keys(signer.jwks())
    kid = decode_compact(made).header["kid"]
    assert isinstance(kid, str)
    compact = verified(made, choose_key(keys, kid, "ES256"), "ES256")
    assert compact.header == {"alg": "ES256", "kid": kid, "typ": "JWT"}
    assert read_object(compact.payload)["groups"] == ["a"]


def test_a_rotation_overlaps() -> None:
    text = fresh_keys()
    before = AssertionJWTs(parse(text, "").assertions)
    after = AssertionJWTs(parse(rotate(text), "").assertions)
    old, new = before.sign({"sub": "alice"}), after.sign({"sub": "alice"})
    # Apps that fetched the keys before the rotation know the new one too: it was published while it waited.
    for signer, made in itertools.product((before, after), (old, new)):
        kid = decode_compact(made).header["kid"]
        assert isinstance(kid, str)
        verified(made, choose_key(usable_keys(signer.jwks()), kid, "ES256"), "ES256")
    assert decode_compact(new).header["kid"] == after.jwks()["keys"][0]["kid"]


def test_the_published_set_is_public() -> None:
    for published in AssertionJWTs(parse(rotate(fresh_keys()), "").assertions).jwks()["keys"]:
        assert set(published) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
        assert (len(published["x"]), len(published["y"])) == (43, 43)


# ── an assertion of our own, known again ──

AUDIENCE, MADE = "https://console.test", 1_800_000_000


def assertion(signer: AssertionJWTs, **changes: Any) -> str:
    claims = {"aud": AUDIENCE, "iat": MADE, "exp": MADE + 300, "sub": "alice"} | changes
    return signer.sign({name: value for name, value in claims.items() if value is not None})


OUR_KEYS = parse(fresh_keys(), "").assertions
OURS, THEIRS = AssertionJWTs(OUR_KEYS), AssertionJWTs(parse(fresh_keys(), "").assertions)


@pytest.mark.parametrize(
    ("token", "now", "good"),
    [
        pytest.param(assertion(OURS), MADE, True, id="good"),
        pytest.param(assertion(OURS), MADE - 30, True, id="a clock a little behind"),
        pytest.param(assertion(OURS), MADE - 31, False, id="from the future"),
        pytest.param(assertion(OURS), MADE + 329, True, id="a clock a little ahead"),
        pytest.param(assertion(OURS), MADE + 330, False, id="expired"),
        pytest.param(assertion(THEIRS), MADE, False, id="signed by another"),
        pytest.param(assertion(OURS, aud="https://app.test"), MADE, False, id="I27: made for another app"),
        pytest.param(assertion(OURS, aud=[AUDIENCE]), MADE, False, id="an audience of another form"),
        pytest.param(assertion(OURS, aud=None), MADE, False, id="for nobody"),
        pytest.param(assertion(OURS, exp=None), MADE, False, id="without an end"),
        pytest.param(assertion(OURS, exp="9999999999"), MADE, False, id="an end that is no number"),
        pytest.param(assertion(OURS, iat=None), MADE, False, id="of no time"),
        pytest.param(assertion(OURS)[:-4] + "AAAA", MADE, False, id="another signature"),
        pytest.param("", MADE, False, id="empty"),
        pytest.param("a.b.c", MADE, False, id="nonsense"),
        pytest.param("x" * 100_000, MADE, False, id="huge"),
    ],
)
def test_an_assertion_of_our_own_is_known_again(token: str, now: int, good: bool) -> None:
    claims = AssertionVerifier(OUR_KEYS).verify(token, AUDIENCE, now)
    assert (claims is not None) is good
    if claims is not None:
        assert claims["sub"] == "alice"


def test_an_assertion_signed_before_a_rotation_is_known_after_it() -> None:
    text = fresh_keys()
    before = assertion(AssertionJWTs(parse(text, "").assertions))
    assert AssertionVerifier(parse(rotate(text), "").assertions).verify(before, AUDIENCE, MADE)
