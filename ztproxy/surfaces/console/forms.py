"""Queries and bodies of forms, as fields.

Knows: `application/x-www-form-urlencoded`. Promises: at most `MAX_FIELDS` fields in `MAX_BODY` bytes, all of
them lines of text; a field that is asked for once and given twice is refused. Leaves what they mean to the
pages.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from urllib.parse import parse_qsl

from aiohttp import web

from ztproxy.surfaces.admin.api import BODY_SECONDS
from ztproxy.surfaces.admin.bodies import MAX_BODY, check_text
from ztproxy.surfaces.admin.problems import Kind, Problem

MAX_FIELDS = 300

_TYPE = re.compile(r"application/x-www-form-urlencoded(?:\s*;\s*charset=\"?utf-8\"?)?\s*", re.IGNORECASE)


class Fields:
    """Fields by name, in order."""

    def __init__(self, encoded: str) -> None:
        """Raises a `Problem` for what is none."""
        try:
            pairs = parse_qsl(encoded, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
        except ValueError:
            raise Problem(Kind.BAD_REQUEST, "The form cannot be read.") from None
        self._pairs = [(check_text(name, ""), check_text(value, name)) for name, value in pairs]

    def one(self, name: str) -> str:
        """The field, "" where it is empty or not given."""
        found = self.all(name)
        if len(found) > 1:
            raise Problem(Kind.INVALID, "it is given twice", name)
        return found[0] if found else ""

    def all(self, name: str) -> list[str]:
        return [value for one, value in self._pairs if one == name]

    def filled(self) -> Iterator[tuple[str, str]]:
        """Those that are not empty: a form sends every field it has."""
        return ((name, value) for name, value in self._pairs if value)


async def read_form(request: web.Request) -> Fields:
    """The fields of a POST. Raises a `Problem`."""
    types = request.headers.getall("Content-Type", [])
    if len(types) != 1 or not _TYPE.fullmatch(types[0]) or "Content-Encoding" in request.headers:
        raise Problem(Kind.MEDIA_TYPE, "Only forms are read here.")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            if (request.content_length or 0) <= MAX_BODY:
                async for part in request.content.iter_any():
                    body += part
                    if len(body) > MAX_BODY:
                        break
    except TimeoutError:
        raise Problem(Kind.TIMEOUT, "The form did not come.") from None
    if (request.content_length or len(body)) > MAX_BODY:
        raise Problem(Kind.TOO_LARGE, "The form is too large.")
    try:
        return Fields(body.decode("ascii"))
    except UnicodeDecodeError:
        raise Problem(Kind.BAD_REQUEST, "The form cannot be read.") from None
