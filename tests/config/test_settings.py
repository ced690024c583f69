"""Secrets stay secret, whatever is done with them; and what a running ztproxy can take over."""

# ruff: noqa: E501  (a row is one line)

from __future__ import annotations

import copy
import pickle

import pytest

from tests.config.words import ASKING, DEVICES, PROVIDER, settings, site
from ztproxy.config.settings import Secret
from ztproxy.errors import OperatorError


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{0!r}".format], ids=["repr", "str", "format", "r"])
def test_a_secret_does_not_show_itself(show: object) -> None:
    assert callable(show)
    assert show(Secret("hunter2")) == "Secret(...)"


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_a_secret_is_not_written_down(way: object) -> None:
    assert callable(way)
    with pytest.raises(TypeError, match="not written down"):
        way(Secret("hunter2"))


def test_a_secret_is_compared_by_what_it_is() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("a").reveal() == "a"


def test_settings_show_no_secret() -> None:
    text = site("state: redis://:hunter2@h/0", provider=f"{PROVIDER[:-1]}, client_secret: hunter2}}")
    assert "hunter2" not in repr(settings(text))


def test_settings_cannot_be_changed() -> None:
    found = settings(site())
    with pytest.raises(AttributeError):
        found.drain = 1.0  # type: ignore[misc]


CI = "token_issuers: {name: ci, issuer: https://ci.test}"
ADMIN = "admin: {tls: {certificate: c, key: k}, client_ca: a, certificates: {%s: viewer}}" % ("a" * 64)


@pytest.mark.parametrize(
    ("before", "after", "restart"),
    [
        pytest.param("admin: 127.0.0.1:9901", "admin: 127.0.0.1:9902", "admin", id="admin-elsewhere"),
        pytest.param("admin: 127.0.0.1:9901", "admin: off", "admin", id="admin-off"),
        pytest.param(ADMIN, ADMIN.replace("viewer", "admin"), "admin", id="another-role"),
        pytest.param(ADMIN, ADMIN.replace("a" * 64, ":".join(["AA"] * 32)), None, id="only-respelled"),
        pytest.param("revocation: {lease: 1s}", "revocation: {lease: 2s}", "revocation", id="lease"),
        pytest.param("limits: {head_time: 5s}", "limits: {head_time: 6s}", "limits", id="limits"),
        pytest.param("limits: {memory: 1GiB}", "limits: {memory: 2GiB}", "limits", id="memory"),
        pytest.param("log: {audit: a.log}", "log: {audit: b.log}", "log", id="audit"),
        pytest.param("session: {idle: 1h}", "session: {max_per_person: 3}", None, id="sessions-per-person"),
        pytest.param("devices: {}", "devices: {facts: {risk: number}}", None, id="facts-of-devices"),
        pytest.param("devices: {authorities: {ca_file: a}}", "devices: {authorities: {ca_file: b}}", None, id="authority"),
        pytest.param(CI, CI.replace("ci.test", "cj.test"), None, id="issuer-of-tokens"),
        pytest.param("session: {}", "session: {groups: {groups: a, idle: 5m}}", "session", id="session-of-a-group"),
    ],
)  # fmt: skip
def test_what_ztproxy_was_built_on_needs_a_restart(before: str, after: str, restart: str | None) -> None:
    new, old = settings(site(after)), settings(site(before))
    if restart is None:
        new.takes_over_from(old)
    else:
        with pytest.raises(OperatorError, match=f"`{restart}` has changed, restart ztproxy for that"):
            new.takes_over_from(old)


def test_by_whom_a_listener_asks_needs_a_restart() -> None:
    """Handshakes read the file of before: the reload would be half of one."""
    old = settings(site(DEVICES, listen=ASKING))
    new = settings(site(DEVICES.replace("ca.pem", "b.pem"), listen=ASKING))
    with pytest.raises(OperatorError, match="has moved, and a listener asks by it, restart ztproxy"):
        new.takes_over_from(old)
    old.takes_over_from(old)


def test_whom_a_listener_asks_needs_a_restart() -> None:
    new = settings(site(DEVICES, listen=ASKING.replace("true", "{required: true}")))
    with pytest.raises(OperatorError, match="`listeners` has changed"):
        new.takes_over_from(settings(site(DEVICES, listen=ASKING)))
