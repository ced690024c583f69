"""TLS on a running proxy: names, versions, renewal, the listener that leads there, and TLS to an app."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Iterator

import pytest
import trustme
from cryptography import x509

from tests.stories.house import House, certify, house
from tests.stories.talking import PATIENCE, Background, Wire, free_ports, until

OTHER = "    - {certificate: other.pem, key: other.key}\n"
ROUTES = """\
  - from: https://other.test
    name: other
    to: http://127.0.0.1:$upstream
    allow_public_unauthenticated_access: true
  - from: https://inner.test
    name: inner
    to: https://127.0.0.1:$inner
    tls_custom_ca_file: inner-ca.pem
    tls_server_name: inner.internal
    tls_client_cert_file: us.pem
    tls_client_key_file: us.key
    allow_public_unauthenticated_access: true
  - from: https://stranger.test
    name: stranger
    to: https://127.0.0.1:$inner
    tls_server_name: inner.internal
    allow_public_unauthenticated_access: true
  - from: https://misnamed.test
    name: misnamed
    to: https://127.0.0.1:$inner
    tls_custom_ca_file: inner-ca.pem
    tls_server_name: another.internal
    allow_public_unauthenticated_access: true
"""


class Inner:
    """An app that speaks TLS and wants to see our certificate: what it was shown, by connection."""

    def __init__(self, ca: trustme.CA) -> None:
        self.shown: list[object] = []
        self.names: list[object] = []
        self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert("inner.internal").configure_cert(self.tls)
        ca.configure_trust(self.tls)
        self.tls.verify_mode = ssl.CERT_REQUIRED
        self.tls.sni_callback = lambda connection, name, context: self.names.append(name)

    async def start(self, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._met, "127.0.0.1", port, ssl=self.tls)

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.shown.append(writer.get_extra_info("peercert")["subject"])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ninner")
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    background = Background()
    yield background
    background.close()


@pytest.fixture(scope="module")
def inner_ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def inner(inner_ca: trustme.CA) -> Inner:
    return Inner(inner_ca)


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory,
    valkey_url: str,
    background: Background,
    inner: Inner,
    inner_ca: trustme.CA,
) -> Iterator[House]:
    ports = free_ports(("redirect", "inner"))
    server = background.run(inner.start(ports["inner"]))
    folder = tmp_path_factory.mktemp("tls")

    def prepare(it: House) -> None:
        certify(it.ca, folder, "other", "other.test", "*.wild.test")
        certify(inner_ca, folder, "us", "ztproxy.internal")
        inner_ca.cert_pem.write_to_path(str(folder / "inner-ca.pem"))

    parts = {
        "listeners": '  - {address: "127.0.0.1:$redirect", redirect_to_https: true}',
        "certificates": OTHER,
        "routes": ROUTES,
    }
    with house(folder, valkey_url, parts=parts, ports=ports, prepare=prepare) as it:
        yield it
    background.loop.call_soon_threadsafe(server.close)


def shake_hands(home: House, name: str | None, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    """A TLS connection that asks for `name`, whatever certificate is shown."""
    if context is None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = socket.create_connection(("127.0.0.1", home.ports["tls"]), PATIENCE)
    return context.wrap_socket(connection, server_hostname=name)


def shown(home: House, name: str | None) -> x509.Certificate:
    with shake_hands(home, name) as connection:
        der = connection.getpeercert(True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


def names(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return found.value.get_values_for_type(x509.DNSName)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param("app.test", "app.test", id="by its name"),
        pytest.param("other.test", "other.test", id="by another name"),
        pytest.param("OTHER.test", "other.test", id="in capitals"),
        pytest.param("a.wild.test", "other.test", id="by a wildcard"),
        pytest.param("a.b.wild.test", "app.test", id="a wildcard is one label"),
        pytest.param("unknown.test", "app.test", id="the first for an unknown name"),
        pytest.param(None, "app.test", id="the first for no name"),
    ],
)
def test_the_certificate_of_the_name(home: House, asked: str | None, expected: str) -> None:
    assert expected in names(shown(home, asked))


def test_old_versions_are_refused_and_plain_http_hears_nothing(home: House) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    with shake_hands(home, "app.test", context) as connection:
        assert connection.version() == "TLSv1.2"
        cipher = connection.cipher()
        assert cipher is not None and cipher[0].startswith("ECDHE-")
    with shake_hands(home, "app.test") as connection:
        assert connection.version() == "TLSv1.3"
    before = len(home.app.received)
    with socket.create_connection(("127.0.0.1", home.ports["tls"]), PATIENCE) as connection:
        heard = Wire(connection).send(b"GET /public/x HTTP/1.1\r\nHost: app.test\r\n\r\n").rest()
    assert b"HTTP/" not in heard.data
    assert len(home.app.received) == before


def test_hsts_counts_over_tls_only(home: House) -> None:
    get = b"GET /public/x HTTP/1.1\r\nHost: app.test\r\n\r\n"
    with home.wire("tls") as wire:
        assert b"\r\nStrict-Transport-Security: max-age=31536000\r\n" in wire.send(get).ok()


def test_a_certificate_is_renewed_while_it_runs(home: House) -> None:
    """FI52: a good pair is taken, a bad one is not, and open connections go on."""
    before = {name: shown(home, name).serial_number for name in ("app.test", "other.test")}
    get = b"GET /public/x HTTP/1.1\r\nHost: app.test\r\n\r\n"
    with home.wire("tls") as kept:
        kept.send(get).ok()
        certify(home.ca, home.directory, "other", "other.test")
        until(lambda: shown(home, "other.test").serial_number != before["other.test"])
        assert shown(home, "app.test").serial_number == before["app.test"]
        kept.send(get).ok()
        # A key that does not fit: reported, and the pair of before stays.
        renewed = shown(home, "other.test")
        certificate, said = (
            (home.directory / "other.pem").read_bytes(),
            home.log("proxy").count("not reloaded"),
        )
        (home.directory / "other.pem").write_bytes((home.directory / "us.pem").read_bytes())
        until(lambda: home.log("proxy").count("not reloaded") > said)
        assert shown(home, "other.test") == renewed
        # The next good one is taken again.
        (home.directory / "other.pem").write_bytes(certificate)
        certify(home.ca, home.directory, "other", "other.test")
        until(lambda: shown(home, "other.test") != renewed)
        kept.send(get).ok()
    for name in ("app", "other"):
        ends = shown(home, f"{name}.test").not_valid_after_utc.timestamp()
        file = str(home.directory / f"{name}.pem")
        until(functools.partial(_expires, home, file, ends))


def _expires(home: House, certificate: str, at: float) -> bool:
    """Whether the metrics say so."""
    return home.metric("ztproxy_certificate_expiry_seconds", name=certificate) == at


@pytest.mark.parametrize(
    ("target", "host", "status", "location"),
    [
        pytest.param("/u?a=b", "app.test", 308, "https://app.test/u?a=b", id="path and query"),
        pytest.param("/u", "APP.test.", 308, "https://app.test/u", id="the name as configured"),
        pytest.param("/", "other.test", 308, "https://other.test/", id="another host"),
        pytest.param(
            "/.ztproxy/sign_in", "app.test", 308, "https://app.test/.ztproxy/sign_in", id="our own pages"
        ),
        pytest.param("/%61", "app.test", 308, "https://app.test/a", id="the canonical path"),
        pytest.param("/u", "unknown.test", 421, None, id="an unknown host"),
        pytest.param("//evil.test", "app.test", 400, None, id="what a browser would take for a host"),
        pytest.param("http://evil.test/", "app.test", 400, None, id="another site in the target"),
    ],
)
def test_the_listener_that_leads_there(
    home: House, target: str, host: str, status: int, location: str | None
) -> None:
    before = len(home.app.received)
    data = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    answer = home.plain(data, "redirect")
    assert (answer.status, answer.fields("Location")) == (status, [] if location is None else [location])
    assert answer.fields("Set-Cookie") == [] and answer.fields("Strict-Transport-Security") == []
    assert len(home.app.received) == before


def test_tls_to_an_app(home: House, inner: Inner) -> None:
    answer = home.get("/", host="inner.test")
    assert (answer.status, answer.body) == (200, b"inner")
    assert len(inner.shown) == 1, "our certificate was asked for and shown"
    assert inner.names[-1] == "inner.internal"
    for host in ("stranger.test", "misnamed.test"):
        answer = home.get("/", host=host)
        assert answer.status == 502 and b"inner" not in answer.body
    assert len(inner.shown) == 1, "an app that is not who it should be learned of the request"
