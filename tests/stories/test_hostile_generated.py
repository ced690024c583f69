"""Hostile requests by generators, over real sockets: for each family a rule written down once more in the
test, and every member of the family judged by it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

import jwt
import pytest

from tests.evidence import Tried
from tests.stories import field_rows, framing_rows, host_rows, path_rows
from tests.stories.hostile import Result, Row, judged
from tests.stories.house import House, house

OURS = (
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"x-request-id",
    b"x-ztproxy-assertion",
)
IN_TLS, IN_BYTES = 100, 20
"""Of each family so many, drawn by lot, over TLS too, and so many a byte at a time over either."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("generated"), valkey_url) as it:
        yield it


@pytest.fixture(scope="module")
def alice(home: House) -> bytes:
    return home.sign_in("alice").encode()


def passed(home: House, rows: Iterable[Row], in_tls: int = IN_TLS) -> list[tuple[Result, bytes]]:
    """What reached the app, after everything came to what its row says."""
    words, results = judged(home, rows, in_tls=in_tls, in_bytes=IN_BYTES)
    assert not words, "\n".join(words[:10])
    return [(one, received) for one in results for received in one.received]


def test_framing_fields_with_a_byte_too_many(home: House, alice: bytes) -> None:
    assert passed(home, framing_rows.mutations(alice)), "whitespace around a value is legal"


def test_tricks_of_published_desynchronisations(home: House, alice: bytes) -> None:
    assert passed(home, framing_rows.tricks(alice)), "some of them are legal"


def test_names_of_a_site(home: House, alice: bytes) -> None:
    assert passed(home, host_rows.rows(alice), in_tls=0), "the site has its name in some spellings"


def test_paths_to_depth_three(home: House) -> None:
    targets = {received.split(b" ")[1] for _, received in passed(home, path_rows.rows())}
    assert len(targets) > 100, "some of them are honest"
    for target in targets:
        astray = [one for one in path_rows.readings(target) if one.startswith(b"/admin")]
        assert astray == [], target


def test_names_that_fold_onto_ours(home: House, alice: bytes) -> None:
    for _, received in passed(home, field_rows.names(alice)):
        lines = received.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
        told = Counter(field_rows.folded(line.partition(b":")[0]) for line in lines)
        assert {name: told[name] for name in OURS} == dict.fromkeys(OURS, 1)
        assert b"forged" not in received


def test_our_cookie_among_hostile_neighbours(home: House, alice: bytes) -> None:
    """Whoever comes with it is alice or nobody, never somebody else."""
    bob = home.sign_in("bob").encode()
    reached = passed(home, field_rows.cookies(alice, bob))
    assert len(reached) > 100
    for _, received in reached:
        found = re.search(rb"X-Ztproxy-Assertion: (\S+)\r\n", received)
        assert found is not None
        claims = jwt.decode(found[1], options={"verify_signature": False})
        assert claims["email"] == "alice@example.com"


def _tried(part: str, what: str, rows: Iterator[Row], outcome: str, in_tls: int = IN_TLS) -> Tried:
    many = sum(1 for _ in rows)
    return Tried(part, what, many, many + in_tls + IN_BYTES * (2 if in_tls else 1), outcome)


WHO = b"__Host-ztproxy=v1.a.b"
TRIED = (
    _tried(
        "Requests",
        "both framing fields with each of 18 bytes at each of 10 positions, alone and beside the other",
        framing_rows.mutations(WHO),
        "refused, but for whitespace around a value, which becomes the one canonical framing",
    ),
    _tried(
        "Requests",
        "the tricks of published desynchronisations, by name, in HTTP/1.1 and 1.0",
        framing_rows.tricks(WHO),
        "refused, or forwarded in the one canonical framing",
    ),
    _tried(
        "Requests",
        "names of a site: in Host, with a byte too many, ports and addresses, and in absolute targets",
        host_rows.rows(WHO),
        "refused, told that there is no such site, or the one site they name",
        in_tls=0,
    ),
    _tried(
        "Paths",
        "separators, dots and controls, escaped to depth three, overlong and as `%u`, around an open and a "
        "closed part of a site",
        path_rows.rows(),
        "refused, or forwarded in a form that no further decoding leads to the closed part",
    ),
    _tried(
        "Identity headers",
        "every managed name with every separator, in every case",
        field_rows.names(WHO),
        "refused or dropped; each name we set reaches the app once, with our value",
    ),
    _tried(
        "Cookies and sessions",
        "a session cookie among hostile neighbours, look-alikes and doubles",
        field_rows.cookies(WHO, WHO + b"c"),
        "whose session it is, or nobody; two sessions are refused; other cookies stay byte for byte",
    ),
)
