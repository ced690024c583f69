"""Machines: bearer tokens of the certified oidc-provider and of a signer of our own, and SPIFFE certificates.

`app.test` has a path for each way in which services may come. What is refused is refused in JSON, without a
redirect and without a cookie, however much whoever asks looks like a browser, and the app hears nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlencode

import aiohttp
import jwt
import pytest

from tests.node_provider.running import API, installed, node_provider, walk
from tests.stories.endings import CLOSE, SWITCHED, UPGRADE, frame, frames
from tests.stories.house import House, house
from tests.stories.neighbours import admin_of
from tests.stories.talking import PATIENCE, Background, Heard, Wire, free_ports, until
from tests.stories.travelling import assertion, told
from tests.wire.recording import OK, Line, Recording, silent
from tests.worlds.certificates import HOUR, NOW, Authority, Issued
from tests.worlds.lying_provider import Key, ec_key

pytestmark = pytest.mark.node

AUDIENCE, OWN, DOMAIN = "https://api.test", "https://own.test", "spiffe://corp.test"
PROGRAM = "https://tool.test/back"
SECRET = "a secret of a machine, of 32 octets"
CLIENT: dict[str, object] = {
    "client_id": "ztproxy",
    "client_secret": SECRET,
    "redirect_uris": ["https://app.test/.ztproxy/callback/node"],
}
MACHINE: dict[str, object] = {
    "client_id": "ci",
    "client_secret": SECRET,
    "grant_types": ["client_credentials"],
    "redirect_uris": [],
    "response_types": [],
}
TOOL: dict[str, object] = {
    "client_id": "tool",
    "token_endpoint_auth_method": "none",
    "grant_types": ["authorization_code"],
    "redirect_uris": [PROGRAM],
}
LISTENER = '  - {address: "127.0.0.1:$mtls", tls: true, client_certificates: true}\n'
SETTINGS = """\
devices:
  authorities:
    - {name: fleet, ca_file: fleet.pem, trust_domain: corp.test}
token_issuers:
  - {name: node, issuer: "%s", algorithms: ES256}
  - {name: own, issuer: "https://own.test", algorithms: ES256, jwks_file: own-keys.json, clock_skew: 1s}
"""
_TOKENS = "tokens: [node, own], audience: https://api.test"
SERVICES = {
    "api": f"{{{_TOKENS}, scopes: read}}",
    "machines": f"{{{_TOKENS}, people: false}}",
    "roles": f"{{{_TOKENS}, roles: [builder], people: false}}",
    "kept": f"{{{_TOKENS}, forward_token: true}}",
    "spiffe": '{spiffe: "spiffe://corp.test/ci/*", people: false}',
    "either": f'{{spiffe: "spiffe://corp.test/ci/*", {_TOKENS}}}',
    "pipeline": "{tokens: own, audience: https://api.test}",
    "stepped": f"{{{_TOKENS}}}",
}
SENSITIVITY = {
    "pipeline": "pipeline",
    "stepped": "{label: public, least_rank: phishing_resistant, signed_in_within: 10m}",
}
_ROUTE = """\
  - from: https://app.test
    prefix: /{path}
    to: http://127.0.0.1:${upstream}
    upgrades: [websocket]
    allow_missing_origin: true
    outlier_detection: off
    sensitivity: {sensitivity}
    services: {services}
    policy: [{{allow: {{authenticated: true}}}}]
