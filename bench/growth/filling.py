"""Sessions by the million, made by the store's own code and sent as one stream.

Knows: `RedisSessions` and what it asks of a Redis client. Promises: every session is what `create` would have
written, sealed with its own secrets, and can be asked for; a store that refuses one is told of
(`CannotMeasure`). It takes some 50 microseconds for each, half of it on either core. Leaves to the caller
which cookies are asked with.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from hashlib import sha1
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, cast

import redis
from redis.asyncio import Redis

from bench import machine
from bench.growth import HOST
from bench.growth.house import ISSUER, Store, groups_of
from ztproxy.adapters.cookies import SignedHandles
from ztproxy.adapters.keys import KeyRing
from ztproxy.adapters.redis_sessions import RedisSessions
from ztproxy.adapters.sealing import Sealer
from ztproxy.adapters.session_scripts import SCRIPTS
from ztproxy.core.identity import Identity, Session, SessionSecrets
from ztproxy.core.sessions import SessionLimits

ALL_OF = 256
BATCH = 500
_DONE = b":1\r\n"
_LIVES = 6 * 3600.0

# What is random here is which sessions are asked for, and a run should ask for the same ones as the next.
_random = Random(6)


class _Stream:
    """What `RedisSessions` takes for a client, as far as `create` uses one: keeps each call as the octets it
    would have sent."""

    def __init__(self) -> None:
        self.command = b""

    def register_script(self, text: str) -> Callable[..., Awaitable[int]]:
        digest = sha1(text.encode()).hexdigest()

        async def run(*, keys: Sequence[str], args: Sequence[Any]) -> int:
            words = ["EVALSHA", digest, str(len(keys)), *keys, *args]
            self.command = b"*%d\r\n" % len(words) + b"".join(map(_bulk, words))
            return 1

        return run


def _bulk(word: str | bytes | float) -> bytes:
    octets = word if isinstance(word, bytes) else str(word).encode()
    return b"$%d\r\n%b\r\n" % (len(octets), octets)


class People:
    """Who is signed in. Each session is of a person of its own."""

    def __init__(self, keys: Path) -> None:
        ring = KeyRing.load(keys)
        self._stream = _Stream()
        limits = SessionLimits(idle=_LIVES, absolute=_LIVES)
        self._sessions = RedisSessions(cast("Redis", self._stream), Sealer(ring.records), limits)
        self._signer = SignedHandles(ring.handles)
        self._made = 0

    def sign_in(
        self, stores: Sequence[tuple[Store, int]], groups: int = 1, sample: int = 100_000
    ) -> dict[int, str]:
        """Fills each store with the first so many sessions of one sequence. Answers cookies by their place in
        it: of the first `ALL_OF`, and of so many at random."""
        most = max(count for _, count in stores)
        keep = {*range(min(ALL_OF, most)), *_random.sample(range(most), min(sample, most))}
        made = self._made
        handles: dict[int, str] = {}
        pipes = [_Pipe(store, count) for store, count in stores]
        try:
            everybody = self._everybody(groups_of(groups))
            done = 0
            while done < most:
                batch = list(islice(everybody, min(BATCH, most - done)))
                handles |= {n: handle for n, (handle, _) in enumerate(batch, done) if n in keep}
                for pipe in pipes:
                    pipe.send([command for _, command in batch])
                done += len(batch)
            for pipe in pipes:
                pipe.close()
        finally:
            for pipe in pipes:
                pipe.abandon()
        self._made = made + most
        return {n: self._signer.seal(handle) for n, handle in handles.items()}

    def _everybody(self, groups: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
        number = self._made
        while True:
            now = time.time()
            who = Identity(ISSUER, f"p{number}", f"p{number}@corp.test", groups=groups)
            session = Session("", who, "default", now, now, now, now + _LIVES)
            handle = _at_once(self._sessions.create(session, SessionSecrets(), HOST, None))
            yield handle, self._stream.command
            number += 1


def _at_once(work: Coroutine[Any, Any, str]) -> str:
    """The result of what awaits nothing."""
    try:
        work.send(None)
    except StopIteration as ended:
        return str(ended.value)
    raise machine.CannotMeasure("the store's code waits for something that a stream does not have")


class _Pipe:
    """A connection to one store. A batch is on its way while the next one is made."""

    def __init__(self, store: Store, most: int) -> None:
        with redis.Redis(unix_socket_path=str(store.socket)) as client:
            client.script_load(SCRIPTS["create"])
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(store.socket))
        self._left, self._owed = most, 0

    def send(self, commands: list[bytes]) -> None:
        self._settle()
        sent = commands[: self._left]
        if sent:
            self._socket.sendall(b"".join(sent))
        self._left -= len(sent)
        self._owed = len(sent)

    def close(self) -> None:
        """Waits for the last answers."""
        self._settle()

    def abandon(self) -> None:
        self._socket.close()

    def _settle(self) -> None:
        answered = b""
        while len(answered) < self._owed * len(_DONE):
            came = self._socket.recv(65536)
            answered += came
            if not came or not answered.startswith(_DONE):
                raise machine.CannotMeasure(f"a session was not written: {answered[:200]!r}")
        if answered != _DONE * self._owed:
            raise machine.CannotMeasure("one of many sessions was not written")
        self._owed = 0
