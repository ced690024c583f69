"""The style sheet and htmx, under names that change with what is in them.

Knows: the files. Promises: a name stands for these very bytes for ever, so browsers may keep them. The style
is the operator's own `style.css`, if there is one, with the console's rules after it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from ztproxy.surfaces.console.entrance import PREFIX
from ztproxy.surfaces.pages import Pages

_FILES = Path(__file__).with_name("static")
_HTMX = "htmx-2.0.11.min.js"


class Asset(NamedTuple):
    """A file as it is served."""

    body: bytes
    content_type: str


class Assets:
    """`by_name` are the files; `style` and `htmx` are where the pages find them."""

    def __init__(self, pages: Pages) -> None:
        self.by_name: dict[str, Asset] = {}
        style = pages.render("console_style.css").body
        self.style = self._add("console", "css", Asset(style, "text/css; charset=utf-8"))
        script = (_FILES / _HTMX).read_bytes()
        self.htmx = self._add("htmx", "js", Asset(script, "text/javascript; charset=utf-8"))

    def _add(self, stem: str, suffix: str, asset: Asset) -> str:
        name = f"{stem}-{hashlib.sha256(asset.body).hexdigest()[:16]}.{suffix}"
        self.by_name[name] = asset
        return f"{PREFIX}/static/{name}"
