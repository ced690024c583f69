"""A house that asks for device certificates, its authorities, and what somebody with a device sees of it.

    fleet.laptop("l-1")                        a new certificate of device `l-1`, by the authority `corp`
    fleet.ask("/any", laptop)                  one request on a connection of its own, answered
    fleet.on(laptop).sign_in("alice", door="device_tls")      the house as seen from that device
    with fleet.nothing_reaches_the_app(): ...  what is asked in there is refused, all of it

Listeners: `device_tls` asks at `app.test` and nowhere else, `strict_tls` lets nobody in without a
certificate, `announced_tls` expects a PROXY header from 127.0.0.9. The routes are `ROUTES`, by their path.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.stories.house import House, certify, house
from tests.stories.neighbours import admin_of
from tests.stories.talking import PATIENCE, Background, Heard, Wire, free_ports
from tests.worlds.certificates import DAY, HOUR, NOW, Authority, Issued
from tests.worlds.ocsp_responder import hanging, openssl_responder
from ztproxy.demo.people import PEOPLE

DOMAIN = "corp.test"
PREFIX = f"spiffe://{DOMAIN}/device/"
BROWSES = b"Accept: text/html\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n"

ROUTES = {
    "any": "{device: {certificate: true}}",
    "signed": "{authenticated: true, device: {certificate: true}}",
    "known": "{device: {known: true}}",
    "approved": "{device: true}",
    "owned": "{device: {approved: true, owned: true}}",
    "posture": "{device: {posture: {disk_encrypted: true}, within: 1h}}",
}
_ROUTE = """\
  - from: https://app.test
    prefix: /%s
    name: %s
    to: http://127.0.0.1:$upstream
    upgrades: [websocket]
    outlier_detection: off
    policy: [{allow: %s}]
"""
_OTHERS = """\
  - from: https://public.test
    name: public
    to: http://127.0.0.1:$upstream
    allow_public_unauthenticated_access: true
  - from: https://local.playwright:$device_tls
    name: browsed
    to: http://127.0.0.1:$upstream
    policy: [{allow: {authenticated: true, device: {certificate: true}}}]
"""
_LISTENERS = """\
  - address: "127.0.0.1:$device_tls"
    client_certificates: {hosts: [app.test, local.playwright]}
  - address: "127.0.0.1:$strict_tls"
    client_certificates: {required: true}
  - address: "127.0.0.1:$announced_tls"
    proxy_protocol: true
    client_certificates: true
"""
_SETTINGS = """\
trusted_proxies: 127.0.0.9/32
devices:
  authorities:
    - name: corp
      ca_file: corp.pem
      crl_file: corp.crl
      device_id: {from: san_uri, template: "%s{id}"}
      trust_domain: %s
    - {name: registered, ca_file: registered.pem}
    - {name: any-usage, ca_file: any-usage.pem, allow_any_usage: true}
    - {name: stale, ca_file: stale.pem, crl_file: stale.crl}
    - {name: checked, ca_file: checked.pem, ocsp: {url: "%s", keep: 1s}}
    - {name: silent, ca_file: silent.pem, ocsp: {url: "%s", deadline: 200ms}}
    - name: lenient
      ca_file: lenient.pem
      ocsp: {url: "%s", deadline: 200ms, dangerous_allow_unchecked: true}
"""


_SHORTER_THAN_FIRST_BYTE = 6.0  # seconds; the proxy waits for ten


class Lists:
    """The revocation list of an authority, as its publisher renews it: in one step, each with a higher
    number."""

    def __init__(self, authority: Authority, file: Path) -> None:
        self._authority, self._file = authority, file
        self.serials: list[int] = []
        self.number = 0
        self.publish()

    def publish(self, *serials: int) -> None:
        self.serials += serials
        self.number += 1
        self.put(self.signed(self.serials, self.number))

    def signed(self, serials: list[int], number: int) -> bytes:
        return self._authority.crl(serials, number=number)

    def put(self, content: bytes) -> None:
        """Whatever it is."""
        new = self._file.with_suffix(".new")
        new.write_bytes(content)
        new.replace(self._file)


@dataclass
class Fleet:
    """A running house. `devices` issues the certificates of `corp`, whose list is `lists`; the others are by
    their name in the configuration. `told` are those the OCSP responder of `checked` knows."""

    home: House
    corp: Authority
    devices: Authority
    lists: Lists
    others: dict[str, Authority] = field(default_factory=dict)
    told: dict[str, Issued] = field(default_factory=dict)
    _contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)

    # -- certificates ------------------------------------------------------------------------------------

    def laptop(self, device: str, **otherwise: Any) -> Issued:
        """A new certificate for a device."""
        return self.devices.issue(device, uris=[PREFIX + device], **otherwise)

    def files(self, shown: Issued) -> tuple[str, str]:
        """Of a certificate and its key, for clients that read them."""
        return shown.files(self.home.directory, f"shown-{shown.thumbprint}")

    def context(self, shown: Issued | None, *, newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """A client's, with or without a certificate."""
        key = f"{shown and shown.thumbprint} {newest}"
        if key not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self.home.ca.configure_trust(context)
            context.maximum_version = newest or ssl.TLSVersion.MAXIMUM_SUPPORTED
            if shown is not None:
                context.load_cert_chain(*self.files(shown))
            self._contexts[key] = context
        return self._contexts[key]

    def on(self, shown: Issued | None) -> House:
        """The same house, to somebody on a device."""
        return replace(self.home, client_tls=self.context(shown))

    # -- talking -----------------------------------------------------------------------------------------

    def wire(
        self,
        shown: Issued | None = None,
        *,
        name: str = "app.test",
        listener: str = "device_tls",
        source: str = "127.0.0.1",
        first: bytes = b"",
        context: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
    ) -> Wire:
        """A connection as `name`. A certificate that is refused in the handshake is heard of when something
        is read (TLS 1.3)."""
        connection = socket.create_connection(("127.0.0.1", self.home.ports[listener]), PATIENCE, (source, 0))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(first)
        context = context or self.context(shown)
        return Wire(context.wrap_socket(connection, server_hostname=name, session=session))

    def ask(
        self, path: str, shown: Issued | None = None, cookie: str = "", fields: bytes = b"", **to: Any
    ) -> Heard:
        with self.wire(shown, **to) as wire:
            return asked(wire, path, cookie, fields)

    def ends_the_handshake(self, shown: Issued | None, **to: Any) -> bool:
        """Whether a connection ends before a byte of HTTP: with an alert or, as loops have it, without. One
        that only waits for its first request does not."""
        try:
            with self.wire(shown, **to) as wire:
                wire.socket.settimeout(_SHORTER_THAN_FIRST_BYTE)
                return wire.socket.recv(1) == b""
        except (ssl.SSLError, ConnectionError):
            return True
        except TimeoutError:
            return False

    @contextlib.contextmanager
    def nothing_reaches_the_app(self) -> Iterator[None]:
        before = len(self.home.app.received)
        yield
        assert len(self.home.app.received) == before, self.home.app.requests[-1]

    # -- administration ----------------------------------------------------------------------------------

    def register(self, device: str, **form: Any) -> None:
        answer = admin_of(self.home).ask("PUT", f"/devices/{device}", form)
        assert answer.status == 200, answer

    def mark(self, device: str, status: str) -> Any:
        answer = admin_of(self.home).ask("POST", f"/devices/{device}/status", {"status": status})
        assert answer.status == 200, answer
        return answer.body

    def bound(self, device: str) -> list[str]:
        """The public ids of the sessions bound to a device."""
        answer = admin_of(self.home).ask("GET", f"/devices/{device}")
        assert answer.status == 200, answer
        return [session["id"] for session in answer["sessions"]]

    def audited(self, action: str) -> list[dict[str, Any]]:
        """The details of what the audit log has under `action`."""
        lines = (self.home.directory / "state/audit.log").read_text().splitlines()
        return [record["detail"] for record in map(json.loads, lines) if record.get("action") == action]


