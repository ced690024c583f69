"""Which keys of a set are used, and how a fetched set lives: first fetch, renewal, rotation, failure."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.verify.smith import KEY, OTHER, Key, KeySetServer, key_set_server
from ztproxy.verify.identity import FetchNeeded
from ztproxy.verify.keys import FRESH_SECONDS, REFETCH_SECONDS, USABLE_SECONDS, RemoteKeys, usable_keys

PRIVATE = ECAlgorithm.to_jwk(KEY.private, as_dict=True)
P384 = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True)
RSA = RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048).public_key(), as_dict=True)


@pytest.mark.parametrize(
    "jwk",
    [
        pytest.param(KEY.jwk(), id="as ztproxy publishes it"),
        pytest.param(
            {k: v for k, v in KEY.jwk().items() if k not in ("use", "alg")}, id="only what is needed"
        ),
        pytest.param(KEY.jwk(key_ops=["verify"]), id="with key_ops"),
        pytest.param(KEY.jwk(unknown="member"), id="with a member unknown here"),
    ],
)
def test_keys_that_are_used(jwk: dict[str, object]) -> None:
    assert set(usable_keys({"keys": [jwk]})) == {"zt-1"}


@pytest.mark.parametrize(
    "jwk",
    [
        pytest.param(KEY.jwk(use="enc"), id="for encryption"),
        pytest.param(KEY.jwk(key_ops=["encrypt"]), id="key_ops without verify"),
        pytest.param(KEY.jwk(key_ops="verify"), id="key_ops a text"),
        pytest.param(KEY.jwk(key_ops=None), id="key_ops null"),
        pytest.param(KEY.jwk(alg="ES384"), id="alg of another curve"),
        pytest.param(KEY.jwk(alg="HS256"), id="alg HS256"),
        pytest.param({**KEY.jwk(), "d": PRIVATE["d"]}, id="showing its private half"),
        pytest.param(KEY.jwk(kid=""), id="kid empty"),
        pytest.param(KEY.jwk(kid=7), id="kid a number"),
        pytest.param(KEY.jwk(kid=None), id="kid null"),
        pytest.param(KEY.jwk(x=OTHER.jwk()["x"]), id="a point off the curve"),
        pytest.param(KEY.jwk(x="AA"), id="x too short"),
        pytest.param(KEY.jwk(x=7), id="x a number"),
        pytest.param(KEY.jwk(y=None), id="y null"),
        pytest.param(KEY.jwk(crv="P-384"), id="curve misnamed"),
        pytest.param({**P384, "kid": "zt-1"}, id="P-384"),
        pytest.param({**RSA, "kid": "zt-1"}, id="RSA"),
        pytest.param({"kty": "oct", "kid": "zt-1", "k": "c2VjcmV0"}, id="a shared secret"),
        pytest.param("zt-1", id="a text"),
        pytest.param(None, id="null"),
    ],
)
def test_keys_that_are_left_out_without_harm_to_the_others(jwk: object) -> None:
    assert set(usable_keys({"keys": [jwk, OTHER.jwk()]})) == {"zt-2"}


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(OTHER.jwk(kid="zt-1"), id="another key"),
        pytest.param(KEY.jwk(), id="the same key"),
        pytest.param({**RSA, "kid": "zt-1"}, id="an unusable key"),
    ],
)
def test_a_kid_given_twice_is_no_key_at_all(again: dict[str, object]) -> None:
    assert usable_keys({"keys": [KEY.jwk(), again]}) == {}
    assert usable_keys({"keys": [again, KEY.jwk()]}) == {}
    assert usable_keys({"keys": [KEY.jwk(), again, KEY.jwk()]}) == {}


def test_a_set_of_ten_thousand_keys_is_not_read() -> None:
    assert usable_keys({"keys": [KEY.jwk()] * 10_000}) == {}
    assert usable_keys({"keys": {"zt-1": KEY.jwk()}}) == {}


class Moment:
    """A monotonic clock that stands still until told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def server() -> Iterator[KeySetServer]:
    with key_set_server() as running:
        yield running


@pytest.fixture
def moment() -> Moment:
    return Moment()


@pytest.fixture
def keys(server: KeySetServer, moment: Moment) -> RemoteKeys:
    return RemoteKeys(server.url, monotonic=moment)


def has(keys: RemoteKeys, key: Key) -> bool:
    return keys.get(key.kid, may_fetch=True) is not None


def test_it_is_fetched_when_first_needed_and_then_kept(keys: RemoteKeys, server: KeySetServer) -> None:
    ready_before = keys.ready
    assert (ready_before, server.hits) == (False, 0)
    assert all(has(keys, KEY) for _ in range(10))
    assert keys.ready
    assert server.hits == 1


def test_a_flood_of_unknown_kids_causes_one_fetch_in_thirty_seconds(
    keys: RemoteKeys, server: KeySetServer, moment: Moment
) -> None:
    assert has(keys, KEY)
    moment.passes(REFETCH_SECONDS)
    assert not any(keys.get(f"kid-{n}", may_fetch=True) for n in range(1000))
    assert server.hits == 2
    assert has(keys, KEY)
    moment.passes(REFETCH_SECONDS)
    assert keys.get("kid-1", may_fetch=True) is None
    assert server.hits == 3


def test_many_threads_wait_for_one_first_fetch(keys: RemoteKeys, server: KeySetServer) -> None:
    server.hold.clear()
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(has, keys, KEY) for _ in range(16)]
        threading.Timer(0.05, server.hold.set).start()
        assert all(answer.result(10) for answer in asked)
    assert server.hits == 1


