"""Signing in with a security key: what the provider asks it, and what it makes of the answer.

Promises: each question is asked once and answered once, by the browser that the sign-in page was shown to; a
first key is registered only after the password, and registering it signs nobody in: it is asked right after.
Leaves judging an answer to `webauthn`, and the session to `provider_sign_in`.
"""

import json
import secrets

from aiohttp import web

from ztproxy.demo.pages import page, script
from ztproxy.demo.people import ONE_TIME_CODE, Person
from ztproxy.demo.provider_state import KeyQuestion, ProviderState
from ztproxy.demo.webauthn import NotProven, RelyingParty, encoded

_CHALLENGE_OCTETS = 32


def ask(state: ProviderState, sign_in: str, person: Person) -> web.Response:
    """The page on which the browser asks the key: for a new key where the person has none yet."""
    known = state.security_keys_of(person.username)
    party, challenge = RelyingParty(state.issuer), encoded(secrets.token_bytes(_CHALLENGE_OCTETS))
    if known:
        options = party.request_options(challenge, known)
    else:
        options = party.creation_options(challenge, person.sub, person.username, person.name, known)
    state.ask_key(sign_in, KeyQuestion(person.username, challenge, registers=not known))
    return page(
        "security_key",
        sign_in=sign_in,
        options=json.dumps(options),
        person=person,
        registers=not known,
        one_time_code=ONE_TIME_CODE,
    )


def learn(state: ProviderState, question: KeyQuestion, answer: str) -> None:
    """Keeps what the answer proves: a new key, or that a known one was used. Raises `NotProven`."""
    party, known = RelyingParty(state.issuer), state.security_keys_of(question.username)
    if not question.registers:
        state.keep_key(question.username, party.asserted(question.challenge, known, answer))
        return
    if known:  # two pages at once: the second would add a key with a password alone
        raise NotProven("A security key was registered in the meantime. Sign in with that one.")
    state.keep_key(question.username, party.registered(question.challenge, answer))


security_key_script = script("security_key.js")
