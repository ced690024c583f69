"""What the device bench found, in words: pure functions of its figures.

Knows: the aims and the page. Promises: an aim that is not met is said to be so; figures that a reader should
doubt come with the doubt. Leaves measuring, and writing files, to its caller. Rates are per second, ratios
are of one round each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from bench.revocation_report import BUSY, IDLE

COMMAND = "make bench-devices"

FULL = 0.9
"""Below this share of a core, the proxy was not what limited the rate."""

_WITH = {
    "tls": "TLS, no certificate, policy by group",
    "device": "TLS with a certificate, policy by group and device",
    "many_tls": "the first again, beside all devices",
    "many": "the second again, beside all devices",
}
_SHAKEN = {
    "nginx": "nginx, `ssl_verify_client optional`, nothing checked",
    "asks": "ztproxy, `client_certificates: true`",
    "by_name": "ztproxy, `client_certificates: {hosts: […]}`",
    "quiet": "ztproxy, nobody is asked, no device in the policy",
}


class Aim(NamedTuple):
    """A ratio that is worth having, round by round: its median is at least `aim`."""

    what: str
    rounds: Sequence[float]
    aim: float

    @property
    def verdict(self) -> str:
        return "met" if median(self.rounds) >= self.aim else "NOT met"

    def row(self) -> tuple[str, ...]:
        return self.what, *_median_and_spread(self.rounds), f"≥ {self.aim:g}", self.verdict


def aims(figures: Mapping[str, Any]) -> list[Aim]:
    """Every aim with what was measured."""
    found, count = figures["requests"]["ratios"], figures["intake"]["devices"]
    return [
        Aim("requests/s with a device check, to the same without", found["device"], 0.9),
        Aim(f"requests/s with {count:,} devices, to the same with one", found["many"], 0.98),
    ]


def doubts(figures: Mapping[str, Any]) -> list[str]:
    """What a reader should know before believing the figures; one sentence each."""
    said = []
    if figures["quick"]:
        said.append("A quick run with small numbers: take it for a look, not for a result.")
    before = figures["load_average_before"]
    if before > IDLE:
        said.append(f"The machine had a load average of {before:g} before anything was started.")
    wide = max((max(one) - min(one)) / max(one) for one in figures["requests"]["rates"].values())
    if wide > BUSY:
        said.append(f"The rounds of requests/s differ by {wide:.0%}: something else kept this machine busy.")
    for what in ("requests", "handshakes"):
        idle = {name: busy for name, busy in figures[what]["busy"].items() if busy < FULL}
        if idle:
            names = ", ".join(f"{name} {busy:.0%}" for name, busy in idle.items())
            said.append(
                f"Not the proxies alone set the pace of the {what} ({names} of a core): compare the CPU."
            )
    return said


def table(figures: Mapping[str, Any]) -> list[str]:
    """For a terminal."""
    shaken, intake = figures["handshakes"], figures["intake"]
    rows = [aim.row() for aim in aims(figures)]
    return [
        "",
        *(
            f"  {what:<52}{middle:>7}  ({low} to {high})  {aim:<8}{verdict}"
            for what, middle, low, high, aim, verdict in rows
        ),
        "",
        *(
            f"  {name.replace('`', ''):<52}{median(shaken['rates'][key]):>7,.0f} handshakes/s, "
            f"{median(shaken['cpu_us'][key]):,.0f} µs of CPU each"
            for key, name in _SHAKEN.items()
        ),
        "",
        *(
            f"  {what:<52}{intake[name]['seconds']:>7.1f} s, "
            f"worst PING {intake[name]['ping_ms']['max']:.1f} ms, "
            f"worst request {intake[name]['request_ms']['max']:.1f} ms"
            for name, what in _taken_in(intake).items()
        ),
        "",
        *(f"  {line}" for line in doubts(figures)),
    ]


def page(figures: Mapping[str, Any]) -> str:
    """The page, Markdown."""
    requests, shaken, intake = figures["requests"], figures["handshakes"], figures["intake"]
    return _PAGE.format(
        command=COMMAND,
        doubts="".join(f"{doubt}\n\n" for doubt in doubts(figures)),
        aims="\n".join(_row(aim.row()) for aim in aims(figures)),
        rounds=len(requests["rates"]["tls"]),
        requests="\n".join(_row(_measured(requests, key, what, "tls")) for key, what in _WITH.items()),
        control=_spread_of(requests["ratios"]["many_tls"]),
        shakes=len(shaken["rates"]["nginx"]),
        handshakes="\n".join(_row(_measured(shaken, key, what, "nginx")) for key, what in _SHAKEN.items()),
        intake="\n".join(
            _row((what, f"{taken['seconds']:.1f} s", *_waits(taken["ping_ms"]), *_waits(taken["request_ms"])))
            for what, taken in ((what, intake[name]) for name, what in _taken_in(intake).items())
        ),
        each=intake["bytes_per_device"],
        devices=intake["devices"],
        lookup=figures["lookup_us"],
        first=figures["first_us"],
        connections=figures["connections"],
        shaking=figures["shaking"],
        machine=figures["machine"],
        seconds=figures["seconds"],
    )


def _measured(figures: Mapping[str, Any], key: str, what: str, to: str) -> tuple[str, ...]:
    """A row: the rate and its spread, the CPU and its ratio to that of `to`, and how busy it was."""
    rates, cpu = figures["rates"][key], figures["cpu_us"]
    return (
        what,
        *(f"{value:,.0f}" for value in (median(rates), min(rates), max(rates))),
        f"{median(cpu[key]):,.1f} µs",
        f"{median(one / other for one, other in zip(cpu[key], cpu[to], strict=True)):.2f}",
        f"{figures['busy'][key]:.0%}",
    )


def _taken_in(intake: Mapping[str, Any]) -> dict[str, str]:
    return {
        "import": f"import of {intake['devices']:,} devices",
        "feed": f"posture of {intake['reports']:,} devices",
    }


def _median_and_spread(values: Sequence[float]) -> tuple[str, str, str]:
    return f"{median(values):.3f}", f"{min(values):.3f}", f"{max(values):.3f}"


def _spread_of(values: Sequence[float]) -> str:
    middle, low, high = _median_and_spread(values)
    return f"{middle} ({low} to {high})"


def _waits(spread: Mapping[str, float]) -> tuple[str, str]:
    return f"{spread['p50']:.1f} ms", f"{spread['max']:.1f} ms"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


_PAGE = """\
# How fast device checks are

