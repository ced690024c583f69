"""ztproxy as it is measured: `ztproxy run`, with every check on that a proxied request can have.

Knows: one configuration, in which a request has a session in the embedded Valkey under its lease, a device
in the inventory, ten rules to pass, an assertion, a line in both logs and its place in the metrics. Promises:
one proxy with a plain and a TLS listener over the same sessions; somebody really signed in on both, with a
second factor and on an approved device; everything is gone when the block ends. Leaves loading it to others.

The device's certificate comes as a front that ends TLS passes it on (RFC 9440), for two reasons: a plain
connection has no other, and neither wrk nor h2load has a certificate to show.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.util
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from bench import certificates, figures, load, machine
from bench.peers import Peer, Upstream
from bench.peers.around import folder
from bench.place import Place, free_port
from bench.revocation_clients import Revoking
from ztproxy.adapters.device_ca import DeviceCA, make
from ztproxy.adapters.keys import fresh_keys, write_private
from ztproxy.demo.people import ALICE, PEOPLE
from ztproxy.demo.provider import Client, create_provider
from ztproxy.demo.visitor import PROGRAM, Page, Visitor
from ztproxy.verify import HEADER_NAME, AssertionRejected, Verifier

CHECKS = (
    "session under its lease (read again every 0.8 s), ten rules (asked again when anything they read "
    "changes), device and its posture from a certificate, assurance, assertion (signed once a minute), "
    "access and decision log, metrics"
)
CHECKS_PURE = "the same, not compiled"
CHECKS_ANEW = "the same, with all ten rules on every request"
DEVICE = "laptop-0"
_DOMAIN = "corp.test"
_ROOT = Path(__file__).resolve().parent.parent

_RULES = Template("""\
      - {name: suspended, deny: {group: suspended}}
      - {name: jailbroken, deny: {device: {posture: {jailbroken: true}}}}
      - {name: auditors, allow: {group: auditors, method: [GET, HEAD], acr_rank: phishing_resistant}}
      - {name: payroll, allow: {group: finance, acr_rank: multi_factor$payroll}}
      - {name: contractors, allow: {group: contractors, domain: agency.test$contractors}}
      - {name: partners, allow: {domain: [partner.test, supplier.test]$partners}}
      - {name: one department, allow: {claim/department: [legal, board], acr_rank: multi_factor}}
      - {name: named people, allow: {email: [bob@example.com, carol@example.com]}}
      - name: engineers with a second factor on a laptop in good order
        allow:
          group: engineering
          domain: example.com
          acr_rank: multi_factor
          device: {approved: true, owned: true, compliant: laptop}
      - {name: administrators, allow: {group: admins, acr_rank: phishing_resistant}}
""")
RULES = _RULES.substitute(payroll="", contractors="", partners="")
"""Ten, of which the ninth lets in. They read who it is, how strongly they signed in, on which device, and the
method: what was decided is given again until any of that changes."""

READING_MORE = _RULES.substitute(
    payroll=", path: {prefix: /payroll}",
    contractors=(
        ", source_network: 10.20.0.0/16"
        ', time: {zone: Europe/Berlin, days: mon-fri, after: "08:00", before: "18:00"}'
    ),
    partners=", path: {prefix: /shared}",
)
"""The same, with conditions on path, network and time among them: every request is judged by all ten."""

_CONFIG = Template("""\
listen:
  - {address: "127.0.0.1:$plain", tls: false}
  - {address: "127.0.0.1:$tls", tls: true}
tls: {certificate: $chain, key: $key, min_version: "1.3"}
hsts: off
trusted_proxies: 127.0.0.1/32
provider: {issuer: "$issuer", client_id: bench, client_secret_file: client-secret, algorithm: ES256}
assurance: {acr: {"urn:ztproxy:demo:pwd": password, "urn:ztproxy:demo:mfa": multi_factor}}
devices:
  authorities:
    - name: corp
      ca_file: device-ca.pem
      device_id: {from: san_uri, template: "spiffe://$domain/device/{id}"}
  certificates_from_proxies: client-cert
  compliance:
    laptop: {within: 24h, mdm_enrolled: true, disk_encrypted: true, os_patch_age: {at_most: 30}}
keys_file: keys.yaml
state: embedded
state_dir: state
workers: $workers
drain: 1s
operations: 127.0.0.1:$operations
log: {access: access.log, decisions: decisions.log}
limits: {connections: 65536, connections_per_address: 65536}
routes:
  - from: http://plain.localhost:$plain
    name: plain
    to: http://127.0.0.1:$app
    upgrades: [websocket]
    max_upstream_connections: 16384
    policy:
$rules
  - from: https://app.localhost:$tls
    name: tls
    to: http://127.0.0.1:$app
    upgrades: [websocket]
    max_upstream_connections: 16384
    policy:
