"""The admin listener: who may reach it, and what is refused before it could be reached by anybody else."""

# ruff: noqa: E501  (a row quotes a whole message, as the operator sees it)

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.words import mistakes, settings, site, warnings
from ztproxy.config import load
from ztproxy.config.settings import Admin, AdminPeople, CertificateFiles
from ztproxy.config.values import Address

LOOPBACK = Address("127.0.0.1", 9901)
TLS = "tls: {certificate: c.pem, key: k.pem}"
PAIR = CertificateFiles(Path("/etc/c.pem"), Path("/etc/k.pem"))
CA = "client_ca: ca.pem"
PRINT = "5E:88:48:98:DA:28:04:71:51:D0:E5:6F:8D:C6:29:27:73:60:3D:0D:6A:AB:BD:D6:2A:11:EF:72:1D:15:42:D8"
BARE = PRINT.replace(":", "").lower()
WHO = "admin: {groups: ops}"


def admin(keys: str) -> Admin:
    found = settings(site(f"admin: {keys}")).admin
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        pytest.param("127.0.0.1:9000", Admin(Address("127.0.0.1", 9000)), id="address"),
        pytest.param("localhost:9000", Admin(Address("127.0.0.1", 9000)), id="localhost"),
        pytest.param("127.8.9.1:9000", Admin(Address("127.8.9.1", 9000)), id="all-of-127"),
        pytest.param("'[::1]:9000'", Admin(Address("::1", 9000)), id="ipv6"),
        pytest.param("unix:/run/z", Admin(Address("", 0, "/run/z")), id="socket"),
        pytest.param("{}", Admin(LOOPBACK), id="mapping"),
        pytest.param("{listen: 127.0.0.1:9000}", Admin(Address("127.0.0.1", 9000)), id="listen"),
        pytest.param("{hosts: Admin.test}", Admin(LOOPBACK, hosts=frozenset({"admin.test"})), id="host"),
        pytest.param("{listen: 'unix:/run/z', hosts: [a, b]}", Admin(Address("", 0, "/run/z"), hosts=frozenset({"a", "b"})), id="hosts-of-a-socket"),
        pytest.param(f"{{{TLS}}}", Admin(LOOPBACK, PAIR), id="tls-here"),
        pytest.param(f"{{listen: '0.0.0.0:1', {TLS}, {CA}}}", Admin(Address("0.0.0.0", 1), PAIR, Path("/etc/ca.pem")), id="elsewhere-by-certificate"),
        pytest.param(f"{{{TLS}, {CA}, certificates: {{'{PRINT}': operator}}}}", Admin(LOOPBACK, PAIR, Path("/etc/ca.pem"), {BARE: "operator"}), id="fingerprint-as-openssl-writes-it"),
        pytest.param(f"{{{TLS}, {CA}, certificates: {{{BARE}: viewer}}}}", Admin(LOOPBACK, PAIR, Path("/etc/ca.pem"), {BARE: "viewer"}), id="fingerprint-bare"),
    ],
)  # fmt: skip
def test_where_it_listens(written: str, meant: Admin) -> None:
    assert admin(written) == meant


def test_without_a_word_it_is_a_socket_that_two_instances_do_not_share() -> None:
    found = [settings(site(f"state_dir: {name}")).admin for name in ("a", "b")]
    assert found == [Admin(Address("", 0, f"/etc/{name}/admin.sock")) for name in ("a", "b")]


def test_off_is_off() -> None:
    assert settings(site("admin: off")).admin is None
    assert settings(site("admin: false")).admin is None


