"""Visits that need no sign-in dance, against the house of `make load` and against a deployment of one's own.

Knows: the hosts of one ztproxy. Promises: an answer other than the expected one is a failure, whatever Locust
thinks of its status. Leaves the target, and a session for those who need one, to the subclass.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from locust import FastHttpUser, between, task


def reached(url: str, port: int | None = None) -> str:
    """`url` as a connection of this machine: names of `*.localhost` need no DNS, the Host header says
    them."""
    given = urlsplit(url)
    if (given.hostname or "").endswith("localhost"):
        given = given._replace(netloc=f"127.0.0.1:{port or given.port or 80}")
    return given.geturl()


class Visitor(FastHttpUser):
    abstract = True
    network_timeout = connection_timeout = 30.0

    def label(self, what: str) -> str:
        """What the report calls a request."""
        return f"{what} ({type(self).__name__.lower()})"

    def fetch(self, path: str, *, expected: tuple[int, ...], **headers: str) -> None:
        origin = f"{self.host}"
        sent = {"Host": urlsplit(origin).netloc, "Accept": "application/json", **headers}
        with self.client.get(
            reached(f"{origin}{path}"),
            headers=sent,
            name=self.label(path),
            allow_redirects=False,
            catch_response=True,
        ) as answer:
            if answer.status_code in expected:
                answer.success()  # a refusal that was due is no failure, as Locust would have it
            else:
                answer.failure(f"status {answer.status_code}")


class Stranger(Visitor):
    """Nobody yet: led to the sign-in as a person, refused as a program."""

    abstract = True
    weight = 1
    wait_time = between(0.2, 1)

    @task
    def page(self) -> None:
        self.fetch("/", expected=(302,), Accept="text/html")

    @task
    def program(self) -> None:
        self.fetch("/", expected=(401,))


class Nuisance(Visitor):
    """Forged cookies and hostile paths: each must be refused, and cheaply."""

    abstract = True
    weight = 1
    wait_time = between(0.2, 1)

    @task
    def forged_cookie(self) -> None:
        self.fetch("/", expected=(401,), Cookie="__Host-ztproxy=forged.AAAA")

    @task
    def hostile_path(self) -> None:
        self.fetch("/%2e%2e%2fadmin", expected=(400,))