$rules
""")


@dataclass(frozen=True, slots=True)
class Running(Peer):
    """ztproxy as a `Peer`, and what only its own checks need. `pids` begin with the supervisor's; `workers`
    are among them. Each request adds a line to each of the `logs`."""

    directory: Path = Path()
    workers: tuple[int, ...] = ()
    operations: int = 0
    """The port of its metrics."""

    @property
    def logs(self) -> tuple[Path, Path]:
        return self.directory / "access.log", self.directory / "decisions.log"

    def verify(self, fields: Mapping[str, str], *, tls: bool = False) -> None:
        """`fields` are what the app got, by names in lower case, of a request to one of the ports. Raises
        `CannotMeasure` unless the assertion among them is signed by a key that this proxy publishes, and
        tells of the person and the device that were signed in."""
        host = (self.tls_headers if tls else self.headers)["Host"]
        port = self.tls if tls else self.port
        published = load.ask(port, "/.well-known/ztproxy/jwks.json", {"Host": host}, tls=tls).body
        try:
            verifier = Verifier(json.loads(published), audience=f"http{'s' if tls else ''}://{host}")
            who = verifier.verify(fields.get(HEADER_NAME.lower(), ""))
        except (AssertionRejected, ValueError) as error:
            raise machine.CannotMeasure(f"the app was not told who asks: {error}") from error
        if (who.email, who.device) != (ALICE.email, DEVICE):
            raise machine.CannotMeasure(f"the app was told of {who.email} on {who.device}")


ANEW = "ztproxy, every rule anew"
"""`Ours` with `READING_MORE`, in the tables."""


@dataclass(frozen=True, slots=True)
class Ours:
    """ztproxy among the peers. `tree` and `rules` are as for `peer`; what differs from the product as it is
    gets a name of its own, and perhaps takes part in some shapes `only`."""

    NAME: str = figures.SUBJECT
    tree: Path | None = None
    rules: str = RULES
    only: frozenset[str] = frozenset()
    CHECKS: str = CHECKS

    def missing(self) -> str:
        return ""

    def running(self, place: Place, upstream: Upstream) -> contextlib.AbstractAsyncContextManager[Running]:
        return peer(place, upstream, name=self.NAME, tree=self.tree, rules=self.rules)


@contextlib.asynccontextmanager
async def peer(
    place: Place,
    upstream: Upstream,
    *,
    name: str = figures.SUBJECT,
    tree: Path | None = None,
    rules: str = RULES,
    workers: int = 1,
    cores: Sequence[int] = (),
) -> AsyncIterator[Running]:
    """`tree`: a folder with a `ztproxy` package in it, to be run instead of this one. `cores`: where it runs,
    by default on the proxy's. The provider is in this process, on its loop. Raises `CannotMeasure`."""
    directory = folder(place, "ztproxy")
    certificate = certificates.certificate(place)
    plain, tls, operations = free_port(), free_port(), free_port()
    origins = (f"http://plain.localhost:{plain}", f"https://app.localhost:{tls}")
    callbacks = tuple(f"{origin}/.ztproxy/callback/default" for origin in origins)
    client = Client("bench", "not a secret for long", callbacks)
    async with contextlib.AsyncExitStack() as stack:
        issuer = await stack.enter_async_context(_provider(client))
        config = directory / "ztproxy.yaml"
        config.write_text(
            _CONFIG.substitute(
                chain=certificate.chain,
                key=certificate.key,
                plain=plain,
                tls=tls,
                operations=operations,
                issuer=issuer,
                domain=_DOMAIN,
                workers=workers,
                app=upstream.asserted,
                rules=rules,
            )
        )
        write_private(directory / "keys.yaml", fresh_keys())
        write_private(directory / "client-secret", client.client_secret)
        shown, trust = _passed_on(directory), certificate.trusted()
        run = _command(directory, tree, cores or (place.proxy_core,))
        said = directory / "said.log"
        proxy = stack.enter_context(machine.process(*run, "run", str(config), log=said))
        for origin in origins:
            await _answering(origin, trust, proxy, said)
        await Revoking(directory / "state").ready()
        await _import(directory, config)
        headers = [await _signed_in(issuer, origin, shown, trust) for origin in origins]
        below = machine.descendants(proxy.pid)
        yield Running(
            name,
            plain,
            (proxy.pid, *below),
            tls=tls,
            headers=headers[0],
            tls_headers=headers[1],
            asserts=True,
            directory=directory,
            workers=tuple(pid for pid in below if _is_worker(pid)),
            operations=operations,
        )


