"""`ztproxy admin`: reload, and who one is to the admin API."""

from __future__ import annotations

import typer

from ztproxy.cli.admin_client import text
from ztproxy.cli.admin_door import Reach
from ztproxy.cli.groups import AsJSON, spread
from ztproxy.cli.tables import data, facts, plain

admin = typer.Typer(no_args_is_help=True, help="Ask a running ztproxy to load its configuration again.")


@admin.command()
@spread
def reload(reach: Reach, as_json: AsJSON = False) -> None:
    """Load the configuration again, as SIGHUP does, and say what came of it."""
    answer = reach.client().change("the new configuration", "POST", "reload", form={})
    typer.echo(data(answer) if as_json else plain(text(answer, "result")))


@admin.command()
@spread
def whoami(reach: Reach, as_json: AsJSON = False) -> None:
    """Say who one is to the admin API, and in which role."""
    answer = reach.client().get("whoami")
    for line in [data(answer)] if as_json else facts(answer):
        typer.echo(line)
