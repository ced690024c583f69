"""What is read from a certificate, and where the id of a device and a SPIFFE ID come from."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.worlds.certificates import DAY, HOUR, NOW, SERVER, Authority, der, key_usage, named
from ztproxy.adapters.certificate_form import DeviceName, Rules, Unfit, check_key, read
from ztproxy.core.certificate import Certificate

CA = Authority.root("Corp, Inc.")


def other_name(value: bytes) -> x509.OtherName:
    return x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), value)


def test_everything_that_is_read() -> None:
    issued = CA.issue(
        subject=named("laptop 1", SERIAL_NUMBER="C02XK1", ORGANIZATION_NAME="Corp"),
        uris=["spiffe://corp.test/device/1"],
        dns=["Laptop-1.corp.test", "b.test"],
        emails=["a@corp.test"],
        serial=4711,
    )
    key = issued.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert read(issued.cert, Rules("corp", trust_domain="corp.test")) == Certificate(
        authority="corp",
        issuer="CN=Corp\\, Inc.",
        subject="O=Corp,2.5.4.5=C02XK1,CN=laptop 1",
        serial=4711,
        thumbprint=issued.thumbprint,
        spki=base64.urlsafe_b64encode(hashlib.sha256(key).digest()).rstrip(b"=").decode(),
        not_before=NOW - HOUR,
        not_after=NOW + DAY,
        dns=("Laptop-1.corp.test", "b.test"),
        emails=("a@corp.test",),
        uris=("spiffe://corp.test/device/1",),
        spiffe="spiffe://corp.test/device/1",
    )


@pytest.mark.parametrize(
    ("uris", "spiffe"),
    [
        pytest.param(["spiffe://corp.test/device/1"], "spiffe://corp.test/device/1", id="one"),
        pytest.param([], None, id="none"),
        pytest.param(["https://corp.test/1", "urn:x"], None, id="others"),
    ],
)
def test_SPIFFE_IDs(uris: list[str], spiffe: str | None) -> None:
    found = read(CA.issue(uris=uris).cert, Rules("corp", trust_domain="corp.test"))
    assert found.spiffe == spiffe and found.uris == tuple(uris)


@pytest.mark.parametrize(
    "uris",
    [
        pytest.param(["spiffe://corp.test/a", "spiffe://corp.test/b"], id="two_SPIFFE_IDs"),
        pytest.param(["spiffe://corp.test/a", "https://corp.test/"], id="another_URI_beside"),
        pytest.param(["https://corp.test/", "spiffe://corp.test/a"], id="another_URI_before"),
        pytest.param(["spiffe://corp.test"], id="X14_root"),
        pytest.param(["spiffe://corp.test/"], id="X14_root_with_a_slash"),
        pytest.param(["spiffe://evil.test/a"], id="X15_another_trust_domain"),
        pytest.param(["spiffe://evil.test/..%2f"], id="X15_escape"),
        pytest.param(["SPIFFE://CORP.TEST/x"], id="X15_upper_case"),
        pytest.param(["spiffe://a@corp.test/x"], id="X15_userinfo"),
        pytest.param(["spiffe://corp.test:443/x"], id="X15_port"),
        pytest.param(["spiffe://corp.test/x?y"], id="X15_query"),
        pytest.param(["spiffe://corp.test/x#y"], id="X15_fragment"),
        pytest.param(["spiffe://corp.test//x"], id="X15_empty_segment"),
        pytest.param(["spiffe://corp.test/./x"], id="X15_dot"),
        pytest.param(["spiffe://corp.test/../x"], id="X15_dots"),
        pytest.param(["spiffe:corp.test/x"], id="X15_no_authority"),
        pytest.param(["spiffe://corp.test.evil.test/x"], id="X15_longer_trust_domain"),
    ],
)
def test_SPIFFE_IDs_that_refuse_the_certificate(uris: list[str]) -> None:
    issued = CA.issue(uris=uris)
    with pytest.raises(Unfit, match="SPIFFE ID"):
        read(issued.cert, Rules("corp", trust_domain="corp.test"))
    # Where no trust domain is configured they are URIs like any other, and nobody's identity.
    assert read(issued.cert, Rules("corp")).spiffe is None


SUBJECT = named("laptop-1.corp.test", SERIAL_NUMBER="C02XK1")


@pytest.mark.parametrize(
    ("rule", "device"),
    [
        pytest.param(None, None, id="no_rule"),
        pytest.param(DeviceName("common_name"), "laptop-1.corp.test", id="whole_common_name"),
        pytest.param(DeviceName("common_name", "{id}.corp.test"), "laptop-1", id="start_of_common_name"),
        pytest.param(DeviceName("common_name", "{id}.evil.test"), None, id="does_not_fit"),
        pytest.param(DeviceName("common_name", "{id}.corp"), None, id="fits_the_start_only"),
        pytest.param(DeviceName("common_name", "{id}xcorp.test"), None, id="dot_is_a_dot"),
        pytest.param(DeviceName("serial_number"), "C02XK1", id="serial_number"),
        pytest.param(DeviceName("san_uri", "spiffe://corp.test/device/{id}"), "7", id="URI"),
        pytest.param(DeviceName("san_uri", "urn:device:{id}"), None, id="URI_does_not_fit"),
        pytest.param(DeviceName("san_dns", "{id}.devices.test"), "a", id="DNS_name"),
        pytest.param(DeviceName("san_email", "{id}@corp.test"), "b", id="address"),
    ],
)
def test_the_id_of_the_device(rule: DeviceName | None, device: str | None) -> None:
    issued = CA.issue(
        subject=SUBJECT,
        uris=["spiffe://corp.test/device/7", "https://corp.test/9"],
        dns=["a.devices.test", "c.test"],
        emails=["b@corp.test"],
    )
    assert read(issued.cert, Rules("corp", rule)).device == device


@pytest.mark.parametrize("id", ["", "-x", "x-", "a b", "a/b", "a%2fb", "x" * 129])
def test_ids_that_are_none(id: str) -> None:
    issued = CA.issue(uris=[f"urn:device:{id}"])
    assert read(issued.cert, Rules("corp", DeviceName("san_uri", "urn:device:{id}"))).device is None


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        pytest.param({"constraints": x509.BasicConstraints(True, None)}, "authority's", id="X05_authority"),
        pytest.param({"bits": key_usage("key_cert_sign", "digital_signature")}, "key usage", id="X05_signs"),
        pytest.param({"usage": None}, "no extended key usage", id="X04_no_usage"),
        pytest.param({"usage": [SERVER]}, "clientAuth", id="X04_for_servers"),
        pytest.param({"san": [other_name(der(0x0C, b"a" * 200 + b"\0"))]}, "otherName", id="X12_long_text"),
        pytest.param({"san": [other_name(der(0x16, b"a\x7f"))]}, "otherName", id="X12_delete"),
    ],
)
def test_forms_that_are_refused_whatever_the_verifier_thinks(form: dict[str, Any], problem: str) -> None:
    with pytest.raises(Unfit, match=problem):
        read(CA.issue(**form).cert, Rules("corp"))


def test_a_certificate_of_two_devices_is_refused() -> None:
    rule = DeviceName("san_dns", "{id}.devices.test")
    for names in (["a.devices.test", "b.devices.test"], ["a.devices.test", "a.devices.test"]):
        with pytest.raises(Unfit, match="more than one device"):
            read(CA.issue(dns=names).cert, Rules("corp", rule))


def test_keys_of_other_algorithms() -> None:
    check_key(CA.issue(key=ed25519.Ed25519PrivateKey.generate()).cert)
    agreeing = CA.issue(key=x25519.X25519PrivateKey.generate())  # type: ignore[arg-type]
    with pytest.raises(Unfit, match="algorithm"):
        check_key(agreeing.cert)
