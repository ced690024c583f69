"""The files a configuration names: found beside it, there, and secret where they must be."""

# ruff: noqa: E501  (a row quotes a whole message, as the operator sees it)

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.config.words import PROVIDER, ROUTES
from ztproxy.config import ConfigErrors, Settings, load
from ztproxy.config.settings import Secret

TEXT = f"""\
listen: 127.0.0.1:8443
tls: {{certificate: cert.pem, key: key.pem}}
{PROVIDER[:-1]}, client_secret_file: secret}}
keys_file: keys.yaml
branding: {{templates: pages}}
{ROUTES}
"""
MODES = {"cert.pem": 0o644, "key.pem": 0o600, "secret": 0o600, "keys.yaml": 0o600}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration with every file it names."""
    for name, mode in MODES.items():
        (tmp_path / name).write_text("hunter2\n")
        (tmp_path / name).chmod(mode)
    (tmp_path / "pages").mkdir()
    (tmp_path / "z.yaml").write_text(TEXT)
    return tmp_path


def loaded(folder: Path) -> Settings:
    return load(folder / "z.yaml", {})


def refused(folder: Path) -> str:
    with pytest.raises(ConfigErrors) as caught:
        loaded(folder)
    return str(caught.value).replace(str(folder), "F")


@pytest.mark.parametrize(
    ("make", "good"),
    [
        pytest.param(lambda path: None, True, id="not-there-yet"),
        pytest.param(lambda path: path.write_text(""), True, id="a-file"),
        pytest.param(lambda path: path.symlink_to("/dev/null"), False, id="nowhere"),
        pytest.param(lambda path: os.mkfifo(path), False, id="a-pipe"),
        pytest.param(lambda path: path.mkdir(), False, id="a-folder"),
    ],
)
def test_the_audit_goes_where_it_is_kept(folder: Path, make: Callable[[Path], object], good: bool) -> None:
    (folder / "z.yaml").write_text(f"{TEXT}log: {{audit: a.log}}\n")
    make(folder / "a.log")
    if good:
        assert loaded(folder).log.audit == folder / "a.log"
    else:
        message = "log.audit: `F/a.log` is no file that keeps anything, write another one"
        assert refused(folder).endswith(message)


def test_files_are_beside_the_configuration(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    found = loaded(folder)
    assert found.keys_file == folder / "keys.yaml"
    assert found.providers[0].client_secret == Secret("hunter2")
    assert set(found.files) == {folder / name for name in (*MODES, "z.yaml")}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("cert.pem", "F/z.yaml:2: tls.certificate: there is no file `F/cert.pem`, create it or correct the path", id="certificate"),
        pytest.param("secret", "F/z.yaml:3: provider.client_secret_file: there is no file `F/secret`, create it or correct the path", id="secret"),
        pytest.param("keys.yaml", "F/z.yaml:4: keys_file: there is no file `F/keys.yaml`, create it or correct the path", id="keys"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_there_is_told(folder: Path, name: str, message: str) -> None:
    (folder / name).unlink()
    assert refused(folder) == message


def test_a_folder_is_no_file_and_a_file_no_folder(folder: Path) -> None:
    (folder / "cert.pem").unlink()
    (folder / "cert.pem").mkdir()
    (folder / "pages").rmdir()
    (folder / "pages").touch()
    assert refused(folder).splitlines() == [
        "F/z.yaml:2: tls.certificate: `F/cert.pem` is not a file that can be read here, correct the path, or who may "
        "read it",
        "F/z.yaml:5: branding.templates: there is no folder `F/pages`, create it or correct the path",
    ]


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        pytest.param("key.pem", 0o644, "F/z.yaml:2: tls.key: everyone on this machine has rights on `F/key.pem` (mode 0644), run `chmod 600 F/key.pem`", id="key-for-everyone"),
        pytest.param("secret", 0o602, "F/z.yaml:3: provider.client_secret_file: everyone on this machine has rights on `F/secret` (mode 0602), run `chmod 600 F/secret`", id="secret-written-by-everyone"),
        pytest.param("keys.yaml", 0o640, "F/z.yaml:4: keys_file: its group has rights on `F/keys.yaml` (mode 0640), run `chmod 600 F/keys.yaml`", id="keys-for-the-group"),
    ],
)  # fmt: skip
def test_a_private_file_that_is_open_is_refused(folder: Path, name: str, mode: int, message: str) -> None:
    (folder / name).chmod(mode)
    assert refused(folder) == message


@pytest.mark.parametrize(
    ("name", "mode", "warned"),
    [
        pytest.param("key.pem", 0o640, 0, id="a-group-may-read-a-tls-key"),
        pytest.param("key.pem", 0o660, 1, id="a-group-may-change-it"),
        pytest.param("cert.pem", 0o666, 0, id="a-certificate-is-public"),
    ],
)
def test_a_group_is_let_in_where_it_is_usual(folder: Path, name: str, mode: int, warned: int) -> None:
    (folder / name).chmod(mode)
    assert len(loaded(folder).warnings) == warned


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"\n", "F/z.yaml:3: provider.client_secret_file: the file `F/secret` holds no secret, write it there, on one line", id="empty"),
        pytest.param(b"\xff\xfe", "F/z.yaml:3: provider.client_secret_file: the file `F/secret` is not text, write the secret as UTF-8", id="binary"),
        pytest.param(b"x" * 100_000, "F/z.yaml:3: provider.client_secret_file: the file `F/secret` holds no secret, write it there, on one line", id="far-too-long"),
    ],
)  # fmt: skip
def test_a_secret_that_is_none_is_told(folder: Path, content: bytes, message: str) -> None:
    (folder / "secret").write_bytes(content)
    assert refused(folder) == message


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        pytest.param("s", "s", id="no-line-end"),
        pytest.param("s\r\n", "s", id="windows-line-end"),
        pytest.param(" s \n", " s ", id="spaces-belong-to-it"),
    ],
)
def test_a_secret_loses_only_its_line_end(folder: Path, content: str, secret: str) -> None:
    (folder / "secret").write_text(content)
    assert loaded(folder).providers[0].client_secret == Secret(secret)


def test_the_place_of_the_state_may_be_in_a_file(folder: Path) -> None:
    (folder / "url").write_text("redis://:hunter2@state/0\n")
    (folder / "url").chmod(0o600)
    (folder / "z.yaml").write_text(TEXT + "state_file: url\n")
    assert loaded(folder).state_url == Secret("redis://:hunter2@state/0")
    assert "hunter2" not in repr(loaded(folder))


def test_without_looking_nothing_need_be_there(folder: Path) -> None:
    for name in MODES:
        os.unlink(folder / name)
    found = load(folder / "z.yaml", {}, look=False)
    assert found.providers[0].client_secret == Secret("")