def test_a_state_dir_too_deep_for_a_socket_is_told() -> None:
    deep = "/" + "x" * 96
    assert settings(site(f"state_dir: {deep[:-1]}")).admin == Admin(Address("", 0, f"{deep[:-1]}/admin.sock"))
    assert mistakes(site(f"state_dir: {deep}")) == [
        f"7: state_dir: the path of the admin socket, `{deep}/admin.sock`, is too long for one, write `admin: unix:/run/ztproxy/admin.sock` or `admin: off`"
    ]
    assert settings(site(f"state_dir: {deep}", "admin: off")).admin is None


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("0.0.0.0:9901", id="everywhere"),
        pytest.param(":9901", id="everywhere-in-short"),
        pytest.param("[::]:9901", id="everywhere-by-ipv6"),
        pytest.param("10.0.0.1:9901", id="private"),
        pytest.param("169.254.1.1:9901", id="link-local"),
        pytest.param("[fe80::1]:9901", id="link-local-by-ipv6"),
        pytest.param("[::ffff:127.0.0.1]:9901", id="loopback-in-disguise"),
        pytest.param("128.0.0.1:9901", id="beside-loopback"),
        pytest.param("0.0.0.0:0", id="any-port"),
    ],
)
@pytest.mark.parametrize(
    "some",
    [
        pytest.param([], id="nothing"),
        pytest.param([TLS], id="no-ca"),
        pytest.param([CA], id="no-tls"),
        pytest.param(["hosts: x", TLS], id="hosts-are-no-protection"),
    ],
)
def test_an_address_reached_from_elsewhere_needs_client_certificates(address: str, some: list[str]) -> None:
    """A28: it does not load, so it does not start."""
    (told,) = mistakes(site("admin:", f"  listen: '{address}'", *(f"  {key}" for key in some)))
    assert told.startswith("8: admin.listen: `")
    assert told.endswith(
        "can be reached from elsewhere without a client certificate, write `listen: 127.0.0.1:9901`, or add `tls: {certificate, key}` and `client_ca`"
    )
    assert settings(site(f"admin: {{listen: '{address}', {TLS}, {CA}}}")).admin is not None


