"""`ztproxy explain`: what would be decided, and why.

Knows: how the command line says a person, a moment and a URL. Promises: no state, no network and no clock but
`--at`. Leaves the answer to `explaining`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer

from ztproxy.cli.options import Config
from ztproxy.config import load
from ztproxy.core.decision import Forward, StepUp
from ztproxy.core.device import Status
from ztproxy.core.evidence import NOT_ASKED
from ztproxy.core.identity import JSON
from ztproxy.errors import OperatorError
from ztproxy.explaining import NOWHERE, Explanation, Question, answer, as_data, kind, why, word
from ztproxy.explaining.devices import MadeUp, made_up
from ztproxy.explaining.words import summary


def explain(
    url: Annotated[str, typer.Option(help="What is opened.")],
    config: Config = Path("ztproxy.yaml"),
    user: Annotated[
        str | None, typer.Option(help="Their verified e-mail; without it nobody is signed in.")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Their `sub`, if it is not the e-mail.")] = None,
    issuer: Annotated[
        str | None, typer.Option(help="Who vouches for them; default: the first provider.")
    ] = None,
    group: Annotated[list[str] | None, typer.Option(help="A group they are in; may be repeated.")] = None,
    claim: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; dots nest; may be repeated.")] = None,
    acr: Annotated[str | None, typer.Option(help="What the provider says of the sign-in.")] = None,
    amr: Annotated[list[str] | None, typer.Option(help="A method used; may be repeated.")] = None,
    method: Annotated[str, typer.Option(help="The request's method.")] = "GET",
    ip: Annotated[str, typer.Option(help="Where they are.")] = NOWHERE,
    at: Annotated[str | None, typer.Option(help="When, like 2026-12-31T23:00+01:00; default: now.")] = None,
    age: Annotated[int, typer.Option(min=0, help="Seconds since they signed in.")] = 0,
    device: Annotated[
        str | None,
        typer.Option(
            help="What they are on: approved, pending, lost, retired, unknown (a certificate) or none."
        ),
    ] = None,
    device_owner: Annotated[
        list[str] | None, typer.Option(help="Whose it is; `me` is who asks; may be repeated.")
    ] = None,
    platform: Annotated[str, typer.Option(help="The device's, like macos.")] = "",
    posture: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, reported of the device; may be repeated.")
    ] = None,
    posture_age: Annotated[int, typer.Option(min=0, help="Seconds since that was reported.")] = 0,
    certificate: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE, as policies name it: authority=corp, san_dns=..., spiffe=..."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what would be decided and why. Ends with 0 if the request would be forwarded, else with 1."""
    settings = load(config, look=False)
    now = _moment(at)
    me = subject or user or ""
    shown = _device(
        device,
        owners=frozenset(me if one == "me" else one for one in device_owner or ()),
        platform=platform,
        facts=_pairs("--posture", "disk_encrypted=true", posture or ()),
        age=float(posture_age),
        entries=_pairs("--certificate", "authority=corp", certificate or ()),
    )
    question = Question(
        url,
        now,
        method,
        user,
        subject,
        issuer,
        group or (),
        _claims(claim or ()),
        acr,
        amr or (),
        _address(ip),
        float(age),
        device=NOT_ASKED if shown is None else made_up(settings, shown, now),
    )
    explanation = answer(settings, question)
    if as_json:
        typer.echo(json.dumps(as_data(explanation), indent=2))
    else:
        for line in _lines(explanation):
            typer.echo(line)
    if not isinstance(explanation.decision, Forward):
        raise typer.Exit(1)


def _moment(text: str | None) -> float:
    if text is None:
        return time.time()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise OperatorError(f"`{text}` is not a moment", "write it like `2026-12-31T23:00+01:00`") from None
    if moment.tzinfo is None:
        raise OperatorError(f"`{text}` says no zone", f"write `{text}Z` or an offset like `+01:00`")
    return moment.timestamp()


def _device(
    standing: str | None,
    *,
    owners: frozenset[str],
    platform: str,
    facts: Mapping[str, Sequence[str]],
    age: float,
    entries: Mapping[str, Sequence[str]],
) -> MadeUp | None:
    """None where nothing is said of a device."""
    recorded = bool(owners or platform or facts)
    if standing is None:
        if recorded or entries:
            raise OperatorError("this is about a device", "add `--device approved`")
        return None
    twice = next((name for name, values in facts.items() if len(values) > 1), None)
    if twice is not None:
        raise OperatorError(f"`{twice}` has one value", "give it once")
    said = {name: values[0] for name, values in facts.items()}
    if standing in ("unknown", "none"):
        if recorded or (entries and standing == "none"):
            raise OperatorError(f"nothing is on record of a device that is `{standing}`", "leave it out")
        return MadeUp("unknown" if standing == "unknown" else "none", certificate=entries)
    if standing not in {str(one) for one in Status}:
        known = ", ".join(f"`{one}`" for one in (*Status, "unknown", "none"))
        raise OperatorError(f"`{standing}` is no standing of a device", f"write one of {known}")
    return MadeUp(Status(standing), owners, platform, said, age, entries)


def _pairs(option: str, example: str, texts: Sequence[str]) -> dict[str, list[str]]:
    """`NAME=VALUE`, by name."""
    values: dict[str, list[str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise OperatorError(f"`{text}` is not a name and a value", f"write `{option} {example}`")
        values.setdefault(name, []).append(value)
    return values


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise OperatorError(f"`{text}` is not an IP address", "write it like `10.1.2.3`") from None


def _claims(texts: Sequence[str]) -> dict[str, JSON]:
    """`a.b=1` nests; a value that reads as JSON is that value, else it is text; repeated, it is a list."""
    values: dict[str, list[JSON]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise OperatorError(f"`{text}` is not a claim", "write `--claim department=finance`")
        try:
            parsed: JSON = json.loads(value)
        except ValueError:
            parsed = value
        values.setdefault(name, []).append(parsed)
    claims: dict[str, JSON] = {}
    for name, found in values.items():
        *outer, last = name.split(".")
        into = claims
        for step in outer:
            inner = into.setdefault(step, {})
            if not isinstance(inner, dict):
                raise OperatorError(f"the claim `{name}` is below one that has a value", "give one of them")
            into = inner
        into[last] = found[0] if len(found) == 1 else found
    return claims


def _lines(explanation: Explanation) -> list[str]:
    decision = explanation.decision
    reasons = ", ".join(decision.reasons)
    head = {"forward": "FORWARD", "login": "LOGIN", "step_up": "STEP UP", "deny": "DENY"}[kind(decision)]
    lines = [f"{head}: {reasons}", *(f"  {reason.sentence}" for reason in decision.reasons)]
    if isinstance(decision, StepUp):
        wanted = [f"rank {decision.rank}"] if decision.rank > 1 else []
        wanted += [f"a sign-in within {decision.max_age:.0f} s"] if decision.max_age is not None else []
        lines.append(f"  asked for: {' and '.join(wanted)}")
    if explanation.route is not None:
        lines += ["", f"route {explanation.route.name}: {summary(explanation.route)[0]}"]
    for name, effect, condition, truth in explanation.rules:
        because = ", ".join(why(truth))
        lines.append(
            f"  {word(truth).replace('_', ' '):13} {effect:5} {condition} ({name})"
            + (f": {because}" if because else "")
        )
    return lines
