"""`ztproxy audit`: is the audit log whole, and what is in it?

Knows: how files that were moved away follow each other. Promises: exit status 0 only when every record of
every file given fits, and the last of them is the newest this node remembers, where it remembers any. Leaves
what a whole chain is to `core.audit`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ztproxy.cli.options import Config
from ztproxy.core.audit import Broken, ChainKeys, Kind, Link, Verified, read, verify_chain
from ztproxy.errors import OperatorError

audit = typer.Typer(no_args_is_help=True, help="Verify and read the audit log.")

Files = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[FILE]...", help="The files, oldest first; .gz too. Else the configured one."),
]
Keys = Annotated[
    list[Path] | None,
    typer.Option("--keys", metavar="FILE", help="A key file, also an older one; may be given again."),
]


@audit.command()
def verify(files: Files = None, config: Config = Path("ztproxy.yaml"), keys: Keys = None) -> None:
    """Say whether the log is whole, how far it goes, and else which line is the first that does not fit."""
    from ztproxy.adapters.audit_log import last_known
    from ztproxy.adapters.keys import KeyRing

    named, files = bool(files), files or [_configured(config)]
    rings = [KeyRing.load(path) for path in keys or [_keys_file(config)]]
    ring = ChainKeys([key for ring in rings for key in ring.records])
    known = last_known(files[-1])  # before the file is read, for it may grow meanwhile
    link: Link | None = None
    for file in files:
        found = verify_chain(_lines(file, named), ring, link)
        if isinstance(found, Broken):
            _fail(f"{file}:{found.line}: {found.why}")
        typer.echo(f"{file}: {_told(found)}")
        if found.records:
            link = found.link
    if known is not None and known.number > (link.number if link else 0):
        newest = f"record {link.number}" if link else "no record"
        _fail(f"{files[-1]}: ends with {newest}, but this node wrote record {known.number}")
    if link is not None:
        typer.echo(f"last record {link.number}, hash {link.hash}")


@audit.command()
def show(
    files: Files = None,
    config: Config = Path("ztproxy.yaml"),
    since: Annotated[str, typer.Option(metavar="TIME", help="From this time on, like 2026-11-22T10.")] = "",
    actor: Annotated[str, typer.Option(help="Of this actor only.")] = "",
    action: Annotated[str, typer.Option(help="Actions that begin so only, like lock.")] = "",
) -> None:
    """List events, oldest first, without looking whether they are true."""
    for file in files or [_configured(config)]:
        for line in _lines(file, bool(files)):
            record = read(line)
            if record is None or record.kind is not Kind.EVENT or record.time < since:
                continue
            said = record.fields
            if actor in ("", said.get("actor")) and str(said.get("action")).startswith(action):
                typer.echo(f"{record.link.number} {_plain(record.time)} {_event(said)}")


def _configured(config: Path) -> Path:
    from ztproxy.config import load

    return load(config, look=False).log.audit


def _keys_file(config: Path) -> Path:
    from ztproxy.config import load

    return load(config, look=False).keys_file


def _lines(file: Path, named: bool) -> Iterator[bytes]:
    """The lines of a file; of the configured one also where it is not there, because nothing happened yet."""
    if not named and not file.exists():
        return
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            yield from opened
    except (OSError, EOFError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise OperatorError(f"`{file}` cannot be read: {said.lower()}") from None


def _told(found: Verified) -> str:
    if found.begins is None:
        return "no records" + (", but a line that was cut short" if found.cut else "")
    before = found.link.number - found.records
    begins = "from the beginning" if found.begins is Kind.START else f"after record {before}"
    parts = [f"{found.records} records {begins}", f"{found.first} to {found.last}"]
    if found.late:
        parts.append(f"{found.late} written late")
    if found.cuts:
        parts.append(f"{found.cuts} times cut short by a crash and closed off")
    if found.cut:
        parts.append("the last line is cut short and not closed off yet")
    return ", ".join(parts)


def _event(said: Any) -> str:
    words = [_plain(said.get(name, "")) for name in ("actor", "action", "outcome", "target")]
    detail = json.dumps(said["detail"], separators=(",", ":")) if said.get("detail") else ""
    return " ".join(word for word in [*words, detail] if word)


def _plain(text: Any) -> str:
    """Text that moves no cursor: what is not printable is shown as JSON escapes it."""
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in str(text))


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)
