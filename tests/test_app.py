"""A whole worker: real configuration, real Valkey, real sockets; and what a reload may and may not do."""

from __future__ import annotations

import asyncio
import resource
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis.asyncio import Redis

from tests.core.words import ask
from tests.wire.recording import Line, Recording, answers
from tests.worlds.front import PAGE, until
from tests.worlds.lying_provider import lying_provider
from tests.worlds.running import port_of, running, settings
from ztproxy.adapters.keys import fresh_keys, rotate, write_private
from ztproxy.adapters.metrics import Metrics
from ztproxy.app import Worker
from ztproxy.errors import OperatorError
from ztproxy.gateway.watch import Watch
from ztproxy.recorder import Recorder
from ztproxy.wire.connections import Connections
from ztproxy.wire.pool import Pool

APP = "https://app.test"
XHR = {"Accept": "application/json"}
GET = b"GET /x HTTP/1.1\r\nHost: app.test\r\n\r\n"


def route(host: str, port: int, *more: str) -> str:
    keys = ", ".join((f"from: 'https://{host}.test'", f"to: 'http://127.0.0.1:{port}'", *more))
    return "\n  - {" + keys + "}"


OPEN = "allow_public_unauthenticated_access: true"
ANYONE = "allow_any_authenticated_user: true"


# -- a worker ---------------------------------------------------------------------------------------------


async def test_the_whole_way(tmp_path: Path, valkey_url: str, state_client: Redis) -> None:
    async with running(tmp_path, valkey_url) as it:
        alice = it.browser()
        page = await alice.open(f"{APP}/reports?q=1")
        assert (page.status, page.url) == (200, f"{APP}/reports?q=1")
        assert b"X-Ztproxy-Assertion: " in it.app.received and b"__Host-" not in it.app.received
        assert (await alice.ask(f"{APP}/.ztproxy/user", XHR)).json["sub"] == "alice"
        keys = (await alice.ask(f"{APP}/.well-known/ztproxy/jwks.json", XHR)).json["keys"]
        assert [key["kty"] for key in keys] == ["EC", "EC"] and not any("d" in key for key in keys)
        page = await alice.ask(
            f"{APP}/.ztproxy/sign_out", {**PAGE, "Sec-Fetch-Site": "same-origin"}, method="POST", body=b""
        )
        assert page.status == 200 and (await alice.ask(f"{APP}/x", XHR)).status == 401
        assert not [key async for key in state_client.scan_iter("{ztp}:s:*")]


async def test_readiness_is_the_states(tmp_path: Path, valkey_url: str, state_client: Redis) -> None:
    async with running(tmp_path, valkey_url) as it:
        assert it.worker.ready() == ""
    away = f"unix://{tmp_path}/nobody.sock"
    async with running(tmp_path, away) as it:
        assert it.worker.ready()
        forged = it.browser()
        assert (await forged.ask(f"{APP}/x", XHR)).status == 401  # nothing shown, nobody asked
        page = await forged.ask(f"{APP}/.ztproxy/sign_in")
        assert page.status == 503 and not page.set_cookies


