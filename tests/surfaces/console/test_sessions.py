"""The list of sessions and everything about one; with guests who call themselves strange things."""

from __future__ import annotations

from dataclasses import replace
from html import escape

import pytest

from tests.core.words import NOW
from tests.surfaces.console.world import Console
from ztproxy.core.locks import Action, Lock, Target, TargetKind
from ztproxy.gateway.ports import Seen
from ztproxy.surfaces.console.entrance import People

LIST = "/console/sessions"
SCRIPT = "<script>alert(1)</script>\"'"
OVERRIDE = "alice\N{RIGHT-TO-LEFT OVERRIDE}moc.live@bob"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


async def seen(world: Console, id: str, address: str = "203.0.113.7", agent: str = FIREFOX) -> None:
    world.state.sessions[id].seen = Seen(address, "app", agent)


async def test_who_is_signed_in(world: Console) -> None:
    id = await world.sign_in("alice", email="alice@example.com", name="Alice Liddell", device="laptop-7")
    await seen(world, id)
    world.clock.now += 3 * 60
    page = await (await world.enter("viewer")).get(LIST)
    for fact in ("alice@example.com", "Alice Liddell", "laptop-7", "203.0.113.7", "app", "Firefox on Linux"):
        assert fact in page.text
    assert "3 minutes ago" in page.text
    assert f"{LIST}/{id}" in page.links


async def test_nobody_is_signed_in(world: Console) -> None:
    assert "There is no such session." in (await (await world.enter()).get(LIST)).text


@pytest.mark.parametrize(
    ("role", "offered"),
    [
        pytest.param("viewer", {"one": False, "ticks": False, "all": False}, id="viewer"),
        pytest.param("operator", {"one": True, "ticks": True, "all": False}, id="operator"),
        pytest.param("admin", {"one": True, "ticks": True, "all": True}, id="admin"),
    ],
)
async def test_what_a_role_may_not_do_is_not_offered(
    world: Console, role: str, offered: dict[str, bool]
) -> None:
    id = await world.sign_in("alice")
    browser = await world.enter(role)  # type: ignore[arg-type]
    page = await browser.get(LIST)
    assert {
        "one": f"/console/revoke?kind=session&name={id}" in page.links,
        "ticks": any(form.ticks == [id] for form in page.forms),
        "all": "/console/revoke?kind=all" in page.links,
    } == offered
    one = await browser.get(f"{LIST}/{id}")
    assert any("/revoke?" in link for link in one.links) is offered["one"]
    assert any("/locks/new" in link for link in one.links) is offered["one"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        pytest.param("", {"alice", "bob"}, id="all"),
        pytest.param("text=ALICE", {"alice"}, id="a part, in any case"),
        pytest.param("text=+alice+", {"alice"}, id="with spaces around"),
        pytest.param("text=&provider=&cursor=", {"alice", "bob"}, id="an empty form"),
        pytest.param("text=*", set(), id="no pattern"),
        pytest.param("provider=other", {"bob"}, id="a provider"),
        pytest.param("kind=user&name=bob&issuer=https://login.test", {"bob"}, id="a person"),
        pytest.param("kind=user&name=bob&issuer=https://other.test", set(), id="at another issuer"),
    ],
)
async def test_search(world: Console, query: str, found: set[str]) -> None:
    await world.sign_in("alice", email="alice@example.com")
    await world.sign_in("bob", email="bob@example.com")
    for record in world.state.sessions.values():
        who = record.session.identity
        provider = "other" if who.subject == "bob" else "main"
        identity = replace(who, issuer="https://login.test")
        record.session = replace(record.session, provider=provider, identity=identity)
    page = await (await world.enter()).get(f"{LIST}?{query}")
    assert {one for one in ("alice", "bob") if f"{one}@example.com" in page.text} == found


async def test_pages_by_cursor(world: Console) -> None:
    for number in range(5):
        await world.sign_in("alice", email=f"alice{number}@example.com")
    browser = await world.enter()
    page, found = await browser.get(f"{LIST}?limit=2&text=alice"), []
    while True:
        found.append([number for number in range(5) if f"alice{number}@" in page.text])
        (following,) = [link for link in page.links if "cursor=" in link] or [""]
        if not following:
            break
        assert "text=alice" in following and "limit=2" in following
        page = await browser.get(following)
    assert found == [[3, 4], [1, 2], [0]]
    assert f"{LIST}?limit=2&text=alice" in page.links


@pytest.mark.parametrize(
    "query",
    ["cursor=forged", "cursor=1", "cursor=*&text=alice", "limit=0", "limit=1000", "cursor=a&cursor=b"],
)
async def test_a_cursor_that_was_made_up(world: Console, query: str) -> None:
    await world.sign_in("alice", email="alice@example.com")
    page = await (await world.enter()).get(f"{LIST}?{query}")
    assert page.status == 400
    assert "alice@" not in page.text


