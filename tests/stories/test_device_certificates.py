"""Device certificates on a running proxy, with real clients: who is let in with which, and until when.

One house serves all stories; each has devices and certificates of its own. What is refused never reaches the
app. A policy's reasons are for people who are signed in, so most stories begin with a sign-in on a device.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography import x509

from tests.stories.endings import UPGRADE, answers, audit_is_whole, echo, frames, opened, request, session_of
from tests.stories.fleet import BROWSES, CURL, EMAILS, OPENSSL, PREFIX, Fleet, asked, fleet, reasons
from tests.stories.talking import PATIENCE, Heard, until
from tests.wire.recording import OK, Line
from tests.worlds.certificates import ANY, HOUR, NOW, SERVER, Authority, Issued, key_usage
from tests.worlds.servers import server

AS_CA = x509.BasicConstraints(ca=True, path_length=None)


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    # A store of its own: the devices of other houses are sealed with other keys.
    with server() as store, fleet(tmp_path_factory.mktemp("fleet"), store.url) as one:
        one.home.app.play = play
        yield one
        audit_is_whole(one.home)


async def play(line: Line, request: bytes) -> None:
    path = request.split(b" ")[1]
    if path.endswith(b"/ws"):
        await echo(line, request)
    elif path.endswith(b"/download"):
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst\n")
    else:
        await line.send(OK)


def sign_in(it: Fleet, person: str, shown: Issued | None) -> str:
    """The cookie of somebody who signed in with this certificate on the connection."""
    return it.on(shown).sign_in(person, door="device_tls")


def refused(it: Fleet, path: str, shown: Issued | None = None, cookie: str = "", **to: Any) -> list[str]:
    """The reasons of a refusal with which the app had nothing to do."""
    with it.nothing_reaches_the_app():
        status, why = reasons(it.ask(path, shown, cookie, **to))
    assert status >= 400
    return why


# -- none, or one of strangers ----------------------------------------------------------------------------


def test_x01_no_certificate(it: Fleet) -> None:
    with it.nothing_reaches_the_app():
        assert reasons(it.ask("/signed")) == (403, ["device_certificate_required"])
        page = it.ask("/signed", fields=BROWSES)
    assert page.status == 403 and page.fields("Content-Type") == ["text/html; charset=utf-8"]
    assert b"This needs a device certificate, and your browser showed none." in page.body
    assert it.ask("/u").status == 401, "where no rule asks about devices nothing is different"
    assert it.ends_the_handshake(None, listener="strict_tls")
    assert it.ask("/any", it.laptop("x01"), listener="strict_tls").status == 200


@pytest.mark.skipif(CURL is None, reason="there is no `curl`")
def test_x01_with_curl(it: Fleet) -> None:
    assert CURL is not None
    certificate, key = it.files(it.laptop("x01-curl"))
    ca = it.home.directory / "server-ca.pem"
    it.home.ca.cert_pem.write_to_path(str(ca))
    to = f"app.test:443:127.0.0.1:{it.home.ports['device_tls']}"
    common = [CURL, "-sS", "--cacert", str(ca), "--connect-to", to, "-w", "\n%{http_code}"]

    def get(*more: str) -> list[str]:
        ran = subprocess.run(
            [*common, *more, "https://app.test/any"], capture_output=True, text=True, timeout=PATIENCE
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.rsplit("\n", 1)

    with it.nothing_reaches_the_app():
        said, status = get()
    assert (json.loads(said)["reasons"], status) == (["device_certificate_required"], "403")
    assert get("--cert", certificate, "--key", key) == ["ok", "200"]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda it: Authority.root().issued, id="signed-by-itself"),
        pytest.param(lambda it: Authority.root("Strangers").issue("x02"), id="unknown-authority"),
        pytest.param(
            lambda it: Authority.root().intermediate().issue("x02", uris=[f"{PREFIX}x02"]),
            id="right-names-other-keys",
        ),
        pytest.param(
            lambda it: it.laptop("x02", signer=Authority.root().key), id="in-our-name-by-another-key"
        ),
    ],
)
@pytest.mark.parametrize("listener", ["device_tls", "strict_tls"])
def test_x02_strangers(it: Fleet, make: Callable[[Fleet], Issued], listener: str) -> None:
    with it.nothing_reaches_the_app():
        assert it.ends_the_handshake(make(it), listener=listener)


# -- its form, its time -----------------------------------------------------------------------------------

INVALID, EXPIRED, NO_CONNECTION = "device_certificate_invalid", "device_certificate_expired", ""


@pytest.mark.parametrize(
    ("otherwise", "why"),
    [
        pytest.param({"usage": [SERVER]}, NO_CONNECTION, id="x04-for-servers"),
        pytest.param({"usage": [ANY]}, NO_CONNECTION, id="x04-for-anything"),
        pytest.param({"usage": None}, INVALID, id="x04-for-nothing-named"),
        pytest.param({"constraints": AS_CA}, INVALID, id="x05-an-authority"),
        pytest.param({"bits": key_usage("key_encipherment")}, NO_CONNECTION, id="x05-that-signs-nothing"),
        pytest.param(
            {"bits": key_usage("digital_signature", "key_cert_sign")}, INVALID, id="x05-signs-certificates"
        ),
        pytest.param({"not_after": NOW - HOUR / 2}, EXPIRED, id="of-yesterday"),
        pytest.param({"not_before": NOW + HOUR}, EXPIRED, id="of-tomorrow"),
        pytest.param({"uris": [f"{PREFIX}x12", f"{PREFIX}other"]}, INVALID, id="two-devices"),
        pytest.param({"uris": [f"{PREFIX}x12", "https://corp.test/"]}, INVALID, id="another-uri-beside-it"),
        pytest.param({"uris": ["spiffe://evil.test/device/x15"]}, INVALID, id="x15-another-trust-domain"),
        pytest.param({"uris": ["spiffe://corp.test/device/x\x7f.evil"]}, INVALID, id="x12-a-control"),
    ],
)
def test_leaf_forms(it: Fleet, otherwise: dict[str, object], why: str) -> None:
    shown = it.devices.issue("form", **{"uris": [f"{PREFIX}form"], **otherwise})  # type: ignore[arg-type]
    if why == NO_CONNECTION:
        with it.nothing_reaches_the_app():
            assert it.ends_the_handshake(shown)
        return
    assert refused(it, "/any", shown) == [why]
    with it.nothing_reaches_the_app():
        page = it.ask("/any", shown, fields=BROWSES)
    assert page.status == 403 and b"<h1>" in page.body


def test_an_authority_whose_certificates_name_no_use(it: Fleet) -> None:
    issue = it.others["any-usage"].issue
    assert it.ask("/any", issue("for nothing", usage=None)).status == 200
    with it.nothing_reaches_the_app():
        assert it.ends_the_handshake(issue("for servers", usage=(SERVER,)))
        # OpenSSL takes a named "any" for no use of a client's, whatever is configured here.
        assert it.ends_the_handshake(issue("for anything", usage=(ANY,)))


def test_x17_what_is_far_too_large(it: Fleet) -> None:
    """The connection ends, or the certificate counts for nothing; and the worker serves everybody else."""
    authority, workers = it.corp, it.home.workers()
    for number in range(100):
        authority = authority.intermediate(f"Level {number}")
    blob = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), bytes(2_000_000))
    kept = it.laptop("x17")
    with it.wire(kept) as wire:
        assert asked(wire, "/any").status == 200
        with it.nothing_reaches_the_app():
            assert it.ends_the_handshake(it.laptop("x17-large", extra=[(blob, False)]))
            # OpenSSL lets it pass.
            assert refused(it, "/any", authority.issue("hundredth")) == [INVALID]
        assert asked(wire, "/any").status == 200
    assert it.home.workers() == workers


# -- revoked ----------------------------------------------------------------------------------------------

REVOKED, UNCHECKED = "device_certificate_revoked", "device_certificate_unchecked"


def test_x08_a_list_that_is_loaded_while_connections_are_open(it: Fleet) -> None:
    """A request on an open connection, an open WebSocket, a download under way; and nobody else's."""
    shown, other = it.laptop("x08"), it.laptop("x08-other")
    with it.wire(shown) as kept, it.wire(shown) as socket_, it.wire(shown) as load, it.wire(other) as theirs:
        opened(socket_, "", "/any/ws")
        opened(theirs, "", "/any/ws")
        assert answers(socket_, b"one") and answers(theirs, b"one")
        load.send(request("", "/any/download")).until(b"first\n")
        assert asked(kept, "/any").status == 200
        it.lists.publish(shown.serial)
        until(lambda: asked(kept, "/any").status == 403)
        with it.nothing_reaches_the_app():
            assert reasons(asked(kept, "/any")) == (403, [REVOKED])
            page = asked(kept, "/any", fields=BROWSES)
            assert b"The certificate your browser showed was revoked." in page.body
            assert refused(it, "/any", shown) == [REVOKED]
        assert [one.code for one in frames(socket_.rest().data)] == [1008]
        assert load.rest().data == b""
        assert answers(theirs, b"two")
    assert it.ask("/any", other).status == 200


