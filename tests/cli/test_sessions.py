"""`ztproxy sessions`, against the real admin API."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.admin_world import Heard, SlowToConfirm, answering, losing, reply, run, served
from tests.core.words import ISSUER
from tests.surfaces.admin.world import World
from ztproxy.gateway.ports import Seen

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202egnp.exe\nrevoked everything"


def test_a_list() -> None:
    with served() as there:
        ids = [there.sign_in(one, email=f"{one}@example.com", device=None) for one in ("alice", "bob")]
        record = there.world.state.sessions[ids[0]]
        record.seen = Seen("203.0.113.9", "app", "curl/8")
        result = there.ask("sessions", "list", role="viewer")
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        columns = "SESSION PERSON PROVIDER SIGNED IN LAST SEEN FROM ROUTE AGENT"
        assert " ".join(lines[0].split()) == columns
        assert [line.split()[:2] for line in lines[1:]] == [
            [ids[1], "bob@example.com"],
            [ids[0], "alice@example.com"],
        ]
        assert lines[2].split()[-3:] == ["203.0.113.9", "app", "curl/8"]
        assert lines[1].index("main") == lines[2].index("main")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--user", "ALICE"], {"alice", "alice2"}),
        (["--user", "bob@example"], {"bob"}),
        (["--subject", "alice", "--issuer", ISSUER], {"alice"}),
        (["--provider", "other"], {"carol"}),
        (["--provider", "main", "--user", "b"], {"bob"}),
    ],
)
def test_filters(words: list[str], found: set[str]) -> None:
    with served() as there:
        there.sign_in("alice")
        there.sign_in("alice2")
        there.sign_in("bob", email="bob@example.com")
        there.sign_in("carol", provider="other")
        told = json.loads(there.ask("sessions", "list", "--json", *words).stdout)
        assert {one["user"]["subject"] for one in told["sessions"]} == found
        assert told["next"] is None


def test_a_limit_over_several_pages() -> None:
    with served() as there:
        for number in range(7):
            there.sign_in(f"person-{number}")
        result = there.ask("sessions", "list", "--limit", "3")
        assert len(result.stdout.splitlines()) == 4
        assert "--limit" in result.stderr
        assert (
            len(json.loads(there.ask("sessions", "list", "--limit", "500", "--json").stdout)["sessions"]) == 7
        )
        assert json.loads(there.ask("sessions", "list", "--limit", "2", "--json").stdout)["next"]


def test_cursors_are_followed_to_the_limit_and_no_further() -> None:
    heard = Heard()
    one = '{"sessions": [{"id": "s1"}], "next": "c%d"}'
    pages = [one % 1, '{"sessions": [], "next": "c2"}', one % 3, one % 4]
    with answering(*map(reply, pages), heard=heard) as url:
        env = {"ZTPROXY_ADMIN_URL": url, "ZTPROXY_ADMIN_TOKEN": "ztp_x"}
        result = run("sessions", "list", "--limit", "2", "--json", env=env)
    assert json.loads(result.stdout) == {"sessions": [{"id": "s1"}, {"id": "s1"}], "next": "c3"}
    asked = [request.split(b" ")[1] for request in heard.requests]
    assert asked == [
        b"/api/v1/sessions?limit=2",
        b"/api/v1/sessions?limit=1&cursor=c1",
        b"/api/v1/sessions?limit=1&cursor=c2",
    ]


def test_a_cursor_that_goes_round_in_a_circle() -> None:
    with answering(reply('{"sessions": [], "next": "c1"}')) as url:
        env = {"ZTPROXY_ADMIN_URL": url, "ZTPROXY_ADMIN_TOKEN": "ztp_x"}
        assert "no sessions" in run("sessions", "list", env=env).stderr


def test_a_hostile_agent_and_name_move_no_cursor() -> None:
    with served() as there:
        id = there.sign_in("eve", email=None, name=HOSTILE)
        there.world.state.sessions[id].seen = Seen("203.0.113.9", "app", HOSTILE)
        there.sign_in(HOSTILE)
        for words in (["list"], ["show", id], ["list", "--json"], ["show", id, "--json"]):
            result = there.ask("sessions", *words)
            assert result.exit_code == 0
            assert all(line.isprintable() for line in result.stdout.split("\n"))
            assert "\nrevoked" not in result.stdout
        assert json.loads(result.stdout)["seen"]["agent"] == HOSTILE


def test_show() -> None:
    with served() as there:
        id = there.sign_in("alice", email="alice@example.com", groups=("ops", "dev"))
        told = dict(line.split(maxsplit=1) for line in there.ask("sessions", "show", id).stdout.splitlines())
        assert told["id"] == id
        assert told["user.issuer"] == ISSUER
        assert told["user.groups"] == "ops, dev"
        missing = there.ask("sessions", "show", "none")
        assert (missing.exit_code, missing.stdout) == (1, "")
        assert "there is no such session" in missing.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["list", "--limit", "0"],
        ["list", "--subject", "a"],
        ["list", "--issuer", "a"],
        ["show", ""],
        ["show"],
        ["revoke"],
        ["revoke", "--yes"],
        ["revoke", "--yes", ""],
        ["revoke", "--yes", "--user", ""],
        ["revoke", "--yes", "--subject", "a"],
        ["revoke", "--yes", "s1", "--all"],
        ["revoke", "--yes", "--user", "a", "--group", "g"],
        ["revoke", "--all", "--url", "unix:/x", "--config", "x"],
    ],
)
def test_usage_sends_nothing(words: list[str]) -> None:
    heard = Heard()
    with answering(reply("{}"), heard=heard) as url:
        env = {"ZTPROXY_ADMIN_URL": url, "ZTPROXY_ADMIN_TOKEN": "ztp_x"}
        result = run("sessions", *words, env=env)
    assert (result.exit_code, result.stdout) == (2, "")
    assert heard.requests == []


def test_without_a_terminal_yes_is_demanded() -> None:
    heard = Heard()
    with answering(reply("{}"), heard=heard) as url:
        env = {"ZTPROXY_ADMIN_URL": url, "ZTPROXY_ADMIN_TOKEN": "ztp_x"}
        result = run("sessions", "revoke", "--user", "alice@example.com", env=env)
    assert (result.exit_code, "--yes" in result.stderr) == (2, True)
    assert heard.requests == []


@pytest.mark.parametrize(
    ("typed", "status"),
    [
        pytest.param("y\n", 0, id="yes"),
        pytest.param("n\n", 1, id="no"),
        pytest.param("\n", 1, id="nothing"),
        pytest.param("\x04", 1, id="the end"),
    ],
)
def test_asked_first(typed: str, status: int) -> None:
    with served() as there:
        there.sign_in("alice", email="alice@example.com")
        there.sign_in("alice", email="alice@example.com")
        done, out, err = there.at_terminal("sessions", "revoke", "--user", "alice@example.com", typed=typed)
        assert done == status, err
        assert f"person `alice` of {ISSUER}: 2 sessions" in err
        assert there.targets == ([] if status else [("user", "alice")])
        assert ("revoked" in out) is not bool(status)
        if status:
            assert len(there.world.state.sessions) == 2
            assert there.world.outcomes == []


@pytest.mark.parametrize(
    ("words", "targets"),
    [
        (["s1", "s2", "s1"], [("session", "s1"), ("session", "s2")]),
        (["--subject", "alice", "--issuer", ISSUER], [("user", "alice")]),
        (["--idp-session", "sid", "--issuer", ISSUER], [("idp_session", "sid")]),
        (["--device", "d1"], [("device", "d1")]),
        (["--group", "ops"], [("group", "ops")]),
        (["--route", "app"], [("route", "app")]),
        (["--all"], [("all", "")]),
        (["*"], [("session", "*")]),
    ],
)
def test_revoking(words: list[str], targets: list[tuple[str, str]]) -> None:
    with served() as there:
        result = there.ask("sessions", "revoke", *words, "--yes", "--reason", "left", role="admin")
        assert result.exit_code == 0, result.output
        assert there.targets == targets
        assert result.stdout.count("confirmed everywhere") == len(targets)
        assert {one.reason for one in there.world.log.entries.values()} == {"left"}


def test_both_persons_of_an_e_mail() -> None:
    with served() as there:
        for subject in ("a1", "a2", "a1"):
            there.sign_in(subject, email="alice@example.com")
        kept = there.sign_in("bob", email="bob@example.com")
        result = there.ask("sessions", "revoke", "--user", "alice@example.com", "--yes", "--json")
        assert sorted(json.loads(line)["matched"] for line in result.stdout.splitlines()) == [1, 2]
        assert sorted(there.targets) == [("user", "a1"), ("user", "a2")]
        assert kept in there.world.state.sessions


def test_nobody_of_an_e_mail() -> None:
    with served() as there:
        result = there.ask("sessions", "revoke", "--user", "nobody@example.com", "--yes")
        assert result.exit_code == 1
        assert "nobody with the e-mail" in result.stderr
        assert there.targets == []


def test_a_lost_answer_is_asked_for_again() -> None:
    with served() as there, losing(there, 1) as url:
        result = there.ask("sessions", "revoke", "--group", "ops", "--yes", url=url)
        assert (result.exit_code, there.targets) == (0, [("group", "ops")])


def test_not_confirmed_is_said() -> None:
    with served(World(log=SlowToConfirm(unconfirmed=1000))) as there:
        result = there.ask("sessions", "revoke", "s1", "--yes", "--wait", "0.4")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "is in force wherever it was heard, but not confirmed everywhere" in result.stderr
        assert there.targets == [("session", "s1")]


def test_the_store_is_away() -> None:
    with served(World(log=SlowToConfirm(away=1000))) as there:
        result = there.ask("sessions", "revoke", "s1", "--yes", "--wait", "0.4")
        assert result.exit_code == 1
        assert "the revocation of session `s1` is not in force: " in result.stderr
        assert there.targets == []


def test_one_of_two_fails_and_the_other_is_made() -> None:
    with served(World(log=SlowToConfirm(away=1))) as there:
        result = there.ask("sessions", "revoke", "s1", "s2", "--yes", "--wait", "0.1")
        assert result.exit_code == 1
        assert "`s1` is not in force" in result.stderr
        assert "revoked session `s2`" in result.stdout
        assert there.targets == [("session", "s2")]


def test_a_role_that_may_not() -> None:
    with served() as there:
        result = there.ask("sessions", "revoke", "s1", "--yes", role="viewer")
        assert result.exit_code == 1
        assert "needs the role operator" in result.stderr
        assert there.world.secrets["viewer"] not in result.output
        assert there.targets == []


def test_an_emergency_goes_on_without_the_record() -> None:
    with served() as there:
        there.world.audit.full = True
        refused = there.ask("sessions", "revoke", "--all", "--yes", role="admin")
        assert refused.exit_code == 1
        assert "audit log" in refused.stderr and "not in force" in refused.stderr
        assert there.targets == []
        done = there.ask("sessions", "revoke", "--all", "--yes", "--emergency", role="admin")
        assert done.exit_code == 0, done.output
        assert "warning: the audit log" in done.stderr
        assert there.targets == [("all", "")]


@pytest.mark.parametrize("body", ["{}", '{"confirmed": false}', '{"confirmed": "true"}'])
def test_an_answer_that_confirms_nothing(body: str) -> None:
    with answering(reply(body)) as url:
        env = {"ZTPROXY_ADMIN_URL": url, "ZTPROXY_ADMIN_TOKEN": "ztp_x"}
        result = run("sessions", "revoke", "--all", "--yes", env=env)
    assert (result.exit_code, result.stdout) == (1, "")


def test_small_commands_load_no_server() -> None:
    heavy = ("aiohttp", "uvloop", "redis", "msgspec", "cryptography")
    look = f"import sys, ztproxy.cli; print([one for one in {heavy} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
