"""One spelling of each path, and no server that could read it another way than policy did."""

import posixpath
import re
from collections.abc import Callable
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.core.words import site
from ztproxy.core.paths import canonical_path, is_own
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Ambiguity, Path
from ztproxy.core.route_table import RouteTable

SLASH, EMPTY, PARAMETER = Ambiguity.ENCODED_SLASH, Ambiguity.EMPTY_SEGMENT, Ambiguity.PATH_PARAMETER

FORWARDED = [
    pytest.param(b"/", "/", ("",), id="root"),
    pytest.param(b"/a/b", "/a/b", ("a", "b"), id="plain"),
    pytest.param(b"/a/", "/a/", ("a", ""), id="trailing slash"),
    pytest.param(b"/%61dmin", "/admin", ("admin",), id="P08 unreserved is decoded"),
    pytest.param(b"/admin%20", "/admin%20", ("admin ",), id="P21 a space is not trimmed"),
    pytest.param(b"/caf%c3%a9", "/caf%C3%A9", ("café",), id="P27 hex in upper case"),
    pytest.param(b"/%ef%bc%8fadmin", "/%EF%BC%8Fadmin", ("\uff0fadmin",), id="P31 no NFKC"),
    pytest.param(b"/ADMIN", "/ADMIN", ("ADMIN",), id="P32 case is kept"),
    pytest.param(b"/a%2Bb+c", "/a%2Bb+c", ("a+b+c",), id="P41 plus stays as it came"),
    pytest.param(
        b'/a|b^c`{d}"<e>[1]', "/a%7Cb%5Ec%60%7Bd%7D%22%3Ce%3E%5B1%5D", ('a|b^c`{d}"<e>[1]',), id="P50 strays"
    ),
    pytest.param(b"/.well-known/x", "/.well-known/x", (".well-known", "x"), id="a dot in front"),
    pytest.param(b"/a../.../..b", "/a../.../..b", ("a..", "...", "..b"), id="dots that are names"),
    pytest.param(
        b"/..%20b/a%20./%20%20/",
        "/..%20b/a%20./%20%20/",
        (".. b", "a .", "  ", ""),
        id="dots and spaces in names",
    ),
    pytest.param(b"/100%25", "/100%25", ("100%",), id="a percent sign"),
    pytest.param(b"/~a-b._!$&'()*+,=:@", "/~a-b._!$&'()*+,=:@", ("~a-b._!$&'()*+,=:@",), id="all of pchar"),
    pytest.param(b"/%7e%41%2D", "/~A-", ("~A-",), id="needless escapes"),
    pytest.param(b"/%C2%85", "/%C2%85", ("\x85",), id="a C1 control stays escaped"),
    pytest.param(b"/" + b"a" * 8000, "/" + "a" * 8000, ("a" * 8000,), id="long"),
]


@pytest.mark.parametrize(("raw", "text", "reading"), FORWARDED)
def test_forwarded(raw: bytes, text: str, reading: tuple[str, ...]) -> None:
    assert canonical_path(raw) == Path(text, (reading,), frozenset())


