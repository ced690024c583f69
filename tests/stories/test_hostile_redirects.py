"""Where a running proxy leads people: whatever a link says, to a page of the site it was opened at.

Every payload goes into every place from which a redirect is made: the way back at the start of a sign-in, the
redirect behind a real sign-in, signing out, the path itself where it becomes a way back, a redirect to HTTPS
or one to another origin. What each `Location` means is asked of WHATWG's URL parser too (Node's).
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests.core.test_returning import ACCEPTED, REFUSED
from tests.evidence import Tried
from tests.stories.house import Guest, House, house
from tests.stories.talking import Heard, Sending, free_ports
from ztproxy.demo.visitor import NAVIGATION, Page

APP = "https://app.test"
PARTS = {
    "listeners": '  - {address: "127.0.0.1:$to_https", tls: false, redirect_to_https: true}\n',
    "routes": """\
  - from: https://moved.test
    name: moved
    redirect: {location: "https://app.test", keep_path: true}
    allow_public_unauthenticated_access: true
  - from: https://app.test
    prefix: /git
    name: git
    to: http://127.0.0.1:$upstream
    allow_any_authenticated_user: true
    encoded_slash: keep
""",
}
# Ways to begin, each before names that lead away.
FRONTS = (
    *("/", "//", "///", "/////", "\\", "/\\", "\\/", "//\\", "/%2f", "/%5c", "%2f%2f", "/./", "/../", "/.//"),
    *("/;//", "/x/..//", "/%09/", "/%0a/", "/%00/", "/%252f/", "/.%2e//", "/\t/", "/\n/", "\t//", "?//", "@"),
    *("//@", ":", "https:", "http:", "https:/", "https://", "https:///", "HTTPS:\\\\", "https://app.test@"),
)
AWAY = ("evil.test", "evil.test%2f@app.test")
PAYLOADS = {name: value for name, value in {**REFUSED, **ACCEPTED}.items() if value != "/\ud800"} | {
    repr(front + away): front + away for front, away in product(FRONTS, AWAY)
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[House]:
    names = ("app.test", "git.test")
    ports = free_ports(("to_https",))
    with house(tmp_path_factory.mktemp("redirects"), valkey_url, parts=PARTS, ports=ports, names=names) as it:
        yield it


@pytest.fixture(scope="module")
def alice(home: House) -> str:
    return home.sign_in("alice")


def asking(
    target: bytes, *fields: str, host: str = "app.test", method: str = "GET", body: bytes = b""
) -> bytes:
    lines = (
        f"Host: {host}",
        "Connection: close",
        *fields,
        f"Content-Length: {len(body)}" if body else "A: b",
    )
    return method.encode() + b" " + target + b" HTTP/1.1\r\n" + "\r\n".join((*lines, "", "")).encode() + body


def parameter(value: str) -> str:
    return quote(value, safe="")


def raw(value: str) -> bytes:
    """As a request target, which may hold neither spaces nor line ends."""
    return quote(value, safe="".join(map(chr, range(0x21, 0x7F)))).encode()


def page(path: str, name: str, alice: str = "") -> Sending:
    target = f"/.ztproxy/{path}?{name}".encode()
    return Sending(asking(target, *([f"Cookie: {alice}"] if alice else []), "Accept: text/html"))


Led = tuple[str, str, str, str]
"""The place, the payload, the URL it was sent to, and the Location."""


@pytest.fixture(scope="module")
def led(home: House, alice: str) -> list[Led]:
    """Every payload in every place: where each answer leads, nothing for an answer that leads nowhere."""
    navigation = [f"{name}: {value}" for name, value in NAVIGATION.items()]
    form = ["Origin: https://app.test", "Content-Type: application/x-www-form-urlencoded"]
    sendings: dict[tuple[str, str], tuple[str, Sending]] = {}
    for name, value in PAYLOADS.items():
        encoded = parameter(value)
        form_body = f"rd={encoded}&next={encoded}&post_logout_redirect_uri={encoded}".encode()
        out = f"/.ztproxy/sign_out?rd={encoded}&next={encoded}".encode()
        for place, url, sending in (
            ("rd", APP, page("sign_in", f"rd={encoded}", alice)),
            ("rd, choosing", APP, page("start/demo", f"rd={encoded}", alice)),
            (
                "target_link_uri",
                APP,
                page("sign_in", f"target_link_uri={encoded}&return_to={encoded}", alice),
            ),
            ("signing out", APP, Sending(asking(out, *form, method="POST", body=form_body))),
            ("a path without a session", APP, Sending(asking(raw(value), *navigation), "tls")),
            ("a path in plain", "http://app.test", Sending(asking(raw(value), *navigation))),
            ("a path to HTTPS", "http://app.test", Sending(asking(raw(value), *navigation), "to_https")),
            ("a path that has moved", "https://moved.test", Sending(asking(raw(value), host="moved.test"))),
        ):
            sendings[place, name] = url, sending
    left, answers = list(sendings), dict[tuple[str, str], Heard]()
    for _ in range(3):  # on a busy machine the store may be away for a moment: 503, and try again
        answers.update(zip(left, home.send_all([sendings[one][1] for one in left]), strict=True))
        left = [one for one in left if answers[one].status == 503]
    return [(*one, url, _location(answers[one])) for one, (url, _) in sendings.items()]


def _location(answer: Heard) -> str:
    assert answer.data.count(b"HTTP/1.1 ") == 1
    found = answer.fields("Location")
    assert len(found) == (answer.status in (302, 303, 308)), answer
    assert answer.status < 500, answer
    return found[0] if found else ""


def test_they_lead_to_the_site_alone(led: list[Led]) -> None:
    assert len(led) == len(PAYLOADS) * PLACES
    assert [one for one in led if one[3] and not f"{one[3]}/".startswith(f"{APP}/")] == []
    assert [one for one in led if one[3].startswith(f"{APP}//")] == []
    ways = {place: sum(bool(one[3]) for one in led if one[0] == place) for place, *_ in led}
    assert all(ways.values()), "some of them lead somewhere"


@pytest.mark.parametrize("place", ["rd", "rd, choosing"])
def test_the_way_back_is_kept_or_home(led: list[Led], place: str) -> None:
    found = {name: location for where, name, _, location in led if where == place}
    wrong = [name for name in REFUSED if name in found and found[name] != f"{APP}/"]
    wrong += [name for name, value in ACCEPTED.items() if found[name] != APP + value]
    assert wrong == []


@pytest.mark.parametrize("place", ["target_link_uri", "signing out"])
def test_what_is_not_asked_for_is_not_read(led: list[Led], place: str) -> None:
    assert len({location for where, _, _, location in led if where == place}) == 1


@pytest.mark.node
def test_a_browser_finds_the_same_site(led: list[Led]) -> None:
    beside = Path(sys.executable).parent / "node"
    node = str(beside) if beside.exists() else shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    pairs = [(location, url) for _, _, url, location in led if location]
    script = (
        "const pairs = JSON.parse(require('fs').readFileSync(0));"
        "console.log(JSON.stringify(pairs.map(([to, from]) => new URL(to, from).origin)))"
    )
    done = subprocess.run(
        [node, "-e", script], input=json.dumps(pairs).encode(), capture_output=True, timeout=60
    )
    assert set(json.loads(done.stdout)) == {APP}, done.stderr


class Wanderer(Guest):
    """A guest who notes where each answer leads."""

    def __init__(self, house: House) -> None:
        super().__init__(house, "alice", "pwd")
        self.trail: list[str] = []

    async def ask(
        self,
        url: str,
        headers: dict[str, str] | None = None,
        *,
        method: str = "GET",
        data: bytes | None = None,
    ) -> Page:
        found = await super().ask(url, headers, method=method, data=data)
        self.trail.append(found.location)
        return found


TAKEN = [name for name in PAYLOADS if name in REFUSED or name in ACCEPTED]


def test_the_end_of_a_real_sign_in(home: House) -> None:
    """What went in at its start comes out behind the provider's answer, and still leads nowhere else."""

    async def one(name: str, turn: asyncio.Semaphore) -> tuple[str, str, list[str]]:
        async with turn, Wanderer(home) as alice:
            found = await alice.open(f"{APP}/.ztproxy/sign_in?rd={parameter(PAYLOADS[name])}")
            return name, found.url, alice.trail

    async def story() -> list[tuple[str, str, list[str]]]:
        turn = asyncio.Semaphore(6)
        return await asyncio.gather(*(one(name, turn) for name in TAKEN))

    for name, end, trail in home.run(story()):
        assert end == (f"{APP}/" if name in REFUSED else APP + PAYLOADS[name]), name
        origins = {f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, filter(None, trail))}
        assert origins == {APP, home.issuer}, name


