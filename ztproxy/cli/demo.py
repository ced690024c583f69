"""`ztproxy demo`: everything at once on this machine, to look at; `--check`: the same, walked and judged.

Promises: one Ctrl-C ends it all, and nothing is left behind. Leaves starting the parts to `ztproxy.demo`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ztproxy.demo.running import Demo

DEFAULT_PORT, DEFAULT_TLS_PORT = 8080, 8443


def demo(
    check: Annotated[
        bool, typer.Option("--check", help="Walk the main stories on free ports, then end with 0 or 1.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Where to listen. [default: 8080; with --check a free one]"),
    ] = None,
    tls_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Where to listen with TLS. [default: 8443; with --check or another --port a free one]",
        ),
    ] = None,
) -> None:
    """ztproxy in front of two demo apps, with a demo identity provider; one Ctrl-C ends it all."""
    if check:
        work, if_told = _check(port, tls_port), 130  # a check that was broken off has not succeeded
    else:
        tls_port = DEFAULT_TLS_PORT if port is None and tls_port is None else tls_port
        work, if_told = _show(DEFAULT_PORT if port is None else port, tls_port), 0
    raise typer.Exit(asyncio.run(_until_told(work, if_told)))


async def _until_told(work: Coroutine[None, None, int], if_told: int) -> int:
    """The work's result, or `if_told` when a signal ended it early; its parts have then ended too."""
    task = asyncio.ensure_future(work)
    told = False

    def end() -> None:
        # INVARIANT: once only. A second Ctrl-C must not interrupt the clearing up, which takes bounded time.
        nonlocal told
        if not told:
            told = True
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end)
    try:
        return await task
    except asyncio.CancelledError:
        return if_told


async def _show(port: int, tls_port: int | None) -> int:
    from ztproxy.demo.running import running

    typer.echo("starting ...")
    async with running(port, tls_port) as demo:
        for line in _said(demo):
            typer.echo(line)
        await demo.proxy.wait()
        typer.echo(f"the proxy ended by itself:\n{demo.last_words()}", err=True)
        return 1


async def _check(port: int | None, tls_port: int | None) -> int:
    from ztproxy.demo.running import running
    from ztproxy.demo.stories import STORIES
    from ztproxy.demo.telling import walk_all

    failed = walked = 0
    async with running(port, tls_port) as demo:
        async for story, seen in walk_all(demo, STORIES):
            walked += 1
            failed += bool(seen)
            typer.echo(f"FAIL  {story.told}\n      {seen}" if seen else f"ok    {story.told}")
        if failed:
            typer.echo(f"\nthe proxy's last words:\n{demo.last_words()}")
    typer.echo(f"\n{walked - failed} of {walked} stories happened as told")
    return 1 if failed else 0


def _said(demo: Demo) -> list[str]:
    from ztproxy.demo.people import ONE_TIME_CODE
    from ztproxy.demo.setting import SERVICE_ID

    site, directory = demo.site, demo.directory
    command = sys.argv[0] if Path(sys.argv[0]).name == "ztproxy" else "ztproxy"
    apps = (
        ("home", "alice, bob, carol: shows what the app receives"),
        ("live", "alice, bob, carol: a WebSocket and a stream of events"),
        ("finance", "bob, who is in finance, with a one-time code"),
        ("admin", "carol, an administrator, with a security key, on an enrolled device"),
        ("payroll", "bob, on an approved device in good order"),
        ("api", "the CI job with an access token; alice may look"),
        ("console", "carol, with a one-time code; alice may look: who is signed in, and what ends it"),
        ("public", "everyone; /private only alice, who is in engineering"),
    )
    width = max(len(site.origin(name)) for name, _ in apps) + 2
    return [
        "",
        f"{'open':<{width}}who may",
        *(f"{site.origin(name):<{width}}{who}" for name, who in apps),
        "",
        "mallory may sign in and open nothing but public. Signed in at one host, you are signed in at all;",
        f"{site.origin('login')}/.ztproxy/apps lists what you may open and lets you sign out.",
        "",
        "to sign in, choose a person and a way on the provider's page; the password is the person's name,",
        f"the one-time code {ONE_TIME_CODE}. A security key is your own, or a virtual one of the browser's",
        "developer tools, registered at its first use. What vouches for https is a CA of this demo alone, so",
        "go past the browser's warning.",
        "",
        "for admin, enrol your device as carol with a one-time code, import device.p12, open admin anew:",
        f"  {command} device enroll {site.bare_tls} --p12 \\",
        f"    --ca-file {demo.authority} --directory {directory}/device",
        f"or get a file at {site.origin('login')}/.ztproxy/devices. What bob enrols waits for",
        f"`{command} devices approve`, and payroll for `{command} devices posture`.",
        "",
        f"{'configuration':<15}{demo.config}",
        f"{'CA of https':<15}{demo.authority}",
        f"{'decisions':<15}tail -f {directory}/decisions.log",
        f"{'requests':<15}tail -f {directory}/access.log",
        f"{'the proxy':<15}{directory}/proxy.log",
        f"{'audit':<15}{command} audit show --config {demo.config}",
        f"{'metrics':<15}http://127.0.0.1:{demo.operations}/metrics",
        f"{'provider':<15}{demo.issuer}",
        "",
        f"{'try':<15}{command} explain --config {demo.config} \\",
        f"{'':<15}  --url {site.origin('finance')}/ --user alice@example.com --group engineering",
        f"{'':<15}{command} sessions list --config {demo.config}",
        f"{'':<15}{command} sessions revoke --user alice@example.com --config {demo.config}",
        f"{'a CI job':<15}curl -u {SERVICE_ID}:$(cat {directory}/service-secret) \\",
        f"{'':<15}  -d grant_type=client_credentials {demo.issuer}/token",
        f"{'':<15}then curl -H 'Authorization: Bearer ...' {site.origin('api')}/json",
        "",
        "Tried with Chromium; Chrome, Edge and Firefox know these names too. Ctrl-C ends everything.",
    ]
