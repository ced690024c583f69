"""`ztproxy ca`: the authority of ztproxy's own device certificates.

Knows: where its files go, and what the configuration says of them. Leaves making them to
`adapters.device_ca`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ztproxy.errors import OperatorError

ca = typer.Typer(no_args_is_help=True, help="Make the authority of ztproxy's own device certificates.")

_LONGEST = 30
_LINES = """\
wrote {certificate} and {key} (mode 0600; whoever has it can pose as any device)

add to the configuration:

  devices:
    enrolment:
      ca_certificate: {certificate_text}
      ca_key: {key_text}
      trust_domain: {trust_domain}
      may: {{group: employees}}        # who may enrol a device
      # approved: {{group: it}}        # whose device needs nobody's approval

and ask for certificates where people come in, in `listen`:

  client_certificates: true

then: ztproxy check, a reload, and on each device: ztproxy device enroll https://<a host of yours>"""


@ca.callback()
def _group() -> None:
    pass


@ca.command()
def init(
    directory: Annotated[Path, typer.Option(help="Where the two files go; it is made if need be.")] = Path(
        "device-ca"
    ),
    trust_domain: Annotated[
        str, typer.Option(help="The first part of each device's SPIFFE ID, like corp.example.")
    ] = "ztproxy.internal",
    years: Annotated[int, typer.Option(help="How long it may issue certificates.")] = 10,
) -> None:
    """Write a new authority: a certificate and its private key. Never over existing files.

    Every device trusts nothing new by it: it is ztproxy that trusts the certificates it issues. Keep the key
    on the machines that run ztproxy, and nowhere else; a copy of both files is the only backup there is.
    """
    from ztproxy.adapters.device_ca import make

    if not 1 <= years <= _LONGEST:
        raise OperatorError(f"`--years {years}` is no time for it", f"give 1 to {_LONGEST}")
    certificate, key = make(directory, trust_domain, years)
    typer.echo(
        _LINES.format(
            certificate=certificate,
            key=key,
            certificate_text=_quoted(certificate),
            key_text=_quoted(key),
            trust_domain=trust_domain,
        )
    )


def _quoted(path: Path) -> str:
    """A YAML scalar that is the absolute path and nothing else: JSON's strings are YAML's."""
    return json.dumps(str(path.absolute()), ensure_ascii=False)
