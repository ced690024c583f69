"""One sign-in, from the redirect to the provider to the session it earns: begin, then callback, then finish.

Knows: what was sent and therefore what must come back (OAuth 2.0 RFC 6749 4.1, PKCE RFC 7636, issuer in the
answer RFC 9207, OpenID Connect Core 3.1.2). Promises: the code is handed out only for an answer to this very
attempt, from the provider that was asked, in time, at the address it was asked to come to; a session is made
only for the person and the strength that were asked for, and remembers no more than they showed. Nothing the
answer says is ever shown again. Leaves to `gateway.sign_in` that an attempt is taken from the store once,
that the browser is the one that began, and all talk with the provider.

Wrong order is our bug (`ValueError`); wrong data is a `ClientError` whose message begins with what is wrong.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from hmac import compare_digest

from ztproxy.core.assurance import LOWEST, Levels
from ztproxy.core.claims import Accepted
from ztproxy.core.identity import Identity, Session, Step
from ztproxy.core.reasons import Reason
from ztproxy.core.sessions import SessionLimits, at, limits_for, narrowed, proved, remembered, shorter
from ztproxy.errors import ClientError, WorldError

LIFETIME = 600.0  # seconds from the redirect to its answer
SECRET = re.compile(r"[A-Za-z0-9_-]{43}")  # 256 bits, base64url

# RFC 6749 4.1.2.1 and OpenID Connect Core 3.1.2.6: the answers to `prompt=none` that a person can mend.
_ASK_THE_PERSON = frozenset(
    {"login_required", "interaction_required", "account_selection_required", "consent_required"}
)
_AWAY = frozenset({"server_error", "temporarily_unavailable"})
_TOO_WEAK = frozenset({"unmet_authentication_requirements"})
_TOKENS = frozenset({"id_token", "access_token", "refresh_token", "token_type", "expires_in", "response"})
_CODE = re.compile(r"[ -~]{1,2048}")


def digest(secret: str) -> str:
    """What is stored of a secret and compared: its SHA-256, in hexadecimal."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a sign-in must bring. `max_age`: signed in at most so many seconds ago. `prompt`: as in Core
    3.1.2.1.

    `person` is `(issuer, subject)` for a step-up, which must come back as the same person; None for a
    sign-in.
    """

    rank: int = LOWEST
    acr_values: tuple[str, ...] = ()
    max_age: int | None = None
    prompt: str | None = None
    person: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class AskAgain:
    """The same sign-in once more, this time asking the person: `prompt=none` was not enough, what came back
    was weaker than asked for, or nobody has asked them since they were revoked.

    None can come a second time, for what is then asked has another `prompt`.
    """

    wanted: Wanted


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """One sign-in under way. `app` is the origin it lives at, `return_to` was judged to be ours by its
    caller, `as_of` is the number of the last lock that was in force here when it began (`core.locks`), `log`
    which log that is.

    Of `state` and of the browser's cookie only the hashes are kept, so that the record alone opens nothing.
    """

    provider: str
    issuer: str
    redirect_uri: str
    app: str
    return_to: str
    created: float
    as_of: int
    log: str
    state_hash: str
    binding_hash: str
    nonce: str = field(repr=False)
    code_verifier: str = field(repr=False)
    requires_iss: bool = False
    wanted: Wanted = Wanted()

    @classmethod
    def begin(
        cls,
        *,
        provider: str,
        issuer: str,
        redirect_uri: str,
        app: str,
        return_to: str,
        state: str,
        binding: str,
        nonce: str,
        code_verifier: str,
        now: float,
        as_of: int,
        log: str,
        requires_iss: bool,
        wanted: Wanted,
    ) -> LoginAttempt:
        """A new attempt; `state`, `binding`, `nonce` and `code_verifier` are four different secrets of 256
        bits."""
        secrets = (state, binding, nonce, code_verifier)
        if len(set(secrets)) < len(secrets) or not all(SECRET.fullmatch(one) for one in secrets):
            raise ValueError("an attempt needs four different secrets of 256 bits")
        return cls(
            provider=provider,
            issuer=issuer,
            redirect_uri=redirect_uri,
            app=app,
            return_to=return_to,
            created=now,
            as_of=as_of,
            log=log,
            state_hash=digest(state),
            binding_hash=digest(binding),
            nonce=nonce,
            code_verifier=code_verifier,
            requires_iss=requires_iss,
            wanted=wanted,
        )

    def callback(
        self,
        params: Sequence[tuple[str, str]],
        *,
        redirect_uri: str,
        binding: str,
        now: float,
    ) -> str | AskAgain:
        """Judges the provider's answer on the browser's way, decoded; the code, or `AskAgain`.

        `redirect_uri` is where the answer arrived, `binding` the browser's cookie. In this order, so that no
        later answer tells a stranger anything: form, state, browser, time, address, issuer, error, code.
        """
        answer = read_callback(params)
        if not compare_digest(digest(answer["state"]), self.state_hash):
            raise ClientError(Reason.LOGIN_STATE, "state: of another sign-in")
        if not compare_digest(digest(binding), self.binding_hash):
            raise ClientError(Reason.LOGIN_STATE, "state: begun in another browser")
        if now - self.created >= LIFETIME:
            raise ClientError(Reason.LOGIN_EXPIRED, "expired: begun too long ago")
        if redirect_uri != self.redirect_uri:
            # One callback path for each provider: the answer of A at the path of B is a mix-up (RFC 9700
            # 4.4.2).
            mixed = redirect_uri.rpartition("/")[2] != self.redirect_uri.rpartition("/")[2]
            reason = Reason.LOGIN_ISSUER if mixed else Reason.LOGIN_CALLBACK
            raise ClientError(reason, "redirect_uri: arrived somewhere else")
        # RFC 9207 2.4. INVARIANT: before the code leaves this function, so it never goes to the wrong
        # provider.
        if "iss" in answer and answer["iss"] != self.issuer:
            raise ClientError(Reason.LOGIN_ISSUER, "iss: another provider answered")
        if self.requires_iss and "iss" not in answer:
            raise ClientError(Reason.LOGIN_ISSUER, "iss_missing: this provider always names itself")
        if "error" in answer:
            return self._refused(answer["error"])
        if not _CODE.fullmatch(answer.get("code", "")):
            raise ClientError(Reason.LOGIN_CALLBACK, "code: missing or malformed")
        return answer["code"]

    def _refused(self, error: str) -> AskAgain:
        if error in _ASK_THE_PERSON and self.wanted.prompt == "none":
            return AskAgain(replace(self.wanted, prompt=None))
        if error in _AWAY:
            raise WorldError(Reason.PROVIDER_UNAVAILABLE, f"op_error: `{error}`")
        if error in _TOO_WEAK:
            raise ClientError(Reason.STEP_UP_FAILED, f"op_error: `{error}`")
        known = error if error in _ASK_THE_PERSON or error == "access_denied" else "other"
        raise ClientError(Reason.LOGIN_REFUSED, f"op_error: `{known}`")

    def stronger(self, accepted: Accepted, levels: Levels, now: float) -> AskAgain | None:
        """Whether to ask once more, since less came back than was asked for: some providers answer from what
        they remember, and look at what was asked only when they ask the person.

        Where the provider says nothing of when that was, it is not asked to, for it would be refused for not
        saying.
        """
        if self.wanted.prompt == "login" or self._is_of_another(accepted):
            return None
        if remembered(self._steps(accepted, levels, now, math.inf), math.inf, now)[0] >= self.wanted.rank:
            return None
        max_age = self.wanted.max_age if accepted.auth_time is None else 0
        return AskAgain(replace(self.wanted, prompt="login", max_age=max_age))

    def _is_of_another(self, accepted: Accepted) -> bool:
        return self.wanted.person not in (None, key_of(accepted.identity))

    def _steps(self, accepted: Accepted, levels: Levels, now: float, until: float) -> tuple[Step, ...]:
        # INVARIANT: from when the person showed who they are, and not from now: else the provider's memory
        # would renew ours with every redirect, without anybody being asked.
        proved_at = now if accepted.auth_time is None else accepted.auth_time
        return levels.steps(levels.rank(accepted.acr, accepted.amr), proved_at, until)

    def finish(
        self,
        accepted: Accepted,
        levels: Levels,
        limits: SessionLimits,
        now: float,
        refreshable: bool,
        skew: float = 60.0,
    ) -> Session:
        """The session a sign-in earns; its id is the store's to give. `skew` is how far the provider's clock
        may be from ours, in seconds.

        INVARIANT: whoever comes back too weak gets a refusal, never another redirect to the provider: that is
        the loop of a provider that cannot do what is asked. The one that `stronger` asks for comes before.
        """
        identity = accepted.identity
        if identity.issuer != self.issuer:
            raise ValueError("the claims are of another provider than the attempt")
        if self._is_of_another(accepted):
            raise ClientError(Reason.LOGIN_OTHER_PERSON, "sub_switch: another person came back")
        until = now + limits_for(limits, identity.groups)[1]
        rank, steps = remembered(self._steps(accepted, levels, now, until), until, now)
        if rank < self.wanted.rank:
            raise ClientError(Reason.STEP_UP_FAILED, "acr: weaker than asked for")
        session = Session(
            id="",
            identity=identity,
            provider=self.provider,
            created_at=now,
            authenticated_at=now if accepted.auth_time is None else accepted.auth_time,
            verified_at=now,
            expires_at=until,
            acr=accepted.acr,
            amr=accepted.amr,
            rank=rank,
            idp_session=accepted.idp_session,
            refreshable=refreshable,
            as_of=self.as_of,
            log=self.log,
            # The same `skew` as `accept` allows, so that who was asked with `max_age=0` and is accepted is
            # fresh, and not sent round once more.
            fresh=accepted.auth_time is not None and accepted.auth_time >= self.created - skew,
            steps=steps,
        )
        return narrowed(session, limits)

    def anew(self, accepted: Accepted, revoked_at: float | None) -> AskAgain | None:
        """Whether the person must be asked anew: not since `revoked_at`, the moment they were last revoked,
        have they shown the provider who they are. Else whoever was shut out would be let in again by the
        provider's memory of them, without a word.

        Where the provider says nothing of when it was, only the order of the log decides. Asked anew already
        and still not newer is a refusal, never another redirect: that is the loop of a provider that does not
        ask. `revoked_at` is by another clock than `auth_time`; what lies between is asked for once more.
        """
        asked = self.wanted.prompt == "login"
        if revoked_at is None or (accepted.auth_time is None and not asked):
            return None
        # Providers count whole seconds. Who was asked anew may have been asked within the second of the
        # revocation, and this sign-in began after it or would not have come so far.
        least = math.floor(revoked_at) if asked else revoked_at
        if accepted.auth_time is not None and accepted.auth_time >= least:
            return None
        if asked:
            raise ClientError(Reason.LOGIN_REVOKED, "auth_time: not asked since the revocation")
        return AskAgain(replace(self.wanted, prompt="login", max_age=0))

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> LoginAttempt:
        """What `to_bytes` wrote. A record of another version of ztproxy counts as expired: sign in again."""
        try:
            record = json.loads(raw)
            wanted = record.pop("wanted")
            wanted["acr_values"] = tuple(wanted["acr_values"])
            wanted["person"] = tuple(wanted["person"]) if wanted["person"] is not None else None
            return cls(**record, wanted=Wanted(**wanted))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ClientError(Reason.LOGIN_EXPIRED, "expired: begun under another version") from error


def read_callback(params: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The parameters of a callback, each given once, with a well-formed `state`.

    Tokens in the query are refused: we never ask for them there, so somebody else put them in (and a query is
    logged along the way). RFC 6749 3.1 forbids doubles; two readers would choose different ones.
    """
    answer = dict(params)
    if len(answer) != len(params):
        raise ClientError(Reason.LOGIN_CALLBACK, "duplicate: a parameter is given twice")
    if not _TOKENS.isdisjoint(answer):
        raise ClientError(Reason.LOGIN_CALLBACK, "front_channel_token: a token in the query")
    if not SECRET.fullmatch(answer.get("state", "")):
        raise ClientError(Reason.LOGIN_STATE, "state: missing or malformed")
    if "error" in answer and "code" in answer:
        raise ClientError(Reason.LOGIN_CALLBACK, "duplicate: an error and a code")
    return answer


