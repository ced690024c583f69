"""`ztproxy devices`: the inventory of devices: list, show, register, approve, lose, retire, import, report.

Knows: the files that inventories and feeds are exported to, and certificates in PEM. Promises: exit status 0
of `lost`, `retire` and `remove` means that the device is shut out and its sessions have ended everywhere; of
a file with a mistake nothing is taken in, and every mistake is named by its line. Leaves what the rows mean
to the API, and certainty to `admin_client`.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ztproxy.cli.admin_client import Answer, Client, Refused, records, text
from ztproxy.cli.admin_door import Reach
from ztproxy.cli.aim import able_to_ask, agree, holds, matched
from ztproxy.cli.groups import AsJSON, Reason, Yes, spread
from ztproxy.cli.tables import data, facts, plain, shown, table, when
from ztproxy.core.device import Status
from ztproxy.core.device_files import Placed, read_csv, read_json
from ztproxy.core.identity import JSON
from ztproxy.core.locks import Target, TargetKind
from ztproxy.core.posture import BadRow
from ztproxy.errors import OperatorError

devices = typer.Typer(no_args_is_help=True, help="Look after the inventory of devices.")

_COLUMNS = ("DEVICE", "STATUS", "NAME", "PLATFORM", "OWNERS", "CHANGED")
_PATIENCE = 600.0
"""Seconds for which an import may take; it is one request, however many rows."""

ID = Annotated[str, typer.Argument(metavar="DEVICE", help="Its id.")]
File = Annotated[
    Path, typer.Argument(metavar="FILE", help="The file, `-` for standard input.", allow_dash=True)
]


@devices.command("list")
@spread
def list_(
    reach: Reach,
    status: Annotated[Status | None, typer.Option("--status", help="Only those that stand so.")] = None,
    owner: Annotated[
        str, typer.Option("--owner", help="An owner: e-mail, subject or `issuer|subject`.")
    ] = "",
    search: Annotated[str, typer.Option("--text", help="A part of the id, the name or an owner.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many at most.")] = 1000,
    as_json: AsJSON = False,
) -> None:
    """List devices by id."""
    wanted = {"status": "" if status is None else str(status), "owner": owner, "text": search}
    found: list[Answer] = []
    cursor = ""
    for page in reach.client().pages("devices", limit, **wanted):
        found += records(page, "devices")
        cursor = text(page, "next")
    if as_json:
        together: list[JSON] = [*found]
        typer.echo(data({"devices": together, "next": cursor or None}))
        return
    for line in table(_COLUMNS, map(_row, found)) if found else []:
        typer.echo(line)
    if not found:
        typer.echo("no devices", err=True)
    if cursor:
        typer.echo(f"these are the first {len(found)}; `--limit` shows more", err=True)


@devices.command()
@spread
def show(reach: Reach, id: ID, as_json: AsJSON = False) -> None:
    """Show all that is known of a device: what was reported, by whom and when, and its sessions."""
    found = reach.client().get("devices", _named(id))
    if as_json:
        typer.echo(data(found))
        return
    device = found.get("device")
    for line in facts(device if isinstance(device, dict) else {}):
        typer.echo(line)
    sessions = records(found, "sessions")
    rows = [[text(one, "id"), text(one, "user.email") or text(one, "user.subject")] for one in sessions]
    for line in ["", *table(("SESSION", "PERSON"), rows)] if rows else []:
        typer.echo(line)


@devices.command()
@spread
def register(
    reach: Reach,
    id: ID,
    owner: Annotated[
        list[str] | None, typer.Option("--owner", help="Whose it is: e-mail, subject or `issuer|subject`.")
    ] = None,
    platform: Annotated[str | None, typer.Option("--platform", help="Like macos or windows.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="What people call it.")] = None,
    certificate: Annotated[
        list[str] | None,
        typer.Option("--certificate", metavar="FILE|FINGERPRINT", help="PEM, or its SHA-256 fingerprint."),
    ] = None,
    status: Annotated[Status | None, typer.Option("--status", help="pending, unless said.")] = None,
    reason: Reason = "",
    as_json: AsJSON = False,
) -> None:
    """Register a device, or change what is given. Options that are repeated replace the whole list."""
    prints: list[JSON] = [_fingerprint(one) for one in certificate or ()]
    owners: list[JSON] = [*(owner or ())]
    given: dict[str, JSON] = {
        "owners": owners or None,
        "platform": platform,
        "name": name,
        "certificates": prints or None,
        "status": None if status is None else str(status),
        "reason": reason or None,
    }
    form = {key: value for key, value in given.items() if value is not None}
    what = f"the registration of device `{plain(_named(id))}`"
    answer = reach.client().change(what, "PUT", "devices", id, form=form)
    _told(answer, what, f"{text(answer, 'outcome')} device {plain(id)}", as_json)


@devices.command()
@spread
def approve(reach: Reach, id: ID, reason: Reason = "", as_json: AsJSON = False) -> None:
    """Approve a device; also one that was lost or retired and is back."""
    _set(reach.client(), id, Status.APPROVED, reason, as_json)


@devices.command()
@spread
def pending(reach: Reach, id: ID, reason: Reason = "", as_json: AsJSON = False) -> None:
    """Take an approval back: the device is known, and waits."""
    _set(reach.client(), id, Status.PENDING, reason, as_json)


@devices.command()
@spread
def lost(reach: Reach, id: ID, reason: Reason = "", yes: Yes = False, as_json: AsJSON = False) -> None:
    """Shut a device out and end its sessions, everywhere."""
    _set(_agreed(reach, id, "Mark it lost and end these sessions?", yes), id, Status.LOST, reason, as_json)


@devices.command()
@spread
def retire(reach: Reach, id: ID, reason: Reason = "", yes: Yes = False, as_json: AsJSON = False) -> None:
    """Take a device out of use, as if it were lost."""
    _set(_agreed(reach, id, "Retire it and end these sessions?", yes), id, Status.RETIRED, reason, as_json)


@devices.command()
@spread
def remove(reach: Reach, id: ID, reason: Reason = "", yes: Yes = False, as_json: AsJSON = False) -> None:
    """Shut a device out, end its sessions and forget it. A lost one is better kept: forgotten is unknown."""
    client = _agreed(reach, id, "Forget it and end these sessions?", yes)
    answer = client.change(f"the removal of device `{plain(id)}`", "DELETE", "devices", id, reason=reason)
    _warn(answer)
    typer.echo(data(answer) if as_json else f"removed device {plain(id)}")


@devices.command("import")
@spread
def import_(
    reach: Reach,
    file: File,
    format: Annotated[
        str, typer.Option("--format", help="csv or json; default: as the file is called.", show_default=False)
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Import devices; none where a row is wrong. Importing the same again changes nothing."""
    format = format or ("json" if file.suffix == ".json" else "csv")
    if format not in ("csv", "json"):
        raise typer.BadParameter("a format is `csv` or `json`", param_hint="--format")
    placed = _placed(file, format)
    rows: list[JSON] = [_plain_row(one) for one in placed]
    answer = _sent(reach, file, placed, "import", {"rows": rows, "dry_run": dry_run})
    if as_json:
        typer.echo(data(answer))
        return
    counts = ", ".join(f"{shown(answer.get(name))} {name}" for name in ("created", "updated", "unchanged"))
    typer.echo(f"would be: {counts}" if dry_run else counts)
    held = answer.get("held")
    if isinstance(held, list) and held:
        typer.echo(f"lost or retired, and not brought back: {plain(', '.join(map(str, held)))}", err=True)


