"""Signing out by the provider's word and by the person: one notice, one effect, and done is what holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.worlds.lying_provider import Says, rsa_key
from tests.worlds.memory_state import MemoryState, SetClock
from tests.worlds.signing_in import Browser, Stage, stage
from ztproxy.core.identity import Session
from ztproxy.core.locks import Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.logout import NOTICES_PER_SECOND

OUT = "https://auth.test/.ztproxy/signed_out"


@pytest.fixture
async def on() -> AsyncIterator[Stage]:
    async with stage() as built:
        yield built


async def notice(on: Stage, token: str, provider: str = "op", address: str = "192.0.2.1") -> None:
    await on.logout.back_channel(provider, token, "r-1", address)


async def refused(on: Stage, token: str, provider: str = "op", address: str = "192.0.2.1") -> ClientError:
    """Is refused, and nothing has changed."""
    before, log = on.sessions(), on.lease.book.applied
    with pytest.raises(ClientError) as refusal:
        await notice(on, token, provider, address)
    assert (on.sessions(), on.lease.book.applied) == (before, log)
    return refusal.value


async def signed_in(browser: Browser, sid: str = "i-1") -> Session:
    return (await browser.is_signed_in(sid=sid)).session


# -- back-channel -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "left"),
    [
        pytest.param({"sid": "i-1"}, ["tablet", "bob"], id="L01 by sid"),
        pytest.param({"sid": "i-1", "sub": "alice"}, ["tablet", "bob"], id="L01 by both: the sid"),
        pytest.param({"sid": ..., "sub": "alice"}, ["bob"], id="L02 by sub: all of the person"),
        pytest.param({"sid": "i-9"}, ["phone", "laptop", "tablet", "bob"], id="L05 an unknown sid"),
        pytest.param({"sid": ..., "sub": "x"}, ["phone", "laptop", "tablet", "bob"], id="L05 an unknown sub"),
    ],
)
async def test_a_notice_ends_what_it_names(on: Stage, claims: dict[str, Any], left: list[str]) -> None:
    sessions = {
        "phone": await signed_in(Browser(on, "alice")),
        "laptop": await signed_in(Browser(on, "alice")),  # the same session at the provider
        "tablet": await signed_in(Browser(on, "alice"), "i-2"),
        "bob": await signed_in(on.bob, "i-3"),
    }
    await notice(on, on.worlds["op"].logout_token(**claims))
    assert [name for name, session in sessions.items() if on.stands(session)] == left
    # L05: an unknown one leaves a lock as well, for the sign-in that is still under way.
    (lock,) = on.revoking.locks
    assert lock.created_by == "provider:op" and lock.revokes
    ((event, _),) = on.audit.events
    assert (event.actor, event.action, event.outcome) == ("provider:op", "logout.back_channel", "done")
    assert event.target == f"{lock.target.kind}:{lock.target.name}" and event.request_id == "r-1"
    assert event.detail["number"] == 1


async def test_another_provider_has_its_own_names(on: Stage) -> None:
    alice = await signed_in(on.alice)
    await notice(on, on.worlds["other"].logout_token(sid="i-1", sub="alice"), "other")
    assert on.stands(alice)


@pytest.mark.parametrize(
    ("claims", "provider", "word"),
    [
        pytest.param({"sid": ...}, "op", "sid", id="L04"),
        pytest.param({"events": ...}, "op", "events", id="L08"),
        pytest.param({"nonce": None}, "op", "nonce", id="L10"),
        pytest.param({"iss": "https://evil.test"}, "op", "iss", id="L11 another issuer"),
        pytest.param({}, "other", "kid_or_sig", id="L11 of another provider of ours"),
        pytest.param({"aud": "other"}, "op", "aud", id="L12"),
        pytest.param({"jti": ...}, "op", "jti", id="L17 none"),
        pytest.param({"exp": ...}, "op", "exp", id="L18"),
    ],
)
async def test_a_notice_that_is_not_accepted(
    on: Stage, claims: dict[str, Any], provider: str, word: str
) -> None:
    await signed_in(on.alice)
    on.worlds["other"].keys = [rsa_key("k1", which="k3")]
    refusal = await refused(on, on.worlds["op"].logout_token(**claims), provider)
    assert refusal.reason is Reason.LOGOUT_TOKEN
    assert str(refusal).partition(":")[0] in (word, "sig" if word == "kid_or_sig" else word)
    assert not on.audit.events, "what nobody signed is not worth a line"


async def test_L11_one_key_two_issuers(on: Stage) -> None:
    """Two tenants of one service sign with the same keys: the issuer tells them apart."""
    await signed_in(on.alice)
    assert str(await refused(on, on.worlds["op"].logout_token(), "other")).startswith("iss")


async def test_L14_an_id_token_signs_nobody_out(on: Stage) -> None:
    await signed_in(on.alice)
    for typ in ("JWT", None):
        on.worlds["op"].header = {"typ": typ}
        for nonce in ("n", None):
            await refused(on, on.worlds["op"].id_token(nonce, sid="i-1", jti="j"))


async def test_L18_where_exp_is_optional(on: Stage) -> None:
    await notice(on, on.worlds["other"].logout_token(exp=...), "other")
    assert (await refused(on, on.worlds["op"].logout_token(exp=...))).reason is Reason.LOGOUT_TOKEN


async def test_an_unknown_provider(on: Stage) -> None:
    assert (await refused(on, on.worlds["op"].logout_token(), "nobody")).reason is Reason.NO_SUCH_ROUTE


# -- replays ----------------------------------------------------------------------------------------------


async def test_L17_a_notice_counts_once(on: Stage) -> None:
    token = on.worlds["op"].logout_token(sid=..., sub="alice", jti="j-1")
    await notice(on, token)
    alice = await signed_in(on.alice)
    assert str(await refused(on, token)).startswith("jti")
    assert on.stands(alice), "who has signed in since is not signed out by an old notice"
    assert len(on.revoking.asked) == 1, "what was heard here before costs nothing"
    with pytest.raises(ClientError, match="jti"):
        await on.build()[1].back_channel("op", token, "r-1")
    assert on.stands(alice) and len(on.revoking.locks) == 1
    assert (on.audit.events[-1][0].outcome, on.audit.events[-1][0].detail["why"]) == ("refused", "replay")
    # The same name at another issuer is another notice.
    await notice(on, on.worlds["other"].logout_token(jti="j-1"), "other")
    on.clock.now += 179
    assert str(await refused(on, token)).startswith("jti")
    on.clock.now += 1
    assert str(await refused(on, token)).startswith("exp"), "remembered as long as it counts"
    await notice(on, on.worlds["op"].logout_token())
    assert len(on.logout._done) == 1, "and no longer"


async def test_L24_many_at_once_have_one_effect(on: Stage) -> None:
    alice = await signed_in(on.alice)
    token = on.worlds["op"].logout_token()
    workers = [on.build()[1] for _ in range(5)]
    answers = await asyncio.gather(
        *(worker.back_channel("op", token, "r") for worker in workers for _ in range(100)),
        return_exceptions=True,
    )
    assert not on.stands(alice) and len(on.revoking.locks) == 1
    assert len(on.revoking.asked) == 5, "one for each worker, whose lock is the same"
    accepted = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert len(accepted) == 1
    others = [answer for answer in answers if isinstance(answer, BaseException)]
    assert {type(one) for one in others} == {ClientError} and len(others) == 499


async def test_two_notices_of_one_name_both_count(on: Stage) -> None:
    """A provider that breaks its own rule: nobody may be told "done" for what was not."""
    first, second = await signed_in(on.alice, "i-1"), await signed_in(on.bob, "i-2")
    tokens = [on.worlds["op"].logout_token(jti="j", sid=sid) for sid in ("i-1", "i-2")]
    answers = await asyncio.gather(*(notice(on, token) for token in tokens), return_exceptions=True)
    assert sorted(isinstance(answer, ClientError) for answer in answers) == [False, True]
    assert not on.stands(first) and not on.stands(second)


# -- what cannot be confirmed -----------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["log", "fence", "claim"])
async def test_a_notice_that_failed_can_be_sent_again(on: Stage, what: str) -> None:
    alice = await signed_in(on.alice)
    token = on.worlds["op"].logout_token()
    on.revoking.away, on.revoking.confirms, on.state.away = what == "log", what != "fence", what == "claim"
    for _ in range(2):
        with pytest.raises(WorldError) as failed:
            await notice(on, token)
        assert failed.value.reason is Reason.STATE_UNAVAILABLE
    outcomes = {"log": "failed", "fence": "unconfirmed", "claim": "done"}
    assert [event.outcome for event, _ in on.audit.events] == [outcomes[what]] * 2
    on.revoking.away, on.revoking.confirms, on.state.away = False, True, False
    await notice(on, token)
    assert not on.stands(alice) and len(on.revoking.locks) == 1
    assert str(await refused(on, token)).startswith("jti")


async def test_whoever_waits_for_another_fails_with_it(on: Stage) -> None:
    token = on.worlds["op"].logout_token()
    on.revoking.away = True
    answers = await asyncio.gather(*(notice(on, token) for _ in range(4)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {WorldError}


async def test_a_provider_that_hangs_up_stops_nothing(on: Stage) -> None:
    alice = await signed_in(on.alice)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        await go_on.wait()

    on.revoking.before = wait
    token = on.worlds["op"].logout_token()
    request = asyncio.create_task(notice(on, token))
    await begun.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    go_on.set()
    assert str(await refused_later(on, token)).startswith("jti")
    assert not on.stands(alice)


async def refused_later(on: Stage, token: str) -> BaseException:
    with pytest.raises(ClientError) as refusal:
        await notice(on, token)
    return refusal.value


async def test_keys_that_cannot_be_read_are_no_refusal(on: Stage) -> None:
    on.worlds["op"].lie("/jwks", Says(status=503))
    with pytest.raises(WorldError) as failed:
        await notice(on, on.worlds["op"].logout_token())
    assert failed.value.reason is Reason.PROVIDER_UNAVAILABLE and not on.revoking.asked


async def test_L21_a_key_unknown_until_asked(on: Stage) -> None:
    alice = await signed_in(on.alice)
    on.worlds["op"].signer = rsa_key("k9", which="k3")
    on.worlds["op"].keys = [on.worlds["op"].signer]
    await notice(on, on.worlds["op"].logout_token())
    assert not on.stands(alice)


async def test_a_disk_that_is_full_keeps_nobody_signed_in(on: Stage) -> None:
    alice = await signed_in(on.alice)
    on.audit.full = True
    await notice(on, on.worlds["op"].logout_token())
    assert not on.stands(alice) and len(on.audit.waiting) == 1


async def test_L27_a_flood_of_notices(on: Stage) -> None:
    for number in range(NOTICES_PER_SECOND):
        await notice(on, on.worlds["op"].logout_token(sid=f"i-{number}"), address=f"192.0.2.{number % 2}")
    token = on.worlds["op"].logout_token(sid="one-more")
    assert (await refused(on, token, address="192.0.2.9")).reason is Reason.RATE_LIMITED
    assert len(on.revoking.asked) == NOTICES_PER_SECOND
    await notice(on, on.worlds["other"].logout_token(), "other")  # which has a budget of its own
    on.clock.now += 1
    await notice(on, token)


async def test_L27_a_stranger_uses_up_nothing_of_the_providers(on: Stage) -> None:
    alice = await signed_in(on.alice)
    on.worlds["op"].signer = rsa_key("made-up", which="k3")
    made_up, stranger = on.worlds["op"].logout_token(), "2001:db8::%x"
    reasons = [
        (await refused(on, made_up, address=stranger % number)).reason
        for number in range(NOTICES_PER_SECOND + 5)
    ]
    assert reasons == [Reason.LOGOUT_TOKEN] * NOTICES_PER_SECOND + [Reason.RATE_LIMITED] * 5
    on.worlds["op"].signer = on.worlds["op"].keys[0]
    await notice(on, on.worlds["op"].logout_token())
    assert not on.stands(alice)


# -- front-channel ----------------------------------------------------------------------------------------


async def framed(on: Stage, **changes: Any) -> None:
    given = {"name": "op", "issuer": on.worlds["op"].issuer, "sid": "i-1", "request_id": "r", **changes}
    await on.logout.front_channel(**given)


async def test_a_frame_ends_the_session_it_names(on: Stage) -> None:
    alice, tablet = await signed_in(on.alice), await signed_in(Browser(on, "alice"), "i-2")
    await framed(on)
    assert not on.stands(alice) and on.stands(tablet)
    ((event, _),) = on.audit.events
    assert (event.actor, event.action, event.outcome) == ("provider:op", "logout.front_channel", "done")
    # Whoever signs in again in the same session of the provider can be signed out again.
    again = await signed_in(on.alice)
    assert on.stands(again)
    await framed(on)
    assert not on.stands(again)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"name": "other"}, Reason.NO_SUCH_ROUTE, id="a provider that may not"),
        pytest.param({"name": "nobody"}, Reason.NO_SUCH_ROUTE, id="no provider"),
        pytest.param({"issuer": "https://evil.test"}, Reason.LOGOUT_TOKEN, id="another issuer"),
        pytest.param({"issuer": None}, Reason.LOGOUT_TOKEN, id="no issuer"),
        pytest.param({"sid": None}, Reason.LOGOUT_TOKEN, id="no sid"),
    ],
)
async def test_a_frame_that_is_refused(on: Stage, changes: dict[str, Any], reason: Reason) -> None:
    await signed_in(on.alice)
    with pytest.raises(ClientError) as refusal:
        await framed(on, **changes)
    assert refusal.value.reason is reason and not on.revoking.asked


async def test_strangers_cannot_fill_the_log(on: Stage) -> None:
    """Nor tell from the answer whether there was a session, nor keep anybody signed in."""
    alice, stranger = await signed_in(on.alice), "2001:db8::%x"
    for number in range(NOTICES_PER_SECOND):
        await framed(on, sid=f"guess-{number}", address=stranger % number)
    assert not on.revoking.asked and not on.audit.events
    for sid in ("guess", "i-1"):
        assert await too_many(on, sid=sid, address=stranger % 99)
    assert not on.revoking.asked and on.stands(alice)
    await framed(on, address="192.0.2.1")
    assert not on.stands(alice)
    bob = await signed_in(Browser(on, "bob"), "i-2")
    await notice(on, on.worlds["op"].logout_token(sid="i-2"))  # the other channel has a budget of its own
    assert not on.stands(bob)


async def too_many(on: Stage, **changes: Any) -> bool:
    try:
        await framed(on, **changes)
    except ClientError as refusal:
        return refusal.reason is Reason.RATE_LIMITED
    return False


async def test_L27_what_frames_end_is_counted_by_provider(on: Stage) -> None:
    """Wherever they come from: each is a write."""
    sessions = [await signed_in(Browser(on, f"p{n}"), f"s-{n}") for n in range(NOTICES_PER_SECOND + 1)]
    for number in range(NOTICES_PER_SECOND):
        await framed(on, sid=f"s-{number}", address=f"192.0.2.{number}")
    assert await too_many(on, sid=f"s-{NOTICES_PER_SECOND}", address="192.0.2.99")
    assert [on.stands(one) for one in sessions] == [False] * NOTICES_PER_SECOND + [True]
    on.clock.now += 1
    await framed(on, sid=f"s-{NOTICES_PER_SECOND}", address="192.0.2.99")
    assert not on.stands(sessions[-1])


async def test_frames_of_one_session_at_once_are_one_sign_out(on: Stage) -> None:
    """So nobody uses up a provider's budget by repeating the sign-out of their own session."""
    alice, mallory = await signed_in(on.alice), await signed_in(Browser(on, "mallory"), "m-1")
    frames = [framed(on, sid="m-1", address=f"192.0.2.{number}") for number in range(NOTICES_PER_SECOND + 9)]
    await asyncio.gather(*frames)
    assert len(on.revoking.asked) == len(on.audit.events) == 1 and not on.stands(mallory)
    await framed(on)
    assert not on.stands(alice)


