"""The kinds of value a configuration is made of: how each is written, and what it becomes.

Knows: durations, sizes, origins, networks and their like. Promises: every refusal says what was written and
what to write; nothing is guessed (no `yes` for true, no number without a unit). A kind is an `Annotated`
type, so the models, the messages and the JSON schema cannot drift apart. Leaves relations between values to
`compile`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, time
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ztproxy.config.mistakes import FromEnv, did_you_mean, quoted, wrong
from ztproxy.core.conditions import ascii_lower
from ztproxy.errors import OperatorError

Network = IPv4Network | IPv6Network


class _Listed:
    """Marks a list that may be written as its only entry; empty is refused."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_listed, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        many = handler(schema)
        many["minItems"] = 1
        return {"anyOf": [many["items"], many]}


def _listed(value: Any) -> Any:
    if value == []:
        raise wrong("the list is empty", "write at least one entry or remove the key")
    return value if isinstance(value, list) else [value]


class _OrOff:
    """Marks an optional value for which `off` is written, and means None."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: Any) -> Any:
            return None if is_off(value) else value

        return core_schema.no_info_before_validator_function(read, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        inner = handler(schema)
        inner["anyOf"] = [one for one in inner["anyOf"] if one != {"type": "null"}] + [
            {"enum": ["off", False]}
        ]
        return inner


ONE_OR_MANY = _Listed()
OR_OFF = _OrOff()


class Kind:
    """A kind of value: how it is read, and what an editor is told of it."""

    def __init__(self, parse: Callable[[Any], Any], **schema: Any) -> None:
        self._parse, self._schema = parse, schema

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._parse)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return dict(self._schema)


def text_of(value: object, example: str) -> str:
    """The value as text; a number or a boolean is refused rather than spelled for the operator."""
    if not isinstance(value, str):
        raise wrong(f"{quoted(value)} is not text", f"write it like `{example}`")
    if not value.strip():
        raise wrong("the value is empty", f"write it like `{example}`")
    return str(value)  # a plain one: where it came from matters to messages alone


def _text(value: object) -> str:
    text = _prose(value)
    if "\n" in text:
        raise wrong("the value goes on over a line's end", "write it on one line")
    return text


def _prose(value: object) -> str:
    if isinstance(value, int | float):
        raise wrong(f"{quoted(value)} is not text", f'put it in quotes: `"{str(value).lower()}"`')
    text = text_of(value, "some text")
    if any((ord(char) < 32 and char not in "\n\t") or ord(char) == 127 for char in text):
        raise wrong("the value holds a control character", "remove it")
    return text


def _secret(value: object) -> str:
    # INVARIANT: nothing of the value is in the message, not even where it is of the wrong kind.
    if not isinstance(value, str) or not value or not value.isprintable():
        raise wrong("this is not a secret", 'write text on one line, in quotes: `"..."`')
    return str(value)


def _flag(value: object) -> bool:
    if isinstance(value, FromEnv):
        value = {"true": True, "false": False}.get(str(value), value)
    if not isinstance(value, bool):
        raise wrong(f"{quoted(value)} is not a boolean", "write `true` or `false`")
    return value


def _true(value: object) -> bool:
    if not _flag(value):
        raise wrong("`false` says nothing here", "write `true` or remove the key")
    return True


def _whole(value: object) -> int:
    if isinstance(value, FromEnv) and re.fullmatch(r"[0-9]{1,18}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong(f"{quoted(value)} is not a whole number", "write digits, like `3`")
    if value < 0:
        raise wrong(f"{quoted(value)} is below zero", "write `0` or more")
    return value


def _positive(value: object) -> int:
    number = _whole(value)
    if number == 0:
        raise wrong("`0` is too small", "write `1` or more")
    return number


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,3})?(?:ms|s|m|h|d))+\Z")
_SIZES = {
    "": 1,
    "B": 1,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
}
_SIZE = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB|kB|MB|GB)\Z")


def _duration(value: object) -> float:
    if not isinstance(value, str) or not _DURATION.match(value):
        raise wrong(
            f"{quoted(value)} is not a duration", "write a number and a unit, like `30s`, `5m` or `12h`"
        )
    parts = re.findall(r"([0-9.]+)(ms|[smhd])", value)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds == 0:
        raise wrong(
            f"{quoted(value)} is no time at all", "write a longer one, or `off` where that is allowed"
        )
    return seconds


def _duration_or_off(value: object) -> float | None:
    return None if is_off(value) else _duration(value)


def duration_within(least: str, most: str) -> Kind:
    """A duration from `least` to `most`, both as they would be written."""

    def parse(value: object) -> float:
        seconds = _duration(value)
        if not _duration(least) <= seconds <= _duration(most):
            why = "short" if seconds < _duration(least) else "long"
            raise wrong(f"{quoted(value)} is too {why}", f"write a time from `{least}` to `{most}`")
        return seconds

    return Kind(parse, **_TIME)


def is_off(value: object) -> bool:
    """`off` is a word in YAML 1.2 and no boolean; `false` means the same to anyone who writes it."""
    return value == "off" or value is False


def _size(value: object) -> int:
    found = _SIZE.match(value) if isinstance(value, str) else None
    if found is None:
        raise wrong(f"{quoted(value)} is not a size", "write a number and a unit, like `10MiB` or `64KiB`")
    return int(found[1]) * _SIZES[found[2]]


def size_of_at_least(least: str) -> Kind:
    """A size from `least` on, as it would be written."""

    def parse(value: object) -> int:
        size = _size(value)
        if size < _size(least):
            raise wrong(f"{quoted(value)} is too little", f"write `{least}` or more")
        return size

    return Kind(parse, **_BYTES)


def _size_or_off(value: object) -> int | None:
    return None if is_off(value) else _size(value)


class Address(NamedTuple):
    """Where to listen: `host` and `port`, or a unix socket's `path`."""

    host: str
    port: int
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def too_long_for_a_socket(path: str) -> bool:
    """unix(7): `sun_path` has 108 bytes, with the zero at its end."""
    return len(path.encode("utf-8", "surrogatepass")) > 107


