"""What a store can promise about revocations, judged by what its servers say of themselves.

Knows: which settings make Redis or Valkey keep what it has acknowledged, and for how long leases of a primary
that was replaced may live. Promises: `strict` only where the configuration was seen to make it so, or the
operator vouches for it. Leaves to the caller: showing `why`.
"""

from __future__ import annotations

from typing import Any, Literal

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from ztproxy.core.lease import Topology

# A primary that lost its replicas goes on until their last words are `max-lag` seconds old, looks at that
# once a second and a little, and another second is for everyone to have learnt of the new one. A lease lasts
# a little longer by the clock of somebody else.
_NOTICED = 1.5
_RECONFIGURED = 1.0
_ANYBODYS_CLOCK = 1.04

# The servers' own defaults, for where they do not say.
_LAG_SECONDS = 10.0
_NODE_TIMEOUT_MS = 15_000.0

_PATTERNS = ("append*", "min-replicas-*", "cluster-node-timeout")

Kind = Literal["standalone", "sentinel", "cluster"]


async def ask(client: Redis, kind: Kind, key: str) -> tuple[dict[str, str], int]:
    """The settings that matter of the primary that has `key`, empty where CONFIG is forbidden, and how many
    replicas it has."""
    send: Any = client.execute_command
    options: dict[str, Any] = {}
    if kind == "cluster":
        cluster: Any = client
        await cluster.initialize()
        options["target_nodes"] = cluster.get_node_from_key(key)
    said: dict[str, str] = {}
    try:
        for pattern in _PATTERNS:
            answer = await send("CONFIG GET", pattern, **options)
            said |= {_text(name): _text(value) for name, value in answer.items()}
    except ResponseError:
        said = {}
    replication = await send("INFO", "replication", **options)
    return said, int(replication.get("connected_slaves", 0))


def judge(
    kind: Kind, said: dict[str, str], replicas: int, *, lease: float, expected: int, trusted: bool
) -> Topology:
    """`expected`: how many replicas COMMIT waits for. `trusted`: the operator vouches for one that hides."""
    lease *= _ANYBODYS_CLOCK
    match kind:
        case "standalone":
            return _standalone(said, lease, trusted)
        case "sentinel":
            failover = _number(said, "min-replicas-max-lag", _LAG_SECONDS) + _NOTICED + _RECONFIGURED + lease
            doubt = _doubt_of_sentinel(said, replicas, expected)
            why = doubt or "every replica has a revocation before it is acknowledged"
            return Topology("sentinel", not doubt, False, failover, why)
        case "cluster":
            # The side of a primary that was cut off goes on for one node timeout; the other elects after it.
            failover = (
                2 * _number(said, "cluster-node-timeout", _NODE_TIMEOUT_MS) / 1000 + _RECONFIGURED + lease
            )
            why = "a cluster may lose what it has acknowledged"
            return Topology("cluster", False, False, failover, why)


def _standalone(said: dict[str, str], lease: float, trusted: bool) -> Topology:
    durable = said.get("appendonly") == "yes" and said.get("appendfsync") == "always"
    if durable:
        why = "every write is on disk before it is answered"
    elif trusted:
        durable, why = True, "the operator vouches for it"
    elif not said:
        why = "the server does not show its configuration"
    else:
        why = "the server may lose its last writes: set appendonly yes and appendfsync always"
    # One that hides may be a managed service, where another server takes over in a way it does not tell.
    failover = 0.0 if said else _LAG_SECONDS + _NOTICED + _RECONFIGURED + lease
    return Topology("standalone", durable, durable, failover, why)


def _doubt_of_sentinel(said: dict[str, str], replicas: int, expected: int) -> str:
    """What may lose a revocation; empty if nothing does."""
    if not said:
        return "the server does not show its configuration"
    if _number(said, "min-replicas-to-write", 0) < 1 or _number(said, "min-replicas-max-lag", 0) < 1:
        return "a primary cut off from its replicas goes on: set min-replicas-to-write and -max-lag"
    if said.get("appendonly") != "yes":
        # Not asked for by the copies: a primary back before it was missed, with nothing, empties them too.
        return "a primary that restarts has nothing, and its replicas follow it: set appendonly yes"
    if expected < max(1, replicas):
        return f"{replicas} replicas, and revocation.expected_replicas is {expected}"
    return ""


def _number(said: dict[str, str], name: str, otherwise: float) -> float:
    return float(said.get(name) or otherwise)


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode("utf-8", "replace")
