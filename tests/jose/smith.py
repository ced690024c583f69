"""Keys and tokens of every kind, good and bad, for the vectors: made once, when this is imported.

`jwk` is what a provider publishes, `sign` is what a signer does, `spell` is base64url; `compact` puts a token
together from exact bytes and signs what is written, so that a reader that is too kind would find the
signature good.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

R1, R_THREE = rsa.generate_private_key(65537, 2048), rsa.generate_private_key(3, 2048)
R_SMALL = rsa.generate_private_key(65537, 1024)
E1, E2 = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
E384, E521 = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP521R1())
E_KOBLITZ = ec.generate_private_key(ec.SECP256K1())
D1, D2 = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
P256_PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1
ED_PRIME, ED_ORDER = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493

_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521", "secp256k1": "secp256k1"}
_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


def spell(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value: int, size: int | None = None) -> str:
    return spell(value.to_bytes(size or (value.bit_length() + 7) // 8 or 1, "big"))


def as_json(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def jwk(key: Private, kid: str | None, **changes: Any) -> dict[str, Any]:
    """The public JWK; a change to `...` leaves a member out."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        made: dict[str, Any] = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
    elif isinstance(public, ec.EllipticCurvePublicKey):
        point, size = public.public_numbers(), (public.curve.key_size + 7) // 8
        made = {"kty": "EC", "crv": _CURVES[public.curve.name]}
        made |= {"x": number(point.x, size), "y": number(point.y, size)}
    else:
        made = {"kty": "OKP", "crv": "Ed25519", "x": spell(public.public_bytes_raw())}
    made |= {"kid": ... if kid is None else kid, "use": "sig", **changes}
    return {name: value for name, value in made.items() if value is not ...}


def raw_pair(r: int, s: int, size: int = 32) -> bytes:
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def sign(key: Private, alg: str, message: bytes) -> bytes:
    """What `alg` asks for, with whatever key of that kind."""
    digest = _HASHES.get(alg[2:5], hashes.SHA256())
    if isinstance(key, rsa.RSAPrivateKey):
        if alg.startswith("PS"):
            return key.sign(message, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        return key.sign(message, padding.PKCS1v15(), digest)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(digest)))
        return raw_pair(r, s, (key.curve.key_size + 7) // 8)
    return key.sign(message)


def pkcs1(key: rsa.RSAPrivateKey, encoded: bytes) -> bytes:
    """The RSA operation alone, over an encoding of our own making (RFC 8017 5.2.1)."""
    numbers, value = key.private_numbers(), int.from_bytes(encoded, "big")
    one, two = pow(value, numbers.dmp1, numbers.p), pow(value, numbers.dmq1, numbers.q)
    made = two + (one - two) * numbers.iqmp % numbers.p * numbers.q
    return made.to_bytes((key.key_size + 7) // 8, "big")


DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


def digest_info(message: bytes) -> bytes:
    return DIGEST_INFO + hashlib.sha256(message).digest()


def padded(content: bytes, size: int = 256, kind: bytes = b"\0\1", filler: bytes = b"\xff") -> bytes:
    return kind + filler * (size - len(kind) - 1 - len(content)) + b"\0" + content


def compact(header: Any, payload: Any, key: Private, alg: str = "ES256") -> str:
    message = f"{spell(as_json(header))}.{spell(as_json(payload))}"
    return f"{message}.{spell(sign(key, alg, message.encode()))}"


def with_signature(header: Any, payload: Any, signature: bytes) -> str:
    return f"{spell(as_json(header))}.{spell(as_json(payload))}.{spell(signature)}"


def hmac_signed(header: Mapping[str, Any], payload: Any, secret: bytes, digest: str) -> str:
    message = f"{spell(as_json(header))}.{spell(as_json(payload))}"
    return f"{message}.{spell(hmac.digest(secret, message.encode(), digest))}"


def certificate(key: Private) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "op.test")])
    begin = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=36500))
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )


def public_forms(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, document: bytes) -> dict[str, bytes]:
    """Every text or bytes by which somebody may know this public key: what HS256 would take for a secret."""
    public, cert = key.public_key(), certificate(key)
    spki = PublicFormat.SubjectPublicKeyInfo
    forms = {
        "pem": public.public_bytes(Encoding.PEM, spki),
        "pem-stripped": public.public_bytes(Encoding.PEM, spki).strip(),
        "der": public.public_bytes(Encoding.DER, spki),
        "jwk": as_json(jwk(key, "k")),
        "jwks": document,
        "x5c": base64.b64encode(cert.public_bytes(Encoding.DER)),
        "certificate-der": cert.public_bytes(Encoding.DER),
        "certificate-pem": cert.public_bytes(Encoding.PEM),
    }
    if isinstance(public, rsa.RSAPublicKey):
        n = public.public_numbers().n.to_bytes(256, "big")
        forms |= {
            "modulus": n,
            "modulus-text": spell(n).encode(),
            "pkcs1-pem": public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
            "pkcs1-der": public.public_bytes(Encoding.DER, PublicFormat.PKCS1),
        }
    else:
        point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        forms |= {"point": point, "coordinates": point[1:], "x-text": spell(point[1:33]).encode()}
        forms |= {"point-compressed": public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)}
    return forms