def test_the_bare_address_is_judged_as_well() -> None:
    (told,) = mistakes(site("admin: 0.0.0.0:9901"))
    assert told.startswith("7: admin: `0.0.0.0:9901` can be reached from elsewhere")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param("9901", "7: admin: `9901` is not text, write it like `0.0.0.0:8443`", id="port-alone"),
        pytest.param("true", "7: admin: `true` is not text, write it like `0.0.0.0:8443`", id="on"),
        pytest.param("{listen: off}", "7: admin.listen: `off` is not an address, write `host:port`, like `0.0.0.0:8443`", id="off-below"),
        pytest.param("{adress: x}", "7: admin.adress: unknown key `adress`, write one of `certificates`, `client_ca`, `console`, `hosts`, `listen`, `tls`", id="unknown"),
        pytest.param("{tls: {certificate: c.pem}}", "7: admin.tls: the key `key` is missing, add `key: ...`", id="no-key"),
        pytest.param(f"{{{CA}}}", "7: admin.client_ca: a client's certificate is shown over TLS alone, add `tls: {certificate, key}`", id="ca-without-tls"),
        pytest.param(f"{{{TLS}, certificates: {{{BARE}: admin}}}}", "7: admin.certificates: no client is asked for its certificate, add `client_ca`", id="certificates-nobody-asks-for"),
        pytest.param(f"{{listen: 'unix:/run/z', {TLS}}}", "7: admin.tls: a unix socket has no use for this, write `listen: 127.0.0.1:9901`, or remove it", id="tls-on-a-socket"),
        pytest.param(f"{{listen: 'unix:/run/z', console: {{route: app.test, {WHO}}}}}", "7: admin.console: a unix socket has no use for this, write `listen: 127.0.0.1:9901`, or remove it", id="console-on-a-socket"),
        pytest.param("{hosts: 'admin.test:9901'}", "7: admin.hosts: `admin.test:9901` is not a host name, write it like `admin.example.com`, without a port", id="host-with-port"),
        pytest.param("{hosts: '*'}", "7: admin.hosts: `*` is not a host name, write it like `admin.example.com`, without a port", id="any-host"),
        pytest.param("{hosts: []}", "7: admin.hosts: the list is empty, write at least one entry or remove the key", id="no-hosts"),
        pytest.param(f"{{{TLS}, {CA}, certificates: {{abc: admin}}}}", "7: admin.certificates.abc: `abc` is not a SHA-256 fingerprint, `openssl x509 -noout -fingerprint -sha256 -in FILE` shows it", id="no-fingerprint"),
        pytest.param(f"{{{TLS}, {CA}, certificates: {{{BARE[:40]}: admin}}}}", f"7: admin.certificates.{BARE[:40]}: `{BARE[:40]}` is not a SHA-256 fingerprint, `openssl x509 -noout -fingerprint -sha256 -in FILE` shows it", id="sha-1"),
        pytest.param(f"{{{TLS}, {CA}, certificates: {{{BARE}: root}}}}", f"7: admin.certificates.{BARE}: `root` is not known here, write one of `admin`, `operator`, `viewer`", id="role"),
        pytest.param(f"{{{TLS}, {CA}, certificates: {{{BARE}: viewer, '{PRINT}': admin}}}}", f"7: admin.certificates.{PRINT}: this certificate is listed twice, remove one of them", id="twice"),
        pytest.param(f"{{{TLS}, {CA}, certificates: [{BARE}]}}", "7: admin.certificates: a list is not a mapping, write `key: value` lines", id="a-list"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_told(keys: str, message: str) -> None:
    assert message in mistakes(site(f"admin: {keys}"))


@pytest.mark.parametrize(
    ("admin", "other", "taken"),
    [
        pytest.param("127.0.0.1:8443", "drain: 1s", "listen: 127.0.0.1:8443", id="of-the-data-plane"),
        pytest.param("127.0.0.1:9090", "operations: 127.0.0.1:9090", "operations: 127.0.0.1:9090", id="of-the-operations"),
        pytest.param("127.0.0.1:9090", "operations: 0.0.0.0:9090", "operations: 0.0.0.0:9090", id="within-every-address"),
        pytest.param("unix:/run/z", "operations: unix:/run/z", "operations: unix:/run/z", id="socket"),
        pytest.param("127.0.0.2:8443", "drain: 1s", None, id="another-address"),
        pytest.param("127.0.0.1:9091", "operations: 0.0.0.0:9090", None, id="another-port"),
        pytest.param("unix:/run/z", "operations: unix:/run/y", None, id="another-socket"),
        pytest.param("unix:/run/z", "operations: 127.0.0.1:0", None, id="socket-and-port"),
        pytest.param("127.0.0.1:0", "operations: 127.0.0.1:0", None, id="ports-of-the-system-s-choice"),
    ],
)  # fmt: skip
def test_it_shares_no_address(admin: str, other: str, taken: str | None) -> None:
    """A01: the data plane's address is never the admin API's."""
    expected = [f"8: admin: `{admin}` is taken by `{taken}`, write another address"] if taken else []
    assert mistakes(site(other, f"admin: {admin}")) == expected


ROUTE = """\
routes:
  - from: https://console.test
    name: console
    to: http://127.0.0.1:9901
    policy: [{allow: {group: ops}}]"""


def test_who_may_open_the_console() -> None:
    console = (
        "admin: {console: {route: console, viewer: {groups: [a, b]}, "
        "operator: {groups: ops, emails: [Alice@Example.com]}, admin: {emails: carol@example.com}}}"
    )
    found = settings(site(console, routes=ROUTE)).admin
    people = AdminPeople(
        "console",
        {"viewer": frozenset({"a", "b"}), "operator": frozenset({"ops"})},
        {"operator": frozenset({"alice@example.com"}), "admin": frozenset({"carol@example.com"})},
    )
    assert found == Admin(LOOPBACK, hosts=frozenset({"console.test"}), people=people)
    assert warnings(site(console, routes=ROUTE)) == []


@pytest.mark.parametrize(
    ("more", "hosts"),
    [
        pytest.param("", {"console.test"}, id="the-route-s-own"),
        pytest.param("host_rewrite: admin.internal:9901", {"admin.internal"}, id="rewritten"),
        pytest.param("preserve_host_header: false", set(), id="the-address-itself"),
    ],
)
def test_the_console_s_route_may_call_it_by_its_name(more: str, hosts: set[str]) -> None:
    routes = f"{ROUTE}\n    {more}" if more else ROUTE
    found = settings(site(f"admin: {{hosts: x, console: {{route: console, {WHO}}}}}", routes=routes)).admin
    assert found is not None
    assert found.hosts == {"x"} | hosts


@pytest.mark.parametrize(
    ("console", "message"),
    [
        pytest.param(f"{{route: consol, {WHO}}}", "7: admin.console.route: there is no route `consol`, did you mean `console`?", id="no-such-route"),
        pytest.param(f"{{{WHO}}}", "7: admin.console: the key `route` is missing, add `route: ...`", id="no-route"),
        pytest.param("{route: console}", "7: admin.console: nobody may open the console, write `admin: {groups: [...]}`", id="nobody"),
        pytest.param("{route: console, viewer: {}}", "7: admin.console.viewer: nobody is named, write `groups: [...]` or `emails: [...]`", id="empty-role"),
        pytest.param("{route: console, viewer: {groups: []}}", "7: admin.console.viewer.groups: the list is empty, write at least one entry or remove the key", id="no-group"),
        pytest.param("{route: console, viewer: {emails: '*@x.test'}}", "7: admin.console.viewer.emails: `*@x.test`: a `*` means nothing here, write `domain: example.com`", id="everybody-of-a-domain"),
        pytest.param("{route: console, owner: {groups: x}}", "7: admin.console.owner: unknown key `owner`, write one of `admin`, `operator`, `route`, `viewer`", id="unknown-role"),
    ],
)  # fmt: skip
def test_a_wrong_console_is_told(console: str, message: str) -> None:
    text = site("admin:", f"  console: {console}", routes=ROUTE)
    assert mistakes(text) == [message.replace("7:", "9:", 1)]


@pytest.mark.parametrize(
    ("action", "message"),
    [
        pytest.param("redirect: /x", "the route `console` leads nowhere, write `to:` with the admin listener's address there", id="redirect"),
        pytest.param("response: {body: x}", "the route `console` leads nowhere, write `to:` with the admin listener's address there", id="response"),
        pytest.param("to: http://127.0.0.1:9901\n    identity: {assertion: false}", "the route `console` does not say who somebody is, leave out `identity: {assertion: false}` there", id="no-assertion"),
    ],
)  # fmt: skip
def test_a_route_that_cannot_be_the_console_is_told(action: str, message: str) -> None:
    routes = ROUTE.replace("to: http://127.0.0.1:9901", action)
    (told,) = mistakes(site(f"admin: {{console: {{route: console, {WHO}}}}}", routes=routes))
    assert told.partition(": ")[2] == f"admin.console.route: {message}"


def test_its_files_are_looked_for_and_watched(tmp_path: Path) -> None:
    file = tmp_path / "z.yaml"
    file.write_text(site(f"admin: {{{TLS}, {CA}}}"))
    with pytest.raises(Exception, match="there is no file") as caught:
        load(file, {})
    assert str(caught.value).count("there is no file") == 3
    for name, mode in (("c.pem", 0o644), ("k.pem", 0o644), ("ca.pem", 0o644)):
        (tmp_path / name).touch(mode)
        (tmp_path / name).chmod(mode)
    with pytest.raises(Exception, match=r"admin\.tls\.key: everyone on this machine has rights"):
        load(file, {})
    (tmp_path / "k.pem").chmod(0o600)
    assert {tmp_path / name for name in ("c.pem", "k.pem", "ca.pem")} < set(load(file, {}).files)
