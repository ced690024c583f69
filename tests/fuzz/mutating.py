"""The twins' inputs: a corpus entry with a few edits, two of them joined, or plain octets.

libFuzzer finds more, but only where it is installed; this is the same idea for hypothesis, which runs
everywhere and shrinks what it finds.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

Edit = tuple[float, int, bytes]
"""Where (as a part of the whole), how many octets go, and what comes in their place."""


def inputs(corpus: Sequence[bytes], words: Sequence[bytes], longest: int) -> st.SearchStrategy[bytes]:
    known = st.sampled_from(list(corpus))
    place = st.floats(0, 1, exclude_max=True)
    few = st.binary(max_size=4) | (st.sampled_from(list(words)) if words else st.just(b""))
    edits = st.lists(st.tuples(place, st.integers(0, 8), few | known), min_size=1, max_size=4)
    joined = st.tuples(known, place, known, place).map(_joined)
    return st.one_of(
        st.tuples(known, edits).map(lambda pair: _edited(*pair)),
        joined,
        st.binary(max_size=60),
    ).map(lambda data: data[:longest])


def _edited(data: bytes, edits: Sequence[Edit]) -> bytes:
    for part, gone, instead in edits:
        at = int(part * (len(data) + 1))
        data = data[:at] + instead + data[at + gone :]
    return data


def _joined(halves: tuple[bytes, float, bytes, float]) -> bytes:
    first, upto, second, since = halves
    return first[: int(upto * (len(first) + 1))] + second[int(since * (len(second) + 1)) :]
