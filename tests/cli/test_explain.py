"""`ztproxy explain`: the decision in words, and questions that cannot be understood."""

# ruff: noqa: E501  (a row quotes a whole message, as the operator sees it)

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ztproxy.cli import main

TEXT = """\
listen: 127.0.0.1:8443
provider: {issuer: https://idp.test, client_id: z, client_secret_file: not-there}
routes:
  - from: https://app.test
    to: http://127.0.0.1:1
    sensitivity: {signed_in_within: 10m}
    policy:
      - {name: staff, allow: {group: staff}}
      - allow: {group: admins, acr_rank: 3}
"""
APP = ("--url", "https://app.test/x?y=1#z")
ALICE = ("--user", "alice@example.com")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "z.yaml"
    file.write_text(TEXT)
    return file


def explain(config: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["explain", "--config", str(config), *options])


ROUTE = "route app.test: https://app.test -> http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("options", "status", "lines"),
    [
        pytest.param(
            (*APP, *ALICE, "--group", "staff"),
            0,
            [
                "FORWARD: rule_allowed",
                "  A rule allows this.",
                "",
                ROUTE,
                "  holds         allow group staff (staff)",
                "  fails         allow group admins and a sign-in of rank 3 or more (rule 2): group_missing",
            ],
            id="forward",
        ),
        pytest.param(
            APP,
            1,
            [
                "LOGIN: login_required",
                "  Please sign in.",
                "",
                ROUTE,
                "  needs login   allow group staff (staff): login_required",
                "  needs login   allow group admins and a sign-in of rank 3 or more (rule 2): login_required",
            ],
            id="login",
        ),
        pytest.param(
            (*APP, *ALICE, "--group", "admins", "--age", "601"),
            1,
            [
                "STEP UP: step_up_required",
                "  This needs a stronger sign-in.",
                "  asked for: rank 3 and a sign-in within 600 s",
                "",
                ROUTE,
                "  fails         allow group staff (staff): group_missing",
                "  needs step up allow group admins and a sign-in of rank 3 or more (rule 2): step_up_required",
            ],
            id="step-up",
        ),
        pytest.param(
            (*APP, *ALICE, "--group", "staff", "--age", "601"),
            1,
            [
                "STEP UP: step_up_required",
                "  This needs a stronger sign-in.",
                "  asked for: a sign-in within 600 s",
                "",
                ROUTE,
                "  holds         allow group staff (staff)",
                "  fails         allow group admins and a sign-in of rank 3 or more (rule 2): group_missing",
            ],
            id="sign-in-again",
        ),
        pytest.param(
            ("--url", "https://other.test"),
            1,
            ["DENY: no_such_host", "  There is no site of this name here."],
            id="unknown-host",
        ),
    ],
)
def test_a_decision_is_said_in_words(
    config: Path, options: tuple[str, ...], status: int, lines: list[str]
) -> None:
    result = explain(config, *options)
    assert result.stdout.splitlines() == lines
    assert (result.exit_code, result.stderr) == (status, "")


DEVICES = """\
listen: {address: 127.0.0.1:8443, client_certificates: true}
tls: {certificate: c.pem, key: k.pem}
provider: {issuer: https://idp.test, client_id: z, client_secret_file: not-there}
devices:
  authorities: [{name: corp, ca_file: ca.pem}, {name: lab, ca_file: lab.pem}]
  facts: {antivirus: text}
routes:
  - from: https://app.test
    to: http://127.0.0.1:1
    policy:
      - allow:
          email: alice@example.com
          device: {certificate: {authority: corp}, approved: true, owned: true, platform: macos, posture: {disk_encrypted: true, antivirus: "on"}, within: 1h}
  - from: https://lab.test
    to: http://127.0.0.1:1
    policy:
      - allow: {email: alice@example.com, device: {certificate: {authority: lab, san_dns: bench.test}}}
"""
GOOD = (
    "--device",
    "approved",
    "--device-owner",
    "me",
    "--platform",
    "macOS",
    "--posture",
    "disk_encrypted=true",
    "--posture",
    "antivirus=on",
)


@pytest.fixture
def with_devices(tmp_path: Path) -> Path:
    file = tmp_path / "z.yaml"
    file.write_text(DEVICES)
    return file


