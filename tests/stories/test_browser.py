"""What people see and do, in a real Chromium: signing in and out, being refused, and every page of ours.

One demo with one worker (so that a sign-out is known to all of it at once) and one site with two providers
serve all stories; each story has a browser profile of its own. Whatever a page did against its own content
policy fails the story. Pictures, of failures too, are left in `build/screenshots`.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import pytest_asyncio

pytest.importorskip("playwright.async_api", reason="playwright is not installed")

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Error, Locator, Page, expect

from tests.stories.browsing import (
    CHROMIUM,
    DESKTOP,
    PHONE,
    Crossroads,
    browser,
    complaints,
    crossroads,
    sign_in,
    stops,
)
from ztproxy.demo.running import Demo, running

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no `chromium` on the PATH"),
    pytest.mark.asyncio(loop_scope="module"),
]

PICTURES = Path(__file__).parents[2] / "build/screenshots"
PATIENCE = 15_000
"""Milliseconds until something that does not happen is a failure."""

WINDOWS = {"desktop": DESKTOP, "phone": PHONE}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
APPS = "/.ztproxy/apps"
SESSION = "/.ztproxy/session"
SIGN_OUT = "/.ztproxy/sign_out"
SIGNED_OUT = "/.ztproxy/signed_out"


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs for all stories."""

    chromium: Browser
    demo: Demo
    crossroads: Crossroads

    def at(self, place: str) -> str:
        """The URL of `home/reports` at the demo, or of `crossroads:app/reports` at the other site."""
        site, _, rest = place.rpartition(":")
        name, slash, path = rest.partition("/")
        return (self.crossroads if site else self.demo.site).origin(name) + slash + path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    PICTURES.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=PATIENCE)
    async with running(None, workers=1) as demo, crossroads() as site, browser() as chromium:
        yield Stage(chromium, demo, site)


@pytest_asyncio.fixture(loop_scope="module")
async def context(stage: Stage, request: pytest.FixtureRequest) -> AsyncIterator[BrowserContext]:
    """A profile that has been nowhere yet, with the options of the test's `param`."""
    fresh = await stage.chromium.new_context(viewport=DESKTOP, **getattr(request, "param", {}))
    fresh.set_default_timeout(PATIENCE)
    violations: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            violations.append(message.text)

    fresh.on("console", hear)
    failed = request.session.testsfailed
    yield fresh
    if request.session.testsfailed > failed:
        story = re.sub(r"\W+", "-", request.node.name).strip("-")
        for number, page in enumerate(fresh.pages):
            with contextlib.suppress(Error):  # the story's own failure is the one to be told
                await page.screenshot(path=PICTURES / f"failed-{story}-{number}.png")
    await fresh.close()
    assert violations == []


WITH_AND_WITHOUT_SCRIPTS = pytest.mark.parametrize(
    "context",
    [pytest.param({}, id="scripts"), pytest.param({"java_script_enabled": False}, id="no scripts")],
    indirect=True,
)
WITHOUT_SCRIPTS = pytest.mark.parametrize(
    "context", [pytest.param({"java_script_enabled": False}, id="no scripts")], indirect=True
)


async def enter(page: Page, url: str, person: str, method: str = "pwd") -> None:
    """Opens `url` as nobody, signs in, and is where one wanted to be."""
    await page.goto(url)
    await sign_in(page, person, method)
    await page.wait_for_url(url)


async def leave(page: Page, stage: Stage, host: str) -> None:
    """Signs out by the page for it."""
    await page.goto(stage.at(host + SIGN_OUT))
    await page.get_by_role("button", name="Sign out", exact=True).click()
    await page.wait_for_url(stage.at("login" + SIGNED_OUT) + "*")
    await expect(page.get_by_role("heading", level=1)).to_have_text("You are signed out")


# -- in ---------------------------------------------------------------------------------------------------


@WITH_AND_WITHOUT_SCRIPTS
async def test_after_the_password_one_is_on_the_page_one_wanted(
    stage: Stage, context: BrowserContext
) -> None:
    page = await context.new_page()
    await enter(page, stage.at("home/reports?year=2026&of=a%26b"), "alice")
    await expect(page.get_by_text("You are Alice Adams.")).to_be_visible()
    await expect(page.get_by_text("GET /reports?year=2026&of=a%26b", exact=True)).to_be_visible()


