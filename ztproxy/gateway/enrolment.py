"""How a device comes to a certificate of ztproxy's own: a person vouches for it, and a key is certified.

Knows: the flow of native apps (RFC 8252, 7636) with a certificate at its end. A tool on the device listens on
loopback and opens our page; the person, signed in strongly enough, sees what asks and a code that the tool
shows too; our page sends a ticket to that loopback port; the tool brings the ticket, the secret behind its
challenge and a request signed with the device's key. Promises: a ticket works once, within two minutes, and
only for who made the challenge; a certificate is issued for a key only whose private half signed the request,
only for a device that is approved, and at most once a minute; one person's devices are counted one at a time;
that a device is enrolled, or gets a key made here, is in the audit log before it is so. Leaves to the
surface: that the person may do this (`Enrolment.route`, judged as every route is) and pressed the button on
our own page.

A device is found by the id in its certificate, so a certificate once issued needs no registration and renewal
changes nothing on record but when it ends. Renewal is asked for without a session: the request itself shows
the key. Who sends somebody's request again gets a certificate for a key they do not have.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from hmac import compare_digest
from typing import NamedTuple

from ztproxy.core.audit import AuditEvent
from ztproxy.core.conditions import AllOf, Authenticated, Condition, Holds
from ztproxy.core.device import Device, Fact, OnDevice, Status
from ztproxy.core.evidence import Facts
from ztproxy.core.identity import JSON, Identity
from ztproxy.core.login import digest
from ztproxy.core.policy import Effect, Policy, Rule
from ztproxy.core.reasons import Reason
from ztproxy.core.routes import IdentityHeaders, Route, Sensitivity, StaticResponse
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.parallel import new_secret
from ztproxy.gateway.ports import Clock, OneTimeStore
from ztproxy.gateway.ports.administration import AuditSink
from ztproxy.gateway.ports.devices import DeviceStore, DevicesWanted, Report
from ztproxy.gateway.ports.enrolment import DeviceAuthority, Issued, ProvenKey

TICKET_LIFETIME = 120.0
ISSUED_EVERY = 60.0
"""Seconds between two certificates for one device."""
ENROLLED_EVERY = 10.0
"""Seconds between two devices of one person."""
LEAST_PASSWORD, LONGEST_PASSWORD = 12, 128
CERTIFICATE_UNTIL = "certificate_until"
"""The fact on record that says when a device's newest certificate ends, in seconds since the epoch."""

_PAGE = 100
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 4.1
_PORT = re.compile(r"[1-9][0-9]{3,4}")
_PLATFORM = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
_OURS = re.compile(r"d-[a-z2-7]{16}")
_KIND = "enrolment"


class Declined(ClientError):
    """An enrolment that cannot go on. `sentence` is for people; `retry_after` is seconds, 0 for never."""

    def __init__(self, reason: Reason, sentence: str, status: int = 0, retry_after: float = 0) -> None:
        super().__init__(reason, f"enrolment: {sentence}")
        self.sentence, self.status, self.retry_after = sentence, status or reason.status, retry_after


@dataclass(frozen=True, slots=True)
class Asking:
    """What a tool asks a person to confirm. Only `read` makes one: everything in it has its form.

    The ticket goes to `port` at 127.0.0.1 and nowhere else (RFC 8252 7.3, narrowed to one address: a name or
    a scheme of the client's choice would be an open redirect that carries a secret).
    """

    port: int
    state: str
    challenge: str
    name: str
    platform: str

    @staticmethod
    def read(param: Callable[[str], str | None]) -> Asking:
        """From a query or a form. Raises `Declined`."""
        port, state, challenge = (param(name) or "" for name in ("port", "state", "challenge"))
        formed = _PORT.fullmatch(port) and 1024 <= int(port) <= 65535
        if not formed or not _SECRET.fullmatch(state) or not _SECRET.fullmatch(challenge):
            sentence = "This enrolment link is not whole. Start again with `ztproxy device enroll`."
            raise Declined(Reason.HTTP_TARGET, sentence)
        return Asking(int(port), state, challenge, *described(param))

    @property
    def code(self) -> str:
        return short_code(self.challenge)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def params(self) -> dict[str, str]:
        fields = ("port", "state", "challenge", "name", "platform")
        return {name: str(getattr(self, name)) for name in fields}


