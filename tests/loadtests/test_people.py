"""`make load`, short: green where all is well, 1 where something is wrong on purpose; and who may be loaded.

Locust makes every socket of its process gevent's, so each run is a process of its own; they run at once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from loadtests.people.__main__ import main
from loadtests.people.target import refusal

ROOT = Path(__file__).parents[2]
RUNS = {
    "good": ["--seconds", "9", "--phases", "store_gone"],
    "revocation_not_sent": ["--seconds", "4", "--phases", "none", "--mistakes", "revocation_not_sent"],
    "longer_lease": ["--seconds", "6", "--phases", "store_gone", "--mistakes", "longer_lease"],
}


class Ran(NamedTuple):
    code: int
    said: str
    html: str
    data: dict[str, Any]

    @property
    def wrong(self) -> str:
        return "\n".join(error["wrong"] for error in self.data["errors"])


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    told = {name: value for name, value in os.environ.items() if not name.startswith("ZTPROXY_")}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=told | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    folder = tmp_path_factory.mktemp("load")

    def one(name: str) -> Ran:
        html, data = folder / "build" / f"{name}.html", folder / "build" / f"{name}.json"
        words = [*RUNS[name], "--users", "6", "--html", f"{html}", "--json", f"{data}"]
        done = command("loadtests.people", *words)
        assert data.exists(), done.stderr
        return Ran(
            done.returncode, done.stdout, html.read_text(encoding="utf-8"), json.loads(data.read_text())
        )

    with ThreadPoolExecutor(len(RUNS)) as pool:
        return dict(zip(RUNS, pool.map(one, RUNS), strict=True))


@pytest.mark.timeout(180)
def test_everybody_gets_what_was_promised(ran: dict[str, Ran]) -> None:
    good = ran["good"]
    assert good.wrong == ""
    assert (good.code, good.data["wrong"], good.data["not_well_again_after"]) == (0, 0, [])
    names = [phase["name"] for phase in good.data["phases"]]
    assert names == ["1 quiet", "2 store gone", "3 quiet again"]
    quiet, gone, again = (phase["came_to"] for phase in good.data["phases"])
    assert quiet["done"] and again["done"] and gone["busy"]
    assert "busy" not in quiet | again
    happened = good.data["scenarios"]
    assert all(happened[one] for one in ("signed in", "uploaded", "echoed", "stepped up")), happened
    assert happened["revoked, and refused everywhere after"], happened
    assert "store gone: " in good.html
    assert "all of it" in good.said


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("mistake", "found"),
    [
        pytest.param("revocation_not_sent", "after its revocation was confirmed", id="revocation_not_sent"),
        pytest.param("longer_lease", "when no worker can have had a lease", id="a_lease_longer_than_told"),
    ],
)
def test_a_mistake_is_found(ran: dict[str, Ran], mistake: str, found: str) -> None:
    bad = ran[mistake]
    assert bad.code == 1
    assert found in bad.wrong
    assert f"{bad.data['wrong']} wrong" in bad.said
    assert found in bad.html


@pytest.mark.parametrize(
    ("url", "own", "cookie", "why"),
    [
        pytest.param("http://192.0.2.1", False, "a=b", "is not this machine", id="somebody_elses"),
        pytest.param("https://192.0.2.1:8443", True, "a=b", "", id="ones_own"),
        pytest.param("http://127.0.0.1:1", False, "a=b", "", id="loopback"),
        pytest.param("http://[::1]:1", False, "a=b", "", id="loopback_6"),
        pytest.param("http://home.localhost:1", False, "a=b", "", id="localhost"),
        pytest.param("http://127.0.0.1@192.0.2.1/", False, "a=b", "is not this", id="looks_like_it"),
        pytest.param("", False, "a=b", "is not this machine", id="nothing"),
        pytest.param("http://localhost:1", False, "", "there is no session", id="nobody"),
    ],
)
def test_who_may_be_loaded(url: str, own: bool, cookie: str, why: str) -> None:
    found = refusal(url, own, cookie)
    assert why in found
    assert bool(found) == bool(why)


def test_a_foreign_target_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ZTPROXY_I_OWN_THIS_TARGET", raising=False)
    monkeypatch.setenv("ZTPROXY_COOKIE", "a=b")
    assert main(["--host", "http://192.0.2.1"]) == 2
    assert "is not this machine; if it is yours, say" in capsys.readouterr().err


def test_a_phase_that_is_none_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--phases", "tuesday"]) == 2
    assert "`tuesday` is no phase" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--host", "http://192.0.2.1"]], ids=["by_variable", "by_option"])
def test_the_locustfile_refuses_too(words: list[str]) -> None:
    host = {} if words else {"ZTPROXY_HOST": "http://192.0.2.1"}
    file = ["locust", "-f", "loadtests/locustfile.py", "--headless", *words]
    done = command(*file, ZTPROXY_COOKIE="a=b", **host)
    assert done.returncode != 0
    assert "`http://192.0.2.1` is not this machine" in done.stderr + done.stdout