async def test_a_browser_that_leaves_does_not_stop_a_sign_out(on: Stage) -> None:
    alice, begun, go_on = await signed_in(on.alice), asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        begun.set()
        await go_on.wait()

    on.revoking.before = hold
    frame = asyncio.create_task(framed(on))
    await begun.wait()
    frame.cancel()
    with pytest.raises(asyncio.CancelledError):
        await frame
    go_on.set()
    await framed(on)  # which finds the first one under way
    assert len(on.revoking.asked) == len(on.audit.events) == 1 and not on.stands(alice)


@pytest.mark.parametrize("what", ["lease", "directory", "log", "fence"])
async def test_a_frame_that_cannot_be_served(on: Stage, what: str) -> None:
    await signed_in(on.alice)
    on.state.away, on.revoking.away, on.revoking.confirms = (
        what == "directory",
        what == "log",
        what != "fence",
    )
    if what == "lease":
        on.lease.lapse()
    with pytest.raises(WorldError):
        await framed(on)


# -- by the person ----------------------------------------------------------------------------------------


async def test_a_person_signs_out_and_the_provider_is_named(on: Stage) -> None:
    finished = await on.alice.is_signed_in(email="alice@corp.test", email_verified=True)
    phone = await signed_in(Browser(on, "alice"))
    out = await on.logout.sign_out(finished.handle, finished.session, OUT)
    assert out.confirmed and out.onward is not None
    assert out.onward.startswith(on.worlds["op"].issuer + "/logout?") and "id_token_hint=" in out.onward
    assert not on.stands(finished.session) and on.stands(phone)
    (lock,) = on.revoking.locks
    assert lock.target == Target(TargetKind.SESSION, finished.session.id)
    assert (lock.created_by, lock.reason) == ("alice@corp.test", "signed out")


