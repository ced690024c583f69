"""The backends of the state ports, for the suites that are one for all: `world` is each in turn, in memory,
on one server, on a cluster of three."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from tests.adapters.state_worlds import MemoryWorld, RedisWorld, World
from tests.worlds.servers import cluster
from ztproxy.adapters import redis_connection


@pytest.fixture(scope="session")
def cluster_url() -> Iterator[str]:
    """The URL of a running cluster, shared by all tests of this process."""
    with cluster() as whole:
        yield whole.url


@pytest.fixture
async def cluster_client(cluster_url: str) -> AsyncIterator[Redis]:
    """A client of that cluster, which is emptied first."""
    client = redis_connection.connect(cluster_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(params=["memory", "redis", "cluster"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "memory":
        return MemoryWorld()
    name = "state_client" if request.param == "redis" else "cluster_client"
    return RedisWorld(request.getfixturevalue(name))


@pytest.fixture
def redis(state_client: Redis) -> RedisWorld:
    return RedisWorld(state_client)
