"""What the parts of a configuration mean together."""

# ruff: noqa: E501  (a row quotes a whole message, as the operator sees it)

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.words import mistakes, settings, site, warnings
from ztproxy.config.settings import (
    Admin,
    Branding,
    CertificateFiles,
    Cookie,
    Limits,
    Listener,
    ListenerTLS,
    Log,
    Revocation,
    Secret,
)
from ztproxy.config.values import Address, Origin
from ztproxy.core.sessions import GroupLimits, SessionLimits

TLS = "tls: {certificate: c.pem, key: k.pem}"
PAIR = CertificateFiles(Path("/etc/c.pem"), Path("/etc/k.pem"))


def routes(*lines: str) -> str:
    """A site of routes, each `lines` the rest of one from line 4 on, three lines a route."""
    text = "routes:\n"
    for line in lines:
        text += f"  - {line}\n    to: http://127.0.0.1:1\n    allow_any_authenticated_user: true\n"
    return site(routes=text)


def test_a_configuration_without_more_has_careful_defaults() -> None:
    found = settings(site())
    assert found.listeners == (Listener(Address("127.0.0.1", 8443)),)
    assert (found.trusted_proxies, found.workers, found.state_url, found.auth_host) == ((), None, None, None)
    assert (found.state_dir, found.keys_file) == (
        Path("/var/lib/ztproxy"),
        Path("/var/lib/ztproxy/keys.yaml"),
    )
    assert (found.cookie, found.session) == (Cookie("__Host-ztproxy", None), SessionLimits())
    audit = Path("/var/lib/ztproxy/audit.log")
    assert (found.limits, found.operations, found.log) == (Limits(), None, Log("stdout", "stdout", audit))
    assert found.admin == Admin(Address("", 0, "/var/lib/ztproxy/admin.sock"))
    assert (found.revocation, found.sessions_per_person) == (Revocation(), None)
    assert (found.hsts, found.drop_underscored_headers) == ("max-age=31536000", False)
    assert (found.branding, found.drain, found.warnings) == (Branding(), 30.0, ())


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        pytest.param("workers: 4", "workers", 4, id="workers"),
        pytest.param("workers: auto", "workers", None, id="workers-auto"),
        pytest.param("state: embedded", "state_url", None, id="embedded"),
        pytest.param("state: redis://u:p@h/0", "state_url", Secret("redis://u:p@h/0"), id="redis"),
        pytest.param("state: redis+sentinel://a,b/m", "state_url", Secret("redis+sentinel://a,b/m"), id="sentinel"),
        pytest.param("state: redis+cluster://a:1,b:2", "state_url", Secret("redis+cluster://a:1,b:2"), id="cluster"),
        pytest.param("state_dir: state", "state_dir", Path("/etc/state"), id="state-dir-is-beside"),
        pytest.param("state_dir: state", "keys_file", Path("/etc/state/keys.yaml"), id="keys-are-there"),
        pytest.param("keys_file: k.yaml", "keys_file", Path("/etc/k.yaml"), id="keys-file"),
        pytest.param("auth_host: https://auth.test", "auth_host", Origin("https", "auth.test", 443), id="auth-host"),
        pytest.param("session: {idle: 5m, absolute: 1h}", "session", SessionLimits(300, 3600), id="session"),
        pytest.param("session: {max_per_person: 3}", "sessions_per_person", 3, id="sessions-per-person"),
        pytest.param("session: {max_per_person: off}", "sessions_per_person", None, id="any-number-of-sessions"),
        pytest.param("session: {absolute: 10m}", "session", SessionLimits(600, 600), id="idle-within-absolute"),
        pytest.param("session: {groups: [{groups: [a, b], absolute: 4h}, {groups: c, idle: 5m}]}", "session", SessionLimits(3600, 43200, (GroupLimits(frozenset({"a", "b"}), None, 14400), GroupLimits(frozenset({"c"}), 300))), id="session-of-groups"),
        pytest.param("limits: {head_time: 3s, body_rate: 2KiB}", "limits", Limits(head_time=3, body_rate=2048), id="limits"),
        pytest.param("operations: 127.0.0.1:9090", "operations", Address("127.0.0.1", 9090), id="operations"),
        pytest.param("operations: off", "operations", None, id="no-operations"),
        pytest.param("log: {access: off, decisions: d.log}", "log", Log(None, Path("/etc/d.log"), Path("/var/lib/ztproxy/audit.log")), id="log"),
        pytest.param("log: {audit: a.log}", "log", Log("stdout", "stdout", Path("/etc/a.log")), id="audit"),
        pytest.param("state_dir: s", "log", Log("stdout", "stdout", Path("/etc/s/audit.log")), id="audit-is-with-the-state"),
        pytest.param("admin: off", "admin", None, id="no-admin"),
        pytest.param("hsts: off", "hsts", None, id="no-hsts"),
        pytest.param("hsts: {max_age: 365d, include_subdomains: true, preload: true}", "hsts", "max-age=31536000; includeSubDomains; preload", id="hsts"),
        pytest.param("headers_with_underscores: drop", "drop_underscored_headers", True, id="underscores"),
        pytest.param("branding: {name: X, support: s, templates: t}", "branding", Branding("X", Path("/etc/t"), "s"), id="branding"),
        pytest.param("drain: 5s", "drain", 5.0, id="drain"),
    ],
)  # fmt: skip
def test_a_key_of_the_whole(line: str, field: str, value: object) -> None:
    assert getattr(settings(site(line)), field) == value


