"""Revoking what is under way: WebSockets, event streams, downloads, uploads, and a request on its way out.

After the confirmation nothing passes, in either direction; both sides are closed soon; what was cut off never
looks complete to anybody. Whoever is not concerned goes on.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.stories.endings import (
    CLOSE,
    SWITCHED,
    UPGRADE,
    answers,
    audit_is_whole,
    echo,
    frame,
    frames,
    opened,
    request,
    session_of,
)
from tests.stories.house import Guest, House, house
from tests.stories.neighbours import admin_of
from tests.stories.talking import PATIENCE, Wire, until
from tests.wire.recording import OK, Line, Recording, silent

ROUTES = """\
  - from: https://app.test
    prefix: /raw
    name: raw
    to: http://127.0.0.1:$raw
    allow_any_authenticated_user: true
    outlier_detection: off
  - from: https://app.test
    prefix: /slow
    name: slow
    to: http://127.0.0.1:$slow
    allow_any_authenticated_user: true
    connect_timeout: 60s
    outlier_detection: off
  - from: https://app.test
    prefix: /mute
    name: mute
    to: https://127.0.0.1:$mute
    dangerous_tls_skip_verify: true
    allow_any_authenticated_user: true
    connect_timeout: 60s
    outlier_detection: off
"""
RULED = """\
  - from: https://app.test
    prefix: /ruled
    name: ruled
    to: http://127.0.0.1:$upstream
    recheck: 1s
    upgrades: [websocket]
    policy:
      - name: a team
        allow: {group: [TEAM]}
  - from: https://app.test
    prefix: /vouched
    name: vouched
    to: http://127.0.0.1:$upstream
    recheck: 1s
    upgrades: [websocket]
    sensitivity: {label: internal, least_rank: 1, verified_within: 1s}
    allow_any_authenticated_user: true
  - from: https://app.test
    prefix: /fresh
    name: fresh
    to: http://127.0.0.1:$upstream
    recheck: 1s
    upgrades: [websocket]
    sensitivity: {label: internal, least_rank: 1, signed_in_within: 3s}
    allow_any_authenticated_user: true
  - from: https://app.test
    prefix: /strong
    name: strong
    to: http://127.0.0.1:$upstream
    policy:
      - name: with a second factor
        allow: {authenticated: true, acr_rank: 2}
"""


def routes(team: str = "engineering") -> str:
    return ROUTES + RULED.replace("TEAM", team)


LISTENERS = pytest.mark.parametrize("listener", ["plain", "tls"])


@dataclass
class Scene:
    """A house; `raw` is an app that reads everything and says nothing; `slow` listens and accepts nobody,
    `mute` accepts and never says a word of TLS."""

    home: House
    raw: Recording
    slow: socket.socket
    mute: socket.socket
    lines: list[Line] = field(default_factory=list)

    def revoke(self, cookie: str) -> None:
        """Ends a session; confirmed."""
        answer = admin_of(self.home).revoke("session", session_of(self.home, cookie))
        assert answer.confirmed, answer

    def late(self, line: Line, data: bytes) -> None:
        """The app says something more, if it still can."""

        async def say() -> None:
            with suppress(ConnectionError):
                await line.send(data)

        self.home.run(say())

    async def play(self, line: Line, request: bytes) -> None:
        """The app: what it is depends on the path."""
        self.lines.append(line)
        path = request.split(b" ")[1]
        if path.endswith(b"/ws"):
            await echo(line, request)
        elif path.startswith(b"/frames"):
            await line.send(SWITCHED + frame(b"hello"))
            while await line.more():
                pass
        elif path.startswith(b"/chunked"):
            await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n")
        elif path.startswith(b"/length"):
            await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst\n")
        elif path.startswith(b"/endless"):
            await line.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfirst\n")
        else:
            await line.send(OK)

    def heard_by_raw(self, end: bytes) -> Line:
        """Waits until the app that says nothing has heard so much, on a connection that is still open."""

        def found() -> list[Line]:
            lines = [line for line in self.raw.lines if not line.ended.is_set()]
            return [line for line in lines if line.received.endswith(end)]

        until(found)
        (line,) = found()
        return line

    def has_closed(self, line: Line) -> None:
        """Waits for the app's side to be closed."""
        self.home.run(line.ended.wait())


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[Scene]:
    raw = Recording(silent)
    with ExitStack() as stack:
        slow = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        mute = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        # One connection fills the queue of who accepts nobody; the next waits for ever.
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(slow.getsockname())

        def prepare(it: House) -> None:
            it.run(raw.start())
            it.ports |= {"raw": raw.port, "slow": slow.getsockname()[1], "mute": mute.getsockname()[1]}

        folder = tmp_path_factory.mktemp("live")
        with house(
            folder, valkey_url, parts={"routes": routes(), "route": "    recheck: 1s"}, prepare=prepare
        ) as home:
            admin_of(home).ready()
            made = Scene(home, raw, slow, mute)
            home.app.play = made.play
            yield made
            assert home.metric("ztproxy_exchanges_frozen") == 0
            home.run(raw.stop())
        audit_is_whole(home)


