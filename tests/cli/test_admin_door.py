"""Where the admin API is and what opens it; and to whom no credential goes."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

import pytest
import trustme
from typer.testing import Result

from tests.cli.admin_world import Heard, answering, reply, run, served
from tests.surfaces.admin.world import World
from ztproxy.cli.admin_door import Reach
from ztproxy.demo.running import free_port

CONFIG = """\
listen: 127.0.0.1:8443
provider: {{issuer: https://idp.test, client_id: z}}
state_dir: {state}
{more}
routes:
  - from: https://app.test
    to: http://10.0.0.1:1
    allow_any_authenticated_user: true
"""
SECRET = "ztp_" + "s" * 43


def configured(folder: Path, more: str = "", token: str | None = None) -> Path:
    """A configuration, and what `ztproxy run` leaves in its `state_dir`."""
    file = folder / "ztproxy.yaml"
    file.write_text(CONFIG.format(state=folder, more=more))
    if token is not None:
        left = folder / "admin-token"
        left.touch(0o600)
        left.write_text(token + "\n")
    return file


def whoami(*words: str | Path, **env: str) -> Result:
    return run("admin", "whoami", *words, env=env)


def test_the_socket_and_the_token_of_the_configuration(tmp_path: Path) -> None:
    with served() as there:
        more = f"admin: {there.url}"
        file = configured(tmp_path, more, there.world.secrets["admin"])
        for result in (whoami("--config", file), whoami(ZTPROXY_CONFIG=str(file))):
            assert result.exit_code == 0, result.output
            assert "admin-1" in result.stdout


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost"])
def test_a_port_of_the_configuration(tmp_path: Path, address: str) -> None:
    with served(unix=False) as there:
        port = there.url.rpartition(":")[2]
        file = configured(tmp_path, f"admin: {address}:{port}", there.world.secrets["viewer"])
        assert "viewer-1" in whoami("-c", file).stdout


def test_tokens_in_their_order(tmp_path: Path) -> None:
    with served() as there:
        secrets = there.world.secrets
        config = configured(tmp_path, f"admin: {there.url}", secrets["admin"])
        file = tmp_path / "token"
        file.touch(0o600)
        file.write_text(secrets["viewer"])
        env = {"ZTPROXY_ADMIN_TOKEN": f" {secrets['operator']}\n"}
        assert "viewer-1" in whoami("-c", config, "--token-file", file, **env).stdout
        assert "operator-1" in whoami("-c", config, **env).stdout
        assert "admin-1" in whoami("-c", config, ZTPROXY_ADMIN_TOKEN="").stdout


def test_an_address_in_the_environment_is_not_meant_where_a_configuration_is_named(tmp_path: Path) -> None:
    heard = Heard()
    with served() as there, answering(reply("{}"), heard=heard) as other:
        file = configured(tmp_path, f"admin: {there.url}", there.world.secrets["admin"])
        result = whoami(
            "-c", file, ZTPROXY_ADMIN_URL=other, ZTPROXY_ADMIN_TOKEN=there.world.secrets["viewer"]
        )
        assert "viewer-1" in result.stdout
        both = whoami("-c", file, "--url", other)
        assert (both.exit_code, "not both" in both.stderr) == (2, True)
    assert heard.requests == []


def test_the_local_token_goes_to_no_other_address(tmp_path: Path) -> None:
    heard = Heard()
    file = configured(tmp_path, token=SECRET)
    with answering(reply("{}"), heard=heard) as other:
        result = whoami("--url", other, ZTPROXY_CONFIG=str(file))
    assert (result.exit_code, "there is no token" in result.stderr) == (1, True)
    assert heard.requests == []


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        pytest.param(["--url", "http://admin.test:9901"], 1, "in the clear", id="in the clear"),
        pytest.param(["--url", "http://127.0.0.1.evil.test"], 1, "in the clear", id="nearly this machine"),
        pytest.param(["--url", "http://localhost@evil.test"], 1, "login", id="a login"),
        pytest.param(["--url", "https://admin.test/x"], 1, "after the host", id="with a path"),
        pytest.param(["--url", "ftp://admin.test"], 1, "does not start", id="another scheme"),
        pytest.param(["--url", "unix:admin.sock"], 1, "--url", id="not absolute"),
        pytest.param(["--url", "unix:/" + "x" * 200], 1, "cannot be reached", id="a long path"),
        pytest.param(["--url", "https://x.test", "--key", "k"], 2, "--cert", id="a key alone"),
        pytest.param(["--url", "unix:/x", "--cert", "c"], 2, "without TLS", id="a certificate for a socket"),
        pytest.param(["--url", "http://127.0.0.1:1", "--ca", "c"], 2, "without TLS", id="a CA for no TLS"),
        pytest.param(["--url", "https://x.test", "--ca", "/none"], 1, "no such file", id="no CA there"),
        pytest.param(
            ["--url", "https://x.test", "--cert", "/dev/null"], 1, "cannot be used", id="no certificate"
        ),
        pytest.param(["--config", "/none.yaml"], 1, "no such file", id="no configuration"),
        pytest.param(["--url", "unix:/x", "--wait", "0"], 2, "--wait", id="no time"),
    ],
)
def test_what_cannot_be_used(words: list[str], status: int, said: str) -> None:
    result = whoami(*words, ZTPROXY_ADMIN_TOKEN=SECRET)
    assert result.exit_code == status
    assert said in " ".join(result.stderr.split())
    assert SECRET not in result.output


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("secret-of-another-kind", id="another kind"),
        pytest.param("ztp_", id="empty"),
        pytest.param("ztp_a\r\nX-Evil: secret", id="a field"),
        pytest.param("ztp_secret\x1b[2J", id="for a terminal"),
        pytest.param("ztp_" + "secret" * 300, id="huge"),
        pytest.param("ztp_sécret", id="not ASCII"),
    ],
)
def test_what_is_no_token_is_neither_sent_nor_shown(tmp_path: Path, token: str) -> None:
    heard = Heard()
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(token)
    with answering(reply("{}"), heard=heard) as url:
        for result in (
            whoami("--url", url, "--token-file", file),
            whoami("--url", url, ZTPROXY_ADMIN_TOKEN=token),
        ):
            assert result.exit_code == 1
            assert "not a token of ztproxy" in result.stderr
            assert "cret" not in result.output
    assert heard.requests == []


def test_a_token_everybody_can_read_is_not_used(tmp_path: Path) -> None:
    file = configured(tmp_path, token=SECRET)
    (tmp_path / "admin-token").chmod(0o644)
    result = whoami("-c", file)
    assert result.exit_code == 1
    assert "lets everybody read" in result.stderr


def test_no_token_there_says_what_to_do(tmp_path: Path) -> None:
    result = whoami("-c", configured(tmp_path))
    assert result.exit_code == 1
    assert "admin-token" in result.stderr and "ztproxy run" in result.stderr


def test_admin_off(tmp_path: Path) -> None:
    result = whoami("-c", configured(tmp_path, "admin: off", SECRET))
    assert (result.exit_code, "it is off" in result.stderr) == (1, True)


def test_it_does_not_run(tmp_path: Path) -> None:
    result = whoami("-c", configured(tmp_path, token=SECRET))
    assert result.exit_code == 1
    assert f"unix:{tmp_path}/admin.sock: it cannot be reached" in result.stderr
    assert "Traceback" not in result.output


class Certificates:
    """A CA, the listener's files by it, and a client's."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.ca, self.folder = trustme.CA(), folder
        self.ca_file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(self.ca_file)
        self.certificate, self.key = self.issue("server", *names)
        self.client, self.client_key = self.issue("client", "carol@example.com")
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.server.load_cert_chain(self.certificate, self.key)

    def issue(self, name: str, *names: str) -> tuple[Path, Path]:
        leaf = self.ca.issue_cert(*names)
        files = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        for number, pem in enumerate(leaf.cert_chain_pems):
            pem.write_to_path(files[0], append=number > 0)
        leaf.private_key_pem.write_to_path(files[1])
        return files

    def listen(self, port: str, more: str = "") -> str:
        files = f"certificate: {self.certificate}, key: {self.key}"
        return f"admin: {{listen: '127.0.0.1:{port}', tls: {{{files}}}{more}}}"


def test_tls_by_url(tmp_path: Path) -> None:
    files = Certificates(tmp_path, "localhost", "127.0.0.1")
    with served(unix=False, tls=files.server) as there:
        env = {"ZTPROXY_ADMIN_TOKEN": there.world.secrets["viewer"]}
        assert "viewer-1" in whoami("--url", there.url, "--ca", files.ca_file, **env).stdout
        result = whoami("--url", there.url, **env)
        assert (result.exit_code, "not to be trusted" in result.stderr) == (1, True)
        plain = whoami("--url", there.url.replace("https", "http"), **env)
        assert plain.exit_code == 1


def test_tls_for_another_name(tmp_path: Path) -> None:
    files = Certificates(tmp_path, "other.test")
    with served(unix=False, tls=files.server) as there:
        env = {"ZTPROXY_ADMIN_TOKEN": there.world.secrets["viewer"]}
        result = whoami("--url", there.url, "--ca", files.ca_file, **env)
        assert (result.exit_code, "not to be trusted" in result.stderr) == (1, True)


def test_the_certificate_in_the_configuration_is_trusted_whatever_its_name(tmp_path: Path) -> None:
    files = Certificates(tmp_path, "admin.example.com")
    with served(unix=False, tls=files.server) as there:
        config = configured(
            tmp_path, files.listen(there.url.rpartition(":")[2]), there.world.secrets["admin"]
        )
        result = whoami("-c", config)
        assert "admin-1" in result.stdout, result.output
        result = whoami("-c", config, "--ca", files.ca_file)
        assert "not to be trusted" in result.stderr, "a CA says that names count"


def test_no_other_certificate_will_do(tmp_path: Path) -> None:
    """Not even one that the one in the configuration could vouch for."""
    files = Certificates(tmp_path, "admin.example.com")
    files.certificate, files.key = files.issue("other", "127.0.0.1")
    with served(unix=False, tls=files.server) as there:
        config = configured(
            tmp_path, files.listen(there.url.rpartition(":")[2]), there.world.secrets["admin"]
        )
        assert "not to be trusted" in whoami("-c", config).stderr
        files.certificate = files.ca_file
        config = configured(
            tmp_path, files.listen(there.url.rpartition(":")[2]), there.world.secrets["admin"]
        )
        result = whoami("-c", config)
        assert (result.exit_code, "not the certificate in the configuration" in result.stderr) == (1, True)


@pytest.mark.parametrize("text", [None, "", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"])
def test_no_certificate_in_the_configuration(tmp_path: Path, text: str | None) -> None:
    files = Certificates(tmp_path, "admin.example.com")
    files.certificate = tmp_path / "none.pem"
    if text is not None:
        files.certificate.write_text(text)
    result = whoami("-c", configured(tmp_path, files.listen(str(free_port())), SECRET))
    assert result.exit_code == 1
    assert "Traceback" not in result.output


def test_a_client_certificate(tmp_path: Path) -> None:
    files = Certificates(tmp_path, "127.0.0.1")
    files.server.verify_mode = ssl.CERT_REQUIRED
    files.ca.configure_trust(files.server)
    der = ssl.PEM_cert_to_DER_cert(
        files.client.read_text().partition("-----END")[0] + "-----END CERTIFICATE-----\n"
    )
    with served(World(certificates={der: "operator"}), unix=False, tls=files.server) as there:
        port = there.url.rpartition(":")[2]
        config = configured(tmp_path, files.listen(port, f", client_ca: {files.ca_file}"))
        words = ("-c", config, "--cert", files.client, "--key", files.client_key)
        assert f"certificate:{hashlib.sha256(der).hexdigest()}" in whoami(*words).stdout
        env = {"ZTPROXY_ADMIN_TOKEN": there.world.secrets["viewer"]}
        assert "viewer-1" in whoami(*words, **env).stdout, "a token counts before a certificate"
        for where in (("-c", config), ("--url", there.url, "--ca", files.ca_file)):
            result = run("sessions", "revoke", "--all", "--yes", "--wait", "0.5", *where, env=env)
            assert (result.exit_code, result.stdout) == (1, "")
            assert "--cert" in result.stderr
        assert there.targets == []


@pytest.mark.parametrize(
    ("listen", "host", "name"),
    [
        ("0.0.0.0:9901", "127.0.0.1", "https://127.0.0.1:9901"),
        ("'[::]:9901'", "::1", "https://[::1]:9901"),
        ("10.0.0.7:9901", "10.0.0.7", "https://10.0.0.7:9901"),
    ],
)
def test_addresses_of_the_configuration(tmp_path: Path, listen: str, host: str, name: str) -> None:
    files = Certificates(tmp_path, "x.test")
    tls = f"tls: {{certificate: {files.certificate}, key: {files.key}}}, client_ca: {files.ca_file}"
    config = configured(tmp_path, f"admin: {{listen: {listen}, {tls}}}", SECRET)
    door = Reach(config=config, cert=files.client, key=files.client_key).client().door
    assert (door.host, door.port, door.name, door.token) == (host, 9901, name, "")
    assert door.only is not None
