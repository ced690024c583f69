"""Whom a load test may load: this machine, and others only where somebody says that they are theirs."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from urllib.parse import urlsplit


def is_this_machine(url: str) -> bool:
    """Whether every address of the URL's host is loopback; `*.localhost` is by definition (RFC 6761 6.3)."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        addresses = {str(one[4][0]) for one in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(addresses) and all(ip_address(address).is_loopback for address in addresses)


def refusal(url: str, own: bool, cookie: str) -> str:
    """Why this target is not loaded; empty when it may be."""
    if not is_this_machine(url) and not own:
        return f"`{url}` is not this machine; if it is yours, say ZTPROXY_I_OWN_THIS_TARGET=yes"
    if not cookie:
        return "there is no session; see README.md for ZTPROXY_COOKIE"
    return ""
