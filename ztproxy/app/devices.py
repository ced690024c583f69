"""What a configuration says of devices and services, as the parts that do it.

Knows: which adapter fulfils which port of devices, enrolment and token issuers. Promises: raises
`OperatorError` for files that cannot be used. Leaves to its caller `reload_if_changed` and `aclose` of the
verifier.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import aiohttp

from ztproxy.adapters import client_certificates as judging
from ztproxy.adapters.certificate_form import DeviceName
from ztproxy.adapters.device_ca import DeviceCA
from ztproxy.adapters.ocsp import OCSPSettings
from ztproxy.adapters.service_tokens import IssuerSettings, TokenVerifier
from ztproxy.app.state import MARGIN, State
from ztproxy.config import settings as written
from ztproxy.core.certificate_hosts import CertificateHosts
from ztproxy.core.device import Status
from ztproxy.core.identity import Session
from ztproxy.core.service_tokens import TokenRules
from ztproxy.core.upstream import UpstreamTLS
from ztproxy.errors import OperatorError
from ztproxy.gateway.enrolment import Enrolment, EnrolmentRules
from ztproxy.gateway.ports import OneTimeStore
from ztproxy.gateway.ports.devices import DeviceStore
from ztproxy.gateway.ports.providers import FirstHosts
from ztproxy.gateway.services import Trusted
from ztproxy.wire.tls import ClientAuth, upstream_context

_log = logging.getLogger("ztproxy.services")


class Verifying(NamedTuple):
    """Who judges client certificates, and what it was made of: the authorities and their files' content."""

    verifier: judging.ClientCertificates
    made_of: tuple[tuple[written.Authority, ...], bytes]


def verifying(
    settings: written.Settings, http: aiohttp.ClientSession, before: Verifying | None
) -> Verifying | None:
    """The verifier for a configuration; None where nobody is asked for a certificate.

    INVARIANT: the one from before stays while what it was made of is the same: it knows the number of each
    revocation list, and a new one would take an older list for the first (X11).
    """
    authorities = () if settings.devices is None else settings.devices.authorities
    if not authorities:
        return None
    made_of = authorities, _content(authorities)
    if before is not None and before.made_of == made_of:
        return before
    return Verifying(
        judging.ClientCertificates([_authority(one) for one in authorities], time.time, http), made_of
    )


def see_that_files_hold(settings: written.Settings, running: written.Settings | None = None) -> None:
    """Reads what workers will read of devices, once and before them: each that cannot would end, and be
    started anew. Raises `OperatorError`.

    Revocation lists of authorities that are `running` are left out: a list half written keeps no other change
    from being taken over, for the one from before stays in force.
    """
    if settings.devices is None:
        return
    known = () if running is None or running.devices is None else running.devices.authorities
    judging.ClientCertificates(
        [
            _authority(replace(one, ocsp=None, crl=None if one in known else one.crl))
            for one in settings.devices.authorities
        ],
        time.time,
    )
    if settings.devices.enrolment is not None:
        _own_authority(settings.devices.enrolment)


def _own_authority(own: written.Enrolment) -> DeviceCA:
    return DeviceCA.load(own.authority.certificate, own.authority.key, own.trust_domain, own.lifetime)


def _content(authorities: Sequence[written.Authority]) -> bytes:
    digest = hashlib.sha256()
    for one in authorities:
        try:
            digest.update(hashlib.sha256(one.ca.read_bytes()).digest())
        except OSError as error:
            raise OperatorError(f"`{one.ca}` cannot be read: {error.strerror}") from error
    return digest.digest()


def _authority(one: written.Authority) -> judging.Authority:
    ocsp, device = one.ocsp, one.device
    return judging.Authority(
        one.name,
        one.ca,
        one.crl,
        None
        if ocsp is None
        else OCSPSettings(ocsp.url, ocsp.deadline, ocsp.keep, ocsp.dangerous_allow_unchecked),
        None if device is None else DeviceName(device.source, device.template),
        one.trust_domain,
        one.allow_any_usage,
    )


async def device_stands(devices: DeviceStore, session: Session) -> bool:
    """Whether the device a session is bound to may still be used, as the inventory has it now."""
    device = None if session.device is None else await devices.get(session.device)
    return device is None or device.status not in (Status.LOST, Status.RETIRED)


def issuers_of(
    settings: written.Settings, http: aiohttp.ClientSession, first: FirstHosts
) -> dict[str, Trusted]:
    """The issuers of bearer tokens, by their names in the configuration."""
    return {one.name: _issuer(one, settings, http, first) for one in settings.token_issuers}


def _issuer(
    one: written.TokenIssuer, settings: written.Settings, http: aiohttp.ClientSession, first: FirstHosts
) -> Trusted:
    rules = TokenRules(
        name=one.name,
        issuer=one.issuer,
        roles_claim=one.roles_claim,
        scopes_claim=one.scopes_claim,
        keep=one.keep,
        skew=one.skew,
        remembered=settings.session.absolute + MARGIN / 2,
        levels=settings.levels,
    )
    keys = IssuerSettings(
        name=one.name,
        issuer=one.issuer,
        algorithms=frozenset(one.algorithms),
        jwks=one.jwks,
        jwks_url=one.jwks_url,
        types=one.types,
        dangerous_allow_http=one.dangerous_allow_http,
    )
    tls = None if one.ca_file is None else upstream_context(UpstreamTLS(ca=str(one.ca_file)))
    return Trusted(rules, TokenVerifier(keys, http, time.time, tls, first))


def token_refused(why: str) -> None:
    """Says why a token did not hold: in the log, never to whoever showed it."""
    _log.info("a token of a service was refused: %s", why)


def enrolment_of(
    settings: written.Settings, store: DeviceStore, one_time: OneTimeStore, state: State
) -> Enrolment | None:
    """Enrolment by ztproxy's own authority, where the configuration has one."""
    own = None if settings.devices is None else settings.devices.enrolment
    if own is None:
        return None
    rules = EnrolmentRules(own.may, own.approved, own.rank, own.most_per_person)
    return Enrolment(rules, store, one_time, _own_authority(own), state.audit, time.time, secrets.token_bytes)


def hosts_asked(listener: written.Listener) -> CertificateHosts | None:
    """The hosts for which a listener asks clients for a certificate; None where it asks nobody."""
    clients = None if listener.tls is None else listener.tls.clients
    return None if clients is None else CertificateHosts(clients.hosts)


def client_auth(
    clients: written.ClientCertificates | None, authorities: Sequence[written.Authority]
) -> ClientAuth | None:
    """How a listener asks for certificates in the handshake."""
    if clients is None:
        return None
    files: Mapping[str, str] = {one.name: str(one.ca) for one in authorities}
    asks = None if clients.hosts is None else CertificateHosts(clients.hosts).asks
    return ClientAuth(tuple(files[name] for name in clients.authorities), clients.required, asks)
