"""What is written down of real exchanges, and what never is (S22)."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
from redis.asyncio import Redis

from tests.core.words import ask
from tests.wire.recording import Line, answers
from tests.worlds.front import PAGE, until
from tests.worlds.running import Running, running
from ztproxy.adapters.metrics import Metrics, render
from ztproxy.core.normalise import Normaliser, Reading
from ztproxy.core.reasons import Reason
from ztproxy.gateway.judgement import Outcome
from ztproxy.recorder import Recorder
from ztproxy.wire.connections import Connections
from ztproxy.wire.downstream import Downstream
from ztproxy.wire.exchange import Exchange, Handler
from ztproxy.wire.limits import Limits

APP = "https://app.test"
XHR = {"Accept": "application/json"}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

OPEN = """
  - from: https://app.test
    to: http://127.0.0.1:%d
    allow_public_unauthenticated_access: true"""


def lines(text: str, log: str) -> list[dict[str, Any]]:
    return [record for record in map(json.loads, text.splitlines()) if record["log"] == log]


def metrics(it: Running) -> str:
    it.recorder.publish()
    return render(it.recorder.metrics)[0].decode()


async def test_one_request_in_both_logs_and_in_the_metrics(
    tmp_path: Path, valkey_url: str, state_client: Redis
) -> None:
    async with running(tmp_path, valkey_url) as it:
        alice = it.browser(acr="mfa")
        await alice.open(f"{APP}/.ztproxy/session")
        headers = {**XHR, "User-Agent": 'a "browser"\t<b>', "traceparent": TRACE}
        await alice.ask(f"{APP}/reports?q=1", headers, method="POST", body=b"12345")
        text = it.logs()
        access, decision = lines(text, "access")[-1], lines(text, "decision")[-1]
        session = access.pop("session")
        assert re.fullmatch("[0-9a-f]{32}", session)
        assert re.fullmatch("[0-9a-f]{32}", access["request_id"])
        assert access.pop("duration_ms") >= 0 and re.fullmatch(r"\d{4}-.*\.\d{3}Z", access.pop("time"))
        common = {
            "request_id": access["request_id"],
            "client": "127.0.0.1",
            "method": "POST",
            "host": "app.test",
            "path": "/reports",
            "route": "app.test",
            "decision": "forward",
            "reasons": ["any_authenticated"],
            "user": "alice",
            "trace_id": TRACE[3:35],
        }
        assert access == {
            **common,
            "log": "access",
            "status": 200,
            "bytes_in": 5,
            "bytes_out": 2,
            "upstream": f"127.0.0.1:{it.app.port}",
            "user_agent": 'a "browser"\t<b>',
        }
        decision.pop("time")
        assert decision == {
            **common,
            "log": "decision",
            "session": session,
            "email": "alice@corp.test",
            "acr": "mfa",
        }
        told = metrics(it)
        assert 'decision="forward",reason="any_authenticated",route="app.test",status="2xx"} 1.0' in told
        assert 'ztproxy_logins_total{outcome="ok",provider="default"} 1.0' in told


async def test_s22_nothing_secret_is_written_down(
    tmp_path: Path, valkey_url: str, state_client: Redis
) -> None:
    async with running(tmp_path, valkey_url) as it:
        alice = it.browser()
        await alice.open(f"{APP}/x?ticket=query-secret")
        authorization = next(step for step in alice.trail if "/authorize" in step)
        callback = next(step for step in alice.trail if "/callback/" in step)
        secrets = {
            values[0] for values in parse_qs(urlsplit(authorization).query).values() if len(values[0]) > 40
        }
        secrets |= {values[0] for name, values in parse_qs(urlsplit(callback).query).items() if name != "iss"}
        secrets |= set(alice.cookies("app.test").values())
        secrets |= {cookie.partition(".")[2] for cookie in alice.cookies("app.test").values()}
        form = it.op.asked[-1][0]
        secrets |= {form["code"], form["code_verifier"]}
        headers = {
            **XHR,
            "Authorization": "Bearer header-secret",
            "X-Api-Key": "key-secret",
            "Referer": "https://app.test/?referer-secret",
            "Proxy-Authorization": "Basic proxy-secret",
            "traceparent": "00-trace-secret",
        }
        alice.cookies("app.test")["theirs"] = "cookie-secret"
        await alice.ask(f"{APP}/x?q=query-secret", headers, method="POST", body=b"body-secret")
        await alice.ask(f"{APP}/.ztproxy/ticket?code=query-secret")
        await alice.ask(f"{APP}/.ztproxy/callback/default?code=query-secret&state=query-secret")
        page = {**PAGE, "Sec-Fetch-Site": "same-origin"}
        await alice.ask(f"{APP}/.ztproxy/sign_out", page, method="POST", body=b"body-secret")
        assertion = re.search(rb"X-Ztproxy-Assertion: (\S+)", it.app.received)
        assert assertion is not None
        secrets.add(assertion[1].decode())
        secrets |= {
            f"{name}-secret"
            for name in ["header", "key", "referer", "proxy", "trace", "cookie", "query", "body"]
        }
        assert len(secrets) > 12 and all(len(secret) > 8 for secret in secrets)
        text = it.logs() + metrics(it)
        assert lines(it.logs(), "access")
        assert [secret for secret in secrets if secret in text] == []


@pytest.mark.parametrize(
    ("target", "headers", "label"),
    [
        ("/x", XHR, 'decision="login",reason="login_required",route="app.test",status="4xx"'),
        ("/.ztproxy/nothing", XHR, 'decision="refuse",reason="no_such_route",route="",status="4xx"'),
        ("/.ztproxy/signed_out", XHR, 'decision="portal",reason="",route="",status="2xx"'),
    ],
)
async def test_every_answer_is_counted(
    tmp_path: Path, valkey_url: str, target: str, headers: dict[str, str], label: str
) -> None:
    async with running(tmp_path, valkey_url) as it:
        await it.browser().ask(APP + target, headers)
        await asyncio.sleep(0)
        assert f"ztproxy_requests_total{{{label}}} 1.0" in metrics(it)


async def test_what_a_client_invents_is_no_label(tmp_path: Path, valkey_url: str) -> None:
    async with running(tmp_path, valkey_url) as it:
        for number in range(5):
            await it.raw(f"GET /invented{number} HTTP/1.1\r\nHost: invented{number}.test\r\n\r\n".encode())
            await it.raw(b"INVENTED / HTTP/1.1\r\nHost: app.test\r\n\r\n")
            await it.browser().ask(f"{APP}/.ztproxy/start/invented{number}", XHR)
            await it.browser().ask(f"{APP}/.ztproxy/callback/invented{number}", XHR)
        told = metrics(it)
        assert "invented" not in told.lower()
        assert 'ztproxy_http_refused_total{reason="no_such_host"} 5.0' in told
        assert 'ztproxy_http_refused_total{reason="http_method"} 5.0' in told
        assert all("\n" not in record["path"] for record in lines(it.logs(), "access"))


async def resets(line: Line) -> None:
    await line.request()
    line.reset()


async def test_an_app_that_fails(tmp_path: Path, valkey_url: str, state_client: Redis) -> None:
    async with running(tmp_path, valkey_url, plays=(resets,)) as it:
        alice = it.browser()
        await alice.open(f"{APP}/.ztproxy/session")
        assert (await alice.ask(f"{APP}/x", XHR, method="POST", body=b"")).status == 502
        record = lines(it.logs(), "access")[-1]
        assert record["status"] == 502 and record["reasons"][0] == "any_authenticated"
        assert record["reasons"][1].startswith("upstream_")
        assert 'ztproxy_upstream_failures_total{reason="upstream_' in metrics(it)


async def test_a_client_that_leaves_before_the_answer(tmp_path: Path, valkey_url: str) -> None:
    async def waits(line: Line) -> None:
        await line.request()
        await line.ended.wait()

    async with running(tmp_path, valkey_url, plays=(waits,)) as it:
        it.worker.reload(it.settings(routes=OPEN % it.app.port))
        client = await it.client()
        await client.send(b"GET /x HTTP/1.1\r\nHost: app.test\r\n\r\n")
        await until(lambda: it.app.received)
        client.close()
        await until(lambda: "requests_total{" in metrics(it))
        record = lines(it.logs(), "access")[-1]
        assert record["status"] == 0 and record["decision"] == "forward"


def exchange(tag: Outcome | None, failure: Reason | None = None) -> Exchange:
    """One that has ended; nothing of the connection is looked at any more."""
    loop = asyncio.new_event_loop()
    reader, registry = Normaliser(Reading(False, "__Host-ztproxy")), Connections(loop, Limits())
    loop.close()
    connection = Downstream(cast("Handler", None), reader, registry.limits, False, registry)
    ended = Exchange(connection, ask("/x"), "r1", 0.0)
    ended.tag, ended.failure = tag, failure
    return ended


@pytest.mark.parametrize(
    ("tag", "failure", "decision", "reasons"),
    [
        pytest.param(None, None, "undecided", [], id="left before a decision"),
        pytest.param(None, Reason.INTERNAL, "undecided", ["internal"], id="a mistake of ours"),
        pytest.param(
            Outcome("r", "refuse", (Reason.NO_SUCH_HOST,), "", None, ""),
            Reason.NO_SUCH_HOST,
            "refuse",
            ["no_such_host"],
            id="said once",
        ),
    ],
)
async def test_ends_without_a_decision(
    tmp_path: Path, tag: Outcome | None, failure: Reason | None, decision: str, reasons: list[str]
) -> None:
    recorder = Recorder(Metrics(), tmp_path / "access.log", None)
    recorder.finished(exchange(tag, failure))
    recorder.close()
    (record,) = lines((tmp_path / "access.log").read_text(), "access")
    assert (record["decision"], record.get("reasons", [])) == (decision, reasons)


async def test_only_what_is_asked_for_is_written(tmp_path: Path) -> None:
    for access, decisions in ((None, None), (None, tmp_path / "d.log")):
        recorder = Recorder(Metrics(), access, decisions)
        recorder.finished(exchange(None))
        recorder.refused(Reason.HTTP_SYNTAX)
        recorder.login("op", "ok")
        recorder.certificates([("cert.pem", 5.0)])
        recorder.reopen()
        recorder.close()
        told = render(recorder.metrics)[0].decode()
        assert 'decision="undecided"' in told and 'certificate_expiry_seconds{name="cert.pem"} 5.0' in told
    assert len((tmp_path / "d.log").read_text().splitlines()) == 1


async def test_batches_are_written_until_it_ends(tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    recorder = Recorder(Metrics(), file, None)
    writing = asyncio.create_task(recorder.keep_writing())
    recorder.finished(exchange(None))
    await until(lambda: file.read_text())
    await until(lambda: b"requests_total{" in render(recorder.metrics)[0])
    file.rename(tmp_path / "old.log")
    recorder.reopen()
    await until(lambda: file.exists())
    writing.cancel()
    recorder.close()


async def test_answers_are_not_recorded_by_their_content(tmp_path: Path, valkey_url: str) -> None:
    told = b"HTTP/1.1 200 OK\r\nX-Token: answer-secret\r\nContent-Length: 13\r\n\r\nanswer-secret"
    async with running(tmp_path, valkey_url, plays=(answers(told),)) as it:
        it.worker.reload(it.settings(routes=OPEN % it.app.port))
        assert (await it.browser().ask(f"{APP}/x", XHR)).status == 200
        assert "answer-secret" not in it.logs()
