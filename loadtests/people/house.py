"""The installation that people visit: ztproxy as an operator starts it, and all it depends on.

    python -m loadtests.people house [MISTAKE ...]

Knows: how each part is started, and how each trouble is made. Promises: everything is on this machine, and
gone when the standard input ends, as it does when its parent dies. It says one line of JSON when it is there
(`Place`), then takes one name of a trouble a line, makes it instead of the one before, and says `ok`. Leaves
when, and what is promised meanwhile, to its parent.

    browser > ztproxy (2 workers) > three apps
                 | fault proxy > Valkey
                 | fault proxy > the demo's provider < browser

Browsers reach the provider beside the fault proxy, so that what fails is ztproxy's own way to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp
from aiohttp import web

from bench import machine
from bench.revocation_house import child, keys_in
from loadtests.people.promises import LEASE, LONGER_LEASE, REVOCATION_NOT_SENT, Trouble
from tests.worlds.fault_proxy import FaultProxy, fault_proxy
from ztproxy.adapters import local_token
from ztproxy.adapters.embedded_valkey import EmbeddedValkey
from ztproxy.adapters.keys import write_private
from ztproxy.demo.apps import headers_app, live_app
from ztproxy.demo.people import Person
from ztproxy.demo.provider import Client, create_provider
from ztproxy.demo.running import free_port

PEOPLE = 500
APPS = ("home", "finance", "live")
WELL_AGAIN = 20.0
"""Seconds after a trouble in which everything must be well."""

_START = 60.0
_HOST = "127.0.0.1"
_MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
"""Where the store writes, and waits for each write: another program's writes must not make a lease lapse."""

CONFIG = """\
listen: {{address: "127.0.0.1:{port}", tls: false}}
hsts: off
provider:
  title: Demo provider
  issuer: {issuer}
  client_id: people
  client_secret_file: client-secret
  scopes: [openid, profile, email, groups]
  algorithm: ES256
assurance:
  levels: [password, multi_factor, phishing_resistant]
  acr:
    urn:ztproxy:demo:pwd: password
    urn:ztproxy:demo:mfa: multi_factor
    urn:ztproxy:demo:phr: phishing_resistant
auth_host: http://login.localhost:{port}
state: redis://127.0.0.1:{store}
state_dir: state
keys_file: {keys}
workers: 2
drain: 1s
operations: 127.0.0.1:{operations}
admin: {{listen: "127.0.0.1:{admin}"}}
revocation: {{lease: {lease:.0f}ms, quarantine: {lease:.0f}ms}}
log: {{access: access.log, decisions: decisions.log}}
limits: {{connections_per_address: 4096, sign_ins_per_address: off}}
routes:
  - from: http://home.localhost:{port}
    to: http://127.0.0.1:{home}
    policy: [{{allow: {{group: staff}}}}]
  - from: http://finance.localhost:{port}
    to: http://127.0.0.1:{finance}
    policy: [{{allow: {{group: staff, acr_rank: multi_factor}}}}]
  - from: http://live.localhost:{port}
    to: http://127.0.0.1:{live}
    policy: [{{allow: {{group: staff}}}}]
    upgrades: [websocket]
  - from: http://localhost:{port}
    redirect: http://home.localhost:{port}/
    listed: false
    allow_public_unauthenticated_access: true
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything is. `issuer` is the provider's origin as ztproxy knows it, `provider` and `port` the
    ports at which browsers reach the provider and ztproxy; `token` is the file of the administration's."""

    port: int
    issuer: str
    provider: int
    admin: str
    token: str
    operations: int

    def origin(self, app: str) -> str:
        return f"http://{app}.localhost:{self.port}"

    def reach(self, url: str) -> int:
        """The port of this machine at which a browser finds that origin."""
        return self.provider if url.startswith(f"{self.issuer}/") else urlsplit(url).port or 80


def person(number: int) -> Person:
    name = f"person{number}"
    return Person(name, f"Person {number}", f"{name}@example.com", ("staff",))


