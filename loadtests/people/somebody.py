"""A person: signs in, moves to further apps, steps up, signs out, and asks everywhere again once revoked.

Knows: the ways of a browser through ztproxy and the provider. Promises: a way is judged as a whole and hop by
hop; nobody stops at a failure, for the day begins anew. Leaves what a day holds to `users`.
"""

from __future__ import annotations

from math import inf
from random import uniform
from time import monotonic
from urllib.parse import urlencode, urljoin, urlsplit

import gevent  # type: ignore[import-untyped]
from locust import task
from locust.env import Environment

from loadtests.people import promises
from loadtests.people.browser import FORM, PAGE, SCRIPT, Answer, Cookies
from loadtests.people.house import person
from loadtests.people.promises import Act, Outcome, Session
from loadtests.people.world import InHouse
from ztproxy.demo.forms import Form
from ztproxy.demo.people import ONE_TIME_CODE

PATHS = {"home": "/json", "finance": "/json", "live": "/"}
"""A page of each app; `/json` tells whom the app was told to see."""

_HOPS = 12
"""Redirects and pages of one way: more of them are a circle."""


class Over(Exception):
    """A session, or the attempt to get one, has come to an end: the day is over."""


class Somebody(InHouse):
    """A person: signs in, does something, signs out or is signed out, and comes back with a new browser."""

    abstract = True

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.person = person(next(self.world.numbers))
        # Cookies are kept by the names of hosts here, of which the client's own jar knows nothing.
        self.client.client.cookiejar = None
        self.open_browser()

    def open_browser(self) -> None:
        """A new one: it knows nothing."""
        self.cookies = Cookies()
        self.session: Session | None = None
        self.stale: dict[str, dict[str, str]] = {}

    @task
    def day(self) -> None:
        self.open_browser()
        try:
            self.at_work()
        except Over:
            self.pause(0.3, 0.8)
        finally:
            if self.session is not None:
                self.world.sessions.discard(self.session)

    def at_work(self) -> None:
        raise NotImplementedError

    def pause(self, least: float = 0.1, most: float = 0.5) -> None:
        gevent.sleep(uniform(least, most) * self.world.pace)

    # -- asking ------------------------------------------------------------------------------------------

    def visit(
        self, app: str, path: str, what: str, *, data: bytes | None = None, page: bool = True
    ) -> Answer:
        """A request at an app at which this session has been. Raises `Over` where it has ended."""
        session = self.at_hand
        act = session.act(app, monotonic())

        def judge(answer: Answer) -> str:
            self.world.came_to(answer.outcome)
            found = self.broken(act, answer, session)
            if answer.outcome is Outcome.DONE and data is None and not found:
                return self._not_mine(answer)
            return found

        url = f"{self.place.origin(app)}{path}"
        headers = {**(PAGE if page else SCRIPT), **self.cookies.header(url)}
        if data is not None:
            headers |= {"Content-Type": "application/octet-stream", "Origin": self.place.origin(app)}
        answer = self.ask(url, what, judge, headers, "GET" if data is None else "POST", data)
        if answer.outcome is Outcome.DONE:
            session.seen[app] = answer.ended
        self.look_around()
        if answer.outcome is Outcome.REFUSED:
            raise Over
        if answer.outcome is Outcome.BUSY:
            self.pause(0.2, 0.6)
        return answer

    @property
    def at_hand(self) -> Session:
        if self.session is None:
            raise Over
        return self.session

    def look_around(self) -> None:
        """Whoever was told to be revoked asks everywhere, once."""
        session = self.at_hand
        if session.revoked == inf:
            return
        self.world.sessions.discard(session)
        for app in sorted(session.seen):
            url = f"{self.place.origin(app)}{PATHS[app]}"
            self.ask(
                url,
                "revoked: asks again",
                lambda answer: self.broken(Act.COLD_PAGE, answer, session),
                {**SCRIPT, **self.cookies.header(url)},
            )
        self.world.happened["revoked, and refused everywhere after"] += 1
        raise Over

    def broken(self, act: Act, answer: Answer, session: Session | None) -> str:
        return promises.wrong(self.timeline, act, answer.outcome, answer.began, answer.ended, session)

    def _not_mine(self, answer: Answer) -> str:
        """What is wrong with an answer that an app gave; the app `live` says nothing of whom it sees."""
        said = answer.json
        if not isinstance(said, dict) or "assertion" not in said:
            return "" if urlsplit(answer.url).path == "/" else "no answer of the app's"
        who = said["assertion"].get("identity") or {}
        return "" if who.get("email") == self.person.email else "the app was not told who this is"

    # -- the way in --------------------------------------------------------------------------------------

    def sign_in(self, app: str) -> None:
        """From an app's page to the provider and back. Raises `Over` where that does not work now."""
        if self.walk(Act.SIGN_IN, app, "sign in") is not Outcome.DONE:
            raise Over
        began = monotonic()

        def judge(answer: Answer) -> str:
            act = Act.COLD_PAGE
            if answer.outcome is Outcome.DONE and not (answer.json or {}).get("sid"):
                return "no session"
            return self.broken(act, answer, None)

        url = f"{self.place.origin('login')}/.ztproxy/session"
        answer = self.ask(url, "my session", judge, {**SCRIPT, **self.cookies.header(url)})
        if answer.outcome is not Outcome.DONE:
            raise Over
        self.session = Session(answer.json["sid"], began, seen={app: answer.ended})
        self.world.sessions.add(self.session)
        self.world.happened["signed in"] += 1

    def move(self, app: str) -> bool:
        """To another app, with the session there is; False where there is no handle for it yet."""
        session = self.at_hand
        before = session.asked
        outcome = self.walk(Act.MOVE, app, "second app")
        if session.asked < inf:
            # Their way may have led by the provider, to another session than the one at hand.
            if session.asked == before or outcome is not Outcome.DONE:
                self.look_around()
            raise Over
        there = self.cookies.header(self.place.origin(app))
        if outcome is not Outcome.DONE or self.stale.get(app) == there:
            return False
        session.seen[app] = monotonic()
        self.world.happened["a second app without the provider"] += 1
        return True

    def step_up(self) -> bool:
        """To the app that asks for more than a password."""
        session = self.at_hand
        outcome = self.walk(Act.SIGN_IN, "finance", "step up", method="mfa")
        if session.asked < inf:
            self.look_around()
            raise Over
        if outcome is Outcome.DONE:
            # Every handle of before is dead (T12), though a worker may take some seconds to notice: at the
            # other apps a move brings another one then.
            self.stale = {app: self.cookies.header(self.place.origin(app)) for app in session.seen}
            session.seen = {"finance": monotonic()}
            self.world.happened["stepped up"] += 1
        elif outcome is not Outcome.NO_PROVIDER:
            raise Over  # nobody can say here how far it came
        return outcome is Outcome.DONE

    def walk(self, act: Act, app: str, what: str, method: str = "pwd") -> Outcome:
        """Opens a page as a browser does, through redirects and the provider's page, and judges the whole
        of it. Each hop is judged for itself, too: an error on the way must be one of those promised."""
        session = self.session
        began, url, asked_provider = monotonic(), f"{self.place.origin(app)}{PATHS[app]}", False
        outcome, last = Outcome.WRONG, ""

        def sent_away(answer: Answer) -> bool:
            """Whoever is revoked on the way may be told so, in whatever words."""
            return session is not None and session.asked < inf and 400 <= answer.status < 500

        def hop(answer: Answer) -> str:
            onward = answer.status == 302 or answer.outcome is Outcome.ONWARD
            if onward or answer.outcome is Outcome.DONE or sent_away(answer):
                return ""
            return judged(answer.outcome)

        def judged(outcome: Outcome) -> str:
            why = promises.wrong(self.timeline, act, outcome, began, monotonic())
            if why and session is not None and session.asked < inf:
                # Their way may lead by the provider now, whatever it was.
                why = promises.wrong(self.timeline, Act.SIGN_IN, outcome, began, monotonic())
            return why

        for _ in range(_HOPS):
            if url.startswith(f"{self.place.issuer}/"):
                asked_provider = True
                url = self._at_provider(url, method)
                continue
            step = urlsplit(url).path.removeprefix("/.ztproxy/").split("/")[0] or "page"
            answer = self.ask(url, f"{what}: {step}", hop, {**PAGE, **self.cookies.header(url)})
            self.cookies.keep(answer)
            outcome, last = answer.outcome, str(answer)
            if not answer.onward:
                break
            url, outcome = answer.onward, Outcome.WRONG
        else:
            last = "led in a circle"
        if outcome is Outcome.DONE and self._not_mine(answer):
            outcome = Outcome.WRONG
        why = "" if sent_away(answer) else judged(outcome)
        if not why and session is not None and session.asked == inf and act is Act.MOVE and asked_provider:
            why = "had to sign in again for a second app"
        self.world.came_to(outcome)
        self.note("WAY", f"{what}, all of it", began, why and f"{why} ({last})")
        return outcome

    def _at_provider(self, url: str, method: str) -> str:
        """Where the provider sends the browser, once its form is filled in."""
        for _ in range(2):
            answer = self._ask_provider(url)
            if answer.onward:
                return answer.onward
            form = Form(answer.body)
            if form.action is None:
                raise Over
            typed = {
                **form.hidden,
                "person": self.person.username,
                "method": method,
                "password": self.person.password,
                "one_time_code": ONE_TIME_CODE,
            }
            answer = self._ask_provider(urljoin(url, form.action), urlencode(typed).encode())
            if answer.onward:
                return answer.onward
        raise Over

    def _ask_provider(self, url: str, data: bytes | None = None) -> Answer:
        def judge(answer: Answer) -> str:
            return "" if answer.status in (200, 302, 303) else "the provider does not do its part"

        headers = {**PAGE, **self.cookies.header(url), **(FORM if data else {})}
        answer = self.ask(url, "at the provider", judge, headers, "POST" if data else "GET", data)
        self.cookies.keep(answer)
        return answer

    # -- the way out -------------------------------------------------------------------------------------

    def sign_out(self) -> None:
        """Signs out, tells the provider as the page leads on to, and looks whether it holds. Ends in
        `Over`."""
        session = self.at_hand
        self.world.sessions.discard(session)
        if session.asked < inf:
            raise Over
        if "home" not in session.seen:
            raise Over
        url = f"{self.place.origin('home')}/.ztproxy/sign_out"

        def judge(answer: Answer) -> str:
            outcome = answer.outcome
            if answer.status == 503 and answer.get("retry-after"):
                outcome = Outcome.BUSY  # and signed out in this browser, so the cookie goes
            if urlsplit(answer.onward).path == "/.ztproxy/signed_out":
                outcome = Outcome.DONE
            return promises.wrong(self.timeline, Act.SIGN_OUT, outcome, answer.began, answer.ended)

        page = self.ask(url, "sign out: page", judge, {**PAGE, **self.cookies.header(url)})
        form = Form(page.body)
        if page.status != 200 or form.action is None:
            raise Over
        kept = {app: self.cookies.header(self.place.origin(app)) for app in session.seen}
        headers = {
            **PAGE,
            **FORM,
            **self.cookies.header(url),
            "Sec-Fetch-Site": "same-origin",
            "Origin": self.place.origin("home"),
        }
        there, data = urljoin(url, form.action), urlencode(form.hidden).encode()
        done = self.ask(there, "sign out: form", judge, headers, "POST", data)
        if done.status not in (200, 303):
            raise Over
        session.asked = session.revoked = done.ended
        for app, header in sorted(kept.items()):
            again = f"{self.place.origin(app)}{PATHS[app]}"
            self.ask(
                again,
                "signed out: asks again",
                lambda answer: self.broken(Act.COLD_PAGE, answer, session),
                {**SCRIPT, **header},
            )
        self.world.happened["signed out"] += 1
        if done.onward.startswith(f"{self.place.issuer}/"):
            self._ask_provider(done.onward)
        raise Over
