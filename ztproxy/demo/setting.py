"""What the demo consists of, as files: the hosts, the configuration, the keys and the clients' secrets.

Knows: which host is which app, and what the proxy must be told. Promises: a folder only its owner can read,
with a configuration that is complete and the one `ztproxy run` gets. Leaves starting anything to `running`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from ztproxy.adapters import device_ca
from ztproxy.adapters.keys import fresh_keys, write_private
from ztproxy.demo.laptops import make_site
from ztproxy.demo.provider import Client

CLIENT_ID, SERVICE_ID = "ztproxy-demo", "ci-job"
TRUST_DOMAIN = "demo.internal"
WITH_DEVICES = ("admin", "payroll")
"""The hosts that ask for a device's certificate, and so are behind TLS."""
_TEMPLATE = Path(__file__).with_name("demo.yaml")


@dataclass(frozen=True, slots=True)
class Site:
    """The hosts people open, all on one port of this machine, but for those behind TLS."""

    port: int
    tls_port: int

    def origin(self, name: str) -> str:
        """`http://home.localhost:8080` for `home`; browsers resolve `*.localhost` by themselves."""
        if name in WITH_DEVICES:
            return f"https://{name}.localhost:{self.tls_port}"
        return f"http://{name}.localhost:{self.port}"

    @property
    def bare(self) -> str:
        """The one origin that resolves without a browser's help too: the apps fetch the keys from it."""
        return f"http://localhost:{self.port}"

    @property
    def bare_tls(self) -> str:
        """Where a device asks for its certificate: over TLS, and at a name that resolves everywhere."""
        return f"https://localhost:{self.tls_port}"

    @property
    def jwks_url(self) -> str:
        return f"{self.bare}/.well-known/ztproxy/jwks.json"


def client(site: Site) -> Client:
    """ztproxy as the provider knows it. Signing in ends at the login host only; a sign-out at the provider
    is told at the bare host, for the provider's server resolves no `*.localhost`."""
    login = site.origin("login")
    return Client(
        CLIENT_ID,
        secrets.token_urlsafe(32),
        (f"{login}/.ztproxy/callback/default",),
        (f"{login}/.ztproxy/signed_out",),
        f"{site.bare}/.ztproxy/logout/back/default",
    )


def service(site: Site) -> Client:
    """A program that comes to the app `api` with access tokens of its own."""
    scopes = ("deploy", "read")
    return Client(SERVICE_ID, secrets.token_urlsafe(32), (), audience=site.origin("api"), scopes=scopes)


def write(
    directory: Path,
    site: Site,
    issuer: str,
    clients: tuple[Client, Client],
    ports: Mapping[str, int],
    workers: int,
) -> Path:
    """Writes configuration, keys, secrets and certificates into `directory`; answers the path of the first.

    `clients` are ztproxy and the service. `ports` are the loopback ports of the apps by name, and of the
    `operations` and `admin_api` listeners.
    """
    write_private(directory / "keys.yaml", fresh_keys())
    for client, file in zip(clients, ("client-secret", "service-secret"), strict=True):
        write_private(directory / file, client.client_secret)
    make_site(directory, ["localhost", *(f"{name}.localhost" for name in WITH_DEVICES)])
    device_ca.make(directory, TRUST_DOMAIN, years=1)
    text = Template(_TEMPLATE.read_text(encoding="utf-8"))
    config = directory / "ztproxy.yaml"
    write_private(
        config, text.substitute(ports, port=site.port, tls_port=site.tls_port, issuer=issuer, workers=workers)
    )
    return config