Written by `{command}`; not edited by hand. What is checked is in [devices.md](devices.md).

{doubts}| | median of the rounds | from | to | aim | |
|--|--:|--:|--:|--:|--|
{aims}

## Requests

One worker, {connections} TLS connections that stay, {rounds} rounds, each way in turn. With a device, the
session is bound to the certificate of the connection, and the rule asks for `group`, and for a device that is
approved, owned by the person and compliant by three facts. Without, the rule asks for `group` alone.

| | requests/s | from | to | CPU for a request | to the first | of a core |
|--|--:|--:|--:|--:|--:|--:|
{requests}

The last two are another process, with another Valkey. That alone makes a difference: without any device in
play, the other process has {control} of the rate. In the inventory of one, reading a device
takes {lookup[one]:.0f} µs, in that of {devices:,} it takes {lookup[many]:.0f} µs (from Python, with its round
trip). A worker reads a device that is in use again about once a second, in the background.

## Handshakes

A new connection for each request, {shaking} at once, TLS 1.3, ECDSA P-256 on both sides, no resumption;
{shakes} rounds, each way in turn. ztproxy does for each all that it does for a request: session, device,
policy, assertion, logs.

| | connections/s | from | to | CPU for each | to nginx | of a core |
|--|--:|--:|--:|--:|--:|--:|
{handshakes}

The certificate is the same on each connection, so its chain and form were found out once, which
takes {first:.0f} µs. With `hosts` the name is read, by Python, before TLS begins.

## Filling the inventory

By `ztproxy devices import` and `ztproxy devices posture`, from the start of the command to its end, over the
admin API, with `appendfsync always`. Beside it somebody sends a PING to the same Valkey every 5 ms, which is
what a lease waits for, and a request to the worker every 20 ms; the administration, the worker and Valkey
share one core. No request was refused.

| | time | PING p50 | worst | request p50 | worst |
|--|--:|--:|--:|--:|--:|
{intake}

A device takes {each:,} bytes of Valkey's memory.

## How it is measured

- {machine[cpu]}, {machine[cores]} cores, Linux {machine[kernel]}, Python {machine[python]}, uvloop
  {machine[uvloop]}, {machine[openssl]}, nginx {machine[nginx]}.
- The proxies with their Valkey have one core. The load and the app (nginx, 1 KiB from memory) have the
  other. "Of a core" is what the measured process had of its own: near 100 %, it was what set the pace.
- Each answer is looked at, its status and its body. The app answers nobody who comes without an assertion;
  before each round one is verified, and the laptop's cookie is refused without the laptop's certificate.
- Requests come from a client in Python. Handshakes come through an nginx, which makes a new TLS connection
  for each request: a client in Python is slower than what is measured. It is not much faster than the
  proxies, either, so compare the CPU before the rates.
- nginx compares: the same certificates, `proxy_pass` to the same app, no session cache, no tickets. It passes
  the certificate on, which is all it does with it.

To repeat it: `{command}` (about {seconds:.0f} s; `ARGS=--quick` for a short look, which leaves this page
alone). Every figure is in `build/bench-devices.json`.
"""
