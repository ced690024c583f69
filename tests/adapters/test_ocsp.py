"""What a responder says, what it must not make us believe, and what it costs when it says nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from tests.worlds.certificates import CLIENT, DAY, HOUR, NOW, OCSP_SIGNING, Authority, Issued
from tests.worlds.memory_state import SetClock
from tests.worlds.ocsp_responder import (
    GOOD,
    REVOKED,
    UNKNOWN,
    Responder,
    hanging,
    openssl_responder,
    responder,
)
from ztproxy.adapters import client_certificates, ocsp
from ztproxy.adapters.client_certificates import ClientCertificates
from ztproxy.adapters.ocsp import MAX_BYTES, PAUSE_SECONDS, OCSPSettings
from ztproxy.core.certificate import Refused, Verified
from ztproxy.core.reasons import Reason

CA = Authority.root()
TWIN = Authority.root()  # of the same name, with another key
RSA_CA = Authority.root("RSA", key=rsa.generate_private_key(65537, 2048))
LAPTOP, OTHER = CA.issue("laptop"), CA.issue("other")
IS_REVOKED = Reason.DEVICE_CERTIFICATE_REVOKED
INVALID = Reason.DEVICE_CERTIFICATE_INVALID
UNCHECKED = Reason.DEVICE_CERTIFICATE_UNCHECKED


class Asking:
    """`ClientCertificates` with one authority and its responder, at a time that is set."""

    def __init__(self, folder: Path, http: aiohttp.ClientSession, ca: Authority = CA) -> None:
        self.clock, self.http, self.ca = SetClock(NOW), http, folder / "ca.pem"
        self.ca.write_bytes(ca.pem)
        self.verifiers: list[ClientCertificates] = []

    def of(self, url: str, **settings: object) -> ClientCertificates:
        """A verifier that knows nothing yet."""
        asked = OCSPSettings(url, **{"deadline": 5.0, **settings})  # type: ignore[arg-type]
        authority = client_certificates.Authority("corp", self.ca, ocsp=asked)
        self.verifiers.append(ClientCertificates([authority], self.clock, self.http))
        return self.verifiers[-1]

    def at_once(self, it: ClientCertificates, issued: Issued = LAPTOP) -> object:
        """None, the reason it is refused, or until when it holds, from now on."""
        return self._short(it.at_once(issued.shown, self.clock.now))

    async def judge(self, it: ClientCertificates, issued: Issued = LAPTOP) -> object:
        """Just so; and what is at hand afterwards is the same."""
        answer = self._short(await it.judge(issued.shown, self.clock.now))
        assert self.at_once(it, issued) == answer
        return answer

    def _short(self, answer: Verified | Refused | None) -> object:
        if isinstance(answer, Verified):
            return answer.until - self.clock.now
        return answer if answer is None else answer.reason


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  # what happens in the background tells nobody
            await asyncio.sleep(0.01)


async def until_asked(there: Responder, times: int) -> None:
    await until(lambda: there.asked >= times)


@pytest.fixture
async def asking(tmp_path: Path) -> AsyncIterator[Asking]:
    async with aiohttp.ClientSession() as http:
        it = Asking(tmp_path, http)
        yield it
        for one in it.verifiers:
            await one.aclose()
        assert not [it for it in asyncio.all_tasks() if "OCSPClient" in str(it.get_coro())]


@pytest.mark.parametrize("delegated", [False, True], ids=["issuer_itself", "delegated"])
async def test_the_real_openssl(asking: Asking, tmp_path: Path, delegated: bool) -> None:
    stranger = CA.issue("stranger")
    signer = CA.ocsp_signer() if delegated else CA.issued
    async with openssl_responder(tmp_path, CA, signer, good=[LAPTOP], revoked=[OTHER], minutes=60) as url:
        it = asking.of(url)
        asking.clock.now = time.time()  # it signs by the real clock
        assert asking.at_once(it) is None
        until = await asking.judge(it)
        assert isinstance(until, float) and HOUR - 120 <= until < HOUR + 120
        assert await asking.judge(it, OTHER) is IS_REVOKED
        assert await asking.judge(it, stranger) is INVALID


async def test_the_real_openssl_of_an_RSA_authority_naming_no_end(tmp_path: Path) -> None:
    issued = RSA_CA.issue()
    async with aiohttp.ClientSession() as http:
        asking = Asking(tmp_path, http, RSA_CA)
        asking.clock.now = time.time()
        async with openssl_responder(tmp_path, RSA_CA, RSA_CA.issued, good=[issued]) as url:
            until = await asking.judge(asking.of(url, keep=300.0), issued)
            assert isinstance(until, float) and 180 <= until < 420
        for one in asking.verifiers:
            await one.aclose()


@pytest.mark.parametrize(
    ("prepare", "answer"),
    [
        pytest.param(lambda it: None, DAY, id="ordinary"),
        pytest.param(lambda it: setattr(it, "nonce", None), DAY, id="from_stock_without_a_nonce"),
        pytest.param(lambda it: setattr(it, "by_key", True), DAY, id="named_by_its_key"),
        pytest.param(lambda it: setattr(it, "shows", ()), DAY, id="issuer_without_its_certificate"),
        pytest.param(lambda it: setattr(it, "next_update", NOW + HOUR), HOUR, id="for_an_hour"),
        pytest.param(lambda it: setattr(it, "this_update", NOW + 200), DAY, id="a_little_ahead"),
        pytest.param(lambda it: delegate(it, CA.ocsp_signer()), DAY, id="delegated"),
        pytest.param(
            lambda it: delegate(it, CA.ocsp_signer(), by_key=True), DAY, id="delegated_named_by_its_key"
        ),
        pytest.param(
            lambda it: delegate(it, CA.ocsp_signer(), LAPTOP.cert, TWIN.cert), DAY, id="among_others"
        ),
        pytest.param(lambda it: without_end(it, NOW - 100), 200.0, id="no_end_and_100_seconds_old"),
        pytest.param(lambda it: it.knows(LAPTOP, status=REVOKED), IS_REVOKED, id="revoked"),
        pytest.param(lambda it: it.knows(LAPTOP, status=UNKNOWN), INVALID, id="unknown"),
    ],
)
async def test_answers_that_count(
    asking: Asking, prepare: Callable[[Responder], None], answer: object
) -> None:
    async with responder(CA) as there:
        there.knows(LAPTOP)
        prepare(there)
        it = asking.of(there.url)
        assert await asking.judge(it) == answer
        assert await asking.judge(it) == answer
        assert there.asked == 1, "it is remembered"


def delegate(it: Responder, signer: Issued, *others: x509.Certificate, by_key: bool = False) -> None:
    it.signer, it.shows, it.by_key = signer, (*others, signer.cert), by_key


def without_end(it: Responder, this_update: float) -> None:
    it.without_end, it.this_update = True, this_update


def spoiled(it: Responder) -> None:
    it.shows, it.spoil = (), True


UNDERSTOOD_BY_NOBODY = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
INTERMEDIATE = CA.intermediate()

LIES = [
    pytest.param(
        lambda it: delegate(it, TWIN.issued), "nobody", id="signed_by_an_authority_of_the_same_name"
    ),
    pytest.param(
        lambda it: delegate(it, CA.issue("Corp Root")), "nobody", id="signed_by_a_client_of_the_issuers_name"
    ),
    pytest.param(lambda it: delegate(it, LAPTOP), "nobody", id="signed_by_the_client_itself"),
    pytest.param(lambda it: delegate(it, CA.issue("x", usage=[CLIENT])), "nobody", id="signer_for_clients"),
    pytest.param(lambda it: delegate(it, CA.issue("x", usage=None)), "nobody", id="signer_for_anything"),
    pytest.param(lambda it: delegate(it, TWIN.ocsp_signer()), "nobody", id="delegated_by_another_authority"),
    pytest.param(
        lambda it: delegate(it, INTERMEDIATE.ocsp_signer(), INTERMEDIATE.cert),
        "nobody",
        id="delegated_indirectly",
    ),
    pytest.param(
        lambda it: delegate(it, CA.ocsp_signer(not_after=NOW - 60)), "nobody", id="delegate_expired"
    ),
    pytest.param(
        lambda it: delegate(it, CA.ocsp_signer(not_before=NOW + 60)), "nobody", id="delegate_not_valid_yet"
    ),
    pytest.param(spoiled, "nobody", id="right_name_wrong_signature"),
    pytest.param(
        lambda it: setattr(it, "instead_of", {LAPTOP.serial: OTHER}),
        "not about the certificate",
        id="about_another_one",
    ),
    pytest.param(
        lambda it: setattr(it, "next_update", NOW - 1), "out of date", id="recorded_and_out_of_date"
    ),
    pytest.param(lambda it: without_end(it, NOW - 301), "out of date", id="recorded_without_an_end"),
    pytest.param(lambda it: setattr(it, "this_update", NOW + 400), "future", id="of_the_future"),
    pytest.param(lambda it: setattr(it, "nonce", b"n" * 16), "nonce", id="nonce_of_another_question"),
    pytest.param(
        lambda it: setattr(it, "extra", (UNDERSTOOD_BY_NOBODY, True)), "critical", id="critical_extension"
    ),
    pytest.param(lambda it: it.known.clear(), "unauthorized", id="unauthorized"),
    pytest.param(lambda it: setattr(it, "raw", b""), "parsing", id="nothing"),
    pytest.param(lambda it: setattr(it, "raw", b"<html>"), "parsing", id="rubbish"),
    pytest.param(lambda it: setattr(it, "raw", b"\x30" * (MAX_BYTES + 1)), "64 KiB", id="too_much"),
    pytest.param(lambda it: setattr(it, "status", 500), "status 500", id="status_500"),
    pytest.param(lambda it: redirect(it), "status 307", id="elsewhere"),
]


def redirect(it: Responder) -> None:
    it.status, it.headers = 307, {"Location": it.url}


@pytest.mark.parametrize(("lie", "why"), LIES)
async def test_lies(asking: Asking, lie: Callable[[Responder], None], why: str) -> None:
    """Nobody is let in by one; and an honest answer, two seconds later, mends it."""
    async with responder(CA) as there:
        there.knows(LAPTOP)
        lie(there)
        it = asking.of(there.url)
        assert await asking.judge(it) is UNCHECKED
        answer = it.at_once(LAPTOP.shown, NOW)
        assert isinstance(answer, Refused) and why in answer.detail
        assert there.asked == 1
        honest = Responder(CA)
        honest.knows(LAPTOP)
        vars(there).update({**vars(honest), "url": there.url})
        assert await asking.judge(it) is UNCHECKED
        asking.clock.now += PAUSE_SECONDS
        assert asking.at_once(it) is None
        assert await asking.judge(it) == DAY - PAUSE_SECONDS


@pytest.mark.parametrize(("lie", "why"), LIES)
async def test_lies_where_unchecked_ones_are_let_in(
    asking: Asking, lie: Callable[[Responder], None], why: str
) -> None:
    async with responder(CA) as there:
        there.knows(LAPTOP)
        lie(there)
        it = asking.of(there.url, dangerous_allow_unchecked=True)
        assert await asking.judge(it) == PAUSE_SECONDS


async def test_what_counts_although_unchecked_ones_are_let_in(asking: Asking) -> None:
    async with responder(CA) as there:
        there.knows(LAPTOP, status=REVOKED)
        there.knows(OTHER, status=UNKNOWN)
        there.next_update = NOW + HOUR
        it = asking.of(there.url, dangerous_allow_unchecked=True)
        assert await asking.judge(it) is IS_REVOKED
        assert await asking.judge(it, OTHER) is INVALID
        # Whoever was revoked stays so while the responder is away.
        there.status = 500
        asking.clock.now += HOUR + 1
        assert await asking.judge(it) is IS_REVOKED
        assert await asking.judge(it, OTHER) is INVALID


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://[::1]:1/"])
async def test_nobody_there(asking: Asking, url: str) -> None:
    it = asking.of(url)
    assert asking.at_once(it) is None
    assert await asking.judge(it) is UNCHECKED


async def test_a_responder_that_hangs_costs_one_deadline_for_all(asking: Asking) -> None:
    """Fifty requests wait for one question; those of the next two seconds for none."""
    async with hanging() as url:
        it = asking.of(url, deadline=0.2)
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*(asking.judge(it) for _ in range(50)))
        assert answers == [UNCHECKED] * 50
        asking.clock.now += PAUSE_SECONDS - 0.1
        assert asking.at_once(it) is UNCHECKED
        asking.clock.now += 0.1
        assert asking.at_once(it) is None


async def test_one_question_at_a_time_about_one_certificate(asking: Asking) -> None:
    async with responder(CA) as there:
        there.knows(LAPTOP, OTHER)
        there.answering.clear()
        it = asking.of(there.url)
        waiting = [asyncio.ensure_future(asking.judge(it)) for _ in range(20)]
        waiting.append(asyncio.ensure_future(asking.judge(it, OTHER)))
        await until_asked(there, 2)
        # Who gives up does not take the answer from the others.
        waiting[0].cancel()
        there.answering.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert answers[1:] == [DAY] * 20
        assert there.asked == 2


async def test_answers_in_use_are_renewed_before_they_end(asking: Asking) -> None:
    async with responder(CA) as there:
        there.knows(LAPTOP)
        there.next_update = NOW + 400
        it = asking.of(there.url)
        assert await asking.judge(it) == 400.0
        asking.clock.now = NOW + 299
        assert asking.at_once(it) == 101.0
        await asyncio.sleep(0.05)
        assert there.asked == 1, "there is time enough"
        asking.clock.now, there.next_update, there.this_update = NOW + 301, NOW + 800, NOW + 300
        assert asking.at_once(it) == 99.0, "nobody waits for the renewal"
        await until_asked(there, 2)
        await until(lambda: asking.at_once(it) == 499.0)


async def test_revoked_meanwhile(asking: Asking) -> None:
    """(X08) The renewal says so: who asks again is refused, and whoever relies on the answer is told."""
    async with responder(CA) as there:
        there.knows(LAPTOP)
        there.next_update = NOW + 400
        it = asking.of(there.url)
        assert await asking.judge(it) == 400.0
        revision = it.revision
        there.knows(LAPTOP, status=REVOKED)
        asking.clock.now, there.this_update = NOW + 301, NOW + 300
        assert asking.at_once(it) == 99.0
        await until(lambda: asking.at_once(it) is IS_REVOKED)
        assert it.revision > revision
        # An answer recorded before does not bring it back, though it is in time and well signed.
        there.knows(LAPTOP, status=GOOD)
        there.nonce, there.this_update, there.next_update = None, NOW, NOW + DAY
        asking.clock.now = NOW + 401
        assert await asking.judge(it) is IS_REVOKED
        assert there.asked == 3


async def test_a_responder_that_goes_away_does_not_unsay_what_it_said(asking: Asking) -> None:
    async with responder(CA) as there:
        there.knows(LAPTOP)
        there.next_update = NOW + 400
        it = asking.of(there.url)
        assert await asking.judge(it) == 400.0
        revision, there.status = it.revision, 500
        asking.clock.now = NOW + 301
        assert asking.at_once(it) == 99.0
        await until_asked(there, 2)
        await asyncio.sleep(0.05)
        assert asking.at_once(it) == 99.0 and it.revision == revision
        asking.clock.now += PAUSE_SECONDS
        assert asking.at_once(it) == 97.0
        await until_asked(there, 3)
        await asyncio.sleep(0.05)
        asking.clock.now = NOW + 400
        assert asking.at_once(it) is None
        assert await asking.judge(it) is UNCHECKED
        assert it.revision > revision


async def test_the_first_good_answer_is_no_news(asking: Asking) -> None:
    """Else each new device would have every stream judged anew."""
    async with responder(CA) as there:
        there.knows(LAPTOP)
        there.knows(OTHER, status=REVOKED)
        it = asking.of(there.url)
        revision = it.revision
        await asking.judge(it)
        assert it.revision == revision
        await asking.judge(it, OTHER)
        assert it.revision > revision


async def test_what_ends_while_somebody_waits(asking: Asking) -> None:
    async with hanging() as url:
        it = asking.of(url, deadline=60.0)
        waiting = asyncio.ensure_future(it.judge(LAPTOP.shown, NOW))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(10):
            await it.aclose()
            answer = await waiting
            assert isinstance(answer, Refused) and answer.reason is UNCHECKED
            again = await it.judge(LAPTOP.shown, NOW)
            assert isinstance(again, Refused) and again.reason is UNCHECKED


async def test_what_is_remembered_is_bounded(asking: Asking, tmp_path: Path) -> None:
    async with responder(CA) as there:
        there.knows(LAPTOP)
        settings = OCSPSettings(there.url)
        client = ocsp.OCSPClient(settings, asking.http, asking.clock, lambda: None, most=2)
        for id in ("a", "b", "a", "c"):
            question = ocsp.Question(id, LAPTOP.cert, CA.cert)
            assert await client.ask(question, NOW) == NOW + DAY
        known = {id: client.known(ocsp.Question(id, LAPTOP.cert, CA.cert), NOW) for id in "abc"}
        assert known == {"a": NOW + DAY, "b": None, "c": NOW + DAY}
        assert there.asked == 3
        await client.aclose()


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()],
    ids=["RSA", "Ed25519"],
)
async def test_delegates_with_other_keys(
    asking: Asking, key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
) -> None:
    async with responder(CA) as there:
        there.knows(LAPTOP)
        delegate(there, CA.issue("responder", usage=(OCSP_SIGNING,), key=key))
        assert await asking.judge(asking.of(there.url)) == DAY
