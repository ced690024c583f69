"""Is this return URL ours? The open-redirect rule, in one place.

Knows: what a browser makes of a `Location`. Promises: an accepted value, put behind this site's origin, stays
on this site in every browser (T29; oauth2-proxy CVE-2020-5233 and its four successors), and is a path that we
would serve. Leaves to the caller: putting the route's own origin in front of it.
"""

from __future__ import annotations

import re

from ztproxy.core.paths import canonical_path, is_own
from ztproxy.core.reasons import Reason
from ztproxy.core.request import Ambiguity

HOME = "/"
_LONGEST = 2048
# Printable ASCII without space, `#` and `\`; not `//`, which names another host.
_GRAMMAR = re.compile(r"/(?!/)(?:[\x21\x22\x24\x26-\x5b\x5d-\x7e]|%[0-9A-Fa-f]{2})*")
_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
# To a browser both are letters of a path. Whether a path may hold them its route says, when it is asked.
# INVARIANT: never an empty segment: a `/%2Fevil.test` that somebody decodes names another host.
_TOLERABLE = frozenset({Ambiguity.PATH_PARAMETER, Ambiguity.ENCODED_SLASH})


def safe_return(value: str) -> str:
    """The value itself when it is a path (and query) of this site, `/` for anything else; never an error."""
    if len(value) > _LONGEST or not _GRAMMAR.fullmatch(value) or not _escapes_are_utf8(value):
        return HOME
    path = canonical_path(value.partition("?")[0].encode("ascii"))
    if isinstance(path, Reason) or not path.ambiguities <= _TOLERABLE or is_own(path):
        return HOME
    return value


def _escapes_are_utf8(value: str) -> bool:
    for run in _ESCAPES.findall(value):
        try:
            bytes.fromhex(run.replace("%", "")).decode()
        except UnicodeDecodeError:
            return False
    return True
