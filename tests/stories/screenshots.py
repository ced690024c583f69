"""Pictures of the real pages, for the documentation: `python -m tests.stories.screenshots [FOLDER]`.

Takes each page of the list in light and dark, at a desk and on a phone, from a running demo. The folder is
`build/screenshots` unless another is named; those that `docs/pages.md` shows are copied to
`docs/screenshots` by hand. Leaves judging the pages to `test_browser`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from pathlib import Path
from typing import Literal

from playwright.async_api import Browser, Page

from tests.stories.browsing import DESKTOP, PHONE, Crossroads, browser, crossroads, sign_in
from ztproxy.demo.running import Demo, running

FOLDER = Path(__file__).parents[2] / "build/screenshots"
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
WINDOWS = {"desktop": DESKTOP, "phone": PHONE}


async def walk(
    chromium: Browser, demo: Demo, site: Crossroads, folder: Path, look: str, scheme: Scheme
) -> None:
    """One person's way past every page, with one look."""
    async with contextlib.AsyncExitStack() as stack:
        context = await chromium.new_context(
            viewport=WINDOWS[look], color_scheme=scheme, device_scale_factor=2 if look == "phone" else 1
        )
        stack.push_async_callback(context.close)
        page = await context.new_page()

        async def take(name: str) -> None:
            await page.screenshot(path=folder / f"{name}-{look}-{scheme}.png", animations="disabled")

        await _open(page, site.origin("app") + "/reports", 200)
        await take("sign-in")
        await _open(page, site.origin("down") + "/", 502)
        await take("error")
        await _open(page, site.origin("elsewhere") + "/", 421)
        await take("not-found")
        await _open(page, demo.site.origin("home") + "/", 200)
        await take("provider")
        await sign_in(page, "bob")
        await page.wait_for_url(demo.site.origin("home") + "/")
        await take("app")
        await _open(page, demo.site.origin("home") + "/.ztproxy/apps", 200)
        await take("apps")
        await _open(page, demo.site.origin("home") + "/.ztproxy/session", 200)
        await take("session")
        await _open(page, demo.site.origin("admin") + "/", 403)
        await take("denied")
        await _open(page, demo.site.origin("home") + "/.ztproxy/sign_out", 200)
        await take("sign-out")
        await page.get_by_role("button", name="Sign out").click()
        await page.wait_for_url("**/.ztproxy/signed_out*")
        await take("signed-out")


async def _open(page: Page, url: str, status: int) -> None:
    answer = await page.goto(url)
    if answer is None or answer.status != status:
        raise RuntimeError(f"`{url}` answers {answer and answer.status}, not {status}")


async def main(folder: Path) -> None:
    async with running(None) as demo, crossroads() as site, browser() as chromium:
        for look, scheme in itertools.product(WINDOWS, SCHEMES):
            await walk(chromium, demo, site, folder, look, scheme)


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    where.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(where))
