"""The defaults are the wire policy's."""

from ztproxy.wire.limits import Limits


def test_rule_11() -> None:
    limits = Limits()
    assert (limits.first_byte, limits.head_time, limits.keep_alive) == (10.0, 10.0, 75.0)
    assert (limits.body_stall, limits.body_rate, limits.body_rate_after) == (30.0, 1024, 10.0)
    assert limits.write_stall == 60.0
