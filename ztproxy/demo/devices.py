"""Devices and programs, as stories: certificates, approval, posture, a lost laptop, and access tokens.

Knows: which apps of `demo.yaml` ask for a device, and how `ztproxy device` enrols one. Promises: each story
has laptops of its own; what ends a session is never waited for. Leaves the judging to `telling`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp

from ztproxy.adapters.device_ca import CERTIFICATE, KEY, DeviceCA
from ztproxy.demo.administering import Answer
from ztproxy.demo.assurance import soon
from ztproxy.demo.endings import audited
from ztproxy.demo.laptops import Laptop
from ztproxy.demo.people import PEOPLE
from ztproxy.demo.running import Demo
from ztproxy.demo.setting import TRUST_DOMAIN
from ztproxy.demo.telling import Story, a_visitor, signed_in, so, true
from ztproxy.demo.visitor import NAVIGATION, PROGRAM, Page, Visitor
from ztproxy.gateway.enrolment import challenge_of, short_code

_JSON = {**PROGRAM, "Content-Type": "application/json"}
_A_DAY = 86400.0
GOOD = {"disk_encrypted": True, "os_patch_age": 3}


def _laptop(demo: Demo) -> Laptop:
    return Laptop.new(demo.directory / "laptops" / secrets.token_hex(4))


async def registered(demo: Demo, person: str) -> tuple[str, Laptop]:
    """A laptop with a certificate, on record as approved and as this person's; its id first."""
    laptop, id = _laptop(demo), f"demo-{person}-{secrets.token_hex(4)}"
    files = (demo.directory / CERTIFICATE, demo.directory / KEY)
    authority = DeviceCA.load(*files, TRUST_DOMAIN, _A_DAY)
    laptop.keep(authority.issue(laptop.proven, id, time.time()).pem)
    form = {
        "owners": [_mail(person)],
        "status": "approved",
        "platform": "linux",
        "name": f"{person}'s laptop",
    }
    _done("registering a laptop", await demo.admin.ask("PUT", f"/devices/{id}", form))
    return id, laptop


def _mail(person: str) -> str:
    return next(one.email for one in PEOPLE if one.username == person)


def _done(what: str, answer: Answer) -> None:
    so(f"the status of {what} ({answer.body})", answer.status, 200)


@contextlib.asynccontextmanager
async def _on_a_laptop(demo: Demo, person: str, method: str) -> AsyncIterator[tuple[str, Visitor]]:
    """The laptop's id, and its owner in front of it."""
    id, laptop = await registered(demo, person)
    async with a_visitor(demo, person, method, laptop) as visitor:
        yield id, visitor


def _reasons(page: Page) -> Any:
    return page.json["reasons"]


async def _no_certificate(demo: Demo) -> None:
    admin = demo.site.origin("admin")
    async with a_visitor(demo, "carol", "phr") as carol:
        await signed_in(carol, demo)
        page = await carol.open(admin)
        so("the status", page.status, 403)
        true("certificate" in page.text, "the page does not say what is missing")
        true("/.ztproxy/devices" in page.text, "the page does not lead to her devices")
        so("the reasons for a program", _reasons(await carol.ask(admin)), ["device_certificate_required"])


async def _key_and_laptop(demo: Demo) -> None:
    admin = demo.site.origin("admin")
    async with _on_a_laptop(demo, "carol", "pwd") as (_, carol):
        await signed_in(carol, demo)
        weak = await carol.open(f"{admin}/json")
        true(weak.status in (401, 403), f"with a password again the status is {weak.status}")
        carol.method = "phr"
        page = await carol.open(f"{admin}/json")
        so("the status with her security key", page.status, 200)
        so("who the app sees", page.json["assertion"]["identity"]["email"], "carol@example.com")