@pytest.mark.parametrize(
    ("listen", "listeners"),
    [
        pytest.param(
            f"listen: 0.0.0.0:443\n{TLS}", [Listener(Address("0.0.0.0", 443), ListenerTLS((PAIR,)))], id="tls"
        ),
        pytest.param(
            "listen: [0.0.0.0:443, {address: 0.0.0.0:80, redirect_to_https: true}]\n" + TLS,
            [
                Listener(Address("0.0.0.0", 443), ListenerTLS((PAIR,))),
                Listener(Address("0.0.0.0", 80), None, False, True),
            ],
            id="redirecting",
        ),
        pytest.param(
            "listen: [0.0.0.0:443, {address: 'unix:/run/z', tls: false}]\n" + TLS,
            [Listener(Address("0.0.0.0", 443), ListenerTLS((PAIR,))), Listener(Address("", 0, "/run/z"))],
            id="without-tls-by-choice",
        ),
        pytest.param(
            "listen: 0.0.0.0:443\ntls: {certificates: [{certificate: c.pem, key: k.pem}], min_version: 1.3}",
            [Listener(Address("0.0.0.0", 443), ListenerTLS((PAIR,), "1.3"))],
            id="several-certificates",
        ),
        pytest.param(
            "listen: {address: 127.0.0.1:1, proxy_protocol: true}\ntrusted_proxies: 10.0.0.0/8",
            [Listener(Address("127.0.0.1", 1), None, True)],
            id="proxy-protocol",
        ),
    ],
)
def test_listeners(listen: str, listeners: list[Listener]) -> None:
    assert settings(site(listen=listen)).listeners == tuple(listeners)


@pytest.mark.parametrize(
    ("listen", "message"),
    [
        pytest.param("listen: 8443", "1: listen: `8443` is not text, write it like `0.0.0.0:8443`", id="port-alone"),
        pytest.param("listen: []", "1: listen: the list is empty, write at least one entry or remove the key", id="nowhere"),
        pytest.param("listen: {address: 127.0.0.1:1, tls: true}", "1: listen.tls: there is no certificate, add a top-level `tls: {certificate, key}`", id="tls-without-certificate"),
        pytest.param("listen: {address: 127.0.0.1:1, proxy_protocol: true}", "1: listen.proxy_protocol: anybody could then claim any address, add `trusted_proxies` with the load balancer's network", id="proxy-protocol-from-anybody"),
        pytest.param("listen: [127.0.0.1:1, 127.0.0.1:1]", "1: listen[1]: `127.0.0.1:1` is listened on twice, remove one", id="twice"),
        pytest.param("listen: {address: 127.0.0.1:1, redirect_to_https: true}", "1: listen: every listener only redirects, add one that speaks TLS", id="only-redirects"),
        pytest.param("listen: {adress: 127.0.0.1:1}", "1: listen.adress: unknown key `adress`, did you mean `address`?", id="misspelled"),
        pytest.param("listen: 127.0.0.1:1\ntls: {certificate: c.pem}", "2: tls: the `key` is missing, add `key: ...`", id="no-key"),
        pytest.param("listen: 127.0.0.1:1\ntls: {key: c.pem}", "2: tls: the `certificate` is missing, add `certificate: ...`", id="no-certificate"),
        pytest.param("listen: 127.0.0.1:1\ntls: {min_version: '1.3'}", "2: tls: there is no certificate, add `certificate: ...` and `key: ...`", id="version-alone"),
        pytest.param(f"listen: 127.0.0.1:1\n{TLS[:-1]}, certificates: []}}", "2: tls.certificate: `certificates` lists them all, move `certificate` there", id="both-ways"),
        pytest.param(f"listen: 127.0.0.1:1\n{TLS[:-1]}, min_version: 1.1}}", "2: tls.min_version: `1.1` is not a version that is offered, write `1.2` or `1.3`", id="old-tls"),
        pytest.param(f"listen: {{address: 127.0.0.1:1, tls: true, redirect_to_https: true}}\n{TLS}", "1: listen.redirect_to_https: this listener speaks TLS itself, write one of the two", id="redirect-over-tls"),
    ],
)  # fmt: skip
def test_a_wrong_listener_is_told(listen: str, message: str) -> None:
    assert message in mistakes(site(listen=listen))