def test_a_withdrawn_key_is_gone_after_ten_minutes(
    keys: RemoteKeys, server: KeySetServer, moment: Moment
) -> None:
    assert has(keys, KEY)
    server.publish(OTHER.jwk())
    moment.passes(FRESH_SECONDS - 1)
    assert has(keys, KEY)
    moment.passes(1)
    assert not has(keys, KEY)
    assert has(keys, OTHER)


def test_who_holds_an_aged_key_does_not_wait_for_anothers_fetch(
    keys: RemoteKeys, server: KeySetServer, moment: Moment
) -> None:
    assert has(keys, KEY)
    moment.passes(FRESH_SECONDS)
    server.hold.clear()
    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(has, keys, KEY)
        while server.hits < 2:
            pass
        assert has(keys, KEY)
        assert server.hits == 2
        server.hold.set()
        assert renewing.result(10)


REDIRECT = {"status": 302, "location": "/elsewhere"}


@pytest.mark.parametrize(
    "failing",
    [
        pytest.param({"status": 500}, id="500"),
        pytest.param({"status": 404}, id="404"),
        pytest.param({"status": 204}, id="204"),
        pytest.param(REDIRECT, id="a redirect"),
        pytest.param({"body": b"<html>log in</html>"}, id="a log-in page"),
        pytest.param({"body": b'{"keys": []}'}, id="no keys"),
        pytest.param({"body": b'{"keys": [], "pad": "' + b"x" * 65536 + b'"}'}, id="more than 64 KiB"),
        pytest.param({"body": b"[" * 60_000}, id="60,000 deep"),
    ],
)
def test_a_set_that_fails_never_replaces_a_good_one(
    keys: RemoteKeys, server: KeySetServer, moment: Moment, failing: dict[str, object]
) -> None:
    assert has(keys, KEY)
    good = server.body
    for name, value in failing.items():
        setattr(server, name, value)
    moment.passes(FRESH_SECONDS)
    assert has(keys, KEY)
    assert server.hits == 2  # a redirect, too, is one request: it was not followed
    assert has(keys, KEY)
    assert server.hits == 2

    moment.passes(USABLE_SECONDS)
    assert not has(keys, KEY)  # a day later nothing is accepted any more
    assert not keys.ready

    server.status, server.location, server.body = 200, None, good
    moment.passes(REFETCH_SECONDS)
    assert has(keys, KEY)  # and it recovers by itself


def test_where_nothing_listens_there_is_no_key_and_the_next_second_tries_again(moment: Moment) -> None:
    with key_set_server() as gone:
        url = gone.url
    keys = RemoteKeys(url, monotonic=moment)
    assert not has(keys, KEY)
    with pytest.raises(FetchNeeded):
        moment.passes(1)
        keys.get(KEY.kid, may_fetch=False)


def test_an_answer_that_does_not_come_ends(server: KeySetServer, moment: Moment) -> None:
    keys = RemoteKeys(server.url, timeout=0.1, monotonic=moment)
    server.hold.clear()
    assert not has(keys, KEY)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://app.example.com/jwks", id="https"),
        pytest.param("http://127.0.0.1:8000/jwks", id="this machine"),
        pytest.param("http://[::1]:8000/jwks", id="this machine by IPv6"),
        pytest.param("http://localhost/jwks", id="localhost"),
        pytest.param("http://app.localhost:8000/jwks", id="a name under localhost"),
    ],
)
def test_urls_a_key_set_may_come_from(url: str) -> None:
    assert not RemoteKeys(url).ready


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://app.example.com/jwks", id="without TLS"),
        pytest.param("http://10.0.0.1/jwks", id="without TLS on a private network"),
        pytest.param("http://localhost.evil.test/jwks", id="localhost as a prefix"),
        pytest.param("file:///etc/jwks.json", id="a file"),
        pytest.param("ftp://127.0.0.1/jwks", id="ftp"),
        pytest.param("https:///jwks", id="no host"),
        pytest.param("app.example.com", id="no scheme"),
    ],
)
def test_urls_it_may_not_come_from(url: str) -> None:
    with pytest.raises(ValueError):
        RemoteKeys(url)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://user:s3cret@app.example.com/jwks", id="https"),
        pytest.param("http://s3cret@127.0.0.1/jwks", id="a user alone"),
        pytest.param("ftp://user:s3cret@app.example.com/jwks", id="another scheme"),
        pytest.param("https://user:s3cret@[app.example.com/jwks", id="no URL at all"),
        pytest.param("https://user:s3cret@app\u2100.test/jwks", id="not a host"),
        pytest.param("https:/user:s3cret@app.example.com/jwks", id="one slash"),
    ],
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError) as refused:
        RemoteKeys(url)
    assert "s3cret" not in str(refused.value) and refused.value.__cause__ is None


def test_plain_http_is_never_fetched_by_a_proxy(
    server: KeySetServer, moment: Moment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with key_set_server() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        proxy.publish(OTHER.jwk())
        keys = RemoteKeys(server.url, monotonic=moment)
        assert has(keys, KEY)
        assert (server.hits, proxy.hits) == (1, 0)


def test_https_is_fetched_by_the_proxy_of_the_environment(
    server: KeySetServer, moment: Moment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def tunnel() -> None:
            connection, _ = proxy.accept()
            with connection:
                asked.append(connection.recv(4096))

        waiting = threading.Thread(target=tunnel, daemon=True)
        waiting.start()
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        assert not has(RemoteKeys("https://app.test/jwks", monotonic=moment), KEY)
        waiting.join(10)
    assert asked[0].startswith(b"CONNECT app.test:443 ")


def test_plain_http_must_be_asked_for_by_its_name() -> None:
    assert not RemoteKeys("http://ztproxy.svc:8080/jwks", unsafe_plain_http=True).ready
