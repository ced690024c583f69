"""Our cookies as lines."""

from __future__ import annotations

import pytest

from ztproxy.surfaces.cookies import SessionCookie, clear_flows, flow_cookie, spend_flows

FLAGS = "Path=/; Secure; HttpOnly; SameSite=Lax"
HOST, DOMAIN = SessionCookie("__Host-ztproxy", None), SessionCookie("__Secure-ztproxy", "corp.test")


def test_the_session_of_one_host() -> None:
    assert HOST.set("v", 60) == (b"Set-Cookie", f"__Host-ztproxy=v; Max-Age=60; {FLAGS}".encode())
    assert HOST.clear() == (b"Set-Cookie", f"__Host-ztproxy=; Max-Age=0; {FLAGS}".encode())


def test_the_session_of_a_domain() -> None:
    line = f"__Secure-ztproxy=v; Max-Age=60; Domain=corp.test; {FLAGS}"
    assert DOMAIN.set("v", 60) == (b"Set-Cookie", line.encode())


@pytest.mark.parametrize(
    ("cookie", "host", "shared"),
    [
        (DOMAIN, "corp.test", True),
        (DOMAIN, "a.b.corp.test", True),
        (DOMAIN, "evilcorp.test", False),
        (DOMAIN, "corp.test.evil.test", False),
        (HOST, "corp.test", False),
    ],
)
def test_who_is_shown_it(cookie: SessionCookie, host: str, shared: bool) -> None:
    assert cookie.shared_with(host) is shared


def test_flows() -> None:
    assert flow_cookie("a", "1.x", 9) == (b"Set-Cookie", f"a=1.x; Max-Age=9; {FLAGS}".encode())
    assert clear_flows(["a"]) == [(b"Set-Cookie", f"a=; Max-Age=0; {FLAGS}".encode())]
    assert spend_flows(["a", "gone"], {"a": "1.x"}) == [flow_cookie("a", "1.x", 60)]
