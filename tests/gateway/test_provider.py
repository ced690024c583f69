from collections.abc import AsyncIterator

import pytest

from tests.worlds.signing_in import Stage, stage
from ztproxy.core.claims import Expectation
from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError
from ztproxy.gateway.ports import Tokens


@pytest.fixture
async def on() -> AsyncIterator[Stage]:
    async with stage(userinfo=True) as built:
        yield built


async def test_tokens_without_an_id_token_vouch_for_nobody(on: Stage) -> None:
    provider = on.sign_in._providers["op"]
    with pytest.raises(ClientError) as refused:
        await provider.vouch(Tokens(None, "at"), Expectation(nonce=None), on.clock)
    assert refused.value.reason is Reason.LOGIN_TOKEN
    assert not on.worlds["op"].hits


async def test_the_clock_is_read_after_each_answer(on: Stage) -> None:
    """A token that was good before the wait for userinfo and is not after it vouches for nobody."""
    provider, world = on.sign_in._providers["op"], on.worlds["op"]
    token = world.id_token(None)
    times = iter([on.clock.now, on.clock.now + 360])
    with pytest.raises(ClientError, match="exp"):
        await provider.vouch(Tokens(token, "at"), Expectation(nonce=None), lambda: next(times))
    assert world.hits["/userinfo"] == 1
