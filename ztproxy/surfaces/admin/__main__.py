"""Writes the OpenAPI document: `python -m ztproxy.surfaces.admin > docs/openapi.json`."""

import sys

import msgspec

from ztproxy.surfaces.admin.endpoints import DOCUMENT

sys.stdout.write(msgspec.json.format(msgspec.json.encode(DOCUMENT), indent=2).decode() + "\n")
