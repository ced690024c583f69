"""Which origins are ours; the hostile spellings are also tried at each sink in `test_signing_in`."""

from __future__ import annotations

import pytest

from tests.core.words import ask, site
from ztproxy.core.route_table import RouteTable
from ztproxy.surfaces.origins import Origins, host_of

ROUTES = RouteTable(
    [
        site(host="app.test"),
        site(host="plain.test", scheme="http", port=8080),
        site(host="*.wild.test"),
        site(host="*.high.test", port=8443),
    ]
)
OURS = Origins(ROUTES, "https://auth.test:8443")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("app.test", "https://app.test"),
        ("plain.test", "http://plain.test:8080"),
        ("x.wild.test", "https://x.wild.test"),
        ("auth.test", "https://auth.test:8443"),
        ("wild.test", None),
        ("a.b.wild.test", None),
        ("evil.test", None),
    ],
)
def test_the_origin_of_a_request_is_what_the_operator_wrote(host: str, origin: str | None) -> None:
    assert OURS.of(ask("/", host=host, port=9999)) == origin


def test_without_an_auth_host() -> None:
    alone = Origins(ROUTES, None)
    assert (alone.auth, alone.auth_host, alone.of(ask("/", host="auth.test"))) == (None, None, None)


@pytest.mark.parametrize(
    ("origin", "ours"),
    [
        ("https://app.test", True),
        ("http://plain.test:8080", True),
        ("https://x.wild.test", True),
        ("https://x.high.test:8443", True),
        ("https://auth.test:8443", False),
        ("https://app.test:443", False),
        ("http://app.test", False),
        ("https://app.test/", False),
        ("https://x.high.test", False),
        ("https://3232235777\\x.wild.test", False),
        ("https://evil@x.wild.test", False),
        ("https://X.wild.test", False),
        ("https://.wild.test", False),
        ("", False),
    ],
)
def test_what_is_an_apps_origin(origin: str, ours: bool) -> None:
    assert OURS.is_an_apps(origin) is ours


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://app.test", "app.test"),
        ("http://[::1]:8080", "[::1]"),
        ("https://app.test:0", ""),
        ("ftp://app.test", ""),
        ("https://app.test\n", ""),
    ],
)
def test_host_of(origin: str, host: str) -> None:
    assert host_of(origin) == host
