"""The world most of these tests are set in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.surfaces.admin.world import World, serving


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with serving(World()) as world:
        yield world
