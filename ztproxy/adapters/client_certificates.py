"""Whether a client certificate holds: the port `CertificateVerifier`, with the verifier of `cryptography`.

Knows: the configured authorities, and how RFC 5280 joins a certificate to one of them. Promises: chain and
form are found out once for each certificate shown and remembered, a refusal too (for a minute: an authority
may only now begin); its validity, the revocation lists and what the OCSP responder said are looked at on
every call; whatever goes wrong, the answer is a refusal. Leaves to its caller: that the client holds the key,
calling `reload_if_changed` every second or so, and `aclose`.

The steps: 1. its size; 2. the leaf can be read, and its time is now; 3. the keys shown are worth checking
signatures with; 4. a chain to an authority; 5. the form of the leaf by that authority's rules; and on every
call 6. its time; 7. the revocation lists; 8. the responder.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from ztproxy.adapters.certificate_form import (
    UNREADABLE,
    DeviceName,
    Rules,
    Unfit,
    check_key,
    is_authority,
    read,
    strongly_signed,
)
from ztproxy.adapters.ocsp import OCSPClient, OCSPSettings, Question
from ztproxy.adapters.revocation_lists import Link, RevocationLists, issuer_key
from ztproxy.core.certificate import Certificate, Refused, Verified
from ztproxy.core.reasons import Reason
from ztproxy.core.request import ClientCertificate
from ztproxy.errors import OperatorError
from ztproxy.gateway.ports import Clock

MOST_CERTIFICATES = 8
MOST_BYTES = 64 * 1024
MOST_REMEMBERED = 4096
FAILURE_SECONDS = 60.0

_FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Authority:
    """As `config.settings.Authority`. `ca` is a PEM file of trust anchors, and of intermediates that clients
    may leave out: one whose issuer is in the file too is no anchor."""

    name: str
    ca: Path
    crl: Path | None = None
    ocsp: OCSPSettings | None = None
    device: DeviceName | None = None
    trust_domain: str | None = None
    allow_any_usage: bool = False


class _Held(NamedTuple):
    """A certificate whose chain and form hold from `since` to `until`, the time all of its chain is valid."""

    certificate: Certificate
    authority: _Authority
    links: tuple[Link, ...]
    question: Question
    since: float
    until: float


class _Failed(NamedTuple):
    refused: Refused
    since: float
    until: float


class ClientCertificates:
    """Raises `OperatorError` for an authority whose files cannot be used. `http` asks OCSP responders."""

    def __init__(
        self, authorities: Sequence[Authority], clock: Clock, http: aiohttp.ClientSession | None = None
    ) -> None:
        self.revision = 0
        self._authorities = tuple(_Authority(it, clock, http, self._changed) for it in authorities)
        self._clock = clock
        self._remembered: OrderedDict[bytes, _Held | _Failed] = OrderedDict()

    def at_once(self, shown: ClientCertificate, now: float) -> Verified | Refused | None:
        held = self._hold(shown, now)
        if isinstance(held, Refused):
            return held
        until = _listed(held, now)
        if isinstance(until, Refused) or held.authority.responder is None:
            return _answer(held, until)
        said = held.authority.responder.known(held.question, now)
        return None if said is None else _answer(held, until, said)

    async def judge(self, shown: ClientCertificate, now: float) -> Verified | Refused:
        held = self._hold(shown, now)
        if isinstance(held, Refused):
            return held
        until = _listed(held, now)
        if isinstance(until, Refused) or held.authority.responder is None:
            return _answer(held, until)
        return _answer(held, until, await held.authority.responder.ask(held.question, now))

    def reload_if_changed(self) -> bool:
        """Loads the revocation lists whose files changed; True if one was replaced. Those that cannot be used
        are raised together, once, after the others count."""
        problems, renewed = [], False
        for authority in self._authorities:
            try:
                renewed |= authority.lists is not None and authority.lists.reload_if_changed(self._clock())
            except OperatorError as error:
                problems.append(str(error))
                renewed = True  # of several lists in the file some may have counted
        if renewed:
            self._changed()
        if problems:
            raise OperatorError("; ".join(problems))
        return renewed

    def expiries(self) -> list[tuple[str, float]]:
        """For each revocation list its authority's name and `nextUpdate`, in seconds since the epoch."""
        return [
            (f"{authority.settings.name}: {issuer}", until)
            for authority in self._authorities
            if authority.lists is not None
            for issuer, until in authority.lists.expiries()
        ]

    async def aclose(self) -> None:
        await asyncio.gather(*(it.responder.aclose() for it in self._authorities if it.responder is not None))

    def _changed(self) -> None:
        self.revision += 1

    def _hold(self, shown: ClientCertificate, now: float) -> _Held | Refused:
        if not shown.vouched:
            return _invalid("the proxy in front could not verify it")
        if 1 + len(shown.chain) > MOST_CERTIFICATES or _size(shown) > MOST_BYTES:
            return _invalid("the chain has more than 8 certificates or 64 KiB")
        key = _key(shown)
        found = self._remembered.get(key)
        if found is None or not found.since <= now < found.until:
            found = self._remembered[key] = self._find_out(shown, now)
            if len(self._remembered) > MOST_REMEMBERED:
                self._remembered.popitem(last=False)
        self._remembered.move_to_end(key)
        return found.refused if isinstance(found, _Failed) else found

    def _find_out(self, shown: ClientCertificate, now: float) -> _Held | _Failed:
        try:
            leaf = x509.load_der_x509_certificate(shown.leaf)
            since, until = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
            if now >= until:
                return _Failed(_expired("it is not valid any more"), until, _FOREVER)
            if now < since:
                return _Failed(_expired("it is not valid yet"), -_FOREVER, since)
            chain = [x509.load_der_x509_certificate(it) for it in shown.chain]
            for certificate in (leaf, *chain):
                check_key(certificate)
            # INVARIANT: of each name one, and nobody who vouches for themselves. Among seven of one name and
            # key there are 823,543 ways up, each step a signature to check; `cryptography` counts those only
            # since 2026. Anchors come from the file alone, so that nothing is lost.
            above = list({it.subject: it for it in reversed(chain) if it.issuer != it.subject}.values())
            why = "there is no authority"
            for authority in self._authorities:
                try:
                    path = authority.path(leaf, above, now)
                except VerificationError as error:
                    why = str(error)
                else:
                    return authority.held(path)
            refused = _invalid(f"no chain leads to an authority: {why}")
        except Unfit as error:
            refused = _invalid(str(error))
        except UNREADABLE as error:
            refused = _invalid(f"it cannot be read: {error}")
        return _Failed(refused, now, now + FAILURE_SECONDS)


