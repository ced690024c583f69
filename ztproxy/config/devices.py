"""Client certificates and devices, as an operator writes them.

Knows: who vouches for certificates, which listeners ask for them, what is reported of devices, and ztproxy's
own device certificates. Promises: an authority has one name and one file; what nobody could check or obtain
is a mistake. Leaves reading certificates and lists to the adapters, and to `asked` whether what policies ask
of devices can be had at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from ztproxy.config.assurance import Level, reachable_rank
from ztproxy.config.device_policy import ComplianceModel, DeviceWords, check_authorities, compile_posture
from ztproxy.config.files import Files
from ztproxy.config.mistakes import Findings, Loc, quoted, wrong
from ztproxy.config.model import Model, also
from ztproxy.config.names import URL, NamedHost, Texts, TrustDomain, short_name
from ztproxy.config.policy import ConditionModel, PolicyContext, compile_condition, holds_for_nobody
from ztproxy.config.settings import (
    OCSP,
    Authority,
    CertificateFiles,
    ClientCertificates,
    DeviceName,
    Devices,
    Enrolment,
    FrontFormat,
)
from ztproxy.config.values import ONE_OR_MANY, Duration, Flag, Kind, Positive, Text, choice, duration_within
from ztproxy.core.conditions import AllOf, Condition, Source
from ztproxy.core.device import KNOWN_FACTS, FactType

_AT: Loc = ("devices",)
_OURS = "enrolment"  # what the authority of our own device certificates is called
_SOURCES = ("san_uri", "san_dns", "san_email", "common_name", "serial_number")
_TYPES: Mapping[str, FactType] = MappingProxyType({"boolean": bool, "number": int, "text": str})

Fact = Literal["boolean", "number", "text"]
DeviceIdSource = Literal["san_uri", "san_dns", "san_email", "common_name", "serial_number"]


class ClientCertificatesModel(Model):
    """Ask clients for a certificate; `true` alone asks all of them, of any authority, and requires none."""

    model_config = ConfigDict(json_schema_extra=also({"const": True}))

    authorities: Texts | None = Field(default=None, description="Of `devices.authorities`; default: all.")
    required: Flag = Field(
        default=False, description="Whoever has none gets no connection, and so no page that says why."
    )
    hosts: Annotated[list[NamedHost], ONE_OR_MANY] | None = Field(
        default=None, description="Ask only those who connect to these; `*.` stands for one label."
    )

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {} if value is True else value


class OCSPModel(Model):
    """Ask this responder about each certificate."""

    model_config = ConfigDict(json_schema_extra=also({"type": "string"}))

    url: URL
    deadline: Annotated[float, duration_within("100ms", "10s")] = 2.0
    keep: Duration = Field(default=300.0, description="For answers that do not say until when they hold.")
    dangerous_allow_unchecked: Flag = False

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value


def _template(value: object) -> str:
    if not isinstance(value, str) or value.count("{id}") != 1 or re.search(r"[^!-~]", value):
        mend = "write the text around it, like `spiffe://example.com/device/{id}`"
        raise wrong(f"{quoted(value)} does not say where the id stands", mend)
    return str(value)


class DeviceIdModel(Model):
    """Where a certificate names the device."""

    model_config = ConfigDict(json_schema_extra=also({"enum": list(_SOURCES)}))

    from_: Annotated[DeviceIdSource, choice(*_SOURCES)] = Field(alias="from")
    template: Annotated[str, Kind(_template, type="string", pattern=r"\{id\}")] = "{id}"

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"from": value} if isinstance(value, str) else value


class AuthorityModel(Model):
    """Who may vouch for client certificates."""

    name: Annotated[str, short_name("an authority")] | None = Field(
        default=None, description="Needed where there are several."
    )
    ca_file: Text
    crl_file: Text | None = Field(default=None, description="Its revocation lists, PEM or DER.")
    ocsp: OCSPModel | None = None
    device_id: DeviceIdModel | None = Field(
        default=None, description="Default: devices are found by the certificate they are registered with."
    )
    trust_domain: TrustDomain | None = Field(
        default=None, description="The only one whose SPIFFE IDs count in its certificates."
    )
    allow_any_usage: Flag = Field(
        default=False, description="Accept certificates that do not say they are for clients."
    )


class EnrolmentModel(Model):
    """ztproxy's own device certificates; `ztproxy ca init` makes the authority."""

    ca_certificate: Text
    ca_key: Text
    trust_domain: TrustDomain = "ztproxy.internal"
    may: ConditionModel = Field(description="Who may enrol a device.")
    approved: ConditionModel | None = Field(
        default=None, description="Whose device is approved at once; default: an administrator does it."
    )
    level: Level = Field(default="multi_factor", description="How strongly they must have signed in.")
    lifetime: Annotated[float, duration_within("1h", "90d")] = 7 * 86400.0
    most_per_person: Positive = 5


