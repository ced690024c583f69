"""What operators write: configurations, policies, SPIFFE patterns, and files of devices."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import urlsplit

from tests.config.words import FILE, site
from tests.core.words import asked, session
from ztproxy.adapters.device_codec import pack_device, unpack_device
from ztproxy.config import ConfigErrors, Settings, parse
from ztproxy.core import spiffe as ids
from ztproxy.core.conditions import Holds, Needs
from ztproxy.core.device import DEVICE_ID, KNOWN_FACTS
from ztproxy.core.device_files import read_csv, read_json
from ztproxy.core.device_rows import MOST_NAMED, BadRow, devices_of
from ztproxy.core.policy import Effect
from ztproxy.errors import OperatorError

SECRET = "hunter2-fixture-secret"
ENVIRONMENT = {"SECRET": SECRET, "ISSUER": "https://idp.test", "STATE": f"redis://:{SECRET}@db:6379"}


def _load(text: bytes) -> Settings | None:
    """The settings, or None; a mistake is an operator's, with its line, and shows nobody's secret."""
    try:
        settings = parse(text, FILE, ENVIRONMENT, look=False)
    except ConfigErrors as wrong:
        assert wrong.errors
        lines = len(re.findall("\n|\r|\x85|\u2028|\u2029", text.decode("utf-8", "replace"))) + 1
        for error in wrong.errors:
            assert isinstance(error, OperatorError) and error.problem and error.place is not None
            assert error.place.line <= lines, "a mistake behind the end of the file"
            assert len(str(error)) < 3000 + 2 * len(text)
        _keeps_secrets(text, str(wrong))
        return None
    _keeps_secrets(text, "".join(settings.warnings))
    return settings


def _keeps_secrets(text: bytes, said: str) -> None:
    assert SECRET not in said or SECRET.encode() in text, "a secret from the environment is shown"


def config(data: bytes) -> None:
    """Settings, or every mistake with its line; no secret in either."""
    settings = _load(data)
    if settings is None:
        return
    assert settings.routes.routes and settings.listeners


_PEOPLE = (None, session(), session("staff", "admin", rank=3))


def policy(data: bytes) -> None:
    """Whatever loads answers everybody, a deny that holds outweighs every allow, and `explain` agrees."""
    text = data.decode("utf-8", "replace")
    rules = "\n".join(f"      {line}" for line in text.split("\n"))
    whole = site(
        routes=f"routes:\n  - from: https://app.test\n    to: http://127.0.0.1:1\n    policy:\n{rules}"
    )
    settings = _load(whole.encode())
    if settings is None:
        return
    for route in settings.routes.routes:
        for who in _PEOPLE:
            facts = asked(who)
            verdict = route.policy.ask(facts)
            told = route.policy.explain(facts)
            allowed = any(rule.effect is Effect.ALLOW and isinstance(truth, Holds) for rule, truth in told)
            denied = any(rule.effect is Effect.DENY and isinstance(truth, Holds) for rule, truth in told)
            waiting = any(isinstance(truth, Needs) for _, truth in told)
            assert not (denied and isinstance(verdict, Holds)), "a deny rule that holds is outweighed"
            assert isinstance(verdict, Holds) <= allowed and (not isinstance(verdict, Needs) or waiting)
            if isinstance(verdict, Holds):
                route.policy.grant(facts)


def spiffe(data: bytes) -> None:
    """One spelling of an ID; a pattern names IDs by whole segments."""
    text = data.decode("utf-8", "surrogateescape")
    found = ids.parse(text)
    if found is not None:
        assert "spiffe://" + "/".join((found.trust_domain, *found.path)) == text
        parts = urlsplit(text)
        assert (parts.scheme, parts.netloc) == ("spiffe", found.trust_domain) and parts.path[0] == "/"
        assert not parts.query and not parts.fragment and not {"", ".", ".."} & set(found.path)
        assert ids.matches(text, text)
        assert ids.matches(f"spiffe://{found.trust_domain}/*", text)
        assert not ids.matches(f"{text}/*", text) and ids.matches(f"{text}/*", f"{text}/a")
        assert not ids.matches(f"{text}/*", f"{text}a") and not ids.matches(text, text + "/")
    if ids.valid_pattern(text) and text.endswith("/*"):
        assert not ids.matches(text, text[:-2]) and ids.matches(text, text[:-1] + "x/y")


def device_files(data: bytes) -> None:
    """As CSV and as JSON: every row or a place and a mend; what was read comes back from the store."""
    for read in (read_csv, read_json):
        try:
            placed = read(data)
        except BadRow as wrong:
            assert str(wrong) and len(str(wrong)) < 400, str(wrong)
            continue
        found = devices_of(placed, KNOWN_FACTS, "import", 1_750_000_000.0)
        assert len(found.rows) <= len(placed) <= len(data) and len(found.mistakes) <= MOST_NAMED
        for mistake in found.mistakes:
            assert re.match(r"(line|item) \d+\Z", mistake.place) and len(str(mistake)) < 2000, mistake
        if found.mistakes:
            continue
        assert len({row.id for row in found.rows}) == len(found.rows) == len(placed)
        for row in found.rows:
            device = row.onto(None, 5.0)
            assert DEVICE_ID.fullmatch(device.id) and row.onto(device, 9.0) == device, "twice is not once"
            stored = unpack_device(pack_device(device), device.id, 0)
            assert stored == replace(device, revision=0)
