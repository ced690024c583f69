"""The front with enrolment: our own authority, the inventory in memory, and the pages over both.

async with enrolling() as it:
    alice = it.browser()             # signs in at rank 2
    form = it.form(challenge)        # what the page of a tool's link posts
    ticket = await it.ticket(alice)  # the whole way to a ticket
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.core.words import site
from tests.worlds.front import NOW, SIGNED_IN, Browser, Front, Page, front
from tests.worlds.memory_admin import MemoryAudit
from tests.worlds.memory_devices import MemoryDevices
from ztproxy.adapters.device_ca import DeviceCA, make
from ztproxy.core.conditions import Authenticated, InGroup
from ztproxy.core.routes import Route
from ztproxy.gateway.enrolment import Enrolment, EnrolmentRules, challenge_of
from ztproxy.surfaces.answers import Answers
from ztproxy.surfaces.enrolment import EnrolmentPages, pages_of
from ztproxy.surfaces.origins import Origins
from ztproxy.surfaces.pages import Branding, Pages

OWN = "/.ztproxy/devices"
DAY = 86400.0
RULES = EnrolmentRules(Authenticated(), InGroup(frozenset({"it"})), most_per_person=3)
VERIFIER, STATE = "v" * 43, "s" * 43
PORT = "34567"
FORM = {
    "Accept": "text/html",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Site": "same-origin",
    "Content-Type": "application/x-www-form-urlencoded",
}
"""The fields of a form that our own page sends."""
JSON = {"Accept": "application/json", "Content-Type": "application/json"}


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def csr(key: Any = None, *extensions: tuple[x509.ExtensionType, bool], name: str = "any") -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    request = builder.sign(key or new_key(), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def asking(**more: str | None) -> dict[str, str]:
    """What a tool's link says; None leaves a parameter out."""
    plain = {
        "port": PORT,
        "state": STATE,
        "challenge": challenge_of(VERIFIER),
        "name": "Alice's laptop",
        "platform": "linux",
    }
    return {key: value for key, value in (plain | more).items() if value is not None}


@dataclass
class Enrolling:
    front: Front
    devices: MemoryDevices
    authority: DeviceCA
    enrolment: Enrolment
    audit: MemoryAudit
    host: str
    folder: Path

    def browser(self, subject: str = "alice", *groups: str, **claims: Any) -> Browser:
        return self.front.browser(subject, **{"acr": "mfa", "groups": list(groups), **claims})

    async def page(self, who: Browser, **more: str | None) -> Page:
        """The page behind a tool's link, signed in on the way."""
        return await who.open(f"{self.host}{OWN}/enroll?{urlencode(asking(**more))}")

    async def post(self, who: Browser, page: str, form: dict[str, str], **headers: str | None) -> Page:
        fields = {name: value for name, value in (FORM | headers).items() if value is not None}
        return await who.ask(f"{self.host}{OWN}/{page}", fields, method="POST", body=urlencode(form).encode())

    async def ticket(self, who: Browser, **more: str | None) -> str:
        page = await self.page(who, **more)
        assert page.status == 200, page.text
        page = await self.post(who, "enroll", asking(**more))
        assert page.status == 303, page.text
        return parse_qs(urlsplit(page.location).query)["ticket"][0]

    async def tell(self, page: str, **told: Any) -> Page:
        """The tool asks, without a cookie."""
        nobody = self.front.browser()
        return await nobody.ask(
            f"{self.host}{OWN}/{page}", JSON, method="POST", body=json.dumps(told).encode()
        )

    async def redeem(self, ticket: str, request: str | None = None, verifier: str = VERIFIER) -> Page:
        return await self.tell("certificate", ticket=ticket, verifier=verifier, csr=request or csr())


@asynccontextmanager
async def enrolling(
    *routes: Route,
    rules: EnrolmentRules = RULES,
    auth: str | None = None,
    host: str = "https://app.test",
    providers: Sequence[str] = ("op",),
    now: float = NOW,
) -> AsyncIterator[Enrolling]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        authority = DeviceCA.load(*make(folder, "corp.test", 1, now), "corp.test", 7 * DAY, now)
        async with front(*(routes or (site(SIGNED_IN),)), auth=auth, providers=providers) as it:
            it.clock.now = now
            devices, audit = MemoryDevices(), MemoryAudit()
            enrolment = Enrolment(rules, devices, it.state, authority, audit, it.clock, secrets.token_bytes)
            table = it.worker.plane.routes
            pages = Pages(Branding())
            witness = it.worker.witness
            ours = EnrolmentPages(
                enrolment=enrolment,
                judge=it.worker.plane.judge,
                device_of=witness.device_of,
                sign_in=it.worker.sign_in,
                origins=Origins(table, auth),
                pages=pages,
                answers=Answers(pages, None, None),
                providers=[(name, f"The {name}") for name in providers],
                clock=it.clock,
            )
            extra = {
                (method, (".ztproxy", *name.split("/"))): page
                for (method, name), page in pages_of(ours).items()
            }
            it.reload(*table.routes, extra=extra)
            yield Enrolling(it, devices, authority, enrolment, audit, auth or host, folder)
