"""A network that misbehaves on command: a TCP proxy between a client and a server, both on this machine.

Faults are those of a real network as TCP shows them to its ends. Nothing is lost for good while a connection
lives: a partition holds octets back, as retransmission does, and lets them through when it heals.

    delay             seconds each piece waits, in both directions
    to_server, to_client
                      whether octets flow that way; False for both is a black hole, connections still accepted
    cut_after         so many octets more to the client, then the connection is reset
    reset()           RST on every connection now
    refuse            new connections are reset at once
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PIECE = 65_536
LOOK_EVERY = 0.005


class FaultProxy:
    """One proxied address. Set the attributes from any thread; they are looked at for every piece."""

    def __init__(self, server: tuple[str, int] | str) -> None:
        self._server = server
        self.delay = 0.0
        self.to_server = self.to_client = True
        self.cut_after: int | None = None
        self.refuse = False
        self.accepted = 0
        self._loop = asyncio.new_event_loop()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._pairs: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def partition(self) -> None:
        self.to_server = self.to_client = False

    def heal(self) -> None:
        self.to_server = self.to_client = True
        self.delay, self.cut_after, self.refuse = 0.0, None, False

    def reset(self) -> None:
        """RST on every connection there is."""
        self._loop.call_soon_threadsafe(self._reset_all)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._listening.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listening))
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._reset_all()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def _reset_all(self) -> None:
        for writer in tuple(self._pairs):
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refuse:
            _reset(writer)
            return
        opening = (
            asyncio.open_unix_connection(self._server)
            if isinstance(self._server, str)
            else asyncio.open_connection(*self._server)
        )
        try:
            from_server, to_server = await opening
        except OSError:
            _reset(writer)
            return
        both = {writer, to_server}
        self._pairs |= both
        try:
            async with asyncio.TaskGroup() as ways:
                self._relay(ways, reader, to_server, "to_server")
                self._relay(ways, from_server, writer, "to_client")
        except* OSError:
            pass
        finally:
            self._pairs -= both
            for one in both:
                _reset(one)

    def _relay(
        self, ways: asyncio.TaskGroup, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str
    ) -> None:
        """Two loops, so that a delay delays each piece and does not slow the stream down."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def read() -> None:
            data = b"-"
            while data:
                data = await reader.read(PIECE)
                pieces.put_nowait((self._loop.time() + self.delay, data))

        async def deliver() -> None:
            while True:
                due, data = await pieces.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                while not getattr(self, way):  # noqa: ASYNC110  a poll: faults are set from another thread
                    await asyncio.sleep(LOOK_EVERY)
                if not data:
                    if writer.can_write_eof():
                        writer.write_eof()
                    return
                if way == "to_client" and self.cut_after is not None:
                    if len(data) >= self.cut_after:
                        writer.write(data[: self.cut_after])
                        raise ConnectionResetError
                    self.cut_after -= len(data)
                writer.write(data)
                await writer.drain()

        ways.create_task(read())
        ways.create_task(deliver())


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def fault_proxy(server: tuple[str, int] | str) -> Iterator[FaultProxy]:
    """`server`: where to connect to, an address or the path of a unix socket."""
    proxy = FaultProxy(server)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
