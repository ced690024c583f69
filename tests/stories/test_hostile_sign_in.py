"""The provider's answer as an attacker would have it, over real sockets: every change of a good callback.

Each row begins a sign-in of its own, and comes back with another answer than the provider's, from the browser
that began and with the session of somebody else. None may reach the provider, touch that session or be
repeated on the page.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

import aiohttp
import pytest

from tests.evidence import Tried
from tests.stories.house import COOKIE, House, house
from tests.stories.talking import Heard, Sending, until
from ztproxy.demo.provider import sign_in_as
from ztproxy.demo.provider_state import Fault
from ztproxy.demo.security_key import OURS
from ztproxy.demo.visitor import NAVIGATION

APP = "https://app.test"
EVIL = "<script>evil</script>"
WAYS: tuple[tuple[str, int | None], ...] = (("tls", None), ("plain", 200))


class Begun(NamedTuple):
    """A sign-in and a good answer to it: its target, and the Cookie field of the browser that began it."""

    target: str
    cookie: str


class Row(NamedTuple):
    """How the good answer is changed, and what must come of it. `cookie` changes the Cookie field; `asks` is
    whether the provider may hear of it."""

    name: str
    change: Callable[[str], str]
    status: int = 400
    cookie: Callable[[str], str] = str
    host: str = "app.test"
    asks: bool = False


def with_(name: str, value: str | None) -> Callable[[str], str]:
    """The parameter has this value, or is left out."""
    new = "" if value is None else f"&{name}={value}"

    def change(target: str) -> str:
        path, _, query = target.partition("?")
        kept = [one for one in query.split("&") if not one.startswith(f"{name}=")]
        return f"{path}?{'&'.join(kept)}{new}".replace("?&", "?")

    return change


def and_(text: str) -> Callable[[str], str]:
    return lambda target: target + text


def in_place_of_code(text: str) -> Callable[[str], str]:
    return lambda target: re.sub(r"code=[^&]*", text, target)


def state(change: Callable[[str], str]) -> Callable[[str], str]:
    return lambda target: re.sub(r"(?<=state=)[^&]*", lambda found: change(found[0]), target)


def without_transaction(cookie: str) -> str:
    return "; ".join(one for one in cookie.split("; ") if one.startswith(f"{COOKIE}="))


def of_another(cookie: str) -> str:
    return re.sub(r"(__Host-ztp_tx_\w+=)[^;]*", r"\1" + "A" * 43, cookie)


ROWS = [
    Row("F01 no state", with_("state", None)),
    Row("F01 an empty state", with_("state", "")),
    Row("F02 another state", with_("state", "A" * 43)),
    Row("F02 cut", state(lambda text: text[:-1])),
    Row("F02 longer", state(lambda text: text + "A")),
    Row("F02 case", state(str.swapcase)),
    Row("F02 a space after", state(lambda text: text + "%20")),
    Row("F02 a NUL after", state(lambda text: text + "%00")),
    Row("F02 encoded twice", state(lambda text: f"%25{ord(text[0]):02x}{text[1:]}")),
    Row("F02 a list", lambda target: target.replace("state=", "state[]=")),
    Row("two states", and_("&state=x")),
    Row("two states alike", lambda target: target + "&" + re.findall(r"state=[^&]*", target)[0]),
    Row("two codes", and_("&code=stolen")),
    Row("two codes, the other first", lambda target: target.replace("?", "?code=stolen&")),
    Row("two issuers", and_("&iss=https://evil.test")),
    Row("F04 in another browser", str, cookie=without_transaction),
    Row("F04 with a transaction made up", str, cookie=of_another),
    Row("F08 mix-up", with_("iss", "https://evil.test")),
    Row("F08 an issuer with a slash", lambda target: re.sub(r"(iss=[^&]*)", r"\1/", target)),
    Row("F08 an empty issuer", with_("iss", "")),
    Row("F10 access denied", in_place_of_code(f"error=access_denied&error_description={EVIL}"), 403),
    Row("F10 an error of nobody's", in_place_of_code(f"error={EVIL}"), 403),
    Row("F10 an address with it", in_place_of_code("error=x&error_uri=https://evil.test"), 403),
    Row("F11 an error without a state", lambda _: "/.ztproxy/callback/demo?error=access_denied"),
    Row("F11 an error and a code", and_("&error=access_denied")),
    Row("F12 an ID token", and_("&id_token=eyJhbGciOiJub25lIn0.e30.")),
    Row("F12 an access token", and_("&access_token=evil&token_type=Bearer")),
    Row("F12 a response in a JWT", and_("&response=eyJhbGciOiJub25lIn0.e30.")),
    Row("F14 at another host", str, 421, host="other.test"),
    Row("F15 at another issuer's path", lambda target: target.replace("/demo?", "/other?")),
    Row("F15 at no issuer's path", lambda target: target.replace("/demo?", "/?")),
    Row("F15 at a path below", lambda target: target.replace("/demo?", "/demo/x?"), 404),
    Row("F18 a code of 4 KiB", with_("code", "c" * 4096)),
    Row("F18 a code of 10 KiB", with_("code", "c" * 10240), 414),
    Row("F18 a code with NUL", with_("code", "c%00c")),
    Row("F18 a code with a newline", with_("code", "c%0d%0aX: y")),
    Row("F18 a code beyond ASCII", with_("code", "%c3%a9")),
    Row("F18 a code not in UTF-8", with_("code", "%ff%fe")),
    Row("F18 a code encoded twice is one with a percent sign", with_("code", "c%2500"), 403, asks=True),
    Row("F18 an empty code", with_("code", "")),
    Row("no code", with_("code", None)),
    Row("nothing", lambda target: target.partition("?")[0]),
    Row("a semicolon between", lambda target: target.replace("&", ";")),
    Row("a hundred parameters", and_("".join(f"&p{n}=1" for n in range(100)) + "&state=x")),
]

TRIED = (
    Tried(
        "Sign-in",
        "answers in place of the provider's: states, codes, issuers, errors and tokens",
        len(ROWS),
        len(ROWS) * len(WAYS),
        "one constant page; no code sent to the provider, no session made or changed, nothing of it repeated",
    ),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("hostile-sign-in"), valkey_url) as it:
        yield it


def all_begin(home: House, count: int) -> list[Begun]:
    """So many browsers begin, at once. The code they come back with is nobody's."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in NAVIGATION.items())
    start = f"GET /.ztproxy/sign_in?rd=/u HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n{fields}\r\n"
    begun = []
    for heard in home.send_all([Sending(start.encode())] * count):
        (location,), (cookie,) = heard.fields("Location"), heard.fields("Set-Cookie")
        asked = dict(parse_qsl(urlsplit(location).query))
        query = f"code={secrets.token_urlsafe(24)}&state={asked['state']}&iss={quote(home.issuer, safe='')}"
        target = f"{urlsplit(asked['redirect_uri']).path}?{query}"
        begun.append(Begun(target, cookie.partition(";")[0]))
        home.seen(asked["state"], cookie.partition("=")[2].partition(";")[0])
    return begun


