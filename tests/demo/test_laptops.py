"""What the demo makes of X.509 is what TLS and ztproxy's own authority accept, and nothing wider."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509

from ztproxy.adapters import device_ca
from ztproxy.demo.laptops import Laptop, make_site, trust


async def shaken(context: ssl.SSLContext, server: ssl.SSLContext, name: str) -> bool:
    """Whether a client with `context` shows a certificate to a server that asks for one."""
    shown = asyncio.get_running_loop().create_future()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown.set_result(bool(writer.get_extra_info("ssl_object").getpeercert(binary_form=True)))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server) as listening:
        port = listening.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        seen: bool = await asyncio.wait_for(shown, 10)
        await reader.read()
        writer.close()
    return seen


def server(directory: Path, clients: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "site.pem", directory / "site.key")
    context.load_verify_locations(clients)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


async def test_a_laptop_with_a_certificate_shows_it_to_the_site(tmp_path: Path) -> None:
    authority = make_site(tmp_path, ["admin.localhost", "localhost"])
    files = device_ca.make(tmp_path, "demo.internal", years=1)
    laptop = Laptop.new(tmp_path / "laptop")
    assert not await shaken(trust(authority, laptop), server(tmp_path, files[0]), "localhost")
    vouching = device_ca.DeviceCA.load(*files, "demo.internal", 3600.0)
    assert vouching.read_csr(laptop.request().encode()) == laptop.proven
    laptop.keep(vouching.issue(laptop.proven, "d-1", time.time()).pem)
    assert await shaken(trust(authority, laptop), server(tmp_path, files[0]), "admin.localhost")
    assert not await shaken(trust(authority, None), server(tmp_path, files[0]), "admin.localhost")


async def test_the_site_is_nobody_else(tmp_path: Path) -> None:
    authority = make_site(tmp_path, ["admin.localhost"])
    with pytest.raises(ssl.SSLCertVerificationError):
        await shaken(trust(authority, None), server(tmp_path, authority), "bank.example")


def test_keys_are_private_and_the_authoritys_is_not_kept(tmp_path: Path) -> None:
    authority = make_site(tmp_path, ["admin.localhost"])
    laptop = Laptop.new(tmp_path / "laptop")
    assert {one.name for one in tmp_path.iterdir()} == {"site-ca.pem", "site.pem", "site.key", "laptop"}
    for private in (tmp_path / "site.key", laptop.key, laptop.directory):
        assert private.stat().st_mode & 0o077 == 0
    own = x509.load_pem_x509_certificate(authority.read_bytes())
    assert own.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
