"""`ztproxy console`: a link to the listener that was asked, and to no other."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.cli.admin_world import Heard, answering, reply, run, served
from tests.surfaces.admin.world import World
from ztproxy.surfaces.admin.access import Caller


async def link(caller: Caller) -> str:
    return f"/console/enter?code=for-{caller.name}"


def test_a_link() -> None:
    world = World()
    world.desk = replace(world.desk, console_link=link)
    with served(world, unix=False) as there:
        result = there.ask("console", role="viewer")
        assert (result.exit_code, result.stdout) == (0, f"{there.url}/console/enter?code=for-viewer-1\n")
        assert json.loads(there.ask("console", "--json").stdout)["path"].endswith("for-operator-1")


def test_a_unix_socket_says_what_to_configure() -> None:
    with served() as there:
        result = there.ask("console")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "admin: 127.0.0.1:9901" in result.stderr
        assert there.world.outcomes == []


def test_no_console() -> None:
    world = World()
    world.desk = replace(world.desk, console_link=None)
    with served(world, unix=False) as there:
        result = there.ask("console")
        assert (result.exit_code, "no console here" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("https://evil.test/console/", id="another site"),
        pytest.param("//evil.test/console/", id="in short"),
        pytest.param("@evil.test/console/", id="as a login"),
        pytest.param(".evil.test/console/", id="a longer host"),
        pytest.param("/console/\x1b[2J", id="for a terminal"),
        pytest.param("/console/\u202e", id="turned round"),
        pytest.param("/console/a\nb", id="two lines"),
        pytest.param("", id="nothing"),
        pytest.param(None, id="null"),
    ],
)
def test_a_link_elsewhere_is_not_shown(path: str | None) -> None:
    heard = Heard()
    with answering(reply(json.dumps({"path": path})), heard=heard) as url:
        env = {"ZTPROXY_ADMIN_URL": url, "ZTPROXY_ADMIN_TOKEN": "ztp_x"}
        result = run("console", env=env)
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(heard.requests) == 1
