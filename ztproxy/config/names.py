"""The kinds of value that name somebody or something: people, hosts, certificates, services.

Promises: as `values`. A name that could be read in two ways, or that would match nothing, is refused with
what to write instead.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from ipaddress import ip_address
from typing import Annotated

from ztproxy.config.mistakes import quoted, wrong
from ztproxy.config.values import ONE_OR_MANY, Kind, Text, host_of, origin_of, text_of
from ztproxy.core.conditions import ascii_lower
from ztproxy.core.spiffe import valid_pattern


def _email(value: object) -> str:
    text = ascii_lower(text_of(value, "alice@example.com"))
    if "*" in text:
        raise wrong(f"{quoted(value)}: a `*` means nothing here", "write `domain: example.com`")
    local, at, domain = text.rpartition("@")
    if not at or not local or "@" in local or not text.isascii() or host_of(domain) is None:
        raise wrong(f"{quoted(value)} is not an e-mail address", "write it like `alice@example.com`")
    return text


def _domain(value: object) -> str:
    text = text_of(value, "example.com")
    if "*" in text or text.startswith((".", "@")):
        bare = text.lstrip("*.@") or "example.com"
        raise wrong(f"{quoted(value)} is not a domain", f"write `{bare}`, and each sub-domain of its own")
    domain = host_of(text)
    if domain is None:
        raise wrong(
            f"{quoted(value)} is not a domain", "write it like `example.com`, non-ASCII names as `xn--`"
        )
    return domain


def _named_host(value: object) -> str:
    """A host as clients name it in the handshake (RFC 6066 section 3: never an address)."""
    text = text_of(value, "finance.example.com")
    starred = text.startswith("*.")
    host = host_of(text[2:] if starred else text)
    if host is None:
        mend = "write it like `finance.example.com` or `*.example.com`, without a port"
        raise wrong(f"{quoted(value)} is not a host name", mend)
    try:
        ip_address(host)
    except ValueError:
        return f"*.{host}" if starred else host
    raise wrong(f"{quoted(value)}: a client that connects to an address names no host", "write its name")


def short_name(of: str) -> Kind:
    """What a part of the configuration is called by others; `of` is what it is, with its article."""

    def parse(value: object) -> str:
        text = text_of(value, "corp")
        if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?", text):
            raise wrong(
                f"{quoted(value)} is not a name for {of}", "write small letters, digits and `-`, like `corp`"
            )
        return text

    return Kind(parse, type="string", minLength=1)


def _digest(value: object, shown_by: str) -> str:
    """A SHA-256 digest as x5t#S256 has it (RFC 8705 section 3.1): base64url without padding. Written in hex
    with or without colons, or in base64 of either alphabet."""
    text = re.sub(r"\Asha256//?", "", text_of(value, "5E:88:48:98:..."))
    if re.fullmatch(r"[0-9a-fA-F]{2}(?::?[0-9a-fA-F]{2}){31}", text):
        return urlsafe_b64encode(bytes.fromhex(text.replace(":", ""))).rstrip(b"=").decode()
    bare = text.replace("+", "-").replace("/", "_").removesuffix("=")
    if re.fullmatch(r"[A-Za-z0-9_-]{43}", bare):
        again = urlsafe_b64encode(urlsafe_b64decode(f"{bare}=")).rstrip(b"=").decode()
        if again == bare:
            return bare
    raise wrong(f"{quoted(value)} is not a SHA-256 digest", shown_by)


def _fingerprint(value: object) -> str:
    return _digest(value, "`openssl x509 -noout -fingerprint -sha256 -in FILE` shows it")


def _key_pin(value: object) -> str:
    way = "openssl x509 -noout -pubkey -in FILE | openssl pkey -pubin -outform der | openssl dgst -sha256"
    return _digest(value, f"`{way}` shows it")


def _distinguished(value: object) -> str:
    """A name as RFC 4514 writes it; OpenSSL's own two spellings would never be equal to one."""
    text = text_of(value, "CN=laptop-7,O=Corp")
    if "=" not in text or text.startswith("/") or re.match(r"[^,]* = ", text):
        mend = (
            "write it like `CN=laptop-7,O=Corp`; `openssl x509 -noout -subject -issuer -nameopt rfc2253` does"
        )
        raise wrong(f"{quoted(value)} is not a name as RFC 4514 writes it", mend)
    return text


def _spiffe(value: object) -> str:
    text = text_of(value, "spiffe://example.com/ci/builder")
    if not valid_pattern(text):
        mend = (
            "write it like `spiffe://example.com/ci/builder`, or `spiffe://example.com/ci/*` for all beneath"
        )
        raise wrong(f"{quoted(value)} is not a SPIFFE ID", mend)
    return text


def _trust_domain(value: object) -> str:
    text = text_of(value, "example.com")
    if not re.fullmatch(r"[a-z0-9._-]{1,255}", text):
        raise wrong(f"{quoted(value)} is not a trust domain", "write it like `example.com`, in small letters")
    return text


def _url(value: object) -> str:
    example = "https://keys.example.com/jwks.json"
    text = text_of(value, example)
    found = re.match(r"https?://[^/?#]*", text)
    origin_of(found[0] if found else text, example)
    if "#" in text or not re.fullmatch(r"[\x21-\x7e]*", text):
        raise wrong(f"{quoted(value)} is not a URL that can be asked", f"write it like `{example}`")
    return text


_WORDS = {"type": "string", "minLength": 1}

Texts = Annotated[list[Text], ONE_OR_MANY]
Email = Annotated[str, Kind(_email, type="string", pattern="@|^\\$")]
Domain = Annotated[str, Kind(_domain, **_WORDS)]
NamedHost = Annotated[str, Kind(_named_host, **_WORDS)]
Fingerprint = Annotated[str, Kind(_fingerprint, **_WORDS)]
KeyPin = Annotated[str, Kind(_key_pin, **_WORDS)]
DistinguishedName = Annotated[str, Kind(_distinguished, **_WORDS)]
SPIFFEPattern = Annotated[str, Kind(_spiffe, type="string", pattern=r"^(spiffe://|\$\{)")]
TrustDomain = Annotated[str, Kind(_trust_domain, **_WORDS)]
URL = Annotated[str, Kind(_url, type="string", pattern=r"^(https?://|\$\{)")]
