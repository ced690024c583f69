"""What the admin API needs of the rest of ztproxy, as one value.

Knows: the ports and functions by name. Promises: nothing but what is here is reached from the admin listener.
Leaves building it to the composition root.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ztproxy.core.device import Device, FactType
from ztproxy.core.identity import JSON, Session
from ztproxy.core.lease import Topology
from ztproxy.core.locks import Lock
from ztproxy.gateway.inventory import Inventory
from ztproxy.gateway.ports import Clock
from ztproxy.gateway.ports.administration import AuditSink, Repeats, Revoke, Role, TokenStore
from ztproxy.gateway.ports.devices import DeviceStore
from ztproxy.gateway.ports.directory import SessionDirectory

if TYPE_CHECKING:
    from ztproxy.surfaces.admin.access import Caller


@dataclass(frozen=True, slots=True)
class Question:
    """Who opens what, when: what `ztproxy explain` asks too. With a `session`, that is who asks; else the
    person is `user` (an e-mail) or `subject` at `issuer` ("" for the first provider), or nobody.

    `now` is seconds since the epoch, `age` the seconds since the sign-in, `address` an IP address or "" for
    one of nobody. `device` is the one they are on; without it a session that is bound is on its own, whatever
    that is.
    """

    url: str
    now: float
    method: str = "GET"
    session: Session | None = None
    user: str = ""
    subject: str = ""
    issuer: str = ""
    groups: tuple[str, ...] = ()
    claims: Mapping[str, JSON] = field(default_factory=dict)
    acr: str = ""
    amr: tuple[str, ...] = ()
    address: str = ""
    age: float = 0.0
    device: Device | None = None


@dataclass(frozen=True, slots=True)
class Desk:
    """`locks` are those that stand and, as far back as is kept, those that ended sessions; lifted ones are
    not among them. `topology` is the store's as last seen. `status` and `routes` are shown as they are.
    `explain` raises `OperatorError` for a question that cannot be understood. `reload` answers in a few words
    what came of it, `rotate_keys` which keys there are now; both raise `OperatorError` when nothing was
    changed. `decisions` are the newest so many, newest first; None where they are not kept. `devices` is the
    inventory to look at, and `inventory` what writes it; `facts` are the posture names of the operator's own.

    `certificate_role` judges the client certificate (DER) of a connection that TLS already verified. `hosts`
    are names the listener may be called by besides addresses and `localhost`. `new_id` gives ids nobody can
    guess. `monotonic` is for rate limits alone.
    """

    revoke: Revoke
    audit: AuditSink
    tokens: TokenStore
    repeats: Repeats
    sessions: SessionDirectory
    devices: DeviceStore
    inventory: Inventory
    facts: Callable[[], Mapping[str, FactType]]
    locks: Callable[[], Awaitable[tuple[Lock, ...]]]
    status: Callable[[], Awaitable[Mapping[str, JSON]]]
    topology: Callable[[], Topology]
    routes: Callable[[], Sequence[Mapping[str, JSON]]]
    explain: Callable[[Question], Mapping[str, JSON]]
    reload: Callable[[], Awaitable[str]]
    rotate_keys: Callable[[], Awaitable[Mapping[str, JSON]]]
    certificate_role: Callable[[bytes], Role | None]
    clock: Clock
    new_id: Callable[[], str]
    decisions: Callable[[int], Awaitable[Sequence[Mapping[str, JSON]]]] | None = None
    console_link: Callable[[Caller], Awaitable[str]] | None = None
    hosts: frozenset[str] = frozenset()
    monotonic: Callable[[], float] = time.monotonic
