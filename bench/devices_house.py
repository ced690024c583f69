"""The installation that the device bench measures: two ztproxys that differ in their inventories alone.

Knows: certificates, configuration, and how somebody comes to be signed in on a laptop without walking there.
Promises: each node is `ztproxy run` with one worker and a Valkey of its own, all on one core; the app behind
it answers nobody who comes without an assertion; everything is gone when the block ends. Leaves asking to
`devices_clients`.
"""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.hazmat.primitives.serialization import load_der_private_key as load_key

from bench import machine, nginx, subject
from bench.devices_clients import Way, answers
from bench.revocation_clients import Revoking, until
from bench.revocation_house import child
from ztproxy.adapters.cookies import SignedHandles
from ztproxy.adapters.device_ca import DeviceCA, make
from ztproxy.adapters.embedded_valkey import EmbeddedValkey
from ztproxy.adapters.keys import KeyRing
from ztproxy.adapters.redis_connection import connect
from ztproxy.adapters.redis_sessions import RedisSessions
from ztproxy.adapters.sealing import Sealer
from ztproxy.core.identity import Identity, Session, SessionSecrets
from ztproxy.core.sessions import SessionLimits
from ztproxy.demo.running import free_port
from ztproxy.gateway.ports.enrolment import Issued

DEVICE, OWNER = "laptop-0", "p0@corp.test"
"""The laptop that everything is asked from, and whose it is."""

BOUND, UNBOUND = "devices.test", "plain.test"
"""The host whose policy asks for a device, and the one whose policy asks for a group alone."""

_DOMAIN, _ISSUER, _COOKIE = "corp.test", "https://idp.test", "__Host-ztproxy"

_CONFIG = """\
listen:
  - {{address: "127.0.0.1:{asks}", client_certificates: true}}
  - {{address: "127.0.0.1:{by_name}", client_certificates: {{hosts: [{bound}]}}}}
  - {{address: "127.0.0.1:{quiet}"}}
tls: {{certificate: {pki}/server.pem, key: {pki}/server.key}}
provider: {{issuer: "{issuer}", client_id: bench, client_secret: not a secret for long}}
state: {state}
state_dir: {directory}
keys_file: {keys}
workers: 1
drain: 1s
log: {{access: {directory}/access.log, decisions: {directory}/decisions.log}}
limits: {{connections_per_address: 8192}}
devices:
  authorities:
    - name: corp
      ca_file: {pki}/device-ca.pem
      device_id: {{from: san_uri, template: "spiffe://{domain}/device/{{id}}"}}
  compliance:
    laptop: {{within: 24h, mdm_enrolled: true, disk_encrypted: true, os_patch_age: {{at_most: 30}}}}
routes:
  - from: https://{bound}
    to: http://127.0.0.1:{app}
    policy: [{{allow: {{group: staff, device: {{approved: true, owned: true, compliant: laptop}}}}}}]
  - from: https://{unbound}
    to: http://127.0.0.1:{app}
    policy: [{{allow: {{group: staff}}}}]
"""

_APP = """
    map $http_x_ztproxy_assertion $told {{ default 0; "~^[\\w-]+\\.[\\w-]+\\.[\\w-]+$" 1; }}
    server {{
        listen 127.0.0.1:{told} backlog=4096;
        default_type text/plain;
        if ($told = 0) {{ return 401 "nobody says who this is"; }}
        location / {{ return 200 "{body}"; }}
        location = /assertion {{ return 200 $http_x_ztproxy_assertion; }}
    }}
    server {{
        listen 127.0.0.1:{anybody} backlog=4096;
        default_type text/plain;
        location / {{ return 200 "{body}"; }}
    }}
"""

_NGINX = """
    upstream app {{ server 127.0.0.1:{app}; keepalive 128; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        ssl_certificate {pki}/server.pem;
        ssl_certificate_key {pki}/server.key;
        ssl_client_certificate {pki}/device-ca.pem;
        ssl_verify_client optional;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache off;
        ssl_session_tickets off;
        if ($ssl_client_verify != SUCCESS) {{ return 403; }}
        if ($ssl_session_reused = r) {{ return 409; }}
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert;
        }}
    }}
"""

_SHAKER = """
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass https://127.0.0.1:{to};
            proxy_http_version 1.1;
            proxy_set_header Connection close;
            proxy_set_header Host {host};
            proxy_set_header Cookie "{cookie}";
            proxy_ssl_server_name on;
            proxy_ssl_name {host};
            proxy_ssl_protocols TLSv1.3;
            proxy_ssl_session_reuse on;  # this is what turns Nagle's algorithm off; there is nothing to reuse
            {certificate}
        }}
    }}
"""


@dataclass(frozen=True, slots=True)
class PKI:
    """A server certificate, an authority for devices, and the laptop's certificate, as files."""

    directory: Path
    authority: DeviceCA
    laptop: Issued

    @property
    def shown(self) -> tuple[str, str]:
        """The laptop's certificate and its key."""
        return str(self.directory / "laptop.pem"), str(self.directory / "laptop.key")

    def issue(self, device: str) -> Issued:
        return self.authority.issue(self.authority.make_key().proven, device, time.time())

    def context(self, *, shows: bool) -> ssl.SSLContext:
        """A client's, with the laptop's certificate or without one."""
        context = ssl.create_default_context(cafile=str(self.directory / "ca.pem"))
        if shows:
            context.load_cert_chain(*self.shown)
        return context


