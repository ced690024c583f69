"""Certificates as five kinds of proxies pass them on, and all that is none of them.

The rows are fields as those proxies write them; the DER inside is any SEQUENCE, for nothing looks into it.
"""

from __future__ import annotations

from base64 import b64encode
from textwrap import wrap
from typing import get_args
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.config.settings import FrontFormat
from ztproxy.core.fields import DROP, LISTED, REFUSE, FieldNames, is_reserved
from ztproxy.core.front_certificates import Format, fields_of, read
from ztproxy.core.reasons import Reason
from ztproxy.core.request import ClientCertificate


def der(content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 0x80 else b"\x82" + size.to_bytes(2)
    return b"\x30" + length + content


# Octets that make `+` and `/` in base64, and a size that needs padding.
LEAF, CA, ROOT = der(b"leaf" + bytes(range(240, 256)) * 30), der(b"ca" + bytes(range(256))), der(b"root")
assert set(b"+/=") <= set(b64encode(LEAF))
MALFORMED = Reason.HTTP_CLIENT_CERTIFICATE
ONE, TWO, THREE = ClientCertificate(LEAF), ClientCertificate(LEAF, (CA,)), ClientCertificate(LEAF, (CA, ROOT))
UNVOUCHED = ClientCertificate(LEAF, vouched=False)


def base64(octets: bytes) -> str:
    return b64encode(octets).decode()


def pem(*certificates: bytes, end: str = "\n") -> str:
    armoured = [
        end.join(["-----BEGIN CERTIFICATE-----", *wrap(base64(one), 64), "-----END CERTIFICATE-----", ""])
        for one in certificates
    ]
    return "".join(armoured)


def escaped(*certificates: bytes, safe: str = "") -> str:
    return quote(pem(*certificates), safe=safe)


def listed(*fields: tuple[str, str | bytes]) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        found.setdefault(name.encode(), []).append(value.encode() if isinstance(value, str) else value)
    return found


def sequence(octets: bytes) -> str:
    return f":{base64(octets)}:"


def test_the_formats_are_those_of_the_configuration() -> None:
    assert get_args(Format) == get_args(FrontFormat)


@pytest.mark.parametrize("format_", get_args(Format))
def test_their_fields_are_never_let_through(format_) -> None:
    names = FieldNames((), underscores_dropped=False, listed=fields_of(format_))
    others = FieldNames((), underscores_dropped=False)
    assert fields_of(format_)
    for name in fields_of(format_):
        assert is_reserved(name)
        assert names[name.title()] == (LISTED, name)
        assert names[name.replace(b"-", b".")][0] == REFUSE
        assert names[name.replace(b"-", b"_")][0] == REFUSE
        assert others[name][0] == DROP
    assert names[b"X-Client-Cert"][0] == DROP  # a field of another format stays what it was


@pytest.mark.parametrize("format_", get_args(Format))
def test_no_field_is_no_certificate(format_) -> None:
    assert read(format_, {}) is None
    assert read(format_, listed(("x-forwarded-for", "1.2.3.4"))) is None


C, CHAIN = "client-cert", "client-cert-chain"

RFC_9440 = [
    pytest.param(listed((C, sequence(LEAF))), ONE, id="a leaf"),
    pytest.param(listed((C, sequence(LEAF)), (CHAIN, sequence(CA))), TWO, id="a chain"),
    pytest.param(
        listed((C, sequence(LEAF)), (CHAIN, f"{sequence(CA)}, {sequence(ROOT)}")), THREE, id="a list"
    ),
    pytest.param(
        listed((C, sequence(LEAF)), (CHAIN, sequence(CA)), (CHAIN, sequence(ROOT))),
        THREE,
        id="a list in two lines",
    ),
    pytest.param(listed((C, base64(LEAF))), MALFORMED, id="X20 no colons"),
    pytest.param(listed((C, ":" + base64(LEAF))), MALFORMED, id="X20 one colon"),
    pytest.param(listed((C, ":")), MALFORMED, id="X20 a colon alone"),
    pytest.param(listed((C, "::")), MALFORMED, id="X20 nothing between"),
    pytest.param(listed((C, "")), MALFORMED, id="X20 empty"),
    pytest.param(listed((C, escaped(LEAF))), MALFORMED, id="X20 PEM"),
    pytest.param(listed((C, sequence(pem(LEAF).encode()))), MALFORMED, id="X20 PEM in base64"),
    pytest.param(listed((C, sequence(LEAF)), (C, sequence(LEAF))), MALFORMED, id="X20 two values"),
    pytest.param(
        listed((C, f"{sequence(LEAF)}, {sequence(CA)}")), MALFORMED, id="X20 two values in one line"
    ),
    pytest.param(listed((C, sequence(LEAF) + ";a=b")), MALFORMED, id="parameters"),
    pytest.param(listed((C, sequence(LEAF).replace("=", ""))), MALFORMED, id="no padding"),
    pytest.param(listed((C, ":MAA=:")), ClientCertificate(b"0\0"), id="the shortest"),
    pytest.param(listed((C, ":MAB=:")), MALFORMED, id="bits that mean nothing are not zero"),
    pytest.param(listed((C, f":{base64(LEAF)[:8]} {base64(LEAF)[8:]}:")), MALFORMED, id="a blank inside"),
    pytest.param(listed((C, sequence(LEAF).replace("+", "-"))), MALFORMED, id="base64url"),
    pytest.param(listed((CHAIN, sequence(CA))), MALFORMED, id="a chain without a leaf"),
    pytest.param(listed((C, sequence(LEAF)), (CHAIN, "")), MALFORMED, id="an empty chain"),
    pytest.param(listed((C, sequence(LEAF)), (CHAIN, sequence(CA) + ",")), MALFORMED, id="an empty element"),
    pytest.param(listed((C, sequence(LEAF)), (CHAIN, "x")), MALFORMED, id="a chain of something else"),
    pytest.param(listed((C, sequence(der(b"x" * 50_000)))), MALFORMED, id="X17 over-long"),
    pytest.param(
        listed((C, sequence(LEAF)), (CHAIN, ",".join([sequence(der(b"x" * 500))] * 100))),
        MALFORMED,
        id="X17 a chain of a hundred",
    ),
]


@pytest.mark.parametrize(("fields", "answer"), RFC_9440)
def test_client_cert(fields, answer) -> None:
    assert read("client-cert", fields) == answer


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(LEAF + b"\x00", id="trailing octet"),
        pytest.param(LEAF + CA, id="two certificates"),
        pytest.param(LEAF[:-1], id="cut short"),
        pytest.param(b"\x31" + LEAF[1:], id="a SET"),
        pytest.param(b"\x30", id="one octet"),
        pytest.param(b"\x30\x80abc\x00\x00", id="indefinite length (BER)"),
        pytest.param(b"\x30\x81\x03abc", id="a length longer than needed"),
        pytest.param(b"\x30\x82\x00\xff" + b"x" * 255, id="a length with a leading zero"),
        pytest.param(b"\x30\x82", id="a length cut off"),
        pytest.param(b"\x30\xff" + b"\xff" * 127, id="a length beyond all bounds"),
        pytest.param(b"\x30\x84\x7f\xff\xff\xffabc", id="a length that lies"),
    ],
)
def test_what_is_not_one_der_sequence(octets) -> None:
    assert read("client-cert", listed((C, sequence(octets)))) is MALFORMED


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 40_000])
def test_every_length_of_der(size) -> None:
    content = b"x" * size
    length = bytes([size]) if size < 128 else size.to_bytes((size.bit_length() + 7) // 8)
    octets = b"\x30" + (length if size < 128 else bytes([0x80 + len(length)]) + length) + content
    assert read("client-cert", listed((C, sequence(octets)))) == ClientCertificate(octets)


X = "x-forwarded-client-cert"
QUOTED, OTHER = f'Cert="{escaped(LEAF)}"', f'Cert="{escaped(ROOT)}"'
HASH = "By=spiffe://corp.test/front;By=urn:front;Hash=" + "a" * 64

XFCC = [
    pytest.param(QUOTED, ONE, id="a leaf"),
    pytest.param(f"Cert={escaped(LEAF)}", ONE, id="unquoted"),
    pytest.param(f"cert={escaped(LEAF)};HASH=x", ONE, id="keys have no case"),
    pytest.param(f'{HASH};{QUOTED};Chain="{escaped(LEAF, CA)}"', TWO, id="a chain begins with the leaf"),
    pytest.param(
        f'{HASH};{QUOTED};Subject="CN=x,O=\\"a;b\\"";URI=urn:x;DNS=a;DNS=b', ONE, id="all Envoy writes"
    ),
    pytest.param(f'{HASH};{QUOTED};Subject="";URI=', ONE, id="empty names"),
    pytest.param(f"{OTHER};Hash=x,{HASH};{QUOTED}", ONE, id="the last element is the nearest hop"),
    pytest.param(f"{OTHER}, {QUOTED}", ONE, id="a blank between elements"),
    pytest.param(f"Hash=x,{QUOTED}", ONE, id="what came before may lack one"),
    pytest.param(
        f'{QUOTED};Subject="CN=a,{OTHER.replace(chr(34), chr(92) + chr(34))}"', ONE, id="T06 a quoted name"
    ),
    pytest.param(
        f'Cert="{escaped(LEAF)[:9]}\\{escaped(LEAF)[9:]}"', MALFORMED, id="a backslash in what nobody escapes"
    ),
    pytest.param(
        f'Subject="CN=a\\"b";{QUOTED}', ONE, id="a backslash before a quote in a word of the client"
    ),
    pytest.param("", MALFORMED, id="empty"),
    pytest.param("Hash=x", MALFORMED, id="no certificate"),
    pytest.param("Cert=", MALFORMED, id="an empty certificate"),
    pytest.param(f"{QUOTED},Hash=x", MALFORMED, id="none in the last element"),
    pytest.param(f"{QUOTED};", MALFORMED, id="ends in a semicolon"),
    pytest.param(f"{QUOTED},", MALFORMED, id="ends in a comma"),
    pytest.param(f";{QUOTED}", MALFORMED, id="begins with a semicolon"),
    pytest.param(f"{QUOTED} ", MALFORMED, id="ends in a blank"),
    pytest.param(f"{QUOTED};{OTHER}", MALFORMED, id="two certificates"),
    pytest.param(f"{QUOTED};{QUOTED}", MALFORMED, id="the same twice"),
    pytest.param(f'{QUOTED};Chain="{escaped(LEAF)}";chain="{escaped(LEAF)}"', MALFORMED, id="two chains"),
    pytest.param(f'{QUOTED};Chain="{escaped(CA, LEAF)}"', MALFORMED, id="a chain of another leaf"),
    pytest.param(f'{QUOTED};Chain=""', MALFORMED, id="an empty chain"),
    pytest.param(f'Chain="{escaped(LEAF)}"', MALFORMED, id="a chain alone"),
    pytest.param(f'Cert="{escaped(LEAF, CA)}"', MALFORMED, id="two in one"),
    pytest.param(f'Cert="{escaped(LEAF)}', MALFORMED, id="a quote left open"),
    pytest.param(f"Cert={base64(LEAF)}", MALFORMED, id="base64 alone"),
    pytest.param(f'Cert="{base64(LEAF)}"', MALFORMED, id="base64 where PEM is meant"),
    pytest.param(f"=x;{QUOTED}", MALFORMED, id="no key"),
    pytest.param(f"x;{QUOTED}", MALFORMED, id="no value"),
    pytest.param(f'{QUOTED};URI=a"b', MALFORMED, id="a quote in the middle"),
    pytest.param(f"{QUOTED};URI=urn:x,{OTHER}", MALFORMED, id="T06 an element out of the client's URI"),
    pytest.param(f"{QUOTED};URI=urn:x,URI=urn:y", MALFORMED, id="T06 an element of names alone"),
    pytest.param(f"Hash=x;URI=urn:x;{OTHER}", MALFORMED, id="T06 a certificate out of the client's URI"),
    pytest.param(f"{QUOTED};DNS=a,{OTHER}", MALFORMED, id="T06 an element out of the client's DNS name"),
    pytest.param(f"{QUOTED};Subject=CN=a,{OTHER}", MALFORMED, id="T06 an element out of an unquoted subject"),
    pytest.param(f'{QUOTED};uri=x;Chain="{escaped(LEAF, CA)}"', MALFORMED, id="T06 a chain out of a URI"),
]


@pytest.mark.parametrize(("value", "answer"), XFCC)
def test_xfcc(value, answer) -> None:
    assert read("xfcc", listed((X, value))) == answer


def test_xfcc_in_two_lines() -> None:
    assert read("xfcc", listed((X, QUOTED), (X, QUOTED))) is MALFORMED


N, VERIFY = "x-ssl-client-cert", "x-ssl-client-verify"

NGINX = [
    pytest.param(listed((N, escaped(LEAF)), (VERIFY, "SUCCESS")), ONE, id="verified"),
    pytest.param(listed((N, quote(pem(LEAF, end="\r\n"))), (VERIFY, "SUCCESS")), ONE, id="CRLF"),
    pytest.param(listed((N, quote(pem(LEAF).strip())), (VERIFY, "SUCCESS")), ONE, id="no last line end"),
    pytest.param(listed((VERIFY, "NONE")), None, id="none shown"),
    pytest.param(listed((N, ""), (VERIFY, "NONE")), None, id="none shown, and an empty field"),
    pytest.param(listed((N, escaped(LEAF)), (VERIFY, "NONE")), None, id="none shown, it says"),
    pytest.param(listed((N, ""), (VERIFY, "SUCCESS")), None, id="nothing to look at"),
    pytest.param(listed((VERIFY, "FAILED:expired")), None, id="failed, and not passed on"),
    pytest.param(
        listed((N, escaped(LEAF)), (VERIFY, "FAILED:self-signed certificate")), UNVOUCHED, id="X21 failed"
    ),
    pytest.param(listed((N, escaped(LEAF))), UNVOUCHED, id="X21 no companion"),
    pytest.param(listed((N, escaped(LEAF)), (VERIFY, "")), MALFORMED, id="an empty companion"),
    pytest.param(listed((N, escaped(LEAF)), (VERIFY, "success")), MALFORMED, id="another word"),
    pytest.param(
        listed((N, escaped(LEAF)), (VERIFY, "SUCCESS"), (VERIFY, "SUCCESS")), MALFORMED, id="two companions"
    ),
    pytest.param(
        listed((N, escaped(LEAF)), (N, escaped(LEAF)), (VERIFY, "SUCCESS")), MALFORMED, id="X20 two values"
    ),
    pytest.param(listed((N, escaped(LEAF, CA)), (VERIFY, "SUCCESS")), MALFORMED, id="X20 two in one"),
    pytest.param(listed((N, base64(LEAF)), (VERIFY, "SUCCESS")), MALFORMED, id="X20 base64 alone"),
    pytest.param(listed((N, "x" + escaped(LEAF)), (VERIFY, "SUCCESS")), MALFORMED, id="X20 text before"),
    pytest.param(listed((N, escaped(LEAF) + "x"), (VERIFY, "SUCCESS")), MALFORMED, id="X20 text after"),
    pytest.param(
        listed((N, escaped(LEAF).replace("CERTIFICATE", "PKCS7")), (VERIFY, "SUCCESS")),
        MALFORMED,
        id="X20 other",
    ),
    pytest.param(
        listed((N, "-----BEGIN CERTIFICATE-----"), (VERIFY, "SUCCESS")), MALFORMED, id="X20 cut short"
    ),
    pytest.param(listed((N, escaped(b"")), (VERIFY, "SUCCESS")), MALFORMED, id="X20 nothing inside"),
    pytest.param(
        listed((N, escaped(LEAF + b"x")), (VERIFY, "SUCCESS")), MALFORMED, id="X20 trailing garbage"
    ),
    pytest.param(listed((N, "x" * 70_000), (VERIFY, "NONE")), MALFORMED, id="X17 over-long"),
]


@pytest.mark.parametrize(("fields", "answer"), NGINX)
def test_nginx(fields, answer) -> None:
    assert read("nginx", fields) == answer


TRAEFIK = [
    pytest.param([base64(LEAF)], ONE, id="a leaf"),
    pytest.param([f"{base64(LEAF)},{base64(CA)},{base64(ROOT)}"], THREE, id="a chain"),
    pytest.param([quote(f"{base64(LEAF)},{base64(CA)}", safe="")], TWO, id="escaped, as older versions do"),
    pytest.param([""], MALFORMED, id="empty"),
    pytest.param([base64(LEAF), base64(CA)], MALFORMED, id="X20 two values"),
    pytest.param([f"{base64(LEAF)}, {base64(CA)}"], MALFORMED, id="a blank between"),
    pytest.param([f"{base64(LEAF)},"], MALFORMED, id="an empty one"),
    pytest.param([escaped(LEAF)], MALFORMED, id="X20 PEM"),
    pytest.param([quote(base64(LEAF)).replace("%", "%%")], MALFORMED, id="escaped wrongly"),
    pytest.param([base64(LEAF).replace("+", " ")], MALFORMED, id="a blank for a plus"),
]


@pytest.mark.parametrize(("values", "answer"), TRAEFIK)
def test_traefik(values, answer) -> None:
    assert read("traefik", listed(*(("x-forwarded-tls-client-cert", value) for value in values))) == answer


L, WHOLE = "x-amzn-mtls-clientcert-leaf", "x-amzn-mtls-clientcert"

AWS = [
    pytest.param(listed((L, escaped(LEAF, safe="+=/"))), ONE, id="a leaf, verified"),
    pytest.param(listed((L, escaped(LEAF))), ONE, id="a leaf, escaped further"),
    pytest.param(listed((WHOLE, escaped(LEAF, CA, ROOT, safe="+=/"))), THREE, id="a chain, passed on"),
    pytest.param(listed((WHOLE, escaped(LEAF))), ONE, id="a leaf, passed on"),
    pytest.param(listed((L, escaped(LEAF)), (WHOLE, escaped(CA))), MALFORMED, id="X20 both"),
    pytest.param(listed((L, escaped(LEAF)), (L, escaped(LEAF))), MALFORMED, id="X20 two values"),
    pytest.param(listed((L, escaped(LEAF, CA))), MALFORMED, id="X20 a chain for a leaf"),
    pytest.param(listed((WHOLE, "")), MALFORMED, id="X20 empty"),
    pytest.param(listed((WHOLE, base64(LEAF))), MALFORMED, id="X20 base64 alone"),
    pytest.param(
        listed((L, escaped(LEAF, safe="+=/").replace("+", "%20"))), MALFORMED, id="blanks for pluses"
    ),
]


@pytest.mark.parametrize(("fields", "answer"), AWS)
def test_aws_alb(fields, answer) -> None:
    assert read("aws-alb", fields) == answer


def test_the_same_values_give_the_same_object() -> None:
    fields = listed((C, sequence(LEAF)), (CHAIN, sequence(CA)))
    assert read("client-cert", fields) is read(
        "client-cert", {name: [*all_] for name, all_ in fields.items()}
    )


PIECES = st.sampled_from(
    [
        "Cert=",
        "Chain=",
        "URI=",
        '"',
        "\\",
        ",",
        ";",
        "=",
        ":",
        "%",
        "%0A",
        base64(ROOT),
        escaped(ROOT),
        "SUCCESS",
    ]
)


@given(
    st.sampled_from(get_args(Format)),
    st.lists(st.lists(PIECES | st.text(max_size=4), max_size=8), min_size=1, max_size=3),
)
def test_reading_never_fails(format_: Format, values: list[list[str]]) -> None:
    """Whatever comes is a certificate in DER, none, or refused; nothing raises."""
    texts = ["".join(value).encode("utf-8", "replace") for value in values]
    found = read(format_, dict.fromkeys(sorted(fields_of(format_)), texts))
    if isinstance(found, ClientCertificate):
        assert all(one[:1] == b"\x30" and len(one) == 2 + one[1] for one in (found.leaf, *found.chain))
    else:
        assert found in (None, MALFORMED)
