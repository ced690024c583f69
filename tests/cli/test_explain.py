"""`ztproxy explain`: the decision in words, and questions that cannot be understood."""

# ruff: noqa: E501  (a row quotes a whole message, as the operator sees it)

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ztproxy.cli import main

TEXT = """\
listen: 127.0.0.1:8443
provider: {issuer: https://idp.test, client_id: z, client_secret_file: not-there}
routes:
  - from: https://app.test
    to: http://127.0.0.1:1
    sensitivity: {signed_in_within: 10m}
    policy:
      - {name: staff, allow: {group: staff}}
      - allow: {group: admins, acr_rank: 3}
"""
APP = ("--url", "https://app.test/x?y=1#z")
ALICE = ("--user", "alice@example.com")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "z.yaml"
    file.write_text(TEXT)
    return file


def explain(config: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["explain", "--config", str(config), *options])


ROUTE = "route app.test: https://app.test -> http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("options", "status", "lines"),
    [
        pytest.param(
            (*APP, *ALICE, "--group", "staff"),
            0,
            [
                "FORWARD: rule_allowed",
                "  A rule allows this.",
                "",
                ROUTE,
                "  holds         allow group staff (staff)",
                "  fails         allow group admins and a sign-in of rank 3 or more (rule 2): group_missing",
            ],
            id="forward",
        ),
        pytest.param(
            APP,
            1,
            [
                "LOGIN: login_required",
                "  Please sign in.",
                "",
                ROUTE,
                "  needs login   allow group staff (staff): login_required",
                "  needs login   allow group admins and a sign-in of rank 3 or more (rule 2): login_required",
            ],
            id="login",
        ),
        pytest.param(
            (*APP, *ALICE, "--group", "admins", "--age", "601"),
            1,
            [
                "STEP UP: step_up_required",
                "  This needs a stronger sign-in.",
                "  asked for: rank 3 and a sign-in within 600 s",
                "",
                ROUTE,
                "  fails         allow group staff (staff): group_missing",
                "  needs step up allow group admins and a sign-in of rank 3 or more (rule 2): step_up_required",
            ],
            id="step-up",
        ),
        pytest.param(
            (*APP, *ALICE, "--group", "staff", "--age", "601"),
            1,
            [
                "STEP UP: step_up_required",
                "  This needs a stronger sign-in.",
                "  asked for: a sign-in within 600 s",
                "",
                ROUTE,
                "  holds         allow group staff (staff)",
                "  fails         allow group admins and a sign-in of rank 3 or more (rule 2): group_missing",
            ],
            id="sign-in-again",
        ),
        pytest.param(
            ("--url", "https://other.test"),
            1,
            ["DENY: no_such_host", "  There is no site of this name here."],
            id="unknown-host",
        ),
    ],
)
def test_a_decision_is_said_in_words(
    config: Path, options: tuple[str, ...], status: int, lines: list[str]
) -> None:
    result = explain(config, *options)
    assert result.stdout.splitlines() == lines
    assert (result.exit_code, result.stderr) == (status, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(("--url", "app.test"), "`app.test` is not a URL, write it like `https://app.example.com/path`", id="no-scheme"),
        pytest.param(("--url", "https://"), "`https://` is not a URL, write it like `https://app.example.com/path`", id="no-host"),
        pytest.param(("--url", "https://app.test:x/"), "`https://app.test:x/` has no port of this world, leave it out", id="port"),
        pytest.param(("--url", "https://app.test/.ztproxy/x"), "`/.ztproxy/` is ztproxy's own on every host, ask about another path", id="ours"),
        pytest.param((*APP, "--group", "staff"), "groups, claims and acr belong to somebody, add `--user alice@example.com`", id="groups-of-nobody"),
        pytest.param((*APP, "--at", "noon"), "`noon` is not a moment, write it like `2026-12-31T23:00+01:00`", id="moment"),
        pytest.param((*APP, "--at", "2026-01-01T12:00"), "`2026-01-01T12:00` says no zone, write `2026-01-01T12:00Z` or an offset like `+01:00`", id="no-zone"),
        pytest.param((*APP, "--ip", "office"), "`office` is not an IP address, write it like `10.1.2.3`", id="ip"),
        pytest.param((*APP, *ALICE, "--claim", "x"), "`x` is not a claim, write `--claim department=finance`", id="claim"),
        pytest.param((*APP, *ALICE, "--claim", "a=1", "--claim", "a.b=2"), "the claim `a.b` is below one that has a value, give one of them", id="claim-below"),
    ],
)  # fmt: skip
def test_a_question_that_cannot_be_understood(config: Path, options: tuple[str, ...], message: str) -> None:
    result = explain(config, *options)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"{message}\n")