async def _enrol(demo: Demo, visitor: Visitor, laptop: Laptop) -> Page:
    """What `ztproxy device enroll` does, and the person in the browser: the answer to the request."""
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    challenge = challenge_of(verifier)
    told = {"port": "4711", "state": state, "challenge": challenge, "name": "A laptop", "platform": "linux"}
    page = await visitor.open(f"{demo.site.bare_tls}/.ztproxy/devices/enroll?{urlencode(told)}")
    so("the status of the page to confirm", page.status, 200)
    true(short_code(challenge) in page.text, "the page does not show the code that the tool shows")
    back = urlsplit((await visitor.send(page)).location)
    so("where the ticket goes", (back.hostname, back.port), ("127.0.0.1", 4711))
    brought = parse_qs(back.query)
    so("the state that comes with it", brought["state"], [state])
    return await _ask(
        demo,
        visitor,
        "certificate",
        {"ticket": brought["ticket"][0], "verifier": verifier, "csr": laptop.request()},
    )


async def _ask(demo: Demo, visitor: Visitor, page: str, told: dict[str, str]) -> Page:
    """As a tool, without any cookie of the browser's."""
    async with a_visitor(demo) as tool:
        url = f"{demo.site.bare_tls}/.ztproxy/devices/{page}"
        return await tool.ask(url, _JSON, method="POST", data=json.dumps(told).encode())


async def _approved_at_once(demo: Demo) -> None:
    laptop = _laptop(demo)
    async with a_visitor(demo, "carol", "phr") as carol:
        answer = await _enrol(demo, carol, laptop)
        so("the status of the enrolment", answer.status, 200)
        so("the status of the device", answer.json["status"], "approved")
        laptop.keep(answer.json["certificate"])
    async with a_visitor(demo, "carol", "phr", laptop) as carol:
        so("the status of admin", (await carol.open(demo.site.origin("admin"))).status, 200)


async def _approved_later(demo: Demo) -> None:
    laptop = _laptop(demo)
    async with a_visitor(demo, "bob", "mfa") as bob:
        answer = await _enrol(demo, bob, laptop)
        so("the status of the enrolment", (answer.status, answer.json["status"]), (202, "pending"))
        true("certificate" not in answer.json, "there is a certificate without an approval")
        asked = {"csr": laptop.request()}
        so("the status of asking again", (await _ask(demo, bob, "renew", asked)).status, 202)
        id = answer.json["device"]
        approval = await demo.admin.ask("POST", f"/devices/{id}/status", {"status": "approved"})
        _done("the approval", approval)
        answer = await _ask(demo, bob, "renew", asked)
        so("the status after the approval", answer.status, 200)
        laptop.keep(answer.json["certificate"])
        _done("the report", await _report(demo, id, GOOD))
    async with a_visitor(demo, "bob", "mfa", laptop) as bob:
        so("the status of payroll", (await bob.open(demo.site.origin("payroll"))).status, 200)


async def _elsewhere(demo: Demo) -> None:
    admin = demo.site.origin("admin")
    _, alices = await registered(demo, "alice")
    async with _on_a_laptop(demo, "carol", "phr") as (_, carol):
        so("the status for carol", (await carol.open(admin)).status, 200)
        cookie = carol.cookie_header(admin)
        async with a_visitor(demo, laptop=alices) as thief:
            page = await thief.ask(admin, {**PROGRAM, **cookie})
            so(
                "what a thief with another laptop gets",
                (page.status, _reasons(page)),
                (401, ["device_mismatch"]),
            )
        async with a_visitor(demo) as thief:
            page = await thief.ask(admin, {**PROGRAM, **cookie})
            seen = (page.status, _reasons(page))
            so("what a thief without one gets", seen, (403, ["device_certificate_required"]))
        so("the status for carol, still", (await carol.ask(admin)).status, 200)

    async def on_record() -> bool:
        seen = await asyncio.to_thread(audited, demo.directory)
        return ("ztproxy", "session.astray", "refused") in seen

    await soon("that it is in the audit log", on_record, True)


async def _lost(demo: Demo) -> None:
    pages = [demo.site.origin("home"), demo.site.origin("login") + "/.ztproxy/session"]
    admin = demo.site.origin("admin")
    async with _on_a_laptop(demo, "carol", "phr") as (id, carol), a_visitor(demo, "carol") as other:
        await signed_in(carol, demo)
        await signed_in(other, demo)
        so("the status of admin", (await carol.open(admin)).status, 200)
        answer = await demo.admin.ask(
            "POST", f"/devices/{id}/status", {"status": "lost", "reason": "a train"}
        )
        _done("the report", answer)
        so("whether it is known to hold everywhere", answer.body["ended"]["confirmed"], True)
        for page in pages:
            so(f"the status of {page} afterwards", (await carol.ask(page)).status, 401)
        shut = await carol.ask(admin)
        true(shut.status in (401, 403), f"the status of admin afterwards is {shut.status}")
        so("the status of home on her other device", (await other.ask(pages[0])).status, 200)
        so("what the laptop gets when she signs in anew", (await carol.open(admin)).status, 403)


