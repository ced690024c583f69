"""The process of the admin API and the console: the composition root of everything that looks after the rest.

Knows: which adapter fulfils which port for the administration. Promises: it lets nobody in and holds no
lease, so nothing here can open a door; whatever it revokes goes through the fence like everything else. It
shares the store and the files of this node with the workers and nothing else, so that no load on them keeps
anybody from revoking. Leaves signals to `cli`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import signal
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from ztproxy.adapters.jwt import AssertionVerifier
from ztproxy.adapters.keys import KeyRing, rotate, write_private
from ztproxy.adapters.local_token import LocalToken
from ztproxy.adapters.metrics import Metrics
from ztproxy.adapters.redis_devices import RedisDevices
from ztproxy.adapters.redis_directory import RedisDirectory
from ztproxy.adapters.redis_one_time import RedisOneTime
from ztproxy.adapters.redis_repeats import RedisRepeats
from ztproxy.adapters.redis_tokens import RedisTokens
from ztproxy.app.state import State
from ztproxy.config import parse, text_of
from ztproxy.config.settings import Admin, Settings
from ztproxy.core.device import FactType
from ztproxy.core.identity import JSON
from ztproxy.core.lease import Topology
from ztproxy.core.locks import Lock
from ztproxy.core.routes import Forwarding, Redirect, Route
from ztproxy.errors import OperatorError, WorldError
from ztproxy.explaining import NOWHERE, Question, answer, as_data
from ztproxy.explaining.devices import of_inventory
from ztproxy.explaining.words import summary
from ztproxy.gateway.follower import Follower
from ztproxy.gateway.inventory import Inventory
from ztproxy.gateway.ports.administration import Role
from ztproxy.gateway.revoking_devices import RevokingDevices
from ztproxy.surfaces.admin import desk as desks
from ztproxy.surfaces.admin.api import admin_app
from ztproxy.surfaces.admin.serving import serve_admin
from ztproxy.surfaces.console.app import add_console
from ztproxy.surfaces.console.entrance import NOBODY, Links, People, Person
from ztproxy.surfaces.pages import Branding, Pages
from ztproxy.wire.listener import open_socket

UNKNOWN = Topology("standalone", False, False, 0.0, "the store has not been asked yet")
_TOPOLOGY_EVERY = 30.0
_RECENT = "*.recent"


class Administrator:
    """`start`, `reload` as often as needed, then `close`. `file` is the configuration; `private` is where the
    workers of this node keep their last decisions, `supervised` whether there is a supervisor to be told to
    reload."""

    def __init__(
        self,
        settings: Settings,
        file: Path,
        state_url: str,
        metrics: Metrics,
        private: Path | None,
        supervised: bool,
    ) -> None:
        assert settings.admin is not None, "there is an admin listener"
        self._settings, self._file, self._admin = settings, file, settings.admin
        self._private, self._metrics = private, metrics
        self._supervisor = os.getppid() if supervised else None
        self._state = State(settings, state_url, "administrator", metrics.revocation)
        self._follower = Follower(self._state.log, time.time, self._state.heard)
        self._topology, self._topology_at = UNKNOWN, 0.0
        self._reseal = False
        self._tls = _server_context(self._admin)
        self._close_listener: Callable[[], Awaitable[None]] | None = None
        self._take(settings)
        client, sealer = self._state.client, self._state.sealer
        self._tokens = LocalToken(settings.state_dir, RedisTokens(client, sealer, time.time), time.time)

    # -- life --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Opens the listener. The store may be away: answers say so then."""
        client, sealer = self._state.client, self._state.sealer
        links = Links(RedisOneTime(client, sealer))
        devices, sessions = RedisDevices(client, sealer), RedisDirectory(client, sealer)
        revoke = RevokingDevices(self._state.revoke, sessions)
        desk = desks.Desk(
            revoke=revoke,
            audit=self._state.audit,
            tokens=self._tokens,
            repeats=RedisRepeats(client, sealer, time.time),
            sessions=sessions,
            devices=devices,
            inventory=Inventory(devices, revoke, time.time),
            facts=self._facts,
            locks=self._locks,
            status=self._status,
            topology=lambda: self._topology,
            routes=self._routes,
            explain=self._explain,
            reload=self._reload,
            rotate_keys=self._rotate,
            certificate_role=self._certificate_role,
            clock=time.time,
            new_id=lambda: secrets.token_hex(16),
            decisions=self._decisions,
            hosts=self._admin.hosts,
            console_link=links.make,
        )
        app = admin_app(desk)
        add_console(
            app,
            desk,
            pages=Pages(Branding(self._settings.branding.name)),
            links=links,
            who=self._person,
            people=lambda: self._people,
            providers=lambda: [one.name for one in self._settings.providers],
        )
        await self._state.audit.flush()
        listening = open_socket(str(self._admin.address), shared=False)
        if self._admin.address.path is not None:
            os.chmod(self._admin.address.path, 0o600)  # noqa: PTH101  a socket's mode, at once
        self._close_listener = await serve_admin(app, listening, self._tls)

    def reload(self) -> None:
        """Takes the configuration as it is now. Raises `OperatorError` and changes nothing if it cannot."""
        settings = self._read()
        ring = KeyRing.load(settings.keys_file)
        if self._tls is not None:
            _load_certificates(self._tls, self._admin)
        rotated = ring.records != self._ring.records
        self._take(settings)
        self._state.use_keys(ring)
        self._reseal = self._reseal or rotated

    async def beat(self) -> str:
        """Called each second: notes what the metrics show, and looks at the store now and then. Empty when
        all is well, else what is missing."""
        try:
            await self._learn_topology()
            await self._follower.catch_up()
            if self._reseal:
                # A lock with an end may outlive the keys that a ring still knows.
                await self._state.log.reseal()
                self._reseal = False
        except WorldError as error:
            return str(error)
        finally:
            self._measure()
        return ""

    def _measure(self) -> None:
        self._metrics.audit_failures = self._state.audit.failures
        self._metrics.audit_queued = self._state.audit.queued
        self._metrics.publish()

    async def close(self) -> None:
        if self._close_listener is not None:
            await self._close_listener()
        self._tokens.close()
        await self._state.close()

    def _take(self, settings: Settings) -> None:
        self._settings = settings
        self._ring = KeyRing.load(settings.keys_file)
        self._verifier = AssertionVerifier(self._ring.assertions)
        people = None if settings.admin is None else settings.admin.people
        self._people = NOBODY if people is None else People(people.groups, people.emails)

    # -- what the desk asks ------------------------------------------------------------------------------

    async def _locks(self) -> tuple[Lock, ...]:
        await self._follower.catch_up()
        return self._follower.locks()

    async def _status(self) -> Mapping[str, JSON]:
        number = await self._follower.catch_up()
        applied = await self._state.log.applied()
        await self._learn_topology()
        topology = self._topology
        return {
            "promise": "strict" if topology.strict else "bounded",
            "topology": topology.kind,
            "why": topology.why,
            "lease_seconds": self._settings.revocation.lease,
            "number": number,
            "workers": [
                {"worker": worker, "applied": done, "behind": max(0, number - done)}
                for worker, done in sorted(applied.numbers.items())
            ],
        }

    async def _learn_topology(self) -> None:
        now = time.monotonic()
        if self._topology is UNKNOWN or now - self._topology_at > _TOPOLOGY_EVERY:
            self._topology, self._topology_at = await self._state.log.topology(), now

    def _routes(self) -> Sequence[Mapping[str, JSON]]:
        return [_shown(route) for route in self._settings.routes.routes]

    def _explain(self, question: desks.Question) -> Mapping[str, JSON]:
        asked = Question(
            question.url,
            question.now,
            question.method,
            question.user or None,
            question.subject or None,
            question.issuer or None,
            question.groups,
            question.claims,
            question.acr or None,
            question.amr,
            question.address or NOWHERE,
            question.age,
            question.session,
            of_inventory(self._settings, question.device, question.session),
        )
        return as_data(answer(self._settings, asked, self._follower.book))

    def _facts(self) -> Mapping[str, FactType]:
        devices = self._settings.devices
        return {} if devices is None else devices.facts

    async def _decisions(self, limit: int) -> Sequence[Mapping[str, JSON]]:
        if self._private is None:
            return []
        records: list[dict[str, JSON]] = []
        for file in self._private.glob(_RECENT):
            try:
                lines = file.read_bytes().splitlines()
            except OSError:
                continue  # replaced this very moment
            records += (json.loads(line) for line in lines[-limit:])
        records.sort(key=lambda record: str(record.get("time", "")), reverse=True)
        return records[:limit]

    def _read(self) -> Settings:
        settings = parse(text_of(self._file), self._file)
        settings.takes_over_from(self._settings)
        return settings

    async def _reload(self) -> str:
        await asyncio.to_thread(self._read)
        if not self._tell_to_reload():
            self.reload()
            return "taken into force here; there is no supervisor to tell others"
        return "accepted; every worker takes it into force now"

    def _tell_to_reload(self) -> bool:
        # A supervisor that is gone has left us to somebody whom a signal could harm.
        if self._supervisor is None or os.getppid() != self._supervisor:
            return False
        os.kill(self._supervisor, signal.SIGHUP)
        return True

    async def _rotate(self) -> Mapping[str, JSON]:
        file = self._settings.keys_file
        before = await asyncio.to_thread(file.read_text, "utf-8")
        write_private(file, rotate(before, str(file)), replace=True)
        ring = KeyRing.load(file)
        self._state.use_keys(ring)
        self._reseal = True
        self._tell_to_reload()
        kids: list[JSON] = [key.kid for key in ring.assertions]
        return {"assertion_keys": kids, "note": "copy the key file to every other node, and reload it there"}

    def _certificate_role(self, certificate: bytes) -> Role | None:
        return self._admin.certificates.get(hashlib.sha256(certificate).hexdigest())

    def _person(self, assertion: str) -> Person | None:
        people = None if self._settings.admin is None else self._settings.admin.people
        if people is None:
            return None
        route = next(one for one in self._settings.routes.routes if one.name == people.route)
        claims = self._verifier.verify(assertion, route.identity.audience, time.time())
        return None if claims is None else _person_of(claims)


