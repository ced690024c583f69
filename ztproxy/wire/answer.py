"""The head of an app's answer, read: how its body ends, what of it may travel on, whether the app stays.

Knows: RFC 9110 section 7.6.1 (hop-by-hop) and RFC 9112 section 9.3 (persistence). Promises: `Answer.fields`
holds no hop-by-hop field, no framing and nothing the app's own `Connection` names. Leaves the byte grammar
and the framing rules to `head`, and what the client may see to the filter of the surface.
"""

from __future__ import annotations

from typing import NamedTuple

from ztproxy.core.request import Block, Field
from ztproxy.wire.head import Body, parse_response, response_framing
from ztproxy.wire.repeats import Repeats

_TRAVELS, _STOPS, _CONNECTION, _UPGRADE, _DATE, _LENGTH, _CODING = range(7)
_KINDS: dict[bytes, int] = dict.fromkeys(
    b"keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer http2-settings".split(),
    _STOPS,
) | {b"connection": _CONNECTION, b"upgrade": _UPGRADE, b"date": _DATE}
_KINDS |= {b"content-length": _LENGTH, b"transfer-encoding": _CODING}
# Spellings met so far: one look-up a field instead of lower-casing it. Bounded, for apps can invent names.
_SPELLINGS = dict(_KINDS)
_SPELLINGS_LIMIT = 1024

# An app says the same again, to the letter, within the second of its Date. Heads accepted of late: a memo of
# a pure function, dropped whole when it is full. What is likely to hold a secret of one person is not kept: a
# cookie, or an address to be redirected to.
_answers: dict[bytes, Answer] = {}
_repeats = Repeats()
_ANSWERS_REMEMBERED = 256
_ANSWER_REMEMBERED = 1024
_REMEMBERED_STATUS = frozenset({200, 304})


class Answer(NamedTuple):
    """`length` is the body's with `Body.LENGTH`, an announced one with `Body.NONE`, else None."""

    status: int
    phrase: bytes
    fields: list[Field]
    body: Body
    length: int | None
    reusable: bool
    dated: bool
    upgrade: bytes


def read_answer(head: bytes, method: str) -> Answer | None:
    """Reads the head of an answer to `method`, its blank line included; None when it breaks a rule."""
    # INVARIANT: of the method nothing matters but whether it is HEAD, whose answers are not remembered.
    if method == "HEAD":
        return _read(head, method)
    answer = _answers.get(head)
    if answer is None:
        answer = _read(head, method)
        if (
            answer is not None
            and answer.status in _REMEMBERED_STATUS
            and len(head) <= _ANSWER_REMEMBERED
            and _repeats.seen(head)
            and not any(name.lower() == b"set-cookie" for name, _ in answer.fields)
        ):
            if len(_answers) >= _ANSWERS_REMEMBERED:
                _answers.clear()
            answer = _answers[head] = answer._replace(fields=Block(answer.fields, head))
    return answer


def _read(head: bytes, method: str) -> Answer | None:
    parsed = parse_response(head)
    if parsed is None:
        return None
    fields: list[Field] = []
    options: set[bytes] | None = None
    reusable = parsed.minor == 1
    dated = False
    upgrade = b""
    length = b""
    lengths = 0
    coded = False
    for field in parsed.fields:
        kind = _SPELLINGS.get(field[0])
        if kind is None:
            kind = _kind(field[0])
        if kind == _TRAVELS:
            fields.append(field)
        elif kind == _DATE:
            dated = True
            fields.append(field)
        elif kind == _LENGTH:
            length = field[1]
            lengths += 1
        elif kind == _CODING:
            coded = True
        elif kind == _CONNECTION:
            if field[1] == b"keep-alive":
                continue
            named = {option.strip(b" \t") for option in field[1].lower().split(b",")}
            options = named if options is None else options | named
        elif kind == _UPGRADE:
            upgrade = field[1].lower() if not upgrade else upgrade + b"," + field[1].lower()
    if options is not None:
        if b"close" in options:
            reusable = False
        if options - {b"close", b"keep-alive", b"upgrade", b""}:
            fields = [field for field in fields if field[0].lower() not in options]
    status, phrase = parsed.status, parsed.reason
    if (
        lengths == 1
        and not coded
        and (200 <= status != 204)
        and status != 304
        and method != "HEAD"
        and len(length) <= 18
        and length.isdigit()
    ):
        # One plain length: what `response_framing` would say, without a second pass.
        return Answer(status, phrase, fields, Body.LENGTH, int(length), reusable, dated, upgrade)
    framing = response_framing(method, parsed)
    if framing is None:
        return None
    body = framing.body
    return Answer(
        status, phrase, fields, body, framing.length, reusable and body is not Body.EOF, dated, upgrade
    )


def _kind(name: bytes) -> int:
    kind = _KINDS.get(name.lower(), _TRAVELS)
    if len(_SPELLINGS) < _SPELLINGS_LIMIT:
        _SPELLINGS[name] = kind
    return kind
