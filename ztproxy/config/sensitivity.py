"""How long, and how strong, a sign-in must be for a route, as an operator writes it.

Knows: the labels, and what each stands for. Promises: each value can be written out instead; what nobody
could meet, or what contradicts an open route, is a mistake. Leaves judging to `core.sessions`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from ztproxy.config.assurance import Level, reachable_rank
from ztproxy.config.mistakes import Findings, Loc
from ztproxy.config.model import Model, also
from ztproxy.config.values import DurationOrOff, Flag, choice
from ztproxy.core.assurance import Levels
from ztproxy.core.policy import Policy
from ztproxy.core.reasons import Reason
from ztproxy.core.routes import Sensitivity

_LABELS = {
    "standard": Sensitivity(),
    "public": Sensitivity("public", 3600.0, 86400.0, 1),
    "internal": Sensitivity("internal", 1800.0, 28800.0, 2),
    "confidential": Sensitivity("confidential", 900.0, 7200.0, 2, fresh=True),
    "restricted": Sensitivity("restricted", 600.0, 3600.0, 3, fresh=True),
    "pipeline": Sensitivity("pipeline", None),
}


class SensitivityModel(Model):
    """A label, and what differs from it."""

    model_config = ConfigDict(json_schema_extra=also({"enum": list(_LABELS)}))

    label: Annotated[str, choice(*_LABELS)] = "standard"
    least_rank: Level | None = Field(default=None, description="The least level of the sign-in.")
    fresh: Flag | None = Field(
        default=None, description="Whether each session begins with a sign-in of its own at that level."
    )
    verified_within: Annotated[DurationOrOff, Field(description="Since the provider last vouched.")] = None
    signed_in_within: Annotated[DurationOrOff, Field(description="Since the person signed in.")] = None

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"label": value} if isinstance(value, str) else value


def compile_sensitivity(
    written: SensitivityModel | None, policy: Policy, loc: Loc, levels: Levels, findings: Findings
) -> Sensitivity:
    """For the route at `loc` with this policy."""
    if written is None:
        return Sensitivity()
    base = _LABELS[written.label]
    verified = "verified_within" in written.model_fields_set
    signed_in = "signed_in_within" in written.model_fields_set
    at = (*loc, "sensitivity")
    least = written.least_rank if written.least_rank is not None else base.rank
    chosen = Sensitivity(
        base.name,
        written.verified_within if verified else base.verified_within,
        written.signed_in_within if signed_in else base.signed_in_within,
        reachable_rank(least, at, levels, findings),
        written.fresh if written.fresh is not None else base.fresh,
    )
    public = any(rule.grant is Reason.PUBLIC_ROUTE for rule in policy.rules)
    if public and chosen.rank > 1:
        problem = f"a public route cannot ask for rank {chosen.rank}"
        findings.wrong(at, problem, "write `sensitivity: public` or say who may open it")
    elif public and chosen.fresh:
        problem = "a public route cannot ask for a sign-in of its own"
        findings.wrong(at, problem, "leave out `fresh` or say who may open it")
    return chosen
