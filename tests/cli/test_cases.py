"""The decision cases of `tests/cases`, asked of the library and of `ztproxy explain`: one meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ztproxy.cli import main

CASES = Path(__file__).parent.parent / "cases"
TUESDAY = "2026-06-09T12:00:00Z"


def rows() -> list[Any]:
    found = []
    for file in sorted(CASES.glob("*.json")):
        about = json.loads(file.read_text())
        for case in about["cases"]:
            found.append(pytest.param(about["routes"], case, id=f"{file.stem}: {case['description']}"))
    return found


def options(ask: dict[str, Any]) -> list[str]:
    asked = {"at": TUESDAY, **ask}
    url = asked.pop("url", "/")
    words = ["--url", f"https://app.test{url}" if url.startswith("/") else url]
    for name, value in asked.items():
        for each in value if isinstance(value, list) else [value]:
            words += [f"--{name}", str(each)]
    return words


@pytest.mark.parametrize(("routes", "case"), rows())
def test_the_decision_is(tmp_path: Path, routes: list[Any], case: dict[str, Any]) -> None:
    file = tmp_path / "z.yaml"  # JSON is YAML 1.2
    provider = {"issuer": "https://idp.test", "client_id": "z"}
    file.write_text(json.dumps({"listen": "127.0.0.1:1", "provider": provider, "routes": routes}))
    result = CliRunner().invoke(main, ["explain", "--config", str(file), "--json", *options(case["ask"])])
    told = json.loads(result.stdout)
    assert (told["decision"], told["reasons"]) == (case["decision"], case["reasons"])
    assert result.exit_code == (0 if case["decision"] == "forward" else 1)
    if "rules" in case:
        assert [rule["answer"] for rule in told["rules"]] == case["rules"]
    for key in ("rank", "max_age"):
        if key in case:
            assert told[key] == case[key]


def test_there_are_cases() -> None:
    assert len(rows()) >= 45
