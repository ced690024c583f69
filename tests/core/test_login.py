"""One sign-in as a dialogue, and the table of hostile answers (F01 to F21).

`alice_begins` is an attempt at provider `op`; `answer` is what comes back; each row changes a little of
either.
"""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztproxy.core.assurance import Levels
from ztproxy.core.claims import Accepted
from ztproxy.core.identity import Identity, Session, Step
from ztproxy.core.login import LIFETIME, AskAgain, LoginAttempt, Wanted, digest, read_callback, stepped_up
from ztproxy.core.reasons import Reason
from ztproxy.core.sessions import GroupLimits, SessionLimits, at, narrowed
from ztproxy.errors import ClientError, WorldError

NOW = 1_000_000.0
ISSUER = "https://op.test"
HERE = "https://app.test/.ztproxy/callback/op"
STATE, BINDING, NONCE, VERIFIER = ("S" * 43, "B" * 43, "N" * 43, "V" * 43)


def alice_begins(**changes: Any) -> LoginAttempt:
    usual: dict[str, Any] = {
        "provider": "op",
        "issuer": ISSUER,
        "redirect_uri": HERE,
        "app": "https://app.test",
        "return_to": "/reports?y=1",
        "state": STATE,
        "binding": BINDING,
        "nonce": NONCE,
        "code_verifier": VERIFIER,
        "now": NOW,
        "as_of": 7,
        "log": "log-1",
        "requires_iss": False,
        "wanted": Wanted(),
    }
    return LoginAttempt.begin(**{**usual, **changes})


def answer(*params: tuple[str, str], state: str | None = STATE) -> list[tuple[str, str]]:
    return [*([("state", state)] if state is not None else []), *params]


def judge(
    attempt: LoginAttempt,
    params: list[tuple[str, str]],
    *,
    at: str = HERE,
    binding: str = BINDING,
    later: float = 5.0,
) -> str | AskAgain:
    return attempt.callback(params, redirect_uri=at, binding=binding, now=NOW + later)


CODE = ("code", "c-1")
EXTRA = ("session_state", "x")


@pytest.mark.parametrize(
    ("params", "requires_iss"),
    [
        pytest.param(answer(CODE), False, id="ordinary"),
        pytest.param(answer(CODE, EXTRA), False, id="unknown_parameters_are_left_alone"),
        pytest.param(answer(CODE, ("iss", ISSUER)), False, id="issuer_though_not_announced"),
        pytest.param(answer(CODE, ("iss", ISSUER)), True, id="issuer_as_announced"),
    ],
)
def test_an_answer_gives_its_code(params: list[tuple[str, str]], requires_iss: bool) -> None:
    assert judge(alice_begins(requires_iss=requires_iss), params) == "c-1"


S, C, I, R = Reason.LOGIN_STATE, Reason.LOGIN_CALLBACK, Reason.LOGIN_ISSUER, Reason.LOGIN_REFUSED  # noqa: E741


