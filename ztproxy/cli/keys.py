"""`ztproxy keys`: make the key file, and rotate it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

keys = typer.Typer(no_args_is_help=True, help="Make and rotate the file with ztproxy's own keys.")

KeyFile = Annotated[Path, typer.Argument(metavar="FILE", help="The key file.")]


@keys.command()
def new(file: KeyFile) -> None:
    """Write a file with fresh keys, mode 0600; never over an existing one."""
    from ztproxy.adapters.keys import fresh_keys, write_private

    write_private(file, fresh_keys())
    typer.echo(f"wrote {file}; keep it secret, and the same on every node")


@keys.command()
def rotate(file: KeyFile) -> None:
    """Bring the next keys into use and make new ones for the time after. Nobody is signed out."""
    from ztproxy.adapters.keys import KeyRing, rotate, write_private

    KeyRing.load(file)  # refuses a file others can read before anything is written
    write_private(file, rotate(file.read_text(encoding="utf-8"), str(file)), replace=True)
    typer.echo(f"rotated {file}; copy it to every node, then reload ztproxy (SIGHUP)")
