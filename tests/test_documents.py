"""What the documents promise, tried as written: the README's configuration and commands, and every link."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from ztproxy.adapters.metrics import Metrics, render

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")})
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def ztproxy(*words: str, at: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ztproxy.cli", *words]
    return subprocess.run(command, cwd=at, capture_output=True, text=True, timeout=60)


@pytest.fixture
def own_app(tmp_path: Path) -> Path:
    """A folder with the README's configuration and the files it names."""
    (tmp_path / "ztproxy.yaml").write_text(blocks("yaml")[0])
    made = trustme.CA().issue_cert("app.example.com")
    made.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    made.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "client-secret").write_text("s3cret\n")
    for private in ("key.pem", "client-secret"):
        (tmp_path / private).chmod(0o600)
    return tmp_path


def test_ten_lines_protect_an_app(own_app: Path) -> None:
    assert len(blocks("yaml")[0].splitlines()) <= 10
    assert blocks("yaml")[0] == (ROOT / "config/example.yaml").read_text()
    checked = ztproxy("check", at=own_app)
    assert checked.returncode == 0, checked.stderr
    assert "https://app.example.com" in checked.stdout


@pytest.mark.parametrize(
    ("email", "allowed"),
    [
        pytest.param("alice@example.com", True, id="of-the-domain"),
        pytest.param("alice@example.com.evil.test", False, id="of-another"),
        pytest.param("alice@sub.example.com", False, id="of-a-sub-domain"),
    ],
)
def test_the_ten_lines_decide(own_app: Path, email: str, allowed: bool) -> None:
    said = ztproxy("explain", "--user", email, "--url", "https://app.example.com/", at=own_app)
    assert (said.returncode == 0) is allowed, said.stdout + said.stderr


def test_the_policy_shown_is_understood(own_app: Path) -> None:
    shown = "\n".join(f"    {line}" for line in blocks("yaml")[1].splitlines())
    whole = blocks("yaml")[0].splitlines()[:-1]
    (own_app / "ztproxy.yaml").write_text("\n".join(whole) + "\n" + shown + "\n")
    assert ztproxy("check", at=own_app).returncode == 0
    (command,) = [block for block in blocks("sh") if "explain" in block]
    said = ztproxy(*shlex.split(command)[1:], at=own_app)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_named_exist(document: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"`make ([a-z-]+)", document.read_text())) <= set(targets)


def test_ci_calls_the_command_of_the_readme() -> None:
    assert "make test" in README
    assert "make test" in (ROOT / ".ci/run").read_text()
    assert os.access(ROOT / ".ci/run", os.X_OK)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_leads_nowhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    broken = [link for link in LINK.findall(text) if not (document.parent / link).exists()]
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_tests_and_modules_named_exist(document: Path) -> None:
    named = re.findall(r"`(?:tests/)?([a-z_]+/test_[a-z_]+\.py)`", document.read_text())
    modules = re.findall(
        r"`(core|gateway|wire|adapters|surfaces|config)\.([a-z_]+)(?:\.[\w.]+)?`", document.read_text()
    )
    missing = [
        name
        for name in named
        if name != "x/test_y.py" and not ((ROOT / "tests" / name).exists() or (ROOT / name).exists())
    ]
    for room, module in modules:
        place = ROOT / "ztproxy" / room / module
        if not (place.with_suffix(".py").exists() or place.is_dir()):
            missing.append(f"{room}.{module}")
    assert missing == []


def test_the_image_copies_what_is_there() -> None:
    """No container engine is asked; but what the Dockerfile names must exist and be let into its context."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    named = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    files = {file for line in named for file in line.split()}
    assert files == allowed
    assert all((ROOT / file).exists() for file in files)


def test_every_metric_a_page_names_is_there() -> None:
    shown = render(Metrics())[0].decode()
    for page in (ROOT / "docs").glob("*.md"):
        for name in re.findall(r"\bztproxy_[a-z_]+\b", page.read_text(encoding="utf-8")):
            family = re.sub(r"_(total|bucket|count|sum)$", "", name)
            assert re.search(rf"^# TYPE {family}(_total)? ", shown, re.MULTILINE), f"{page.name}: {name}"