@pytest.fixture(scope="module")
def revoked(it: Fleet) -> Issued:
    """Its list is in force."""
    shown = it.laptop("x10")
    it.lists.publish(shown.serial)
    until(lambda: it.ask("/any", shown).status == 403)
    return shown


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda it: it.lists.signed([], 10**6)[:150], id="x10-half-written"),
        pytest.param(lambda it: b"", id="x10-empty"),
        pytest.param(
            lambda it: it.devices.crl([], number=10**6, signer=Authority.root().key), id="x10-by-another-key"
        ),
        pytest.param(lambda it: it.lists.signed([], 1), id="x11-an-older-one"),
    ],
)
def test_a_list_that_cannot_be_believed(
    it: Fleet, revoked: Issued, content: Callable[[Fleet], bytes]
) -> None:
    """It is reported, and the one before stays in force."""
    file = str(it.home.directory / "corp.crl")
    said = it.home.log("proxy").count(file)
    it.lists.put(content(it))
    until(lambda: it.home.log("proxy").count(file) > said)
    assert refused(it, "/any", revoked) == [REVOKED]
    assert it.ask("/any", it.laptop("x10-other")).status == 200


def test_x11_the_next_good_list_counts(it: Fleet, revoked: Issued) -> None:
    it.lists.put(b"")
    last = it.laptop("x11-last")
    it.lists.publish(last.serial)
    until(lambda: it.ask("/any", last).status == 403)
    assert refused(it, "/any", revoked) == [REVOKED]


