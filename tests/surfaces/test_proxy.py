"""Every request comes here once: what each decision is on the wire, and what never reaches an app."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from tests.core.words import ADMINS, EVERYONE, policy, site
from tests.core.words import APP as APP_ACTION
from tests.wire.recording import Recording, answers
from tests.worlds.front import APP, PAGE, SIGNED_IN, Browser, Front, Page, front
from ztproxy.core.conditions import InGroup, PathUnder
from ztproxy.core.locks import ALL, Target, TargetKind
from ztproxy.core.locks import Action as LockAction
from ztproxy.core.rates import By, Rate, RateLimit
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Ambiguity
from ztproxy.core.routes import Action, Forwarding, Redirect, Route, StaticResponse
from ztproxy.core.upstream import Endpoint, Upstream
from ztproxy.gateway.known import RELIED_ON
from ztproxy.wire.pool import Pool

XHR = {"Accept": "application/json"}
SOCKETS = Forwarding(
    Upstream((Endpoint("127.0.0.1", 1),)), upgrades=frozenset({"websocket"}), origins=frozenset()
)
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Origin": APP,
}


def part(name: str, rules: Any = SIGNED_IN, action: Action = APP_ACTION, **more: Any) -> Route:
    return site(rules, action, name=name, segments=(name,), **more)


@pytest.fixture
async def it() -> AsyncIterator[Front]:
    routes = [
        part("any"),
        part("open", EVERYONE),
        part("admin", ADMINS),
        part("ws", SIGNED_IN, SOCKETS),
        part("narrow", SIGNED_IN, methods=frozenset({"GET", "POST"})),
        part("moved", SIGNED_IN, Redirect("https://new.test/base/", 301, keep_path=True)),
        part("moved-for-all", EVERYONE, Redirect("https://new.test/there")),
        part("fixed", EVERYONE, StaticResponse(418, "text/plain", b"short and stout")),
        part("fixed-for-us", SIGNED_IN, StaticResponse(200, "text/plain", b"ours")),
        part("slashes", SIGNED_IN, tolerates=frozenset({Ambiguity.ENCODED_SLASH})),
    ]
    async with front(*routes) as built:
        yield built


@pytest.fixture
async def alice(it: Front) -> Browser:
    browser = it.browser()
    await browser.open(f"{APP}/any/first")
    it.exchanges.clear()
    forget(it)
    return browser


def forget(it: Front) -> None:
    """From here on the app has received nothing."""
    for line in it.app.lines:
        line.received = b""


def refused_untouched(it: Front) -> None:
    assert it.app.received == b""


# -- what each decision is on the wire --------------------------------------------------------------------


async def test_a_stranger_is_asked_to_sign_in(it: Front) -> None:
    nobody = it.browser()
    page = await nobody.ask(f"{APP}/any/x?y=1")
    assert (page.status, page.location) == (302, f"{APP}/.ztproxy/sign_in?rd=%2Fany%2Fx%3Fy%3D1")
    assert (await nobody.ask(f"{APP}/any/x", XHR)).status == 401
    assert (await nobody.ask(f"{APP}/any/x", PAGE, method="POST", body=b"a=1")).status == 401
    assert (await nobody.ask(f"{APP}/any/x", PAGE, method="HEAD")).status == 302
    refused_untouched(it)
    assert {exchange.tag.decision for exchange in it.exchanges} == {"login"}
    assert not it.state.values


async def test_an_upgrade_is_answered_and_never_redirected(it: Front, alice: Browser) -> None:
    nobody = it.browser()
    page = await nobody.ask(f"{APP}/ws/", {**PAGE, **UPGRADE})
    assert (page.status, page.location) == (401, "")
    assert (await alice.ask(f"{APP}/ws/", {**UPGRADE, "Origin": "https://evil.test"})).status == 403
    assert (await alice.ask(f"{APP}/any/", UPGRADE)).status == 403
    assert (await alice.ask(f"{APP}/fixed/", UPGRADE)).status == 403
    refused_untouched(it)
    await alice.ask(f"{APP}/ws/", UPGRADE)
    assert b"Upgrade: websocket" in it.app.received and b"X-Ztproxy-Assertion: " in it.app.received


async def test_a_person_is_forwarded_with_who_they_are(it: Front, alice: Browser) -> None:
    forged = {**XHR, "X-Ztproxy-Assertion": "forged", "X-Forwarded-For": "9.9.9.9"}
    page = await alice.ask(f"{APP}/any/x", forged)
    assert (page.status, page.text) == (200, "ok")
    sent = it.app.received
    assert sent.startswith(b"GET /any/x HTTP/1.1\r\nHost: app.test\r\n")
    assert sent.count(b"X-Ztproxy-Assertion: ") == 1 and b"forged" not in sent and b"9.9.9.9" not in sent
    assert str(alice.session()).encode() not in sent and b"__Host-" not in sent
    assert (page.field("cache-control"), page.field("vary")) == ("private", "Cookie")
    tag = it.exchanges[-1].tag
    assert (tag.route, tag.decision, tag.subject, tag.email) == ("any", "forward", "alice", "alice@corp.test")


async def test_a_stranger_at_an_open_site_is_nobody(it: Front) -> None:
    page = await it.browser().ask(f"{APP}/open/", XHR)
    assert page.status == 200 and page.field("vary") is None
    assert b"X-Ztproxy" not in it.app.received and it.exchanges[-1].tag.subject == ""


async def test_a_denial_says_why_to_a_person_only(it: Front, alice: Browser) -> None:
    page = await alice.ask(f"{APP}/admin/")
    assert page.status == 403 and Reason.GROUP_MISSING.sentence in page.text and "the help desk" in page.text
    assert (await alice.ask(f"{APP}/admin/", XHR)).json["reasons"] == ["group_missing"]
    refused_untouched(it)
    assert it.exchanges[-1].tag.decision == "deny"


@pytest.mark.parametrize("who", ["alice", "nobody"])
async def test_a_405_says_which_methods_there_are(it: Front, alice: Browser, who: str) -> None:
    browser = alice if who == "alice" else it.browser()
    page = await browser.ask(f"{APP}/narrow/", method="DELETE")
    assert (page.status, page.field("allow")) == (405, "GET, POST")
    refused_untouched(it)


@pytest.mark.parametrize("headers", [PAGE, XHR, {**PAGE, **UPGRADE}], ids=["page", "program", "socket"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_a_store_that_is_away(it: Front, alice: Browser, headers: Any, method: str) -> None:
    it.later(RELIED_ON)
    it.state.away = True
    cookies = dict(alice.cookies("app.test"))
    page = await alice.ask(f"{APP}/{'ws' if 'Upgrade' in headers else 'any'}/", headers, method=method)
    assert (page.status, page.field("retry-after"), page.location, page.set_cookies) in (
        (503, "1", "", []),
        (400, None, "", []),  # an upgrade by POST or HEAD is no request at all
    )
    assert alice.cookies("app.test") == cookies
    assert (await alice.ask(f"{APP}/open/", XHR)).status == 200  # what is open stays open
    it.state.away = False
    assert (await alice.ask(f"{APP}/any/", XHR)).status == 200  # recovers by itself


async def test_redirects_and_fixed_answers(it: Front, alice: Browser) -> None:
    page = await alice.ask(f"{APP}/moved/a%20b?q=//evil.test")
    assert (page.status, page.location) == (301, "https://new.test/base/moved/a%20b?q=//evil.test")
    assert page.field("cache-control") == "no-store"
    assert (await it.browser().ask(f"{APP}/moved/")).status == 302
    page = await it.browser().ask(f"{APP}/moved-for-all/x")
    assert (page.location, page.field("cache-control")) == ("https://new.test/there", None)
    page = await it.browser().ask(f"{APP}/fixed/")
    assert (page.status, page.text, page.field("content-type")) == (418, "short and stout", "text/plain")
    assert page.field("strict-transport-security") == "max-age=60"
    head = await it.browser().ask(f"{APP}/fixed/", method="HEAD")
    assert (head.field("content-length"), head.text) == ("15", "")
    assert (await alice.ask(f"{APP}/fixed-for-us/")).field("cache-control") == "no-store"
    refused_untouched(it)


async def test_an_app_that_is_away_is_told_as_a_page(it: Front, alice: Browser) -> None:
    await it.app.stop()
    it.later(0)
    it.worker.pool.close()
    page = await alice.ask(f"{APP}/any/")
    assert page.status == 502 and Reason.UPSTREAM_UNREACHABLE.sentence in page.text and not page.set_cookies
    assert (await alice.ask(f"{APP}/any/", XHR)).json["reasons"] == ["upstream_unreachable"]
    assert it.exchanges[-1].failure is Reason.UPSTREAM_UNREACHABLE


# -- what never reaches an app ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "status"),
    [
        pytest.param("/.ZTPROXY/logout", 404, id="P47"),
        pytest.param("/.ztproxy/%2e%2e/any", 400, id="P45"),
        pytest.param("/.ztproxy/nothing", 404, id="ours"),
        pytest.param("/.%7Atproxy/nothing", 404, id="ours, escaped"),
        pytest.param("/.zTpRoXy;a=b/sign_in", 404, id="ours, with a parameter"),
        pytest.param("/.ztproxy%2Fsign_in", 404, id="ours, an escaped slash"),
        pytest.param("/slashes%2f.ztproxy", 400, id="a slash that two would read differently"),
        pytest.param("/any/a%2Fb", 400, id="a route that tolerates no such slash"),
        pytest.param("/nowhere", 404, id="no such route"),
    ],
)
@pytest.mark.parametrize("who", ["alice", "nobody"])
async def test_paths_that_are_nobodys_app(
    it: Front, alice: Browser, who: str, target: str, status: int
) -> None:
    browser = alice if who == "alice" else it.browser()
    assert (await browser.ask(APP + target)).status == status
    refused_untouched(it)


async def _all(it: Front, data: bytes) -> bytes:
    client = await it.client()
    await client.send(data)
    told = await client.rest()
    client.close()
    return told


@pytest.mark.parametrize(
    ("host", "target", "status", "reason"),
    [
        pytest.param("evil.test", "/", 421, Reason.NO_SUCH_HOST, id="unknown host"),
        pytest.param(
            "evil.test", "/.ztproxy/sign_in", 421, Reason.NO_SUCH_HOST, id="ours, at an unknown host"
        ),
        pytest.param("app.test.evil.test", "/any/", 421, Reason.NO_SUCH_HOST, id="a look-alike"),
        pytest.param("app.test", "/any/a%2Fb", 400, Reason.HTTP_PATH, id="a path with two readings"),
    ],
)
async def test_what_ends_the_connection(
    it: Front, alice: Browser, host: str, target: str, status: int, reason: Reason
) -> None:
    cookie = f"Cookie: __Host-ztproxy={alice.session()}\r\n"
    first = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n"
    second = f"GET /any/ HTTP/1.1\r\nHost: app.test\r\n{cookie}\r\n"
    told = await _all(it, (first + second).encode())
    assert told.count(b"HTTP/1.1 ") == 1 and told.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nConnection: close\r\n" in told and b"evil" not in told
    refused_untouched(it)
    assert it.refused == [reason] and it.exchanges[-1].tag.reasons == (reason,)


@pytest.mark.parametrize(
    ("value", "reads"),
    [
        pytest.param("v1." + "A" * 43 + "." + "A" * 43, 0, id="forged"),
        pytest.param("v2.x", 0, id="S11 another version"),
        pytest.param("../../*", 0, id="S11 a path"),
        pytest.param("a" * 7000, 0, id="S11 long"),
        pytest.param("", 0, id="empty"),
    ],
)
async def test_a_forged_cookie_is_nobody(it: Front, value: str, reads: int) -> None:
    it.state.away = True  # a question to the store would be a 503
    browser = it.browser()
    browser.cookies("app.test")["__Host-ztproxy"] = value
    assert (await browser.ask(f"{APP}/any/", XHR)).status == 401
    refused_untouched(it)


async def test_pipelined_requests_are_judged_one_by_one(it: Front, alice: Browser) -> None:
    cookie = f"Cookie: __Host-ztproxy={alice.session()}\r\n".encode()
    request = b"GET /any/%d HTTP/1.1\r\nHost: app.test\r\n%b\r\n"
    client = await it.client()
    await client.send(request % (1, cookie) + request % (2, b"") + request % (3, cookie))
    assert [(await client.answer()).status for _ in range(3)] == [200, 401, 200]
    client.close()
    assert b"/any/2" not in it.app.received


# -- when something goes wrong ----------------------------------------------------------------------------


class Breaks:
    """A store that raises what nobody expected."""

    def __init__(self, state: Any) -> None:
        self.state = state

    async def load(self, handle: str, bookmark: Any = None) -> Any:
        raise KeyError("a mistake of ours")


async def test_a_mistake_on_the_way_to_a_decision_is_a_denial(it: Front, alice: Browser) -> None:
    it.worker.witness._store = Breaks(it.state)  # type: ignore[assignment]
    it.later(RELIED_ON)
    it.expected = ["a request could not be judged"]
    page = await alice.ask(f"{APP}/any/", XHR)
    assert page.status == 500 and "mistake" not in page.text
    refused_untouched(it)
    assert it.exchanges[-1].failure is Reason.INTERNAL


async def test_a_mistake_in_a_decision_made_at_once_is_a_denial(it: Front, alice: Browser) -> None:
    it.assertions.sign = None  # type: ignore[assignment,method-assign]
    it.clock.now += 61  # so that the assertion must be signed anew, at once
    it.expected = ["a handler failed"]
    assert (await alice.ask(f"{APP}/any/", XHR)).status == 500
    refused_untouched(it)


class Slow:
    """A store that answers when it is told to."""

    def __init__(self, state: Any) -> None:
        self.state, self.asked, self.go_on = state, asyncio.Event(), asyncio.Event()

    async def load(self, handle: str, bookmark: Any = None) -> Any:
        self.asked.set()
        await self.go_on.wait()
        return await self.state.load(handle)

    async def touch(self, handle: str, seen: Any = None) -> bool:
        return True


async def _waiting(it: Front, alice: Browser) -> tuple[Slow, asyncio.Task[Any]]:
    slow = Slow(it.state)
    it.worker.witness._store = slow  # type: ignore[assignment]
    it.later(RELIED_ON)
    asking = asyncio.create_task(alice.ask(f"{APP}/any/", XHR))
    await slow.asked.wait()
    return slow, asking


async def test_a_client_that_leaves_is_not_forwarded(it: Front, alice: Browser) -> None:
    slow, asking = await _waiting(it, alice)
    asking.cancel()
    await it.until(lambda: it.exchanges)
    slow.go_on.set()
    await it.until(lambda: not it.surface._judging)
    refused_untouched(it)
    assert it.exchanges[-1].tag is None


async def test_what_was_judged_before_a_reload_is_judged_again(it: Front, alice: Browser) -> None:
    slow, asking = await _waiting(it, alice)
    it.reload(part("any", ADMINS))
    slow.go_on.set()
    assert (await asking).status == 403
    refused_untouched(it)


async def test_a_reload_drops_what_was_known(it: Front, alice: Browser) -> None:
    assert (await alice.ask(f"{APP}/any/", XHR)).status == 200
    forget(it)
    it.reload(part("any", ADMINS))
    assert (await alice.ask(f"{APP}/any/", XHR)).status == 403
    refused_untouched(it)


# -- the matched route is the one that is forwarded to ----------------------------------------------------


async def test_each_route_has_its_own_lane() -> None:
    second = await Recording(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")).start()
    async with front(part("one", EVERYONE), part("two", EVERYONE)) as it:
        upstream = Upstream((Endpoint("127.0.0.1", second.port),))
        pool = Pool(upstream, None, asyncio.get_running_loop())
        lanes = dict(it.worker.plane.lanes)
        lanes["two"] = lanes["two"]._replace(pool=pool)
        it.surface.plane = replace(it.worker.plane, lanes=lanes)
        nobody = it.browser()
        assert [(await nobody.ask(f"{APP}/{name}/")).text for name in ("one", "two")] == ["ok", "second"]
        pool.close()
    await second.stop()


async def test_what_the_path_decides_is_decided_for_each_path() -> None:
    rules = policy(PathUnder(("a",)), InGroup(frozenset({"banned"})))
    async with front(site(rules)) as it:
        alice = it.browser()
        await alice.open(f"{APP}/.ztproxy/session")
        for _ in range(2):
            assert (await alice.ask(f"{APP}/a/x", XHR)).status == 200
            assert (await alice.ask(f"{APP}/b/x", XHR)).status == 403
        assert b"/b/x" not in it.app.received
        assert json.loads((await alice.ask(f"{APP}/b/x", XHR)).text)["reasons"] == ["path_mismatch"]


# -- locks, and the lease they are heard by ---------------------------------------------------------------


async def test_a_locked_person_sees_the_message_and_nobody_else_does(it: Front, alice: Browser) -> None:
    issuer = next(iter(it.state.sessions.values())).session.identity.issuer
    target = Target(TargetKind.USER, "alice", issuer)
    lock = it.lease.lock(
        target, until=it.clock() + 60, message="Back on <b>Monday</b>.", reason="secret reason"
    )
    cookies = dict(alice.cookies("app.test"))
    page = await alice.ask(f"{APP}/any/")
    assert page.status == 403 and "Back on &lt;b&gt;Monday&lt;/b&gt;." in page.text
    assert "secret reason" not in page.text and not page.set_cookies and alice.cookies("app.test") == cookies
    told = (await alice.ask(f"{APP}/any/", XHR)).json
    assert (told["reasons"], told["message"]) == (["locked"], "Back on <b>Monday</b>.")
    refused_untouched(it)
    bob = it.browser("bob")
    assert (await bob.open(f"{APP}/any/")).status == 200
    it.lease.lift(lock)
    assert (await alice.ask(f"{APP}/any/")).status == 200


async def test_a_revoked_session_is_asked_to_sign_in_and_stays_dead(it: Front, alice: Browser) -> None:
    (record,) = it.state.sessions.values()
    it.lease.lock(Target(TargetKind.SESSION, record.session.id))
    page = await alice.ask(f"{APP}/any/")
    assert (page.status, page.location) == (302, f"{APP}/.ztproxy/sign_in?rd=%2Fany%2F")
    assert (await alice.ask(f"{APP}/any/", XHR)).json["reasons"] == ["session_revoked"]
    assert (await alice.ask(f"{APP}/open/", XHR)).status == 200  # as a stranger
    assert b"X-Ztproxy" not in it.app.received
    before = alice.session("app.test")
    assert (await alice.open(f"{APP}/any/")).status == 200  # signs in again
    assert alice.session("app.test") != before


async def test_a_lock_that_asks_for_a_sign_in_is_satisfied_by_one(it: Front) -> None:
    alice = it.browser(auth_time=int(it.clock()))
    await alice.open(f"{APP}/any/")
    it.lease.lock(ALL, action=LockAction.REQUIRE_LOGIN)
    assert (await alice.ask(f"{APP}/any/", XHR)).json["reasons"] == ["lock_sign_in"]
    page = await alice.ask(f"{APP}/any/")
    assert page.location.startswith(f"{APP}/.ztproxy/sign_in")
    assert "max_age=0" in (await alice.ask(page.location)).location
    assert (await alice.open(f"{APP}/any/")).status == 200
    assert (await alice.ask(f"{APP}/any/", XHR)).status == 200


async def test_a_closed_route_is_closed_for_strangers_too(it: Front, alice: Browser) -> None:
    it.lease.lock(Target(TargetKind.ROUTE, "open"), until=it.clock() + 60)
    assert (await it.browser().ask(f"{APP}/open/", XHR)).status == 403
    assert (await alice.ask(f"{APP}/any/", XHR)).status == 200
    it.clock.now += 60
    assert (await it.browser().ask(f"{APP}/open/", XHR)).status == 200


async def test_without_a_lease_nobody_is_let_in_and_nobody_is_sent_away(it: Front, alice: Browser) -> None:
    cookies = dict(alice.cookies("app.test"))
    it.lease.lapse()
    page = await alice.ask(f"{APP}/any/")
    assert (page.status, page.field("retry-after"), page.set_cookies) == (503, "1", [])
    refused_untouched(it)
    assert (await it.browser().ask(f"{APP}/open/", XHR)).status == 200
    assert (await it.browser().ask(f"{APP}/any/")).status == 302  # a stranger has nothing to be checked
    it.lease.until = float("inf")
    assert (await alice.ask(f"{APP}/any/")).status == 200 and alice.cookies("app.test") == cookies


# -- how often --------------------------------------------------------------------------------------------


TWO = Rate(1, 5.0, 2)
"""Two at once, and one more every five seconds."""


def told_to_wait(page: Page, by: By) -> bool:
    """A 429 with all that a client needs, of which the app has seen nothing."""
    known = {"retry-after": "5", "ratelimit": f'"{by}";r=0;t=5', "ratelimit-policy": f'"{by}";q=1;w=5'}
    return page.status == 429 and {name: page.field(name) for name in known} == known


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("by", list(By))
async def test_one_more_than_the_rate_allows(it: Front, alice: Browser, by: By, exact: bool) -> None:
    it.reload(part("any", rates=(RateLimit(by, TWO, exact),)))
    assert [(await alice.ask(f"{APP}/any/", XHR)).status for _ in range(2)] == [200, 200]
    forget(it)
    refused = await alice.ask(f"{APP}/any/", XHR)
    assert told_to_wait(refused, by) and refused.json["reasons"] == ["rate_limited"]
    shown = await alice.ask(f"{APP}/any/")
    assert told_to_wait(shown, by) and "Wait 5 seconds" in shown.text
    refused_untouched(it)
    tag = it.exchanges[-1].tag
    assert (tag.route, tag.decision, tag.reasons) == ("any", "refuse", (Reason.RATE_LIMITED,))
    it.later(5)
    assert (await alice.ask(f"{APP}/any/", XHR)).status == 200
    assert it.counting.asked == (4 if exact else 0)  # what was refused once is not asked again


@pytest.mark.parametrize(
    ("by", "strangers", "then"),
    [
        pytest.param(By.ROUTE, [302, 302, 302], 200, id="a route's is for what is forwarded"),
        pytest.param(By.SESSION, [302, 302, 302], 200, id="a session's is its own"),
        pytest.param(By.ADDRESS, [302, 302, 429], 429, id="an address's is for whoever is behind it"),
    ],
)
async def test_what_strangers_use_up(
    it: Front, alice: Browser, by: By, strangers: list[int], then: int
) -> None:
    it.reload(part("any", rates=(RateLimit(by, TWO),)))
    nobody = it.browser()
    assert [(await nobody.ask(f"{APP}/any/")).status for _ in range(3)] == strangers
    assert (await alice.ask(f"{APP}/any/")).status == then


async def test_a_sender_is_counted_for_whatever_it_asks(it: Front, alice: Browser) -> None:
    it.per_address = TWO
    it.reload(part("open", EVERYONE))
    nobody = it.browser()
    pages = (f"{APP}/.ztproxy/session", f"{APP}/nowhere", f"{APP}/open/", f"{APP}/.ztproxy/session")
    assert [(await nobody.ask(page, XHR)).status for page in pages] == [401, 404, 429, 429]
    refused_untouched(it)


async def test_a_session_is_counted_over_all_routes(it: Front, alice: Browser) -> None:
    it.per_session = TWO
    it.reload(part("any"), part("open", EVERYONE))
    assert [(await alice.ask(f"{APP}/{name}/")).status for name in ("any", "any", "any")] == [200, 200, 429]
    assert (await it.browser().ask(f"{APP}/open/")).status == 200


async def test_a_reload_is_no_new_burst(it: Front, alice: Browser) -> None:
    for expected in (200, 429):
        it.reload(part("any", rates=(RateLimit(By.SESSION, TWO._replace(burst=1)),)))
        assert (await alice.ask(f"{APP}/any/")).status == expected


async def test_who_is_revoked_while_the_store_counts_is_not_let_in(it: Front, alice: Browser) -> None:
    it.reload(part("any", rates=(RateLimit(By.SESSION, TWO, exact=True),)))
    (session,) = {record.session.id for record in it.state.sessions.values()}

    def revoked() -> None:
        it.lease.lock(Target(TargetKind.SESSION, session))

    it.counting.meanwhile = revoked
    page = await alice.ask(f"{APP}/any/", XHR)
    assert (page.status, it.counting.asked) == (401, 1)
    refused_untouched(it)


async def test_who_hangs_up_spends_nothing_of_others(it: Front, alice: Browser) -> None:
    rates = (RateLimit(By.SESSION, TWO), RateLimit(By.ROUTE, TWO, exact=True))
    it.reload(part("any", rates=rates))
    assert (await alice.ask(f"{APP}/any/", XHR)).status == 200
    slow, asking = await _waiting(it, alice)
    it.exchanges.clear()
    asking.cancel()
    await it.until(lambda: it.exchanges)
    slow.go_on.set()
    await it.until(lambda: not it.surface._judging)
    assert it.counting.asked == 1