@devices.command()
@spread
def posture(reach: Reach, file: File, as_json: AsJSON = False) -> None:
    """Report posture from a file of JSON, `[{"device": ..., "facts": {...}}]`, under the token's name."""
    placed = _placed(file, "json")
    reports: list[JSON] = [_plain_row(one) for one in placed]
    answer = _sent(reach, file, placed, "posture", {"reports": reports})
    if as_json:
        typer.echo(data(answer))
        return
    typer.echo(f"reported on {shown(answer.get('devices'))} devices")
    unknown = answer.get("unknown")
    if isinstance(unknown, list) and unknown:
        more = f" and {shown(answer.get('more'))} more" if answer.get("more") else ""
        typer.echo(f"not in the inventory: {plain(', '.join(map(str, unknown)))}{more}", err=True)


# ── what the commands share ──


def _set(client: Client, id: str, status: Status, reason: str, as_json: bool) -> None:
    what = f"status `{status}` of device `{plain(_named(id))}`"
    form: dict[str, JSON] = {"status": str(status), "reason": reason}
    answer = client.change(what, "POST", "devices", id, "status", form=form)
    if status in (Status.LOST, Status.RETIRED) and not isinstance(answer.get("ended"), dict):
        raise OperatorError(f"the answer does not say that {what} is confirmed", "run this again")
    _told(answer, what, f"device {plain(id)} is {text(answer, 'device.status')}", as_json)