def test_a_list_that_nobody_renewed(it: Fleet) -> None:
    shown = it.others["stale"].issue("stale")
    assert refused(it, "/any", shown) == [UNCHECKED]
    heard = it.ask("/any", shown, fields=BROWSES)
    assert heard.status == 503 and heard.fields("Retry-After") == ["1"] and heard.fields("Set-Cookie") == []
    assert it.home.metric("ztproxy_device_crl_expiry_seconds", name="stale: CN=The stale root") == NOW - HOUR


def test_ocsp(it: Fleet) -> None:
    """A real responder, and one that takes connections and says nothing."""
    assert it.ask("/any", it.told["good"]).status == 200
    assert refused(it, "/any", it.told["revoked"]) == [REVOKED]
    assert refused(it, "/any", it.others["checked"].issue("never heard of")) == [INVALID]
    assert refused(it, "/any", it.others["silent"].issue("silent")) == [UNCHECKED]
    assert it.ask("/any", it.others["lenient"].issue("lenient")).status == 200


# -- what a client says of itself -------------------------------------------------------------------------


def forged(it: Fleet, shown: Issued) -> bytes:
    """What five proxies would write about a certificate that they were shown."""
    pem = shown.pem.decode().replace("\n", "%0A").replace(" ", "%20").replace("+", "%2B")
    return (
        f'X-Forwarded-Client-Cert: By=spiffe://corp.test/front;Hash=00;Cert="{pem}"\r\n'
        f"Client-Cert: :{ssl.PEM_cert_to_DER_cert(shown.pem.decode()).hex()}:\r\n"
        f"X-SSL-Client-Cert: {pem}\r\nX-SSL-Client-Verify: SUCCESS\r\n"
        f"X-Forwarded-Tls-Client-Cert: {pem}\r\nX-Amzn-Mtls-Clientcert-Leaf: {pem}\r\n"
    ).encode()


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.9"], ids=["anybody", "a trusted proxy"])
def test_x18_a_certificate_in_a_field(it: Fleet, source: str) -> None:
    """No proxy is said to pass certificates on, so that nobody can; and the app is not told of it either."""
    theirs, own = it.laptop("x18"), it.laptop("x18-own")
    fields = forged(it, theirs)
    with it.nothing_reaches_the_app():
        heard = it.ask("/any", fields=fields, source=source)
    assert reasons(heard) == (403, ["device_certificate_required"])
    it.ask("/any", own, fields=fields, source=source)
    received = it.home.app.requests[-1].lower()
    for name in (b"client-cert", b"clientcert", b"ssl-client"):
        assert name not in received


