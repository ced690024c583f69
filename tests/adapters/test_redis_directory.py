"""One suite for every backend of `SessionDirectory`; then what only Redis has: seals, cursors, batches."""

from __future__ import annotations

import base64
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from tests.adapters.state_worlds import (
    ALICE,
    BOB,
    HOME,
    ISSUER,
    KEY_B,
    LATER_SECRETS,
    LIMITS,
    SECRETS,
    TRAIN,
    RedisWorld,
    World,
)
from ztproxy.adapters.redis_directory import BATCH, SEARCHED, RedisDirectory
from ztproxy.core.identity import Identity, Session
from ztproxy.core.locks import ALL, Action, Lock, Target, TargetKind
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.ports import Seen
from ztproxy.gateway.ports.directory import Listed, Wanted

EVERYTHING = Wanted()
OF_ALICE = Target(TargetKind.USER, "alice", ISSUER)


def person(subject: str, **changes: Any) -> Session:
    return replace(ALICE, identity=replace(ALICE.identity, subject=subject), **changes)


async def sign_in(world: World, session: Session = ALICE, seen: Seen | None = None) -> tuple[str, str]:
    """The handle and the public id."""
    handle = await world.sessions.create(session, SECRETS, "app.test", None, seen)
    return handle, (await world.sessions.load(handle)).session.id


async def ids(world: World, wanted: Wanted = EVERYTHING, limit: int = 100) -> list[str]:
    """All pages in order."""
    found: list[str] = []
    cursor = None
    while True:
        page = await world.directory.page(wanted, cursor, limit)
        assert len(page.sessions) <= limit
        found += [one.session.id for one in page.sessions]
        if (cursor := page.cursor) is None:
            return found


# ── every backend ──


async def test_what_lists_show_is_the_session_without_claims_and_tokens(world: World) -> None:
    _, alice = await sign_in(world, seen=HOME)
    plain = replace(ALICE.identity, claims=MappingProxyType({}))
    shown = await world.directory.show(alice)
    assert shown.session == replace(ALICE, id=alice, identity=plain)
    assert shown == (await world.directory.page(EVERYTHING, None, 10)).sessions[0]
    for secret in ("refresh-1", "'id-1'", "dept"):
        assert secret not in repr(shown)


async def test_a_list_shows_where_and_when_a_session_was_used(world: World) -> None:
    handle, alice = await sign_in(world, seen=HOME)
    first: Listed = await world.directory.show(alice)
    assert (first.seen, first.created_from) == (HOME, HOME)
    await world.pass_time(60)
    assert await world.sessions.touch(handle, TRAIN)
    second = await world.directory.show(alice)
    assert (second.seen, second.created_from) == (TRAIN, HOME)
    await world.pass_time(60)
    assert await world.sessions.touch(handle)
    third = await world.directory.show(alice)
    assert (third.seen, third.created_from) == (TRAIN, HOME)
    if isinstance(world, RedisWorld):  # there time passes by moving the ends: the last use stays where it was
        assert first.seen_at <= second.seen_at <= third.seen_at
    else:
        assert (second.seen_at - first.seen_at, third.seen_at - second.seen_at) == (60, 60)


async def test_a_session_that_began_nowhere_is_shown_without_a_place(world: World) -> None:
    _, alice = await sign_in(world)
    shown = await world.directory.show(alice)
    assert (shown.seen, shown.created_from) == (None, None)
    assert shown.seen_at > 1_700_000_000


async def test_a_long_agent_is_cut(world: World) -> None:
    handle, alice = await sign_in(world, seen=HOME._replace(agent="x" * 5000))
    await world.sessions.touch(handle, HOME._replace(agent="y" * 5000))
    shown = await world.directory.show(alice)
    assert (shown.created_from.agent, shown.seen.agent) == ("x" * 256, "y" * 256)


async def test_a_list_shows_what_was_written_last(world: World) -> None:
    handle, alice = await sign_in(world)
    session = (await world.sessions.load(handle)).session
    later = replace(session, rank=3, as_of=9, verified_at=2000.0, idp_session="sid-2", device=None)
    fresh = await world.sessions.replace(handle, later, LATER_SECRETS)
    shown = (await world.directory.show(alice)).session
    assert (shown.rank, shown.as_of, shown.verified_at) == (3, 9, 2000.0)
    assert (await world.sessions.load(fresh)).session.as_of == 9
    assert await ids(world, Wanted(Target(TargetKind.IDP_SESSION, "sid-2", ISSUER))) == [alice]
    assert await ids(world, Wanted(Target(TargetKind.IDP_SESSION, "sid-1", ISSUER))) == []
    assert await ids(world, Wanted(Target(TargetKind.DEVICE, "laptop-1"))) == []


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8, 100])
async def test_pages_together_are_everything_newest_first(world: World, limit: int) -> None:
    made = [(await sign_in(world, person(f"p{n}")))[1] for n in range(7)]
    assert await ids(world, EVERYTHING, limit) == made[::-1]
    assert await world.directory.count() == 7


