"""Who may come in, and whose form counts: links, assertions, cookies, and everything that pretends to be."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import urlencode

import pytest
import trustme

from tests.core.words import NOW
from tests.surfaces.console.world import ISSUER, SITE, Browser, Console, serving
from ztproxy.gateway.ports.administration import Role
from ztproxy.surfaces.admin.access import Caller
from ztproxy.surfaces.console.app import ENTERING_PER_SECOND
from ztproxy.surfaces.console.entrance import COOKIE, LINK_SECONDS, VISIT_SECONDS, People, Person, Visits

LIST = "/console/sessions"


def code_of(link: str) -> str:
    return link.partition("code=")[2]


# ── by a link ──


async def test_a_link_opens_the_console_once(world: Console) -> None:
    browser = await world.enter()
    assert browser.set_cookie == (
        f"{COOKIE}={browser.cookie}; HttpOnly; Max-Age=28800; Path=/console; SameSite=Strict"
    )
    page = await browser.get(LIST)
    assert page.status == 200
    assert "You are operator-1, operator" in page.text


async def test_entering_is_on_record(world: Console) -> None:
    await world.enter("admin")
    ((event, late),) = world.audit.events
    assert (event.actor, event.action, event.outcome, late) == ("admin-1", "console.enter", "done", False)


async def test_looking_at_a_link_does_not_spend_it(world: Console) -> None:
    link = await world.link()
    for _ in range(3):
        page = await Browser(world).get(link)
        assert (page.status, page.form("/console/enter").buttons) == (200, ["Open the console"])
    browser = Browser(world)
    assert (await browser.send(page.form("/console/enter"))).status == 303
    assert (await browser.get(LIST)).status == 200


async def test_a_stolen_link_is_worth_nothing_after_its_owner_used_it(world: Console) -> None:
    link = await world.link()
    page = await Browser(world).get(link)
    await Browser(world).send(page.form("/console/enter"))
    thief = Browser(world)
    answer = await thief.send(page.form("/console/enter"))
    assert (answer.status, thief.cookie) == (401, "")
    assert "used already" in answer.text


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("", id="none"),
        pytest.param("A" * 43, id="made up"),
        pytest.param("*", id="a pattern"),
        pytest.param("../../etc/passwd", id="a path"),
    ],
)
async def test_no_such_link(world: Console, code: str) -> None:
    browser = Browser(world)
    answer = await browser.post("/console/enter", urlencode({"code": code}).encode())
    assert (answer.status, browser.cookie) == (401, "")
    assert world.audit.events == []


@pytest.mark.parametrize(
    ("seconds", "status"),
    [pytest.param(LINK_SECONDS - 1, 303, id="in time"), pytest.param(LINK_SECONDS, 401, id="too late")],
)
async def test_a_link_is_good_for_two_minutes(world: Console, seconds: float, status: int) -> None:
    page = await Browser(world).get(await world.link())
    world.clock.now += seconds
    assert (await Browser(world).send(page.form("/console/enter"))).status == status


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("Origin", "https://evil.test"), ("Sec-Fetch-Site", "")], id="another origin"),
        pytest.param([("Origin", "http://localhost:1"), ("Sec-Fetch-Site", "same-site")], id="another port"),
        pytest.param([("Origin", ""), ("Sec-Fetch-Site", "cross-site")], id="another site"),
        pytest.param([("Origin", "null"), ("Sec-Fetch-Site", "")], id="nowhere"),
        pytest.param([("Origin", ""), ("Sec-Fetch-Site", "")], id="not said"),
        pytest.param([("Origin", ""), ("Sec-Fetch-Site", "none")], id="typed"),
    ],
)
async def test_nobody_is_brought_in_as_somebody_else(world: Console, headers: Any) -> None:
    link = await world.link()
    browser = Browser(world)
    answer = await browser.post("/console/enter", f"code={code_of(link)}".encode(), *headers)
    assert (answer.status, browser.cookie) == (403, "")
    page = await browser.get(link)
    assert (await browser.send(page.form("/console/enter"))).status == 303, "the link was not spent"


async def test_links_are_not_tried_without_end(world: Console) -> None:
    browser = Browser(world)
    statuses = [
        (await browser.post("/console/enter", b"code=x")).status
        for _ in range(int(10 * ENTERING_PER_SECOND) + 1)
    ]
    assert statuses.count(429) == 1
    assert statuses[-1] == 429


async def test_a_visit_ends_after_eight_hours(world: Console) -> None:
    browser = await world.enter()
    world.clock.now += VISIT_SECONDS - 1
    assert (await browser.get(LIST)).status == 200
    world.clock.now += 1
    assert (await browser.get(LIST)).status == 401


async def test_a_visit_ends_with_the_token_it_was_asked_for_with(world: Console) -> None:
    world.secrets["viewer"], _ = await world.tokens.create("short", "viewer", 600.0, "test")
    browser = await world.enter("viewer")
    assert "Max-Age=600;" in browser.set_cookie
    world.clock.now += 600
    assert (await browser.get(LIST)).status == 401


async def test_a_token_that_is_revoked_takes_its_visitors_with_it(world: Console) -> None:
    browser = await world.enter("admin")
    caller = await world.token_caller("admin")
    await world.tokens.revoke(caller.id.removeprefix("token:"))
    page = await browser.get(LIST)
    assert page.status == 401
    assert page.answer.headers["www-authenticate"] == 'Ztproxy realm="admin console"'


async def test_a_certificates_link_has_no_token_to_lose(world: Console) -> None:
    link = await world.links.make(Caller("certificate:aa", "certificate:aa", "viewer", "certificate"))
    browser = Browser(world)
    await browser.send((await browser.get(link)).form("/console/enter"))
    assert (await browser.get(LIST)).status == 200


async def test_leaving(world: Console) -> None:
    browser = await world.enter()
    old = browser.cookie
    page = await browser.get(LIST)
    assert (await browser.send(page.form("/console/leave"))).status == 200
    assert browser.cookie == ""
    assert (await Browser(world, cookie=old).get(LIST)).status == 401


async def test_nobody_else_makes_one_leave(world: Console) -> None:
    browser = await world.enter()
    answer = await browser.post("/console/leave", b"form_key=guessed")
    assert answer.status == 403
    assert (await browser.get(LIST)).status == 200


async def test_visits_are_counted() -> None:
    visits = Visits(lambda: NOW)
    caller = Caller("token:1", "ops", "viewer", "link")
    first, _ = visits.begin(caller)
    others = [visits.begin(caller)[0] for _ in range(1024)]
    assert visits.find(first) is None
    assert visits.find(others[-1]) == caller


async def test_over_tls_the_cookie_stays_there() -> None:
    ca = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    ca.issue_cert("localhost").configure_cert(server)
    ca.configure_trust(client)
    async with serving(Console(), server) as world:
        world.tls = client
        browser = Browser(world, site="https://localhost")
        await browser.send((await browser.get(await world.link())).form("/console/enter"))
        assert "; Secure" in browser.set_cookie
        assert (await browser.get(LIST)).status == 200


@pytest.mark.parametrize(
    "browser",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"cookie": "A" * 43}, id="made up"),
        pytest.param({"cookie": "ö"}, id="no ASCII"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/console", "/console/", LIST, "/console/nothing", "/console/locks"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_nobody_learns_what_there_is(world: Console, browser: Any, path: str, method: str) -> None:
    page = await Browser(world, **browser).get(path, method=method)
    assert page.status == 401
    assert "ztproxy console" in page.text


# ── the API and the console are apart ──


async def test_a_token_of_the_api_is_nothing_here(world: Console) -> None:
    answer = await Browser(world).get(LIST, ("Authorization", f"Bearer {world.secrets['admin']}"))
    assert answer.status == 401


async def test_neither_cookie_nor_assertion_is_anything_at_the_api(world: Console) -> None:
    browser = await world.enter("admin")
    world.people = People({"admin": frozenset({"ops"})}, {})
    person = world.person("ops")
    assert (await browser.get("/api/v1/sessions")).status == 401
    assert (await person.get("/api/v1/sessions")).status == 401


# ── by an assertion ──


async def test_a_person_comes_through_ztproxy(world: Console) -> None:
    world.people = People({"operator": frozenset({"ops"})}, {})
    page = await world.person("ops").get(LIST)
    assert page.status == 200
    assert "carol@example.com, operator" in page.text
    assert "/.ztproxy/sign_out" in page.links
    assert "set-cookie" not in page.answer.headers


@pytest.mark.parametrize(
    ("groups", "email", "role"),
    [
        pytest.param(("viewers",), None, "viewer", id="a group"),
        pytest.param((), "boss@example.com", "admin", id="an address"),
        pytest.param((), "BOSS@Example.com", "admin", id="in any case"),
        pytest.param(("viewers", "ops"), None, "operator", id="the highest group wins"),
        pytest.param(("viewers",), "boss@example.com", "admin", id="the highest of both"),
        pytest.param(("other",), "eve@example.com", None, id="no role"),
        pytest.param((), None, None, id="nothing at all"),
        pytest.param((), "", None, id="an empty address"),
        pytest.param(("Ops",), None, None, id="groups to the letter"),
        pytest.param((), "\N{KELVIN SIGN}im@example.com", None, id="a letter that folds to another"),
    ],
)
def test_roles(groups: tuple[str, ...], email: str | None, role: Role | None) -> None:
    people = People(
        {"viewer": frozenset({"viewers"}), "operator": frozenset({"ops"})},
        {"admin": frozenset({"boss@example.com", "kim@example.com"})},
    )
    assert people.role(Person(SITE, ISSUER, "carol", "s", email, groups)) == role


async def test_nobody_without_a_role(world: Console) -> None:
    page = await world.person("ops").get(LIST)
    assert page.status == 403
    assert "no role" in page.text


async def test_an_assertion_of_another_audience(world: Console) -> None:
    """`who` answers None for it."""
    assert (await Browser(world, assertion="for another app", host="admin.test").get(LIST)).status == 401


async def test_two_assertions_are_none(world: Console) -> None:
    world.people = People({"admin": frozenset({"ops"})}, {})
    browser = world.person("ops")
    assert (await browser.get(LIST, ("X-Ztproxy-Assertion", "good"))).status == 401


async def test_a_bad_assertion_does_not_fall_back_on_the_cookie(world: Console) -> None:
    browser = await world.enter("admin")
    browser.assertion = "forged"
    assert (await browser.get(LIST)).status == 401


async def test_a_role_is_taken_at_once(world: Console) -> None:
    world.people = People({"admin": frozenset({"ops"})}, {})
    browser = world.person("ops")
    assert (await browser.get(LIST)).status == 200
    world.people = People({}, {})
    assert (await browser.get(LIST)).status == 403


# ── whose form it is ──


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("Origin", "https://evil.test")], id="another origin"),
        pytest.param([("Origin", "http://admin.test")], id="without TLS"),
        pytest.param([("Origin", "https://admin.test:444")], id="another port"),
        pytest.param([("Origin", "https://admin.test.evil.test")], id="a longer name"),
        pytest.param([("Origin", SITE), ("Origin", "https://evil.test")], id="two origins"),
        pytest.param([("Origin", "null")], id="a sandbox"),
        pytest.param([("Sec-Fetch-Site", "cross-site")], id="cross-site"),
        pytest.param([("Sec-Fetch-Site", "same-site")], id="same-site"),
        pytest.param([("Origin", ""), ("Sec-Fetch-Site", "")], id="not said"),
    ],
)
async def test_a_form_of_another_site(world: Console, headers: Any) -> None:
    world.people = People({"admin": frozenset({"ops"})}, {})
    browser = world.person("ops")
    await world.sign_in("alice")
    form = (await browser.get("/console/revoke?kind=all")).form("/console/revoke")
    before = world.state.snapshot()
    answer = await browser.post(form.action, urlencode(form.fields).encode(), *headers)
    assert answer.status == 403
    assert (world.log.entries, world.audit.events, world.state.snapshot()) == ({}, [], before)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("Sec-Fetch-Site", "")], id="origin alone"),
        pytest.param([("Origin", "")], id="fetch metadata alone"),
    ],
)
async def test_a_form_of_ours(world: Console, headers: Any) -> None:
    world.people = People({"admin": frozenset({"ops"})}, {})
    browser = world.person("ops")
    form = (await browser.get("/console/revoke?kind=all")).form("/console/revoke")
    assert (await browser.send(form, *headers)).status == 200
    assert len(world.log.entries) == 1


async def test_a_form_shown_to_somebody_else(world: Console) -> None:
    mine, other = await world.enter("admin"), await world.enter("admin")
    form = (await other.get("/console/revoke?kind=all")).form("/console/revoke")
    assert (await mine.send(form)).status == 403
    assert (await mine.send(form, form_key="")).status == 403
    assert (await mine.send(form, form_key="ö")).status == 403
    assert world.log.entries == {}


async def test_a_form_of_an_earlier_session_of_the_same_person(world: Console) -> None:
    world.people = People({"admin": frozenset({"ops"})}, {})
    earlier, now = world.person("ops", assertion="a"), world.person("ops", assertion="b", session="later")
    form = (await earlier.get("/console/revoke?kind=all")).form("/console/revoke")
    assert (await now.send(form)).status == 403
    assert world.log.entries == {}
