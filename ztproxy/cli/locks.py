"""`ztproxy locks`: list, add, lift.

Knows: what a lock is in words. Promises: exit status 0 of `add` means that the lock holds everywhere. Leaves
whom to `aim`, and certainty to `admin_client`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from ztproxy.cli.admin_client import Answer, records, text
from ztproxy.cli.admin_door import Reach
from ztproxy.cli.aim import Aim, able_to_ask, agree, each, form_of, holds, matched, said
from ztproxy.cli.ends import For, Until, end_of
from ztproxy.cli.groups import AsJSON, Emergency, Message, Reason, Yes, spread
from ztproxy.cli.tables import data, plain, table, when
from ztproxy.core.identity import JSON
from ztproxy.core.locks import Action, Target
from ztproxy.errors import OperatorError

locks = typer.Typer(no_args_is_help=True, help="List locks, add and lift them.")

_COLUMNS = ("LOCK", "ENTRY", "TARGET", "ACTION", "UNTIL", "MADE", "BY", "REASON")


@locks.command("list")
@spread
def list_(reach: Reach, as_json: AsJSON = False) -> None:
    """List the locks that stand and the revocations that are kept, newest first."""
    answer = reach.client().get("locks")
    if as_json:
        typer.echo(data(answer))
        return
    found = records(answer, "locks")
    for line in table(_COLUMNS, map(_row, found)) if found else []:
        typer.echo(line)
    if not found:
        typer.echo("no locks", err=True)


@locks.command()
@spread
def add(
    reach: Reach,
    aim: Aim,
    action: Annotated[Action, typer.Option("--action", help="What becomes of whom it meets.")] = Action.DENY,
    until: Until = None,
    length: For = None,
    message: Message = "",
    reason: Reason = "",
    yes: Yes = False,
    emergency: Emergency = False,
    as_json: AsJSON = False,
) -> None:
    """Add a lock. Ends with 0 when it is confirmed that it holds everywhere."""
    find, end = aim.targets(), end_of(until, length)
    if action is Action.DENY and not end:
        problem = "`deny` needs an end, `--until` or `--for`; `ztproxy sessions revoke` ends sessions"
        raise typer.BadParameter(problem)
    able_to_ask(yes)
    client = reach.client()
    targets = find(client)
    agree(client, targets, f"Add a lock of action {action}?", yes)
    form: dict[str, JSON] = {
        "action": str(action),
        "reason": reason,
        "message": message,
        "emergency": emergency,
        **end,
    }

    def lock(target: Target) -> None:
        what = f"the lock on {said(target)}"
        answer = client.change(what, "POST", "locks", form={"target": form_of(target), **form})
        words = holds(answer, what)
        name = f"lock {plain(text(answer, 'id'))} on {said(target)}"
        typer.echo(data(answer) if as_json else f"{name}: {matched(answer)}, {words}")

    each(targets, lock)


@locks.command()
@spread
def lift(
    reach: Reach,
    id: Annotated[str, typer.Argument(metavar="LOCK", help="Its id, from `ztproxy locks list`.")],
    reason: Reason = "",
    as_json: AsJSON = False,
) -> None:
    """Lift a lock. What was revoked stays revoked."""
    if not id.strip():
        raise typer.BadParameter("the lock's id is empty")
    what = f"the lift of lock `{plain(id)}`"
    answer = reach.client().change(what, "DELETE", "locks", id, reason=reason)
    if as_json:
        typer.echo(data(answer))
    if answer.get("confirmed") is not True:
        problem = f"{what} is in the log, but some may not have heard of it yet"
        raise OperatorError(problem, "`ztproxy revocation status` shows who")
    words = holds(answer, what)
    if not as_json:
        typer.echo(f"lifted lock {plain(id)}: {words}")


def _row(lock: Answer) -> list[JSON]:
    name, issuer = text(lock, "target.name"), text(lock, "target.issuer")
    target = " ".join(part for part in (text(lock, "target.kind"), name, issuer and f"of {issuer}") if part)
    action = "revoked" if lock.get("revokes") is True else text(lock, "action")
    times = (when(text(lock, name)) for name in ("until", "made_at"))
    why = (text(lock, name) for name in ("created_by", "reason"))
    return [text(lock, "id"), lock.get("number"), target, action, *times, *why]
