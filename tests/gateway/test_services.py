"""The witness of services, before an issuer that counts, fails and waits; claims are taken as signed."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.core.words import NOW, ask, site
from tests.worlds.leased import Leased
from tests.worlds.memory_state import SetClock
from ztproxy.core.certificate import Certificate
from ztproxy.core.decision import Forward
from ztproxy.core.device import Device, NoDevice, NotAsked, OnDevice
from ztproxy.core.evidence import NOT_ASKED, DeviceEvidence, NoSession, Unavailable
from ztproxy.core.identity import JSON, Credential
from ztproxy.core.locks import Action, Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Request
from ztproxy.core.routes import Route, Services, SessionLimit
from ztproxy.core.service_tokens import MAX_TOKEN, TokenRules, shows_bearer
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.judgement import Judgement, Permit
from ztproxy.gateway.known import Known
from ztproxy.gateway.services import (
    CHECKED_AGAIN,
    MAX_KEPT,
    NOBODY,
    PASSED_OVER,
    TOLD,
    ServiceWitness,
    Trusted,
)

API = "https://api.test"
CI, CLOUD = "https://ci.test", "https://cloud.test"
BOTH = Services(
    issuers=("ci", "cloud"), audience=API, spiffe=("spiffe://corp.test/ci/*",), scopes=frozenset({"deploy"})
)
MACHINES = replace(BOTH, people=False)
CERTIFICATE = Certificate(
    authority="mesh",
    issuer="CN=mesh",
    subject="",
    serial=7,
    thumbprint="thumb",
    spki="key",
    not_before=NOW - 3600,
    not_after=NOW + 3600,
    spiffe="spiffe://corp.test/ci/runner",
)
RUNNER = OnDevice(CERTIFICATE, None, NOW + 300)
LAPTOP = OnDevice(replace(CERTIFICATE, spiffe=None, thumbprint="laptop"), None, NOW + 300)


class Issuer:
    """Fulfils `TokenIssuer`: a token whose signature is `good` is signed by it."""

    def __init__(self, name: str, issuer: str) -> None:
        self.name, self.issuer = name, issuer
        self.asked = 0
        self.away = False

    async def verify(self, token: str) -> Mapping[str, JSON]:
        self.asked += 1
        if self.away:
            raise WorldError(Reason.PROVIDER_UNAVAILABLE)
        _, payload, signature = token.split(".")
        if signature != "good":
            raise ClientError(Reason.TOKEN_INVALID, "sig")
        found: dict[str, JSON] = json.loads(decoded(payload))
        return found


def decoded(segment: str) -> bytes:
    return urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def token(signature: str = "good", **changes: Any) -> str:
    claims = {
        "iss": CI,
        "aud": API,
        "sub": "runner",
        "iat": NOW - 100,
        "exp": NOW + 500,
        "scope": "deploy",
        **changes,
    }
    return f"h.{urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b'=').decode()}.{signature}"


def bearing(shown: str | None = None, **more: Any) -> Request:
    return ask(authorization=f"Bearer {token() if shown is None else shown}".encode(), **more)


@dataclass
class World:
    clock: SetClock = field(default_factory=lambda: SetClock(NOW))
    boottime: SetClock = field(default_factory=lambda: SetClock(5.0))
    lease: Leased = field(default_factory=Leased)
    ci: Issuer = field(default_factory=lambda: Issuer("ci", CI))
    cloud: Issuer = field(default_factory=lambda: Issuer("cloud", CLOUD))
    refusals: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        issuers = {one.name: Trusted(TokenRules(one.name, one.issuer), one) for one in (self.ci, self.cloud)}
        self.witness = ServiceWitness(issuers, self.lease, self.clock, self.boottime, self.refusals.append)

    async def gather(
        self, request: Request, services: Services = BOTH, device: DeviceEvidence = NOT_ASKED
    ) -> Any:
        return await self.witness.gather(request, on(services), device, self.clock())

    def at_hand(
        self, request: Request, services: Services = BOTH, device: DeviceEvidence | None = NOT_ASKED
    ) -> Any:
        return self.witness.at_hand(request, on(services), device)

    def later(self, seconds: float) -> None:
        self.clock.now += seconds
        self.boottime.now += seconds


def on(services: Services, **more: Any) -> Route:
    return site(services=services, **more)


@pytest.fixture
def world() -> World:
    return World()


def reason(found: Any) -> Reason | None:
    return found.reason if isinstance(found, NoSession | Unavailable) else None


# -- who comes --


async def test_a_token_that_holds_is_known_at_once_the_second_time(world: World) -> None:
    assert world.at_hand(bearing()) is None
    known = await world.gather(bearing())
    assert isinstance(known, Known)
    assert (known.session.identity.subject, known.session.by) == ("runner", Credential.TOKEN)
    assert world.at_hand(bearing()) is await world.gather(bearing()) is known
    assert world.ci.asked == 1 and not world.refusals


async def test_the_token_chooses_its_issuer_among_those_of_the_route_and_no_more(world: World) -> None:
    found = await world.gather(bearing(token(iss=CLOUD)))
    assert found.session.provider == "cloud"
    assert (world.ci.asked, world.cloud.asked) == (0, 1)
    one = replace(BOTH, issuers=("ci",))
    for shown in (token(iss=CLOUD), token(iss="https://evil.test"), token(iss=[CI]), "opaque"):
        assert reason(await world.gather(bearing(shown), one)) is Reason.TOKEN_INVALID
    assert (world.ci.asked, world.cloud.asked) == (0, 1)
    assert set(world.refusals) == {"iss: not an issuer this route accepts"}


async def test_a_certificate_that_is_accepted_is_known_as_long_as_it_is_shown(world: World) -> None:
    known = world.at_hand(ask(), device=RUNNER)
    assert isinstance(known, Known)
    assert (known.session.by, known.session.certificate) == (Credential.CERTIFICATE, "thumb")
    assert known is await world.gather(ask(), device=RUNNER)
    assert world.at_hand(ask(), device=NOT_ASKED) is NOBODY
    registered = replace(RUNNER, device=Device("d-1"))
    assert world.at_hand(ask(), device=registered).session.device == "d-1"
    world.later(CHECKED_AGAIN)
    assert world.at_hand(ask(), device=RUNNER) is not known


COOKIE = {"session": "cookie"}
PEOPLE_AND_TOKENS = replace(BOTH, spiffe=())
CERTIFICATES = replace(MACHINES, issuers=())


@pytest.mark.parametrize(
    ("request_", "services", "device", "outcome"),
    [
        # people
        pytest.param(ask(), BOTH, NOT_ASKED, NOBODY, id="nothing-shown"),
        pytest.param(ask(), PEOPLE_AND_TOKENS, RUNNER, NOBODY, id="no-certificates-accepted"),
        pytest.param(ask(**COOKIE), BOTH, NOT_ASKED, NOBODY, id="a-person"),
        pytest.param(ask(**COOKIE), BOTH, RUNNER, NOBODY, id="a-person-on-a-device"),
        pytest.param(ask(), BOTH, LAPTOP, NOBODY, id="nobody-on-a-device"),
        pytest.param(ask(), BOTH, NoDevice(Reason.DEVICE_LOST), NOBODY, id="nobody-on-a-lost-device"),
        pytest.param(ask(authorization=b"Basic eDp5"), BOTH, NOT_ASKED, NOBODY, id="the-apps-own-password"),
        pytest.param(ask(authorization=b"DPoP abc"), BOTH, NOT_ASKED, NOBODY, id="another-scheme"),
        # machines alone
        pytest.param(ask(), MACHINES, NOT_ASKED, Reason.TOKEN_REQUIRED, id="machines-nothing-shown"),
        pytest.param(ask(), MACHINES, LAPTOP, Reason.TOKEN_REQUIRED, id="machines-another-certificate"),
        pytest.param(ask(**COOKIE), MACHINES, NOT_ASKED, Reason.SERVICES_ONLY, id="machines-a-cookie"),
        pytest.param(
            ask(**COOKIE), MACHINES, RUNNER, Reason.SERVICES_ONLY, id="machines-cookie-and-certificate"
        ),
        pytest.param(
            ask(),
            replace(PEOPLE_AND_TOKENS, people=False),
            NOT_ASKED,
            Reason.TOKEN_REQUIRED,
            id="tokens-alone",
        ),
        pytest.param(
            ask(), CERTIFICATES, NotAsked(), Reason.DEVICE_CERTIFICATE_REQUIRED, id="not-asked-for-one"
        ),
        pytest.param(
            ask(),
            CERTIFICATES,
            NoDevice(Reason.DEVICE_CERTIFICATE_REVOKED),
            Reason.DEVICE_CERTIFICATE_REVOKED,
            id="X08-a-revoked-certificate",
        ),
        pytest.param(ask(), CERTIFICATES, LAPTOP, Reason.SERVICE_MISMATCH, id="a-certificate-not-accepted"),
        pytest.param(
            bearing("forged"),
            CERTIFICATES,
            NOT_ASKED,
            Reason.DEVICE_CERTIFICATE_REQUIRED,
            id="the-apps-own-token",
        ),
        # mixed, malformed
        pytest.param(bearing(**COOKIE), BOTH, NOT_ASKED, Reason.CREDENTIALS_MIXED, id="cookie-and-token"),
        pytest.param(
            bearing(**COOKIE), MACHINES, NOT_ASKED, Reason.CREDENTIALS_MIXED, id="mixed-for-machines"
        ),
        pytest.param(
            ask(authorization=b"Bearer", session=""),
            BOTH,
            NOT_ASKED,
            Reason.CREDENTIALS_MIXED,
            id="both-empty",
        ),
        *(
            pytest.param(ask(authorization=shown), BOTH, RUNNER, Reason.TOKEN_INVALID, id=name)
            for name, shown in {
                "no-token": b"Bearer",
                "an-empty-token": b"Bearer ",
                "two-spaces": b"Bearer  " + token().encode(),
                "a-tab": b"Bearer\t" + token().encode(),
                "two-tokens": b"Bearer a.b.c d.e.f",
                "a-comma": b"Bearer " + token().encode() + b", Basic x",
                "a-quote": b'Bearer "a.b.c"',
                "padding-inside": b"Bearer a=b",
                "not-ascii": b"Bearer \xc3\xa9",
                "too-long": b"Bearer " + b"a" * MAX_TOKEN,
                "a-megabyte": b"Bearer " + b"a" * 1_000_000,
                "lower-case-and-wrong": b"bearer x",
            }.items()
        ),
    ],
)
async def test_who_comes(
    world: World, request_: Request, services: Services, device: DeviceEvidence, outcome: Any
) -> None:
    found = await world.gather(request_, services, device)
    assert found == (outcome if outcome is NOBODY else NoSession(outcome))
    assert world.at_hand(request_, services, device) == found  # which a refused token's is from now on
    assert world.ci.asked == world.cloud.asked == 0


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_read_in_any_case(world: World, scheme: str) -> None:
    request = ask(authorization=f"{scheme} {token()}".encode())
    assert shows_bearer(request, BOTH)
    assert isinstance(await world.gather(request), Known)


async def test_nobody_is_passed_over_for_another_credential(world: World) -> None:
    assert reason(await world.gather(bearing(token("bad")), device=RUNNER)) is Reason.TOKEN_INVALID


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"aud": "https://other.test"}, Reason.TOKEN_INVALID),
        ({"exp": NOW - 60}, Reason.TOKEN_INVALID),
        ({"scope": "read"}, Reason.SCOPE_MISSING),
    ],
)
async def test_a_token_that_does_not_hold(world: World, changes: dict[str, Any], why: Reason) -> None:
    assert reason(await world.gather(bearing(token(**changes)))) is why


# -- what is remembered --


async def test_a_flood_of_one_bad_token_is_looked_at_once_in_a_while(world: World) -> None:
    bad = bearing(token("bad"))
    for _ in range(20):
        assert reason(await world.gather(bad)) is Reason.TOKEN_INVALID
        assert reason(world.at_hand(bad)) is Reason.TOKEN_INVALID
    assert (world.ci.asked, world.refusals) == (1, ["sig"])
    world.later(PASSED_OVER)
    assert world.at_hand(bad) is None
    await world.gather(bad)
    assert world.ci.asked == 2


async def test_a_flood_of_different_bad_tokens_is_told_in_a_few_lines(world: World) -> None:
    for number in range(TOLD.burst + 500):
        assert reason(await world.gather(bearing(token(f"bad{number}")))) is Reason.TOKEN_INVALID
    assert world.refusals == ["sig"] * TOLD.burst
    world.later(1)
    await world.gather(bearing(token("the-last")))
    assert world.refusals[-1] == "sig (and 500 more before it)"


async def test_what_is_good_for_one_route_says_nothing_of_another(world: World) -> None:
    assert isinstance(await world.gather(bearing()), Known)
    for other in (replace(BOTH, audience="https://other.test"), replace(BOTH, scopes=frozenset({"admin"}))):
        assert world.at_hand(bearing(), other) is None
        assert isinstance(await world.gather(bearing(), other), NoSession)
    assert isinstance(world.at_hand(bearing()), Known)
    assert isinstance(world.at_hand(bearing(), replace(BOTH)), Known)


async def test_a_signature_is_checked_again(world: World) -> None:
    await world.gather(bearing())
    world.later(CHECKED_AGAIN)
    assert world.at_hand(bearing()) is None
    world.ci.away = True
    assert await world.gather(bearing()) == Unavailable(Reason.PROVIDER_UNAVAILABLE)
    world.ci.away = False
    assert isinstance(await world.gather(bearing()), Known)  # that it was away says nothing of the token
    assert not world.refusals


async def test_nothing_is_held_past_its_end_by_any_clock(world: World) -> None:
    shown = bearing(token(exp=NOW + 10))
    await world.gather(shown)
    world.clock.now += 69.9
    assert isinstance(world.at_hand(shown), Known)
    world.clock.now += 0.1
    assert world.at_hand(shown) is None
    assert reason(await world.gather(shown)) is Reason.TOKEN_INVALID
    world = World()
    await world.gather(shown)
    world.clock.now -= 1
    assert world.at_hand(shown) is None


async def test_both_memories_are_bounded_and_neither_empties_the_other(world: World) -> None:
    await world.gather(bearing())
    for number in range(MAX_KEPT + 10):
        await world.gather(bearing(f"x{number}"))
    assert isinstance(world.at_hand(bearing()), Known)
    assert world.at_hand(bearing("x0")) is None
    assert world.at_hand(bearing(f"x{MAX_KEPT}")) == NoSession(Reason.TOKEN_INVALID)
    world.later(PASSED_OVER)
    await world.gather(bearing("y"))
    assert len(world.witness._bad) == 1


async def test_no_token_is_kept_or_shown(world: World) -> None:
    await world.gather(bearing())
    await world.gather(bearing(token("bad")))
    held = [*world.witness._held._by_key.items(), *world.witness._bad._by_key.items()]
    assert len(held) == 2
    assert token() not in repr(held) and token("bad") not in repr(held)


# -- the lease and the locks --


async def test_nobody_without_a_lease(world: World) -> None:
    await world.gather(bearing())
    world.lease.lapse()
    assert world.at_hand(bearing()) is None and world.at_hand(ask(), device=RUNNER) is None
    assert await world.gather(bearing()) == await world.gather(ask(), device=RUNNER) == Unavailable()
    # What does not hold does not, whoever is away.
    assert reason(await world.gather(bearing(token("bad")))) is Reason.TOKEN_INVALID
    assert await world.gather(ask()) is NOBODY
    world.lease.comes = True
    assert isinstance(await world.gather(bearing()), Known)


RUNNERS = Target(TargetKind.USER, "runner", CI)


async def test_a_lock_made_after_a_token_was_issued_ends_it_and_an_older_one_does_not(world: World) -> None:
    world.lease.lock(RUNNERS, made_at=NOW - 161)  # issued at NOW - 100, by a clock at most 60 s off
    assert isinstance(await world.gather(bearing()), Known)
    world.lease.lock(Target(TargetKind.USER, "runner", CLOUD), made_at=NOW)
    assert isinstance(world.at_hand(bearing()), Known)
    world.lease.lock(RUNNERS, made_at=NOW)
    assert reason(world.at_hand(bearing())) is Reason.TOKEN_INVALID
    assert reason(await world.gather(bearing())) is Reason.TOKEN_INVALID
    world.later(100)
    assert reason(await world.gather(bearing())) is Reason.TOKEN_INVALID  # read anew, ended still
    assert isinstance(await world.gather(bearing(token(iat=NOW + 61))), Known)  # a new one


async def test_one_token_can_be_revoked_by_its_public_id(world: World) -> None:
    known = await world.gather(bearing())
    world.lease.lock(Target(TargetKind.SESSION, known.session.id), made_at=NOW)
    assert reason(world.at_hand(bearing())) is Reason.TOKEN_INVALID
    assert isinstance(await world.gather(bearing(token(jti="other"))), Known)


async def test_a_lock_on_a_principal_ends_its_certificates_until_then(world: World) -> None:
    principal = Target(TargetKind.USER, str(CERTIFICATE.spiffe), "spiffe://corp.test")
    assert isinstance(world.at_hand(ask(), device=RUNNER), Known)
    world.lease.lock(principal, made_at=NOW)
    assert reason(world.at_hand(ask(), device=RUNNER)) is Reason.TOKEN_INVALID
    renewed = replace(RUNNER, certificate=replace(CERTIFICATE, thumbprint="new", not_before=NOW + 1))
    assert isinstance(world.at_hand(ask(), device=renewed), Known)


async def test_a_lock_on_a_device_ends_the_service_on_it(world: World) -> None:
    there = replace(RUNNER, device=Device("d-1"))
    assert isinstance(world.at_hand(ask(), device=there), Known)
    world.lease.lock(Target(TargetKind.DEVICE, "d-1"), made_at=NOW)
    assert reason(world.at_hand(ask(), device=there)) is Reason.TOKEN_INVALID
    assert isinstance(world.at_hand(ask(), device=RUNNER), Known)


async def test_a_change_of_the_book_drops_permits_and_a_log_that_began_anew_counts(world: World) -> None:
    known = await world.gather(bearing())
    route = on(BOTH)
    judgement = Judgement.of(route, Forward(known.session, ()), b"", known.session)
    known.permits[(route, "app.test", "GET")] = Permit(judgement, NOT_ASKED, 0.0, 1.0)
    assert world.at_hand(bearing()).permits
    for made_at in (NOW - 900, NOW - 800, NOW + 1):
        world.lease.lock(Target(TargetKind.USER, "other", CI), made_at=made_at)
    assert world.at_hand(bearing()) is known
    assert (known.session.as_of, known.permits) == (2, {})
    world.lease.book.reset()
    world.lease.lock(RUNNERS, made_at=NOW)
    assert reason(world.at_hand(bearing())) is Reason.TOKEN_INVALID
    assert known.session.as_of == 0


async def test_a_lock_that_can_be_lifted_is_for_the_decision(world: World) -> None:
    world.lease.lock(RUNNERS, action=Action.DENY, until=NOW + 60, made_at=NOW)
    known = await world.gather(bearing())
    assert isinstance(known, Known)
    assert len(world.lease.book.meeting(known.session, "app", NOW)) == 1


async def test_how_many_sessions_a_person_may_have_is_not_about_services(world: World) -> None:
    route = on(BOTH, session_limit=SessionLimit("finance", 1))
    known = await world.witness.gather(bearing(), route, NOT_ASKED, NOW)
    assert isinstance(known, Known) and known.groups == ("finance",)
    assert world.witness.at_hand(bearing(), route, NOT_ASKED) is known
    assert known.groups == ("finance",)


# -- tokens bound to a certificate --


@pytest.mark.parametrize(
    ("device", "held"),
    [(RUNNER, True), (LAPTOP, False), (NOT_ASKED, False), (NoDevice(Reason.DEVICE_LOST), False)],
    ids=["its own", "another", "not asked", "none that counts"],
)
async def test_a_bound_token_counts_with_its_certificate_alone(
    world: World, device: DeviceEvidence, held: bool
) -> None:
    bound = bearing(token(cnf={"x5t#S256": "thumb"}))
    for _ in range(2):
        assert isinstance(await world.gather(bound, device=device), Known) is held
        assert isinstance(world.at_hand(bound, device=device), Known) is held
    assert world.at_hand(bound, device=None) is None
    assert world.ci.asked == 1


async def test_where_the_device_is_not_at_hand_nothing_is_said_that_hangs_on_it(world: World) -> None:
    await world.gather(bearing())
    assert isinstance(world.at_hand(bearing(), device=None), Known)
    assert world.at_hand(ask(), device=None) is None
    assert world.at_hand(ask(**COOKIE), device=None) is NOBODY
    assert world.at_hand(ask(), PEOPLE_AND_TOKENS, device=None) is NOBODY


async def test_an_inventory_that_is_away(world: World) -> None:
    away = Unavailable()
    assert await world.gather(ask(), device=away) == away and world.at_hand(ask(), device=away) is None
    assert isinstance(await world.gather(bearing(), device=away), Known)
    assert await world.gather(ask(), PEOPLE_AND_TOKENS, away) is NOBODY
    bound = bearing(token(cnf={"x5t#S256": "thumb"}))
    assert await world.gather(bound, device=away) == away and world.at_hand(bound, device=away) is None


async def test_a_certificate_is_known_by_the_device_it_names_now() -> None:
    """What names the device is its authority, until the inventory says that it does no more."""
    world, route = World(), site(services=MACHINES)
    named = replace(RUNNER, certificate=replace(CERTIFICATE, device="build-7"))
    for device, name in ((named, "build-7"), (RUNNER, None), (named, "build-7")):
        found = await world.witness.gather(ask(), route, device, NOW)
        assert isinstance(found, Known) and found.session.device == name
