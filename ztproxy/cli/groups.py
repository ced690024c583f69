"""Options that several commands share, declared once: alone, or as the fields of a dataclass.

Knows: how typer reads a command's parameters. Promises: a parameter whose type is a dataclass becomes one
option for each field, and the command gets the dataclass. Leaves what the fields mean to the dataclass.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import typer

AsJSON = Annotated[bool, typer.Option("--json", help="For programs: the API's answer, one to a line.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Reason = Annotated[str, typer.Option("--reason", help="For the record.", show_default=False)]
Message = Annotated[str, typer.Option("--message", help="For the person it meets.", show_default=False)]
Emergency = Annotated[bool, typer.Option("--emergency", help="Go on when the audit log cannot be written.")]


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command with its dataclass parameters spread out into their fields, for typer to read."""
    groups: dict[str, tuple[Any, list[str]]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind = parameter.annotation
        if not is_dataclass(kind):
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        hints = get_type_hints(kind, include_extras=True)
        groups[parameter.name] = (kind, [field.name for field in fields(kind)])
        parameters += [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=hints[field.name],
            )
            for field in fields(kind)
        ]

    def run(**given: Any) -> None:
        made = {
            name: kind(**{field: given.pop(field) for field in names})
            for name, (kind, names) in groups.items()
        }
        command(**given, **made)

    # INVARIANT: every field has a default, and no two groups of one command share a name.
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    vars(run)["__signature__"] = inspect.Signature(parameters)
    return run