@pytest.mark.parametrize(
    ("params", "how", "reason", "word"),
    [
        pytest.param(answer(CODE, state=None), {}, S, "state", id="F01_no_state"),
        pytest.param(answer(CODE, state="X" * 43), {}, S, "state", id="F02_wrong_state"),
        pytest.param(answer(CODE, state=STATE[:-1]), {}, S, "state", id="F02_truncated"),
        pytest.param(answer(CODE, state=STATE + "S"), {}, S, "state", id="F02_appended"),
        pytest.param(answer(CODE, state=STATE.swapcase()), {}, S, "state", id="F02_case_flipped"),
        pytest.param(answer(CODE, state=STATE + "\n"), {}, S, "state", id="F02_line_end"),
        pytest.param(answer(CODE), {"binding": ""}, S, "state", id="F04_no_cookie"),
        pytest.param(answer(CODE), {"binding": "A" * 43}, S, "state", id="F04_another_browsers_cookie"),
        pytest.param(answer(CODE), {"later": LIFETIME}, Reason.LOGIN_EXPIRED, "expired", id="F05_too_late"),
        pytest.param(answer(CODE, ("iss", "https://b.test")), {}, I, "iss", id="F08_mix_up"),
        pytest.param(answer(CODE, ("iss", ISSUER + "/")), {}, I, "iss", id="F08_trailing_slash"),
        pytest.param(answer(("error", "access_denied")), {}, R, "op_error", id="F10_access_denied"),
        pytest.param(answer(("error", "<script>")), {}, R, "op_error", id="F10_script"),
        pytest.param(
            answer(("error", "e"), ("iss", "https://b.test")), {}, I, "iss", id="F10_mixed_up_error"
        ),
        pytest.param(answer(("error", "e"), state=None), {}, S, "state", id="F11_error_without_state"),
        pytest.param(answer(("error", "e"), CODE), {}, C, "duplicate", id="F11_error_and_code"),
        pytest.param(answer(CODE, CODE), {}, C, "duplicate", id="F11_code_twice"),
        pytest.param(answer(CODE, ("state", STATE)), {}, C, "duplicate", id="F11_state_twice"),
        pytest.param(answer(CODE, EXTRA, EXTRA), {}, C, "duplicate", id="F11_anything_twice"),
        pytest.param(answer(CODE, ("id_token", "a.b.c")), {}, C, "front_channel_token", id="F12_id_token"),
        pytest.param(answer(CODE, ("access_token", "")), {}, C, "front_channel_token", id="F12_access_token"),
        pytest.param(
            answer(CODE),
            {"at": "https://b.test/.ztproxy/callback/op"},
            C,
            "redirect_uri",
            id="F14_another_host",
        ),
        pytest.param(
            answer(CODE), {"at": HERE.replace("https", "http")}, C, "redirect_uri", id="F14_another_scheme"
        ),
        pytest.param(
            answer(CODE),
            {"at": "https://app.test/.ztproxy/callback/b"},
            I,
            "redirect_uri",
            id="F15_another_issuers_path",
        ),
        pytest.param(answer(("code", "c" * 10240)), {}, C, "code", id="F18_huge_code"),
        pytest.param(answer(("code", "c\x00")), {}, C, "code", id="F18_nul"),
        pytest.param(answer(("code", "c\r\nx")), {}, C, "code", id="F18_line_end"),
        pytest.param(answer(("code", "ç")), {}, C, "code", id="F18_not_ascii"),
        pytest.param(answer(("code", "")), {}, C, "code", id="code_empty"),
        pytest.param(answer(), {}, C, "code", id="neither_code_nor_error"),
        pytest.param(answer(("error", "login_required")), {}, R, "op_error", id="F21_without_prompt_none"),
        pytest.param(
            answer(("error", "unmet_authentication_requirements")),
            {},
            Reason.STEP_UP_FAILED,
            "op_error",
            id="provider_cannot_do_what_was_asked",
        ),
    ],
)
def test_denied(params: list[tuple[str, str]], how: dict[str, Any], reason: Reason, word: str) -> None:
    with pytest.raises(ClientError) as refused:
        judge(alice_begins(), params, **how)
    assert refused.value.reason is reason
    assert str(refused.value).partition(":")[0] == word


def test_F07_the_issuer_is_missing_though_announced() -> None:
    with pytest.raises(ClientError, match="iss_missing"):
        judge(alice_begins(requires_iss=True), answer(CODE))


def test_F10_nothing_of_an_error_is_told_again() -> None:
    with pytest.raises(ClientError) as refused:
        judge(alice_begins(), answer(("error", "<script>"), ("error_description", "<b>")))
    assert "<" not in str(refused.value)


@pytest.mark.parametrize("error", ["server_error", "temporarily_unavailable"])
def test_a_provider_in_trouble_is_not_the_persons_fault(error: str) -> None:
    with pytest.raises(WorldError) as failed:
        judge(alice_begins(), answer(("error", error)))
    assert failed.value.reason is Reason.PROVIDER_UNAVAILABLE


