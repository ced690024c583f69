"""How revocations reach everyone: what an operator may choose, and what is said of choices that weaken it."""

# ruff: noqa: E501  (a row quotes a whole message, as the operator sees it)

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.words import mistakes, settings, site, warnings
from ztproxy.config import load, parse
from ztproxy.config.settings import Revocation

SENTINEL = "state: redis+sentinel://a:26379,b:26379/main"


def test_without_more_it_is_careful() -> None:
    assert settings(site()).revocation == Revocation(0.8, 1.0, 0, False, "revoke_all", 10.0)


@pytest.mark.parametrize(
    ("keys", "field", "value"),
    [
        pytest.param("lease: 500ms", "lease", 0.5, id="shortest-lease"),
        pytest.param("lease: 30s", "lease", 30.0, id="longest-lease"),
        pytest.param("lease: 2s", "quarantine", 2.0, id="quarantine-outlasts-the-lease"),
        pytest.param("lease: 500ms", "quarantine", 1.0, id="quarantine-of-a-short-lease"),
        pytest.param("quarantine: 3s", "quarantine", 3.0, id="quarantine"),
        pytest.param("expected_replicas: 2", "expected_replicas", 2, id="replicas"),
        pytest.param("expected_replicas: '${N}'", "expected_replicas", 3, id="replicas-from-outside"),
        pytest.param("trust_durability: true", "trust_durability", True, id="trust"),
        pytest.param("on_rollback: continue", "on_rollback", "continue", id="rollback"),
        pytest.param("stream_grace: 1s", "stream_grace", 1.0, id="grace"),
    ],
)
def test_a_key(keys: str, field: str, value: object) -> None:
    found = settings(site(SENTINEL, f"revocation: {{{keys}}}"), {"N": "3"}).revocation
    assert getattr(found, field) == value


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param("lease: 499ms", "7: revocation.lease: `499ms` is too short, write a time from `500ms` to `30s`", id="lease-too-short"),
        pytest.param("lease: 31s", "7: revocation.lease: `31s` is too long, write a time from `500ms` to `30s`", id="lease-too-long"),
        pytest.param("lease: 800", "7: revocation.lease: `800` is not a duration, write a number and a unit, like `30s`, `5m` or `12h`", id="lease-without-unit"),
        pytest.param("lease: off", "7: revocation.lease: `off` is not a duration, write a number and a unit, like `30s`, `5m` or `12h`", id="no-lease"),
        pytest.param("quarantine: 0s", "7: revocation.quarantine: `0s` is no time at all, write a longer one, or `off` where that is allowed", id="no-quarantine"),
        pytest.param("expected_replicas: -1", "7: revocation.expected_replicas: `-1` is below zero, write `0` or more", id="replicas-below-zero"),
        pytest.param("trust_durability: yes", "7: revocation.trust_durability: `yes` is not a boolean, write `true` or `false`", id="trust"),
        pytest.param("on_rollback: ignore", "7: revocation.on_rollback: `ignore` is not known here, write one of `continue`, `revoke_all`", id="rollback"),
        pytest.param("leese: 1s", "7: revocation.leese: unknown key `leese`, did you mean `lease`?", id="misspelled"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_told(keys: str, message: str) -> None:
    assert mistakes(site(f"revocation: {{{keys}}}")) == [message]


@pytest.mark.parametrize(
    ("state", "refused"),
    [
        pytest.param("state: embedded", True, id="embedded"),
        pytest.param("state: redis://127.0.0.1", True, id="one-server"),
        pytest.param("state: unix:///redis+sentinel://x", True, id="only-looks-like-it"),
        pytest.param("state: redis+cluster://a:1,b:2", True, id="cluster"),
        pytest.param(SENTINEL, False, id="sentinel"),
        pytest.param("state_file: url", False, id="not-looked-at"),
    ],
)
def test_replicas_are_counted_through_sentinel_alone(state: str, refused: bool) -> None:
    message = "8: revocation.expected_replicas: only the replicas of a `redis+sentinel://` state can be counted, remove it"
    assert mistakes(site(state, "revocation: {expected_replicas: 2}")) == [message] * refused


def test_the_state_may_be_named_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").touch(mode=0o600)
    file = tmp_path / "z.yaml"
    file.write_text(site("state_file: url", "revocation: {expected_replicas: 2}"))
    (tmp_path / "url").write_text("redis+sentinel://a/m\n")
    assert load(file, {}).revocation.expected_replicas == 2
    (tmp_path / "url").write_text("redis://:hunter2@127.0.0.1\n")
    with pytest.raises(Exception, match="can be counted, remove it") as caught:
        parse(file.read_bytes(), file, {})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "warned"),
    [
        pytest.param(["revocation: {trust_durability: true}"], ["7: revocation.trust_durability: if the store loses a write after all, whoever was revoked by it is let in again"], id="trust"),
        pytest.param(["revocation: {on_rollback: continue}"], ["7: revocation.on_rollback: sessions ended since the store's older copy was made may be open again"], id="rollback"),
        pytest.param(["revocation: {lease: 2s, quarantine: 1s}"], ["7: revocation.quarantine: shorter than `lease`: a node may be too late to put back the revocations it remembers"], id="short-quarantine"),
        pytest.param([SENTINEL], ["7: state: a failover may lose revocations; write `revocation: {expected_replicas: ...}`, how many the primary has"], id="sentinel"),
        pytest.param([SENTINEL, "revocation: {expected_replicas: 2}"], [], id="sentinel-with-replicas"),
        pytest.param([SENTINEL, "revocation: {expected_replicas: 0}"], [], id="sentinel-and-meant-so"),
        pytest.param(["revocation: {trust_durability: false, on_rollback: revoke_all, lease: 2s, quarantine: 2s}"], [], id="all-careful"),
    ],
)  # fmt: skip
def test_what_weakens_the_promise_is_warned_of(lines: list[str], warned: list[str]) -> None:
    assert warnings(site(*lines)) == warned
