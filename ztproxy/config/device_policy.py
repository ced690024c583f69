"""What a policy may ask of a device, as an operator writes it, and the core's conditions it means.

Knows: `device:` with its entries, sets of posture with a name (`devices.compliance`), and which facts there
are. Promises: a fact is compared with values of its own type alone, and never without a limit on its age; a
name that is not there is a mistake with the one that was meant. Leaves the meaning to
`core.device_conditions`, and to `asked` whether devices can be asked at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from ztproxy.config.mistakes import Findings, Loc, did_you_mean, quoted, wrong
from ztproxy.config.model import Model, also
from ztproxy.config.names import (
    DistinguishedName,
    Domain,
    Email,
    Fingerprint,
    KeyPin,
    SPIFFEPattern,
    Texts,
)
from ztproxy.config.values import ONE_OR_MANY, Duration, Kind, OnlyTrue, Text
from ztproxy.core import device_conditions as core
from ztproxy.core.conditions import AllOf, AnyOf, Condition
from ztproxy.core.device import KNOWN_FACTS, FactType, Value

_A_DAY = 86400.0


def _value(value: object) -> Value:
    if isinstance(value, dict | list) or not isinstance(value, bool | int | float | str) or value == "":
        raise wrong(f"{quoted(value)} cannot be compared", "write text, a number, `true` or `false`")
    return str(value) if isinstance(value, str) else value


def _number(value: object) -> int | float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong(f"{quoted(value)} is not a number", "write one, like `30`")
    return value


FactValue = Annotated[Value, Kind(_value, type=["string", "number", "boolean"])]
Number = Annotated[int | float, Kind(_number, type="number")]


class FactTestModel(Model):
    """What a fact must be: a value, any of a list, or a number within bounds."""

    model_config = ConfigDict(
        json_schema_extra=also({"type": ["string", "number", "boolean"]}, {"type": "array", "minItems": 1})
    )

    one_of: Annotated[list[FactValue], ONE_OR_MANY] | None = None
    at_most: Number | None = None
    at_least: Number | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return {"one_of": value}
        for key in value:
            if key not in cls.model_fields:
                raise wrong(f"unknown test `{key}`", did_you_mean(key, cls.model_fields), key)
        if not value:
            raise wrong("the test is empty", "write a value, or like `{at_most: 30}`")
        low, high = value.get("at_least"), value.get("at_most")
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            raise wrong("nothing is as much as this and as little", "write a smaller `at_least`", "at_least")
        return value


class ComplianceModel(Model):
    """A named set of posture: every fact must hold, none reported longer ago than `within`."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra=lambda schema: schema.update(minProperties=1),
    )
    __pydantic_extra__: dict[str, FactTestModel]

    within: Duration = _A_DAY

    @model_validator(mode="after")
    def _some_fact(self) -> ComplianceModel:
        if not self.__pydantic_extra__:
            raise wrong("the set asks for nothing", "write facts, like `disk_encrypted: true`")
        return self


class CertificateConditionModel(Model):
    """Which certificates; every entry must hold, a list means any of it. Names are compared as a whole."""

    model_config = ConfigDict(json_schema_extra=also({"const": True}))

    authority: Texts | None = Field(default=None, description="A name of `devices.authorities`.")
    fingerprint: Annotated[list[Fingerprint], ONE_OR_MANY] | None = Field(
        default=None, description="SHA-256 of the certificate."
    )
    key_pin: Annotated[list[KeyPin], ONE_OR_MANY] | None = Field(
        default=None,
        description="SHA-256 of its public key (SPKI); it stays when the certificate is renewed.",
    )
    issuer: Annotated[list[DistinguishedName], ONE_OR_MANY] | None = None
    subject: Annotated[list[DistinguishedName], ONE_OR_MANY] | None = None
    san_dns: Annotated[list[Domain], ONE_OR_MANY] | None = None
    san_email: Annotated[list[Email], ONE_OR_MANY] | None = None
    san_uri: Texts | None = None
    spiffe: Annotated[list[SPIFFEPattern], ONE_OR_MANY] | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        if value is True:
            return {}
        if value == {}:
            raise wrong("the condition is empty", "write `true` for any certificate")
        return value


class DeviceModel(Model):
    """What must be true of the device; `true` alone means known and approved."""

    model_config = ConfigDict(json_schema_extra=also({"const": True}))

    certificate: CertificateConditionModel | None = None
    known: OnlyTrue | None = Field(default=None, description="It is in the inventory.")
    approved: OnlyTrue | None = Field(default=None, description="It is approved there.")
    owned: OnlyTrue | None = Field(default=None, description="It belongs to whoever is signed in.")
    platform: Texts | None = None
    compliant: Texts | None = Field(default=None, description="A name of `devices.compliance`.")
    posture: dict[Text, FactTestModel] | None = None
    within: Duration | None = Field(
        default=None, description="How old what `posture` asks for may be. Default: 24h."
    )

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        if value is True:
            return {"known": True, "approved": True}
        if not isinstance(value, dict):
            mend = "write `true`, or a mapping like `{known: true, platform: macos}`"
            raise wrong(f"{quoted(value)} says nothing about a device", mend)
        if not value:
            raise wrong("the condition is empty", "write `true` for a device that is known and approved")
        if value.get("posture") == {}:
            raise wrong("no fact is asked for", "write one, like `{disk_encrypted: true}`", "posture")
        if "within" in value and "posture" not in value:
            mend = "write `posture`; a set of `devices.compliance` has a `within` of its own"
            raise wrong("this is how old facts may be, and none is asked for", mend, "within")
        return value


