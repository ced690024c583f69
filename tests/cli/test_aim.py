"""Whom a command is aimed at. Nothing may be sent for what is not exactly one kind of selector."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from tests.cli.admin_world import Heard, answering, reply, served
from tests.cli.test_admin_client import client_at, of
from tests.core.words import ISSUER
from ztproxy.cli.aim import Aim, form_of, holds, matched, persons, said
from ztproxy.core.locks import ALL, Target, TargetKind
from ztproxy.errors import OperatorError


@pytest.mark.parametrize(
    ("given", "target", "words", "form"),
    [
        (
            {"ids": ["s1"]},
            Target(TargetKind.SESSION, "s1"),
            "session `s1`",
            {"kind": "session", "name": "s1"},
        ),
        (
            {"subject": "a", "issuer": "https://i"},
            Target(TargetKind.USER, "a", "https://i"),
            "person `a` of https://i",
            {"kind": "user", "name": "a", "issuer": "https://i"},
        ),
        (
            {"idp_session": "x", "issuer": "https://i"},
            Target(TargetKind.IDP_SESSION, "x", "https://i"),
            "session at the provider `x` of https://i",
            {"kind": "idp_session", "name": "x", "issuer": "https://i"},
        ),
        ({"device": "d"}, Target(TargetKind.DEVICE, "d"), "device `d`", {"kind": "device", "name": "d"}),
        (
            {"group": "g\x1b"},
            Target(TargetKind.GROUP, "g\x1b"),
            r"group `g\u001b`",
            {"kind": "group", "name": "g\x1b"},
        ),
        ({"route": "r"}, Target(TargetKind.ROUTE, "r"), "route `r`", {"kind": "route", "name": "r"}),
        ({"everybody": True}, ALL, "everybody", {"kind": "all"}),
    ],
)
def test_one_kind(given: dict[str, Any], target: Target, words: str, form: dict[str, Any]) -> None:
    find = Aim(**given).targets()
    assert find(client_at("unix:/nowhere")) == [target]
    assert said(target) == words
    assert form_of(target) == form


def test_several_sessions_each_once() -> None:
    find = Aim(ids=["b", "a", "b"]).targets()
    assert [target.name for target in find(client_at("unix:/nowhere"))] == ["b", "a"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        pytest.param({}, "say whom", id="nobody"),
        pytest.param({"ids": []}, "say whom", id="no ids"),
        pytest.param({"issuer": "https://i"}, "say whom", id="an issuer alone"),
        pytest.param({"ids": [""]}, "is empty", id="an empty id"),
        pytest.param({"ids": ["a", " "]}, "is empty", id="one of two is blank"),
        pytest.param({"user": ""}, "is empty", id="an empty e-mail: a variable that was not set"),
        pytest.param({"group": "\t"}, "is empty", id="a blank group"),
        pytest.param({"subject": "", "issuer": "https://i"}, "is empty", id="an empty subject"),
        pytest.param({"subject": "a"}, "whose", id="whose"),
        pytest.param({"subject": "a", "issuer": ""}, "whose", id="an empty issuer"),
        pytest.param({"idp_session": "a"}, "whose", id="whose sid"),
        pytest.param({"group": "g", "issuer": "https://i"}, "goes with", id="the issuer of a group"),
        pytest.param({"everybody": True, "issuer": "https://i"}, "goes with", id="everybody of an issuer"),
        pytest.param({"ids": ["a"], "everybody": True}, "several ways", id="a session and everybody"),
        pytest.param({"user": "a", "group": "g"}, "several ways", id="two"),
        pytest.param({"group": "", "everybody": True}, "several ways", id="an empty one and everybody"),
        pytest.param(
            {"subject": "a", "idp_session": "b", "issuer": "i"}, "several ways", id="two with an issuer"
        ),
    ],
)
def test_not_one_kind(given: dict[str, Any], told: str) -> None:
    with pytest.raises(typer.BadParameter, match=told):
        Aim(**given).targets()


def test_persons_of_an_e_mail() -> None:
    with served() as there:
        there.sign_in("a1", email="alice@example.com")
        there.sign_in("a1", email="alice@example.com")
        there.sign_in("a2", email="Alice@Example.com")
        there.sign_in("b", email="malice@example.com")
        there.sign_in("c", email="bob@example.com", name="alice@example.com")
        alices = {Target(TargetKind.USER, "a1", ISSUER), Target(TargetKind.USER, "a2", ISSUER)}
        find = Aim(user="alice@example.com").targets()
        assert set(find(of(there))) == alices
        assert set(persons(of(there), "alice@example.com", ISSUER)) == alices
        for email, issuer in (("alice", ""), ("alice@example.com", "https://other.test"), ("*", "")):
            with pytest.raises(OperatorError, match="nobody with"):
                persons(of(there), email, issuer)


def test_persons_are_looked_for_on_every_page() -> None:
    def page(next: str, *subjects: str) -> bytes:
        people = ",".join(
            f'{{"user": {{"email": "a@x", "subject": "{one}", "issuer": "i"}}}}' for one in subjects
        )
        return reply(f'{{"sessions": [{people}], "next": {next}}}')

    heard = Heard()
    with answering(page('"2"', "a"), page('"3"'), page("null", "b", ""), heard=heard) as url:
        assert [one.name for one in persons(client_at(url), "a@x")] == ["a", "b"]
    assert [b"cursor=2" in one for one in heard.requests] == [False, True, False]
    with answering(page('"1"', "a"), page('"2"', "b"), page('"2"', "c")) as url:
        assert [one.name for one in persons(client_at(url), "a@x")] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"matched": 1, "exact": True}, "1 session"),
        ({"matched": 0, "exact": True}, "0 sessions"),
        ({"matched": 7, "exact": False}, "about 7 sessions"),
        ({"matched": None, "exact": False}, "an unknown number of sessions"),
        ({}, "an unknown number of sessions"),
    ],
)
def test_matched(answer: dict[str, Any], words: str) -> None:
    assert matched(answer) == words


@pytest.mark.parametrize("confirmed", [None, False, 1, "true"])
def test_what_is_not_confirmed_does_not_hold(confirmed: Any) -> None:
    with pytest.raises(OperatorError, match="does not say"):
        holds({"confirmed": confirmed, "number": 3}, "it")


def test_what_holds(capsys: pytest.CaptureFixture[str]) -> None:
    answer: dict[str, Any] = {"confirmed": True, "number": 3, "topology": "strict", "seconds": 0.0123}
    assert holds(answer, "it") == "confirmed everywhere in 0.012 s (entry 3, strict)"
    assert capsys.readouterr().err == ""
    holds({**answer, "audit": "late"}, "it")
    assert "audit log" in capsys.readouterr().err
