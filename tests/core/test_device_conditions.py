"""Every question about a device as a table: answered, turned round, and with nothing to be told."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product
from math import inf, nan

import pytest

from tests.core.words import ALICE, ISSUER, NOW, ask, asked, person, session
from ztproxy.core.certificate import Certificate
from ztproxy.core.conditions import (
    HOLDS,
    LOGIN,
    AllOf,
    AnyOf,
    Ask,
    Condition,
    Fails,
    Holds,
    InGroup,
    Needs,
    Not,
    Source,
    Truth,
)
from ztproxy.core.device import Device, Fact, NoDevice, OnDevice, Status
from ztproxy.core.device_conditions import (
    AHEAD,
    AtLeast,
    AtMost,
    CertificateIs,
    DeviceApproved,
    DeviceKnown,
    DeviceOwned,
    Equals,
    OneOf,
    PlatformIs,
    PostureIs,
    posture_limits,
    posture_until,
)
from ztproxy.core.evidence import NOT_ASKED, DeviceEvidence, Unavailable
from ztproxy.core.identity import Credential
from ztproxy.core.reasons import Reason

DAY = 86400.0
CERTIFICATE = Certificate(
    authority="corp",
    issuer="CN=Corp CA",
    subject="CN=laptop-7,O=Corp",
    serial=7,
    thumbprint="thumb",
    spki="key",
    not_before=NOW - DAY,
    not_after=NOW + DAY,
    dns=("Laptop-7.corp.test", "other.test"),
    emails=("Alice@Corp.test",),
    uris=("urn:device:7", "spiffe://corp.test/dev/7"),
    spiffe="spiffe://corp.test/dev/7",
)
LAPTOP = Device("laptop-7", Status.APPROVED, platform="macOS", owners=frozenset({"alice@corp.test"}))
BOUND = session("admin", identity=person(email="alice@corp.test"), certificate="thumb")
UNBOUND = replace(BOUND, certificate=None)
SERVICE = replace(UNBOUND, by=Credential.TOKEN)
SIGN_IN_HERE = Needs(Ask.LOGIN, (Reason.DEVICE_UNBOUND,))


def on(device: Device | None = LAPTOP, certificate: Certificate = CERTIFICATE) -> OnDevice:
    return OnDevice(certificate, device, NOW + DAY)


def reporting(value: bool | float | str, age: float = 0.0, name: str = "fact") -> OnDevice:
    return on(replace(LAPTOP, posture={name: Fact(value, "mdm", NOW - age)}))


def told(condition: Condition, device: DeviceEvidence, who=BOUND) -> Truth:
    return condition.ask(asked(who)._replace(device=device))


def names(*texts: str) -> frozenset[str]:
    return frozenset(texts)


def fails(reason: Reason) -> Fails:
    return Fails((reason,))


MISMATCH = fails(Reason.DEVICE_CERTIFICATE_MISMATCH)
DENIED = fails(Reason.RULE_DENIED)


# ------------------------------------------------------------------ answers that can be turned round


@pytest.mark.parametrize(
    ("condition", "device", "answer"),
    [
        pytest.param(CertificateIs(), on(), HOLDS, id="any-certificate"),
        pytest.param(CertificateIs(), on(None), HOLDS, id="a-certificate-of-no-device"),
        pytest.param(CertificateIs(authorities=names("x", "corp")), on(), HOLDS, id="authority"),
        pytest.param(CertificateIs(authorities=names("x")), on(), MISMATCH, id="another-authority"),
        pytest.param(CertificateIs(thumbprints=names("thumb")), on(), HOLDS, id="pinned"),
        pytest.param(CertificateIs(thumbprints=names("THUMB")), on(), MISMATCH, id="pinned-otherwise"),
        pytest.param(CertificateIs(keys=names("key")), on(), HOLDS, id="pinned-key"),
        pytest.param(CertificateIs(keys=names("thumb")), on(), MISMATCH, id="a-thumbprint-is-no-key"),
        pytest.param(CertificateIs(issuers=names("CN=Corp CA")), on(), HOLDS, id="issuer"),
        pytest.param(CertificateIs(issuers=names("CN=laptop-7,O=Corp")), on(), MISMATCH, id="not-its-issuer"),
        pytest.param(CertificateIs(subjects=names("CN=laptop-7,O=Corp")), on(), HOLDS, id="subject"),
        pytest.param(CertificateIs(subjects=names("CN=laptop-7")), on(), MISMATCH, id="half-a-subject"),
        pytest.param(CertificateIs(dns=names("laptop-7.CORP.test")), on(), HOLDS, id="dns"),
        pytest.param(CertificateIs(dns=names("corp.test")), on(), MISMATCH, id="dns-above"),
        pytest.param(CertificateIs(dns=names("urn:device:7")), on(), MISMATCH, id="another-type-of-name"),
        pytest.param(CertificateIs(emails=names("ALICE@corp.test")), on(), HOLDS, id="email"),
        pytest.param(CertificateIs(emails=names("bob@corp.test")), on(), MISMATCH, id="another-email"),
        pytest.param(CertificateIs(uris=names("urn:device:7")), on(), HOLDS, id="uri"),
        pytest.param(CertificateIs(uris=names("URN:device:7")), on(), MISMATCH, id="uri-exact"),
        pytest.param(
            CertificateIs(spiffe=("spiffe://a.test/x", "spiffe://corp.test/dev/*")), on(), HOLDS, id="spiffe"
        ),
        pytest.param(CertificateIs(spiffe=("spiffe://corp.test/ci/*",)), on(), MISMATCH, id="other-spiffe"),
        pytest.param(
            CertificateIs(spiffe=("spiffe://corp.test/dev/*",)),
            on(certificate=replace(CERTIFICATE, spiffe=None)),
            MISMATCH,
            id="no-spiffe",
        ),
        pytest.param(
            CertificateIs(authorities=names("corp"), dns=names("other.test")), on(), HOLDS, id="every-field"
        ),
        pytest.param(
            CertificateIs(authorities=names("corp"), dns=names("x.test")),
            on(),
            MISMATCH,
            id="one-of-two-fields",
        ),
        pytest.param(DeviceKnown(), on(), HOLDS, id="known"),
        pytest.param(DeviceKnown(), on(None), fails(Reason.DEVICE_UNKNOWN), id="unknown"),
        pytest.param(DeviceApproved(), on(), HOLDS, id="approved"),
        pytest.param(
            DeviceApproved(),
            on(replace(LAPTOP, status=Status.PENDING)),
            fails(Reason.DEVICE_NOT_APPROVED),
            id="pending",
        ),
        pytest.param(
            DeviceApproved(),
            on(replace(LAPTOP, status=Status.LOST)),
            fails(Reason.DEVICE_NOT_APPROVED),
            id="lost",
        ),
        pytest.param(DeviceOwned(), on(), HOLDS, id="owned"),
        pytest.param(DeviceOwned(), on(replace(LAPTOP, owners=names(ALICE))), HOLDS, id="owned-by-subject"),
        pytest.param(
            DeviceOwned(), on(replace(LAPTOP, owners=names(f"{ISSUER}|{ALICE}"))), HOLDS, id="owned-by-both"
        ),
        pytest.param(
            DeviceOwned(),
            on(replace(LAPTOP, owners=names("bob@corp.test"))),
            fails(Reason.DEVICE_OWNER),
            id="X27-somebody-elses",
        ),
        pytest.param(
            DeviceOwned(), on(replace(LAPTOP, owners=names())), fails(Reason.DEVICE_OWNER), id="nobodys"
        ),
        pytest.param(PlatformIs(names("MacOS", "ios")), on(), HOLDS, id="platform"),
        pytest.param(
            PlatformIs(names("windows")), on(), fails(Reason.DEVICE_PLATFORM), id="another-platform"
        ),
        pytest.param(PostureIs("fact", Equals(True)), reporting(True), HOLDS, id="fact"),
        pytest.param(
            PostureIs("fact", Equals(True)),
            reporting(False),
            fails(Reason.POSTURE_MISMATCH),
            id="other-value",
        ),
    ],
)
def test_what_is_known(condition, device, answer) -> None:
    turned = Not(condition)
    assert told(condition, device) == told(condition, device, SERVICE) == answer
    assert told(turned, device) == (DENIED if answer == HOLDS else HOLDS)
    assert told(Not(turned), device) == answer
    assert condition.reads == {Source.SESSION, Source.DEVICE}
    # Whoever signed in without a certificate is asked to do so with one, before either answer can hold.
    unbound = told(condition, device, UNBOUND)
    if answer == HOLDS:
        assert unbound == SIGN_IN_HERE
    else:
        assert isinstance(unbound, Fails) and unbound.reasons == answer.reasons
    if answer != HOLDS or not isinstance(condition, DeviceOwned):
        assert told(turned, device, UNBOUND) == SIGN_IN_HERE


@pytest.mark.parametrize("device", [on(), on(replace(LAPTOP, owners=frozenset()))])
def test_whose_a_device_is_needs_somebody(device) -> None:
    assert told(DeviceOwned(), device, None) == told(Not(DeviceOwned()), device, None) == LOGIN


def test_nothing_else_needs_somebody() -> None:
    assert told(DeviceApproved(), on(), None) == HOLDS
    assert told(CertificateIs(), on(), None) == HOLDS
    assert told(Not(PlatformIs(names("windows"))), on(), None) == HOLDS


# ------------------------------------------------------------------ what nobody can say, either way

EVERY = [
    CertificateIs(),
    DeviceKnown(),
    DeviceApproved(),
    DeviceOwned(),
    PlatformIs(names("windows")),
    PostureIs("jailbroken", Equals(True)),
]


@pytest.mark.parametrize("condition", EVERY, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize(
    "who", [None, UNBOUND, BOUND, SERVICE], ids=["nobody", "unbound", "bound", "service"]
)
@pytest.mark.parametrize(
    ("device", "reason"),
    [
        pytest.param(NOT_ASKED, Reason.DEVICE_CERTIFICATE_REQUIRED, id="nobody-asked"),
        pytest.param(
            NoDevice(Reason.DEVICE_CERTIFICATE_REQUIRED), Reason.DEVICE_CERTIFICATE_REQUIRED, id="X01-none"
        ),
        pytest.param(
            NoDevice(Reason.DEVICE_CERTIFICATE_REVOKED), Reason.DEVICE_CERTIFICATE_REVOKED, id="X08-revoked"
        ),
        pytest.param(NoDevice(Reason.DEVICE_LOST), Reason.DEVICE_LOST, id="T34-lost"),
        pytest.param(Unavailable(), Reason.STATE_UNAVAILABLE, id="store-away"),
    ],
)
def test_without_a_device_nothing_holds_and_no_negation_does(condition, who, device, reason) -> None:
    """`deny: jailbroken` is not escaped by showing no certificate."""
    for question in (condition, Not(condition), Not(Not(condition)), AllOf([Not(AnyOf([condition]))])):
        truth = told(question, device, who)
        assert isinstance(truth, Fails) and truth.reasons == (reason,)


UNKNOWN, STALE = Reason.POSTURE_UNKNOWN, Reason.POSTURE_STALE
OTHER_TYPE = Reason.POSTURE_MISMATCH


@pytest.mark.parametrize(
    ("condition", "device", "reason"),
    [
        pytest.param(DeviceApproved(), on(None), Reason.DEVICE_UNKNOWN, id="approved-of-none"),
        pytest.param(DeviceOwned(), on(None), Reason.DEVICE_UNKNOWN, id="owned-of-none"),
        pytest.param(PlatformIs(names("ios")), on(None), Reason.DEVICE_UNKNOWN, id="platform-of-none"),
        pytest.param(PostureIs("x", Equals(1)), on(None), Reason.DEVICE_UNKNOWN, id="fact-of-none"),
        pytest.param(
            PlatformIs(names("ios", "")),
            on(replace(LAPTOP, platform="")),
            Reason.DEVICE_PLATFORM,
            id="no-platform",
        ),
        pytest.param(PostureIs("other", Equals(True)), reporting(True), UNKNOWN, id="no-such-fact"),
        pytest.param(PostureIs("fact", Equals(True), 60.0), reporting(True, 60.0), STALE, id="just-stale"),
        pytest.param(
            PostureIs("fact", Equals(True), 60.0), reporting(False, 61.0), STALE, id="stale-comes-first"
        ),
        pytest.param(
            PostureIs("fact", Equals(True), 60.0), reporting(True, -AHEAD - 1), STALE, id="from-the-future"
        ),
        pytest.param(PostureIs("fact", Equals(True)), reporting(1), OTHER_TYPE, id="1-is-not-true"),
        pytest.param(PostureIs("fact", Equals(1)), reporting(True), OTHER_TYPE, id="true-is-not-1"),
        pytest.param(PostureIs("fact", Equals(1)), reporting("1"), OTHER_TYPE, id="text-is-not-1"),
        pytest.param(PostureIs("fact", Equals(1)), reporting(1.0), OTHER_TYPE, id="1.0-is-not-1"),
        pytest.param(PostureIs("fact", OneOf((1, "a"))), reporting(True), OTHER_TYPE, id="none-of-its-type"),
        pytest.param(PostureIs("fact", AtMost(30)), reporting("12"), OTHER_TYPE, id="text-is-no-number"),
        pytest.param(PostureIs("fact", AtMost(30)), reporting(True), OTHER_TYPE, id="true-is-no-number"),
        pytest.param(PostureIs("fact", AtLeast(0)), reporting(nan), OTHER_TYPE, id="nan-is-no-number"),
    ],
)
def test_what_cannot_be_told_is_neither(condition, device, reason) -> None:
    for question, who in product((condition, Not(condition), Not(Not(condition))), (BOUND, UNBOUND, None)):
        truth = told(question, device, who)
        assert isinstance(truth, Fails) and truth.reasons == (reason,)


@pytest.mark.parametrize(
    ("test", "value", "met"),
    [
        pytest.param(Equals("14.1"), "14.1", True, id="text"),
        pytest.param(Equals("14.1"), "14.10", False, id="another-text"),
        pytest.param(Equals(3), 3, True, id="number"),
        pytest.param(OneOf(("a", "b")), "b", True, id="one-of"),
        pytest.param(OneOf(("a", "b")), "c", False, id="none-of"),
        pytest.param(OneOf((True, 1, "a")), 1, True, id="one-of-mixed"),
        pytest.param(OneOf((True, 2)), 1, False, id="true-is-not-1-among-others"),
        pytest.param(AtMost(30), 30, True, id="at-most"),
        pytest.param(AtMost(30), 30.5, False, id="more"),
        pytest.param(AtLeast(2), 2, True, id="at-least"),
        pytest.param(AtLeast(2), 1.5, False, id="less"),
    ],
)
def test_posture(test, value, met) -> None:
    assert test.met_by(value) is met
    condition = PostureIs("fact", test)
    assert told(condition, reporting(value, age=1000 * DAY)) == (HOLDS if met else fails(OTHER_TYPE))
    assert told(Not(condition), reporting(value)) == (DENIED if met else HOLDS)


@pytest.mark.parametrize(
    ("age", "recent"),
    [
        pytest.param(0.0, True, id="just-now"),
        pytest.param(59.75, True, id="nearly-stale"),
        pytest.param(60.0, False, id="stale"),
        pytest.param(-AHEAD, True, id="a-clock-a-little-ahead"),
        pytest.param(-AHEAD - 0.25, False, id="a-clock-too-far-ahead"),
    ],
)
def test_age(age, recent) -> None:
    truth = told(PostureIs("fact", Equals(True), 60.0), reporting(True, age))
    assert isinstance(truth, Holds) is recent


# ------------------------------------------------------------------ when time alone changes an answer


def test_every_limit_of_a_tree_is_found() -> None:
    day, hour, never = (PostureIs("x", Equals(True), within) for within in (DAY, 3600.0, None))
    tree = AllOf([Not(AnyOf([day, InGroup(names("a"))])), AnyOf([Not(Not(hour)), never])])
    assert posture_limits(tree) == {DAY, 3600.0}
    assert posture_limits(never) == posture_limits(DeviceKnown()) == frozenset()


@pytest.mark.parametrize(
    ("ages", "limits", "until"),
    [
        pytest.param((10.0,), (60.0,), NOW + 50, id="stale-soon"),
        pytest.param((10.0, 30.0), (60.0, 100.0), NOW + 30, id="the-first-of-several"),
        pytest.param((70.0,), (60.0, 100.0), NOW + 30, id="stale-under-one-already"),
        pytest.param((60.0,), (60.0,), inf, id="stale-at-this-moment"),
        pytest.param((100.0,), (60.0,), inf, id="stale-long-since"),
        pytest.param((-AHEAD - 5,), (DAY,), NOW + 5, id="not-counting-yet"),
        pytest.param((), (60.0,), inf, id="no-facts"),
        pytest.param((10.0,), (), inf, id="no-limits"),
    ],
)
def test_until_when_an_answer_stands(ages, limits, until) -> None:
    posture = {f"f{n}": Fact(True, "mdm", NOW - age) for n, age in enumerate(ages)}
    assert posture_until(replace(LAPTOP, posture=posture), frozenset(limits), NOW) == until


def test_no_answer_changes_before_it_was_said_to() -> None:
    """Over random facts and limits: asked at any moment before `posture_until`, the answer is the same."""
    dice, changed = random.Random(7), 0
    for _ in range(300):
        device = replace(LAPTOP, posture={"x": Fact(True, "mdm", NOW + dice.uniform(-500, 500))})
        condition = PostureIs("x", Equals(True), dice.uniform(1, 600))
        until = posture_until(device, posture_limits(condition), NOW)

        def at(now: float, device=device, condition=condition) -> bool:
            facts = asked(BOUND, ask(), now)._replace(device=on(device))
            return isinstance(condition.ask(facts), Holds)

        first = at(NOW)
        moments = [dice.uniform(NOW, min(until, NOW + 2000)) for _ in range(5)]
        assert all(at(moment) is first for moment in moments if moment < until)
        changed += until < inf and at(until) is not first
    assert changed > 100


# ------------------------------------------------------------------ the promises, over generated trees

WORLDS: list[DeviceEvidence] = [
    NOT_ASKED,
    NoDevice(Reason.DEVICE_LOST),
    Unavailable(),
    on(None),
    *(
        on(Device("d", status, platform=platform, owners=owners, posture=posture))
        for status, platform, owners, posture in product(
            (Status.PENDING, Status.APPROVED),
            ("", "ios", "windows"),
            (frozenset({ALICE}), frozenset()),
            ({}, {"jailbroken": Fact(True, "m", NOW)}, {"jailbroken": Fact(False, "m", NOW)}),
        )
    ),
]


def trees(count: int):
    """Random trees over device conditions and one about the person, with negations everywhere."""
    dice = random.Random(20250617)
    leaves: list[Condition] = [*EVERY, InGroup(names("admin"))]

    def grow(depth: int) -> Condition:
        if depth == 0 or dice.random() < 0.2:
            tree = dice.choice(leaves)
        else:
            tree = dice.choice((AllOf, AnyOf))([grow(depth - 1), grow(depth - 1)])
        return Not(tree) if dice.random() < 0.35 else tree

    for _ in range(count):
        yield grow(3)


def test_a_tree_and_its_mirror_never_both_hold() -> None:
    for tree in trees(300):
        mirror = Not(tree)
        for device, who in product(WORLDS, (None, UNBOUND, BOUND)):
            truths = (told(tree, device, who), told(mirror, device, who))
            assert sum(isinstance(truth, Holds) for truth in truths) <= 1
            assert all(truth.reasons for truth in truths if not isinstance(truth, Holds))


def test_signing_in_on_the_device_never_overturns_what_was_settled() -> None:
    asked_for = 0
    for tree in trees(300):
        for device, who in product(WORLDS, (None, UNBOUND)):
            before, after = told(tree, device, who), told(tree, device, BOUND)
            if isinstance(before, Needs):
                asked_for += 1
            else:
                assert type(before) is type(after)
            assert not isinstance(after, Needs)
    assert asked_for > 1000


def test_losing_what_is_known_opens_nothing() -> None:
    """No tree of device conditions alone holds without a device, however it is negated."""
    dice = random.Random(3)
    for _ in range(300):
        parts = [Not(one) if dice.random() < 0.5 else one for one in dice.sample(EVERY, 3)]
        tree = dice.choice((AllOf, AnyOf))([parts[0], Not(dice.choice((AllOf, AnyOf))(parts[1:]))])
        for device in WORLDS[:3]:
            assert isinstance(told(tree, device), Fails)
            assert isinstance(told(Not(tree), device), Fails)