class DevicesModel(Model):
    """Client certificates and the inventory of devices."""

    authorities: Annotated[list[AuthorityModel], ONE_OR_MANY] | None = None
    certificates_from_proxies: (
        Annotated[FrontFormat, choice("client-cert", "xfcc", "nginx", "traefik", "aws-alb")] | None
    ) = Field(default=None, description="How `trusted_proxies` that end TLS pass a certificate on.")
    facts: dict[Text, Annotated[Fact, choice(*_TYPES)]] = Field(
        default={}, description="What else is reported of devices, and its type."
    )
    compliance: dict[Text, ComplianceModel] = Field(
        default={}, description="Sets of facts with a name, for `device: {compliant: ...}` in policies."
    )
    enrolment: EnrolmentModel | None = None


def compile_words(
    model: DevicesModel | None, authorities: Sequence[Authority], findings: Findings
) -> DeviceWords:
    """What policies may name."""
    if model is None:
        return DeviceWords()
    own = _facts(model, findings)
    facts = MappingProxyType({**KNOWN_FACTS, **own})
    compliance: dict[str, Condition] = {}
    for name, each in model.compliance.items():
        tests = each.__pydantic_extra__
        parts = compile_posture(tests, each.within, (*_AT, "compliance", name), facts, findings)
        compliance[name] = parts[0] if len(parts) == 1 else AllOf(parts)
    return DeviceWords(
        facts,
        MappingProxyType(compliance),
        frozenset(one.name for one in authorities),
        frozenset(one.trust_domain for one in authorities if one.trust_domain is not None),
    )


def _facts(model: DevicesModel, findings: Findings) -> dict[str, FactType]:
    for name in model.facts:
        at = (*_AT, "facts", name)
        if name in KNOWN_FACTS or name in ("within", "certificate_until"):
            findings.wrong(at, f"{quoted(name)} has a meaning here already", "choose another name")
        elif not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name):
            problem = f"{quoted(name)} is not a name for a fact"
            findings.wrong(at, problem, "write small letters, digits and `_`, like `os_build`")
    return {name: _TYPES[written] for name, written in model.facts.items()}


def compile_authorities(model: DevicesModel | None, files: Files) -> tuple[Authority, ...]:
    """Those that are written, and the one of our own device certificates unless it is among them."""
    if model is None:
        return ()
    findings, found = files.findings, list[Authority]()
    for index, each in enumerate(model.authorities or ()):
        loc: Loc = (*_AT, "authorities", index)
        if each.name is None and len(model.authorities or ()) > 1:
            findings.wrong(loc, "one of several authorities needs a name", "add `name: ...`")
        authority = _authority(each, loc, files)
        for other in found:
            if each.name is not None and other.name == authority.name:
                findings.wrong(
                    (*loc, "name"), f"two authorities are called {quoted(each.name)}", "rename one"
                )
            if other.ca == authority.ca:
                problem = f"{quoted(authority.ca)} is the file of {quoted(other.name)} already"
                findings.wrong((*loc, "ca_file"), problem, "remove one of them")
        found.append(authority)
    if model.enrolment is not None:
        ours = _own_authority(model.enrolment, files.path(model.enrolment.ca_certificate))
        if not any(one.ca == ours.ca for one in found):
            if any(one.name == _OURS for one in found):
                problem = f"`{_OURS}` is what the authority of `devices.enrolment` is called"
                findings.wrong((*_AT, "authorities"), problem, "choose another name")
            found.append(ours)
    return tuple(found)