async def test_a_person_signs_out_everywhere(on: Stage) -> None:
    finished = await on.alice.is_signed_in()
    phone, bob = await signed_in(Browser(on, "alice")), await signed_in(on.bob)
    out = await on.logout.sign_out(finished.handle, finished.session, OUT, everywhere=True)
    assert (out.confirmed, out.ended) == (True, 2)
    assert not on.stands(finished.session) and not on.stands(phone) and on.stands(bob)
    (lock,) = on.revoking.locks
    assert (lock.created_by, lock.reason) == ("alice", "signed out everywhere")
    again = await on.logout.sign_out(finished.handle, finished.session, OUT, everywhere=True)
    assert again.ended == 0 and len(on.revoking.locks) == 1, "a form sent twice is one sign-out"


@pytest.mark.parametrize("how", ["away", "unconfirmed"])
async def test_it_is_not_called_confirmed(on: Stage, how: str) -> None:
    finished = await on.alice.is_signed_in()
    on.revoking.away, on.revoking.confirms = how == "away", how != "unconfirmed"
    out = await on.logout.sign_out(finished.handle, finished.session, OUT)
    assert not out.confirmed and out.onward is not None


async def test_with_the_store_away_it_still_answers(on: Stage) -> None:
    finished = await on.alice.is_signed_in()
    on.state.away = True
    out = await on.logout.sign_out(finished.handle, finished.session, OUT, everywhere=True)
    assert (out.confirmed, out.ended) == (True, None), "the log was there"
    assert out.onward is not None and "id_token_hint" not in out.onward


async def test_the_provider_need_not_be_there(on: Stage) -> None:
    finished = await on.alice.is_signed_in()
    on.worlds["op"].lie("/.well-known/openid-configuration", Says(status=503))
    out = await on.build()[1].sign_out(finished.handle, finished.session, OUT)
    assert (out.confirmed, out.onward) == (True, None) and not on.stands(finished.session)


async def test_a_provider_that_was_configured_away(on: Stage) -> None:
    finished = await on.alice.is_signed_in()
    del on.worlds["op"]
    out = await on.build()[1].sign_out(finished.handle, finished.session, OUT)
    assert (out.confirmed, out.onward) == (True, None)


async def test_a_directory_that_cannot_search(on: Stage) -> None:
    class Blind(MemoryState):
        async def of(self, target: Target) -> None:
            return None

    async with stage(directory=Blind(SetClock(0.0))) as blind:
        finished = await blind.alice.is_signed_in()
        out = await blind.logout.sign_out(finished.handle, finished.session, OUT, everywhere=True)
        assert out.confirmed and out.ended is None
