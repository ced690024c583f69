"""Ending sessions: counted, confirmed, on record, and honest about what is not known."""

from __future__ import annotations

from typing import Any

import pytest

from tests.surfaces.console.world import Browser, Console, Form
from ztproxy.core.locks import Lock, Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.errors import WorldError
from ztproxy.surfaces.console.revoking import SELECTED

LIST = "/console/sessions"
EMAIL = "alice@example.com"


async def crowd(world: Console, *subjects: str) -> list[str]:
    ids = [await world.sign_in(one, email=f"{one}@example.com", device="laptop-7") for one in subjects]
    world.audit.events.clear()
    return ids


def issuer(world: Console) -> str:
    return next(iter(world.state.sessions.values())).session.identity.issuer


def made(world: Console) -> list[Lock]:
    return [entry for entry in world.log.entries.values() if isinstance(entry, Lock)]


async def confirm(world: Console, browser: Browser, query: str) -> Form:
    return (await browser.get(f"/console/revoke?{query}")).form("/console/revoke")


async def test_one_session(world: Console) -> None:
    browser = await world.enter()
    id, other = await crowd(world, "alice", "bob")
    page = await browser.get(f"/console/revoke?kind=session&name={id}")
    assert f"This ends 1 session of {EMAIL}." in page.text
    assert made(world) == [], "nothing was ended by looking"
    done = await browser.send(page.form("/console/revoke"), reason="laptop lost")
    assert done.status == 200
    assert "It holds everywhere, and met 1 session." in done.text
    ((lock),) = made(world)
    assert lock.target == Target(TargetKind.SESSION, id)
    assert (lock.revokes, lock.created_by, lock.reason, lock.message) == (
        True,
        "operator-1",
        "laptop lost",
        "",
    )
    assert world.outcomes == [
        ("revocation.create", "intent", f"session:{id}"),
        ("revocation.create", "done", f"session:{id}"),
    ]
    assert list(world.state.sessions) == [other]


async def test_all_of_a_person(world: Console) -> None:
    browser = await world.enter()
    await crowd(world, "alice", "bob", "alice", "alice")
    page = await browser.get(LIST)
    (query,) = {link.partition("?")[2] for link in page.links if "kind=user&name=alice" in link}
    form = await confirm(world, browser, query)
    assert form.buttons == ["End 3 sessions"]
    assert "and met 3 sessions." in (await browser.send(form)).text
    ((lock),) = made(world)
    assert lock.target == Target(TargetKind.USER, "alice", lock.target.issuer)
    assert [one.session.identity.subject for one in world.state.sessions.values()] == ["bob"]


async def test_those_that_were_ticked(world: Console) -> None:
    browser = await world.enter()
    first, second, third = await crowd(world, "alice", "alice", "bob")
    form = (await browser.get(LIST)).form("/console/revoke/confirm")
    assert sorted(form.ticks) == sorted([first, second, third])
    page = await browser.send(form, tick=(first, second))
    assert f"This ends 2 sessions of {EMAIL}." in page.text
    done = await browser.send(page.form("/console/revoke"), reason="drill")
    assert "It holds everywhere, and met 2 sessions." in done.text
    assert {lock.target.name for lock in made(world)} == {first, second}
    assert {lock.reason for lock in made(world)} == {"drill"}
    assert list(world.state.sessions) == [third]
    assert sorted(outcome for _, outcome, _ in world.outcomes) == ["done", "done", "intent", "intent"]


async def test_of_several_people(world: Console) -> None:
    browser = await world.enter()
    ids = await crowd(world, "alice", "bob", "carol")
    form = (await browser.get(LIST)).form("/console/revoke/confirm")
    page = await browser.send(form, tick=(*ids, ids[0], "gone"))
    assert "This ends 3 sessions of 3 people." in page.text


async def test_a_long_list_is_cut(world: Console) -> None:
    browser = await world.enter()
    await crowd(world, *["alice"] * 25)
    page = await browser.get(f"/console/revoke?kind=user&name=alice&issuer={issuer(world)}")
    assert "This ends 25 sessions" in page.text and "And 5 more." in page.text


async def test_everybody(world: Console) -> None:
    browser = await world.enter("admin")
    await crowd(world, "alice", "bob")
    form = await confirm(world, browser, "kind=all")
    assert form.buttons == ["End about 2 sessions"]
    assert (await browser.send(form)).status == 200
    assert world.state.sessions == {}