async def test_what_the_connections_take_from_the_configuration(tmp_path: Path, valkey_url: str) -> None:
    """(FI37) And what of it a reload changes."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    read_only = "\n  - {from: 'https://app.test', to: 'http://127.0.0.1:1', methods: [PURGE], " + OPEN + "}"
    async with running(
        tmp_path, valkey_url, "limits: {connections: 1000000, connections_per_address: 3}"
    ) as it:
        connections = it.worker.connections
        assert connections.limits.connections == min(1000000, (descriptors - 128) // 2)
        assert connections.limits.connections_per_address == 3
        assert [str(one) for one in connections.exempt] == ["192.0.2.0/24"]
        brewed = await it.raw(b"BREW /x HTTP/1.1\r\nHost: app.test\r\n\r\n")
        assert (brewed.status, brewed["allow"]) == (405, "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")
        changed = it.settings("limits: {connections: 1000000, connections_per_address: 3}", routes=read_only)
        it.worker.reload(changed)
        brewed = await it.raw(b"BREW /x HTTP/1.1\r\nHost: app.test\r\n\r\n")
        assert brewed["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PURGE, PUT"
        it.worker.measure()
        metrics = it.recorder.metrics
        assert (metrics.overload_stage, metrics.connections_refused, metrics.connections_evicted) == (0, 0, 0)


async def test_a_mistake_in_a_page_of_ours_is_reported(tmp_path: Path, valkey_url: str) -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with running(tmp_path, valkey_url) as it:
        it.worker._builder._unexpected(RuntimeError("a mistake"))
    assert [context["message"] for context in reported] == ["a page of ours failed"]


# -- listeners --------------------------------------------------------------------------------------------


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def certificate(directory: Path, authority: trustme.CA, name: str = "app.test") -> trustme.LeafCert:
    leaf = authority.issue_cert(name)
    leaf.private_key_pem.write_to_path(str(directory / "key.pem"))
    leaf.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
    (directory / "key.pem").chmod(0o600)
    return leaf


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


TLS = "tls: {certificate: cert.pem, key: key.pem}"


async def test_tls_beside_a_listener_that_only_redirects(
    tmp_path: Path, valkey_url: str, state_client: Redis, authority: trustme.CA
) -> None:
    certificate(tmp_path, authority)
    plain = f"unix:{tmp_path}/s"
    listen = f'\n  - {{address: "127.0.0.1:0"}}\n  - {{address: "{plain}", redirect_to_https: true}}'
    more = (TLS, "hsts: {max_age: 1d}")
    async with running(tmp_path, valkey_url, *more, listen=listen, tls=trusting(authority)) as it:
        page = await it.browser().open(f"{APP}/x")
        assert page.status == 200 and page.field("strict-transport-security") == "max-age=86400"
        stranger = await it.browser().ask(f"{APP}/x")
        assert stranger.status == 302 and stranger.field("strict-transport-security") == "max-age=86400"
        assert it.worker.addresses[1] == plain
        reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/s")
        writer.write(b"GET /x?y=1 HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
        told = await reader.read()
        writer.close()
        assert told.startswith(b"HTTP/1.1 308 ") and b"\r\nLocation: https://app.test/x?y=1\r\n" in told
        assert b"Strict-Transport" not in told


async def _served(it: Any) -> bytes:
    client = await it.client()
    served = client.writer.get_extra_info("ssl_object").getpeercert(True)
    client.close()
    return bytes(served)


async def test_a_renewed_certificate_is_served_and_a_bad_one_is_not(
    tmp_path: Path, valkey_url: str, authority: trustme.CA
) -> None:
    certificate(tmp_path, authority)
    listen = '\n  - {address: "127.0.0.1:0", tls: true}'
    async with running(tmp_path, valkey_url, TLS, listen=listen, tls=trusting(authority)) as it:
        first = await _served(it)
        it.worker.reload_certificates()
        assert await _served(it) == first
        certificate(tmp_path, authority)
        it.worker.reload_certificates()
        second = await _served(it)
        assert second != first
        (tmp_path / "cert.pem").write_text("no certificate")
        with pytest.raises(OperatorError):
            it.worker.reload_certificates()
        assert await _served(it) == second
        assert list(it.recorder.metrics.certificates) == [str(tmp_path / "cert.pem")]


async def test_an_address_that_is_taken(tmp_path: Path, valkey_url: str) -> None:
    listen = f"unix:{tmp_path}/nowhere/socket"
    with pytest.raises(OperatorError):
        async with running(tmp_path, valkey_url, listen=listen):
            pass


async def test_a_proxy_in_front_says_who_the_client_is(tmp_path: Path, valkey_url: str) -> None:
    listen = '\n  - {address: "127.0.0.1:0", proxy_protocol: true}'
    async with running(tmp_path, valkey_url, listen=listen) as it:
        client = await it.client()
        await client.send(GET)
        assert await client.rest() == b""  # 127.0.0.1 is no trusted proxy, and said nothing
        changed = it.settings(listen=listen, provider="")
        object.__setattr__(changed, "trusted_proxies", ())
        before = it.worker._config
        with pytest.raises(OperatorError, match="PROXY protocol"):
            it.worker.reload(changed)
        assert it.worker._config is before


# -- reloading --------------------------------------------------------------------------------------------


async def test_a_reload_swaps_routes_on_connections_that_are_open(
    tmp_path: Path, valkey_url: str, state_client: Redis
) -> None:
    async with running(tmp_path, valkey_url) as it:
        client = await it.client()
        assert (await client.ask(GET)).status == 401
        purge = GET.replace(b"GET", b"PURGE")
        it.worker.reload(it.settings(routes=route("app", it.app.port, OPEN, "methods: [GET, PURGE]")))
        assert (await client.ask(GET)).status == 200
        assert (await client.ask(purge)).status == 200  # heads are read by the new configuration too
        it.worker.reload(it.settings())
        assert (await client.ask(GET)).status == 401
        client.close()


async def test_a_reload_keeps_people_signed_in_and_changes_what_they_may(
    tmp_path: Path, valkey_url: str, state_client: Redis
) -> None:
    async with running(tmp_path, valkey_url) as it:
        alice = it.browser()
        assert (await alice.open(f"{APP}/x")).status == 200
        it.worker.reload(it.settings(routes=route("app", it.app.port, "policy: [{allow: {group: admin}}]")))
        assert (await alice.ask(f"{APP}/x", XHR)).status == 403
        it.worker.reload(it.settings())
        assert (await alice.ask(f"{APP}/x", XHR)).status == 200


async def test_keys_are_rotated_by_a_reload(tmp_path: Path, valkey_url: str, state_client: Redis) -> None:
    async with running(tmp_path, valkey_url) as it:
        alice, keys = it.browser(), tmp_path / "keys.yaml"
        await alice.open(f"{APP}/x")
        write_private(keys, rotate(keys.read_text()), replace=True)
        it.worker.reload(it.settings())
        assert (await alice.ask(f"{APP}/x", XHR)).status == 200
        published = (await alice.ask(f"{APP}/.well-known/ztproxy/jwks.json", XHR)).json["keys"]
        assert len(published) == 3
        write_private(keys, fresh_keys(), replace=True)  # S28: the keys of somewhere else
        it.worker.reload(it.settings())
        assert (await alice.ask(f"{APP}/x", XHR)).status == 401


async def test_connections_of_an_upstream_that_stays_are_kept(tmp_path: Path, valkey_url: str) -> None:
    async with running(tmp_path, valkey_url) as it:
        other = await Recording().start()
        both = route("app", it.app.port, OPEN) + route("other", other.port, OPEN)
        it.worker.reload(it.settings(routes=both))
        before = it.worker._config.pools
        for host in (b"app", b"other"):
            assert (await it.raw(GET.replace(b"app", host))).status == 200
        it.worker.reload(it.settings(routes=route("app", it.app.port, OPEN, "title: Another")))
        after = it.worker._config.pools
        assert list(after.values()) == [pool for key, pool in before.items() if key in after]
        assert (await it.raw(GET)).status == 200 and len(it.app.lines) == 1
        await asyncio.wait_for(other.lines[0].ended.wait(), 10)  # closed: no route leads there any more
        assert (await it.raw(GET.replace(b"app", b"other"))).status == 421
        await other.stop()


async def test_an_exchange_under_way_ends_by_the_configuration_it_was_judged_under(
    tmp_path: Path, valkey_url: str
) -> None:
    go_on = asyncio.Event()

    async def slow(line: Line) -> None:
        await line.request()
        await go_on.wait()
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")

    app = await Recording(slow).start()
    async with running(tmp_path, valkey_url, app=app, routes=route("app", app.port, OPEN)) as it:
        client = await it.client()
        await client.send(GET)
        await until(lambda: app.received)
        it.worker.reload(it.settings(routes=route("other", app.port + 1, OPEN)))
        go_on.set()
        assert (await client.answer()).body == b"late"
        assert (await client.ask(GET)).status == 421
        client.close()


Change = Callable[[Any, Path], Any]


def _unreadable_keys(it: Any, directory: Path) -> Any:
    (directory / "keys.yaml").write_text("nonsense")
    return it.settings(routes=route("app", it.app.port, OPEN))


def _without_templates(it: Any, directory: Path) -> Any:
    changed = it.settings("branding: {templates: .}", routes=route("app", it.app.port, OPEN))
    object.__setattr__(changed.branding, "templates", directory / "nothing")
    return changed


def _bad_authority(it: Any, directory: Path) -> Any:
    (directory / "ca.pem").write_text("no certificate")
    routes = (
        route("healthy", it.app.port, OPEN, "health_check: {path: /}")
        + f"\n  - {{from: 'https://app.test', to: 'https://127.0.0.1:1', tls_custom_ca_file: ca.pem, {OPEN}}}"
    )
    return it.settings(routes=routes)


def _vanished_authority(it: Any, directory: Path) -> Any:
    changed = _bad_authority(it, directory)
    (directory / "ca.pem").unlink()
    return changed


def _bad_provider_authority(it: Any, directory: Path) -> Any:
    (directory / "ca.pem").write_text("no certificate")
    return it.settings(provider="  ca_file: ca.pem", routes=route("app", it.app.port, OPEN))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_unreadable_keys, id="keys"),
        pytest.param(_without_templates, id="templates"),
        pytest.param(_bad_authority, id="an upstream's authority"),
        pytest.param(_vanished_authority, id="an authority that vanished meanwhile"),
        pytest.param(_bad_provider_authority, id="the provider's authority"),
        pytest.param(lambda it, _: it.settings("workers: 7"), id="workers"),
        pytest.param(lambda it, _: it.settings("operations: 127.0.0.1:1"), id="operations"),
        pytest.param(lambda it, _: it.settings("limits: {connections: 7}"), id="limits"),
        pytest.param(lambda it, _: it.settings(listen="127.0.0.1:1"), id="listeners"),
    ],
)
async def test_a_reload_that_cannot_be_changes_nothing(
    tmp_path: Path, valkey_url: str, change: Change
) -> None:
    async with running(tmp_path, valkey_url) as it:
        client = await it.client()
        assert (await client.ask(GET)).status == 401
        before, plane = it.worker._config, it.worker._surface.plane
        tasks = len(asyncio.all_tasks())
        changed = change(it, tmp_path)
        with pytest.raises(OperatorError):
            it.worker.reload(changed)
        assert it.worker._config is before and it.worker._surface.plane is plane
        assert len(asyncio.all_tasks()) == tasks  # no health check of a pool that never was
        assert (await client.ask(GET)).status == 401
        client.close()


async def test_a_renewed_authority_of_an_upstream_is_used(
    tmp_path: Path, valkey_url: str, authority: trustme.CA
) -> None:
    """The file keeps its name: were the pool kept too, the app's new certificate would stay refused."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    listening = await asyncio.start_server(app, "127.0.0.1", 0, ssl=server)
    port = listening.sockets[0].getsockname()[1]
    routes = f"\n  - {{from: 'https://app.test', to: 'https://127.0.0.1:{port}', tls_custom_ca_file: ca.pem, {OPEN}}}"  # noqa: E501
    async with running(tmp_path, valkey_url, routes=routes) as it:
        assert (await it.raw(GET)).status == 502
        before = it.worker._config.pools
        it.worker.reload(it.settings(routes=routes))
        assert it.worker._config.pools == before
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        it.worker.reload(it.settings(routes=routes))
        assert (await it.raw(GET)).status == 200
    listening.close()


