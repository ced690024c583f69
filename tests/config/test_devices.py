"""Client certificates and devices: who vouches, who is asked, and our own certificates."""

# ruff: noqa: E501  (a row quotes a whole message, as the operator sees it)

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.words import ASKING, DEVICES, LISTEN, PROVIDER, mistakes, settings, site, warnings
from ztproxy.config import ConfigErrors, load
from ztproxy.config.settings import (
    OCSP,
    Authority,
    CertificateFiles,
    ClientCertificates,
    DeviceName,
    Devices,
    Enrolment,
)
from ztproxy.core.conditions import InGroup

CA = Path("/etc/ca.pem")
STAFF = InGroup(frozenset({"staff"}))
ENROL = "enrolment: {ca_certificate: d.pem, ca_key: d.key, may: {group: staff}}"
OURS = Authority(
    "enrolment",
    Path("/etc/d.pem"),
    device=DeviceName("san_uri", "spiffe://ztproxy.internal/device/{id}"),
    trust_domain="ztproxy.internal",
)


def asking(written: str, *more: str) -> str:
    """A site whose listener says `client_certificates: written`; `more` begins on line 8."""
    tls = "\ntls: {certificate: c.pem, key: k.pem}"
    return site(*more, listen=f"listen: {{address: 127.0.0.1:8443, client_certificates: {written}}}{tls}")


def devices(written: str) -> Devices:
    found = settings(site(f"devices: {written}", listen=ASKING)).devices
    assert found is not None
    return found


def clients(written: str) -> ClientCertificates | None:
    two = "devices: {authorities: [{name: corp, ca_file: a.pem}, {name: lab, ca_file: b.pem}]}"
    (listener,) = settings(asking(written, two)).listeners
    assert listener.tls is not None
    return listener.tls.clients


def test_without_a_word_there_are_no_devices() -> None:
    found = settings(site())
    assert (found.devices, found.token_issuers) == (None, ())
    assert settings(site("devices: {}")).devices == Devices(())


@pytest.mark.parametrize(
    ("written", "authority"),
    [
        pytest.param("{ca_file: ca.pem}", Authority("default", CA), id="nothing-more"),
        pytest.param("{name: corp, ca_file: ca.pem}", Authority("corp", CA), id="name"),
        pytest.param("{ca_file: ca.pem, crl_file: a.crl}", Authority("default", CA, Path("/etc/a.crl")), id="crl"),
        pytest.param("{ca_file: ca.pem, ocsp: 'http://o.test/x'}", Authority("default", CA, ocsp=OCSP("http://o.test/x")), id="ocsp-is-a-url"),
        pytest.param("{ca_file: ca.pem, ocsp: {url: https://o.test, deadline: 1s, keep: 1m}}", Authority("default", CA, ocsp=OCSP("https://o.test", 1.0, 60.0)), id="ocsp"),
        pytest.param("{ca_file: ca.pem, device_id: common_name}", Authority("default", CA, device=DeviceName("common_name")), id="id-is-a-field"),
        pytest.param("{ca_file: ca.pem, device_id: {from: san_uri, template: 'urn:d:{id}'}}", Authority("default", CA, device=DeviceName("san_uri", "urn:d:{id}")), id="id-in-a-template"),
        pytest.param("{ca_file: ca.pem, trust_domain: corp.test}", Authority("default", CA, trust_domain="corp.test"), id="trust-domain"),
        pytest.param("{ca_file: ca.pem, allow_any_usage: true}", Authority("default", CA, allow_any_usage=True), id="any-usage"),
    ],
)  # fmt: skip
def test_an_authority(written: str, authority: Authority) -> None:
    assert devices(f"{{authorities: {written}}}").authorities == (authority,)


def test_facts_of_one_s_own_have_types() -> None:
    found = devices(
        "{facts: {fido_key: boolean, risk: number, build: text}, authorities: {ca_file: a}}"
    ).facts
    assert found == {"fido_key": bool, "risk": int, "build": str}


