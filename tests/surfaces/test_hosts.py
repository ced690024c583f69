"""The names a listener of the operator's own answers to."""

from __future__ import annotations

import pytest

from ztproxy.surfaces.hosts import is_ours, names_of

NAMES = names_of(["Ops.test"])


@pytest.mark.parametrize(
    ("hosts", "ours"),
    [
        pytest.param(["localhost"], True, id="localhost"),
        pytest.param(["LocalHost:9902"], True, id="in any case, with a port"),
        pytest.param(["127.0.0.1:9902"], True, id="an address"),
        pytest.param(["[::1]:9902"], True, id="an IPv6 address"),
        pytest.param(["::1"], True, id="one without brackets"),
        pytest.param(["ops.TEST:1"], True, id="configured"),
        pytest.param(["evil.test"], False, id="a name bound to us (A12)"),
        pytest.param(["localhost.evil.test"], False, id="a name that begins like us"),
        pytest.param(["evil.localhost"], False, id="a name that ends like us"),
        pytest.param(["localhost:1:2"], False, id="two ports"),
        pytest.param(["[::1"], True, id="a bracket left open still names an address"),
        pytest.param(["[evil.test]"], False, id="a name in brackets"),
        pytest.param(["127.1"], False, id="an address in short"),
        pytest.param([""], False, id="empty"),
        pytest.param([], False, id="none"),
        pytest.param(["localhost", "localhost"], False, id="two are none"),
    ],
)
def test_is_ours(hosts: list[str], ours: bool) -> None:
    assert is_ours(hosts, NAMES) is ours
