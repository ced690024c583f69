"""The door of the package: a file becomes settings, or all its mistakes; and the examples we ship."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.config.words import site
from ztproxy.config import ConfigErrors, load
from ztproxy.config.schema import json_schema, json_schema_text
from ztproxy.config.source import read
from ztproxy.errors import OperatorError

SHIPPED = Path(__file__).parents[2] / "config"
EXAMPLES = ["example.yaml", "full.yaml"]


def tree(file: Path) -> Any:
    return read(file.read_bytes(), str(file), {}).tree


def test_one_app_needs_ten_lines() -> None:
    text = (SHIPPED / "example.yaml").read_text()
    assert len(text.splitlines()) <= 10
    (route,) = load(SHIPPED / "example.yaml", {}, look=False).routes.routes
    assert route.origin == "https://app.example.com"


def test_the_full_example_loads_and_warns_only_of_its_dangers() -> None:
    found = load(SHIPPED / "full.yaml", {}, look=False)
    assert len(found.routes.routes) == 9
    assert sorted(re.sub(r"^.*?: ", "", warning).partition(":")[0] for warning in found.warnings) == [
        "providers[1].dangerous_accept_unverified_email",
        "providers[1].issuer",
        "token_issuers[1].issuer",
    ]


def keys(schema: Any) -> set[str]:
    found: set[str] = set()
    if isinstance(schema, dict):
        found |= set(schema.get("properties", {}))
        for inner in schema.values():
            found |= keys(inner)
    elif isinstance(schema, list):
        for inner in schema:
            found |= keys(inner)
    return found


def test_the_full_example_mentions_every_key() -> None:
    text = (SHIPPED / "full.yaml").read_text()
    assert len(keys(json_schema())) > 120
    assert [key for key in sorted(keys(json_schema())) if not re.search(rf"(?<![\w]){key}:", text)] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_schema_accepts_what_we_accept(name: str) -> None:
    jsonschema.Draft202012Validator(json_schema()).validate(tree(SHIPPED / name))


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"nonsense": 1}, id="unknown-key"),
        pytest.param({"routes": []}, id="no-routes"),
        pytest.param({"drain": 30}, id="bare-duration"),
        pytest.param(
            {"routes": [{"from": "https://a.test", "policy": [{"allow": {"domian": "a"}}]}]}, id="condition"
        ),
        pytest.param(
            {"routes": [{"from": "https://a.test", "policy": [{"allow": {}}]}]}, id="empty-condition"
        ),
        pytest.param({"hsts": True}, id="hsts"),
    ],
)
def test_the_schema_refuses_what_we_refuse(broken: dict[str, Any]) -> None:
    document = tree(SHIPPED / "example.yaml") | broken
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json_schema()).validate(document)


def test_the_schema_itself_is_good_and_the_shipped_one_is_it() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert (SHIPPED / "schema.json").read_text() == json_schema_text(), (
        "run `ztproxy schema > config/schema.json`"
    )
    assert json.loads(json_schema_text()) == json_schema()


def test_the_environment_is_the_process_s_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "z.yaml"
    file.write_text(site("drain: ${ZTPROXY_TEST_DRAIN}"))
    monkeypatch.setenv("ZTPROXY_TEST_DRAIN", "7s")
    assert load(file).drain == 7.0


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(OperatorError) as caught:
        load(tmp_path / "none.yaml")
    assert str(caught.value) == (
        f"{tmp_path}/none.yaml: cannot be read: no such file or directory, `ztproxy init` writes a first one"
    )


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "z.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + site().encode())
    assert load(file).drain == 30.0


def test_a_mistake_names_the_file_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("z.yaml").write_text("listen: 1\n")
    with pytest.raises(ConfigErrors) as caught:
        load(Path("z.yaml"))
    assert [str(error).partition(": ")[0] for error in caught.value.errors] == ["z.yaml", "z.yaml:1"]
