"""The installation that the revocation bench measures: one Valkey, four nodes of one worker each, an app.

Knows: how it is started, as an operator would, and how people come to be signed in without walking there.
Promises: all of it is on this machine and gone when the block ends, or when this process does. Leaves what
people do to `revocation_clients`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bench import machine
from bench.revocation_clients import HOST, Connection, Revoking, get, until
from ztproxy.adapters.cookies import SignedHandles
from ztproxy.adapters.embedded_valkey import EmbeddedValkey
from ztproxy.adapters.keys import KeyRing, fresh_keys, write_private
from ztproxy.adapters.redis_connection import connect
from ztproxy.adapters.redis_sessions import RedisSessions
from ztproxy.adapters.sealing import Sealer
from ztproxy.core.identity import Identity, Session, SessionSecrets
from ztproxy.core.sessions import SessionLimits
from ztproxy.demo.running import free_port

NODES = 4
LEASE = 0.8
_ISSUER = "https://idp.test"
_AT_ONCE = 64

CONFIG = """\
listen: 127.0.0.1:{port}
provider: {{issuer: "{issuer}", client_id: bench, client_secret: not a secret for long}}
state: {state}
state_dir: {directory}
keys_file: {keys}
workers: 1
drain: 1s
revocation: {{lease: {lease:.0f}ms}}
log: {{access: {directory}/access.log, decisions: {directory}/decisions.log}}
limits: {{connections_per_address: 16384}}
routes:
  - from: https://{host}
    to: http://127.0.0.1:{app}
    policy:
      - allow: {{group: [finance, operations], method: [GET, HEAD]}}
      - allow: {{group: staff}}
    upgrades: [websocket]
    max_upstream_connections: 16384
"""


def configure(
    directory: Path, *, port: int, state: str, keys: Path, app: int, lease: float = LEASE, more: str = ""
) -> Path:
    """A node's configuration, in its own folder."""
    directory.mkdir(exist_ok=True)
    text = CONFIG.format(
        port=port,
        issuer=_ISSUER,
        state=state,
        directory=directory,
        keys=keys,
        lease=lease * 1000,
        host=HOST,
        app=app,
    )
    file = directory / "ztproxy.yaml"
    file.write_text(text + more)
    return file


def child(*command: str, log: Path) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """A process of the bench; the kernel ends it when this one is gone, however that comes."""
    return machine.process(machine.tool("setpriv", "util-linux"), "--pdeathsig", "KILL", *command, log=log)


class Node:
    """One `ztproxy run`. Its one worker is who answers at `port`."""

    def __init__(self, directory: Path, keys: Path, app: int, *, administered: bool) -> None:
        self.directory, self._keys, self._app = directory, keys, app
        self._more = "" if administered else "admin: off\n"
        self._running = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def start(self, state: str) -> None:
        config = configure(
            self.directory, port=self.port, state=state, keys=self._keys, app=self._app, more=self._more
        )
        command = (sys.executable, "-m", "ztproxy.cli", "run", str(config))
        self._process = self._running.enter_context(child(*command, log=self.directory / "said.log"))

    def terminate(self) -> None:
        """Tells it to end; `stop` waits for that."""
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        self._running.close()
        self._process = None


class Relay:
    """A way to the store that can be made to carry nothing, and to carry on."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self._process, self.url = process, url

    def pause(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)


class People:
    """Sessions, written as a sign-in writes them."""

    def __init__(self, state: str, keys: Path) -> None:
        ring = KeyRing.load(keys)
        self._client = connect(state)
        self._store = RedisSessions(self._client, Sealer(ring.records), SessionLimits())
        self._signer = SignedHandles(ring.handles)
        self._made = 0

    async def sign_in(self, count: int, as_of: int = 0) -> list[str]:
        """So many cookies, each of a person of its own. `as_of` is the number of the last lock in the log."""
        turn = asyncio.Semaphore(_AT_ONCE)

        async def one(number: int) -> str:
            async with turn:
                now = time.time()
                who = Identity(_ISSUER, f"p{number}", f"p{number}@corp.test", groups=("staff",))
                session = Session("", who, "default", now, now, now, now + 3600, as_of=as_of)
                return self._signer.seal(await self._store.create(session, SessionSecrets(), HOST, None))

        first, self._made = self._made, self._made + count
        return await asyncio.gather(*(one(first + number) for number in range(count)))

    async def id_of(self, cookie: str) -> str:
        """The public id of the session behind a cookie."""
        handle = self._signer.open(cookie)
        loaded = None if handle is None else await self._store.load(handle)
        if loaded is None:
            raise machine.CannotMeasure("a session that was written is not there")
        return loaded.session.id

    async def close(self) -> None:
        await self._client.aclose()


class House:
    """All of it. The first node has the administration."""

    def __init__(self, directory: Path, state: str, nodes: Sequence[Node], people: People, app: int) -> None:
        self.directory, self.state, self.nodes, self.people, self.app = directory, state, nodes, people, app
        self.admin = Revoking(nodes[0].directory)

    @property
    def ports(self) -> list[int]:
        return [node.port for node in self.nodes]

    async def lets_in(self, cookie: str, ports: Sequence[int] | None = None) -> None:
        """Waits until each of the workers does."""
        for port in self.ports if ports is None else ports:
            door = Connection(port)

            async def well(door: Connection = door) -> bool:
                return (await door.ask(get(cookie))).status == 200

            await until(well, f"the worker at {port} lets people in")
            door.close()

    @contextlib.contextmanager
    def relayed(self, node: Node) -> Iterator[Relay]:
        """`node` started anew with a relay between it and the store, for as long as the block lasts."""
        listen = self.directory / "relay.sock"
        to = unquote(urlsplit(self.state).path)
        command = (sys.executable, "-m", "bench.revocation_parts", "relay", str(listen), to)
        with child(*command, log=self.directory / "relay.log") as process:
            relay = Relay(process, f"unix://{listen}")
            node.stop()
            node.start(relay.url)
            try:
                yield relay
            finally:
                relay.resume()  # a stopped process would not hear that it is to end
                node.stop()


def keys_in(directory: Path) -> Path:
    keys = directory / "keys.yaml"
    write_private(keys, fresh_keys())
    return keys


@contextlib.asynccontextmanager
async def running(directory: Path) -> AsyncIterator[House]:
    """A house in which nobody is signed in yet."""
    async with contextlib.AsyncExitStack() as stack:
        state = stack.enter_context(EmbeddedValkey(directory / "valkey")).url  # `appendfsync always`
        keys, app = keys_in(directory), free_port()
        app_command = (sys.executable, "-m", "bench.revocation_parts", "app", str(app))
        stack.enter_context(child(*app_command, log=directory / "app.log"))
        people = People(state, keys)
        stack.push_async_callback(people.close)
        nodes = [Node(directory / f"node{n}", keys, app, administered=not n) for n in range(NODES)]
        for node in nodes:
            stack.callback(node.stop)
        for node in nodes:
            stack.callback(node.terminate)  # all are told before the first is waited for
            node.start(state)
        house = House(directory, state, nodes, people, app)
        await house.admin.ready()
        yield house
