"""The signed handle: what opens, what does not, and that none of the junk reaches a store."""

from __future__ import annotations

import base64

import pytest

from tests.adapters.state_worlds import LIMITS, RedisWorld
from ztproxy.adapters.cookies import SignedHandles

OLD, NEW, STAGING = (bytes([number]) * 32 for number in (1, 2, 3))
HANDLE = base64.urlsafe_b64encode(bytes(range(32))).rstrip(b"=").decode()
VALUE = SignedHandles([OLD]).seal(HANDLE)
SIGNATURE = VALUE.rpartition(".")[2]


def other_last_letter(text: str) -> str:
    """The same bits for a lenient decoder: the last letter's two unused bits set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) + 1]


def test_a_sealed_handle_opens() -> None:
    assert VALUE.startswith(f"v1.{HANDLE}.")
    assert len(VALUE) == 3 + 43 + 1 + 43
    assert SignedHandles([OLD]).open(VALUE) == HANDLE


def test_the_first_key_signs_and_all_listed_keys_open() -> None:
    rotated = SignedHandles([NEW, OLD])
    assert rotated.open(VALUE) == HANDLE
    assert SignedHandles([NEW]).open(rotated.seal(HANDLE)) == HANDLE
    assert SignedHandles([OLD]).open(rotated.seal(HANDLE)) is None


def test_the_form_is_stable() -> None:
    # signed by an earlier run: an upgrade signs nobody out
    assert f"v1.{HANDLE}.iCtp2gBvnPqRWcgQ8895lU5F7YJ5q2doUtSvUtVjwSE" == VALUE


JUNK = [
    pytest.param("", id="empty"),
    pytest.param(HANDLE, id="bare-handle"),
    pytest.param(f"v1.{HANDLE}", id="unsigned"),
    pytest.param(f"v1.{HANDLE}.", id="empty-signature"),
    pytest.param(f"v2.{HANDLE}.{SIGNATURE}", id="version"),
    pytest.param(f"V1.{HANDLE}.{SIGNATURE}", id="version-case"),
    pytest.param(f"v1.{HANDLE[:-1]}.{SIGNATURE}", id="short-handle"),
    pytest.param(f"v1.{HANDLE}A.{SIGNATURE}", id="long-handle"),
    pytest.param(f"v1.{HANDLE}.{SIGNATURE}A", id="long-signature"),
    pytest.param(f"v1.{HANDLE}.{SIGNATURE}.x", id="one-part-more"),
    pytest.param(f" {VALUE}", id="space-before"),
    pytest.param(f"{VALUE}\n", id="newline-after"),
    pytest.param(f'"{VALUE}"', id="quoted"),
    pytest.param(f"{VALUE}\0", id="nul"),
    pytest.param(VALUE.replace(".", "%2E"), id="percent"),
    pytest.param(f"v1.{other_last_letter(HANDLE)}.{SIGNATURE}", id="second-spelling-of-the-handle"),
    pytest.param(f"v1.{HANDLE}.{other_last_letter(SIGNATURE)}", id="second-spelling-of-the-signature"),
    pytest.param(f"v1.{'Á' * 43}.{SIGNATURE}", id="non-ascii-letters"),
    pytest.param(f"v1.{'١' * 43}.{SIGNATURE}", id="arabic-digits"),
    pytest.param("v1." + "' OR 1=1 --".ljust(43, "A") + f".{SIGNATURE}", id="sql"),
    pytest.param("v1." + "../" * 14 + f"A.{SIGNATURE}", id="path"),
    pytest.param("v1." + "*" * 43 + f".{SIGNATURE}", id="star"),
    pytest.param("v1.[a-z]" + "A" * 38 + f".{SIGNATURE}", id="pattern"),
    pytest.param("v1." + "A" * 65536, id="64-kib"),
    pytest.param("\ud800" * 90, id="lone-surrogates"),
]
FORGED = [
    pytest.param(f"v1.{HANDLE}.{'A' * 43}", id="zero-signature"),
    pytest.param(f"v1.{'A' * 43}.{SIGNATURE}", id="signature-of-another-handle"),
    pytest.param(SignedHandles([STAGING]).seal(HANDLE), id="staging-key-on-production"),
]


@pytest.mark.parametrize("value", JUNK + FORGED)
def test_what_is_not_ours_does_not_open(value: str) -> None:
    assert SignedHandles([NEW, OLD]).open(value) is None


@pytest.mark.parametrize("handle", ["", "short", HANDLE + "A", HANDLE[:-1] + "B", f"{HANDLE[:-1]}."])
def test_only_a_handle_can_be_sealed(handle: str) -> None:
    with pytest.raises(AssertionError):
        SignedHandles([OLD]).seal(handle)


async def test_a_stores_handles_fit_the_cookie(state_client: object) -> None:
    from tests.adapters.state_worlds import ALICE, SECRETS

    world = RedisWorld(state_client)  # type: ignore[arg-type]
    signer = SignedHandles([OLD])
    for _ in range(20):
        handle = await world.sessions.create(ALICE, SECRETS, "app.test", None)
        assert signer.open(signer.seal(handle)) == handle
    assert LIMITS.absolute > 0


@pytest.mark.parametrize("value", JUNK + FORGED)
async def test_no_junk_reaches_the_store(state_client: object, value: str) -> None:
    # the only way from a cookie to the store: what does not open is never asked for
    world = RedisWorld(state_client)  # type: ignore[arg-type]
    await world.client.ping()
    before = (await world.client.info("stats"))["total_commands_processed"]
    handle = SignedHandles([NEW, OLD]).open(value)
    loaded = await world.sessions.load(handle) if handle is not None else None
    after = (await world.client.info("stats"))["total_commands_processed"]
    assert loaded is None
    assert after - before == 1  # the second INFO alone