def test_x22_a_name_in_a_proxy_header(it: Fleet) -> None:
    """PP2_TYPE_SSL says that the client showed a certificate, and its common name. Where no PROXY header is
    expected that ends the connection; where it is, the certificate is the one of the handshake, or none."""
    name = b"x22"
    ssl_part = struct.pack("!BI", 0x07, 0) + struct.pack("!BH", 0x22, len(name)) + name
    rest = struct.pack("!BH", 0x20, len(ssl_part)) + ssl_part
    addresses = (
        socket.inet_aton("203.0.113.9") + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 4000, 443)
    )
    header = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + struct.pack("!H", len(addresses + rest)) + addresses + rest
    with it.nothing_reaches_the_app():
        for shown in (None, it.laptop("x22")):
            assert it.ends_the_handshake(shown, first=header, source="127.0.0.9")
        assert it.ends_the_handshake(it.laptop("x22"), listener="announced_tls", first=header)
    announced: dict[str, Any] = {"listener": "announced_tls", "first": header, "source": "127.0.0.9"}
    with it.nothing_reaches_the_app():
        assert reasons(it.ask("/any", **announced)) == (403, ["device_certificate_required"])
    assert it.ask("/any", it.laptop("x22"), **announced).status == 200
    until(lambda: [one["client"] for one in it.home.records("access")[-1:]] == ["203.0.113.9"])


# -- names ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(OPENSSL is None, reason="there is no `openssl`")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize(
    "named",
    [
        pytest.param(["-noservername"], id="none"),
        pytest.param(["-servername", "app.test."], id="a-trailing-dot"),
        pytest.param(["-servername", "APP.test"], id="upper-case"),
        pytest.param(["-servername", "127.0.0.1"], id="an-address"),
        pytest.param(["-servername", "[::1]"], id="an-address-in-brackets"),
        pytest.param(["-servername", "*.test"], id="a-wildcard"),
    ],
)
def test_x24_names_in_the_handshake(it: Fleet, named: list[str], version: str) -> None:
    """However it is called, or not called at all: it asks."""
    with it.nothing_reaches_the_app():
        heard = s_client(it, [*named, version], "/any")
    assert reasons(heard) == (403, ["device_certificate_required"])
    certificate, key = it.files(it.laptop("x24"))
    with_one = [*named, version, "-cert", certificate, "-key", key]
    assert s_client(it, with_one, "/any").body == b"ok"


def s_client(it: Fleet, options: list[str], path: str) -> Heard:
    """One request by `openssl s_client`."""
    assert OPENSSL is not None
    to = ["-connect", f"127.0.0.1:{it.home.ports['device_tls']}", "-quiet"]
    data = f"GET {path} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n".encode()
    ran = subprocess.run(
        [OPENSSL, "s_client", *to, *options], input=data, capture_output=True, timeout=PATIENCE
    )
    return Heard(ran.stdout, closed=True)