@pytest.mark.parametrize(
    ("listen", "warned"),
    [
        pytest.param("listen: 0.0.0.0:80", True, id="open-to-the-net"),
        pytest.param("listen: 127.0.0.1:80", False, id="this-machine"),
        pytest.param("listen: unix:/run/z", False, id="socket"),
        pytest.param(f"listen: 0.0.0.0:80\n{TLS}", False, id="tls"),
        pytest.param("listen: 0.0.0.0:80\ntrusted_proxies: 10.0.0.0/8", False, id="behind-something"),
    ],
)
def test_sessions_without_tls_are_warned_of(listen: str, warned: bool) -> None:
    text = "1: listen: sessions travel without TLS; add `tls`, or `trusted_proxies` if something in front speaks it"
    assert warnings(site(listen=listen)) == [text] * warned


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("nonsense: 1", "7: nonsense: unknown key `nonsense`, write one of", id="unknown"),
        pytest.param("sesion: {}", "7: sesion: unknown key `sesion`, did you mean `session`?", id="misspelled"),
        pytest.param("idp_provider_url: x", "7: idp_provider_url: unknown key `idp_provider_url`, write `provider: {issuer: ...}`", id="pomerium"),
        pytest.param("workers: 0", "7: workers: `0` is not a number of workers, write `auto` or a number from `1` to `999`", id="no-workers"),
        pytest.param("workers: true", "7: workers: `true` is not a number of workers, write `auto` or a number from `1` to `999`", id="workers-flag"),
        pytest.param("state: http://u:hunter2@x", "7: state: this is not a place for the state, write `embedded`, `redis://...`, `rediss://...`, `redis+sentinel://...`, `redis+cluster://...` or `unix:///...`", id="state-shows-no-password"),
        pytest.param("trusted_proxies: 0.0.0.0/0", "7: trusted_proxies: `0.0.0.0/0` is the whole world, name the networks you mean", id="trust-everybody"),
        pytest.param("headers_with_underscores: allow", "7: headers_with_underscores: `allow` is not known here, write one of `drop`, `refuse`", id="underscores"),
        pytest.param("session: {idle: 2h, absolute: 1h}", "7: session.idle: `idle` is longer than `absolute`, write a shorter time", id="idle"),
        pytest.param("session: {max_per_person: 0}", "7: session.max_per_person: `0` is too small, write `1` or more", id="no-session"),
        pytest.param("session: {groups: {groups: a}}", "7: session.groups: this limits nothing, write `idle` or `absolute`", id="group-without-limit"),
        pytest.param("session: {groups: {idle: 5m}}", "7: session.groups: the key `groups` is missing, add `groups: ...`", id="limit-without-group"),
        pytest.param("session: {absolute: 4h, groups: [{groups: a, absolute: 5h}]}", "7: session.groups[0].absolute: this is longer than `session.absolute`, which holds for everyone, write a shorter time", id="group-longer"),
        pytest.param("session: {groups: [{groups: a, idle: 61m}]}", "7: session.groups[0].idle: this is longer than `session.idle`, which holds for everyone, write a shorter time", id="group-idles-longer"),
        pytest.param("session: {groups: [{groups: a, idle: 30m, absolute: 20m}]}", "7: session.groups[0].idle: `idle` is longer than `absolute`, write a shorter time", id="group-idle"),
        pytest.param("session: 1h", "7: session: `1h` is not a mapping, write `key: value` lines", id="session-time"),
        pytest.param("auth_host: https://*.test", "7: auth_host: `*.test` is not a wildcard that is understood, write the full name", id="auth-wildcard"),
        pytest.param("auth_host: http://app.test", "7: auth_host: a route writes this host as `https://app.test`, write one scheme and port for a host", id="auth-other-door"),
        pytest.param("assurance: {acr: {mfa: 4}}", "7: assurance.acr.mfa: `4` is not a rank, write `1` to `3`, or a name of `assurance.levels`", id="rank"),
        pytest.param("assurance: {amr: {'otp+': 2}}", "7: assurance.amr.otp+: `otp+` is not a set of methods, write one, or several joined by `+`, like `pwd+otp`", id="amr"),
        pytest.param("limits: {connections: 0}", "7: limits.connections: `0` is too small, write `1` or more", id="limits"),
        pytest.param("hsts: {preload: true}", "7: hsts.preload: browsers do not preload this, add `include_subdomains: true` and a `max_age` of `365d` or more", id="preload"),
        pytest.param("hsts: true", "7: hsts: `true` is not a mapping, write `key: value` lines", id="hsts-flag"),
        pytest.param("log: {access: true}", "7: log.access: `true` is not a place for a log, write `stdout`, `off` or a file", id="log"),
        pytest.param("log: {audit: stdout}", "7: log.audit: `stdout` keeps nothing: what administrators did is a chain that is read again, write a file that ztproxy alone appends to", id="audit-to-stdout"),
        pytest.param("log: {audit: off}", "7: log.audit: `off` keeps nothing: what administrators did is a chain that is read again, write a file that ztproxy alone appends to", id="no-audit"),
        pytest.param("log: {audit: 1}", '7: log.audit: `1` is not text, put it in quotes: `"1"`', id="audit-number"),
        pytest.param('log: {audit: "a\\0"}', "7: log.audit: the value holds a control character, remove it", id="audit-nul"),
        pytest.param("log: {audit: x.log, access: ./x.log}", "7: log.audit: `/etc/x.log` is where `access` goes, write another file", id="audit-among-accesses"),
        pytest.param("log: {decisions: /var/lib/ztproxy/audit.log}", "7: log: `/var/lib/ztproxy/audit.log` is where `decisions` goes, write another file", id="decisions-into-the-audit"),
        pytest.param("operations: 9090", "7: operations: `9090` is not text, write it like `0.0.0.0:8443`", id="operations"),
        pytest.param("branding: {logo: x}", "7: branding.logo: unknown key `logo`, write one of `name`, `support`, `templates`", id="branding"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_told(line: str, message: str) -> None:
    (told,) = mistakes(site(line))
    assert told.startswith(message)


def test_hosts_share_a_cookie() -> None:
    shared = settings(site("cookie: {domain: app.test}", "auth_host: https://login.app.test"))
    assert shared.cookie == Cookie("__Secure-ztproxy", "app.test")


@pytest.mark.parametrize(
    ("domain", "auth", "message"),
    [
        pytest.param("app.test", "", "7: cookie.domain: a cookie that hosts share needs one host to sign in at, add `auth_host: https://login.app.test`", id="no-door"),
        pytest.param("other.test", "auth_host: https://a.other.test", "4: routes[0].from: `app.test` is outside the cookie's domain `other.test`, leave out `cookie: {domain}`", id="elsewhere"),
        pytest.param("p.test", "auth_host: https://a.p.test", "4: routes[0].from: `app.test` is outside the cookie's domain `p.test`, leave out `cookie: {domain}`", id="by-letters"),
        pytest.param("test", "auth_host: https://a.test", "7: cookie.domain: `test` is not a domain of yours, write `example.com`", id="a-top-level"),
    ],
)  # fmt: skip
def test_a_cookie_that_cannot_be_shared_is_told(domain: str, auth: str, message: str) -> None:
    (told,) = mistakes(site(f"cookie: {{domain: {domain}}}", *([auth] if auth else [])))
    assert told.startswith(message)


def test_an_auth_host_outside_the_cookie_is_told() -> None:
    assert mistakes(site("cookie: {domain: app.test}", "auth_host: https://auth.test")) == [
        "8: auth_host: `auth.test` is outside the cookie's domain `app.test`, leave out `cookie: {domain}`"
    ]


def test_an_auth_host_without_tls_is_warned_of() -> None:
    assert warnings(site("auth_host: http://auth.test")) == [
        "7: auth_host: without TLS anyone on the way can take over a session"
    ]


def test_state_comes_from_one_place() -> None:
    assert mistakes(site("state: embedded", "state_file: f")) == [
        "8: state_file: `state` and `state_file` are both written, write one of them"
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param(["from: https://a.test", "from: https://a.test"], "7: routes[1].from: the route on line 4 has this host and path already, change one or join their policies", id="same-host"),
        pytest.param(["from: https://a.test", "from: https://A.test:443/"], "7: routes[1].from: the route on line 4 has this host and path already, change one or join their policies", id="same-host-respelled"),
        pytest.param(["from: https://a.test", "from: https://a.test:8443"], "7: routes[1].from: `a.test` is also written as `https://a.test`, write one scheme and port for a host", id="two-doors"),
    ],
)  # fmt: skip
def test_routes_that_collide_are_told(lines: list[str], message: str) -> None:
    assert message in mistakes(routes(*lines))


