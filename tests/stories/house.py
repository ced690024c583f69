"""A whole ztproxy in a house of its own: the real processes, a recording app behind, a provider beside it.

`house()` writes a configuration and starts `python -m ztproxy.cli run` on it, as an operator would, between a
recording app and the demo's OpenID provider. `guest` is a browser without a screen.

    https://app.test       /public anonymous, /admin for the group `admins`, all else for people signed in
    http listener, https listener (certificate of the house's own CA), operations listener

What a test client learns that nobody else may (cookies, codes, tickets, tokens, the client's secret) is kept
in `House.secrets`; when the house closes, nothing the proxy wrote may hold one of them (case S22).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any, Self, TypeVar
from urllib.parse import parse_qs, urlsplit

import aiohttp
import trustme
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from tests.stories.talking import PATIENCE, App, Background, Gate, Heard, Sending, Wire, free_ports, until
from ztproxy.adapters.keys import fresh_keys, write_private
from ztproxy.demo.people import PEOPLE
from ztproxy.demo.provider import STATE, Client, ProviderState, create_provider
from ztproxy.demo.visitor import Page, Visitor

T = TypeVar("T")

COOKIE = "__Host-ztproxy"
LOGINS = ("https://app.test", "https://login.test")
"""Where people may sign in: the app's host, or the auth host of a house that has one."""

_SECRET_PARAMS = ("code", "state", "ticket", "id_token_hint")

CONFIG = """\
listen:
  - {address: "127.0.0.1:$plain", tls: false}
  - {address: "127.0.0.1:$tls", tls: true}
$listeners
tls:
  certificates:
    - {certificate: app.pem, key: app.key}
$certificates
providers:
  - name: demo
    title: Demo provider
    issuer: $issuer
    client_id: ztproxy
    client_secret_file: client-secret
    scopes: [openid, profile, email, groups]
    algorithm: ES256
$providers
assurance:
  acr: {"urn:ztproxy:demo:pwd": 1, "urn:ztproxy:demo:mfa": 2, "urn:ztproxy:demo:phr": 3,
        pwd: 1, mfa: 2, phr: 3}
$assurance
state: $state
state_dir: state
keys_file: keys.yaml
workers: 1
drain: 15s
operations: 127.0.0.1:$operations
log: {access: access.log, decisions: decisions.log}
$settings
routes:
  - from: https://app.test
    name: app
    to: http://127.0.0.1:$upstream
    policy:
      - name: the world
        allow: {public: true, path: {prefix: /public}}
      - name: administrators
        allow: {group: admins, path: {prefix: /admin}}
      - name: people
        allow: {authenticated: true, none_of: [{path: {prefix: /admin}}]}
    upgrades: [websocket]
    outlier_detection: off
$route
$routes
"""


