"""Devices: found, looked at, and approved, lost or retired only after a page that says what it would do."""

from __future__ import annotations

from dataclasses import replace
from html import escape

import pytest

from tests.core.words import NOW
from tests.surfaces.console.world import Browser, Console, Form
from ztproxy.core.device import Device, Fact, Status
from ztproxy.core.locks import Lock, Target, TargetKind

LIST = "/console/devices"
SCRIPT = "<script>alert(1)</script>\"'"
OVERRIDE = "alice\N{RIGHT-TO-LEFT OVERRIDE}moc.live@bob"
LAPTOP = Device(
    "L-1",
    Status.APPROVED,
    "Alice's laptop",
    "macos",
    frozenset({"alice@example.com"}),
    posture={"disk_encrypted": Fact(True, "jamf", NOW - 7200), "os_version": Fact("15.1", "jamf", NOW)},
    created_at=NOW - 86_400,
    changed_at=NOW - 3600,
)


def put(world: Console, *devices: Device) -> None:
    world.devices.devices |= {device.id: replace(device, revision=1) for device in devices}


def locks(world: Console) -> list[Lock]:
    return [entry for entry in world.log.entries.values() if isinstance(entry, Lock)]


async def confirm(world: Console, browser: Browser, status: str, id: str = "L-1") -> Form:
    page = await browser.get(f"{LIST}/status/confirm?id={id}&status={status}")
    world.audit.events.clear()
    return page.form("/console/devices/status")


async def test_the_list(world: Console) -> None:
    put(world, LAPTOP, Device("L-2"))
    page = await (await world.enter("viewer")).get(LIST)
    for fact in ("L-1", "Alice's laptop", "macos", "alice@example.com", "1 hour ago", "pending"):
        assert fact in page.text
    assert f"{LIST}/L-1" in page.links


async def test_there_is_none(world: Console) -> None:
    assert "There is no such device." in (await (await world.enter()).get(LIST)).text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        pytest.param("", {"L-1", "L-2"}, id="all"),
        pytest.param("text=&owner=&status=&cursor=", {"L-1", "L-2"}, id="an empty form"),
        pytest.param("text=+LAPTOP+", {"L-1"}, id="a part, in any case"),
        pytest.param("owner=Alice@Example.com", {"L-1"}, id="an owner"),
        pytest.param("owner=alice", set(), id="a part of an owner"),
        pytest.param("status=pending", {"L-2"}, id="a status"),
        pytest.param("text=*", set(), id="no pattern"),
    ],
)
async def test_search(world: Console, query: str, found: set[str]) -> None:
    put(world, LAPTOP, Device("L-2"))
    page = await (await world.enter()).get(f"{LIST}?{query}")
    assert {id for id in ("L-1", "L-2") if f"{LIST}/{id}" in page.links} == found


async def test_pages_by_cursor(world: Console) -> None:
    put(world, *(Device(f"D-{number}", Status.LOST) for number in range(5)), Device("E"))
    browser = await world.enter()
    page, seen = await browser.get(f"{LIST}?limit=2&status=lost"), 0
    while True:
        seen += sum(f"{LIST}/D-{number}" in page.links for number in range(5))
        assert f"{LIST}/E" not in page.links
        following = [link for link in page.links if "cursor=" in link]
        if not following:
            break
        page = await browser.get(following[0])
    assert seen == 5
    assert (await browser.get(f"{LIST}?cursor=x")).status == 400


async def test_one(world: Console) -> None:
    put(world, LAPTOP)
    await world.sign_in("alice", email="alice@example.com", device="L-1")
    await world.sign_in("bob", email="bob@example.com", device="L-2")
    page = await (await world.enter("viewer")).get(f"{LIST}/L-1")
    for fact in ("disk_encrypted yes jamf 2 hours ago", "os_version 15.1 jamf just now", "approved", "macos"):
        assert fact in page.text
    assert "alice@example.com" in page.text and "bob@example.com" not in page.text
    assert not any("/status/" in link for link in page.links), "a viewer looks"
    page = await (await world.enter("operator")).get(f"{LIST}/L-1")
    offered = {link.rpartition("=")[2] for link in page.links if "/status/" in link}
    assert offered == {"pending", "lost", "retired"}


async def test_a_device_that_is_not_there(world: Console) -> None:
    browser = await world.enter()
    for path in ("/L-9", "/status/confirm?id=L-9&status=lost"):
        assert (await browser.get(LIST + path)).status == 404