async def _report(demo: Demo, id: str, facts: Mapping[str, object]) -> Answer:
    return await demo.admin.ask(
        "PUT", "/devices/posture", {"reports": [{"device": id, "facts": dict(facts)}]}
    )


async def _posture(demo: Demo) -> None:
    payroll = demo.site.origin("payroll")
    async with _on_a_laptop(demo, "bob", "pwd") as (id, bob):
        so("the status with nothing reported", (await bob.open(payroll)).status, 403)
        _done("the report", await _report(demo, id, GOOD))

        async def opens() -> object:
            return (await bob.open(payroll)).status

        await soon("the status in good order", opens, 200)

        async def told() -> object:
            page = await bob.ask(payroll)
            return page.status if page.status == 200 else _reasons(page)

        for facts, expected in (
            ({**GOOD, "disk_encrypted": False}, ["posture_mismatch"]),
            (GOOD, 200),
            ({**GOOD, "os_patch_age": 90}, ["posture_mismatch"]),
        ):
            _done("the report", await _report(demo, id, facts))
            await soon(f"what payroll says to {facts}", told, expected)


async def _token(demo: Demo, scope: str) -> str:
    secret = (demo.directory / "service-secret").read_text(encoding="ascii")
    form = {"grant_type": "client_credentials", "scope": scope}
    async with (
        aiohttp.ClientSession(auth=aiohttp.BasicAuth("ci-job", secret)) as http,
        http.post(f"{demo.issuer}/token", data=form) as answer,
    ):
        so("the status of the token endpoint", answer.status, 200)
        token: str = (await answer.json())["access_token"]
        return token


async def _service(demo: Demo) -> None:
    api = demo.site.origin("api")
    good, weak = [{"Authorization": f"Bearer {await _token(demo, one)}"} for one in ("deploy", "read")]
    async with a_visitor(demo) as job:
        page = await job.ask(f"{api}/json", {**PROGRAM, **good}, method="POST")
        so("the status with a token", page.status, 200)
        so("who the app sees", page.json["assertion"]["identity"]["sub"], "ci-job")
        true(good["Authorization"] not in page.text, "the app received the token")
        page = await job.ask(f"{api}/json", {**PROGRAM, **weak})
        so("the status without the scope", page.status, 403)
        true(
            "insufficient_scope" in page.headers.get("WWW-Authenticate", ""), "the challenge does not say why"
        )
        page = await job.ask(f"{api}/json")
        so("the status without a token", page.status, 401)
        forged = {"Authorization": good["Authorization"][:-4] + "AAAA"}
        so("the status with a forged one", (await job.ask(f"{api}/json", {**PROGRAM, **forged})).status, 401)
    async with a_visitor(demo, "alice") as alice:
        so("the status for alice", (await alice.open(f"{api}/json")).status, 200)
        page = await alice.ask(f"{api}/json", {**NAVIGATION, **good})
        so("the status with a cookie and a token", page.status, 400)


DEVICES = (
    Story(
        "without a device certificate carol reads at admin what is missing, and where to get it",
        _no_certificate,
    ),
    Story(
        "on her own laptop, admin asks carol for her security key and lets her in with it", _key_and_laptop
    ),
    Story(
        "carol enrols a laptop as `ztproxy device` does; it is approved at once and opens admin",
        _approved_at_once,
    ),
    Story("bob's laptop gets its certificate only once an administrator has approved it", _approved_later),
    Story(
        "carol's cookie on another laptop is worth nothing, and that it was tried is on record", _elsewhere
    ),
    Story("a laptop is reported lost: carol's session on it ends at once everywhere", _lost),
    Story("payroll opens on a laptop in good order, and shuts when it is not any more", _posture),
    Story("the CI job comes with a token: not without its scope, nor together with a cookie", _service),
)
