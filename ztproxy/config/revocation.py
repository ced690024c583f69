"""How revocations reach everyone, as an operator writes it.

Promises: a lease that is neither too short to be kept nor too long to be of use; what only one kind of store
can promise is not asked of another; whatever weakens the promise is warned of. Leaves looking at the store
itself to the adapter.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ztproxy.config.mistakes import Findings, Loc
from ztproxy.config.model import Model
from ztproxy.config.settings import Revocation, Secret
from ztproxy.config.values import Duration, Flag, Whole, choice, duration_within

_AT: Loc = ("revocation",)


class RevocationModel(Model):
    """How soon a revocation holds everywhere, and what the store has to promise for that."""

    lease: Annotated[float, duration_within("500ms", "30s")] = Field(
        default=0.8, description="For how long anyone may go on without hearing of revocations."
    )
    quarantine: Duration = Field(
        default=1.0,
        description="How long nobody is let in after the store came back without its data; at least `lease`.",
    )
    expected_replicas: Whole = Field(
        default=0, description="How many copies a revocation must have (Sentinel)."
    )
    trust_durability: Flag = Field(
        default=False, description="Vouch that the store loses nothing, where it does not let us look."
    )
    on_rollback: Annotated[Literal["revoke_all", "continue"], choice("revoke_all", "continue")] = Field(
        default="revoke_all", description="What becomes of the sessions when the store is an older copy."
    )
    stream_grace: Duration = 10.0


def compile_revocation(model: RevocationModel, state: Secret | None, findings: Findings) -> Revocation:
    """`state` is the URL of the state as in `Settings`; an empty one was not read."""
    url = "embedded" if state is None else state.reveal()
    sentinel = url.startswith("redis+sentinel:")
    if model.expected_replicas and url and not sentinel:
        problem = "only the replicas of a `redis+sentinel://` state can be counted"
        findings.wrong((*_AT, "expected_replicas"), problem, "remove it")
    if sentinel and "expected_replicas" not in model.model_fields_set:
        how = "write `revocation: {expected_replicas: ...}`, how many the primary has"
        findings.warn(("state",), f"a failover may lose revocations; {how}")
    if model.trust_durability:
        text = "if the store loses a write after all, whoever was revoked by it is let in again"
        findings.warn((*_AT, "trust_durability"), text)
    if model.on_rollback == "continue":
        text = "sessions ended since the store's older copy was made may be open again"
        findings.warn((*_AT, "on_rollback"), text)
    quarantine = model.quarantine
    if "quarantine" not in model.model_fields_set:
        quarantine = max(quarantine, model.lease)
    elif quarantine < model.lease:
        # Whoever still has a lease notices within it that the store is another, and gives back what it knows.
        text = "shorter than `lease`: a node may be too late to put back the revocations it remembers"
        findings.warn((*_AT, "quarantine"), text)
    return Revocation(
        model.lease,
        quarantine,
        model.expected_replicas,
        model.trust_durability,
        model.on_rollback,
        model.stream_grace,
    )