# -- WebSockets -------------------------------------------------------------------------------------------


@LISTENERS
def test_fi43_a_websocket_between_two_frames(scene: Scene, listener: str) -> None:
    """Both sides are told, 1008; and nobody else's ends."""
    home = scene.home
    alice, bob = home.sign_in("alice"), home.sign_in("bob")
    with home.wire(listener) as wire, home.wire(listener) as other:
        opened(other, bob)
        opened(wire, alice)
        line = scene.lines[-1]
        assert answers(wire, b"one") and answers(other, b"one")
        scene.revoke(alice)
        # What either side says from now on, to a peer that has not noticed yet, goes nowhere.
        wire.send(frame(b"too late", masked=True))
        scene.late(line, frame(b"too late"))
        said = list(frames(wire.rest().data))
        assert [(one.kind, one.code) for one in said] == [(CLOSE, 1008)]
        scene.has_closed(line)
        *_, last = frames(line.received.rpartition(b"\r\n\r\n")[2])
        assert (last.kind, last.code) == (CLOSE, 1008)
        assert b"too late" not in line.received
        assert answers(other, b"two")
    with home.wire(listener) as again:
        assert again.send(request(alice, "/ws", UPGRADE)).until(b"\r\n\r\n").startswith(b"HTTP/1.1 401 ")


@LISTENERS
@pytest.mark.parametrize("unfinished", ["to the client", "to the app", "both"])
def test_fi43_a_websocket_within_a_frame(scene: Scene, listener: str, unfinished: str) -> None:
    """Nothing may be put into a frame that is under way: that side is cut off, the other is told."""
    home = scene.home
    alice = home.sign_in("alice")
    to_client, to_app = unfinished != "to the app", unfinished != "to the client"
    half = frame(b"x" * 1000)[:20]
    masked_half = frame(b"y" * 1000, masked=True)[:20]
    with home.wire(listener) as wire:
        opened(wire, alice, "/frames")
        line = scene.lines[-1]
        if to_client:
            home.run(line.send(half))
            wire.until(half)
        if to_app:
            wire.send(masked_half)
            until(lambda: line.received.endswith(masked_half))
        before = line.received
        scene.revoke(alice)
        heard = wire.rest()
        scene.has_closed(line)
    if to_client:
        assert heard.data == b""
    else:
        assert [one.code for one in frames(heard.data)] == [1008]
    if to_app:
        assert line.received == before
    else:
        assert [one.code for one in frames(line.received[len(before) :])] == [1008]


