"""`ztproxy console`: a link that opens the admin console in a browser, once."""

from __future__ import annotations

import typer

from ztproxy.cli.admin_client import text
from ztproxy.cli.admin_door import Reach
from ztproxy.cli.groups import AsJSON, spread
from ztproxy.cli.tables import data
from ztproxy.errors import OperatorError


@spread
def console(reach: Reach, as_json: AsJSON = False) -> None:
    """Print a link that opens the console once, within two minutes. It is a secret."""
    client = reach.client()
    if client.door.path is not None:
        problem = f"the admin API is at `{client.door.name}`, and a browser opens no unix socket"
        raise OperatorError(problem, "write `admin: 127.0.0.1:9901` in the configuration and restart ztproxy")
    # Asked once: a repeat would be answered without the link.
    answer = client.post("console-links", form={})
    path = text(answer, "path")
    # INVARIANT: the link stays at the listener that was asked, whatever the answer says.
    if not path.startswith("/console/") or not path.isascii() or not path.isprintable():
        raise OperatorError("the answer has no link", "do the command and the server fit together?")
    typer.echo(data(answer) if as_json else f"{client.door.name}{path}")
