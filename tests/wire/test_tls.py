"""Which certificate a client gets, what is spoken with it, and what happens when files change under us."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.worlds.certificates import DAY, HOUR, NOW, SERVER, Authority, Issued
from ztproxy.core.request import ClientCertificate
from ztproxy.core.upstream import UpstreamTLS
from ztproxy.errors import OperatorError
from ztproxy.wire.tls import ClientAuth, ServerTLS, shown_certificate, upstream_context

CA = trustme.CA()
Pair = tuple[str, str]


class Files:
    """A folder of certificates: `pair("app", "app.test")` writes, or writes anew, `app.pem` and `app.key`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def pair(self, file: str, *names: str, ca: trustme.CA = CA, common_name: str | None = None) -> Pair:
        issued = ca.issue_cert(*names, common_name=common_name)
        return self.write(file, b"".join(blob.bytes() for blob in issued.cert_chain_pems), issued)

    def write(self, file: str, chain: bytes, issued: trustme.LeafCert) -> Pair:
        certificate, key = self.folder / f"{file}.pem", self.folder / f"{file}.key"
        certificate.write_bytes(chain)
        key.write_bytes(issued.private_key_pem.bytes())
        return str(certificate), str(key)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def client_context(ca: trustme.CA = CA, verify: bool = True) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(context)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, server_name: str | None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends of a handshake in memory; raises what either end raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=server_name)
    waiting = [theirs, ours]
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    # What the server sends after its handshake (tickets, were there any) reaches the client by a read.
    ours.write(b"!")
    assert theirs.read(1) == b"!"
    return ours, theirs


def names_served(tls: ServerTLS, server_name: str | None) -> set[str]:
    # Unverified, to see also what is served to a name no certificate holds; getpeercert() is then empty.
    _, client = handshake(tls.context, client_context(verify=False), server_name)
    leaf = client.getpeercert(binary_form=True)
    assert leaf is not None
    parsed = x509.load_der_x509_certificate(leaf)
    try:
        found = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return set(found.get_values_for_type(x509.DNSName))


@pytest.mark.parametrize(
    ("server_name", "expected"),
    [
        pytest.param("app.test", "app.test", id="exact"),
        pytest.param("APP.Test", "app.test", id="exact, other case"),
        pytest.param("app.test.", "app.test", id="exact, trailing dot"),
        pytest.param("x.apps.test", "*.apps.test", id="wildcard"),
        pytest.param("special.apps.test", "special.apps.test", id="exact before wildcard"),
        pytest.param("a.b.apps.test", "default.test", id="a wildcard covers one label only"),
        pytest.param("apps.test", "default.test", id="a wildcard does not cover its parent"),
        pytest.param("*.apps.test", "*.apps.test", id="the wildcard itself, as the name"),
        pytest.param("common.test", "default.test", id="a common name is not a name"),
        pytest.param("evil.test", "default.test", id="unknown"),
        pytest.param(None, "default.test", id="none"),
    ],
)
def test_the_certificate_is_chosen_by_name(files: Files, server_name: str | None, expected: str) -> None:
    tls = ServerTLS(
        [
            files.pair("default", "default.test"),
            files.pair("app", "app.test"),
            files.pair("wildcard", "*.apps.test"),
            files.pair("special", "special.apps.test"),
            files.pair("common", "other.test", common_name="common.test"),
        ]
    )
    assert names_served(tls, server_name) == {expected}


def test_of_two_certificates_for_one_name_the_first_is_served(files: Files) -> None:
    tls = ServerTLS([files.pair("one", "app.test", "one.test"), files.pair("two", "app.test", "two.test")])
    assert names_served(tls, "app.test") == {"app.test", "one.test"}
    assert names_served(tls, "two.test") == {"app.test", "two.test"}