def described(param: Callable[[str], str | None]) -> tuple[str, str]:
    """How a device is called, and of what kind it says it is. Raises `Declined`."""
    name, platform = (param("name") or "").strip(), (param("platform") or "").lower()
    if not 1 <= len(name) <= 64 or not name.isprintable():
        raise Declined(Reason.HTTP_TARGET, "A device needs a name of 1 to 64 letters.")
    if not _PLATFORM.fullmatch(platform):
        raise Declined(Reason.HTTP_TARGET, "The kind of the device is one word, like `linux` or `macos`.")
    return name, platform


def short_code(challenge: str) -> str:
    """What the page and the tool both show: eight letters that follow from the challenge. Who is led to
    confirm somebody else's enrolment by a link sees a code that no tool of theirs has shown."""
    letters = base64.b32encode(sha256(f"ztproxy enrolment {challenge}".encode()).digest()).decode()
    return f"{letters[:4]}-{letters[4:8]}"


def challenge_of(verifier: str) -> str:
    """RFC 7636 4.2, S256."""
    return base64.urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()


class Enrolled(NamedTuple):
    """A device on record; `issued` is None while it waits for approval."""

    device: Device
    issued: Issued | None


class Packed(NamedTuple):
    """A device on record, and for an approved one its key and certificate in a PKCS 12 file."""

    device: Device
    file: bytes | None


@dataclass(frozen=True, slots=True)
class EnrolmentRules:
    """`approved` None: an administrator approves every device. `most_per_person` counts devices that are not
    retired."""

    may: Condition
    approved: Condition | None = None
    rank: int = 2
    most_per_person: int = 5


