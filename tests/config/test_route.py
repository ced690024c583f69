"""A route's keys: what each becomes, and what is said of every wrong one."""

# ruff: noqa: E501  (a row quotes a whole message, as the operator sees it)

from __future__ import annotations

import pytest

from tests.config.words import mistakes, route, settings, site, the_forwarding, the_route, warnings
from ztproxy.core.conditions import Anyone, Authenticated
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Ambiguity
from ztproxy.core.routes import (
    Forwarding,
    IdentityPreset,
    Redirect,
    Route,
    Sensitivity,
    SessionLimit,
    StaticResponse,
)

ANSWER = "routes:\n  - from: https://app.test\n    allow_any_authenticated_user: true"  # goes on with line 6


def answer(*more: str) -> str:
    """A site whose route has no `to`, and goes on with `more` on line 6."""
    return site(routes="\n".join([ANSWER, *(f"    {line}" for line in more)]))


def test_a_route_without_more_has_careful_defaults() -> None:
    plain = the_route(site())
    assert (plain.name, plain.host, plain.port, plain.scheme) == ("app.test", "app.test", 443, "https")
    assert (plain.segments, plain.exact, plain.tolerates) == ((), False, frozenset())
    assert plain.methods == Route.methods
    assert (plain.sensitivity, plain.recheck) == (Sensitivity(), 60.0)
    assert (plain.identity.audience, plain.identity.assertion) == ("https://app.test", True)
    assert (plain.identity.presets, plain.identity.groups) == ((), None)
    forwarding = the_forwarding(site())
    assert forwarding == Forwarding(forwarding.upstream)


def test_a_limit_for_a_group_of_routes() -> None:
    text = route("session_group: till") + "session: {max_in_group: {till: 2, other: 1}}\n"
    assert the_route(text).session_limit == SessionLimit("till", 2)
    assert the_route(site()).session_limit is None


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        pytest.param("name: main", "name", "main", id="name"),
        pytest.param("title: Main", "title", "Main", id="title"),
        pytest.param("description: It", "description", "It", id="description"),
        pytest.param("listed: false", "listed", False, id="listed"),
        pytest.param("recheck: 5m", "recheck", 300.0, id="recheck"),
        pytest.param("recheck: 1s", "recheck", 1.0, id="recheck-each-second"),
        pytest.param("prefix: /a/b/", "segments", ("a", "b"), id="prefix"),
        pytest.param("path: /a/", "segments", ("a", ""), id="path-keeps-its-end"),
        pytest.param("path: /a", "exact", True, id="path-is-exact"),
        pytest.param("path: /", "segments", ("",), id="root-alone"),
        pytest.param("path: /a", "name", "app.test/a", id="default-name-of-a-path"),
        pytest.param("prefix: /a/", "name", "app.test/a/*", id="default-name-of-a-prefix"),
        pytest.param("path_case: insensitive", "case_insensitive", True, id="path-case"),
        pytest.param(
            "methods: [PROPFIND, MKCOL]", "methods", Route.methods | {"PROPFIND", "MKCOL"}, id="methods"
        ),
        pytest.param("encoded_slash: keep", "tolerates", {Ambiguity.ENCODED_SLASH}, id="encoded-slash"),
        pytest.param("empty_segments: allow", "tolerates", {Ambiguity.EMPTY_SEGMENT}, id="empty-segments"),
        pytest.param("path_params: allow", "tolerates", {Ambiguity.PATH_PARAMETER}, id="path-params"),
        pytest.param("cors_allow_preflight: true", "cors_preflight", True, id="preflight"),
        pytest.param("providers: default", "providers", ("default",), id="providers"),
        pytest.param(
            "sensitivity: restricted",
            "sensitivity",
            Sensitivity("restricted", 600, 3600, 3, True),
            id="restricted",
        ),
        pytest.param(
            "sensitivity: confidential",
            "sensitivity",
            Sensitivity("confidential", 900, 7200, 2, True),
            id="mfa-on-every-session",
        ),
        pytest.param(
            "sensitivity: {label: confidential, fresh: false, least_rank: phishing_resistant}",
            "sensitivity",
            Sensitivity("confidential", 900, 7200, 3, False),
            id="remembered-but-stronger",
        ),
        pytest.param("sensitivity: {fresh: true}", "sensitivity", Sensitivity(fresh=True), id="fresh"),
        pytest.param(
            "sensitivity: public", "sensitivity", Sensitivity("public", 3600, 86400, 1), id="public-label"
        ),
        pytest.param(
            "sensitivity: {label: internal, least_rank: 1, verified_within: off, signed_in_within: 4h}",
            "sensitivity",
            Sensitivity("internal", None, 14400, 1),
            id="sensitivity-overridden",
        ),
        pytest.param(
            "sensitivity: {signed_in_within: 4h}",
            "sensitivity",
            Sensitivity("standard", 3600, 14400, 0),
            id="sensitivity-by-parts",
        ),
    ],
)
def test_a_key_of_the_route(line: str, field: str, value: object) -> None:
    assert getattr(the_route(route(line)), field) == value


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        pytest.param("preserve_host_header: false", "preserve_host", False, id="endpoint-host"),
        pytest.param("host_rewrite: App.Internal:8080", "host", "app.internal:8080", id="host-rewrite"),
        pytest.param("host_rewrite: app.internal", "preserve_host", False, id="host-rewrite-replaces"),
        pytest.param("strip_prefix: true", "strip_prefix", True, id="strip"),
        pytest.param("prefix_rewrite: /v2", "rewrite_prefix", "/v2", id="rewrite"),
        pytest.param("set_request_headers: {X-Team: a, x-b: 'ü'}", "set_request", ((b"x-team", b"a"), (b"x-b", "ü".encode())), id="set-request"),
        pytest.param("remove_request_headers: [X-A, X-B]", "remove_request", {b"x-a", b"x-b"}, id="remove-request"),
        pytest.param("set_response_headers: {Referrer-Policy: same-origin}", "set_response", ((b"referrer-policy", b"same-origin"),), id="set-response"),
        pytest.param("remove_response_headers: Server", "remove_response", {b"server"}, id="remove-response"),
        pytest.param("max_body: 10MiB", "max_body", 10 * 1024 * 1024, id="max-body"),
        pytest.param("max_body: off", "max_body", None, id="no-max-body"),
        pytest.param("upgrades: WebSocket", "upgrades", {"websocket"}, id="websocket"),
    ],
)  # fmt: skip
def test_a_key_of_forwarding(line: str, field: str, value: object) -> None:
    assert getattr(the_forwarding(route(line)), field) == value


