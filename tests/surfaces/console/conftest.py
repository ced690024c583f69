"""The world these tests are set in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.surfaces.console.world import Console, serving


@pytest.fixture
async def world() -> AsyncIterator[Console]:
    async with serving(Console()) as world:
        yield world
