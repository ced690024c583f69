"""How often something may be asked, as an operator writes it: `100/s`, or a mapping with `burst` too.

Promises: as `values`. Leaves what is counted, and who counts, to `core.rates` and `gateway.rates`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ztproxy.config.mistakes import Findings, Loc, quoted, wrong
from ztproxy.config.model import Model, also
from ztproxy.config.settings import Limits
from ztproxy.config.values import Flag, Kind, choice
from ztproxy.core.rates import By, Rate, RateLimit

_PERIODS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_MOST = 1_000_000
_LEAST_BURST = 10


def _rate(value: object) -> Rate:
    found = re.fullmatch(r"([0-9]{1,9})/([smh])", value) if isinstance(value, str) else None
    if found is None:
        mend = "write a number and a time, like `100/s`, `600/m` or `1000/h`"
        raise wrong(f"{quoted(value)} is not a rate", mend)
    most = int(found[1])
    if not 0 < most <= _MOST:
        mend = f"write a number from `1` to `{_MOST}`" + ("" if most else ", or `off` where that is allowed")
        raise wrong(f"{quoted(value)} is not a rate", mend)
    period = _PERIODS[found[2]]
    # What one second gives; for slow rates as much as a browser sends at once, if there is as much at all.
    return Rate(most, period, max(int(most / period), min(most, _LEAST_BURST)))


def _burst(value: object) -> int:
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 0 < int(text) <= _MOST:
        raise wrong(f"{quoted(value)} is not a burst", f"write a number from `1` to `{_MOST}`")
    return int(text)


_TEXT = {"type": "string", "pattern": r"^([0-9]+/[smh]|\$\{.+\})$"}
_NUMBER = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^\$\{.+\}$"}]}


class RateModel(Model):
    """How often, and how often at once."""

    model_config = ConfigDict(json_schema_extra=also(_TEXT))

    rate: Annotated[Rate, Kind(_rate, **_TEXT)]
    burst: Annotated[int, Kind(_burst, **_NUMBER)] | None = Field(
        default=None, description="How many at once. Default: what one second gives, 10 at least."
    )

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"rate": value} if isinstance(value, str | int | float) else value

    @property
    def whole(self) -> Rate:
        return self.rate if self.burst is None else self.rate._replace(burst=self.burst)


class RateLimitModel(RateModel):
    """How often a route may be asked."""

    model_config = ConfigDict(json_schema_extra=None)

    by: Annotated[str, choice(*(one.value for one in By))]
    exact: Flag = Field(default=False, description="Count in the state, for all workers of all nodes.")


def compile_limits(model: BaseModel) -> Limits:
    """`model` has the keys of `Limits`, some of them rates."""
    written: dict[str, Any] = {
        name: value.whole if isinstance(value, RateModel) else value for name, value in model
    }
    return Limits(**written)


def compile_rates(models: Sequence[RateLimitModel], loc: Loc, findings: Findings) -> tuple[RateLimit, ...]:
    """The limits of one route."""
    for index, model in enumerate(models):
        again = [other for other in models[:index] if other.by == model.by and other.rate == model.rate]
        if again:
            findings.wrong(
                (*loc, index), f"`{model.by}` has this very rate already", "remove one, or change it"
            )
    return tuple(RateLimit(By(one.by), one.whole, one.exact) for one in models)