@pytest.mark.parametrize(
    ("options", "head"),
    [
        pytest.param((*ALICE, *GOOD), "FORWARD: rule_allowed", id="all is well"),
        pytest.param(ALICE, "DENY: device_certificate_required", id="no word of a device"),
        pytest.param((*ALICE, "--device", "none"), "DENY: device_certificate_required", id="none"),
        pytest.param((*ALICE, "--device", "unknown"), "DENY: device_unknown", id="unknown"),
        pytest.param((*ALICE, *GOOD, "--device", "pending"), "DENY: device_not_approved", id="pending"),
        pytest.param((*ALICE, *GOOD, "--device", "lost"), "DENY: device_lost", id="lost"),
        pytest.param((*ALICE, *GOOD, "--device", "retired"), "DENY: device_retired", id="retired"),
        pytest.param((*ALICE, "--device", "approved", "--platform", "macos"), "DENY: device_owner", id="of nobody"),
        pytest.param((*ALICE, *GOOD, "--platform", "windows"), "DENY: device_platform", id="another platform"),
        pytest.param((*ALICE, *GOOD[:8]), "DENY: posture_unknown", id="a fact is not known"),
        pytest.param((*ALICE, *GOOD[:8], "--posture", "antivirus=off"), "DENY: posture_mismatch", id="a fact is not so"),
        pytest.param((*ALICE, *GOOD, "--posture-age", "3600"), "DENY: posture_stale", id="facts too old"),
        pytest.param((*ALICE, *GOOD, "--certificate", "authority=lab"), "DENY: device_certificate_mismatch", id="another authority"),
        pytest.param(("--user", "bob@example.com", *GOOD), "DENY: email_mismatch", id="somebody else"),
        pytest.param(GOOD, "LOGIN: login_required", id="nobody"),
        pytest.param(
            (*ALICE, "--url", "https://lab.test", "--device", "unknown", "--certificate", "authority=lab", "--certificate", "san_dns=BENCH.test"),
            "FORWARD: rule_allowed",
            id="a certificate and no device",
        ),
    ],
)  # fmt: skip
def test_a_device(with_devices: Path, options: tuple[str, ...], head: str) -> None:
    result = explain(with_devices, "--url", "https://app.test", *options)
    assert result.stdout.splitlines()[0] == head, result.output
    assert result.exit_code == (0 if head.startswith("FORWARD") else 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(("--platform", "macos"), "this is about a device, add `--device approved`", id="of no device"),
        pytest.param(("--certificate", "authority=corp"), "this is about a device, add `--device approved`", id="a certificate of none"),
        pytest.param(("--device", "stolen"), "`stolen` is no standing of a device, write one of `pending`, `approved`, `lost`, `retired`, `unknown`, `none`", id="standing"),
        pytest.param(("--device", "unknown", "--platform", "macos"), "nothing is on record of a device that is `unknown`, leave it out", id="a record of the unknown"),
        pytest.param(("--device", "none", "--certificate", "authority=corp"), "nothing is on record of a device that is `none`, leave it out", id="a certificate of nobody"),
        pytest.param(("--device", "approved", "--posture", "disk_encrypted"), "`disk_encrypted` is not a name and a value, write `--posture disk_encrypted=true`", id="no value"),
        pytest.param(("--device", "approved", "--posture", "a=1", "--posture", "a=2"), "`a` has one value, give it once", id="two values"),
        pytest.param(("--device", "approved", "--posture", "disk_encripted=true"), "`posture.disk_encripted` is unknown: did you mean `posture.disk_encrypted`?", id="a typo"),
        pytest.param(("--device", "approved", "--posture", "disk_encrypted=7"), "`posture.disk_encrypted` is neither true nor false: write `true` or `false`", id="another type"),
        pytest.param(("--device", "approved", "--certificate", "colour=red"), "a certificate has no `colour`, give one of `authority`, `fingerprint`, `key_pin`, `issuer`, `subject`, `spiffe`, `san_dns`, `san_email`, `san_uri`", id="no such entry"),
        pytest.param(("--device", "approved", "--certificate", "issuer=a", "--certificate", "issuer=b"), "a certificate has one `issuer`, give it once", id="two issuers"),
    ],
)  # fmt: skip
def test_a_device_that_cannot_be(with_devices: Path, options: tuple[str, ...], message: str) -> None:
    result = explain(with_devices, *APP, *ALICE, *options)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"{message}\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(("--url", "app.test"), "`app.test` is not a URL, write it like `https://app.example.com/path`", id="no-scheme"),
        pytest.param(("--url", "https://"), "`https://` is not a URL, write it like `https://app.example.com/path`", id="no-host"),
        pytest.param(("--url", "https://app.test:x/"), "`https://app.test:x/` has no port of this world, leave it out", id="port"),
        pytest.param(("--url", "https://app.test/.ztproxy/x"), "`/.ztproxy/` is ztproxy's own on every host, ask about another path", id="ours"),
        pytest.param((*APP, "--group", "staff"), "groups, claims and acr belong to somebody, add `--user alice@example.com`", id="groups-of-nobody"),
        pytest.param((*APP, "--at", "noon"), "`noon` is not a moment, write it like `2026-12-31T23:00+01:00`", id="moment"),
        pytest.param((*APP, "--at", "2026-01-01T12:00"), "`2026-01-01T12:00` says no zone, write `2026-01-01T12:00Z` or an offset like `+01:00`", id="no-zone"),
        pytest.param((*APP, "--ip", "office"), "`office` is not an IP address, write it like `10.1.2.3`", id="ip"),
        pytest.param((*APP, *ALICE, "--claim", "x"), "`x` is not a claim, write `--claim department=finance`", id="claim"),
        pytest.param((*APP, *ALICE, "--claim", "a=1", "--claim", "a.b=2"), "the claim `a.b` is below one that has a value, give one of them", id="claim-below"),
    ],
)  # fmt: skip
def test_a_question_that_cannot_be_understood(config: Path, options: tuple[str, ...], message: str) -> None:
    result = explain(config, *options)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"{message}\n")