@pytest.mark.parametrize("form", ["client-cert", "xfcc", "nginx", "traefik", "aws-alb"])
def test_a_proxy_passes_certificates_on(form: str) -> None:
    text = site(
        f"devices: {{authorities: {{ca_file: ca.pem}}, certificates_from_proxies: {form}}}",
        "trusted_proxies: 10.0.0.0/8",
    )
    assert settings(text).devices == Devices((Authority("default", CA),), form)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        pytest.param("true", ClientCertificates(("corp", "lab")), id="everybody-for-any"),
        pytest.param("{}", ClientCertificates(("corp", "lab")), id="empty"),
        pytest.param("false", None, id="nobody"),
        pytest.param("off", None, id="nobody-in-words"),
        pytest.param("{authorities: lab, required: true}", ClientCertificates(("lab",), True), id="one-authority"),
        pytest.param("{hosts: App.test}", ClientCertificates(("corp", "lab"), False, frozenset({"app.test"})), id="host-is-lower-cased"),
        pytest.param("{hosts: [app.test, '*.test']}", ClientCertificates(("corp", "lab"), False, frozenset({"app.test", "*.test"})), id="hosts"),
    ],
)  # fmt: skip
def test_whom_a_listener_asks(written: str, asked: ClientCertificates | None) -> None:
    assert clients(written) == asked


def test_each_listener_asks_for_itself() -> None:
    text = site(
        "tls: {certificate: c.pem, key: k.pem}",
        DEVICES,
        listen="listen: [127.0.0.1:1, {address: 127.0.0.1:2, client_certificates: true}]",
    )
    one, other = settings(text).listeners
    assert one.tls is not None and other.tls is not None
    assert (one.tls.clients, other.tls.clients) == (None, ClientCertificates(("corp",)))
    assert one.tls.certificates == other.tls.certificates


def test_our_own_certificates() -> None:
    found = devices(f"{{{ENROL}}}")
    pair = CertificateFiles(Path("/etc/d.pem"), Path("/etc/d.key"))
    assert found.enrolment == Enrolment(pair, "ztproxy.internal", STAFF)
    assert found.authorities == (OURS,)
    more = "trust_domain: corp.test, approved: {email: a@corp.test}, level: phishing_resistant, lifetime: 2d, most_per_person: 1"
    full = devices(f"{{{ENROL[:-1]}, {more}}}}}")
    assert full.enrolment is not None and full.enrolment.approved is not None
    assert (full.enrolment.rank, full.enrolment.lifetime, full.enrolment.most_per_person) == (3, 172800.0, 1)
    assert full.authorities[0].device == DeviceName("san_uri", "spiffe://corp.test/device/{id}")
    assert full.authorities[0].trust_domain == full.enrolment.trust_domain == "corp.test"


def test_our_own_authority_may_be_written_out() -> None:
    found = devices(f"{{authorities: {{name: laptops, ca_file: d.pem, crl_file: d.crl}}, {ENROL}}}")
    assert found.authorities == (Authority("laptops", Path("/etc/d.pem"), Path("/etc/d.crl")),)