async def test_a_device(world: Console) -> None:
    browser = await world.enter()
    await crowd(world, "alice", "bob")
    form = await confirm(world, browser, "kind=device&name=laptop-7")
    assert form.buttons == ["End 2 sessions"]


async def test_nobody_is_met(world: Console) -> None:
    """It holds all the same: a session may begin to be known a moment later."""
    browser = await world.enter()
    page = await browser.get("/console/revoke?kind=session&name=nobody")
    assert "This ends 0 sessions of session nobody." in page.text
    assert (await browser.send(page.form("/console/revoke"))).status == 200
    assert len(made(world)) == 1


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("", id="nothing (A13)"),
        pytest.param("kind=session", id="no name"),
        pytest.param("kind=user&name=alice", id="no issuer"),
        pytest.param("kind=everything", id="no such kind"),
        pytest.param("kind=all&name=alice", id="everybody, by name"),
        pytest.param("kind=session&name=%20", id="a space"),
        pytest.param("kind=session&kind=all&name=a", id="two kinds"),
    ],
)
async def test_a_target_that_is_none(world: Console, query: str) -> None:
    browser = await world.enter("admin")
    await crowd(world, "alice")
    assert (await browser.get(f"/console/revoke?{query}")).status == 400
    form = await confirm(world, browser, "kind=all")
    key = dict(form.fields)
    sent = f"form_key={key['form_key']}&key={key['key']}&{query}"
    assert (await browser.post("/console/revoke", sent.encode())).status == 400
    assert made(world) == []


@pytest.mark.parametrize("number", [0, SELECTED + 1])
async def test_nothing_or_too_much_ticked(world: Console, number: int) -> None:
    browser = await world.enter()
    await crowd(world, "alice")
    form = (await browser.get(LIST)).form("/console/revoke/confirm")
    ids = tuple(f"s{one}" for one in range(number))
    assert (await browser.send(form, tick=ids)).status == 400
    sent = Form("/console/revoke", "post", [*form.fields, ("key", "k")])
    assert (await browser.send(sent, tick=ids)).status == 400
    assert (made(world), world.audit.events) == ([], [])


async def test_a_viewer_ends_nothing(world: Console) -> None:
    browser = await world.enter("viewer")
    (id,) = await crowd(world, "alice")
    before = world.state.snapshot()
    assert (await browser.get(f"/console/revoke?kind=session&name={id}")).status == 403
    form_key = dict((await browser.get(LIST)).forms[-1].fields)["form_key"]
    body = f"form_key={form_key}&key=k&kind=session&name={id}"
    page = await browser.post("/console/revoke", body.encode())
    assert page.status == 403
    assert (world.log.entries, world.state.snapshot()) == ({}, before)
    assert world.outcomes == [("revocation.create", "refused", "")]
    assert (await browser.post("/console/revoke/confirm", body.encode())).status == 403


async def test_an_operator_does_not_end_everybody(world: Console) -> None:
    browser = await world.enter("operator")
    await crowd(world, "alice")
    assert (await browser.get("/console/revoke?kind=all")).status == 403
    form = await confirm(world, browser, "kind=session&name=x")
    assert (await browser.send(form, kind="all", name="")).status == 403
    assert world.log.entries == {}
    assert world.outcomes == [("revocation.create", "refused", "")]


async def test_not_confirmed(world: Console) -> None:
    browser = await world.enter()
    (id,) = await crowd(world, "alice")
    world.log.confirmed = False
    page = await browser.send(await confirm(world, browser, f"kind=session&name={id}"), reason="lost")
    assert page.status == 503
    assert "Not confirmed everywhere yet" in page.text and "Revoked" not in page.text
    assert list(world.state.sessions) == [id], "housekeeping waits for the confirmation"
    world.log.confirmed = True
    again = await browser.send(page.form("/console/revoke"))
    assert (again.status, len(made(world))) == (200, 1), "the same entry of the log, confirmed"
    assert made(world)[0].reason == "lost"
    assert [outcome for _, outcome, _ in world.outcomes] == ["intent", "unconfirmed", "intent", "done"]


async def test_some_confirmed_and_some_not(world: Console) -> None:
    """Each says for itself what it knows."""
    browser = await world.enter()
    ids = await crowd(world, "alice", "bob", "carol")
    form = (await browser.get(LIST)).form("/console/revoke/confirm")
    ask = (await browser.send(form, tick=tuple(ids))).form("/console/revoke")
    world.log.confirmed = False
    page = await browser.send(ask)
    assert "3 × It is in force wherever it was heard." in page.text
    world.log.confirmed = True
    assert (await browser.send(page.form("/console/revoke"))).status == 200
    assert len(made(world)) == 3


