"""What a store promises, by what it says of itself. Asking real servers is in `test_redis_revocations`."""

from __future__ import annotations

import pytest

from ztproxy.adapters.redis_topology import Kind, judge

DURABLE = {"appendonly": "yes", "appendfsync": "always"}
WATCHED = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "min-replicas-to-write": "1",
    "min-replicas-max-lag": "2",
}


@pytest.mark.parametrize(
    ("said", "trusted", "strict", "why"),
    [
        pytest.param(DURABLE, False, True, "every write is on disk", id="always"),
        pytest.param(
            {**DURABLE, "appendfsync": "everysec"}, False, False, "set appendonly yes", id="everysec"
        ),
        pytest.param({**DURABLE, "appendonly": "no"}, False, False, "set appendonly yes", id="no-aof"),
        pytest.param({}, False, False, "does not show", id="hidden"),
        pytest.param({}, True, True, "the operator vouches", id="hidden-and-trusted"),
        pytest.param({**DURABLE, "appendonly": "no"}, True, True, "the operator vouches", id="trusted"),
    ],
)
def test_one_server(said: dict[str, str], trusted: bool, strict: bool, why: str) -> None:
    topology = judge("standalone", said, 0, lease=1.0, expected=0, trusted=trusted)
    assert (topology.kind, topology.strict, topology.durable) == ("standalone", strict, strict)
    assert why in topology.why
    # another may take over only where we cannot see that none can
    assert topology.failover == pytest.approx(0.0 if said else 10.0 + 1.5 + 1.0 + 1.04)


@pytest.mark.parametrize(
    ("said", "replicas", "expected", "why"),
    [
        pytest.param(WATCHED, 2, 2, "", id="all-copies"),
        pytest.param(WATCHED, 1, 2, "", id="one-is-down"),
        pytest.param(WATCHED, 0, 2, "", id="all-are-down"),
        pytest.param(WATCHED, 2, 1, "2 replicas, and revocation.expected_replicas is 1", id="majority"),
        pytest.param(WATCHED, 0, 0, "0 replicas, and", id="no-copies"),
        pytest.param({**WATCHED, "min-replicas-to-write": "0"}, 2, 2, "cut off", id="goes-on-alone"),
        pytest.param({**WATCHED, "min-replicas-max-lag": "0"}, 2, 2, "cut off", id="lag-switched-off"),
        pytest.param({**WATCHED, "appendonly": "no"}, 2, 2, "has nothing", id="restarts-empty"),
        pytest.param({}, 2, 2, "does not show", id="hidden"),
    ],
)
def test_sentinel(said: dict[str, str], replicas: int, expected: int, why: str) -> None:
    topology = judge("sentinel", said, replicas, lease=1.0, expected=expected, trusted=True)
    assert (topology.kind, topology.strict, topology.durable) == ("sentinel", not why, False)
    assert why in topology.why
    assert topology.why


@pytest.mark.parametrize(
    ("kind", "said", "failover"),
    [
        pytest.param("sentinel", WATCHED, 2.0 + 1.5 + 1.0 + 1.04, id="sentinel"),
        pytest.param("sentinel", {}, 10.0 + 1.5 + 1.0 + 1.04, id="sentinel-hidden"),
        pytest.param("cluster", {"cluster-node-timeout": "5000"}, 10.0 + 1.0 + 1.04, id="cluster"),
        pytest.param("cluster", {}, 30.0 + 1.0 + 1.04, id="cluster-hidden"),
    ],
)
def test_how_long_old_leases_may_live(kind: Kind, said: dict[str, str], failover: float) -> None:
    assert judge(kind, said, 2, lease=1.0, expected=2, trusted=False).failover == pytest.approx(failover)
