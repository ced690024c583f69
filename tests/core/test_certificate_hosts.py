"""Which names ask for a certificate."""

from __future__ import annotations

import pytest

from ztproxy.core.certificate_hosts import CertificateHosts

SOME = CertificateHosts(frozenset({"finance.test", "*.corp.test"}))


@pytest.mark.parametrize(
    ("name", "asks"),
    [
        pytest.param("finance.test", True, id="a name"),
        pytest.param("app.finance.test", False, id="beneath a name"),
        pytest.param("open.test", False, id="another name"),
        pytest.param("a.corp.test", True, id="one label"),
        pytest.param("a.b.corp.test", False, id="two labels"),
        pytest.param("corp.test", False, id="no label"),
        pytest.param(".corp.test", False, id="an empty label"),
        pytest.param("*.corp.test", True, id="the wildcard itself"),
        pytest.param("localhost", False, id="no dot"),
        pytest.param("", False, id="an empty name"),
        pytest.param(None, True, id="X24 no name is never weaker"),
    ],
)
def test_some_hosts(name, asks) -> None:
    assert SOME.asks(name) is asks


@pytest.mark.parametrize("name", ["open.test", "", None])
def test_every_host_and_none(name) -> None:
    assert CertificateHosts(None).asks(name) is True
    assert CertificateHosts(frozenset()).asks(name) is (name is None)
