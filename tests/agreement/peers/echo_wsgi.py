"""A WSGI app that answers with what its server understood: names are folded, as every such app sees them.

The answer to HEAD has no body, so there it stands in a field.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from typing import Any


def application(
    environ: dict[str, Any], start: Callable[[str, list[tuple[str, str]]], Any]
) -> Iterable[bytes]:
    fields = [(key[5:].replace("_", "-"), value) for key, value in environ.items() if key.startswith("HTTP_")]
    if "CONTENT_TYPE" in environ:
        fields.append(("Content-Type", environ["CONTENT_TYPE"]))
    said = {
        "method": environ["REQUEST_METHOD"],
        "target": environ.get("RAW_URI", environ.get("REQUEST_URI")),
        "path": environ["SCRIPT_NAME"] + environ["PATH_INFO"],
        "variables": fields,
        "body": base64.b64encode(environ["wsgi.input"].read()).decode(),
    }
    words = json.dumps(said).encode()
    headers = [("Content-Length", str(len(words)))]
    if environ["REQUEST_METHOD"] != "HEAD":
        start("200 OK", headers)
        return [words]
    start("200 OK", [*headers, ("X-Heard", base64.b64encode(words).decode())])
    return []
