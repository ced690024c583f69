"""Every refusal and failure of the admin API, as a problem document (RFC 9457).

Knows: the kinds of problems, their status and title. Promises: the kind is stable, programs hang on it;
`detail` is for people and holds no secret, no file path and no stack trace (A24). Leaves raising to whoever
refuses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum

from ztproxy.core.identity import JSON

TYPE = "urn:ztproxy:problem:"
"""What a problem's `type` begins with; its kind follows."""

RETRY_LATER = {"Retry-After": "1"}


class Kind(StrEnum):
    """`Kind.X` is its name in `type`; `.status` and `.headline` (the title) go with it, always the same (RFC
    9457 3.1.3)."""

    status: int
    headline: str

    def __new__(cls, value: str, status: int, headline: str) -> Kind:
        member = str.__new__(cls, value)
        member._value_ = value
        member.status = status
        member.headline = headline
        return member

    BAD_REQUEST = "bad_request", 400, "The request cannot be understood"
    INVALID = "invalid", 400, "A field cannot be accepted"
    UNAUTHENTICATED = "unauthenticated", 401, "Say who you are"
    FORBIDDEN = "forbidden", 403, "Your role does not allow this"
    CROSS_SITE = "cross_site", 403, "Another site sent this request"
    NOT_FOUND = "not_found", 404, "There is nothing here"
    METHOD_NOT_ALLOWED = "method_not_allowed", 405, "This method is not allowed here"
    TIMEOUT = "timeout", 408, "The request took too long to arrive"
    CONFLICT = "conflict", 409, "This does not go with what there is"
    IDEMPOTENCY_PENDING = "idempotency_pending", 409, "The first request with this key is still under way"
    TOO_LARGE = "too_large", 413, "The request is too large"
    MEDIA_TYPE = "media_type", 415, "The body must be JSON"
    WRONG_HOST = "wrong_host", 421, "This host name is not served here"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch", 422, "This idempotency key was used for another request"
    RATE_LIMITED = "rate_limited", 429, "Too many requests"
    INTERNAL = "internal", 500, "Something went wrong on our side"
    UNAVAILABLE = "unavailable", 503, "Something ztproxy depends on is away"
    AUDIT_UNAVAILABLE = "audit_unavailable", 503, "The audit log cannot be written, so nothing was done"
    NOT_APPLIED = "not_applied", 503, "Nothing was done"
    UNCONFIRMED = "applied_unconfirmed", 503, "In force where it was heard, perhaps not yet everywhere"


class Problem(Exception):
    """A refusal on its way to whoever asked. `field` names what is wrong with the request, dots between the
    steps; `more` are further members of the document, `headers` further header fields of the answer."""

    def __init__(
        self,
        kind: Kind,
        detail: str = "",
        field: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, JSON] | None = None,
    ) -> None:
        super().__init__(kind)
        self.kind, self.detail, self.field = kind, detail, field
        self.headers, self.more = dict(headers or {}), dict(more or {})
        if kind.status == 503:
            self.headers |= RETRY_LATER

    def document(self, request_id: str) -> bytes:
        """`instance` is the request's id, under which the logs have it too."""
        members: dict[str, JSON] = {
            "type": f"{TYPE}{self.kind}",
            "title": self.kind.headline,
            "status": self.kind.status,
            "detail": self.detail,
            "instance": request_id,
            "field": self.field,
            **self.more,
        }
        return json.dumps({name: value for name, value in members.items() if value != ""}).encode()
