"""ztproxy as it is measured: the real command, everything on that the issue of a proxied request can have.

One worker, held on one core with its supervisor and its Valkey; people sign in for real at the demo's
provider, which runs in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

import aiohttp
from aiohttp import web

from bench import machine
from ztproxy.adapters.keys import fresh_keys, write_private
from ztproxy.demo.people import PEOPLE
from ztproxy.demo.provider import Client, create_provider
from ztproxy.demo.visitor import Visitor

_CONFIG = Template("""\
listen: 127.0.0.1:$port
provider: {issuer: "$issuer", client_id: bench, client_secret_file: client-secret, algorithm: ES256}
keys_file: keys.yaml
state_dir: state
workers: 1
drain: 1s
operations: 127.0.0.1:$operations
log: {access: access.log, decisions: decisions.log}
limits: {connections_per_address: 8192}
routes:
  - from: http://app.localhost:$port
    to: http://127.0.0.1:$app
    policy:
      - allow: {group: [finance, operations], method: [GET, HEAD]}
      - allow: {group: engineering, domain: example.com}
      - deny: {group: suspended}
  - from: http://live.localhost:$port
    to: http://127.0.0.1:$live
    policy: [{allow: {group: engineering}}]
    upgrades: [websocket]
  - from: http://transfer.localhost:$port
    to: http://127.0.0.1:$transfer
    policy: [{allow: {group: engineering}}]
    max_body: off
""")


@dataclass(frozen=True, slots=True)
class Subject:
    """A running proxy. `headers` are a signed-in visitor's, by host (`app`, `live`, `transfer`)."""

    port: int
    worker: int
    headers: Mapping[str, Mapping[str, str]]


@contextlib.asynccontextmanager
async def running(
    core: int, ports: Mapping[str, int], directory: Path, *, hosts: tuple[str, ...] = ("app",)
) -> AsyncIterator[Subject]:
    """`ports`: `port` and `operations` of the proxy, the `provider`, and `app`, `live`, `transfer` behind it.

    `hosts` are those for which the visitor signs in.
    """
    issuer = f"http://127.0.0.1:{ports['provider']}"
    origins = {host: f"http://{host}.localhost:{ports['port']}" for host in ("app", "live", "transfer")}
    callbacks = tuple(f"{origin}/.ztproxy/callback/default" for origin in origins.values())
    client = Client("bench", "not a secret for long", callbacks)
    async with contextlib.AsyncExitStack() as stack:
        runner = web.AppRunner(create_provider(issuer, [client], PEOPLE), access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", ports["provider"]).start()
        config = _written(directory, client, _CONFIG.substitute(ports, issuer=issuer))
        command = (sys.executable, "-m", "ztproxy.cli", "run", str(config))
        said = directory / "proxy.log"
        proxy = stack.enter_context(machine.process(*machine.pinned(core, *command), log=said))
        await _answering(origins["app"], proxy, said)
        visitor = await stack.enter_async_context(Visitor(issuer, "alice"))
        headers = {}
        for host in hosts:
            origin = origins[host]
            page = await visitor.open(f"{origin}/.ztproxy/session")
            if page.status != 200:
                raise machine.CannotMeasure(f"signing in at {origin} ended with {page.status}: {page.text}")
            headers[host] = {"Host": origin.removeprefix("http://"), **visitor.cookie_header(origin)}
        yield Subject(ports["port"], worker_below(proxy.pid), headers)


def _written(directory: Path, client: Client, text: str) -> Path:
    """The configuration with its keys and secret, in a new folder."""
    directory.mkdir()
    write_private(directory / "keys.yaml", fresh_keys())
    write_private(directory / "client-secret", client.client_secret)
    config = directory / "ztproxy.yaml"
    config.write_text(text)
    return config


async def _answering(origin: str, proxy: subprocess.Popen[bytes], said: Path) -> None:
    async with Visitor(origin) as nobody:
        for _ in range(150):
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await nobody.ask(f"{origin}/")
                return
            if proxy.poll() is not None:
                break
            await asyncio.sleep(0.2)
    raise machine.CannotMeasure(f"the proxy does not answer; see {said}")


def worker_below(supervisor: int) -> int:
    """`taskset` and the supervisor become one process; the worker is the child that says so."""
    for pid in machine.descendants(supervisor):
        if b"ztproxy.cli.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise machine.CannotMeasure("no worker was found below the supervisor")