def _address(value: object) -> Address:
    example = "0.0.0.0:8443"
    text = text_of(value, example)
    if text.startswith("unix:"):
        if not text.startswith("unix:/"):
            raise wrong(f"{quoted(value)} is not an absolute path", "write `unix:/run/ztproxy.sock`")
        if too_long_for_a_socket(text[5:]):
            raise wrong(f"{quoted(value)} is too long for a socket", "write `unix:/run/ztproxy.sock`")
        return Address("", 0, text[5:])
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise wrong(f"{quoted(value)} is not an address", f"write `host:port`, like `{example}`")
    try:
        return Address(str(ip_address(host or example.partition(":")[0])), int(port))
    except ValueError:
        if host != "localhost":
            mend = f"write one of this machine's addresses, like `{example}`"
            raise wrong(f"{quoted(host)} is not an IP address", mend) from None
        return Address("127.0.0.1", int(port))


def _address_or_off(value: object) -> Address | None:
    return None if is_off(value) else _address(value)


class Origin(NamedTuple):
    """Scheme, host and port of a URL. `host` is lower-case, may start with `*.` where that is allowed."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        default = 443 if self.scheme == "https" else 80
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == default else f":{self.port}")

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can be meant (RFC 6761 section 6.3 reserves `localhost` and below)."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")


def host_of(text: str) -> str | None:
    """A host name (RFC 1123, lower-cased) or an IP address, else None."""
    host = ascii_lower(text)
    try:
        return str(ip_address(host))
    except ValueError:
        labels = host.split(".")
        numeric = labels[-1].isdigit()  # `1.2.3` would be an address to some parsers
        good = len(host) <= 253 and all(_LABEL.match(label) for label in labels)
        return host if good and not numeric else None


def origin_of(value: object, example: str = "https://app.example.com", wildcard: bool = False) -> Origin:
    """An origin without path, query or login; refuses everything a browser would read differently."""
    text = text_of(value, example)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise wrong(f"{quoted(value)} is not a URL", f"write it like `{example}`") from None
    if parts.scheme not in ("http", "https") or "://" not in text:
        raise wrong(f"{quoted(value)} does not start with `https://`", f"write it like `{example}`")
    if "@" in parts.netloc:
        raise wrong("a login in a URL is not accepted", f"write it like `{example}`")
    if parts.path not in ("", "/") or "?" in text or "#" in text:
        raise wrong(f"{quoted(value)} goes on after the host", "leave out path and query")
    name = parts.hostname or ""
    starred = wildcard and name.startswith("*.")
    host = host_of(name[2:] if starred else name)
    if host is None or (starred and "." not in host):
        if "*" in name:
            mend = "write `*.example.com`" if wildcard else "write the full name"
            raise wrong(f"{quoted(name)} is not a wildcard that is understood", mend)
        raise wrong(
            f"{quoted(name)} is not a host name", f"write it like `{example}`, non-ASCII names as `xn--`"
        )
    if port == 0:
        raise wrong("port `0` cannot be reached", "write the port users see")
    return Origin(
        parts.scheme, f"*.{host}" if starred else host, port or (443 if parts.scheme == "https" else 80)
    )


def origin_argument(name: str, value: str, example: str) -> Origin:
    """An origin from the command line; a mistake is an `OperatorError` that begins with the option."""
    try:
        return origin_of(value, example)
    except PydanticCustomError as error:
        context = error.context or {}
        raise OperatorError(f"{name}: {context['problem']}", context["mend"]) from None


def _from(value: object) -> Origin:
    return origin_of(value, wildcard=True)


def _issuer(value: object) -> str:
    """An issuer is compared byte for byte (OpenID Connect Discovery 4.3), so it is kept as written."""
    example = "https://idp.example.com"
    text = text_of(value, example)
    parts = urlsplit(text)
    if "?" in text or "#" in text:
        raise wrong(f"{quoted(value)} has a query or a fragment", f"write it like `{example}`")
    origin_of(f"{parts.scheme}://{parts.netloc}", example)
    return str(text)


def _networks(value: object) -> Network:
    text = text_of(value, "10.0.0.0/8")
    try:
        network = ip_network(text)
    except ValueError:
        try:
            meant = ip_network(text, strict=False)
        except ValueError:
            raise wrong(f"{quoted(value)} is not a network", "write it like `10.0.0.0/8`") from None
        raise wrong(f"{quoted(value)} has bits after its prefix", f"write `{meant}`") from None
    if network.prefixlen == 0:
        raise wrong(f"{quoted(value)} is the whole world", "name the networks you mean")
    return network


def _zone(value: object) -> ZoneInfo:
    name = text_of(value, "Europe/Berlin")
    try:
        return ZoneInfo(str(name))
    except (LookupError, ValueError, OSError):
        mend = "write an IANA name, like `Europe/Berlin` or `UTC`"
        raise wrong(f"{quoted(value)} is not a time zone", mend) from None


def _clock(value: object) -> time:
    if not isinstance(value, str) or not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value):
        raise wrong(f"{quoted(value)} is not a time of day", "write it like `08:30`")
    return time.fromisoformat(value)


def _date(value: object) -> date:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise wrong(f"{quoted(value)} is not a date", "write it like `2026-12-31`")


DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _days(value: object) -> frozenset[int]:
    """`mon-fri`, `sat`, `fri-mon` (over the week's end), as numbers from 0 (Monday)."""
    text = text_of(value, "mon-fri")
    first, dash, last = text.partition("-")
    for day in (first, last) if dash else (first,):
        if day not in DAYS:
            raise wrong(f"{quoted(day)} is not a day", "write `mon-fri` or a list like `[sat, sun]`")
    start, end = DAYS.index(first), DAYS.index(last if dash else first)
    return frozenset((start + step) % 7 for step in range((end - start) % 7 + 1))


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")


def is_token(text: str) -> bool:
    """RFC 9110 section 5.6.2."""
    return bool(_TOKEN.match(text))


def _method(value: object) -> str:
    text = text_of(value, "PATCH")
    if not is_token(text) or text != text.upper():
        raise wrong(f"{quoted(value)} is not a method", "write it in capitals, like `GET`")
    if text in ("TRACE", "TRACK", "CONNECT"):
        raise wrong(f"`{text}` is never accepted", "remove it")
    return str(text)


def choice(*words: str) -> Kind:
    """One of a closed list of words."""

    def parse(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise wrong(f"{quoted(value)} is not known here", did_you_mean(str(value), words))
        return str(value)

    return Kind(parse, enum=list(words))


_ON = {"type": "boolean"}
_WORDS = {"type": "string", "minLength": 1}
_TIME = {"type": "string", "pattern": r"^((?:[0-9.]+(?:ms|s|m|h|d))+|\$\{.+\})$"}
_BYTES = {"type": "string", "pattern": r"^([0-9]+(?:B|KiB|MiB|GiB|kB|MB|GB)|\$\{.+\})$"}
_URL = {"type": "string", "pattern": r"^(https?://|\$\{)"}
_OFF = {"enum": ["off", False]}
_ENV = {"type": "string", "pattern": r"^\$\{.+\}$"}

Text = Annotated[str, Kind(_text, **_WORDS)]
Prose = Annotated[str, Kind(_prose, **_WORDS)]
SecretText = Annotated[str, Kind(_secret, **_WORDS)]
Flag = Annotated[bool, Kind(_flag, anyOf=[_ON, _ENV])]
OnlyTrue = Annotated[bool, Kind(_true, const=True)]
Whole = Annotated[int, Kind(_whole, anyOf=[{"type": "integer", "minimum": 0}, _ENV])]
Positive = Annotated[int, Kind(_positive, anyOf=[{"type": "integer", "minimum": 1}, _ENV])]
Duration = Annotated[float, Kind(_duration, **_TIME)]
DurationOrOff = Annotated[float | None, Kind(_duration_or_off, anyOf=[_TIME, _OFF])]
Size = Annotated[int, Kind(_size, **_BYTES)]
SizeOrOff = Annotated[int | None, Kind(_size_or_off, anyOf=[_BYTES, _OFF])]
ListenAddress = Annotated[Address, Kind(_address, **_WORDS)]
AddressOrOff = Annotated[Address | None, Kind(_address_or_off, anyOf=[_WORDS, _OFF])]
SiteOrigin = Annotated[Origin, Kind(origin_of, **_URL)]
RouteOrigin = Annotated[Origin, Kind(_from, **_URL)]
Issuer = Annotated[str, Kind(_issuer, **_URL)]
CIDR = Annotated[IPv4Network | IPv6Network, Kind(_networks, **_WORDS)]
Zone = Annotated[ZoneInfo, Kind(_zone, **_WORDS)]
Clock = Annotated[time, Kind(_clock, type="string", pattern=r"^\d\d:\d\d$")]
Day = Annotated[date, Kind(_date, type="string", pattern=r"^\d{4}-\d\d-\d\d$")]
Days = Annotated[frozenset[int], Kind(_days, **_WORDS)]
Method = Annotated[str, Kind(_method, type="string", pattern="^[A-Z]+$")]
