"""The name in a ClientHello: ordinary ones, hostile ones, and whatever OpenSSL reads differently."""

from __future__ import annotations

import random
import ssl

import pytest
import trustme

from ztproxy.wire.client_hello import MAX_HELLO, Hello, HelloReader, canonical_name


def vector(content: bytes, width: int) -> bytes:
    return len(content).to_bytes(width) + content


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2) + vector(content, 2)


def naming(*names: bytes, kind: int = 0) -> bytes:
    """A `server_name` extension."""
    return extension(0, vector(b"".join(bytes([kind]) + vector(name, 2) for name in names), 2))


OTHERS = extension(0x2B, b"\x02\x03\x04") + extension(0x33, vector(b"\x11\xec" + vector(b"k" * 1216, 2), 2))


def body(extensions: bytes | None) -> bytes:
    tail = b"" if extensions is None else vector(extensions, 2)
    return b"\x03\x03" + b"r" * 32 + vector(b"s" * 32, 1) + vector(b"\x13\x01", 2) + vector(b"\0", 1) + tail


def message(content: bytes, kind: int = 1) -> bytes:
    return bytes([kind]) + vector(content, 3)


def record(content: bytes, kind: int = 22) -> bytes:
    return bytes([kind]) + b"\x03\x01" + vector(content, 2)


def hello(extensions: bytes | None) -> bytes:
    return record(message(body(extensions)))


def read(data: bytes, size: int = 1 << 20) -> Hello | None:
    """What the reader says of `data` in pieces of `size`; it is not asked again after it has spoken."""
    reader = HelloReader()
    for at in range(0, len(data), size):
        found = reader.feed(data[at : at + size])
        if found is not None:
            return found
    return None


def real_hello(name: str | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.maximum_version = version
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        pytest.param("app.test", "app.test", id="as it is"),
        pytest.param("APP.Test", "app.test", id="upper case"),
        pytest.param("app.test.", "app.test", id="trailing dot"),
        pytest.param("app.test..", None, id="two dots"),
        pytest.param(".", None, id="the root"),
        pytest.param("", None, id="empty"),
        pytest.param(None, None, id="none"),
        pytest.param("localhost", "localhost", id="one label"),
        pytest.param("_x.app-1.test", "_x.app-1.test", id="underscore and hyphen"),
        pytest.param("xn--bcher-kva.test", "xn--bcher-kva.test", id="punycode"),
        pytest.param("bücher.test", None, id="not ASCII"),
        pytest.param("app.te\u017ft", None, id="becomes ASCII in lower case elsewhere"),
        pytest.param("*.app.test", None, id="wildcard"),
        pytest.param("-app.test", None, id="hyphen first"),
        pytest.param("app-.test", None, id="hyphen last"),
        pytest.param("app..test", None, id="empty label"),
        pytest.param("app.test\n", None, id="line break"),
        pytest.param("app.test\0.evil", None, id="NUL"),
        pytest.param("app.test:443", None, id="port"),
        pytest.param("127.0.0.1", None, id="IPv4"),
        pytest.param("127.1", None, id="IPv4, short"),
        pytest.param("app.0x7f", None, id="IPv4 to some"),
        pytest.param("0x", None, id="zero to some"),
        pytest.param("10.test", "10.test", id="a number that is not last"),
        pytest.param("::1", None, id="IPv6"),
        pytest.param("[::1]", None, id="IPv6 in brackets"),
        pytest.param("a" * 63 + ".test", "a" * 63 + ".test", id="longest label"),
        pytest.param("a" * 64 + ".test", None, id="label too long"),
        pytest.param("a." * 126 + "b", "a." * 126 + "b", id="longest name"),
        pytest.param("a." * 126 + "bb", None, id="name too long"),
    ],
)
def test_a_name_has_one_form(name: str | None, canonical: str | None) -> None:
    assert canonical_name(name) == canonical