async def test_nobody_is_missed_and_nobody_shown_twice_while_sessions_come_and_go(world: World) -> None:
    made = [await sign_in(world, person(f"p{n}")) for n in range(6)]
    first = await world.directory.page(EVERYTHING, None, 2)
    assert [one.session.id for one in first.sessions] == [made[5][1], made[4][1]]
    await sign_in(world, person("new"))
    await world.sessions.end(made[4][0])  # the very one at which the page ended
    await world.sessions.end(made[2][0])
    second = await world.directory.page(EVERYTHING, first.cursor, 2)
    assert [one.session.id for one in second.sessions] == [made[3][1], made[1][1]]


NOBODY = "0" * 32


@pytest.mark.parametrize(
    ("wanted", "who"),
    [
        pytest.param(EVERYTHING, "gcba", id="all"),
        pytest.param(Wanted(ALL), "gcba", id="target-all"),
        pytest.param(Wanted(OF_ALICE), "ba", id="user"),
        pytest.param(Wanted(Target(TargetKind.USER, "alice", "https://evil.test")), "", id="other-issuer"),
        pytest.param(Wanted(Target(TargetKind.USER, "lice", ISSUER + "a")), "", id="letters-moved-over"),
        pytest.param(Wanted(Target(TargetKind.USER, "*", ISSUER)), "", id="pattern"),
        pytest.param(Wanted(Target(TargetKind.USER, "alice")), "", id="no-issuer"),
        pytest.param(Wanted(Target(TargetKind.IDP_SESSION, "sid-1", ISSUER)), "a", id="idp-session"),
        pytest.param(Wanted(Target(TargetKind.DEVICE, "laptop-1")), "a", id="device"),
        pytest.param(Wanted(Target(TargetKind.DEVICE, "laptop")), "", id="part-of-a-device"),
        pytest.param(Wanted(Target(TargetKind.GROUP, "on-call")), "ba", id="group"),
        pytest.param(Wanted(Target(TargetKind.GROUP, "on")), "", id="part-of-a-group"),
        pytest.param(Wanted(Target(TargetKind.ROUTE, "wiki")), "", id="route"),
        pytest.param(Wanted(Target(TargetKind.SESSION, NOBODY)), "", id="no-such-session"),
        pytest.param(Wanted(Target(TargetKind.SESSION, "")), "", id="empty-session"),
        pytest.param(Wanted(Target(TargetKind.SESSION, "x\0}:u:é")), "", id="hostile-session"),
        pytest.param(Wanted(provider="other"), "gc", id="provider"),
        pytest.param(Wanted(provider="Other"), "", id="provider-to-the-letter"),
        pytest.param(Wanted(text="ALI"), "ba", id="text-of-a-subject"),
        pytest.param(Wanted(text="älice"), "ba", id="text-of-a-name"),
        pytest.param(Wanted(text="@EXAMPLE.com"), "ba", id="text-of-an-e-mail"),
        pytest.param(Wanted(text="engineering"), "", id="text-of-a-group"),
        pytest.param(Wanted(text=".*"), "", id="text-is-no-pattern"),
        pytest.param(Wanted(text=""), "gcba", id="empty-text"),
        pytest.param(Wanted(OF_ALICE, "demo", "alice"), "ba", id="all-that-fit"),
        pytest.param(Wanted(OF_ALICE, "other"), "", id="one-does-not-fit"),
    ],
)
async def test_what_is_wanted(world: World, wanted: Wanted, who: str) -> None:
    made = {
        (await sign_in(world, ALICE))[1]: "a",
        (await sign_in(world, replace(ALICE, idp_session="sid-2", device=None)))[1]: "b",
        (await sign_in(world, BOB))[1]: "c",
        (await sign_in(world, replace(BOB, identity=Identity("https://evil.test", "grace"))))[1]: "g",
    }
    assert "".join(made[one] for one in await ids(world, wanted, 1)) == who


