"""What runs here and how it stands: routes, decisions, the state of revocation, reload, keys, and who one is.

Knows: the questions. Promises: a configuration that is refused is not told in the answer, for its messages
name files; the log has them. Leaves the answers to the rest of ztproxy.
"""

from __future__ import annotations

import logging
from datetime import datetime
from ipaddress import ip_address
from typing import Annotated, Any, Literal

import msgspec

from ztproxy.core.device import Device
from ztproxy.core.identity import JSON, Session
from ztproxy.errors import OperatorError
from ztproxy.gateway.ports.administration import Role
from ztproxy.surfaces.admin.asked import Asked
from ztproxy.surfaces.admin.bodies import Form, Nothing, Shape
from ztproxy.surfaces.admin.desk import Desk, Question
from ztproxy.surfaces.admin.problems import Kind, Problem
from ztproxy.surfaces.admin.targets import Text
from ztproxy.surfaces.admin.times import Moment, moment

_log = logging.getLogger("ztproxy.admin")


class ExplainForm(Form, frozen=True):
    """Who opens what, when. With `session` that session asks; else a person made up of the other fields:
    `user` is a verified e-mail, `subject` a `sub`; without both nobody is signed in. `age` is the seconds
    since the sign-in, `at` the moment (now), `address` where they are, `device` the id of the one they use; a
    session that is bound to a device is on that one."""

    url: Text
    method: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z]{1,20}$")] = "GET"
    session: Text = ""
    user: Text = ""
    subject: Text = ""
    issuer: Text = ""
    groups: tuple[Text, ...] = ()
    claims: dict[str, Any] = msgspec.field(default_factory=dict)
    acr: Text = ""
    amr: tuple[Text, ...] = ()
    address: Text = ""
    device: Text = ""
    age: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    at: Moment | msgspec.UnsetType = msgspec.UNSET


class Explained(Shape, frozen=True):
    """What `ztproxy explain --json` says."""

    explanation: dict[str, Any]


class RoutesShown(Shape, frozen=True):
    """The routes in force."""

    routes: tuple[dict[str, Any], ...]


class StatusShown(Shape, frozen=True):
    """The log's number, the workers with what they have applied and when their leases end, the topology."""

    revocation: dict[str, Any]


class DecisionsWanted(Form, frozen=True):
    """How many of the newest."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50


class DecisionsShown(Shape, frozen=True):
    """Newest first."""

    decisions: tuple[dict[str, Any], ...]


class Reloaded(Shape, frozen=True):
    """What came of it."""

    result: str
    audit: Literal["written", "late"]


class Rotated(Shape, frozen=True):
    """The keys there are now."""

    keys: dict[str, Any]
    audit: Literal["written", "late"]


class Myself(Shape, frozen=True):
    """Who asks, by what, and until when that is good; null for a certificate."""

    name: str
    role: Role
    by: str
    expires_at: datetime | None


async def explain(desk: Desk, asked: Asked[ExplainForm]) -> Explained:
    form = asked.form
    session = await _session(desk, form)
    device = await _device(desk, form, session)
    try:
        address = form.address and str(ip_address(form.address))
    except ValueError:
        raise Problem(Kind.INVALID, "it is not an IP address", "address") from None
    question = Question(
        url=form.url,
        now=desk.clock() if form.at is msgspec.UNSET else form.at.timestamp(),
        method=form.method,
        session=session,
        user=form.user,
        subject=form.subject,
        issuer=form.issuer,
        groups=form.groups,
        claims=form.claims,
        acr=form.acr,
        amr=form.amr,
        address=address,
        age=form.age,
        device=device,
    )
    try:
        return Explained(explanation=dict(desk.explain(question)))
    except OperatorError as error:
        said = f"{error.problem}, {error.mend}" if error.mend else error.problem
        raise Problem(Kind.INVALID, said) from None


async def _session(desk: Desk, form: ExplainForm) -> Session | None:
    if not form.session:
        return None
    made_up = ("user", "subject", "issuer", "groups", "claims", "acr", "amr", "age")
    for name in made_up:
        if getattr(form, name):
            raise Problem(Kind.INVALID, "`session` says it already", name)
    found = await desk.sessions.show(form.session)
    if found is None:
        raise Problem(Kind.NOT_FOUND, "there is no such session", "session")
    return found.session


async def _device(desk: Desk, form: ExplainForm, session: Session | None) -> Device | None:
    """The device that is named, else the one the session is bound to, which may be in no inventory."""
    if form.device:
        device = await desk.devices.get(form.device)
        if device is None:
            raise Problem(Kind.NOT_FOUND, "there is no such device", "device")
        return device
    bound = None if session is None else session.device
    return None if bound is None else await desk.devices.get(bound)


async def list_routes(desk: Desk, asked: Asked[Nothing]) -> RoutesShown:
    return RoutesShown(routes=tuple(map(dict, desk.routes())))


async def status(desk: Desk, asked: Asked[Nothing]) -> StatusShown:
    return StatusShown(revocation=dict(await desk.status()))


async def decisions(desk: Desk, asked: Asked[DecisionsWanted]) -> DecisionsShown:
    if desk.decisions is None:
        raise Problem(Kind.NOT_FOUND, "recent decisions are not kept here")
    return DecisionsShown(decisions=tuple(map(dict, await desk.decisions(asked.form.limit))))


async def reload(desk: Desk, asked: Asked[Nothing]) -> Reloaded:
    await asked.record.intent("configuration")
    try:
        result = await desk.reload()
    except OperatorError as error:
        raise _not_done(error, "the new configuration is refused and the old one goes on") from None
    await asked.record.outcome("done", {"result": result})
    return Reloaded(result=result, audit="late" if asked.record.late else "written")


async def rotate_keys(desk: Desk, asked: Asked[Nothing]) -> Rotated:
    await asked.record.intent("keys")
    try:
        keys: dict[str, JSON] = dict(await desk.rotate_keys())
    except OperatorError as error:
        raise _not_done(error, "the keys are as they were") from None
    await asked.record.outcome("done", {"keys": keys})
    return Rotated(keys=keys, audit="late" if asked.record.late else "written")


def _not_done(error: OperatorError, what: str) -> Problem:
    _log.error("%s", error)
    return Problem(Kind.CONFLICT, f"{what}; the log says why, and so does `ztproxy check`")


async def whoami(desk: Desk, asked: Asked[Nothing]) -> Myself:
    caller = asked.caller
    end = None if caller.expires_at is None else moment(caller.expires_at)
    return Myself(name=caller.name, role=caller.role, by=caller.by, expires_at=end)
