"""What an operator writes about who may enter, and what the core is told."""

# ruff: noqa: E501  (a row quotes a whole message, as the operator sees it)

from __future__ import annotations

from datetime import date, time
from ipaddress import ip_network
from zoneinfo import ZoneInfo

import pytest

from tests.config.words import mistakes, policy, settings, the_route, warnings
from ztproxy.core import conditions as core
from ztproxy.core.policy import Effect
from ztproxy.core.reasons import Reason


def say(condition: core.Condition) -> object:
    """A condition as plain data, so that two can be compared."""
    match condition:
        case core.AllOf():
            return ("all", *map(say, condition.parts))
        case core.AnyOf():
            return ("any", *map(say, condition.parts))
        case core.Not():
            return ("not", say(condition.part))
    return condition


ALICE = core.EmailIs(frozenset({"alice@example.com"}))
STAFF = core.InGroup(frozenset({"staff"}))
ANYBODY = core.Authenticated()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        pytest.param("{user: u1}", core.UserIs(frozenset({"u1"})), id="user"),
        pytest.param("{email: Alice@Example.COM}", ALICE, id="email-lower-cased"),
        pytest.param("{domain: EXAMPLE.com}", core.DomainIs(frozenset({"example.com"})), id="domain"),
        pytest.param("{group: staff}", STAFF, id="group"),
        pytest.param("{groups: [staff]}", STAFF, id="groups"),
        pytest.param("{group: Staff }", core.InGroup(frozenset({"Staff"})), id="group-keeps-case"),
        pytest.param("{group: [a, b]}", core.InGroup(frozenset({"a", "b"})), id="list-is-any"),
        pytest.param("{claim/dept: [x, 7, true]}", core.ClaimIs(("dept",), ("x", 7, True)), id="claim"),
        pytest.param(
            "{claim/a.b: x}",
            ("any", core.ClaimIs(("a.b",), ("x",)), core.ClaimIs(("a", "b"), ("x",))),
            id="nested-claim",
        ),
        pytest.param("{acr_rank: 2}", core.RankAtLeast(2), id="rank"),
        pytest.param("{acr: phr}", core.RankAtLeast(3), id="acr-by-name"),
        pytest.param("{authenticated: true}", ANYBODY, id="authenticated"),
        pytest.param("{public: true}", core.Anyone(), id="public"),
        pytest.param(
            "{group: staff, method: [GET, HEAD]}",
            ("all", STAFF, core.MethodIs(frozenset({"GET", "HEAD"}))),
            id="entries-must-all-hold",
        ),
        pytest.param(
            "{group: staff, path: /a/}", ("all", STAFF, core.PathIs(("a", ""))), id="path-is-exactly"
        ),
        pytest.param("{group: staff, path: /}", ("all", STAFF, core.PathIs(("",))), id="root-is-exactly"),
        pytest.param(
            "{group: staff, path: {prefix: /a/}}", ("all", STAFF, core.PathUnder(("a",))), id="path-beneath"
        ),
        pytest.param(
            "{group: staff, path: {prefix: /}}", ("all", STAFF, core.PathUnder(())), id="beneath-the-root"
        ),
        pytest.param(
            "{group: staff, path: [/a, /b%C3%BC]}",
            ("all", STAFF, ("any", core.PathIs(("a",)), core.PathIs(("bü",)))),
            id="paths-are-decoded",
        ),
        pytest.param(
            "{group: staff, path: {is: /ü, prefix: /b}}",
            ("all", STAFF, ("any", core.PathIs(("ü",)), core.PathUnder(("b",)))),
            id="paths-in-letters",
        ),
        pytest.param(
            "{group: staff, source_network: [10.0.0.0/8, 'fd00::/8']}",
            ("all", STAFF, core.FromNetwork((ip_network("10.0.0.0/8"), ip_network("fd00::/8")))),
            id="network",
        ),
        pytest.param(
            "{group: staff, time: {zone: Europe/Berlin, days: [mon-tue, sun], after: '22:00', before: '06:00'}}",
            (
                "all",
                STAFF,
                core.Within(ZoneInfo("Europe/Berlin"), frozenset({0, 1, 6}), time(22), time(6)),
            ),
            id="time-over-midnight",
        ),
        pytest.param(
            "{group: staff, time: {zone: UTC, from: 2026-01-01, until: 2026-12-31}}",
            ("all", STAFF, core.Within(ZoneInfo("UTC"), first=date(2026, 1, 1), last=date(2026, 12, 31))),
            id="dates",
        ),
        pytest.param(
            "{any_of: [{group: staff}, {public: true}]}", ("any", STAFF, core.Anyone()), id="any_of"
        ),
        pytest.param(
            "{all_of: [{group: staff}, {authenticated: true}]}", ("all", STAFF, ANYBODY), id="all_of"
        ),
        pytest.param(
            "{authenticated: true, none_of: [{group: staff}, {email: alice@example.com}]}",
            ("all", ANYBODY, ("not", ("any", STAFF, ALICE))),
            id="none_of-is-neither",
        ),
    ],
)
def test_a_condition_means(written: str, meant: object) -> None:
    (rule,) = the_route(policy(f"allow: {written}")).policy.rules
    assert rule.effect is Effect.ALLOW
    assert say(rule.condition) == meant


