"""The demo as running parts: provider and apps in this process, the proxy as the child it is in real life.

Knows: what has to be there before what. Promises: `running` gives a demo that answers, or says why not; when
it is left, however that happens, every process, socket and file of it is gone or (the workers of a proxy that
had to be killed) on its way out. Leaves to the caller: the loop, the signals and what is said to people.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from ztproxy.adapters import local_token
from ztproxy.demo import setting
from ztproxy.demo.administering import Admin
from ztproxy.demo.apps import headers_app, live_app
from ztproxy.demo.laptops import Laptop, trust
from ztproxy.demo.people import PEOPLE
from ztproxy.demo.provider import STATE, ProviderState, create_provider
from ztproxy.demo.setting import Site
from ztproxy.errors import OperatorError

HEADERS_APPS = ("home", "finance", "admin", "payroll", "api", "public")
_HOST = "127.0.0.1"
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Demo:
    """A running demo. `operations` is a port; `provider` the state of its OpenID provider, `proxy` the child
    process. `authority` is the file of who vouches for its TLS."""

    site: Site
    issuer: str
    directory: Path
    config: Path
    authority: Path
    operations: int
    admin: Admin
    provider: ProviderState
    proxy: asyncio.subprocess.Process

    def tls(self, laptop: Laptop | None = None) -> ssl.SSLContext:
        """How a browser speaks TLS to it, from this laptop or from none it knows."""
        return trust(self.authority, laptop)

    def last_words(self) -> str:
        """What the proxy said last, for the case that it ended by itself."""
        return _last_words(self.directory)


@contextlib.asynccontextmanager
async def running(port: int | None, tls_port: int | None = None, *, workers: int = 2) -> AsyncIterator[Demo]:
    """A demo on these ports, or on free ones. Raises `OperatorError` for a taken port or a failed start."""
    site = Site(
        _checked(port, "--port") if port is not None else free_port(),
        _checked(tls_port, "--tls-port") if tls_port is not None else free_port(),
    )
    directory = Path(tempfile.mkdtemp(prefix="ztproxy-demo-"))
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        clients = (setting.client(site), setting.service(site))
        listening = _listen()
        # A name: browsers have no security keys for an address.
        issuer = f"http://localhost:{_port_of(listening)}"
        provider = create_provider(issuer, clients, PEOPLE)
        await _serve(stack, provider, listening)
        ports = {"operations": free_port(), "admin_api": free_port()}
        for name in HEADERS_APPS:
            # An audience for each: an assertion for one app is worth nothing at another.
            app, sockets = headers_app(site.jwks_url, site.origin(name)), [_listen()]
            ports[name] = _port_of(sockets[0])
            if name == "home":
                sockets.append(_listen())
                ports["home_twin"] = _port_of(sockets[1])
            await _serve(stack, app, *sockets)
        listening = _listen()
        ports["live"] = _port_of(listening)
        await _serve(stack, live_app(), listening)
        config = setting.write(directory, site, issuer, clients, ports, workers)
        proxy = await _start_proxy(stack, config)
        admin = Admin(f"http://{_HOST}:{ports['admin_api']}", directory / "state" / local_token.FILE)
        demo = Demo(
            site=site,
            issuer=issuer,
            directory=directory,
            config=config,
            authority=directory / "site-ca.pem",
            operations=ports["operations"],
            admin=admin,
            provider=provider[STATE],
            proxy=proxy,
        )
        await _answering(demo)
        yield demo


def _checked(port: int, option: str) -> int:
    """`port`, if nobody has it. The proxy's listeners may share a port, so it would not notice itself."""
    try:
        _listen(port).close()
    except (OSError, OverflowError) as error:
        why = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
        raise OperatorError(f"port {port} cannot be used: {why}", f"choose another with `{option}`") from None
    return port


def free_port() -> int:
    """A port that is free now, from below those the kernel gives to outgoing connections: one of them could
    otherwise take it before the proxy is up."""
    while True:
        with contextlib.suppress(OSError), _listen(20_000 + secrets.randbelow(12_000)) as listening:
            return _port_of(listening)


def _listen(port: int = 0) -> socket.socket:
    return socket.create_server((_HOST, port))


def _port_of(listening: socket.socket) -> int:
    port: int = listening.getsockname()[1]
    return port


async def _serve(stack: contextlib.AsyncExitStack, app: web.Application, *listening: socket.socket) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    for one in listening:
        await web.SockSite(runner, one).start()


async def _start_proxy(stack: contextlib.AsyncExitStack, config: Path) -> asyncio.subprocess.Process:
    with (config.parent / "proxy.log").open("wb") as log:
        # In a session of its own, so that Ctrl-C reaches this process alone and the end has an order.
        proxy = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ztproxy.cli", "run", str(config)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    stack.push_async_callback(_stop_proxy, proxy)
    return proxy


async def _stop_proxy(proxy: asyncio.subprocess.Process) -> None:
    """Asks it to end and waits. Killed, it takes its Valkey along, and its workers drain and follow."""
    try:
        if proxy.returncode is None:
            proxy.send_signal(signal.SIGTERM)
            await asyncio.wait_for(proxy.wait(), _STOP_SECONDS)
    except TimeoutError:
        proxy.kill()
        await proxy.wait()


async def _answering(demo: Demo) -> None:
    """Waits until the proxy serves, visitors and administrators: those are processes of their own."""
    until = asyncio.get_running_loop().time() + _START_SECONDS
    for serves in (_serves_visitors, _serves_administrators):
        while True:
            with contextlib.suppress(OSError, TimeoutError, aiohttp.ClientError):  # not yet
                if await serves(demo):
                    break
            if demo.proxy.returncode is not None:
                raise OperatorError(f"the proxy ended at once:\n{demo.last_words()}")
            if asyncio.get_running_loop().time() > until:
                raise OperatorError(
                    f"the proxy does not answer after {_START_SECONDS:.0f} s:\n{demo.last_words()}"
                )
            await asyncio.sleep(0.1)


async def _serves_visitors(demo: Demo) -> bool:
    url = f"http://{_HOST}:{demo.site.port}/.well-known/ztproxy/jwks.json"
    headers, timeout = {"Host": f"localhost:{demo.site.port}"}, aiohttp.ClientTimeout(total=2)
    async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url, headers=headers) as answer:
        return answer.status == 200


async def _serves_administrators(demo: Demo) -> bool:
    return (await demo.admin.ask("GET", "/whoami")).status == 200


def _last_words(directory: Path) -> str:
    lines = (directory / "proxy.log").read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-20:]) or "(it said nothing)"