"""
NAVIGATION = "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n"


def routes() -> str:
    written = "".join(
        _ROUTE.format(
            path=path, services=services, sensitivity=SENSITIVITY.get(path, "standard"), upstream="upstream"
        )
        for path, services in SERVICES.items()
    )
    raw = _ROUTE.format(path="raw", services=SERVICES["machines"], sensitivity="standard", upstream="raw")
    seldom = _ROUTE.format(
        path="seldom", services=SERVICES["machines"], sensitivity="standard", upstream="upstream"
    )
    return written + raw + seldom + "    rate_limits: {by: session, rate: 2/h}\n"


@dataclass
class Floor:
    """A house with machines around it. `node` is the issuer of the certified provider, `own` our signer's
    key, `raw` an app that reads and says nothing."""

    home: House
    node: str
    own: Key
    fleet: Authority
    raw: Recording

    # -- tokens ------------------------------------------------------------------------------------------

    def token(self, *, key: Key | None = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """Of our own signer, good for everything here; `...` takes a claim away."""
        now = int(time.time())
        claims = {
            "iss": OWN,
            "aud": AUDIENCE,
            "sub": "builder-7",
            "iat": now,
            "exp": now + 300,
            "jti": secrets.token_hex(8),
            "scope": "read write",
            "roles": ["builder"],
        } | changes
        key = key or self.own
        told = {name: value for name, value in claims.items() if value is not ...}
        headers = {"kid": "own-1", "typ": "at+jwt"} | (header or {})
        made = jwt.encode(told, key.private, "ES256", headers=headers)
        self.home.seen(made)
        return made

    def _post(self, form: dict[str, str], fields: Mapping[str, str] | None = None) -> dict[str, Any]:
        async def post() -> dict[str, Any]:
            async with (
                aiohttp.ClientSession() as http,
                http.post(f"{self.node}/token", data=form, headers=fields) as it,
            ):
                answer: dict[str, Any] = await it.json()
                assert it.status == 200, answer
                self.home.seen(*(str(answer[name]) for name in answer if name.endswith("_token")))
                return answer

        return self.home.run(post())

    def of_a_machine(self, scope: str = "read") -> str:
        """From the certified provider, as a machine gets one."""
        # RFC 6749 2.3.1: both parts are form-encoded first.
        basic = aiohttp.encode_basic_auth("ci", quote_plus(SECRET))
        form = {"grant_type": "client_credentials", "resource": AUDIENCE, "scope": scope}
        return str(self._post(form, {"Authorization": basic})["access_token"])

    def of_a_person(self, method: str, asked: Mapping[str, str], ago: int = 0) -> dict[str, Any]:
        """From the certified provider, delegated to a program by a person who signs in for it."""
        verifier = secrets.token_urlsafe(32)
        digest = hashlib.sha256(verifier.encode()).digest()
        query = {
            "client_id": "tool",
            "response_type": "code",
            "redirect_uri": PROGRAM,
            "scope": "openid read",
            "resource": AUDIENCE,
            "state": "s",
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            **asked,
        }

        async def browse() -> dict[str, str]:
            async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
                url = f"{self.node}/auth?{urlencode(query)}"
                return dict(await walk(http, url, PROGRAM, "alice", f"{method}&ago={ago}"))

        code = self.home.run(browse())["code"]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": PROGRAM}
        return self._post({**form, "client_id": "tool", "code_verifier": verifier, "resource": AUDIENCE})

    # -- asking ------------------------------------------------------------------------------------------

    def ask(self, path: str, token: str | None = None, *, cookie: str = "", fields: str = "") -> Heard:
        shown = "" if token is None else f"Authorization: Bearer {token}\r\n"
        return self.home.get(path, cookie, fields=shown + fields)

    def refused(self, *args: Any, **named: Any) -> Heard:
        """The same, where nothing may reach the app and no answer may be for a browser."""
        before = self.home.app.received
        heard = self.ask(*args, **named)
        assert self.home.app.received == before
        machine_answer(heard)
        return heard

    def received(self) -> bytes:
        return self.home.app.requests[-1]

    # -- certificates ------------------------------------------------------------------------------------

    def curl(self, path: str, shown: Issued | None = None, *more: str) -> tuple[int, str, str]:
        """Status, head and body, as `curl --cert` has them."""
        port = self.home.ports["mtls"]
        ca = self.home.directory / "house-ca.pem"
        self.home.ca.cert_pem.write_to_path(ca)
        words = [
            "curl",
            "--silent",
            "--show-error",
            "--include",
            "--max-time",
            str(int(PATIENCE)),
            "--http1.1",
        ]
        words += ["--cacert", str(ca), "--resolve", f"app.test:{port}:127.0.0.1", *more]
        if shown is not None:
            certificate, key = shown.files(self.home.directory, f"svc-{shown.thumbprint}")
            words += ["--cert", certificate, "--key", key]
        said = subprocess.run([*words, f"https://app.test:{port}{path}"], check=False, capture_output=True)
        if said.returncode != 0:
            return 0, "", said.stderr.decode()
        head, _, body = said.stdout.decode().partition("\r\n\r\n")
        return int(head.split(" ")[1]), head, body


def machine_answer(heard: Heard) -> dict[str, Any]:
    """What every refusal of a service is: JSON, and nothing for a browser."""
    assert heard.fields("Content-Type") == ["application/problem+json"], heard
    assert heard.fields("Location") == heard.fields("Set-Cookie") == []
    problem: dict[str, Any] = json.loads(heard.body)
    assert problem["status"] == heard.status
    return problem


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[Floor]:
    installed()
    with ExitStack() as stack:
        background = Background()
        stack.callback(background.close)
        node = node_provider(CLIENT, api=API(AUDIENCE, "read write", (MACHINE, TOOL)))
        issuer = background.run(node.__aenter__())
        stack.callback(lambda: background.run(node.__aexit__(None, None, None)))
        own, fleet, raw = ec_key("own-1"), Authority.root("fleet"), Recording(silent)

        def prepare(it: House) -> None:
            it.run(raw.start())
            it.ports["raw"] = raw.port
            (it.directory / "own-keys.json").write_text(json.dumps({"keys": [own.jwk()]}))
            (it.directory / "fleet.pem").write_bytes(fleet.pem)

        ports = free_ports(("mtls",))
        parts = {"listeners": LISTENER, "settings": SETTINGS % issuer, "routes": routes()}
        folder = tmp_path_factory.mktemp("services")
        with house(folder, valkey_url, parts=parts, ports=ports, prepare=prepare) as it:
            it.seen(SECRET)
            admin_of(it).ready()
            yield Floor(it, issuer, own, fleet, raw)
            it.run(raw.stop())


# -- tokens that hold ------------------------------------------------------------------------------------


def test_a_machine_with_a_token_of_the_certified_provider(floor: Floor) -> None:
    token = floor.of_a_machine()
    for path in ("/api/x", "/machines", "/either"):
        assert floor.ask(path, token).status == 200, path
        claims = told(floor.received())
        assert (claims["sub"], claims["idp"], claims["aud"]) == ("ci", floor.node, "https://app.test")
        assert claims["sid"].startswith("t-") and "email" not in claims and claims["groups"] == []
    # The token was for us. The app has the assertion, which is for it alone, and no cookie ever.
    assert token.encode() not in floor.received()
    assert b"authorization:" not in floor.received().lower() and b"cookie:" not in floor.received().lower()
    heard = floor.ask("/machines", token)
    assert heard.fields("Set-Cookie") == []


def test_the_token_goes_on_where_the_route_says_so(floor: Floor) -> None:
    token = floor.token()
    assert floor.ask("/kept", token).status == 200
    assert f"Authorization: Bearer {token}".encode() in floor.received()
    assert told(floor.received())["sub"] == "builder-7"


def test_a_service_has_one_budget_whatever_tokens_it_shows(floor: Floor) -> None:
    asked = [floor.ask("/seldom", floor.token()).status for _ in range(3)]
    assert asked == [200, 200, 429]
    assert floor.ask("/seldom", floor.token(sub="builder-8")).status == 200


def test_what_is_not_for_us_is_the_apps(floor: Floor) -> None:
    """A route without services: any bearer token, with a cookie or without, as it is."""
    alice = floor.home.sign_in("alice")
    for token in ("not-a-jwt", floor.token(exp=1)):
        assert floor.ask("/public", token).status == 200
        assert f"Authorization: Bearer {token}".encode() in floor.received()
        assert floor.ask("/u", token, cookie=alice).status == 200
        assert f"Authorization: Bearer {token}".encode() in floor.received()
        assert told(floor.received())["sid"]
    # And another scheme, where services come: it is no credential of ours, and goes with a person.
    basic = "Authorization: Basic YTpi\r\n"
    assert floor.ask("/api", cookie=alice, fields=basic).status == 200
    assert basic.strip().encode() in floor.received()


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        pytest.param("/roles", {}, id="a role"),
        pytest.param("/api", {"scope": ["read"]}, id="scopes in a list"),
        pytest.param("/machines", {"aud": ["https://x.test", AUDIENCE]}, id="one of several audiences"),
        pytest.param("/machines", {"nbf": 0}, id="not before long ago"),
        pytest.param("/pipeline", {}, id="a young one"),
    ],
)
def test_an_own_token(floor: Floor, path: str, changes: dict[str, Any]) -> None:
    assert floor.ask(path, floor.token(**changes)).status == 200


# -- and those that do not -------------------------------------------------------------------------------


def at(seconds: float) -> Callable[[], int]:
    return lambda: int(time.time() + seconds)


def _unsigned(floor: Floor) -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"none","kid":"own-1","typ":"at+jwt"}').rstrip(b"=").decode()
    return f"{head}.{floor.token().split('.')[1]}."


def _altered(floor: Floor) -> str:
    head, body, signature = floor.token().split(".")
    return f"{head}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"


def _own_assertion(floor: Floor) -> str:
    """I21: as an app that echoes gives it away."""
    floor.ask("/machines", floor.token())
    return assertion(floor.received())


FAULTS: list[Any] = [
    pytest.param({"key": ec_key("own-1")}, id="1 signature, another key"),
    pytest.param({"header": {"kid": "own-2"}}, id="1 signature, no such key"),
    pytest.param(_unsigned, id="1 signature, none"),
    pytest.param(_altered, id="1 signature, altered"),
    pytest.param({"iss": "https://own.test/"}, id="2 issuer, nearly"),
    pytest.param({"iss": "https://evil.test"}, id="2 issuer, unknown"),
    pytest.param({"iss": ...}, id="2 issuer, missing"),
    pytest.param({"aud": "https://api.test.evil.test"}, id="3 audience, longer"),
    pytest.param({"aud": "https://app.test"}, id="3 audience, that of the assertion"),
    pytest.param({"aud": ...}, id="3 audience, missing"),
    pytest.param({"exp": at(-5), "iat": at(-60)}, id="4 expired"),
    pytest.param({"exp": ...}, id="4 expires never"),
    pytest.param({"nbf": at(30)}, id="5 not yet valid"),
    pytest.param({"iat": at(30)}, id="5 issued in the future"),
    pytest.param({"iat": ...}, id="5 issued nobody knows when"),
    pytest.param({"header": {"typ": "logout+jwt"}}, id="another kind, by its type"),
    pytest.param({"nonce": "n"}, id="another kind, an id token"),
    pytest.param({"events": {}}, id="another kind, a logout token"),
    pytest.param({"cnf": {"jkt": "x"}}, id="bound to what cannot be checked"),
    pytest.param({"cnf": {"x5t#S256": "x"}}, id="bound to a certificate that is not shown"),
    pytest.param(_own_assertion, id="I21 our own assertion"),
    pytest.param("", id="nothing after the scheme"),
    pytest.param("a b", id="two words"),
    pytest.param("x" * 4000, id="a long word"),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_each_check_fails_alone(floor: Floor, fault: Any) -> None:
    if callable(fault):
        token = fault(floor)
    elif isinstance(fault, str):
        token = fault
    else:
        now = {name: value() if callable(value) else value for name, value in fault.items()}
        token = floor.token(**now)
    cases = (("/machines", ""), ("/machines", NAVIGATION), ("/api", NAVIGATION), ("/kept", ""))
    for path, fields in cases:
        heard = floor.refused(path, token, fields=fields)
        assert heard.status == 401, heard
        assert machine_answer(heard)["reasons"] == ["token_invalid"]
        (challenge,) = heard.fields("WWW-Authenticate")
        assert challenge.startswith('Bearer realm="services", error="invalid_token"')
        assert not token or token not in heard.data.decode("latin-1")


@pytest.mark.parametrize(
    ("path", "changes", "named"),
    [
        pytest.param("/api", {"scope": "write"}, 'scope="read"', id="6 another scope"),
        pytest.param("/api", {"scope": "readx read:all"}, 'scope="read"', id="6 scopes like it"),
        pytest.param("/api", {"scope": ...}, 'scope="read"', id="6 no scope"),
        pytest.param("/roles", {"roles": ["Builder"]}, "", id="6 another role"),
        pytest.param("/roles", {"roles": ...}, "", id="6 no role"),
    ],
)
def test_a_token_that_does_not_cover_it(floor: Floor, path: str, changes: dict[str, Any], named: str) -> None:
    heard = floor.refused(path, floor.token(**changes), fields=NAVIGATION)
    assert (heard.status, machine_answer(heard)["reasons"]) == (403, ["scope_missing"])
    (challenge,) = heard.fields("WWW-Authenticate")
    assert 'error="insufficient_scope"' in challenge and named in challenge


def test_what_comes_of_a_provider_beside_access_tokens_is_none(floor: Floor) -> None:
    tokens = floor.of_a_person("pwd", {})
    assert floor.ask("/machines", tokens["access_token"]).status == 200
    assert told(floor.received())["sub"] == "alice"
    heard = floor.refused("/machines", tokens["id_token"])
    assert (heard.status, machine_answer(heard)["reasons"]) == (401, ["token_invalid"])


def test_a_cookie_and_a_token_do_not_come_together(floor: Floor) -> None:
    alice = floor.home.sign_in("alice")
    for path, token in (("/api", floor.token()), ("/api", "rubbish"), ("/machines", floor.token())):
        for fields in ("", NAVIGATION):
            heard = floor.refused(path, token, cookie=alice, fields=fields)
            assert (heard.status, machine_answer(heard)["reasons"]) == (400, ["credentials_mixed"])
    assert floor.ask("/api", cookie=alice).status == 200, "the session is as it was"


def test_who_shows_nothing_is_told_what_to_show(floor: Floor) -> None:
    """A route for services alone knows no browsers. One for people as well redirects them, and programs are
    told of both ways."""
    for fields in ("", NAVIGATION):
        heard = floor.refused("/machines", fields=fields)
        assert (heard.status, heard.fields("WWW-Authenticate")) == (401, ['Bearer realm="services"'])
        heard = floor.refused("/machines", cookie=floor.home.sign_in("alice"), fields=fields)
        assert (heard.status, machine_answer(heard)["reasons"]) == (401, ["services_only"])
    assert floor.ask("/api", fields=NAVIGATION).status == 302
    heard = floor.refused("/api")
    assert heard.fields("WWW-Authenticate") == ['Ztproxy realm="sign-in"', 'Bearer realm="services"']


@pytest.mark.parametrize(
    ("age", "status"), [pytest.param(240, 200, id="four minutes"), pytest.param(310, 401, id="five minutes")]
)
def test_a_pipelines_token_is_young(floor: Floor, age: int, status: int) -> None:
    token = floor.token(iat=at(-age)(), exp=at(3600)())
    assert floor.ask("/pipeline", token, fields=NAVIGATION).status == status
    assert floor.ask("/machines", token).status == 200
    alice = floor.home.sign_in("alice")
    assert machine_answer(floor.refused("/pipeline", cookie=alice))["reasons"] == ["services_only"]


def test_a_token_is_asked_for_a_stronger_and_later_sign_in(floor: Floor) -> None:
    """RFC 9470: what the challenge names, asked of the provider word for word, is enough."""
    weak = floor.of_a_person("pwd", {}, 3600)["access_token"]
    assert floor.ask("/machines", weak).status == 200
    heard = floor.refused("/stepped", weak, fields=NAVIGATION)
    problem = machine_answer(heard)
    (challenge,) = heard.fields("WWW-Authenticate")
    assert heard.status == 401 and challenge.startswith('Bearer realm="services", ')
    assert 'error="insufficient_user_authentication"' in challenge
    asked = {name: str(problem[name]) for name in ("acr_values", "max_age")}
    assert all(f'{name}="{value}"' in challenge for name, value in asked.items())
    for method, status in (("mfa", 401), ("phr", 200)):
        token = floor.of_a_person(method, asked)["access_token"]
        assert floor.ask("/stepped", token).status == status
    # A machine has nobody who could sign in, and is told the same.
    assert floor.refused("/stepped", floor.of_a_machine()).status == 401


# -- revoked ---------------------------------------------------------------------------------------------


def asking(path: str, token: str, fields: bytes = b"", method: str = "GET") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: app.test\r\nAuthorization: Bearer {token}\r\n"
    return head.encode() + fields + b"\r\n"


async def play(line: Line, request: bytes) -> None:
    """An app of web sockets and downloads that take long."""
    if b"/ws " in request:
        await line.send(SWITCHED + frame(b"hello"))
        while data := await line.more():
            for one in frames(data):
                if one.kind != CLOSE:
                    await line.send(frame(one.payload.upper()))
    elif b"/long " in request:
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst\n")
    else:
        await line.send(OK)


def socket_of(wire: Wire, token: str) -> Wire:
    wire.send(asking("/machines/ws", token, UPGRADE)).until(frame(b"hello"))
    return wire


def test_revoking_a_service_ends_what_it_does(floor: Floor) -> None:
    """Its upload, download and web socket, and its next request; not another's, and not a later token."""
    home, token, other = floor.home, floor.token(), floor.token(sub="builder-8")
    with home.app.playing(play), ExitStack() as stack:
        down, up, talk, others = (stack.enter_context(home.wire()) for _ in range(4))
        down.send(asking("/machines/long", token)).until(b"first\n")
        body = b"Content-Length: 1000\r\n"
        up.send(asking("/raw", token, body, "POST") + b"half")
        until(lambda: floor.raw.received.endswith(b"half"))
        line = floor.raw.lines[-1]
        socket_of(talk, token)
        assert b"authorization" not in home.app.requests[-1].lower(), "nor does a socket's app get the token"
        socket_of(others, other)
        answer = admin_of(home).revoke("user", "builder-7", OWN)
        assert answer.confirmed, answer
        assert len(down.rest().data) < 1000
        heard = up.send(b"rest").rest()
        assert (heard.status, heard.fields("Set-Cookie")) == (401, [])
        floor.home.run(line.ended.wait())
        assert line.received.endswith(b"half"), "the app got more of it"
        assert [(one.kind, one.code) for one in frames(talk.rest().data)] == [(CLOSE, 1008)]
        others.send(frame(b"on", masked=True)).until(frame(b"ON"))
    heard = floor.refused("/machines", token)
    assert (heard.status, machine_answer(heard)["reasons"]) == (401, ["token_invalid"])
    assert floor.ask("/machines", other).status == 200
    # Its issuer's clock may be a second wrong.
    until(lambda: floor.ask("/machines", floor.token()).status == 200)
    assert floor.refused("/machines", token).status == 401