@dataclass
class House:
    """A running proxy and everything around it."""

    directory: Path
    background: Background
    ports: dict[str, int]
    app: App
    provider: ProviderState
    issuer: str
    client_tls: ssl.SSLContext
    ca: trustme.CA
    parts: dict[str, str]
    gate: Gate
    secrets: set[str] = field(default_factory=set)
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.directory / "ztproxy.yaml"

    # -- the proxy ---------------------------------------------------------------------------------------

    def write_config(self, **parts: str) -> None:
        """Writes the configuration with these parts in place of those the house was made with."""
        known = {**{name: str(port) for name, port in self.ports.items()}, "issuer": self.issuer}
        filled = {name: Template(text).substitute(known) for name, text in {**self.parts, **parts}.items()}
        write_private(self.config, Template(CONFIG).substitute(filled, **known), replace=True)

    def start(self) -> None:
        """Starts the proxy and waits until its data listener answers."""
        with (self.directory / "proxy.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ztproxy.cli", "run", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(lambda: self._answers() or self._ended() or "Traceback" in self.log("proxy"))
        assert self._answers(), self.log("proxy")

    def _ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def _answers(self) -> bool:
        try:
            return (
                self.plain(b"GET /.well-known/ztproxy/jwks.json HTTP/1.1\r\nHost: app.test\r\n\r\n").status
                == 200
            )
        except OSError:
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends the proxy; its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise

    def children(self) -> list[int]:
        """The process ids of what the supervisor has started: workers, and a state of its own."""
        assert self.process is not None
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        return [pid for pid in self.children() if b"ztproxy.cli.worker" in _command_line(pid)]

    def store(self) -> int:
        """The process id of a state of its own."""
        (pid,) = [pid for pid in self.children() if b"valkey-server" in _command_line(pid)]
        return pid

    def log(self, name: str) -> str:
        file = self.directory / f"{name}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def records(self, name: str) -> list[dict[str, Any]]:
        """The complete lines of a JSON log."""
        return [json.loads(line) for line in self.log(name).split("\n")[:-1]]

    # -- raw connections ---------------------------------------------------------------------------------

    def wire(self, listener: str = "plain", *, source: str = "127.0.0.1", first: bytes = b"") -> Wire:
        """A raw connection to a listener by its name, from an address of this machine; over TLS as `app.test`
        to those whose names end in `tls`, with what goes before the handshake sent first."""
        connection = socket.create_connection(("127.0.0.1", self.ports[listener]), PATIENCE, (source, 0))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(first)
        if listener.endswith("tls"):
            connection = self.client_tls.wrap_socket(connection, server_hostname="app.test")
        return Wire(connection)

    def plain(self, data: bytes, listener: str = "plain") -> Heard:
        """One request and its answer, the connection then closed by the proxy (`Connection: close` is
        added)."""
        head, rest = data.split(b"\r\n\r\n", 1)
        with self.wire(listener) as wire:
            return wire.send(head + b"\r\nConnection: close\r\n\r\n" + rest).rest()

    def get(self, path: str, cookie: str = "", *, host: str = "app.test", fields: str = "") -> Heard:
        """A GET as a program sends it."""
        shown = f"Cookie: {cookie}\r\n" if cookie else ""
        return self.plain(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{shown}{fields}\r\n".encode())

    def send_all(self, sendings: Sequence[Sending]) -> list[Heard]:
        """What each connection heard until it ended, or until the app's usual answer was complete."""

        async def one(sending: Sending, turn: asyncio.Semaphore) -> Heard:
            tls = self.client_tls if sending.listener == "tls" else None
            async with turn, asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1",
                    self.ports[sending.listener],
                    ssl=tls,
                    server_hostname="app.test" if tls else None,
                )
                heard, closed, reset = b"", False, False
                try:
                    for piece in sending.pieces():
                        writer.write(piece)
                        await writer.drain()
                        # One turn for everybody else, so that pieces do leave one by one.
                        await asyncio.sleep(0)
                    while not closed and not heard.endswith(b"\r\n\r\nok"):
                        more = await reader.read(65536)
                        heard, closed = heard + more, not more
                except ConnectionError:
                    closed = reset = True
                finally:
                    writer.transport.abort()
                return Heard(heard, closed, reset)

        async def everyone() -> list[Heard]:
            turn = asyncio.Semaphore(64)
            return await asyncio.gather(*(one(sending, turn) for sending in sendings))

        return self.run(everyone())

    def operations(self, path: str) -> Heard:
        data = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
        with self.wire("operations") as wire:
            return wire.send(data).rest()

    def metric(self, name: str, /, **labels: str) -> float:
        """The sum of a metric's series that carry these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = self.operations("/metrics").body.decode().splitlines()
        series = [line for line in lines if re.match(rf"{name}(\{{| )", line)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in series if all(part in line for part in wanted))

    # -- people ------------------------------------------------------------------------------------------

    def guest(self, person: str = "", method: str = "pwd", door: str = "tls") -> Guest:
        """A visitor whose https is the listener called `door`."""
        return Guest(self, person, method, door)

    def sign_in(self, person: str, method: str = "pwd", door: str = "tls") -> str:
        """Signs somebody in for real; the Cookie field's value for app.test."""

        async def signing_in() -> str:
            async with self.guest(person, method, door) as guest:
                page = await guest.open("https://app.test/u")
                assert page.status == 200, page
                return guest.session("https://app.test")

        return self.run(signing_in())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.background.run(work)

    def shut_gate(self) -> Gate:
        """A gate for a play of the app's to wait at."""
        return Gate(self.background)

    def seen(self, *values: str) -> None:
        """These are nobody else's business. A signed value is also one without its signature's last part."""
        self.secrets.update(value for value in values if len(value) >= 16)

    def written(self) -> str:
        """Everything the proxy has said to anybody but its client and its app."""
        return "\n".join(self.log(name) for name in ("proxy", "access", "decisions"))

    def leaks(self, *more: str) -> list[str]:
        """The secrets that something the proxy wrote holds."""
        assertions = re.findall(rb"X-Ztproxy-Assertion: (\S+)", self.app.received)
        self.seen(*(one.decode() for one in assertions))
        written = self.written() + "\n".join(more)
        return sorted(secret for secret in self.secrets if secret in written)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class _Doors(AbstractResolver):
    """Every name is this machine, and https is the house's own port."""

    def __init__(self, https: int) -> None:
        self._https = https

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        port = self._https if port == 443 else port
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)
        ]

    async def close(self) -> None:
        pass


