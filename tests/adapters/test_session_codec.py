"""A session written down and read again; and records of other versions of this program."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.adapters.state_worlds import ALICE, HOME
from ztproxy.adapters.session_codec import (
    HandleRecord,
    facts_of,
    pack,
    pack_seen,
    pack_session,
    unpack_handle,
    unpack_secrets,
    unpack_seen,
    unpack_session,
)
from ztproxy.core.identity import Credential, Identity, Session, SessionSecrets, Step

text = st.text(max_size=20)
json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
identities = st.builds(
    Identity,
    text,
    text,
    st.none() | text,
    st.none() | text,
    st.none() | text,
    st.lists(text, max_size=4).map(tuple),
    st.dictionaries(text, json_values, max_size=4).map(MappingProxyType),
)
seconds = st.floats(0, 4e9)


@settings(max_examples=100)
@given(identities, st.lists(seconds, min_size=4, max_size=4), st.none() | text, st.integers(0, 2**40))
def test_what_is_packed_comes_back(
    identity: Identity, times: list[float], acr: str | None, revision: int
) -> None:
    created, authenticated, verified, expires = times
    session = Session(
        "id",
        identity,
        "p",
        created,
        authenticated,
        verified,
        expires,
        acr=acr,
        amr=("pwd",),
        rank=2,
        revision=revision,
        as_of=revision,
        device=acr,
        certificate=acr,
        fresh=revision % 2 == 0,
        steps=(Step(3, created), Step(2, expires)),
        idle=None if acr is None else verified,
    )
    assert unpack_session(pack_session(session), "id", revision) == session


@pytest.mark.parametrize("by", [Credential.TOKEN, Credential.CERTIFICATE])
def test_the_session_of_a_service_is_not_written_down(by: Credential) -> None:
    with pytest.raises(ValueError, match="not stored"):
        pack_session(replace(ALICE, by=by, scopes=frozenset({"read"})))


def test_a_record_that_says_it_is_of_a_service_is_read_as_a_persons_without_its_scopes() -> None:
    """There is none, and if there were, nothing it says of itself would count."""
    read = unpack_session(pack(replace(ALICE, by=Credential.TOKEN, scopes=frozenset({"all"}))), ALICE.id, 0)
    assert read == ALICE


def test_id_and_revision_are_not_believed_from_the_record() -> None:
    read = unpack_session(pack(replace(ALICE, id="forged", revision=99)), "real", 3)
    assert (read.id, read.revision) == ("real", 3)


def test_claims_are_read_only() -> None:
    read = unpack_session(pack(ALICE), "id", 0)
    with pytest.raises(TypeError):
        read.identity.claims["dept"] = "x"  # type: ignore[index]


def test_secrets_and_handles_come_back_and_hide_in_their_repr() -> None:
    secrets = SessionSecrets("refresh-1", "id-1")
    assert unpack_secrets(pack(secrets)) == secrets
    handle = HandleRecord(b"secret" * 5, "app.test")
    assert unpack_handle(pack(handle)) == handle
    assert "secret" not in repr(handle)


def test_facts_are_the_session_without_its_claims() -> None:
    facts = unpack_session(pack(facts_of(ALICE)), ALICE.id, 0)
    assert facts == replace(ALICE, identity=replace(ALICE.identity, claims=MappingProxyType({})))
    assert b"dept" not in pack(facts_of(ALICE))


@pytest.mark.parametrize(
    ("agent", "kept"),
    [
        pytest.param("", "", id="empty"),
        pytest.param("x" * 256, "x" * 256, id="just"),
        pytest.param("x" * 257, "x" * 256, id="too-long"),
        pytest.param("ÿ\0\r\n" * 1000, "ÿ\0\r\n" * 64, id="hostile"),
    ],
)
def test_a_place_comes_back_with_its_agent_cut(agent: str, kept: str) -> None:
    assert unpack_seen(pack_seen(HOME._replace(agent=agent))) == HOME._replace(agent=kept)


@pytest.mark.parametrize("raw", [b"", b"\xc1", msgspec.msgpack.encode({"address": "x"})])
def test_what_is_no_place_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError):
        unpack_seen(raw)


def test_a_field_of_a_newer_version_is_passed_over_and_one_of_an_older_is_its_default() -> None:
    stored = msgspec.msgpack.decode(pack(ALICE))
    stored["posture"] = {"disk": "good"}
    stored["identity"]["phone"] = "1"
    newer = ("certificate", "fresh", "steps", "idle", "by", "scopes")
    for name in ("rank", "refreshable", "as_of", "device", *newer):
        del stored[name]
    del stored["identity"]["claims"]
    read = unpack_session(msgspec.msgpack.encode(stored), ALICE.id, 0)
    plain = replace(ALICE.identity, claims=MappingProxyType({}))
    assert read == replace(ALICE, rank=1, refreshable=False, as_of=0, device=None, identity=plain)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x93\x01\x02\x03", id="array"),
        pytest.param(b"\xc1", id="never-msgpack"),
        pytest.param(msgspec.msgpack.encode({"identity": "alice"}), id="wrong-kind"),
        pytest.param(msgspec.msgpack.encode({"provider": "p"}), id="fields-missing"),
        pytest.param(pack(ALICE) + b"\x00", id="trailing-byte"),
        pytest.param(pack(ALICE)[:-1], id="cut"),
    ],
)
def test_what_is_no_session_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError):
        unpack_session(raw, "id", 0)