def _person_of(claims: Mapping[str, JSON]) -> Person | None:
    match claims:
        case {"iss": str(site), "sub": str(subject), "sid": str(session), "idp": str(issuer)}:
            email, groups = claims.get("email"), claims.get("groups")
            return Person(
                site,
                issuer,
                subject,
                session,
                email if isinstance(email, str) else None,
                tuple(one for one in groups if isinstance(one, str)) if isinstance(groups, list) else (),
            )
    return None


def _shown(route: Route) -> Mapping[str, JSON]:
    action = route.action
    to: JSON = None
    match action:
        case Forwarding():
            to = [f"{one.host}:{one.port}" for one in action.upstream.endpoints]
        case Redirect():
            to = action.location
    return {
        "name": route.name,
        "from": route.origin + "/" + "/".join(route.segments),
        "to": to,
        "policy": summary(route)[0],
        "sensitivity": route.sensitivity.name,
        "recheck_seconds": route.recheck,
    }


def _server_context(admin: Admin) -> ssl.SSLContext | None:
    if admin.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if admin.client_ca is not None:
        # INVARIANT: a listener that others can reach shakes hands only with a certificate of this CA (A28).
        context.verify_mode = ssl.CERT_REQUIRED
    _load_certificates(context, admin)
    return context


def _load_certificates(context: ssl.SSLContext, admin: Admin) -> None:
    assert admin.tls is not None
    try:
        context.load_cert_chain(admin.tls.certificate, admin.tls.key)
        if admin.client_ca is not None:
            context.load_verify_locations(admin.client_ca)
    except (OSError, ssl.SSLError) as error:
        raise OperatorError(f"the admin listener's certificate cannot be used: {error}") from error
