"""What an application behind ztproxy imports to know who is calling: it verifies `X-Ztproxy-Assertion`.

    from ztproxy.verify import AssertionRejected, Verifier

    app = "https://app.example.com"
    verifier = Verifier(f"{app}/.well-known/ztproxy/jwks.json", audience=app)
    identity = verifier.verify(token)      # or AssertionRejected, whose `reason` says why

It needs the standard library and `pyjwt[crypto]`, and nothing else of ztproxy. The assertion is a compact JWS
(RFC 7515) signed with ES256, header `{alg, kid, typ: "JWT"}`, five minutes of life. Its claims: `iss` (the
origin of the host the visitor used), `aud` (the route), `sub`, `iat`, `exp`, `jti`; and where known `sid`,
`email`, `name`, `preferred_username`, `groups`, `acr`, `amr`, `auth_time`, `device` (its id), `scope` (of a
service's token) and `idp` (the issuer that signed the visitor in).

`ztproxy.verify.wsgi` and `ztproxy.verify.asgi` are the same check as a middleware. What is left to the
application: that it cannot be reached except through ztproxy is *not* needed (the signature is the proof),
but what each identity may do inside it is its own affair.
"""

from ztproxy.verify.identity import AssertionRejected, FetchNeeded, Rejection, VerifiedIdentity
from ztproxy.verify.verifier import HEADER_NAME, Verifier

__all__ = ["HEADER_NAME", "AssertionRejected", "FetchNeeded", "Rejection", "VerifiedIdentity", "Verifier"]
