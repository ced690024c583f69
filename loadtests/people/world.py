"""What all users of a run share: the place, what happened when, and how one of them asks and is heard.

Knows: how Locust is told. Promises: an answer is judged by whoever asked, and one that broke its promise is a
failure in Locust's own report, under the phase in which it began. Leaves what is asked to `somebody` and
`users`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count
from time import monotonic, time
from typing import Any
from urllib.parse import urlsplit

from locust import FastHttpUser, constant
from locust.env import Environment

from loadtests.people import visits
from loadtests.people.browser import Answer
from loadtests.people.house import Place
from loadtests.people.promises import Outcome, Session, Timeline

SCENARIOS = (
    "signed in",
    "a second app without the provider",
    "uploaded",
    "echoed",
    "stepped up",
    "revoked, and refused everywhere after",
    "WebSocket closed with 1008",
    "signed out",
)
"""What happens in a run; one in which one of them never did has shown nothing of it."""

PATIENCE = 20.0
"""Seconds for anything that somebody waits for."""


class World:
    """What all users share: `happened` counts scenarios, `outcomes` what came of acts, by phase. `pace` is
    how long people pause, to how long they would in a run of a minute or more."""

    def __init__(self, place: Place, timeline: Timeline, pace: float) -> None:
        self.place, self.timeline, self.pace = place, timeline, pace
        self.sessions: set[Session] = set()
        self.happened: Counter[str] = Counter()
        self.outcomes: dict[str, Counter[str]] = {}
        self.numbers = count()

    def came_to(self, outcome: Outcome) -> None:
        self.outcomes.setdefault(self.timeline.now.label, Counter())[outcome] += 1


class InHouse(FastHttpUser):
    abstract = True
    host = "http://127.0.0.1"
    network_timeout = connection_timeout = PATIENCE
    wait_time = constant(0)

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.world: World = environment.world  # type: ignore[attr-defined]
        self.place, self.timeline = self.world.place, self.world.timeline

    def label(self, what: str) -> str:
        return f"{self.timeline.now.label}: {what}"

    def ask(
        self,
        url: str,
        what: str,
        judge: Callable[[Answer], str],
        headers: dict[str, str],
        method: str = "GET",
        data: bytes | None = None,
    ) -> Answer:
        """One request; `judge` says what is wrong with its answer."""
        sent = {"Host": urlsplit(url).netloc, **headers}
        octets: Any = data  # which Locust sends as they are, and has no type for
        began = monotonic()
        with self.client.request(
            method,
            visits.reached(url, self.place.reach(url)),
            name=self.label(what),
            data=octets,
            headers=sent,
            allow_redirects=False,
            catch_response=True,
        ) as response:
            fields = tuple((name.lower(), value) for name, value in (response.headers or {}).items())
            body = response.text if response.status_code else repr(getattr(response, "error", ""))
            answer = Answer(url, response.status_code, fields, body or "", began, monotonic())
            why = judge(answer)
            if why:
                response.failure(f"{why} ({answer})")
            else:
                response.success()
        return answer

    def note(self, kind: str, what: str, began: float, wrong: str, length: int = 0) -> None:
        """Something that is not one request, for the report."""
        self.environment.events.request.fire(
            request_type=kind,
            name=self.label(what),
            response_time=1000 * (monotonic() - began),
            response_length=length,
            exception=AssertionError(wrong) if wrong else None,
            context={},
            start_time=time() - (monotonic() - began),
        )
