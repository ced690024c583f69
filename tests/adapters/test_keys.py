"""Key files: what is read, what is refused and where, what a rotation keeps, and how a file is written."""

from __future__ import annotations

import base64
import itertools
import os
import re
import secrets
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ztproxy.adapters.cookies import SignedHandles
from ztproxy.adapters.keys import KeyRing, fresh_keys, parse, rotate, write_private
from ztproxy.adapters.sealing import Sealer
from ztproxy.errors import OperatorError

KEY = base64.urlsafe_b64encode(bytes(32)).rstrip(b"=").decode()


def pem_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes | None = None) -> str:
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        protection = serialization.BestAvailableEncryption(password)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    return "".join(f"      {line}\n" for line in pem.decode().splitlines())


P256 = ec.generate_private_key(ec.SECP256R1())
P256_PEM = pem_of(P256)


def file_text(handles: str = KEY, records: str = KEY, kid: str = "k1", pem: str = P256_PEM) -> str:
    return f"handles:\n  - {handles}\nrecords:\n  - {records}\nassertions:\n  - kid: {kid}\n    pem: |\n{pem}"


def test_fresh_keys_are_read_back() -> None:
    ring = parse(fresh_keys(), "keys.yaml")
    assert [len(ring.handles), len(ring.records), len(ring.assertions)] == [2, 2, 2]
    assert len(ring.handles[0]) == len(ring.records[0]) == 32
    assert ring.handles != ring.records
    assert parse(fresh_keys(), "keys.yaml").handles != ring.handles


def test_a_rotation_puts_a_new_key_first_and_keeps_three() -> None:
    text = fresh_keys()
    rings = [parse(text, "")]
    for _ in range(4):
        text = rotate(text)
        rings.append(parse(text, ""))
    for before, after in itertools.pairwise(rings):
        # What comes into use was in the file before: a node that has not read the new one accepts it.
        assert after.handles[0] == before.handles[-1]
        assert after.records[0] == before.records[-1]
        assert after.assertions[0].kid == before.assertions[-1].kid
        assert after.handles[1] == before.handles[0], "what was in use still opens what it made"
        assert after.handles[-1] not in before.handles
        assert after.assertions[-1].kid not in [key.kid for key in before.assertions]
    assert len(rings[-1].handles) == len(rings[-1].records) == len(rings[-1].assertions) == 4
    kept = {key.kid: key.private.private_numbers() for key in rings[-2].assertions}
    for key in rings[-1].assertions[:-1]:
        assert key.private.private_numbers() == kept[key.kid]


def test_a_ring_of_one_gets_a_next_key() -> None:
    one = parse(file_text(), "")
    two = parse(rotate(file_text()), "")
    assert (two.handles[0], two.assertions[0].kid) == (one.handles[0], one.assertions[0].kid)
    assert len(two.handles) == len(two.records) == len(two.assertions) == 2


def test_nodes_that_rotate_at_different_times_understand_each_other() -> None:
    texts = [fresh_keys()]
    for _ in range(3):
        texts.append(rotate(texts[-1]))
    for behind, ahead in itertools.pairwise(parse(text, "") for text in texts):
        handle = secrets.token_urlsafe(32)
        assert SignedHandles(behind.handles).open(SignedHandles(ahead.handles).seal(handle)) == handle
        assert SignedHandles(ahead.handles).open(SignedHandles(behind.handles).seal(handle)) == handle
        sealed = Sealer(ahead.records).seal(b"secret", b"place", b"record")
        assert Sealer(behind.records).open(b"secret", b"place", sealed) == b"record"


def test_the_text_explains_itself() -> None:
    text = fresh_keys()
    for name in ("handles", "records", "assertions"):
        assert re.search(rf"^# .*\n{name}:$", text, re.MULTILINE), name


def test_no_repr_shows_a_key() -> None:
    text = fresh_keys()
    ring = parse(text, "")
    shown = repr(ring) + str(ring) + repr(ring.assertions[0])
    assert ring.assertions[0].kid in shown
    assert repr(ring.handles[0]) not in shown
    assert repr(ring.records[0]) not in shown
    assert "private" not in shown


def test_a_hand_written_file_is_read() -> None:
    ring = parse(file_text(), "keys.yaml")
    assert ring.handles == (bytes(32),)
    assert ring.assertions[0].kid == "k1"


SECRET_LIKE = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY"