def test_a_certificate_without_alternative_names_serves_as_the_default(files: Files, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bare.test")])
    now = datetime.datetime.now(datetime.UTC)
    bare = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "bare.pem").write_bytes(bare.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "bare.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    tls = ServerTLS([(str(tmp_path / "bare.pem"), str(tmp_path / "bare.key")), files.pair("app", "app.test")])
    assert names_served(tls, "bare.test") == set()
    assert names_served(tls, "app.test") == {"app.test"}


def test_a_certificate_with_addresses_only_serves_as_the_default(files: Files) -> None:
    tls = ServerTLS([files.pair("address", "127.0.0.1")])
    handshake(tls.context, client_context(), "127.0.0.1")


def test_http_1_1_is_the_only_protocol_agreed_on(files: Files) -> None:
    client = client_context()
    client.set_alpn_protocols(["h2", "http/1.1"])
    ours, _ = handshake(ServerTLS([files.pair("app", "app.test")]).context, client, "app.test")
    assert ours.selected_alpn_protocol() == "http/1.1"
    assert ours.compression() is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_there_is_nothing_to_resume_a_session_with(files: Files, version: ssl.TLSVersion) -> None:
    client = client_context()
    client.maximum_version = version
    _, theirs = handshake(ServerTLS([files.pair("app", "app.test")]).context, client, "app.test")
    assert theirs.session is None or not theirs.session.has_ticket


@pytest.mark.parametrize(
    ("least", "spoken", "ciphers"),
    [
        pytest.param("1.2", ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0", id="TLS 1.1"),
        pytest.param("1.3", ssl.TLSVersion.TLSv1_2, "ALL", id="TLS 1.2 where 1.3 is the least"),
        pytest.param("1.2", ssl.TLSVersion.TLSv1_2, "AES128-SHA", id="no forward secrecy"),
        pytest.param("1.2", ssl.TLSVersion.TLSv1_2, "ECDHE+AES+SHA256:!AESGCM", id="CBC"),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_old_protocols_and_ciphers_are_refused(
    files: Files, least: str, spoken: ssl.TLSVersion, ciphers: str
) -> None:
    tls = ServerTLS([files.pair("app", "app.test")], "1.3" if least == "1.3" else "1.2")
    client = client_context()
    client.set_ciphers(ciphers)
    client.minimum_version = client.maximum_version = spoken
    with pytest.raises(ssl.SSLError):
        handshake(tls.context, client, "app.test")


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_loops_honour_choice_and_reload(
    files: Files, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    tls = ServerTLS([files.pair("default", "default.test"), files.pair("app", "app.test")])

    async def names(port: int) -> set[str]:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_context(), server_hostname="app.test"
        )
        certificate = writer.get_extra_info("peercert")
        writer.close()
        return {value for kind, value in certificate["subjectAltName"] if kind == "DNS"}

    async def dialogue() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=tls.context)
        port = server.sockets[0].getsockname()[1]
        assert await names(port) == {"app.test"}
        files.pair("app", "app.test", "renewed.test")
        assert tls.reload_if_changed()
        assert await names(port) == {"app.test", "renewed.test"}
        server.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(dialogue())


def test_nothing_is_reloaded_when_nothing_changed(files: Files) -> None:
    tls = ServerTLS([files.pair("app", "app.test")])
    assert not tls.reload_if_changed()


def test_a_link_that_points_elsewhere_is_a_change(files: Files, tmp_path: Path) -> None:
    """Kubernetes renews a mounted secret by moving a link."""
    files.pair("old", "app.test")
    files.pair("new", "renewed.test")
    for end in ("pem", "key"):
        (tmp_path / f"current.{end}").symlink_to(tmp_path / f"old.{end}")
    tls = ServerTLS([(str(tmp_path / "current.pem"), str(tmp_path / "current.key"))])
    for end in ("pem", "key"):
        (tmp_path / "next").symlink_to(tmp_path / f"new.{end}")
        (tmp_path / "next").rename(tmp_path / f"current.{end}")
    assert tls.reload_if_changed()
    assert names_served(tls, "renewed.test") == {"renewed.test"}


def test_a_renewal_seen_halfway_is_refused_and_then_taken(files: Files, tmp_path: Path) -> None:
    tls = ServerTLS([files.pair("app", "app.test")])
    files.pair("next", "app.test", "renewed.test")
    (tmp_path / "next.pem").rename(tmp_path / "app.pem")
    with pytest.raises(OperatorError, match="cannot be used together: key values mismatch"):
        tls.reload_if_changed()
    assert names_served(tls, "app.test") == {"app.test"}
    assert not tls.reload_if_changed(), "reported once"
    (tmp_path / "next.key").rename(tmp_path / "app.key")
    assert tls.reload_if_changed()
    assert names_served(tls, "app.test") == {"app.test", "renewed.test"}


def test_a_bad_pair_does_not_hold_up_the_others(files: Files, tmp_path: Path) -> None:
    tls = ServerTLS([files.pair("one", "one.test"), files.pair("two", "two.test")])
    before = dict(tls.expiries())
    (tmp_path / "one.pem").unlink()
    files.pair("two", "two.test", "renewed.test")
    with pytest.raises(OperatorError, match=r"one\.pem.*no such file"):
        tls.reload_if_changed()
    assert names_served(tls, "renewed.test") == {"two.test", "renewed.test"}
    assert names_served(tls, "one.test") == {"one.test"}
    assert set(dict(tls.expiries())) == set(before)


def test_expiry_is_told_per_certificate(files: Files, tmp_path: Path) -> None:
    end = datetime.datetime(2027, 3, 1, 12, 0, 0, tzinfo=datetime.UTC)
    issued = CA.issue_cert("short.test", not_after=end)
    short = files.write("short", issued.cert_chain_pems[0].bytes(), issued)
    tls = ServerTLS([files.pair("long", "long.test"), short])
    expiries = tls.expiries()
    assert [path for path, _ in expiries] == [str(tmp_path / "long.pem"), short[0]]
    assert expiries[1][1] == end.timestamp()


def encrypt(key: Path) -> None:
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"a-password-nobody-must-see"),
        )
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda pem, key: pem.unlink(), "no such file", id="certificate missing"),
        pytest.param(lambda pem, key: key.unlink(), "no such file", id="key missing"),
        pytest.param(
            lambda pem, key: pem.write_text(""), "no PEM data|no start line", id="certificate empty"
        ),
        pytest.param(
            lambda pem, key: key.write_text("hello"), "`.*app.key` cannot be used", id="key is text"
        ),
        pytest.param(
            lambda pem, key: encrypt(key), "app.key` is encrypted", id="key encrypted: nobody is asked"
        ),
        pytest.param(lambda pem, key: pem.write_bytes(key.read_bytes()), "cannot be used", id="key twice"),
    ],
)
def test_a_bad_pair_is_the_operators_to_mend(
    files: Files, tmp_path: Path, spoil: Callable[[Path, Path], None], message: str
) -> None:
    pair = files.pair("app", "app.test")
    spoil(tmp_path / "app.pem", tmp_path / "app.key")
    with pytest.raises(OperatorError, match=f"(?i){message}") as caught:
        ServerTLS([pair])
    assert "PRIVATE" not in str(caught.value)