REFUSED = {
    "P01 dot segment": b"/public/../admin",
    "P02 escaped dots": b"/public/%2e%2e/admin",
    "P04 escaped slash after dots": b"/public/..%2fadmin",
    "P05 dots between escaped slashes": b"/public%2f..%2fadmin",
    "P11 Tomcat traversal": b"/public/..;/admin",
    "P12 a parameter after a dot": b"/public/.;a=b/admin",
    "parameter after escaped dots": b"/public/%2e.;x/admin",
    "escaped semicolon after dots": b"/public/..%3bx/admin",
    "parameter between escaped slashes": b"/public%2f..;x%2fadmin",
    "P15 backslash": b"/public\\..\\admin",
    "escaped backslash": b"/public%5cadmin",
    "P17 escaped NUL": b"/admin%00.js",
    "P18 escaped LF": b"/admin%0a",
    "P20 escaped tab": b"/admin%09",
    "escaped DEL": b"/admin%7f",
    "P22 truncated escape": b"/admin%",
    "truncated by one": b"/admin%4",
    "P24 no hex": b"/admin%zz",
    "P25 overlong dots": b"/%c0%ae%c0%ae/admin",
    "overlong slash in three octets": b"/%e0%80%afadmin",
    "a surrogate": b"/%ed%a0%80",
    "latin-1": b"/caf%e9",
    "P28 8-bit": b"/caf\xc3\xa9",
    "P34 dot at the end": b"/admin/.",
    "P35 dot alone": b"/.",
    "dots alone": b"/..",
    "P44 our callback and up": b"/oauth/callback/../admin",
    "P45 our prefix and up": b"/.ztproxy/%2e%2e/admin",
    "P48 IIS escape": b"/%u0061dmin",
    "P54 escaped dot alone": b"/%2e",
    "dots and spaces, for Windows": b"/public/..%20/admin",
    "a space, then dots": b"/public/%20../admin",
    "dots around a space": b"/public/.%20./admin",
    "dots around a space, trimmed one by one": b"/..%20.",
    "dots and a space escaped twice": b"/public/..%2520/admin",
    "dots before an escaped question mark": b"/public/..%3Fx",
    "a dot before a question mark escaped twice": b"/public/.%253F",
    "too long to be read again": b"/" + b"a" * 4094 + b"%25",
    "more readings than anybody meant": b"/a%2Fb;x//%253Fc%2525%3Fz",
    "hash": b"/admin#x",
    "question mark": b"/admin?x",
    "space": b"/a b",
    "control": b"/a\x01",
    "no leading slash": b"admin",
    "nothing": b"",
    "a network path": b"//evil.test/x",
    "a network path, tolerant route or not": b"///",
    "dots escaped twice": b"/public/%252e%252e/admin",
    "slash escaped twice": b"/public%252fadmin",
    "slash escaped four times": b"/public%2525252fadmin",
    "backslash escaped twice": b"/public%255cadmin",
    "semicolon escaped twice": b"/admin%253bx",
    "NUL escaped twice": b"/admin%2500.js",
    "DEL escaped twice": b"/admin%257f",
    "the hex digits escaped": b"/public/%25%32%65/admin",
    "an escape made of escapes": b"/public/%2525%2532e/admin",
    "overlong escaped twice": b"/%25c0%25ae",
    "overlong in five octets escaped twice": b"/%25f8%2580%2580%2580%25ae",
    "overlong in six octets escaped twice": b"/%25FC%2580%2580%2580%2580%25AE",
    "IIS escape escaped": b"/%25u002e",
    "escapes without end": b"/%" + b"25" * 40 + b"41",
    "both spellings of a semicolon": b"/a;b%3Bc",
    "an escaped slash before dots and a space": b"/a%2F..%20",
    "an escaped slash in front": b"/%2fevil",
    "a parameter alone in front": b"/;a/evil",
    "an escaped parameter alone in front": b"/%3Ba%2Fevil",
    "ours behind an escaped slash": b"/%2f.ztproxy/login",
}


@pytest.mark.parametrize("raw", [pytest.param(raw, id=name) for name, raw in REFUSED.items()])
def test_refused(raw: bytes) -> None:
    assert canonical_path(raw) is Reason.HTTP_PATH