def _own_authority(model: EnrolmentModel, ca: Path) -> Authority:
    domain = model.trust_domain
    device = DeviceName("san_uri", f"spiffe://{domain}/device/{{id}}")
    return Authority(_OURS, ca, device=device, trust_domain=domain)


def _authority(model: AuthorityModel, loc: Loc, files: Files) -> Authority:
    ocsp = None
    if model.ocsp is not None:
        written = model.ocsp
        ocsp = OCSP(written.url, written.deadline, written.keep, written.dangerous_allow_unchecked)
        if written.dangerous_allow_unchecked:
            text = "whoever keeps the responder from answering keeps revoked certificates alive"
            files.findings.warn((*loc, "ocsp", "dangerous_allow_unchecked"), text)
    return Authority(
        name=model.name or "default",
        ca=files.named(model.ca_file, (*loc, "ca_file")),
        crl=files.named(model.crl_file, (*loc, "crl_file")) if model.crl_file is not None else None,
        ocsp=ocsp,
        device=DeviceName(model.device_id.from_, model.device_id.template) if model.device_id else None,
        trust_domain=model.trust_domain,
        allow_any_usage=model.allow_any_usage,
    )


def compile_devices(
    model: DevicesModel | None, authorities: tuple[Authority, ...], files: Files, context: PolicyContext
) -> Devices | None:
    """`context.words` are those of `compile_words`."""
    if model is None:
        return None
    if model.certificates_from_proxies is not None and not authorities:
        problem = "nobody vouches for the certificates that are passed on"
        context.findings.wrong((*_AT, "certificates_from_proxies"), problem, "add `authorities: [...]`")
    facts = MappingProxyType({name: context.words.facts[name] for name in model.facts})
    enrolment = None if model.enrolment is None else _enrolment(model.enrolment, files, context)
    return Devices(authorities, model.certificates_from_proxies, facts, enrolment)


def _enrolment(model: EnrolmentModel, files: Files, context: PolicyContext) -> Enrolment:
    loc: Loc = (*_AT, "enrolment")
    # INVARIANT: whoever reads this key makes devices, so not even a group may.
    pair = CertificateFiles(
        files.named(model.ca_certificate, (*loc, "ca_certificate")),
        files.named(model.ca_key, (*loc, "ca_key"), secret=True, own=True),
    )

    def who(written: ConditionModel, key: str) -> Condition:
        condition = compile_condition(written, (*loc, key), context)
        if Source.DEVICE in condition.reads:
            problem = "a device that is being enrolled has no certificate yet"
            context.findings.wrong((*loc, key), problem, "ask who the person is")
        elif holds_for_nobody(condition):
            mend = "add `authenticated: true` or a group"
            context.findings.wrong((*loc, key), "this does not ask who somebody is", mend)
        return condition

    return Enrolment(
        authority=pair,
        trust_domain=model.trust_domain,
        may=who(model.may, "may"),
        approved=None if model.approved is None else who(model.approved, "approved"),
        rank=reachable_rank(_level(model, context), (*loc, "level"), context.levels, context.findings),
        lifetime=model.lifetime,
        most_per_person=model.most_per_person,
    )


def _level(model: EnrolmentModel, context: PolicyContext) -> int | str:
    return model.level if "level" in model.model_fields_set else 2  # whatever rank 2 is called here


def compile_client_certificates(
    model: ClientCertificatesModel, at: Loc, authorities: Sequence[Authority], findings: Findings
) -> ClientCertificates:
    known = [one.name for one in authorities]
    if not known:
        problem = "nobody vouches for a certificate"
        findings.wrong(at, problem, "add `devices: {authorities: [{name: corp, ca_file: ca.pem}]}`")
    elif model.authorities is not None:
        check_authorities(model.authorities, (*at, "authorities"), frozenset(known), findings)
    return ClientCertificates(
        tuple(dict.fromkeys(model.authorities if model.authorities is not None else known)),
        model.required,
        frozenset(model.hosts) if model.hosts is not None else None,
    )
