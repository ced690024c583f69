"""What many tests share: one real Valkey per pytest process, empty at the start of each test that uses it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from ztproxy.adapters import redis_connection
from ztproxy.adapters.embedded_valkey import EmbeddedValkey

# Containers set this. Each of the hundreds of processes that tests start would compile ztproxy for itself.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """The URL of a running Valkey on a unix socket; shared by all tests of this process."""
    # Not tmp_path_factory: its paths are too long for a unix socket.
    directory = tempfile.TemporaryDirectory(prefix="ztproxy-test-")
    with directory, EmbeddedValkey(Path(directory.name)) as server:
        yield server.url


@pytest.fixture
async def state_client(valkey_url: str) -> AsyncIterator[Redis]:
    """A client of that Valkey, which is emptied first."""
    client = redis_connection.connect(valkey_url)
    await client.flushall()
    yield client
    await client.aclose()
