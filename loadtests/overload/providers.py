"""Scenarios of a provider that is away, slow, turns its keys or loses its answers (FI30 to FI34), and of
tokens that make ztproxy ask it.

FI33, clocks that differ, needs another clock than this machine's for a whole process, and so libfaketime. It
is looked at where a clock is an argument: `tests/core/test_claims.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from loadtests.history.http import Answer, Connection, head, read_answer
from loadtests.history.people import begin_sign_in, end_sign_in
from loadtests.overload.house import Asked, Shape
from loadtests.overload.scenario import Scenario, Stage
from tests.worlds.lying_provider import CLIENT_ID, Says, ec_key, rsa_key

_VERIFIED_WITHIN = 4.0
"""Seconds after which the route `checked` has the provider asked again."""

_CHECKED = Shape(
    routes="""\
  - from: https://app.test
    name: checked
    prefix: /checked
    to: http://127.0.0.1:{app}
    policy: [{{allow: {{authenticated: true}}}}]
    sensitivity: {{verified_within: 4s}}
"""
)


class Walk(Connection):
    """The connection of somebody who signs in, with the patience for a slow provider."""

    async def ask(
        self, target: str, cookie: str = "", *, page: bool = False, form: bytes | None = None
    ) -> Answer:
        reader, writer = await self.open()
        async with asyncio.timeout(20):
            writer.write(head(target, cookie, page=page, form=form))
            answer = await read_answer(reader)
        if answer.field("connection").lower() == "close":
            self.close()
        return answer


async def _sign_in(stage: Stage, who: str) -> tuple[str | None, float]:
    """A whole sign-in: the cookie, if there is one, and how long the second half took."""
    walk = Walk(stage.house.port)
    began = time.perf_counter()
    try:
        back = await begin_sign_in(walk, stage.house.provider)
        if back is None:
            return None, time.perf_counter() - began
        began = time.perf_counter()
        return await end_sign_in(walk, stage.house.provider, who, back), time.perf_counter() - began
    except (OSError, EOFError, TimeoutError):
        return None, time.perf_counter() - began
    finally:
        walk.close()


async def _callback_during(stage: Stage, trouble: str) -> tuple[int, float]:
    """The status of a sign-in whose second half falls into that trouble of the provider, and its time."""
    walk, way = Walk(stage.house.port), stage.house.way
    try:
        back = await begin_sign_in(walk, stage.house.provider)
        assert back is not None
        way.reset()
        if trouble == "refuses":
            way.refuse = True
        else:
            way.partition()
        began = time.perf_counter()
        answer = await walk.ask(back[0], cookie=back[1], page=True)
        return answer.status, time.perf_counter() - began
    except (OSError, EOFError, TimeoutError):
        return 0, time.perf_counter() - began
    finally:
        walk.close()
        way.heal()


async def provider_down(stage: Stage) -> None:
    """FI30."""
    cookie, _ = await _sign_in(stage, "wanda")
    stage.promise("signing in works before", cookie is not None, "it does" if cookie else "it does not")
    if cookie is None:
        return
    at = time.perf_counter()
    checked = [(await stage.house.ask("/checked/", cookie)).status]
    for trouble in ("refuses", "is silent"):
        status, took = await _callback_during(stage, trouble)
        stage.promise(f"a sign-in whose provider {trouble}: a page with 502", status == 502, status)
        stage.promise(f"and that within 10 s ({trouble})", took <= 10.5, f"{took:.2f} s", timed=True)
        if trouble == "refuses":
            stage.house.way.refuse = True
            while time.perf_counter() < at + _VERIFIED_WITHIN - 0.7:
                checked.append((await stage.house.ask("/checked/", cookie)).status)
                await asyncio.sleep(0.2)
            await asyncio.sleep(1.5)
            late = await stage.house.ask("/checked/", cookie)
            other = await stage.house.ask("/", cookie)
            stage.house.way.heal()
    stage.promise(
        "a session that has to be renewed is good until then",
        set(checked) == {200},
        f"{len(checked)} requests",
    )
    stage.promise("and is answered 502 or 503 after, not ended", late.status in (502, 503), late.status)
    stage.promise("where no renewal is due it goes on", other.status == 200, other.status)
    again = await stage.until(lambda: _lets_in(stage, "/checked/", cookie), 10)
    stage.promise("it is renewed when the provider is back", again is not None, f"after {again or 0:.1f} s")


async def _lets_in(stage: Stage, target: str, cookie: str) -> bool:
    return (await stage.house.ask(target, cookie)).status == 200


async def provider_slow(stage: Stage) -> None:
    """FI31. Ten people sign in at a provider that takes nine seconds for everything."""
    walks = [Walk(stage.house.port) for _ in range(stage.some(10))]
    backs = [await begin_sign_in(walk, stage.house.provider) for walk in walks]
    stage.house.way.delay = 4.5  # there and back
    began = time.perf_counter()

    async def end(walk: Walk, back: tuple[str, str]) -> bool:
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            return bool(await end_sign_in(walk, stage.house.provider, "walt", back))
        return False

    ended = await asyncio.gather(*(end(w, back) for w, back in zip(walks, backs, strict=True) if back))
    took = time.perf_counter() - began
    stage.house.way.heal()
    for walk in walks:
        walk.close()
    stage.promise(
        "everybody is signed in", all(ended) and len(ended) == len(walks), f"{sum(ended)} of {len(walks)}"
    )
    stage.saw(seconds=round(took, 1))


async def keys_rotated(stage: Stage) -> None:
    """FI32. The provider turns its keys, takes the old one away, and then its key set fails for good."""
    provider = stage.house.provider
    before, _ = await _sign_in(stage, "willa")
    asked = provider.hits["/jwks"]
    new = rsa_key("k3", which="k3")
    provider.keys, provider.signer = [new], new
    turned = [(await _sign_in(stage, f"willa{n}"))[0] for n in range(5)]
    again = provider.hits["/jwks"] - asked
    provider.lie("/jwks", Says(status=500))
    failing = [(await _sign_in(stage, f"wilma{n}"))[0] for n in range(5)]
    provider.keys = [ec_key("other")]  # and a key that nobody has published signs
    provider.signer = rsa_key("k9")
    strange = [(await _sign_in(stage, f"mallory{n}"))[0] for n in range(5)]
    provider.lies.clear()
    stage.promise("signing in works before", before is not None, "it does" if before else "it does not")
    stage.promise(
        "the first sign-in after the turn succeeds",
        turned[0] is not None and all(turned),
        f"{turned.count(None)} of 5 failed",
    )
    stage.promise("and fetched the keys once", again == 1, f"{again} times")
    stage.promise(
        "with the key set failing, the one at hand goes on",
        all(failing),
        f"{failing.count(None)} of 5 failed",
    )
    stage.promise(
        "a key that nobody has published signs nobody in", not any(strange), f"{5 - strange.count(None)} of 5"
    )


async def refresh_answer_lost(stage: Stage) -> None:
    """FI34. The provider renews a session, using its refresh token up, and the answer never arrives."""
    house = stage.house
    cookie, _ = await _sign_in(stage, "wanda")
    if cookie is None:
        stage.promise("signing in works before", False, "it does not")
        return
    await asyncio.sleep(_VERIFIED_WITHIN + 0.5)
    asked = len(house.provider.asked)
    house.way.reset()
    house.way.cut_after = 10
    lost = await house.ask("/checked/", cookie)
    house.way.heal()
    stage.promise("the request whose renewal was lost: 502 or 503", lost.status in (502, 503), lost.status)
    ended = await stage.until(lambda: _ended(stage, cookie), 12)
    used = [form["refresh_token"] for form, _ in house.provider.asked[asked:] if "refresh_token" in form]
    stage.promise("the session ends at the next renewal", ended is not None, f"after {ended or 0:.1f} s")
    stage.promise(
        "its refresh token was shown twice at most", 0 < len(used) <= 2, f"{len(used)} times by one session"
    )
    again, _ = await _sign_in(stage, "wanda")
    stage.promise("signing in again works", bool(again), "it does" if again else "it does not")


async def _ended(stage: Stage, cookie: str) -> bool:
    asked: Asked = await stage.house.ask("/checked/", cookie)
    return asked.status in (302, 401)


async def unknown_keys(stage: Stage) -> None:
    """Forged tokens of a right issuer, each naming a key of its own (J21)."""
    house = stage.house
    asked = house.provider.hits["/jwks"]
    began = time.perf_counter()
    async with stage.attack(
        "flood",
        what="token",
        issuer=house.provider.issuer,
        connections=stage.some(16),
        rate=1000 * stage.effort.share,
    ) as flood:
        await stage.go_on()
    lasted = time.perf_counter() - began
    again = house.provider.hits["/jwks"] - asked
    most = 2 + int(lasted / 30)
    stage.saw(client=CLIENT_ID, tokens=flood.met)
    stage.promise("no forged token is let in", not flood.ended(200), f"{flood.counts}")
    stage.promise(
        "the keys are fetched when first needed, and then once in 30 s",
        0 < again <= most,
        f"{again} times in {lasted:.0f} s",
    )


SCENARIOS = (
    Scenario(
        "provider_down",
        "FI30",
        "the provider refuses, then is silent, while people sign in",
        provider_down,
        _CHECKED,
    ),
    Scenario("provider_slow", "FI31", "10 sign-ins at a provider that takes 9 s to answer", provider_slow),
    Scenario("keys_rotated", "FI32", "16 sign-ins while keys turn and the key set fails", keys_rotated),
    Scenario(
        "refresh_answer_lost",
        "FI34",
        "a renewal that takes effect and is not answered",
        refresh_answer_lost,
        _CHECKED,
    ),
    Scenario("unknown_keys", "J21", "1,000 forged tokens/s, each naming another key", unknown_keys),
)
