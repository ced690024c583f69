"""Locust scenarios against a running ztproxy: what people and programs do, in everyday proportions.

Knows: the hosts of `ztproxy demo`, or one host of your own. Promises: it loads this machine only, unless you
say that another target is yours; the number of users and the time have a bound whatever is asked for. Leaves
measuring one core against another proxy to `make bench`. How to run it: README.md beside this file.
"""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from urllib.parse import urlsplit

from locust import FastHttpUser, LoadTestShape, between, events, task
from locust.env import Environment

HOME = os.environ.get("ZTPROXY_HOST", "http://home.localhost:8080").rstrip("/")
COOKIE = os.environ.get("ZTPROXY_COOKIE", "")
USERS = min(int(os.environ.get("ZTPROXY_USERS", "50")), 500)
SECONDS = min(int(os.environ.get("ZTPROXY_SECONDS", "60")), 600)
OWN = os.environ.get("ZTPROXY_I_OWN_THIS_TARGET", "") == "yes"


def is_this_machine(url: str) -> bool:
    """Whether every address of the URL's host is loopback; `*.localhost` is by definition (RFC 6761 6.3)."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        addresses = {str(one[4][0]) for one in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(addresses) and all(ip_address(address).is_loopback for address in addresses)


def refusal(url: str, own: bool, cookie: str) -> str:
    """Why this target is not loaded; empty when it may be."""
    if not is_this_machine(url) and not own:
        return f"`{url}` is not this machine; if it is yours, say ZTPROXY_I_OWN_THIS_TARGET=yes"
    if not cookie:
        return "there is no session; see README.md for ZTPROXY_COOKIE"
    return ""


@events.init.add_listener
def _check(environment: Environment, **_: object) -> None:
    # INVARIANT: `--host` on the command line goes through the same door as ZTPROXY_HOST.
    why = refusal(environment.host or HOME, OWN, COOKIE)
    if why:
        raise SystemExit(f"loadtest: {why}")


class Bounded(LoadTestShape):
    """Up to the users in a tenth of the time, then steady, then the end."""

    def tick(self) -> tuple[int, float] | None:
        now = self.get_run_time()
        if now > SECONDS:
            return None
        return max(1, min(USERS, round(USERS * now / (SECONDS / 10)))), max(1.0, USERS / 5)


class _Visitor(FastHttpUser):
    """Names of `*.localhost` need no DNS: the connection goes to loopback, the Host header says the name."""

    abstract = True
    host = HOME

    def fetch(self, path: str, *, session: bool, expected: tuple[int, ...], **headers: str) -> None:
        given = urlsplit(self.host or HOME)
        local = (given.hostname or "").endswith(".localhost")
        base = f"{given.scheme}://127.0.0.1:{given.port or 80}" if local else f"{self.host}"
        sent = {"Host": given.netloc, "Accept": "application/json", **headers}
        if session:
            sent["Cookie"] = COOKIE
        name = f"{path} ({type(self).__name__.lower()})"
        with self.client.get(
            base + path, headers=sent, name=name, allow_redirects=False, catch_response=True
        ) as answer:
            if answer.status_code in expected:
                answer.success()  # a refusal that was due is no failure, as Locust would have it
            else:
                answer.failure(f"status {answer.status_code}")


class Reader(_Visitor):
    """Somebody who is signed in and reads."""

    weight = 8
    wait_time = between(0.05, 0.5)

    @task(20)
    def page(self) -> None:
        self.fetch("/", session=True, expected=(200,))

    @task(2)
    def my_session(self) -> None:
        self.fetch("/.ztproxy/user", session=True, expected=(200,))

    @task(1)
    def my_apps(self) -> None:
        self.fetch("/.ztproxy/apps", session=True, expected=(200,))


class Stranger(_Visitor):
    """Nobody yet: led to the sign-in as a person, refused as a program."""

    weight = 1
    wait_time = between(0.2, 1)

    @task
    def page(self) -> None:
        self.fetch("/", session=False, expected=(302,), Accept="text/html")

    @task
    def program(self) -> None:
        self.fetch("/", session=False, expected=(401,))


class Nuisance(_Visitor):
    """Forged cookies and hostile paths: each must be refused, and cheaply."""

    weight = 1
    wait_time = between(0.2, 1)

    @task
    def forged_cookie(self) -> None:
        self.fetch("/", session=False, expected=(401,), Cookie="__Host-ztproxy=forged.AAAA")

    @task
    def hostile_path(self) -> None:
        self.fetch("/%2e%2e%2fadmin", session=False, expected=(400,))
