"""`ztproxy device`: the real command against real pages over real TLS; only the browser is ours."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import urllib.request
import webbrowser
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner, Result

from tests.core.words import site
from tests.stories.browsing import CHROMIUM, browser, complaints
from tests.worlds.enrolling import DAY, Enrolling, enrolling
from tests.worlds.front import SIGNED_IN
from ztproxy.adapters.device_ca import DeviceCA, make
from ztproxy.cli import main
from ztproxy.cli.device import _until_due as until_due
from ztproxy.cli.device_files import DeviceFiles, Server, is_due
from ztproxy.core.device import Status
from ztproxy.gateway.enrolment import ENROLLED_EVERY, ISSUED_EVERY

PASSWORD = "correct horse battery"
opened: Queue[str] = Queue()


class Opening(webbrowser.BaseBrowser):
    """A browser, as the standard library knows them: whoever sits before it gets the address."""

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
        opened.put(url)
        return True


webbrowser.register("ztproxy-test", None, Opening("ztproxy-test"), preferred=True)


@dataclass
class Installation:
    enrolling: Enrolling
    url: str
    ca: Path
    folder: Path
    loses: bool = False  # whether answers get lost on their way

    def run(self, *words: str, typed: str = "") -> Future[Result]:
        """The command, in a thread beside the server."""
        place = ["--directory", str(self.folder / "device")]
        done: Future[Result] = Future()

        def runs() -> None:
            try:
                done.set_result(CliRunner().invoke(main, ["device", *words, *place], input=typed))
            except BaseException as error:
                done.set_exception(error)

        threading.Thread(target=runs, daemon=True).start()
        return done

    async def ask(self, *words: str, typed: str = "") -> Result:
        return await asyncio.wait_for(asyncio.wrap_future(self.run(*words, typed=typed)), 60)

    async def enroll(self, *groups: str, words: tuple[str, ...] = (), typed: str = "") -> Result:
        running = self.run(
            "enroll", self.url, "--ca-file", str(self.ca), "--name", "My laptop", *words, typed=typed
        )
        await self.confirm(await asyncio.to_thread(opened.get, True, 30), *groups)
        return await asyncio.wait_for(asyncio.wrap_future(running), 60)

    async def confirm(self, url: str, *groups: str) -> int:
        """What the person does, and then their browser."""
        alice = self.enrolling.browser("alice", *groups)
        page = await alice.open(url)
        assert page.status == 200, page.text
        form = dict(parse_qsl(urlsplit(url).query))
        sent = await self.enrolling.post(alice, "enroll", form)
        return await asyncio.to_thread(_visit, sent.location)

    @property
    def files(self) -> DeviceFiles:
        return DeviceFiles(self.folder / "device")


def openssl(*words: str | Path) -> tuple[int, str]:
    done = subprocess.run(["openssl", *words], capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout


def _visit(url: str) -> int:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return int(answer.status)


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Installation]:
    """The front behind TLS at `localhost`."""
    while not opened.empty():
        opened.get()
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    ca = tmp_path / "server-ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    built: list[Installation] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, ssl.SSLError):
            far = await asyncio.open_connection("127.0.0.1", built[0].enrolling.front.port)
            if built[0].loses:
                sending = asyncio.ensure_future(_pump(reader, far[1]))
                await far[0].read()  # the answer came this far
                sending.cancel()
            else:
                await asyncio.gather(_pump(reader, far[1]), _pump(far[0], writer))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    url = f"https://localhost:{port}"
    route = site(SIGNED_IN, host="localhost", port=port)
    async with enrolling(route, host=url, now=time.time()) as world:
        built.append(Installation(world, url, ca, tmp_path))
        yield built[0]
    server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    with suppress(OSError, NotImplementedError):
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()


# -- enroll -----------------------------------------------------------------------------------------------


async def test_a_device_is_enrolled(it: Installation) -> None:
    running = it.run("enroll", it.url, "--ca-file", str(it.ca), "--name", "My laptop")
    url = await asyncio.to_thread(opened.get, True, 30)
    alice = it.enrolling.browser("alice", "it")
    page = await alice.open(url)
    assert await it.confirm(url, "it") == 200
    result = await asyncio.wrap_future(running)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    code = result.stdout.partition("this code: ")[2].partition("\n")[0]
    assert len(code) == 9 and code in page.text and url in result.stdout
    (device,) = it.enrolling.devices.devices.values()
    assert f"enrolled as {device.id}" in result.stdout and device.name == "My laptop"
    assert {
        file.name: stat.S_IMODE(file.stat().st_mode) for file in it.files.directory.iterdir()
    } == dict.fromkeys(("device.key", "device.pem", "chain.pem", "device.json"), 0o600)
    assert stat.S_IMODE(it.files.directory.stat().st_mode) == 0o700
    assert "PRIVATE" not in result.output
    files = it.files
    words = ("-x509_strict", "-purpose", "sslclient", "-CAfile", files.chain)
    assert openssl("verify", *words, files.certificate)[1].endswith("device.pem: OK\n")
    key = openssl("pkey", "-in", files.key, "-pubout")
    assert key == openssl("x509", "-in", files.certificate, "-noout", "-pubkey") != (0, "")
    result = await it.ask("status")
    assert result.exit_code == 0 and device.id in result.stdout and it.url in result.stdout


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
async def test_in_a_real_browser(it: Installation) -> None:
    """What only a browser can say: that it sends this form as ours, and takes the ticket to loopback."""
    alice = it.enrolling.browser("alice", "it")
    running = it.run("enroll", it.url, "--ca-file", str(it.ca), "--name", "My laptop")
    url = await asyncio.to_thread(opened.get, True, 30)
    await alice.open(url)
    jar = [
        {"name": name, "value": value, "url": it.url, "secure": True}
        for name, value in alice.cookies("localhost").items()
    ]
    async with browser() as chromium:
        context = await chromium.new_context(ignore_https_errors=True)
        await context.add_cookies(jar)  # type: ignore[arg-type]
        page = await context.new_page()
        told: list[str] = []
        page.on("console", lambda message: told.append(message.text))
        for address in (f"{it.url}/.ztproxy/devices", f"{it.url}/.ztproxy/devices/pkcs12", url):
            await page.goto(address)
            assert await complaints(page) == []
        await page.get_by_role("button", name="The code is the same").click()
        await page.wait_for_url("http://127.0.0.1:*/**")
        assert "This device was vouched for" in await page.inner_text("body")
        result = await asyncio.wait_for(asyncio.wrap_future(running), 60)
        assert result.exit_code == 0, result.stderr
        await page.goto(f"{it.url}/.ztproxy/devices")
        assert "My laptop" in await page.inner_text("main")
        await page.goto(f"{it.url}/.ztproxy/devices/pkcs12")
        it.enrolling.front.later(ENROLLED_EVERY)
        await page.get_by_label("What you call the device").fill("Phone")
        await page.get_by_label("A password").fill(PASSWORD)
        await page.get_by_label("The password again").fill(PASSWORD)
        async with page.expect_download() as coming:
            await page.get_by_role("button", name="Get the file").click()
        file = await coming.value
        assert file.suggested_filename in {f"{id}.p12" for id in it.enrolling.devices.devices}
        file_at = await file.path()
        returned, shown = openssl("pkcs12", "-in", file_at, "-passin", f"pass:{PASSWORD}", "-nodes")
        assert returned == 0 and "PRIVATE KEY" in shown
        assert not [text for text in told if "Content Security Policy" in text]


async def test_with_a_file_for_browsers(it: Installation) -> None:
    result = await it.enroll("it", words=("--p12",), typed=f"{PASSWORD}\n{PASSWORD}\n")
    assert result.exit_code == 0 and PASSWORD not in result.output
    assert stat.S_IMODE(it.files.p12.stat().st_mode) == 0o600
    for password, status in ((PASSWORD, 0), ("another password", 1)):
        words = ("-in", it.files.p12, "-passin", f"pass:{password}", "-nodes")
        returned, shown = openssl("pkcs12", *words)
        assert returned == status and shown.count("BEGIN CERTIFICATE") == (2 if status == 0 else 0)
    assert "Your Certificates" in result.stdout and "curl --cert" in result.stdout


async def test_a_short_password_is_told_before_anything_is_made(it: Installation) -> None:
    result = await it.ask("enroll", it.url, "--p12", typed="short\nshort\n")
    assert result.exit_code == 1 and "too short" in result.stderr and not it.files.directory.exists()


async def test_one_that_waits_is_renewed_into_its_certificate(it: Installation) -> None:
    result = await it.enroll()
    assert result.exit_code == 0 and "somebody has to approve it" in result.stdout
    assert not it.files.certificate.exists()
    assert (await it.ask("status")).exit_code == 1
    result = await it.ask("renew")
    assert result.exit_code == 1 and "waits for approval" in result.stdout
    (device,) = it.enrolling.devices.devices.values()
    await it.enrolling.devices.put(replace(device, status=Status.APPROVED))
    result = await it.ask("renew")
    assert result.exit_code == 0 and "renewed, until" in result.stdout
    assert (await it.ask("status")).exit_code == 0


async def test_a_second_device_in_one_place(it: Installation) -> None:
    await it.enroll("it")
    before = {file.name: file.read_bytes() for file in it.files.directory.iterdir()}
    result = await it.ask("enroll", it.url, "--ca-file", str(it.ca))
    assert result.exit_code == 1 and "holds an enrolled device already" in result.stderr
    assert {file.name: file.read_bytes() for file in it.files.directory.iterdir()} == before


async def test_a_refusal_leaves_nothing_behind(it: Installation) -> None:
    running = it.run("enroll", it.url, "--ca-file", str(it.ca))
    form = dict(parse_qsl(urlsplit(await asyncio.to_thread(opened.get, True, 30)).query))
    answer = f"http://127.0.0.1:{form['port']}/?ticket={'t' * 43}&state={form['state']}"
    await asyncio.to_thread(_visit, answer)
    result = await asyncio.wrap_future(running)
    assert result.exit_code == 1 and "refuses: This enrolment was used already" in result.stderr
    assert not list(it.files.directory.iterdir()) and not it.enrolling.devices.devices


async def test_nobody_confirms(it: Installation) -> None:
    result = await it.ask("enroll", it.url, "--ca-file", str(it.ca), "--no-browser", "--wait", "0")
    assert result.exit_code == 1 and "nobody confirmed in time" in result.stderr
    assert "/.ztproxy/devices/enroll?" in result.stdout and opened.empty()
    assert not list(it.files.directory.iterdir())


async def test_an_answer_that_is_lost_on_its_way_is_asked_for_again(it: Installation) -> None:
    it.loses = True
    result = await it.enroll("it")
    assert result.exit_code == 1 and "closed before the answer was whole" in result.stderr
    (device,) = it.enrolling.devices.devices.values()
    assert it.files.record.exists() and not it.files.certificate.exists()
    it.loses = False
    it.enrolling.front.later(ISSUED_EVERY)
    result = await it.ask("renew")
    assert result.exit_code == 0 and device.id in (await it.ask("status")).stdout


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://app.test", "has no TLS"),
        ("http://localhost.evil.test", "has no TLS"),
        ("http://127.0.0.1.evil.test", "has no TLS"),
        ("localhost", "URL:"),
        ("https://localhost/path", "URL:"),
        ("https://user@localhost", "URL:"),
    ],
)
def test_where_nobody_enrols(tmp_path: Path, url: str, said: str) -> None:
    folder = tmp_path / "device"
    result = CliRunner().invoke(main, ["device", "enroll", url, "--directory", str(folder)])
    assert result.exit_code == 1 and said in result.stderr and not folder.exists()


async def test_a_server_one_does_not_trust_gets_no_request(it: Installation) -> None:
    await it.enroll("it")
    before = len(it.enrolling.front.exchanges)
    told = json.loads(it.files.record.read_text())
    it.files.record.write_text(json.dumps({**told, "ca_file": None}))
    result = await it.ask("renew", "--now")
    assert result.exit_code == 1 and "is not to be trusted" in result.stderr
    it.files.record.write_text(json.dumps({**told, "ca_file": str(it.folder / "none.pem")}))
    result = await it.ask("renew", "--now")
    assert result.exit_code == 1 and "none.pem` cannot be read" in result.stderr
    assert len(it.enrolling.front.exchanges) == before


# -- renew ------------------------------------------------------------------------------------------------


async def test_renewal_when_it_is_due(it: Installation) -> None:
    await it.enroll("it")
    first = it.files.certificate.read_bytes()
    result = await it.ask("renew")
    assert result.exit_code == 0 and "is good until" in result.stdout
    assert it.files.certificate.read_bytes() == first
    result = await it.ask("renew", "--now")
    assert result.exit_code == 1 and "within the last minute" in result.stderr
    it.enrolling.front.later(ISSUED_EVERY)
    result = await it.ask("renew", "--now", "--p12", typed=f"{PASSWORD}\n{PASSWORD}\n")
    assert result.exit_code == 0 and it.files.certificate.read_bytes() != first
    assert it.files.p12.exists() and "firefox " in result.stdout


@pytest.mark.parametrize(
    ("status", "said"), [(Status.LOST, "reported lost"), (Status.RETIRED, "taken out of use")]
)
async def test_a_refused_renewal_keeps_what_there_is(it: Installation, status: Status, said: str) -> None:
    await it.enroll("it")
    (device,) = it.enrolling.devices.devices.values()
    await it.enrolling.devices.put(replace(device, status=status))
    before = {file.name: file.read_bytes() for file in it.files.directory.iterdir()}
    for words in (("--now",), ("--now", "--p12")):
        result = await it.ask("renew", *words, typed=f"{PASSWORD}\n{PASSWORD}\n")
        assert result.exit_code == 1 and said in result.stderr
    assert {file.name: file.read_bytes() for file in it.files.directory.iterdir()} == before


async def test_watching_goes_on_until_told_and_ends_at_a_refusal(it: Installation) -> None:
    await it.enroll("it")
    words = [sys.executable, "-m", "ztproxy.cli", "device", "renew", "--watch", "--directory"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    watching = await asyncio.create_subprocess_exec(
        *words, str(it.files.directory), stdout=subprocess.PIPE, env=environment
    )
    assert watching.stdout is not None
    line = await asyncio.wait_for(watching.stdout.readline(), 30)
    assert b"is good until" in line
    watching.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(watching.wait(), 30) == 0
    (device,) = it.enrolling.devices.devices.values()
    await it.enrolling.devices.put(replace(device, status=Status.LOST))
    watching = await asyncio.create_subprocess_exec(
        *words, str(it.files.directory), "--now", stderr=subprocess.PIPE, env=environment
    )
    _, said = await asyncio.wait_for(watching.communicate(), 30)
    assert watching.returncode == 1 and b"reported lost" in said


async def test_watching_waits_for_a_server_that_is_away(it: Installation) -> None:
    await it.enroll("it")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        told = json.loads(it.files.record.read_text())
        told["origin"] = f"https://localhost:{nobody.getsockname()[1]}"
        it.files.record.write_text(json.dumps(told))
        watching = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ztproxy.cli", "device", "renew", "--watch", "--now", "--directory",
            str(it.files.directory), stderr=subprocess.PIPE,
        )  # fmt: skip
        assert watching.stderr is not None
        assert b"cannot be reached" in await asyncio.wait_for(watching.stderr.readline(), 30)
        assert watching.returncode is None
        watching.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(watching.wait(), 30) == 0


async def test_a_watch_asks_for_no_password(it: Installation) -> None:
    result = await it.ask("renew", "--watch", "--p12")
    assert result.exit_code == 2 and "cannot ask for a password" in result.stderr


# -- files ------------------------------------------------------------------------------------------------


def spoil(files: DeviceFiles, how: str) -> None:
    match how:
        case "no record":
            files.record.unlink()
        case "record":
            files.record.write_text("{}")
        case "no key":
            files.key.unlink()
        case "key":
            files.key.write_text("hello")
        case "another kind of key":
            rsa = trustme.CA(key_type=trustme.KeyType.RSA)
            files.key.write_bytes(rsa.private_key_pem.bytes())
        case _:
            files.certificate.write_text("hello")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no record", "there is no enrolled device"),
        ("no key", "there is no enrolled device"),
        ("record", "are damaged, enrol anew"),
        ("key", "are damaged, enrol anew"),
        ("another kind of key", "are damaged, enrol anew"),
        ("certificate", "device.pem` is damaged, run `ztproxy device renew --now`"),
    ],
)
async def test_damaged_files(it: Installation, how: str, said: str) -> None:
    await it.enroll("it")
    spoil(it.files, how)
    for command in ("status", "renew"):
        result = await it.ask(command)
        assert result.exit_code == 1 and said in result.stderr
    if how == "certificate":
        it.enrolling.front.later(ISSUED_EVERY)
        assert (await it.ask("renew", "--now")).exit_code == 0
        assert (await it.ask("status")).exit_code == 0


async def test_status_tells_what_is_due_and_what_has_expired(it: Installation) -> None:
    await it.enroll("it")
    now = it.enrolling.front.clock.now
    for back, status, said in ((5 * DAY, 0, "it is due"), (8 * DAY, 1, "has expired")):
        it.enrolling.front.clock.now = now - back
        issued = it.enrolling.authority.issue(
            it.enrolling.authority.read_csr(_csr_of(it.files)), "d-1", now - back
        )
        it.files.certificate.write_text(issued.pem)
        result = await it.ask("status")
        assert (result.exit_code, said in result.stdout) == (status, True)


def _csr_of(files: DeviceFiles) -> bytes:
    from ztproxy.adapters.device_ca import request_for

    return request_for(files.load()[2]).encode()


@pytest.mark.parametrize(
    ("part", "due"), [(0.0, False), (0.66, False), (0.67, True), (1.0, True), (2.0, True)]
)
def test_when_it_is_due(tmp_path: Path, part: float, due: bool) -> None:
    authority = DeviceCA.load(*make(tmp_path, "corp.test", 1), "corp.test", DAY)
    issued = authority.issue(authority.make_key().proven, "d-1", time.time())
    leaf = x509.load_der_x509_certificate(issued.der)
    began, ends = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    assert is_due(leaf, began + (ends - began) * part) is due


def test_a_certificate_for_another_key_is_not_kept(tmp_path: Path) -> None:
    files, server = DeviceFiles(tmp_path / "d"), Server("https://app.test", None)
    private = files.begin(server)
    theirs = trustme.CA().issue_cert("other.test").cert_chain_pems[0].bytes().decode()
    for text in (theirs, "hello"):
        with pytest.raises(Exception, match="not for this key"):
            files.keep(server, {"device": "d-1", "certificate": text, "chain": "x"}, private)
    assert not files.certificate.exists() and isinstance(private, ec.EllipticCurvePrivateKey)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Exception, match="cannot be made"):
        DeviceFiles(tmp_path / "file" / "d").begin(Server("https://app.test", None))


async def test_no_room_for_the_file_of_browsers(it: Installation) -> None:
    await it.enroll("it")
    it.files.p12.mkdir()
    it.enrolling.front.later(ISSUED_EVERY)
    result = await it.ask("renew", "--now", "--p12", typed=f"{PASSWORD}\n{PASSWORD}\n")
    assert result.exit_code == 1 and "device.p12` cannot be written" in result.stderr
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(("ahead", "hours"), [(0.0, 1), (6.5, 1), (30.0, 1)])
def test_a_clock_that_is_ahead_asks_for_no_certificate_a_minute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ahead: float, hours: int
) -> None:
    folder, now = tmp_path / "ca", time.time() - ahead * DAY
    authority = DeviceCA.load(*make(folder, "corp.test", 1, now), "corp.test", 7 * DAY, now)
    files = DeviceFiles(tmp_path)
    files.certificate.write_text(authority.issue(authority.make_key().proven, "d-1", now).pem)
    assert until_due(files) == hours * 3600
    assert ("is that right?" in capsys.readouterr().err) is (ahead > 0)


# -- servers that are none --------------------------------------------------------------------------------


@pytest.fixture
async def says(tmp_path: Path) -> AsyncIterator[Callable[..., Server]]:
    """A TLS server that gives one fixed answer."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    answers: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers[0])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]

    def saying(status: int, body: Any, *fields: str) -> Server:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = "\r\n".join([f"HTTP/1.1 {status} x", f"Content-Length: {len(raw)}", *fields])
        answers[:] = [f"{head}\r\n\r\n".encode() + raw]
        return Server(f"https://localhost:{port}", str(tmp_path / "ca.pem"))

    yield saying
    server.close()