# -- the end ----------------------------------------------------------------------------------------------


async def test_draining(tmp_path: Path, valkey_url: str) -> None:
    go_on = asyncio.Event()

    async def slow(line: Line) -> None:
        while True:
            await line.request()
            await go_on.wait()
            await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast")

    app = await Recording(slow).start()
    async with running(tmp_path, valkey_url, app=app, routes=route("app", app.port, OPEN)) as it:
        idle, busy = await it.client(), await it.client()
        await busy.send(GET)
        await until(lambda: app.received)
        draining = asyncio.create_task(it.worker.drain(30))
        assert await idle.rest() == b""
        with pytest.raises(OSError):
            await it.client()
        go_on.set()
        answer = await busy.answer()
        assert (answer.body, dict(answer.fields)["connection"]) == (b"last", "close")
        await draining
        assert len(it.worker.connections) == 0


async def test_draining_does_not_wait_for_ever(tmp_path: Path, valkey_url: str) -> None:
    async def silent(line: Line) -> None:
        await line.request()
        await line.ended.wait()

    app = await Recording(silent).start()
    async with running(tmp_path, valkey_url, app=app, routes=route("app", app.port, OPEN)) as it:
        busy = await it.client()
        await busy.send(GET)
        await until(lambda: app.received)
        await it.worker.drain(0)
        assert await busy.rest() == b""


