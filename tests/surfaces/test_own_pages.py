"""My session, my apps, the keys: what is shown to whom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from tests.core.words import ADMINS, EVERYONE, path, policy, site
from tests.worlds.front import APP, AUTH, SIGNED_IN, Front, front
from ztproxy.core.conditions import EmailIs, RankAtLeast
from ztproxy.core.identity import Step
from ztproxy.core.locks import Target, TargetKind
from ztproxy.core.routes import IdentityHeaders, Redirect, Route, StaticResponse
from ztproxy.gateway.known import RELIED_ON
from ztproxy.surfaces.own_pages import front_door

XHR = {"Accept": "application/json"}
OWN = "/.ztproxy"
SOME = IdentityHeaders("app", groups=frozenset({"dev", "ops"}))


def named(name: str, rules: Any = SIGNED_IN, **more: Any) -> Route:
    return site(rules, name=name, host=f"{name}.test", **more)


@pytest.fixture
async def it() -> AsyncIterator[Front]:
    routes = [
        named("app", identity=SOME, title="The app", description="What it does", segments=("a b",)),
        site(SIGNED_IN, name="beside", host="app.test", segments=("beside",), identity=SOME),
        named("all"),
        named("admin", ADMINS),
        named("alices", policy(EmailIs(frozenset({"alice@corp.test"})))),
        named("strong", policy(RankAtLeast(3))),
        named("unlisted", listed=False),
        named("fixed", action=StaticResponse(200, "text/plain", b"x")),
        named("moved", action=Redirect("https://new.test")),
        site(SIGNED_IN, name="wild", host="*.wild.test"),
        named("open", EVERYONE, segments=("x",), exact=True),
    ]
    async with front(*routes, auth=AUTH) as built:
        yield built


GROUPS = ["dev", "finance"]


async def test_my_session_for_a_person_and_for_a_program(it: Front) -> None:
    alice = it.browser(groups=GROUPS, name="Alice <b>", acr="mfa", amr=["pwd", "otp"])
    await alice.open(f"https://all.test{OWN}/session")
    page = await alice.ask(f"https://all.test{OWN}/session")
    for text in ("Alice &lt;b&gt;", "alice@corp.test", "finance", "pwd, otp", "rank 2 (mfa)"):
        assert text in page.text
    for url in (f"https://all.test{OWN}/session", f"https://all.test{OWN}/user", f"https://all.test{OWN}/"):
        told = (await alice.ask(url, XHR)).json
        assert (told["sub"], told["groups"], told["acr"]) == ("alice", GROUPS, "mfa")
        assert told["expires_at"] == int(it.clock.now) + 36000


async def test_no_page_holds_a_secret(it: Front) -> None:
    alice = it.browser(groups=GROUPS)
    await alice.open(f"https://all.test{OWN}/session")
    (record,) = it.state.sessions.values()
    secrets = {
        *record.handles,
        record.secrets.refresh_token,
        record.secrets.id_token,
        alice.session("all.test"),
    }
    for name in ("session", "user", "apps", ""):
        for headers in (XHR, {"Accept": "text/html"}):
            text = (await alice.ask(f"https://all.test{OWN}/{name}", headers)).text
            assert not [secret for secret in secrets if str(secret) in text]


async def test_an_apps_scripts_do_not_read_the_groups_kept_from_it(it: Front) -> None:
    alice = it.browser(groups=GROUPS)
    await alice.open(f"{APP}{OWN}/session")
    for name in ("user", "session"):
        assert (await alice.ask(f"{APP}{OWN}/{name}", XHR)).json["groups"] == ["dev"]
    assert "finance" not in (await alice.ask(f"{APP}{OWN}/session")).text
    assert (await alice.ask(f"{AUTH}{OWN}/user", XHR)).json["groups"] == GROUPS


async def test_my_apps_are_those_i_may_open(it: Front) -> None:
    titles: dict[str, list[str]] = {}
    for name in ("alice", "bob"):
        person = it.browser(name)
        await person.open(f"{AUTH}{OWN}/apps")
        told = (await person.ask(f"{AUTH}{OWN}/apps", XHR)).json["apps"]
        titles[name] = [app["title"] for app in told]
        assert told[0] == {
            "title": "The app",
            "description": "What it does",
            "url": "https://app.test/a%20b/",
        }
        assert "The app" in (await person.ask(f"{AUTH}{OWN}/apps")).text
    common = ["The app", "beside", "all"]
    assert titles["alice"] == [*common, "alices", "strong", "moved", "open"]
    assert titles["bob"] == [*common, "strong", "moved", "open"]


async def test_somebody_without_a_name_or_mail(it: Front) -> None:
    it.worker.sign_in  # noqa: B018
    nobody = it.browser()
    nobody.person = {"sub": "only-a-subject"}
    await nobody.open(f"{AUTH}{OWN}/apps")
    assert "only-a-subject" in (await nobody.ask(f"{AUTH}{OWN}/apps")).text
    assert "–" in (await nobody.ask(f"{AUTH}{OWN}/session")).text


@pytest.mark.parametrize("name", ["session", "user", "apps", ""])
async def test_a_stranger_signs_in_first_and_a_program_is_told_so(it: Front, name: str) -> None:
    nobody = it.browser()
    told = await nobody.ask(f"{APP}{OWN}/{name}", XHR)
    assert (told.status, told.json["reasons"]) == (401, ["login_required"])
    page = await nobody.ask(f"{APP}{OWN}/{name}")
    if name != "user":
        assert page.status == 302 and page.location.startswith(f"{APP}{OWN}/sign_in?rd=")


async def test_a_session_past_its_end_is_none_and_leads_into_no_loop(it: Front) -> None:
    alice = it.browser()
    await alice.open(f"{AUTH}{OWN}/apps")
    it.later(36001)  # the store's clock is behind: it still has the session
    assert (await alice.ask(f"{AUTH}{OWN}/user", XHR)).status == 401
    page = await alice.open(f"{AUTH}{OWN}/session")
    assert (page.status, it.op.hits["/token"]) == (200, 2)


async def test_a_store_that_is_away(it: Front) -> None:
    alice = it.browser()
    await alice.open(f"{AUTH}{OWN}/apps")
    it.later(RELIED_ON)
    it.state.away = True
    for name in ("session", "user", "apps"):
        page = await alice.ask(f"{AUTH}{OWN}/{name}")
        assert page.status == 503 and not page.set_cookies and not page.location


async def test_the_keys_are_for_everyone(it: Front) -> None:
    page = await it.browser().ask(f"{APP}/.well-known/ztproxy/jwks.json", XHR)
    assert page.json == {"keys": [{"kid": "k"}]} and page.field("cache-control") == "public, max-age=300"


@pytest.mark.parametrize(
    ("segments", "exact", "text"),
    [
        ((), False, "/"),
        (("a",), False, "/a/"),
        (("a", "b c"), False, "/a/b%20c/"),
        (("a",), True, "/a"),
        (("ü",), True, "/%C3%BC"),
    ],
)
def test_the_front_door(segments: tuple[str, ...], exact: bool, text: str) -> None:
    door = front_door(site(segments=segments, exact=exact))
    assert door.text == text and not door.ambiguities
    assert door.readings[0][: len(segments)] == segments or path("/").readings == door.readings


async def test_an_app_that_a_lock_closes_is_not_on_the_list(it: Front) -> None:
    alice = it.browser()
    await alice.open(f"{AUTH}{OWN}/apps")
    it.lease.lock(Target(TargetKind.ROUTE, "beside"), until=it.clock() + 60)
    told = (await alice.ask(f"{AUTH}{OWN}/apps", XHR)).json["apps"]
    assert "beside" not in {app["title"] for app in told} and len(told) > 3


async def test_a_rank_that_is_forgotten_is_not_told(it: Front) -> None:
    alice = it.browser(acr="phr", amr=["hwk"])
    await alice.open(f"https://all.test{OWN}/session")
    (record,) = it.state.sessions.values()
    steps = (Step(3, it.clock.now + 60), Step(2, it.clock.now + 36000))
    record.session = replace(record.session, steps=steps, revision=99)
    it.later(61)
    told = (await alice.ask(f"https://all.test{OWN}/user", XHR)).json
    assert (told["rank"], told["acr"], told["amr"]) == (2, None, [])
