"""`ztproxy ca`: two files, and the lines that make a configuration of them."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from ztproxy.adapters.device_ca import DeviceCA
from ztproxy.cli import main


def init(*words: str) -> Result:
    return CliRunner().invoke(main, ["ca", "init", *words])


def test_it_writes_two_files_and_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "some where"
    result = init("--directory", str(folder), "--trust-domain", "corp.test", "--years", "2")
    assert (result.exit_code, result.stderr) == (0, "")
    certificate, key = folder / "device-ca.pem", folder / "device-ca.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    text = result.stdout.partition("add to the configuration:\n")[2].partition("and ask for")[0]
    enrolment = YAML(typ="safe", pure=True).load(text)["devices"]["enrolment"]
    assert enrolment == {
        "ca_certificate": str(certificate),
        "ca_key": str(key),
        "trust_domain": "corp.test",
        "may": {"group": "employees"},
    }
    ca = DeviceCA.load(Path(enrolment["ca_certificate"]), Path(enrolment["ca_key"]), "corp.test", 60)
    assert "PRIVATE" not in result.stdout and "corp.test" in ca.certificate.subject.rfc4514_string()


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    init("--directory", str(tmp_path))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    result = init("--directory", str(tmp_path))
    assert result.exit_code == 1 and "exists already" in result.stderr
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_on_a_full_disk_nothing_is_left(tmp_path: Path) -> None:
    """The key has room, and the certificate has not: half of it would be in the way of the next try."""
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))"
    run = f"{full}; from ztproxy.cli import main; main(['ca', 'init', '--directory', {str(tmp_path)!r}])"
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "cannot be written" in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
    assert init("--directory", str(tmp_path)).exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--years", "0"), "give 1 to 30"),
        (("--years", "31"), "give 1 to 30"),
        (("--trust-domain", "Corp"), "is not a trust domain"),
    ],
)
def test_mistakes(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    result = init("--directory", str(tmp_path / "x"), *words)
    assert result.exit_code == 1 and said in result.stderr and not (tmp_path / "x").exists()
