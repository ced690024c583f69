"""Options declared once for many commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from ztproxy.cli.groups import spread

SEEN: list[object] = []


@dataclass(frozen=True)
class Where:
    host: Annotated[str, typer.Option("--host", help="The host of it.")] = "localhost"
    ids: Annotated[list[str] | None, typer.Argument()] = None


@spread
def command(where: Where, loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
    """Do something there."""
    SEEN.append((where, loud))


def test_a_group_becomes_options_and_comes_back_as_one_value() -> None:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, ["--host", "there", "--loud", "a", "b"])
    assert result.exit_code == 0, result.output
    assert SEEN.pop() == (Where("there", ["a", "b"]), True)
    assert CliRunner().invoke(app, []).exit_code == 0
    assert SEEN.pop() == (Where(), False)
    told = CliRunner().invoke(app, ["--help"]).stdout
    assert "The host of it." in told and "Do something there." in told
    assert CliRunner().invoke(app, ["--port", "1"]).exit_code == 2
