"""What came before, and that remembering it stays within bounds."""

from ztproxy.wire.repeats import LIMIT, Repeats


def test_the_second_time_is_a_repeat() -> None:
    repeats = Repeats()
    assert [repeats.seen(octets) for octets in (b"a", b"b", b"a", b"a", b"b", b"")] == [
        False,
        False,
        True,
        True,
        True,
        False,
    ]


def test_it_forgets_rather_than_grows() -> None:
    repeats = Repeats()
    for number in range(3 * LIMIT):
        assert not repeats.seen(b"%d" % number)
        assert len(repeats) <= LIMIT
    assert repeats.seen(b"%d" % (3 * LIMIT - 1)) and not repeats.seen(b"0")
