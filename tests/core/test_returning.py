"""The open-redirect rule: which return values stay on this site, and that all others become `/`."""

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ztproxy.core.returning import safe_return

ACCEPTED = {
    "R01": "/app/x",
    "R21": "/;@evil.test",
    "root": "/",
    "query": "/app?x=1&y=%2F..%5c//evil.test/../",
    "query that looks like a URL": "/?next=https://evil.test/",
    "question marks": "/a??b",
    "escapes": "/caf%C3%A9/a%20b?q=%E2%82%AC",
    "strays browsers send": '/a|b^c`{d}"<e>[1]',
    "a quote in the query": '/x?q="y"',
    "an escaped slash": "/group%2fproject",
    "escaped slashes in capitals": "/-/group%2Fsub%2Fproject?x=%2F",
    "longest": "/" + "a" * 2047,
}


@pytest.mark.parametrize("value", [pytest.param(value, id=name) for name, value in ACCEPTED.items()])
def test_accepted(value: str) -> None:
    assert safe_return(value) == value


REFUSED = {
    "R02": "/app?x=1#f",
    "R04": "///evil.test",
    "R05": "////evil.test",
    "R07": "\\\\evil.test",
    "R08": "\\/evil.test",
    "R10": "/\n/evil.test",
    "R11": "/\r/evil.test",
    "R12": "\t//evil.test",
    "R14": "/%09/evil.test",
    "R15": "/%5cevil.test",
    "R17": "//%2fevil.test",
    "R18": "/.//evil.test",
    "R20": "/./\\evil.test",
    "R22": "//evil.test@app.test",
    "R24": "https://evil.test",
    "R25": "https:evil.test",
    "R27": "https:///evil.test",
    "R28": "http:\\\\evil.test",
    "R30": "https://app.test.evil.test/",
    "R31": "https://evil.test/app.test",
    "R32": "https://app.test@evil.test/",
    "R34": "https://app.test%2eevil.test/",
    "R35": "https://app.test\\@evil.test/",
    "R37": "https://evil.test#@app.test/",
    "R38": "https://evil.test?@app.test/",
    "R40": "javascript:alert(1)",
    "R41": "JaVaScRiPt:alert(1)",
    "R42": "java\tscript:alert(1)",
    "R44": "data:text/html,<script>alert(1)</script>",
    "R45": "vbscript:msgbox(1)",
    "R47": "blob:https://app.test/uuid",
    "R48": "view-source:https://evil.test",
    "R50": "//evil\u3002test",
    "R51": "//\u24d4vil.test",
    "R52": "https://\u24d0pp.test/",
    "R54": "/\u00a0/evil.test",
    "R55": "\u0000//evil.test",
    "R57": "//0x7f.1/",
    "R58": "//2130706433/",
    "R60": "https://app.test.",
    "R61": "https://APP.TEST/ok",
    "R62": "https://app.test:8443/",
    "R64": "/app\r\nLocation: https://evil.test",
    "R65": "/app%0d%0aLocation:%20https://evil.test",
    "R67": "#//evil.test",
    "R68": "",
    "R70": "./x",
    "R71": "../x",
    "R72": "//",
    "R74": "https://",
    "R75": "/.ztproxy/logout?next=//evil.test",
    "R77": "/\\\\evil.test",
    "R78": "//app.test\\.evil.test",
    "R80": "http:evil.test",
    "R81": "https:evil.test/app",
    "R82": "//google\u3002com",
    "R84": "/x//evil.test/..//",
    "dot segments": "/a/../b",
    "escaped dot segments": "/a/%2e%2e/b",
    "an escaped slash in front": "/%2fevil.test",
    "an escaped slash at the end of a segment": "/a%2f/evil.test",
    "two escaped slashes": "/a%2f%2fevil.test",
    "an escaped slash and dots": "/a%2f..%2fb",
    "an escaped slash twice": "/a%252fb",
    "an escaped backslash behind an escaped slash": "/%2f%5cevil.test",
    "ours behind an escaped slash": "/.ztproxy%2flogout",
    "empty segments": "/a//b",
    "ours in capitals": "/.ZTPROXY/logout",
    "ours escaped": "/%2eztproxy/logout",
    "ours with a parameter": "/.ztproxy;x/logout",
    "our well-known": "/.well-known/ztproxy/jwks.json",
    "a broken escape": "/a%",
    "a broken escape in the query": "/a?x=%zz",
    "latin-1": "/caf%E9",
    "latin-1 in the query": "/a?x=%E9",
    "a space": "/a b",
    "a line end": "/a\n",
    "too long": "/" + "a" * 2048,
    "a letter that is not ASCII": "/caf\u00e9",
    "a lone surrogate": "/\ud800",
}


@pytest.mark.parametrize("value", [pytest.param(value, id=name) for name, value in REFUSED.items()])
def test_refused(value: str) -> None:
    assert safe_return(value) == "/"


PIECES = [
    "/",
    "\\",
    ".",
    "..",
    "a",
    "evil.test",
    "@",
    ":",
    "https:",
    "?",
    "#",
    "%2f",
    "%5c",
    "%2e",
    ";",
    "\t",
    "\n",
    "%",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.characters(), max_size=8).map("".join))
@example("/\t/evil.test")
def test_what_is_accepted_stays_on_the_site(value: str) -> None:
    answer = safe_return(value)
    assert answer in (value, "/")
    joined = urlsplit(urljoin("https://app.test/.ztproxy/callback", answer))
    assert (joined.scheme, joined.netloc) == ("https", "app.test")
    # What a browser does before it parses (WHATWG URL 4.4): tabs and line ends go, `\` becomes `/`.
    assert not answer.translate({9: None, 10: None, 13: None, 92: "/"}).startswith("//")
    assert not joined.path.lower().startswith("/.ztproxy")
