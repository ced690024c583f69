"""Fields that an app could take for one of ours, and cookies around ours, by generators; and their rules.

The rule for names: what folds onto a name that we or a trusted proxy alone may write (lower case, every
character but letters and digits a hyphen) is dropped in its own spelling and refused in every other.
The rule for cookies: pairs are parted by `;` alone; ours is the pair of exactly our name, at most one; what
some server could take for ours is taken out; all other bytes stay as they came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tests.stories.hostile import Forwarded, Row, get
from tests.stories.house import COOKIE
from ztproxy.core.reasons import Reason

MANAGED = (
    *("X-Ztproxy-Assertion", "X-Ztproxy-User", "X-Ztproxy-Groups"),
    *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Uri"),
    *("X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username"),
    *("X-Forwarded-Access-Token", "X-Forwarded-Client-Cert", "X-Forwarded-Prefix", "X-Request-Id"),
    *("Remote-User", "Remote-Email", "Remote-Groups", "Remote-Name", "X-Remote-User", "X-Real-Ip"),
    *(
        "X-Auth-Request-Email",
        "X-Pomerium-Claim-Email",
        "X-Goog-Iap-Jwt-Assertion",
        "Cf-Access-Jwt-Assertion",
    ),
    *("X-Authenticated-User", "X-Ms-Client-Principal", "X-Remote-Group"),
    *("X-Webauth-User", "Client-Cert", "Client-Cert-Chain", "X-Client-Cert", "X-Ssl-Client-Verify"),
    *("Ssl-Client-S-Dn", "X-Original-Url", "X-Original-Uri", "X-Rewrite-Url"),
    *("X-Http-Method-Override", "X-Method-Override", "Forwarded", "Via"),
    *("Tailscale-User-Login", "X-Consumer-Username", "X-Userinfo", "X-Endpoint-Api-Userinfo", "Iv-User"),
    *("Sm-User", "Shib-Session-Id", "X-Arr-ClientCert", "X-Ms-Token-Aad-Id-Token", "Kubeflow-Userid"),
    *("X-Appengine-User-Email", "Ms-Aspnetcore-ClientCert", "X-Auth-User", "X-Middleware-Subrequest"),
    *("X-Forwarded", "Forwarded-For", "X-Host", "X-Http-Host-Override", "X-Original-Forwarded-For"),
    *("X-Envoy-Original-Path", "X-Azure-ClientIp", "Front-End-Https", "X-Url-Scheme", "X-Remote-Addr"),
)
REFUSED = ("Impersonate-User", "Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-Scopes")
"""Without these a request may do more than the one that was sent: not even their own spelling is dropped."""
SEPARATORS = "!#$%&'*+-.^_`|~"
FRAMING = ("Content-Length", "Transfer-Encoding", "Proxy-Connection", "Keep-Alive", "Proxy-Authorization")


def folded(name: bytes) -> bytes:
    return re.sub(rb"[^a-z0-9]", b"-", name.lower())


def names(who: bytes) -> Iterator[Row]:
    """Every separator in place of the first and of all hyphens of each name, and other cases."""
    cookie = b"Cookie: " + who
    for name in MANAGED + FRAMING:
        spellings = {name.lower(), name.upper(), name.swapcase()} if name not in FRAMING[:2] else set()
        for separator in SEPARATORS.replace("-", ""):
            spellings.add(name.replace("-", separator))
            spellings.add(name.replace("-", separator, 1))
        spellings.discard(name)
        for spelling in sorted(spellings):
            own = spelling.lower() == name.lower()
            raw = get(cookie, b"X-Before: 1", f"{spelling}: forged".encode(), b"X-Behind: 2")
            left = Forwarded(b"/u", (b"X-Before: 1", b"X-Behind: 2"))
            yield Row(f"{spelling} for {name}", raw, left if own else Reason.HTTP_FIELD_NAME)
    for name in REFUSED:
        for spelling in (name, name.lower(), name.upper(), name.replace("-", "."), name.replace("-", "_", 1)):
            raw = get(cookie, f"{spelling}: forged".encode())
            yield Row(f"{spelling} is refused", raw, Reason.HTTP_FIELD_NAME)
    # A name that is nobody's stays as it is, odd or not.
    for separator in SEPARATORS.replace("_", ""):
        line = f"X{separator}Anything: 1".encode()
        yield Row(f"{line!r} is an app's", get(cookie, line), Forwarded(b"/u", (line,)))
    twice = get(cookie, b"X-Ztproxy-User:", b"x-ztproxy-user: admin", b"X-ZTPROXY-USER: root", b"A: b")
    yield Row("three of ours in three cases", twice, Forwarded(b"/u", (b"A: b",)))


def cookies_left(values: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Our cookie's values, and what of each Cookie field the app may see."""
    ours: list[bytes] = []
    left: list[bytes] = []
    for value in values:
        kept = []
        for number, pair in enumerate(value.strip(b" \t").split(b";")):
            exact = pair[1:] if number and pair.startswith(b" ") else pair
            name = exact.partition(b"=")[0]
            if name == COOKIE.encode() and b"=" in exact:
                ours.append(exact.partition(b"=")[2])
            elif not pair.lstrip(b' \t="').lower().startswith((b"__host-ztp", b"__secure-ztp")):
                kept.append(pair)
        rest = b";".join(kept)
        if len(kept) < len(value.split(b";")):
            rest = rest.lstrip(b"; \t").rstrip(b" \t")  # no value begins or ends in whitespace
        left += [rest] if rest else []
    return ours, left