class Enrolment:
    """`randomness(n)` gives n unpredictable bytes. `route` stands for our pages where a person is judged."""

    def __init__(
        self,
        rules: EnrolmentRules,
        store: DeviceStore,
        one_time: OneTimeStore,
        authority: DeviceAuthority,
        audit: AuditSink,
        clock: Clock,
        randomness: Callable[[int], bytes],
    ) -> None:
        self._rules, self._store, self._one_time = rules, store, one_time
        self._authority, self._audit = authority, audit
        self._clock, self._randomness = clock, randomness
        self.rank, self.chain = rules.rank, authority.chain
        self.route = page_route("devices/enroll", rules.may, rules.rank)

    async def mine(self, who: Identity) -> tuple[Device, ...]:
        """The devices of this person, by id."""
        found: dict[str, Device] = {}
        for owner in {_owner(who), f"{who.issuer}|{who.subject}", who.subject}:
            found |= {one.id: one for one in await self._of(owner) if one.belongs_to(who)}
        return tuple(found[id] for id in sorted(found))

    async def confirm(self, asking: Asking, facts: Facts) -> str:
        """The person said yes: the ticket to send to the tool. Raises `Declined` for one device too many."""
        who = _person(facts)
        await self._see_that_there_is_room(_owner(who))
        ticket = {
            "challenge": asking.challenge,
            "issuer": who.issuer,
            "subject": who.subject,
            "owner": _owner(who),
            "name": asking.name,
            "platform": asking.platform,
            "approved": self._approves(facts),
        }
        secret = new_secret(self._randomness)
        await self._one_time.put(_KIND, digest(secret), json.dumps(ticket).encode(), TICKET_LIFETIME)
        return secret

    async def redeem(self, ticket: str, verifier: str, csr: bytes, request_id: str) -> Enrolled:
        """The tool brings its ticket: a device, and its certificate where it is approved. Whatever is wrong,
        the ticket is used up. Raises `Declined`."""
        # INVARIANT: the ticket before the request. Nobody without one has us read ASN.1 of theirs here.
        raw = await self._one_time.take(_KIND, digest(ticket)) if _SECRET.fullmatch(ticket) else None
        told = {} if raw is None else json.loads(raw)
        formed = _VERIFIER.fullmatch(verifier) is not None
        if not formed or not compare_digest(told.get("challenge", ""), challenge_of(verifier)):
            sentence = "This enrolment was used already, took too long or belongs to somebody else."
            raise Declined(Reason.LOGIN_TICKET, sentence)
        key = self._read(csr)
        who = Identity(told["issuer"], told["subject"])
        device = await self._create(
            who, told["owner"], told["name"], told["platform"], told["approved"], {key.spki}, request_id
        )
        return await self._certify(device, key)

    async def renew(self, csr: bytes) -> Enrolled:
        """A certificate for a key that is on record. Raises `Declined`."""
        key = self._read(csr)
        device = await self._store.by_key(key.spki)
        if device is None:
            raise Declined(Reason.DEVICE_UNKNOWN, Reason.DEVICE_UNKNOWN.sentence)
        return await self._certify(device, key)

    async def pack(
        self, facts: Facts, name: str, platform: str, password: str, device_id: str | None, request_id: str
    ) -> Packed:
        """For a person without the tool: a key made here, in a file under their password. A new device, or
        one of theirs on record, whose key is replaced. Raises `Declined`."""
        who = _person(facts)
        if not is_password(password):
            sentence = f"The password has {LEAST_PASSWORD} to {LONGEST_PASSWORD} letters, digits and signs."
            raise Declined(Reason.HTTP_BODY, sentence)
        if device_id is None:
            device = await self._create(
                who, _owner(who), name, platform, self._approves(facts), set(), request_id
            )
        else:
            device = await self._to_pack(facts, device_id)
        if device.status is Status.PENDING:
            return Packed(device, None)
        await self._see_that_it_may(device)
        key = self._authority.make_key()
        # INVARIANT: a key that speaks for a device is on record before it does.
        event = _event(who, "device.key", device.id, request_id, {"replaces": len(device.keys)})
        await self._audit.write(event)
        changed = await self._store.put(
            replace(device, keys=frozenset({key.proven.spki}), changed_at=self._clock())
        )
        await self._audit.write_late(replace(event, outcome="refused" if changed is None else "done"))
        if changed is None:
            sentence = "Somebody else changed this device just now. Please try again."
            raise Declined(Reason.DEVICE_MISMATCH, sentence, 409)
        issued = await self._issue(changed, key.proven)
        # Deriving a key from a password takes long by design: not on the loop that serves everybody.
        file = await asyncio.to_thread(self._authority.pkcs12, key, issued, changed.name, password)
        return Packed(changed, file)

    async def _to_pack(self, facts: Facts, id: str) -> Device:
        """A device on record whose file may be made for this person.

        INVARIANT: nothing is gained by it. Else a session would be enough to turn an approved device into a
        key in other hands, around the approval of new ones: so the device has no key yet, or speaks to us
        right now, or the person would get a new device approved at once.
        """
        device = await self._store.get(id)
        if device is None or not device.belongs_to(_person(facts)) or not _OURS.fullmatch(id):
            raise Declined(Reason.DEVICE_UNKNOWN, Reason.DEVICE_UNKNOWN.sentence)
        on_it = (
            isinstance(facts.device, OnDevice)
            and facts.device.device is not None
            and (facts.device.device.id == id)
        )
        if device.status is Status.APPROVED and device.keys and not on_it and not self._approves(facts):
            sentence = "This device has its key already. Renew it from the device, or enrol a new one."
            raise Declined(Reason.DEVICE_MISMATCH, sentence, 409)
        return device

    def _approves(self, facts: Facts) -> bool:
        approved = self._rules.approved
        return approved is not None and isinstance(approved.ask(facts), Holds)

    def _read(self, csr: bytes) -> ProvenKey:
        try:
            return self._authority.read_csr(csr)
        except ClientError as error:
            raise Declined(error.reason, f"{str(error).capitalize()}.") from None

    async def _see_that_there_is_room(self, owner: str) -> None:
        most = self._rules.most_per_person
        count = sum(one.status is not Status.RETIRED for one in await self._of(owner))
        if count >= most:
            sentence = f"You have {most} devices, which is the most. Ask for an old one to be retired."
            raise Declined(Reason.RULE_DENIED, sentence)

    async def _of(self, owner: str) -> list[Device]:
        found: list[Device] = []
        page = await self._store.page(DevicesWanted(owner=owner), None, _PAGE)
        found += page.devices
        while page.cursor is not None:
            page = await self._store.page(DevicesWanted(owner=owner), page.cursor, _PAGE)
            found += page.devices
        return found

    async def _create(
        self,
        who: Identity,
        owner: str,
        name: str,
        platform: str,
        approved: bool,
        keys: set[str],
        request_id: str,
    ) -> Device:
        # INVARIANT: one person's devices are made one at a time, so that two requests at once are not both
        # counted as the last that is allowed.
        if not await self._one_time.claim("enrolment-of", digest(owner), ENROLLED_EVERY):
            sentence = "You enrolled a device just now. Please wait a moment."
            raise Declined(Reason.RULE_DENIED, sentence, 429, ENROLLED_EVERY)
        await self._see_that_there_is_room(owner)
        now = self._clock()
        device = Device(
            id="d-" + base64.b32encode(self._randomness(10)).decode().lower(),
            status=Status.APPROVED if approved else Status.PENDING,
            name=name,
            platform=platform,
            owners=frozenset({owner}),
            keys=frozenset(keys),
            created_at=now,
            changed_at=now,
        )
        detail = {"name": name, "platform": platform, "status": str(device.status), "owner": owner}
        event = _event(who, "device.enroll", device.id, request_id, detail)
        # INVARIANT: before the device. One that is on file and not on record would have its certificate with
        # the first renewal.
        await self._audit.write(event)
        try:
            written = await self._store.put(device)
        except ClientError:
            await self._audit.write_late(replace(event, outcome="refused"))
            sentence = "This key belongs to a device on record. Make a new one."
            raise Declined(Reason.DEVICE_MISMATCH, sentence, 409) from None
        if written is None:
            raise WorldError(Reason.INTERNAL, "enrolment: a random id is taken")
        await self._audit.write_late(replace(event, outcome="done"))
        return written

    async def _certify(self, device: Device, key: ProvenKey) -> Enrolled:
        if device.status is Status.PENDING:
            return Enrolled(device, None)
        await self._see_that_it_may(device)
        return Enrolled(device, await self._issue(device, key))

    async def _see_that_it_may(self, device: Device) -> None:
        """Whether there may be a certificate for this device now; asked once for each."""
        shut_out = {Status.LOST: Reason.DEVICE_LOST, Status.RETIRED: Reason.DEVICE_RETIRED}
        reason = shut_out.get(device.status)
        if reason is not None:
            raise Declined(reason, reason.sentence)
        if not await self._one_time.claim("enrolment-issue", device.id, ISSUED_EVERY):
            sentence = "This device got a certificate within the last minute."
            raise Declined(Reason.RULE_DENIED, sentence, 429, ISSUED_EVERY)

    async def _issue(self, device: Device, key: ProvenKey) -> Issued:
        now = self._clock()
        issued = self._authority.issue(key, device.id, now)
        until = Fact(int(issued.not_after), "enrolment", now)
        await self._store.report([Report(device.id, {CERTIFICATE_UNTIL: until})])
        return issued