AMBIGUOUS = [
    pytest.param(
        b"/public/%255Fx",
        "/public/%255Fx",
        {("public", "%5Fx"), ("public", "_x")},
        set(),
        id="P07 decoded once, or again",
    ),
    pytest.param(
        b"/%252561dmin",
        "/%252561dmin",
        {("%2561dmin",), ("%61dmin",), ("admin",)},
        set(),
        id="decoded until nothing changes",
    ),
    pytest.param(
        b"/admin%23x/y",
        "/admin%23x/y",
        {("admin#x", "y")},
        set(),
        id="P30 an escaped hash is text",
    ),
    pytest.param(
        b"/public%3fx",
        "/public%3Fx",
        {("public?x",), ("public",)},
        set(),
        id="P40 an escaped question mark is text, or ends it",
    ),
    pytest.param(
        b"/a/%3Fx/%2541",
        "/a/%3Fx/%2541",
        {("a", "?x", "%41"), ("a", "?x", "A"), ("a", "")},
        set(),
        id="both, and nothing is left of a segment",
    ),
    pytest.param(
        b"/%2541%253Fx%3Fy",
        "/%2541%253Fx%3Fy",
        {("%41%3Fx?y",), ("A?x?y",), ("%41%3Fx",), ("A?x",), ("A",)},
        set(),
        id="a query found between two decodings",
    ),
    pytest.param(
        b"/%25c3%2525a9",
        "/%25c3%2525a9",
        {("%c3%25a9",), ("\ufffd%a9",), ("\u00e9",)},
        set(),
        id="octets that make a letter at last",
    ),
    pytest.param(
        b"/g%2Fp%3F",
        "/g%2Fp%3F",
        {("g/p?",), ("g", "p?"), ("g/p",), ("g", "p")},
        {SLASH},
        id="an escaped slash and a question mark",
    ),
    pytest.param(
        b"/group%2fproj",
        "/group%2Fproj",
        {("group/proj",), ("group", "proj")},
        {SLASH},
        id="P52 escaped slash",
    ),
    pytest.param(
        b"/public//admin", "/public//admin", {("public", "", "admin"), ("public", "admin")}, {EMPTY}, id="P10"
    ),
    pytest.param(b"/a//", "/a//", {("a", "", ""), ("a", "")}, {EMPTY}, id="empty at the end"),
    pytest.param(b"/admin;.js", "/admin;.js", {("admin;.js",), ("admin",)}, {PARAMETER}, id="P14 parameter"),
    pytest.param(b"/admin%3b.js", "/admin%3B.js", {("admin;.js",), ("admin",)}, {PARAMETER}, id="escaped"),
    pytest.param(
        b"/a;b/c",
        "/a;b/c",
        {("a;b", "c"), ("a", "c")},
        {PARAMETER},
        id="parameter of a segment in the middle",
    ),
    pytest.param(
        b"/a/;b/c",
        "/a/;b/c",
        {("a", ";b", "c"), ("a", "", "c"), ("a", "c")},
        {PARAMETER, EMPTY},
        id="nothing but a parameter",
    ),
    pytest.param(
        b"/a%2f/b",
        "/a%2F/b",
        {("a/", "b"), ("a", "", "b"), ("a", "b")},
        {SLASH, EMPTY},
        id="an escaped slash that makes an empty segment",
    ),
    pytest.param(
        b"/a%2Fb;x%2Fc",
        "/a%2Fb;x%2Fc",
        {("a/b;x/c",), ("a", "b;x", "c"), ("a/b",), ("a", "b", "c"), ("a", "b")},
        {SLASH, PARAMETER},
        id="both, in every order",
    ),
]


@pytest.mark.parametrize(("raw", "text", "readings", "ambiguities"), AMBIGUOUS)
def test_every_reading_is_listed(
    raw: bytes, text: str, readings: set[tuple[str, ...]], ambiguities: set[Ambiguity]
) -> None:
    path = canonical_path(raw)
    assert isinstance(path, Path)
    assert (path.text, set(path.readings), path.ambiguities) == (text, readings, ambiguities)
    assert len(path.readings) == len(readings)
    # The first reading is the text itself: prefixes are cut by it.
    assert path.readings[0] == tuple(unquote(segment) for segment in text[1:].split("/"))


ROUTES = RouteTable([site("open"), site("admin", segments=("admin",)), site("php", segments=("admin.php",))])
ASTRAY = [
    pytest.param(b"/%2561dmin", id="escaped twice"),
    pytest.param(b"/%252561dmin", id="escaped three times"),
    pytest.param(b"/%25%36%31dmin", id="the digits escaped"),
    pytest.param(b"/admin%3Fx", id="an escaped question mark"),
    pytest.param(b"/admin.php%3Fooo.php", id="CVE-2024-38474"),
    pytest.param(b"/admin%253Fx", id="a question mark escaped twice"),
    pytest.param(b"/%2561dmin%3Fx/y", id="both"),
]


