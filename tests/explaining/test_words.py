"""Every condition has words of its own."""

from __future__ import annotations

import inspect
from ipaddress import ip_network

import pytest

from ztproxy.core import conditions as core
from ztproxy.core import device_conditions as devices
from ztproxy.core import service_conditions as services
from ztproxy.core.policy import Effect, Policy, Rule
from ztproxy.explaining.words import either, say

A, B = core.InGroup(frozenset({"a"})), core.InGroup(frozenset({"b"}))


NEW = [
    (devices.CertificateIs(), "a client certificate"),
    (
        devices.CertificateIs(
            authorities=frozenset({"corp", "lab"}),
            thumbprints=frozenset({"t"}),
            keys=frozenset({"k"}),
            issuers=frozenset({"CN=i"}),
            subjects=frozenset({"CN=s"}),
            dns=frozenset({"A.test"}),
            emails=frozenset({"a@b"}),
            uris=frozenset({"urn:u"}),
            spiffe=("spiffe://corp.test/*",),
        ),
        "a client certificate of authority corp or lab and with fingerprint t and with key k "
        "and issued by CN=i and for CN=s and for host a.test and for e-mail a@b and for URI urn:u "
        "and for SPIFFE ID spiffe://corp.test/*",
    ),
    (devices.DeviceKnown(), "a device of the inventory"),
    (devices.DeviceApproved(), "an approved device"),
    (devices.DeviceOwned(), "a device of their own"),
    (devices.PlatformIs(frozenset({"MacOS", "windows"})), "platform macos or windows"),
    (
        devices.PostureIs("disk_encrypted", devices.Equals(True), 86_400.0),
        "disk_encrypted true (known for less than 1d)",
    ),
    (
        devices.PostureIs("os_version", devices.OneOf(("15.1", "15.2")), 5400.0),
        "os_version 15.1 or 15.2 (known for less than 90m)",
    ),
    (
        devices.PostureIs("os_patch_age", devices.AtMost(30), 7200.0),
        "os_patch_age at most 30 (known for less than 2h)",
    ),
    (
        devices.PostureIs("os_patch_age", devices.AtLeast(1), 0.5),
        "os_patch_age at least 1 (known for less than 0.5s)",
    ),
    (devices.PostureIs("edr_running", devices.Equals(False)), "edr_running false"),
    (services.ServiceIs(frozenset({"ci"}), ("spiffe://a/b",)), "service ci or spiffe://a/b"),
    (services.HasScopes(frozenset({"write", "read"})), "a token for read and write"),
    (services.IsPerson(), "a person who is signed in"),
]


@pytest.mark.parametrize(("condition", "words"), NEW)
def test_a_condition_about_devices_or_services_in_words(condition: core.Condition, words: str) -> None:
    assert say(condition) == words


@pytest.mark.parametrize("module", [devices, services], ids=["devices", "services"])
def test_there_are_words_for_every_one(module: object) -> None:
    kinds = {
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__  # type: ignore[attr-defined]
        and hasattr(kind, "ask")
        and not kind.__name__.startswith("_")
    }
    assert kinds <= {type(condition) for condition, _ in NEW}


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        pytest.param(core.Anyone(), "everyone, signed in or not", id="public"),
        pytest.param(core.Authenticated(), "everyone who is signed in", id="authenticated"),
        pytest.param(core.UserIs(frozenset({"u"})), "user u", id="user"),
        pytest.param(core.EmailIs(frozenset({"a@b"})), "e-mail a@b", id="email"),
        pytest.param(core.FromNetwork((ip_network("10.0.0.0/8"),)), "from 10.0.0.0/8", id="network"),
        pytest.param(core.PathUnder(()), "path beneath /", id="everything"),
        pytest.param(core.AllOf([A, core.AnyOf([A, B])]), "group a and (group a or group b)", id="nested"),
        pytest.param(core.AnyOf([A, A]), "group a", id="said-once"),
        pytest.param(core.Not(core.AllOf([A, B])), "not (group a and group b)", id="not"),
        pytest.param(
            Policy([Rule(Effect.DENY, A), Rule(Effect.ALLOW, B)]), "deny group a; allow group b", id="policy"
        ),
    ],
)
def test_a_condition_in_words(condition: core.Condition, words: str) -> None:
    assert say(condition) == words


@pytest.mark.parametrize(
    ("words", "said"), [(["a"], "a"), (["a", "b"], "a or b"), (["a", "b", "c"], "a, b or c")]
)
def test_a_list_in_words(words: list[str], said: str) -> None:
    assert either(words) == said
