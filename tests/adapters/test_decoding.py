"""What msgspec raises for bytes that are no record, and that it is a `ValueError` every time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from ztproxy.adapters.decoding import reader
from ztproxy.adapters.device_codec import unpack_device
from ztproxy.adapters.revocation_codec import read_line, unpack
from ztproxy.adapters.session_codec import unpack_handle, unpack_secrets, unpack_seen, unpack_session

DEEP = b"\x81\xa7unknown" + b"\x91" * 5000 + b"\xc0"  # a map with one field, 5000 arrays in one another
DEEP_LINE = b'{"unknown":' + b"[" * 5000 + b"]" * 5000 + b"}"


class Record(msgspec.Struct):
    a: int = 1


def test_what_can_be_read_is_read() -> None:
    assert reader(msgspec.msgpack.Decoder(Record).decode)(b"\x81\xa1a\x07") == Record(7)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x90", id="another kind"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="a size of four billion"),
        pytest.param(DEEP, id="nested deeply in a field nobody asked for"),
    ],
)
@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda raw: unpack_session(raw, "s1", 0), id="session"),
        pytest.param(unpack_secrets, id="secrets"),
        pytest.param(unpack_handle, id="handle"),
        pytest.param(unpack_seen, id="seen"),
        pytest.param(lambda raw: unpack_device(raw, "d1", 0), id="device"),
        pytest.param(lambda raw: unpack(raw, 1, 0.0), id="entry"),
    ],
)
def test_what_cannot_is_a_value_error(read: Callable[[bytes], Any], raw: bytes) -> None:
    with pytest.raises(ValueError):
        read(raw)


def test_a_line_of_the_journal_too() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        read_line(DEEP_LINE)