@pytest.mark.parametrize(
    ("status", "body", "fields", "said", "wait"),
    [
        pytest.param(404, {"detail": "x"}, (), "enrols no devices", 0, id="no enrolment"),
        pytest.param(200, b"<html>", (), "enrols no devices", 0, id="another site"),
        pytest.param(200, [], (), "enrols no devices", 0, id="a list"),
        pytest.param(200, {"device": "d"}, (), "refuses: 200", 0, id="half an answer"),
        pytest.param(202, {}, (), "refuses: 202", 0, id="nobody waits"),
        pytest.param(302, {}, ("Location: https://evil.test",), "refuses: 302", 0, id="elsewhere"),
        pytest.param(403, {"detail": "a\x1b[2Jb"}, (), "refuses: a\\u001b[2Jb", 0, id="control characters"),
        pytest.param(429, {"detail": "x"}, ("Retry-After: 60",), "refuses: x", 60, id="later"),
        pytest.param(503, {"detail": "x"}, (), "refuses: x", 30, id="away"),
        pytest.param(502, b"<html>", (), "refuses: 502", 30, id="a page of the load balancer in front"),
        pytest.param(429, b"<html>", ("Retry-After: 9",), "refuses: 429", 9, id="its patience"),
    ],
)
async def test_what_servers_say(
    says: Callable[..., Server], status: int, body: Any, fields: tuple[str, ...], said: str, wait: float
) -> None:
    server = says(status, body, *fields)
    with pytest.raises(Exception) as caught:
        await asyncio.to_thread(server.post, "renew", {"csr": "x"})
    assert said in str(caught.value) and getattr(caught.value, "wait", None) == wait
    assert "\x1b" not in str(caught.value) and ENROLLED_EVERY > 0


@pytest.mark.parametrize("host", ["localhost", "login.localhost", "127.0.0.1"])
async def test_on_this_machine_tls_is_not_asked_for(tmp_path: Path, host: str) -> None:
    """The demo has no TLS where people sign in; names below `localhost` need no resolver (RFC 6761 6.3)."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b'HTTP/1.1 202 x\r\nContent-Length: 16\r\n\r\n{"device":"d-1"}')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    origin = f"http://{host}:{server.sockets[0].getsockname()[1]}"
    answer = await asyncio.to_thread(Server(origin, None).post, "renew", {"csr": "x"})
    server.close()
    assert answer == {"device": "d-1"} and f"Host: {origin[7:]}\r\n".encode() in asked[0]
    words = ["device", "enroll", origin, "--directory", str(tmp_path / "d"), "--no-browser", "--wait", "0"]
    result = await asyncio.to_thread(CliRunner().invoke, main, words)
    assert f"{origin}/.ztproxy/devices/enroll?" in result.stdout and "nobody confirmed" in result.stderr