class _Authority:
    """One authority: its anchors, its lists, its responder."""

    def __init__(
        self,
        settings: Authority,
        clock: Clock,
        http: aiohttp.ClientSession | None,
        changed: Callable[[], None],
    ) -> None:
        self.settings = settings
        certificates = _load(settings.ca)
        known = {it.subject for it in certificates}
        anchors = [it for it in certificates if it.issuer == it.subject or it.issuer not in known]
        if not anchors:
            raise OperatorError(
                f"`{settings.ca}` holds no anchor: each authority in it is signed by another in it",
                "give the certificate that one of them signed for itself too",
            )
        self._intermediates = [it for it in certificates if it not in anchors]
        self._store = Store(anchors)
        self._rules = Rules(settings.name, settings.device, settings.trust_domain, settings.allow_any_usage)
        self.lists = None
        if settings.crl is not None:
            self.lists = RevocationLists(settings.crl, certificates, clock())
        self.responder = None
        if settings.ocsp is not None:
            if http is None:
                raise ValueError("an OCSP responder needs a session to ask it with")
            self.responder = OCSPClient(settings.ocsp, http, clock, changed)

    def path(
        self, leaf: x509.Certificate, above: list[x509.Certificate], now: float
    ) -> list[x509.Certificate]:
        """The chain from `leaf` to an anchor, which is the last, as of `now`; else `VerificationError`."""
        verifier = (
            PolicyBuilder()
            .store(self._store)
            .time(datetime.datetime.fromtimestamp(now, datetime.UTC))
            .max_chain_depth(MOST_CERTIFICATES - 1)
            .extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
            .build_client_verifier()
        )
        return verifier.verify(leaf, [*above, *self._intermediates]).chain

    def held(self, path: list[x509.Certificate]) -> _Held:
        # An anchor is believed because it is in the file; what signed it says nothing (old roots: SHA-1).
        if not all(strongly_signed(it) for it in path[:-1]):
            raise Unfit("a signature in its chain is over a weak hash")
        certificate = read(path[0], self._rules)
        return _Held(
            certificate,
            self,
            tuple(Link(issuer_key(issuer), below.serial_number) for below, issuer in pairwise(path)),
            Question(certificate.thumbprint, path[0], path[1]),
            max(it.not_valid_before_utc.timestamp() for it in path),
            min(it.not_valid_after_utc.timestamp() for it in path),
        )


