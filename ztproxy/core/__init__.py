"""The pure middle of ztproxy: plain values in, a decision out. No await, clock, randomness or I/O.

The words (used with these meanings everywhere, in code, docs, logs and metrics)

    request      what a client asks, in its one canonical form
    peer         who sent the bytes: address, TLS, certificate; facts, not claims
    route        a host and path, what stands behind it, and the policy in front of it
    credential   what the client presents to say who it is
    identity     who someone is: issuer and subject, with verified claims
    session      a login that still holds: identity, since when, how strongly
    device       the machine a person uses, known by its certificate; posture is what is reported of it
    service      a machine that calls for itself, by a token or a certificate; judged as a session
    assurance    how strongly someone signed in: acr and amr, ranked
    evidence     everything gathered for one decision; what is unavailable is evidence too
    signal       one weighted observation about identity, device or request
    condition    a question with three answers: holds, fails, or needs something first
    policy       the allow and deny rules of a route; deny wins, silence denies
    decision     forward, login, step-up or deny, always with its reasons
    reason       one word of the closed list that says why
    assertion    the signed statement of identity the app receives
    lock         an order to keep someone or something out
    lease        a worker's right, for less than a second, to rely on what it knows

The journey of one request

    `normalise` turns raw target and fields into a `Request`, or refuses it. `routes` finds the one `Route`.
    The gateway gathers `evidence` (every await is there, before the decision). `decision.decide` evaluates
    the route's `policy` over it and answers `Forward`, `Login`, `StepUp` or `Deny`. `outbound` says which
    bytes of the head go to the app and which never do. The surface acts, and the audit line says why.

In the words of NIST SP 800-207 this package is the policy engine, `gateway` the policy administrator,
`wire` with `surfaces` the policy enforcement point. `tests/test_layering.py` keeps this package pure.
"""
