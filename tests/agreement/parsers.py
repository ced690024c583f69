"""Parsers without a server around them: what each reads in the octets of one connection."""

from __future__ import annotations

from collections.abc import Callable

import h11
import httptools

from tests.agreement.meaning import Meaning


def h11_reads(stream: bytes) -> list[Meaning]:
    meanings: list[Meaning] = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=128 * 1024)
    connection.receive_data(stream)
    request: h11.Request | None = None
    body: list[bytes] = []
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            request, body = event, []
        elif isinstance(event, h11.Data):
            body.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None and not list(event.headers), "we send no trailers"
            fields = [(bytes(name), bytes(value)) for name, value in request.headers]
            method, target = bytes(request.method).decode(), bytes(request.target)
            meanings.append(Meaning.of(method, target, b"".join(body), fields))
            # An app that declines every other protocol, and answers.
            connection.send(h11.Response(status_code=204, headers=[]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()
        else:
            assert event is h11.NEED_DATA, event
            assert not connection.trailing_data[0], "something is left"
            return meanings


class _Callbacks:
    """What llhttp tells through httptools."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.meanings: list[Meaning] = []
        self.under_way = False

    def on_message_begin(self) -> None:
        self._target, self._body = b"", b""
        self._fields: list[tuple[bytes, bytes]] = []
        self.under_way = True

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        self.under_way = False
        method = self.parser.get_method().decode()
        self.meanings.append(Meaning.of(method, self._target, self._body, self._fields))


def llhttp_reads(stream: bytes) -> list[Meaning]:
    meanings: list[Meaning] = []
    while stream:
        callbacks = _Callbacks()
        try:
            callbacks.parser.feed_data(stream)
            stream = b""
        except httptools.HttpParserUpgrade as switched:
            # It waits for another protocol; an app that declines it goes on with HTTP.
            stream = stream[switched.args[0] :]
        assert not callbacks.under_way, "the stream ends within a request"
        meanings += callbacks.meanings
    return meanings


PARSERS: dict[str, Callable[[bytes], list[Meaning]]] = {"h11": h11_reads, "llhttp (httptools)": llhttp_reads}
