"""Questions and changes: what is asked again, and what is said when it is not confirmed."""

from __future__ import annotations

import re
import socket
import threading

import pytest

from tests.cli.admin_world import (
    Heard,
    Installation,
    SlowToConfirm,
    answering,
    losing,
    problem,
    reply,
    request_of,
    served,
)
from tests.surfaces.admin.world import World
from ztproxy.cli.admin_client import Answer, Client, records, text
from ztproxy.cli.admin_http import Door
from ztproxy.demo.running import free_port
from ztproxy.errors import OperatorError

TOKEN = "ztp_0123456789"
WHAT = "the revocation of everybody"
FORM: Answer = {"target": {"kind": "all"}}
DONE = reply('{"confirmed": true}')


def client_at(url: str, token: str = TOKEN, wait: float = 30.0) -> Client:
    if url.startswith("unix:"):
        return Client(Door(url, path=url.removeprefix("unix:"), token=token), wait)
    return Client(Door("there", "127.0.0.1", int(url.rpartition(":")[2]), token=token), wait)


def of(there: Installation, url: str = "", wait: float = 30.0) -> Client:
    return client_at(url or there.url, there.world.secrets["admin"], wait)


def change(client: Client) -> Answer:
    return client.change(WHAT, "POST", "revocations", form=FORM)


def error_of(client: Client) -> str:
    with pytest.raises(OperatorError) as caught:
        change(client)
    assert TOKEN not in str(caught.value)
    return str(caught.value)


def keys(heard: Heard) -> list[bytes]:
    return [found[1] for one in heard.requests if (found := re.search(rb"Idempotency-Key: (\S+)", one))]


def test_questions() -> None:
    with served() as there:
        session = there.sign_in()
        client = of(there)
        assert text(client.get("sessions", session), "user.subject") == "alice"
        assert [one["id"] for one in records(client.get("sessions", text="ALI", limit="3"), "sessions")] == [
            session
        ]
        dry = client.post("revocations", form={**FORM, "dry_run": True})
        assert (dry["matched"], dry["dry_run"]) == (1, True)
        assert there.targets == []


@pytest.mark.parametrize(
    ("steps", "query", "line"),
    [
        pytest.param(("sessions",), {"text": "", "limit": "5"}, "/sessions?limit=5", id="what is empty"),
        pytest.param(("sessions", "../tokens"), {}, "/sessions/..%2Ftokens", id="climbing"),
        pytest.param(("sessions", "a?b#c"), {}, "/sessions/a%3Fb%23c", id="a query in an id"),
        pytest.param(("sessions", "a\r\nX: y"), {}, "/sessions/a%0D%0AX%3A%20y", id="a field in an id"),
        pytest.param(
            ("sessions",), {"text": "a&limit=9\r\n"}, "/sessions?text=a%26limit%3D9%0D%0A", id="in a query"
        ),
        pytest.param(("locks", "\udcff"), {"text": "\udcfe"}, "/locks/%FF?text=%FE", id="not UTF-8"),
    ],
)
def test_what_is_asked(steps: tuple[str, ...], query: dict[str, str], line: str) -> None:
    heard = Heard()
    with answering(DONE, heard=heard) as url:
        client_at(url).get(*steps, **query)
    assert heard.requests[0].split(b"\r\n")[0] == f"GET /api/v1{line} HTTP/1.1".encode()


@pytest.mark.parametrize(
    "log",
    [
        pytest.param(SlowToConfirm(unconfirmed=2), id="not confirmed at once"),
        pytest.param(SlowToConfirm(away=1), id="the store is away for a moment"),
        pytest.param(SlowToConfirm(away=1, unconfirmed=1), id="both"),
    ],
)
def test_a_change_is_asked_again_until_it_is_confirmed(log: SlowToConfirm) -> None:
    with served(World(log=log)) as there:
        assert change(of(there))["confirmed"] is True
    assert len(log.asked) >= 2
    assert len(set(log.asked)) == len(log.entries) == 1