def test_a_rule_has_its_name_and_ground() -> None:
    text = policy(
        "{name: staff, allow: {group: staff}}",
        "allow: {authenticated: true}",
        "allow: {public: true}",
        "deny: {method: DELETE}",
    )
    rules = the_route(text).policy.rules
    assert [(rule.name, rule.effect, rule.grant) for rule in rules] == [
        ("staff", Effect.ALLOW, Reason.RULE_ALLOWED),
        ("rule 2", Effect.ALLOW, Reason.ANY_AUTHENTICATED),
        ("rule 3", Effect.ALLOW, Reason.PUBLIC_ROUTE),
        ("rule 4", Effect.DENY, Reason.RULE_ALLOWED),
    ]


def test_an_app_that_folds_paths_has_a_policy_that_does() -> None:
    text = policy("allow: {group: staff, path: /A}", more="path_case: insensitive")
    (rule,) = the_route(text).policy.rules
    assert say(rule.condition) == ("all", STAFF, core.PathIs(("A",), folded=True))


def test_claims_a_policy_reads_are_kept_in_the_session() -> None:
    loaded = settings(policy("allow: {claim/employee.level: 7, none_of: [{claim/dept: x}]}"))
    assert loaded.providers[0].claims.keep == ("dept", "employee.level")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        pytest.param("allow: {}", "7: routes[0].policy[0].allow: the condition is empty, write who or what it is about, like `{group: staff}`", id="empty-condition"),
        pytest.param("allow: []", "7: routes[0].policy[0].allow: a list of conditions could mean two things, write `any_of:` or `all_of:` before it", id="empty-list-of-conditions"),
        pytest.param("allow: everyone", "7: routes[0].policy[0].allow: `everyone` is not a condition, write a mapping like `{group: staff}`, `{authenticated: true}`", id="a-word"),
        pytest.param("allow: {domian: example.com}", "7: routes[0].policy[0].allow.domian: unknown condition `domian`, did you mean `domain`?", id="misspelled"),
        pytest.param("allow: {claims: x}", "7: routes[0].policy[0].allow.claims: unknown condition `claims`, write `claim/department: finance`", id="claims"),
        pytest.param("allow: {claim/: x}", "7: routes[0].policy[0].allow.claim/: unknown condition `claim/`, did you mean `claim/NAME`?", id="claim-without-a-name"),
        pytest.param("allow: {not: [{group: a}]}", "7: routes[0].policy[0].allow.not: unknown condition `not`, write `none_of`", id="not"),
        pytest.param("allow: {group: []}", "7: routes[0].policy[0].allow.group: the list is empty, write at least one entry or remove the key", id="no-group"),
        pytest.param("allow: {group: [7]}", '7: routes[0].policy[0].allow.group[0]: `7` is not text, put it in quotes: `"7"`', id="group-as-number"),
        pytest.param("allow: {any_of: []}", "7: routes[0].policy[0].allow.any_of: `any_of` takes a list of conditions, write `- ` before each", id="empty-any-of"),
        pytest.param("allow: {any_of: {group: a}}", "7: routes[0].policy[0].allow.any_of: `any_of` takes a list of conditions, write `- ` before each", id="any-of-no-list"),
        pytest.param("allow: {any_of: [{}]}", "7: routes[0].policy[0].allow.any_of[0]: the condition is empty, write who or what it is about, like `{group: staff}`", id="empty-inside"),
        pytest.param("allow: {email: '*@example.com'}", "7: routes[0].policy[0].allow.email: `*@example.com`: a `*` means nothing here, write `domain: example.com`", id="wildcard-email"),
        pytest.param("allow: {email: a@b@example.com}", "7: routes[0].policy[0].allow.email: `a@b@example.com` is not an e-mail address, write it like `alice@example.com`", id="two-ats"),
        pytest.param("allow: {email: alicе@example.com}", "7: routes[0].policy[0].allow.email: `alicе@example.com` is not an e-mail address, write it like `alice@example.com`", id="cyrillic-e"),
        pytest.param("allow: {domain: '*.example.com'}", "7: routes[0].policy[0].allow.domain: `*.example.com` is not a domain, write `example.com`, and each sub-domain of its own", id="wildcard-domain"),
        pytest.param("allow: {domain: '@example.com'}", "7: routes[0].policy[0].allow.domain: `@example.com` is not a domain, write `example.com`, and each sub-domain of its own", id="at-domain"),
        pytest.param("allow: {domain: exämple.com}", "7: routes[0].policy[0].allow.domain: `exämple.com` is not a domain, write it like `example.com`, non-ASCII names as `xn--`", id="non-ascii-domain"),
        pytest.param("allow: {claim/a: {b: c}}", "7: routes[0].policy[0].allow.claim/a: a mapping cannot be compared with a claim, write text, a number, true or false", id="claim-to-mapping"),
        pytest.param("allow: {group: a, path: /x*}", "7: routes[0].policy[0].allow.path: `/x*`: a `*` in a path means nothing here, write `prefix: /x` for everything beneath a path", id="star-in-path"),
        pytest.param("allow: {group: a, path: x}", "7: routes[0].policy[0].allow.path: `x` is not a path, start it with `/`", id="relative-path"),
        pytest.param("allow: {group: a, path: '/x?y'}", "7: routes[0].policy[0].allow.path: `/x?y` has a query or a fragment, paths alone are compared; leave it out", id="query-in-path"),
        pytest.param("allow: {group: a, path: /x/../y}", "7: routes[0].policy[0].allow.path: `/x/../y` could be read in more than one way, leave out empty segments, dot segments, `;`, `\\`, and escapes of `/`, `?` and `%`", id="dots-in-path"),
        pytest.param("allow: {group: a, path: /x%2fy}", "7: routes[0].policy[0].allow.path: `/x%2fy` could be read in more than one way, leave out empty segments, dot segments, `;`, `\\`, and escapes of `/`, `?` and `%`", id="escaped-slash-in-path"),
        pytest.param("allow: {group: a, path: {}}", "7: routes[0].policy[0].allow.path: the condition is empty, write `is: /path` or `prefix: /path`", id="empty-path"),
        pytest.param("allow: {group: a, path: {regex: x}}", "7: routes[0].policy[0].allow.path.regex: unknown key `regex`, write `prefix` or `path`; regular expressions are not supported", id="regex"),
        pytest.param("allow: {acr_rank: 4}", "7: routes[0].policy[0].allow.acr_rank: no sign-in reaches rank 4, the highest of `assurance` is 3", id="unreachable-rank"),
        pytest.param("allow: {acr: gold}", "7: routes[0].policy[0].allow.acr: the acr `gold` has no rank, list it under `assurance: {acr: ...}`", id="unknown-acr"),
        pytest.param("allow: {group: a, time: {zone: UTC}}", "7: routes[0].policy[0].allow.time: the window has no bounds, write `days`, `after`, `before`, `from` or `until`", id="time-without-bounds"),
        pytest.param("allow: {group: a, time: {after: '08:00'}}", "7: routes[0].policy[0].allow.time: the key `zone` is missing, add `zone: ...`", id="time-without-zone"),
        pytest.param("allow: {group: a, time: {zone: UTC, after: '08:00', before: '08:00'}}", "7: routes[0].policy[0].allow.time.before: the window ends where it begins, leave out both for the whole day", id="time-without-length"),
        pytest.param("allow: {group: a, time: {zone: UTC, from: 2026-02-01, until: 2026-01-01}}", "7: routes[0].policy[0].allow.time.until: the window ends before it begins, write a later date", id="dates-reversed"),
        pytest.param("allow: {public: false}", "7: routes[0].policy[0].allow.public: `false` says nothing here, write `true` or remove the key", id="public-false"),
        pytest.param("{allow: {group: a}, deny: {group: b}}", "7: routes[0].policy[0]: a rule is one `allow` or one `deny`, write two rules for two effects", id="two-effects"),
        pytest.param("name: x", "7: routes[0].policy[0]: a rule is one `allow` or one `deny`, write two rules for two effects", id="no-effect"),
        pytest.param("staff", "7: routes[0].policy[0]: `staff` is not a rule, write `- allow: {...}` or `- deny: {...}`", id="rule-is-a-word"),
        pytest.param("{allow: {group: a}, when: now}", "7: routes[0].policy[0].when: unknown key `when`, write one of `allow`, `deny`, `name`", id="unknown-rule-key"),
        pytest.param("deny: {group: a}", "6: routes[0].policy: every rule denies, so nobody could ever get in, write an `allow` rule", id="all-deny"),
        pytest.param("allow: {path: /public}", "7: routes[0].policy[0].allow: this rule allows without asking who someone is, add `authenticated: true`, or `public: true` to open it to the world", id="open-by-path"),
        pytest.param("allow: {method: GET}", "7: routes[0].policy[0].allow: this rule allows without asking who someone is, add `authenticated: true`, or `public: true` to open it to the world", id="open-by-method"),
        pytest.param("allow: {any_of: [{group: a, source_network: 10.0.0.0/8}, {method: GET}]}", "7: routes[0].policy[0].allow: this rule allows without asking who someone is, add `authenticated: true`, or `public: true` to open it to the world", id="a-place-in-another-branch"),
        pytest.param("allow: {any_of: [{group: a}, {method: GET}]}", "7: routes[0].policy[0].allow: this rule allows without asking who someone is, add `authenticated: true`, or `public: true` to open it to the world", id="open-by-one-of-two"),
        pytest.param("allow: {none_of: [{path: /x}]}", "7: routes[0].policy[0].allow: this rule allows without asking who someone is, add `authenticated: true`, or `public: true` to open it to the world", id="open-but-for-a-path"),
        pytest.param("allow: {none_of: [{authenticated: true}]}", "6: routes[0].policy: a sign-in, or how strong it was, can be asked for but not forbidden, turn the rule round: allow with the sign-in it should have", id="strangers-only"),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_told(rule: str, message: str) -> None:
    assert mistakes(policy(rule)) == [message]


