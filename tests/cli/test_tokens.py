"""`ztproxy tokens`: a secret is seen once, in one place."""

from __future__ import annotations

import json

import pytest

from tests.cli.admin_world import Heard, answering, losing, reply, run, served
from tests.core.words import NOW


def test_create_list_revoke() -> None:
    with served() as there:
        made = there.ask("tokens", "create", "ci", "--role", "operator", "--for", "30d", role="admin")
        assert made.exit_code == 0, made.output
        secret = made.stdout.strip()
        token = there.world.tokens.tokens[secret]
        assert made.stdout == f"{secret}\n"
        assert (token.name, token.role, token.expires_at) == ("ci", "operator", NOW + 30 * 86_400)
        assert secret not in made.stderr and token.id in made.stderr

        listed = there.ask("tokens", "list", role="admin")
        assert any(line.split()[:3] == [token.id, "ci", "operator"] for line in listed.stdout.splitlines())
        assert secret not in listed.output
        assert len(json.loads(there.ask("tokens", "list", "--json", role="admin").stdout)["tokens"]) == 4

        revoked = there.ask("tokens", "revoke", token.id, role="admin")
        assert (revoked.exit_code, revoked.stdout) == (0, f"revoked token {token.id}\n")
        assert secret not in there.world.tokens.tokens
        assert there.ask("tokens", "revoke", token.id, role="admin").exit_code == 1


def test_a_feed() -> None:
    with served() as there:
        made = there.ask("tokens", "create", "jamf", "--role", "feed", role="admin")
        assert there.world.tokens.tokens[made.stdout.strip()].role == "feed"


def test_for_programs() -> None:
    with served() as there:
        made = json.loads(
            there.ask("tokens", "create", "ci", "--role", "viewer", "--json", role="admin").stdout
        )
        assert made["secret"] in there.world.tokens.tokens
        assert made["token"]["name"] == "ci"


def test_a_name_that_is_there() -> None:
    with served() as there:
        result = there.ask("tokens", "create", "admin-1", "--role", "viewer", role="admin")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "the token `admin-1` is not in force: there is a token of this name" in result.stderr


def test_a_secret_that_was_lost_on_its_way() -> None:
    with served() as there, losing(there, 1) as url:
        result = there.ask("tokens", "create", "ci", "--role", "viewer", role="admin", url=url)
        assert (result.exit_code, result.stdout) == (1, "")
        token = next(one for one in there.world.tokens.tokens.values() if one.name == "ci")
        assert f"ztproxy tokens revoke {token.id}" in result.stderr


@pytest.mark.parametrize("secret", ["", "ztp_\x1b[2J", "ztp_\u202e", "ztp_a\nb"])
def test_a_secret_that_is_none(secret: str) -> None:
    body = json.dumps({"secret": secret, "token": {"id": "\x1b"}})
    with answering(reply(body)) as url:
        env = {"ZTPROXY_ADMIN_URL": url, "ZTPROXY_ADMIN_TOKEN": "ztp_x"}
        result = run("tokens", "create", "ci", "--role", "viewer", env=env)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.strip().isprintable()


def test_a_late_record_is_said() -> None:
    with answering(reply('{"audit": "late", "id": "t1"}')) as url:
        env = {"ZTPROXY_ADMIN_URL": url, "ZTPROXY_ADMIN_TOKEN": "ztp_x"}
        result = run("tokens", "revoke", "t1", "--json", env=env)
    assert (result.exit_code, json.loads(result.stdout)["id"]) == (0, "t1")
    assert "audit log" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["create", "ci"],
        ["create", "ci", "--role", "root"],
        ["create", "ci", "--role", "viewer", "--for", "0d"],
        ["revoke", ""],
        pytest.param(["revoke", "ztp_" + "s" * 43], id="a secret in place of an id"),
    ],
)
def test_usage_sends_nothing(words: list[str]) -> None:
    heard = Heard()
    with answering(reply("{}"), heard=heard) as url:
        env = {"ZTPROXY_ADMIN_URL": url, "ZTPROXY_ADMIN_TOKEN": "ztp_x"}
        result = run("tokens", *words, env=env)
    assert (result.exit_code, result.stdout) == (2, "")
    assert heard.requests == []


def test_for_admins() -> None:
    with served() as there:
        for words in (["list"], ["create", "x", "--role", "admin"], ["revoke", "x"]):
            assert there.ask("tokens", *words, role="operator").exit_code == 1
        assert len(there.world.tokens.tokens) == 3
