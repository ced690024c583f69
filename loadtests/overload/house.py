"""What a scenario happens in: a store, an app that is well, one that is not, a provider, and one ztproxy.

Knows: how each is started, and on which core. Promises: ztproxy (one worker) and its Valkey have one core,
everybody else the other; all of it is on this machine, and gone when the block ends or this process does.
Leaves what is done to it to the scenarios, and what a worker costs to who asks `Worker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trustme

from bench import machine
from bench.revocation_clients import HOST, Revoking, get, until
from bench.revocation_house import People, child, keys_in
from bench.subject import worker_below
from loadtests.overload.speaking import Speaker
from tests.worlds.fault_proxy import FaultProxy, fault_proxy
from tests.worlds.lying_provider import CLIENT_ID, CLIENT_SECRET, LyingProvider, lying_provider
from ztproxy.adapters.embedded_valkey import EmbeddedValkey
from ztproxy.adapters.redis_connection import connect
from ztproxy.demo.running import free_port
from ztproxy.errors import WorldError

SESSIONS = 16
MiB = 1024 * 1024
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where the store writes, and waits for each write: another program's writes to a disk would make a lease
lapse here, and that is no overload of ztproxy's."""

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

CONFIG = """\
listen:
  - {{address: "127.0.0.1:{port}", tls: false}}
  - {{address: "127.0.0.1:{tls}", tls: true}}
tls: {{certificates: [{{certificate: app.pem, key: app.key}}]}}
providers:
  - name: op
    issuer: {issuer}
    client_id: {client}
    client_secret: {secret!r}
    dangerous_allow_http_issuer: true
token_issuers:
  - {{name: ci, issuer: {issuer}, jwks_url: "{issuer}/jwks", dangerous_allow_http: true}}
state: {state}
state_dir: state
keys_file: {keys}
workers: 1
drain: 1s
operations: 127.0.0.1:{operations}
log: {{access: access.log, decisions: decisions.log}}
limits: {{{limits}}}
{settings}
routes:
  - from: https://{host}
    to: http://127.0.0.1:{app}
    policy: [{{allow: {{authenticated: true}}}}]
    upgrades: [websocket]
    max_upstream_connections: 16384
  - from: https://{host}
    name: wild
    prefix: /wild
    to: http://127.0.0.1:{wild}
    policy: [{{allow: {{authenticated: true}}}}]
    {wild_settings}
  - from: https://svc.test
    name: services
    to: http://127.0.0.1:{app}
    services: {{tokens: [ci], audience: "https://svc.test"}}
    policy: [{{allow: {{service: ci}}}}]
{routes}
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is particular about a scenario's ztproxy: pieces of its configuration, and `descriptors`, the
    limit its processes start with."""

    limits: str = "connections_per_address: 16384"
    settings: str = ""
    wild: str = ""
    routes: str = ""
    descriptors: int | None = None