# -- certificates ----------------------------------------------------------------------------------------


def test_a_service_with_a_certificate(floor: Floor) -> None:
    shown = floor.fleet.issue("builder", uris=[f"{DOMAIN}/ci/builder"])
    for path in ("/spiffe", "/either"):
        status, head, _ = floor.curl(path, shown)
        assert (status, "set-cookie" in head.lower()) == (200, False)
        claims = told(floor.received())
        assert (claims["sub"], claims["idp"]) == (f"{DOMAIN}/ci/builder", DOMAIN)
        assert claims["sid"].startswith("c-") and b"cookie:" not in floor.received().lower()


def test_a_token_that_is_bound_counts_with_its_certificate(floor: Floor) -> None:
    """RFC 8705 3: and with no other."""
    shown, other = (floor.fleet.issue(name, uris=[f"{DOMAIN}/x/{name}"]) for name in ("mine", "yours"))
    token = floor.token(cnf={"x5t#S256": shown.thumbprint})
    bearer = ("--header", f"Authorization: Bearer {token}")
    assert floor.curl("/machines", shown, *bearer)[0] == 200
    for stolen in (other, None):
        assert floor.curl("/machines", stolen, *bearer)[0] == 401


def _another_ca(floor: Floor) -> Issued:
    return Authority.root("evil").issue("builder", uris=[f"{DOMAIN}/ci/builder"])