def test_denying_everyone_is_a_mistake() -> None:
    assert mistakes(policy("allow: {group: a}", "deny: {public: true}")) == [
        "8: routes[0].policy[1].deny: this denies everyone, always, remove the route instead"
    ]


@pytest.mark.parametrize(
    ("rules", "warned"),
    [
        pytest.param(
            ["allow: {source_network: 10.0.0.0/8}"],
            [
                "7: routes[0].policy[0].allow: this allows by network alone; a place is not a person: add who, or "
                "`public: true` to mean it"
            ],
            id="network-alone",
        ),
        pytest.param(
            ["allow: {any_of: [{group: a}, {source_network: 10.0.0.0/8, method: GET}]}"],
            [
                "7: routes[0].policy[0].allow: this allows by network alone; a place is not a person: add who, or "
                "`public: true` to mean it"
            ],
            id="network-or-person",
        ),
        pytest.param(["allow: {source_network: 10.0.0.0/8, group: a}"], [], id="network-and-person"),
        pytest.param(["allow: {source_network: 10.0.0.0/8, public: true}"], [], id="network-and-meant"),
        pytest.param(["allow: {group: a}", "deny: {source_network: 10.0.0.0/8}"], [], id="deny-by-network"),
        pytest.param(
            ["allow: {public: true}", "deny: {group: a}"],
            [
                "6: routes[0].policy: a deny rule asks who someone is, so the public rule beside it makes everyone "
                "sign in"
            ],
            id="public-beside-a-deny-about-people",
        ),
        pytest.param(
            ["allow: {public: true}", "deny: {method: DELETE}"], [], id="public-beside-another-deny"
        ),
    ],
)
def test_what_surprises_is_warned_of(rules: list[str], warned: list[str]) -> None:
    assert warnings(policy(*rules)) == warned


def test_ranks_are_those_of_the_configuration() -> None:
    text = policy("allow: {acr: 'urn:gold'}") + "assurance: {acr: {'urn:gold': 2}, amr: {pwd+otp: 2}}\n"
    (rule,) = the_route(text).policy.rules
    assert rule.condition == core.RankAtLeast(2)
    assert settings(text).levels.rank(None, ["otp", "pwd"]) == 2
    strict = policy("allow: {acr_rank: 3}") + "assurance: {acr: {'urn:gold': 2}, amr: {pwd+otp: 2}}\n"
    assert mistakes(strict) == [
        "7: routes[0].policy[0].allow.acr_rank: no sign-in reaches rank 3, the highest of `assurance` is 2"
    ]


def test_all_mistakes_come_at_once_in_the_order_of_lines() -> None:
    found = mistakes(policy("allow: {domian: x}", "deny: {}", "permit: {}") + "nonsense: 1\n")
    assert [mistake.split(":")[0] for mistake in found] == ["7", "8", "9", "11"]