@dataclass(frozen=True, slots=True)
class DeviceWords:
    """What a policy may name: facts with their types, sets of posture, authorities, and the trust domains
    whose SPIFFE IDs one of these vouches for."""

    facts: Mapping[str, FactType] = field(default_factory=lambda: KNOWN_FACTS)
    compliance: Mapping[str, Condition] = field(default_factory=lambda: MappingProxyType({}))
    authorities: frozenset[str] = frozenset()
    trust_domains: frozenset[str] = frozenset()


def compile_device(model: DeviceModel, at: Loc, words: DeviceWords, findings: Findings) -> Condition:
    parts: list[Condition] = []
    if model.certificate is not None:
        parts.append(_certificate(model.certificate, (*at, "certificate"), words, findings))
    if model.known:
        parts.append(core.DeviceKnown())
    if model.approved:
        parts.append(core.DeviceApproved())
    if model.owned:
        parts.append(core.DeviceOwned())
    if model.platform is not None:
        parts.append(core.PlatformIs(frozenset(model.platform)))
    if model.compliant is not None:
        parts.append(_compliant(model.compliant, (*at, "compliant"), words, findings))
    if model.posture is not None:
        within = model.within if model.within is not None else _A_DAY
        parts += compile_posture(model.posture, within, (*at, "posture"), words.facts, findings)
    return parts[0] if len(parts) == 1 else AllOf(parts)


def _compliant(names: Sequence[str], at: Loc, words: DeviceWords, findings: Findings) -> Condition:
    sets = [words.compliance[name] for name in names if name in words.compliance]
    for name in names:
        if name not in words.compliance:
            mend = did_you_mean(name, words.compliance) if words.compliance else "write `devices.compliance`"
            findings.wrong(at, f"there is no set of posture {quoted(name)}", mend)
    return sets[0] if len(sets) == 1 else AnyOf(sets or [core.DeviceKnown()])


def _certificate(
    model: CertificateConditionModel, at: Loc, words: DeviceWords, findings: Findings
) -> Condition:
    check_authorities(model.authority or (), (*at, "authority"), words.authorities, findings)
    check_trust_domains(model.spiffe or (), (*at, "spiffe"), words, findings)
    return core.CertificateIs(
        authorities=frozenset(model.authority or ()),
        thumbprints=frozenset(model.fingerprint or ()),
        keys=frozenset(model.key_pin or ()),
        issuers=frozenset(model.issuer or ()),
        subjects=frozenset(model.subject or ()),
        dns=frozenset(model.san_dns or ()),
        emails=frozenset(model.san_email or ()),
        uris=frozenset(model.san_uri or ()),
        spiffe=tuple(model.spiffe or ()),
    )


def check_authorities(names: Sequence[str], at: Loc, known: frozenset[str], findings: Findings) -> None:
    for name in names:
        if name not in known:
            mend = did_you_mean(name, known) if known else "write `devices: {authorities: [...]}`"
            findings.wrong(at, f"there is no authority {quoted(name)}", mend)


def check_trust_domains(ids: Sequence[str], at: Loc, words: DeviceWords, findings: Findings) -> None:
    """A SPIFFE ID counts only where an authority is believed about its trust domain."""
    for one in ids:
        domain = one.removeprefix("spiffe://").partition("/")[0]
        if domain not in words.trust_domains:
            mend = f"write `trust_domain: {domain}` at the one of `devices.authorities` that does"
            findings.wrong(at, f"no authority vouches for {quoted(domain)}", mend)


def compile_posture(
    tests: Mapping[str, FactTestModel],
    within: float,
    at: Loc,
    facts: Mapping[str, FactType],
    findings: Findings,
) -> list[Condition]:
    """One condition for each test of each fact; `within` is in seconds."""
    parts: list[Condition] = []
    for name, model in tests.items():
        if name not in facts:
            findings.wrong((*at, name), f"there is no fact {quoted(name)}", did_you_mean(name, facts))
            continue
        _check_type(name, model, facts[name], (*at, name), findings)
        if model.one_of is not None:
            values = tuple(model.one_of)
            test = core.Equals(values[0]) if len(values) == 1 else core.OneOf(values)
            parts.append(core.PostureIs(name, test, within))
        if model.at_most is not None:
            parts.append(core.PostureIs(name, core.AtMost(model.at_most), within))
        if model.at_least is not None:
            parts.append(core.PostureIs(name, core.AtLeast(model.at_least), within))
    return parts or [core.DeviceKnown()]


_SAID: Mapping[FactType, tuple[str, str]] = MappingProxyType(
    {
        bool: ("true or false", "write `true` or `false`"),
        int: ("a whole number", "write one, or like `{at_most: 30}`"),
        str: ("text", 'write text, in quotes: `"14.1"`'),
    }
)


def _check_type(name: str, model: FactTestModel, kind: FactType, at: Loc, findings: Findings) -> None:
    said, mend = _SAID[kind]
    for value in model.one_of or ():
        if type(value) is not kind:  # `true` would be an `int` too
            findings.wrong(at, f"{quoted(value)} is never equal to `{name}`, which is {said}", mend)
    for key in ("at_most", "at_least"):
        if kind is not int and getattr(model, key) is not None:
            findings.wrong((*at, key), f"`{name}` is {said}, which is not more or less than anything", mend)
