"""Three nodes and three sentinels between which wires can be cut; and a sentinel that sees the first node
alone, for whoever is on its side then."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.worlds.fault_proxy import FaultProxy, fault_proxy
from tests.worlds.servers import HOST, SentinelProcess, SentinelTrio, Server, until

STRICT = "  lease: 800ms\n  expected_replicas: 2\n  stream_grace: 1s\n"
BOUNDED = "  lease: 800ms\n  expected_replicas: 1\n  stream_grace: 1s\n"
"""Confirms what one copy has, so that it can do so with one node less."""

CONTINUE = "  on_rollback: continue\n"
"""Who lost what was not confirmed does not sign everybody out: so that who is refused is refused for what
was put back, and for nothing else."""

_LONG = "600000"  # ms for which sentinels leave alone a replica that is not where they think it should be


class WiredTrio(SentinelTrio):
    """The first node is primary. `door` is how the second finds it; `sentinels`, `third`: whether they too
    find it only there. `announced`: the sentinels find the third only at `third_door`."""

    def __init__(self, directory: Path, *, sentinels: bool, third: bool, announced: bool) -> None:
        # A copy on a busy machine may be late with its word.
        super().__init__(directory, min_replicas_max_lag="3")
        self._by_door = {"sentinels": sentinels, "third": third, "announced": announced}
        self._stack = contextlib.ExitStack()
        self._alias = Server(directory)
        self.lone = LoneSentinel(directory, self.nodes[0], 2)
        self.door: FaultProxy
        self.third_door: FaultProxy

    @property
    def primary(self) -> Server:
        """The one the sentinels name."""
        port = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main").split("\n")[1]
        first, *others = self.nodes
        return next((node for node in others if str(node.port) == port), first)

    def start(self) -> None:
        first, second, third = self.nodes
        first.start()
        self.door = self._stack.enter_context(fault_proxy((HOST, first.port)))
        second.options["replicaof"] = f"{HOST} {self.door.port}"
        second.start()
        third.start()
        if self._by_door["announced"]:
            self.third_door = self._stack.enter_context(fault_proxy((HOST, third.port)))
            third.ask("CONFIG", "SET", "replica-announce-port", str(self.third_door.port))
        third.ask("REPLICAOF", HOST, str(self.door.port if self._by_door["third"] else first.port))
        self.copied(2)
        if self._by_door["sentinels"]:
            self._alias.port = self.door.port
            for sentinel in self.sentinels:
                sentinel.primary = self._alias
        for sentinel in self.sentinels:
            sentinel.start()
            sentinel.ask("SENTINEL", "SET", "main", "failover-timeout", _LONG)
        until(self._acquainted, "the sentinels know all of each other")

    def stop(self) -> None:
        for one in (*self.nodes, *self.sentinels, self.lone):
            one.kill()
        self._stack.close()

    def cut(self) -> None:
        """The first node is where only who is there already finds it."""
        self.lone.pause()
        self.door.partition()
        if self._by_door["announced"]:
            self.third_door.partition()

    def heal(self) -> None:
        """All wires are whole again, and the lone sentinel looks at what the others have made primary."""
        self.door.heal()
        if self._by_door["announced"]:
            self.third_door.heal()
        for sentinel in self.sentinels:
            # So soon they put a replica right that follows somebody else.
            sentinel.ask("SENTINEL", "SET", "main", "failover-timeout", "1000")
        self.lone.watch(self.primary)


class LoneSentinel(SentinelProcess):
    """A sentinel that knows no other: it names a primary and never makes another."""

    @property
    def url(self) -> str:
        return f"redis+sentinel://{HOST}:{self.port}/lone"

    def words(self) -> list[str]:
        words = super().words()
        file = self.directory / "sentinel.conf"
        # Another name: what the others tell of theirs is nothing to it.
        file.write_text(file.read_text().replace(" main ", " lone ").replace(" 3000", f" {_LONG}"))
        return words


@contextlib.contextmanager
def wired_trio(
    *, sentinels: bool = False, third: bool = False, announced: bool = False
) -> Iterator[WiredTrio]:
    with tempfile.TemporaryDirectory(prefix="ztproxy-test-") as name:
        trio = WiredTrio(Path(name), sentinels=sentinels, third=third, announced=announced)
        try:
            trio.start()
            yield trio
        finally:
            trio.stop()
