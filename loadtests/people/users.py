"""Who visits the house: people at work, people who listen, security, strangers, nuisances.

Knows: what somebody's day holds, and in which proportions they come. Promises: everything of `SCENARIOS`
happens. Leaves the phases to `run`.
"""

from __future__ import annotations

import hashlib
import json
import os
from math import inf
from pathlib import Path
from random import choice, uniform
from time import monotonic
from typing import Any

import gevent  # type: ignore[import-untyped]
from locust import User, task
from locust.env import Environment

from loadtests.people import promises, visits
from loadtests.people.browser import Answer
from loadtests.people.promises import Act, Outcome, Session
from loadtests.people.sockets import GONE, Closed, WebSocket
from loadtests.people.somebody import PATHS, Over, Somebody
from loadtests.people.world import PATIENCE, InHouse, World

MiB = 1024 * 1024

_CLOSED_WITHIN = 5.0
"""Seconds: a second is promised; on a machine that does other things, more of them mean that it hangs."""

_IN_USE = 1.0
"""Seconds somebody has been at work before security looks their way."""

_AGAIN = 20
"""Times somebody looks at an app before the handle they have there is certainly a new one, or all is busy."""

_UPLOAD = os.urandom(MiB)
_SHA256 = hashlib.sha256(_UPLOAD).hexdigest()


class Worker(Somebody):
    """Browses several apps, uploads, steps up, and signs out in the end."""

    weight = 6

    def at_work(self) -> None:
        self.sign_in("home")
        for _ in range(3):
            self.browse()
        self.upload()
        self.move("live")
        for _ in range(3):
            self.browse()
        if self.step_up():
            for _ in range(_AGAIN):
                self.browse()
                if self.move("home"):
                    break
            self.upload()
        for _ in range(3):
            self.browse()
        self.sign_out()

    def browse(self) -> None:
        self.pause()
        app = choice(sorted(self.at_hand.seen))
        self.visit(app, PATHS[app], f"page of {app}")

    def upload(self) -> None:
        self.pause()
        if "home" not in self.at_hand.seen:
            return
        answer = self.visit("home", "/echo", "upload of 1 MiB", data=_UPLOAD, page=False)
        if answer.outcome is Outcome.DONE:
            whole = answer.json == {"bytes": MiB, "sha256": _SHA256}
            self.world.happened["uploaded"] += whole
            self.note("WAY", "upload arrived whole", answer.began, "" if whole else answer.body[:80], MiB)


