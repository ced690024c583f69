"""Paths as an operator writes them, as the decoded segments the core compares.

Promises: a path of the configuration goes through the very normalisation a request goes through, so what the
policy names is what requests are. Non-ASCII letters may be written plainly or as escapes; they mean the same.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from ztproxy.config.mistakes import quoted, wrong
from ztproxy.config.values import Kind, text_of
from ztproxy.core.normalise import canonical_path
from ztproxy.core.reasons import Reason


def segments(path: str) -> tuple[str, ...]:
    """The reading of a checked path: `/a/` is `("a", "")`, `/` is `("",)`."""
    canonical = canonical_path(_raw(path))
    assert not isinstance(canonical, Reason), path
    return canonical.readings[0]


def prefix_segments(path: str) -> tuple[str, ...]:
    """The same without the empty end, as prefixes are compared: `/a/` is `("a",)`, `/` is `()`."""
    found = segments(path)
    return found[:-1] if found[-1] == "" else found


def _raw(path: str) -> bytes:
    return quote(path, safe="/%:@!$&'()*+,;=-._~?#[]\\").encode("ascii")


def _path(value: object) -> str:
    text = text_of(value, "/admin")
    if not text.startswith("/"):
        raise wrong(f"{quoted(value)} is not a path", "start it with `/`")
    if "*" in text:
        mend = f"write `prefix: {text.partition('*')[0].rstrip('/') or '/'}` for everything beneath a path"
        raise wrong(f"{quoted(value)}: a `*` in a path means nothing here", mend)
    if "?" in text or "#" in text:
        raise wrong(f"{quoted(value)} has a query or a fragment", "paths alone are compared; leave it out")
    canonical = canonical_path(_raw(text))
    if isinstance(canonical, Reason) or len(canonical.readings) > 1:
        problem = f"{quoted(value)} could be read in more than one way"
        mend = "leave out empty segments, dot segments, `;`, `\\`, and escapes of `/`, `?` and `%`"
        raise wrong(problem, mend)
    return str(text)


PathText = Annotated[str, Kind(_path, type="string", pattern="^(/|\\$\\{)")]