def test_who_may_enrol_is_read_from_claims_that_are_kept() -> None:
    text = site(f"devices: {{{ENROL.replace('group: staff', 'claim/team: x')}}}", listen=ASKING)
    assert settings(text).providers[0].claims.keep == ("team",)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        pytest.param("{authorities: {name: corp}}", ".authorities: the key `ca_file` is missing, add `ca_file: ...`", id="no-ca"),
        pytest.param("{authorities: [{ca_file: a}, {name: x, ca_file: b}]}", ".authorities[0]: one of several authorities needs a name, add `name: ...`", id="no-name"),
        pytest.param("{authorities: [{name: x, ca_file: a}, {name: x, ca_file: b}]}", ".authorities[1].name: two authorities are called `x`, rename one", id="one-name-twice"),
        pytest.param("{authorities: [{name: x, ca_file: a}, {name: y, ca_file: ./a}]}", ".authorities[1].ca_file: `/etc/a` is the file of `x` already, remove one of them", id="one-file-twice"),
        pytest.param("{authorities: {name: Corp CA, ca_file: a}}", ".authorities.name: `Corp CA` is not a name for an authority, write small letters, digits and `-`, like `corp`", id="name"),
        pytest.param("{authorities: {ca_file: a, ocsp: ldap://x}}", ".authorities.ocsp: `ldap://x` does not start with `https://`, write it like `https://keys.example.com/jwks.json`", id="ocsp-scheme"),
        pytest.param("{authorities: {ca_file: a, ocsp: 'http://o.test/#x'}}", ".authorities.ocsp: `http://o.test/#x` is not a URL that can be asked, write it like `https://keys.example.com/jwks.json`", id="ocsp-fragment"),
        pytest.param("{authorities: {ca_file: a, ocsp: {url: http://o.test, deadline: 1m}}}", ".authorities.ocsp.deadline: `1m` is too long, write a time from `100ms` to `10s`", id="ocsp-hangs"),
        pytest.param("{authorities: {ca_file: a, device_id: serial}}", ".authorities.device_id: `serial` is not known here, did you mean `serial_number`?", id="id-from-nowhere"),
        pytest.param("{authorities: {ca_file: a, device_id: {from: san_uri, template: 'urn:d'}}}", ".authorities.device_id.template: `urn:d` does not say where the id stands, write the text around it, like `spiffe://example.com/device/{id}`", id="template-without-id"),
        pytest.param("{authorities: {ca_file: a, trust_domain: 'spiffe://corp.test'}}", ".authorities.trust_domain: `spiffe://corp.test` is not a trust domain, write it like `example.com`, in small letters", id="trust-domain"),
        pytest.param("{authorities: []}", ".authorities: the list is empty, write at least one entry or remove the key", id="nobody-vouches"),
        pytest.param("{facts: {disk_encrypted: text}}", ".facts.disk_encrypted: `disk_encrypted` has a meaning here already, choose another name", id="known-fact"),
        pytest.param("{facts: {within: number}}", ".facts.within: `within` has a meaning here already, choose another name", id="fact-named-as-a-key"),
        pytest.param("{facts: {certificate_until: number}}", ".facts.certificate_until: `certificate_until` has a meaning here already, choose another name", id="fact-of-ours"),
        pytest.param("{facts: {Risk-Score: number}}", ".facts.Risk-Score: `Risk-Score` is not a name for a fact, write small letters, digits and `_`, like `os_build`", id="fact-s-name"),
        pytest.param("{facts: {risk: integer}}", ".facts.risk: `integer` is not known here, write one of `boolean`, `number`, `text`", id="fact-s-type"),
        pytest.param("{compliance: {a: {within: 1h}}}", ".compliance.a: the set asks for nothing, write facts, like `disk_encrypted: true`", id="empty-set"),
        pytest.param("{compliance: {a: {mdm_enroled: true}}}", ".compliance.a.mdm_enroled: there is no fact `mdm_enroled`, did you mean `mdm_enrolled`?", id="no-such-fact"),
        pytest.param("{compliance: {a: {mdm_enrolled: maybe}}}", ".compliance.a.mdm_enrolled: `maybe` is never equal to `mdm_enrolled`, which is true or false, write `true` or `false`", id="fact-of-another-type"),
        pytest.param("{compliance: {a: {os_patch_age: {at_most: 30, days: 1}}}}", ".compliance.a.os_patch_age.days: unknown test `days`, write one of `at_least`, `at_most`, `one_of`", id="no-such-test"),
        pytest.param("{certificates_from_proxies: xfc}", ".certificates_from_proxies: `xfc` is not known here, did you mean `xfcc`?", id="front"),
        pytest.param(f"{{{ENROL.replace('ca_key: d.key, ', '')}}}", ".enrolment: the key `ca_key` is missing, add `ca_key: ...`", id="no-key"),
        pytest.param(f"{{{ENROL.replace(', may: {group: staff}', '')}}}", ".enrolment: the key `may` is missing, add `may: ...`", id="whoever-may"),
        pytest.param(f"{{{ENROL.replace('group: staff', 'public: true')}}}", ".enrolment.may: this does not ask who somebody is, add `authenticated: true` or a group", id="anybody-may"),
        pytest.param(f"{{{ENROL.replace('group: staff', 'any_of: [{group: staff}, {method: GET}]')}}}", ".enrolment.may: this does not ask who somebody is, add `authenticated: true` or a group", id="anybody-may-by-one-of-two"),
        pytest.param(f"{{{ENROL.replace('group: staff', 'device: true')}}}", ".enrolment.may: a device that is being enrolled has no certificate yet, ask who the person is", id="devices-may"),
        pytest.param(f"{{{ENROL[:-1]}, approved: {{source_network: 10.0.0.0/8}}}}}}", ".enrolment.approved: this does not ask who somebody is, add `authenticated: true` or a group", id="approved-by-place"),
        pytest.param(f"{{{ENROL[:-1]}, level: strong}}}}", ".enrolment.level: there is no level `strong`, write one of `multi_factor`, `password`, `phishing_resistant`", id="no-such-level"),
        pytest.param(f"{{{ENROL[:-1]}, lifetime: 91d}}}}", ".enrolment.lifetime: `91d` is too long, write a time from `1h` to `90d`", id="lifetime"),
        pytest.param(f"{{{ENROL[:-1]}, most_per_person: 0}}}}", ".enrolment.most_per_person: `0` is too small, write `1` or more", id="no-device"),
        pytest.param(f"{{authorities: {{name: enrolment, ca_file: a}}, {ENROL}}}", ".authorities: `enrolment` is what the authority of `devices.enrolment` is called, choose another name", id="our-name"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_told(written: str, message: str) -> None:
    # One that asks for certificates at all where there is somebody to vouch for them.
    listen = ASKING if "enrolment" in written else LISTEN
    line = 8 if "enrolment" in written else 7
    assert mistakes(site(f"devices: {written}", listen=listen)) == [f"{line}: devices{message}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(asking("true"), "1: listen.client_certificates: nobody vouches for a certificate, add `devices: {authorities: [{name: corp, ca_file: ca.pem}]}`", id="nobody-vouches"),
        pytest.param(asking("{authorities: crop}", DEVICES), "1: listen.client_certificates.authorities: there is no authority `crop`, did you mean `corp`?", id="no-such-authority"),
        pytest.param(asking("{hosts: 10.0.0.1}", DEVICES), "1: listen.client_certificates.hosts: `10.0.0.1`: a client that connects to an address names no host, write its name", id="address"),
        pytest.param(asking("{hosts: 'app.test:443'}", DEVICES), "1: listen.client_certificates.hosts: `app.test:443` is not a host name, write it like `finance.example.com` or `*.example.com`, without a port", id="port"),
        pytest.param(asking("{hosts: '*'}", DEVICES), "1: listen.client_certificates.hosts: `*` is not a host name, write it like `finance.example.com` or `*.example.com`, without a port", id="star"),
        pytest.param(asking("{requird: true}", DEVICES), "1: listen.client_certificates.requird: unknown key `requird`, did you mean `required`?", id="misspelled"),
        pytest.param(site(DEVICES, listen="listen: {address: 127.0.0.1:1, client_certificates: true}"), "1: listen.client_certificates: a client's certificate is shown over TLS alone, add `tls`, or remove it", id="without-tls"),
        pytest.param(site("devices: {authorities: {ca_file: a}, certificates_from_proxies: nginx}"), "7: devices.certificates_from_proxies: anybody could then pass any certificate on, add `trusted_proxies` with the network of the proxies that end TLS", id="from-anybody"),
        pytest.param(site("devices: {certificates_from_proxies: nginx}", "trusted_proxies: 10.0.0.0/8"), "7: devices.certificates_from_proxies: nobody vouches for the certificates that are passed on, add `authorities: [...]`", id="of-nobody"),
    ],
)  # fmt: skip
def test_asking_wrongly_is_told(text: str, message: str) -> None:
    assert mistakes(text) == [message]


