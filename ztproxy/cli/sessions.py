"""`ztproxy sessions`: list, show, revoke.

Knows: what of a session helps to recognise it. Promises: exit status 0 of `revoke` means that everything
asked for holds everywhere. Leaves whom to `aim`, and certainty to `admin_client`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from ztproxy.cli.admin_client import Answer, records, text
from ztproxy.cli.admin_door import Reach
from ztproxy.cli.aim import Aim, able_to_ask, agree, each, form_of, holds, matched, said
from ztproxy.cli.groups import AsJSON, Emergency, Reason, Yes, spread
from ztproxy.cli.tables import data, facts, table, when
from ztproxy.core.identity import JSON
from ztproxy.core.locks import Target

sessions = typer.Typer(no_args_is_help=True, help="List sessions, and revoke them.")

_COLUMNS = ("SESSION", "PERSON", "PROVIDER", "SIGNED IN", "LAST SEEN", "FROM", "ROUTE", "AGENT")


@sessions.command("list")
@spread
def list_(
    reach: Reach,
    user: Annotated[
        str, typer.Option("--user", metavar="TEXT", help="A part of the e-mail, name or subject.")
    ] = "",
    subject: Annotated[str, typer.Option("--subject", help="A person's `sub`, with `--issuer`.")] = "",
    issuer: Annotated[str, typer.Option("--issuer", metavar="URL", help="The provider it is of.")] = "",
    provider: Annotated[str, typer.Option("--provider", help="A provider's name.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many at most.")] = 50,
    as_json: AsJSON = False,
) -> None:
    """List sessions, newest first."""
    if bool(subject) != bool(issuer):
        raise typer.BadParameter("`--subject` and `--issuer` go together")
    whose = {"kind": "user", "name": subject, "issuer": issuer} if subject else {}
    pages = reach.client().pages("sessions", limit, text=user, provider=provider, **whose)
    found: list[Answer] = []
    cursor = ""
    for page in pages:
        found += records(page, "sessions")
        cursor = text(page, "next")
    if as_json:
        together: list[JSON] = [*found]
        typer.echo(data({"sessions": together, "next": cursor or None}))
        return
    if not found:
        typer.echo("no sessions", err=True)
        return
    for line in table(_COLUMNS, map(_row, found)):
        typer.echo(line)
    if cursor:
        typer.echo(f"these are the newest {len(found)}; `--limit` shows more", err=True)


@sessions.command()
@spread
def show(
    reach: Reach,
    id: Annotated[str, typer.Argument(metavar="SESSION", help="Its public id.")],
    as_json: AsJSON = False,
) -> None:
    """Show all that is known of a session."""
    if not id.strip():
        raise typer.BadParameter("the session's id is empty")
    found = reach.client().get("sessions", id)
    for line in [data(found)] if as_json else facts(found):
        typer.echo(line)


@sessions.command()
@spread
def revoke(
    reach: Reach,
    aim: Aim,
    reason: Reason = "",
    yes: Yes = False,
    emergency: Emergency = False,
    as_json: AsJSON = False,
) -> None:
    """End sessions, everywhere. Ends with 0 when it is confirmed that nobody is let in by them any more."""
    find = aim.targets()
    able_to_ask(yes)
    client = reach.client()
    targets = find(client)
    agree(client, targets, "End these sessions?", yes)
    form: dict[str, JSON] = {"reason": reason, "emergency": emergency}

    def end(target: Target) -> None:
        what = f"the revocation of {said(target)}"
        answer = client.change(what, "POST", "revocations", form={"target": form_of(target), **form})
        words = holds(answer, what)
        typer.echo(data(answer) if as_json else f"revoked {said(target)}: {matched(answer)}, {words}")

    each(targets, end)


def _row(session: Answer) -> list[JSON]:
    place = "seen" if session.get("seen") else "created_from"
    who = text(session, "user.email") or text(session, "user.username") or text(session, "user.subject")
    times = (when(text(session, name)) for name in ("created_at", "seen_at"))
    where = (text(session, f"{place}.{name}") for name in ("address", "route", "agent"))
    return [text(session, "id"), who, text(session, "provider"), *times, *where]
