"""Values made fit to be looked at."""

from __future__ import annotations

import pytest

from ztproxy.core.locks import Target, TargetKind
from ztproxy.surfaces.console.views import moment, plain, revoke_link, said, sessions_of, short_agent

CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML) Chrome/142.0 Safari/537.36"
SAFARI = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1 Version/18.0 Safari/604.1"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("Zoë Ω 愛", "Zoë Ω 愛", id="what can be seen"),
        pytest.param("a\N{RIGHT-TO-LEFT OVERRIDE}b", "a\\u202eb", id="turned round"),
        pytest.param("a\N{ZERO WIDTH JOINER}b", "a\\u200db", id="nothing to see"),
        pytest.param("a\N{NO-BREAK SPACE}b", "a\\u00a0b", id="not the space it looks like"),
        pytest.param("a\U000e0041b", "a\\U000e0041b", id="a tag"),
        pytest.param("a\nb\0", "a\\u000ab\\u0000", id="control characters"),
        pytest.param("\ud800", "\\ud800", id="half a character"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_plain(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize(
    ("agent", "shown"),
    [
        pytest.param(CHROME, "Chrome on Windows", id="chrome"),
        pytest.param(CHROME + " Edg/142.0", "Edge on Windows", id="edge calls itself chrome"),
        pytest.param(SAFARI, "Safari on iPhone", id="an iPhone calls itself a Mac"),
        pytest.param("curl/8.7.1", "curl", id="no system"),
        pytest.param("made up " * 10, "made up " * 5 + "…", id="unknown"),
        pytest.param("x\N{RIGHT-TO-LEFT OVERRIDE}", "x\\u202e", id="turned round"),
        pytest.param("", "", id="none"),
    ],
)
def test_short_agent(agent: str, shown: str) -> None:
    assert short_agent(agent) == shown


@pytest.mark.parametrize(
    ("before", "ago"),
    [
        (0, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (7199, "1 hour ago"),
        (3 * 86_400, "3 days ago"),
        (-7200, "in 2 hours"),
        (-1, "just now"),
    ],
)
def test_ago(before: float, ago: str) -> None:
    at = moment(1_750_000_000.0 - before, 1_750_000_000.0)
    assert at.ago == ago


def test_a_moment_says_its_zone() -> None:
    at = moment(1_750_000_000.5, 0)
    assert at[:2] == ("2025-06-15T15:06:40+00:00", "2025-06-15 15:06:40 UTC")


@pytest.mark.parametrize(
    ("number", "exact", "text"),
    [
        (1, True, "1 session"),
        (0, True, "0 sessions"),
        (7, False, "about 7 sessions"),
        (None, False, "an unknown number of sessions"),
    ],
)
def test_sessions_of(number: int | None, exact: bool, text: str) -> None:
    assert sessions_of(number, exact) == text


@pytest.mark.parametrize(
    ("target", "text"),
    [
        pytest.param(Target(TargetKind.ALL), "everybody", id="all"),
        pytest.param(Target(TargetKind.GROUP, "ops"), "group ops", id="a group"),
        pytest.param(
            Target(TargetKind.USER, "alice", "https://a"), "person alice at https://a", id="a person"
        ),
    ],
)
def test_said(target: Target, text: str) -> None:
    assert said(target) == text


def test_a_link_takes_a_name_to_the_letter() -> None:
    target = Target(TargetKind.USER, " a&b=c\ud800", "https://a/?x")
    assert revoke_link(target) == "/console/revoke?kind=user&name=+a%26b%3Dc%3F&issuer=https%3A%2F%2Fa%2F%3Fx"
