"""`ztproxy revocation status`."""

from __future__ import annotations

import json

import pytest

from tests.cli.admin_world import answering, reply, run, served


def test_status() -> None:
    with served() as there:
        result = there.ask("revocation", "status", role="viewer")
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines() == ["number         0", "topology.kind  standalone"]
        told = json.loads(there.ask("revocation", "status", "--json").stdout)
        assert told["revocation"]["number"] == 0


def test_workers_are_a_table() -> None:
    body = '{"revocation": {"promise": "strict", "workers": [{"worker": "a:1", "applied": 3, "behind": 0}]}}'
    with answering(reply(body)) as url:
        env = {"ZTPROXY_ADMIN_URL": url, "ZTPROXY_ADMIN_TOKEN": "ztp_x"}
        result = run("revocation", "status", env=env)
    assert result.stdout.splitlines() == [
        "promise  strict",
        "",
        "workers",
        "worker  applied  behind",
        "a:1     3        0",
    ]


@pytest.mark.parametrize("body", ["{}", '{"revocation": 3}', '{"revocation": null}'])
def test_garbage(body: str) -> None:
    with answering(reply(body)) as url:
        env = {"ZTPROXY_ADMIN_URL": url, "ZTPROXY_ADMIN_TOKEN": "ztp_x"}
        result = run("revocation", "status", env=env)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "has no `revocation`" in result.stderr
