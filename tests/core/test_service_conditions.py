"""What is asked about services, with people among them."""

from __future__ import annotations

import pytest

from tests.core.words import ISSUER, asked, person, session
from ztproxy.core.conditions import HOLDS, LOGIN, Fails, Not, Source
from ztproxy.core.identity import Credential
from ztproxy.core.reasons import Reason
from ztproxy.core.service_conditions import HasScopes, IsPerson, ServiceIs

CI = "spiffe://corp.test/ci/runner"
OTHER, UNCOVERED = Fails((Reason.SERVICE_MISMATCH,)), Fails((Reason.SCOPE_MISSING,))


def known(subject="backup", by=Credential.TOKEN, *scopes: str):
    return session(identity=person(subject=subject), by=by, scopes=frozenset(scopes))


def service(*names: str, spiffe: tuple[str, ...] = ()) -> ServiceIs:
    return ServiceIs(frozenset(names), spiffe)


COVERED = HasScopes(frozenset({"read", "write"}))
CERTIFICATE, COOKIE, TOKEN = Credential.CERTIFICATE, Credential.COOKIE, Credential.TOKEN


@pytest.mark.parametrize(
    ("condition", "who", "answer"),
    [
        pytest.param(service("backup"), known(), HOLDS, id="by-subject"),
        pytest.param(service(f"{ISSUER}|backup"), known(), HOLDS, id="by-issuer-and-subject"),
        pytest.param(service("https://b.test|backup"), known(), OTHER, id="of-another-issuer"),
        pytest.param(
            service("https://b.test|backup"), known("https://b.test|backup"), OTHER, id="T10-posing-subject"
        ),
        pytest.param(service("backup"), known("Backup"), OTHER, id="case"),
        pytest.param(service("backup"), known(by=COOKIE), OTHER, id="a-person-of-that-name"),
        pytest.param(
            service(spiffe=("spiffe://corp.test/ci/*",)), known(CI, CERTIFICATE), HOLDS, id="spiffe"
        ),
        pytest.param(
            service(spiffe=("spiffe://a.test/x", CI)), known(CI, CERTIFICATE), HOLDS, id="one-of-several"
        ),
        pytest.param(
            service(spiffe=("spiffe://corp.test/cd/*",)), known(CI, CERTIFICATE), OTHER, id="elsewhere"
        ),
        pytest.param(service(spiffe=(CI,)), known(CI, TOKEN), OTHER, id="a-token-that-says-so"),
        pytest.param(service(spiffe=(CI,)), known(CI, COOKIE), OTHER, id="a-person-called-so"),
        pytest.param(service(CI), known(CI, CERTIFICATE), HOLDS, id="a-certificate-by-its-subject"),
        pytest.param(COVERED, known("b", TOKEN, "read", "write", "x"), HOLDS, id="scopes"),
        pytest.param(COVERED, known("b", TOKEN, "read"), UNCOVERED, id="one-scope-of-two"),
        pytest.param(COVERED, known("b", TOKEN, "READ", "write"), UNCOVERED, id="scopes-have-case"),
        pytest.param(COVERED, known("b", CERTIFICATE), UNCOVERED, id="a-certificate-has-no-scopes"),
        pytest.param(COVERED, known("b", COOKIE, "read", "write"), UNCOVERED, id="nor-has-a-person"),
        pytest.param(HasScopes(frozenset()), known(by=COOKIE), UNCOVERED, id="no-scopes-are-still-a-token"),
        pytest.param(IsPerson(), known(by=COOKIE), HOLDS, id="person"),
        pytest.param(IsPerson(), known(), Fails((Reason.USER_MISMATCH,)), id="token"),
        pytest.param(IsPerson(), known(by=CERTIFICATE), Fails((Reason.USER_MISMATCH,)), id="certificate"),
    ],
)
def test_about_a_service(condition, who, answer) -> None:
    assert condition.ask(asked(who)) == answer
    opposite = Not(condition).ask(asked(who))
    assert opposite == (Fails((Reason.RULE_DENIED,)) if answer == HOLDS else HOLDS)
    assert condition.ask(asked(None)) == Not(condition).ask(asked(None)) == LOGIN
    assert condition.reads == {Source.SESSION}
