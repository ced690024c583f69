"""Locks: shown, made, lifted; what is typed wrong comes back, and nothing is done before it was confirmed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.words import NOW
from tests.surfaces.console.world import Browser, Console, Form, Page
from ztproxy.core.locks import Action, Lift, Lock, Target, TargetKind
from ztproxy.gateway.ports.administration import Role

LOCKS = "/console/locks"
CLOSED = Lock("closed", Target(TargetKind.ROUTE, "wiki"), created_by="ops", reason="leak", until=NOW + 3600)
DRILL = Lock("drill", Target(TargetKind.GROUP, "staff"), Action.REQUIRE_LOGIN, "ops", "drill")
REVOKED = Lock("revoked", Target(TargetKind.SESSION, "s1"), reason="laptop lost")
GROUP: dict[str, str] = {
    "kind": "group",
    "name": "contractors",
    "action": "deny",
    "until": "2025-06-15T18:00",
    "message": "Contracts end today.",
    "reason": "HR-7",
}


async def put(world: Console, *locks: Lock) -> None:
    for lock in locks:
        await world.desk.revoke(lock)


async def fill(browser: Browser, **typed: Any) -> Page:
    """The form of a new lock, filled in and sent to be looked over."""
    form = (await browser.get(f"{LOCKS}/new")).form(f"{LOCKS}/confirm")
    return await browser.send(form, **typed)


def locks(world: Console) -> list[Lock]:
    return [entry for entry in world.log.entries.values() if isinstance(entry, Lock)]


async def test_what_stands_and_what_ended(world: Console) -> None:
    await put(world, CLOSED, DRILL, REVOKED)
    page = await (await world.enter("viewer")).get(LOCKS)
    standing, _, ended = page.text.partition("Revocations")
    assert "route wiki" in standing and "leak" in standing and "require login" in standing
    assert "session s1" in ended and "laptop lost" in ended and "revoked" in ended
    assert not any("lift" in link or "new" in link for link in page.links), "a viewer lifts and makes nothing"


async def test_none(world: Console) -> None:
    page = await (await world.enter()).get(LOCKS)
    assert "None of late." in page.text
    assert f"{LOCKS}/new" in page.links


async def test_what_is_over_is_said_to_be(world: Console) -> None:
    await put(world, CLOSED)
    world.clock.now = NOW + 3600
    assert "over" in (await (await world.enter()).get(LOCKS)).text


async def test_a_long_list_is_cut(world: Console) -> None:
    await put(world, *(Lock(f"l{one}", Target(TargetKind.SESSION, f"s{one}")) for one in range(103)))
    page = await (await world.enter()).get(LOCKS)
    assert "And 3 older." in page.text
    assert "session s102" in page.text and "session s2 " not in page.text


async def test_making_one(world: Console) -> None:
    await world.sign_in("alice", groups=("contractors",))
    browser = await world.enter()
    world.audit.events.clear()
    page = await fill(browser, **GROUP)
    assert page.status == 200
    assert "Keep out until it ends: group contractors. It meets 1 session now" in page.text
    assert "until 2025-06-15 18:00:00 UTC" in page.text
    assert (world.log.entries, world.audit.events) == ({}, [])
    done = await browser.send(page.form(LOCKS))
    assert done.status == 200 and "It holds everywhere" in done.text
    (lock,) = locks(world)
    assert lock.target == Target(TargetKind.GROUP, "contractors")
    assert (lock.action, lock.message, lock.reason) == (Action.DENY, "Contracts end today.", "HR-7")
    assert lock.until == 1_750_010_400.0
    assert lock.created_by == "operator-1"
    assert world.outcomes == [
        ("lock.create", "intent", "group:contractors"),
        ("lock.create", "done", "group:contractors"),
    ]


@pytest.mark.parametrize(
    ("until", "end"),
    [
        pytest.param("2025-06-15T18:00", 1_750_010_400.0, id="as browsers write it"),
        pytest.param("2025-06-15T18:00:30", 1_750_010_430.0, id="with seconds"),
        pytest.param("2025-06-15T20:00+02:00", 1_750_010_400.0, id="with a zone"),
        pytest.param("2025-06-15T18:00Z", 1_750_010_400.0, id="in UTC"),
    ],
)
async def test_ends(world: Console, until: str, end: float) -> None:
    browser = await world.enter()
    await browser.send((await fill(browser, **GROUP | {"until": until})).form(LOCKS))
    assert [lock.until for lock in locks(world)] == [end]


async def test_without_an_end(world: Console) -> None:
    browser = await world.enter()
    page = await fill(browser, **GROUP | {"until": "", "action": "require_login"})
    assert "who signs in after it is not met" in page.text
    await browser.send(page.form(LOCKS))
    assert [(lock.action, lock.until) for lock in locks(world)] == [(Action.REQUIRE_LOGIN, None)]


@pytest.mark.parametrize(
    ("typed", "field"),
    [
        pytest.param({"name": ""}, "name", id="no name"),
        pytest.param({"name": " "}, "name", id="a space"),
        pytest.param({"kind": "user"}, "issuer", id="a person without an issuer"),
        pytest.param({"issuer": "https://login.test"}, "issuer", id="a group with one"),
        pytest.param({"kind": "everyone"}, "kind", id="no such kind"),
        pytest.param({"action": "forget"}, "action", id="no such action"),
        pytest.param({"until": ""}, "until", id="kept out for ever"),
        pytest.param({"until": "2020-01-01T00:00"}, "until", id="over"),
        pytest.param({"until": "2999-01-01T00:00"}, "until", id="too far away"),
        pytest.param({"until": "tomorrow"}, "until", id="no time"),
        pytest.param({"until": "0001-01-01T00:00+14:00"}, "until", id="before all time"),
    ],
)
async def test_typed_wrong(world: Console, typed: dict[str, str], field: str) -> None:
    browser = await world.enter("admin")
    page = await fill(browser, **GROUP | typed)
    assert page.status == 400
    assert f"<code>{field}</code>" in page.html
    form = page.form(f"{LOCKS}/confirm")
    assert dict(form.fields)["message"] == "Contracts end today.", "what was typed is not lost"
    key = dict(form.fields)["form_key"]
    sent = Form(LOCKS, "post", list((GROUP | typed | {"form_key": key, "key": "k"}).items()))
    assert (await browser.send(sent)).status == 400
    assert world.log.entries == {}


async def test_the_form_may_be_filled_in_by_a_link(world: Console) -> None:
    id = await world.sign_in("alice")
    browser = await world.enter()
    (link,) = [one for one in (await browser.get(f"/console/sessions/{id}")).links if "/locks/new?" in one]
    form = (await browser.get(link)).form(f"{LOCKS}/confirm")
    assert dict(form.fields)["name"] == "alice"
    assert 'value="user" selected' in (await browser.get(link)).html


@pytest.mark.parametrize(
    ("role", "kind", "status"),
    [
        pytest.param("operator", "route", 403, id="an operator, a route"),
        pytest.param("operator", "all", 403, id="an operator, everybody"),
        pytest.param("admin", "route", 200, id="an admin, a route"),
        pytest.param("admin", "all", 200, id="an admin, everybody"),
    ],
)
async def test_what_is_for_admins(world: Console, role: Role, kind: str, status: int) -> None:
    browser = await world.enter(role)
    name = "" if kind == "all" else "wiki"
    offered = f'value="{kind}"' in (await browser.get(f"{LOCKS}/new")).html
    assert offered is (status == 200)
    page = await fill(browser, **GROUP | {"kind": kind, "name": name})
    assert page.status == status
    form_key = dict((await browser.get(f"{LOCKS}/new")).form(f"{LOCKS}/confirm").fields)["form_key"]
    sent = Form(
        LOCKS, "post", list((GROUP | {"kind": kind, "name": name, "form_key": form_key, "key": "k"}).items())
    )
    assert (await browser.send(sent)).status == status
    assert len(world.log.entries) == (status == 200)


async def test_a_viewer_makes_nothing(world: Console) -> None:
    browser = await world.enter("viewer")
    world.audit.events.clear()
    assert (await browser.get(f"{LOCKS}/new")).status == 403
    form_key = dict((await browser.get(LOCKS)).forms[-1].fields)["form_key"]
    for path, more in ((LOCKS, GROUP), (f"{LOCKS}/lift", {"id": "drill"}), (f"{LOCKS}/confirm", GROUP)):
        sent = Form(path, "post", list((more | {"form_key": form_key, "key": "k"}).items()))
        assert (await browser.send(sent)).status == 403
    assert world.log.entries == {}
    assert world.outcomes == [("lock.create", "refused", ""), ("lock.lift", "refused", "drill")]


async def test_lifting(world: Console) -> None:
    await put(world, DRILL)
    browser = await world.enter()
    world.audit.events.clear()
    (link,) = [one for one in (await browser.get(LOCKS)).links if "lift" in one]
    page = await browser.get(link)
    assert "require login" in page.text and "group staff" in page.text
    done = await browser.send(page.form(f"{LOCKS}/lift"), reason="over")
    assert done.status == 200 and "Lifted" in done.text
    assert await world.log.locks() == ()
    ((lift),) = [entry for entry in world.log.entries.values() if isinstance(entry, Lift)]
    assert (lift.lifts, lift.reason, lift.created_by) == ("drill", "over", "operator-1")
    assert [outcome for _, outcome, _ in world.outcomes] == ["intent", "done"]
    assert (await browser.send(page.form(f"{LOCKS}/lift"))).status == 404


@pytest.mark.parametrize(
    ("lock", "role", "id", "status"),
    [
        pytest.param(REVOKED, "admin", "revoked", 409, id="what was revoked stays revoked"),
        pytest.param(CLOSED, "operator", "closed", 403, id="a route is for admins"),
        pytest.param(DRILL, "operator", "other", 404, id="no such lock"),
        pytest.param(DRILL, "operator", "", 404, id="none named"),
        pytest.param(DRILL, "operator", "*", 404, id="a pattern"),
    ],
)
async def test_what_is_not_lifted(world: Console, lock: Lock, role: Role, id: str, status: int) -> None:
    await put(world, lock)
    browser = await world.enter(role)
    before = dict(world.log.entries)
    assert (await browser.get(f"{LOCKS}/lift?id={id}")).status == status
    form_key = dict((await browser.get(LOCKS)).forms[-1].fields)["form_key"]
    sent = Form(f"{LOCKS}/lift", "post", [("form_key", form_key), ("key", "k"), ("id", id)])
    assert (await browser.send(sent)).status == status
    assert world.log.entries == before


async def test_lifting_is_not_heard_everywhere_yet(world: Console) -> None:
    await put(world, DRILL)
    world.log.confirmed = False
    browser = await world.enter()
    page = await browser.get(f"{LOCKS}/lift?id=drill")
    done = await browser.send(page.form(f"{LOCKS}/lift"))
    assert done.status == 200
    assert "Not confirmed everywhere yet" in done.text and "not everybody has heard of it yet" in done.text


async def test_the_store_is_away(world: Console) -> None:
    await put(world, DRILL)
    browser = await world.enter()
    form = (await browser.get(f"{LOCKS}/lift?id=drill")).form(f"{LOCKS}/lift")
    world.log.away = True
    page = await browser.send(form)
    assert page.status == 503 and "Nothing is in force." in page.text
    assert [outcome for _, outcome, _ in world.outcomes][-1] == "refused"
    world.log.away = False
    assert (await browser.send(page.form(f"{LOCKS}/lift"))).status == 200


async def test_a_lock_is_not_confirmed(world: Console) -> None:
    browser = await world.enter()
    world.log.confirmed = False
    page = await browser.send((await fill(browser, **GROUP)).form(LOCKS))
    assert page.status == 503 and "Not confirmed everywhere yet" in page.text
    world.log.confirmed = True
    assert (await browser.send(page.form(LOCKS))).status == 200
    assert len(locks(world)) == 1


async def test_in_an_emergency(world: Console) -> None:
    browser = await world.enter()
    form = (await fill(browser, **GROUP)).form(LOCKS)
    world.audit.full = True
    page = await browser.send(form)
    assert (page.status, world.log.entries) == (503, {})
    world.log.confirmed = False
    page = await browser.send(page.form(LOCKS), emergency="yes")
    assert (page.status, len(locks(world))) == (503, 1)
    world.log.confirmed = True
    assert (await browser.send(page.form(LOCKS))).status == 200, "it stays an emergency when asked again"
    assert len(locks(world)) == 1


async def test_lifting_is_no_emergency(world: Console) -> None:
    await put(world, DRILL)
    browser = await world.enter()
    form: Any = (await browser.get(f"{LOCKS}/lift?id=drill")).form(f"{LOCKS}/lift")
    world.audit.full = True
    page = await browser.send(form, emergency="yes")
    assert page.status == 503
    assert page.form(f"{LOCKS}/lift").ticks == []
    assert len(world.log.entries) == 1
