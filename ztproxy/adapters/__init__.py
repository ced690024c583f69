"""The edge towards technology: one technology a file, each fulfilling one port of `gateway.ports`.

Knows: Redis, JOSE, AES-GCM, itsdangerous, Valkey, and how each of them fails. Promises: foreign exceptions
are translated here, once, into the three of `ztproxy.errors`; nothing above this ring catches a library's
error. Leaves to `app` which of them are used. Adapters import `core`, `gateway.ports` and `errors`, and of
each other only what stores are made of (`keys`, `sealing`, `redis_connection`).
"""
