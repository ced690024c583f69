"""The admin console in a real Chromium, reached through ztproxy itself: who is signed in, and what ends it.

Carol is the administrator, Alice and Bob are those who are looked after; each has a browser profile of their
own. One demo serves all stories, so a story looks for its own sessions among those of others. Whatever a page
did against its own content policy fails the story.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal

import pytest
import pytest_asyncio

pytest.importorskip("playwright.async_api", reason="playwright is not installed")

from playwright.async_api import Browser, ConsoleMessage, Locator, Page, ViewportSize, expect

from tests.stories.browsing import CHROMIUM, DESKTOP, PHONE, browser, complaints, sign_in
from ztproxy.demo.people import ALICE, BOB
from ztproxy.demo.running import Demo, running

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no `chromium` on the PATH"),
    pytest.mark.asyncio(loop_scope="module"),
]

PATIENCE = 15_000
"""Milliseconds until something that does not happen is a failure."""

WINDOWS: dict[str, ViewportSize] = {
    "desktop": {"width": DESKTOP["width"], "height": DESKTOP["height"]},
    "phone": {"width": PHONE["width"], "height": PHONE["height"]},
}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
MESSAGE = "Your account is being looked at. Please call 4711."


@dataclass(slots=True)
class Stage:
    """What runs for all stories, and the profiles of one of them."""

    chromium: Browser
    demo: Demo
    profiles: AsyncExitStack = field(default_factory=AsyncExitStack)
    violations: list[str] = field(default_factory=list)

    def at(self, place: str) -> str:
        """The URL of `home/reports`."""
        name, slash, path = place.partition("/")
        return self.demo.site.origin(name) + slash + path

    async def person(self, name: str, place: str, method: str = "pwd", *, scripts: bool = True) -> Page:
        """Somebody in a profile of their own, signed in and at `place`."""
        profile = await self.chromium.new_context(viewport=WINDOWS["desktop"], java_script_enabled=scripts)
        self.profiles.push_async_callback(profile.close)
        profile.set_default_timeout(PATIENCE)
        profile.on("console", lambda message: self._hear(message))
        page = await profile.new_page()
        await page.goto(self.at(place))
        await sign_in(page, name, method)
        await page.wait_for_url(self.at(place) + "**")
        return page

    async def carol(self, place: str = "console/console/sessions", *, scripts: bool = True) -> Page:
        return await self.person("carol", place, "mfa", scripts=scripts)

    def _hear(self, message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            self.violations.append(message.text)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[Stage]:
    expect.set_options(timeout=PATIENCE)
    async with running(None) as demo, browser() as chromium:
        yield Stage(chromium, demo)


@pytest_asyncio.fixture(loop_scope="module")
async def stage(house: Stage) -> AsyncIterator[Stage]:
    # The story before may have revoked somebody as a person. A provider tells in whole seconds when somebody
    # proved themselves, and within the same second nobody can tell whether it was since.
    await asyncio.sleep(1.0 - time.time() % 1.0)
    yield house
    await house.profiles.aclose()
    violations = list(house.violations)
    house.violations.clear()
    assert violations == []


WITH_AND_WITHOUT_SCRIPTS = pytest.mark.parametrize(
    "scripts", [pytest.param(True, id="scripts"), pytest.param(False, id="no scripts")]
)


async def session_of(page: Page, stage: Stage) -> str:
    """The public id of the session of whoever looks at `page`."""
    tab = await page.context.new_page()
    await tab.goto(stage.at("login/.ztproxy/session"))
    found = tab.locator("dt", has_text=re.compile("^Session$")).locator("xpath=following-sibling::dd[1]")
    session = await found.inner_text()
    await tab.close()
    return session


def row_of(page: Page, session: str) -> Locator:
    return page.get_by_role("row").filter(has=page.locator(f'a[href="/console/sessions/{session}"]'))


async def is_in(page: Page) -> bool:
    """Whether home's app is still reached with the session that `page` was opened with. A reload would tell
    nothing: where one session ended and the provider still knows the person, another begins in a moment."""
    status: int = await page.evaluate("() => fetch('/json').then((answer) => answer.status)")
    assert status in (200, 401)
    return status == 200


async def ends(page: Page, headline: str, said: str) -> None:
    """Walks the page that counts, and reads what came of it."""
    await expect(page.get_by_role("heading", level=1)).to_have_text(headline)
    await page.get_by_label("Reason, for the record").fill("a story")
    await page.locator("#confirm").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Revoked")
    await expect(page.get_by_role("main")).to_contain_text(said)


# -- sessions ---------------------------------------------------------------------------------------------


@WITH_AND_WITHOUT_SCRIPTS
async def test_carol_finds_a_session_and_ends_it(stage: Stage, scripts: bool) -> None:
    alice, bob = await stage.person("alice", "home/"), await stage.person("bob", "home/")
    his, hers = await session_of(bob, stage), await session_of(alice, stage)
    carol = await stage.carol(scripts=scripts)
    await expect(carol.get_by_role("heading", level=1)).to_have_text("Sessions")
    await expect(row_of(carol, hers)).to_contain_text("Chrome on Linux")
    await expect(carol.get_by_role("row").filter(has_text="your own")).to_have_count(1)
    await carol.get_by_role("searchbox").press_sequentially("bob@")
    if not scripts:
        await carol.get_by_role("button", name="Search").click()
    await expect(row_of(carol, hers)).to_have_count(0)
    row = row_of(carol, his)
    await expect(row).to_contain_text("Bob Brown")
    await row.get_by_role("link", name="this session").click()
    await ends(carol, "End 1 session of bob@example.com?", "It holds everywhere, and met 1 session.")
    assert not await is_in(bob)
    assert await is_in(alice)
    await carol.goto(stage.at("console/console/locks"))
    newest = carol.get_by_role("table", name="What ended sessions, newest first").get_by_role("row").nth(1)
    await expect(newest).to_contain_text("a story")
    await expect(newest).to_contain_text("person:carol@example.com")


async def test_carol_ends_those_she_ticks(stage: Stage) -> None:
    browsers = [await stage.person("bob", "home/") for _ in range(3)]
    sessions = [await session_of(page, stage) for page in browsers]
    carol = await stage.carol(scripts=False)
    for session in sessions[:2]:
        await row_of(carol, session).get_by_role("checkbox").check()
    await carol.get_by_role("button", name="End selected sessions").click()
    shown = carol.get_by_role("table", name="Whom it meets").get_by_role("row")
    await expect(shown).to_have_count(1 + 2)
    await ends(carol, "End 2 sessions of bob@example.com?", "It holds everywhere, and met 2 sessions.")
    assert [await is_in(page) for page in browsers] == [False, False, True]


@WITH_AND_WITHOUT_SCRIPTS
async def test_what_is_open_ends_with_the_person(stage: Stage, scripts: bool) -> None:
    alice = await stage.person("alice", "live/")
    await expect(alice.locator("#ws-state")).to_have_text("open")
    await expect(alice.locator("#events-state")).to_have_text("open")
    session = await session_of(alice, stage)
    carol = await stage.carol(scripts=scripts)
    await row_of(carol, session).get_by_role("link", name="all of this person").click()
    counted = re.compile(r"^End \d+ sessions? of alice@example\.com\?$")
    await expect(carol.get_by_role("heading", level=1)).to_have_text(counted)
    await carol.locator("#confirm").click()
    await expect(carol.get_by_role("main")).to_contain_text("It holds everywhere")
    await expect(alice.locator("#ws-state")).to_have_text("closed (1008 access ended)")
    await expect(alice.locator("#events-state")).to_have_text("refused")
    await alice.reload()
    assert alice.url.startswith(stage.demo.issuer)  # as a person she must show again who she is


async def test_whoever_may_only_look_is_offered_nothing_else(stage: Stage) -> None:
    alice = await stage.person("alice", "console/console/sessions")
    await expect(alice.get_by_role("contentinfo")).to_contain_text("alice@example.com, viewer")
    await expect(alice.get_by_role("row").filter(has_text="your own")).to_have_count(1)
    for name in ("End selected sessions", "this session", "all of this person"):
        await expect(alice.get_by_text(name)).to_have_count(0)
    await alice.goto(stage.at("console/console/locks"))
    await expect(alice.locator("#new-lock")).to_have_count(0)
    answer = await alice.goto(stage.at("console/console/locks/new"))
    assert answer is not None and answer.status == 403


# -- locks ------------------------------------------------------------------------------------------------


@WITH_AND_WITHOUT_SCRIPTS
async def test_a_locked_person_reads_why_until_the_lock_is_lifted(stage: Stage, scripts: bool) -> None:
    bob = await stage.person("bob", "home/")
    carol = await stage.carol(scripts=scripts)
    await row_of(carol, await session_of(bob, stage)).get_by_role("link", name=BOB.email).click()
    await carol.get_by_role("link", name="Lock this person").click()
    await expect(carol.get_by_label("Name")).to_have_value(BOB.sub)
    await carol.get_by_label("Message, for the person").fill(MESSAGE)
    await carol.get_by_label("Reason, for the record").fill("a lost laptop")
    await carol.locator("#check").click()
    await expect(carol.get_by_role("alert")).to_contain_text("say when it ends")
    await expect(carol.get_by_label("Message, for the person")).to_have_value(MESSAGE)
    await carol.get_by_label("Ends at (UTC)").fill(_tomorrow())
    await carol.locator("#check").click()
    await expect(carol.get_by_role("main")).to_contain_text(re.compile(r"It meets \d+ sessions? now"))
    await bob.reload()
    await expect(bob.get_by_text("You are Bob Brown.")).to_be_visible()  # nothing was done yet
    await carol.get_by_role("button", name="Make this lock").click()
    await expect(carol.get_by_role("heading", level=1)).to_have_text("Locked")

    await bob.reload()
    await expect(bob.get_by_role("heading", level=1)).to_have_text("Access is suspended")
    await expect(bob.get_by_role("main")).to_contain_text(MESSAGE)
    await expect(bob.get_by_text("lost laptop")).to_have_count(0)

    await carol.get_by_role("link", name="Back to the locks").click()
    standing = carol.get_by_role("table", name="Locks that can be lifted").get_by_role("row")
    await standing.filter(has_text=BOB.sub).get_by_role("link", name="lift").click()
    await carol.get_by_role("button", name="Lift this lock").click()
    await expect(carol.get_by_role("heading", level=1)).to_have_text("Lifted")
    await bob.reload()
    await expect(bob.get_by_text("You are Bob Brown.")).to_be_visible()


def _tomorrow() -> str:
    return time.strftime("%Y-%m-%dT%H:%M", time.gmtime(time.time() + 86_400))


# -- decisions --------------------------------------------------------------------------------------------


async def test_decisions_come_as_they_are_made(stage: Stage) -> None:
    carol = await stage.carol("console/console/decisions?denied=yes")
    alice = await stage.person("alice", "home/")
    await alice.goto(stage.at("finance/as-it-happens"))
    row = carol.get_by_role("row").filter(has_text="/as-it-happens")
    await expect(row).to_contain_text("group_missing")
    await expect(row).to_contain_text(ALICE.email)
    await carol.get_by_role("link", name="Stop following").click()
    await expect(carol.get_by_role("link", name="Follow", exact=True)).to_be_visible()
    await expect(carol.get_by_label("Only what was denied")).to_be_checked()


async def test_without_scripts_decisions_come_on_reload(stage: Stage) -> None:
    carol = await stage.carol("console/console/decisions", scripts=False)
    alice = await stage.person("alice", "home/")
    await alice.goto(stage.at("finance/on-reload"))
    row = carol.get_by_role("row").filter(has_text="/on-reload")
    async with asyncio.timeout(PATIENCE / 1000):
        while not await row.count():
            await carol.get_by_role("link", name="Reload").click()
    await carol.get_by_label("Person").fill("bob@")
    await carol.get_by_role("button", name="Show").click()
    await expect(row).to_have_count(0)


# -- every page of it -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "status"),
    [
        pytest.param("sessions", 200, id="sessions"),
        pytest.param("sessions?text=nobody-is-called-so", 200, id="no-sessions"),
        pytest.param("sessions/{session}", 200, id="one-session"),
        pytest.param("revoke?kind=session&name={session}", 200, id="confirmation"),
        pytest.param("revoke?kind=all", 200, id="everybody"),
        pytest.param("locks", 200, id="locks"),
        pytest.param("locks/new", 200, id="new-lock"),
        pytest.param("decisions", 200, id="decisions"),
        pytest.param("status", 200, id="status"),
        pytest.param("sessions/nobody-has-this-one", 404, id="problem"),
    ],
)
async def test_everyone_can_use_the_page(
    house: Stage, reading: tuple[Page, str], place: str, status: int
) -> None:
    carol, session = reading
    answer = await carol.goto(house.at("console/console/" + place.format(session=session)))
    assert answer is not None and answer.status == status
    found = {}
    for (window, size), scheme in itertools.product(WINDOWS.items(), SCHEMES):
        await carol.set_viewport_size(size)
        await carol.emulate_media(color_scheme=scheme)
        found[window, scheme] = await complaints(carol)
    assert not any(found.values()), found
    assert house.violations == []
    assert await unseen_stops(carol) == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reading(house: Stage) -> AsyncIterator[tuple[Page, str]]:
    """Carol, who looks at all pages, and the session of somebody whom they are about."""
    stage = Stage(house.chromium, house.demo, violations=house.violations)
    bob, carol = await stage.person("bob", "home/"), await stage.carol()
    yield carol, await session_of(bob, stage)
    await stage.profiles.aclose()


async def unseen_stops(page: Page) -> list[str]:
    """Where the Tab key stops, from the top until it leaves the page, and nothing shows that it did."""
    unseen: list[str] = []
    stopped = 0
    while True:
        await page.keyboard.press("Tab")
        here, outline = await page.evaluate(
            """() => {
                const here = document.activeElement, style = getComputedStyle(here);
                const outline = style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
                const again = here.dataset.stopped;
                here.dataset.stopped = "yes";
                return [here === document.body || again ? "" : here.outerHTML, outline];
            }"""
        )
        if not here:
            assert stopped, "the Tab key stops nowhere"
            return unseen
        stopped += 1
        if outline < 2:
            unseen.append(here)
