"""`ztproxy device`: enrol the device one is on, and renew its certificate.

Knows: the flow of `gateway.enrolment` from the tool's side, and how browsers take in a certificate. Promises:
the key is made here and sent nowhere; whoever runs it sees the code that the page in the browser shows;
a refusal is exit status 1 and a line that says why. Leaves files and questions to `device_files`.
"""

from __future__ import annotations

import secrets
import signal
import socket
import sys
import time
import webbrowser
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn
from urllib.parse import urlencode

import typer

from ztproxy.errors import OperatorError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from ztproxy.cli.device_files import DeviceFiles, Server

device = typer.Typer(no_args_is_help=True, help="Enrol the device you are on, and renew its certificate.")

PATIENCE = 600.0
"""Seconds for the person to sign in and confirm."""
_PAUSE, _LONGEST_PAUSE = 60.0, 3600.0
_PLATFORMS = {"darwin": "macos", "win32": "windows"}

Directory = Annotated[
    Path, typer.Option("--directory", metavar="DIR", help="Where the key and the certificate are kept.")
]
P12 = Annotated[bool, typer.Option("--p12", help="Also write device.p12 for browsers; asks for a password.")]
_DIRECTORY = Path("~/.config/ztproxy/device")


@device.command()
def enroll(
    server: Annotated[str, typer.Argument(metavar="URL", help="Like https://app.corp.example.")],
    name: Annotated[
        str | None, typer.Option(help="What the device is called.", show_default="its host name")
    ] = None,
    directory: Directory = _DIRECTORY,
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", "--ca", metavar="FILE", help="The authority of a private server."),
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the page to open.")] = False,
    p12: P12 = False,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", help="How long you may take to confirm.")
    ] = PATIENCE,
) -> None:
    """Enrol this device: makes a key, has you vouch for the device in a browser, and gets its certificate.

    The key never leaves the directory. Compare the code it prints with that on the page before you confirm.
    """
    from ztproxy.adapters.device_ca import request_for
    from ztproxy.cli.device_files import DeviceFiles, Server
    from ztproxy.cli.loopback import Loopback
    from ztproxy.gateway.enrolment import challenge_of, short_code

    asked = Server(_origin(server), None if ca_file is None else str(ca_file.absolute()))
    called = (name or socket.gethostname())[:64]
    files = DeviceFiles(directory.expanduser())
    password = _password() if p12 else None
    private = files.begin(asked)
    try:
        state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        challenge = challenge_of(verifier)
        with Loopback(state) as loopback:
            told = {
                "port": str(loopback.port),
                "state": state,
                "challenge": challenge,
                "name": called,
                "platform": _PLATFORMS.get(sys.platform, "linux"),
            }
            page = f"{asked.origin}/.ztproxy/devices/enroll?{urlencode(told)}"
            typer.echo(f"the page must show this code: {short_code(challenge)}")
            typer.echo(f"open in a browser on this device:\n{page}")
            if not no_browser:
                webbrowser.open(page)
            ticket = loopback.wait(wait)
        if ticket is None:
            raise OperatorError("nobody confirmed in time", "run it again, or give it longer with `--wait`")
        csr = request_for(private)
        answer = asked.post("certificate", {"ticket": ticket, "verifier": verifier, "csr": csr})
    except BaseException as error:
        # Where the answer was lost on its way the server knows this key, and `renew` gets the certificate.
        if not getattr(error, "sent", False):
            files.forget()
        raise
    if not files.keep(asked, answer, private):
        typer.echo(f"enrolled as {answer['device']}; somebody has to approve it")
        typer.echo(f"then get its certificate: ztproxy device renew --directory {files.directory}")
        return
    typer.echo(f"enrolled as {answer['device']}, certificate until {_end(files)}")
    _packed(files, private, answer["device"], password)
    typer.echo(_advice(files, asked))


@device.command()
def renew(
    directory: Directory = _DIRECTORY,
    now: Annotated[bool, typer.Option("--now", help="Also if the certificate is good for longer.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, until SIGTERM or Ctrl-C.")] = False,
    p12: P12 = False,
) -> None:
    """Renew the certificate when less than a third of its life is left, or get the first after approval.

    Browsers keep what they imported: with `--p12`, import the new file. Programs that read device.pem have
    the new one at once.
    """
    from ztproxy.cli.device_files import DeviceFiles

    files = DeviceFiles(directory.expanduser())
    if watch and p12:
        raise typer.BadParameter("`--watch` cannot ask for a password")
    password = _password() if p12 else None
    if watch:
        signal.signal(signal.SIGTERM, _end_of_watch)
        try:
            _keep_renewing(files, now)
        except KeyboardInterrupt:
            return
    if not _renewed(files, now):
        raise typer.Exit(1)
    if password is not None:
        server, id, private = files.load()
        _packed(files, private, id, password)
        typer.echo(_advice(files, server))