def test_a_lost_answer_makes_one_entry() -> None:
    with served() as there, losing(there, 2) as url:
        assert change(of(there, url))["confirmed"] is True
        assert there.targets == [("all", "")]


def test_a_question_is_asked_once() -> None:
    heard = Heard()
    with answering(problem("unavailable", "503 X", detail="try again"), DONE, heard=heard) as url:
        with pytest.raises(OperatorError, match="try again"):
            client_at(url).get("sessions")
        assert keys(heard) == []
        assert len(heard.requests) == 1


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(problem("applied_unconfirmed", "503 X"), id="unconfirmed"),
        pytest.param(problem("not_applied", "503 X"), id="not applied"),
        pytest.param(problem("idempotency_pending", "409 X"), id="the first is still under way"),
        pytest.param(problem("rate_limited", "429 X"), id="too often"),
        pytest.param(problem("unavailable", "503 X"), id="away"),
        pytest.param(reply("<html>", "502 Bad Gateway", "text/html"), id="something between us and it"),
        pytest.param(b"", id="lost"),
    ],
)
def test_asked_again_under_the_same_key(first: bytes) -> None:
    heard = Heard()
    with answering(first, first, DONE, heard=heard) as url:
        assert change(client_at(url)) == {"confirmed": True}
    assert len(keys(heard)) == 3
    assert len(set(keys(heard))) == 1
    assert len({one.partition(b"\r\n\r\n")[2] for one in heard.requests}) == 1


def test_another_change_has_another_key() -> None:
    heard = Heard()
    with answering(DONE, heard=heard) as url:
        change(client_at(url))
        change(client_at(url))
    assert len(set(keys(heard))) == 2


NOT = "is not in force"
PERHAPS = "it is not known whether"
HEARD = "is in force wherever it was heard, but not confirmed everywhere"


@pytest.mark.parametrize(
    ("answers", "said", "times"),
    [
        pytest.param([problem("not_applied", "503 X")], NOT, None, id="never applied"),
        pytest.param([problem("applied_unconfirmed", "503 X")], HEARD, None, id="never confirmed"),
        pytest.param([b""], PERHAPS, None, id="always lost"),
        pytest.param([problem("unavailable", "503 X")], PERHAPS, None, id="away in the middle"),
        pytest.param(
            [problem("applied_unconfirmed", "503 X"), problem("not_applied", "503 X")],
            HEARD,
            None,
            id="heard once, then away",
        ),
        pytest.param([b"", problem("not_applied", "503 X")], PERHAPS, None, id="lost, then away"),
        pytest.param([b"", problem("forbidden", "403 X")], PERHAPS, 2, id="lost, then forbidden"),
        pytest.param([problem("forbidden", "403 X", detail="needs")], NOT, 1, id="forbidden"),
        pytest.param([problem("invalid", "400 X", field="target.name")], "`target.name`", 1, id="a field"),
        pytest.param([problem("audit_unavailable", "503 X")], NOT, 1, id="no record, no effect"),
        pytest.param([problem("internal", "500 X")], PERHAPS, 1, id="a fault of theirs"),
        pytest.param([problem("unauthenticated", "401 X")], "--token-file", 1, id="who"),
        pytest.param([reply("<html>", "404 Not Found", "text/html")], NOT, 1, id="another server"),
        pytest.param(
            [reply("", "302 Found", "text/html", "Location: http://x/")], "redirect", 1, id="a redirect"
        ),
        pytest.param([reply("<html>", "200 OK", "text/html")], PERHAPS, 1, id="a page"),
        pytest.param(
            [problem("applied_unconfirmed", "503 X"), reply("[]")], HEARD, 2, id="heard, then a list"
        ),
        pytest.param([reply("[]")], PERHAPS, 1, id="a list"),
        pytest.param([reply("{")], PERHAPS, 1, id="no JSON"),
        pytest.param([reply(b"\xff\xfe")], PERHAPS, 1, id="no text"),
        pytest.param([reply('{"confirmed": NaN}')], PERHAPS, 1, id="NaN"),
        pytest.param([reply("[" * 200_000)], PERHAPS, 1, id="deep"),
        pytest.param([reply('{"a":' + "9" * 9000 + "}")], PERHAPS, 1, id="a huge number"),
        pytest.param(
            [reply('{"type": 3}', "503 X", "application/problem+json")], PERHAPS, None, id="no problem"
        ),
        pytest.param(
            [problem("rate_limited", "429 X").replace(b"\r\n\r\n", b"\r\nRetry-After: 90000\r\n\r\n")],
            NOT,
            1,
            id="to wait for a day",
        ),
    ],
)
def test_what_is_said_in_the_end(answers: list[bytes], said: str, times: int | None) -> None:
    heard = Heard()
    with answering(*answers, heard=heard) as url:
        error = error_of(client_at(url, wait=0.5))
    assert said in error
    assert WHAT in error
    assert error.isprintable()
    assert times is None or len(heard.requests) == times


