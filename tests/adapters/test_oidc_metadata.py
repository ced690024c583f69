import logging
from typing import Any

import pytest

from tests.worlds.memory_providers import MemoryFirstHosts
from ztproxy.adapters.oidc_metadata import Metadata, Pins, check_issuer, is_allowed_url, read_metadata
from ztproxy.core.reasons import Reason
from ztproxy.errors import OperatorError, WorldError

ISSUER = "https://op.test"
GOOD: dict[str, Any] = {
    "issuer": ISSUER,
    "authorization_endpoint": "https://op.test/authorize",
    "token_endpoint": "https://api.op.test/token",
    "jwks_uri": "https://op.test/jwks",
}
ABSENT = object()


def read(
    *,
    configured: str = ISSUER,
    require_pkce: bool = False,
    dangerous: bool = False,
    **changes: Any,
) -> Metadata:
    document = {name: value for name, value in {**GOOD, **changes}.items() if value is not ABSENT}
    return read_metadata(
        document, issuer=configured, require_pkce=require_pkce, dangerous_allow_http=dangerous
    )


def test_a_good_document() -> None:
    more: dict[str, Any] = {
        "userinfo_endpoint": "https://op.test/userinfo",
        "end_session_endpoint": "https://op.test/logout",
        "authorization_response_iss_parameter_supported": True,
    }
    assert read(**more) == Metadata(
        authorization_endpoint="https://op.test/authorize",
        token_endpoint="https://api.op.test/token",
        jwks_uri="https://op.test/jwks",
        userinfo_endpoint="https://op.test/userinfo",
        end_session_endpoint="https://op.test/logout",
        iss_parameter=True,
        hosts=frozenset({"op.test", "api.op.test"}),
    )


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"issuer": ISSUER + "/"}, id="D01_trailing_slash"),
        pytest.param({"issuer": "https://op.tesT"}, id="D01_another_case"),
        pytest.param({"issuer": ABSENT}, id="D01_missing"),
        pytest.param({"issuer": [ISSUER]}, id="D01_list"),
        pytest.param({"token_endpoint": ABSENT}, id="no_token_endpoint"),
        pytest.param({"authorization_endpoint": ABSENT}, id="no_authorization_endpoint"),
        pytest.param({"jwks_uri": None}, id="no_keys"),
        pytest.param({"token_endpoint": "http://op.test/token"}, id="http_endpoint"),
        pytest.param({"jwks_uri": "http://127.0.0.1/jwks"}, id="http_on_this_machine_of_an_https_issuer"),
        pytest.param({"token_endpoint": 7}, id="number"),
        pytest.param({"token_endpoint": "https://u:p@op.test/token"}, id="user_in_the_url"),
        pytest.param({"token_endpoint": "https://op.test/token#x"}, id="fragment"),
        pytest.param({"token_endpoint": "https://op.test:99999/token"}, id="impossible_port"),
        pytest.param({"token_endpoint": "https://op.test/to ken"}, id="space"),
        pytest.param({"token_endpoint": "https://ｏp.test/token"}, id="not_ascii"),
        pytest.param({"token_endpoint": "https:/token"}, id="no_host"),
        pytest.param({"userinfo_endpoint": "file:///etc/passwd"}, id="another_scheme"),
        pytest.param({"jwks_uri": "https://169.254.169.254/jwks"}, id="T26_link_local"),
        pytest.param({"token_endpoint": "https://0xa9fea9fe/token"}, id="T26_link_local_in_hexadecimal"),
        pytest.param({"token_endpoint": "https://[fe80::1]/token"}, id="T26_link_local_6"),
        pytest.param({"jwks_uri": "https://127.0.0.1:8500/v1/kv"}, id="T26_this_machine"),
        pytest.param({"jwks_uri": "https://localhost/jwks"}, id="T26_this_machine_by_name"),
        pytest.param({"userinfo_endpoint": "https://[::1]/userinfo"}, id="T26_this_machine_6"),
        *(
            pytest.param({"token_endpoint": f"https://{host}/token"}, id=f"T26_this_machine_as_{host}")
            for host in (
                "0x7f000001",
                "017700000001",
                "0177.0.0.1",
                "2130706433",
                "127.1",
                "127.0.0.1.",
                "[::ffff:127.0.0.1]",
                "[::ffff:7f00:1]",
                "localhost.",
                "LOCALHOST.",
                "idp.localhost.",
            )
        ),
        pytest.param({"jwks_uri": "https://[64:ff9b::a9fe:a9fe]/jwks"}, id="T26_link_local_by_NAT64"),
        pytest.param({"token_endpoint": f"https://{'a' * 254}/token"}, id="a_host_that_is_too_long"),
        pytest.param({"require_pkce": True}, id="D04_pkce_not_announced"),
        pytest.param(
            {"require_pkce": True, "code_challenge_methods_supported": ["plain"]}, id="D04_only_plain"
        ),
        pytest.param({"require_pkce": True, "code_challenge_methods_supported": "S256"}, id="D04_no_list"),
        pytest.param({"response_types_supported": ["id_token"]}, id="no_code_flow"),
    ],
)
def test_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(WorldError, match="discovery") as refused:
        read(**changes)
    assert refused.value.reason is Reason.PROVIDER_UNAVAILABLE


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"jwks_uri": "https://10.0.0.7/jwks"}, id="T26_a_private_address"),
        pytest.param({"jwks_uri": "https://[fd12::7]/jwks"}, id="T26_a_private_address_6"),
        pytest.param({"jwks_uri": "https://keycloak.internal:8443/jwks"}, id="T26_a_name_inside"),
        pytest.param(
            {"require_pkce": True, "code_challenge_methods_supported": ["plain", "S256"]}, id="D04_S256_among"
        ),
        pytest.param({"code_challenge_methods_supported": ["plain"]}, id="D04_only_plain_but_not_required"),
        pytest.param({"response_types_supported": ["code", "id_token"]}, id="code_flow_among"),
    ],
)
def test_accepted(changes: dict[str, Any]) -> None:
    assert read(**changes).token_endpoint == "https://api.op.test/token"