@pytest.mark.parametrize("raw", ASTRAY)
def test_what_an_app_could_read_as_a_closed_path_is_refused(raw: bytes) -> None:
    path = canonical_path(raw)
    assert isinstance(path, Path)
    assert ROUTES.match("app.test", path) is Reason.HTTP_PATH


HONEST = [
    b"/" + b"a" * 4092 + b"%3F",
    b"/public/%255Fx",
    b"/public%3fx",
    b"/wiki/Who%3F",
    b"/100%25",
    b"/files/a%2520b",
    b"/c%23/x",
]


@pytest.mark.parametrize("raw", HONEST)
def test_honest_escapes_are_forwarded(raw: bytes) -> None:
    path = canonical_path(raw)
    assert isinstance(path, Path) and not path.ambiguities
    assert ROUTES.match("app.test", path) is ROUTES.routes[0]


OWN = [
    pytest.param(b"/.ztproxy/", True, id="ours"),
    pytest.param(b"/.ztproxy", True, id="without a slash"),
    pytest.param(b"/.ZTPROXY/logout", True, id="P47 in capitals"),
    pytest.param(b"/%2eztproxy/x", True, id="escaped"),
    pytest.param(b"/.well-known/ztproxy/jwks.json", True, id="well-known"),
    pytest.param(b"/.Well-Known/ZTProxy", True, id="well-known in capitals"),
    pytest.param(b"/.ztproxy;x/login", True, id="with a parameter"),
    pytest.param(b"/.ztproxy%2flogin", True, id="with an escaped slash"),
    pytest.param(b"/.well-known%2fztproxy", True, id="well-known with an escaped slash"),
    pytest.param(b"/.ztproxy%3Fx", True, id="with an escaped question mark"),
    pytest.param(b"/.%257Atproxy/x", True, id="escaped twice"),
    pytest.param(b"/.ztproxyx", False, id="another name"),
    pytest.param(b"/x/.ztproxy/", False, id="not in front"),
    pytest.param(b"/.well-known", False, id="well-known alone"),
    pytest.param(b"/.well-known/acme-challenge/x", False, id="well-known of others"),
    pytest.param(b"/ztproxy", False, id="no dot"),
    pytest.param(b"/a;b", False, id="ambiguous and not ours"),
    pytest.param(b"/", False, id="root"),
]


@pytest.mark.parametrize(("raw", "own"), OWN)
def test_is_own(raw: bytes, own: bool) -> None:
    path = canonical_path(raw)
    assert isinstance(path, Path)
    assert is_own(path) is own


# ---- properties ------------------------------------------------------------------------------------------

SOUND = [
    b"/",
    b"/a",
    b"/b",
    b"%2F",
    b"%2f",
    b";",
    b"%3b",
    b"a",
    b"Admin",
    b"%61",
    b"%c3%a9",
    b"%20",
    b"[",
    b"~",
]
SOUND += [b"%3F", b"%23", b"+", b"%2B", b"=", b"%7e", b".", b"%25", b"%255F", b"%40", b"1", b"e"]
HOSTILE = [
    b"//",
    b"..",
    b"%2e",
    b"%5c",
    b"\\",
    b"%C0%AE",
    b"%00",
    b"%",
    b"2e",
    b"u",
    b"\xc3",
    b"\x01",
    b"#",
    b"%25",
]


def paths(*pieces: bytes) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(pieces), max_size=8).map(lambda parts: b"/" + b"".join(parts))


ANY, MOSTLY_SOUND = paths(*SOUND, *HOSTILE), paths(*SOUND)


@settings(max_examples=200, deadline=None)
@given(ANY | MOSTLY_SOUND)
def test_the_canonical_form_is_a_fixed_point(raw: bytes) -> None:
    path = canonical_path(raw)
    if isinstance(path, Path):
        assert canonical_path(path.text.encode("ascii")) == path
        assert re.fullmatch(r"/[!$-;=@-Z_a-z~]*", path.text)
        for reading in path.readings:
            assert reading and not {".", ".."} & {segment.strip(" ") for segment in reading}


