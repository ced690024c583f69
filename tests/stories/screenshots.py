"""Pictures of the real pages, for the documentation: `python -m tests.stories.screenshots [FOLDER]`.

Takes each page of the list in light and dark, at a desk and on a phone, from a running demo. The folder is
`build/screenshots` unless another is named; those that `docs/pages.md` and `docs/console.md` show are copied
to `docs/screenshots` by hand. Leaves judging the pages to `test_browser` and `test_console_story`.
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
from ztproxy.demo.people import ALICE, BOB, MALLORY
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
        await _open(page, demo.site.origin("console") + "/", 403)
        await take("denied")
        await _open(page, demo.site.origin("home") + "/.ztproxy/sign_out", 200)
        await take("sign-out")
        await _sign_out(page, demo.site.origin("home"))
        await take("signed-out")


_BROWSERS = (
    ("alice", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("alice", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) Version/18.5 Mobile Safari/604.1"),
    ("bob", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/18.5 Safari/605.1.15"),
    ("mallory", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/140.0.0.0 Safari/537.36"),
)


async def bustle(stack: contextlib.AsyncExitStack, chromium: Browser, demo: Demo) -> dict[str, Page]:
    """Something for the console to show: people, each in a browser of their own, a revocation and locks."""
    pages = {}
    for name, agent in _BROWSERS:
        context = await chromium.new_context(user_agent=agent)
        stack.push_async_callback(context.close)
        pages[name] = page = await context.new_page()
        for app in ("home", "finance", "public"):
            await page.goto(demo.site.origin(app) + "/")
            if page.url.startswith(demo.issuer):
                await sign_in(page, name)
                await page.wait_for_url(demo.site.origin(app) + "/")
    lost = (await demo.admin.ask("GET", f"/sessions?text={BOB.email}")).body["sessions"][0]["id"]
    await demo.admin.revoke("session", lost, reason="laptop left on a train")
    await demo.admin.lock(
        "require_step_up", "group", "finance", expires_in=36_000, reason="end of the quarter"
    )
    await demo.admin.lock(
        *("deny", "user", MALLORY.sub, demo.issuer),
        expires_in=36_000,
        reason="ticket 4711",
        message="Your account is suspended while we look into something. Please call 4711.",
    )
    return pages


async def walk_console(
    chromium: Browser, demo: Demo, people: dict[str, Page], folder: Path, look: str, scheme: Scheme
) -> None:
    """Carol's way through the console, with one look, and what the person reads whom she has locked out."""
    async with contextlib.AsyncExitStack() as stack:
        context = await chromium.new_context(
            viewport=WINDOWS[look], color_scheme=scheme, device_scale_factor=2 if look == "phone" else 1
        )
        stack.push_async_callback(context.close)
        page = await context.new_page()
        console = demo.site.origin("console") + "/console"

        async def take(name: str, of: Page = page) -> None:
            await of.screenshot(path=folder / f"{name}-{look}-{scheme}.png", animations="disabled")

        await _open(page, f"{console}/sessions", 200)
        await sign_in(page, "carol", "mfa")
        await page.wait_for_url(f"{console}/sessions")
        await take("console-sessions")
        await page.get_by_role("row", name=ALICE.email).first.get_by_text("all of this person").click()
        await take("console-confirmation")
        await _open(page, f"{console}/locks", 200)
        await take("console-locks")
        await _open(page, f"{console}/decisions?denied=yes", 200)
        await take("console-decisions")
        await _open(page, f"{console}/status", 200)
        await take("console-status")
        await _sign_out(page, demo.site.origin("console"))
        mallory = people["mallory"]
        await mallory.set_viewport_size(WINDOWS[look])
        await mallory.emulate_media(color_scheme=scheme)
        await _open(mallory, demo.site.origin("home") + "/", 403)
        await take("locked", mallory)


async def _sign_out(page: Page, origin: str) -> None:
    await _open(page, f"{origin}/.ztproxy/sign_out", 200)
    await page.get_by_role("button", name="Sign out", exact=True).click()
    await page.wait_for_url("**/.ztproxy/signed_out*")


async def _open(page: Page, url: str, status: int) -> None:
    answer = await page.goto(url)
    if answer is None or answer.status != status:
        raise RuntimeError(f"`{url}` answers {answer and answer.status}, not {status}")


async def main(folder: Path) -> None:
    async with running(None) as demo, crossroads() as site, browser() as chromium:
        for look, scheme in itertools.product(WINDOWS, SCHEMES):
            await walk(chromium, demo, site, folder, look, scheme)
    async with running(None) as demo, browser() as chromium, contextlib.AsyncExitStack() as stack:
        people = await bustle(stack, chromium, demo)
        for look, scheme in itertools.product(WINDOWS, SCHEMES):
            await walk_console(chromium, demo, people, folder, look, scheme)


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    where.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(where))