@pytest.mark.parametrize("value", [pytest.param("true", id="string"), pytest.param(1, id="number")])
def test_only_true_announces_the_iss_parameter(value: Any) -> None:
    assert not read(authorization_response_iss_parameter_supported=value).iss_parameter


def test_an_issuer_on_this_machine_has_endpoints_on_this_machine() -> None:
    local = "http://127.0.0.1:9000"
    endpoints: dict[str, Any] = {"issuer": local}
    endpoints |= {
        name: f"{local}/{name}" for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")
    }
    assert read(configured=local, **endpoints).hosts == {"127.0.0.1"}
    with pytest.raises(WorldError):
        read(configured=local, **{**endpoints, "token_endpoint": "http://op.test/token"})


@pytest.mark.parametrize(
    ("url", "dangerous", "allowed"),
    [
        pytest.param("https://op.test/a?b=c", False, True, id="https"),
        pytest.param("http://op.test", False, False, id="http"),
        pytest.param("http://op.test", True, True, id="http_though_dangerous"),
        pytest.param("http://localhost:9000", False, True, id="localhost"),
        pytest.param("http://idp.localhost", False, True, id="under_localhost"),
        pytest.param("http://[::1]:9000", False, True, id="loopback_6"),
        pytest.param("http://127.0.0.1.evil.test", False, False, id="looks_like_loopback"),
        pytest.param("https://op.test\\@evil.test", False, False, id="backslash"),
        pytest.param("https://[::1", False, False, id="no_url_at_all"),
        pytest.param("https://op.test:0/", False, False, id="port_zero"),
        pytest.param("https://192.168.1.7/", False, True, id="private"),
        pytest.param("https://169.254.169.254/", True, False, id="link_local"),
        pytest.param("http://2852039166/", True, False, id="link_local_as_one_number"),
        pytest.param("http://[::ffff:169.254.169.254]/", True, False, id="link_local_mapped"),
        pytest.param("http://0/", True, False, id="no_address"),
        pytest.param("http://127.1:9000", False, True, id="loopback_in_short"),
        pytest.param("http://[::ffff:127.0.0.1]", False, True, id="loopback_mapped"),
        pytest.param("http://localhost.:9000", False, True, id="localhost_with_a_dot"),
        pytest.param("https://OP_1.test.:0443/", False, True, id="a_name_in_every_form"),
        pytest.param("https://op.test:/", False, True, id="no_port"),
        pytest.param(f"https://{'a' * 253}/", False, True, id="as_long_as_a_name_may_be"),
        pytest.param(f"https://{'a' * 254}/", False, False, id="longer"),
        pytest.param("https://op.test%2eevil.test/", False, False, id="escaped_dot"),
        pytest.param("https://op.test%00/", False, False, id="escaped_zero"),
        pytest.param("https://op.test;x/", False, False, id="semicolon"),
        pytest.param("https://op.test'/", False, False, id="quote"),
        pytest.param("https://op.test|x/", False, False, id="bar"),
        pytest.param("https://[fd12::1%25eth0]/", False, False, id="an_interface"),
        pytest.param("https://[v1.a]/", False, False, id="an_address_of_the_future"),
        pytest.param("https://:443/", False, False, id="port_alone"),
    ],
)
def test_is_allowed_url(url: str, dangerous: bool, allowed: bool) -> None:
    assert is_allowed_url(url, dangerous_allow_http=dangerous) is allowed


@pytest.mark.parametrize("issuer", ["http://op.test", "https://op.test?x=1", "https://op.test#", "op.test"])
def test_check_issuer(issuer: str) -> None:
    check_issuer("https://op.test/tenant/", dangerous_allow_http=False)
    with pytest.raises(OperatorError, match="cannot be an issuer"):
        check_issuer(issuer, dangerous_allow_http=False)


# -- the hosts of endpoints (D02) --


def pins(first: MemoryFirstHosts | None, *configured: str, name: str = "sign-in") -> Pins:
    return Pins(name, ISSUER, frozenset(configured), first, "name {} in `endpoint_hosts`")