async def test_a_session_is_found_by_its_id_alone_if_the_rest_fits(world: World) -> None:
    _, alice = await sign_in(world)
    target = Target(TargetKind.SESSION, alice)
    assert await ids(world, Wanted(target)) == [alice]
    assert await ids(world, Wanted(target, provider="demo")) == [alice]
    assert await ids(world, Wanted(target, provider="other")) == []
    assert await world.directory.show(alice.upper()) is None
    assert await world.directory.show("") is None


FORGED = [
    pytest.param("", id="empty"),
    pytest.param("0", id="short"),
    pytest.param("é", id="not-ascii"),
    pytest.param("A" * 96, id="made-up"),
    pytest.param("not base64!", id="not-base64"),
]


@pytest.mark.parametrize("cursor", FORGED)
async def test_a_forged_cursor_is_refused(world: World, cursor: str) -> None:
    await sign_in(world)
    with pytest.raises(ClientError) as refused:
        await world.directory.page(EVERYTHING, cursor, 10)
    assert refused.value.reason is Reason.HTTP_SYNTAX


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Wanted(ALL), id="all-spelled-out"),
        pytest.param(Wanted(OF_ALICE), id="user"),
        pytest.param(Wanted(provider="demo"), id="provider"),
        pytest.param(Wanted(text="demo"), id="text"),
        pytest.param(Wanted(text=""), id="empty-text"),
    ],
)
async def test_a_cursor_is_for_one_question(world: World, other: Wanted) -> None:
    for _ in range(3):
        await sign_in(world)
    cursor = (await world.directory.page(EVERYTHING, None, 1)).cursor
    with pytest.raises(ClientError):
        await world.directory.page(other, cursor, 1)
    assert len((await world.directory.page(EVERYTHING, cursor, 1)).sessions) == 1


async def test_of_answers_oldest_first_whom_a_revocation_would_end(world: World) -> None:
    made = [(await sign_in(world))[1] for _ in range(3)]
    _, bob = await sign_in(world, BOB)

    async def of(target: Target) -> list[str] | None:
        found = await world.directory.of(target)
        return None if found is None else [one.session.id for one in found]

    assert await of(OF_ALICE) == made
    assert await of(Target(TargetKind.IDP_SESSION, "sid-1", ISSUER)) == made
    assert await of(Target(TargetKind.DEVICE, "laptop-1")) == made
    assert await of(Target(TargetKind.SESSION, bob)) == [bob]
    assert await of(Target(TargetKind.USER, "nobody", ISSUER)) == []
    assert await of(Target(TargetKind.SESSION, NOBODY)) == []
    for kind in (TargetKind.GROUP, TargetKind.ROUTE, TargetKind.ALL):
        assert await of(Target(kind, "on-call")) is None


async def test_an_ended_session_is_nowhere(world: World) -> None:
    handle, alice = await sign_in(world)
    await world.sessions.end(handle)
    assert await world.directory.show(alice) is None
    assert await ids(world) == []
    assert await world.directory.of(OF_ALICE) == ()
    assert await world.directory.count() == 0


CLEARS = [
    pytest.param(OF_ALICE, "ab", id="user"),
    pytest.param(Target(TargetKind.USER, "alice", "https://evil.test"), "", id="other-issuer"),
    pytest.param(Target(TargetKind.IDP_SESSION, "sid-1", ISSUER), "a", id="idp-session"),
    pytest.param(Target(TargetKind.DEVICE, "laptop-1"), "a", id="device"),
    pytest.param(ALL, "abc", id="all"),
    pytest.param(Target(TargetKind.SESSION, NOBODY), "", id="no-such-session"),
    pytest.param(Target(TargetKind.SESSION, "x}{é\0"), "", id="hostile-session"),
    pytest.param(Target(TargetKind.GROUP, "on-call"), "", id="group"),
    pytest.param(Target(TargetKind.ROUTE, "wiki"), "", id="route"),
]


@pytest.mark.parametrize(("target", "gone"), CLEARS)
async def test_clearing_removes_what_the_lock_ended_and_nobody_else(
    world: World, target: Target, gone: str
) -> None:
    """`n` is Alice, signed in again after the lock: nothing of hers may be cleared with the rest."""
    sessions = {
        "a": ALICE,
        "b": replace(ALICE, idp_session="sid-2", device=None),
        "c": BOB,
        "n": replace(ALICE, as_of=4),
    }
    handles = {name: (await sign_in(world, session))[0] for name, session in sessions.items()}
    assert await world.directory.clear(Lock("lock-1", target, number=4)) == len(gone)
    left = {name for name, handle in handles.items() if await world.sessions.load(handle) is not None}
    assert left == set(sessions) - set(gone)
    assert await world.directory.count() == len(left)
    assert await world.directory.clear(Lock("lock-1", target, number=4)) == 0


