"""A real `Worker` of `ztproxy.app`: configuration from YAML, keys from a file, state in Valkey, a provider
and an app on sockets, logs in files. Only time is not ours here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.wire.recording import OK, Play, Recording, answers
from tests.wire.world import Answer, Client
from tests.worlds.front import Browser
from tests.worlds.lying_provider import CLIENT_ID, CLIENT_SECRET, LyingProvider, lying_provider
from ztproxy.adapters.keys import fresh_keys, write_private
from ztproxy.adapters.metrics import Metrics
from ztproxy.app import Worker
from ztproxy.config import parse
from ztproxy.config.settings import Settings
from ztproxy.recorder import Recorder
from ztproxy.surfaces.cookies import SessionCookie


@dataclass
class Running:
    """`port` is that of the first listener. Its browsers are those of `front`, over TLS or not."""

    worker: Worker
    recorder: Recorder
    directory: Path
    op: LyingProvider
    app: Recording
    state_url: str
    tls: Any = None
    cookie: SessionCookie = SessionCookie("__Host-ztproxy", None)  # noqa: RUF009  # frozen

    @property
    def port(self) -> int:
        return port_of(self.worker.addresses[0])

    def settings(self, *more: str, routes: str = "", **changes: str) -> Settings:
        return settings(self.directory, self.op, self.app, self.state_url, *more, routes=routes, **changes)

    def browser(self, subject: str = "alice", **claims: Any) -> Browser:
        return Browser(self, {"sub": subject, "email": f"{subject}@corp.test", **claims})  # type: ignore[arg-type]

    def provider_at(self, url: str) -> LyingProvider | None:
        return self.op if url.startswith(f"{self.op.issuer}/authorize") else None

    async def client(self, port: int | None = None) -> Client:
        opening = asyncio.open_connection(
            "127.0.0.1",
            port or self.port,
            ssl=self.tls if port is None else None,
            server_hostname="app.test" if self.tls and port is None else None,
        )
        return Client(*await opening)

    async def raw(self, data: bytes, method: str = "GET", port: int | None = None) -> Answer:
        client = await self.client(port)
        try:
            return await client.ask(data, method)
        finally:
            client.close()

    def logs(self) -> str:
        """All that was written down so far."""
        self.recorder.close()
        return "".join((self.directory / f"{name}.log").read_text() for name in ("access", "decisions"))


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def settings(
    directory: Path,
    op: LyingProvider,
    app: Recording,
    state_url: str,
    *more: str,
    listen: str = "127.0.0.1:0",
    routes: str = "",
    provider: str = "",
) -> Settings:
    routes = (
        routes
        or f"""
  - from: https://app.test
    to: http://127.0.0.1:{app.port}
    allow_any_authenticated_user: true"""
    )
    text = f"""
listen: {listen}
provider:
  issuer: {op.issuer}
  client_id: {CLIENT_ID}
  client_secret: {CLIENT_SECRET!r}
  dangerous_allow_http_issuer: true
{provider}
state: {state_url}
state_dir: {directory}
keys_file: keys.yaml
trusted_proxies: [192.0.2.0/24]
log: {{access: access.log, decisions: decisions.log}}
routes:{routes}
"""
    return parse((text + "\n".join(more) + "\n").encode(), directory / "ztproxy.yaml", {})


@asynccontextmanager
async def running(
    directory: Path,
    state_url: str,
    *more: str,
    plays: tuple[Play, ...] = (answers(OK),),
    tls: Any = None,
    app: Recording | None = None,
    **changes: str,
) -> AsyncIterator[Running]:
    """`tls` is the clients' context for the first listener; `app` is started already, or `plays` make it."""
    keys = directory / "keys.yaml"
    if not keys.exists():
        write_private(keys, fresh_keys())
    app = app or await Recording(*plays).start()
    async with lying_provider(time.time) as op:
        first = settings(directory, op, app, state_url, *more, **changes)
        recorder = Recorder(Metrics(), first.log.access, first.log.decisions)
        worker = Worker(first, state_url, recorder)
        await worker.start()
        it = Running(worker, recorder, directory, op, app, state_url, tls)
        try:
            yield it
        finally:
            await worker.drain(0)
            await worker.close()
            recorder.close()
            await app.stop()
