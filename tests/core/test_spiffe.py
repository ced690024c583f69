"""Which texts are SPIFFE IDs of workloads, and which of them a pattern names."""

from __future__ import annotations

import pytest

from ztproxy.core.spiffe import SpiffeID, matches, parse, valid_pattern


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param("spiffe://corp.test/ci", SpiffeID("corp.test", ("ci",)), id="one segment"),
        pytest.param(
            "spiffe://corp.test/ns/A/sa/b.c_d-9",
            SpiffeID("corp.test", ("ns", "A", "sa", "b.c_d-9")),
            id="more",
        ),
        pytest.param(
            "spiffe://a_b-c.9/x", SpiffeID("a_b-c.9", ("x",)), id="every kind of letter in a domain"
        ),
        pytest.param("spiffe://corp.test/...", SpiffeID("corp.test", ("...",)), id="three dots are a name"),
        pytest.param(
            "spiffe://corp.test/.a/..b", SpiffeID("corp.test", (".a", "..b")), id="a name after dots"
        ),
        pytest.param("spiffe://c/" + "x" * 2037, SpiffeID("c", ("x" * 2037,)), id="2048 octets"),
        pytest.param("spiffe://" + "d" * 255 + "/x", SpiffeID("d" * 255, ("x",)), id="longest domain"),
    ],
)
def test_an_id_of_a_workload(text, found) -> None:
    assert parse(text) == found
    assert parse(text) == found  # and remembered the same


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("spiffe://corp.test", id="X14 the trust domain itself"),
        pytest.param("spiffe://corp.test/", id="X14 the root path"),
        pytest.param("spiffe://evil.test/..%2f", id="X15 escape"),
        pytest.param("SPIFFE://CORP.TEST/x", id="X15 capitals"),
        pytest.param("Spiffe://corp.test/x", id="X15 capital scheme"),
        pytest.param("spiffe://Corp.test/x", id="X15 capital domain"),
        pytest.param("spiffe://a@corp.test/x", id="X15 userinfo"),
        pytest.param("spiffe://corp.test:443/x", id="X15 port"),
        pytest.param("spiffe://corp.test/x?y", id="X15 query"),
        pytest.param("spiffe://corp.test/x#y", id="X15 fragment"),
        pytest.param("spiffe://corp.test//x", id="X15 empty segment"),
        pytest.param("spiffe://corp.test/x//y", id="X15 empty segment inside"),
        pytest.param("spiffe://corp.test/x/", id="trailing slash"),
        pytest.param("spiffe://corp.test/.", id="X15 dot segment"),
        pytest.param("spiffe://corp.test/..", id="X15 dot-dot segment"),
        pytest.param("spiffe://corp.test/x/../y", id="X15 dot-dot segment inside"),
        pytest.param("spiffe://corp.test/x/./y", id="X15 dot segment inside"),
        pytest.param("spiffe://corp.test/dév", id="X15 not ASCII"),
        pytest.param("spiffe://corp.test/١", id="digits of another script"),
        pytest.param("spiffe://corp.test/dev\x00.evil", id="X12 a NUL"),
        pytest.param("spiffe://corp.test/x\n", id="a line end"),
        pytest.param("spiffe:///x", id="no domain"),
        pytest.param("spiffe:/corp.test/x", id="one slash"),
        pytest.param("https://corp.test/x", id="another scheme"),
        pytest.param("spiffe://corp.test/*", id="a pattern is no ID"),
        pytest.param("spiffe://c/" + "x" * 2038, id="2049 octets"),
        pytest.param("spiffe://" + "d" * 256 + "/x", id="a domain too long"),
        pytest.param("", id="nothing"),
    ],
)
def test_no_id_of_a_workload(text) -> None:
    assert parse(text) is None
    assert not matches(text, text)
    assert not matches("spiffe://corp.test/*", text)


@pytest.mark.parametrize(
    ("pattern", "valid"),
    [
        pytest.param("spiffe://corp.test/ci", True, id="one ID"),
        pytest.param("spiffe://corp.test/ci/*", True, id="all beneath"),
        pytest.param("spiffe://corp.test/*", True, id="all of a domain"),
        pytest.param("spiffe://corp.test/*/x", False, id="a star inside"),
        pytest.param("spiffe://corp.test/ci*", False, id="half a segment"),
        pytest.param("spiffe://corp.test//*", False, id="an empty segment"),
        pytest.param("spiffe://corp.test/../*", False, id="dot segments"),
        pytest.param("spiffe://*", False, id="every domain"),
        pytest.param("spiffe:///*", False, id="no domain"),
        pytest.param("spiffe://corp.test", False, id="a domain alone"),
        pytest.param("*", False, id="everything"),
        pytest.param("/*", False, id="a path alone"),
    ],
)
def test_what_a_pattern_can_be(pattern, valid) -> None:
    assert valid_pattern(pattern) is valid


@pytest.mark.parametrize(
    ("pattern", "text", "named"),
    [
        pytest.param("spiffe://corp.test/ci", "spiffe://corp.test/ci", True, id="itself"),
        pytest.param(
            "spiffe://corp.test/ci", "spiffe://corp.test/ci/x", False, id="an ID has nothing beneath"
        ),
        pytest.param("spiffe://corp.test/ci", "spiffe://corp.test/CI", False, id="case matters"),
        pytest.param("spiffe://corp.test/ci/*", "spiffe://corp.test/ci/x", True, id="beneath"),
        pytest.param("spiffe://corp.test/ci/*", "spiffe://corp.test/ci/x/y", True, id="far beneath"),
        pytest.param("spiffe://corp.test/ci/*", "spiffe://corp.test/ci", False, id="strictly beneath"),
        pytest.param("spiffe://corp.test/ci/*", "spiffe://corp.test/cia/x", False, id="whole segments"),
        pytest.param("spiffe://corp.test/ci/*", "spiffe://corp.test/ci/../x", False, id="no way round"),
        pytest.param("spiffe://corp.test/*", "spiffe://corp.test/x", True, id="a domain"),
        pytest.param("spiffe://corp.test/*", "spiffe://corp.test.evil/x", False, id="a longer domain"),
        pytest.param("spiffe://corp.test/*", "spiffe://a.corp.test/x", False, id="a domain beneath"),
        pytest.param("spiffe://*", "spiffe://corp.test/x", False, id="a pattern that is none"),
        pytest.param("*", "spiffe://corp.test/x", False, id="a star alone"),
    ],
)
def test_what_a_pattern_names(pattern, text, named) -> None:
    assert matches(pattern, text) is named
