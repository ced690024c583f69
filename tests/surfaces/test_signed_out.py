"""The words for who has signed out: nothing is called ended that was not confirmed."""

from __future__ import annotations

import pytest

from ztproxy.gateway.logout import SignedOut
from ztproxy.surfaces.pages import Branding, Pages
from ztproxy.surfaces.signed_out import ended, unconfirmed

PAGES = Pages(Branding())
GONE, ONWARD = "https://app.test/.ztproxy/signed_out", "https://op.test/logout?a=1"


@pytest.mark.parametrize(
    ("number", "everywhere", "words"),
    [
        pytest.param(1, False, "Your session has ended for every app", id="here"),
        pytest.param(7, False, "Your session has ended for every app", id="here, of several"),
        pytest.param(1, True, "Your session, the only one, has ended", id="the only one"),
        pytest.param(7, True, "All your 7 sessions have ended", id="seven"),
        pytest.param(None, True, "All your sessions have ended", id="nobody could count them"),
    ],
)
@pytest.mark.parametrize("onward", [None, ONWARD])
def test_what_has_ended(number: int | None, everywhere: bool, words: str, onward: str | None) -> None:
    answer = ended(PAGES, SignedOut(onward, True, number), everywhere, GONE)
    text, fields = answer.body.decode(), dict(answer.fields)
    assert answer.status == 200 and words in text
    assert (f'href="{onward or GONE}"' in text) and (GONE in text) == (onward is None)
    assert fields.get(b"Refresh") == (None if onward is None else f"0; url={onward}".encode())
    assert ("you are signed out everywhere" in text.lower()) is everywhere


@pytest.mark.parametrize("onward", [None, ONWARD])
def test_what_nobody_knows(onward: str | None) -> None:
    answer = unconfirmed(PAGES, SignedOut(onward, False, 3), "r-1")
    text, fields = answer.body.decode(), dict(answer.fields)
    assert answer.status == 503 and fields[b"Retry-After"] == b"1" and b"Refresh" not in fields
    assert "cannot be confirmed" in text and "r-1" in text and "have ended" not in text
    assert (ONWARD in text) is (onward is not None)


def test_where_the_provider_is_told_is_no_business_of_logs() -> None:
    assert "op.test" not in repr(SignedOut(ONWARD, True, 1))
