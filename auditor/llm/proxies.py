"""Proxies that the environment puts between us and an endpoint."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

NAMES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")


def missing_socks() -> str:
    """What to do about a SOCKS proxy that no client here can talk to; empty if there is none."""
    if importlib.util.find_spec("socksio") is not None:
        return ""
    for name in (written for upper in NAMES for written in (upper, upper.lower())):
        if os.environ.get(name, "").lower().startswith("socks"):
            return f"{name} names a SOCKS proxy, which needs one more package: `pip install socksio`, or unset {name}"
    return ""


def hint(url: str) -> str:
    """Names the proxy in front of `url`, if there is one, to end a message with."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host or proxy_bypass(host):
        return ""
    wanted = (f"{parts.scheme}_proxy", "all_proxy")
    name = next((n for low in wanted for n in (low, low.upper()) if os.environ.get(n)), None)
    if name is None:
        return ""
    if _is_loopback(host):
        return f"; {name} stands in front of it: set NO_PROXY={host}"
    return f"; the way there is through {name}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
