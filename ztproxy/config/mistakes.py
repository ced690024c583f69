"""What an operator wrote wrong, all of it at once, each with its place and its mend.

Knows: how a mistake found anywhere in the configuration becomes one line `file:line: key: what is wrong, what
to write`. Promises: a value that came out of the environment is never quoted (it may be a secret). Leaves
finding mistakes to `source` (the text), `values` and the models (the shape) and `compile` (the sense).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from ztproxy.errors import OperatorError, Place

Loc = tuple[str | int, ...]
"""A way into the document: keys and list positions, from the top."""


class ConfigErrors(OperatorError):
    """Every mistake of one configuration, in the order of its lines; `errors` holds them one by one."""

    def __init__(self, errors: Iterable[OperatorError]) -> None:
        self.errors = tuple(
            sorted(dict.fromkeys(errors), key=lambda error: error.place.line if error.place else 0)
        )
        super().__init__("\n".join(str(error) for error in self.errors))


class FromEnv(str):
    """A value taken from the environment; `repr` and `quoted` show the variable's name and not what it
    holds."""

    variable: str

    def __new__(cls, value: str, variable: str) -> FromEnv:
        self = super().__new__(cls, value)
        self.variable = variable
        return self

    def __repr__(self) -> str:
        return f"${{{self.variable}}}"


class Places(Protocol):
    """What can say where a key stands (`source.Source`)."""

    def place(self, loc: Loc) -> Place: ...


class Findings:
    """What compiling comes upon: mistakes, which stop the load, and warnings, which do not."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self.errors: list[OperatorError] = []
        self.warnings: list[str] = []

    def wrong(self, loc: Loc, problem: str, mend: str = "") -> None:
        self.errors.append(OperatorError(problem, mend, self._places.place(loc)))

    def warn(self, loc: Loc, text: str) -> None:
        self.warnings.append(f"{self._places.place(loc)}: {text}")

    def line(self, loc: Loc) -> int:
        return self._places.place(loc).line


def quoted(value: object) -> str:
    """An operator's value as a message shows it: in backticks, in YAML's spelling, short; a path in full."""
    if isinstance(value, FromEnv):
        text = repr(value)
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, dict):
        return "a mapping"
    elif isinstance(value, list):
        return "a list"
    else:
        text = str(value)
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    short = isinstance(value, Path) or len(text) <= 80
    return f"`{text}`" if short else f"`{text[:77]}...`"


def wrong(problem: str, mend: str = "", key: str | None = None) -> PydanticCustomError:
    """To raise inside a validator; `key` names the entry below the one being validated."""
    context = {"problem": problem, "mend": mend, "key": key}
    return PydanticCustomError("ztproxy", "{problem}", context)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The mend of an unknown word: the nearest known one, else all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    near = near or [one for one in known if word and word in one]
    if near:
        return f"did you mean `{near[0]}`?"
    return "write one of " + ", ".join(f"`{one}`" for one in known)


def from_validation(error: ValidationError, top: type[BaseModel], places: Places) -> list[OperatorError]:
    """The mistakes in a pydantic error, in our words."""
    return [_one(detail, top, places) for detail in error.errors(include_url=False)]


_HINTS = {
    "allow_websockets": "write `upgrades: [websocket]`",
    "allow_spdy": "SPDY is not supported",
    "allowed_domains": "write a `policy`: `policy: [{allow: {domain: example.com}}]`",
    "allowed_users": "write a `policy`: `policy: [{allow: {email: alice@example.com}}]`",
    "allowed_groups": "write a `policy`: `policy: [{allow: {group: staff}}]`",
    "regex": "write `prefix` or `path`; regular expressions are not supported",
    "tls_skip_verify": "write `dangerous_tls_skip_verify`, which says what it is",
    "pass_identity_headers": "write `identity: {assertion: true}`, which is the default",
    "and": "write `all_of`",
    "or": "write `any_of`",
    "not": "write `none_of`",
    "nor": "write `none_of`",
    "idp_provider_url": "write `provider: {issuer: ...}`",
    "insecure_oidc_skip_nonce": "the nonce is always checked",
}


def _one(detail: ErrorDetails, top: type[BaseModel], places: Places) -> OperatorError:
    kind, loc, given = detail["type"], tuple(detail["loc"]), detail["input"]
    context: dict[str, Any] = detail.get("ctx", {})
    if kind == "ztproxy":
        if context["key"] is not None:
            loc += (context["key"],)
        return OperatorError(context["problem"], context["mend"], places.place(loc))
    if kind == "missing":
        place = places.place(loc[:-1])
        return OperatorError(f"the key `{loc[-1]}` is missing", f"add `{loc[-1]}: ...`", place)
    if kind == "extra_forbidden":
        key = str(loc[-1])
        mend = _HINTS.get(key) or did_you_mean(key, known_keys(top, loc[:-1]))
        return OperatorError(f"unknown key `{key}`", mend, places.place(loc))
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return OperatorError(
            f"{quoted(given)} is not a mapping", "write `key: value` lines", places.place(loc)
        )
    return OperatorError(f"{quoted(given)}: {detail['msg'].lower()}", "", places.place(loc))


def known_keys(top: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """The keys a mapping at `loc` may have, by walking the models' annotations."""
    model: type[BaseModel] | None = top
    for step in loc:
        if isinstance(step, int) or model is None:
            continue
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        model = _model_in(fields[step].annotation) if step in fields else None
    if model is None:
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for part in get_args(annotation):
        found = _model_in(part)
        if found is not None:
            return found
    return None