def test_F21_login_required_to_prompt_none_asks_the_person_once() -> None:
    silent = alice_begins(wanted=Wanted(rank=2, prompt="none"))
    again = judge(silent, answer(("error", "login_required")))
    assert again == AskAgain(Wanted(rank=2, prompt=None))
    with pytest.raises(ClientError) as refused:
        judge(alice_begins(wanted=again.wanted), answer(("error", "login_required")))
    assert refused.value.reason is Reason.LOGIN_REFUSED


ALICE = Identity(ISSUER, "alice")


def came_back(**changes: Any) -> Accepted:
    usual = Accepted(identity=ALICE, acr=None, amr=("pwd",), auth_time=None, idp_session="i-1", notes=())
    return replace(usual, **changes)


def finish(attempt: LoginAttempt, accepted: Accepted) -> Session:
    return attempt.finish(accepted, Levels(), SessionLimits(absolute=3600), NOW + 9, refreshable=True)


@pytest.mark.parametrize(
    ("accepted", "authenticated_at", "rank"),
    [
        pytest.param(came_back(), NOW + 9, 1, id="no_auth_time"),
        pytest.param(came_back(auth_time=NOW - 50, acr="phr"), NOW - 50, 3, id="auth_time_and_acr"),
        pytest.param(came_back(amr=("otp",)), NOW + 9, 2, id="amr"),
    ],
)
def test_a_session_says_what_the_sign_in_proved(
    accepted: Accepted, authenticated_at: float, rank: int
) -> None:
    assert finish(alice_begins(), accepted) == Session(
        id="",
        identity=ALICE,
        provider="op",
        created_at=NOW + 9,
        authenticated_at=authenticated_at,
        verified_at=NOW + 9,
        expires_at=NOW + 9 + 3600,
        fresh=accepted.auth_time is not None,
        acr=accepted.acr,
        amr=accepted.amr,
        rank=rank,
        idp_session="i-1",
        refreshable=True,
        as_of=7,
        log="log-1",
    )


STEP_UP = Wanted(rank=3, acr_values=("phr",), person=(ISSUER, "alice"))


@pytest.mark.parametrize(
    ("wanted", "accepted", "reason"),
    [
        pytest.param(STEP_UP, came_back(acr="mfa"), Reason.STEP_UP_FAILED, id="J68_weaker"),
        pytest.param(STEP_UP, came_back(acr="urn:new"), Reason.STEP_UP_FAILED, id="J68_unknown"),
        pytest.param(STEP_UP, came_back(), Reason.STEP_UP_FAILED, id="J68_nothing_said"),
        pytest.param(Wanted(rank=2), came_back(), Reason.STEP_UP_FAILED, id="J68_first_sign_in_too_weak"),
        pytest.param(
            STEP_UP,
            came_back(acr="phr", identity=Identity(ISSUER, "bob")),
            Reason.LOGIN_OTHER_PERSON,
            id="J72_another_person",
        ),
        pytest.param(
            Wanted(person=("https://b.test", "alice")),
            came_back(),
            Reason.LOGIN_OTHER_PERSON,
            id="J72_same_name_at_another_issuer",
        ),
    ],
)
def test_J68_J72_not_what_was_asked_for(wanted: Wanted, accepted: Accepted, reason: Reason) -> None:
    with pytest.raises(ClientError) as refused:
        finish(alice_begins(wanted=wanted), accepted)
    assert refused.value.reason is reason


def test_a_step_up_stays_within_the_bounds_of_its_session() -> None:
    before = replace(finish(alice_begins(), came_back()), id="s-1", revision=4, as_of=3)
    before = replace(before, created_at=NOW - 100, expires_at=NOW + 20)
    after = stepped_up(before, finish(alice_begins(wanted=STEP_UP), came_back(acr="phr")))
    assert (after.id, after.revision) == ("s-1", 4)
    assert (after.created_at, after.expires_at) == (NOW - 100, NOW + 20)
    assert (after.rank, after.acr, after.verified_at, after.as_of) == (3, "phr", NOW + 9, 7)


