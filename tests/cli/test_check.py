"""`ztproxy check`: what an operator reads, and how it ends."""

# ruff: noqa: E501  (a row quotes a whole message, as the operator sees it)

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from typer.testing import CliRunner, Result

from ztproxy.cli import main

GOOD = """\
listen: 127.0.0.1:8443
provider: {issuer: https://idp.test, client_id: z}
routes:
  - from: https://app.test
    to: [http://10.0.0.1:1, http://10.0.0.2:1]
    sensitivity: internal
    policy:
      - allow: {domain: [example.com, example.org], method: GET}
      - allow: {any_of: [{email: a@example.com}, {user: u1}], none_of: [{claim/a.b: [x, 7]}]}
      - allow: {acr: mfa, path: {is: /x, prefix: /y}, time: {zone: UTC, days: [sat, sun], after: "22:00", until: 2030-01-01}}
      - deny: {group: suspended}
  - from: https://app.test
    path: /old
    redirect: https://app.test/new
    allow_any_authenticated_user: true
  - from: https://app.test
    prefix: /up
    response: {body: up}
    policy: {allow: {source_network: 10.0.0.0/8, time: {zone: UTC, before: "06:00", from: 2026-01-01}}}
"""


def check(folder: Path, text: str, *options: str) -> Result:
    file = folder / "z.yaml"
    file.write_text(text)
    return CliRunner().invoke(main, ["check", str(file), *options])


def test_a_good_one_is_said_in_plain_words(tmp_path: Path) -> None:
    result = check(tmp_path, GOOD)
    assert result.exit_code == 0
    assert result.stdout.replace(str(tmp_path), "F").splitlines() == [
        "listens on   127.0.0.1:8443 (without TLS)",
        "signs in at  https://idp.test (client z)",
        "keeps state  embedded, in /var/lib/ztproxy",
        "",
        "https://app.test -> http://10.0.0.1:1, http://10.0.0.2:1",
        "  deny  group suspended",
        "  allow e-mail at example.com or example.org and method GET",
        "  allow (e-mail a@example.com or user u1) and not (claim a.b x or 7)",
        "  allow (path /x or path beneath /y) and a sign-in of rank 2 or more and on Saturday or Sunday from 22:00 to "
        "midnight until 2030-01-01 (UTC)",
        "  needs a sign-in of rank 2 or more (internal)",
        "",
        "https://app.test/old -> redirect 302 to https://app.test/new",
        "  allow everyone who is signed in",
        "",
        "https://app.test/up/* -> a fixed answer 200",
        "  allow from midnight to 06:00 since 2026-01-01 (UTC) and from 10.0.0.0/8",
        "",
        "F/z.yaml: good, 1 warning",
    ]
    assert result.stderr.startswith(
        f"warning: {tmp_path}/z.yaml:19: routes[2].policy.allow: this allows by network"
    )


def test_a_bad_one_is_refused_with_every_mistake(tmp_path: Path) -> None:
    result = check(tmp_path, GOOD.replace("provider:", "provder:").replace("none_of", "non_of"))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.replace(str(tmp_path), "F").splitlines() == [
        "F/z.yaml:2: provder: unknown key `provder`, did you mean `provider`?",
        "F/z.yaml:9: routes[0].policy[1].allow.non_of: unknown condition `non_of`, did you mean `none_of`?",
    ]


def test_the_files_it_names_are_looked_for_unless_told_not_to(tmp_path: Path) -> None:
    text = GOOD + "tls: {certificate: c.pem, key: k.pem}\nauth_host: https://auth.test\nstate: redis://h\n"
    assert check(tmp_path, text).exit_code == 1
    result = check(tmp_path, text, "--no-files")
    assert result.exit_code == 0
    assert "listens on   127.0.0.1:8443 (TLS 1.2 or newer)" in result.stdout
    assert "people meet  https://auth.test to sign in" in result.stdout
    assert "keeps state  by URL" in result.stdout


def test_a_listener_that_redirects_is_said(tmp_path: Path) -> None:
    listen = "listen: [127.0.0.1:8443, {address: 127.0.0.1:80, redirect_to_https: true}]"
    result = check(tmp_path, GOOD.replace("listen: 127.0.0.1:8443", listen))
    assert "listens on   127.0.0.1:80 (redirects to https)" in result.stdout


def test_no_file_is_a_mistake_and_no_traceback(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["check", str(tmp_path / "none.yaml")])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith(
        "none.yaml: cannot be read: no such file or directory, `ztproxy init` writes a first one\n"
    )


def test_the_schema_is_printed_as_it_is_shipped() -> None:
    shipped = Path(__file__).parents[2] / "config" / "schema.json"
    assert CliRunner().invoke(main, ["schema"]).stdout == shipped.read_text()


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(main, ["--version"]).stdout.startswith("ztproxy ")


@pytest.mark.parametrize("module", ["aiohttp", "uvloop", "redis", "authlib"])
def test_a_small_command_loads_no_server(module: str) -> None:
    code = f"import sys, ztproxy.cli; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param({}, None, id="good"),
        pytest.param({"ca_file": "k.pem"}, "k.pem` holds no certificate", id="a-key-for-an-authority"),
        pytest.param({"crl_file": "c.pem"}, "c.pem` holds no whole revocation list", id="no-list"),
        pytest.param({"ca_key": "k.pem"}, "k.pem` is not the key of", id="keys-mixed-up"),
        pytest.param({"ca_certificate": "c.pem"}, "is not an authority's certificate", id="a-server's"),
        pytest.param({"trust_domain": "-x"}, "`-x` is not a trust domain", id="a-hyphen-first"),
    ],
)
def test_what_no_worker_could_read_is_told(tmp_path: Path, files: dict[str, str], said: str | None) -> None:
    """Each worker would end over it, and be started again for ever."""
    authority = trustme.CA()
    leaf = authority.issue_cert("app.test")
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "c.pem"))
    leaf.private_key_pem.write_to_path(str(tmp_path / "k.pem"))
    (tmp_path / "k.pem").chmod(0o600)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert CliRunner().invoke(main, ["ca", "init", "--directory", str(tmp_path / "own")]).exit_code == 0
    named = {
        "ca_file": "ca.pem",
        "ca_certificate": "own/device-ca.pem",
        "ca_key": "own/device-ca.key",
    } | files
    corp = ", ".join(f"{key}: {named[key]}" for key in ("ca_file", "crl_file") if key in named)
    own = ", ".join(
        f"{key}: {named[key]}" for key in ("ca_certificate", "ca_key", "trust_domain") if key in named
    )
    text = GOOD.replace(
        "listen: 127.0.0.1:8443",
        "listen: {address: 127.0.0.1:8443, client_certificates: true}\n"
        "tls: {certificate: c.pem, key: k.pem}\n"
        f"devices: {{authorities: {{name: corp, {corp}}}, enrolment: {{{own}, may: {{group: a}}}}}}",
    )
    result = check(tmp_path, text)
    assert (result.exit_code, said is None or said in result.stderr) == (0 if said is None else 1, True)
    assert check(tmp_path, text, "--no-files").exit_code == 0