class Listener(Somebody):
    """Holds a WebSocket for a while and talks over it."""

    weight = 3

    def at_work(self) -> None:
        self.sign_in("live")
        while True:
            self.hold(uniform(4, 8))
            self.look_around()
            self.pause()

    def hold(self, seconds: float) -> None:
        session = self.at_hand
        url, began = f"{self.place.origin('live')}/ws", monotonic()
        act = session.act("live", began)
        try:
            socket = WebSocket(url, self.cookies.header(url), PATIENCE)
        except OSError as error:
            self.note("WS", "open", began, repr(error))
            self.pause()
            return
        try:
            status = int(socket.head.split(" ", 2)[1])
            fields = [line.partition(": ") for line in socket.head.split("\r\n")[1:]]
            given = tuple((name.lower(), value) for name, _, value in fields)
            answer = Answer(url, 200 if status == 101 else status, given, "", began, monotonic())
            self.world.came_to(answer.outcome)
            self.note("WS", "open", began, self.broken(act, answer, session))
            if status == 101:
                session.seen["live"], session.talks = answer.ended, True
                self._talk(socket, session, began + seconds)
            elif answer.outcome is Outcome.REFUSED:
                self.look_around()
                raise Over
            else:
                self.pause(0.3, 0.8)
        finally:
            socket.close()

    def _talk(self, socket: WebSocket, session: Session, until: float) -> None:
        """Says something now and then, and waits for it to come back, until it is time or the end."""
        number = 0
        while monotonic() < until:
            number += 1
            said, heard = monotonic(), None
            try:
                socket.say(f"{number}")
                heard = self._echo(socket, session, f"{number}", said + PATIENCE)
            except OSError:
                heard = Closed(GONE)
            at = monotonic()
            if isinstance(heard, Closed):
                wrong = promises.close_wrong(heard.code, at, session)
                self.note("WS", "closed by ztproxy", max(said, min(session.asked, at)), wrong)
                if not wrong:
                    self.world.happened["WebSocket closed with 1008"] += 1
                    self._confirmed(session)
                    self.look_around()
                raise Over
            if heard is None and session.revoked < inf:
                self.note("WS", "closed by ztproxy", session.revoked, "still open after its revocation")
                raise Over
            wrong = promises.echo_wrong(self.timeline, said, at if heard else inf, session)
            self.note("WS", "echo", said, wrong)
            self.world.happened["echoed"] += not wrong
            if wrong:
                return
            session.seen["live"] = at
            self.pause(0.2, 0.6)

    def _echo(self, socket: WebSocket, session: Session, text: str, patience: float) -> str | Closed | None:
        """The echo of `text`; None where neither it nor an end came in time."""
        while monotonic() < min(patience, session.revoked + _CLOSED_WITHIN):
            heard = socket.hear(0.5)
            if isinstance(heard, Closed):
                return heard
            if heard is not None:
                said: Any = json.loads(heard)
                if said.get("type") == "echo" and said.get("text") == text:
                    return heard
        return None

    def _confirmed(self, session: Session) -> None:
        """Waits for security to hear what it asked for: the WebSocket is told first."""
        until = monotonic() + PATIENCE
        while session.revoked == inf and session in self.world.sessions and monotonic() < until:
            gevent.sleep(0.05)


class Security(InHouse):
    """Ends sessions through the admin API; asks again until that is confirmed."""

    fixed_count = 1
    _turn = 0

    @task
    def revoke(self) -> None:
        gevent.sleep(uniform(0.5, 2.0))
        now, self._turn = monotonic(), self._turn + 1
        at_work = [one for one in self.world.sessions if one.since + _IN_USE < now]
        # Every other time somebody with an open WebSocket: those are few.
        at_work = [one for one in at_work if one.talks or self._turn % 2] or at_work
        if not at_work:
            return
        session = choice(at_work)
        while session.revoked == inf and not self._ask(session):
            gevent.sleep(0.5)

    def _ask(self, session: Session) -> bool:
        session.asked = min(session.asked, monotonic())

        def judge(answer: Answer) -> str:
            confirmed = answer.status == 200 and (answer.json or {}).get("confirmed") is True
            outcome = answer.outcome if confirmed or answer.status != 200 else Outcome.WRONG
            self.world.came_to(outcome)
            return promises.wrong(self.timeline, Act.REVOKE, outcome, answer.began, answer.ended)

        token = Path(self.place.token).read_text(encoding="ascii").strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        form = {"target": {"kind": "session", "name": session.sid}, "reason": "a load test"}
        url, data = f"{self.place.admin}/api/v1/revocations", json.dumps(form).encode()
        answer = self.ask(url, "revoke", judge, headers, "POST", data)
        if answer.outcome is Outcome.DONE:
            session.revoked = monotonic()
        return answer.outcome is Outcome.DONE


class _AtHome(visits.Visitor):
    """Of the same house, and promised the same whatever is away."""

    abstract = True

    def __init__(self, environment: Environment) -> None:
        self.world: World = environment.world  # type: ignore[attr-defined]
        self.host = self.world.place.origin("home")
        super().__init__(environment)

    def label(self, what: str) -> str:
        return f"{self.world.timeline.now.label}: {super().label(what)}"


class Stranger(_AtHome, visits.Stranger):
    pass


class Nuisance(_AtHome, visits.Nuisance):
    pass


VISITORS: list[type[User]] = [Worker, Listener, Security, Stranger, Nuisance]