@pytest.mark.parametrize(
    ("auth_time", "skew", "fresh"),
    [
        pytest.param(NOW, 60, True, id="signed_in_since_it_began"),
        pytest.param(NOW - 60, 60, True, id="within_what_clocks_may_differ"),
        pytest.param(NOW - 61, 60, False, id="remembered_by_the_provider"),
        pytest.param(NOW - 61, 120, True, id="clocks_may_differ_more"),
        pytest.param(None, 60, False, id="the_provider_does_not_say"),
    ],
)
def test_whether_somebody_showed_who_they_are_for_this_session(
    auth_time: float | None, skew: float, fresh: bool
) -> None:
    accepted = came_back(auth_time=auth_time)
    session = alice_begins().finish(accepted, Levels(), SessionLimits(), NOW + 9, False, skew)
    assert session.fresh is fresh


@pytest.mark.parametrize(
    ("wanted", "accepted", "asks"),
    [
        pytest.param(STEP_UP, came_back(acr="phr"), None, id="strong_enough"),
        pytest.param(Wanted(), came_back(), None, id="nothing_asked"),
        pytest.param(
            STEP_UP,
            came_back(acr="mfa", auth_time=NOW - 9),
            replace(STEP_UP, prompt="login", max_age=0),
            id="J68_weaker",
        ),
        pytest.param(
            STEP_UP, came_back(acr="urn:new"), replace(STEP_UP, prompt="login"), id="J68_unknown_and_no_time"
        ),
        pytest.param(
            Wanted(rank=2, prompt="none", max_age=30),
            came_back(auth_time=NOW),
            Wanted(rank=2, prompt="login", max_age=0),
            id="silently",
        ),
        pytest.param(
            STEP_UP,
            came_back(acr="phr", auth_time=NOW - 600),
            replace(STEP_UP, prompt="login", max_age=0),
            id="strong_enough_and_forgotten_already",
        ),
        pytest.param(
            replace(STEP_UP, prompt="login", max_age=0), came_back(acr="mfa"), None, id="asked_already"
        ),
        pytest.param(
            STEP_UP, came_back(identity=Identity(ISSUER, "bob")), None, id="J72_another_person_is_not_asked"
        ),
    ],
)
def test_J68_what_is_weaker_than_asked_is_asked_for_once_more(
    wanted: Wanted, accepted: Accepted, asks: Wanted | None
) -> None:
    attempt, levels = alice_begins(wanted=wanted), Levels(remember={3: 600.0})
    again = attempt.stronger(accepted, levels, NOW)
    assert again == (None if asks is None else AskAgain(asks))
    if again is not None:
        # Whoever is sent there is not sent a third time, and what earned the redirect earns no session.
        assert alice_begins(wanted=again.wanted).stronger(accepted, levels, NOW) is None
        with pytest.raises(ClientError) as refused:
            alice_begins(wanted=again.wanted).finish(accepted, levels, SessionLimits(), NOW, True)
        assert refused.value.reason is Reason.STEP_UP_FAILED


@pytest.mark.parametrize(
    ("acr", "auth_time", "rank", "steps"),
    [
        pytest.param("phr", NOW, 3, (Step(3, NOW + 600), Step(2, NOW + 1800)), id="just_now"),
        pytest.param(
            "phr", NOW - 500, 3, (Step(3, NOW + 100), Step(2, NOW + 1300)), id="from_when_it_was_shown"
        ),
        pytest.param("phr", NOW - 600, 2, (Step(2, NOW + 1200),), id="forgotten_already"),
        pytest.param("mfa", NOW - 1800, 1, (), id="all_forgotten_already"),
        pytest.param("phr", None, 3, (Step(3, NOW + 609), Step(2, NOW + 1809)), id="no_auth_time"),
        pytest.param(None, NOW, 1, (), id="nothing_to_remember"),
    ],
)
def test_a_rank_is_remembered_for_its_own_time(
    acr: str | None, auth_time: float | None, rank: int, steps: tuple[Step, ...]
) -> None:
    levels = Levels(remember={2: 1800.0, 3: 600.0})
    accepted = came_back(acr=acr, auth_time=auth_time)
    session = alice_begins().finish(accepted, levels, SessionLimits(), NOW + 9, refreshable=True)
    assert (session.rank, session.steps) == (rank, steps)


