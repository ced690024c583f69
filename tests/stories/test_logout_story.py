"""Signing out: at the certified oidc-provider under Node, which tells us by a logout token of its own; in a
frame of its; and here, in one browser or everywhere.

Whatever way it comes, it is a revocation: it holds for every browser it concerns, also for what is open.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.node_provider.running import Door, installed, node_provider
from tests.stories.endings import answers, audit_is_whole, echo, frames, opened, session_of
from tests.stories.house import House, house
from tests.stories.neighbours import admin_of
from tests.stories.talking import Background, Wire, free_ports, until
from tests.stories.travelling import Traveller
from tests.wire.recording import OK, Line
from ztproxy.demo.visitor import NAVIGATION, Page

pytestmark = pytest.mark.node

APP = "https://app.test"
SECRET = "another+secret/with: odd characters"
NODE = """\
  - name: node
    issuer: {issuer}
    client_id: app
    client_secret: "{secret}"
    scopes: [openid, profile, email]
    frontchannel_logout: true
"""
CLIENT: dict[str, object] = {
    "client_id": "app",
    "client_secret": SECRET,
    "redirect_uris": [f"{APP}/.ztproxy/callback/node"],
    "post_logout_redirect_uris": [f"{APP}/.ztproxy/signed_out"],
    "backchannel_logout_uri": f"{APP}/.ztproxy/logout/back/node",
    "backchannel_logout_session_required": True,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[House]:
    installed()
    folder, ports = tmp_path_factory.mktemp("logout"), free_ports(("tls",))
    background = Background()
    ca = folder / "ca.pem"

    def prepare(it: House) -> None:
        ca.write_bytes(it.ca.cert_pem.bytes())
        it.seen(SECRET)
        it.parts["node"] = issuer

    with ExitStack() as stack:
        stack.callback(background.close)
        node = node_provider(CLIENT, Door(ports["tls"], ca))
        issuer = background.run(node.__aenter__())
        stack.callback(lambda: background.run(node.__aexit__(None, None, None)))
        parts = {"providers": NODE.format(issuer=issuer, secret=SECRET), "route": "    providers: node"}
        with house(folder, valkey_url, parts=parts, ports=ports, prepare=prepare) as it:
            it.app.play = play
            admin_of(it).ready()
            yield it
        assert "records" in audit_is_whole(it)


async def play(line: Line, request: bytes) -> None:
    await (echo(line, request) if request.startswith(b"GET /ws ") else line.send(OK))


class People:
    """Browsers, each with a WebSocket open."""

    def __init__(self, home: House, stack: ExitStack, *people: str) -> None:
        self.home = home
        self.browsers = [Traveller(home, person) for person in people]
        self.cookies: list[str] = []
        self.wires: list[Wire] = []
        for browser in self.browsers:
            home.run(browser.__aenter__())
            stack.callback(self._leave, browser)
            assert self.opens(browser).status == 200
            self.cookies.append(browser.session(APP))
            wire = stack.enter_context(home.wire("tls"))
            self.wires.append(opened(wire, self.cookies[-1]))

    def _leave(self, browser: Traveller) -> None:
        self.home.run(browser.__aexit__(None, None, None))

    def opens(self, browser: Traveller) -> Page:
        return self.home.run(browser.open(f"{APP}/u"))

    def ended(self, number: int) -> None:
        """This browser's session is over, and its WebSocket."""
        assert [one.code for one in frames(self.wires[number].rest().data)] == [1008]
        assert self.home.get("/u", self.cookies[number]).status == 401

    def go_on(self, *numbers: int) -> None:
        for number in numbers:
            assert self.home.get("/u", self.cookies[number]).status == 200
            assert answers(self.wires[number], b"still here")

    def posts(self, browser: Traveller, body: bytes) -> Page:
        """The sign-out form of our own page."""
        form = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
        url = f"{APP}/.ztproxy/sign_out"
        return self.home.run(browser.ask(url, {**NAVIGATION, **form}, method="POST", data=body))

    def sid(self, number: int) -> str:
        """What the provider calls the session."""
        shown = admin_of(self.home).ask("GET", f"/sessions/{session_of(self.home, self.cookies[number])}")
        return str(shown["idp_session"])