def asked(wire: Wire, path: str, cookie: str = "", fields: bytes = b"", host: str = "app.test") -> Heard:
    """One request on a connection that stays, and its whole answer."""
    shown = f"Cookie: {cookie}\r\n" if cookie else ""
    head = wire.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{shown}".encode() + fields + b"\r\n").until(
        b"\r\n\r\n"
    )
    found = re.search(rb"\r\nContent-Length: (\d+)\r\n", head, re.IGNORECASE)
    size = 0 if found is None else int(found[1])
    while len(wire.data) < size:
        more = wire.socket.recv(65536)
        if not more:
            raise EOFError(f"ended within {head!r}")
        wire.data += more
    body, wire.data = wire.data[:size], wire.data[size:]
    return Heard(head + body, closed=False)


def reasons(heard: Heard) -> tuple[int, list[str]]:
    """The status and the reasons of a refusal as programs hear it."""
    return heard.status, json.loads(heard.body)["reasons"]


@contextlib.contextmanager
def fleet(directory: Path, state: str) -> Iterator[Fleet]:
    """A running one; its administration answers."""
    corp = Authority.root()
    devices = corp.intermediate()
    names = ("registered", "any-usage", "stale", "checked", "silent", "lenient")
    others = {name: Authority.root(f"The {name} root") for name in names}
    checked = others["checked"]
    good, revoked = checked.issue("good"), checked.issue("revoked")
    background = Background()
    with contextlib.ExitStack() as stack:
        stack.callback(background.close)

        def start(context: contextlib.AbstractAsyncContextManager[str]) -> str:
            url = background.run(context.__aenter__())
            stack.callback(lambda: background.run(context.__aexit__(None, None, None)))
            return url

        signer = checked.ocsp_signer()
        answering = start(openssl_responder(directory, checked, signer, good=[good], revoked=[revoked]))
        hanging_one = start(hanging())
        for name, authority in others.items():
            (directory / f"{name}.pem").write_bytes(authority.pem)
        (directory / "corp.pem").write_bytes(devices.pem + corp.pem)
        stale = others["stale"].crl(at=NOW - 2 * DAY, next_update=NOW - HOUR)
        (directory / "stale.crl").write_bytes(stale)
        lists = Lists(devices, directory / "corp.crl")

        def prepare(it: House) -> None:
            certify(it.ca, directory, "app", "app.test", "public.test", "local.playwright")
            origin = f"https://local.playwright:{it.ports['device_tls']}"
            known = it.provider.clients["ztproxy"]
            callbacks = (*known.redirect_uris, f"{origin}/.ztproxy/callback/demo")
            it.provider.clients["ztproxy"] = replace(known, redirect_uris=callbacks)

        parts = {
            "listeners": _LISTENERS,
            "settings": _SETTINGS % (PREFIX, DOMAIN, answering, hanging_one, hanging_one),
            "routes": "".join(_ROUTE % (name, name, asks) for name, asks in ROUTES.items()) + _OTHERS,
        }
        ports = free_ports(("device_tls", "strict_tls", "announced_tls"))
        home = stack.enter_context(house(directory, state, parts=parts, ports=ports, prepare=prepare))
        admin_of(home).ready()
        yield Fleet(home, corp, devices, lists, others, {"good": good, "revoked": revoked})


EMAILS = {person.username: person.email for person in PEOPLE}
CURL = shutil.which("curl")
OPENSSL = shutil.which("openssl")
