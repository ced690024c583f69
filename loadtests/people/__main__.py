"""`python -m loadtests.people`: people at work in a house of its own, under Locust. See `../README.md`.

Knows: the command's words. Promises: users and seconds have a bound whatever is asked for; exit 0 where all
was as promised, 1 where anything was not, 2 where it could not be found out or may not be.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

# Nothing of Locust yet: it makes every socket gevent's, and the house runs on asyncio.
from loadtests.people.promises import MISTAKES, PHASES, plan
from loadtests.people.target import refusal

LEAST_USERS, MOST_USERS, MOST_SECONDS = 6, 300, 900
_LOCUSTFILE = Path(__file__).parent.parent / "locustfile.py"


def main(words: list[str]) -> int:
    if words[:1] == ["house"]:
        from loadtests.people.house import serve

        asyncio.run(serve(words[1:]))
        return 0
    asked = _asked(words)
    if asked.host:
        return _elsewhere(asked)
    try:
        phases = plan(asked.seconds, asked.phases)
    except ValueError as error:
        return _stop(f"{error}")
    from loadtests.people.run import Broken, run, summary

    try:
        found = run(phases, asked.users, asked.html, asked.mistakes)
    except Broken as error:
        return _stop(f"{error}")
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(found.data, indent=1) + "\n", encoding="utf-8")
    print("\n".join(summary(found)))
    print(f"{asked.html} and {asked.json} have all of it")
    return 0 if found.good else 1


def _asked(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loadtests.people", description=__doc__)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("ZTPROXY_SECONDS", "120")))
    parser.add_argument("--users", type=int, default=int(os.environ.get("ZTPROXY_USERS", "30")))
    parser.add_argument(
        "--phases",
        nargs="+",
        default=(),
        metavar="PHASE",
        help=f"only these, between quiet ones: {', '.join(phase.trouble for phase in PHASES[1:-1])}",
    )
    parser.add_argument("--html", type=Path, default=Path("build/load.html"))
    parser.add_argument("--json", type=Path, default=Path("build/load.json"))
    parser.add_argument(
        "--mistakes",
        nargs="+",
        default=(),
        choices=MISTAKES,
        help="made in the house, to see that they are found",
    )
    parser.add_argument(
        "--host", default=os.environ.get("ZTPROXY_HOST", ""), help="a deployment of your own, not the house"
    )
    asked = parser.parse_args(words)
    asked.seconds = min(max(asked.seconds, 1.0), MOST_SECONDS)
    asked.users = min(max(asked.users, LEAST_USERS), MOST_USERS)
    return asked


def _elsewhere(asked: argparse.Namespace) -> int:
    """`../locustfile.py` against a target of one's own, by Locust's own command, which reports."""
    own = os.environ.get("ZTPROXY_I_OWN_THIS_TARGET", "") == "yes"
    why = refusal(asked.host, own, os.environ.get("ZTPROXY_COOKIE", ""))
    if why:
        return _stop(why)
    command = [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless", "--only-summary"]
    bounds = {"ZTPROXY_USERS": f"{asked.users}", "ZTPROXY_SECONDS": f"{asked.seconds:.0f}"}
    asked.html.parent.mkdir(parents=True, exist_ok=True)
    told = {**os.environ, **bounds, "ZTPROXY_HOST": asked.host.rstrip("/")}
    return min(1, subprocess.run([*command, "--html", str(asked.html)], env=told, check=False).returncode)


def _stop(why: str) -> int:
    print(f"loadtest: {why}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
