"""The admin API: sessions, locks, tokens and the state of revocation, for programs, on a listener of its own.

    serving     the listener
    api         one request from its first check to its answer
    access      who asks: a bearer token or a client certificate, and how often they may
    limits      token buckets
    bodies      JSON and queries read strictly into forms
    problems    every refusal and failure, as RFC 9457 documents
    writes      the audit log before and after an effect
    endpoints   the one table of what there is; routes and the OpenAPI document come from it
    openapi     that document

and one module for each part of the table (`people`, `revoking`, `devices`, `device_lists`, `tokens`, `links`,
`upkeep`), with its forms and answers beside its handlers. `desk` is everything the API needs of the rest of
ztproxy.
"""