async def test_a_cursor_of_another_search(world: Console) -> None:
    for _ in range(3):
        await world.sign_in("alice")
    browser = await world.enter()
    (following,) = [link for link in (await browser.get(f"{LIST}?limit=1")).links if "cursor=" in link]
    assert (await browser.get(f"{following}&text=bob")).status == 400


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(SCRIPT, id="markup"),
        pytest.param("{{ 7 * 191 }}", id="a template"),
        pytest.param(OVERRIDE, id="text turned round"),
        pytest.param("a\N{ZERO WIDTH SPACE}b", id="what nobody sees"),
        pytest.param("\N{LEFT-TO-RIGHT ISOLATE}x\x1b[31m\r\n", id="control characters"),
        pytest.param("\ud800", id="half a character"),
    ],
)
async def test_strange_names(world: Console, hostile: str) -> None:
    id = await world.sign_in("alice", email=hostile, name=hostile, groups=(hostile,))
    record = world.state.sessions[id]
    record.session = replace(record.session, device=hostile, acr=hostile, amr=(hostile,))
    await seen(world, id, address=hostile, agent=hostile)
    await world.desk.revoke(
        Lock("l1", Target(TargetKind.SESSION, id), Action.DENY, hostile, hostile, hostile)
    )
    world.records = [
        {
            "decision": "deny",
            "email": hostile,
            "path": hostile,
            "reasons": [hostile],
            "route": hostile,
            "time": hostile,
        }
    ]
    world.report = {hostile: hostile, "workers": [{"name": hostile}], "more": {hostile: hostile}}
    browser = await world.enter("admin")
    for path in (LIST, f"{LIST}/{id}", f"/console/revoke?kind=session&name={id}", "/console/locks",
                 "/console/decisions", "/console/status"):  # fmt: skip
        page = await browser.get(path)
        assert page.status == 200, path
        assert SCRIPT not in page.html and "<script>alert" not in page.html
        assert "1337" not in page.html
        assert all(one.isprintable() or one == "\n" for one in page.html)


async def test_what_is_written_out(world: Console) -> None:
    id = await world.sign_in("alice", email=OVERRIDE)
    page = await (await world.enter()).get(f"{LIST}/{id}")
    assert "alice\\u202emoc.live@bob" in page.text
    assert escape(OVERRIDE) not in page.html


async def test_everything_about_one(world: Console) -> None:
    id = await world.sign_in(
        "alice", email="alice@example.com", groups=("staff", "ops"), idp_session="sid-9", device="laptop-7",
        acr="mfa", amr=("pwd", "otp"), as_of=0,
    )  # fmt: skip
    await seen(world, id)
    world.clock.now += 80_000
    await world.desk.revoke(
        Lock(
            "l1", Target(TargetKind.GROUP, "staff"), Action.REQUIRE_LOGIN, "ops", "drill", until=NOW + 200_000
        )
    )
    await world.desk.revoke(Lock("l2", Target(TargetKind.GROUP, "others"), reason="not this one"))
    page = await (await world.enter()).get(f"{LIST}/{id}")
    for fact in (
        id,
        "sid-9",
        "laptop-7",
        "mfa",
        "pwd, otp",
        "staff",
        FIREFOX,
        "drill",
        "it holds",
        "22 hours ago",
    ):
        assert fact in page.text
    assert "This session is locked." in page.text
    assert "not this one" not in page.text
    assert {f"/console/revoke?kind={kind}&name={name}" for kind, name in
            (("session", id), ("device", "laptop-7"))} <= set(page.links)  # fmt: skip
    assert any("kind=idp_session&name=sid-9&issuer=" in link for link in page.links)


async def test_there_is_no_such_session(world: Console) -> None:
    assert (await (await world.enter()).get(f"{LIST}/nobody")).status == 404


async def test_a_session_that_was_ended_is_shown_as_ended(world: Console) -> None:
    """Also while its record is still there: those of a group stay until they expire."""
    await world.sign_in("alice", groups=("staff",))
    await world.desk.revoke(Lock("l1", Target(TargetKind.GROUP, "staff")))
    assert "ended" in (await (await world.enter()).get(LIST)).text


async def test_ones_own_session_is_pointed_out(world: Console) -> None:
    id = await world.sign_in("carol")
    world.people = People({"admin": frozenset({"ops"})}, {})
    browser = world.person("ops", session=id)
    assert "your own" in (await browser.get(LIST)).text
    assert "This is your own session." in (await browser.get(f"{LIST}/{id}")).text
    for query in (f"kind=session&name={id}", "kind=all"):
        assert "Your own session is among them." in (await browser.get(f"/console/revoke?{query}")).text


async def test_who_came_by_a_link_has_none(world: Console) -> None:
    await world.sign_in("carol")
    browser = await world.enter("admin")
    assert "your own" not in (await browser.get(LIST)).text
    assert "Your own" not in (await browser.get("/console/revoke?kind=all")).text


async def test_the_search_is_live_with_htmx(world: Console) -> None:
    page = await (await world.enter()).get(LIST)
    assert 'hx-get="/console/sessions" hx-target="#sessions" hx-select="#sessions"' in page.html
    assert '<input id="search"' in page.html and '<div id="sessions">' in page.html


@pytest.mark.parametrize(("device", "leads"), [("L-1", True), ("../locks", False), (None, False)])
async def test_a_session_leads_to_its_device(world: Console, device: str | None, leads: bool) -> None:
    id = await world.sign_in("alice", device=device)
    page = await (await world.enter("viewer")).get(f"{LIST}/{id}")
    assert any(link.startswith("/console/devices/") for link in page.links) is leads
