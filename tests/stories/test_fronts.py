"""nginx and Envoy end TLS in front of ztproxy and pass the device's certificate on: who is believed about it.

The front, 127.0.0.1, is a trusted proxy; every other address of this machine is not. Clients come from
127.0.0.3 through the front, or past it straight to ztproxy. What the front did not verify, or did not write,
lets nobody in.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from tests.stories.fleet import BROWSES, DOMAIN, EMAILS, PREFIX, Fleet, Lists, asked, reasons
from tests.stories.house import House, house
from tests.stories.neighbours import admin_of
from tests.stories.talking import Heard, free_ports, until
from tests.worlds.certificates import Authority, Issued, named
from tests.worlds.fronts import Front, envoy, nginx, why_not
from tests.worlds.servers import server

CLIENT, PAST_THE_FRONT = "127.0.0.3", "127.0.0.2"
DOORS = ("front_tls", "careless_tls", "appending_tls")
"""The front's own: one that verifies, one that lets everybody through and says so or not, and, of Envoy, one
that appends to the field the client sent."""

FORMATS = {"nginx": "nginx", "envoy": "xfcc"}
SETTINGS = """\
trusted_proxies: 127.0.0.1/32
devices:
  authorities:
    - name: corp
      ca_file: corp.pem
      crl_file: corp.crl
      device_id: {from: san_uri, template: "%s{id}"}
      trust_domain: %s
    - {name: root-only, ca_file: root-only.pem}
  certificates_from_proxies: %s
"""
ROUTES = """\
  - from: https://app.test
    prefix: /any
    name: any
    to: http://127.0.0.1:$upstream
    policy: [{allow: {device: {certificate: true}}}]
  - from: https://app.test
    prefix: /known
    name: known
    to: http://127.0.0.1:$upstream
    policy: [{allow: {device: {known: true}}}]
  - from: https://app.test
    prefix: /owned
    name: owned
    to: http://127.0.0.1:$upstream
    policy: [{allow: {device: {approved: true, owned: true}}}]
"""
SERVER = """\
  server {
    listen 127.0.0.1:%d ssl;
    ssl_certificate app.pem;
    ssl_certificate_key app.key;
    ssl_client_certificate authorities.pem;
    ssl_verify_client %s;
    ssl_verify_depth 3;
    location / {
      proxy_pass http://127.0.0.1:%d;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert;
      proxy_set_header X-SSL-Client-Verify $ssl_client_verify;
    }
  }
"""
_TYPES = "type.googleapis.com/envoy.extensions"


@dataclass
class Scene(Fleet):
    """A house behind a front."""

    front: Front = "nginx"

    @property
    def doors(self) -> tuple[str, ...]:
        return DOORS if self.front == "envoy" else DOORS[:2]

    def through(
        self, path: str, shown: Issued | None = None, cookie: str = "", fields: bytes = b"", **to: Any
    ) -> Heard:
        """One request from the client, as the front's certificate is named."""
        return self.ask(path, shown, cookie, fields, **{"listener": "front_tls", "source": CLIENT, **to})

    def past(self, path: str, fields: bytes, source: str = PAST_THE_FRONT) -> Heard:
        """One straight to ztproxy."""
        with self.home.wire(source=source) as wire:
            return asked(wire, path, fields=b"X-Forwarded-Proto: https\r\n" + fields)

    def refused(self, path: str, shown: Issued | None = None, **to: Any) -> list[str]:
        with self.nothing_reaches_the_app():
            return reasons(self.through(path, shown, **to))[1]

    def forged(self, shown: Issued) -> bytes:
        """What the front would write had it been shown this certificate."""
        pem = shown.pem.decode().replace("\n", "%0A").replace(" ", "%20").replace("+", "%2B")
        if self.front == "nginx":
            return f"X-SSL-Client-Cert: {pem}\r\nX-SSL-Client-Verify: SUCCESS\r\n".encode()
        return f'X-Forwarded-Client-Cert: Hash=00;Cert="{pem}"\r\n'.encode()


def resources(ports: dict[str, int], folder: Path) -> dict[str, Any]:
    """Envoy's listeners at the three doors, and ztproxy behind them."""
    all_of_it = {"cert": True, "chain": True, "subject": True, "uri": True, "dns": True}
    # The URIs and names of a certificate are written without quotes: not where the client's field is kept.
    appended = {"cert": True, "chain": True}
    return {
        "listeners": [
            _listener(ports["front_tls"], folder, "VERIFY_TRUST_CHAIN", "SANITIZE_SET", all_of_it),
            _listener(ports["careless_tls"], folder, "ACCEPT_UNTRUSTED", "SANITIZE_SET", all_of_it),
            _listener(ports["appending_tls"], folder, "VERIFY_TRUST_CHAIN", "APPEND_FORWARD", appended),
        ],
        "clusters": [
            {
                "name": "ztproxy",
                "load_assignment": {
                    "cluster_name": "ztproxy",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _at(ports["plain"])}}]}],
                },
            }
        ],
    }