def _named(*uris: str, **otherwise: Any) -> Callable[[Floor], Issued]:
    return lambda floor: floor.fleet.issue("s", uris=uris, **otherwise)


INVALID, MISMATCH = "device_certificate_invalid", "service_mismatch"


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        pytest.param(lambda floor: None, "device_certificate_required", id="none"),
        pytest.param(_named("spiffe://evil.test/ci/builder"), INVALID, id="another trust domain"),
        pytest.param(_named("spiffe://corp.test.evil.test/ci/builder"), INVALID, id="a longer trust domain"),
        pytest.param(_named(f"{DOMAIN}/web/builder"), MISMATCH, id="another path"),
        pytest.param(_named(f"{DOMAIN}/ci"), MISMATCH, id="the path above"),
        pytest.param(_named(f"{DOMAIN}/cix/builder"), MISMATCH, id="a path that begins alike"),
        pytest.param(_named(f"{DOMAIN}/web/../ci/builder"), INVALID, id="dots"),
        pytest.param(_named(f"{DOMAIN}/ci/builder", f"{DOMAIN}/ci/other"), INVALID, id="two names"),
        pytest.param(_named(), MISMATCH, id="no name"),
        pytest.param(_named(f"{DOMAIN}/ci/builder?x"), INVALID, id="a query"),
        pytest.param(
            _named(f"{DOMAIN}/ci/b", not_before=NOW - 2 * HOUR, not_after=NOW - HOUR),
            "device_certificate_expired",
            id="expired",
        ),
        pytest.param(
            lambda floor: Authority.root("evil").issue("s", uris=[f"{DOMAIN}/ci/builder"]),
            "",
            id="of another authority: there is no connection",
        ),
    ],
)
def test_another_certificate_opens_nothing(
    floor: Floor, shown: Callable[[Floor], Issued | None], reason: str
) -> None:
    before = floor.home.app.received
    status, head, body = floor.curl("/spiffe", shown(floor), "--header", "Accept: text/html")
    assert floor.home.app.received == before
    if not reason:
        assert status == 0
        return
    assert (status, json.loads(body)["reasons"]) == (403, [reason])
    assert "application/problem+json" in head
    assert "location:" not in head.lower() and "set-cookie:" not in head.lower()


def test_a_principal_is_locked_out_for_a_time(floor: Floor) -> None:
    """Whichever certificate it shows. A revocation, which would be forgotten before a certificate ends, is
    refused."""
    name, admin = f"{DOMAIN}/ci/locked", admin_of(floor.home)
    shown, renewed = (floor.fleet.issue("locked", uris=[name]) for _ in range(2))
    other = floor.fleet.issue("other", uris=[f"{DOMAIN}/ci/other"])
    assert floor.curl("/spiffe", shown)[0] == 200
    assert (admin.revoke("user", name, DOMAIN).status, floor.curl("/spiffe", shown)[0]) == (400, 200)
    made = admin.lock("deny", "user", name, DOMAIN, expires_in=600)
    assert made.confirmed, made
    for one in (shown, renewed):
        status, head, body = floor.curl("/spiffe", one, "--header", "Accept: text/html")
        assert (status, json.loads(body)["reasons"]) == (403, ["locked"])
        assert "application/problem+json" in head and "set-cookie:" not in head.lower()
    assert floor.curl("/spiffe", other)[0] == 200
    assert admin.lift(made["id"]).status == 200
    assert floor.curl("/spiffe", shown)[0] == 200
