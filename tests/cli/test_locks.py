"""`ztproxy locks`, against the real admin API."""

from __future__ import annotations

import json

import pytest

from tests.cli.admin_world import Heard, SlowToConfirm, answering, reply, run, served
from tests.core.words import ISSUER, NOW
from tests.surfaces.admin.world import World
from ztproxy.core.locks import Action, Lock


def only_lock(world: World) -> Lock:
    (lock,) = world.log.entries.values()
    assert isinstance(lock, Lock)
    return lock


def test_add_list_lift() -> None:
    with served() as there:
        words = [
            "--group",
            "contractors",
            "--for",
            "2h",
            "--message",
            "Back at noon.",
            "--reason",
            "INC-7",
            "--yes",
        ]
        made = there.ask("locks", "add", *words)
        assert made.exit_code == 0, made.output
        lock = only_lock(there.world)
        assert (lock.action, lock.until) == (Action.DENY, NOW + 7200)
        assert (lock.message, lock.reason) == ("Back at noon.", "INC-7")
        assert made.stdout.startswith(f"lock {lock.id} on group `contractors`: ")

        listed = there.ask("locks", "list", role="viewer").stdout.splitlines()
        assert listed[0].split() == ["LOCK", "ENTRY", "TARGET", "ACTION", "UNTIL", "MADE", "BY", "REASON"]
        assert listed[1].startswith(f"{lock.id}  1      group contractors  deny")
        assert listed[1].endswith("operator-1  INC-7")

        lifted = there.ask("locks", "lift", lock.id, "--reason", "over")
        assert (lifted.exit_code, lifted.stdout.startswith(f"lifted lock {lock.id}: confirmed")) == (0, True)
        assert "no locks" in there.ask("locks", "list").stderr


def test_a_person_and_an_end() -> None:
    with served() as there:
        words = [
            "--subject",
            "alice",
            "--issuer",
            ISSUER,
            "--action",
            "require_step_up",
            "--until",
            "2025-12-31T18:00Z",
        ]
        result = there.ask("locks", "add", *words, "--yes", "--json")
        assert json.loads(result.stdout)["confirmed"] is True
        lock = only_lock(there.world)
        assert (lock.action, lock.target.issuer) == (Action.REQUIRE_STEP_UP, ISSUER)
        assert f"user alice of {ISSUER}" in there.ask("locks", "list").stdout
        assert json.loads(there.ask("locks", "list", "--json").stdout)["locks"][0]["id"] == lock.id


def test_a_revocation_is_called_one_and_is_not_lifted() -> None:
    with served() as there:
        there.ask("sessions", "revoke", "s1", "--yes")
        assert "revoked" in there.ask("locks", "list").stdout
        result = there.ask("locks", "lift", only_lock(there.world).id)
        assert result.exit_code == 1
        assert "what was revoked stays revoked" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["add", "--for", "2h", "--yes"],
        ["add", "--all", "--yes"],
        ["add", "--all", "--for", "2h"],
        ["add", "--all", "--for", "2h", "--until", "2025-12-31T18:00Z", "--yes"],
        ["add", "--all", "--for", "forever", "--yes"],
        ["add", "--group", "", "--for", "2h", "--yes"],
        ["add", "--all", "--group", "g", "--for", "2h", "--yes"],
        ["add", "--all", "--action", "allow", "--for", "2h", "--yes"],
        ["lift", " "],
        ["lift"],
    ],
)
def test_usage_sends_nothing(words: list[str]) -> None:
    heard = Heard()
    with answering(reply("{}"), heard=heard) as url:
        env = {"ZTPROXY_ADMIN_URL": url, "ZTPROXY_ADMIN_TOKEN": "ztp_x"}
        result = run("locks", *words, env=env)
    assert (result.exit_code, result.stdout) == (2, "")
    assert heard.requests == []


@pytest.mark.parametrize(("typed", "made"), [("y\n", 1), ("n\n", 0)])
def test_asked_first(typed: str, made: int) -> None:
    with served() as there:
        there.sign_in("alice", groups=("ops",))
        status, _, err = there.at_terminal("locks", "add", "--group", "ops", "--for", "1h", typed=typed)
        assert status == 1 - made
        assert "group `ops`: 1 session" in err
        assert len(there.world.log.entries) == made


def test_what_the_api_refuses() -> None:
    with served() as there:
        result = there.ask("locks", "add", "--group", "g", "--until", "2020-01-01T00:00Z", "--yes")
        assert result.exit_code == 1
        assert "`until`: it must be in the future" in result.stderr
        assert there.ask("locks", "add", "--all", "--for", "1h", "--yes").exit_code == 1, "for admins"
        assert there.targets == []


def test_a_lift_that_not_everybody_has_heard_of() -> None:
    log = SlowToConfirm()
    with served(World(log=log)) as there:
        there.ask("locks", "add", "--group", "g", "--for", "1h", "--yes")
        id = only_lock(there.world).id
        log.left = ["unconfirmed"]
        result = there.ask("locks", "lift", id, "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout)["confirmed"] is False
        assert "some may not have heard" in result.stderr
        assert "there is no such lock" in there.ask("locks", "lift", id).stderr


def test_a_hostile_reason_moves_no_cursor() -> None:
    body = json.dumps(
        {"locks": [{"id": "a\x1b[2J", "reason": "\u202e", "target": {"kind": "all\n"}, "number": "x"}]}
    )
    with answering(reply(body)) as url:
        env = {"ZTPROXY_ADMIN_URL": url, "ZTPROXY_ADMIN_TOKEN": "ztp_x"}
        result = run("locks", "list", env=env)
    assert result.exit_code == 0
    assert all(line.isprintable() for line in result.stdout.split("\n"))
