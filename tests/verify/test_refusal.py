"""What a refused client is told, and what it is not."""

import json
import logging

import pytest

from ztproxy.verify import AssertionRejected, Rejection
from ztproxy.verify.refusal import only_one, refuse


@pytest.mark.parametrize(
    "reason", [reason for reason in Rejection if reason is not Rejection.KEYS_UNAVAILABLE]
)
def test_the_client_learns_that_it_is_refused_and_the_log_why(
    reason: Rejection, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "ztproxy.verify"):
        status, headers, body = refuse(AssertionRejected(reason))
    assert status == 401
    assert dict(headers) == {
        "Content-Type": "application/problem+json",
        "Cache-Control": "no-store",
        "WWW-Authenticate": "Ztproxy-Assertion",
        "Content-Length": str(len(body)),
    }
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": "the request carries no valid X-Ztproxy-Assertion",
    }
    assert caplog.messages == [f"assertion rejected: {reason.value}"]


def test_missing_keys_are_a_503() -> None:
    status, headers, body = refuse(AssertionRejected(Rejection.KEYS_UNAVAILABLE))
    assert status == 503
    assert dict(headers)["Retry-After"] == "5"
    assert "WWW-Authenticate" not in dict(headers)
    assert json.loads(body)["status"] == 503


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        pytest.param([], Rejection.MISSING, id="none"),
        pytest.param(["a", "a"], Rejection.DUPLICATED, id="the same twice"),
        pytest.param(["a", "b", "c"], Rejection.DUPLICATED, id="three"),
    ],
)
def test_the_header_counts_only_once(values: list[str], reason: Rejection) -> None:
    with pytest.raises(AssertionRejected) as caught:
        only_one(values)
    assert caught.value.reason is reason
    assert only_one(["a"]) == "a"
