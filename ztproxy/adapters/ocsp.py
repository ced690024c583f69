"""Asking a responder whether a certificate was revoked (RFC 6960), and remembering what it said.

Knows: OCSP over HTTP POST, and what a responder, or whoever sits before it, can do to us. Promises: an answer
counts only if the issuer, or a responder the issuer named for it, signed it for this very certificate, and in
its time; one question at a time about one certificate, however many wait for it; a responder that hangs costs
its deadline once in two seconds; answers in use are renewed before they end. Leaves to its caller: chain and
form of the certificate, and calling `aclose`.

The answer is not asked for about intermediates. A delegated responder's own certificate is not asked about
either, which is what `id-pkix-ocsp-nocheck` would ask for; those are made to live shortly (4.2.2.2.1).
"""

from __future__ import annotations

import asyncio
import datetime
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import aiohttp
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from yarl import URL

from ztproxy.adapters.certificate_form import STRONG_HASHES, UNREADABLE, Unfit, strongly_signed
from ztproxy.core.certificate import Refused
from ztproxy.core.reasons import Reason
from ztproxy.gateway.ports import Clock

MAX_BYTES = 64 * 1024
SKEW_SECONDS = 300.0
PAUSE_SECONDS = 2.0
UNKNOWN_SECONDS = 30.0
MOST_REMEMBERED = 10_000

_MEDIA_TYPE = "application/ocsp-request"
_LASTING = {Reason.DEVICE_CERTIFICATE_REVOKED, Reason.DEVICE_CERTIFICATE_INVALID}


@dataclass(frozen=True, slots=True)
class OCSPSettings:
    """As `config.settings.OCSP`; seconds."""

    url: str
    deadline: float = 2.0
    keep: float = 300.0
    dangerous_allow_unchecked: bool = False


class Question(NamedTuple):
    """Which certificate: `id` is its thumbprint, and names it in what is remembered."""

    id: str
    leaf: x509.Certificate
    issuer: x509.Certificate


class Status(NamedTuple):
    """What a responder said in an answer that counts, when it said so, and until when it counts."""

    status: ocsp.OCSPCertStatus
    this_update: float
    end: float


class _Remembered(NamedTuple):
    """`refused` None: let in. It counts until `end`; from `renew_at` on it is asked for anew. `said` is the
    `this_update` of the answer it rests on."""

    refused: Refused | None
    end: float
    renew_at: float
    said: float


