"""My devices: what a person sees of them, the page that confirms a new one, and what the tool on a device
asks of us.

Knows: where these pages live and how their answers look. Promises: a person is judged for them as for a
route, and asked for a stronger sign-in where the rules want one; what changes something takes a form that our
own page sent, as a whole page and never from a script; a ticket leaves for 127.0.0.1 only; nothing here may
be kept by a cache. Leaves what is confirmed, issued and refused to `gateway.enrolment`.

Where there is an auth host, the pages are there and the others lead to it: at an app's host the app's own
scripts and workers share the page's origin, and could press its button or read a key that is downloaded. What
the tool asks (JSON, no cookie) is answered at every host.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from ztproxy.core.assurance import LOWEST
from ztproxy.core.conditions import Authenticated
from ztproxy.core.decision import Deny, Forward, Login, StepUp
from ztproxy.core.device import Device, Status
from ztproxy.core.evidence import DeviceEvidence, Facts
from ztproxy.core.identity import Session
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Field, Framing, Request
from ztproxy.core.routes import Route
from ztproxy.errors import ClientError
from ztproxy.gateway.enrolment import (
    CERTIFICATE_UNTIL,
    LEAST_PASSWORD,
    LONGEST_PASSWORD,
    Asking,
    Declined,
    Enrolled,
    Enrolment,
    described,
    page_route,
)
from ztproxy.gateway.judge import Judge
from ztproxy.gateway.ports import Clock
from ztproxy.gateway.sign_in import SignIn, TooManyStarts
from ztproxy.surfaces.answers import PREFIX, Answer, Answers, reads_pages
from ztproxy.surfaces.cookies import clear_flows, flow_cookie
from ztproxy.surfaces.origins import Origins
from ztproxy.surfaces.pages import SAFE_FIELDS, Link, Pages
from ztproxy.surfaces.portal import Asked, Page, once

DEVICES = f"{PREFIX}/devices"
ENROLL, PKCS12 = f"{DEVICES}/enroll", f"{DEVICES}/pkcs12"
MAX_JSON = 32 * 1024

_JSON: Field = (b"Content-Type", b"application/json")
_PROBLEM: Field = (b"Content-Type", b"application/problem+json")
_FILE: Field = (b"Content-Type", b"application/x-pkcs12")
_STATUS_WORDS = {
    Status.PENDING: "waits for approval",
    Status.APPROVED: "approved",
    Status.LOST: "reported lost",
    Status.RETIRED: "out of use",
}


class EnrolmentPages:
    """`device_of` finds out which device a request comes from (`Witness.device_of`). `providers` are (name,
    title) in the order of the configuration."""

    def __init__(
        self,
        *,
        enrolment: Enrolment,
        judge: Judge,
        device_of: Callable[[Request, float], Awaitable[DeviceEvidence]],
        sign_in: SignIn,
        origins: Origins,
        pages: Pages,
        answers: Answers,
        providers: Sequence[tuple[str, str]],
        clock: Clock,
    ) -> None:
        self._enrolment, self._judge, self._device_of = enrolment, judge, device_of
        self._sign_in, self._origins, self._pages, self._answers = sign_in, origins, pages, answers
        self._providers, self._clock = tuple(providers), clock
        self._listing = page_route("devices", Authenticated())

    # -- for people --------------------------------------------------------------------------------------

    async def devices(self, asked: Asked) -> Answer:
        """My devices, and how to enrol one."""
        session = await self._admit(asked, self._listing, DEVICES)
        if isinstance(session, Answer):
            return session
        mine = await self._enrolment.mine(session.identity)
        if not reads_pages(asked.request):
            return Answer(200, (_JSON, *SAFE_FIELDS), json.dumps({"devices": _told(mine)}).encode())
        page = self._pages.render(
            "devices.html",
            devices=[(one, _STATUS_WORDS[one.status], _until(one)) for one in mine],
            here=self._here(asked.request),
            person=_called(session),
        )
        return Answer(200, page.fields, page.body)

    async def enroll(self, asked: Asked) -> Answer:
        """What a tool asks for, for the person to compare and confirm."""
        try:
            asking = Asking.read(asked.param)
        except Declined as declined:
            return self._declined_page(asked, declined)
        back = f"{ENROLL}?{urlencode(asking.params())}"
        session = await self._admit(asked, self._enrolment.route, back)
        if isinstance(session, Answer):
            return session
        # Chromium holds the redirect of the form's answer to the page's `form-action`.
        page = self._pages.render(
            "enroll.html",
            asking=asking,
            params=asking.params(),
            person=_called(session),
            forms_to=asking.origin,
        )
        return Answer(200, page.fields, page.body)

    async def confirm(self, asked: Asked) -> Answer:
        """The button was pressed: on to the tool, with a ticket."""
        session = await self._own_form(asked, ENROLL)
        if isinstance(session, Answer):
            return session
        form = await asked.form()
        try:
            asking = Asking.read(lambda name: once(form, name))
            ticket = await self._enrolment.confirm(asking, await self._facts(asked.request, session))
        except Declined as declined:
            return self._declined_page(asked, declined)
        return _redirect(f"{asking.origin}/?{urlencode({'ticket': ticket, 'state': asking.state})}", (), 303)

    async def file_form(self, asked: Asked) -> Answer:
        """The form for a certificate and its key in a file: for a new device, or for the one of `device`."""
        device = asked.param("device")
        back = PKCS12 if device is None else f"{PKCS12}?{urlencode({'device': device})}"
        session = await self._admit(asked, self._enrolment.route, back)
        if isinstance(session, Answer):
            return session
        chosen = None
        if device is not None:
            mine = await self._enrolment.mine(session.identity)
            chosen = next((one for one in mine if one.id == device), None)
            if chosen is None:
                return self._declined_page(
                    asked, Declined(Reason.DEVICE_UNKNOWN, Reason.DEVICE_UNKNOWN.sentence)
                )
        page = self._pages.render(
            "device_file.html",
            device=chosen,
            least=LEAST_PASSWORD,
            longest=LONGEST_PASSWORD,
            person=_called(session),
        )
        return Answer(200, page.fields, page.body)

    async def file(self, asked: Asked) -> Answer:
        """The file, or that the device waits for approval."""
        session = await self._own_form(asked, PKCS12)
        if isinstance(session, Answer):
            return session
        form = await asked.form()
        password, device = once(form, "password") or "", once(form, "device")
        try:
            if password != once(form, "again"):
                raise Declined(Reason.HTTP_BODY, "The two passwords differ.")
            name, platform = ("", "") if device is not None else described(lambda name: once(form, name))
            facts = await self._facts(asked.request, session)
            packed = await self._enrolment.pack(facts, name, platform, password, device, asked.request_id)
        except Declined as declined:
            return self._declined_page(asked, declined)
        if packed.file is None:
            page = self._pages.message(
                "Your device waits for approval",
                f"It is on record as {packed.device.id}, and somebody has to approve it first.",
                next="Come back to your devices later, and get its file there.",
                links=(Link(DEVICES, "My devices"),),
                person=_called(session),
                request_id=asked.request_id,
            )
            return Answer(202, page.fields, page.body)
        # INVARIANT: the id has no letter that means something in a header: ids of ours only come this far.
        kept = f'attachment; filename="{packed.device.id}.p12"'.encode()
        return Answer(200, (_FILE, (b"Content-Disposition", kept), *SAFE_FIELDS), packed.file)

    # -- for the tool ------------------------------------------------------------------------------------

    async def certificate(self, asked: Asked) -> Answer:
        """POST of `ticket`, `verifier` and `csr`: a new device's first certificate; 202 where it waits."""
        told = await _json_body(asked, ("ticket", "verifier", "csr"))
        try:
            enrolled = await self._enrolment.redeem(
                told["ticket"], told["verifier"], told["csr"].encode(), asked.request_id
            )
        except Declined as declined:
            return self._declined(asked, declined)
        return self._issued(enrolled)

    async def renew(self, asked: Asked) -> Answer:
        """POST of `csr`: the next certificate for a key on record; 202 while its device waits."""
        told = await _json_body(asked, ("csr",))
        try:
            enrolled = await self._enrolment.renew(told["csr"].encode())
        except Declined as declined:
            return self._declined(asked, declined)
        return self._issued(enrolled)

    def _issued(self, enrolled: Enrolled) -> Answer:
        device, issued = enrolled
        told: dict[str, Any] = {"device": device.id, "status": str(device.status)}
        if issued is None:
            return Answer(202, (_JSON, *SAFE_FIELDS), json.dumps(told).encode())
        told |= {
            "certificate": issued.pem,
            "chain": self._enrolment.chain,
            "not_after": int(issued.not_after),
        }
        return Answer(200, (_JSON, *SAFE_FIELDS), json.dumps(told).encode())

    # -- how it works ------------------------------------------------------------------------------------

    async def _admit(self, asked: Asked, route: Route, back: str) -> Session | Answer:
        """The person, or what stands before them; `back` is the path and query to come back to."""
        request, here = asked.request, self._here(asked.request)
        if self._origins.auth is not None and here != self._origins.auth:
            if request.method == "POST":
                raise ClientError(Reason.FORGED_FORM, "enrolment: the form is at the auth host")
            return _redirect(self._origins.auth + back)
        judgement = await self._judge.judge(request, route)
        decision, session = judgement.decision, judgement.session
        if session is not None:
            asked.outcome = asked.outcome._replace(
                subject=session.identity.subject, email=session.identity.email, session=session.id
            )
        match decision:
            case Forward():
                assert decision.session is not None  # both routes ask for a person
                return decision.session
            case Deny():
                asked.outcome = asked.outcome._replace(decision="refuse", reasons=decision.reasons)
                return self._answers.refusal(request, decision, asked.request_id, session, route.methods)
            case _:
                return await self._sign_in_first(asked, route, decision, here, back)

    async def _sign_in_first(
        self, asked: Asked, route: Route, decision: Login | StepUp, here: str, back: str
    ) -> Answer:
        """To the provider from here, and back here. The login lives at this host (see `_admit`)."""
        request = asked.request
        if request.method == "POST" or not reads_pages(request):
            return self._answers.challenge(request, decision, asked.request_id, here)
        titles, chosen = dict(self._providers), asked.param("provider")
        step = decision if isinstance(decision, StepUp) and decision.session.provider in titles else None
        more = "&" if "?" in back else "?"
        if step is None and chosen not in titles and len(titles) > 1:
            links = [
                Link(f"{back}{more}{urlencode({'provider': name})}", title) for name, title in self._providers
            ]
            page = self._pages.render("choose.html", choices=links, destination=request.host)
            return Answer(200, page.fields, page.body)
        if step is not None:
            chosen = step.session.provider
        elif chosen not in titles:
            chosen = self._providers[0][0]
        try:
            started = await self._sign_in.start(
                chosen or "",
                app=here,
                return_to=back,
                cookies=dict(request.cookies),
                existing=None if step is None else step.session,
                rank=max(LOWEST, route.sensitivity.rank) if step is None else step.rank,
                max_age=None if step is None else step.max_age,
                by_hand=asked.param("by_hand") is not None,
                address=request.peer.address,
            )
        except ClientError as error:
            if error.reason is not Reason.LOGIN_TOO_MANY:
                raise
            # The loop's end (F22): a page with a button, which starts the very same page by hand.
            asked.outcome = asked.outcome._replace(decision="refuse", reasons=(error.reason,))
            again = f"{back}{more}by_hand=1"
            wait = error.wait if isinstance(error, TooManyStarts) else None
            return self._answers.not_signed_in(request, error.reason, asked.request_id, again, wait)
        cookie = flow_cookie(started.cookie_name, started.cookie_value, started.max_age)
        return _redirect(started.redirect_url, [cookie, *clear_flows(started.clear_cookies)])

    async def _own_form(self, asked: Asked, back: str) -> Session | Answer:
        """Whose form this is. INVARIANT: only fetch metadata can tell a form from a script of the same
        origin, so a browser that sends none (before 2023) cannot enrol, and no `Origin` stands in for it."""
        site, mode = (asked.request.field(name) for name in (b"sec-fetch-site", b"sec-fetch-mode"))
        if site != b"same-origin" or mode != b"navigate":
            raise ClientError(Reason.FORGED_FORM, "enrolment: not sent by our own page")
        return await self._admit(asked, self._enrolment.route, back)

    async def _facts(self, request: Request, session: Session) -> Facts:
        now = self._clock()
        device = await self._device_of(request, now)
        return Facts(request, request.path.readings[0], session, now, device)

    def _here(self, request: Request) -> str:
        here = self._origins.of(request)
        if here is None:
            raise ClientError(Reason.NO_SUCH_HOST)
        return here

    def _declined_page(self, asked: Asked, declined: Declined) -> Answer:
        if not reads_pages(asked.request):
            return self._declined(asked, declined)
        asked.outcome = asked.outcome._replace(decision="refuse", reasons=(declined.reason,))
        page = self._pages.message(
            "This device was not enrolled",
            declined.sentence,
            links=(Link(DEVICES, "My devices"),),
            request_id=asked.request_id,
        )
        return Answer(declined.status, (*page.fields, *_later(declined)), page.body)

    def _declined(self, asked: Asked, declined: Declined) -> Answer:
        """RFC 9457, as `Answers` writes it."""
        asked.outcome = asked.outcome._replace(decision="refuse", reasons=(declined.reason,))
        problem = {
            "type": "about:blank",
            "title": HTTPStatus(declined.status).phrase,
            "status": declined.status,
            "detail": declined.sentence,
            "reasons": [str(declined.reason)],
            "request_id": asked.request_id,
        }
        fields = (_PROBLEM, *SAFE_FIELDS, *_later(declined))
        return Answer(declined.status, fields, json.dumps(problem).encode())


