"""`ztproxy tokens`: list, create, revoke the admin API's own tokens.

Promises: a secret is shown once, alone on standard output, so that it can be piped to where it is kept.
Leaves what a role may do to the API.
"""

from __future__ import annotations

from typing import Annotated

import typer

from ztproxy.cli.admin_client import Answer, records, text
from ztproxy.cli.admin_door import Reach
from ztproxy.cli.ends import For, end_of
from ztproxy.cli.groups import AsJSON, spread
from ztproxy.cli.tables import data, plain, table, when
from ztproxy.core.identity import JSON
from ztproxy.errors import OperatorError

tokens = typer.Typer(no_args_is_help=True, help="List, create and revoke tokens of the admin API.")

_COLUMNS = ("TOKEN", "NAME", "ROLE", "CREATED", "BY", "EXPIRES")


@tokens.command("list")
@spread
def list_(reach: Reach, as_json: AsJSON = False) -> None:
    """List the tokens that are good, without their secrets."""
    answer = reach.client().get("tokens")
    lines = [data(answer)] if as_json else table(_COLUMNS, map(_row, records(answer, "tokens")))
    for line in lines:
        typer.echo(line)


@tokens.command()
@spread
def create(
    reach: Reach,
    name: Annotated[str, typer.Argument(help="What the audit log calls whoever uses it.")],
    role: Annotated[str, typer.Option("--role", help="viewer, operator, admin or feed.")],
    length: For = None,
    as_json: AsJSON = False,
) -> None:
    """Create a token, for 90 days unless told otherwise, and print its secret this once."""
    if role not in ("viewer", "operator", "admin", "feed"):
        problem = "a role is `viewer`, `operator`, `admin` or `feed`"
        raise typer.BadParameter(problem, param_hint="--role")
    form: dict[str, JSON] = {"name": name, "role": role, **end_of(None, length)}
    answer = reach.client().change(f"the token `{plain(name)}`", "POST", "tokens", form=form)
    _warn(answer)
    secret, id = text(answer, "secret"), plain(text(answer, "token.id"))
    if not secret or not secret.isascii() or not secret.isprintable():
        # The API tells a secret once, and the answer that held it was lost on the way.
        problem = f"the token `{plain(name)}` was made, but its secret did not arrive"
        raise OperatorError(problem, f"`ztproxy tokens revoke {id}`, then make another")
    typer.echo(data(answer) if as_json else secret)
    expires = plain(when(text(answer, "token.expires_at")))
    typer.echo(f"token {id} ({plain(name)}, {role}) is good until {expires}; keep its secret", err=True)


@tokens.command()
@spread
def revoke(
    reach: Reach,
    id: Annotated[str, typer.Argument(metavar="TOKEN", help="Its id, from `ztproxy tokens list`.")],
    as_json: AsJSON = False,
) -> None:
    """Revoke a token: it opens nothing any more, from the next request on."""
    if not id.strip():
        raise typer.BadParameter("the token's id is empty")
    if id.startswith("ztp_"):
        # Not to be sent on: an id ends up in logs, a secret must not.
        raise typer.BadParameter("this is a secret, name the token by its id from `ztproxy tokens list`")
    answer = reach.client().change(f"the revocation of token `{plain(id)}`", "DELETE", "tokens", id)
    _warn(answer)
    typer.echo(data(answer) if as_json else f"revoked token {plain(id)}")


def _warn(answer: Answer) -> None:
    if answer.get("audit") == "late":
        typer.echo("warning: the audit log could not be written; its records of this wait", err=True)


def _row(token: Answer) -> list[JSON]:
    created, expires = when(text(token, "created_at")), when(text(token, "expires_at"))
    id, name, role, by = (text(token, one) for one in ("id", "name", "role", "created_by"))
    return [id, name, role, created, by, expires]