class OCSPClient:
    """One responder. `changed` is called when somebody who was let in, or was never heard of, is refused."""

    def __init__(
        self,
        settings: OCSPSettings,
        http: aiohttp.ClientSession,
        clock: Clock,
        changed: Callable[[], None],
        most: int = MOST_REMEMBERED,
    ) -> None:
        self._settings, self._http, self._clock, self._changed = settings, http, clock, changed
        self._most = most
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._flights: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    def known(self, question: Question, now: float) -> Refused | float | None:
        """Until when the certificate is in order, or why it is refused; None when somebody must be asked.

        Where the answer is near its end, the responder is asked in the background: call this in the loop.
        """
        found = self._remembered.get(question.id)
        if found is None or found.end <= now:
            return None
        self._remembered.move_to_end(question.id)
        if found.renew_at <= now:
            self._flight(question)
        return found.end if found.refused is None else found.refused

    async def ask(self, question: Question, now: float) -> Refused | float:
        """As `known`, after asking where that is needed. Never raises."""
        answer = self.known(question, now)
        if answer is None and (flight := self._flight(question)) is not None:
            # Not awaited itself: who gives up waiting must not end the question for the others.
            await asyncio.wait({flight})
            found = self._remembered.get(question.id)
            if found is not None:
                answer = found.end if found.refused is None else found.refused
        return _unchecked("the responder is not asked any more") if answer is None else answer

    async def aclose(self) -> None:
        """Ends the questions under way; who waits for one is refused."""
        self._closed = True
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _flight(self, question: Question) -> asyncio.Task[None] | None:
        flight = self._flights.get(question.id)
        if flight is None and not self._closed:
            flight = self._flights[question.id] = asyncio.get_running_loop().create_task(self._fly(question))
        return flight

    async def _fly(self, question: Question) -> None:
        # INVARIANT: a flight is over in the step that remembers its answer. Found a moment longer, it would
        # give whoever asks in that moment the answer before.
        try:
            await self._find_out(question)
        finally:
            del self._flights[question.id]

    async def _find_out(self, question: Question) -> None:
        before = self._remembered.get(question.id)
        request = build_request(question)
        try:
            body = await self._post(request.public_bytes(serialization.Encoding.DER))
            status = judge(body, request, question.issuer, self._clock(), self._settings.keep)
            # GOOD, recorded before the certificate was revoked, must not come after REVOKED.
            if before is not None and status.this_update < before.said:
                raise Unfit("the answer is older than the one before")
            after = self._of(status)
        except (Unfit, *UNREADABLE) as error:
            after = self._failed(before, f"the responder's answer does not count: {error}")
        except TimeoutError:
            after = self._failed(before, f"no answer within {self._settings.deadline:g} s")
        except (aiohttp.ClientError, OSError) as error:
            # Texts of aiohttp quote URLs, so only the kind is told.
            after = self._failed(before, f"no usable answer (`{type(error).__name__}`)")
        self._remember(question.id, before, after)

    async def _post(self, body: bytes) -> bytes:
        # One limit around everything: a byte a second never runs into a limit between two bytes.
        async with (
            asyncio.timeout(self._settings.deadline),
            self._http.post(
                URL(self._settings.url, encoded=True),
                data=body,
                headers={"Content-Type": _MEDIA_TYPE, "Accept-Encoding": "identity"},
                allow_redirects=False,
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as response,
        ):
            if response.status != 200:
                raise Unfit(f"status {response.status}")
            received = bytearray()
            async for chunk in response.content.iter_any():
                received += chunk
                if len(received) > MAX_BYTES:
                    raise Unfit("larger than 64 KiB")
            return bytes(received)

    def _of(self, answer: Status) -> _Remembered:
        now, end = self._clock(), answer.end
        match answer.status:
            case ocsp.OCSPCertStatus.GOOD:
                refused = None
            case ocsp.OCSPCertStatus.REVOKED:
                refused = Refused(Reason.DEVICE_CERTIFICATE_REVOKED, "the responder says so")
            case _:
                # UNKNOWN, from who speaks for the issuer: the issuer never made it, which is another thing
                # than having taken it back. A new certificate may be known a little later.
                refused = Refused(Reason.DEVICE_CERTIFICATE_INVALID, "unknown to its issuer's responder")
                end = min(end, now + UNKNOWN_SECONDS)
        return _Remembered(refused, end, end - (end - now) / 4, answer.this_update)

    def _failed(self, before: _Remembered | None, why: str) -> _Remembered:
        """What to believe when nothing was found out: what was said, to its end; else nobody is let in.

        A responder that cannot be reached does not unsay what it said, least of all that it was revoked.
        """
        now = self._clock()
        again = now + PAUSE_SECONDS
        if before is not None and before.end > now:
            return before._replace(renew_at=again)
        if before is not None and before.refused is not None and before.refused.reason in _LASTING:
            return before._replace(end=again, renew_at=again)
        said = float("-inf") if before is None else before.said
        refused = None if self._settings.dangerous_allow_unchecked else _unchecked(why)
        return _Remembered(refused, again, again, said)

    def _remember(self, id: str, before: _Remembered | None, after: _Remembered) -> None:
        self._remembered[id] = after
        self._remembered.move_to_end(id)
        if len(self._remembered) > self._most:
            self._remembered.popitem(last=False)
        # INVARIANT: what is not remembered counts as let in, for it may have been, before it was forgotten.
        if (None if before is None else before.refused) != after.refused:
            self._changed()


def build_request(question: Question) -> ocsp.OCSPRequest:
    """About one certificate, with a nonce. SHA-1 names the issuer only, and is what every responder knows."""
    return (
        ocsp.OCSPRequestBuilder()
        .add_certificate(question.leaf, question.issuer, hashes.SHA1())  # noqa: S303
        .add_extension(x509.OCSPNonce(secrets.token_bytes(16)), critical=False)
        .build()
    )


def judge(
    body: bytes, request: ocsp.OCSPRequest, issuer: x509.Certificate, now: float, keep: float
) -> Status:
    """What `body` says about the certificate `request` asks for. `keep`: for how many seconds after its
    `thisUpdate` an answer without a `nextUpdate` counts. Raises `Unfit`, or one of `UNREADABLE`."""
    response = ocsp.load_der_ocsp_response(body)
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise Unfit(f"`{response.response_status.name.lower()}`")
    # 1. Signed by who may speak for the issuer (3.2, 4.2.2.2).
    _check_signature(response, issuer, now)
    # 2. To this question, if it says to which. Most responders answer from a stock, without a nonce.
    for extension in response.extensions:
        if isinstance(extension.value, x509.OCSPNonce):
            asked = request.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
            if not hmac.compare_digest(extension.value.nonce, asked):
                raise Unfit("it has the nonce of another question")
        elif extension.critical:
            raise Unfit("it has a critical extension that is not understood")
    # 3. About this certificate, and once.
    about = [it for it in response.responses if _same_certificate(it, request)]
    if len(about) != 1:
        raise Unfit("it is not about the certificate that was asked about")
    # 4. In its time: neither of the future nor a recording.
    this_update = about[0].this_update_utc.timestamp()
    end = this_update + keep if about[0].next_update_utc is None else about[0].next_update_utc.timestamp()
    if this_update > now + SKEW_SECONDS:
        raise Unfit("it is of the future")
    if end <= now:
        raise Unfit("it is out of date")
    return Status(about[0].certificate_status, this_update, end)


def _same_certificate(single: ocsp.OCSPSingleResponse, request: ocsp.OCSPRequest) -> bool:
    return (
        single.serial_number == request.serial_number
        and type(single.hash_algorithm) is type(request.hash_algorithm)
        and single.issuer_name_hash == request.issuer_name_hash
        and single.issuer_key_hash == request.issuer_key_hash
    )


def _check_signature(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: float) -> None:
    for signer in (issuer, *response.certificates):
        if not _names(response, signer):
            continue
        if signer is not issuer and not _delegated(signer, issuer, now):
            continue
        if _signed_by(response, signer):
            return
    raise Unfit("it is signed by nobody who may speak for the issuer")


def _names(response: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    """Whether `response` says that `signer` made it."""
    if response.responder_name is not None:
        return response.responder_name == signer.subject
    return (
        response.responder_key_hash == x509.SubjectKeyIdentifier.from_public_key(signer.public_key()).digest
    )


def _delegated(signer: x509.Certificate, issuer: x509.Certificate, now: float) -> bool:
    """4.2.2.2: made by the issuer itself, directly, for this purpose."""
    try:
        signer.verify_directly_issued_by(issuer)
        usage = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (InvalidSignature, x509.ExtensionNotFound, *UNREADABLE):
        return False
    in_time = signer.not_valid_before_utc <= _time(now) <= signer.not_valid_after_utc
    return ExtendedKeyUsageOID.OCSP_SIGNING in usage and strongly_signed(signer) and in_time


def _signed_by(response: ocsp.OCSPResponse, signer: x509.Certificate) -> bool:
    key, digest = signer.public_key(), response.signature_hash_algorithm
    signature, signed = response.signature, response.tbs_response_bytes
    try:
        if isinstance(key, ed25519.Ed25519PublicKey) and digest is None:
            key.verify(signature, signed)
        elif not isinstance(digest, STRONG_HASHES):
            return False
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, padding.PKCS1v15(), digest)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, ec.ECDSA(digest))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _unchecked(why: str) -> Refused:
    return Refused(Reason.DEVICE_CERTIFICATE_UNCHECKED, why)


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
