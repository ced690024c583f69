"""What a device keeps of its enrolment, and how it asks its server for more.

Knows: the files in its directory, and the two JSON endpoints of `surfaces.enrolment`. Promises: the key is
made here, readable by its owner alone, and is sent nowhere; files are replaced whole or not at all; what the
server says is shown as plain text. Leaves when to ask to the commands.

    device.key   its private key, 0600          device.pem   its certificate
    chain.pem    who issued that                device.json  where it is enrolled, and as what
"""

from __future__ import annotations

import json
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ztproxy.adapters.keys import write_private
from ztproxy.cli.admin_http import Door, exchange
from ztproxy.cli.tables import plain
from ztproxy.errors import OperatorError

PATIENCE = 30.0
_LONGEST_DETAIL = 400
_PREFIX = "/.ztproxy/devices/"
_MEMBERS = ("device", "certificate", "chain")


class Refused(OperatorError):
    """The server said no. `wait` is after how many seconds it may say otherwise, 0 for never."""

    def __init__(self, problem: str, mend: str = "", wait: float = 0) -> None:
        super().__init__(problem, mend)
        self.wait = wait


class Server(NamedTuple):
    """Whom to ask: an https origin, or an http one on this machine, and the file of the authority of its
    certificate, if it is a private one."""

    origin: str
    ca_file: str | None

    def post(self, page: str, told: dict[str, str]) -> dict[str, Any]:
        """The answer to a question, with `status`. Raises `Unreachable`, or `Refused`."""
        parts = urlsplit(self.origin)
        host = parts.hostname or ""
        if parts.scheme == "https":
            door = Door(self.origin, host, parts.port or 443, tls=self._trust())
        else:
            from ztproxy.config.values import is_loopback

            # INVARIANT: without TLS to this machine alone, whatever a resolver says (RFC 6761 6.3).
            address = is_loopback(host) and not host.endswith("localhost")
            door = Door(self.origin, host if address else "127.0.0.1", parts.port or 80)
        fields = {"Host": parts.netloc, "Content-Type": "application/json", "Accept": "application/json"}
        body, deadline = json.dumps(told).encode(), time.monotonic() + PATIENCE
        reply = exchange(door, "POST", _PREFIX + page, fields, body, deadline)
        try:
            answer = json.loads(reply.body)
        except ValueError:
            answer = None
        wait = reply.retry_after or (PATIENCE if reply.status >= 500 else 0)
        if not isinstance(answer, dict) and wait:
            answer = {}  # a page of what stands in front, while ztproxy is started anew
        if not isinstance(answer, dict) or reply.status == 404:
            raise Refused(f"{self.origin} enrols no devices", "is `devices.enrolment` in its configuration?")
        if reply.status == 202 and isinstance(answer.get("device"), str):
            return answer
        if reply.status == 200 and all(isinstance(answer.get(name), str) for name in _MEMBERS):
            return answer
        detail = plain(str(answer.get("detail", reply.status))[:_LONGEST_DETAIL])
        raise Refused(f"{self.origin} refuses: {detail}", wait=wait)

    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            why = (error.strerror or type(error).__name__).lower()
            problem = f"`{self.ca_file}` cannot be read: {why}"
            raise OperatorError(problem, "name a file of certificates in PEM") from None


@dataclass(frozen=True, slots=True)
class DeviceFiles:
    directory: Path

    @property
    def key(self) -> Path:
        return self.directory / "device.key"

    @property
    def certificate(self) -> Path:
        return self.directory / "device.pem"

    @property
    def chain(self) -> Path:
        return self.directory / "chain.pem"

    @property
    def p12(self) -> Path:
        return self.directory / "device.p12"

    @property
    def record(self) -> Path:
        return self.directory / "device.json"

    def begin(self, server: Server) -> ec.EllipticCurvePrivateKey:
        """A new key on the disk, and for whom. Raises `OperatorError` where a device is enrolled already."""
        if self.record.exists():
            problem = f"`{self.directory}` holds an enrolled device already"
            raise OperatorError(
                problem, "renew it with `ztproxy device renew`, or choose another `--directory`"
            )
        private = ec.generate_private_key(ec.SECP256R1())
        pem = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            why = (error.strerror or type(error).__name__).lower()
            problem = f"`{self.directory}` cannot be made: {why}"
            raise OperatorError(problem, "choose another `--directory`") from None
        write_private(self.key, pem.decode(), replace=True)
        self._write(self.record, json.dumps({**server._asdict(), "device": ""}))
        return private

    def forget(self) -> None:
        """Takes back `begin`: nothing came of it."""
        for file in (self.record, self.key):
            file.unlink(missing_ok=True)

    def load(self) -> tuple[Server, str, ec.EllipticCurvePrivateKey]:
        """Where this device is enrolled, its id ("" where that is not known) and its key."""
        begin = f"there is no enrolled device in `{self.directory}`"
        try:
            told = json.loads(self.record.read_text(encoding="utf-8"))
            server, device = Server(told["origin"], told["ca_file"]), told["device"]
            private = serialization.load_pem_private_key(self.key.read_bytes(), password=None)
            if not isinstance(private, ec.EllipticCurvePrivateKey):
                raise TypeError  # not the one that was made here
        except FileNotFoundError:
            raise OperatorError(begin, "enrol it with `ztproxy device enroll`") from None
        except (OSError, ValueError, KeyError, TypeError):
            raise OperatorError(f"the files in `{self.directory}` are damaged", "enrol anew") from None
        return server, str(device), private

    def current(self) -> x509.Certificate | None:
        """The certificate on the disk; None where there is none yet."""
        try:
            return x509.load_pem_x509_certificate(self.certificate.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            raise OperatorError(
                f"`{self.certificate}` is damaged", "run `ztproxy device renew --now`"
            ) from None

    def keep(self, server: Server, answer: dict[str, Any], private: ec.EllipticCurvePrivateKey) -> bool:
        """Writes down what the server answered; whether there is a certificate in it."""
        self._write(self.record, json.dumps({**server._asdict(), "device": answer["device"]}))
        if "certificate" not in answer:
            return False
        try:
            found = x509.load_pem_x509_certificate(answer["certificate"].encode())
            ours = found.public_key() == private.public_key()
        except ValueError:
            ours = False
        if not ours:
            raise OperatorError(f"{server.origin} answered with a certificate that is not for this key")
        self._write(self.chain, answer["chain"])
        self._write(self.certificate, answer["certificate"])
        return True

    def pack(self, private: ec.EllipticCurvePrivateKey, name: str, password: str) -> None:
        """Writes all of it into one encrypted file, as browsers import it."""
        from ztproxy.adapters.device_ca import to_pkcs12

        packed = to_pkcs12(private, self.certificate.read_text(), self.chain.read_text(), name, password)
        try:
            self.p12.unlink(missing_ok=True)
            self.p12.touch(mode=0o600, exist_ok=False)
            self.p12.write_bytes(packed)
        except OSError as error:
            with suppress(OSError):
                self.p12.unlink()
            why = (error.strerror or type(error).__name__).lower()
            problem = f"`{self.p12}` cannot be written: {why}"
            raise OperatorError(problem, "make room, then `ztproxy device renew --now --p12`") from None

    def _write(self, file: Path, text: str) -> None:
        write_private(file, text, replace=True)


def is_due(certificate: x509.Certificate, now: float) -> bool:
    """Whether less than a third of its life is left."""
    began, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    return ends - now < (ends - began) / 3
