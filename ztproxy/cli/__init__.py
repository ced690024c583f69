"""The command line: `ztproxy run`, `check`, `explain`, `init`, `keys`, `audit`, `schema` and `demo`; and what
asks a running ztproxy by its admin API: `sessions`, `locks`, `devices`, `tokens`, `revocation`, `admin` and
`console`.

Knows: which commands there are. Promises: what an operator did wrong is a line on standard error and exit
status 1, never a traceback; starting a small command loads no server. Leaves each command to its file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ztproxy import __version__
from ztproxy.cli.admin import admin
from ztproxy.cli.audit import audit
from ztproxy.cli.ca import ca
from ztproxy.cli.check import check
from ztproxy.cli.console import console
from ztproxy.cli.demo import demo
from ztproxy.cli.device import device
from ztproxy.cli.devices import devices
from ztproxy.cli.explain import explain
from ztproxy.cli.init import init
from ztproxy.cli.keys import keys
from ztproxy.cli.locks import locks
from ztproxy.cli.options import File
from ztproxy.cli.revocation import revocation
from ztproxy.cli.sessions import sessions
from ztproxy.cli.tokens import tokens
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
main.add_typer(audit, name="audit")
main.add_typer(sessions, name="sessions")
main.add_typer(locks, name="locks")
main.add_typer(tokens, name="tokens")
main.add_typer(revocation, name="revocation")
main.add_typer(admin, name="admin")
main.command()(console)
main.add_typer(ca, name="ca")
main.add_typer(device, name="device")
main.add_typer(devices, name="devices")


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
