"""The listener on loopback: one answer, the right one, and no later than agreed."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from queue import Queue

import pytest

from ztproxy.cli.loopback import Loopback

STATE = "s" * 43


class Waiting:
    def __init__(self, loopback: Loopback) -> None:
        self.port = loopback.port
        self.brought: Queue[str | None] = Queue()
        threading.Thread(target=lambda: self.brought.put(loopback.wait(20)), daemon=True).start()

    def get(self, query: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{query}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture
def it() -> Iterator[Waiting]:
    with Loopback(STATE) as loopback:
        yield Waiting(loopback)


def test_the_answer(it: Waiting, capfd: pytest.CaptureFixture[str]) -> None:
    status, page = it.get(f"?ticket=t1&state={STATE}")
    assert status == 200 and "t1" not in page and STATE not in page
    assert it.brought.get(timeout=10) == "t1"
    assert capfd.readouterr() == ("", "")  # what is logged would hold the ticket


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("", id="nothing"),
        pytest.param("favicon.ico", id="what browsers ask for"),
        pytest.param("?ticket=t", id="no state"),
        pytest.param(f"?state={STATE}", id="no ticket"),
        pytest.param(f"?ticket=t&state={'x' * 43}", id="another state"),
        pytest.param("?ticket=t&state=%ff", id="no text"),
        pytest.param("?" + "&".join(["a=1"] * 20), id="too many parameters"),
        pytest.param("//[", id="no address"),
        pytest.param("?ticket=t&state=%ED%A0%80", id="half a character"),
        pytest.param(f"?ticket=a&ticket=b&state={STATE}", id="two tickets"),
        pytest.param(f"?ticket=a&state={STATE}&state={STATE}", id="two states"),
    ],
)
def test_what_is_not_it_is_passed_over(it: Waiting, query: str) -> None:
    assert it.get(query) == (404, "")
    assert it.get(f"?ticket=good&state={STATE}")[0] == 200
    assert it.brought.get(timeout=10) == "good"


def test_somebody_who_speaks_no_http_keeps_nobody_out(it: Waiting, capfd: pytest.CaptureFixture[str]) -> None:
    silent = socket.create_connection(("127.0.0.1", it.port), 10)
    for data in (b"\x16\x03\x01\r\n\r\n", b""):
        with socket.create_connection(("127.0.0.1", it.port), 10) as client:
            client.sendall(data)
    assert it.get(f"?ticket=good&state={STATE}")[0] == 200
    assert it.brought.get(timeout=10) == "good" and capfd.readouterr() == ("", "")
    silent.close()


def test_it_listens_on_loopback_alone_and_ends() -> None:
    with Loopback(STATE) as loopback:
        assert loopback._server.server_address == ("127.0.0.1", loopback.port)
        assert loopback.wait(0) is None
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", loopback.port), 5)
