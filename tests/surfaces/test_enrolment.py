"""My devices, over the wire: who may confirm what, where the ticket goes, and what a tool is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.core.words import site
from tests.worlds.enrolling import (
    FORM,
    JSON,
    OWN,
    PORT,
    RULES,
    STATE,
    Enrolling,
    asking,
    csr,
    enrolling,
    new_key,
)
from tests.worlds.front import AUTH, PAGE, SIGNED_IN
from ztproxy.core.conditions import InGroup
from ztproxy.core.device import Status
from ztproxy.core.locks import Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.gateway.enrolment import ENROLLED_EVERY, ISSUED_EVERY, EnrolmentRules, short_code
from ztproxy.surfaces.enrolment import MAX_JSON

PASSWORD = "correct horse battery"
FILE = {"name": "Phone", "platform": "ios", "password": PASSWORD, "again": PASSWORD}


@pytest.fixture
async def it() -> AsyncIterator[Enrolling]:
    async with enrolling() as built:
        yield built


def at_home(it: Enrolling, page: str = "") -> str:
    return f"{it.host}{OWN}{page}"


# -- the whole way ----------------------------------------------------------------------------------------


async def test_a_device_is_enrolled_and_renewed(it: Enrolling) -> None:
    alice, key = it.browser("alice", "it"), new_key()
    page = await it.page(alice, name="Alice's <laptop>")
    assert page.status == 200 and "Alice&#39;s &lt;laptop&gt;" in page.text
    assert short_code(asking()["challenge"]) in page.text
    policy = page.field("content-security-policy") or ""
    assert f"form-action 'self' http://127.0.0.1:{PORT}" in policy and "script" not in policy
    sent = await it.post(alice, "enroll", asking(name="Alice's <laptop>"))
    parts = urlsplit(sent.location)
    assert (sent.status, parts.scheme, parts.netloc) == (303, "http", f"127.0.0.1:{PORT}")
    query = parse_qs(parts.query)
    assert query["state"] == [STATE] and sent.field("referrer-policy") == "no-referrer"
    told = await it.redeem(query["ticket"][0], csr(key))
    assert (told.status, told.json["status"], told.field("cache-control")) == (200, "approved", "no-store")
    leaf = x509.load_pem_x509_certificate(told.json["certificate"].encode())
    assert leaf.public_key() == key.public_key()
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(told.json["chain"].encode()))
    assert told.json["not_after"] == leaf.not_valid_after_utc.timestamp()
    shown = (await alice.ask(at_home(it))).text
    for text in ("Alice&#39;s &lt;laptop&gt;", told.json["device"], "approved", "2025", "device enroll"):
        assert text in shown
    it.front.later(ISSUED_EVERY)
    assert (await it.tell("renew", csr=csr(key))).json["device"] == told.json["device"]
    again = await it.tell("renew", csr=csr(key))
    assert (again.status, again.field("retry-after")) == (429, "60")
    assert again.field("content-type") == "application/problem+json"


async def test_one_that_waits(it: Enrolling) -> None:
    alice, key = it.browser(), new_key()
    told = await it.redeem(await it.ticket(alice), csr(key))
    assert told.status == 202 and set(told.json) == {"device", "status"}
    assert (await it.tell("renew", csr=csr(key))).status == 202
    page = await alice.ask(at_home(it), {**PAGE, "Accept": "application/json", "Sec-Fetch-Mode": "cors"})
    (mine,) = page.json["devices"]
    assert mine == {
        "id": told.json["device"],
        "name": "Alice's laptop",
        "platform": "linux",
        "status": "pending",
    }
    assert "waits for approval" in (await alice.ask(at_home(it))).text
    device = it.devices.devices[mine["id"]]
    for status, code, reason in (
        (Status.APPROVED, 200, ""),
        (Status.LOST, 403, "device_lost"),
        (Status.RETIRED, 403, "device_retired"),
    ):
        current = it.devices.devices[device.id]
        await it.devices.put(replace(current, status=status))
        page = await it.tell("renew", csr=csr(key))
        assert (page.status, page.json.get("reasons", [""])) == (code, [reason])


async def test_bob_does_not_see_what_is_alices(it: Enrolling) -> None:
    await it.redeem(await it.ticket(it.browser("alice", "it")))
    bob = it.browser("bob")
    await bob.open(at_home(it))
    assert "No device of yours" in (await bob.ask(at_home(it))).text
    (id,) = it.devices.devices
    page = await bob.ask(at_home(it, f"/pkcs12?device={id}"))
    assert page.status == 403 and "Alice" not in page.text
    page = await it.post(bob, "pkcs12", {"device": id, "password": PASSWORD, "again": PASSWORD})
    assert page.status == 403


# -- who may ----------------------------------------------------------------------------------------------


async def test_a_stranger_signs_in_strongly_and_comes_back(it: Enrolling) -> None:
    alice = it.browser()
    page = await it.page(alice)
    assert (page.status, page.url) == (200, at_home(it, f"/enroll?{urlencode(asking())}"))
    asked = parse_qs(urlsplit(next(url for url in alice.trail if "/authorize?" in url)).query)
    assert asked["acr_values"][0].split()[0] == "mfa"


async def test_a_weak_sign_in_is_stepped_up(it: Enrolling) -> None:
    alice = it.browser(acr="pwd")
    await alice.open(at_home(it))
    assert "No device of yours" in (await alice.ask(at_home(it))).text
    alice.person["acr"] = "mfa"
    page = await alice.ask(at_home(it, f"/enroll?{urlencode(asking())}"))
    assert page.status == 302 and it.front.provider_at(page.location)
    assert (await it.page(alice)).status == 200
    assert it.front.op.hits["/token"] == 2


async def test_a_weak_sign_in_confirms_nothing(it: Enrolling) -> None:
    alice = it.browser(acr="pwd")
    await alice.open(at_home(it))
    for page, form in (("enroll", asking()), ("pkcs12", FILE)):
        sent = await it.post(alice, page, form)
        assert sent.status == 401 and not sent.location
    assert not it.devices.devices and not [one for one in it.front.state.values if one[0] == "enrolment"]


async def test_who_is_not_allowed() -> None:
    rules = EnrolmentRules(InGroup(frozenset({"staff"})), None)
    async with enrolling(rules=rules) as it:
        alice = it.browser("alice", "guests")
        page = await it.page(alice)
        assert page.status == 403 and "group" in page.text
        assert (await it.post(alice, "enroll", asking())).status == 403
        assert (await it.post(alice, "pkcs12", FILE)).status == 403
        assert (await alice.ask(at_home(it))).status == 200  # looking is for everybody
        assert it.front.exchanges[-2].tag.reasons == (Reason.GROUP_MISSING,)
        assert not it.devices.devices


async def test_who_is_locked_out(it: Enrolling) -> None:
    alice = it.browser("alice", "it")
    ticket = await it.ticket(alice)
    (record,) = it.front.state.sessions.values()
    who = record.session.identity
    it.front.lease.lock(Target(TargetKind.USER, who.subject, who.issuer), until=it.front.clock() + 60)
    for path in ("", f"/enroll?{urlencode(asking())}", "/pkcs12"):
        assert (await alice.ask(at_home(it, path))).status == 403
    assert (await it.post(alice, "enroll", asking())).status == 403
    assert ticket and not it.devices.devices


async def test_nobody(it: Enrolling) -> None:
    nobody = it.browser()
    for page, form in (("enroll", asking()), ("pkcs12", FILE)):
        assert (await it.post(nobody, page, form)).status == 401
    for path in ("", f"/enroll?{urlencode(asking())}", "/pkcs12"):
        page = await nobody.ask(at_home(it, path), JSON)
        assert (page.status, page.json["reasons"]) == (401, ["login_required"])
    assert not it.devices.devices


async def test_several_providers_are_a_choice() -> None:
    async with enrolling(providers=["op", "other"]) as it:
        alice = it.browser()
        link = at_home(it, f"/enroll?{urlencode(asking())}")
        page = await alice.ask(link)
        assert page.status == 200 and "The other" in page.text
        chosen = await alice.ask(f"{link}&provider=other")
        assert it.front.provider_at(chosen.location) is it.front.ops["other"]
        assert (await alice.ask(f"{link}&provider=nobody")).status == 200
        page = await alice.ask(at_home(it))
        assert f"{OWN}?provider=op" in page.text
        page = await alice.open(f"{link}&provider=other")
        assert (page.status, page.url) == (200, link)


async def test_a_loop_ends_with_a_button(it: Enrolling) -> None:
    alice = it.browser()
    link = at_home(it, f"/enroll?{urlencode(asking())}")
    for _ in range(5):
        assert (await alice.ask(link)).status == 302
    page = await alice.ask(link)
    assert page.status == 429 and "by_hand=1" in page.text and "port=" in page.text
    assert (await alice.ask(f"{link}&by_hand=1")).status == 302


# -- whose form -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Sec-Fetch-Site": "cross-site"}, id="of another site"),
        pytest.param({"Sec-Fetch-Site": "same-site"}, id="of a sibling"),
        pytest.param({"Sec-Fetch-Site": "none"}, id="of nobody"),
        pytest.param({"Sec-Fetch-Mode": "cors"}, id="of a script here"),
        pytest.param({"Sec-Fetch-Mode": "no-cors"}, id="of a blind script here"),
        pytest.param({"Sec-Fetch-Mode": "same-origin"}, id="of a same-origin script"),
        pytest.param({"Sec-Fetch-Site": None, "Origin": "https://app.test"}, id="of an old browser"),
        pytest.param(
            {"Sec-Fetch-Site": None, "Sec-Fetch-Mode": None, "Origin": "https://evil.test"}, id="elsewhere"
        ),
    ],
)
async def test_a_form_that_is_not_ours(it: Enrolling, headers: dict[str, str | None]) -> None:
    alice = it.browser("alice", "it")
    await it.page(alice)
    for page, form in (("enroll", asking()), ("pkcs12", FILE)):
        sent = await it.post(alice, page, form, **headers)
        assert sent.status == 403 and not sent.location
        assert it.front.exchanges[-1].tag.reasons == (Reason.FORGED_FORM,)
    assert not it.devices.devices and not [one for one in it.front.state.values if one[0] == "enrolment"]


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"port": "22"}, id="a port of the system"),
        pytest.param({"port": "34567@evil.test"}, id="another host"),
        pytest.param({"port": "evil.test:34567"}, id="a host and a port"),
        pytest.param({"port": "34567/..//evil.test"}, id="a path"),
        pytest.param({"port": "34567\r\nX: y"}, id="another line"),
        pytest.param({"state": "s" * 42 + "\n"}, id="a state of two lines"),
        pytest.param({"state": f"{STATE}&ticket=x"}, id="a second ticket"),
        pytest.param({"name": ""}, id="no name"),
    ],
)
async def test_where_a_ticket_never_goes(it: Enrolling, more: dict[str, str]) -> None:
    alice = it.browser("alice", "it")
    await it.page(alice)
    page = await alice.ask(at_home(it, f"/enroll?{urlencode(asking(**more))}"))
    assert page.status == 400 and not page.location and "<form" not in page.text
    sent = await it.post(alice, "enroll", asking(**more))
    assert sent.status == 400 and not sent.location
    told = await alice.ask(at_home(it, f"/enroll?{urlencode(asking(**more))}"), JSON)
    assert told.json["reasons"] == ["http_target"]


async def test_two_ports_are_none(it: Enrolling) -> None:
    alice = it.browser("alice", "it")
    link = at_home(it, f"/enroll?{urlencode(asking())}&port=40000")
    assert (await alice.ask(link)).status == 400
    await it.page(alice)
    body = urlencode(asking()) + "&port=40000"
    page = await alice.ask(at_home(it, "/enroll"), FORM, method="POST", body=body.encode())
    assert page.status == 400 and not page.location


async def test_too_many_devices(it: Enrolling) -> None:
    alice = it.browser("alice", "it")
    for _ in range(3):
        assert (await it.redeem(await it.ticket(alice))).status == 200
        it.front.later(ENROLLED_EVERY)
    page = await it.post(alice, "enroll", asking())
    assert page.status == 403 and "which is the most" in page.text and not page.location
    page = await it.post(alice, "pkcs12", FILE)
    assert page.status == 403 and len(it.devices.devices) == 3


# -- what a tool brings -----------------------------------------------------------------------------------


async def test_a_ticket_twice_and_without_its_secret(it: Enrolling) -> None:
    alice = it.browser("alice", "it")
    ticket = await it.ticket(alice)
    assert (await it.redeem(ticket)).status == 200
    again = await it.redeem(ticket)
    assert (again.status, again.json["reasons"]) == (400, ["login_ticket"])
    ticket = await it.ticket(alice)
    for verifier in ("w" * 43, "v" * 43):
        assert (await it.redeem(ticket, verifier=verifier)).status == 400
    assert len(it.devices.devices) == 1
    assert ticket not in again.text


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        pytest.param(b"", "application/json", 400, id="empty"),
        pytest.param(b"{", "application/json", 400, id="half"),
        pytest.param(b"[]", "application/json", 400, id="a list"),
        pytest.param(b'{"csr":1}', "application/json", 400, id="a number"),
        pytest.param('{"csr":"ü"}'.encode(), "application/json", 400, id="not ASCII"),
        pytest.param(b'{"csr":"\\u00fc"}', "application/json", 400, id="not ASCII, escaped"),
        pytest.param(b'{"csr":"\\ud800"}', "application/json", 400, id="half a character"),
        pytest.param(b"[" * 20_000, "application/json", 400, id="deep"),
        pytest.param(b'{"csr":"x"}', "text/plain", 400, id="as text"),
        pytest.param(b'{"csr":"x"}', "application/x-www-form-urlencoded", 400, id="as a form"),
        pytest.param(b'{"csr":"' + b"x" * MAX_JSON + b'"}', "application/json", 413, id="too long"),
        pytest.param(b'{"csr":"' + b"x" * 20_000 + b'"}', "application/json", 400, id="a long request"),
        pytest.param(b'{"csr":"x"}', "application/json", 400, id="no request"),
    ],
)
@pytest.mark.parametrize("page", ["renew", "certificate"])
async def test_what_is_no_question(
    it: Enrolling, page: str, body: bytes, media_type: str, status: int
) -> None:
    nobody = it.front.browser()
    headers = JSON | {"Content-Type": media_type}
    told = await nobody.ask(at_home(it, f"/{page}"), headers, method="POST", body=body)
    assert told.status == status and not it.devices.devices and not it.front.mistakes


async def test_a_question_in_chunks(it: Enrolling) -> None:
    head = (
        f"POST {OWN}/renew HTTP/1.1\r\nHost: app.test\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    ).encode()
    body = b'{"csr":"x"}'
    got = await it.front.raw(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), "POST")
    assert got.status == 400 and b"cannot be read" in got.body


async def test_an_unknown_key(it: Enrolling) -> None:
    told = await it.tell("renew", csr=csr())
    assert (told.status, told.json["reasons"]) == (403, ["device_unknown"])


@pytest.mark.parametrize("page", ["certificate", "renew"])
async def test_only_by_post(it: Enrolling, page: str) -> None:
    told = await it.front.browser().ask(at_home(it, f"/{page}"), JSON)
    assert (told.status, told.field("allow")) == (405, "POST")


# -- a file -----------------------------------------------------------------------------------------------


async def test_a_file(it: Enrolling) -> None:
    alice = it.browser("alice", "it")
    page = await alice.open(at_home(it, "/pkcs12"))
    assert page.status == 200 and 'type="password"' in page.text and "memory" in page.text
    sent = await it.post(alice, "pkcs12", FILE)
    (device,) = it.devices.devices.values()
    assert (sent.status, sent.field("content-type")) == (200, "application/x-pkcs12")
    assert sent.field("content-disposition") == f'attachment; filename="{device.id}.p12"'
    assert (sent.field("cache-control"), sent.field("x-content-type-options")) == ("no-store", "nosniff")
    key, leaf, _ = pkcs12.load_key_and_certificates(sent.got.body, PASSWORD.encode())
    assert key is not None and leaf is not None and leaf.public_key() == key.public_key()
    page = await alice.ask(at_home(it, f"/pkcs12?device={device.id}"))
    assert page.status == 200 and f'value="{device.id}"' in page.text and PASSWORD not in page.text


async def test_a_file_that_waits(it: Enrolling) -> None:
    alice = it.browser()
    await alice.open(at_home(it, "/pkcs12"))
    sent = await it.post(alice, "pkcs12", FILE)
    assert sent.status == 202 and "waits for approval" in sent.text
    (device,) = it.devices.devices.values()
    form = {"device": device.id, "password": PASSWORD, "again": PASSWORD}
    assert (await it.post(alice, "pkcs12", form)).status == 202
    await it.devices.put(replace(device, status=Status.APPROVED))
    assert f"pkcs12?device={device.id}" in (await alice.ask(at_home(it))).text
    assert (await it.post(alice, "pkcs12", form)).field("content-type") == "application/x-pkcs12"


@pytest.mark.parametrize(
    ("form", "said"),
    [
        pytest.param(FILE | {"password": "short", "again": "short"}, "12 to 128", id="short"),
        pytest.param(FILE | {"again": "another one entirely"}, "differ", id="differ"),
        pytest.param({"name": "x", "platform": "ios"}, "differ", id="no password"),
        pytest.param(FILE | {"name": ""}, "needs a name", id="no name"),
        pytest.param(FILE | {"platform": "<x>"}, "one word", id="no platform"),
    ],
)
async def test_no_file(it: Enrolling, form: dict[str, str], said: str) -> None:
    alice = it.browser("alice", "it")
    await alice.open(at_home(it, "/pkcs12"))
    sent = await it.post(alice, "pkcs12", form)
    assert sent.status == 400 and said in sent.text and not it.devices.devices
    assert PASSWORD not in sent.text


# -- where it lives ---------------------------------------------------------------------------------------


async def test_with_an_auth_host_the_pages_are_there_alone() -> None:
    async with enrolling(site(SIGNED_IN), auth=AUTH) as it:
        alice = it.browser("alice", "it")
        link = f"{OWN}/enroll?{urlencode(asking())}"
        page = await alice.ask(f"https://app.test{link}")
        assert (page.status, page.location) == (302, f"{AUTH}{link}")
        for path in ("", "/pkcs12", f"/pkcs12?{urlencode({'device': 'd-1'})}"):
            page = await alice.ask(f"https://app.test{OWN}{path}")
            assert page.location == f"{AUTH}{OWN}{path}"
        ticket = await it.ticket(alice)
        await alice.open("https://app.test/.ztproxy/session")
        for name, form in (("enroll", asking()), ("pkcs12", FILE)):
            sent = await alice.ask(
                f"https://app.test{OWN}/{name}", FORM, method="POST", body=urlencode(form).encode()
            )
            assert sent.status == 403 and not sent.location
        it.host = "https://app.test"  # a tool may ask where people come in
        assert (await it.redeem(ticket)).status == 200


async def test_a_store_that_is_away(it: Enrolling) -> None:
    alice = it.browser("alice", "it")
    ticket = await it.ticket(alice)
    it.devices.away = True
    for page in (
        await alice.ask(at_home(it)),
        await it.post(alice, "enroll", asking()),
        await it.redeem(ticket),
        await it.tell("renew", csr=csr()),
    ):
        assert (page.status, page.field("retry-after")) == (503, "1")


async def test_the_log_says_who(it: Enrolling) -> None:
    alice = it.browser("alice", "it")
    await it.page(alice)
    tag: Any = it.front.exchanges[-1].tag
    assert (tag.subject, tag.decision) == ("alice", "portal") and quote(STATE) not in str(tag)
    assert RULES.rank == 2
