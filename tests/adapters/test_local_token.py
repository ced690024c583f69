"""The token of whoever is on this machine as this user."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.worlds.memory_admin import MemoryTokens
from tests.worlds.memory_state import SetClock
from ztproxy.adapters.local_token import FILE, LocalToken


@pytest.fixture
def others() -> MemoryTokens:
    return MemoryTokens(SetClock(1_800_000_000.0))


def made(directory: Path, others: MemoryTokens) -> tuple[LocalToken, str]:
    tokens = LocalToken(directory, others, others.clock)
    return tokens, (directory / FILE).read_text().strip()


async def test_the_file_is_private_and_opens_everything(tmp_path: Path, others: MemoryTokens) -> None:
    tokens, secret = made(tmp_path, others)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    found = await tokens.find(secret)
    assert found is not None and (found.name, found.role) == ("local", "admin")
    assert secret not in repr(found) and secret not in repr(tokens)


async def test_it_is_another_after_each_start_and_gone_after_the_end(
    tmp_path: Path, others: MemoryTokens
) -> None:
    _, before = made(tmp_path, others)
    second, after = made(tmp_path, others)
    assert before != after and await second.find(before) is None
    second.close()
    second.close()
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("change", ["", "x", "upper", "cut"])
async def test_what_is_not_quite_it_is_not_it(tmp_path: Path, others: MemoryTokens, change: str) -> None:
    tokens, secret = made(tmp_path, others)
    wrong = {"": "", "x": secret + "x", "upper": secret.upper(), "cut": secret[:-1]}[change]
    assert await tokens.find(wrong) is None


async def test_all_others_are_in_the_other_store(tmp_path: Path, others: MemoryTokens) -> None:
    tokens, _ = made(tmp_path, others)
    secret, token = await tokens.create("ci", "viewer", 60.0, "local")
    assert await tokens.find(secret) == token
    assert [one.name for one in await tokens.all()] == ["local", "ci"]
    assert await tokens.revoke(token.id) and await tokens.find(secret) is None
    assert not await tokens.revoke("local")  # it goes with its process
