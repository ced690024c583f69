"""The API's OpenAPI 3.1 document, from the table of endpoints and the shapes of their forms and answers.

Knows: OpenAPI. Promises: what is in the table is in the document; the committed copy is `docs/openapi.json`,
and a test compares it with what is served (`python -m ztproxy.surfaces.admin > docs/openapi.json`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import msgspec

from ztproxy import __version__
from ztproxy.surfaces.admin.asked import AnyEndpoint
from ztproxy.surfaces.admin.bodies import Nothing, Shape
from ztproxy.surfaces.admin.problems import TYPE, Kind

_WITH_BODY = ("POST", "PUT")
_REFS = "#/components/schemas/{name}"
_KEY = {"$ref": "#/components/parameters/IdempotencyKey"}
_PROBLEM = {"$ref": "#/components/responses/Problem"}

_INTRODUCTION = (
    "Sessions, locks, devices and revocation of ztproxy.\n\n"
    "Every request carries `Authorization: Bearer <token>`, or comes over TLS with a client certificate "
    "that has a role. A viewer reads, an operator also revokes, locks and looks after devices, an admin does "
    "everything; a feed reports the posture of devices and nothing else. Every write is in the audit log "
    "before it is answered. A write with an `Idempotency-Key` may be sent again: it is done once. An answer "
    "of 200 to a revocation means that it holds everywhere; `Ztproxy-Revocation` says whether it also "
    "survives the loss of any one server of the store (`strict`), or not under every fault (`bounded`)."
)

_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Names this request for a day: the same key with the same request gets the same answer.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
}

_HEADERS = {
    "Ztproxy-Revocation": {
        "description": "What the store can promise.",
        "schema": {"enum": ["strict", "bounded"]},
    },
    "X-Request-Id": {"description": "The request's id, in the logs too.", "schema": {"type": "string"}},
}

_PROBLEM_SCHEMA = {
    "title": "Problem",
    "description": "RFC 9457. `field` names what is wrong with the request; `instance` is the request's id.",
    "type": "object",
    "properties": {
        "type": {"enum": [f"{TYPE}{kind}" for kind in Kind]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "field": {"type": "string"},
        "id": {"description": "Of what is not confirmed: its id.", "type": "string"},
        "number": {"description": "And its place in the log.", "type": "integer"},
        "mistakes": {
            "description": "Of many rows: what is wrong with which, each place counted from 1.",
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "place": {"type": "string"},
                    "field": {"type": "string"},
                    "text": {"type": "string"},
                },
                "required": ["place", "field", "text"],
            },
        },
        "more": {"description": "Mistakes that are not listed.", "type": "integer"},
        "topology": {"enum": ["strict", "bounded"]},
    },
    "required": ["type", "title", "status", "instance"],
}


class Document(Shape, frozen=True):
    """An OpenAPI document."""

    openapi: str
    info: dict[str, Any]
    servers: list[dict[str, Any]]
    paths: dict[str, Any]
    components: dict[str, Any]


def document(endpoints: Iterable[AnyEndpoint], prefix: str) -> Document:
    """The document of these endpoints, which are below `prefix`."""
    endpoints = tuple(endpoints)
    shapes = dict.fromkeys([one.form for one in endpoints] + [one.answer for one in endpoints])
    _, schemas = msgspec.json.schema_components(list(shapes), ref_template=_REFS)
    paths: dict[str, Any] = {}
    for one in endpoints:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, schemas)
    in_query = {one.form.__name__ for one in endpoints} - {
        one.form.__name__ for one in endpoints if one.method in _WITH_BODY
    }
    return Document(
        openapi="3.1.0",
        info={"title": "ztproxy admin API", "version": __version__, "description": _INTRODUCTION},
        servers=[{"url": prefix}],
        paths=paths,
        components={
            "schemas": {
                "Problem": _PROBLEM_SCHEMA,
                **{name: schema for name, schema in schemas.items() if name not in in_query},
            },
            "parameters": {"IdempotencyKey": _IDEMPOTENCY},
            "headers": _HEADERS,
            "responses": {
                "Problem": {
                    "description": "Refused or failed.",
                    "headers": _header_refs(),
                    "content": {"application/problem+json": {"schema": _ref("Problem")}},
                }
            },
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "certificate": {"type": "mutualTLS"},
            },
        },
    )


def _operation(endpoint: AnyEndpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    form = schemas[endpoint.form.__name__]
    parameters: list[dict[str, Any]] = []
    if "{id}" in endpoint.path:
        parameters.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string"}})
    if endpoint.method not in _WITH_BODY:
        parameters += [
            {
                "name": name,
                "in": "query",
                "required": name in form.get("required", ()),
                "schema": schema,
            }
            for name, schema in form["properties"].items()
        ]
    if endpoint.action:
        parameters.append(_KEY)
    in_query = endpoint.method not in _WITH_BODY and endpoint.form is not Nothing
    roles = (endpoint.role, *endpoint.also)
    needs = f"Needs the role {' or '.join(roles)}."
    words = [endpoint.description, inspect.getdoc(endpoint.form) if in_query else "", needs]
    operation: dict[str, Any] = {
        "operationId": endpoint.handle.__name__,
        "summary": endpoint.summary,
        "description": "\n\n".join(word for word in words if word),
        "security": [{scheme: [role]} for role in roles for scheme in ("token", "certificate")],
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "Done." if endpoint.action else "The answer.",
                "headers": _header_refs(),
                "content": {"application/json": {"schema": _ref(endpoint.answer.__name__)}},
            },
            "default": _PROBLEM,
        },
    }
    if endpoint.method in _WITH_BODY:
        schema = _ref(endpoint.form.__name__)
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return operation


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REFS.format(name=name)}


def _header_refs() -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