def pki_in(directory: Path) -> PKI:
    directory.mkdir()
    vouches = trustme.CA(key_type=trustme.KeyType.ECDSA)
    vouches.cert_pem.write_to_path(str(directory / "ca.pem"))
    server = vouches.issue_cert(BOUND, UNBOUND, key_type=trustme.KeyType.ECDSA)
    server.private_key_pem.write_to_path(str(directory / "server.key"))
    for blob in server.cert_chain_pems:
        blob.write_to_path(str(directory / "server.pem"), append=True)
    (directory / "server.key").chmod(0o600)
    authority = DeviceCA.load(*make(directory, _DOMAIN, 1), _DOMAIN, 7 * 86400)
    key = authority.make_key()
    laptop = authority.issue(key.proven, DEVICE, time.time())
    private = load_key(key.private, None)
    (directory / "laptop.pem").write_text(laptop.pem)
    (directory / "laptop.key").write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    directory.chmod(0o755)  # nginx, started as root, reads as root; its worker does not
    return PKI(directory, authority, laptop)


@dataclass(frozen=True, slots=True)
class Node:
    """A running ztproxy. `asks`, `by_name` and `quiet` are its listeners: one that asks every client for a
    certificate, one that asks at `BOUND`, one that asks nobody. The cookies are of one person, with and
    without a device."""

    directory: Path
    state: str
    keys: Path
    worker: int
    ports: dict[str, int]
    bound: str
    unbound: str
    pki: PKI

    def way(self, listener: str) -> Way:
        """To a listener: on the laptop, or, where nobody is asked, from anywhere."""
        asked = listener != "quiet"
        host = BOUND if asked else UNBOUND
        cookie = f"{_COOKIE}={self.bound if asked else self.unbound}"
        return Way(self.ports[listener], host, cookie, self.pki.context(shows=asked))

    @property
    def config(self) -> Path:
        return self.directory / "ztproxy.yaml"


@contextlib.asynccontextmanager
async def node(directory: Path, core: int, keys: Path, pki: PKI, app: int) -> AsyncIterator[Node]:
    """One whose inventory is empty."""
    directory.mkdir(mode=0o755)  # noqa: ASYNC240  nobody waits yet
    ports = {name: free_port() for name in ("asks", "by_name", "quiet")}
    with contextlib.ExitStack() as stack:
        with machine.held_on(core):
            store = stack.enter_context(EmbeddedValkey(directory / "valkey"))
        config = directory / "ztproxy.yaml"
        config.write_text(
            _CONFIG.format(
                **ports,
                bound=BOUND,
                unbound=UNBOUND,
                pki=pki.directory,
                issuer=_ISSUER,
                domain=_DOMAIN,
                state=store.url,
                directory=directory,
                keys=keys,
                app=app,
            )
        )
        bound, unbound = await _signed_in(store.url, keys, pki)
        command = (sys.executable, "-m", "ztproxy.cli", "run", str(config))
        process = stack.enter_context(child(*machine.pinned(core, *command), log=directory / "said.log"))
        await Revoking(directory).ready()
        worker = subject.worker_below(process.pid)
        it = Node(directory, store.url, keys, worker, ports, bound, unbound, pki)

        async def well() -> bool:
            return await answers(it.way("quiet"))

        await until(well, "the worker lets people in")
        yield it


@contextlib.contextmanager
def app(core: int, directory: Path) -> Iterator[tuple[int, int]]:
    """The ports of the app that wants an assertion, and of the one that wants none."""
    told, anybody = free_port(), free_port()
    inside = _APP.format(told=told, anybody=anybody, body="x" * nginx.BODY_BYTES)
    with nginx.serving(core, inside, directory):
        yield told, anybody


@contextlib.contextmanager
def compared(core: int, to: int, pki: PKI, directory: Path) -> Iterator[tuple[int, int]]:
    """nginx with `ssl_verify_client optional`: its port, and the process that serves."""
    port = free_port()
    with nginx.serving(core, _NGINX.format(port=port, app=to, pki=pki.directory), directory) as process:
        yield port, _serving(process)


@contextlib.contextmanager
def shakers(core: int, ways: dict[str, Way], pki: PKI, directory: Path) -> Iterator[dict[str, int]]:
    """For each way a port that takes plain HTTP and makes a TLS connection of its own for each request:
    nginx, because a client in Python would be slower than what is measured."""
    ports = {name: free_port() for name in ways}
    certificate, key = pki.shown
    shown = f"proxy_ssl_certificate {certificate}; proxy_ssl_certificate_key {key};"
    inside = "".join(
        _SHAKER.format(
            port=ports[name],
            to=way.port,
            host=way.host,
            cookie=way.cookie,
            certificate=shown if way.host == BOUND else "",
        )
        for name, way in ways.items()
    )
    with nginx.serving(core, inside, directory):
        yield ports


def _serving(process: subprocess.Popen[bytes]) -> int:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        below = machine.descendants(process.pid)
        if below:
            return below[-1]
        time.sleep(0.05)
    raise machine.CannotMeasure("nginx has no worker")


async def _signed_in(state: str, keys: Path, pki: PKI) -> tuple[str, str]:
    """Two cookies as a sign-in writes them: of a session bound to the laptop, and of an unbound one."""
    ring, client = KeyRing.load(keys), connect(state)
    store, signer = RedisSessions(client, Sealer(ring.records), SessionLimits()), SignedHandles(ring.handles)
    now, who = time.time(), Identity(_ISSUER, "p0", OWNER, groups=("staff",))

    async def cookie(host: str, device: str | None, certificate: str | None) -> str:
        session = Session(
            "", who, "default", now, now, now, now + 3600, device=device, certificate=certificate
        )
        return signer.seal(await store.create(session, SessionSecrets(), host, None))

    try:
        return await cookie(BOUND, DEVICE, pki.laptop.thumbprint), await cookie(UNBOUND, None, None)
    finally:
        await client.aclose()