def _told(answer: Answer, what: str, words: str, as_json: bool) -> None:
    ended = answer.get("ended")
    if isinstance(ended, dict):
        words += f"; ended {matched(ended)}, {holds(ended, what)}"
    _warn(answer)
    typer.echo(data(answer) if as_json else plain(words))
    if answer.get("held") is True:
        status = plain(text(answer, "device.status"))
        typer.echo(f"it stays {status}; `ztproxy devices approve` brings it back", err=True)


def _warn(answer: Answer) -> None:
    if answer.get("audit") == "late":
        typer.echo("warning: the audit log could not be written; its records of this wait", err=True)


def _named(id: str) -> str:
    if not id.strip():
        raise typer.BadParameter("the device's id is empty")
    return id


def _agreed(reach: Reach, id: str, question: str, yes: bool) -> Client:
    target = Target(TargetKind.DEVICE, _named(id))
    able_to_ask(yes)
    client = reach.client()
    agree(client, [target], question, yes)
    return client


def _fingerprint(given: str) -> str:
    """The fingerprint itself, or that of the first certificate in a file (SHA-256 of its DER)."""
    file = Path(given)
    if not file.is_file():
        return given
    try:
        pem = file.read_text("ascii")
        begin, end = pem.index(ssl.PEM_HEADER), pem.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)
        der = ssl.PEM_cert_to_DER_cert(pem[begin:end])
    except (OSError, ValueError):
        problem = f"there is no certificate in `{file}`"
        raise OperatorError(problem, "name a file in PEM, or write the fingerprint") from None
    return hashlib.sha256(der).hexdigest()


def _placed(file: Path, format: str) -> list[Placed]:
    try:
        raw = typer.get_binary_stream("stdin").read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise OperatorError(f"`{file}` cannot be read: {(error.strerror or 'error').lower()}") from None
    try:
        return read_csv(raw) if format == "csv" else read_json(raw)
    except BadRow as bad:
        raise OperatorError(f"{file}: {bad}") from None


def _plain_row(placed: Placed) -> JSON:
    row: dict[str, JSON] = dict(placed.row)  # type: ignore[arg-type]  # it was read from JSON or text
    return row


def _sent(reach: Reach, file: Path, placed: Sequence[Placed], step: str, form: dict[str, JSON]) -> Answer:
    """The answer to all rows in one request. What is wrong is said by the places of the file."""
    client = reach.client()
    client.wait = max(client.wait, _PATIENCE)
    method = "POST" if step == "import" else "PUT"
    try:
        answer = client.change(f"`{plain(file)}`", method, "devices", step, form=form)
    except Refused as refused:
        mistakes = refused.document.get("mistakes")
        if not isinstance(mistakes, list) or not mistakes:
            raise
        for one in mistakes:
            where = _place(text(one, "place"), placed)
            typer.echo(f"{plain(file)}: {where}: {plain(text(one, 'text'))}", err=True)
        more = refused.document.get("more")
        typer.echo(f"and {more} more" if more else "nothing was taken in", err=True)
        raise typer.Exit(1) from None
    _warn(answer)
    return answer


def _place(place: str, placed: Sequence[Placed]) -> str:
    """`item 3` of what was sent is wherever the third row stands in the file."""
    number = place.removeprefix("item ")
    known = number.isascii() and number.isdigit() and 0 < int(number) <= len(placed)
    return placed[int(number) - 1].place if known else plain(place)


def _row(device: Answer) -> list[JSON]:
    named = [text(device, name) for name in ("id", "status", "name", "platform")]
    return [*named, device.get("owners"), when(text(device, "changed_at"))]