@LISTENERS
def test_fi43_a_websocket_that_never_rests(scene: Scene, listener: str) -> None:
    """Numbered frames, as fast as they go, in both directions. None that was sent after the confirmation
    arrives."""
    home = scene.home
    alice = home.sign_in("alice")
    numbers = {"app": 0, "client": 0}
    told = bytearray()
    tls = home.client_tls if listener == "tls" else None
    name = "app.test" if tls else None

    def numbered(who: str) -> bytes:
        numbers[who] += 1
        return frame(b"%08d" % numbers[who], masked=who == "client")

    async def app(line: Line) -> None:
        with suppress(ConnectionError):
            while not line.ended.is_set():
                await line.send(numbered("app"))

    async def shout(writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while True:
                writer.write(numbered("client"))
                await writer.drain()
                await asyncio.sleep(0)

    async def client() -> None:
        port = home.ports[listener]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
        writer.write(request(alice, "/frames", UPGRADE))
        await reader.readuntil(frame(b"hello"))
        ends = [asyncio.create_task(shout(writer)), asyncio.create_task(app(scene.lines[-1]))]
        with suppress(ConnectionError):
            while more := await reader.read(65536):
                told.extend(more)
        writer.transport.abort()
        await asyncio.gather(*ends)

    begun = len(scene.lines)
    talking = home.background.begin(client())
    until(lambda: talking.done() or (len(scene.lines) > begun and len(told) > 5_000))
    line = scene.lines[-1]
    until(lambda: talking.done() or line.received.count(frame(b"00000500", masked=True)))
    scene.revoke(alice)
    confirmed = dict(numbers)
    talking.result(PATIENCE)
    scene.has_closed(line)
    received = line.received.rpartition(b"\r\n\r\n")[2]
    for who, data, size in (("app", bytes(told), 10), ("client", received, 14)):
        found = [int(data[at + size - 8 : at + size]) for at in _whole(data, size)]
        assert found == list(range(1, len(found) + 1)), f"{who}: not each once and in order"
        assert 500 <= len(found) <= confirmed[who], who


def _whole(data: bytes, size: int) -> range:
    """Where the frames of this size begin; behind them is at most one close frame, or a part of one of
    them."""
    text = 0
    while data[text : text + 1] == b"\x81" and len(data) >= text + size:
        text += size
    assert len(data) - text < size or data[text] == 0x88
    return range(0, text, size)


# -- answers ----------------------------------------------------------------------------------------------


@LISTENERS
@pytest.mark.parametrize(
    ("path", "version"),
    [
        pytest.param("/chunked", "1.1", id="an event stream"),
        pytest.param("/length", "1.1", id="a download"),
        pytest.param("/endless", "1.1", id="a stream until the app closes"),
        pytest.param("/endless", "1.0", id="to a client that knows no chunks"),
    ],
)
def test_fi44_an_answer_that_is_under_way(scene: Scene, listener: str, path: str, version: str) -> None:
    home = scene.home
    alice = home.sign_in("alice")
    with home.wire(listener) as wire:
        wire.send(request(alice, path, version=version)).until(b"first\n")
        line = scene.lines[-1]
        scene.revoke(alice)
        scene.late(line, b"4\r\nlate\r\n0\r\n\r\n" if path == "/chunked" else b"late")
        heard = wire.rest()
        scene.has_closed(line)
    assert heard.data.strip(b"\r\n") == b"", "neither more of it, nor an end"
    if version == "1.0" and listener == "plain":
        assert heard.reset, "a client of then cannot tell a clean end from a whole answer"


@LISTENERS
def test_fi44_a_big_download(scene: Scene, listener: str) -> None:
    """Most of it waits in buffers everywhere when it ends; the client is slow to take it."""
    home = scene.home
    alice, size, sent = home.sign_in("alice"), 256 * 2**20, 0

    async def play(line: Line, request: bytes) -> None:
        nonlocal sent
        scene.lines.append(line)
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size and not line.ended.is_set():
            await line.send(b"x" * 2**18)
            sent += 2**18

    home.app.play = play
    try:
        with home.wire(listener) as wire:
            wire.send(request(alice)).until(b"\r\n\r\n")
            until(lambda: sent > 2**20)
            scene.revoke(alice)
            heard = wire.rest()
        scene.has_closed(scene.lines[-1])
    finally:
        home.app.play = scene.play
    assert heard.closed and len(heard.data) < size
    assert sent < size


# -- uploads ----------------------------------------------------------------------------------------------


@LISTENERS
@pytest.mark.parametrize(
    ("framing", "part", "rest"),
    [
        pytest.param(b"Content-Length: 20\r\n", b"0123456789", b"0123456789", id="a length"),
        pytest.param(b"Transfer-Encoding: chunked\r\n", b"a\r\n0123456789\r\n", b"0\r\n\r\n", id="chunks"),
    ],
)
def test_fi45_an_upload(scene: Scene, listener: str, framing: bytes, part: bytes, rest: bytes) -> None:
    """The client is told why; the app never sees it end."""
    home = scene.home
    alice = home.sign_in("alice")
    with home.wire(listener) as wire:
        wire.send(request(alice, "/raw", framing, method="POST") + part)
        line = scene.heard_by_raw(part)
        scene.revoke(alice)
        wire.send(rest)
        heard = wire.rest()
        scene.has_closed(line)
    assert (heard.status, heard.fields("Connection")) == (401, ["close"])
    assert line.received.endswith(part), "the app got more of it"
    assert not line.received.endswith(b"0\r\n\r\n")


@LISTENERS
def test_fi45_an_upload_that_is_being_answered(scene: Scene, listener: str) -> None:
    """Nothing can be said any more: it is broken off."""
    home = scene.home
    alice = home.sign_in("alice")
    with home.wire(listener) as wire:
        wire.send(request(alice, "/raw", b"Transfer-Encoding: chunked\r\n", method="POST") + b"1\r\nx\r\n")
        line = scene.heard_by_raw(b"1\r\nx\r\n")
        home.run(line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"))
        wire.until(b"one\r\n")
        scene.revoke(alice)
        scene.late(line, b"0\r\n\r\n")
        heard = wire.rest()
        scene.has_closed(line)
    assert heard.data == b""
    assert line.received.endswith(b"1\r\nx\r\n")


# -- on the way out ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["slow", "mute"])
def test_fi46_a_request_that_waits_for_its_connection(scene: Scene, where: str) -> None:
    """Authorised, and not sent yet: it never is. Where the app accepts at last, it hears nothing of it."""
    home = scene.home
    alice = home.sign_in("alice")
    with home.wire() as wire:
        wire.send(request(alice, f"/{where}/secret-errand"))
        if where == "mute":
            accepted, _ = scene.mute.accept()
        else:
            until(lambda: _connecting(scene.slow.getsockname()[1]))
        scene.revoke(alice)
        heard = wire.rest()
    assert (heard.status, heard.fields("Connection")) == (401, ["close"])
    if where == "slow":
        # Whoever is in the queue, and whoever still knocks, comes in now.
        scene.slow.settimeout(1.0)
        taken = bytearray()
        try:
            while True:
                accepted, _ = scene.slow.accept()
                with accepted:
                    accepted.settimeout(1.0)
                    taken += accepted.recv(65536)
        except TimeoutError:
            pass
    else:
        with accepted:
            accepted.settimeout(1.0)
            taken = bytearray()
            try:
                while more := accepted.recv(65536):
                    taken += more
            except (TimeoutError, ConnectionError):
                pass
    assert b"secret-errand" not in taken and b"HTTP/1.1" not in taken


def _connecting(port: int) -> bool:
    """Whether somebody waits for a connection to `port` (RFC 9293 3.3.2: SYN-SENT)."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(line[2] == f"0100007F:{port:04X}" and line[3] == "02" for line in lines)


# -- judged again -----------------------------------------------------------------------------------------


def ends(scene: Scene, wire: Wire, line: Line) -> None:
    """Waits until both sides of a WebSocket were told that access has ended."""
    said = list(frames(wire.rest().data))
    assert (said[-1].kind, said[-1].code) == (CLOSE, 1008)
    scene.has_closed(line)


def test_a_reload_that_takes_access_away(scene: Scene) -> None:
    """What was open ends; what the reload does not concern goes on, and so does everything at one that
    changes nothing for anybody."""
    home = scene.home
    alice = home.sign_in("alice")
    with home.wire() as other, home.wire("tls") as wire:
        opened(other, alice)
        opened(wire, alice, "/ruled/ws")
        line = scene.lines[-1]
        _reload(home, routes("engineering, others"))
        assert answers(wire, b"one") and answers(other, b"one")
        _reload(home, routes("others"))
        ends(scene, wire, line)
        assert answers(other, b"two")
        assert home.get("/ruled/x", alice).status == 403
    _reload(home, routes())


def _reload(home: House, routes: str) -> None:
    accepted = home.metric("ztproxy_config_reloads_total", outcome="ok")
    home.write_config(routes=routes)
    until(lambda: home.metric("ztproxy_config_reloads_total", outcome="ok") > accepted)


def test_a_person_the_provider_no_longer_vouches_for(scene: Scene) -> None:
    """As long as it does, the WebSocket goes on through one re-check after the other."""
    home = scene.home
    mallory = home.sign_in("mallory")
    with home.wire() as wire:
        opened(wire, mallory, "/vouched/ws")
        line = scene.lines[-1]
        asked = home.provider.hits["token"]
        until(lambda: home.provider.hits["token"] >= asked + 2)
        assert answers(wire, b"still here")
        home.provider.disable("mallory")
        try:
            ends(scene, wire, line)
        finally:
            home.provider.enable("mallory")
    assert home.get("/vouched/x", mallory).status == 401


def test_a_sign_in_that_grows_too_old(scene: Scene) -> None:
    """Nobody did anything: time did."""
    home = scene.home
    alice = home.sign_in("alice")
    with home.wire() as other, home.wire() as wire:
        opened(other, alice)
        opened(wire, alice, "/fresh/ws")
        line = scene.lines[-1]
        ends(scene, wire, line)
        answer = home.get("/fresh/x", alice)
        assert answer.status == 401 and b"step_up_required" in answer.body
        assert answers(other, b"elsewhere")


def test_a_handle_that_a_stronger_sign_in_has_replaced(scene: Scene) -> None:
    """Whoever copied it could hold a WebSocket open by it; the person's browser opens another."""
    home = scene.home

    async def stronger(guest: Guest) -> int:
        guest.method = "mfa"
        return (await guest.open("https://app.test/strong/x")).status

    async def signed_in(guest: Guest) -> str:
        await guest.__aenter__()
        await guest.open("https://app.test/u")
        return guest.session("https://app.test")

    guest = home.guest("bob")
    copied = home.run(signed_in(guest))
    try:
        with home.wire() as wire:
            opened(wire, copied)
            line = scene.lines[-1]
            assert home.run(stronger(guest)) == 200
            ends(scene, wire, line)
        assert home.get("/u", copied).status == 401
        with home.wire() as wire:
            opened(wire, guest.session("https://app.test"))
    finally:
        home.run(guest.__aexit__(None, None, None))


def test_a_session_that_reaches_its_end(tmp_path: Path, valkey_url: str) -> None:
    parts = {"settings": "session: {absolute: 3s}", "route": "    recheck: 1s"}

    async def play(line: Line, request: bytes) -> None:
        await (echo(line, request) if b"/ws " in request else line.send(OK))

    with house(tmp_path, valkey_url, parts=parts) as home, home.app.playing(play):
        until(lambda: home.operations("/readyz").status == 200)
        alice = home.sign_in("alice")
        with home.wire() as wire:
            opened(wire, alice)
            assert [one.code for one in frames(wire.rest().data)] == [1008]
        assert home.get("/u", alice).status == 401
