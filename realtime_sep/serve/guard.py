"""Who may connect: names that the server answers to, web pages that may use it, and the token.

A web page can make a browser connect to this machine.  It cannot forge the header `Origin`, nor
`Host` when its name is made to point here (DNS rebinding); so both are checked.  Programs send no
`Origin`, and are not asked for any.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Whether an address to listen at can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def allowed_host(header: str | None, listening: str) -> bool:
    """Whether a request's `Host` is one of ours.

    Loopback has its names; beyond that an address is fine, since only names can be rebound, and so
    is the name that the server was told to listen at.
    """
    host = _host(f"//{header}") if header else None
    if host is None:
        return False
    if host in LOOPBACK or host == listening.lower():
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return not is_loopback(listening)


def allowed_origin(header: str | None, origins: Collection[str]) -> bool:
    """Whether a request is from no web page, or from one that was allowed."""
    return header is None or header.lower() in {origin.lower().rstrip("/") for origin in origins}


def allowed_token(given: str, expected: str | None) -> bool:
    """Whether a client knows the token, where there is one; takes no longer if it nearly does."""
    return expected is None or hmac.compare_digest(given.encode(), expected.encode())


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
