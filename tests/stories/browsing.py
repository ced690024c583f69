"""A real Chromium, a person who uses it, and a second site with two providers and an app that is down.

Knows: where Debian keeps Chromium, how the demo provider's sign-in page is filled in. Promises: what was
started here has ended when the context is left. Leaves judging the pages to the stories.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from playwright.async_api import Browser, Page, async_playwright, expect

from ztproxy.adapters.keys import fresh_keys, write_private
from ztproxy.demo.apps import headers_app
from ztproxy.demo.people import ONE_TIME_CODE, PEOPLE
from ztproxy.demo.provider import Client, create_provider
from ztproxy.demo.running import free_port

CHROMIUM = shutil.which("chromium")
_ARGUMENTS = (
    "--no-sandbox",  # the tests' container has no user namespaces; what is opened is our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_CHECKS = Path(__file__).with_name("accessible.js").read_text(encoding="utf-8")

DESKTOP = {"width": 1100, "height": 720}
PHONE = {"width": 390, "height": 844}


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Chromium as people have it: with the cache for going back that Playwright would switch off."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=_ARGUMENTS,
            ignore_default_args=["--disable-back-forward-cache"],
        )
        yield chromium
        await chromium.close()


async def sign_in(page: Page, person: str, method: str = "pwd") -> None:
    """Fills in the demo provider's page, which is before the person's eyes. A security key has to be in the
    browser (`security_key`), and is registered if the person has none."""
    await page.locator(f'input[name="person"][value="{person}"]').check()
    await page.locator(f"#method-{method}").check()
    await page.get_by_label("Type the password").fill(person)
    if method == "mfa":
        await page.get_by_label("Type the one-time code").fill(ONE_TIME_CODE)
    await page.get_by_role("button", name="Sign in").click()
    if method == "phr":
        register = page.get_by_role("button", name="Register the key")
        use = page.get_by_role("button", name="Use the key")
        await expect(register.or_(use)).to_be_visible()
        if await register.is_visible():
            await register.click()
        await use.click()


async def security_key(page: Page) -> None:
    """Plugs a virtual security key into this tab: whoever is there touches it, and it verifies them."""
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("WebAuthn.enable")
    kind = {
        "protocol": "ctap2",
        "transport": "usb",
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    await devtools.send("WebAuthn.addVirtualAuthenticator", {"options": kind})


async def complaints(page: Page) -> list[str]:
    """What is wrong with the page for a person who sees little, or uses a keyboard or a screen reader."""
    found: list[str] = await page.evaluate(_CHECKS)
    return found


async def stops(page: Page) -> list[dict[str, Any]]:
    """Every place the Tab key stops at, in order: its `text`, and the `outline` that shows it."""
    found: list[dict[str, Any]] = []
    for _ in range(await page.locator("a[href], button, input, summary").count()):
        await page.keyboard.press("Tab")
        found.append(
            await page.evaluate(
                """() => {
                    const here = document.activeElement, style = getComputedStyle(here);
                    const outline = style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
                    return {text: here.textContent.trim(), outline};
                }"""
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class Crossroads:
    """A site without a login host: `app` is behind either of two providers, `down` behind nobody and dead."""

    port: int
    issuers: dict[str, str] = field(default_factory=dict)

    def origin(self, name: str) -> str:
        return f"http://{name}.localhost:{self.port}"


@contextlib.asynccontextmanager
async def crossroads() -> AsyncIterator[Crossroads]:
    """The site, answering."""
    site = Crossroads(free_port())
    directory = Path(tempfile.mkdtemp(prefix="ztproxy-test-"))
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        issuers = site.issuers
        for name in ("corp", "partners"):
            listening = socket.create_server(("127.0.0.1", 0))
            issuers[name] = f"http://127.0.0.1:{listening.getsockname()[1]}"
            client = Client(
                "crossroads",
                "a secret for a test",
                (f"{site.origin('app')}/.ztproxy/callback/{name}",),
                (f"{site.origin('app')}/.ztproxy/signed_out",),
            )
            await _serve(stack, create_provider(issuers[name], [client], PEOPLE), listening)
        listening = socket.create_server(("127.0.0.1", 0))
        keys = f"{site.origin('app')}/.well-known/ztproxy/jwks.json"
        await _serve(stack, headers_app(keys, site.origin("app")), listening)
        write_private(directory / "keys.yaml", fresh_keys())
        config = directory / "ztproxy.yaml"
        write_private(config, _config(site, issuers, listening.getsockname()[1]))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ztproxy.cli", "run", str(config)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        stack.push_async_callback(_end, process)
        await _answering(site, process)
        yield site


def _config(site: Crossroads, issuers: Mapping[str, str], app: int) -> str:
    providers = "".join(
        f"  - {{name: {name}, title: {title}, issuer: '{issuers[name]}', client_id: crossroads,"
        " client_secret: a secret for a test,\n"
        "     algorithm: ES256, scopes: [openid, profile, email, groups]}\n"
        for name, title in (("corp", "Example Corp"), ("partners", "Partners and suppliers"))
    )
    return f"""\
listen: 127.0.0.1:{site.port}
providers:
{providers}
state: embedded
state_dir: state
keys_file: keys.yaml
workers: 1
branding: {{name: Example, support: it@example.com}}
routes:
  - from: {site.origin("app")}
    to: http://127.0.0.1:{app}
    title: Home
    policy: [{{allow: {{domain: example.com}}}}]
  - from: {site.origin("down")}
    to: http://127.0.0.1:{free_port()}
    allow_public_unauthenticated_access: true
"""


async def _serve(stack: contextlib.AsyncExitStack, app: web.Application, listening: socket.socket) -> None:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, listening).start()


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), 10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def _answering(site: Crossroads, process: asyncio.subprocess.Process) -> None:
    url = f"http://127.0.0.1:{site.port}/.well-known/ztproxy/jwks.json"
    async with asyncio.timeout(30), aiohttp.ClientSession() as http:
        while process.returncode is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(url, headers={"Host": f"app.localhost:{site.port}"}) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)
    raise RuntimeError(f"the proxy ended with {process.returncode}")
