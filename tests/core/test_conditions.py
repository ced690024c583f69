"""Every condition as a table, the algebra as tables, and its promises over thousands of generated trees."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from ipaddress import ip_network
from itertools import chain, combinations, product
from zoneinfo import ZoneInfo

import pytest

from tests.core.words import ALICE, ISSUER, ask, asked, path, person, session
from ztproxy.core.conditions import (
    HOLDS,
    LOGIN,
    AllOf,
    AnyOf,
    Anyone,
    Ask,
    Authenticated,
    ClaimIs,
    Condition,
    DomainIs,
    EmailIs,
    Fails,
    FromNetwork,
    Holds,
    InGroup,
    MethodIs,
    Needs,
    Not,
    PathIs,
    PathUnder,
    RankAtLeast,
    Source,
    Truth,
    UserIs,
    Within,
    ascii_lower,
    both,
    either,
    fold,
    forbids_sign_in,
    is_among,
    untold,
)
from ztproxy.core.evidence import Facts
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Peer

BERLIN = ZoneInfo("Europe/Berlin")


# ------------------------------------------------------------------ about a person


def user(*subjects: str) -> UserIs:
    return UserIs(frozenset(subjects))


def email(*emails: str) -> EmailIs:
    return EmailIs(frozenset(emails))


def domain(*domains: str) -> DomainIs:
    return DomainIs(frozenset(domains))


def group(*groups: str) -> InGroup:
    return InGroup(frozenset(groups))


def claim(dotted: str, *values: str | int | float | bool) -> ClaimIs:
    return ClaimIs(tuple(dotted.split(".")), values)


OTHER_ISSUER = "https://evil.test"
CLAIMS = {
    "department": "finance",
    "level": 3,
    "ratio": 0.5,
    "on_call": True,
    "nothing": None,
    "roles": ["reader", "writer"],
    "realm": {"access": {"roles": ["boss"]}},
    "empty": [],
}


@pytest.mark.parametrize(
    ("condition", "who", "answer"),
    [
        pytest.param(Authenticated(), person(), HOLDS, id="authenticated"),
        pytest.param(user(ALICE), person(), HOLDS, id="user-by-subject"),
        pytest.param(user(f"{ISSUER}|{ALICE}"), person(), HOLDS, id="user-by-issuer-and-subject"),
        pytest.param(user("auth0|7"), person(subject="auth0|7"), HOLDS, id="user-subject-with-a-bar"),
        pytest.param(user("https://me.test/"), person(subject="https://me.test/"), HOLDS, id="user-url"),
        pytest.param(user("bob"), person(), Reason.USER_MISMATCH, id="user-other"),
        pytest.param(user(ALICE.upper()), person(), Reason.USER_MISMATCH, id="user-case-matters"),
        pytest.param(
            user(f"{ISSUER}|{ALICE}"),
            person(issuer=OTHER_ISSUER),
            Reason.USER_MISMATCH,
            id="attack-same-subject-at-another-issuer",
        ),
        pytest.param(
            user(f"{ISSUER}|{ALICE}"),
            person(issuer=OTHER_ISSUER, subject=f"{ISSUER}|{ALICE}"),
            Reason.USER_MISMATCH,
            id="attack-subject-that-poses-as-another-issuers",
        ),
        pytest.param(email("a@x.test"), person(email="a@x.test"), HOLDS, id="email"),
        pytest.param(email("a@x.test"), person(email="A@X.TEST"), HOLDS, id="email-ascii-case"),
        pytest.param(email("a@x.test"), person(), Reason.EMAIL_MISMATCH, id="email-absent"),
        pytest.param(email("a@x.test"), person(email="b@x.test"), Reason.EMAIL_MISMATCH, id="email-other"),
        pytest.param(
            email("mike@x.test"),
            person(email="mi\u212ae@x.test"),
            Reason.EMAIL_MISMATCH,
            id="attack-kelvin-sign",
        ),
        pytest.param(domain("x.test"), person(email="a@X.test"), HOLDS, id="domain"),
        pytest.param(domain("x.test"), person(), Reason.DOMAIN_MISMATCH, id="domain-absent"),
        pytest.param(
            domain("x.test"), person(email="a@sub.x.test"), Reason.DOMAIN_MISMATCH, id="domain-sub-domain"
        ),
        pytest.param(
            domain("x.test"), person(email="a@evil-x.test"), Reason.DOMAIN_MISMATCH, id="attack-domain-suffix"
        ),
        pytest.param(
            domain("x.test"), person(email="a@evil.test@x.test"), Reason.DOMAIN_MISMATCH, id="attack-two-at"
        ),
        pytest.param(domain("x.test"), person(email="x.test"), Reason.DOMAIN_MISMATCH, id="domain-no-at"),
        pytest.param(group("eng", "admin"), person("ops", "admin"), HOLDS, id="group-any-of"),
        pytest.param(group("admin"), person("ops"), Reason.GROUP_MISSING, id="group-missing"),
        pytest.param(group("admin"), person(), Reason.GROUP_MISSING, id="group-none"),
        pytest.param(
            group("admin"), person("Admin", "admin ", "admins"), Reason.GROUP_MISSING, id="group-near"
        ),
        pytest.param(claim("department", "finance"), person(claims=CLAIMS), HOLDS, id="claim"),
        pytest.param(claim("level", 1, 3), person(claims=CLAIMS), HOLDS, id="claim-number"),
        pytest.param(claim("ratio", 0.5), person(claims=CLAIMS), HOLDS, id="claim-float"),
        pytest.param(claim("on_call", True), person(claims=CLAIMS), HOLDS, id="claim-boolean"),
        pytest.param(claim("roles", "writer"), person(claims=CLAIMS), HOLDS, id="claim-list-contains"),
        pytest.param(claim("realm.access.roles", "boss"), person(claims=CLAIMS), HOLDS, id="claim-nested"),
        pytest.param(claim("level", "3"), person(claims=CLAIMS), Reason.CLAIM_MISMATCH, id="claim-text-3"),
        pytest.param(
            claim("on_call", 1), person(claims=CLAIMS), Reason.CLAIM_MISMATCH, id="claim-true-not-1"
        ),
        pytest.param(claim("level", 3.0), person(claims=CLAIMS), Reason.CLAIM_MISMATCH, id="claim-3-not-3.0"),
        pytest.param(claim("absent", "x"), person(claims=CLAIMS), Reason.CLAIM_MISMATCH, id="claim-absent"),
        pytest.param(claim("nothing", ""), person(claims=CLAIMS), Reason.CLAIM_MISMATCH, id="claim-null"),
        pytest.param(claim("empty", ""), person(claims=CLAIMS), Reason.CLAIM_MISMATCH, id="claim-empty-list"),
        pytest.param(
            claim("department.name", "f"), person(claims=CLAIMS), Reason.CLAIM_MISMATCH, id="claim-into-text"
        ),
        pytest.param(
            claim("roles", "read"), person(claims=CLAIMS), Reason.CLAIM_MISMATCH, id="claim-part-of-a-text"
        ),
        pytest.param(
            claim("realm", "access"),
            person(claims=CLAIMS),
            Reason.CLAIM_MISMATCH,
            id="claim-key-of-an-object",
        ),
    ],
)
def test_about_a_person(condition, who, answer) -> None:
    expected = answer if isinstance(answer, Holds) else Fails((answer,))
    assert condition.ask(asked(session(identity=who))) == expected
    assert condition.ask(asked(None)) == LOGIN  # without a session nothing is known, so nothing is settled
    assert condition.reads == {Source.SESSION}


@pytest.mark.parametrize(
    ("who", "answer"),
    [
        pytest.param(None, LOGIN, id="nobody"),
        pytest.param(session(rank=1), Needs(Ask.STEP_UP, (Reason.STEP_UP_REQUIRED,), 2), id="weaker"),
        pytest.param(session(rank=2), HOLDS, id="equal"),
        pytest.param(session(rank=3), HOLDS, id="stronger"),
    ],
)
def test_rank(who, answer) -> None:
    assert RankAtLeast(2).ask(asked(who)) == answer
    assert RankAtLeast(2).reads == {Source.SESSION}


# ------------------------------------------------------------------ about the request


@pytest.mark.parametrize(
    ("condition", "request_", "answer"),
    [
        pytest.param(Anyone(), ask(), HOLDS, id="anyone"),
        pytest.param(MethodIs(frozenset({"GET", "HEAD"})), ask(), HOLDS, id="method"),
        pytest.param(
            MethodIs(frozenset({"GET"})), ask(method="POST"), Reason.METHOD_MISMATCH, id="method-other"
        ),
        pytest.param(PathIs(("a",)), ask("/a"), HOLDS, id="path"),
        pytest.param(PathIs(("",)), ask("/"), HOLDS, id="path-root"),
        pytest.param(PathIs(("a",)), ask("/a/"), Reason.PATH_MISMATCH, id="path-slash"),
        pytest.param(PathIs(("a",)), ask("/A"), Reason.PATH_MISMATCH, id="path-case"),
        pytest.param(PathIs(("Ab",), folded=True), ask("/aB"), HOLDS, id="path-folded"),
        pytest.param(PathIs(("ab",), folded=True), ask("/abc"), Reason.PATH_MISMATCH, id="path-folded-other"),
        pytest.param(PathIs(("Ärzte",), folded=True), ask("/ärzte"), HOLDS, id="path-folded-not-ascii"),
        pytest.param(PathUnder(("a",)), ask("/a"), HOLDS, id="under-itself"),
        pytest.param(PathUnder(("a",)), ask("/a/"), HOLDS, id="under-slash"),
        pytest.param(PathUnder(("a",)), ask("/a/b/c"), HOLDS, id="under-deep"),
        pytest.param(PathUnder(()), ask("/"), HOLDS, id="under-root"),
        pytest.param(PathUnder(()), ask("/x"), HOLDS, id="under-root-all"),
        pytest.param(PathUnder(("a", "b")), ask("/a"), Reason.PATH_MISMATCH, id="under-above"),
        pytest.param(PathUnder(("a",)), ask("/ab"), Reason.PATH_MISMATCH, id="attack-under-sibling"),
        pytest.param(PathUnder(("a",)), ask("/A/b"), Reason.PATH_MISMATCH, id="under-case"),
        pytest.param(PathUnder(("admin",), folded=True), ask("/ADMIN/x"), HOLDS, id="under-folded"),
    ],
)
def test_about_the_request(condition, request_, answer) -> None:
    expected = answer if isinstance(answer, Holds) else Fails((answer,))
    assert condition.ask(asked(None, request_)) == expected
    assert condition.ask(asked(session(), request_)) == expected


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        pytest.param("10.1.2.3", True, id="v4"),
        pytest.param("11.1.2.3", False, id="v4-outside"),
        pytest.param("::ffff:10.1.2.3", True, id="v4-written-as-v6"),
        pytest.param("::ffff:11.1.2.3", False, id="v4-written-as-v6-outside"),
        pytest.param("2001:db8::1", True, id="v6"),
        pytest.param("2001:db9::1", False, id="v6-outside"),
        pytest.param("fe80::1%eth0", False, id="v6-scoped"),
        pytest.param("", False, id="unix-socket"),
        pytest.param("10.1.2.3, 1.1.1.1", False, id="attack-a-list"),
    ],
)
def test_network(address, inside) -> None:
    condition = FromNetwork((ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")))
    answer = condition.ask(asked(None, ask(peer=Peer(address, True))))
    assert answer == (HOLDS if inside else Fails((Reason.NETWORK_MISMATCH,)))
    assert condition.reads == {Source.NETWORK}


# ------------------------------------------------------------------ about time


def berlin(text: str, fold_: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold_)


OFFICE = Within(BERLIN, frozenset(range(5)), time(8), time(20))
NIGHT = Within(BERLIN, frozenset({4}), time(22), time(6))  # Friday night
PERIOD = Within(BERLIN, first=date(2025, 3, 1), last=date(2025, 3, 31))
LAST_NIGHT = Within(BERLIN, after=time(22), before=time(6), last=date(2025, 3, 31))


@pytest.mark.parametrize(
    ("window", "moment", "inside"),
    [
        pytest.param(OFFICE, berlin("2025-06-16T08:00"), True, id="first-second"),
        pytest.param(OFFICE, berlin("2025-06-16T07:59:59.999999"), False, id="just-before"),
        pytest.param(OFFICE, berlin("2025-06-16T19:59:59.999999"), True, id="last-moment"),
        pytest.param(OFFICE, berlin("2025-06-16T20:00"), False, id="half-open-end"),
        pytest.param(OFFICE, berlin("2025-06-16T20:59"), False, id="20-59-is-not-before-20-00"),
        pytest.param(OFFICE, berlin("2025-06-15T12:00"), False, id="sunday"),
        pytest.param(OFFICE, datetime(2025, 6, 16, 6, 30, tzinfo=UTC), True, id="zone-in-summer"),
        pytest.param(OFFICE, datetime(2025, 12, 16, 6, 30, tzinfo=UTC), False, id="zone-in-winter"),
        pytest.param(OFFICE, datetime(2025, 6, 15, 23, 0, tzinfo=UTC), False, id="monday-there-at-one"),
        pytest.param(NIGHT, berlin("2025-06-20T21:59"), False, id="night-before-it-begins"),
        pytest.param(NIGHT, berlin("2025-06-20T22:00"), True, id="night-begins"),
        pytest.param(NIGHT, berlin("2025-06-21T00:00"), True, id="night-spans-midnight"),
        pytest.param(NIGHT, berlin("2025-06-21T05:59"), True, id="night-is-the-day-it-began"),
        pytest.param(NIGHT, berlin("2025-06-21T06:00"), False, id="night-ends"),
        pytest.param(NIGHT, berlin("2025-06-20T05:00"), False, id="night-of-thursday-is-not-fridays"),
        pytest.param(NIGHT, berlin("2025-06-21T22:30"), False, id="night-of-saturday-is-not-fridays"),
        pytest.param(
            Within(UTC, before=time(8)), datetime(2025, 1, 1, 0, tzinfo=UTC), True, id="only-before"
        ),
        pytest.param(
            Within(UTC, before=time(8)), datetime(2025, 1, 1, 8, tzinfo=UTC), False, id="before-end"
        ),
        pytest.param(
            Within(UTC, after=time(8)), datetime(2025, 1, 1, 23, 59, tzinfo=UTC), True, id="only-after"
        ),
        pytest.param(
            Within(UTC, after=time(8)), datetime(2025, 1, 1, 7, 59, tzinfo=UTC), False, id="after-not"
        ),
        pytest.param(
            Within(UTC, after=time(20), before=time(0)),
            datetime(2025, 1, 1, 23, 59, tzinfo=UTC),
            True,
            id="till-0",
        ),
        pytest.param(
            Within(UTC, after=time(20), before=time(0)),
            datetime(2025, 1, 1, 0, 0, tzinfo=UTC),
            False,
            id="not-at-0",
        ),
        pytest.param(Within(UTC), datetime(2025, 1, 1, tzinfo=UTC), True, id="always"),
        pytest.param(PERIOD, berlin("2025-02-28T23:59"), False, id="date-before-first"),
        pytest.param(PERIOD, berlin("2025-03-01T00:00"), True, id="date-first"),
        pytest.param(PERIOD, berlin("2025-03-31T23:59"), True, id="date-last-inclusive"),
        pytest.param(PERIOD, berlin("2025-04-01T00:00"), False, id="date-after-last"),
        pytest.param(PERIOD, datetime(2025, 3, 31, 22, 30, tzinfo=UTC), False, id="date-in-its-zone"),
        pytest.param(LAST_NIGHT, berlin("2025-04-01T05:00"), True, id="date-of-a-night-is-when-it-began"),
        pytest.param(LAST_NIGHT, berlin("2025-04-01T22:00"), False, id="date-of-the-next-night"),
        # 30 March 2025: clocks go from 02:00 to 03:00. 26 October 2025: from 03:00 back to 02:00.
        pytest.param(
            Within(BERLIN, after=time(2), before=time(3)),
            datetime(2025, 3, 30, 1, 0, tzinfo=UTC),
            False,
            id="dst-gap",
        ),
        pytest.param(
            Within(BERLIN, after=time(3)), datetime(2025, 3, 30, 1, 0, tzinfo=UTC), True, id="dst-gap-end"
        ),
        pytest.param(
            Within(BERLIN, before=time(3)), berlin("2025-10-26T02:30"), True, id="dst-first-half-past-two"
        ),
        pytest.param(
            Within(BERLIN, before=time(3)),
            berlin("2025-10-26T02:30", fold_=1),
            True,
            id="dst-second-half-past-two",
        ),
        pytest.param(Within(BERLIN, before=time(3)), berlin("2025-10-26T03:00"), False, id="dst-then-three"),
    ],
)
def test_time_window(window, moment, inside) -> None:
    answer = window.ask(asked(now=moment.timestamp()))
    assert answer == (HOLDS if inside else Fails((Reason.TIME_MISMATCH,)))
    assert window.reads == {Source.TIME}


def test_a_window_covers_exactly_its_minutes() -> None:
    start = datetime(2025, 6, 16, tzinfo=UTC)
    day = [start + timedelta(minutes=minute) for minute in range(24 * 60)]
    for after, before in [
        (time(8), time(20)),
        (time(22), time(6)),
        (time(0), time(0, 1)),
        (time(23, 59), time(0)),
    ]:
        span = (before.hour * 60 + before.minute - after.hour * 60 - after.minute) % (24 * 60)
        covered = [
            m for m in day if Within(UTC, after=after, before=before).ask(asked(now=m.timestamp())) == HOLDS
        ]
        assert len(covered) == span


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: AllOf([]), id="all_of-nothing"),
        pytest.param(lambda: AnyOf([]), id="any_of-nothing"),
        pytest.param(lambda: Within(UTC, after=time(9), before=time(9)), id="window-without-length"),
    ],
)
def test_what_cannot_be_meant_cannot_be_built(build) -> None:
    with pytest.raises(ValueError, match=r"^an empty|^a time window"):
        build()


# ------------------------------------------------------------------ folding


@pytest.mark.parametrize(
    ("text", "lower", "folded"),
    [
        pytest.param("ABCxyz-09", "abcxyz-09", "abcxyz-09", id="ascii"),
        pytest.param("\u212a", "\u212a", "k", id="kelvin-sign"),
        pytest.param("ſ", "ſ", "s", id="long-s"),
        pytest.param("ı", "ı", "i", id="dotless-i"),
        pytest.param("ß", "ß", "ss", id="sharp-s"),
        pytest.param("Ä", "Ä", "ä", id="umlaut"),
    ],
)
def test_folding(text, lower, folded) -> None:
    assert ascii_lower(text) == lower
    assert fold(text) == folded


# ------------------------------------------------------------------ the algebra

NO = Fails((Reason.GROUP_MISSING,))
NO_EITHER = Fails((Reason.METHOD_MISMATCH,))
STEP_2 = Needs(Ask.STEP_UP, (Reason.STEP_UP_REQUIRED,), 2)
STEP_3 = Needs(Ask.STEP_UP, (Reason.STEP_UP_REQUIRED,), 3)


@pytest.mark.parametrize(
    ("one", "other", "conjunction", "disjunction"),
    [
        pytest.param(HOLDS, HOLDS, HOLDS, HOLDS, id="yes-yes"),
        pytest.param(HOLDS, NO, NO, HOLDS, id="yes-no"),
        pytest.param(HOLDS, LOGIN, LOGIN, HOLDS, id="yes-login"),
        pytest.param(NO, LOGIN, NO, LOGIN, id="no-login"),
        pytest.param(NO, STEP_2, NO, STEP_2, id="no-step"),
        pytest.param(LOGIN, STEP_2, LOGIN, LOGIN, id="login-comes-before-a-step-up"),
        pytest.param(STEP_2, STEP_3, STEP_3, STEP_2, id="all-needs-the-higher-rank-any-the-lower"),
        pytest.param(STEP_2, STEP_2, STEP_2, STEP_2, id="same-need"),
    ],
)
def test_two_answers(one, other, conjunction, disjunction) -> None:
    for left, right in [(one, other), (other, one)]:
        assert both(left, right) == conjunction
        assert either(left, right) == disjunction


def test_reasons_of_two_failures() -> None:
    assert both(NO, NO_EITHER) == NO  # the first that decides says why
    assert either(NO, NO_EITHER) == Fails((Reason.GROUP_MISSING, Reason.METHOD_MISMATCH))
    assert either(NO, NO) == NO


def test_combined_conditions() -> None:
    admin, get, strong = group("admin"), MethodIs(frozenset({"GET"})), RankAtLeast(2)
    facts = asked(session("admin"))
    assert AllOf([admin, get]).ask(facts) == HOLDS
    assert AllOf([admin, strong]).ask(facts) == STEP_2
    assert AllOf([strong, group("boss")]).ask(facts) == NO
    assert AnyOf([group("boss"), get]).ask(facts) == HOLDS
    assert AnyOf([group("boss"), user("bob")]).ask(facts) == Fails(
        (Reason.GROUP_MISSING, Reason.USER_MISMATCH)
    )
    assert AllOf([admin, get, AnyOf([strong])]).reads == {Source.SESSION, Source.METHOD}
    assert AnyOf([admin, PathIs(("x",))]).reads == {Source.SESSION, Source.PATH}


@pytest.mark.parametrize(
    ("condition", "answer"),
    [
        pytest.param(Not(group("admin")), Fails((Reason.RULE_DENIED,)), id="yes-becomes-no"),
        pytest.param(Not(group("boss")), HOLDS, id="no-becomes-yes"),
        pytest.param(
            Not(group("admin"), Reason.TIME_MISMATCH), Fails((Reason.TIME_MISMATCH,)), id="own-reason"
        ),
        pytest.param(Not(AllOf([group("admin"), group("boss")])), HOLDS, id="not-all"),
        pytest.param(Not(AnyOf([group("admin"), group("boss")])), Fails((Reason.RULE_DENIED,)), id="not-any"),
        pytest.param(Not(Not(group("boss"))), NO, id="not-not-says-its-own-reason"),
        pytest.param(Not(Not(group("admin"))), HOLDS, id="not-not-yes"),
        pytest.param(Not(Not(RankAtLeast(2))), STEP_2, id="not-not-strong-asks"),
        pytest.param(
            Not(AnyOf([Not(RankAtLeast(2)), Not(RankAtLeast(3))])),
            STEP_3,
            id="denying-the-weak-asks-for-the-most",
        ),
        pytest.param(
            Not(AllOf([Not(RankAtLeast(2)), Not(RankAtLeast(3))])),
            STEP_2,
            id="and-in-the-mirror-for-the-least",
        ),
    ],
)
def test_negation(condition, answer) -> None:
    assert condition.ask(asked(session("admin"))) == answer
    assert condition.ask(asked(None)) == LOGIN
    assert condition.reads == {Source.SESSION}


class Answers:
    """A question with one answer, whoever asks."""

    reads = frozenset({Source.DEVICE})

    def __init__(self, truth: Truth) -> None:
        self.truth = truth

    def ask(self, facts: Facts) -> Truth:
        return self.truth


UNKNOWN = Reason.POSTURE_UNKNOWN
TURNED = Fails((Reason.DEVICE_PLATFORM,), STEP_2)


@pytest.mark.parametrize(
    ("condition", "answer"),
    [
        pytest.param(Answers(untold(UNKNOWN)), untold(UNKNOWN), id="nobody-can-say"),
        pytest.param(Not(Answers(untold(UNKNOWN))), Fails((UNKNOWN,)), id="nor-the-opposite"),
        pytest.param(Not(Not(Answers(untold(UNKNOWN)))), untold(UNKNOWN), id="nor-that-one-s-opposite"),
        pytest.param(
            Not(AllOf([Answers(untold(UNKNOWN)), Anyone()])),
            Fails((UNKNOWN, Reason.RULE_DENIED)),
            id="unless-both",
        ),
        pytest.param(
            Not(AllOf([Answers(untold(UNKNOWN)), Answers(NO)])), HOLDS, id="one-that-is-no-suffices"
        ),
        pytest.param(Not(AnyOf([Answers(untold(UNKNOWN)), Answers(NO)])), Fails((UNKNOWN,)), id="neither"),
        pytest.param(Not(Answers(TURNED)), STEP_2, id="the-opposite-needs-something"),
        pytest.param(Not(AllOf([Answers(TURNED), Answers(untold(UNKNOWN))])), STEP_2, id="or-is-not-known"),
    ],
)
def test_a_failure_with_a_negation_of_its_own(condition, answer) -> None:
    for who in (None, session("admin")):
        assert condition.ask(asked(who)) == answer


@pytest.mark.parametrize(
    ("condition", "forbids"),
    [
        pytest.param(RankAtLeast(2), False, id="asked-for"),
        pytest.param(Not(RankAtLeast(2)), True, id="rank-forbidden"),
        pytest.param(Not(Authenticated()), True, id="sign-in-forbidden"),
        pytest.param(Not(group("a")), False, id="group-forbidden"),
        pytest.param(Not(Not(RankAtLeast(2))), False, id="weakness-forbidden"),
        pytest.param(Not(AnyOf([group("a"), RankAtLeast(2)])), True, id="inside-any"),
        pytest.param(AnyOf([group("a"), AllOf([Not(RankAtLeast(2)), group("b")])]), True, id="deep"),
        pytest.param(Not(AllOf([Not(RankAtLeast(2)), group("b")])), False, id="deep-twice"),
    ],
)
def test_forbidding_a_sign_in_is_found(condition, forbids) -> None:
    assert forbids_sign_in(condition) is forbids


def test_who_is_among_the_listed() -> None:
    assert is_among(person(), frozenset({ALICE}))
    assert is_among(person(), frozenset({f"{ISSUER}|{ALICE}"}))
    assert not is_among(
        person(subject=f"{ISSUER}|{ALICE}", issuer="https://b.test"), frozenset({f"{ISSUER}|{ALICE}"})
    )
    assert not is_among(person(), frozenset())


# ------------------------------------------------------------------ the promises, over generated trees
#
# The world is small enough to be searched whole: three groups, three ranks, one request. A session knows more
# than none, and a stronger session of the same person knows more than a weaker one.

GROUPS = ("a", "b", "c")
SETS = [*chain.from_iterable(combinations(GROUPS, size) for size in range(4))]
RANKS = (1, 2, 3)
REQUEST = ask("/x")
YES, NEVER = MethodIs(frozenset({"GET"})), MethodIs(frozenset({"POST"}))
PEOPLE = [group(name) for name in GROUPS]
LEAVES: list[Condition] = [*PEOPLE, RankAtLeast(2), RankAtLeast(3), Authenticated(), Anyone(), YES, NEVER]
SILENT = Answers(untold(UNKNOWN))
SESSIONS = {(groups, rank): session(*groups, rank=rank) for groups, rank in product(SETS, RANKS)}


def answers(tree: Condition) -> tuple[Truth, dict[tuple[tuple[str, ...], int], Truth]]:
    alone = tree.ask(asked(None, REQUEST))
    return alone, {who: tree.ask(asked(them, REQUEST)) for who, them in SESSIONS.items()}


def small_trees() -> Iterator[Condition]:
    """Every tree of one or two leaves, each perhaps negated, the whole perhaps negated."""
    literals: list[Condition] = [*LEAVES, *(Not(leaf) for leaf in LEAVES)]
    pairs = [kind([one, other]) for kind in (AllOf, AnyOf) for one, other in product(literals, repeat=2)]
    yield from literals
    yield from pairs
    yield from (Not(pair) for pair in pairs)


def large_trees(leaves: list[Condition], count: int, read_once: bool) -> Iterator[Condition]:
    """Random trees of up to nine leaves; `read_once` uses every leaf at most once in a tree."""
    dice = random.Random(20250616)

    def grow(bag: list[Condition], depth: int) -> Condition:
        if depth == 0 or len(bag) == 1 or dice.random() < 0.15:
            leaf = bag[0] if read_once else dice.choice(leaves)
            return Not(leaf) if dice.random() < 0.3 else leaf
        cut = dice.randint(1, len(bag) - 1)
        tree = dice.choice((AllOf, AnyOf))([grow(bag[:cut], depth - 1), grow(bag[cut:], depth - 1)])
        return Not(tree) if dice.random() < 0.25 else tree

    for _ in range(count):
        yield grow(dice.sample(leaves, len(leaves)), 4)


def truths_grow(weaker: Truth, stronger: Truth) -> bool:
    """What was settled stays so; what was needed may become anything that is not less."""
    return isinstance(weaker, Needs) or type(weaker) is type(stronger)


def test_supplying_what_is_missing_never_overturns_a_settled_answer() -> None:
    seen = 0
    for tree in chain(small_trees(), large_trees(LEAVES, 1500, read_once=False)):
        seen += 1
        alone, known = answers(tree)
        assert not (isinstance(alone, Needs) and alone.ask is not Ask.LOGIN)
        for (groups, rank), truth in known.items():
            assert truths_grow(alone, truth)
            assert not (isinstance(truth, Needs) and truth.ask is not Ask.STEP_UP)
            for stronger in RANKS[rank:]:
                assert truths_grow(truth, known[groups, stronger])
    assert seen > 2500


def test_every_step_up_is_worthwhile_and_asks_for_the_least_that_suffices() -> None:
    asked_for = 0
    trees = (
        tree for tree in chain(small_trees(), large_trees(LEAVES, 1500, False)) if not forbids_sign_in(tree)
    )
    for tree in trees:
        _, known = answers(tree)
        for (groups, rank), truth in known.items():
            if isinstance(truth, Needs):
                asked_for += 1
                assert known[groups, truth.rank] == HOLDS
                assert all(known[groups, less] != HOLDS for less in range(rank, truth.rank))
    assert asked_for > 1000


def test_every_login_is_worthwhile() -> None:
    """Where each question stands once, so that no tree contradicts itself ("in `a` and not in `a`")."""
    asked_for = 0
    for tree in large_trees(LEAVES, 2000, read_once=True):
        alone, known = answers(tree)
        if isinstance(alone, Needs) and not forbids_sign_in(tree):
            asked_for += 1
            assert HOLDS in known.values()
    assert asked_for > 250


def test_negation_is_the_mirror_everywhere() -> None:
    for tree in chain(small_trees(), large_trees(LEAVES, 500, read_once=False)):
        mirror = Not(tree)
        for truth, opposite in zip(answers(tree)[1].values(), answers(mirror)[1].values(), strict=True):
            if isinstance(truth, Needs):
                assert isinstance(opposite, Needs)
            else:
                assert isinstance(opposite, Fails if isinstance(truth, Holds) else Holds)


def test_what_nobody_can_say_opens_nothing() -> None:
    """With a question among others that has no answer, a tree and its mirror never both hold, and whatever
    holds would hold with either answer."""
    held = 0
    for tree in large_trees([*LEAVES, SILENT], 300, read_once=False):
        before, mirrored = answers(tree)[1], answers(Not(tree))[1]
        assert not any(before[who] == mirrored[who] == HOLDS for who in before)
        for answer in (HOLDS, NO):
            SILENT.truth = answer
            after = answers(tree)[1]
            for who, truth in before.items():
                if isinstance(truth, Holds):
                    held += 1
                    assert after[who] == HOLDS
        SILENT.truth = untold(UNKNOWN)
    assert held > 1000


def test_a_reading_with_two_meanings_is_two_questions() -> None:
    both_ways = path("/a%2Fb", "/a/b")
    facts = asked(None, ask(both_ways))
    assert facts.reading == ("a%2Fb",)
    assert PathUnder(("a",)).ask(facts) == Fails((Reason.PATH_MISMATCH,))
    assert PathUnder(("a",)).ask(facts._replace(reading=both_ways.readings[1])) == HOLDS