@device.command()
def status(directory: Directory = _DIRECTORY) -> None:
    """Show what this device is enrolled as, and until when its certificate is good."""
    from ztproxy.cli.device_files import DeviceFiles, is_due

    files = DeviceFiles(directory.expanduser())
    server, id, _ = files.load()
    typer.echo(f"device       {id or '-'}\nserver       {server.origin}")
    certificate = files.current()
    if certificate is None:
        typer.echo("certificate  none yet")
        raise typer.Exit(1)
    typer.echo(f"certificate  until {_end(files)}")
    if certificate.not_valid_after_utc.timestamp() <= time.time():
        typer.echo("             it has expired: run `ztproxy device renew`")
        raise typer.Exit(1)
    if is_due(certificate, time.time()):
        typer.echo("             it is due: run `ztproxy device renew`")


def _renewed(files: DeviceFiles, at_once: bool) -> bool:
    """Renews if it is time to, and says what came of it; False where the device waits for approval."""
    from ztproxy.adapters.device_ca import request_for
    from ztproxy.cli.device_files import is_due

    server, _, private = files.load()
    certificate = None if at_once else files.current()
    if certificate is not None and not is_due(certificate, time.time()):
        typer.echo(f"the certificate is good until {_end(files)}")
        return True
    answer = server.post("renew", {"csr": request_for(private)})
    if not files.keep(server, answer, private):
        typer.echo(f"{answer['device']} waits for approval")
        return False
    typer.echo(f"renewed, until {_end(files)}")
    return True


def _keep_renewing(files: DeviceFiles, at_once: bool) -> NoReturn:
    """INVARIANT: a server that says no for good ends it; one that is away, or asks for patience, does not."""
    from ztproxy.cli.admin_http import Unreachable
    from ztproxy.cli.device_files import Refused

    pause = _PAUSE
    while True:
        wait = _LONGEST_PAUSE
        try:
            waits = not _renewed(files, at_once)
            at_once, pause = False, _PAUSE
            wait = _PAUSE if waits else _until_due(files)
        except (Unreachable, Refused) as error:
            if isinstance(error, Refused) and not error.wait:
                raise
            typer.echo(str(error), err=True)
            wait, pause = pause, min(2 * pause, _LONGEST_PAUSE)
        time.sleep(wait)


def _until_due(files: DeviceFiles) -> float:
    """Seconds to sleep. An hour at most: a laptop sleeps too, and its clock runs on."""
    certificate = files.current()
    assert certificate is not None  # it was just renewed, or is good for longer
    began, ends = (
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )
    left = ends - (ends - began) / 3 - time.time()
    if left <= 0:
        # Else the server would be asked for one certificate a minute.
        typer.echo("the certificate is new, and due by the clock of this device: is that right?", err=True)
        return _LONGEST_PAUSE
    return min(left + 1.0, _LONGEST_PAUSE)


def _end_of_watch(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _origin(text: str) -> str:
    from ztproxy.config.values import is_loopback, origin_argument

    origin = origin_argument("URL", text, "https://app.corp.example")
    # The demo's own origin is one without TLS: on this machine nobody is on the way.
    if origin.scheme != "https" and not is_loopback(origin.host):
        raise OperatorError(f"`{origin}` has no TLS, and so no certificates", "write `https://`")
    return str(origin)


def _password() -> str:
    from ztproxy.gateway.enrolment import LEAST_PASSWORD, is_password

    password: str = typer.prompt(
        f"A password for device.p12 ({LEAST_PASSWORD} characters or more)",
        hide_input=True,
        confirmation_prompt=True,
        err=True,
    )
    if not is_password(password):
        raise OperatorError("the password is too short, or not plain ASCII", "choose another one")
    return password


def _packed(files: DeviceFiles, private: ec.EllipticCurvePrivateKey, id: str, password: str | None) -> None:
    if password is not None:
        files.pack(private, id, password)
        typer.echo(f"wrote {files.p12}; import it, then delete it")


def _end(files: DeviceFiles) -> str:
    certificate = files.current()
    if certificate is None:
        return "-"
    return certificate.not_valid_after_utc.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _advice(files: DeviceFiles, server: Server) -> str:
    """How programs on this platform come to use it."""
    lines = [f"curl      curl --cert {files.certificate} --key {files.key} {server.origin}/"]
    p12 = files.p12
    if not p12.exists():
        lines.append("browsers  run `ztproxy device renew --now --p12` in a minute, and import device.p12")
        return "\n".join(lines)
    lines.append("firefox   Settings, Privacy & Security, View Certificates, Your Certificates, Import")
    match sys.platform:
        case "darwin":
            lines.append(f"others    security import {p12} -k ~/Library/Keychains/login.keychain-db")
        case "win32":
            lines.append(f"others    certutil -user -importpfx {p12}")
        case _:
            lines.append(f"chrome    pk12util -d sql:$HOME/.pki/nssdb -i {p12}")
    return "\n".join(lines)
