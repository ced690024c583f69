"""Locust scenarios against a deployment of your own: what people and programs do, in everyday proportions.

Knows: one host behind a ztproxy, and one session there. Promises: it loads this machine only, unless you say
that another target is yours; the number of users and the time have a bound whatever is asked for. Leaves
sign-ins, revocations and faults to `make load`, which brings a house of its own, and measuring one core
against another proxy to `make bench`. How to run it: README.md beside this file.
"""

from __future__ import annotations

import os

from locust import LoadTestShape, between, events, task
from locust.env import Environment

from loadtests.people import visits
from loadtests.people.target import refusal

HOME = os.environ.get("ZTPROXY_HOST", "http://home.localhost:8080").rstrip("/")
COOKIE = os.environ.get("ZTPROXY_COOKIE", "")
USERS = min(int(os.environ.get("ZTPROXY_USERS", "50")), 500)
SECONDS = min(int(os.environ.get("ZTPROXY_SECONDS", "60")), 600)
OWN = os.environ.get("ZTPROXY_I_OWN_THIS_TARGET", "") == "yes"


@events.init.add_listener  # type: ignore[untyped-decorator]
def _check(environment: Environment, **_: object) -> None:
    # INVARIANT: `--host` on the command line goes through the same door as ZTPROXY_HOST.
    why = refusal(environment.host or HOME, OWN, COOKIE)
    if why:
        raise SystemExit(f"loadtest: {why}")


class Bounded(LoadTestShape):
    """Up to the users in a tenth of the time, then steady, then the end."""

    def tick(self) -> tuple[int, float] | None:
        now: float = self.get_run_time()  # type: ignore[no-untyped-call]
        if now > SECONDS:
            return None
        return max(1, min(USERS, round(USERS * now / (SECONDS / 10)))), max(1.0, USERS / 5)


class Reader(visits.Visitor):
    """Somebody who is signed in and reads."""

    host = HOME
    weight = 8
    wait_time = between(0.05, 0.5)

    @task(20)
    def page(self) -> None:
        self.fetch("/", expected=(200,), Cookie=COOKIE)

    @task(2)
    def my_session(self) -> None:
        self.fetch("/.ztproxy/user", expected=(200,), Cookie=COOKIE)

    @task(1)
    def my_apps(self) -> None:
        self.fetch("/.ztproxy/apps", expected=(200,), Cookie=COOKIE)


class Stranger(visits.Stranger):
    host = HOME


class Nuisance(visits.Nuisance):
    host = HOME