class Worker:
    """One process, as the kernel sees it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @property
    def alive(self) -> bool:
        return Path(f"/proc/{self.pid}/cmdline").exists()

    @property
    def resident(self) -> int:
        """Bytes, cheap enough to be asked often."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    @property
    def cpu(self) -> float:
        """Seconds so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass(slots=True)
class Usage:
    """What the worker was seen to use over a phase."""

    resident: int = 0
    descriptors: int = 0
    cpu: float = 0.0
    seconds: float = 0.0

    def as_data(self) -> dict[str, float]:
        return {
            "rss_mib": round(self.resident / MiB, 1),
            "descriptors": self.descriptors,
            "cpu_percent": round(100 * self.cpu / self.seconds, 1) if self.seconds else 0.0,
        }


@dataclass(slots=True)
class House:
    """A running ztproxy. `cookies` are of people who are signed in, each of their own. All that it asks of
    the provider goes over `way`."""

    directory: Path
    ports: dict[str, int]
    provider: LyingProvider
    way: FaultProxy
    people: People
    cookies: list[str]
    worker: Worker
    state_url: str
    ca: trustme.CA
    admin: Revoking
    core: int
    other: int

    @property
    def port(self) -> int:
        return self.ports["port"]

    async def ask(self, target: str, cookie: str = "", method: str = "GET", more: str = "") -> Asked:
        """One request on a connection of its own, timed from before it was opened."""
        request = get(cookie or self.cookies[0], target).replace(b"GET", method.encode(), 1)
        speaker = Speaker(self.port)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(30):
                answer = await speaker.ask(request[:-2] + more.encode() + b"\r\n")
        except (OSError, TimeoutError) as error:
            return Asked(0, b"", time.perf_counter() - began, type(error).__name__, False)
        finally:
            speaker.close()
        return Asked(
            answer.status, answer.body, answer.at - began, answer.head.decode("latin-1"), answer.complete
        )

    async def counts(self, which: str = "wild") -> dict[str, Any]:
        """What reached an app, by its own word."""
        speaker = Speaker(self.ports[which])
        try:
            async with asyncio.timeout(10):
                answer = await speaker.ask(b"GET /counts HTTP/1.1\r\nHost: app\r\n\r\n")
        finally:
            speaker.close()
        said: dict[str, Any] = json.loads(answer.body)
        return said

    async def operations(self, path: str) -> tuple[int, str]:
        """Status and body of a page of the operations listener; 0 where it does not answer."""
        speaker = Speaker(self.ports["operations"])
        try:
            async with asyncio.timeout(5):
                answer = await speaker.ask(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        except (OSError, TimeoutError):
            return 0, ""
        finally:
            speaker.close()
        return answer.status, answer.body.decode()

    async def metric(self, name: str) -> float:
        """The sum of a metric over its labels; `name` may hold some of them. 0 where there is none."""
        _, page = await self.operations("/metrics")
        found = re.findall(rf"(?m)^{re.escape(name)}(?:\{{.*\}})? (\S+)$", page) or re.findall(
            rf"(?m)^{name} (\S+)$", page
        )
        return sum(map(float, found))

    async def store(self, section: str, name: str) -> int:
        """A number the store tells about itself."""
        client = connect(self.state_url)
        try:
            info = await client.info(section)
            return int(info[name])
        finally:
            await client.aclose()

    async def commands(self) -> int:
        """Commands the store has executed."""
        return await self.store("stats", "total_commands_processed")


@dataclass(frozen=True, slots=True)
class Asked:
    """`status` 0: no answer, and `head` says what came of it. `complete`: the body ended as announced."""

    status: int
    body: bytes
    seconds: float
    head: str
    complete: bool

    @property
    def ms(self) -> float:
        return round(1000 * self.seconds, 1)


@functools.cache
def cores() -> tuple[int, int]:
    """`machine.cores`, as they were before this process was held on one."""
    return machine.cores()


@contextlib.asynccontextmanager
async def house(shape: Shape) -> AsyncIterator[House]:
    """One ztproxy with people who are signed in."""
    core, other = cores()
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ztproxy-", dir=_MEMORY)))
        ports = {name: free_port() for name in ("port", "tls", "operations", "app", "wild", "nobody")}
        ports["hole"] = stack.enter_context(black_hole())
        with machine.held_on(core):
            state = stack.enter_context(EmbeddedValkey(directory / "valkey")).url
        for name in ("app", "wild"):
            command = machine.pinned(other, sys.executable, "-m", "loadtests.overload.app", str(ports[name]))
            stack.enter_context(child(*command, log=directory / f"{name}.log"))
        provider = await stack.enter_async_context(lying_provider(time.time))
        there = urlsplit(provider.issuer)
        way = stack.enter_context(fault_proxy((str(there.hostname), there.port or 0)))
        provider.issuer = f"http://127.0.0.1:{way.port}"
        keys, ca = keys_in(directory), trustme.CA()
        certificate = ca.issue_cert(HOST, "svc.test")
        certificate.private_key_pem.write_to_path(str(directory / "app.key"))
        (directory / "app.key").chmod(0o600)
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(str(directory / "app.pem"), append=True)
        filled = {**ports, "host": HOST, "issuer": provider.issuer, "directory": str(directory)}
        config = directory / "ztproxy.yaml"
        config.write_text(
            CONFIG.format(
                **filled,
                client=CLIENT_ID,
                secret=CLIENT_SECRET,
                state=state,
                keys=keys,
                limits=shape.limits.format(),
                settings=shape.settings.format(**filled),
                wild_settings=shape.wild,
                routes=shape.routes.format(**filled),
            )
        )
        people = People(state, keys)
        stack.push_async_callback(people.close)
        command = machine.pinned(core, sys.executable, "-m", "ztproxy.cli", "run", str(config))
        if shape.descriptors is not None:
            command = [machine.tool("prlimit", "util-linux"), f"--nofile={shape.descriptors}", *command]
        proxy = stack.enter_context(child(*command, log=directory / "proxy.log"))
        cookies = await _sign_in(people)

        async def lets_in() -> bool:
            speaker = Speaker(ports["port"])
            try:
                async with asyncio.timeout(2):
                    return (await speaker.ask(get(cookies[0]))).status == 200
            except TimeoutError:
                return False
            finally:
                speaker.close()

        try:
            await until(lets_in, "ztproxy lets people in")
        except machine.CannotMeasure as error:
            raise machine.CannotMeasure(
                f"{error}: {(directory / 'proxy.log').read_text()[-1500:]}"
            ) from error
        admin = Revoking(directory / "state")
        await admin.ready()
        yield House(
            directory,
            ports,
            provider,
            way,
            people,
            cookies,
            Worker(worker_below(proxy.pid)),
            state,
            ca,
            admin,
            core,
            other,
        )


async def _sign_in(people: People) -> list[str]:
    """Raises `CannotMeasure` where the store takes too long for that three times: the machine is too busy."""
    for _ in range(3):
        with contextlib.suppress(WorldError):
            return await people.sign_in(SESSIONS)
    raise machine.CannotMeasure("the store is too slow for people to sign in")


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port of this machine at which connecting never ends: its queue is full, and nobody takes from it."""
    with contextlib.ExitStack() as stack:
        hole = stack.enter_context(socket.socket())
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        port: int = hole.getsockname()[1]
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port
