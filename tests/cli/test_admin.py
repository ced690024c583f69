"""`ztproxy admin`: reload and whoami."""

from __future__ import annotations

import json

from tests.cli.admin_world import served
from tests.surfaces.admin.world import World
from ztproxy.errors import OperatorError


def test_reload() -> None:
    with served() as there:
        result = there.ask("admin", "reload", role="admin")
        assert (result.exit_code, result.stdout) == (0, "loaded\n")
        assert json.loads(there.ask("admin", "reload", "--json", role="admin").stdout)["result"] == "loaded"
        assert there.world.reloads == 2
        assert there.ask("admin", "reload", role="operator").exit_code == 1
        assert there.world.reloads == 2


def test_a_configuration_that_is_refused() -> None:
    with served(World(raises=OperatorError("`listeners` has changed"))) as there:
        result = there.ask("admin", "reload", role="admin")
        assert result.exit_code == 1
        assert "the new configuration is not in force: " in result.stderr
        assert "ztproxy check" in result.stderr


def test_whoami() -> None:
    with served() as there:
        assert there.ask("admin", "whoami").stdout.splitlines()[:2] == [
            "name        operator-1",
            "role        operator",
        ]
        assert json.loads(there.ask("admin", "whoami", "--json").stdout)["by"] == "token"
