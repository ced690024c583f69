"""`ztproxy revocation`: how revocation stands."""

from __future__ import annotations

import typer

from ztproxy.cli.admin_door import Reach
from ztproxy.cli.groups import AsJSON, spread
from ztproxy.cli.tables import data, report
from ztproxy.errors import OperatorError

revocation = typer.Typer(no_args_is_help=True, help="How revocation stands.")


@revocation.callback()
def _group() -> None:
    """Keeps `status` a command of its own: typer would make the only one the group itself."""


@revocation.command()
@spread
def status(reach: Reach, as_json: AsJSON = False) -> None:
    """Show the log's number, what each worker has applied, and what the store can promise."""
    answer = reach.client().get("revocation")
    stands = answer.get("revocation")
    if not isinstance(stands, dict):
        raise OperatorError("the answer has no `revocation`", "do the command and the server fit together?")
    for line in [data(answer)] if as_json else report(stands):
        typer.echo(line)
