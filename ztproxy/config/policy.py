"""The policy language: what an operator writes, and the core's conditions it means (docs/adr/0003).

A policy is a list of `allow` and `deny` rules. A condition is a mapping whose entries must all hold; a list
of values means any of them; `any_of`, `all_of` and `none_of` take lists of conditions. Promises: nothing
holds by accident. An empty condition, a policy that can never permit and an allow rule that asks nothing of
anybody are mistakes, each with its line. Leaves the meaning of every condition to `core.conditions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType, UnionType
from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from ztproxy.config.assurance import Level, reachable_rank
from ztproxy.config.device_policy import DeviceModel, DeviceWords, check_trust_domains, compile_device
from ztproxy.config.mistakes import Findings, Loc, did_you_mean, quoted, wrong
from ztproxy.config.model import Model, also
from ztproxy.config.names import Domain, Email, Texts
from ztproxy.config.paths import PathText, prefix_segments, segments
from ztproxy.config.values import (
    CIDR,
    ONE_OR_MANY,
    Clock,
    Day,
    Days,
    Kind,
    Method,
    OnlyTrue,
    Text,
    Zone,
    text_of,
)
from ztproxy.core import conditions as core
from ztproxy.core.assurance import Levels
from ztproxy.core.conditions import Condition
from ztproxy.core.device_conditions import DeviceOwned
from ztproxy.core.policy import Effect, Policy, Rule
from ztproxy.core.reasons import Reason
from ztproxy.core.service_conditions import HasScopes, IsPerson, ServiceIs
from ztproxy.core.spiffe import valid_pattern


def _claim_value(value: object) -> str | int | float | bool:
    if isinstance(value, dict | list):
        raise wrong(f"{quoted(value)} cannot be compared with a claim", "write text, a number, true or false")
    assert isinstance(value, str | int | float | bool)
    return str(value) if isinstance(value, str) else value


def _service(value: object) -> str:
    text = text_of(value, "spiffe://example.com/ci/builder")
    if text.lower().startswith("spiffe:") and not valid_pattern(text):
        mend = (
            "write it like `spiffe://example.com/ci/builder`, or `spiffe://example.com/ci/*` for all beneath"
        )
        raise wrong(f"{quoted(value)} is not a SPIFFE ID", mend)
    return text


Service = Annotated[str, Kind(_service, type="string", minLength=1)]
ClaimValue = Annotated[str | int | float | bool, Kind(_claim_value, type=["string", "number", "boolean"])]


class PathModel(Model):
    """`path`: exactly one (`is`) or everything beneath (`prefix`); a bare path means `is`."""

    model_config = ConfigDict(
        json_schema_extra=also({"type": "string"}, {"type": "array", "items": {"type": "string"}})
    )

    is_: Annotated[list[PathText], ONE_OR_MANY] | None = Field(default=None, alias="is")
    prefix: Annotated[list[PathText], ONE_OR_MANY] | None = None

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        if isinstance(value, str | list):
            return {"is": value}
        if value == {}:
            raise wrong("the condition is empty", "write `is: /path` or `prefix: /path`")
        return value


class TimeModel(Model):
    """`time`: a window by the clock of `zone`. `after <= t < before`; from the first to the last date."""

    zone: Zone
    days: Annotated[list[Days], ONE_OR_MANY] | None = None
    after: Clock | None = None
    before: Clock | None = None
    from_: Day | None = Field(default=None, alias="from")
    until: Day | None = None

    @model_validator(mode="after")
    def _some_bound(self) -> TimeModel:
        if self.model_fields_set == {"zone"}:
            raise wrong("the window has no bounds", "write `days`, `after`, `before`, `from` or `until`")
        if self.after is not None and self.after == self.before:
            raise wrong("the window ends where it begins", "leave out both for the whole day", "before")
        if self.from_ is not None and self.until is not None and self.until < self.from_:
            raise wrong("the window ends before it begins", "write a later date", "until")
        return self


class ConditionModel(Model):
    """A condition: every entry must hold. Any claim is asked for by `claim/<dotted.name>: value`."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra=lambda schema: schema.update(
            patternProperties={"^claim/.": schema["additionalProperties"]},
            additionalProperties=False,
            minProperties=1,
        ),
    )
    __pydantic_extra__: dict[str, Annotated[list[ClaimValue], ONE_OR_MANY]]

    user: Texts | None = Field(default=None, description="The subject (`sub`), or `issuer|sub`.")
    email: Annotated[list[Email], ONE_OR_MANY] | None = Field(
        default=None, description="A verified e-mail address."
    )
    domain: Annotated[list[Domain], ONE_OR_MANY] | None = Field(
        default=None, description="The domain of the e-mail."
    )
    group: Texts | None = Field(default=None, description="Member of any of these groups.")
    groups: Texts | None = Field(default=None, description="The same as `group`.")
    method: Annotated[list[Method], ONE_OR_MANY] | None = None
    path: PathModel | None = None
    acr_rank: Level | None = Field(
        default=None, description="The least level of the sign-in, see `assurance`."
    )
    acr: Text | None = Field(default=None, description="As strong as this acr of `assurance.acr`, or level.")
    time: TimeModel | None = None
    source_network: Annotated[list[CIDR], ONE_OR_MANY] | None = None
    device: DeviceModel | None = Field(
        default=None,
        description="The device whose certificate the client shows; `true`: one that is approved.",
    )
    service: Annotated[list[Service], ONE_OR_MANY] | None = Field(
        default=None, description="A service: its subject, `issuer|subject`, or a SPIFFE ID."
    )
    scope: Texts | None = Field(default=None, description="A service's token that has all of these.")
    person: OnlyTrue | None = Field(default=None, description="Somebody who signed in, and no service.")
    authenticated: OnlyTrue | None = None
    public: OnlyTrue | None = None
    any_of: Annotated[list[ConditionModel], Field(min_length=1)] | None = None
    all_of: Annotated[list[ConditionModel], Field(min_length=1)] | None = None
    none_of: Annotated[list[ConditionModel], Field(min_length=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _entries(cls, value: Any) -> Any:
        if isinstance(value, list):
            raise wrong(
                "a list of conditions could mean two things", "write `any_of:` or `all_of:` before it"
            )
        if not isinstance(value, dict):
            problem = f"{quoted(value)} is not a condition"
            raise wrong(problem, "write a mapping like `{group: staff}`, `{authenticated: true}`")
        if not value:
            raise wrong("the condition is empty", "write who or what it is about, like `{group: staff}`")
        for key in value:
            if not (key.startswith("claim/") and len(key) > 6) and key not in cls.model_fields:
                raise wrong(f"unknown condition `{key}`", _meant(key, cls.model_fields), key)
        for key in ("any_of", "all_of", "none_of"):
            if key in value and (not isinstance(value[key], list) or not value[key]):
                raise wrong(f"`{key}` takes a list of conditions", "write `- ` before each", key)
        return value


_MEANT = {
    "claim": "write `claim/department: finance`",
    "claims": "write `claim/department: finance`",
    "and": "write `all_of`",
    "or": "write `any_of`",
    "not": "write `none_of`",
    "nor": "write `none_of`",
    "ip": "write `source_network`",
    "everyone": "write `public: true` or `authenticated: true`",
    "any": "write `public: true` or `authenticated: true`",
}


def _meant(key: str, known: Any) -> str:
    return _MEANT.get(key) or did_you_mean(key, [*known, "claim/NAME"])


class RuleModel(Model):
    """One rule: exactly one of `allow` and `deny`."""

    allow: ConditionModel | None = None
    deny: ConditionModel | None = None
    name: Text | None = Field(default=None, description="Shown by `ztproxy explain` and in the decision log.")

    @model_validator(mode="before")
    @classmethod
    def _one_effect(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise wrong(f"{quoted(value)} is not a rule", "write `- allow: {...}` or `- deny: {...}`")
        if ("allow" in value) == ("deny" in value):
            raise wrong("a rule is one `allow` or one `deny`", "write two rules for two effects")
        return value


@dataclass(slots=True)
class PolicyContext:
    """What compiling a policy needs to know, and `claims`, the claims its conditions turned out to read.
    `issuers` are the issuers of tokens, by name, with what they call themselves."""

    findings: Findings
    levels: Levels
    folded: bool = False
    claims: set[str] = field(default_factory=set)
    words: DeviceWords = field(default_factory=DeviceWords)
    issuers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def compile_policy(rules: Sequence[RuleModel], loc: Loc, context: PolicyContext) -> Policy:
    """The core policy of checked rules; what makes no sense goes to `context.findings`."""
    compiled: list[Rule] = []
    for index, rule in enumerate(rules):
        effect = Effect.ALLOW if rule.allow is not None else Effect.DENY
        model = rule.allow or rule.deny
        assert model is not None
        at = (*loc, index, effect.value)
        condition = compile_condition(model, at, context)
        compiled.append(Rule(effect, condition, rule.name or f"rule {index + 1}", _grant(condition)))
        _sensible(effect, condition, at, context.findings)
    if all(rule.effect is Effect.DENY for rule in compiled):
        context.findings.wrong(loc, "every rule denies, so nobody could ever get in", "write an `allow` rule")
    if any(r.effect is Effect.ALLOW and holds_for_nobody(r.condition) for r in compiled) and any(
        r.effect is Effect.DENY and not holds_for_nobody(r.condition) for r in compiled
    ):
        warning = "a deny rule asks who someone is, so the public rule beside it makes everyone sign in"
        context.findings.warn(loc, warning)
    try:
        return Policy(compiled)
    except ValueError as error:
        context.findings.wrong(loc, str(error), "turn the rule round: allow with the sign-in it should have")
        return Policy(())


def _grant(condition: Condition) -> Reason:
    if isinstance(condition, core.Anyone):
        return Reason.PUBLIC_ROUTE
    return Reason.ANY_AUTHENTICATED if isinstance(condition, core.Authenticated) else Reason.RULE_ALLOWED


def _sensible(effect: Effect, condition: Condition, at: Loc, findings: Findings) -> None:
    if effect is Effect.DENY:
        if isinstance(condition, core.Anyone):
            findings.wrong(at, "this denies everyone, always", "remove the route instead")
        return
    if not holds_for_nobody(condition) or mentions(condition, core.Anyone):
        return
    # A branch that asks for nothing at all is not mended by another one that asks for a device or a place.
    if holds_for_nobody(condition, _NOT_WHO):
        problem = "this rule allows without asking who someone is"
        findings.wrong(at, problem, "add `authenticated: true`, or `public: true` to open it to the world")
        return
    what = "network alone; a place" if holds_for_nobody(condition, _DEVICE) else "device alone; a device"
    text = f"this allows by {what} is not a person: add who, or `public: true` to mean it"
    findings.warn(at, text)


_DEVICE = frozenset({core.Source.DEVICE})
_NOT_WHO = _DEVICE | {core.Source.NETWORK}


def holds_for_nobody(condition: Condition, aside: frozenset[core.Source] = frozenset()) -> bool:
    """Whether it can hold without anyone signed in, and without a question that reads a source of `aside`. A
    negated question about a person still asks for one."""
    if isinstance(condition, core.AllOf):
        return all(holds_for_nobody(part, aside) for part in condition.parts)
    if isinstance(condition, core.AnyOf):
        return any(holds_for_nobody(part, aside) for part in condition.parts)
    if isinstance(condition, core.Not):
        return holds_for_nobody(condition.inward or condition.part, aside)
    if not aside.isdisjoint(condition.reads):
        return False
    # Conditions about devices read the session only to see that it is bound to one.
    about_device = core.Source.DEVICE in condition.reads and not isinstance(condition, DeviceOwned)
    return about_device or core.Source.SESSION not in condition.reads


def mentions(condition: Condition, kind: type | UnionType) -> bool:
    """Whether a condition of this kind is in it anywhere, negated or not."""
    if isinstance(condition, core.AllOf | core.AnyOf):
        return any(mentions(part, kind) for part in condition.parts)
    if isinstance(condition, core.Not):
        return mentions(condition.part, kind)
    return isinstance(condition, kind)


def compile_condition(model: ConditionModel, at: Loc, context: PolicyContext) -> Condition:
    """The core's condition of a checked one; what makes no sense goes to `context.findings`."""
    ordered = [name for name in ConditionModel.model_fields if getattr(model, name) is not None]
    parts = [_criterion(name, getattr(model, name), (*at, name), context) for name in ordered]
    parts += [_claim(key, values, context) for key, values in model.__pydantic_extra__.items()]
    return parts[0] if len(parts) == 1 else core.AllOf(parts)


def _criterion(name: str, value: Any, at: Loc, context: PolicyContext) -> Condition:
    match name:
        case "user":
            return core.UserIs(frozenset(value))
        case "email":
            return core.EmailIs(frozenset(value))
        case "domain":
            return core.DomainIs(frozenset(value))
        case "group" | "groups":
            return core.InGroup(frozenset(value))
        case "method":
            return core.MethodIs(frozenset(value))
        case "path":
            return _path(value, context.folded)
        case "acr_rank" | "acr":
            return _rank(name, value, at, context)
        case "time":
            return _time(value)
        case "source_network":
            return core.FromNetwork(tuple(value))
        case "device":
            return compile_device(value, at, context.words, context.findings)
        case "service":
            return _services(value, at, context)
        case "scope":
            return HasScopes(frozenset(value))
        case "person":
            return IsPerson()
        case "authenticated":
            return core.Authenticated()
        case "public":
            return core.Anyone()
    inner = [compile_condition(model, (*at, index), context) for index, model in enumerate(value)]
    if name == "all_of":
        return core.AllOf(inner)
    return core.AnyOf(inner) if name == "any_of" else core.Not(core.AnyOf(inner))


def _path(model: PathModel, folded: bool) -> Condition:
    paths: list[Condition] = [core.PathIs(segments(path), folded) for path in model.is_ or ()]
    paths += [core.PathUnder(prefix_segments(path), folded) for path in model.prefix or ()]
    return paths[0] if len(paths) == 1 else core.AnyOf(paths)


def _rank(name: str, value: Any, at: Loc, context: PolicyContext) -> Condition:
    levels = context.levels
    if name == "acr" and value in levels.acr:
        return core.RankAtLeast(levels.acr[value])
    if name == "acr" and value not in levels.names:
        mend = "list it under `assurance: {acr: ...}`"
        context.findings.wrong(at, f"the acr {quoted(value)} has no rank", mend)
        return core.RankAtLeast(1)
    return core.RankAtLeast(reachable_rank(value, at, levels, context.findings))


def _services(written: Sequence[str], at: Loc, context: PolicyContext) -> Condition:
    """An issuer may be written by its name here; its tokens name it by its URL."""
    ids = tuple(text for text in written if text.startswith("spiffe://"))
    check_trust_domains(ids, at, context.words, context.findings)
    names = set[str]()
    for text in written:
        issuer, bar, subject = text.partition("|")
        if text not in ids:
            names.add(f"{context.issuers[issuer]}|{subject}" if bar and issuer in context.issuers else text)
    return ServiceIs(frozenset(names), ids)


def _time(model: TimeModel) -> Condition:
    days = frozenset[int]().union(*(model.days or ()))
    return core.Within(model.zone, days, model.after, model.before, model.from_, model.until)


def _claim(key: str, values: list[str | int | float | bool], context: PolicyContext) -> Condition:
    name = key.removeprefix("claim/")
    context.claims.add(name)
    whole = core.ClaimIs((name,), tuple(values))
    if "." not in name:
        return whole
    # `core.claims` keeps a claim of exactly this name as it is, and otherwise the nested one: one of the two.
    return core.AnyOf([whole, core.ClaimIs(tuple(name.split(".")), tuple(values))])
