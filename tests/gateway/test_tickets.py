"""Single sign-on over hosts: the dance of three steps, and everybody who tries to cut in."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.worlds.signing_in import Stage, on_device, stage
from ztproxy.core.device import NoDevice, OnDevice
from ztproxy.core.identity import Session
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.tickets import LIFETIME, Invitation, Redeemed

Shown = OnDevice | NoDevice | None
NONE_SHOWN = NoDevice(Reason.DEVICE_CERTIFICATE_REQUIRED)
WIKI, MAIL = "https://wiki.test", "https://mail.test:8443"


@pytest.fixture
async def on() -> AsyncIterator[Stage]:
    async with stage() as built:
        yield built


@dataclass
class AppHost:
    """The browser's cookies at one app's host, and the steps of the dance there and at the login."""

    on: Stage
    origin: str = WIKI
    cookies: dict[str, str] = field(default_factory=dict)

    def invites(self, by_hand: bool = False) -> Invitation:
        invitation = self.on.sign_in.tickets.invite(self.cookies, by_hand=by_hand)
        for name in invitation.clear_cookies:
            del self.cookies[name]
        self.cookies[invitation.cookie_name] = invitation.cookie_value
        return invitation

    async def ticket(self, handle: str, return_to: str = "/page") -> str:
        binding = self.invites().binding_hash
        return await self.on.sign_in.tickets.issue(handle, self.origin, binding, return_to)

    async def redeems(self, code: str, origin: str | None = None, device: Shown = None) -> Redeemed:
        return await self.on.sign_in.tickets.redeem(code, origin or self.origin, self.cookies, device)


async def refused(host: AppHost, code: str, origin: str | None = None, device: Shown = None) -> Reason:
    before = host.on.sessions()
    with pytest.raises(ClientError) as failure:
        await host.redeems(code, origin, device)
    assert host.on.sessions() == before
    return failure.value.reason


async def test_the_dance(on: Stage) -> None:
    finished = await on.alice.is_signed_in()
    wiki, mail = AppHost(on), AppHost(on, MAIL)
    for host in (wiki, mail):
        redeemed = await host.redeems(await host.ticket(finished.handle, return_to="/page?x=1"))
        assert (redeemed.return_to, redeemed.host) == ("/page?x=1", urlsplit(host.origin).hostname)
        assert redeemed.clear_cookies == tuple(host.cookies)
        loaded = await on.state.load(redeemed.handle)
        assert loaded is not None
        assert (loaded.session.id, loaded.host) == (finished.session.id, redeemed.host)
    assert len(on.sessions()) == 1
    await on.state.end(finished.handle)
    assert await on.state.load(redeemed.handle) is None


async def test_several_tabs(on: Stage) -> None:
    handle = (await on.alice.is_signed_in()).handle
    wiki = AppHost(on)
    codes = [await wiki.ticket(handle, return_to=f"/{tab}") for tab in "abc"]
    assert [(await wiki.redeems(code)).return_to for code in reversed(codes)] == ["/c", "/b", "/a"]


async def test_a_ticket_works_once(on: Stage) -> None:
    wiki = AppHost(on)
    code = await wiki.ticket((await on.alice.is_signed_in()).handle)
    await wiki.redeems(code)
    assert await refused(wiki, code) is Reason.LOGIN_TICKET


@pytest.mark.parametrize(
    "attack",
    [
        "another_browser",
        "no_cookie",
        "another_invitation",
        "another_origin",
        "another_port",
        "too_late",
        "too_late_by_our_clock",
    ],
)
async def test_a_ticket_that_is_not_for_this(on: Stage, attack: str) -> None:
    wiki = AppHost(on)
    code = await wiki.ticket((await on.alice.is_signed_in()).handle)
    origin = None
    match attack:
        case "another_browser":
            wiki.cookies = dict.fromkeys(wiki.cookies, f"1.{'A' * 43}")
        case "no_cookie":
            wiki.cookies.clear()
        case "another_invitation":
            name = next(iter(wiki.cookies))
            wiki.cookies[name] = AppHost(on).invites().cookie_value
        case "another_origin":
            origin = MAIL
        case "another_port":
            origin = WIKI + ":8443"
        case "too_late":
            on.clock.now += LIFETIME
        case "too_late_by_our_clock":
            on.state.values = {key: (value, 9e9) for key, (value, _) in on.state.values.items()}
            on.clock.now += LIFETIME
    assert await refused(wiki, code, origin) is Reason.LOGIN_TICKET
    assert not on.state.values  # whatever was wrong, it is used up


@pytest.mark.parametrize("code", ["", "x", "0" * 8 + "." + "A" * 42, "A" * 8 + "." + "A" * 43, "0" * 99999])
async def test_a_malformed_code_touches_nothing(on: Stage, code: str) -> None:
    on.state.away = True
    with pytest.raises(ClientError) as failure:
        await AppHost(on).redeems(code)
    assert failure.value.reason is Reason.LOGIN_TICKET


async def test_an_unknown_code(on: Stage) -> None:
    assert await refused(AppHost(on), "0" * 8 + "." + "A" * 43) is Reason.LOGIN_TICKET


@pytest.mark.parametrize("binding", ["", "0" * 63, "0" * 65, "G" * 64, "0" * 64 + "\n"])
async def test_no_ticket_for_a_malformed_binding(on: Stage, binding: str) -> None:
    handle = (await on.alice.is_signed_in()).handle
    with pytest.raises(ClientError) as failure:
        await on.sign_in.tickets.issue(handle, WIKI, binding, "/")
    assert failure.value.reason is Reason.LOGIN_TICKET
    assert not on.state.values


@pytest.mark.parametrize("when", ["before_issuing", "before_redeeming"])
async def test_a_session_that_has_ended(on: Stage, when: str) -> None:
    handle = (await on.alice.is_signed_in()).handle
    wiki = AppHost(on)
    if when == "before_issuing":
        await on.state.end(handle)
        with pytest.raises(ClientError) as failure:
            await wiki.ticket(handle)
        assert failure.value.reason is Reason.SESSION_UNKNOWN
        return
    code = await wiki.ticket(handle)
    await on.state.end(handle)
    assert await refused(wiki, code) is Reason.SESSION_UNKNOWN


@pytest.mark.parametrize(
    ("was", "now", "bound"),
    [
        pytest.param({}, None, (None, None), id="no_certificates_anywhere"),
        pytest.param({}, NONE_SHOWN, (None, None), id="asked_and_none_shown"),
        pytest.param({}, on_device("t1", "d1"), ("t1", "d1"), id="binds_where_the_first_is_seen"),
        pytest.param({"certificate": "t1"}, on_device("t1"), ("t1", None), id="the_same"),
        pytest.param({"certificate": "t1", "device": "d1"}, None, ("t1", "d1"), id="not_asked_here"),
        pytest.param(
            {"certificate": "t1", "device": "d1"}, on_device("t2", "d1"), ("t1", "d1"), id="X28_renewed"
        ),
    ],
)
async def test_a_session_comes_to_a_device(
    on: Stage, was: dict[str, Any], now: Shown, bound: tuple[str | None, str | None]
) -> None:
    finished = await on.alice.is_signed_in()
    record = on.state.sessions[finished.session.id]
    record.session = replace(record.session, **was)
    wiki = AppHost(on)
    redeemed = await wiki.redeems(await wiki.ticket(finished.handle), device=now)
    for handle in (redeemed.handle, finished.handle):
        loaded = await on.state.load(handle)
        assert loaded is not None
        assert (loaded.session.certificate, loaded.session.device) == bound
        assert await on.state.secrets(handle) == record.secrets


@pytest.mark.parametrize(
    ("was", "now"),
    [
        pytest.param({"certificate": "t1"}, on_device("t2"), id="X27_another_certificate"),
        pytest.param({"certificate": "t1"}, NONE_SHOWN, id="X27_asked_and_none_shown"),
        pytest.param({"certificate": "t1", "device": "d1"}, on_device("t2", "d2"), id="X27_another_device"),
    ],
)
async def test_T32_a_session_stays_on_its_device(on: Stage, was: dict[str, Any], now: Shown) -> None:
    finished = await on.alice.is_signed_in()
    record = on.state.sessions[finished.session.id]
    record.session = replace(record.session, **was)
    wiki = AppHost(on)
    code = await wiki.ticket(finished.handle)
    assert await refused(wiki, code, device=now) is Reason.DEVICE_MISMATCH
    assert await refused(wiki, code) is Reason.LOGIN_TICKET  # it is used up


async def test_no_session_that_has_ended_comes_to_a_device(on: Stage) -> None:
    wiki, handle = AppHost(on), (await on.alice.is_signed_in()).handle
    code = await wiki.ticket(handle)
    await on.state.end(handle)
    assert await refused(wiki, code, device=on_device("t1")) is Reason.SESSION_UNKNOWN


class Restless:
    """A store in which a session changes between reading and writing, `times` times: so does `change`."""

    def __init__(self, on: Stage, times: int, **change: Any) -> None:
        self._on, self._times, self._change = on, times, change

    async def update(self, handle: str, session: Session, secrets: Any) -> bool:
        if self._times:
            self._times -= 1
            record = self._on.state.sessions[session.id]
            record.session = replace(
                record.session, **self._change, revision=record.session.revision + 1, verified_at=1.0
            )
        return await self._on.state.update(handle, session, secrets)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._on.state, name)


@pytest.mark.parametrize("times", [2, 3])
async def test_a_session_that_changes_while_it_comes_to_a_device(on: Stage, times: int) -> None:
    finished = await on.alice.is_signed_in()
    wiki = AppHost(on)
    code = await wiki.ticket(finished.handle)
    on.sign_in.tickets._sessions = Restless(on, times)
    if times < 3:
        await wiki.redeems(code, device=on_device("t1"))
        session = await on.alice.session()
        assert session is not None
        assert (session.certificate, session.verified_at) == ("t1", 1.0)
    else:
        with pytest.raises(WorldError) as failure:
            await wiki.redeems(code, device=on_device("t1"))
        assert failure.value.reason is Reason.STATE_UNAVAILABLE
        assert len(on.state.sessions[finished.session.id].handles) == 1


async def test_of_two_devices_at_once_one_gets_the_session(on: Stage) -> None:
    finished = await on.alice.is_signed_in()
    wiki = AppHost(on)
    code = await wiki.ticket(finished.handle)
    on.sign_in.tickets._sessions = Restless(on, 1, certificate="t2")
    with pytest.raises(ClientError) as failure:
        await wiki.redeems(code, device=on_device("t1"))
    assert failure.value.reason is Reason.DEVICE_MISMATCH
    session = await on.alice.session()
    assert session is not None and session.certificate == "t2"


async def test_a_redirect_loop_stops(on: Stage) -> None:
    wiki = AppHost(on)
    for _ in range(5):
        wiki.invites()
    with pytest.raises(ClientError) as failure:
        wiki.invites()
    assert failure.value.reason is Reason.LOGIN_TOO_MANY
    wiki.invites(by_hand=True)
    assert len(wiki.cookies) == 5


async def test_secrets_are_not_shown(on: Stage) -> None:
    finished = await on.alice.is_signed_in()
    wiki = AppHost(on)
    code = await wiki.ticket(finished.handle)
    invitation = wiki.invites()
    assert invitation.cookie_value not in repr(invitation)
    redeemed = await wiki.redeems(code)
    assert redeemed.handle not in repr(redeemed)
    assert redeemed.handle != finished.handle