def test_no_certificate_at_all_is_refused() -> None:
    with pytest.raises(OperatorError, match="no certificate"):
        ServerTLS([])


# Client certificates

ROOT = Authority.root()
DEVICES = ROOT.intermediate()
STRANGERS = Authority.root("Strangers")
NAMESAKE = Authority.root()
AGED = Authority.root("Aged", not_after=NOW - DAY)


class Asking:
    """A server that asks for certificates of the authorities in `devices.pem`; it is for any name."""

    def __init__(self, files: Files, *authorities: Authority) -> None:
        self.files, self.file = files, files.folder / "devices.pem"
        self.trust(*authorities or (ROOT,))

    def trust(self, *authorities: Authority) -> None:
        self.file.write_bytes(b"".join(one.pem for one in authorities))

    def server(self, required: bool = False, asks: Callable[[str], bool] | None = None) -> ServerTLS:
        pair = self.files.pair("server", "server.test", "open.test", "secret.test")
        return ServerTLS([pair], "1.2", ClientAuth((str(self.file),), required, asks))


@pytest.fixture
def asking(files: Files) -> Asking:
    return Asking(files)


def client_with(
    issued: Issued | None, folder: Path, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    client = client_context(verify=False)
    client.maximum_version = version
    if issued is not None:
        client.load_cert_chain(*issued.files(folder, "client"))
    return client


def shown(
    tls: ServerTLS, client: ssl.SSLContext, name: str | None = "server.test"
) -> ClientCertificate | None:
    """What a client shows to who asks for it."""
    server, _ = handshake(tls.context, client, name)
    assert server.asked  # type: ignore[attr-defined]
    return shown_certificate(server)


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@VERSIONS
@pytest.mark.parametrize("required", [False, True], ids=["optional", "required"])
@pytest.mark.parametrize(
    "issued",
    [
        pytest.param(ROOT.issue(), id="of the root"),
        pytest.param(DEVICES.issue(), id="of an intermediate that is shown too"),
        pytest.param(ROOT.issue(usage=None), id="for any purpose: judged on each request"),
    ],
)
def test_a_certificate_is_handed_on(
    asking: Asking, tmp_path: Path, issued: Issued, required: bool, version: ssl.TLSVersion
) -> None:
    assert shown(asking.server(required), client_with(issued, tmp_path, version)) == issued.shown


@VERSIONS
@pytest.mark.parametrize("required", [False, True], ids=["optional", "required"])
@pytest.mark.parametrize(
    "issued",
    [
        pytest.param(STRANGERS.issue(), id="unknown authority"),
        pytest.param(STRANGERS.issued, id="self-signed"),
        pytest.param(NAMESAKE.issue(), id="authority of the same name"),
        pytest.param(NAMESAKE.issue(identifiers=False), id="authority of the same name, key not named"),
        pytest.param(ROOT.issue(signer=STRANGERS.key), id="signed by another key"),
        pytest.param(ROOT.issue(usage=(SERVER,)), id="for servers only"),
    ],
)
def test_a_strangers_certificate_ends_the_handshake(
    asking: Asking, tmp_path: Path, issued: Issued, required: bool, version: ssl.TLSVersion
) -> None:
    """(X02)"""
    with pytest.raises(ssl.SSLError):
        shown(asking.server(required), client_with(issued, tmp_path, version))


@VERSIONS
@pytest.mark.parametrize(
    "issued",
    [
        pytest.param(None, id="none"),
        pytest.param(ROOT.issue(not_before=NOW - DAY, not_after=NOW - HOUR), id="expired"),
        pytest.param(ROOT.issue(not_before=NOW + HOUR), id="not valid yet"),
        pytest.param(AGED.issue(), id="of an expired authority"),
    ],
)
def test_what_a_page_can_explain_is_refused_only_where_one_is_required(
    asking: Asking, tmp_path: Path, issued: Issued | None, version: ssl.TLSVersion
) -> None:
    asking.trust(ROOT, AGED)
    client = client_with(issued, tmp_path, version)
    assert shown(asking.server(), client) == (None if issued is None else issued.shown)
    with pytest.raises(ssl.SSLError):
        shown(asking.server(required=True), client)


def test_an_intermediate_authority_is_enough(asking: Asking, tmp_path: Path) -> None:
    asking.trust(DEVICES)
    issued = DEVICES.issue()
    assert shown(asking.server(), client_with(issued, tmp_path)) == issued.shown
    with pytest.raises(ssl.SSLError):
        shown(asking.server(), client_with(ROOT.issue(), tmp_path))


@VERSIONS
def test_a_certificate_of_an_unreasonable_size(
    asking: Asking, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """(X17)"""
    issued = ROOT.issue(dns=(f"{number}.{'a' * 60}.test" for number in range(2000)))
    with pytest.raises(ssl.SSLError):
        shown(asking.server(), client_with(issued, tmp_path, version))


def test_nobody_is_asked_without_authorities(files: Files, tmp_path: Path) -> None:
    tls = ServerTLS([files.pair("server", "server.test")])
    server, _ = handshake(tls.context, client_with(ROOT.issue(), tmp_path), "Server.test.")
    assert (server.asked, server.server_name) == (False, "server.test")  # type: ignore[attr-defined]
    assert shown_certificate(server) is None
    assert tls.by_name is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("name", "sni", "asked"),
    [
        pytest.param("open.test", "open.test", False, id="a name that is not asked"),
        pytest.param("open.test", "OPEN.test.", False, id="in another spelling"),
        pytest.param("secret.test", "secret.test", True, id="one that is"),
        pytest.param("secret.test", "Secret.Test.", True, id="that in another spelling"),
        pytest.param(None, None, True, id="no name"),
        pytest.param(None, "127.0.0.1", True, id="an address is no name"),
        pytest.param(None, "*.test", True, id="a wildcard is no name"),
    ],
)
def test_who_is_asked_by_name(
    asking: Asking, tmp_path: Path, name: str | None, sni: str | None, asked: bool, version: ssl.TLSVersion
) -> None:
    """(X24)"""
    tls = asking.server(asks=lambda name: name != "open.test")
    assert tls.by_name is not None
    client = client_with(ROOT.issue(), tmp_path, version)
    server, _ = handshake(tls.by_name(name), client, sni)
    assert (server.asked, server.server_name) == (asked, name)  # type: ignore[attr-defined]
    assert (shown_certificate(server) is not None) == asked


@pytest.mark.parametrize("sni", ["secret.test", "SECRET.test.", "127.0.0.1", None])
def test_a_name_read_wrongly_does_not_weaken_the_handshake(
    asking: Asking, tmp_path: Path, sni: str | None
) -> None:
    tls = asking.server(asks=lambda name: name != "open.test")
    assert tls.by_name is not None
    with pytest.raises(ssl.SSLError, match=r"(?i)callback.failed"):
        handshake(tls.by_name("open.test"), client_with(ROOT.issue(), tmp_path), sni)
    server, _ = handshake(tls.context, client_with(None, tmp_path), "open.test")
    assert server.asked, "more than its name demands is no harm"  # type: ignore[attr-defined]


@pytest.mark.parametrize("second", [b"open.test", b"hide.test"])
def test_a_second_hello_is_held_to_the_first_ones_context(
    asking: Asking, tmp_path: Path, second: bytes
) -> None:
    """Behind a HelloRetryRequest (RFC 8446 §4.1.4) a client says its name again."""
    tls = asking.server(asks=lambda name: name != "open.test")
    assert tls.by_name is not None
    context = tls.by_name("open.test")
    context.set_ecdh_curve("secp384r1")  # the client offers a share for another group first
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = context.wrap_bio(to_server, to_client, server_side=True)
    relayed = ssl.MemoryBIO()
    theirs = client_with(None, tmp_path).wrap_bio(to_client, relayed, server_hostname="open.test")
    for name in (b"open.test", second):
        with pytest.raises(ssl.SSLWantReadError):
            theirs.do_handshake()
        to_server.write(relayed.read().replace(b"open.test", name))
        if name == b"hide.test":
            with pytest.raises(ssl.SSLError, match=r"(?i)callback.failed"):
                ours.do_handshake()
        else:
            with pytest.raises(ssl.SSLWantReadError):
                ours.do_handshake()


def resumed(
    context: ssl.SSLContext, client: ssl.SSLContext, name: str, session: ssl.SSLSession | None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = context.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name, session=session)
    waiting = [theirs, ours]
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    return ours, theirs


def test_no_session_is_resumed_from_a_name_that_is_not_asked(asking: Asking, tmp_path: Path) -> None:
    """(X25) TLS 1.3 has nothing to resume with; TLS 1.2 has, but not there."""
    tls = asking.server(required=True, asks=lambda name: name != "open.test")
    assert tls.by_name is not None
    client = client_with(None, tmp_path, ssl.TLSVersion.TLSv1_2)
    _, first = resumed(tls.by_name("open.test"), client, "open.test", None)
    _, again = resumed(tls.by_name("open.test"), client, "open.test", first.session)
    assert again.session_reused, "or this test could not fail"
    with pytest.raises(ssl.SSLError):
        resumed(tls.by_name("secret.test"), client, "secret.test", first.session)
    with pytest.raises(ssl.SSLError):
        resumed(tls.by_name("open.test"), client, "secret.test", first.session)


def test_a_resumed_session_shows_what_it_began_with(asking: Asking, tmp_path: Path) -> None:
    issued = DEVICES.issue()
    client, tls = client_with(issued, tmp_path, ssl.TLSVersion.TLSv1_2), asking.server()
    _, first = resumed(tls.context, client, "server.test", None)
    server, again = resumed(tls.context, client, "server.test", first.session)
    assert again.session_reused
    assert server.asked  # type: ignore[attr-defined]
    assert shown_certificate(server) == issued.shown


def test_renewed_authorities_are_taken_up(asking: Asking, tmp_path: Path) -> None:
    tls = asking.server()
    listening = tls.context
    old, new = client_with(ROOT.issue(), tmp_path), client_with(STRANGERS.issue(), tmp_path)
    assert shown(tls, old)
    asking.trust(STRANGERS)
    assert tls.reload_if_changed()
    assert shown(tls, new)
    with pytest.raises(ssl.SSLError):
        shown(tls, old)
    assert tls.context is listening
    assert not tls.reload_if_changed()


@pytest.mark.parametrize("content", ["", "hello", None], ids=["empty", "text", "missing"])
def test_bad_authorities_do_not_replace_good_ones(
    asking: Asking, tmp_path: Path, content: str | None
) -> None:
    tls = asking.server()
    if content is None:
        asking.file.unlink()
    else:
        asking.file.write_text(content)
    with pytest.raises(OperatorError, match=r"devices\.pem` holds no usable authority.*stays in service"):
        tls.reload_if_changed()
    assert not tls.reload_if_changed(), "reported once"
    assert shown(tls, client_with(ROOT.issue(), tmp_path))
    with pytest.raises(OperatorError, match=r"devices\.pem` holds no usable authority"):
        asking.server()


def test_bad_authorities_are_reported_once_for_all_certificates(asking: Asking, files: Files) -> None:
    pairs = [files.pair("one", "one.test"), files.pair("two", "two.test")]
    tls = ServerTLS(pairs, "1.2", ClientAuth((str(asking.file),)))
    asking.file.write_text("")
    with pytest.raises(OperatorError) as caught:
        tls.reload_if_changed()
    assert str(caught.value).count("devices.pem") == 1


def test_asking_needs_an_authority(files: Files) -> None:
    with pytest.raises(OperatorError, match="no authority"):
        ServerTLS([files.pair("app", "app.test")], "1.2", ClientAuth(()))


# Upstreams


def server_for(files: Files, *names: str, ca: trustme.CA = CA) -> ssl.SSLContext:
    return ServerTLS([files.pair("upstream", *names, ca=ca)]).context


def test_an_upstream_is_verified_against_its_own_authority(files: Files, tmp_path: Path) -> None:
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = upstream_context(UpstreamTLS(ca=str(tmp_path / "ca.pem")))
    ours, _ = handshake(server_for(files, "up.test"), context, "up.test")
    assert ours.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize(
    ("ca", "name"),
    [
        pytest.param(trustme.CA(), "up.test", id="another authority"),
        pytest.param(CA, "other.test", id="another name"),
    ],
)
def test_an_upstream_that_is_not_who_it_should_be(
    files: Files, tmp_path: Path, ca: trustme.CA, name: str
) -> None:
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = upstream_context(UpstreamTLS(ca=str(tmp_path / "ca.pem")))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server_for(files, "up.test", ca=ca), context, name)


