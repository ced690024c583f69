"""Whom a command is aimed at: one kind of selector, made sure of before anything is sent.

Knows: the options that select, and that people know an e-mail where a lock needs issuer and subject.
Promises: a selector that is empty, missing or doubled is an error of usage, and nothing was sent; what will
be met is shown and agreed to first. Leaves the change to the command.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from ztproxy.cli.admin_client import Answer, Client, records, text
from ztproxy.cli.tables import plain, shown
from ztproxy.core.conditions import ascii_lower
from ztproxy.core.identity import JSON
from ztproxy.core.locks import ALL, Target, TargetKind
from ztproxy.errors import OperatorError, ZtproxyError

_PANEL = "Whom"
_PAGE = 200


def _selects(name: str, help: str, metavar: str | None = None) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        name, help=help, metavar=metavar, rich_help_panel=_PANEL, show_default=False
    )
    return option


@dataclass(frozen=True, slots=True)
class Aim:
    """The options that select; exactly one kind of them is given."""

    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[SESSION]...", help="Public ids of sessions.")
    ] = None
    user: Annotated[str | None, _selects("--user", "Who has this e-mail and a session.", "EMAIL")] = None
    subject: Annotated[str | None, _selects("--subject", "A person's `sub`, with `--issuer`.")] = None
    idp_session: Annotated[
        str | None, _selects("--idp-session", "The provider's `sid`, with `--issuer`.", "SID")
    ] = None
    issuer: Annotated[str | None, _selects("--issuer", "The provider it is of.", "URL")] = None
    device: Annotated[str | None, _selects("--device", "A device's id.")] = None
    group: Annotated[str | None, _selects("--group", "Everybody in a group.")] = None
    route: Annotated[str | None, _selects("--route", "A route, whoever comes there.")] = None
    everybody: Annotated[bool, _selects("--all", "Everybody.")] = False

    def targets(self) -> Callable[[Client], list[Target]]:
        """What is aimed at, once there is somebody to ask. Raises an error of usage before that."""
        given: dict[str, Sequence[str]] = {"a session's id": self.ids or ()}
        named = ("user", "subject", "idp_session", "device", "group", "route")
        given |= {
            f"`--{name.replace('_', '-')}`": (value,)
            for name in named
            if (value := getattr(self, name)) is not None
        }
        given |= {"`--all`": ("all",)} if self.everybody else {}
        chosen = [name for name, values in given.items() if values]
        if not chosen:
            raise typer.BadParameter("say whom: a session's id, `--user`, `--group`, `--all`, ...")
        if len(chosen) > 1:
            raise typer.BadParameter(f"{' and '.join(chosen)} are several ways to say whom, give one")
        if any(not value.strip() for value in given[chosen[0]]):
            raise typer.BadParameter(f"{chosen[0]} is empty")
        issuer = self._issuer()
        if self.user is not None:
            email = self.user
            return lambda client: persons(client, email, issuer)
        targets = list(dict.fromkeys(self._plainly(issuer)))
        return lambda client: targets

    def _issuer(self) -> str:
        whose = self.subject is not None or self.idp_session is not None
        if whose and not (self.issuer or "").strip():
            raise typer.BadParameter("whose is it? add `--issuer URL`")
        if self.issuer is not None and not whose and self.user is None:
            raise typer.BadParameter("`--issuer` goes with `--user`, `--subject` or `--idp-session`")
        return self.issuer or ""

    def _plainly(self, issuer: str) -> Iterable[Target]:
        if self.everybody:
            return [ALL]
        if self.subject is not None:
            return [Target(TargetKind.USER, self.subject, issuer)]
        if self.idp_session is not None:
            return [Target(TargetKind.IDP_SESSION, self.idp_session, issuer)]
        for kind, name in (
            (TargetKind.DEVICE, self.device),
            (TargetKind.GROUP, self.group),
            (TargetKind.ROUTE, self.route),
        ):
            if name is not None:
                return [Target(kind, name)]
        return [Target(TargetKind.SESSION, id) for id in self.ids or ()]


def persons(client: Client, email: str, issuer: str = "") -> list[Target]:
    """Everybody with a session and this e-mail (of this issuer): several providers may each vouch for one.
    Raises `OperatorError` when there is nobody."""
    found: dict[Target, None] = {}
    cursor = ""
    while True:
        page = client.get("sessions", text=email, limit=str(_PAGE), cursor=cursor)
        for one in records(page, "sessions"):
            person = Target(TargetKind.USER, text(one, "user.subject"), text(one, "user.issuer"))
            same = ascii_lower(text(one, "user.email")) == ascii_lower(email)
            if same and person.name and person.issuer and issuer in ("", person.issuer):
                found[person] = None
        last, cursor = cursor, text(page, "next")
        if cursor in ("", last):
            break
    if not found:
        problem = f"nobody with the e-mail `{plain(email)}` has a session"
        raise OperatorError(problem, "name the person with `--subject` and `--issuer`")
    return list(found)


def said(target: Target) -> str:
    """What is aimed at, in words."""
    match target.kind:
        case TargetKind.ALL:
            return "everybody"
        case TargetKind.USER | TargetKind.IDP_SESSION:
            name = "person" if target.kind is TargetKind.USER else "session at the provider"
            return f"{name} `{plain(target.name)}` of {plain(target.issuer)}"
        case _:
            return f"{target.kind} `{plain(target.name)}`"


def form_of(target: Target) -> dict[str, JSON]:
    form: dict[str, JSON] = {"kind": str(target.kind), "name": target.name, "issuer": target.issuer}
    return {name: value for name, value in form.items() if value}


def matched(answer: Answer) -> str:
    """How many sessions, in words."""
    number = answer.get("matched")
    if not isinstance(number, int):
        return "an unknown number of sessions"
    words = "1 session" if number == 1 else f"{number} sessions"
    return words if answer.get("exact") is True else f"about {words}"


def holds(answer: Answer, what: str) -> str:
    """How what is `confirmed` holds, in words. Raises `OperatorError` for an answer that does not say so."""
    if answer.get("confirmed") is not True:
        raise OperatorError(f"the answer does not say that {what} is confirmed", "run this again")
    if answer.get("audit") == "late":
        typer.echo("warning: the audit log could not be written; its records of this wait", err=True)
    took = f"entry {shown(answer.get('number'))}, {shown(answer.get('topology'))}"
    return f"confirmed everywhere in {shown(answer.get('seconds'))} s ({took})"


def able_to_ask(yes: bool) -> None:
    """Before anything is sent: where nobody can be asked, `--yes` says it."""
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("this is no terminal to ask at, so say `--yes`")


def agree(client: Client, targets: Iterable[Target], question: str, yes: bool) -> None:
    """Shows whom it would meet, and asks. Ends the command when the answer is no."""
    if yes:
        return
    for target in targets:
        dry = client.post("revocations", form={"target": form_of(target), "dry_run": True})
        typer.echo(f"{said(target)}: {matched(dry)}", err=True)
    if not typer.confirm(question, err=True):
        typer.echo("nothing was done", err=True)
        raise typer.Exit(1)


def each(things: Iterable[Target], change: Callable[[Target], None]) -> None:
    """Every change is tried, for those that can be made are better made; the command fails if one did."""
    failed = False
    for one in things:
        try:
            change(one)
        except ZtproxyError as error:
            typer.echo(str(error), err=True)
            failed = True
    if failed:
        raise typer.Exit(1)
