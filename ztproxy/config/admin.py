"""The admin listener as an operator writes it.

Promises: without a word about it, it is a unix socket in `state_dir` that needs no port and that other users
of the machine cannot open; what is reachable from elsewhere asks for a client certificate (case A28). Leaves
tokens and what a role may do to the admin API.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from ztproxy.config.files import Files
from ztproxy.config.mistakes import Findings, Loc, did_you_mean, quoted, wrong
from ztproxy.config.model import Model, also
from ztproxy.config.names import Email, Texts
from ztproxy.config.settings import Admin, AdminPeople, Role
from ztproxy.config.tls import CertificateModel, certificate_files
from ztproxy.config.values import (
    ONE_OR_MANY,
    Address,
    Kind,
    ListenAddress,
    Text,
    choice,
    host_of,
    is_loopback,
    text_of,
    too_long_for_a_socket,
)
from ztproxy.core.routes import Forwarding, Route

_AT: Loc = ("admin",)
_ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")
_LOOPBACK = Address("127.0.0.1", 9901)
_SHOW = "`openssl x509 -noout -fingerprint -sha256 -in FILE` shows it"


def _host(value: object) -> str:
    host = host_of(text_of(value, "admin.example.com"))
    if host is None:
        mend = "write it like `admin.example.com`, without a port"
        raise wrong(f"{quoted(value)} is not a host name", mend)
    return host


def _fingerprint(value: object) -> str:
    """Lower-case hex; OpenSSL writes capitals and colons."""
    text = str(value).lower()
    if not re.fullmatch(r"[0-9a-f]{2}(?::?[0-9a-f]{2}){31}", text):
        raise wrong(f"{quoted(value)} is not a SHA-256 fingerprint", _SHOW)
    return text.replace(":", "")


def _each_once(value: Any) -> Any:
    if isinstance(value, dict):
        seen: set[str] = set()
        for name in value:
            bare = name.lower().replace(":", "")
            if bare in seen:
                raise wrong("this certificate is listed twice", "remove one of them", name)
            seen.add(bare)
    return value


Certificates = Annotated[
    dict[
        Annotated[str, Kind(_fingerprint, type="string")],
        Annotated[Literal["viewer", "operator", "admin"], choice(*_ROLES)],
    ],
    BeforeValidator(_each_once),
]


class PeopleModel(Model):
    """Whoever is in one of the groups or has one of the verified e-mail addresses."""

    groups: Texts | None = None
    emails: Annotated[list[Email], ONE_OR_MANY] | None = None

    @model_validator(mode="after")
    def _somebody(self) -> PeopleModel:
        if self.groups is None and self.emails is None:
            raise wrong("nobody is named", "write `groups: [...]` or `emails: [...]`")
        return self


class ConsoleModel(Model):
    """Who may open the console through ztproxy itself, and in which role."""

    route: Text = Field(description="The name of the route that leads to the admin listener.")
    viewer: PeopleModel | None = None
    operator: PeopleModel | None = None
    admin: PeopleModel | None = None

    @model_validator(mode="after")
    def _some_role(self) -> ConsoleModel:
        if self.model_fields_set == {"route"}:
            raise wrong("nobody may open the console", "write `admin: {groups: [...]}`")
        return self


class AdminModel(Model):
    """The admin API and its console, on a listener of their own."""

    model_config = ConfigDict(json_schema_extra=also({"type": "string"}))

    listen: ListenAddress | None = Field(default=None, description="Default: 127.0.0.1:9901.")
    tls: CertificateModel | None = None
    client_ca: Text | None = Field(default=None, description="Ask for client certificates of this CA.")
    certificates: Certificates = Field(default={}, description="SHA-256 fingerprints, each with a role.")
    hosts: Annotated[list[Annotated[str, Kind(_host, type="string", minLength=1)]], ONE_OR_MANY] | None = (
        Field(default=None, description="Further names it may be called by.")
    )
    console: ConsoleModel | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return value if isinstance(value, dict) else {"listen": value}


def default_admin(state_dir: Path, findings: Findings) -> Admin:
    """A socket beside the state: two instances never want the same one, as they would a port."""
    path = str(state_dir / "admin.sock")
    if too_long_for_a_socket(path):
        problem = f"the path of the admin socket, {quoted(Path(path))}, is too long for one"
        findings.wrong(("state_dir",), problem, "write `admin: unix:/run/ztproxy/admin.sock` or `admin: off`")
    return Admin(Address("", 0, path))


def compile_admin(model: AdminModel, routes: Sequence[Route], files: Files) -> Admin:
    findings, address = files.findings, model.listen or _LOOPBACK
    if address.path is not None:
        for key in ("tls", "client_ca", "certificates", "console"):
            if key in model.model_fields_set:
                mend = "write `listen: 127.0.0.1:9901`, or remove it"
                findings.wrong((*_AT, key), "a unix socket has no use for this", mend)
    # INVARIANT: whoever is not on this machine shows a certificate before a byte is read as a request (A28).
    elif not is_loopback(address.host) and (model.tls is None or model.client_ca is None):
        problem = f"`{address}` can be reached from elsewhere without a client certificate"
        mend = "write `listen: 127.0.0.1:9901`, or add `tls: {certificate, key}` and `client_ca`"
        findings.wrong((*_AT, "listen"), problem, mend)
    elif model.client_ca is not None and model.tls is None:
        problem = "a client's certificate is shown over TLS alone"
        findings.wrong((*_AT, "client_ca"), problem, "add `tls: {certificate, key}`")
    elif model.certificates and model.client_ca is None:
        problem = "no client is asked for its certificate"
        findings.wrong((*_AT, "certificates"), problem, "add `client_ca`")
    tls = None
    if model.tls is not None:
        tls = certificate_files(model.tls.certificate, model.tls.key, (*_AT, "tls"), files)
    hosts = set(model.hosts or ())
    people = None
    if model.console is not None:
        people = _people(model.console)
        hosts |= _console_host(model.console, routes, findings)
    return Admin(
        address,
        tls,
        files.named(model.client_ca, (*_AT, "client_ca")) if model.client_ca is not None else None,
        MappingProxyType(dict(model.certificates)),
        frozenset(hosts),
        people,
    )


def _people(model: ConsoleModel) -> AdminPeople:
    groups: dict[Role, frozenset[str]] = {}
    emails: dict[Role, frozenset[str]] = {}
    for role in _ROLES:
        named: PeopleModel | None = getattr(model, role)
        if named is not None and named.groups is not None:
            groups[role] = frozenset(named.groups)
        if named is not None and named.emails is not None:
            emails[role] = frozenset(named.emails)
    return AdminPeople(model.route, MappingProxyType(groups), MappingProxyType(emails))


def _console_host(model: ConsoleModel, routes: Sequence[Route], findings: Findings) -> set[str]:
    """The name by which the console's route calls the admin listener, if it is one of its own."""
    at = (*_AT, "console", "route")
    route = next((one for one in routes if one.name == model.route), None)
    if route is None:
        mend = did_you_mean(model.route, [one.name for one in routes])
        findings.wrong(at, f"there is no route {quoted(model.route)}", mend)
        return set()
    if not isinstance(route.action, Forwarding):
        problem = f"the route {quoted(model.route)} leads nowhere"
        findings.wrong(at, problem, "write `to:` with the admin listener's address there")
        return set()
    if not route.identity.assertion:
        problem = f"the route {quoted(model.route)} does not say who somebody is"
        findings.wrong(at, problem, "leave out `identity: {assertion: false}` there")
    if route.action.preserve_host:
        return {route.host}
    return {route.action.host.partition(":")[0]} if route.action.host is not None else set()