@pytest.mark.parametrize(
    ("name", "host", "status"),
    [
        pytest.param("public.test", "public.test", 200, id="not-asked-and-open"),
        pytest.param("public.test", "app.test", 421, id="t33-a-connection-that-was-not-asked"),
        pytest.param("app.test", "public.test", 421, id="a-connection-that-was-asked"),
        pytest.param("unknown.test", "app.test", 421, id="a-name-of-nobody"),
        pytest.param("PUBLIC.test", "APP.test.", 421, id="other-spellings"),
    ],
)
def test_t33_another_host_than_the_connection_is_for(it: Fleet, name: str, host: str, status: int) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(*it.files(it.laptop("t33")))
    before = len(it.home.app.requests)
    with it.wire(name=name, context=context) as wire:
        heard = asked(wire, "/any", host=host)
    assert heard.status == status
    if status == 421:
        assert heard.body == b"This connection was made for another site.\n"
    assert len(it.home.app.requests) == before + (status == 200)


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("device", ["x25", None], ids=["with a certificate", "without"])
def test_x25_a_session_of_a_connection_that_was_not_asked(
    it: Fleet, newest: ssl.TLSVersion, device: str | None
) -> None:
    """It is not resumed where certificates are asked for: there is a whole handshake, which asks."""
    context = it.context(it.laptop(device) if device else None, newest=newest)
    with it.wire(name="public.test", context=context) as wire:
        assert asked(wire, "/", host="public.test").status == 200
        assert isinstance(wire.socket, ssl.SSLSocket)
        session = wire.socket.session
    assert session is None or not session.has_ticket
    with it.wire(context=context, session=session) as wire:
        heard = asked(wire, "/any")
        assert isinstance(wire.socket, ssl.SSLSocket) and not wire.socket.session_reused
    if device:
        assert heard.status == 200
    else:
        assert reasons(heard) == (403, ["device_certificate_required"])


# -- sessions ---------------------------------------------------------------------------------------------


def test_x27_a_cookie_on_another_device(it: Fleet) -> None:
    """Alice's cookie beside bob's certificate, and beside none: nobody is signed in, and it is on record."""
    hers, his = it.laptop("x27-alice"), it.laptop("x27-bob")
    alice = sign_in(it, "alice", hers)
    id = session_of(it.on(hers), alice)
    assert it.ask("/signed", hers, alice).status == 200
    for shown in (his, None):
        with it.nothing_reaches_the_app():
            assert reasons(it.ask("/u", shown, alice)) == (401, ["device_mismatch"])
            browsing = it.ask("/u", shown, alice, BROWSES)
        assert browsing.status == 302 and "/.ztproxy/sign_in" in browsing.fields("Location")[0]
        with it.nothing_reaches_the_app(), it.wire(shown) as wire:
            upgrade = wire.send(request(alice, "/ws", UPGRADE)).until(b"\r\n\r\n")
            assert upgrade.startswith(b"HTTP/1.1 401 ")
    assert refused(it, "/signed", his, alice) == ["device_mismatch"]
    assert refused(it, "/signed", None, alice) == ["device_certificate_required"]

    def astray() -> list[str]:
        return [one["shown"] for one in it.audited("session.astray") if one["session"] == id]

    until(lambda: len(astray()) >= 2)
    assert sorted(astray()) == sorted([his.thumbprint, "device_certificate_required"]), "once for each"
    # Nobody's session ended by it.
    assert it.ask("/signed", hers, alice).status == 200


def test_a_session_that_began_where_nobody_was_asked(it: Fleet) -> None:
    """It counts, but for nothing that is about devices: they sign in once more, on this device."""
    shown, cookie = it.laptop("unbound"), it.home.sign_in("carol")
    assert it.ask("/u", shown, cookie).status == 200
    assert refused(it, "/signed", shown, cookie) == ["device_unbound"]

    async def sign_in_again() -> int:
        async with it.on(shown).guest("carol", door="device_tls") as guest:
            return (await guest.open("https://app.test/signed")).status

    assert it.home.run(sign_in_again()) == 200


