"""What every story may rely on."""

from __future__ import annotations

import pytest
from redis import Redis


@pytest.fixture(scope="module", autouse=True)
def a_store_without_a_past(valkey_url: str) -> None:
    """The store is one for all tests of this process. What another story revoked would be remembered: people
    would be asked anew for it, and tokens refused by when they were issued."""
    with Redis.from_url(valkey_url) as store:
        store.flushall()
