"""The short-lived cookies that tie a flow to the browser it began in: named, counted and replaced.

Knows: how many flows one browser may have under way. Promises: sign-ins from several tabs do not disturb one
another, cookies never pile up (mod_auth_openidc #53, #113), and a loop of redirects stops by itself (F22).
Leaves setting and clearing them (`HttpOnly; Secure; SameSite=Lax; Path=/`) to the portal.

The rule: a browser that began five flows within the last minute is told so (`LOGIN_TOO_MANY`; a page with a
button for a person to press, which is `by_hand`); otherwise the oldest gives way to the newest. The number
before the dot is when the flow began; the browser could forge it, but only to disturb itself.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping

from ztproxy.core.reasons import Reason
from ztproxy.errors import ClientError

SIGN_IN_COOKIE = "__Host-ztp_tx_"
TICKET_COOKIE = "__Host-ztp_tk_"
COOKIE_AGE = (
    3600  # seconds; longer than the flow, so that a late answer is told "too late" and not "not yours"
)
MAX_PARALLEL = 5
LOOP_WINDOW = 60.0


def new_secret(randomness: Callable[[int], bytes]) -> str:
    """256 bits, base64url: 43 characters, which is also the least a PKCE verifier may have (RFC 7636 4.1)."""
    return urlsafe_b64encode(randomness(32)).rstrip(b"=").decode()


def cookie_name(prefix: str, digest: str) -> str:
    """The cookie of one flow, by the first 8 hexadecimal digits of a SHA-256."""
    return prefix + digest[:8]


def cookie_value(secret: str, now: float) -> str:
    return f"{int(now)}.{secret}"


def secret_in(value: str | None) -> str:
    """The secret a flow's cookie holds; empty, which no flow has, where there is none."""
    return "" if value is None else value.partition(".")[2]


def make_room(prefix: str, cookies: Mapping[str, str], now: float, by_hand: bool) -> tuple[str, ...]:
    """The names of the cookies to clear so that one more flow fits. Raises `ClientError(LOGIN_TOO_MANY)`."""
    begun = sorted((_began(value), name) for name, value in cookies.items() if name.startswith(prefix))
    lately = [name for when, name in begun if now - LOOP_WINDOW < when]
    if len(lately) >= MAX_PARALLEL and not by_hand:
        raise ClientError(Reason.LOGIN_TOO_MANY, "loop: five flows within a minute")
    return tuple(name for _, name in begun[: max(0, len(begun) - MAX_PARALLEL + 1)])


def _began(value: str) -> int:
    digits = value.partition(".")[0]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 12 else 0