def _signs_certificates(_policy: Policy, _ca: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("keyUsage.keyCertSign must be asserted in a CA certificate")


# `cryptography` verifies by the rules of the web's authorities (CA/Browser Forum). Private ones differ where
# that loses nothing, and these differences are let through. A leaf: no subject alternative name (AD CS,
# `openssl x509 -req`), no authority key identifier (hints for finding a chain, RFC 5280 4.2.1.1), and any
# extended key usage, which `certificate_form` judges more strictly. An authority: no key identifiers, and no
# key usage at all (`openssl req -x509`), which RFC 5280 6.1.4 (n) looks at only where there is one.
_LEAF_POLICY = (
    ExtensionPolicy.webpki_defaults_ee()
    .may_be_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    .may_be_present(x509.AuthorityKeyIdentifier, Criticality.AGNOSTIC, None)
    .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None)
)
_CA_POLICY = (
    ExtensionPolicy.webpki_defaults_ca()
    .may_be_present(x509.SubjectKeyIdentifier, Criticality.AGNOSTIC, None)
    .may_be_present(x509.AuthorityKeyIdentifier, Criticality.AGNOSTIC, None)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _signs_certificates)
)


def _load(file: Path) -> list[x509.Certificate]:
    mend = "give the certificates of authorities, PEM"
    try:
        certificates = x509.load_pem_x509_certificates(file.read_bytes())
        for certificate in certificates:
            if not is_authority(certificate):
                name = certificate.subject.rfc4514_string()
                raise OperatorError(f"`{file}`: `{name}` is not an authority's certificate", mend)
            check_key(certificate)
            if isinstance(certificate.public_key(), ed25519.Ed25519PublicKey):
                raise Unfit("its signatures, Ed25519, cannot be verified here")
    except OSError as error:
        problem = (error.strerror or type(error).__name__).lower()
        raise OperatorError(f"`{file}` cannot be read: {problem}", mend) from error
    except UNREADABLE as error:
        raise OperatorError(f"`{file}` holds no certificate that can be read: {error}", mend) from error
    except Unfit as error:
        raise OperatorError(
            f"`{file}` holds an authority that cannot be used: {error}",
            "give one with a key of RSA with 2048 to 8192 bits, P-256, P-384 or P-521",
        ) from error
    return certificates


def _listed(held: _Held, now: float) -> Refused | float:
    lists = held.authority.lists
    return held.until if lists is None else lists.judge(held.links, now)


def _answer(held: _Held, *untils: Refused | float) -> Verified | Refused:
    until = held.until
    for it in untils:
        if isinstance(it, Refused):
            return it
        until = min(until, it)
    return Verified(held.certificate, until)


def _size(shown: ClientCertificate) -> int:
    return len(shown.leaf) + sum(map(len, shown.chain))


def _key(shown: ClientCertificate) -> bytes:
    """A digest, so that 4096 strangers' chains take no 256 MiB; with lengths, so that parts cannot move."""
    digest = hashlib.sha256()
    for part in (shown.leaf, *shown.chain):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()


def _invalid(why: str) -> Refused:
    return Refused(Reason.DEVICE_CERTIFICATE_INVALID, why)


def _expired(why: str) -> Refused:
    return Refused(Reason.DEVICE_CERTIFICATE_EXPIRED, why)