def segments(text: str) -> tuple[str, ...]:
    return tuple(text[1:].split("/"))


def merged(found: tuple[str, ...]) -> tuple[str, ...]:
    return (*[one for one in found[:-1] if one], found[-1])


def resolved(text: str) -> tuple[str, ...]:
    """Dot segments removed, as most servers do; one that had any would differ from the plain reading."""
    end = "/" if text.endswith("/") and text != "/" else ""
    return segments("/" + posixpath.normpath(text).lstrip("/") + end)


def cut(text: str) -> str:
    return re.sub(r";[^/]*", "", text)


def without_query(text: str) -> str:
    return text.partition("?")[0]


def decoded_to_the_end(text: str) -> str:
    octets = text.encode()
    while (further := unquote_to_bytes(octets)) != octets:
        octets = further
    return octets.decode(errors="replace")


def agrees(found: Path, seen: tuple[str, ...]) -> bool:
    """Whether policy judged what an app sees: of a path with empty segments, it and the one without."""
    if found.ambiguities:
        return merged(seen) in {merged(reading) for reading in found.readings}
    one = not re.search("%(?:25|3F)", found.text)
    return found.readings == (seen,) if one else seen in found.readings


# How servers come from a path on the wire to the segments they route by.
UPSTREAMS: dict[str, Callable[[str], tuple[str, ...]]] = {
    "split, then decode (Go ServeMux, httprouter)": lambda t: tuple(unquote(s) for s in segments(t)),
    "decode, then split (WSGI, CGI)": lambda t: segments(unquote(t)),
    "decode, merge (nginx)": lambda t: merged(segments(unquote(t))),
    "decode, resolve (Apache)": lambda t: resolved(unquote(t)),
    "cut parameters, decode, resolve (Tomcat)": lambda t: resolved(unquote(cut(t))),
    "decode, cut parameters (old Jetty)": lambda t: segments(cut(unquote(t))),
    "split, cut, decode (Spring)": lambda t: tuple(unquote(s.partition(";")[0]) for s in segments(t)),
    "a URL parser first (Node, Python urlsplit)": lambda t: segments(unquote(urlsplit(t).path)),
    "backslash is a slash (IIS)": lambda t: segments(unquote(t).replace("\\", "/")),
    "NUL ends a string (C)": lambda t: segments(unquote(t).partition("\0")[0]),
    "decodes twice": lambda t: segments(unquote(unquote(t))),
    "decodes as long as it can": lambda t: segments(decoded_to_the_end(t)),
    "`?` after decoding (Apache, PHP-FPM)": lambda t: segments(without_query(unquote(t))),
    "`?` between two decodings": lambda t: segments(unquote(without_query(unquote(t)))),
    "`?` after two decodings": lambda t: segments(without_query(unquote(unquote(t)))),
    "octets (PHP, Ruby)": lambda t: segments(unquote_to_bytes(t).decode("utf-8", "surrogateescape")),
}


@settings(max_examples=250, deadline=None)
@given(ANY | MOSTLY_SOUND)
@example(b"/a%2Fb;x%2Fc")
@example(b"/a;/;b//c")
@example(b"/a/%2541%253Fx%3F;/b")
def test_policy_sees_what_the_app_sees(raw: bytes) -> None:
    path = canonical_path(raw)
    if isinstance(path, Reason):
        return
    for name, upstream in UPSTREAMS.items():
        assert agrees(path, upstream(path.text)), name


@settings(max_examples=250, deadline=None)
@given(ANY | MOSTLY_SOUND)
@example(b"/%25%32%65")
@example(b"/%2525%2532e")
def test_an_app_that_decodes_twice_finds_no_new_structure(raw: bytes) -> None:
    path = canonical_path(raw)
    if isinstance(path, Reason):
        return
    once = unquote(path.text)
    again = once
    for _ in range(3):
        again = unquote(again)
        for mark in "/\\;":
            assert again.count(mark) == once.count(mark)
        assert not re.search(r"[\x00-\x1f\x7f]", again)
        assert not {".", ".."} & set(cut(again).split("/"))
