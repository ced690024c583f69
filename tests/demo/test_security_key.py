"""The key without the hardware refuses what a real one, and the browser before it, refuses."""

from __future__ import annotations

import pytest

from ztproxy.demo.security_key import SecurityKey
from ztproxy.demo.webauthn import RelyingParty, encoded

HERE = RelyingParty("http://localhost:4000")
CHALLENGE = encoded(bytes(32))


def test_it_answers_no_site_in_the_name_of_another() -> None:
    key = SecurityKey()
    options = HERE.creation_options(CHALLENGE, "sub", "carol", "Carol", ())
    with pytest.raises(LookupError, match="is not"):
        key.answer("http://evil.example", options)
    credential = HERE.registered(CHALLENGE, key.answer(HERE.origin, options))
    with pytest.raises(LookupError, match="is not"):
        key.answer("http://evil.example", HERE.request_options(CHALLENGE, [credential]))


def test_it_has_only_the_keys_it_made() -> None:
    options = HERE.creation_options(CHALLENGE, "sub", "carol", "Carol", ())
    credential = HERE.registered(CHALLENGE, SecurityKey().answer(HERE.origin, options))
    with pytest.raises(LookupError, match="none of the keys"):
        SecurityKey().answer(HERE.origin, HERE.request_options(CHALLENGE, [credential]))


def test_it_registers_once_and_only_what_it_can_make() -> None:
    key = SecurityKey()
    options = HERE.creation_options(CHALLENGE, "sub", "carol", "Carol", ())
    credential = HERE.registered(CHALLENGE, key.answer(HERE.origin, options))
    again = HERE.creation_options(CHALLENGE, "sub", "carol", "Carol", [credential])
    with pytest.raises(LookupError, match="already"):
        key.answer(HERE.origin, again)
    with pytest.raises(LookupError, match="no kind"):
        key.answer(HERE.origin, {**options, "pubKeyCredParams": [{"type": "public-key", "alg": -257}]})