@pytest.mark.parametrize(
    ("first", "second", "collide"),
    [
        pytest.param("prefix: /a", "prefix: /a/", True, id="slash-at-the-end"),
        pytest.param("prefix: /a", "prefix: /%61", True, id="escaped"),
        pytest.param("prefix: /a", "path: /a", False, id="exact-beside-prefix"),
        pytest.param("prefix: /a", "prefix: /A", False, id="case-differs"),
        pytest.param("prefix: /a\n    path_case: insensitive", "prefix: /A", True, id="case-folded"),
        pytest.param("prefix: /a", "prefix: /a/b", False, id="below"),
    ],
)
def test_two_routes_may_not_claim_one_path(first: str, second: str, collide: bool) -> None:
    found = mistakes(routes(f"from: https://a.test\n    {first}", f"from: https://a.test\n    {second}"))
    assert [mistake for mistake in found if "has this host and path already" in mistake] == found
    assert bool(found) is collide


def test_names_are_one_each() -> None:
    text = routes("from: https://a.test\n    name: x", "from: https://b.test\n    name: x")
    assert mistakes(text) == ["8: routes[1]: the route on line 4 is called `x` too, give it another `name`"]


def test_every_file_named_is_watched() -> None:
    listen = "listen: 127.0.0.1:8443\n" + TLS
    provider = "provider: {issuer: https://i.test, client_id: z, client_secret_file: s, ca_file: ca.pem}"
    found = settings(site("keys_file: k", listen=listen, provider=provider)).files
    assert {file.name for file in found} == {"z.yaml", "c.pem", "k.pem", "s", "ca.pem", "k"}


def test_the_keys_are_watched_where_they_are_by_default() -> None:
    assert Path("/var/lib/ztproxy/keys.yaml") in settings(site()).files


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        pytest.param("redis://valkey:6379/0", True, id="elsewhere"),
        pytest.param("redis://user:hunter2@10.0.0.1", True, id="with-a-password"),
        pytest.param("redis://[2001:db8::1]:6379", True, id="ipv6"),
        pytest.param("redis://localhost.example.com", True, id="pretends-to-be-here"),
        pytest.param("redis://127.0.0.1:6379", False, id="this-machine"),
        pytest.param("redis://:p@localhost", False, id="localhost"),
        pytest.param("redis://[::1]:6379/1", False, id="ipv6-loopback"),
        pytest.param("redis:///1", False, id="no-host-is-here"),
        pytest.param("rediss://valkey", False, id="tls"),
        pytest.param("unix:///run/valkey.sock", False, id="socket"),
        pytest.param("embedded", False, id="embedded"),
    ],
)
def test_a_store_without_tls_is_warned_of(url: str, warned: bool) -> None:
    text = "7: state: sessions travel without TLS; write `rediss://...` unless that network is yours alone"
    assert warnings(site(f"state: {url}")) == [text] * warned
