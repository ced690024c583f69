"""`ztproxy init`: four answers become a first configuration, commented, with fresh keys beside it.

Promises: nothing that exists is overwritten, and what it writes passes `ztproxy check` once the certificate
and the client secret are there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ztproxy.config.values import Origin, is_loopback, origin_argument
from ztproxy.errors import OperatorError

_TEMPLATE = """\
# ztproxy: who may open what. Check it with `ztproxy check {name}`, ask it with
# `ztproxy explain --config {name} --user alice@example.com --url {public}/`.

# Where clients connect, and the certificate they are shown.
listen: {listen}
{tls}
# Who signs people in. Register {public}/.ztproxy/callback/default there as the redirect URI.
provider:
  issuer: {issuer}
  client_id: {client_id}
  client_secret_file: {secret}

routes:
  - from: {public}
    to: {app}
    # Everyone this provider signs in. To narrow it, replace the line with, for example:
    #   policy: [{{allow: {{domain: example.com}}}}, {{deny: {{group: contractors}}}}]
    allow_any_authenticated_user: true

# ztproxy's own keys (mode 0600, the same on every node), and where the embedded state is kept.
keys_file: {keys}
state_dir: state

# Health, readiness and metrics, for this machine alone.
operations: 127.0.0.1:9090

# The admin API is the socket state/admin.sock, for the user ztproxy runs as; `admin` puts it elsewhere.
"""


def init(
    app: Annotated[str, typer.Option(prompt="The app's own URL", help="Like http://127.0.0.1:3000.")],
    public: Annotated[
        str, typer.Option(prompt="The URL people will open", help="Like https://app.example.com.")
    ],
    issuer: Annotated[str, typer.Option(prompt="The OpenID provider's issuer", help="Its URL.")],
    client_id: Annotated[str, typer.Option(prompt="The client id registered there", help="Its name there.")],
    client_secret_file: Annotated[
        str, typer.Option(help="The file with the client's secret.")
    ] = "client-secret",  # noqa: S107  (a file's name)
    listen: Annotated[str | None, typer.Option(help="Where to listen.")] = None,
    certificate: Annotated[str, typer.Option(help="The certificate chain, PEM.")] = "cert.pem",
    key: Annotated[str, typer.Option(help="Its private key, PEM.")] = "key.pem",
    output: Annotated[Path, typer.Option("--output", "-o", help="The configuration to write.")] = Path(
        "ztproxy.yaml"
    ),
) -> None:
    """Write a first configuration and fresh keys. Asks what is not given as an option."""
    from ztproxy.adapters.keys import fresh_keys, write_private
    from ztproxy.config import parse

    seen = origin_argument("--public", public, "https://app.example.com")
    behind = origin_argument("--app", app, "http://127.0.0.1:3000")
    keys_file = output.with_name("keys.yaml")
    for path in (output, keys_file):
        if path.exists():
            raise OperatorError(
                f"`{path}` exists already", "move it away, or write elsewhere with `--output`"
            )
    secure = seen.scheme == "https"
    tls = f"tls: {{certificate: {_quoted(certificate)}, key: {_quoted(key)}}}\n" if secure else ""
    text = _TEMPLATE.format(
        name=output.name,
        public=seen,
        app=behind,
        issuer=_quoted(issuer),
        client_id=_quoted(client_id),
        secret=_quoted(client_secret_file),
        listen=listen or _listen(seen),
        tls=tls,
        keys=keys_file.name,
    )
    parse(text.encode(), output, {}, look=False)  # what an answer spoils is said before anything is written
    # INVARIANT: both are written with "must not exist"; a file that appeared meanwhile is left alone.
    write_private(keys_file, fresh_keys())
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise OperatorError(f"`{output}` cannot be written: {why}", "choose another `--output`") from None
    typer.echo(f"wrote {output} and {keys_file}\n\nnext:")
    needed = [(client_secret_file, "the client's secret, mode 0600")]
    needed += [(certificate, "the certificate"), (key, "its key, mode 0600")] if secure else []
    for name, what in needed:
        if not (output.parent / name).exists():
            typer.echo(f"  put {what} into {output.parent / name}")
    typer.echo(f"  ztproxy check {output}\n  ztproxy run {output}")


def _listen(public: Origin) -> str:
    return f"{'127.0.0.1' if is_loopback(public.host) else '0.0.0.0'}:{public.port}"  # noqa: S104


def _quoted(text: str) -> str:
    """A YAML scalar that is the text and nothing else, whatever is in it: JSON's strings are YAML's."""
    return json.dumps(text, ensure_ascii=False)
