"""Forms as a browser would send them back: where to, and what they carry unseen.

Knows: the names in HTML. Leaves what a person types or ticks to the caller.
"""

from __future__ import annotations

from html.parser import HTMLParser


class Form(HTMLParser):
    """The first form of a page; `action` is None where there is none."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.hidden: dict[str, str] = {}
        self._over = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if self._over:
            return
        if tag == "form":
            self.action = given.get("action", "")
        elif tag == "input" and self.action is not None and given.get("type") == "hidden":
            self.hidden[given["name"]] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        self._over = self._over or tag == "form"
