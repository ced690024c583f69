"""Secrets stay secret, whatever is done with them."""

from __future__ import annotations

import copy
import pickle

import pytest

from tests.config.words import PROVIDER, settings, site
from ztproxy.config.settings import Secret


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{0!r}".format], ids=["repr", "str", "format", "r"])
def test_a_secret_does_not_show_itself(show: object) -> None:
    assert callable(show)
    assert show(Secret("hunter2")) == "Secret(...)"


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_a_secret_is_not_written_down(way: object) -> None:
    assert callable(way)
    with pytest.raises(TypeError, match="not written down"):
        way(Secret("hunter2"))


def test_a_secret_is_compared_by_what_it_is() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("a").reveal() == "a"


def test_settings_show_no_secret() -> None:
    text = site("state: redis://:hunter2@h/0", provider=f"{PROVIDER[:-1]}, client_secret: hunter2}}")
    assert "hunter2" not in repr(settings(text))


def test_settings_cannot_be_changed() -> None:
    found = settings(site())
    with pytest.raises(AttributeError):
        found.drain = 1.0  # type: ignore[misc]
