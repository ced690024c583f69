"""CSV and JSON taken apart into rows, and every file that cannot be read in one way only."""

from __future__ import annotations

import pytest

from ztproxy.core.device_files import read_csv, read_json
from ztproxy.core.posture import BadRow

# ── CSV ──


@pytest.mark.parametrize(
    ("raw", "placed"),
    [
        pytest.param(b"id,name\na,x\n", [("line 2", {"id": "a", "name": "x"})], id="plain"),
        pytest.param(b"\xef\xbb\xbfid\r\na\r\n", [("line 2", {"id": "a"})], id="bom-and-crlf"),
        pytest.param(b"id\ra\r", [("line 2", {"id": "a"})], id="cr"),
        pytest.param(b"id,name\na,", [("line 2", {"id": "a"})], id="empty-cell-says-nothing"),
        pytest.param(b" id , name \n a , x ", [("line 2", {"id": "a", "name": "x"})], id="spaces"),
        pytest.param(b"\n\nid\n\n,\n\na\n", [("line 7", {"id": "a"})], id="blank-lines"),
        pytest.param(
            b'id,name\na,"x\ny"\nb,z\n',
            [("line 2", {"id": "a", "name": "x\ny"}), ("line 4", {"id": "b", "name": "z"})],
            id="quoted-line-break",
        ),
        pytest.param(
            b'id,name\na,"x ""y"", z"\n', [("line 2", {"id": "a", "name": 'x "y", z'})], id="quotes"
        ),
        pytest.param(b"id\n", [], id="header-alone"),
        pytest.param(
            "id,name\na,x\u2028y\n".encode(), [("line 2", {"id": "a", "name": "x\u2028y"})], id="separator"
        ),
    ],
)
def test_csv(raw: bytes, placed: list[tuple[str, dict[str, str]]]) -> None:
    assert read_csv(raw) == placed


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(b"\xef\xbb\xbf\r\n \r\n", "the file is empty", id="blank"),
        pytest.param(b"a,b\n", "`id` is not among the columns", id="no-header"),
        pytest.param(b"id;name\na;b\n", "separate them by commas", id="semicolons"),
        pytest.param(b"id,name,name\n", "`name` is the name of two columns", id="column-twice"),
        pytest.param(b"id,,\n", "a column has no name", id="nameless"),
        pytest.param(b"id,name\na,x\nb\n", "line 3: it has 1 cells, and the header 2", id="short"),
        pytest.param(b"id\na,b\n", "line 2: it has 2 cells, and the header 1", id="long"),
        pytest.param(b'id,name\na,"x\n', "line 2: it is not CSV", id="open-quote"),
        pytest.param(b'id,name\na,"x"y\n', "line 2: it is not CSV", id="after-quote"),
        pytest.param(b"id\n" + b"x" * 200_000, "line 2: it is not CSV", id="huge-cell"),
        pytest.param(b"id\na\n\0\n", "line 3: it has a NUL", id="nul"),
        pytest.param(b"id\n\xff\n", "line 2: it is not UTF-8", id="latin-1"),
        pytest.param("id\na\n".encode("utf-16"), "line 1: it is not UTF-8", id="utf-16"),
    ],
)
def test_csv_that_cannot_be_read(raw: bytes, says: str) -> None:
    with pytest.raises(BadRow, match=says):
        read_csv(raw)


# ── JSON ──


@pytest.mark.parametrize(
    ("raw", "placed"),
    [
        pytest.param(b'[{"id": "a"}]', [("item 1", {"id": "a"})], id="array"),
        pytest.param(b'\xef\xbb\xbf{"devices": [{}, {}]}', [("item 1", {}), ("item 2", {})], id="object"),
        pytest.param(b"[]", [], id="none"),
    ],
)
def test_json(raw: bytes, placed: list[tuple[str, dict[str, str]]]) -> None:
    assert read_json(raw) == placed


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        pytest.param(b"", "line 1: it is not JSON from character 1", id="empty"),
        pytest.param(b'[{"id": "a"},\n]', "line 2: it is not JSON", id="comma"),
        pytest.param(b'{"id": "a"}', "no list of devices", id="one-device"),
        pytest.param(b'{"devices": [], "more": 1}', "no list of devices", id="more"),
        pytest.param(b'[{}, "a"]', "item 2: it is no object", id="text"),
        pytest.param(b'[{"id": "a", "id": "b"}]', "`id` is given twice", id="twice"),
        pytest.param(b'[{"id": NaN}]', "`NaN` is not JSON", id="nan"),
        pytest.param(b"[" * 100_000, "it is not JSON", id="deep"),
        pytest.param(b"[" + b"9" * 5000 + b"]", "a number is too long", id="number"),
        pytest.param(b'[{"id": "\0"}]', "line 1: it has a NUL", id="nul"),
        pytest.param(b"\xff", "not UTF-8", id="latin-1"),
    ],
)
def test_json_that_cannot_be_read(raw: bytes, says: str) -> None:
    with pytest.raises(BadRow, match=says):
        read_json(raw)