def test_the_groups_of_a_person_shorten_their_session() -> None:
    limits = SessionLimits(600, 3600, (GroupLimits(frozenset({"guests"}), idle=60, absolute=300),))
    guest = came_back(identity=replace(ALICE, groups=("guests",)), acr="phr")
    levels = Levels(remember={3: 400.0})
    session = alice_begins().finish(guest, levels, limits, NOW, refreshable=True)
    assert (session.expires_at, session.idle, session.steps) == (NOW + 300, 60, ())
    plain = alice_begins().finish(came_back(acr="phr"), levels, limits, NOW, refreshable=True)
    assert (plain.expires_at, plain.idle, plain.steps) == (
        NOW + 3600,
        None,
        (Step(3, NOW + 400), Step(2, NOW + 3600)),
    )


# What a step-up leaves of the session before it


def before(**changes: Any) -> Session:
    return replace(finish(alice_begins(), came_back()), id="s-1", **changes)


def after(**changes: Any) -> Session:
    return replace(finish(alice_begins(wanted=STEP_UP), came_back(acr="phr")), **changes)


END, LATER = NOW + 9 + 3600, NOW + 600


@pytest.mark.parametrize(
    ("was", "new", "rank", "steps", "fresh"),
    [
        pytest.param(before(), after(), 3, (), False, id="stronger"),
        pytest.param(before(rank=3), after(rank=1), 3, (), False, id="weaker_and_it_keeps_what_it_had"),
        pytest.param(
            before(rank=2),
            after(steps=(Step(3, LATER),)),
            3,
            (Step(3, LATER), Step(2, END)),
            False,
            id="for_a_while_and_then_what_it_had",
        ),
        pytest.param(
            before(rank=3, steps=(Step(3, LATER),)),
            after(rank=1),
            3,
            (Step(3, LATER),),
            False,
            id="still_good",
        ),
        pytest.param(
            before(rank=3, steps=(Step(3, NOW + 9),)), after(rank=1), 1, (), False, id="over_at_this_second"
        ),
        pytest.param(
            before(rank=3, steps=(Step(3, LATER),)),
            after(rank=2, expires_at=END + 900),
            3,
            (Step(3, LATER), Step(2, END)),
            False,
            id="to_the_end_of_the_session_and_no_longer",
        ),
        pytest.param(
            before(rank=3, steps=(Step(3, NOW + 60),)),
            after(steps=(Step(3, LATER),)),
            3,
            (Step(3, LATER),),
            False,
            id="renewed",
        ),
        pytest.param(
            before(rank=3), after(rank=1, fresh=True), 1, (), True, id="shown_is_not_mixed_with_told"
        ),
        pytest.param(before(fresh=True, rank=3), after(rank=1), 3, (), True, id="shown_before_is_enough"),
        pytest.param(before(fresh=True), after(), 3, (), False, id="stronger_but_only_told"),
        pytest.param(
            before(fresh=True, rank=2),
            after(fresh=True, steps=(Step(3, LATER),)),
            3,
            (Step(3, LATER), Step(2, END)),
            True,
            id="both_shown",
        ),
        pytest.param(
            before(fresh=True, rank=3, steps=(Step(3, NOW + 60),)),
            after(steps=(Step(3, LATER),)),
            3,
            (Step(3, NOW + 60),),
            True,
            id="what_was_told_does_not_outlast_what_was_shown",
        ),
    ],
)
def test_a_step_up_adds_to_what_is_remembered(
    was: Session, new: Session, rank: int, steps: tuple[Step, ...], fresh: bool
) -> None:
    then = stepped_up(was, new)
    assert (then.rank, then.steps, then.fresh) == (rank, steps, fresh)


