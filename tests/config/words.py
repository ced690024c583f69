"""The words the configuration's tests are written in: `site`, `route` and `policy` make texts; `settings`,
`mistakes` and `warnings` read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ztproxy.config import ConfigErrors, Settings, parse
from ztproxy.core.routes import Forwarding, Route

LISTEN = "listen: 127.0.0.1:8443"  # line 1
PROVIDER = "provider: {issuer: https://idp.test, client_id: z}"  # line 2
ROUTES = (
    "routes:\n  - from: https://app.test\n    to: http://127.0.0.1:1\n    allow_any_authenticated_user: true"
)
FILE = Path("/etc/z.yaml")


def site(*more: str, listen: str = LISTEN, provider: str = PROVIDER, routes: str = ROUTES) -> str:
    """A good configuration; `more` begins on line 7."""
    return "\n".join([listen, provider, routes, *more]) + "\n"


def route(*more: str) -> str:
    """A site whose route goes on with `more`, on line 7."""
    return site(*(f"    {line}" for line in more))


def policy(*rules: str, more: str = "") -> str:
    """A site whose route has these rules, the first on line 6."""
    lines = "".join(f"      - {rule}\n" for rule in rules)
    head = "routes:\n  - from: https://app.test\n    to: http://127.0.0.1:1\n    policy:\n"
    return site(routes=head.replace("    to:", f"    {more}\n    to:") + lines if more else head + lines)


# A listener that asks for certificates, and who vouches for them; the first takes two lines.
ASKING = "listen: {address: 127.0.0.1:8443, client_certificates: true}\ntls: {certificate: c.pem, key: k.pem}"
DEVICES = "devices: {authorities: [{name: corp, ca_file: ca.pem, trust_domain: corp.test}]}"


def device_policy(*rules: str, devices: str = DEVICES, services: str = "", more: str = "") -> str:
    """A site whose listener asks for certificates, and whose route has these rules, the first on line 8."""
    head = "routes:\n  - from: https://app.test\n    to: http://127.0.0.1:1\n    policy:\n"
    lines = "".join(f"      - {rule}\n" for rule in rules)
    tail = f"    services: {services}\n" if services else ""
    return site(devices, *([more] if more else []), listen=ASKING, routes=f"{head}{lines}{tail}".rstrip())


def settings(text: str, environment: Mapping[str, str] | None = None) -> Settings:
    return parse(text.encode(), FILE, environment or {}, look=False)


def the_route(text: str) -> Route:
    (only,) = settings(text).routes.routes
    return only


def the_forwarding(text: str) -> Forwarding:
    action = the_route(text).action
    assert isinstance(action, Forwarding)
    return action


def mistakes(text: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """Every mistake as the operator sees it, without the file's name."""
    try:
        parse(text.encode(), FILE, environment or {}, look=False)
    except ConfigErrors as errors:
        return [str(error).removeprefix(f"{FILE}:") for error in errors.errors]
    return []


def warnings(text: str) -> list[str]:
    return [warning.removeprefix(f"{FILE}:") for warning in settings(text).warnings]
