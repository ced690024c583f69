"""What comes from a provider: tokens, key sets, discovery documents, claims and logout tokens.

No key of the fixture is known to whoever writes the input, so nothing may verify but what was signed here.
"""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from yarl import URL

from tests.core.words import site
from ztproxy.adapters.jwt import (
    ALGORITHMS,
    MAX_KEYS,
    MAX_TOKEN_BYTES,
    UsableKey,
    check_signature,
    choose_key,
    decode_compact,
    read_object,
    usable_keys,
)
from ztproxy.adapters.oidc_metadata import read_metadata
from ztproxy.adapters.session_codec import pack_session, unpack_session
from ztproxy.core.claims import Accepted, ClaimRules, Expectation, accept
from ztproxy.core.fields import fold
from ztproxy.core.identity import JSON, Session
from ztproxy.core.logout import LONGEST, read_front_channel, read_notice
from ztproxy.core.outbound import assertion_claims, identity_block
from ztproxy.core.reasons import Reason
from ztproxy.core.routes import IdentityHeaders, IdentityPreset
from ztproxy.errors import ClientError, WorldError

NOW = 1_750_000_000.0
ISSUER = "https://op.test"
RULES = ClaimRules(ISSUER, "ztproxy", keep=("department", "realm.roles"))
KEY = ec.derive_private_key(0x5EED, ec.SECP256R1())
SIGNED = b'{"iss":"https://op.test","sub":"alice"}'
_CODES = frozenset(["size", "format", "json", "header", "alg", "typ", "kid", "sig", "jwks"])
_KEYS: dict[str | None, UsableKey] = {"k1": UsableKey(KEY.public_key(), frozenset({"ES256"}))}
_REFUSALS = frozenset(reason for reason in Reason if reason.name.startswith(("LOGIN_", "STEP_UP_")))


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def signed(payload: bytes = SIGNED, header: bytes = b'{"alg":"ES256","kid":"k1","typ":"JWT"}') -> str:
    """A token of the fixture's own, for the first corpus."""
    algorithm = jwt.get_algorithm_by_name("ES256")
    signing_input = f"{encoded(header)}.{encoded(payload)}"
    return f"{signing_input}.{encoded(algorithm.sign(signing_input.encode(), KEY))}"


_HEADERS = (b'{"alg":"ES256","kid":"k1","typ":"JWT"}', b'{"alg":"ES256"}')
_SIGNED_INPUTS = frozenset(f"{encoded(header)}.{encoded(SIGNED)}".encode() for header in _HEADERS)


def jws(data: bytes) -> None:
    """One spelling, a header that PyJWT reads too, and a signature that only the holder of the key made."""
    token = data.decode("utf-8", "replace")
    try:
        compact = decode_compact(token)
    except ClientError as refused:
        _coded(refused)
        return
    assert len(token) <= MAX_TOKEN_BYTES and compact.header["alg"] in ALGORITHMS
    assert {*compact.header} <= {"alg", "kid", "typ"} and token.isascii()
    again = f"{compact.signing_input.decode()}.{encoded(compact.signature)}"
    assert again == token and token.split(".")[1] == encoded(compact.payload), "a second spelling"
    assert jwt.get_unverified_header(token) == compact.header
    kid = compact.header.get("kid")
    try:
        key = choose_key(_KEYS, kid if isinstance(kid, str) else None, "ES256")
        check_signature(compact, key, "ES256")
    except ClientError as refused:
        _coded(refused)
        return
    assert compact.signing_input in _SIGNED_INPUTS, "forged"


def _coded(refused: ClientError) -> None:
    assert refused.reason is Reason.LOGIN_TOKEN and str(refused) in _CODES


def _document(data: bytes) -> dict[str, JSON] | None:
    """The JSON object in it, which any reader reads alike, or None."""
    try:
        document = read_object(data)
    except ClientError as refused:
        _coded(refused)
        return None
    assert document == json.loads(data) == read_object(json.dumps(document).encode())
    return document


def jwks(data: bytes) -> None:
    """Strong keys under one name each, whatever the order they are listed in."""
    document = _document(data)
    if document is None:
        return
    try:
        keys = usable_keys(document)
    except ClientError as refused:
        _coded(refused)
        return
    listed: Any = document["keys"]
    assert len(keys) <= len(listed) <= MAX_KEYS
    assert _public(usable_keys({"keys": listed[::-1]})) == _public(keys), "the order decides"
    if len(listed) <= MAX_KEYS // 2:
        assert not usable_keys({"keys": [*listed, *listed]}), "one of two keys of one name is used"
    for kid, key in keys.items():
        assert key.algorithms and key.algorithms <= ALGORITHMS
        assert not isinstance(key.public, rsa.RSAPublicKey) or 2048 <= key.public.key_size <= 8192
        for alg in key.algorithms:
            try:
                assert choose_key(keys, kid, alg) is key or kid is None
            except ClientError:
                assert kid is None


