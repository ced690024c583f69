"""The policy language: what an operator writes, and the core's conditions it means (docs/adr/0003).

A policy is a list of `allow` and `deny` rules. A condition is a mapping whose entries must all hold; a list
of values means any of them; `any_of`, `all_of` and `none_of` take lists of conditions. Promises: nothing
holds by accident. An empty condition, a policy that can never permit and an allow rule that asks nothing of
anybody are mistakes, each with its line. Leaves the meaning of every condition to `core.conditions`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ztproxy.config.mistakes import Findings, Loc, did_you_mean, quoted, wrong
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
    Positive,
    Text,
    Zone,
    host_of,
    text_of,
)
from ztproxy.core import conditions as core
from ztproxy.core.assurance import Levels
from ztproxy.core.conditions import Condition, ascii_lower
from ztproxy.core.policy import Effect, Policy, Rule
from ztproxy.core.reasons import Reason


class Model(BaseModel):
    """The base of all models of the configuration: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def also(*forms: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Tells the JSON schema that a mapping has shorter forms as well."""

    def extend(schema: dict[str, Any]) -> None:
        mapping = dict(schema)
        schema.clear()
        schema["anyOf"] = [*forms, mapping]

    return extend


def _email(value: object) -> str:
    text = ascii_lower(text_of(value, "alice@example.com"))
    if "*" in text:
        raise wrong(f"{quoted(value)}: a `*` means nothing here", "write `domain: example.com`")
    local, at, domain = text.rpartition("@")
    if not at or not local or "@" in local or not text.isascii() or host_of(domain) is None:
        raise wrong(f"{quoted(value)} is not an e-mail address", "write it like `alice@example.com`")
    return text


def _domain(value: object) -> str:
    text = text_of(value, "example.com")
    if "*" in text or text.startswith((".", "@")):
        bare = text.lstrip("*.@") or "example.com"
        raise wrong(f"{quoted(value)} is not a domain", f"write `{bare}`, and each sub-domain of its own")
    domain = host_of(text)
    if domain is None:
        raise wrong(
            f"{quoted(value)} is not a domain", "write it like `example.com`, non-ASCII names as `xn--`"
        )
    return domain


def _claim_value(value: object) -> str | int | float | bool:
    if isinstance(value, dict | list):
        raise wrong(f"{quoted(value)} cannot be compared with a claim", "write text, a number, true or false")
    assert isinstance(value, str | int | float | bool)
    return str(value) if isinstance(value, str) else value


Email = Annotated[str, Kind(_email, type="string", pattern="@|^\\$")]
Domain = Annotated[str, Kind(_domain, type="string", minLength=1)]
ClaimValue = Annotated[str | int | float | bool, Kind(_claim_value, type=["string", "number", "boolean"])]
Texts = Annotated[list[Text], ONE_OR_MANY]


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
    acr_rank: Positive | None = Field(
        default=None, description="The least rank of the sign-in, see `assurance`."
    )
    acr: Text | None = Field(default=None, description="As strong as this acr of `assurance.acr`.")
    time: TimeModel | None = None
    source_network: Annotated[list[CIDR], ONE_OR_MANY] | None = None
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
    """What compiling a policy needs to know, and `claims`, the claims its conditions turned out to read."""

    findings: Findings
    levels: Levels
    folded: bool = False
    claims: set[str] = field(default_factory=set)


def compile_policy(rules: Sequence[RuleModel], loc: Loc, context: PolicyContext) -> Policy:
    """The core policy of checked rules; what makes no sense goes to `context.findings`."""
    compiled: list[Rule] = []
    for index, rule in enumerate(rules):
        effect = Effect.ALLOW if rule.allow is not None else Effect.DENY
        model = rule.allow or rule.deny
        assert model is not None
        at = (*loc, index, effect.value)
        condition = _condition(model, at, context)
        compiled.append(Rule(effect, condition, rule.name or f"rule {index + 1}", _grant(condition)))
        _sensible(effect, condition, at, context.findings)
    if all(rule.effect is Effect.DENY for rule in compiled):
        context.findings.wrong(loc, "every rule denies, so nobody could ever get in", "write an `allow` rule")
    if any(r.effect is Effect.ALLOW and _holds_for_nobody(r.condition) for r in compiled) and any(
        r.effect is Effect.DENY and not _holds_for_nobody(r.condition) for r in compiled
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
    if not _holds_for_nobody(condition) or _mentions(condition, core.Anyone):
        return
    if _mentions(condition, core.FromNetwork):
        text = "this allows by network alone; a place is not a person: add who, or `public: true` to mean it"
        findings.warn(at, text)
    else:
        problem = "this rule allows without asking who someone is"
        findings.wrong(at, problem, "add `authenticated: true`, or `public: true` to open it to the world")


def _holds_for_nobody(condition: Condition) -> bool:
    """Whether it can hold without anyone signed in. A negated question about a person still asks for one."""
    if isinstance(condition, core.AllOf):
        return all(map(_holds_for_nobody, condition.parts))
    if isinstance(condition, core.AnyOf):
        return any(map(_holds_for_nobody, condition.parts))
    if isinstance(condition, core.Not):
        return _holds_for_nobody(condition.inward or condition.part)
    return core.Source.SESSION not in condition.reads


def _mentions(condition: Condition, kind: type) -> bool:
    if isinstance(condition, core.AllOf | core.AnyOf):
        return any(_mentions(part, kind) for part in condition.parts)
    if isinstance(condition, core.Not):
        return _mentions(condition.part, kind)
    return isinstance(condition, kind)


def _condition(model: ConditionModel, at: Loc, context: PolicyContext) -> Condition:
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
        case "authenticated":
            return core.Authenticated()
        case "public":
            return core.Anyone()
    inner = [_condition(model, (*at, index), context) for index, model in enumerate(value)]
    if name == "all_of":
        return core.AllOf(inner)
    return core.AnyOf(inner) if name == "any_of" else core.Not(core.AnyOf(inner))


def _path(model: PathModel, folded: bool) -> Condition:
    paths: list[Condition] = [core.PathIs(segments(path), folded) for path in model.is_ or ()]
    paths += [core.PathUnder(prefix_segments(path), folded) for path in model.prefix or ()]
    return paths[0] if len(paths) == 1 else core.AnyOf(paths)


def _rank(name: str, value: Any, at: Loc, context: PolicyContext) -> Condition:
    levels = context.levels
    if name == "acr":
        if value not in levels.acr:
            context.findings.wrong(
                at, f"the acr {quoted(value)} has no rank", "list it under `assurance: {acr: ...}`"
            )
        return core.RankAtLeast(levels.acr.get(value, 1))
    check_reachable(value, at, levels, context.findings)
    return core.RankAtLeast(value)


def check_reachable(rank: int, at: Loc, levels: Levels, findings: Findings) -> None:
    """A rank nobody can ever have is a door without a key."""
    highest = max([1, *levels.acr.values(), *(rank for _, rank in levels.amr)])
    if rank > highest:
        findings.wrong(at, f"no sign-in reaches rank {rank}", f"the highest of `assurance` is {highest}")


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