@pytest.mark.parametrize(
    ("was", "new", "bound"),
    [
        pytest.param({}, {}, (None, None), id="neither"),
        pytest.param({}, {"certificate": "t2", "device": "d2"}, ("t2", "d2"), id="binds"),
        pytest.param({"certificate": "t1", "device": "d1"}, {}, ("t1", "d1"), id="stays"),
        pytest.param(
            {"certificate": "t1", "device": None},
            {"certificate": "t2", "device": "d2"},
            ("t1", None),
            id="T32_is_never_moved",
        ),
    ],
)
def test_a_step_up_stays_on_its_device(
    was: dict[str, Any], new: dict[str, Any], bound: tuple[str | None, str | None]
) -> None:
    then = stepped_up(before(**was), after(**new))
    assert (then.certificate, then.device) == bound


def test_a_step_up_never_makes_a_session_longer_and_new_groups_make_it_shorter() -> None:
    was = before(created_at=NOW - 1000, expires_at=NOW + 2600, idle=30.0)
    then = stepped_up(was, after(idle=60.0))
    assert (then.expires_at, then.idle) == (NOW + 2600, 30.0)
    then = stepped_up(was, after(expires_at=NOW + 9 + 1200, idle=20.0))
    assert (then.expires_at, then.idle) == (NOW + 200, 20.0)


proofs = st.lists(
    st.tuples(
        st.integers(0, 4000),  # seconds since the last
        st.integers(1, 3),
        st.one_of(st.none(), st.integers(0, 900)),  # how long ago the person was asked
    ),
    min_size=1,
    max_size=6,
)


@given(
    proofs,
    st.dictionaries(st.integers(1, 3), st.integers(1, 4000).map(float)),
    st.lists(st.integers(0, 6000), min_size=1, max_size=6),
)
def test_no_session_has_a_rank_that_was_not_proved_within_its_time(
    signed_in: list[tuple[int, int, int | None]], remember: dict[int, float], looks: list[int]
) -> None:
    levels = Levels(acr={"1": 1, "2": 2, "3": 3}, remember=remember)
    limits, now = SessionLimits(absolute=10_000), NOW
    shown: list[tuple[int, float]] = []
    session: Session | None = None
    for later, rank, ago in signed_in:
        now += later
        if session is not None and now >= session.expires_at:
            session, shown = None, []  # it has ended, and no step-up brings it back
        auth_time = None if ago is None else now - ago
        attempt = alice_begins(now=now - 5, wanted=Wanted(person=None))
        new = attempt.finish(came_back(acr=str(rank), auth_time=auth_time), levels, limits, now, True)
        assert new.rank <= rank
        shown.append((rank, now if auth_time is None else auth_time))
        end = new.expires_at if session is None else session.expires_at
        session = new if session is None else stepped_up(session, new)
        assert session.rank >= new.rank, "what was asked for is had, or the person is sent round in circles"
        assert session.expires_at == end
        renewed = narrowed(replace(session, verified_at=now), limits)
        assert (renewed.rank, renewed.steps, renewed.expires_at) == (
            session.rank,
            session.steps,
            session.expires_at,
        ), "a refresh raises nothing"
    assert session is not None
    for later in looks:
        if now + later >= session.expires_at:
            continue  # ended, and nobody asks for its rank any more
        then = at(session, now + later)
        good = [
            one
            for rank, when in shown
            for one in range(1, rank + 1)
            if one not in remember or now + later < when + remember[one]
        ]
        assert then.rank <= max(good, default=1)
        assert then.rank <= session.rank
        assert at(then, now + later) is then


ASKED = Wanted(prompt="login", max_age=0)