def _public(keys: dict[str | None, UsableKey]) -> dict[str | None, tuple[bytes, frozenset[str]]]:
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {kid: (key.public.public_bytes(*form), key.algorithms) for kid, key in keys.items()}


def discovery(data: bytes) -> None:
    """Of the configured issuer, https throughout, and on hosts that the HTTP client reads there too."""
    document = _document(data)
    if document is None:
        return
    try:
        found = read_metadata(document, issuer=ISSUER, require_pkce=True, dangerous_allow_http=False)
    except WorldError as refused:
        assert len(str(refused)) < 200
        return
    assert document["issuer"] == ISSUER
    asked = [found.token_endpoint, found.jwks_uri, found.userinfo_endpoint]
    for url in filter(None, [*asked, found.authorization_endpoint, found.end_session_endpoint]):
        # What a browser or an HTTP client would read otherwise: WHATWG URL 4.4.
        assert url.startswith("https:") and url.isascii() and url.isprintable() and not set(url) & {"\\", " "}
    for url in filter(None, asked):
        read = URL(url)
        assert read.scheme == "https" and read.user is None and read.raw_host
        assert read.raw_host == urlsplit(url).hostname, "the HTTP client asks another host"
        assert read.raw_host in found.hosts


def logout_token(data: bytes) -> None:
    """About somebody, for no longer than ten minutes, and never what an ID token is as well."""
    claims = _document(data)
    if claims is None:
        return
    for optional in (False, True):
        try:
            notice = read_notice(RULES, claims, NOW, exp_optional=optional)
        except ClientError as refused:
            assert refused.reason is Reason.LOGOUT_TOKEN and len(str(refused)) < 120
            continue
        assert notice.issuer == ISSUER and (notice.sid or notice.subject)
        assert NOW < notice.exp <= NOW + LONGEST + 2 * RULES.skew
        assert notice.lock("op") == notice.lock("op") and notice.lock("op").target == notice.target
        assert not _accepted(claims), "one token signs in and signs out"
    sid = claims.get("sid")
    try:
        read_front_channel(RULES, str(claims.get("iss")), sid if isinstance(sid, str) else None)
    except ClientError as refused:
        assert refused.reason is Reason.LOGOUT_TOKEN


def _accepted(claims: dict[str, JSON]) -> Accepted | None:
    try:
        return accept(RULES, claims, Expectation("n-0S6", max_age=600.0), NOW)
    except ClientError as refused:
        assert refused.reason in _REFUSALS and len(str(refused)) < 200
        return None


_TOLD = site(identity=IdentityHeaders("https://app.test", presets=tuple(IdentityPreset)))


def id_token(data: bytes) -> None:
    """A person whose session survives being written down, and whose name adds no field for the app."""
    claims = _document(data)
    accepted = None if claims is None else _accepted(claims)
    if accepted is None:
        return
    who = accepted.identity
    assert who.issuer == ISSUER and who.subject and set(who.claims) <= {"department", "realm"}
    assert accepted.auth_time is None or accepted.auth_time <= NOW + RULES.skew
    session = Session(
        "s1",
        who,
        "main",
        NOW,
        accepted.auth_time or NOW,
        NOW,
        NOW + 60,
        acr=accepted.acr,
        amr=accepted.amr,
        idp_session=accepted.idp_session,
    )
    packed = pack_session(session)
    assert unpack_session(packed, "s1", 0) == session and len(packed) <= 4 * len(data) + 600
    json.dumps(assertion_claims(_TOLD, session, NOW, "j", "https://app.test"))
    block = identity_block(_TOLD, session, None)
    lines = block.split(b"\r\n")[:-1]
    assert b"".join(line + b"\r\n" for line in lines) == block
    names = [fold(line.partition(b": ")[0]) for line in lines]
    assert len(names) == len(set(names)) and all(b"\n" not in line and b"\r" not in line for line in lines)
    assert all(line.partition(b": ")[2].strip() == line.partition(b": ")[2] != b"" for line in lines)
