"""The judge of the stories is judged here: what is not so must come out as not so."""

from __future__ import annotations

from typing import cast

import pytest

from ztproxy.demo.running import Demo
from ztproxy.demo.telling import NotSo, Story, walk_all

NO_DEMO = cast("Demo", None)  # none of these stories looks at it


async def happens(demo: Demo) -> None: ...


async def is_not_so(demo: Demo) -> None:
    raise NotSo("the status is 200, not 403")


async def breaks(demo: Demo) -> None:
    raise ConnectionResetError("gone")


@pytest.mark.parametrize(
    ("walk", "seen"),
    [
        pytest.param(happens, "", id="as-told"),
        pytest.param(is_not_so, "the status is 200, not 403", id="not-so"),
        pytest.param(breaks, "ConnectionResetError: gone", id="broken"),
    ],
)
async def test_what_became_of_a_story(walk, seen) -> None:
    assert [one.seen async for one in walk_all(NO_DEMO, [Story("it", walk)])] == [seen]


async def test_a_failed_story_does_not_end_the_walk() -> None:
    stories = [Story("one", is_not_so), Story("two", happens)]
    assert [(one.story.told, bool(one.seen)) async for one in walk_all(NO_DEMO, stories)] == [
        ("one", True),
        ("two", False),
    ]
