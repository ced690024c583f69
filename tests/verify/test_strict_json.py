"""Texts that two JSON readers could take for two different objects are refused."""

import pytest

from ztproxy.verify.strict_json import read_object


def nested(levels: int) -> dict[str, object]:
    return {"a": nested(levels - 1) if levels > 1 else 12345678901234567890}


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        pytest.param(b"{}", {}, id="empty"),
        pytest.param(
            b' {"a" : [1, 2.5, null, true]}\n', {"a": [1, 2.5, None, True]}, id="white space and kinds"
        ),
        pytest.param('{"a":"ä😀"}'.encode(), {"a": "ä😀"}, id="text beyond ASCII"),
        pytest.param(b'{"a":"\\ud83d\\ude00"}', {"a": "😀"}, id="a pair of surrogates"),
        pytest.param(
            b'{"a":' * 20 + b"12345678901234567890" + b"}" * 20, nested(20), id="20 deep, 20 digits"
        ),
    ],
)
def test_an_object_is_read(raw: bytes, value: dict[str, object]) -> None:
    assert read_object(raw) == value


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'"a"', id="a text"),
        pytest.param(b"{} {}", id="two objects"),
        pytest.param(b"{'a':1}", id="single quotes"),
        pytest.param(b'{"a":1,}', id="a comma too many"),
        pytest.param(b'{"a":1,"a":1}', id="a name twice"),
        pytest.param(b'{"b":{"a":1,"\\u0061":2}}', id="a name twice, deeper and in another spelling"),
        pytest.param(b'{"a":NaN}', id="NaN"),
        pytest.param(b'{"a":-Infinity}', id="minus infinity"),
        pytest.param(b'{"a":1e999}', id="a number beyond a double"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="an integer of 5,000 digits"),
        pytest.param(b'{"a":' + b"9" * 21 + b"}", id="an integer of 21 digits"),
        pytest.param(b"[" * 100_000, id="100,000 deep"),
        pytest.param(b'{"a":' * 33 + b"1" + b"}" * 33, id="33 deep"),
        pytest.param(b'{"a":"\\ud800"}', id="a lone surrogate"),
        pytest.param(b'{"\\udfff":1}', id="a lone surrogate in a name"),
        pytest.param(b'{"a":[{"b":"\\ud800"}]}', id="a lone surrogate, deeper"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param(b'{"a":"\xff"}', id="not UTF-8"),
        pytest.param('{"a":1}'.encode("utf-16"), id="UTF-16"),
    ],
)
def test_anything_else_is_not(raw: bytes) -> None:
    with pytest.raises(ValueError):
        read_object(raw)
