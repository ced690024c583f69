"""What a canonical request says about itself."""

from typing import Any

import pytest

from tests.core.words import ask
from ztproxy.core.request import Block, FieldLines, Fields, Framing, is_navigation, is_preflight


@pytest.mark.parametrize(
    ("scheme", "port", "site"),
    [
        pytest.param("https", 443, "https://app.test", id="https"),
        pytest.param("http", 80, "http://app.test", id="http"),
        pytest.param("https", 8443, "https://app.test:8443", id="another port"),
        pytest.param("http", 443, "http://app.test:443", id="the other scheme's port"),
    ],
)
def test_site(scheme: str, port: int, site: str) -> None:
    assert ask(scheme=scheme, port=port).site == site


def test_field_is_the_first_of_its_name() -> None:
    request = ask(fields=((b"X-A", b"1"), (b"x-b", b"2"), (b"X-B", b"3")))
    assert request.field(b"x-b") == b"2"
    assert request.field(b"x-c") is None


@pytest.mark.parametrize(
    ("kept", "lines", "agent", "trace"),
    [
        pytest.param((), b"", None, None, id="none"),
        pytest.param(
            ((b"User-Agent", b"caf\xe9"), (b"user-agent", b"b")),
            b"User-Agent: caf\xe9\r\nuser-agent: b\r\n",
            "caf\xe9",
            None,
            id="the first user agent",
        ),
        pytest.param(
            ((b"TraceParent", b"00-" + b"ab" * 16 + b"-" + b"12" * 8 + b"-01"),),
            b"TraceParent: 00-" + b"ab" * 16 + b"-" + b"12" * 8 + b"-01\r\n",
            None,
            "ab" * 16,
            id="trace",
        ),
        pytest.param(((b"traceparent", b"x"),), b"traceparent: x\r\n", None, None, id="no trace"),
    ],
)
def test_what_is_worked_out_of_fields(kept: Any, lines: bytes, agent: str | None, trace: str | None) -> None:
    read = Fields(kept)
    assert read == kept and (read.lines, read.user_agent, read.trace_id) == (lines, agent, trace)
    assert FieldLines(kept) == kept and FieldLines(kept).lines == lines


def fields(**named: bytes) -> dict[str, Any]:
    return {"fields": tuple((name.replace("_", "-").encode(), value) for name, value in named.items())}


HTML = b"text/html,application/xhtml+xml;q=0.9"

NAVIGATIONS = [
    pytest.param(fields(sec_fetch_mode=b"navigate", sec_fetch_dest=b"document"), True, id="a page"),
    pytest.param(fields(sec_fetch_mode=b"navigate", sec_fetch_dest=b"iframe"), True, id="a frame"),
    pytest.param(fields(sec_fetch_mode=b"navigate"), True, id="no destination"),
    pytest.param(fields(sec_fetch_mode=b"navigate", sec_fetch_dest=b"object"), False, id="an object"),
    pytest.param(fields(sec_fetch_mode=b"cors", accept=HTML), False, id="a script that wants HTML"),
    pytest.param(fields(accept=HTML), True, id="an old browser"),
    pytest.param(fields(accept=b"application/json"), False, id="an API client"),
    pytest.param(fields(accept=b"*/*"), False, id="curl"),
    pytest.param({}, False, id="nothing said"),
    pytest.param(fields(accept=HTML, x_requested_with=b"XMLHttpRequest"), False, id="an old script"),
    pytest.param({"method": "HEAD"} | fields(accept=HTML), True, id="HEAD"),
    pytest.param({"method": "POST"} | fields(sec_fetch_mode=b"navigate"), False, id="a form"),
    pytest.param({"upgrade": "websocket"} | fields(accept=HTML), False, id="an upgrade"),
]


@pytest.mark.parametrize(("more", "expected"), NAVIGATIONS)
def test_is_navigation(more: dict[str, Any], expected: bool) -> None:
    assert is_navigation(ask(**more)) is expected


REAL: dict[str, Any] = {"method": "OPTIONS", "origin": "https://a.test"} | fields(
    access_control_request_method=b"PUT"
)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        pytest.param({}, True, id="real"),
        pytest.param({"method": "GET"}, False, id="another method"),
        pytest.param({"origin": None}, False, id="no origin"),
        pytest.param({"fields": ()}, False, id="no requested method"),
        pytest.param({"framing": Framing.LENGTH}, False, id="a body"),
        pytest.param({"upgrade": "websocket"}, False, id="an upgrade"),
    ],
)
def test_is_preflight(more: dict[str, Any], expected: bool) -> None:
    assert is_preflight(ask(**(REAL | more))) is expected


def test_a_block_is_its_fields_and_the_octets_they_came_in() -> None:
    block = Block([(b"A", b"1"), (b"B", b"2")], b"A: 1\r\nB:  2\r\n")
    assert block == [(b"A", b"1"), (b"B", b"2")]
    assert block.octets == b"A: 1\r\nB:  2\r\n"