def actions(home: House) -> list[str]:
    """What is on record, by its action and outcome."""
    file = home.directory / "state" / "audit.log"
    return re.findall(r'"action":\s*"([^"]+)"', file.read_text()) if file.exists() else []


def newest(home: House) -> int:
    """The number of the last lock."""
    return max((int(lock["number"]) for lock in admin_of(home).locks()), default=0)


def test_signing_out_at_the_provider(home: House) -> None:
    """It tells us from server to server, and is told "done" when it holds. The person's other browser has
    another session there, and goes on."""
    with ExitStack() as stack:
        people = People(home, stack, "alice", "alice", "bob")
        alice, *_ = people.browsers
        noted = actions(home).count("logout.back_channel")
        out = f"{alice.node}/session/end?client_id=app"
        page = home.run(alice.sign_out_at_node(out))
        assert page.status == 200
        people.ended(0)
        people.go_on(1, 2)
        assert actions(home).count("logout.back_channel") == noted + 1
        until(lambda: '"sign_out"' in home.log("decisions"))
        # Nothing is kept of who signs in anew; the cookie of before stays what it is.
        alice.way.clear()
        assert people.opens(alice).status == 200
        assert any("/interaction/" in url for url in alice.way), "the provider still knew alice"
        assert home.get("/u", people.cookies[0]).status == 401


def test_a_frame_of_the_provider(home: House) -> None:
    """Whoever names a session of the provider by both its names ends it; nobody learns whether there was
    one."""
    with ExitStack() as stack:
        people = People(home, stack, "alice", "alice", "bob")
        issuer, sid = people.browsers[0].node, people.sid(0)
        number = newest(home)

        def told(**params: str) -> Page:
            url = f"{APP}/.ztproxy/logout/front/node?{urlencode(params)}"
            return home.run(people.browsers[2].ask(url, {**NAVIGATION, "Sec-Fetch-Dest": "iframe"}))

        for params in (
            {"sid": sid},
            {"iss": issuer},
            {"iss": home.issuer, "sid": sid},
            {"iss": f"{issuer}/", "sid": sid},
        ):
            assert told(**params).status == 400
        unknown = told(iss=issuer, sid="a-session-of-nobody")
        assert unknown.status == 200
        assert newest(home) == number, "a stranger filled the log"
        people.go_on(0, 1, 2)
        known = told(iss=issuer, sid=sid)
        assert (known.status, known.text) == (200, unknown.text)
        assert f"frame-ancestors {issuer}" in known.headers["Content-Security-Policy"]
        people.ended(0)
        people.go_on(1, 2)
        assert told(iss=issuer, sid=sid).status == 200


@pytest.mark.parametrize("everywhere", [False, True], ids=["here", "everywhere"])
def test_signing_out_here(home: House, everywhere: bool) -> None:
    with ExitStack() as stack:
        people = People(home, stack, "alice", "alice", "bob")
        before = len(admin_of(home).locks())
        page = people.posts(people.browsers[0], b"everywhere=yes" if everywhere else b"")
        assert page.status == 200
        home.seen(*parse_qs(urlsplit(page.headers["Refresh"].partition("url=")[2]).query)["id_token_hint"])
        people.ended(0)
        if everywhere:
            assert re.search(r"All your \d+ sessions have ended", page.text), page.text
            people.ended(1)
        else:
            people.go_on(1)
        people.go_on(2)
        assert len(admin_of(home).locks()) == before + 1


def test_whoever_was_revoked_proves_it_anew(home: House) -> None:
    """The provider remembers the person; that is not enough (INV-5)."""
    with ExitStack() as stack:
        people = People(home, stack, "bob")
        (bob,) = people.browsers
        assert admin_of(home).revoke("user", "bob", bob.node).confirmed
        people.ended(0)
        bob.way.clear()
        until(lambda: people.opens(bob).status == 200)
        asked = [parse_qs(urlsplit(url).query) for url in bob.way if url.startswith(f"{bob.node}/auth?")]
        assert ["login"] in [one.get("prompt") for one in asked]
        assert any("/interaction/" in url for url in bob.way)
        assert home.get("/u", people.cookies[0]).status == 401
