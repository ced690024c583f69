"""The base of all models of the configuration.

Promises: a key nobody knows is refused, and what was read does not change. Leaves the kinds of value to
`values` and `names`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """The base of all models of the configuration: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def also(*forms: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Tells the JSON schema that a mapping has shorter forms as well."""

    def extend(schema: dict[str, Any]) -> None:
        mapping = dict(schema)
        schema.clear()
        schema["anyOf"] = [*forms, mapping]

    return extend