def neighbourhoods(alice: bytes, bob: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Cookie fields around a session that is alice's. `bob` is the session of whoever would be her."""
    name, theirs = COOKIE.encode(), bob.partition(b"=")[2]
    neighbours: dict[str, bytes] = {
        "a plain one": b"a=b",
        "quoted": b'a="b"',
        "a space in a value": b"a=b c",
        "a comma": b"a=b,c=d",
        "no equals sign": b"lonely",
        "no name": b"=value",
        "nothing": b"",
        "only spaces": b"   ",
        "only an equals sign": b"=",
        "$Version": b"$Version=1",
        "8-bit": b"a=caf\xc3\xa9\xff",
        "8-bit in the name": b"\xe2\x80\x8b=b",
        "a tab in a value": b"a=b\tc",
        "equals signs": b"a=b=c==",
        "an open quote": b'a="b',
        "JSON": b'a={"b":"c","d":[1,2]}',
        "a backslash": b'a="b\\";c"',
        "another case": name.lower() + b"=" + theirs,
        "capitals": name.upper() + b"=" + theirs,
        "a space behind the name": name + b" =" + theirs,
        "a tab behind the name": name + b"\t=" + theirs,
        "two spaces before the name": b"  " + name + b"=" + theirs,
        "a tab before the name": b"\t" + name + b"=" + theirs,
        "a quoted name": b'"' + name + b'"=' + theirs,
        "a PHP array": name + b"[]=" + theirs,
        "an escaped space": name + b"%20=" + theirs,
        "another hyphen": name.replace(b"-", "\u2011".encode()) + b"=" + theirs,
        "a long s": b"\xc5\xbf" + name + b"=" + theirs,
        "nameless and ours": b"=" + bob,
        "nameless twice and ours": b"==" + bob,
        "ours without a value": name,
        "ours and more": name + b"x=" + theirs,
        "of a sign-in": b"__Host-ztproxy-sign-in-x=" + theirs,
        "the other prefix": b"__Secure-ztproxy=" + theirs,
        "a dollar before": b"$" + bob,
        "without the prefix": b"ztproxy=" + theirs,
        "ours in a value": b"a=" + bob,
        "ours behind a comma": b"a=b, " + bob,
        "ours in quotes": b'a="' + bob + b'"',
        "ours behind a quote that opens": b'a="b; ' + bob,
        "ours of somebody else": bob,
        "ours empty": name + b"=",
        "ours in other words": name + b"=" + theirs[:-1],
        "ours with a space": name + b"= " + theirs,
        "ours and a NUL escaped": name + b"=" + theirs + b"%00",
        "an expression": name + b"=../../*[a-z]' OR 1=1--",
        "another version": name + b"=v2." + theirs.partition(b".")[2],
    }
    for what, neighbour in neighbours.items():
        yield f"{what}, in front", [neighbour + b"; " + alice]
        yield f"{what}, behind", [alice + b"; " + neighbour]
        yield f"{what}, on either side", [neighbour + b"; " + alice + b"; " + neighbour]
        yield f"{what}, without a space", [b"x=y;" + neighbour + b";" + alice]
        yield f"{what}, in another field", [neighbour, alice]
        yield f"{what}, in another field behind", [alice + b"; x=y", neighbour]
        yield f"{what}, alone", [neighbour]
    many = b"; ".join(b"c%d=%d" % (number, number) for number in range(180))
    yield "180 in front", [many + b"; " + alice]
    yield "180 behind", [alice + b"; " + many]
    yield "180 of names like ours", [b"; ".join([name + b"%d=1" % n for n in range(180)]) + b"; " + alice]
    yield "semicolons alone", [b";;; ;; " + alice + b";;;"]
    yield "alone, in quotes", [name + b'="' + alice.partition(b"=")[2] + b'"']


def cookies(alice: bytes, bob: bytes) -> Iterator[Row]:
    mine = alice.partition(b"=")[2]
    for name, values in neighbourhoods(alice, bob):
        raw = get(b"Connection: close", *(b"Cookie: " + value for value in values))
        ours, left = cookies_left(values)
        expected: Forwarded | int | Reason = 401
        if len(ours) > 1:
            expected = Reason.HTTP_COOKIE
        elif ours == [mine]:
            expected = Forwarded(b"/u", tuple(b"Cookie: " + value for value in left))
        elif ours == [bob.partition(b"=")[2]]:
            continue  # that is bob, and nobody claims to be alice
        yield Row(name, raw, expected)
