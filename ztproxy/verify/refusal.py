"""What a middleware answers where there is no valid assertion, and that it takes the header only once.

The answer says nothing of the reason (that goes to the log `ztproxy.verify`): 401, or 503 where the key set
could not be had. Both are `application/problem+json` (RFC 9457).
"""

import json
import logging
from collections.abc import Sequence
from http import HTTPStatus

from ztproxy.verify.identity import AssertionRejected, Rejection
from ztproxy.verify.verifier import HEADER_NAME

_log = logging.getLogger("ztproxy.verify")


def only_one(values: Sequence[str]) -> str:
    """The one value of the header. Two are refused: two programs would differ on which one counts."""
    if not values:
        raise AssertionRejected(Rejection.MISSING)
    if len(values) > 1:
        raise AssertionRejected(Rejection.DUPLICATED)
    return values[0]


def refuse(rejected: AssertionRejected) -> tuple[HTTPStatus, list[tuple[str, str]], bytes]:
    """Logs the reason and gives status, header fields and body of the answer."""
    _log.warning("%s", rejected)
    headers = [("Content-Type", "application/problem+json"), ("Cache-Control", "no-store")]
    if rejected.reason is Rejection.KEYS_UNAVAILABLE:
        status = HTTPStatus.SERVICE_UNAVAILABLE
        detail = "the keys that verify the caller's identity cannot be had at the moment"
        headers.append(("Retry-After", "5"))
    else:
        status = HTTPStatus.UNAUTHORIZED
        detail = f"the request carries no valid {HEADER_NAME}"
        # RFC 9110 §11.6.1: a 401 names a challenge. No client can answer this one; only ztproxy can.
        headers.append(("WWW-Authenticate", "Ztproxy-Assertion"))
    body = json.dumps(
        {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
    ).encode()
    headers.append(("Content-Length", str(len(body))))
    return status, headers, body