async def test_who_is_one_too_many_in_a_group(world: World) -> None:
    made = [(await sign_in(world))[0] for _ in range(3)]
    first, second, third = [(await world.sessions.load(handle)).session for handle in made]
    bob = (await world.sessions.load((await sign_in(world, BOB))[0])).session
    directory = world.directory

    async def join(session: Any, group: str = "money", most: int = 2) -> list[str]:
        return list(await directory.join(session, group, most))

    assert await join(second) == await join(first) == await join(second) == []
    assert await join(bob) == [] and await join(third, "other") == []  # another person, another group
    assert await join(third) == [second.id]  # who came first, whenever they signed in
    assert await join(third, most=1) == [second.id, first.id]
    await world.sessions.end(made[1])
    assert await join(third) == []
    assert await join(second, most=1) == []  # who is gone crowds nobody out
    assert await join(third, most=1) == [first.id]


async def test_clearing_one_session(world: World) -> None:
    handle, alice = await sign_in(world)
    other, _ = await sign_in(world)
    target = Target(TargetKind.SESSION, alice)
    assert await world.directory.clear(Lock("lock-1", target, number=3)) == 0
    assert await world.sessions.load(handle) is not None
    assert await world.directory.clear(Lock("lock-1", target, number=4)) == 1
    assert await world.sessions.load(handle) is None
    assert await world.sessions.load(other) is not None


async def test_a_session_stepped_up_after_the_lock_is_not_cleared(world: World) -> None:
    handle, _ = await sign_in(world)
    session = (await world.sessions.load(handle)).session
    fresh = await world.sessions.replace(handle, replace(session, as_of=7), SECRETS)
    assert await world.directory.clear(Lock("lock-1", OF_ALICE, number=7)) == 0
    assert await world.sessions.load(fresh) is not None


@pytest.mark.parametrize(
    "lock",
    [
        pytest.param(Lock("l", ALL, until=5.0, number=9), id="closes-the-door-for-a-while"),
        pytest.param(Lock("l", ALL, Action.REQUIRE_LOGIN, number=9), id="asks-for-a-sign-in"),
        pytest.param(Lock("l", ALL, Action.REQUIRE_STEP_UP, number=9), id="asks-for-a-step-up"),
    ],
)
async def test_a_lock_that_does_not_revoke_clears_nothing(world: World, lock: Lock) -> None:
    handle, _ = await sign_in(world)
    assert await world.directory.clear(lock) == 0
    assert await world.sessions.load(handle) is not None


# ── Redis alone ──


async def test_idle_sessions_leave_every_list(redis: RedisWorld) -> None:
    await sign_in(redis)
    busy, bob = await sign_in(redis, BOB)
    await redis.pass_time(LIMITS.idle - 60)
    await redis.sessions.touch(busy)
    await redis.pass_time(120)
    assert await redis.directory.count() == 1
    assert await ids(redis) == [bob]
    assert await redis.directory.of(OF_ALICE) == ()
    for key in await redis.client.keys("{ztp}:*"):
        if await redis.client.type(key) == b"zset":
            assert await redis.client.zcard(key) == 1, key


@pytest.mark.parametrize("many", [BATCH - 1, BATCH, BATCH + 1, 2 * BATCH])
async def test_batches_lose_nobody(redis: RedisWorld, many: int) -> None:
    made = [(await sign_in(redis, replace(ALICE, as_of=n % 2)))[1] for n in range(many)]
    assert await ids(redis, EVERYTHING, 1000) == made[::-1]
    assert await ids(redis, Wanted(OF_ALICE), 150) == made[::-1]
    found = await redis.directory.of(OF_ALICE)
    assert found is not None and [one.session.id for one in found] == made
    assert await redis.directory.clear(Lock("lock-1", ALL, number=1)) == len(made[::2])
    assert await ids(redis) == made[1::2][::-1]


async def test_a_search_goes_on_where_it_stopped(redis: RedisWorld) -> None:
    """A page that read enough is short, and its cursor goes on."""
    _, bob = await sign_in(redis, BOB)
    (_, place), *_ = await redis.client.zrange("{ztp}:all", 0, -1, withscores=True)
    gone = {f"{n:032x}": place + 1 + n for n in range(SEARCHED + 1)}
    await redis.client.zadd("{ztp}:all", gone)
    first = await redis.directory.page(Wanted(text="bob"), None, 5)
    assert first.sessions == () and first.cursor is not None
    second = await redis.directory.page(Wanted(text="bob"), first.cursor, 5)
    assert [one.session.id for one in second.sessions] == [bob] and second.cursor is None
    assert await redis.client.zcard("{ztp}:all") == 1


