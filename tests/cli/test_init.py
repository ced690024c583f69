"""`ztproxy init`: four answers become a configuration that is good; what exists stays as it is."""

# ruff: noqa: E501  (a row quotes a whole message, as the operator sees it)

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ztproxy.adapters.keys import KeyRing
from ztproxy.cli import main
from ztproxy.config import load

FLAGS = {
    "--app": "http://127.0.0.1:3000",
    "--public": "https://app.example.com",
    "--issuer": "https://idp.example.com",
    "--client-id": "ztproxy",
}


def init(folder: Path, answers: str = "", **more: str) -> Result:
    flags = {} if answers else FLAGS
    given = {**flags, **{f"--{name.replace('_', '-')}": value for name, value in more.items()}}
    words = [word for pair in given.items() for word in pair]
    return CliRunner().invoke(main, ["init", "--output", str(folder / "z.yaml"), *words], input=answers)


def test_flags_make_a_configuration_and_keys(tmp_path: Path) -> None:
    result = init(tmp_path)
    assert (result.exit_code, result.stderr) == (0, "")
    for name in ("client-secret", "cert.pem", "key.pem"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)
    found = load(tmp_path / "z.yaml", {})
    (route,) = found.routes.routes
    assert (route.origin, found.warnings) == ("https://app.example.com", ())
    assert found.keys_file == tmp_path / "keys.yaml"
    assert found.admin is not None
    assert found.admin.address.path == str(tmp_path / "state/admin.sock")  # as the comment in it says
    assert stat.S_IMODE(found.keys_file.stat().st_mode) == 0o600
    assert len(KeyRing.load(found.keys_file).handles) == 2


def test_the_same_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "asked").mkdir()
    (tmp_path / "given").mkdir()
    result = init(tmp_path / "asked", "\n".join(FLAGS.values()) + "\n")
    assert result.exit_code == 0
    assert result.stdout.count("?") == 0 and "The URL people will open" in result.stdout
    init(tmp_path / "given")
    assert (tmp_path / "asked/z.yaml").read_text() == (tmp_path / "given/z.yaml").read_text()


def test_what_is_still_missing_is_said(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").touch()
    said = init(tmp_path).stdout.replace(str(tmp_path), "F").splitlines()
    assert said == [
        "wrote F/z.yaml and F/keys.yaml",
        "",
        "next:",
        "  put the client's secret, mode 0600 into F/client-secret",
        "  put its key, mode 0600 into F/key.pem",
        "  ztproxy check F/z.yaml",
        "  ztproxy run F/z.yaml",
    ]


@pytest.mark.parametrize(
    ("public", "listen", "tls"),
    [
        pytest.param("https://app.example.com", "0.0.0.0:443", True, id="public"),
        pytest.param("https://app.localhost:8443", "127.0.0.1:8443", True, id="this-machine"),
        pytest.param("http://localhost:8080", "127.0.0.1:8080", False, id="this-machine-without-tls"),
    ],
)
def test_the_listener_fits_what_people_open(tmp_path: Path, public: str, listen: str, tls: bool) -> None:
    assert init(tmp_path, public=public).exit_code == 0
    (listener,) = load(tmp_path / "z.yaml", {}, look=False).listeners
    assert (str(listener.address), listener.tls is not None) == (listen, tls)


@pytest.mark.parametrize("name", ["z.yaml", "keys.yaml"])
def test_what_exists_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    result = init(tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert (
        result.stderr
        == f"`{tmp_path}/{name}` exists already, move it away, or write elsewhere with `--output`\n"
    )
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "mine")]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        pytest.param("app", "127.0.0.1:3000", "--app: `127.0.0.1:3000` does not start with `https://`, write it like `http://127.0.0.1:3000`", id="app"),
        pytest.param("public", "https://app.test/x", "--public: `https://app.test/x` goes on after the host, leave out path and query", id="public"),
        pytest.param("issuer", "http://idp.test", "F/z.yaml:10: provider.issuer: an issuer without TLS lets anyone on the way sign in as anybody, write `https://...`", id="issuer"),
        pytest.param("client_id", "x'\nlog: {access: off}\nz: '", "F/z.yaml:11: provider.client_id: the value goes on over a line's end, write it on one line", id="an-answer-is-no-yaml"),
        pytest.param("listen", "8443", "F/z.yaml:5: listen: `8443` is not text, write it like `0.0.0.0:8443`", id="listen"),
    ],
)  # fmt: skip
def test_a_wrong_answer_writes_nothing(tmp_path: Path, option: str, value: str, message: str) -> None:
    result = init(tmp_path, **{option: value})
    assert result.exit_code == 1
    assert result.stderr.replace(str(tmp_path), "F") == f"{message}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    result = init(tmp_path / "none")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