def pages_of(pages: EnrolmentPages) -> dict[tuple[str, str], Page]:
    """Our paths behind `/.ztproxy/`, by method."""
    return {
        ("GET", "devices"): pages.devices,
        ("GET", "devices/enroll"): pages.enroll,
        ("POST", "devices/enroll"): pages.confirm,
        ("GET", "devices/pkcs12"): pages.file_form,
        ("POST", "devices/pkcs12"): pages.file,
        ("POST", "devices/certificate"): pages.certificate,
        ("POST", "devices/renew"): pages.renew,
    }


async def _json_body(asked: Asked, names: Sequence[str]) -> Mapping[str, str]:
    """The object in the body: each of these members, a text. `ClientError(HTTP_BODY)` for anything else."""
    request, raw = asked.request, bytearray()
    media_type = (request.field(b"content-type") or b"").partition(b";")[0].strip().lower()
    if media_type != b"application/json" or request.framing is Framing.NONE or asked.body is None:
        raise ClientError(Reason.HTTP_BODY, "body: no JSON")
    try:
        async for chunk in asked.body:
            raw += chunk
            if len(raw) > MAX_JSON:
                raise ClientError(Reason.HTTP_BODY_TOO_LARGE, "body: too long")
        told = json.loads(raw.decode("ascii"))
    except (OSError, RuntimeError, ValueError) as error:
        # The first two are aiohttp's for a connection that has ended; the second is also that of JSON nested
        # too deeply.
        raise ClientError(Reason.HTTP_BODY, "body: malformed, or cut short") from error
    if not isinstance(told, dict) or not all(
        isinstance(told.get(name), str) and told[name].isascii() for name in names
    ):
        raise ClientError(Reason.HTTP_BODY, "body: not the members asked for")
    return told


def _later(declined: Declined) -> tuple[Field, ...]:
    return ((b"Retry-After", b"%d" % declined.retry_after),) if declined.retry_after else ()


def _redirect(where: str, fields: Sequence[Field] = (), status: int = 302) -> Answer:
    return Answer(status, ((b"Location", where.encode()), *SAFE_FIELDS, *fields), b"")


def _called(session: Session) -> str:
    return session.identity.email or session.identity.name or session.identity.subject


def _until(device: Device) -> str:
    fact = device.posture.get(CERTIFICATE_UNTIL)
    if fact is None or not isinstance(fact.value, int):
        return "–"
    return datetime.fromtimestamp(fact.value, UTC).strftime("%d %B %Y, %H:%M UTC")


def _told(devices: Sequence[Device]) -> list[dict[str, str]]:
    return [
        {"id": one.id, "name": one.name, "platform": one.platform, "status": str(one.status)}
        for one in devices
    ]