def test_origins_are_for_upgrades() -> None:
    text = route("upgrades: websocket", "allowed_origins: [https://B.test:443]", "allow_missing_origin: true")
    forwarding = the_forwarding(text)
    assert (forwarding.origins, forwarding.allow_missing_origin) == ({"https://b.test"}, True)


def test_what_the_app_is_told() -> None:
    line = "identity: {assertion: false, audience: me, headers: [grafana, authelia], groups: [a, b]}"
    told = the_route(route(line)).identity
    assert (told.audience, told.assertion, told.groups) == ("me", False, {"a", "b"})
    assert told.presets == (IdentityPreset.GRAFANA, IdentityPreset.AUTHELIA)


@pytest.mark.parametrize(
    ("line", "action"),
    [
        pytest.param("redirect: https://b.test/x", Redirect("https://b.test/x"), id="redirect"),
        pytest.param("redirect: /x", Redirect("/x"), id="redirect-here"),
        pytest.param(
            "redirect: {location: https://b.test, response_code: 308, keep_path: true}",
            Redirect("https://b.test", 308, True),
            id="redirect-with-path",
        ),
        pytest.param(
            "response: {status: 404, content_type: text/html, body: 'ü'}",
            StaticResponse(404, "text/html", "ü".encode()),
            id="response",
        ),
        pytest.param(
            "response: {body: hello}",
            StaticResponse(200, "text/plain; charset=utf-8", b"hello"),
            id="defaults",
        ),
    ],
)
def test_an_answer_of_our_own(line: str, action: object) -> None:
    assert the_route(answer(line)).action == action


