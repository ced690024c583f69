"""The Foundation's relying-party modules, each a whole sign-in over HTTP through a running ztproxy."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from tests.conformance.page import PAGE, page
from tests.conformance.plays import Module
from tests.conformance.relying_party import FAPI, MODULES, NOT_PORTED, OIDC
from tests.conformance.scripted import Scripted, Visit, serve
from tests.evidence import Tried
from tests.stories.house import house
from tests.stories.talking import Background
from tests.worlds.lying_provider import CLIENT_ID, CLIENT_SECRET
from ztproxy.core.reasons import Reason

REFUSED = [module for module in MODULES if module.refused is not None]
TRIED = (
    Tried(
        "Conformance",
        "the OpenID Foundation's relying-party modules, ported (self-run, not certified)",
        len(MODULES),
        len(MODULES),
        "what the module asks for; a refusal gives no session and asks the provider nothing more",
    ),
)
PROVIDER = """\
  - name: {name}
    issuer: {issuer}
    client_id: "{client}"
    client_secret: "{secret}"
    userinfo: true
{more}"""
VOUCHED = """\
  - from: https://app.test
    prefix: /vouched
    name: vouched
    to: http://127.0.0.1:$upstream
    allow_any_authenticated_user: true
    sensitivity: {label: internal, least_rank: 1, verified_within: 1s}
    outlier_detection: off
"""
AT_ONCE = 6


@dataclass
class Told:
    """How a module's run ended: with `failure`, and, where the sign-in was refused, on `page`."""

    failure: Exception | None
    page: str


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[dict[str, Told]]:
    background, stack = Background(), AsyncExitStack()
    names = {module.name: f"m{number}" for number, module in enumerate(MODULES)}

    async def worlds() -> dict[str, Scripted]:
        return {module.name: await serve(stack) for module in MODULES}

    try:
        all_worlds = background.run(worlds())
        providers = "".join(
            PROVIDER.format(
                name=names[module.name],
                issuer=all_worlds[module.name].issuer,
                client=CLIENT_ID,
                secret=CLIENT_SECRET,
                more=module.config,
            )
            for module in MODULES
        )
        parts = {"providers": providers, "routes": VOUCHED}
        with house(tmp_path_factory.mktemp("modules"), valkey_url, parts=parts) as it:
            it.seen(CLIENT_SECRET)

            async def run(module: Module, turn: asyncio.Semaphore) -> Told:
                async with turn:
                    for left in (2, 1, 0):
                        told, busy = await once(module)
                        if not busy or not left:
                            break
                        # A lease that lapses on a busy machine is answered with 503, as promised: nothing of
                        # the module. Once more, as if it had not been.
                        world = all_worlds[module.name]
                        world.heard.clear()
                        world.hits.clear()
                        await asyncio.sleep(1)
                    return told

            async def once(module: Module) -> tuple[Told, bool]:
                async with it.guest() as guest:
                    visit = Visit(it, names[module.name], all_worlds[module.name], guest)
                    try:
                        await module.run(visit)
                    except Exception as failure:
                        busy = visit.page.status == 503 and "Sessions cannot be checked" in visit.page.text
                        return Told(failure, visit.page.text), busy
                    return Told(None, visit.page.text), False

            async def everyone() -> list[Told]:
                turn = asyncio.Semaphore(AT_ONCE)
                return await asyncio.gather(*(run(module, turn) for module in MODULES))

            yield dict(zip(names, it.run(everyone()), strict=True))
    finally:
        background.run(stack.aclose())
        background.close()


@pytest.mark.parametrize("module", [pytest.param(module, id=module.name) for module in MODULES])
def test_module(told: dict[str, Told], module: Module) -> None:
    failure = told[module.name].failure
    if failure is not None:
        raise failure


@pytest.mark.parametrize("reason", sorted({module.refused for module in REFUSED if module.refused}))
def test_a_refusal_tells_nobody_which_lie_it_was(told: dict[str, Told], reason: Reason) -> None:
    """Of one reason there is one page, but for the request id and the way to try again."""
    pages = defaultdict(list)
    for module in REFUSED:
        if module.refused is reason:
            pages[re.sub(r"/start/m\d+|\b[0-9a-f]{16,}\b", "", told[module.name].page)].append(module.name)
    assert len(pages) == 1, list(pages.values())


def test_every_module_is_there_once() -> None:
    names = [module.name for module in MODULES]
    assert len(names) == len(set(names))
    of = {
        prefix: [name for name in names if name.startswith(prefix) and " " not in name]
        for prefix in (OIDC, FAPI)
    }
    assert {prefix: len(found) for prefix, found in of.items()} == {OIDC: 40, FAPI: 20}
    assert not {name for name, _ in NOT_PORTED} & set(names)


def test_the_page_is_current() -> None:
    """`python -m tests.conformance` writes it."""
    assert PAGE.read_text(encoding="utf-8") == page()