@contextlib.asynccontextmanager
async def _provider(client: Client) -> AsyncIterator[str]:
    """The demo's OpenID provider; yields its issuer."""
    port = free_port()
    issuer = f"http://127.0.0.1:{port}"
    runner = web.AppRunner(create_provider(issuer, [client], PEOPLE), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield issuer
    finally:
        await runner.cleanup()


def compiled_tree(root: Path = _ROOT) -> Path | None:
    """The copy of `root` with its hot modules compiled, as `tools/compiled.py` leaves it; None where there is
    none. Raises `CannotMeasure` where it is not of the source as it is now."""
    tree, stamp = root / "build" / "compiled", root / "build" / "compiled.sha256"
    if not list(tree.glob("*__mypyc.*.so")):
        return None
    spec = importlib.util.spec_from_file_location("compiled", _ROOT / "tools" / "compiled.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    if not stamp.exists() or stamp.read_text() != tool.digest(root):
        raise machine.CannotMeasure("build/compiled is not of this source: run `make bench`")
    return tree


def at_hand(directory: Path, tree: Path | None) -> list[str]:
    """What is put before a command so that it runs in a folder with no package in it, and finds the `ztproxy`
    of `tree` if that is given. Raises `CannotMeasure` if there is none in it."""
    there = [machine.tool("env", "coreutils"), "-C", str(directory)]
    if tree is not None:
        there.append("PYTHONPATH=" + os.pathsep.join(filter(None, (str(tree), os.environ.get("PYTHONPATH")))))
        asked = [*there, sys.executable, "-c", "import ztproxy; print(ztproxy.__file__)"]
        found = subprocess.run(asked, capture_output=True, text=True, check=False)
        if not Path(found.stdout.strip()).is_relative_to(tree):
            raise machine.CannotMeasure(f"`{tree}` holds no package: {found.stdout}{found.stderr}")
    return there


def _command(directory: Path, tree: Path | None, cores: Sequence[int]) -> list[str]:
    """`ztproxy`; it ends when this process does."""
    there = at_hand(directory, tree)
    alone = [machine.tool("setpriv", "util-linux"), "--pdeathsig", "KILL"]
    pinned = [machine.tool("taskset", "util-linux"), "-c", ",".join(map(str, cores))]
    return [*alone, *there, *pinned, sys.executable, "-m", "ztproxy.cli"]


def _passed_on(directory: Path) -> dict[str, str]:
    """What a front says of the laptop, with a certificate by an authority that is made here."""
    devices = DeviceCA.load(*make(directory, _DOMAIN, 1), _DOMAIN, 7 * 86400)
    laptop = devices.issue(devices.make_key().proven, DEVICE, time.time())
    return {"Client-Cert": f":{base64.b64encode(laptop.der).decode()}:"}


class _Laptop(Visitor):
    """A browser behind a front that passes on which certificate it showed."""

    def __init__(self, issuer: str, person: str, shown: Mapping[str, str], trust: ssl.SSLContext) -> None:
        super().__init__(issuer, person, "mfa", trust)
        self._shown = shown

    async def ask(
        self,
        url: str,
        headers: dict[str, str] | None = None,
        *,
        method: str = "GET",
        data: bytes | None = None,
    ) -> Page:
        sent = {**(PROGRAM if headers is None else headers), **self._shown}
        return await super().ask(url, sent, method=method, data=data)


async def _signed_in(
    issuer: str, origin: str, shown: Mapping[str, str], trust: ssl.SSLContext
) -> dict[str, str]:
    """What somebody's client sends to `origin` with each request, once they have signed in there."""
    async with _Laptop(issuer, ALICE.username, shown, trust) as visitor:
        page = await visitor.open(f"{origin}/")
        if page.status != 200:
            raise machine.CannotMeasure(f"signing in at {origin} ended with {page.status}: {page.text}")
        return {"Host": urlsplit(origin).netloc, **visitor.cookie_header(origin), **shown}


async def _import(directory: Path, config: Path) -> None:
    """The inventory: one laptop, approved and in good order."""
    file = directory / "devices.csv"
    file.write_text(
        "id,name,platform,owners,status,posture.mdm_enrolled,posture.disk_encrypted,posture.os_patch_age,"
        "posture.jailbroken\n"
        f"{DEVICE},a laptop,macos,{ALICE.email},approved,true,true,12,false\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ztproxy.cli", "devices", "import", str(file), "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    if process.returncode or b"1 created" not in said:
        raise machine.CannotMeasure(f"`ztproxy devices import` said: {said.decode()}")


async def _answering(origin: str, trust: ssl.SSLContext, proxy: subprocess.Popen[bytes], said: Path) -> None:
    async with Visitor(origin, tls=trust) as nobody:
        for _ in range(300):
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await nobody.ask(f"{origin}/")
                return
            if proxy.poll() is not None:
                break
            await asyncio.sleep(0.1)
    raise machine.CannotMeasure(f"the proxy does not answer; see {said}")


def worker_below(supervisor: int) -> int:
    """`taskset` and the supervisor become one process; the worker is the child that says so."""
    for pid in machine.descendants(supervisor):
        if _is_worker(pid):
            return pid
    raise machine.CannotMeasure("no worker was found below the supervisor")


def _is_worker(pid: int) -> bool:
    return b"ztproxy.cli.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
