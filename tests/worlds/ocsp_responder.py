"""OCSP responders: the real `openssl ocsp`, one that tells any lie, and one that never answers."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509 import ocsp

from tests.worlds.certificates import DAY, HOUR, NOW, Authority, Issued
from tests.worlds.lying_provider import serving
from ztproxy.demo.running import free_port

GOOD, REVOKED, UNKNOWN = (
    ocsp.OCSPCertStatus.GOOD,
    ocsp.OCSPCertStatus.REVOKED,
    ocsp.OCSPCertStatus.UNKNOWN,
)
MOST_REQUESTS = 100


@asynccontextmanager
async def openssl_responder(
    folder: Path,
    authority: Authority,
    signer: Issued,
    *,
    good: Iterable[Issued] = (),
    revoked: Iterable[Issued] = (),
    minutes: int | None = None,
) -> AsyncIterator[str]:
    """The URL of an `openssl ocsp` that speaks for `authority`, signing as `signer`. `minutes` is for how
    long its answers count; None: they name no end. It ends with the block, and by itself after 100 requests.
    """
    index, ca, port = folder / "index.txt", folder / "responder-ca.pem", free_port()
    ca.write_bytes(authority.pem)
    certificate, key = signer.files(folder, "responder")
    index.write_text(
        "".join(_index_line("V", "", it) for it in good)
        + "".join(_index_line("R", _index_time(NOW - HOUR), it) for it in revoked)
    )
    command = ["openssl", "ocsp", "-index", str(index), "-port", str(port), "-CA", str(ca)]
    command += ["-rsigner", certificate, "-rkey", key, "-nrequest", str(MOST_REQUESTS)]
    command += [] if minutes is None else ["-nmin", str(minutes)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            said = b""
            while b"waiting for OCSP client connections" not in said:
                line = await process.stdout.readline()
                assert line, f"openssl ocsp ended: {said.decode(errors='replace')}"
                said += line
        yield f"http://127.0.0.1:{port}/"
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


class Responder:
    """Answers in whatever form it is told to. `asked` counts the questions it got."""

    def __init__(self, authority: Authority, signer: Issued | None = None) -> None:
        self.authority = authority
        self.signer = signer or authority.issued
        self.shows: tuple[x509.Certificate, ...] = (self.signer.cert,)
        self.known: dict[int, Issued] = {}
        self.statuses: Mapping[int, ocsp.OCSPCertStatus] = {}
        self.this_update, self.next_update = NOW - HOUR, NOW + DAY
        self.without_end = False
        self.nonce: bytes | None = b""  # empty: that of the question; None: none
        self.extra: tuple[x509.ExtensionType, bool] | None = None
        self.instead_of: Mapping[int, Issued] = {}
        self.raw: bytes | None = None
        self.status = 200
        self.headers: Mapping[str, str] = {}
        self.by_key = False
        self.spoil = False  # the last bit: of the signature, where no certificate is shown
        self.answering = asyncio.Event()
        self.answering.set()
        self.asked = 0
        self.url = ""

    def knows(self, *issued: Issued, status: ocsp.OCSPCertStatus = GOOD) -> None:
        self.known |= {it.serial: it for it in issued}
        self.statuses = {**self.statuses, **{it.serial: status for it in issued}}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked += 1
        question = ocsp.load_der_ocsp_request(await request.read())
        assert request.method == "POST" and request.content_type == "application/ocsp-request"
        await self.answering.wait()
        body = self.answer(question) if self.raw is None else self.raw
        return web.Response(
            status=self.status, body=body, content_type="application/ocsp-response", headers=self.headers
        )

    def answer(self, question: ocsp.OCSPRequest) -> bytes:
        """DER, to keep and to send again too."""
        serial = question.serial_number
        about = self.instead_of.get(serial, self.known.get(serial))
        if about is None:
            unauthorized = ocsp.OCSPResponseStatus.UNAUTHORIZED
            return ocsp.OCSPResponseBuilder.build_unsuccessful(unauthorized).public_bytes(
                serialization.Encoding.DER
            )
        status = self.statuses[serial]
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                cert=about.cert,
                issuer=self.authority.cert,
                algorithm=hashes.SHA1(),
                cert_status=status,
                this_update=_time(self.this_update),
                next_update=None if self.without_end else _time(self.next_update),
                revocation_time=_time(self.this_update) if status is REVOKED else None,
                revocation_reason=None,
            )
            .responder_id(
                ocsp.OCSPResponderEncoding.HASH if self.by_key else ocsp.OCSPResponderEncoding.NAME,
                self.signer.cert,
            )
        )
        if self.shows:
            builder = builder.certificates(list(self.shows))
        asked = question.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
        if self.nonce is not None:
            builder = builder.add_extension(x509.OCSPNonce(self.nonce or asked), False)
        if self.extra is not None:
            builder = builder.add_extension(*self.extra)
        key = self.signer.key
        signed = builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
        body = signed.public_bytes(serialization.Encoding.DER)
        return body[:-1] + bytes([body[-1] ^ self.spoil])


@asynccontextmanager
async def responder(authority: Authority, signer: Issued | None = None) -> AsyncIterator[Responder]:
    it = Responder(authority, signer)
    async with serving(it.handle) as origin:
        it.url = f"{origin}/ocsp"
        yield it
        it.answering.set()


@asynccontextmanager
async def hanging() -> AsyncIterator[str]:
    """The URL of a responder that takes connections and never says a word."""

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(-1)  # until the other side gives up
        finally:
            writer.close()

    async with await asyncio.start_server(wait, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


def _index_line(flag: str, revoked_at: str, issued: Issued) -> str:
    serial = f"{issued.serial:X}"
    serial = serial.zfill(len(serial) + len(serial) % 2)
    return f"{flag}\t{_index_time(NOW + DAY)}\t{revoked_at}\t{serial}\tunknown\t/CN=x\n"


def _index_time(seconds: float) -> str:
    return _time(seconds).strftime("%y%m%d%H%M%SZ")


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
