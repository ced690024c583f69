"""Every kind of value: what it becomes, and what is said of every wrong one."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from tests.config.words import mistakes, route, settings, site
from ztproxy.config import values
from ztproxy.config.mistakes import FromEnv
from ztproxy.config.values import origin_argument
from ztproxy.errors import OperatorError

LEASE = Annotated[float, values.duration_within("500ms", "30s")]


def read(kind: Any, value: object) -> Any:
    return TypeAdapter(kind).validate_python(value)


def refused(kind: Any, value: object) -> str:
    with pytest.raises(ValidationError) as caught:
        read(kind, value)
    (one,) = caught.value.errors()
    context = one["ctx"]
    return f"{context['problem']}, {context['mend']}"


@pytest.mark.parametrize(
    ("kind", "written", "meant"),
    [
        pytest.param(values.Duration, "30s", 30.0, id="seconds"),
        pytest.param(values.Duration, "1h30m", 5400.0, id="two-units"),
        pytest.param(values.Duration, "1.5s", 1.5, id="fraction"),
        pytest.param(values.Duration, "250ms", 0.25, id="milliseconds"),
        pytest.param(LEASE, "500ms", 0.5, id="shortest-allowed"),
        pytest.param(LEASE, "30s", 30.0, id="longest-allowed"),
        pytest.param(values.ListenAddress, f"unix:/{'ü' * 53}", ("", 0, f"/{'ü' * 53}"), id="longest-socket"),
        pytest.param(values.Duration, "2d", 172800.0, id="days"),
        pytest.param(values.Duration, FromEnv("5m", "T"), 300.0, id="duration-from-outside"),
        pytest.param(values.DurationOrOff, "off", None, id="off"),
        pytest.param(values.DurationOrOff, False, None, id="false-is-off"),
        pytest.param(values.Size, "10MiB", 10 * 1024 * 1024, id="mebibytes"),
        pytest.param(values.Size, "1MB", 1_000_000, id="megabytes"),
        pytest.param(values.SizeOrOff, "off", None, id="no-size"),
        pytest.param(values.SizeOrOff, "64KiB", 65536, id="some-size"),
        pytest.param(values.Flag, FromEnv("true", "F"), True, id="flag-from-outside"),
        pytest.param(values.Whole, FromEnv("0", "N"), 0, id="number-from-outside"),
        pytest.param(values.Positive, 7, 7, id="number"),
        pytest.param(values.ListenAddress, "[::1]:80", ("::1", 80, None), id="ipv6"),
        pytest.param(values.ListenAddress, "localhost:80", ("127.0.0.1", 80, None), id="localhost"),
        pytest.param(values.ListenAddress, ":8443", ("0.0.0.0", 8443, None), id="every-address"),
        pytest.param(values.ListenAddress, "unix:/run/z", ("", 0, "/run/z"), id="unix"),
        pytest.param(values.AddressOrOff, "off", None, id="no-address"),
        pytest.param(values.AddressOrOff, "127.0.0.1:0", ("127.0.0.1", 0, None), id="any-port"),
        pytest.param(values.SiteOrigin, "https://APP.test/", ("https", "app.test", 443), id="origin"),
        pytest.param(values.SiteOrigin, "http://[::1]:3000", ("http", "::1", 3000), id="ipv6-origin"),
        pytest.param(values.RouteOrigin, "https://*.app.test", ("https", "*.app.test", 443), id="wildcard"),
        pytest.param(values.Days, "mon-wed", frozenset({0, 1, 2}), id="days"),
        pytest.param(values.Days, "fri-mon", frozenset({4, 5, 6, 0}), id="over-the-weekend"),
        pytest.param(values.Days, "sun", frozenset({6}), id="one-day"),
    ],
)
def test_a_value_is_read(kind: Any, written: object, meant: object) -> None:
    assert read(kind, written) == meant


_ORIGIN = "write it like `https://app.example.com`"


@pytest.mark.parametrize(
    ("kind", "written", "message"),
    [
        pytest.param(
            values.Duration,
            30,
            "`30` is not a duration, write a number and a unit, like `30s`, `5m` or `12h`",
            id="bare-number",
        ),
        pytest.param(
            values.Duration,
            "30 s",
            "`30 s` is not a duration, write a number and a unit, like `30s`, `5m` or `12h`",
            id="space",
        ),
        pytest.param(
            values.Duration,
            "0s",
            "`0s` is no time at all, write a longer one, or `off` where that is allowed",
            id="no-time",
        ),
        pytest.param(
            values.Duration,
            True,
            "`true` is not a duration, write a number and a unit, like `30s`, `5m` or `12h`",
            id="flag-for-duration",
        ),
        pytest.param(
            values.Size,
            "10mb",
            "`10mb` is not a size, write a number and a unit, like `10MiB` or `64KiB`",
            id="lower-case-size",
        ),
        pytest.param(
            values.Size,
            10,
            "`10` is not a size, write a number and a unit, like `10MiB` or `64KiB`",
            id="bare-size",
        ),
        pytest.param(values.Flag, "yes", "`yes` is not a boolean, write `true` or `false`", id="yes"),
        pytest.param(values.Flag, 1, "`1` is not a boolean, write `true` or `false`", id="one"),
        pytest.param(
            values.Flag,
            FromEnv("secret", "F"),
            "`${F}` is not a boolean, write `true` or `false`",
            id="flag-from-outside-stays-hidden",
        ),
        pytest.param(
            values.OnlyTrue,
            False,
            "`false` says nothing here, write `true` or remove the key",
            id="only-true",
        ),
        pytest.param(
            values.Whole, "3", "`3` is not a whole number, write digits, like `3`", id="quoted-number"
        ),
        pytest.param(
            values.Whole, True, "`true` is not a whole number, write digits, like `3`", id="flag-for-number"
        ),
        pytest.param(values.Whole, -1, "`-1` is below zero, write `0` or more", id="negative"),
        pytest.param(values.Positive, 0, "`0` is too small, write `1` or more", id="zero"),
        pytest.param(values.Text, 12, '`12` is not text, put it in quotes: `"12"`', id="number-for-text"),
        pytest.param(values.Text, True, '`true` is not text, put it in quotes: `"true"`', id="flag-for-text"),
        pytest.param(values.Text, ["a"], "a list is not text, write it like `some text`", id="list-for-text"),
        pytest.param(values.Text, " ", "the value is empty, write it like `some text`", id="blank"),
        pytest.param(
            values.Text, "a\nb", "the value goes on over a line's end, write it on one line", id="two-lines"
        ),
        pytest.param(values.Text, "a\x00b", "the value holds a control character, remove it", id="nul"),
        pytest.param(
            values.ListenAddress,
            "8443",
            "`8443` is not an address, write `host:port`, like `0.0.0.0:8443`",
            id="port-alone",
        ),
        pytest.param(
            values.ListenAddress,
            "a.test:80",
            "`a.test` is not an IP address, write one of this machine's addresses, like `0.0.0.0:8443`",
            id="name-to-listen-on",
        ),
        pytest.param(
            values.ListenAddress,
            "1.2.3.4:99999",
            "`1.2.3.4:99999` is not an address, write `host:port`, like `0.0.0.0:8443`",
            id="port-too-large",
        ),
        pytest.param(
            values.ListenAddress,
            "unix:sock",
            "`unix:sock` is not an absolute path, write `unix:/run/ztproxy.sock`",
            id="relative-socket",
        ),
        pytest.param(
            values.ListenAddress,
            "unix:/" + "x" * 107,
            "`unix:/" + "x" * 71 + "...` is too long for a socket, write `unix:/run/ztproxy.sock`",
            id="long-socket",
        ),
        pytest.param(
            LEASE, "499ms", "`499ms` is too short, write a time from `500ms` to `30s`", id="short-duration"
        ),
        pytest.param(LEASE, "1m", "`1m` is too long, write a time from `500ms` to `30s`", id="long-duration"),
        pytest.param(
            values.SiteOrigin,
            "app.test",
            f"`app.test` does not start with `https://`, {_ORIGIN}",
            id="no-scheme",
        ),
        pytest.param(
            values.SiteOrigin,
            "ftp://app.test",
            f"`ftp://app.test` does not start with `https://`, {_ORIGIN}",
            id="other-scheme",
        ),
        pytest.param(
            values.SiteOrigin,
            "https://u:p@app.test",
            f"a login in a URL is not accepted, {_ORIGIN}",
            id="login",
        ),
        pytest.param(
            values.SiteOrigin,
            "https://app.test/x",
            "`https://app.test/x` goes on after the host, leave out path and query",
            id="path",
        ),
        pytest.param(
            values.SiteOrigin,
            "https://app.test?",
            "`https://app.test?` goes on after the host, leave out path and query",
            id="query",
        ),
        pytest.param(
            values.SiteOrigin,
            "https://a..test",
            f"`a..test` is not a host name, {_ORIGIN}, non-ASCII names as `xn--`",
            id="empty-label",
        ),
        pytest.param(
            values.SiteOrigin,
            "https://bücher.test",
            f"`bücher.test` is not a host name, {_ORIGIN}, non-ASCII names as `xn--`",
            id="non-ascii",
        ),
        pytest.param(
            values.SiteOrigin,
            "https://1.2.3",
            f"`1.2.3` is not a host name, {_ORIGIN}, non-ASCII names as `xn--`",
            id="half-an-address",
        ),
        pytest.param(
            values.SiteOrigin,
            "https://app.test:x",
            f"`https://app.test:x` is not a URL, {_ORIGIN}",
            id="port-is-a-word",
        ),
        pytest.param(
            values.SiteOrigin,
            "https://app.test:0",
            "port `0` cannot be reached, write the port users see",
            id="port-zero",
        ),
        pytest.param(
            values.SiteOrigin,
            "https://*.app.test",
            "`*.app.test` is not a wildcard that is understood, write the full name",
            id="wildcard-where-none",
        ),
        pytest.param(
            values.RouteOrigin,
            "https://a.*.test",
            "`a.*.test` is not a wildcard that is understood, write `*.example.com`",
            id="wildcard-inside",
        ),
        pytest.param(
            values.RouteOrigin,
            "https://*.test",
            "`*.test` is not a wildcard that is understood, write `*.example.com`",
            id="wildcard-of-everything",
        ),
        pytest.param(
            values.RouteOrigin,
            "https://*",
            "`*` is not a wildcard that is understood, write `*.example.com`",
            id="star-alone",
        ),
        pytest.param(
            values.Issuer,
            "https://idp.test?x",
            "`https://idp.test?x` has a query or a fragment, write it like `https://idp.example.com`",
            id="issuer-with-query",
        ),
        pytest.param(
            values.CIDR,
            "10.0.0.1/8",
            "`10.0.0.1/8` has bits after its prefix, write `10.0.0.0/8`",
            id="host-bits",
        ),
        pytest.param(
            values.CIDR,
            "0.0.0.0/0",
            "`0.0.0.0/0` is the whole world, name the networks you mean",
            id="whole-world",
        ),
        pytest.param(
            values.CIDR, "office", "`office` is not a network, write it like `10.0.0.0/8`", id="no-network"
        ),
        pytest.param(
            values.Zone,
            "CET+1",
            "`CET+1` is not a time zone, write an IANA name, like `Europe/Berlin` or `UTC`",
            id="no-zone",
        ),
        pytest.param(
            values.Zone,
            "../etc/passwd",
            "`../etc/passwd` is not a time zone, write an IANA name, like `Europe/Berlin` or `UTC`",
            id="zone-as-path",
        ),
        pytest.param(
            values.Clock, "8:30", "`8:30` is not a time of day, write it like `08:30`", id="short-clock"
        ),
        pytest.param(
            values.Clock, "24:00", "`24:00` is not a time of day, write it like `08:30`", id="no-such-hour"
        ),
        pytest.param(
            values.Day,
            "2026-02-30",
            "`2026-02-30` is not a date, write it like `2026-12-31`",
            id="no-such-day",
        ),
        pytest.param(
            values.Day, "1.2.2026", "`1.2.2026` is not a date, write it like `2026-12-31`", id="other-date"
        ),
        pytest.param(
            values.Days,
            "monday",
            "`monday` is not a day, write `mon-fri` or a list like `[sat, sun]`",
            id="long-day",
        ),
        pytest.param(
            values.Days,
            "mon-",
            "`` is not a day, write `mon-fri` or a list like `[sat, sun]`",
            id="half-a-range",
        ),
        pytest.param(
            values.Method, "get", "`get` is not a method, write it in capitals, like `GET`", id="small-method"
        ),
        pytest.param(values.Method, "TRACE", "`TRACE` is never accepted, remove it", id="trace"),
        pytest.param(
            Annotated[list[values.Text], values.ONE_OR_MANY],
            [],
            "the list is empty, write at least one entry or remove the key",
            id="empty-list",
        ),
        pytest.param(
            Annotated[str, values.choice("a", "b")],
            "c",
            "`c` is not known here, write one of `a`, `b`",
            id="choice",
        ),
        pytest.param(
            Annotated[str, values.choice("round_robin", "b")],
            "round-robin",
            "`round-robin` is not known here, did you mean `round_robin`?",
            id="near-choice",
        ),
    ],
)
def test_a_wrong_value_is_told(kind: Any, written: object, message: str) -> None:
    assert refused(kind, written) == message


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        pytest.param("localhost", True, id="localhost"),
        pytest.param("app.localhost", True, id="below-localhost"),
        pytest.param("127.8.9.1", True, id="all-of-127"),
        pytest.param("::1", True, id="ipv6"),
        pytest.param("localhost.example.com", False, id="localhost-as-a-label"),
        pytest.param("notlocalhost", False, id="ends-alike"),
        pytest.param("127.0.0.1.example.com", False, id="begins-alike"),
        pytest.param("10.0.0.1", False, id="private"),
    ],
)
def test_loopback_is_this_machine_alone(host: str, loopback: bool) -> None:
    assert values.is_loopback(host) is loopback


def test_a_value_read_is_plain_text_wherever_it_came_from() -> None:
    assert type(read(values.Text, FromEnv("a", "A"))) is str
    assert read(values.Prose, "a\nb") == "a\nb"


def test_one_entry_is_a_list_of_one() -> None:
    kind = Annotated[list[values.Text], values.ONE_OR_MANY]
    assert read(kind, "a") == read(kind, ["a"]) == ["a"]


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        pytest.param("https://app.test:443", "https://app.test", id="default-port"),
        pytest.param("https://app.test:8443", "https://app.test:8443", id="own-port"),
        pytest.param("http://[::1]:80", "http://[::1]", id="ipv6"),
    ],
)
def test_an_origin_is_spelled_as_browsers_do(text: str, spelled: str) -> None:
    assert str(values.origin_of(text)) == spelled


@pytest.mark.parametrize("address", ["127.0.0.1:80", "[::1]:80", "unix:/run/z"])
def test_an_address_is_spelled_as_it_is_written(address: str) -> None:
    assert str(read(values.ListenAddress, address)) == address


def test_a_wrong_origin_on_the_command_line_names_its_option() -> None:
    with pytest.raises(OperatorError) as caught:
        origin_argument("--app", "x", "http://127.0.0.1:3000")
    assert (
        str(caught.value)
        == "--app: `x` does not start with `https://`, write it like `http://127.0.0.1:3000`"
    )


def test_numbers_and_flags_may_come_from_the_environment() -> None:
    found = settings(site("workers: ${N}", "drain: ${D:-5s}"), {"N": "3"})
    assert (found.workers, found.drain) == (3, 5.0)


def test_a_wrong_value_from_the_environment_is_not_shown() -> None:
    (mistake,) = mistakes(route("timeout: ${T}"), {"T": "hunter2"})
    assert mistake.startswith("7: routes[0].timeout: `${T}` is not a duration")
