"""The field of a challenge, `WWW-Authenticate`: what to come back with.

Knows: RFC 6750 3 for services with a token, RFC 9470 3 for a sign-in that is too weak or too old, and our own
scheme for people. A 401 needs a challenge (RFC 9110 11.6.1), and `Basic` would make browsers ask for a
password, while `Bearer` or `Cookie` would promise people a way in that there is not: for them it is
`Ztproxy`. Promises: what is said names errors and what is asked for, nothing of the input. Leaves the body to
`answers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from ztproxy.core.assurance import Levels
from ztproxy.core.decision import StepUp
from ztproxy.core.identity import Credential, Session
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Field, Request
from ztproxy.core.routes import Services
from ztproxy.core.service_tokens import shows_bearer

_PEOPLE, _TOKENS, _CERTIFICATES = (
    'Ztproxy realm="sign-in"',
    'Bearer realm="services"',
    'Ztproxy realm="services"',
)


class Challenge(NamedTuple):
    """A status, its fields, and what of them the body repeats: scripts cannot read this field of an answer
    from elsewhere."""

    status: int
    fields: tuple[Field, ...]
    told: dict[str, str | int]


def _challenge(status: int, scheme: str, params: Mapping[str, str]) -> Challenge:
    """With its parameters, after that of the realm, as quoted strings (RFC 9110 5.6.4)."""
    quoted = {name: value.replace("\\", "\\\\").replace('"', '\\"') for name, value in params.items()}
    written = ", ".join([scheme, *(f'{name}="{value}"' for name, value in quoted.items())])
    told: dict[str, str | int] = {name: params[name] for name in ("acr_values", "scope") if name in params}
    if "max_age" in params:
        told["max_age"] = int(params["max_age"])
    return Challenge(status, ((b"WWW-Authenticate", written.encode("ascii")),), told)


TO_PEOPLE: Final = _challenge(401, _PEOPLE, {}).fields[0]
"""Sign in; where is in the body."""

TO_SERVICES: Final = _challenge(401, _TOKENS, {}).fields[0]
"""Come with a token."""


def is_a_services(request: Request, services: Services, session: Session | None) -> bool:
    """Whether a request on a route with `services` is a service's: by what it shows, or because nobody else
    may come. It gets no page, no redirect and no cookie, whatever it says it accepts."""
    if not services.people or shows_bearer(request, services):
        return True
    return session is not None and session.by is not Credential.COOKIE


def to_a_script(levels: Levels, step: StepUp) -> Challenge:
    """To the script of a person whose sign-in is too weak or too old."""
    return _challenge(401, _PEOPLE, _lacks(levels, step))


def to_a_service(
    levels: Levels, request: Request, services: Services, reason: Reason, step: StepUp | None
) -> Challenge:
    """RFC 6750 3.1: the error is named where a token was shown, and not where none was."""
    bearer, scheme = shows_bearer(request, services), _TOKENS if services.issuers else _CERTIFICATES
    said = {"error": "invalid_token", "error_description": reason.sentence}
    if step is not None:
        # Nobody can sign in more strongly with a certificate: that is a refusal, and no challenge.
        return _challenge(401, scheme, _lacks(levels, step)) if bearer else Challenge(403, (), {})
    if reason is Reason.SCOPE_MISSING:
        said["error"] = "insufficient_scope"
        if services.scopes:
            said["scope"] = " ".join(sorted(services.scopes))
    elif reason is Reason.CREDENTIALS_MIXED:
        said["error"] = "invalid_request"
    elif reason.status != 401:
        return Challenge(reason.status, (), {})
    return _challenge(reason.status, scheme, said if bearer else {})


def _lacks(levels: Levels, step: StepUp) -> dict[str, str]:
    """RFC 9470 3. `acr_values` is left out where the configuration has no string for the rank, or only
    strings that a field cannot hold."""
    lacks = {"error": "insufficient_user_authentication", "error_description": step.reasons[0].sentence}
    values = [one for one in levels.acr_values_for(step.rank) if one.isascii() and one.isprintable()]
    if values:
        lacks["acr_values"] = " ".join(values)
    if step.max_age is not None:
        lacks["max_age"] = str(int(step.max_age))
    return lacks
