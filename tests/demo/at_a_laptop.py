"""A person in front of a laptop: Chromium with a virtual security key, and `ztproxy device` beside it.

Knows: the demo, and where its pages lead. Promises: what was started here has ended when the context is left.
Leaves judging the pages to `test_devices_browser`, and taking their pictures to `pictures`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from playwright.async_api import Browser, Page, expect

from tests.stories.browsing import DESKTOP, security_key, sign_in
from ztproxy.demo.running import Demo

PATIENCE = 15_000
"""Milliseconds until something that does not happen is a failure."""

NODE_OPTIONS = f"--require={Path(__file__).with_name('localhost.cjs')}"
"""For Playwright's own process, where the system does not know `*.localhost`."""


@contextlib.asynccontextmanager
async def laptop(chromium: Browser, demo: Demo, directory: Path | None = None) -> AsyncIterator[Page]:
    """A tab of a profile that has been nowhere yet, with a security key, on the laptop enrolled in
    `directory`."""
    context = await chromium.new_context(
        viewport={"width": DESKTOP["width"], "height": DESKTOP["height"]},
        ignore_https_errors=True,
        client_certificates=None
        if directory is None
        else [
            {
                "origin": demo.site.origin("admin"),
                "certPath": directory / "device.pem",
                "keyPath": directory / "device.key",
            }
        ],
    )
    context.set_default_timeout(PATIENCE)
    try:
        page = await context.new_page()
        await security_key(page)
        yield page
    finally:
        await context.close()


async def enrol(demo: Demo, page: Page, directory: Path, look: Callable[[], Awaitable[None]]) -> str:
    """Runs `ztproxy device enroll`, and confirms in the browser what it asks; what it said. `look` is called
    when the page to confirm is there."""
    tool = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ztproxy.cli", "device", "enroll", demo.site.bare_tls, "--no-browser"),
        *("--ca-file", str(demo.authority), "--directory", str(directory), "--name", "carol's laptop"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = ""
    try:
        assert tool.stdout is not None
        while "/.ztproxy/devices/enroll?" not in said:
            line = await asyncio.wait_for(tool.stdout.readline(), 20)
            assert line, said
            said += line.decode()
        code, url = said.split("code: ")[1].split()[0], said.split()[-1]
        await page.goto(url)
        await sign_in(page, "carol", "mfa")
        await expect(page.get_by_text(code)).to_be_visible()
        await look()
        await page.get_by_role("button", name="The code is the same: enrol").click()
        await expect(page.get_by_text("This device was vouched for")).to_be_visible()
        said += (await asyncio.wait_for(tool.stdout.read(), 20)).decode()
        assert await tool.wait() == 0, said
    finally:
        with contextlib.suppress(ProcessLookupError):
            tool.kill()
        await tool.wait()
    return said
