"""`ztproxy check`: is this configuration good, and what does it say?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ztproxy.cli.options import File
from ztproxy.config import Settings, load
from ztproxy.explaining.words import summary


def check(
    file: File = Path("ztproxy.yaml"),
    no_files: Annotated[
        bool, typer.Option("--no-files", help="Do not look for the certificates and secrets it names.")
    ] = False,
) -> None:
    """Check a configuration and say in plain words who may open what. Ends with 1 if it cannot be used."""
    settings = load(file, look=not no_files)
    if settings.devices is not None and not no_files:
        from ztproxy.app.devices import see_that_files_hold  # takes its time to load

        see_that_files_hold(settings)
    for line in _said(settings):
        typer.echo(line)
    for warning in settings.warnings:
        typer.echo(f"warning: {warning}", err=True)
    count = len(settings.warnings)
    typer.echo(f"\n{file}: good" + (f", {count} warning{'s' if count > 1 else ''}" if count else ""))


def _said(settings: Settings) -> list[str]:
    lines = []
    for listener in settings.listeners:
        how = "redirects to https" if listener.redirect_to_https else "without TLS"
        if listener.tls is not None:
            how = f"TLS {listener.tls.min_version} or newer"
            if listener.tls.clients is not None:
                how += ", asks for client certificates"
        lines.append(f"listens on   {listener.address} ({how})")
    for provider in settings.providers:
        lines.append(f"signs in at  {provider.issuer} (client {provider.client_id})")
    if settings.auth_host is not None:
        lines.append(f"people meet  {settings.auth_host} to sign in")
    state = f"embedded, in {settings.state_dir}" if settings.state_url is None else "by URL"
    lines.append(f"keeps state  {state}")
    for route in settings.routes.routes:
        lines += ["", *summary(route)]
    return lines
