"""The log of locks in Redis or Valkey: numbered by one script at a time, sealed, with the leases beside it.

Knows: the keys below, the scripts that change them, WAIT. Promises: the port `RevocationLog`; each call but
`news` ends in less than a lease, answered or failed; nothing is read from a replica. Leaves to the caller:
the arithmetic of leases, and to sync in a rhythm.

    {ztp}:gen, :gen_at    the server process that last took a SYNC; since when (ms) it and the data are these
    {ztp}:data            random id of the data set
    {ztp}:seq             the last number
    {ztp}:rev             stream, id `<number>-0`: i digest of the entry's id, e sealed entry, t when (ms)
    {ztp}:ids             hash, digest -> number
    {ztp}:held            zset, number by end (ms) of the locks with an end
    {ztp}:held_text       hash, number -> digest, when (ms, 16 digits) and sealed entry of these, for when the
                          stream has been trimmed; the digest alone: lifted
    {ztp}:lease           zset, worker by end of its lease (ms)
    {ztp}:ack, :asked     hashes, worker -> number applied; -> length of the lease it asked for (ms)

All share one hash tag, so that they lie in one slot of a cluster. An entry is sealed for its digest under the
server's key: whoever writes to the store without that key cannot make, change or read one.

An entry that does not open, and a number that is missing in the middle, is answered as a revocation of
everyone with that number, and logged. To pass over it would be to let in whom it revoked; to refuse the lease
for it would let whoever can write one value there stop all of us for good. So everyone signs in once more:
closed, seen, and over. What that does not bring back is a lock with an end, if it was one. And whoever can
write to the store can still take away the whole log, or forge leases: ACL and TLS are what closes that.

Deadlines do not cancel, because a cancellation can be lost on its way through redis-py: who waited too long
goes on, and what he waited for ends by its own time-outs. So also a connection that is slow to open is there
for the next call.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError

from ztproxy.adapters import redis_topology
from ztproxy.adapters.redis_connection import connect, kind_of, translate
from ztproxy.adapters.revocation_codec import digest, pack, unpack, unreadable
from ztproxy.adapters.revocation_scripts import BATCH, SCRIPTS
from ztproxy.adapters.sealing import SealBroken, Sealer
from ztproxy.core.lease import Applied, Committed, Synced, Topology
from ztproxy.core.locks import Entry, Lift
from ztproxy.core.reasons import Reason
from ztproxy.errors import WorldError

_TAG = "{ztp}"
_NAMES = ("gen", "gen_at", "data", "seq", "rev", "ids", "held", "held_text", "lease", "ack", "asked")
_KEYS = [f"{_TAG}:{name}" for name in _NAMES]
_SHA = {name: hashlib.sha1(text.encode()).hexdigest() for name, text in SCRIPTS.items()}  # noqa: S324 its name
_STREAM = f"{_TAG}:rev"
_HELD_TEXT = f"{_TAG}:held_text"

BLOCK_SECONDS = 0.5  # also the longest that closing waits
_CONNECTIONS = 16  # SYNCs go out each eighth of a lease, whether the last one was answered or not
_PATIENCE = 0.95  # of a lease
_NAME, _HEAD = 64, 80  # of a stored entry: its digest; and with it the time
_KEY_NAMED = 9  # of a sealed value: what tells the key
_WAIT = 0.5  # of a lease, for replicas to confirm
_BACK_OFF = (0.01, 0.2)
_REFUSALS = (
    10  # in a second, before nobody tries; each may have been two connections, for redis-py looks twice
)

_log = logging.getLogger("ztproxy.state")
T = TypeVar("T")


class RedisRevocations:
    """Fulfils `RevocationLog`. Serves one worker, or a process that only commits and reads.

    `control` has time-outs of about `lease` seconds; `push` is another client, whose time-out is longer than
    `BLOCK_SECONDS`. `keep`: after how many seconds an entry meets nobody any more, because every session from
    before it is over.
    """

    def __init__(
        self,
        control: Redis,
        push: Redis,
        sealer: Sealer,
        *,
        lease: float,
        keep: float,
        expected_replicas: int = 0,
        trust_durability: bool = False,
    ) -> None:
        self._control, self._push, self._sealer = control, push, sealer
        self._lease, self._keep = lease, keep
        self._expected, self._trusted = expected_replicas, trust_durability
        self._kind = kind_of(control)
        self._known: dict[str, str] = {}  # worker -> the data set of its last answer
        self._data, self._loud = "", 0  # the last number that was complained about, and in which data set
        self._failures = 0  # of `news`, in a row
        self._refused: deque[float] = deque(maxlen=_REFUSALS)  # when connections were, newest last
        self._told: int | None = None
        # INVARIANT: SYNCs take no turns. Half of the connections are theirs, however many revoke at once.
        self._turns = asyncio.Semaphore(_CONNECTIONS // 2)
        self._going_on: set[asyncio.Task[Any]] = set()

    @classmethod
    def at(
        cls,
        url: str,
        sealer: Sealer,
        *,
        lease: float,
        keep: float,
        expected_replicas: int = 0,
        trust_durability: bool = False,
    ) -> RedisRevocations:
        """With clients of its own for the state at `url`. Raises `OperatorError` on a wrong URL."""
        # No second tries: the next SYNC is one, and a server that resets connections sees few of us.
        return cls(
            connect(url, timeout=lease, connections=_CONNECTIONS, retries=0),
            connect(url, timeout=BLOCK_SECONDS + lease, connections=2, retries=0),
            sealer,
            lease=lease,
            keep=keep,
            expected_replicas=expected_replicas,
            trust_durability=trust_durability,
        )

    async def aclose(self) -> None:
        """Closes both clients, after what is still under way has ended by its own time-outs."""
        if self._going_on:
            await asyncio.wait(self._going_on)
        await self._control.aclose()
        await self._push.aclose()

    # ── the port ──

    async def sync(self, worker: str, applied: int, lease: float) -> Synced:
        # INVARIANT: nothing is awaited between the answer and the return, and `_known` is what the caller has
        # been told. Else numbers applied of one data set could be acknowledged in another.
        asked = math.ceil(1000 * lease)
        ends_in = math.ceil(1020 * lease) + 5  # a clock may be wrong by one per cent; and rounding
        known = self._known.get(worker, "")
        words = (_fresh(), worker, known, applied, ends_in, asked)
        answer = await self._within(lambda: self._evaluate("sync", words))
        synced = self._synced(answer, applied)
        self._known[worker] = synced.data
        return synced

    async def read(self, after: int) -> Synced:
        return self._synced(await self._run("sync", _fresh(), "", "", after, 0, 0), after)

    async def news(self, after: int) -> bool:
        if after == self._told:
            # Told already, and the caller could not get it: what wakes us there is not to make us spin.
            await asyncio.sleep(_BACK_OFF[1])
        send: Any = self._push.execute_command
        words = ("XREAD", "COUNT", 1, "BLOCK", round(BLOCK_SECONDS * 1000), "STREAMS", _STREAM, f"{after}-0")
        try:
            answer = await self._within(lambda: send(*words), BLOCK_SECONDS + self._lease)
        except WorldError:
            least, most = _BACK_OFF
            await asyncio.sleep(random.uniform(least, min(most, least * 2**self._failures)))  # noqa: S311
            self._failures = min(self._failures + 1, 10)
            raise
        self._failures = 0
        self._told = after if answer else None
        return bool(answer)

    async def commit(self, entry: Entry) -> Committed:
        name = digest(entry.id)
        until = None if isinstance(entry, Lift) else entry.until
        words = (
            _fresh(),
            name,
            self._seal(name, entry),
            0 if until is None else math.ceil(until * 1000),
            digest(entry.lifts) if isinstance(entry, Lift) else "",
            math.ceil(self._keep * 1000),
        )
        copies = self._expected if self._kind != "cluster" else 0
        if copies:
            answer, confirmed = await self._in_turn(lambda: self._commit_and_wait(words, copies))
        else:
            answer, confirmed = await self._run("commit", *words), 0
        number, run, data, settled, foreign, holders, asked = answer
        self._report_foreign(foreign)
        return Committed(
            number=int(number),
            run=_text(run),
            data=_text(data),
            settled=int(settled) / 1000,
            holders=frozenset(_text(holder) for holder in holders),
            copied=confirmed >= copies,
            longest=max(map(int, asked), default=0) / 1000,
        )

    async def applied(self) -> Applied:
        run, data, pairs = await self._run("applied")
        numbers = {_text(worker): int(number) for worker, number in zip(pairs[::2], pairs[1::2], strict=True)}
        return Applied(_text(run), _text(data), numbers)

    async def leave(self, worker: str) -> None:
        self._known.pop(worker, None)
        await self._run("leave", worker)

    async def topology(self) -> Topology:
        said, replicas = await self._in_turn(lambda: redis_topology.ask(self._control, self._kind, _STREAM))
        return redis_topology.judge(
            self._kind,
            said,
            replicas,
            lease=self._lease,
            expected=self._expected,
            trusted=self._trusted,
        )

    # ── beside the port ──

    async def reseal(self) -> int:
        """Seals the locks with an end anew, under the key in use; how many were not yet.

        For after a rotation: such a lock may outlive the keys that a ring still knows, and then nobody could
        read it any more.
        """
        done = 0
        client: Any = self._control
        held: dict[bytes, bytes] = await self._in_turn(lambda: client.hgetall(_HELD_TEXT))
        for number, text in held.items():
            entry = self._opened(int(number), text) if len(text) > _NAME else None
            if entry is not None:
                anew = self._seal(_text(text[:_NAME]), entry)
                if anew[:_KEY_NAMED] != text[_HEAD : _HEAD + _KEY_NAMED]:
                    done += await self._run("reseal", number, text, text[:_HEAD] + anew)
        return done

    # ── reading ──

    def _synced(self, answer: Any, after: int) -> Synced:
        run, data, number, first, settled, foreign, rows = answer
        self._report_foreign(foreign)
        last, begin = int(number), int(first)
        if _text(data) != self._data:
            self._data, self._loud = _text(data), 0
        return Synced(
            run=_text(run),
            data=_text(data),
            number=last,
            first=begin,
            settled=int(settled) / 1000,
            entries=tuple(self._entries(rows, max(after + 1, begin), begin, last)),
        )

    def _entries(self, rows: Sequence[Any], expected: int, first: int, last: int) -> list[Entry]:
        """The rows as entries: those older than `first`, then from `expected` on none missing or twice."""
        held: list[Entry] = []
        entries: list[Entry] = []
        for number, text in ((int(number), text) for number, text in rows):
            if number < first:
                held.append(self._opened(number, text) or unreadable(number, time.time()))
            elif number >= expected and len(entries) < BATCH:
                entries += self._missing(expected, number, BATCH - len(entries))
                if len(entries) < BATCH:
                    entries.append(self._opened(number, text) or unreadable(number, time.time()))
                expected = number + 1
        if len(rows) - len(held) < BATCH:
            entries += self._missing(expected, last + 1, BATCH - len(entries))
        return held + entries

    def _missing(self, begin: int, end: int, room: int) -> list[Entry]:
        numbers = range(begin, min(end, begin + room))
        for number in numbers:
            self._complain(number, "missing")
        return [unreadable(number, time.time()) for number in numbers]

    def _opened(self, number: int, text: bytes) -> Entry | None:
        name = text[:_NAME]
        try:
            plain = self._sealer.open(name, _place(name), text[_HEAD:])
            entry = unpack(plain, number, int(text[_NAME:_HEAD]) / 1000)
            if digest(entry.id).encode() == name:
                return entry
            self._complain(number, "not the one it is filed as")
        except SealBroken as broken:
            self._complain(number, f"sealed by somebody else: {broken}")
        except ValueError:
            self._complain(number, "not in a form this program knows")
        return None

    def _seal(self, name: str, entry: Entry) -> bytes:
        return self._sealer.seal(name.encode(), _place(name.encode()), pack(entry))

    def _complain(self, number: int, what: str) -> None:
        # Once, though each SYNC may bring it again.
        if number > self._loud:
            self._loud = number
            _log.critical("entry %d of the revocation log is %s: everyone is signed out", number, what)

    def _report_foreign(self, count: int) -> None:
        if count:
            _log.critical("%d entries that nobody of us wrote were taken from the revocation log", count)

    # ── asking ──

    async def _run(self, name: str, *words: Any) -> Any:
        return await self._in_turn(lambda: self._evaluate(name, words))

    async def _in_turn(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async def when_it_is() -> T:
            async with self._turns:
                return await ask()

        return await self._within(when_it_is)

    async def _evaluate(self, name: str, words: Sequence[Any]) -> Any:
        # Not redis-py's own script objects: in a cluster they load a script into every primary, so that one
        # that is down and of no concern would make it fail.
        client: Any = self._control
        try:
            return await client.evalsha(_SHA[name], len(_KEYS), *_KEYS, *words)
        except NoScriptError:
            return await client.eval(SCRIPTS[name], len(_KEYS), *_KEYS, *words)

    async def _commit_and_wait(self, words: Sequence[Any], copies: int) -> tuple[Any, int]:
        # INVARIANT: one connection, and no second try on another. WAIT asks about what *this* connection
        # wrote; on a fresh one every replica has all of nothing. COMMIT writes even if the entry is there.
        async with self._control.pipeline(transaction=False) as pipe:
            pipe.execute_command("EVAL", SCRIPTS["commit"], len(_KEYS), *_KEYS, *words)
            pipe.execute_command("WAIT", copies, max(1, round(1000 * _WAIT * self._lease)))
            committed, confirmed = await pipe.execute(raise_on_error=False)
        if isinstance(committed, Exception):
            raise committed
        return committed, confirmed if isinstance(confirmed, int) else -1

    async def _within(self, ask: Callable[[], Coroutine[Any, Any, T]], seconds: float | None = None) -> T:
        """What `ask` answers, in less than a lease if no `seconds` are given; raises `WorldError`."""
        now = asyncio.get_running_loop().time
        if len(self._refused) == _REFUSALS and now() - self._refused[0] < 1.0:
            raise WorldError(Reason.STATE_UNAVAILABLE, "state: unreachable")
        task = asyncio.ensure_future(ask())
        self._going_on.add(task)
        task.add_done_callback(self._ended)
        done, _ = await asyncio.wait({task}, timeout=seconds or _PATIENCE * self._lease)
        with translate():
            if not done:
                raise TimeoutError
            try:
                return task.result()
            except (RedisConnectionError, OSError):
                self._refused.append(now())
                raise

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._going_on.discard(task)
        if not task.cancelled():
            task.exception()  # heard, so that asyncio does not complain of one that came too late


def _fresh() -> str:
    return secrets.token_hex(16)


def _place(name: bytes) -> bytes:
    return _STREAM.encode() + b":" + name


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
