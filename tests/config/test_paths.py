"""Paths of the configuration are read as paths of requests are."""

from __future__ import annotations

import pytest

from ztproxy.config.paths import prefix_segments, segments


@pytest.mark.parametrize(
    ("path", "whole", "prefix"),
    [
        pytest.param("/", ("",), (), id="root"),
        pytest.param("/a", ("a",), ("a",), id="plain"),
        pytest.param("/a/", ("a", ""), ("a",), id="slash-at-the-end"),
        pytest.param("/ü", ("ü",), ("ü",), id="letters"),
        pytest.param("/%C3%BC", ("ü",), ("ü",), id="escapes"),
        pytest.param("/%7Ea b", ("~a b",), ("~a b",), id="space"),
    ],
)
def test_a_path_is_its_decoded_segments(path: str, whole: tuple[str, ...], prefix: tuple[str, ...]) -> None:
    assert segments(path) == whole
    assert prefix_segments(path) == prefix