async def test_three_tabs_opened_before_the_sign_in_end_at_their_own_pages(
    stage: Stage, context: BrowserContext
) -> None:
    wanted = [stage.at(place) for place in ("home/a?tab=1", "live/", "finance/c?tab=3")]
    tabs = [await context.new_page() for _ in wanted]
    for tab, url in zip(tabs, wanted, strict=True):
        await tab.goto(url)
        assert tab.url.startswith(stage.demo.issuer)
    for tab, url in reversed(list(zip(tabs, wanted, strict=True))):
        await sign_in(tab, "bob", "mfa")
        await tab.wait_for_url(url)
    assert [tab.url for tab in tabs] == wanted
    await expect(tabs[0].get_by_text("GET /a?tab=1", exact=True)).to_be_visible()
    await expect(tabs[1].get_by_role("heading", level=1)).to_have_text("Live connections")
    await expect(tabs[2].get_by_text("GET /c?tab=3", exact=True)).to_be_visible()


@WITH_AND_WITHOUT_SCRIPTS
async def test_who_cancels_is_told_so_and_can_start_again(stage: Stage, context: BrowserContext) -> None:
    page = await context.new_page()
    await page.goto(stage.at("home/reports"))
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("This sign-in did not work")
    await page.get_by_role("link", name="Sign in again").click()
    await sign_in(page, "alice")
    await page.wait_for_url(stage.at("home/reports"))


