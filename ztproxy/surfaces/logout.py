"""Where providers say that somebody is signed out: a form from their server, or a frame in a browser.

Knows: the two endpoints of Back-Channel Logout 1.0 (2.5 to 2.8) and Front-Channel Logout 1.0 (3). Promises:
back-channel answers are a bare 200 only for what holds everywhere, 400 with `invalid_request` for what will
never be accepted, and 429 or 503 for what may be sent again; none says why, none may be stored. A frame
shows an empty page, to the provider's own pages only, and never whether there was a session. Leaves
everything else to `gateway.logout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from ztproxy.core.reasons import Reason
from ztproxy.core.request import Field
from ztproxy.errors import ClientError, WorldError
from ztproxy.gateway.logout import Logout
from ztproxy.surfaces.answers import Answer
from ztproxy.surfaces.origins import host_of
from ztproxy.surfaces.pages import SAFE_FIELDS
from ztproxy.surfaces.portal import Asked, once

BACK_PATH = "/.ztproxy/logout/back/"
"""The provider's name behind it: its `backchannel_logout_uri`, at any host of ours."""
FRONT_PATH = "/.ztproxy/logout/front/"

_TOKEN = "logout_token"  # noqa: S105  (a parameter's name)
_JSON: Field = (b"Content-Type", b"application/json")
_LATER: Field = (b"Retry-After", b"1")
_DONE = Answer(200, SAFE_FIELDS, b"")
_REFUSED = Answer(400, (_JSON, *SAFE_FIELDS), b'{"error":"invalid_request"}')
_TOO_MANY = Answer(429, (_JSON, *SAFE_FIELDS, _LATER), b'{"error":"temporarily_unavailable"}')
_TRY_AGAIN = Answer(503, (_JSON, *SAFE_FIELDS, _LATER), b'{"error":"temporarily_unavailable"}')
# `X-Frame-Options` cannot name who may frame a page; the policy can.
_FRAMED = tuple(field for field in SAFE_FIELDS if field[0] != b"X-Frame-Options")
_EMPTY = b"<!doctype html><title></title>"


class LogoutPages:
    """`issuers` are the providers that may use a front channel: name and issuer."""

    def __init__(self, logout: Logout, issuers: Mapping[str, str]) -> None:
        self._logout = logout
        self._framed = {name: _page_framed_by(issuer) for name, issuer in issuers.items()}

    async def back(self, asked: Asked) -> Answer:
        """POST of `logout_token`; the last segment of the path names the provider."""
        try:
            form = await asked.form()
            token = once(form, _TOKEN)
            # A second token, in the query, is one that another reader might have taken.
            if token is None or any(name == _TOKEN for name, _ in asked.params):
                raise ClientError(Reason.LOGOUT_TOKEN, "logout_token: not there exactly once")
            address = asked.request.peer.address
            notice = await self._logout.back_channel(_provider(asked), token, asked.request_id, address)
        except ClientError as refusal:
            asked.outcome = asked.outcome._replace(decision="refuse", reasons=(refusal.reason,))
            return _TOO_MANY if refusal.reason is Reason.RATE_LIMITED else _REFUSED
        except WorldError as failure:
            asked.outcome = asked.outcome._replace(decision="fail", reasons=(failure.reason,))
            return _TRY_AGAIN
        asked.outcome = asked.outcome._replace(decision="sign_out", subject=notice.subject or "")
        return _DONE

    async def front(self, asked: Asked) -> Answer:
        """GET with `iss` and `sid`, in a frame of the provider's sign-out page."""
        name = _provider(asked)
        issuer, sid = asked.param("iss"), asked.param("sid")
        try:
            address = asked.request.peer.address
            await self._logout.front_channel(name, issuer, sid, asked.request_id, address)
        except ClientError as refusal:
            if refusal.reason is not Reason.RATE_LIMITED:
                raise
            asked.outcome = asked.outcome._replace(decision="refuse", reasons=(refusal.reason,))
            return _TOO_MANY
        asked.outcome = asked.outcome._replace(decision="sign_out")
        return self._framed[name]


def _provider(asked: Asked) -> str:
    return asked.request.path.readings[0][-1]


def _page_framed_by(issuer: str) -> Answer:
    parts = urlsplit(issuer.lower())
    origin = f"{parts.scheme}://{parts.netloc}"
    # Nothing else may get into the policy: a `;` would end its directive.
    framed_by = origin if host_of(origin) else "'none'"
    policy = f"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors {framed_by}"
    html: Field = (b"Content-Type", b"text/html; charset=utf-8")
    return Answer(200, (html, (b"Content-Security-Policy", policy.encode()), *_FRAMED), _EMPTY)