def sending(row: Row, begun: Begun, session: str, way: tuple[str, int | None]) -> Sending:
    fields = [f"Host: {row.host}", f"Cookie: {row.cookie(f'{session}; {begun.cookie}')}", "Connection: close"]
    fields += [f"{name}: {value}" for name, value in NAVIGATION.items()]
    lines = [f"GET {row.change(begun.target)} HTTP/1.1", *fields, "", ""]
    return Sending("\r\n".join(lines).encode(), *way)


class Came(NamedTuple):
    """What came of all rows. `asked` is how often the provider's token endpoint was by then."""

    heard: dict[tuple[str, tuple[str, int | None]], Heard]
    asked: int
    alice: Heard


@pytest.fixture(scope="module")
def came(home: House) -> Came:
    alice = home.sign_in("alice")
    before = home.provider.hits["token"]
    wanted = [(row, way) for row in ROWS for way in WAYS]
    begun = all_begin(home, len(wanted))
    sent = [sending(row, one, alice, way) for (row, way), one in zip(wanted, begun, strict=True)]
    heard = home.send_all(sent)
    named = {(row.name, way): one for (row, way), one in zip(wanted, heard, strict=True)}
    return Came(named, home.provider.hits["token"] - before, home.get("/u", alice))


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_an_answer_that_is_not_as_it_was_asked_for(came: Came, row: Row) -> None:
    for way in WAYS:
        heard = came.heard[row.name, way]
        assert heard.status == row.status, (way, heard)
        assert heard.closed and heard.data.count(b"HTTP/1.1 ") == 1
        assert "no-store" in "".join(heard.fields("Cache-Control"))
        assert not [cookie for cookie in heard.fields("Set-Cookie") if cookie.startswith(f"{COOKIE}=")]
        assert not heard.fields("Location")
        for part in (b"<script>evil", b"stolen", b"evil.test", b"eyJhbGci", b"ccccc"):
            assert part not in heard.data


