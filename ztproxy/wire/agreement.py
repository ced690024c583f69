"""The second opinion: llhttp must find in a request head the same message that our own guard found.

Knows: how to ask llhttp. Promises: a head for which `agrees` is True ends, for llhttp too, exactly where we
say, with a body to follow exactly when we say so. Leaves everything else to `head` and `core.normalise`.

Two parsers that agree are worth more than one that is right: our grammar and llhttp were written by different
people, and smuggling lives where two readings differ. One parser serves all connections of a worker,
because it is only ever given whole heads and is thrown away when a head did not return it to its start.
"""

from __future__ import annotations

import httptools


class SecondOpinion:
    """Asks llhttp about whole heads; cheap, for the usual head returns the parser to its start."""

    __slots__ = ("_complete", "_parser")

    def __init__(self) -> None:
        self._parser: httptools.HttpRequestParser | None = None
        self._complete = False

    def on_message_complete(self) -> None:
        self._complete = True

    def agrees(self, head: bytes, has_body: bool) -> bool:
        """`head` runs through its blank line; `has_body`: whether we say that octets of a body follow."""
        kept = self._parser
        parser = kept or httptools.HttpRequestParser(self)
        self._parser = None
        self._complete = False
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            # An upgrade ends the message for llhttp; `core.normalise` refuses an upgrade with a body.
            return not has_body
        except httptools.HttpParserError:
            # A kept parser may be closed by an earlier `Connection: close`; only a fresh one's word counts.
            return kept is not None and self.agrees(head, has_body)
        if self._complete:
            self._parser = parser
        return self._complete is not has_body
