"""Options several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[Path, typer.Argument(envvar="ZTPROXY_CONFIG", metavar="FILE", help="The configuration.")]

Config = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="ZTPROXY_CONFIG", metavar="FILE", help="The configuration."),
]