def test_a_common_name_does_not_stand_for_an_upstream(files: Files, tmp_path: Path) -> None:
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = upstream_context(UpstreamTLS(ca=str(tmp_path / "ca.pem")))
    server = ServerTLS([files.pair("cn", "10.0.0.1", common_name="up.test")]).context
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, context, "up.test")


def test_the_systems_authorities_do_not_vouch_for_ours(files: Files) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server_for(files, "up.test"), upstream_context(UpstreamTLS()), "up.test")


def test_verification_is_off_only_where_it_is_said(files: Files) -> None:
    context = upstream_context(UpstreamTLS(dangerous_no_verify=True))
    handshake(server_for(files, "up.test"), context, "anything.test")


def test_a_client_certificate_is_presented(files: Files, tmp_path: Path) -> None:
    CA.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate, key = files.pair("client", "ztproxy.test")
    files.pair("upstream", "up.test")
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asking.load_cert_chain(str(tmp_path / "upstream.pem"), str(tmp_path / "upstream.key"))
    asking.verify_mode = ssl.CERT_REQUIRED
    CA.configure_trust(asking)
    context = upstream_context(UpstreamTLS(ca=str(tmp_path / "ca.pem"), certificate=certificate, key=key))
    ours, _ = handshake(asking, context, "up.test")
    assert ("DNS", "ztproxy.test") in dict(ours.getpeercert() or {})["subjectAltName"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"ca": "ca.pem"}, "`.*ca.pem` holds no usable authority: no such file", id="no file"),
        pytest.param({"ca": "text.pem"}, "`.*text.pem` holds no usable authority", id="no authority in it"),
        pytest.param(
            {"certificate": "c.pem"}, "has no key, name its `key` too", id="certificate without key"
        ),
        pytest.param({"certificate": "c.pem", "key": "k.pem"}, "no such file", id="client pair missing"),
    ],
)
def test_bad_files_for_an_upstream(tmp_path: Path, settings: dict[str, str], message: str) -> None:
    (tmp_path / "text.pem").write_text("hello")
    with pytest.raises(OperatorError, match=message):
        upstream_context(UpstreamTLS(**{name: str(tmp_path / file) for name, file in settings.items()}))
