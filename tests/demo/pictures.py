"""Pictures of what is about devices, for the documentation: `python -m tests.demo.pictures [FOLDER]`.

Takes each page once, at a desk and in light, as `tests.stories.screenshots` takes all others; those that the
documentation shows are copied to `docs/screenshots` by hand.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from playwright.async_api import Page, expect

from tests.demo.at_a_laptop import NODE_OPTIONS, enrol, laptop
from tests.stories.browsing import browser, sign_in
from ztproxy.demo.running import running

FOLDER = Path(__file__).parents[2] / "build/screenshots"


async def main(folder: Path, device: Path) -> None:
    os.environ["NODE_OPTIONS"] = NODE_OPTIONS

    async def take(page: Page, name: str) -> None:
        await page.screenshot(path=folder / f"{name}-desktop-light.png", animations="disabled")

    async with running(None, workers=1) as demo, browser() as chromium:
        admin, home = demo.site.origin("admin") + "/", demo.site.origin("home") + "/"
        async with laptop(chromium, demo) as page:
            await page.goto(home)
            await sign_in(page, "carol", "mfa")
            await page.wait_for_url(home)
            await page.goto(admin)
            await take(page, "device-required")
        async with laptop(chromium, demo) as page:
            await enrol(demo, page, device, lambda: take(page, "enroll"))
            await page.goto(demo.site.origin("login") + "/.ztproxy/devices")
            await take(page, "devices")
        async with laptop(chromium, demo, device) as page:
            await page.goto(home)
            await sign_in(page, "carol")
            await page.wait_for_url(home)
            await page.goto(admin)
            await take(page, "step-up")
            await page.get_by_label("Type the password").fill("carol")
            await page.get_by_role("button", name="Sign in").click()
            await expect(page.get_by_role("heading", level=1)).to_have_text("Register a security key")
            await take(page, "security-key")
            await page.get_by_role("button", name="Register the key").click()
            await page.get_by_role("button", name="Use the key").click()
            await page.wait_for_url(admin)
            await take(page, "device-app")


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    where.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(main(where, Path(temporary) / "device"))