@pytest.mark.parametrize(
    ("wanted", "auth_time", "revoked_at", "expected"),
    [
        pytest.param(Wanted(), NOW - 50, None, None, id="never revoked"),
        pytest.param(Wanted(), NOW - 50, NOW - 51, None, id="signed in since"),
        pytest.param(Wanted(), NOW - 50, NOW - 50, None, id="at the same second"),
        pytest.param(Wanted(), None, NOW - 50, None, id="the provider does not say when"),
        pytest.param(Wanted(), NOW - 51, NOW - 50, AskAgain(ASKED), id="not since"),
        pytest.param(
            Wanted(prompt="none"), NOW - 51, NOW - 50, AskAgain(ASKED), id="silently, and not since"
        ),
        pytest.param(
            STEP_UP, NOW - 51, NOW - 50, AskAgain(replace(STEP_UP, prompt="login", max_age=0)), id="a step-up"
        ),
        pytest.param(ASKED, NOW - 50, NOW - 51, None, id="asked, and signed in since"),
        pytest.param(ASKED, NOW - 51, NOW - 50, Reason.LOGIN_REVOKED, id="asked, and still not"),
        pytest.param(ASKED, NOW - 50, NOW - 49.3, None, id="asked, and signed in within the second of it"),
        pytest.param(ASKED, NOW - 51, NOW - 49.3, Reason.LOGIN_REVOKED, id="asked, and the second before"),
        pytest.param(Wanted(), NOW - 50, NOW - 49.3, AskAgain(ASKED), id="within the second, and not asked"),
        pytest.param(ASKED, None, NOW - 50, Reason.LOGIN_REVOKED, id="asked, and it does not say"),
        pytest.param(ASKED, None, None, None, id="asked, and nothing was revoked"),
    ],
)
def test_whoever_was_revoked_is_asked_anew_and_once(
    wanted: Wanted, auth_time: float | None, revoked_at: float | None, expected: AskAgain | Reason | None
) -> None:
    attempt, accepted = alice_begins(wanted=wanted), came_back(auth_time=auth_time)
    if isinstance(expected, Reason):
        with pytest.raises(ClientError) as refused:
            attempt.anew(accepted, revoked_at)
        assert refused.value.reason is expected
    else:
        assert attempt.anew(accepted, revoked_at) == expected


def test_a_step_up_of_two_people_is_our_mistake() -> None:
    session = finish(alice_begins(), came_back())
    with pytest.raises(ValueError, match="one person"):
        stepped_up(replace(session, identity=Identity(ISSUER, "bob")), session)


def test_claims_of_another_provider_are_our_mistake() -> None:
    with pytest.raises(ValueError, match="another provider"):
        finish(alice_begins(), came_back(identity=Identity("https://b.test", "alice")))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"state": "short"}, id="short_state"),
        pytest.param({"code_verifier": "V" * 42}, id="verifier_below_43"),
        pytest.param({"nonce": STATE}, id="one_secret_used_twice"),
    ],
)
def test_weak_secrets_are_our_mistake(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="256 bits"):
        alice_begins(**changes)


@pytest.mark.parametrize(
    "wanted",
    [pytest.param(Wanted(max_age=0, prompt="login"), id="sign_in"), pytest.param(STEP_UP, id="step_up")],
)
def test_an_attempt_survives_the_store(wanted: Wanted) -> None:
    attempt = alice_begins(wanted=wanted, requires_iss=True)
    assert LoginAttempt.from_bytes(attempt.to_bytes()) == attempt


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"{}", id="no_members"),
        pytest.param(b'{"wanted": 7}', id="wanted_is_no_object"),
        pytest.param(alice_begins().to_bytes().replace(b'"issuer"', b'"isuer"'), id="another_version"),
        pytest.param(b"\xff", id="no_text"),
    ],
)
def test_a_record_of_another_version_counts_as_expired(raw: bytes) -> None:
    with pytest.raises(ClientError) as refused:
        LoginAttempt.from_bytes(raw)
    assert refused.value.reason is Reason.LOGIN_EXPIRED


def test_secrets_are_neither_shown_nor_kept_where_a_hash_will_do() -> None:
    attempt = alice_begins()
    for secret in (STATE, BINDING):
        assert secret not in attempt.to_bytes().decode()
    for secret in (STATE, BINDING, NONCE, VERIFIER):
        assert secret not in repr(attempt)
    assert attempt.state_hash == digest(STATE)


def test_read_callback_answers_each_parameter_once() -> None:
    assert read_callback(answer(CODE, EXTRA)) == {"state": STATE, "code": "c-1", "session_state": "x"}