@dataclass(frozen=True, slots=True)
class Troubles:
    """The ways to the provider and to the store."""

    to_provider: FaultProxy
    to_store: FaultProxy

    def make(self, trouble: Trouble) -> None:
        """This one and no other."""
        self.to_provider.heal()
        self.to_store.heal()
        match trouble:
            case Trouble.NONE:
                pass
            case Trouble.IDP_SLOW:
                self.to_provider.delay = 0.4
            case Trouble.IDP_AWAY:
                self.to_provider.refuse = True
                self.to_provider.reset()
            case Trouble.STORE_SLOW:
                self.to_store.delay = 0.1
            case Trouble.STORE_BLIPS | Trouble.STORE_GONE:
                self.to_store.partition()


async def _liar(request: web.Request) -> web.Response:
    return web.json_response({"confirmed": True, "matched": 1})


async def _serve(stack: contextlib.AsyncExitStack, app: web.Application, port: int = 0) -> int:
    """The port at which `app` answers: this one, or a free one."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, _HOST, port).start()
    found: int = runner.addresses[0][1]
    return found


@contextlib.asynccontextmanager
async def house(mistakes: Sequence[str] = ()) -> AsyncIterator[tuple[Place, Troubles]]:
    """All of it, answering. Raises `CannotMeasure` where it does not start."""
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ztproxy-", dir=_MEMORY)))
        store = stack.enter_context(EmbeddedValkey(directory / "valkey")).url
        to_store = stack.enter_context(fault_proxy(unquote(urlsplit(store).path)))
        ports = {name: free_port() for name in ("port", "operations", "admin")}
        bare, login = f"http://localhost:{ports['port']}", f"http://login.localhost:{ports['port']}"
        client = Client(
            "people",
            secrets.token_urlsafe(32),
            (f"{login}/.ztproxy/callback/default",),
            (f"{login}/.ztproxy/signed_out",),
            f"{bare}/.ztproxy/logout/back/default",
        )
        everybody = [person(number) for number in range(PEOPLE)]
        behind = free_port()
        to_provider = stack.enter_context(fault_proxy((_HOST, behind)))
        issuer = f"http://localhost:{to_provider.port}"
        await _serve(stack, create_provider(issuer, (client,), everybody), behind)
        apps = {"live": await _serve(stack, live_app())}
        for name in ("home", "finance"):
            origin = f"http://{name}.localhost:{ports['port']}"
            apps[name] = await _serve(stack, headers_app(f"{bare}/.well-known/ztproxy/jwks.json", origin))
        write_private(directory / "client-secret", client.client_secret)
        config = directory / "ztproxy.yaml"
        lease = 2.5 * LEASE if LONGER_LEASE in mistakes else LEASE
        filled = {**ports, **apps, "store": to_store.port, "issuer": issuer, "lease": 1000 * lease}
        config.write_text(CONFIG.format(**filled, keys=keys_in(directory)))
        log = directory / "proxy.log"
        stack.enter_context(child(sys.executable, "-m", "ztproxy.cli", "run", str(config), log=log))
        admin = f"http://{_HOST}:{ports['admin']}"
        token = directory / "state" / local_token.FILE
        try:
            async with asyncio.timeout(_START):
                await _answering(f"http://{_HOST}:{ports['operations']}/readyz", dict)
                await _answering(
                    f"{admin}/api/v1/whoami", lambda: {"Authorization": f"Bearer {token.read_text().strip()}"}
                )
        except TimeoutError:
            raise machine.CannotMeasure(f"ztproxy does not answer: {log.read_text()[-1500:]}") from None
        if REVOCATION_NOT_SENT in mistakes:
            lies = web.Application()
            lies.router.add_post("/api/v1/revocations", _liar)
            admin = f"http://{_HOST}:{await _serve(stack, lies)}"
        place = Place(ports["port"], issuer, behind, admin, str(token), ports["operations"])
        yield place, Troubles(to_provider, to_store)


async def _answering(url: str, headers: Callable[[], dict[str, str]]) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
        while True:
            with contextlib.suppress(OSError, TimeoutError, aiohttp.ClientError):  # not yet
                async with http.get(url, headers=headers()) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.05)


async def serve(mistakes: Sequence[str] = ()) -> None:
    """Until the standard input ends."""
    machine.many_files()
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    async with house(mistakes) as (place, troubles):
        print(json.dumps(asdict(place)), flush=True)
        while (line := (await commands.readline()).decode().strip()) != "":
            troubles.make(Trouble(line))
            print("ok", flush=True)