def stepped_up(before: Session, after: Session) -> Session:
    """The session after its step-up: what the new sign-in proved besides what is remembered of the old ones,
    within the bounds of the old one.

    A step-up proves the person again but does not begin a new session: its absolute end stays, or comes
    earlier where the person's groups ask for that (T35). It stays on the device it is bound to. `before`
    decides the id and the revision the store compares, `after` which locks it came after; `acr`, `amr` and
    `authenticated_at` are of one sign-in, the new one.

    INVARIANT: the caller knows that no lock up to `after.as_of` has revoked `before`: those meet `after` no
    more.
    """
    if key_of(before.identity) != key_of(after.identity):
        raise ValueError("a step-up is of one person")
    expires_at = min(before.expires_at, before.created_at + after.expires_at - after.created_at)
    now = after.verified_at
    fresh, steps = _merged(at(before, now), after)
    rank, steps = remembered(steps, expires_at, now)
    bound = after if before.certificate is None else before
    return replace(
        after,
        id=before.id,
        revision=before.revision,
        created_at=before.created_at,
        expires_at=expires_at,
        idle=shorter(before.idle, after.idle),
        certificate=bound.certificate,
        device=bound.device,
        rank=rank,
        steps=steps,
        fresh=fresh,
    )


def _merged(before: Session, after: Session) -> tuple[bool, tuple[Step, ...]]:
    """Whether a session is fresh after its step-up, and what it has proved then.

    INVARIANT: `fresh` speaks of every rank the session has. What the provider remembered and what the person
    showed for this session are never added up to a rank that was shown: the more recent of the two that is
    enough is what counts.
    """
    if after.fresh and not before.fresh:
        return True, proved(after)
    if before.fresh and not after.fresh and after.rank <= before.rank:
        return True, proved(before)
    return after.fresh, (*proved(before), *proved(after))


def key_of(identity: Identity) -> tuple[str, str]:
    """Who somebody is: issuer and subject, never the e-mail (a mailbox gets a new owner; J77)."""
    return identity.issuer, identity.subject