def test_a_path_with_an_encoded_slash_keeps_its_way_back(home: House) -> None:
    """Where a route has them (projects of GitLab, scopes of npm); elsewhere it is no path at all."""

    async def story() -> None:
        async with Wanderer(home) as alice:
            found = await alice.open(f"{APP}/git/group%2Fproject?a=%2F")
            assert (found.status, found.url) == (200, f"{APP}/git/group%2Fproject?a=%2F")
            assert home.app.requests[-1].startswith(b"GET /git/group%2Fproject?a=%2F HTTP/1.1\r\n")
            found = await alice.open(f"{APP}/.ztproxy/sign_in?rd=%2Fgroup%252Fproject")
            assert (found.status, found.url) == (400, f"{APP}/group%2Fproject")

    home.run(story())


PLACES = 8
TRIED = (
    Tried(
        "Redirects",
        "links that would lead away, as a way back, a parameter and a path, at every place that redirects",
        len(PAYLOADS),
        len(PAYLOADS) * PLACES,
        "every Location stays at the site's origin, as WHATWG's URL parser reads it",
    ),
    Tried(
        "Redirects",
        "the same through a whole sign-in at a provider",
        len(TAKEN),
        len(TAKEN),
        "the person ends where they were led to on the site, or at its front door",
    ),
)