def test_none_of_them_reached_the_provider_or_the_session_of_somebody_else(home: House, came: Came) -> None:
    assert came.asked == len(WAYS) * sum(row.asks for row in ROWS)
    assert came.alice.status == 200
    assert home.get("/u").status == 401


def test_the_good_answer_is_taken(home: House) -> None:
    """Or none of the others would prove anything; and it is taken once."""

    async def begin() -> Begun:
        async with home.guest("bob") as bob:
            page = await bob.ask(f"{APP}/.ztproxy/sign_in?rd=/u", NAVIGATION)
            back = await sign_in_as(bob._at_provider, page.location, "bob", "pwd", OURS)
            bob._notice(back)
            parts = urlsplit(back)
            return Begun(f"{parts.path}?{parts.query}", bob.cookie_header(back)["Cookie"])

    begun = home.run(begin())
    good = sending(Row("good", str), begun, "", ("tls", None))
    before = home.provider.hits["token"]
    first, second = home.send_all([good])[0], home.send_all([good])[0]
    assert (first.status, second.status) == (302, 400)
    assert [cookie.startswith(f"{COOKIE}=") for cookie in first.fields("Set-Cookie")].count(True) == 1
    assert home.provider.hits["token"] == before + 1
    for cookie in first.fields("Set-Cookie"):
        home.seen(*re.findall(r"[\w-]{24,}", cookie))


# -- where the provider is ----------------------------------------------------------------------------------


def reloaded(home: House, **parts: str) -> None:
    """Everything of the provider's is built anew, as after a restart."""
    before = home.metric("ztproxy_config_reloads_total", outcome="ok")
    home.write_config(settings=f"# {secrets.token_hex(4)}", **parts)
    until(lambda: home.metric("ztproxy_config_reloads_total", outcome="ok") > before)


def begins(home: House) -> Heard:
    """What a browser that has never been here is told."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in NAVIGATION.items())
    return home.get("/.ztproxy/sign_in", fields=fields)


def test_d02_a_discovery_that_was_poisoned_while_nobody_looked(home: House) -> None:
    """Where a provider's endpoints were first outlives the processes that saw it; the operator can say that
    a move is right."""
    home.sign_in("bob")
    honest = home.run(discovery(home))
    moved = {**honest, "token_endpoint": honest["token_endpoint"].replace("127.0.0.1", "localhost")}
    home.provider.faults["discovery"] = Fault(status=200, body=json.dumps(moved))
    try:
        reloaded(home)
        before = home.provider.hits["token"]
        heard = begins(home)
        assert (heard.status, heard.fields("Location")) == (502, [])
        told = (
            "provider `demo`: an endpoint moved to `localhost`; "
            "if that is right, name `localhost` in `endpoint_hosts`"
        )
        until(lambda: told in home.log("proxy"))
        reloaded(home, providers="    endpoint_hosts: [localhost]")
        assert home.sign_in("bob")
        assert home.provider.hits["token"] == before + 1
    finally:
        home.provider.faults.clear()
        reloaded(home)
    assert begins(home).status == 302


async def discovery(home: House) -> dict[str, str]:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{home.issuer}/.well-known/openid-configuration") as answer,
    ):
        found: dict[str, str] = await answer.json()
        return found
