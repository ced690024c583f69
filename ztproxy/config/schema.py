"""The JSON schema of the configuration, for editors: completion and checks while writing.

Promises: made from the same models that read the file. It is a courtesy; `ztproxy check` knows more.
"""

from __future__ import annotations

import json
from typing import Any

from ztproxy.config.document import Document


def json_schema() -> dict[str, Any]:
    schema = Document.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "ztproxy configuration",
    }


def json_schema_text() -> str:
    """As the file in the repository has it, so that the two can be compared."""
    return json.dumps(json_schema(), indent=2) + "\n"