class Guest(Visitor):
    """A visitor over TLS, who remembers every secret that passes."""

    def __init__(self, house: House, person: str, method: str, door: str = "tls") -> None:
        super().__init__(house.issuer, person, method)
        self.house, self._door = house, door

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_Doors(self.house.ports[self._door]),
                use_dns_cache=False,
                force_close=True,
                ssl=self.house.client_tls,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=timeout,
        )
        self._at_provider = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), timeout=timeout)
        return self

    def session(self, origin: str) -> str:
        """The session cookie for an origin as it stands in a Cookie field, or nothing."""
        value = self._cookies.get(urlsplit(origin).hostname or "", {}).get(COOKIE)
        return f"{COOKIE}={value}" if value else ""

    async def ask(
        self,
        url: str,
        headers: dict[str, str] | None = None,
        *,
        method: str = "GET",
        data: bytes | None = None,
    ) -> Page:
        self._notice(url)
        page = await super().ask(url, headers, method=method, data=data)
        self._notice(page.location)
        return page

    def _notice(self, url: str) -> None:
        for name, values in parse_qs(urlsplit(url).query).items():
            if name in _SECRET_PARAMS:
                self.house.seen(*values)

    def _keep(self, url: str, set_cookies: list[str]) -> None:
        super()._keep(url, set_cookies)
        for cookies in self._cookies.values():
            for value in cookies.values():
                self.house.seen(value, *(part for part in value.split(".") if len(part) > 24))


@contextlib.contextmanager
def house(
    directory: Path,
    state: str,
    *,
    parts: Mapping[str, str] | None = None,
    ports: Mapping[str, int] | None = None,
    names: Sequence[str] = ("app.test",),
    prepare: Callable[[House], None] = lambda house: None,
) -> Iterator[House]:
    """A running house in `directory`, its state at the URL `state`. `parts` fill the configuration's gaps."""
    background = Background()
    with contextlib.ExitStack() as stack:
        stack.callback(background.close)
        app = App()
        background.run(app.recording.start())
        stack.callback(lambda: background.run(app.recording.stop()))
        gate = Gate(background, opened=True)
        secrets: set[str] = set()
        issuer, provider = _provider(background, stack, gate, secrets, directory)
        ca = trustme.CA()
        certify(ca, directory, "app", *names)
        client_tls = ssl.create_default_context()
        ca.configure_trust(client_tls)
        write_private(directory / "keys.yaml", fresh_keys())
        it = House(
            directory,
            background,
            {**free_ports(("plain", "tls", "operations")), "upstream": app.port, **(ports or {})},
            app,
            provider,
            issuer,
            client_tls,
            ca,
            {**dict.fromkeys(_GAPS, ""), "state": state, **(parts or {})},
            gate,
            secrets,
        )
        prepare(it)
        it.write_config()
        stack.callback(it.stop)
        it.start()
        yield it
        metrics = "" if it._ended() else it.operations("/metrics").body.decode()
        it.stop()
        assert it.leaks(metrics) == [], "secrets were written down"


_GAPS = ("listeners", "certificates", "providers", "assurance", "settings", "route", "routes")


def certify(ca: trustme.CA, directory: Path, name: str, *hosts: str) -> None:
    """A certificate of the house's CA for these hosts, as `name.pem` and `name.key`."""
    pair = ca.issue_cert(*hosts)
    chain = b"".join(one.bytes() for one in pair.cert_chain_pems)
    write_private(directory / f"{name}.key", pair.private_key_pem.bytes().decode(), replace=True)
    write_private(directory / f"{name}.pem", chain.decode(), replace=True)


def _provider(
    background: Background,
    stack: contextlib.ExitStack,
    gate: Gate,
    secrets: set[str],
    directory: Path,
) -> tuple[str, ProviderState]:
    """The demo's provider; its token endpoint answers while `gate` is open, and its tokens are noted."""
    (port,) = free_ports(("provider",)).values()
    issuer = f"http://127.0.0.1:{port}"
    secret = os.urandom(24).hex()
    secrets.add(secret)
    write_private(directory / "client-secret", secret)
    client = Client(
        "ztproxy",
        secret,
        tuple(f"{origin}/.ztproxy/callback/demo" for origin in LOGINS),
        tuple(f"{origin}/.ztproxy/signed_out" for origin in LOGINS),
    )
    served = create_provider(issuer, [client], PEOPLE)

    async def listen_in(request: web.Request, response: web.StreamResponse) -> None:
        if request.path != "/token":
            return
        await gate.wait()
        if isinstance(response, web.Response) and response.status == 200:
            tokens = json.loads(response.text or "{}")
            secrets.update(str(tokens[name]) for name in tokens if name.endswith("_token"))

    served.on_response_prepare.append(listen_in)

    async def start() -> web.AppRunner:
        runner = web.AppRunner(served, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        return runner

    runner = background.run(start())
    stack.callback(lambda: background.run(runner.cleanup()))
    return issuer, served[STATE]
