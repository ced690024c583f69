"""A provider as the sign-in sees it: whom to ask, and what its word is worth.

Knows: that a word counts only when signature, claims and userinfo agree. Promises: userinfo is asked only
once the ID token was accepted. Leaves the asking to `IdentityProvider` and the judging to `core.claims`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ztproxy.core.claims import Accepted, ClaimRules, Expectation, accept
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError
from ztproxy.gateway.ports import Clock, IdentityProvider, Tokens


@dataclass(frozen=True, slots=True)
class Provider:
    """One configured provider. `rules.issuer` and `rules.client_id` are those of `client`; `asks_by` is how
    it wants to be asked for a stronger sign-in (OpenID Connect Core 3.1.2.1 `acr_values`, 5.5.1.1
    `claims`)."""

    client: IdentityProvider
    rules: ClaimRules
    asks_by: Literal["acr_values", "claims", "both"] = "acr_values"

    async def vouch(self, tokens: Tokens, expected: Expectation, clock: Clock) -> Accepted:
        """Who these tokens are about. The clock is read after each answer, for an answer may take seconds."""
        if tokens.id_token is None:
            raise ClientError(Reason.LOGIN_TOKEN, "token: no id token")
        claims = await self.client.verify(tokens.id_token)
        accepted = accept(self.rules, claims, expected, clock())
        info = await self.client.userinfo(tokens.access_token)
        return accepted if info is None else accept(self.rules, claims, expected, clock(), info)
