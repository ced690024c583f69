"""Bearer tokens for this very API: list, make, revoke. For admins alone.

Knows: how a token is shown. Promises: a secret is shown once, in the answer that made it, and is kept
nowhere: not for a repeat of the request, not in the audit log. Leaves keeping hashes to the token store.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from ztproxy.core.identity import JSON
from ztproxy.gateway.ports.administration import LONGEST_TOKEN_SECONDS, TOKEN_SECONDS, AdminToken, Role
from ztproxy.surfaces.admin.asked import Asked
from ztproxy.surfaces.admin.bodies import Form, Nothing, Shape
from ztproxy.surfaces.admin.desk import Desk
from ztproxy.surfaces.admin.problems import Kind, Problem
from ztproxy.surfaces.admin.times import Moment, Seconds, end_of, moment

# INVARIANT: no colon, so that a token cannot be named like a provider or a certificate in the audit log.
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]


class TokenForm(Form, frozen=True):
    """`name` is what the audit log calls whoever uses it. The end is `until` or `expires_in` seconds (90
    days)."""

    name: Name
    role: Role
    until: Moment | msgspec.UnsetType = msgspec.UNSET
    expires_in: Seconds | msgspec.UnsetType = msgspec.UNSET


class TokenShown(Shape, frozen=True):
    """A token without its secret."""

    id: str
    name: str
    role: Role
    created_by: str
    created_at: datetime
    expires_at: datetime


class TokensShown(Shape, frozen=True):
    """All tokens that are good."""

    tokens: tuple[TokenShown, ...]


class TokenMade(Shape, frozen=True):
    """`secret` is shown this once; a repeat of the request answers without it."""

    token: TokenShown
    audit: Literal["written", "late"]
    secret: str | msgspec.UnsetType = msgspec.UNSET

    def kept(self) -> TokenMade:
        return TokenMade(token=self.token, audit=self.audit)


class TokenRevoked(Shape, frozen=True):
    """The token opens nothing any more, from the next request on."""

    id: str
    audit: Literal["written", "late"]


async def list_tokens(desk: Desk, asked: Asked[Nothing]) -> TokensShown:
    return TokensShown(tokens=tuple(map(shown, await desk.tokens.all())))


async def create_token(desk: Desk, asked: Asked[TokenForm]) -> TokenMade:
    form, now = asked.form, desk.clock()
    end = end_of(form.until, form.expires_in, now) or now + TOKEN_SECONDS
    if any(one.name == form.name for one in await desk.tokens.all()):
        raise Problem(Kind.CONFLICT, "there is a token of this name; the audit log could not tell them apart")
    wanted: dict[str, JSON] = {"role": form.role, "until": end}
    await asked.record.intent(f"token:{form.name}", wanted)
    secret, token = await desk.tokens.create(
        form.name, form.role, min(end - now, LONGEST_TOKEN_SECONDS), asked.caller.name
    )
    await asked.record.outcome("done", {"id": token.id, **wanted})
    return TokenMade(token=shown(token), audit="late" if asked.record.late else "written", secret=secret)


async def revoke_token(desk: Desk, asked: Asked[Nothing]) -> TokenRevoked:
    found = [one for one in await desk.tokens.all() if one.id == asked.id]
    if not found:
        raise Problem(Kind.NOT_FOUND, "there is no such token")
    before: dict[str, JSON] = {"id": asked.id, "role": found[0].role, "until": found[0].expires_at}
    await asked.record.intent(f"token:{found[0].name}", {"before": before})
    await desk.tokens.revoke(asked.id)
    await asked.record.outcome("done", {"id": asked.id})
    return TokenRevoked(id=asked.id, audit="late" if asked.record.late else "written")


def shown(token: AdminToken) -> TokenShown:
    return TokenShown(
        id=token.id,
        name=token.name,
        role=token.role,
        created_by=token.created_by,
        created_at=moment(token.created_at),
        expires_at=moment(token.expires_at),
    )