@pytest.mark.parametrize("same_key", [True, False], ids=["the same key", "a new key"])
def test_x28_a_certificate_that_is_renewed(it: Fleet, same_key: bool) -> None:
    """The session goes on, bound to the new one: once the old one is taken away from the device, it is
    nobody's."""
    device = f"x28-{same_key}"
    old = it.laptop(device)
    new = it.laptop(device, **({"key": old.key} if same_key else {}))
    it.register(device, status="approved")
    bob = sign_in(it, "bob", old)
    id = session_of(it.on(old), bob)
    assert it.ask("/signed", old, bob).status == 200
    assert it.bound(device) == [id]
    assert it.ask("/signed", new, bob).status == 200
    assert session_of(it.on(new), bob) == id and it.bound(device) == [id]
    it.register(device, certificates=[new.thumbprint])
    until(lambda: it.ask("/known", old).status == 403)
    assert refused(it, "/signed", old, bob) == ["device_mismatch"]
    assert it.ask("/signed", new, bob).status == 200
    shown = [one["shown"] for one in it.audited("session.astray") if one["session"] == id]
    assert new.thumbprint not in shown


def test_a_device_that_is_lost(it: Fleet) -> None:
    """Everything on it ends at once, and it opens nothing any more; its owner goes on elsewhere."""
    lost, other = it.laptop("lost"), it.laptop("found")
    for device in ("lost", "found"):
        it.register(device, status="approved", owners=[EMAILS["alice"]])
    alice, elsewhere = sign_in(it, "alice", lost), sign_in(it, "alice", other)
    with it.wire(lost) as wire, it.wire(lost) as kept, it.wire(other) as theirs:
        opened(wire, alice)
        opened(theirs, elsewhere)
        assert asked(kept, "/owned", alice).status == 200
        answer = it.mark("lost", "lost")
        assert answer["ended"]["confirmed"]
        with it.nothing_reaches_the_app():
            assert reasons(asked(kept, "/u", alice)) == (401, ["session_revoked"])
            assert asked(kept, "/owned", alice).status in (401, 403)
            assert [one.code for one in frames(wire.rest().data)] == [1008]
        assert answers(theirs, b"still here")
    until(lambda: it.ask("/any", lost).status == 403)
    assert refused(it, "/any", lost) == ["no_rule_allows"], "why is for who is signed in"
    assert it.ask("/owned", other, elsewhere).status == 200
    assert it.bound("lost") == []

    async def try_again() -> int:
        async with it.on(lost).guest("alice", door="device_tls") as guest:
            return (await guest.open("https://app.test/owned")).status

    with it.nothing_reaches_the_app():
        assert it.home.run(try_again()) == 403
    # Back in the pocket of its owner, it needs a new sign-in and nothing more.
    it.mark("lost", "approved")
    until(lambda: it.ask("/any", lost).status == 200)
    assert refused(it, "/u", lost, alice) == ["session_revoked"]
    assert it.ask("/owned", lost, sign_in(it, "alice", lost)).status == 200


# -- the inventory ----------------------------------------------------------------------------------------

PENDING = {"status": "pending", "owners": [EMAILS["alice"]]}
APPROVED = {"status": "approved", "owners": [EMAILS["alice"]]}
ENCRYPTED = {"disk_encrypted": True}


def reported(value: bool, age: float) -> dict[str, object]:
    return {**APPROVED, "posture": {"disk_encrypted": value}, "posture_at": time.time() - age}


@pytest.mark.parametrize(
    ("record", "path", "why"),
    [
        pytest.param(None, "/known", "device_unknown", id="unknown"),
        pytest.param(PENDING, "/known", "", id="known"),
        pytest.param(PENDING, "/approved", "device_not_approved", id="pending"),
        pytest.param(APPROVED, "/approved", "", id="approved"),
        pytest.param({"status": "lost"}, "/approved", "device_lost", id="lost"),
        pytest.param({"status": "retired"}, "/approved", "device_retired", id="retired"),
        pytest.param(APPROVED, "/owned", "", id="owned"),
        pytest.param({**APPROVED, "owners": [EMAILS["bob"]]}, "/owned", "device_owner", id="anothers"),
        pytest.param({"status": "approved"}, "/owned", "device_owner", id="nobodys"),
        pytest.param(APPROVED, "/posture", "posture_unknown", id="nothing-reported"),
        pytest.param(reported(True, 60.0), "/posture", "", id="fresh"),
        pytest.param(reported(True, 2 * HOUR), "/posture", "posture_stale", id="stale"),
        pytest.param(reported(False, 60.0), "/posture", "posture_mismatch", id="not-in-order"),
    ],
)
def test_what_the_inventory_says(
    it: Fleet, record: dict[str, object] | None, path: str, why: str, request: pytest.FixtureRequest
) -> None:
    device = f"said-{request.node.callspec.id}"
    if record is not None:
        it.register(device, **record)
    shown = it.laptop(device)
    alice = sign_in(it, "alice", shown)
    if not why:
        assert it.ask(path, shown, alice).status == 200
        return
    assert refused(it, path, shown, alice) == [why]
    with it.nothing_reaches_the_app():
        page = it.ask(path, shown, alice, BROWSES)
    assert page.status == 403 and b"This needs a known device" in page.body


