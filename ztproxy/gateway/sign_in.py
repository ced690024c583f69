"""Signing in, driven through the ports. The only creator of sessions.

Knows: the order of the steps; each returns here and never to the next step. Promises: a transaction is used
once, by the browser that began it; a session is made (or stepped up) only after every check of `core.login`
and `core.claims`, and only where no revocation overtook the sign-in (INV-5); whoever is refused leaves every
session as it was; a new handle at each sign-in and step-up (T12); a session belongs to the device its sign-in
ended on, if that showed one (T32). Leaves to the portal: cookies, redirects and pages, that `return_to` is
ours (`core.returning`), and that `app` is an origin of ours from the configuration, never from a header
(F17).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from ztproxy.core.assurance import LOWEST, Levels
from ztproxy.core.claims import Accepted, Expectation
from ztproxy.core.decision import on_its_device
from ztproxy.core.device import NoDevice, OnDevice
from ztproxy.core.identity import Session, SessionSecrets
from ztproxy.core.login import (
    LIFETIME,
    AskAgain,
    LoginAttempt,
    Wanted,
    digest,
    key_of,
    read_callback,
    stepped_up,
)
from ztproxy.core.rates import Rate, source_of
from ztproxy.core.reasons import Reason
from ztproxy.core.sessions import SessionLimits, rebound
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.heard import Heard
from ztproxy.gateway.parallel import (
    COOKIE_AGE,
    SIGN_IN_COOKIE,
    cookie_name,
    cookie_value,
    make_room,
    new_secret,
    secret_in,
)
from ztproxy.gateway.per_person import SessionsPerPerson
from ztproxy.gateway.ports import Clock, Locks, OneTimeStore, Seen, SessionStore, Tokens
from ztproxy.gateway.provider import Provider
from ztproxy.gateway.rates import Buckets, Sender
from ztproxy.gateway.refresh import DeviceStands, Refresher
from ztproxy.gateway.tickets import Tickets

CALLBACK_PATH = "/.ztproxy/callback/"
STARTS_PER_SECOND = 200
"""In one worker (T24): a flood of sign-ins must not fill the store. As many for whoever begins few."""
_STARTS = Rate(STARTS_PER_SECOND, 1.0, STARTS_PER_SECOND)
FEW = Rate(10, 60.0, 5)
"""Whoever begins no more than these is not counted with those who do: else ten addresses, each within its own
limit, keep everybody from signing in. It takes 1,200 of them to use up what is kept for those of few."""
_KIND = "login"
_ATTEMPTS = 3


class TooManyStarts(ClientError):
    """More sign-ins were begun than is allowed; in `wait` seconds one more will be."""

    def __init__(self, message: str, wait: float) -> None:
        super().__init__(Reason.LOGIN_TOO_MANY, message)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class Started:
    """Send the browser to `redirect_url`, set one cookie for `max_age` seconds and clear those of
    `clear_cookies`."""

    redirect_url: str = field(repr=False)
    cookie_name: str
    cookie_value: str = field(repr=False)
    max_age: int
    clear_cookies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """Signed in: `handle` is for `host`; `return_to` is what `start` was given. `notes` are for the audit
    line."""

    handle: str = field(repr=False)
    return_to: str
    host: str
    session: Session
    clear_cookies: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """Not signed in, in the browser that began: why, and what a fresh start needs (F05). No session was
    changed.

    `detail` is for the log alone.
    """

    reason: Reason
    detail: str
    provider: str
    return_to: str
    clear_cookies: tuple[str, ...]


class SignIn:
    """`tickets` and `refresh` belong to it because both hand out what a sign-in earned.

    `randomness(n)` gives n unpredictable bytes (`secrets.token_bytes`). `per_person` None sets no limit,
    `device_stands` is asked at each refresh. `buckets` count the sign-ins begun, all of the worker's (without
    them it counts for itself), and `per_address` is how many one sender may begin; None tells no senders
    apart. All methods raise `WorldError` when the store is away, `start` also when the provider is, or the
    lease.
    """

    def __init__(
        self,
        providers: Mapping[str, Provider],
        sessions: SessionStore,
        one_time: OneTimeStore,
        locks: Locks,
        levels: Levels,
        limits: SessionLimits,
        clock: Clock,
        randomness: Callable[[int], bytes],
        heard: Heard,
        per_person: SessionsPerPerson | None = None,
        device_stands: DeviceStands | None = None,
        buckets: Buckets | None = None,
        per_address: Rate | None = None,
    ) -> None:
        self._providers, self._sessions, self._one_time = providers, sessions, one_time
        self._levels, self._limits, self._clock, self._randomness = levels, limits, clock, randomness
        self._heard, self._per_person = heard, per_person
        self._buckets, self._per_address = buckets or Buckets(clock), per_address
        self._refresher = Refresher(providers, sessions, locks, clock, heard, limits, device_stands)
        self.tickets = Tickets(sessions, one_time, clock, randomness)

    async def start(
        self,
        provider_name: str,
        *,
        app: str,
        return_to: str,
        cookies: Mapping[str, str],
        existing: Session | None = None,
        rank: int = LOWEST,
        max_age: float | None = None,
        prompt: str | None = None,
        by_hand: bool = False,
        address: str = "",
    ) -> Started:
        """Begins a sign-in, or with `existing` a step-up of that person, at the origin `app`.

        `cookies` are the browser's, `address` is its peer's; `by_hand` is a person having pressed the button
        of the loop page. Raises `ClientError`: `NO_SUCH_ROUTE` for an unknown provider, `LOGIN_TOO_MANY` for
        a loop, `TooManyStarts` for a flood.
        """
        provider = self._providers.get(provider_name)
        if provider is None or (existing is not None and existing.identity.issuer != provider.client.issuer):
            raise ClientError(Reason.NO_SUCH_ROUTE, "provider: none of this name, or not this person's")
        wanted = Wanted(
            rank=rank,
            acr_values=self._levels.acr_values_for(rank),
            max_age=None if max_age is None else int(max_age),
            prompt=prompt,
            person=None if existing is None else key_of(existing.identity),
        )
        clear = make_room(SIGN_IN_COOKIE, cookies, self._clock(), by_hand)
        # Before the budget of all: what one sender begins too many uses up nobody's.
        sender = Sender(source_of(address))
        self._count("sign_ins", sender, self._per_address, "flood: too many from one address")
        # A step-up is of somebody known, wherever they are.
        few = (
            self._per_address is None
            or self._buckets.spend("sign_ins_few", sender if existing is None else existing.id, FEW).allowed
        )
        return await self._begin(provider_name, app, return_to, wanted, clear, few)

    async def _begin(
        self, name: str, app: str, return_to: str, wanted: Wanted, clear: tuple[str, ...], few: bool = True
    ) -> Started:
        # INVARIANT: read before anything is sent anywhere. A lock that comes later meets what this sign-in
        # earns, however late it ends.
        (as_of, log), now = self._heard.as_of(), self._clock()
        # What follows an answer of the provider is no part of a flood: there is one for each sign-in at most,
        # and it took a person the provider knows, for no surface begins one with `prompt=none`.
        everybody = "sign_ins_of_few" if few else "sign_ins_of_many"
        self._count(everybody, "", _STARTS, "flood: too many sign-ins in this worker")
        provider = self._providers[name]
        client = provider.client
        state, binding, nonce, code_verifier = (new_secret(self._randomness) for _ in range(4))
        attempt = LoginAttempt.begin(
            provider=name,
            issuer=client.issuer,
            redirect_uri=f"{app}{CALLBACK_PATH}{name}",
            app=app,
            return_to=return_to,
            state=state,
            binding=binding,
            nonce=nonce,
            code_verifier=code_verifier,
            now=now,
            as_of=as_of,
            log=log,
            requires_iss=await client.requires_iss_parameter(),
            wanted=wanted,
        )
        claims = self._levels.claims_parameter(wanted.rank, wanted.max_age)
        url = await client.authorization_url(
            redirect_uri=attempt.redirect_uri,
            state=state,
            nonce=nonce,
            code_verifier=code_verifier,
            acr_values=() if provider.asks_by == "claims" else wanted.acr_values,
            max_age=wanted.max_age,
            prompt=wanted.prompt,
            claims=None if provider.asks_by == "acr_values" else claims or None,
        )
        await self._one_time.put(_KIND, attempt.state_hash, attempt.to_bytes(), LIFETIME)
        cookie = cookie_name(SIGN_IN_COOKIE, attempt.state_hash)
        return Started(url, cookie, cookie_value(binding, now), COOKIE_AGE, clear)

    def _count(self, limit: str, key: str, rate: Rate | None, why: str) -> None:
        if rate is not None:
            spent = self._buckets.spend(limit, key, rate)
            if not spent.allowed:
                raise TooManyStarts(why, spent.wait)

    async def callback(
        self,
        params: Sequence[tuple[str, str]],
        cookies: Mapping[str, str],
        redirect_uri: str,
        current_handle: str | None,
        seen: Seen | None = None,
        device: OnDevice | NoDevice | None = None,
    ) -> Finished | Refused | Started:
        """The provider's answer: `params` of the query, decoded and in order, at the address `redirect_uri`.

        `current_handle` is the browser's session at this host, if any; `seen` is where the browser is, for
        the record, and `device` what this connection showed of its device. `Started` is one more try, in
        which the provider asks the person. Raises `ClientError` when this browser began no such sign-in: then
        nothing of the transaction may be told, not even where it wanted to return to.
        """
        state_hash = digest(read_callback(params)["state"])
        cookie = cookie_name(SIGN_IN_COOKIE, state_hash)
        # INVARIANT: taken before it is judged, whatever is wrong with the answer: a transaction is never
        # tried twice.
        raw = await self._one_time.take(_KIND, state_hash)
        if raw is None:
            # The cookie outlives the transaction, so it tells who came late from who never began.
            reason = Reason.LOGIN_EXPIRED if cookie in cookies else Reason.LOGIN_STATE
            raise ClientError(reason, "state: unknown, used or too old")
        attempt = LoginAttempt.from_bytes(raw)
        try:
            return await self._answered(
                attempt,
                params,
                cookie,
                secret_in(cookies.get(cookie)),
                redirect_uri,
                current_handle,
                seen,
                device,
            )
        except (ClientError, WorldError) as failure:
            if failure.reason is Reason.LOGIN_STATE:
                raise
            return Refused(failure.reason, str(failure), attempt.provider, attempt.return_to, (cookie,))

    async def _answered(
        self,
        attempt: LoginAttempt,
        params: Sequence[tuple[str, str]],
        cookie: str,
        binding: str,
        redirect_uri: str,
        current_handle: str | None,
        seen: Seen | None,
        device: OnDevice | NoDevice | None,
    ) -> Finished | Started:
        answer = attempt.callback(params, redirect_uri=redirect_uri, binding=binding, now=self._clock())
        provider = self._providers.get(attempt.provider)
        if provider is None or provider.client.issuer != attempt.issuer:
            raise ClientError(Reason.LOGIN_EXPIRED, "expired: the provider was configured anew")
        if isinstance(answer, AskAgain):
            return await self._begin(
                attempt.provider, attempt.app, attempt.return_to, answer.wanted, (cookie,)
            )
        tokens = await provider.client.exchange(
            code=answer, code_verifier=attempt.code_verifier, redirect_uri=attempt.redirect_uri
        )
        expected = Expectation(
            nonce=attempt.nonce,
            state=dict(params)["state"],
            access_token=tokens.access_token,
            max_age=attempt.wanted.max_age,
        )
        accepted = await self._vouched(provider, attempt, tokens, expected)
        # INVARIANT: asked before any lock is. What it begins reads the log anew, and a revocation since is
        # met by asking the person, whom it asks in any case (`LoginAttempt.anew`).
        again = attempt.stronger(accepted, self._levels, self._clock())
        if again is not None:
            return await self._begin(
                attempt.provider, attempt.app, attempt.return_to, again.wanted, (cookie,)
            )
        refreshable = tokens.refresh_token is not None
        session = attempt.finish(
            accepted, self._levels, self._limits, self._clock(), refreshable, provider.rules.skew
        )
        # INVARIANT: bound before any lock is asked, so that one on the device meets it.
        session = rebound(session, device) if isinstance(device, OnDevice) else session
        self._heard.check(session, attempt.as_of)
        again = attempt.anew(accepted, self._heard.revoked_at(session))
        if again is not None:
            return await self._begin(
                attempt.provider, attempt.app, attempt.return_to, again.wanted, (cookie,)
            )
        host = urlsplit(attempt.app).hostname or ""
        session, handle = await self._establish(attempt, session, tokens, host, current_handle, seen, device)
        return Finished(handle, attempt.return_to, host, session, (cookie,), accepted.notes)

    async def _vouched(
        self, provider: Provider, attempt: LoginAttempt, tokens: Tokens, expected: Expectation
    ) -> Accepted:
        try:
            return await provider.vouch(tokens, expected, self._clock)
        except ClientError as refusal:
            asked = attempt.wanted.prompt == "login" and attempt.wanted.rank <= LOWEST
            if asked and refusal.reason is Reason.STEP_UP_FAILED:
                # Asked anew after a revocation, the provider remembered instead (`LoginAttempt.anew`).
                raise ClientError(Reason.LOGIN_REVOKED, str(refusal)) from refusal
            raise

    async def _establish(
        self,
        attempt: LoginAttempt,
        session: Session,
        tokens: Tokens,
        host: str,
        current: str | None,
        seen: Seen | None,
        device: OnDevice | NoDevice | None,
    ) -> tuple[Session, str]:
        secrets = SessionSecrets(refresh_token=tokens.refresh_token, id_token=tokens.id_token)
        new = attempt.wanted.person is None
        if new:
            # Whoever was signed in here before, the same person or another, is so no longer; nothing is
            # carried over.
            replaces = current if current is not None and await self._is_of(current, host) else None
            handle = await self._sessions.create(session, secrets, host, replaces, seen)
        else:
            handle = await self._step_up(session, secrets, host, current, device)
        loaded = await self._sessions.load(handle)
        if loaded is None:
            raise ClientError(Reason.SESSION_UNKNOWN, "session: ended as soon as it began")
        if new and self._per_person is not None:
            await self._per_person.signed_in(loaded.session)
        return loaded.session, handle

    async def _is_of(self, handle: str, host: str) -> bool:
        loaded = await self._sessions.load(handle)
        return loaded is not None and loaded.host == host

    async def _step_up(
        self,
        session: Session,
        secrets: SessionSecrets,
        host: str,
        current: str | None,
        device: OnDevice | NoDevice | None,
    ) -> str:
        """INVARIANT: a step-up never creates a session: one that was revoked meanwhile stays revoked."""
        for _ in range(_ATTEMPTS):
            loaded = None if current is None else await self._sessions.load(current)
            if current is None or loaded is None or loaded.host != host:
                raise ClientError(Reason.SESSION_UNKNOWN, "session: there is none to step up")
            if key_of(loaded.session.identity) != key_of(session.identity):
                raise ClientError(Reason.LOGIN_OTHER_PERSON, "sub_switch: another person is signed in here")
            if loaded.session.expires_at <= self._clock():
                raise ClientError(Reason.SESSION_EXPIRED, "session: it ended meanwhile")
            # INVARIANT: a session is stepped up on its own device alone, or a copied cookie would come to the
            # strength its owner never gave it (T32).
            if device is not None and not on_its_device(loaded.session, device):
                raise ClientError(Reason.DEVICE_MISMATCH, "device: the session is bound to another one")
            # INVARIANT: what is stepped up stands, by a log as new as the step-up. Its new `as_of` would hide
            # it from every lock before that.
            self._heard.check(loaded.session, session.as_of)
            before = await self._sessions.secrets(current)
            kept = secrets
            if secrets.refresh_token is None and before is not None and before.refresh_token is not None:
                kept = replace(secrets, refresh_token=before.refresh_token)
            after = replace(stepped_up(loaded.session, session), refreshable=kept.refresh_token is not None)
            handle = await self._sessions.replace(current, after, kept)
            if handle is not None:
                return handle
        raise WorldError(Reason.STATE_UNAVAILABLE, "session: it changes all the time")

    async def refresh(self, handle: str, session: Session) -> Session | None:
        """See `gateway.refresh`."""
        return await self._refresher.refresh(handle, session)