@pytest.mark.parametrize("size", [1, 7, 1 << 20], ids=["byte by byte", "by seven", "at once"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_real_hello(version: ssl.TLSVersion, size: int) -> None:
    assert read(real_hello("app.test", version), size) == Hello("app.test")
    assert read(real_hello(None, version), size) == Hello(None)


READ = [
    pytest.param(hello(naming(b"App.Test.")), "app.test", id="canonical"),
    pytest.param(hello(OTHERS + naming(b"app.test")), "app.test", id="behind a large key share"),
    pytest.param(hello(naming(b"app.test") + OTHERS), "app.test", id="before one"),
    pytest.param(hello(naming(b"app.test")) + record(b"x", 20), "app.test", id="more records behind"),
    pytest.param(record(message(body(naming(b"app.test"))) + b"\1"), None, id="more messages behind"),
    pytest.param(hello(OTHERS), None, id="no name"),
    pytest.param(hello(b""), None, id="no extension"),
    pytest.param(hello(None), None, id="extensions left out"),
    pytest.param(hello(naming(b"")), None, id="empty name"),
    pytest.param(hello(naming()), None, id="empty list"),
    pytest.param(hello(extension(0, b"")), None, id="empty extension"),
    pytest.param(hello(naming(b"10.0.0.1")), None, id="an address"),
    pytest.param(hello(naming(b"app.test\0")), None, id="NUL behind"),
    pytest.param(hello(naming(b"public.test\0app.test")), None, id="NUL between two names"),
    pytest.param(hello(naming("bücher.test".encode())), None, id="UTF-8"),
    pytest.param(hello(naming(b"public.test", b"app.test")), None, id="two names"),
    pytest.param(hello(naming(b"public.test") + naming(b"app.test")), None, id="two extensions"),
    pytest.param(hello(naming(b"app.test", kind=1)), None, id="a name of another type"),
    pytest.param(hello(extension(0, naming(b"app.test")[4:] + b"\0")), None, id="something behind the list"),
    pytest.param(hello(extension(0, vector(b"\0\0\x09app.test", 2))), None, id="name longer than its list"),
    pytest.param(hello(extension(0, b"\x00")), None, id="list length cut off"),
    pytest.param(hello(naming(b"app.test") + b"\0"), None, id="extension cut off"),
    pytest.param(hello(naming(b"app.test") + b"\0\x2b\0\x09"), None, id="extension too long"),
    pytest.param(record(message(body(naming(b"app.test")) + b"\0")), None, id="a body too long"),
    pytest.param(record(message(body(naming(b"app.test"))[:60])), None, id="a body cut off"),
    pytest.param(record(message(b"")), None, id="an empty body"),
    pytest.param(record(message(body(naming(b"app.test")), kind=2)), None, id="a ServerHello"),
    pytest.param(record(message(body(naming(b"app.test"))), kind=23), None, id="application data"),
    pytest.param(record(b""), None, id="an empty record"),
    pytest.param(b"GET / HTTP/1.1\r\n", None, id="HTTP"),
    pytest.param(b"\x80\x2e\x01\x03\x01", None, id="SSL 2"),
    pytest.param(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", None, id="a length of 16 MiB"),
    pytest.param(hello(naming(b"app.test") + extension(21, b"\0" * 14000)), "app.test", id="much padding"),
    pytest.param(hello(naming(b"app.test") + extension(21, b"\0" * 17000)), None, id="too much"),
]


@pytest.mark.parametrize("size", [1, 1 << 20], ids=["byte by byte", "at once"])
@pytest.mark.parametrize(("data", "name"), READ)
def test_what_is_read(data: bytes, name: str | None, size: int) -> None:
    assert read(data, size) == Hello(name)


@pytest.mark.parametrize("data", [b"", b"\x16", b"\x16\x03\x01\x00", hello(naming(b"app.test"))[:-1]])
def test_what_is_not_whole_yet(data: bytes) -> None:
    assert read(data) is None
    assert read(data, 1) is None


@pytest.mark.parametrize("size", [1, 3, 100])
def test_over_many_records(size: int) -> None:
    whole = message(body(OTHERS + naming(b"app.test")))
    split = b"".join(record(whole[at : at + size]) for at in range(0, len(whole), size))
    assert read(split) == Hello("app.test")
    assert read(split, 1) == Hello("app.test")


def test_another_record_in_between() -> None:
    whole = message(body(naming(b"app.test")))
    assert read(record(whole[:20]) + record(b"\x01\x00", 21) + record(whole[20:])) == Hello(None)


def test_there_is_an_end_to_patience() -> None:
    """One octet a record: six read for one taken, and linear work all the same."""
    whole = message(body(extension(0xFAFA, b"p" * 20000) + naming(b"app.test")))
    split = b"".join(record(whole[at : at + 1]) for at in range(len(whole)))
    reader = HelloReader()
    fed = 0
    while reader.feed(split[fed : fed + 5]) is None:
        fed += 5
        assert fed <= MAX_HELLO


# OpenSSL reads the same octets afterwards

CA = trustme.CA()


def names_seen_by_openssl(server: ssl.SSLContext, data: bytes) -> list[str | None]:
    seen: list[str | None] = []
    server.sni_callback = lambda _, name, __: seen.append(name)
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    try:
        server.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True).do_handshake()
    except ssl.SSLError:
        pass
    return seen


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # `ssl` tells of names not ASCII
def test_openssl_never_sees_a_name_that_we_did_not() -> None:
    """Or we saw none, and then the client is asked. Thousands of hellos, each altered a little."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert("app.test").configure_cert(server)
    dice = random.Random(4)
    agreed = 0
    originals = [real_hello("app.test"), real_hello("APP.test.", ssl.TLSVersion.TLSv1_2)]
    for _ in range(3000):
        data = bytearray(dice.choice(originals))
        around = data.lower().index(b"app.test")
        for _ in range(dice.randint(0, 2)):
            at = dice.choice([dice.randrange(len(data)), dice.randrange(around - 12, around + 12)])
            data[at] = dice.choice([0, 1, data[at] ^ 1, data[at] ^ 0x20, dice.randrange(256)])
        ours = read(bytes(data))
        for theirs in names_seen_by_openssl(server, bytes(data)):
            assert ours in (Hello(None), Hello(canonical_name(theirs))), data.hex()
            agreed += ours == Hello("app.test")
    assert agreed > 500


def test_the_builder_of_these_tests_is_understood_by_openssl() -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert("app.test").configure_cert(server)
    assert names_seen_by_openssl(server, hello(naming(b"app.test"))) == ["app.test"]