async def test_each_changed_letter_of_a_cursor_is_noticed(redis: RedisWorld) -> None:
    for _ in range(3):
        await sign_in(redis)
    cursor = (await redis.directory.page(EVERYTHING, None, 1)).cursor
    assert cursor is not None
    raw = base64.urlsafe_b64decode(cursor)
    for position in range(len(raw)):
        forged = raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]
        with pytest.raises(ClientError):
            await redis.directory.page(EVERYTHING, base64.urlsafe_b64encode(forged).decode(), 1)


async def test_a_cursor_of_another_installation_is_refused(redis: RedisWorld) -> None:
    for _ in range(3):
        await sign_in(redis)
    cursor = (await redis.directory.page(EVERYTHING, None, 1)).cursor
    for other in (
        RedisWorld(redis.client, KEY_B).directory,
        RedisDirectory(redis.client, redis.sealer, prefix="{staging}:"),
    ):
        with pytest.raises(ClientError):
            await other.page(EVERYTHING, cursor, 1)


async def mallory_writes_junk(redis: RedisWorld, alice: str, bob: str) -> None:
    await redis.client.hset(alice, "f", b"\x01" * 60)


async def mallory_moves_facts(redis: RedisWorld, alice: str, bob: str) -> None:
    await redis.client.hset(alice, "f", await redis.client.hget(bob, "f"))


async def mallory_shows_a_place_as_facts(redis: RedisWorld, alice: str, bob: str) -> None:
    await redis.client.hset(alice, "f", await redis.client.hget(alice, "b"))


async def mallory_removes_facts(redis: RedisWorld, alice: str, bob: str) -> None:
    await redis.client.hdel(alice, "f")


@pytest.mark.parametrize(
    "attack",
    [mallory_writes_junk, mallory_moves_facts, mallory_shows_a_place_as_facts, mallory_removes_facts],
)
async def test_facts_that_were_meddled_with_are_left_out(redis: RedisWorld, attack: Any) -> None:
    _, alice = await sign_in(redis, seen=HOME)
    _, bob = await sign_in(redis, BOB, HOME)
    await attack(redis, f"{{ztp}}:s:{alice}", f"{{ztp}}:s:{bob}")
    assert await ids(redis) == [bob]
    assert await redis.directory.show(alice) is None
    assert await redis.directory.of(OF_ALICE) == ()


async def test_a_session_put_into_a_strangers_index_is_not_taken_for_hers(redis: RedisWorld) -> None:
    _, alice = await sign_in(redis)
    _, bob = await sign_in(redis, BOB)
    for index in await redis.client.keys("{ztp}:u:*"):
        await redis.client.zadd(index, {alice: 1, bob: 2})
    assert await ids(redis, Wanted(OF_ALICE)) == [alice]
    found = await redis.directory.of(OF_ALICE)
    assert found is not None and [one.session.id for one in found] == [alice]


@pytest.mark.parametrize("last", [b"", b"-1", b"1e9", b"9" * 5000, b"\xff"])
async def test_a_last_use_that_is_no_number_is_none(redis: RedisWorld, last: bytes) -> None:
    _, alice = await sign_in(redis)
    await redis.client.hset(f"{{ztp}}:s:{alice}", "l", last)
    shown = await redis.directory.show(alice)
    assert shown is not None and shown.seen_at == 0.0


async def test_a_place_that_was_meddled_with_is_not_shown(redis: RedisWorld) -> None:
    handle, alice = await sign_in(redis, seen=HOME)
    await redis.sessions.touch(handle, TRAIN)
    key = f"{{ztp}}:s:{alice}"
    began, used = await redis.client.hmget(key, "b", "n")
    await redis.client.hset(key, mapping={"b": used, "n": began})
    shown = await redis.directory.show(alice)
    assert shown is not None and (shown.seen, shown.created_from) == (None, None)


async def test_a_store_that_is_away_is_a_world_error(redis: RedisWorld) -> None:
    _, alice = await sign_in(redis)
    await redis.client.delete(f"{{ztp}}:s:{alice}", "{ztp}:all")
    await redis.client.rpush(f"{{ztp}}:s:{alice}", "x")
    await redis.client.rpush("{ztp}:all", "x")
    for asked in (redis.directory.page(EVERYTHING, None, 1), redis.directory.show(alice)):
        with pytest.raises(WorldError):
            await asked
    with pytest.raises(WorldError):
        await redis.directory.clear(Lock("lock-1", ALL, number=9))