def test_a_redirect_is_not_followed() -> None:
    elsewhere = Heard()
    with answering(DONE, heard=elsewhere) as other:
        for status in ("301 Moved", "302 Found", "307 Again", "308 Moved"):
            with answering(reply("", status, "text/html", f"Location: {other}/api/v1/revocations")) as url:
                assert "redirect" in error_of(client_at(url))
                with pytest.raises(OperatorError, match="redirect"):
                    client_at(url).get("sessions")
    assert elsewhere.requests == []


@pytest.mark.parametrize("body", ["[]", "{", "", "null"])
def test_garbage_is_no_answer_to_a_question(body: str) -> None:
    with answering(reply(body)) as url, pytest.raises(OperatorError, match="not of ztproxy's admin API"):
        client_at(url).get("sessions")


def test_nobody_there_is_said_at_once() -> None:
    error = error_of(client_at(f"http://127.0.0.1:{free_port()}"))
    assert NOT in error
    assert "cannot be reached" in error


def test_gone_after_it_was_heard() -> None:
    """Once it may be in force, that nobody answers any more takes nothing back."""
    server = socket.create_server(("127.0.0.1", 0))

    def once() -> None:
        connection, _ = server.accept()
        server.close()
        with connection:
            request_of(connection)
            connection.sendall(problem("applied_unconfirmed", "503 X"))

    thread = threading.Thread(target=once, daemon=True)
    url = f"http://127.0.0.1:{server.getsockname()[1]}"
    thread.start()
    error = error_of(client_at(url, wait=0.5))
    thread.join()
    assert HEARD in error
    assert "cannot be reached" in error


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        pytest.param(f"bad token {TOKEN}", "bad token (token)", id="the token sent back"),
        pytest.param("\x1b[2J\u202e", r"\u001b[2J\u202e", id="for a terminal"),
        pytest.param("x" * 100_000, "x" * 300, id="without end"),
    ],
)
def test_a_hostile_detail(detail: str, said: str) -> None:
    with answering(problem("forbidden", "403 X", detail=detail)) as url:
        error = error_of(client_at(url))
        assert said in error
        assert error.isprintable()
        assert len(error) < 1000
        with pytest.raises(OperatorError) as caught:
            client_at(url).get("sessions")
        assert TOKEN not in str(caught.value)


def test_records_and_texts() -> None:
    assert records({"a": [{"x": 1}, 3]}, "a") == [{"x": 1}]
    assert text({"a": {"b": 3}}, "a.b") == ""
    lacking: list[Answer] = [{}, {"a": {}}, {"a": None}]
    for answer in lacking:
        with pytest.raises(OperatorError, match="has no `a`"):
            records(answer, "a")