@pytest.mark.parametrize(
    ("line", "condition", "grant"),
    [
        pytest.param("allow_public_unauthenticated_access: true", Anyone(), Reason.PUBLIC_ROUTE, id="public"),
        pytest.param(
            "allow_any_authenticated_user: true", Authenticated(), Reason.ANY_AUTHENTICATED, id="any"
        ),
    ],
)
def test_open_routes_say_so(line: str, condition: object, grant: Reason) -> None:
    text = site(routes=f"routes:\n  - from: https://app.test\n    to: http://127.0.0.1:1\n    {line}")
    (rule,) = the_route(text).policy.rules
    assert (rule.condition, rule.grant) == (condition, grant)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("allow_websockets: true", "7: routes[0].allow_websockets: unknown key `allow_websockets`, write `upgrades: [websocket]`", id="pomerium-websockets"),
        pytest.param("allowed_groups: [a]", "7: routes[0].allowed_groups: unknown key `allowed_groups`, write a `policy`: `policy: [{allow: {group: staff}}]`", id="old-groups"),
        pytest.param("regex: ^/x", "7: routes[0].regex: unknown key `regex`, write `prefix` or `path`; regular expressions are not supported", id="regex"),
        pytest.param("preserve_host_headr: true", "7: routes[0].preserve_host_headr: unknown key `preserve_host_headr`, did you mean `preserve_host_header`?", id="misspelled"),
        pytest.param("strip_prefix: yes", "7: routes[0].strip_prefix: `yes` is not a boolean, write `true` or `false`", id="yes"),
        pytest.param("prefix: api", "7: routes[0].prefix: `api` is not a path, start it with `/`", id="relative-prefix"),
        pytest.param("path: /wiki/Who%3F", "7: routes[0].path: `/wiki/Who%3F` could be read in more than one way, leave out empty segments, dot segments, `;`, `\\`, and escapes of `/`, `?` and `%`", id="escaped-question-mark"),
        pytest.param("prefix: /a//b", "7: routes[0].prefix: `/a//b` could be read in more than one way, leave out empty segments, dot segments, `;`, `\\`, and escapes of `/`, `?` and `%`", id="empty-segment"),
        pytest.param("prefix: /.ztproxy/x", "7: routes[0].prefix: `/.ztproxy/` is ztproxy's own on every host, choose another path", id="our-prefix"),
        pytest.param("path: /.well-known/ztproxy/jwks.json", "7: routes[0].path: `/.ztproxy/` is ztproxy's own on every host, choose another path", id="our-keys"),
        pytest.param("path: /%2eztproxy", "7: routes[0].path: `/.ztproxy/` is ztproxy's own on every host, choose another path", id="our-prefix-escaped"),
        pytest.param("path_case: lower", "7: routes[0].path_case: `lower` is not known here, write one of `insensitive`, `sensitive`", id="path-case"),
        pytest.param("encoded_slash: allow", "7: routes[0].encoded_slash: `allow` is not known here, write one of `keep`, `refuse`", id="encoded-slash"),
        pytest.param("methods: [CONNECT]", "7: routes[0].methods[0]: `CONNECT` is never accepted, remove it", id="connect"),
        pytest.param("sensitivity: internl", "7: routes[0].sensitivity: `internl` is not known here, did you mean `internal`?", id="sensitivity"),
        pytest.param("sensitivity: {label: internal, rank: 2}", "7: routes[0].sensitivity.rank: unknown key `rank`, did you mean `least_rank`?", id="sensitivity-key"),
        pytest.param("sensitivity: {least_rank: 4}", "7: routes[0].sensitivity: no sign-in reaches rank 4, the highest of `assurance` is 3", id="unreachable"),
        pytest.param("sensitivity: {least_rank: strong}", "7: routes[0].sensitivity: there is no level `strong`, write one of `multi_factor`, `password`, `phishing_resistant`", id="no-such-level"),
        pytest.param("sensitivity: pipeline", "7: routes[0].sensitivity: `pipeline` is for services, and none may come here, add `services: {tokens: [...]}` or `services: {spiffe: [...]}`", id="pipeline-of-people"),
        pytest.param("providers: corp", "7: routes[0].providers: there is no provider `corp`, there is `default`", id="no-such-provider"),
        pytest.param("session_group: till", "7: routes[0].session_group: there is no limit for the group `till`, add `session: {max_in_group: {till: 1}}`", id="no-such-group"),
        pytest.param("policy: [{allow: {group: a}}]", "6: routes[0].allow_any_authenticated_user: `policy` and `allow_any_authenticated_user` both say who may open it, write one of them", id="two-policies"),
        pytest.param("allow_public_unauthenticated_access: true", "6: routes[0].allow_any_authenticated_user: `allow_public_unauthenticated_access` and `allow_any_authenticated_user` both say who may open it, write one of them", id="public-and-any"),
        pytest.param("policy: []", "7: routes[0].policy: the list is empty, write at least one entry or remove the key", id="empty-policy"),
        pytest.param("identity: {headers: [okta]}", "7: routes[0].identity.headers[0]: `okta` is not known here, write one of `authelia`, `grafana`, `oauth2-proxy`, `pomerium`", id="preset"),
        pytest.param("identity: true", "7: routes[0].identity: `true` is not a mapping, write `key: value` lines", id="identity-flag"),
        pytest.param("host_rewrite: a b", "7: routes[0].host_rewrite: `a b` is not a host, write it like `app.internal` or `app.internal:8080`", id="host"),
        pytest.param("set_request_headers: {Host: x}", "7: routes[0].set_request_headers.Host: the header `host` belongs to the connection, write `host_rewrite`", id="set-host"),
        pytest.param("set_request_headers: {Transfer-Encoding: x}", "7: routes[0].set_request_headers.Transfer-Encoding: the header `transfer-encoding` belongs to the connection, remove it; ztproxy writes it itself", id="set-framing"),
        pytest.param("set_request_headers: {X_Ztproxy_Assertion: x}", "7: routes[0].set_request_headers.X_Ztproxy_Assertion: the header `x_ztproxy_assertion` is one of ztproxy's own, choose another name", id="set-ours-in-disguise"),
        pytest.param("set_request_headers: {'X A': x}", "7: routes[0].set_request_headers.X A: `X A` is not a header name, write letters, digits and `-`", id="header-name"),
        pytest.param("set_request_headers: {X-A: 1}", '7: routes[0].set_request_headers.X-A: `1` is not text, put it in quotes: `"1"`', id="header-number"),
        pytest.param('set_request_headers: {X-A: "a\\r\\nB: c"}', "7: routes[0].set_request_headers.X-A: a header's value holds a control character or ends in a space, remove it", id="header-injection"),
        pytest.param("set_request_headers: {X-A: a, x-a: b}", "7: routes[0].set_request_headers.X-A: the header `x-a` is written twice, remove one of them", id="header-twice"),
        pytest.param("remove_request_headers: [Content-Length]", "7: routes[0].remove_request_headers[0]: the header `content-length` belongs to the connection, remove it; ztproxy writes it itself", id="remove-framing"),
        pytest.param("max_body: 1000", "7: routes[0].max_body: `1000` is not a size, write a number and a unit, like `10MiB` or `64KiB`", id="bare-size"),
        pytest.param("timeout: 30", "7: routes[0].timeout: `30` is not a duration, write a number and a unit, like `30s`, `5m` or `12h`", id="bare-time"),
        pytest.param("upgrades: [h2c]", "7: routes[0].upgrades[0]: an upgrade to `h2c` would carry requests nobody judges, remove it", id="h2c"),
        pytest.param("upgrades: ['a b']", "7: routes[0].upgrades[0]: `a b` is not a protocol, write it like `websocket`", id="no-protocol"),
        pytest.param("allowed_origins: ['*']", "7: routes[0].allowed_origins[0]: `*` does not start with `https://`, write it like `https://app.example.com`", id="any-origin"),
        pytest.param("allowed_origins: [https://b.test]", "7: routes[0].allowed_origins: origins are checked on upgrades, and none is allowed, add `upgrades`", id="origins-for-nothing"),
        pytest.param("allow_missing_origin: true", "7: routes[0].allow_missing_origin: origins are checked on upgrades, and none is allowed, add `upgrades`", id="missing-origin-for-nothing"),
        pytest.param("redirect: https://b.test", "4: routes[0]: `to` and `redirect` are both written, write one of `to`, `redirect` and `response`", id="two-actions"),
        pytest.param("allow_any_authenticated_users: true", "7: routes[0].allow_any_authenticated_users: unknown key `allow_any_authenticated_users`, did you mean `allow_any_authenticated_user`?", id="plural"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_told(line: str, message: str) -> None:
    assert mistakes(route(line)) == [message]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param(["prefix: /a", "path: /a"], "8: routes[0].path: `path` and `prefix` both choose the paths, write one of them", id="path-and-prefix"),
        pytest.param(["strip_prefix: true", "prefix_rewrite: /b"], "7: routes[0].strip_prefix: `prefix_rewrite` replaces the prefix, write one of them", id="strip-and-rewrite"),
        pytest.param(["path: /a", "strip_prefix: true"], "7: routes[0].path: a whole path has no prefix to rewrite, write `prefix`", id="strip-a-path"),
        pytest.param(["host_rewrite: a", "preserve_host_header: true"], "7: routes[0].host_rewrite: `preserve_host_header` sends another host, write one of them", id="two-hosts"),
    ],
)  # fmt: skip
def test_two_keys_that_contradict_are_told(lines: list[str], message: str) -> None:
    assert mistakes(route(*lines)) == [message]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param([], "4: routes[0]: the route goes nowhere, write one of `to`, `redirect` and `response`", id="nowhere"),
        pytest.param(["redirect: javascript:alert(1)"], "6: routes[0].redirect: `javascript:alert(1)` does not start with `https://`, write it like `https://www.example.com/`", id="script"),
        pytest.param(["redirect: //evil.test"], "6: routes[0].redirect: `//evil.test` does not start with `https://`, write it like `https://www.example.com/`", id="scheme-relative"),
        pytest.param(["redirect: '/\\evil.test'"], "6: routes[0].redirect: `/\\evil.test` does not start with `https://`, write it like `https://www.example.com/`", id="backslash"),
        pytest.param(["redirect: 'https://b.test/a b'"], "6: routes[0].redirect: `https://b.test/a b` is not a URL, write spaces and non-ASCII letters as escapes", id="space"),
        pytest.param(["redirect: {location: /x, response_code: 200}"], "6: routes[0].redirect.response_code: `200` is not a redirect, write `301`, `302`, `303`, `307` or `308`", id="redirect-status"),
        pytest.param(["response: {status: 99}"], "6: routes[0].response.status: `99` is not a status, write a number from `200` to `599`", id="status"),
        pytest.param(["response: {body: x}", "timeout: 3s"], "7: routes[0].timeout: `timeout` has no meaning without `to`, remove it", id="timeout-of-an-answer"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_told(lines: list[str], message: str) -> None:
    assert mistakes(answer(*lines)) == [message]


def test_a_route_that_does_not_say_who_is_a_mistake() -> None:
    assert mistakes(site(routes="routes:\n  - from: https://app.test\n    to: http://127.0.0.1:1")) == [
        "4: routes[0]: the route does not say who may open it, write `policy: [{allow: {domain: example.com}}]` or "
        "`allow_any_authenticated_user: true`"
    ]


def test_a_public_route_cannot_ask_for_strength() -> None:
    text = site(
        routes="routes:\n  - from: https://app.test\n    to: http://127.0.0.1:1\n"
        "    allow_public_unauthenticated_access: true\n    sensitivity: confidential"
    )
    assert mistakes(text) == [
        "7: routes[0].sensitivity: a public route cannot ask for rank 2, write `sensitivity: public` or say who may "
        "open it"
    ]
    assert mistakes(text.replace("confidential", "{fresh: true}")) == [
        "7: routes[0].sensitivity: a public route cannot ask for a sign-in of its own, leave out `fresh` or say who "
        "may open it"
    ]


@pytest.mark.parametrize(
    ("origin", "warned"),
    [
        pytest.param("http://app.test", True, id="plain"),
        pytest.param("http://localhost:8080", False, id="this-machine"),
        pytest.param("https://app.test", False, id="tls"),
    ],
)
def test_a_route_without_tls_is_warned_of(origin: str, warned: bool) -> None:
    text = site(
        routes=f"routes:\n  - from: {origin}\n    to: http://127.0.0.1:1\n    allow_any_authenticated_user: true"
    )
    assert [warning[:18] for warning in warnings(text)] == ["4: routes[0].from:"] * warned


def test_a_wildcard_route_is_found_by_its_hosts() -> None:
    text = site(
        routes="routes:\n  - from: https://*.app.test\n    to: http://127.0.0.1:1\n    allow_any_authenticated_user: true"
    )
    table = settings(text).routes
    assert [len(table.of_host(host)) for host in ("a.app.test", "app.test", "a.b.app.test")] == [1, 0, 0]
