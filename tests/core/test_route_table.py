"""How a request finds its one route: hosts, prefixes, exact paths, readings, letters' case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.words import ADMINS, path, site
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Ambiguity, Path
from ztproxy.core.route_table import RouteTable
from ztproxy.core.routes import Route


def at(name: str, prefix: str = "/", **more: object) -> Route:
    segments = tuple(prefix[1:].split("/")) if prefix != "/" else ()
    return site(ADMINS, name=name, segments=segments, **more)


TABLE = RouteTable(
    [
        at("root"),
        at("admin", "/admin"),
        at("admin-api", "/admin/api"),
        at("exact", "/exact", exact=True),
        at("exact-slash", "/slash/", exact=True),
        at("both-prefix", "/both"),
        at("both-exact", "/both", exact=True),
        at("files", "/files", tolerates=frozenset({Ambiguity.ENCODED_SLASH})),
        at("any-case", "/Wiki/Page", case_insensitive=True),
        at("any-case-exact", "/Report", exact=True, case_insensitive=True),
        at("any-case-k", "/k", case_insensitive=True),
        at("wild", host="*.apps.test"),
        at("named", "/only", host="named.apps.test"),
        at("home", host="home.test", exact=True),
    ]
)


def encoded(text: str, *others: str) -> Path:
    return path(text, *others, because=Ambiguity.ENCODED_SLASH)


@pytest.mark.parametrize(
    ("host", "where", "found"),
    [
        pytest.param("app.test", path("/"), "root", id="root"),
        pytest.param("app.test", path("/other/x"), "root", id="root-covers-all"),
        pytest.param("app.test", path("/admin"), "admin", id="prefix-itself"),
        pytest.param("app.test", path("/admin/"), "admin", id="prefix-slash"),
        pytest.param("app.test", path("/admin/users"), "admin", id="prefix-beneath"),
        pytest.param("app.test", path("/admin/api/x"), "admin-api", id="longest-prefix"),
        pytest.param("app.test", path("/admin/apiary"), "admin", id="longest-prefix-by-whole-segments"),
        pytest.param("app.test", path("/administrator"), "root", id="attack-sibling-of-a-prefix"),
        pytest.param("app.test", path("/ADMIN"), "root", id="case-matters-by-default"),
        pytest.param("app.test", path("/exact"), "exact", id="exact"),
        pytest.param("app.test", path("/exact/"), "root", id="exact-is-not-its-slash"),
        pytest.param("app.test", path("/exact/x"), "root", id="exact-covers-nothing-beneath"),
        pytest.param("app.test", path("/slash/"), "exact-slash", id="exact-with-slash"),
        pytest.param("app.test", path("/slash"), "root", id="exact-with-slash-only"),
        pytest.param("app.test", path("/both"), "both-exact", id="exact-before-prefix"),
        pytest.param("app.test", path("/both/x"), "both-prefix", id="prefix-beside-exact"),
        pytest.param("app.test", path("/wIKI/pAGE/1"), "any-case", id="any-case"),
        pytest.param("app.test", path("/wiki"), "root", id="any-case-too-short"),
        pytest.param("app.test", path("/REPORT"), "any-case-exact", id="any-case-exact"),
        pytest.param("app.test", path("/REPORT/x"), "root", id="any-case-exact-beneath"),
        pytest.param("app.test", path("/wiki/page/é"), "any-case", id="any-case-one-lower-case"),
        pytest.param("app.test", path("/wiki/page/É"), Reason.HTTP_PATH, id="any-case-unclear-letter"),
        pytest.param("app.test", path("/\u212a"), Reason.HTTP_PATH, id="attack-any-case-kelvin-sign"),
        pytest.param("app.test", path("/É"), "root", id="letters-are-no-matter-elsewhere"),
        pytest.param("a.apps.test", path("/x"), "wild", id="wildcard"),
        pytest.param("a.b.apps.test", path("/x"), Reason.NO_SUCH_HOST, id="wildcard-is-one-label"),
        pytest.param("apps.test", path("/x"), Reason.NO_SUCH_HOST, id="wildcard-is-not-its-parent"),
        pytest.param(".apps.test", path("/x"), Reason.NO_SUCH_HOST, id="wildcard-empty-label"),
        pytest.param("evilapps.test", path("/x"), Reason.NO_SUCH_HOST, id="attack-wildcard-suffix"),
        pytest.param("named.apps.test", path("/only/x"), "named", id="named-before-wildcard"),
        pytest.param("named.apps.test", path("/x"), Reason.NO_SUCH_ROUTE, id="named-never-falls-to-wildcard"),
        pytest.param("home.test", path("/"), "home", id="exact-root"),
        pytest.param("home.test", path("/x"), Reason.NO_SUCH_ROUTE, id="exact-root-alone"),
        pytest.param("localhost", path("/"), Reason.NO_SUCH_HOST, id="no-dot"),
        pytest.param("", path("/"), Reason.NO_SUCH_HOST, id="no-host"),
        # Several readings: one route for all of them, and one that tolerates it.
        pytest.param("app.test", encoded("/files/a%2Fb", "/files/a/b"), "files", id="tolerated"),
        pytest.param("app.test", encoded("/admin/a%2Fb", "/admin/a/b"), Reason.HTTP_PATH, id="not-tolerated"),
        pytest.param("app.test", encoded("/x%2Fy", "/x/y"), Reason.HTTP_PATH, id="not-tolerated-by-default"),
        pytest.param(
            "app.test",
            encoded("/files%2Fx", "/files/x"),
            Reason.HTTP_PATH,
            id="attack-readings-lead-to-two-routes",
        ),
        pytest.param(
            "app.test",
            encoded("/files/x", "/admin/x"),
            Reason.HTTP_PATH,
            id="attack-second-reading-is-the-admins",
        ),
        pytest.param(
            "app.test",
            path("/files/x", "/files/x", because=Ambiguity.PATH_PARAMETER),
            Reason.HTTP_PATH,
            id="tolerates-another-ambiguity-only",
        ),
        pytest.param("home.test", encoded("/x%2Fy", "/x/y"), Reason.HTTP_PATH, id="ambiguous-and-no-route"),
    ],
)
def test_match(host, where, found) -> None:
    match = TABLE.match(host, where)
    assert (match.name if isinstance(match, Route) else match) == found


def test_order_written_does_not_matter() -> None:
    turned = RouteTable(reversed(TABLE.routes))
    for where in ("/", "/admin/api", "/both", "/wiki/page", "/exact"):
        one, other = TABLE.match("app.test", path(where)), turned.match("app.test", path(where))
        assert one is other


def test_routes_of_a_host_most_specific_first() -> None:
    names = [route.name for route in TABLE.of_host("app.test")]
    assert names.index("admin-api") < names.index("admin") < names.index("root") == len(names) - 1
    assert TABLE.of_host("unknown.test") == ()


SEGMENTS = st.lists(st.sampled_from(["a", "A", "b"]), max_size=3).map(tuple)


def leads_to(route: Route, reading: tuple[str, ...]) -> bool:
    """The rule, without any index."""
    mine = route.segments
    if route.exact:
        theirs = () if reading == ("",) else reading
    else:
        theirs = reading[: len(mine)]
    if route.case_insensitive:
        return tuple(one.lower() for one in theirs) == tuple(one.lower() for one in mine)
    return theirs == mine


@given(st.lists(st.tuples(SEGMENTS, st.booleans(), st.booleans()), min_size=1, max_size=8), SEGMENTS)
def test_the_index_finds_what_looking_through_all_of_them_finds(
    written: list[tuple[tuple[str, ...], bool, bool]], segments: tuple[str, ...]
) -> None:
    routes = [
        site(ADMINS, name=str(number), segments=mine, exact=exact, case_insensitive=any_case)
        for number, (mine, exact, any_case) in enumerate(written)
    ]
    reading = segments or ("",)
    fitting = [route for route in routes if leads_to(route, reading)]
    expected = max(fitting, key=lambda route: (route.exact, len(route.segments)), default=None)
    found = RouteTable(routes).match("app.test", Path("/" + "/".join(segments), (reading,), frozenset()))
    assert found is (expected or Reason.NO_SUCH_ROUTE)
