"""`docs/conformance.md`, written from the tables. Knows their form; leaves what is in them to the tests."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.plays import Module
from tests.conformance.relying_party import FAPI, MODULES, NOT_PORTED, OIDC

PAGE = Path(__file__).parent.parent.parent / "docs" / "conformance.md"


def _count(prefix: str) -> int:
    """How many modules of the Foundation's are ported."""
    return sum(module.name.startswith(prefix) and " " not in module.name for module in MODULES)


_HEAD = f"""\
# Conformance

Written by `python -m tests.conformance` from the tables that the tests run over.

## OpenID Connect: relying-party modules

A self-run port, not certified: the test modules that the OpenID Foundation runs against relying parties,
written anew against a provider of our own that misbehaves as each module's does. Every module is a whole
sign-in over HTTP through a running ztproxy (`make test`, [tests/conformance](../tests/conformance)). Refused
means: an error page that does not say what was wrong, no session, no further request to the provider.
{_count(OIDC)} modules are of OpenID Connect and {_count(FAPI)} of FAPI 2.0; what is ours beside them says so.
"""

_WEBSOCKET = """\
## WebSocket: Autobahn

The [Autobahn test suite](https://github.com/crossbario/autobahn-testsuite) (`wstest`, 0.8.2) has a client
that holds some five hundred good and bad conversations. It talks to an echo server twice: directly, and
through a tunnel of ztproxy, as somebody who is signed in. The two reports must be the same in every verdict,
close code and count of frames; only times and how TCP cut the octets are left out. So a tunnel neither
repairs nor spoils what app and client say to each other.

- `make test` runs the cases of framing, pings, reserved bits, opcodes, fragments, UTF-8 and closing (groups 1
  to 7 and 10), one of mass (9) and one of compression (13): some 250. A part of them is run for a route open
  to everybody too.
- `make conformance` runs all 517, in an hour at most, and writes `build/autobahn.json`.

The suite knows Python 2.7 only. `tools/autobahn` looks for one (also under pyenv) and installs the suite into
`build/autobahn` from PyPI, by hash; where there is none, the tests are skipped and say so.
"""


def page() -> str:
    parts = [
        _HEAD,
        _table("### OpenID Connect", OIDC, "The names begin with `oidcc-client-test`."),
        _table("### FAPI 2.0", FAPI, f"The names begin with `{FAPI}-`."),
        "### Not ported\n\n| Module | Why |\n|---|---|\n"
        + "".join(f"| {name} | {why} |\n" for name, why in NOT_PORTED),
        _WEBSOCKET,
    ]
    return "\n".join(parts)


def _table(heading: str, prefix: str, words: str) -> str:
    rows = "".join(_row(module, prefix) for module in MODULES if module.name.startswith(prefix))
    return f"{heading}\n\n{words}\n\n| Module | What is tried | What comes of it |\n|---|---|---|\n{rows}"


def _row(module: Module, prefix: str) -> str:
    name = module.name.removeprefix(prefix).lstrip("-") or "(the plain one)"
    return f"| {name} | {module.checks} | {module.result} |\n"
