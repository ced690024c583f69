"""A well-formed document into `Settings`: what its parts mean together.

Knows: the relations between keys (routes that collide, a cookie domain that leaves hosts out, a listener
without a certificate). Promises: either `Settings` the process can run with as they are, or `ConfigErrors`
with every mistake that was found. Leaves reading files of the world (certificates, keys) to those who use
them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from ztproxy.config.admin import compile_admin, default_admin
from ztproxy.config.asked import check_asked
from ztproxy.config.assurance import compile_levels
from ztproxy.config.devices import (
    compile_authorities,
    compile_client_certificates,
    compile_devices,
    compile_words,
)
from ztproxy.config.document import Document, ListenModel, SessionModel
from ztproxy.config.files import Files
from ztproxy.config.mistakes import ConfigErrors, Findings, Loc, Places, quoted
from ztproxy.config.policy import PolicyContext
from ztproxy.config.provider import ProviderModel, compile_provider
from ztproxy.config.rates import compile_limits
from ztproxy.config.revocation import compile_revocation
from ztproxy.config.route import RouteContext, compile_route
from ztproxy.config.services import check_audiences, compile_issuers
from ztproxy.config.settings import (
    Admin,
    Authority,
    Branding,
    Cookie,
    Listener,
    ListenerTLS,
    Log,
    Provider,
    Secret,
    Settings,
)
from ztproxy.config.tls import compile_tls
from ztproxy.config.values import Address, is_loopback
from ztproxy.core.conditions import fold
from ztproxy.core.route_table import RouteTable
from ztproxy.core.routes import Route
from ztproxy.core.sessions import GroupLimits, SessionLimits


def compile_document(document: Document, file: Path, places: Places, *, look: bool = True) -> Settings:
    """`look`: whether the files named must be there. Raises `ConfigErrors`."""
    findings = Findings(places)
    files = Files(file.parent, findings, look)
    files.paths.append(file)
    levels = compile_levels(document.assurance, document.session.absolute, findings)
    written = _written_providers(document, findings)
    claims: set[str] = set()
    names = frozenset(model.name or "default" for _, model in written)
    authorities = compile_authorities(document.devices, files)
    words = compile_words(document.devices, authorities, findings)
    issuers = {model.name: model.issuer for model in document.token_issuers or ()}
    context = RouteContext(files, levels, names, claims, document.session.max_in_group, words, issuers)
    routes = [compile_route(model, ("routes", i), context) for i, model in enumerate(document.routes)]
    _distinct(routes, findings)
    _cookie_covers(document, routes, findings)
    _one_door(document, routes, findings)
    session = _session(document.session, findings)
    who = PolicyContext(findings, levels, False, claims, words, issuers)
    devices = compile_devices(document.devices, authorities, files, who)
    if devices is not None and devices.fronts is not None and not document.trusted_proxies:
        mend = "add `trusted_proxies` with the network of the proxies that end TLS"
        problem = "anybody could then pass any certificate on"
        findings.wrong(("devices", "certificates_from_proxies"), problem, mend)
    listeners = _listeners(document, authorities, files)
    shared = document.auth_host if document.cookie.domain is not None else None
    check_asked(routes, listeners, devices, None if shared is None else shared.host, findings)
    token_issuers = compile_issuers(document.token_issuers or (), files, claims)
    providers = _providers(written, files, claims)
    check_audiences(routes, token_issuers, providers, findings)
    hsts = document.hsts
    if hsts is not None and hsts.preload and not (hsts.include_subdomains and hsts.max_age >= 31_536_000):
        mend = "add `include_subdomains: true` and a `max_age` of `365d` or more"
        findings.wrong(("hsts", "preload"), "browsers do not preload this", mend)
    state_dir = files.path(document.state_dir)
    state = _state(document, files)
    settings = Settings(
        listeners=listeners,
        providers=providers,
        routes=RouteTable(routes),
        state_dir=state_dir,
        keys_file=_keys_file(document, state_dir, files),
        trusted_proxies=tuple(document.trusted_proxies or ()),
        workers=document.workers,
        state_url=state,
        auth_host=document.auth_host,
        cookie=_cookie(document),
        session=session,
        devices=devices,
        token_issuers=token_issuers,
        levels=levels,
        limits=compile_limits(document.limits),
        operations=document.operations,
        admin=_admin(document, routes, state_dir, files),
        revocation=compile_revocation(document.revocation, state, findings),
        sessions_per_person=document.session.max_per_person,
        log=_log(document, state_dir, files),
        hsts=_hsts(document),
        drop_underscored_headers=document.headers_with_underscores == "drop",
        branding=_branding(document, files),
        drain=document.drain,
        files=tuple(dict.fromkeys(files.paths)),
        warnings=tuple(findings.warnings),
    )
    if findings.errors:
        raise ConfigErrors(findings.errors)
    return settings


def _written_providers(document: Document, findings: Findings) -> list[tuple[Loc, ProviderModel]]:
    if document.provider is not None and document.providers is not None:
        findings.wrong(("provider",), "`provider` and `providers` are both written", "write one of them")
    if document.provider is not None:
        return [(("provider",), document.provider)]
    if document.providers is None:
        mend = "write `provider: {issuer: ..., client_id: ...}`"
        findings.wrong((), "there is no provider to sign in with", mend)
        return []
    models = document.providers
    written: list[tuple[Loc, ProviderModel]] = [(("providers", i), model) for i, model in enumerate(models)]
    seen: set[str] = set()
    for loc, model in written:
        if model.name is None and len(models) > 1:
            findings.wrong(loc, "one of several providers needs a name", "add `name: ...`")
        elif model.name in seen:
            findings.wrong((*loc, "name"), f"two providers are called {quoted(model.name)}", "rename one")
        seen.add(model.name or "")
    return written


def _providers(
    written: list[tuple[Loc, ProviderModel]], files: Files, claims: set[str]
) -> tuple[Provider, ...]:
    return tuple(compile_provider(model, loc, files, claims) for loc, model in written)


def _session(model: SessionModel, findings: Findings) -> SessionLimits:
    if "idle" in model.model_fields_set and model.idle > model.absolute:
        findings.wrong(("session", "idle"), "`idle` is longer than `absolute`", "write a shorter time")
    groups: list[GroupLimits] = []
    for index, one in enumerate(model.groups or ()):
        for key in ("idle", "absolute"):
            theirs, most = getattr(one, key), getattr(model, key)
            if theirs is not None and theirs > most:
                problem = f"this is longer than `session.{key}`, which holds for everyone"
                findings.wrong(("session", "groups", index, key), problem, "write a shorter time")
        if one.idle is not None and one.absolute is not None and one.idle > one.absolute:
            at = ("session", "groups", index, "idle")
            findings.wrong(at, "`idle` is longer than `absolute`", "write a shorter time")
        groups.append(GroupLimits(frozenset(one.groups), one.idle, one.absolute))
    return SessionLimits(min(model.idle, model.absolute), model.absolute, tuple(groups))


def _listeners(document: Document, authorities: tuple[Authority, ...], files: Files) -> tuple[Listener, ...]:
    findings = files.findings
    tls = compile_tls(document.tls, files) if document.tls is not None else None
    listeners: list[Listener] = []
    for index, model in enumerate(document.listen):
        loc: Loc = ("listen", index)
        if model.tls and tls is None:
            findings.wrong(
                (*loc, "tls"), "there is no certificate", "add a top-level `tls: {certificate, key}`"
            )
        if model.redirect_to_https and model.tls:
            findings.wrong(
                (*loc, "redirect_to_https"), "this listener speaks TLS itself", "write one of the two"
            )
        if model.proxy_protocol and not document.trusted_proxies:
            mend = "add `trusted_proxies` with the load balancer's network"
            findings.wrong((*loc, "proxy_protocol"), "anybody could then claim any address", mend)
        if any(model.address == other.address for other in document.listen[:index]):
            findings.wrong(loc, f"`{model.address}` is listened on twice", "remove one")
        plain = model.redirect_to_https or model.tls is False or tls is None
        if plain and not model.redirect_to_https and not _local(model) and not document.trusted_proxies:
            text = (
                "sessions travel without TLS; add `tls`, or `trusted_proxies` if something in front speaks it"
            )
            findings.warn(loc, text)
        secured = None if plain else _asking(tls, model, loc, authorities, findings)
        if plain and model.client_certificates is not None:
            at = (*loc, "client_certificates")
            findings.wrong(at, "a client's certificate is shown over TLS alone", "add `tls`, or remove it")
        listeners.append(Listener(model.address, secured, model.proxy_protocol, model.redirect_to_https))
    if all(listener.redirect_to_https for listener in listeners):
        findings.wrong(("listen",), "every listener only redirects", "add one that speaks TLS")
    return tuple(listeners)


def _asking(
    tls: ListenerTLS | None,
    model: ListenModel,
    loc: Loc,
    authorities: tuple[Authority, ...],
    findings: Findings,
) -> ListenerTLS | None:
    asked = model.client_certificates
    if tls is None or asked is None:
        return tls
    at = (*loc, "client_certificates")
    return replace(tls, clients=compile_client_certificates(asked, at, authorities, findings))


def _local(model: ListenModel) -> bool:
    return model.address.path is not None or ip_address(model.address.host).is_loopback


def _keys_file(document: Document, state_dir: Path, files: Files) -> Path:
    if document.keys_file is None:
        default = state_dir / "keys.yaml"
        files.paths.append(default)  # watched, though it may be made only at the first start
        return default
    return files.named(document.keys_file, ("keys_file",), secret=True, own=True)


def _state(document: Document, files: Files) -> Secret | None:
    findings = files.findings
    if document.state_file is not None:
        if "state" in document.model_fields_set:
            findings.wrong(("state_file",), "`state` and `state_file` are both written", "write one of them")
        return _private(files.secret(document.state_file, ("state_file",)), ("state_file",), findings)
    return None if document.state == "embedded" else _private(document.state, ("state",), findings)


def _private(url: str, loc: Loc, findings: Findings) -> Secret:
    found = re.match(r"redis://(?:[^/@]*@)?(\[[^]]*\]|[^/:?]*)", url)
    if found and not is_loopback(found[1].strip("[]") or "localhost"):
        text = "sessions travel without TLS; write `rediss://...` unless that network is yours alone"
        findings.warn(loc, text)
    return Secret(url)


def _admin(document: Document, routes: list[Route], state_dir: Path, files: Files) -> Admin | None:
    if "admin" not in document.model_fields_set:
        return default_admin(state_dir, files.findings)
    if document.admin is None:
        return None
    admin = compile_admin(document.admin, routes, files)
    others = [("listen", model.address) for model in document.listen]
    others += [("operations", document.operations)] if document.operations is not None else []
    for key, other in others:
        if _same_door(admin.address, other):
            problem = f"`{admin.address}` is taken by `{key}: {other}`"
            files.findings.wrong(("admin", "listen"), problem, "write another address")
    return admin


def _same_door(one: Address, other: Address) -> bool:
    if one.path is not None or other.path is not None or one.port == 0:
        return one.path is not None and one.path == other.path
    everywhere = any(ip_address(each.host).is_unspecified for each in (one, other))
    return one.port == other.port and (one.host == other.host or everywhere)


def _cookie(document: Document) -> Cookie:
    domain = document.cookie.domain
    return Cookie() if domain is None else Cookie("__Secure-ztproxy", domain)


def _cookie_covers(document: Document, routes: list[Route], findings: Findings) -> None:
    domain = document.cookie.domain
    if domain is None:
        return
    if "." not in domain and domain != "localhost":
        findings.wrong(
            ("cookie", "domain"), f"{quoted(domain)} is not a domain of yours", "write `example.com`"
        )
    if document.auth_host is None:
        problem = "a cookie that hosts share needs one host to sign in at"
        findings.wrong(("cookie", "domain"), problem, f"add `auth_host: https://login.{domain}`")
    for index, route in enumerate(routes):
        if not f".{route.host}".endswith(f".{domain}"):
            problem = f"`{route.host}` is outside the cookie's domain {quoted(domain)}"
            findings.wrong(("routes", index, "from"), problem, "leave out `cookie: {domain}`")
    if document.auth_host is not None and not f".{document.auth_host.host}".endswith(f".{domain}"):
        problem = f"`{document.auth_host.host}` is outside the cookie's domain {quoted(domain)}"
        findings.wrong(("auth_host",), problem, "leave out `cookie: {domain}`")


def _one_door(document: Document, routes: list[Route], findings: Findings) -> None:
    auth = document.auth_host
    if auth is None:
        return
    if auth.scheme == "http" and not auth.loopback:
        findings.warn(("auth_host",), "without TLS anyone on the way can take over a session")
    for route in routes:
        if route.host == auth.host and route.origin != str(auth):
            problem = f"a route writes this host as `{route.origin}`"
            findings.wrong(("auth_host",), problem, "write one scheme and port for a host")


def _distinct(routes: list[Route], findings: Findings) -> None:
    """Every route can be reached, and a host has one door: what two routes both claim is refused."""
    places: dict[tuple[str, tuple[str, ...], bool], int] = {}
    names: dict[str, int] = {}
    origins: dict[str, Route] = {}
    # There letters' case is left out of the comparison: `/A` and `/a` are one place to an app that folds.
    folding = {route.host for route in routes if route.case_insensitive}
    for index, route in enumerate(routes):
        path = tuple(map(fold, route.segments)) if route.host in folding else route.segments
        place = (route.host, path, route.exact)
        if place in places:
            line = findings.line(("routes", places[place]))
            problem = f"the route on line {line} has this host and path already"
            findings.wrong(("routes", index, "from"), problem, "change one or join their policies")
        elif route.name in names:
            line = findings.line(("routes", names[route.name]))
            problem = f"the route on line {line} is called {quoted(route.name)} too"
            findings.wrong(("routes", index), problem, "give it another `name`")
        other = origins.setdefault(route.host, route)
        if other.origin != route.origin:
            problem = f"`{route.host}` is also written as `{other.origin}`"
            findings.wrong(("routes", index, "from"), problem, "write one scheme and port for a host")
        places.setdefault(place, index)
        names.setdefault(route.name, index)


def _log(document: Document, state_dir: Path, files: Files) -> Log:
    access, decisions = (_sink(one, files) for one in (document.log.access, document.log.decisions))
    audit = state_dir / "audit.log" if document.log.audit is None else files.path(document.log.audit)
    at = ("log", "audit")
    if audit in (access, decisions):
        other = "access" if audit == access else "decisions"
        files.findings.wrong(at, f"{quoted(audit)} is where `{other}` goes", "write another file")
    files.appended(audit, at)
    return Log(access, decisions, audit)


def _sink(text: str | None, files: Files) -> str | Path | None:
    return text if text in (None, "stdout") else files.path(str(text))


def _hsts(document: Document) -> str | None:
    hsts = document.hsts
    if hsts is None:
        return None
    parts = [f"max-age={int(hsts.max_age)}"]
    parts += ["includeSubDomains"] if hsts.include_subdomains else []
    parts += ["preload"] if hsts.preload else []
    return "; ".join(parts)


def _branding(document: Document, files: Files) -> Branding:
    branding = document.branding
    templates = None
    if branding.templates is not None:
        templates = files.folder_named(branding.templates, ("branding", "templates"))
    return Branding(branding.name, templates, branding.support)