WRONG = [
    pytest.param("", "keys.yaml: the file holds no keys", id="empty"),
    pytest.param("- a\n", "keys.yaml: the file holds no keys", id="list"),
    pytest.param("a: [\n", "keys.yaml:2: not readable as YAML", id="not-yaml"),
    pytest.param("handles: []\nhandles: []\n", "keys.yaml:2: not readable as YAML", id="duplicate-key"),
    pytest.param("cookies: []\n", "keys.yaml:1: cookies: unknown key, write one of handles", id="unknown"),
    pytest.param(f"records:\n- {KEY}\n", "keys.yaml: handles: needs a list of at least", id="missing"),
    pytest.param("handles: []\n", "keys.yaml:1: handles: needs a list", id="empty-list"),
    pytest.param(f"handles: {KEY}\n", "keys.yaml:1: handles: needs a list", id="not-a-list"),
    pytest.param(file_text(handles="c2hvcnQ"), "keys.yaml:2: handles.0: not a key", id="short-key"),
    pytest.param(file_text(handles=KEY + KEY), "keys.yaml:2: handles.0: not a key", id="long-key"),
    pytest.param(file_text(records="!" + KEY[1:]), "keys.yaml:4: records.0: not a key", id="not-base64"),
    pytest.param(file_text(records="17"), "keys.yaml:4: records.0: not a key", id="number"),
    pytest.param(file_text(records="Ä" * 43), "keys.yaml:4: records.0: not a key", id="not-ascii"),
    pytest.param(file_text(kid="'../x'"), "keys.yaml:6: assertions.0: `kid` is not a name", id="kid-path"),
    pytest.param(file_text(kid="7"), "keys.yaml:6: assertions.0: `kid` is not a name", id="kid-number"),
    pytest.param(file_text(kid="k" * 65), "`kid` is not a name", id="kid-long"),
    pytest.param(file_text(pem="      nothing\n"), "`pem` is not an unencrypted P-256", id="not-pem"),
    pytest.param(
        file_text(pem=pem_of(ec.generate_private_key(ec.SECP384R1()))), "not an unencrypted P-256", id="p-384"
    ),
    pytest.param(
        file_text(pem=pem_of(rsa.generate_private_key(65537, 2048))), "not an unencrypted P-256", id="rsa"
    ),
    pytest.param(file_text(pem=pem_of(P256, b"pw")), "not an unencrypted P-256", id="encrypted"),
    pytest.param(
        file_text() + f"  - kid: k1\n    pem: |\n{P256_PEM}", "assertions: two keys share a `kid`", id="twice"
    ),
    pytest.param(file_text() + "  - kid: k2\n", "assertions.1: not an assertion key", id="no-pem"),
    pytest.param(file_text() + "  - k2\n", "assertions.1: not an assertion key", id="not-a-map"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_wrong_file_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(OperatorError) as caught:
        parse(text, "keys.yaml")
    assert message in str(caught.value)
    assert KEY not in str(caught.value)


def test_an_almost_right_key_is_never_quoted() -> None:
    with pytest.raises(OperatorError) as caught:
        parse(file_text(handles=SECRET_LIKE + "A"), "keys.yaml")
    assert SECRET_LIKE[:8] not in str(caught.value)


def test_a_file_is_written_0600_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    old = os.umask(0)
    try:
        write_private(path, fresh_keys())
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(KeyRing.load(path).handles) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys.yaml"]


def test_an_existing_file_stays_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    write_private(path, "first")
    with pytest.raises(OperatorError, match="exists already, move it away first"):
        write_private(path, "second")
    assert path.read_text() == "first"
    write_private(path, "second", replace=True)
    assert path.read_text() == "second"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys.yaml"]


def test_a_link_in_the_files_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (tmp_path / "keys.yaml").symlink_to(target)
    with pytest.raises(OperatorError, match="exists already"):
        write_private(tmp_path / "keys.yaml", "secret")
    assert not target.exists()


def test_a_directory_that_is_not_there_is_the_operators_error(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="cannot be written: no such file or directory"):
        write_private(tmp_path / "missing" / "keys.yaml", "secret")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610], ids=oct)
def test_a_file_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys.yaml"
    write_private(path, fresh_keys())
    path.chmod(mode)
    with pytest.raises(OperatorError) as caught:
        KeyRing.load(path)
    message = f"{path}: its mode {mode:04o} lets others read the keys, run `chmod 600 {path}`"
    assert str(caught.value) == message


def make_directory(path: Path) -> None:
    path.mkdir(mode=0o700)


def make_pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


def make_binary(path: Path) -> None:
    path.write_bytes(b"\xff\xfe" * 10)
    path.chmod(0o600)


def make_huge(path: Path) -> None:
    write_private(path, "#" * 70_000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda path: None, "there is no key file, `ztproxy init` writes one", id="missing"),
        pytest.param(make_directory, "is a directory", id="directory"),
        pytest.param(make_pipe, "not a file, name the key file", id="pipe"),
        pytest.param(make_binary, "not text", id="binary"),
        pytest.param(make_huge, "too large for a key file", id="huge"),
    ],
)
def test_what_is_no_key_file_is_refused(tmp_path: Path, make: object, message: str) -> None:
    path = tmp_path / "keys.yaml"
    make(path)  # type: ignore[operator]
    with pytest.raises(OperatorError) as caught:
        KeyRing.load(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
