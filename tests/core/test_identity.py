"""The values a login leaves behind: frozen, keyed by issuer and subject, and silent about secrets."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from tests.core.words import person, session
from ztproxy.core.identity import Identity, SessionSecrets


@pytest.mark.parametrize(
    ("value", "field"),
    [
        pytest.param(person(), "groups", id="identity"),
        pytest.param(session(), "rank", id="session"),
        pytest.param(SessionSecrets("r", "i"), "refresh_token", id="secrets"),
    ],
)
def test_frozen(value, field) -> None:
    before = getattr(value, field)
    with pytest.raises(FrozenInstanceError):
        setattr(value, field, None)
    assert getattr(value, field) == before


def test_claims_are_read_only_and_not_shared() -> None:
    one, other = Identity("https://idp.test", "a"), Identity("https://idp.test", "b")
    with pytest.raises(TypeError):
        one.claims["admin"] = True  # type: ignore[index]
    assert dict(one.claims) == {} == dict(other.claims)


def test_the_same_subject_at_another_issuer_is_somebody_else() -> None:
    assert person(issuer="https://idp.test") != person(issuer="https://evil.test")


def test_a_session_is_no_stronger_than_the_weakest_sign_in_unless_said() -> None:
    who = session()
    assert (who.rank, who.acr, who.amr, who.refreshable, who.revision) == (1, None, (), False, 0)


def test_secrets_never_show() -> None:
    secrets = SessionSecrets(refresh_token="r3fresh", id_token="h.p.s")
    for text in (repr(secrets), str(secrets), f"{secrets}", f"{[secrets]}"):
        assert "r3fresh" not in text
        assert "h.p.s" not in text
    assert (secrets.refresh_token, secrets.id_token) == ("r3fresh", "h.p.s")