async def test_the_store_is_away(world: Console) -> None:
    browser = await world.enter()
    (id,) = await crowd(world, "alice")
    form = await confirm(world, browser, f"kind=session&name={id}")
    world.log.away = True
    page = await browser.send(form)
    assert page.status == 503
    assert "This was not done" in page.text and "Nothing is in force." in page.text
    assert world.log.entries == {}
    world.log.away = False
    assert (await browser.send(page.form("/console/revoke"))).status == 200


async def test_the_same_form_twice_is_one_revocation(world: Console) -> None:
    browser = await world.enter()
    (id,) = await crowd(world, "alice")
    form = await confirm(world, browser, f"kind=session&name={id}")
    assert [(await browser.send(form)).status for _ in range(2)] == [200, 200]
    assert len(made(world)) == 1


async def test_two_forms_are_two_revocations(world: Console) -> None:
    """The person may have signed in again in between."""
    browser = await world.enter()
    await crowd(world, "alice")
    for _ in range(2):
        await browser.send(await confirm(world, browser, "kind=user&name=alice&issuer=https://login.test"))
    assert len(made(world)) == 2


@pytest.mark.parametrize("key", ["", "a b", "k" * 129])
async def test_a_form_without_its_key(world: Console, key: str) -> None:
    browser = await world.enter()
    (id,) = await crowd(world, "alice")
    form = await confirm(world, browser, f"kind=session&name={id}")
    assert (await browser.send(form, key=key)).status == 400
    assert made(world) == []


async def test_the_audit_log_is_full(world: Console) -> None:
    browser = await world.enter()
    (id,) = await crowd(world, "alice")
    world.audit.full = True
    page = await browser.send(await confirm(world, browser, f"kind=session&name={id}"), reason="lost")
    assert page.status == 503
    assert "The audit log cannot be written, so nothing was done." in page.text
    assert world.log.entries == {}
    form = page.form("/console/revoke")
    assert form.ticks == ["yes"]
    assert (await browser.send(form)).status == 503, "it is no emergency unless somebody says so"
    assert world.log.entries == {}
    done = await browser.send(form, emergency="yes")
    assert done.status == 200
    assert "the records wait and follow" in done.text
    assert [event.outcome for event in world.audit.waiting] == ["intent", "done"]
    assert world.audit.waiting[0].detail["emergency"] is True


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        pytest.param(WorldError(Reason.STATE_UNAVAILABLE, "away"), 503, "Nothing is in force.", id="away"),
        pytest.param(RuntimeError("a secret"), 500, "The log knows more", id="a bug"),
    ],
)
async def test_it_breaks_off(world: Console, error: Exception, status: int, said: str) -> None:
    browser = await world.enter()
    (id,) = await crowd(world, "alice")
    form = await confirm(world, browser, f"kind=session&name={id}")
    world.log.raises = error
    page = await browser.send(form)
    assert page.status == status
    assert said in page.text and "a secret" not in page.html
    assert [outcome for _, outcome, _ in world.outcomes] == ["intent", "failed"]


async def test_a_bounded_store_is_said_to_be_one(world: Console) -> None:
    browser = await world.enter()
    world.log.strict = False
    page = await browser.send(await confirm(world, browser, "kind=session&name=x"))
    assert "bounded" in page.text
    assert page.answer.headers["ztproxy-revocation"] == "bounded"


async def test_counting_fails_and_ending_does_not(world: Console) -> None:
    """How many were met is for people; nothing hangs on it."""
    browser = await world.enter()
    (id,) = await crowd(world, "alice")
    form = await confirm(world, browser, f"kind=session&name={id}")
    world.state.away = True
    page = await browser.send(form)
    assert (page.status, len(made(world))) == (200, 1)
    assert "It holds everywhere." in page.text


async def test_what_was_typed_is_on_record_and_not_in_the_page(world: Console) -> None:
    browser = await world.enter()
    (id,) = await crowd(world, "alice")
    form = await confirm(world, browser, f"kind=session&name={id}")
    page = await browser.send(form, reason="<script>alert(1)</script>")
    assert "<script>alert" not in page.html
    detail: Any = world.audit.events[0][0].detail
    assert detail["reason"] == "<script>alert(1)</script>"