def test_a_responder_that_may_be_silent_is_warned_of() -> None:
    ocsp = "{url: http://o.test, dangerous_allow_unchecked: true}"
    assert warnings(site(f"devices: {{authorities: {{ca_file: a, ocsp: {ocsp}}}}}")) == [
        "7: devices.authorities.ocsp.dangerous_allow_unchecked: whoever keeps the responder from answering keeps revoked certificates alive"
    ]


FILES = ("c.pem", "k.pem", "ca.pem", "ca.crl", "d.pem", "d.key")


def on_disk(folder: Path, *, without: str = "", mode: int = 0o600) -> Path:
    for name in FILES:
        if name != without:
            (folder / name).write_text("x")
            (folder / name).chmod(mode if name.endswith((".key", "k.pem")) else 0o644)
    file = folder / "z.yaml"
    file.write_text(
        site(f"devices: {{authorities: {{ca_file: ca.pem, crl_file: ca.crl}}, {ENROL}}}", listen=ASKING)
    )
    return file


def test_every_file_of_devices_is_watched(tmp_path: Path) -> None:
    found = load(on_disk(tmp_path), {})
    assert {file.name for file in found.files} >= set(FILES)
    assert PROVIDER in (tmp_path / "z.yaml").read_text()


@pytest.mark.parametrize(
    ("without", "key"),
    [
        pytest.param("ca.pem", "devices.authorities.ca_file", id="ca"),
        pytest.param("ca.crl", "devices.authorities.crl_file", id="crl"),
        pytest.param("d.pem", "devices.enrolment.ca_certificate", id="enrolment-certificate"),
        pytest.param("d.key", "devices.enrolment.ca_key", id="enrolment-key"),
    ],
)
def test_a_file_that_is_not_there_is_told(tmp_path: Path, without: str, key: str) -> None:
    file = on_disk(tmp_path, without=without)
    with pytest.raises(ConfigErrors) as caught:
        load(file, {})
    message = f"there is no file `{tmp_path / without}`, create it or correct the path"
    assert str(caught.value) == f"{file}:8: {key}: {message}"


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_key_that_makes_devices_is_for_us_alone(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigErrors, match=r"devices\.enrolment\.ca_key: .* rights on .*d\.key"):
        load(on_disk(tmp_path, mode=mode), {})