async def moves(held: Pins, *hosts: str) -> str | None:
    """Where an endpoint moved to, as the refusal says, or None."""
    try:
        await held.hold(frozenset(hosts))
    except WorldError as refused:
        assert refused.reason is Reason.PROVIDER_UNAVAILABLE
        return str(refused)
    return None


MOVED = "an endpoint moved to `evil.test`; if that is right, name `evil.test` in `endpoint_hosts`"
MOVED_TOO = (
    "an endpoint moved to `evil.test`; if that is right, name `api.op.test`, `evil.test` in `endpoint_hosts`"
)


@pytest.mark.parametrize("first", [None, MemoryFirstHosts()], ids=["alone", "remembered"])
async def test_D02_the_hosts_of_the_first_good_document_are_those_of_all(
    first: MemoryFirstHosts | None,
) -> None:
    held = pins(first)
    assert await moves(held, "op.test", "api.op.test") is None
    assert await moves(held, "op.test", "evil.test") == MOVED
    assert await moves(held, "evil.test") == MOVED
    assert await moves(held, "api.op.test") is None


async def test_D02_what_was_seen_first_outlives_who_saw_it() -> None:
    first = MemoryFirstHosts()
    await pins(first).hold(frozenset({"api.op.test"}))
    later = pins(first)
    assert await moves(later, "evil.test", "api.op.test") == MOVED_TOO
    assert await moves(later, "api.op.test") is None
    assert await moves(later, "op.test") is None  # the issuer's own
    assert await moves(pins(first, name="tokens"), "evil.test") is None  # of another use, as yet unseen


async def test_D02_the_operator_accepts_a_move() -> None:
    first = MemoryFirstHosts()
    await pins(first).hold(frozenset({"op.test"}))
    held = pins(first, "new.test")
    assert await moves(held, "op.test", "new.test") is None
    assert await moves(held, "evil.test") == MOVED
    assert first.hosts == {"sign-in": frozenset({"op.test"})}


async def test_D02_without_the_store_nothing_is_guessed() -> None:
    first = MemoryFirstHosts()
    first.away = True
    held = pins(first)
    with pytest.raises(WorldError) as refused:
        await held.hold(frozenset({"evil.test"}))
    assert refused.value.reason is Reason.STATE_UNAVAILABLE
    first.away = False
    await pins(first).hold(frozenset({"op.test"}))
    assert await moves(held, "evil.test") == MOVED


async def test_D02_the_mend_names_all_hosts_at_once() -> None:
    """What is configured takes the place of what was first: one host named would make others move."""
    held = pins(None, "a.test")
    hosts = ("op.test", "a.test", "c.test", "b.test")
    told = await moves(held, *hosts)
    assert told == (
        "an endpoint moved to `b.test`, `c.test`; "
        "if that is right, name `a.test`, `b.test`, `c.test` in `endpoint_hosts`"
    )
    assert await moves(pins(None, "a.test", "b.test", "c.test"), *hosts) is None


@pytest.mark.parametrize(
    "hosts", [pytest.param(("op.test", "api.op.test"), id="well"), pytest.param(("evil.test",), id="moved")]
)
async def test_D02_a_store_that_lost_its_data_is_told_again(hosts: tuple[str, ...]) -> None:
    first = MemoryFirstHosts()
    running = pins(first)
    await running.hold(frozenset({"api.op.test"}))
    known = dict(first.hosts)
    first.hosts.clear()
    assert await moves(running, *hosts) == (MOVED if "evil.test" in hosts else None)
    assert first.hosts == known
    assert await moves(pins(first), "evil.test") == MOVED


async def test_D02_who_knows_does_not_learn_better_from_a_store(caplog: pytest.LogCaptureFixture) -> None:
    first = MemoryFirstHosts()
    running = pins(first)
    await running.hold(frozenset({"api.op.test"}))
    first.hosts.clear()
    await pins(first).hold(frozenset({"evil.test"}))  # a new worker, while the document had moved
    assert await moves(running, "evil.test") == MOVED
    assert await moves(running, "api.op.test") is None
    assert [one.getMessage() for one in caplog.records] == [
        "`sign-in` was first on `api.op.test`, `op.test`, the state says `evil.test`, `op.test`"
    ] * 2


async def test_D02_who_knows_goes_on_without_the_store() -> None:
    first = MemoryFirstHosts()
    running = pins(first)
    await running.hold(frozenset({"api.op.test"}))
    first.away = True
    assert await moves(running, "api.op.test") is None
    assert await moves(running, "evil.test") == MOVED


async def test_D02_what_was_taken_as_first_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ztproxy.providers")
    first = MemoryFirstHosts()
    held = pins(first)
    for _ in range(2):
        await held.hold(frozenset({"api.op.test"}))
    await moves(pins(first), "evil.test")
    assert [(one.levelno, one.getMessage()) for one in caplog.records] == [
        (logging.INFO, "`sign-in` is on `api.op.test`, `op.test`, as seen first")
    ] * 2