def test_what_changes_while_somebody_is_there(it: Fleet) -> None:
    """On one connection: approved by somebody, found to be out of order, put right, given to another."""
    device, shown = "changing", it.laptop("changing")
    it.register(device, **PENDING)
    alice = sign_in(it, "alice", shown)
    with it.wire(shown) as wire:

        def answered(path: str) -> tuple[int, list[str]]:
            heard = asked(wire, path, alice)
            return (200, []) if heard.status == 200 else reasons(heard)

        assert answered("/owned") == (403, ["device_not_approved"])
        it.mark(device, "approved")
        until(lambda: answered("/owned") == (200, []))
        it.register(device, posture={"disk_encrypted": False})
        until(lambda: answered("/posture") == (403, ["posture_mismatch"]))
        it.register(device, posture={"disk_encrypted": True})
        until(lambda: answered("/posture") == (200, []))
        it.register(device, owners=[EMAILS["bob"]])
        until(lambda: answered("/owned") == (403, ["device_owner"]))


def test_a_device_that_is_registered_by_its_certificate(it: Fleet) -> None:
    """Its authority names no devices: the thumbprint does, and no other certificate of that authority."""
    issue = it.others["registered"].issue
    shown, other = issue("anything"), issue("anything")
    it.register("by-thumbprint", **APPROVED, certificates=[shown.thumbprint])
    alice = sign_in(it, "alice", shown)
    assert it.ask("/owned", shown, alice).status == 200
    assert refused(it, "/owned", other, sign_in(it, "alice", other)) == ["device_unknown"]
    assert refused(it, "/u", other, alice) == ["device_mismatch"]


# -- a browser --------------------------------------------------------------------------------------------


@pytest.mark.browser
async def test_in_chromium(it: Fleet) -> None:
    """With the certificate of its device it is let in after the sign-in; without it reads why it is not."""
    pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    from playwright.async_api import Page

    from tests.stories.browsing import CHROMIUM, browser
    from tests.stories.browsing import sign_in as fill_in

    if CHROMIUM is None:
        pytest.skip("there is no `chromium` on the PATH")
    # A name that Playwright's client certificates lead to this machine.
    origin = f"https://local.playwright:{it.home.ports['device_tls']}"
    certificate, key = it.files(it.laptop("chromium"))
    async with browser() as chromium:

        async def profile(shown_at: str) -> Page:
            """Somebody's, with a certificate that is shown to one origin."""
            context = await chromium.new_context(
                ignore_https_errors=True,
                client_certificates=[{"origin": shown_at, "certPath": certificate, "keyPath": key}],
            )
            return await context.new_page()

        page = await profile("https://elsewhere.test")
        with it.nothing_reaches_the_app():
            answer = await page.goto(f"{origin}/reports")
            assert answer is not None and answer.status == 403
            told = await page.locator("main").inner_text()
        assert "This needs a device certificate, and your browser showed none." in told
        page = await profile(origin)
        before = len(it.home.app.requests)
        await page.goto(f"{origin}/reports")
        await fill_in(page, "alice")
        await page.wait_for_url(f"{origin}/reports")
        assert await page.locator("body").inner_text() == "ok"
        assert it.home.app.requests[before].startswith(b"GET /reports HTTP/1.1\r\n")
