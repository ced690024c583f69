"""How a story is told and judged: what was seen, against what should have been.

Promises: a story either happened as told or its result says what was seen instead; one that failed or broke
does not keep the next from being walked. Leaves what is told to `stories` and `endings`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple

from ztproxy.demo.laptops import Laptop
from ztproxy.demo.running import Demo
from ztproxy.demo.visitor import Page, Visitor

Walk = Callable[[Demo], Awaitable[None]]


class Story(NamedTuple):
    """`told` is one line of English, `walk` raises when it is not true."""

    told: str
    walk: Walk


class Result(NamedTuple):
    """`seen` is empty when the story happened as told."""

    story: Story
    seen: str


class NotSo(Exception):
    """Something else than the story tells was seen."""


async def walk_all(demo: Demo, stories: Sequence[Story]) -> AsyncIterator[Result]:
    """Walks every story, one after the other, whatever became of those before."""
    for story in stories:
        try:
            await story.walk(demo)
        except NotSo as error:
            yield Result(story, str(error))
        except Exception as error:
            yield Result(story, f"{type(error).__name__}: {error}")
        else:
            yield Result(story, "")


def so(what: str, seen: object, expected: object) -> None:
    if seen != expected:
        raise NotSo(f"{what} is {seen!r}, not {expected!r}")


def true(fact: bool, otherwise: str) -> None:
    if not fact:
        raise NotSo(otherwise)


def a_visitor(demo: Demo, person: str = "", method: str = "pwd", laptop: Laptop | None = None) -> Visitor:
    return Visitor(demo.issuer, person, method, demo.tls(laptop))


async def signed_in(visitor: Visitor, demo: Demo) -> Page:
    """The visitor's first page after signing in: what home's app received."""
    page = await visitor.open(demo.site.origin("home") + "/json")
    so("the status of home", page.status, 200)
    return page
