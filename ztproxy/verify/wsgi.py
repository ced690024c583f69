"""WSGI middleware (PEP 3333): no request reaches the application without a valid assertion.

    application = RequireIdentity(application, Verifier(jwks_url, audience))

The application finds a `VerifiedIdentity` in `environ["ztproxy.identity"]`. No client can put anything there:
what clients send arrives under `HTTP_…` keys only.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ztproxy.verify.identity import AssertionRejected
from ztproxy.verify.refusal import only_one, refuse
from ztproxy.verify.verifier import HEADER_NAME, Verifier

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

IDENTITY_KEY = "ztproxy.identity"
_HEADER_KEY = "HTTP_" + HEADER_NAME.upper().replace("-", "_")


class RequireIdentity:
    """Answers 401 (or 503 without a key set) itself, else calls the application with the identity."""

    def __init__(self, application: "WSGIApplication", verifier: Verifier) -> None:
        self._application = application
        self._verifier = verifier

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        try:
            # WSGI servers join repeated fields with a comma, which no assertion contains.
            received = environ.get(_HEADER_KEY)
            token = only_one([] if received is None else received.split(","))
            environ[IDENTITY_KEY] = self._verifier.verify(token)
        except AssertionRejected as rejected:
            status, headers, body = refuse(rejected)
            start_response(f"{status.value} {status.phrase}", headers)
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
        return self._application(environ, start_response)
