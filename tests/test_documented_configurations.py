"""The configurations shown on the pages about assurance, devices, services, limits, paths load as written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trustme
from ruamel.yaml import YAML

from tests.worlds.certificates import Authority
from ztproxy.adapters.device_ca import make
from ztproxy.config import load

ROOT = Path(__file__).parent.parent
PAGES = (
    *("docs/assurance.md", "docs/devices.md", "docs/services.md", "docs/limits.md", "docs/paths.md"),
    "README.md",
)
WHOLE = frozenset(
    {"assurance", "devices", "limits", "listen", "routes", "session", "token_issuers", "trusted_proxies"}
)
BASE: dict[str, Any] = {
    "listen": {"address": "127.0.0.1:8443", "client_certificates": True},
    "tls": {"certificate": "cert.pem", "key": "key.pem"},
    "provider": {
        "issuer": "https://idp.example.com",
        "client_id": "ztproxy",
        "client_secret_file": "client-secret",
    },
    "devices": {
        "authorities": [{"name": "corp", "ca_file": "pki/devices-ca.pem", "trust_domain": "example.com"}],
        "compliance": {"laptop": {"disk_encrypted": True}},
    },
    "routes": [
        {"from": "https://app.example.com", "to": "http://127.0.0.1:1", "allow_any_authenticated_user": True}
    ],
}


def shown() -> list[Any]:
    found = []
    for page in PAGES:
        blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        for number, block in enumerate(blocks):
            yaml = YAML(typ="safe")
            yaml.allow_duplicate_keys = True  # a list of what one may write, which is no configuration
            parsed = yaml.load(block)
            if isinstance(parsed, dict) and set(parsed) <= WHOLE:
                found.append(pytest.param(parsed, id=f"{page}-{number}"))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("documented")
    server, devices = trustme.CA().issue_cert("app.example.com"), Authority.root()
    server.cert_chain_pems[0].write_to_path(at / "cert.pem")
    server.private_key_pem.write_to_path(at / "key.pem")
    (at / "client-secret").write_text("s3cret\n")
    (at / "pki").mkdir()
    (at / "pki/devices-ca.pem").write_bytes(devices.pem)
    (at / "pki/devices.crl").write_bytes(devices.crl([]))
    make(at, "example.com", 10)
    for private in ("key.pem", "client-secret", "device-ca.key"):
        (at / private).chmod(0o600)
    return at


@pytest.mark.parametrize("written", shown())
def test_it_loads(folder: Path, written: dict[str, Any]) -> None:
    whole = BASE | written
    if "devices" in written:
        whole["devices"] = BASE["devices"] | written["devices"]
    yaml, file = YAML(typ="safe"), folder / "ztproxy.yaml"
    with file.open("w") as out:
        yaml.dump(whole, out)
    settings = load(file)
    assert settings.routes.routes


def test_there_are_some() -> None:
    assert len(shown()) >= 7