@pytest.mark.parametrize(
    ("title", "provider"),
    [
        pytest.param("Example Corp", "corp", id="the first"),
        pytest.param("Partners and suppliers", "partners", id="the second"),
    ],
)
@WITHOUT_SCRIPTS
async def test_a_provider_is_chosen_by_the_keyboard(
    stage: Stage, context: BrowserContext, title: str, provider: str
) -> None:
    page = await context.new_page()
    await page.goto(stage.at("crossroads:app/reports?year=2026"))
    await expect(page.get_by_role("main")).to_contain_text("app.localhost")
    choices = page.get_by_role("main").get_by_role("link")
    assert await choices.all_inner_texts() == ["Example Corp", "Partners and suppliers"]
    await _tab_to(page, title)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{stage.crossroads.issuers[provider]}/**")
    await sign_in(page, "alice")
    await page.wait_for_url(stage.at("crossroads:app/reports?year=2026"))
    await page.goto(stage.at(f"crossroads:app{SESSION}"))
    await expect(_row(page, "Signed in at")).to_have_text(stage.crossroads.issuers[provider])


@WITH_AND_WITHOUT_SCRIPTS
async def test_an_app_that_wants_a_one_time_code_gets_one(stage: Stage, context: BrowserContext) -> None:
    page = await context.new_page()
    await enter(page, stage.at("home/"), "bob")
    await page.goto(stage.at("finance/users?page=2"))
    await expect(page.get_by_text("asks for: Password and one-time code")).to_be_visible()
    await expect(page.get_by_label("Password and one-time code", exact=True)).to_be_checked()
    await sign_in(page, "bob", "mfa")
    await page.wait_for_url(stage.at("finance/users?page=2"))
    await expect(page.get_by_role("row", name="acr urn:ztproxy:demo:mfa")).to_be_visible()
    await page.goto(stage.at("finance" + SESSION))
    await expect(_row(page, "Strength")).to_contain_text("rank 2")


async def test_a_password_again_is_not_a_one_time_code(stage: Stage, context: BrowserContext) -> None:
    page = await context.new_page()
    await enter(page, stage.at("home/"), "bob")
    await page.goto(stage.at("finance/"))
    for _ in range(2):  # the provider is asked once more, in case it had only remembered
        await sign_in(page, "bob", "pwd")
    await expect(page.get_by_role("heading", level=1)).to_have_text("This sign-in was not strong enough")
    await page.get_by_role("link", name="Try once more").click()
    await sign_in(page, "bob", "mfa")
    await page.wait_for_url(stage.at("finance/"))


# -- who is in --------------------------------------------------------------------------------------------


@WITHOUT_SCRIPTS
async def test_a_denied_page_says_why_and_leads_on_by_the_keyboard(
    stage: Stage, context: BrowserContext
) -> None:
    page = await context.new_page()
    await enter(page, stage.at("home/"), "alice")
    answer = await page.goto(stage.at("finance/reports"))
    assert answer is not None and answer.status == 403
    await expect(page.get_by_role("heading", level=1)).to_have_text("You cannot open this")
    await expect(page.get_by_role("main")).to_contain_text("not in a group")
    await expect(page.get_by_role("main")).to_contain_text("You are signed in as alice@example.com.")
    await expect(page.get_by_role("main")).to_contain_text("ask carol@example.com")
    await expect(page.get_by_role("contentinfo")).to_have_text(re.compile(r"^\s*Request [\w-]{8,}\s*$"))
    seen = await stops(page)
    assert [stop["text"] for stop in seen][-2:] == ["My apps", "Use another account"]
    assert all(stop["outline"] >= 2 for stop in seen), seen
    await page.reload()
    await _tab_to(page, "My apps")
    await page.keyboard.press("Enter")
    await page.wait_for_url(stage.at("finance" + APPS))
    await expect(page.get_by_role("heading", level=1)).to_have_text("My apps")


@WITHOUT_SCRIPTS
async def test_my_apps_are_those_i_may_open(stage: Stage, context: BrowserContext) -> None:
    page = await context.new_page()
    await enter(page, stage.at("home" + APPS), "bob", "mfa")
    titles = page.get_by_role("main").locator("li strong")
    assert await titles.all_inner_texts() == ["Home", "Live", "Finance", "Payroll"]
    await page.get_by_role("link", name=re.compile("^Finance")).click()
    await page.wait_for_url(stage.at("finance/"))
    await expect(page.get_by_text("You are Bob Brown.")).to_be_visible()


@WITHOUT_SCRIPTS
async def test_my_session_says_who_i_am(stage: Stage, context: BrowserContext) -> None:
    page = await context.new_page()
    await enter(page, stage.at("home" + SESSION), "bob")
    await expect(_row(page, "Name")).to_have_text("Bob Brown")
    await expect(_row(page, "E-mail")).to_have_text("bob@example.com")
    await expect(_row(page, "Signed in at")).to_have_text(stage.demo.issuer)
    await expect(_row(page, "Strength")).to_contain_text("rank 1")
    await expect(page.get_by_role("main").locator("code")).to_have_text(["finance"])


async def test_what_is_live_ticks_and_answers(stage: Stage, context: BrowserContext) -> None:
    page = await context.new_page()
    await enter(page, stage.at("live/"), "alice")
    await expect(page.locator("#events-state")).to_have_text("open")
    await expect(page.locator("#ws-state")).to_have_text("open")
    again = re.compile(r"^tick ([2-9]|\d\d)")
    await expect(page.locator("#events-last")).to_have_text(again)
    await expect(page.locator("#ws-last")).to_have_text(again)
    await page.get_by_label("Say something").fill("grüß Gott")
    await page.get_by_role("button", name="Send").click()
    await expect(page.locator("#ws-echo")).to_have_text("grüß Gott")


# -- out --------------------------------------------------------------------------------------------------


@WITH_AND_WITHOUT_SCRIPTS
async def test_signed_out_in_one_tab_is_signed_out_in_the_other(
    stage: Stage, context: BrowserContext
) -> None:
    one, other = await context.new_page(), await context.new_page()
    await enter(one, stage.at("home/"), "alice")
    await other.goto(stage.at("live/"))
    await expect(other.get_by_role("heading", level=1)).to_have_text("Live connections")
    await leave(one, stage, "home")
    await other.reload()
    assert other.url.startswith(stage.demo.issuer)
    await sign_in(other, "bob")
    await other.wait_for_url(stage.at("live/"))
    await one.goto(stage.at("home" + SESSION))
    await expect(_row(one, "E-mail")).to_have_text("bob@example.com")


async def test_going_back_after_the_sign_out_shows_nothing_private(
    stage: Stage, context: BrowserContext
) -> None:
    page = await context.new_page()
    await enter(page, stage.at("home/"), "bob")
    await page.goto(stage.at("home" + SESSION))
    await page.goto(stage.at("home" + APPS))
    await page.go_back(wait_until="commit")
    await expect(page.get_by_text("bob@example.com")).to_be_visible()  # signed in, going back shows it
    await leave(page, stage, "home")
    devtools = await context.new_cdp_session(page)
    history = await devtools.send("Page.getNavigationHistory")
    private = {stage.at(place) for place in ("home/", "home" + SESSION, "home" + SIGN_OUT)}
    left = {entry["url"]: entry["id"] for entry in history["entries"] if entry["url"] in private}
    assert left.keys() == private
    for url in (stage.at("home/"), stage.at("home" + SESSION)):
        await devtools.send("Page.navigateToHistoryEntry", {"entryId": left[url]})
        await page.wait_for_url(f"{stage.demo.issuer}/**", wait_until="commit")  # asked to sign in
        await expect(page.get_by_text("bob@example.com")).to_have_count(0)
    await devtools.send("Page.navigateToHistoryEntry", {"entryId": left[stage.at("home" + SIGN_OUT)]})
    await page.wait_for_url(stage.at("home" + SIGN_OUT), wait_until="commit")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Sign out?")
    await expect(page.get_by_text("bob@example.com")).to_have_count(0)


# -- every page of ours -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("person", "place", "status", "heading"),
    [
        pytest.param("", "crossroads:app/reports", 200, "Sign in to continue", id="chooser"),
        pytest.param("", "crossroads:down/", 502, "This does not work at the moment", id="app-down"),
        pytest.param("", "crossroads:elsewhere/", 421, None, id="no-such-host"),
        pytest.param("", "login/.ztproxy/callback/default?state=x&code=y", 400, None, id="sign-in-failed"),
        pytest.param("", "login" + SIGNED_OUT, 200, "You are signed out", id="signed-out"),
        pytest.param("bob", "home" + APPS, 200, "My apps", id="apps"),
        pytest.param("mallory", "login" + APPS, 200, "My apps", id="no-apps"),
        pytest.param("bob", "home" + SESSION, 200, "My session", id="session"),
        pytest.param("bob", "home" + SIGN_OUT, 200, "Sign out?", id="sign-out"),
        pytest.param("bob", "home/.ztproxy/nothing", 404, None, id="no-such-page"),
        pytest.param("bob", "console/", 403, "You cannot open this", id="denied"),
    ],
)
@WITHOUT_SCRIPTS
async def test_everyone_can_use_the_page(
    stage: Stage,
    context: BrowserContext,
    request: pytest.FixtureRequest,
    person: str,
    place: str,
    status: int,
    heading: str | None,
) -> None:
    page = await context.new_page()
    if person:
        await enter(page, stage.at("login" + SESSION), person)
    answer = await page.goto(stage.at(place))
    assert answer is not None and answer.status == status
    if heading is not None:
        await expect(page.get_by_role("heading", level=1)).to_have_text(heading)
    found = {}
    name = request.node.callspec.id.removeprefix("no scripts-")
    for (window, size), scheme in itertools.product(WINDOWS.items(), SCHEMES):
        await page.set_viewport_size({"width": size["width"], "height": size["height"]})
        await page.emulate_media(color_scheme=scheme)
        await page.screenshot(path=PICTURES / f"{name}-{window}-{scheme}.png", animations="disabled")
        found[window, scheme] = await complaints(page)
    assert not any(found.values()), found
    unseen = [stop for stop in await stops(page) if stop["outline"] < 2]
    assert unseen == []


async def _tab_to(page: Page, text: str) -> None:
    """Presses Tab until the focus is on what is called so."""
    target = page.get_by_role("main").get_by_role("link", name=text)
    for _ in range(await page.locator("a[href], button, input").count()):
        await page.keyboard.press("Tab")
        if await target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"the Tab key does not reach `{text}`")


def _row(page: Page, term: str) -> Locator:
    """The value of one row of a list of terms."""
    return page.locator("dt", has_text=re.compile(f"^{term}$")).locator("xpath=following-sibling::dd[1]")
