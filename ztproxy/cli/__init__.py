"""The command line: `ztproxy run`, `check`, `explain`, `init`, `keys`, `schema` and `demo`.

Knows: which commands there are. Promises: what an operator did wrong is a line on standard error and exit
status 1, never a traceback; starting a small command loads no server. Leaves each command to its file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ztproxy import __version__
from ztproxy.cli.check import check
from ztproxy.cli.demo import demo
from ztproxy.cli.explain import explain
from ztproxy.cli.init import init
from ztproxy.cli.keys import keys
from ztproxy.cli.options import File
from ztproxy.errors import ZtproxyError


class _Border(TyperGroup):
    """The one `except` between our errors and the shell."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ZtproxyError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from None


main = typer.Typer(
    cls=_Border,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="An identity-aware reverse proxy: log in, judge every request, forward with a signed identity.",
)
main.command()(check)
main.command()(explain)
main.command()(init)
main.command()(demo)
main.add_typer(keys, name="keys")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"ztproxy {__version__}")
        raise typer.Exit


@main.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@main.command()
def run(file: File = Path("ztproxy.yaml")) -> None:
    """Serve, until told to stop (SIGTERM, Ctrl-C). SIGHUP loads the configuration again."""
    # Imported here, so that `ztproxy check` does not wait for a server to load.
    from ztproxy.cli.run import run as serve

    serve(file)


@main.command()
def schema() -> None:
    """Print the JSON schema of the configuration, for editors."""
    from ztproxy.config.schema import json_schema_text

    typer.echo(json_schema_text(), nl=False)
