"""Recent decisions, filtered and followed; and how revocation stands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.surfaces.console.world import Console, serving

DECISIONS = "/console/decisions"
ALICE: dict[str, Any] = {
    "time": "2025-06-15T15:06:40.000Z",
    "request_id": "req1",
    "client": "203.0.113.7",
    "method": "GET",
    "host": "app.test",
    "path": "/secret",
    "decision": "deny",
    "reasons": ["group_missing"],
    "route": "app",
    "user": "alice",
    "session": "abc123",
    "email": "alice@example.com",
}
BOB: dict[str, Any] = {**ALICE, "decision": "forward", "reasons": ["rule_allowed"], "request_id": "req2",
                       "user": "bob", "email": None, "route": "wiki"}  # fmt: skip
NOBODY: dict[str, Any] = {"time": "2025-06-15T15:06:41.000Z", "request_id": "req3", "decision": "refuse",
                          "reasons": ["http_syntax"]}  # fmt: skip


async def test_a_decision(world: Console) -> None:
    world.records = [ALICE]
    page = await (await world.enter("viewer")).get(DECISIONS)
    for fact in ("deny", "alice@example.com", "GET app.test/secret", "group_missing", "203.0.113.7", "req1"):
        assert fact in page.text
    assert "You are not in a group that may open this." in page.text
    assert "/console/sessions/abc123" in page.links


@pytest.mark.parametrize(
    ("query", "found"),
    [
        pytest.param("", ["req1", "req2", "req3"], id="all"),
        pytest.param("person=ALICE", ["req1"], id="an address"),
        pytest.param("person=bob", ["req2"], id="a subject"),
        pytest.param("route=wiki", ["req2"], id="a route"),
        pytest.param("route=wik", [], id="a route, to the letter"),
        pytest.param("denied=yes", ["req1", "req3"], id="what was denied"),
        pytest.param("denied=yes&person=bob", [], id="both"),
        pytest.param("person=&route=&denied=", ["req1", "req2", "req3"], id="an empty form"),
    ],
)
@pytest.mark.parametrize("path", [DECISIONS, f"{DECISIONS}/rows"])
async def test_filters(world: Console, path: str, query: str, found: list[str]) -> None:
    world.records = [ALICE, BOB, NOBODY]
    page = await (await world.enter()).get(f"{path}?{query}")
    assert [one for one in ("req1", "req2", "req3") if one in page.text] == found


@pytest.mark.parametrize(
    "record",
    [
        pytest.param({}, id="empty"),
        pytest.param({"reasons": "text", "session": 7, "email": ["a"]}, id="other types"),
        pytest.param({"reasons": ["of_a_newer_version"]}, id="an unknown reason"),
        pytest.param({"session": "../locks"}, id="a path for a session"),
        pytest.param({"reasons": None, "decision": None}, id="nulls"),
    ],
)
async def test_a_record_of_another_version(world: Console, record: dict[str, Any]) -> None:
    world.records = [record]
    page = await (await world.enter()).get(DECISIONS)
    assert page.status == 200
    assert not any(".." in link for link in page.links)


async def test_following(world: Console) -> None:
    world.records = [ALICE]
    browser = await world.enter()
    page = await browser.get(f"{DECISIONS}?person=alice&denied=yes")
    fragment = "/console/decisions/rows?person=alice&amp;denied=yes"
    assert f'hx-get="{fragment}" hx-trigger="every 2s"' in page.html
    rows = await browser.get(fragment.replace("&amp;", "&"))
    assert rows.html.strip() in page.html
    assert "<html" not in rows.html
    world.records = [BOB, ALICE]
    assert "req2" in (await browser.get(f"{DECISIONS}/rows")).text


async def test_it_can_be_stopped(world: Console) -> None:
    """What moves by itself can be held (WCAG 2.2.2)."""
    browser = await world.enter()
    page = await browser.get(f"{DECISIONS}?route=app")
    (stop,) = [link for link in page.links if "follow=no" in link]
    still = await browser.get(stop)
    assert "hx-trigger" not in still.html
    assert "Follow" in still.text and "Reload" in still.text
    assert stop in still.links, "reloading keeps it still"
    assert ("follow", "no") in still.forms[0].fields


async def test_decisions_are_not_kept() -> None:
    world = Console()
    world.desk = replace(world.desk, decisions=None)
    async with serving(world):
        page = await (await world.enter()).get(DECISIONS)
    assert "Recent decisions are not kept here." in page.text


@pytest.mark.parametrize(("strict", "said"), [(True, "Strict."), (False, "Bounded.")])
async def test_the_topology(world: Console, strict: bool, said: str) -> None:
    world.log.strict = strict
    page = await (await world.enter("viewer")).get("/console/status")
    assert page.text.count(said) == 1
    assert "standalone" in page.text and "appendfsync always" in page.text


async def test_the_report(world: Console) -> None:
    world.report = {
        "number": 42,
        "audit": True,
        "nothing": None,
        "names": ["a", "b"],
        "workers": [{"worker": "w-1", "applied": 41, "lease": 0.7504}, {"worker": "w-2", "push": False}],
        "nodes": {"n-1": {"applied": 40}, "n-2": {"applied": 39}},
        "detail": {"kind": "sentinel", "more": {"replicas": 2, "of": [{"a": 1}]}},
        "empty": {},
    }
    page = await (await world.enter()).get("/console/status")
    for fact in ("Number 42", "Audit yes", "Nothing —", "Names a, b", "w-1 41 0.75 —", "w-2 — — no",
                 "n-1 40", "n-2 39", "Kind sentinel", "More Replicas: 2, Of: A: 1"):  # fmt: skip
        assert fact in page.text