@pytest.mark.parametrize(("status", "title"), [("lost", "Marked as lost"), ("retired", "Retired")])
async def test_shutting_out(world: Console, status: str, title: str) -> None:
    put(world, LAPTOP)
    browser = await world.enter()
    await world.sign_in("alice", email="alice@example.com", device="L-1")
    other = await world.sign_in("bob", device="L-2")
    page = await browser.get(f"{LIST}/status/confirm?id=L-1&status={status}")
    assert "this ends 1 session." in page.text and "alice@example.com" in page.text
    assert world.devices.devices["L-1"].status is Status.APPROVED, "nothing is done by looking"
    world.audit.events.clear()
    done = await browser.send(page.form("/console/devices/status"), reason="left on the train")
    assert (done.status, title in done.text) == (200, True)
    assert "It holds everywhere, and met 1 session." in done.text
    assert world.devices.devices["L-1"].status == status
    (lock,) = locks(world)
    assert lock.target == Target(TargetKind.DEVICE, "L-1")
    assert (lock.created_by, lock.reason) == ("operator-1", "left on the train")
    assert list(world.state.sessions) == [other]
    assert world.outcomes == [
        ("device.status", "intent", "device:L-1"),
        ("device.status", "done", "device:L-1"),
    ]


@pytest.mark.parametrize(
    ("before", "after"), [("pending", "approved"), ("lost", "approved"), ("approved", "pending")]
)
async def test_what_ends_nothing(world: Console, before: str, after: str) -> None:
    put(world, replace(LAPTOP, status=Status(before)))
    await world.sign_in("alice", device="L-1")
    browser = await world.enter()
    done = await browser.send(await confirm(world, browser, after))
    assert done.status == 200 and "Back to the device" in done.text
    assert world.devices.devices["L-1"].status == after
    assert locks(world) == [] and len(world.state.sessions) == 1


async def test_not_confirmed_everywhere(world: Console) -> None:
    put(world, LAPTOP)
    browser = await world.enter()
    form = await confirm(world, browser, "lost")
    world.log.confirmed = False
    page = await browser.send(form, reason="train")
    assert page.status == 503 and "Not confirmed everywhere yet" in page.text
    assert world.devices.devices["L-1"].status is Status.LOST
    world.log.confirmed = True
    done = await browser.send(page.form("/console/devices/status"))
    assert "It holds everywhere" in done.text
    assert [lock.reason for lock in locks(world)] == ["train"], "it was the same one"


async def test_the_store_is_away(world: Console) -> None:
    put(world, LAPTOP)
    browser = await world.enter()
    form = await confirm(world, browser, "lost")
    world.devices.away = True
    page = await browser.send(form)
    assert page.status == 503 and "This was not done" in page.text
    world.devices.away = False
    assert (await browser.send(page.form("/console/devices/status"))).status == 200
    assert world.devices.devices["L-1"].status is Status.LOST


async def test_a_full_disk_is_no_emergency_here(world: Console) -> None:
    put(world, LAPTOP)
    browser = await world.enter()
    form = await confirm(world, browser, "lost")
    world.audit.full = True
    page = await browser.send(form)
    assert page.status == 503 and 'name="emergency"' not in page.html
    assert world.devices.devices["L-1"].status is Status.APPROVED


async def test_a_viewer_is_refused_and_it_is_on_record(world: Console) -> None:
    put(world, LAPTOP)
    form = await confirm(world, await world.enter("operator"), "lost")
    viewer = await world.enter("viewer")
    assert (await viewer.get(f"{LIST}/status/confirm?id=L-1&status=lost")).status == 403
    mine = dict((await viewer.get(LIST)).form("/console/leave").fields)["form_key"]
    world.audit.events.clear()
    page = await viewer.send(form, form_key=mine)
    assert page.status == 403
    assert world.outcomes == [("device.status", "refused", "L-1")]
    assert world.devices.devices["L-1"].status is Status.APPROVED


@pytest.mark.parametrize(
    ("typed", "status"),
    [
        pytest.param({"status": "stolen"}, 400, id="no such status"),
        pytest.param({"id": "L-9"}, 404, id="no such device"),
        pytest.param({"form_key": "x"}, 403, id="a forged form"),
        pytest.param({"key": "a b"}, 400, id="no key"),
    ],
)
async def test_forms_that_change_nothing(world: Console, typed: dict[str, str], status: int) -> None:
    put(world, LAPTOP)
    browser = await world.enter()
    form = await confirm(world, browser, "lost")
    assert (await browser.send(form, **typed)).status == status
    assert world.devices.devices["L-1"].status is Status.APPROVED
    assert locks(world) == []


@pytest.mark.parametrize("text", [SCRIPT, OVERRIDE])
async def test_names_are_hostile(world: Console, text: str) -> None:
    fact = {"os_version": Fact(text, text, NOW)}
    put(world, Device("L-1", name=text, platform=text, owners=frozenset({text}), posture=fact))
    browser = await world.enter()
    for path in (LIST, f"{LIST}/L-1", f"{LIST}/status/confirm?id=L-1&status=lost"):
        page = await browser.get(path)
        assert page.status == 200
        assert SCRIPT not in page.html and "\N{RIGHT-TO-LEFT OVERRIDE}" not in page.html
        shown = escape(SCRIPT).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
        assert (shown if text is SCRIPT else "\\u202e") in page.html
    found = await browser.get(f"{LIST}?text=%3Cscript%3E%22")
    assert '<script>"' not in found.html
