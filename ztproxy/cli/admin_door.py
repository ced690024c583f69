"""Where the admin API is and what opens it, from the options, the environment and the configuration.

Knows: `--url` or ZTPROXY_ADMIN_URL, else the configuration's own `admin`; tokens from a file, from
ZTPROXY_ADMIN_TOKEN, or the one that `ztproxy run` leaves in `state_dir`. Promises: that last one goes to no
address but the configuration's; no token goes over a network in the clear; TLS is always verified. Leaves
asking to `admin_http`.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer

from ztproxy.cli.admin_client import Client
from ztproxy.cli.admin_http import Door
from ztproxy.errors import OperatorError, Place

TOKEN_FILE = "admin-token"  # noqa: S105  (a file's name)
"""In `state_dir`: a token of the running `ztproxy run`, good for as long as it runs."""

TOKEN = "ZTPROXY_ADMIN_TOKEN"  # noqa: S105  (a variable's name)
URL = "ZTPROXY_ADMIN_URL"
CONFIG = "ZTPROXY_CONFIG"

_PANEL = "The admin API"
_FORM = re.compile(r"ztp_[A-Za-z0-9_-]{1,256}")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_EXAMPLE = "https://admin.example.com:9901"


def _file(*names: str, help: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(
        *names, metavar="FILE", help=help, rich_help_panel=_PANEL, show_default=False
    )
    return option


@dataclass(frozen=True, slots=True)
class Reach:
    """The options that say how the admin API is reached."""

    config: Annotated[Path | None, _file("--config", "-c", help=f"The configuration; else {CONFIG}.")] = None
    url: Annotated[
        str | None, typer.Option("--url", help=f"Its address; else {URL}.", rich_help_panel=_PANEL)
    ] = None
    token_file: Annotated[Path | None, _file("--token-file", help=f"The token; else {TOKEN}.")] = None
    cert: Annotated[Path | None, _file("--cert", help="A client certificate.")] = None
    key: Annotated[Path | None, _file("--key", help="Its key, if not in the same file.")] = None
    ca: Annotated[Path | None, _file("--ca", help="Who vouches for its TLS; default: the system's.")] = None
    wait: Annotated[
        float, typer.Option("--wait", min=0.1, max=600, help="Seconds to try for.", rich_help_panel=_PANEL)
    ] = 10.0

    def client(self) -> Client:
        """Raises `OperatorError`, and errors of usage."""
        if self.key is not None and self.cert is None:
            raise typer.BadParameter("`--key` is of no use without `--cert`")
        if self.config is not None and self.url is not None:
            raise typer.BadParameter("give `--config` or `--url`, not both")
        # INVARIANT: who names a configuration means that installation, whatever address of another one is
        # still in the environment.
        url = self.url if self.config is not None else self.url or os.environ.get(URL)
        door = self._by_config() if not url else self._by_url(url)
        token = self._token() or door.token
        if not token and self.cert is None:
            raise OperatorError("there is no token", f"give one with `--token-file` or in {TOKEN}")
        return Client(replace(door, token=token), self.wait)

    def _by_url(self, url: str) -> Door:
        from ztproxy.config.values import origin_argument

        if url.startswith("unix:/"):
            self._without_tls(url)
            return Door(url, path=url.removeprefix("unix:"))
        origin = origin_argument("--url", url, _EXAMPLE)
        if origin.scheme == "https":
            return Door(str(origin), origin.host, origin.port, tls=self._tls())
        if not origin.loopback:
            raise OperatorError(f"`{url}` would send the token in the clear", f"write it like `{_EXAMPLE}`")
        self._without_tls(url)
        return Door(str(origin), origin.host, origin.port)

    def _by_config(self) -> Door:
        from ztproxy.config import load

        file = self.config or Path(os.environ.get(CONFIG) or "ztproxy.yaml")
        settings = load(file, look=False)
        admin = settings.admin
        if admin is None:
            place = Place(str(file), 0, "admin")
            raise OperatorError("it is off, so there is no admin API", "remove it, or give `--url`", place)
        address = admin.address
        token = self._left_by_run(settings.state_dir / TOKEN_FILE)
        if address.path is not None:
            self._without_tls(str(address))
            return Door(str(address), path=address.path, token=token)
        host = address.host
        if ip_address(host).is_unspecified:
            host = "::1" if ":" in host else "127.0.0.1"
        name = f"{'http' if admin.tls is None else 'https'}://{address._replace(host=host)}"
        if admin.tls is None:
            self._without_tls(name)
            return Door(name, host, address.port, token=token)
        if admin.client_ca is not None and self.cert is None:
            raise OperatorError(f"{name} asks for a client certificate", "give one with `--cert` and `--key`")
        if self.ca is not None:
            return Door(name, host, address.port, tls=self._tls(), token=token)
        # The listener's own certificate is at hand: it alone will do, whatever name it is for.
        only = _leaf(admin.tls.certificate)
        return Door(name, host, address.port, tls=self._tls(only), only=only, token=token)

    def _without_tls(self, name: str) -> None:
        if self.cert is not None or self.ca is not None:
            raise typer.BadParameter(f"`{name}` is reached without TLS, so certificates are of no use")

    def _tls(self, only: bytes | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if only is not None:
                context.check_hostname = False
                context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
                context.load_verify_locations(cadata=only)
            elif self.ca is not None:
                context.load_verify_locations(self.ca)
            else:
                context.load_default_certs()
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            why = (getattr(error, "reason", None) or getattr(error, "strerror", None) or "no PEM").lower()
            files = ", ".join(f"`{file}`" for file in (self.ca, self.cert, self.key) if file is not None)
            raise OperatorError(f"{files}: this cannot be used: {why.replace('_', ' ')}") from None
        return context

    def _token(self) -> str:
        """The one that is given, else that of the environment; "" for none."""
        if self.token_file is not None:
            return _good(_read(self.token_file), str(self.token_file))
        return _good(os.environ[TOKEN], TOKEN) if os.environ.get(TOKEN) else ""

    def _left_by_run(self, file: Path) -> str:
        """The token in `state_dir`; "" where another credential is given."""
        if self.token_file is not None or os.environ.get(TOKEN) or self.cert is not None:
            return ""
        return _good(_read(file, "does `ztproxy run` run? else give `--token-file`"), str(file))


def _read(file: Path, mend: str = "") -> str:
    place = Place(str(file), 0, "")
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o007:
                raise OperatorError("it lets everybody read the token", "make it `chmod 600`", place)
            return opened.read(1024).decode("ascii", "replace").strip()
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise OperatorError(f"the token cannot be read: {why}", mend, place) from None


def _good(token: str, where: str) -> str:
    """INVARIANT: nothing of it is in the message; and what is no token is not sent anywhere."""
    token = token.strip()
    if not _FORM.fullmatch(token):
        raise OperatorError(f"{where}: this is not a token of ztproxy", "they begin with `ztp_`")
    return token


def _leaf(file: Path) -> bytes:
    """The first certificate of a chain (DER)."""
    place = Place(str(file), 0, "")
    try:
        found = _CERTIFICATE.search(file.read_text(encoding="ascii", errors="replace"))
        if found is not None:
            return ssl.PEM_cert_to_DER_cert(found[0])
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise OperatorError(
            f"the listener's certificate cannot be read: {why}", "give `--ca`", place
        ) from None
    except ValueError:
        pass
    raise OperatorError("there is no certificate in it", "give `--ca`", place)