def page_route(name: str, may: Condition, rank: int = 0) -> Route:
    """A page of ours as a route, so that who may open it is decided as everywhere else: locks, bound devices
    and step-up included. It is matched by nobody."""
    return Route(
        name=f".ztproxy/{name}",
        host="",
        port=443,
        scheme="https",
        segments=(".ztproxy", *name.split("/")),
        exact=True,
        action=StaticResponse(200, "text/plain", b""),
        policy=Policy([Rule(Effect.ALLOW, AllOf([Authenticated(), may]))]),
        identity=IdentityHeaders("", assertion=False),
        sensitivity=Sensitivity(rank=rank),
    )


def is_password(text: str) -> bool:
    """Whether a PKCS 12 file may hang on it. Every reader of the format agrees about ASCII only."""
    return LEAST_PASSWORD <= len(text) <= LONGEST_PASSWORD and text.isascii() and text.isprintable()


def _person(facts: Facts) -> Identity:
    assert facts.session is not None  # the surface lets nobody here whom `route` does not let in
    return facts.session.identity


def _event(who: Identity, action: str, id: str, request_id: str, detail: Mapping[str, JSON]) -> AuditEvent:
    return AuditEvent(f"{who.issuer}|{who.subject}", action, "intent", f"device:{id}", request_id, detail)


def _owner(who: Identity) -> str:
    return f"{who.issuer}|{who.subject}" if who.email is None else who.email.lower()