async def test_timers_run_for_connections_pools_and_re_checks(tmp_path: Path, valkey_url: str) -> None:
    async with running(tmp_path, valkey_url) as it:
        ticking = it.worker._ticking()
        assert [type(one) for one in ticking] == [Connections, Watch, Pool]


async def test_several_hosts_with_one_sign_in(tmp_path: Path, valkey_url: str, state_client: Redis) -> None:
    app = await Recording(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).start()
    routes = route("app", app.port, ANYONE) + route("other", app.port, ANYONE)
    more = "auth_host: https://auth.test"
    async with running(tmp_path, valkey_url, more, app=app, routes=routes) as it:
        assert list(it.worker._config.pools) and len(it.worker._config.pools) == 1
        alice = it.browser()
        for host in ("app", "other"):
            assert (await alice.open(f"https://{host}.test/x")).status == 200
        assert it.op.hits["/token"] == 1


async def test_without_an_https_origin_there_is_nowhere_to_redirect_to(
    tmp_path: Path, valkey_url: str
) -> None:
    async with running(tmp_path, valkey_url, "auth_host: http://auth.test") as it:
        origin = it.worker._https_origin
        assert origin(ask("/", host="app.test")) == APP
        assert origin(ask("/", host="auth.test")) is None and origin(ask("/", host="evil.test")) is None


async def test_ip6(tmp_path: Path, valkey_url: str) -> None:
    async with running(tmp_path, valkey_url, listen="'[::1]:0'") as it:
        assert it.worker.addresses[0].startswith("[::1]:") and port_of(it.worker.addresses[0]) > 0


async def test_what_can_be_built_can_be_closed_without_a_start(tmp_path: Path, valkey_url: str) -> None:
    write_private(tmp_path / "keys.yaml", fresh_keys())
    app = await Recording().start()
    async with lying_provider(time.time) as op:
        made = settings(tmp_path, op, app, valkey_url)
        worker = Worker(made, valkey_url, Recorder(Metrics(), None, None))
        await worker.close()
    await app.stop()
