"""The committed document is the served one, is whole, and says what the table says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.surfaces.admin.world import DOCUMENT, World, operation
from ztproxy.surfaces.admin.asked import AnyEndpoint
from ztproxy.surfaces.admin.endpoints import ENDPOINTS
from ztproxy.surfaces.admin.problems import Kind

PAGE = (Path(__file__).parents[3] / "docs/admin-api.md").read_text()


async def test_the_served_document_is_the_committed_one(world: World) -> None:
    """When this fails: python -m ztproxy.surfaces.admin > docs/openapi.json"""
    answer = await world.ask("GET", "/openapi.json", role="viewer")
    assert answer.json == DOCUMENT


def test_the_command_writes_it() -> None:
    command = [sys.executable, "-m", "ztproxy.surfaces.admin"]
    assert json.loads(subprocess.run(command, check=True, capture_output=True).stdout) == DOCUMENT


@pytest.mark.parametrize("endpoint", [pytest.param(one, id=f"{one.method} {one.path}") for one in ENDPOINTS])
def test_every_endpoint_is_in_it(endpoint: AnyEndpoint) -> None:
    described = operation(endpoint.method, endpoint.path)
    names = [one.get("name", "Idempotency-Key") for one in described["parameters"]]
    roles = (endpoint.role, *endpoint.also)
    assert described["security"] == [{how: [role]} for role in roles for how in ("token", "certificate")]
    assert ("id" in names) == ("{id}" in endpoint.path)
    assert ("Idempotency-Key" in names) == bool(endpoint.action)
    assert ("requestBody" in described) == (endpoint.method in ("POST", "PUT"))
    assert endpoint.action == "" or endpoint.method in ("POST", "PUT", "DELETE")


def test_nothing_else_is_in_it() -> None:
    described = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert described == {(one.method, one.path) for one in ENDPOINTS}
    names = [one["operationId"] for methods in DOCUMENT["paths"].values() for one in methods.values()]
    assert len(names) == len(set(names))


def refs(value: Any) -> list[str]:
    if isinstance(value, dict):
        here = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return here + [ref for inner in value.values() for ref in refs(inner)]
    if isinstance(value, list):
        return [ref for inner in value for ref in refs(inner)]
    return []


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    for ref in refs(DOCUMENT):
        found = DOCUMENT
        for step in ref.removeprefix("#/").split("/"):
            found = found[step]
    for name, schema in DOCUMENT["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert f"#/components/schemas/{name}" in refs(DOCUMENT), f"{name} is used nowhere"


@pytest.mark.parametrize(
    "word",
    [*(f"`{one.method} {one.path.partition('?')[0]}`" for one in ENDPOINTS), *(f"`{kind}`" for kind in Kind)],
)
def test_the_page_for_people_has_it_too(word: str) -> None:
    assert word in PAGE