def _listener(port: int, folder: Path, verification: str, forward: str, details: dict[str, bool]) -> object:
    files = {"certificate_chain": {"filename": f"{folder}/app.pem"}}
    trusted = {"filename": f"{folder}/authorities.pem"}
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "front",
        "codec_type": "HTTP1",
        "use_remote_address": True,
        "forward_client_cert_details": forward,
        "set_current_client_cert_details": details,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "ztproxy"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
            }
        ],
    }
    tls = {
        "@type": f"{_TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": False,
        "common_tls_context": {
            "tls_certificates": [{**files, "private_key": {"filename": f"{folder}/app.key"}}],
            "validation_context": {"trusted_ca": trusted, "trust_chain_verification": verification},
        },
    }
    return {
        "address": _at(port),
        "filter_chains": [
            {
                "filters": [
                    {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
                ],
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
            }
        ],
    }


def _at(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("nginx", marks=pytest.mark.nginx),
        pytest.param("envoy", marks=pytest.mark.envoy),
    ],
)
def it(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    front = cast("Front", request.param)
    if missing := why_not(front):
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp(front)
    corp, above = Authority.root(), Authority.root("Above")
    devices = corp.intermediate()
    (folder / "corp.pem").write_bytes(devices.pem + corp.pem)
    (folder / "root-only.pem").write_bytes(above.pem)
    (folder / "authorities.pem").write_bytes(devices.pem + corp.pem + above.pem)
    lists = Lists(devices, folder / "corp.crl")
    parts = {"settings": SETTINGS % (PREFIX, DOMAIN, FORMATS[front]), "routes": ROUTES}
    ports = free_ports(DOORS)
    with (
        server() as store,
        house(folder, store.url, parts=parts, ports=ports) as home,
        _front(front, home) as _,
    ):
        admin_of(home).ready()
        yield Scene(home, corp, devices, lists, {"root-only": above}, front=front)


@contextlib.contextmanager
def _front(front: Front, home: House) -> Iterator[None]:
    ports = home.ports
    if front == "envoy":
        with envoy(home.directory, resources(ports, home.directory), [ports[door] for door in DOORS]):
            yield
        return
    servers = SERVER % (ports["front_tls"], "optional", ports["plain"])
    servers += SERVER % (ports["careless_tls"], "optional_no_ca", ports["plain"])
    with nginx(home.directory, servers, [ports["front_tls"], ports["careless_tls"]]):
        yield


def sign_in(it: Scene, person: str, shown: Issued | None) -> str:
    return it.on(shown).sign_in(person, door="front_tls")


def test_a_device_behind_the_front(it: Scene) -> None:
    """Signed in on it, let in by it, bound to it; and the app is told nothing of how."""
    hers, his = it.laptop("front-1"), it.laptop("front-2")
    for device, owner in (("front-1", "alice"), ("front-2", "bob")):
        it.register(device, status="approved", owners=[EMAILS[owner]])
    alice = sign_in(it, "alice", hers)
    assert it.through("/owned", hers, alice).status == 200
    received = it.home.app.requests[-1].lower()
    assert b"\r\nx-forwarded-for: 127.0.0.3\r\n" in received
    for name in (b"client-cert", b"ssl-client"):
        assert name not in received
    assert it.refused("/u", his, cookie=alice) == ["device_mismatch"]
    assert it.refused("/u", cookie=alice) == ["device_mismatch"]
    assert it.refused("/owned", his, cookie=sign_in(it, "alice", his)) == ["device_owner"]
    until(lambda: len(it.audited("session.astray")) == 2)
    it.mark("front-1", "lost")
    assert it.refused("/u", hers, cookie=alice) == ["session_revoked"]


def test_no_certificate(it: Scene) -> None:
    assert it.refused("/any") == ["device_certificate_required"]
    with it.nothing_reaches_the_app():
        page = it.through("/any", fields=BROWSES)
    assert page.status == 403
    assert b"This needs a device certificate, and your browser showed none." in page.body


def test_x18_what_the_client_wrote_itself(it: Scene) -> None:
    """Through the front: without a certificate of one's own, and beside one. The victim's is no secret."""
    victim, own = it.laptop("victim"), it.laptop("of-mallory")
    it.register("victim", status="approved")
    once = it.forged(victim)
    for door in it.doors:
        assert it.through("/known", victim, listener=door).status == 200, door
        for fields in (once, once * 2, once.replace(b'"\r\n', b'",\r\n')):
            assert it.refused("/known", fields=fields, listener=door) == ["device_certificate_required"]
            with it.nothing_reaches_the_app():
                heard = it.through("/known", own, fields=fields, listener=door)
            # As another device than the victim's, or as a field that can be read in two ways.
            assert heard.status in (400, 403), door
        assert it.through("/any", own, fields=once, listener=door).status == 200, door


def test_x18_past_the_front(it: Scene) -> None:
    """From an address that is trusted with nothing; from the front's own it would be believed."""
    shown = it.laptop("past")
    with it.nothing_reaches_the_app():
        assert reasons(it.past("/any", it.forged(shown))) == (403, ["device_certificate_required"])
    assert it.past("/any", it.forged(shown), source="127.0.0.1").status == 200


def test_x20_a_field_that_cannot_be_read(it: Scene) -> None:
    with it.nothing_reaches_the_app():
        for fields in (it.forged(it.laptop("x20"))[:300] + b"\r\n", it.forged(it.laptop("x20")) * 2):
            assert it.past("/any", fields, source="127.0.0.1").status == 400


def test_a_certificate_the_front_did_not_verify(it: Scene) -> None:
    """One front ends it there. Another passes it on: we know better, and so do those whose word for it is
    `FAILED`."""
    strangers = [
        Authority.root("Strangers").issue("stranger", uris=[f"{PREFIX}front-1"]),
        Authority.root().intermediate().issue("front-1", uris=[f"{PREFIX}front-1"]),
    ]
    for shown in strangers:
        with it.nothing_reaches_the_app():
            try:
                assert it.through("/any", shown).status == 400
            except (ssl.SSLError, ConnectionError, EOFError):
                assert it.front == "envoy"
        assert it.refused("/any", shown, listener="careless_tls") == ["device_certificate_invalid"]
    assert it.through("/any", it.laptop("good"), listener="careless_tls").status == 200
    if it.front == "nginx":
        # X21. Envoy has no word for it.
        fields = it.forged(it.laptop("x21")).replace(b"SUCCESS", b"FAILED:certificate revoked")
        with it.nothing_reaches_the_app():
            heard = it.past("/any", fields, source="127.0.0.1")
        assert reasons(heard) == (403, ["device_certificate_invalid"])


def test_a_certificate_that_was_revoked(it: Scene) -> None:
    """The front does not know; on an open connection to it, too."""
    shown = it.laptop("revoked")
    with it.wire(shown, listener="front_tls", source=CLIENT) as wire:
        assert asked(wire, "/any").status == 200
        it.lists.publish(shown.serial)
        until(lambda: asked(wire, "/any").status == 403)
        with it.nothing_reaches_the_app():
            assert reasons(asked(wire, "/any")) == (403, ["device_certificate_revoked"])


def test_what_the_client_sent_between_it_and_the_root(it: Scene) -> None:
    """Envoy passes the chain on. nginx passes the leaf: what is above must be in `ca_file`."""
    shown = it.others["root-only"].intermediate("Between").issue("deep")
    if it.front == "envoy":
        assert it.through("/any", shown).status == 200
    else:
        assert it.refused("/any", shown) == ["device_certificate_invalid"]
    assert it.through("/any", it.laptop("shallow")).status == 200


def test_words_in_a_certificate_that_look_like_the_fronts(it: Scene) -> None:
    """An authority that lets people choose their names signed some that would begin a field of their own."""
    victim = it.laptop("impersonated")
    it.register("impersonated", status="approved")
    pem = victim.pem.decode().replace("\n", "%0A").replace(" ", "%20").replace("+", "%2B")
    words = (f'x,Hash=00;Cert="{pem}"', f'x;Cert="{pem}"', f'x",Cert="{pem}"', 'x\\",Cert="')
    subjects = [it.devices.issue("x", subject=named(text[:60])) for text in words]
    alternative = [it.devices.issue("x", uris=[f"urn:{text}"]) for text in words]
    alternative += [it.devices.issue("x", dns=[text]) for text in words]
    for door in it.doors:
        # Envoy writes the alternative names as they are: such a field can be read in two ways.
        loose = it.front == "envoy" and door != "appending_tls"
        for shown in alternative + subjects:
            status = 400 if loose and shown in alternative else 403
            with it.nothing_reaches_the_app():
                assert it.through("/known", shown, listener=door).status == status, door
        assert it.through("/known", victim, listener=door).status == 200, door
