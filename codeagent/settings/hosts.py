"""What the addresses in settings name."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import parse_qs, unquote, urlsplit


def password_of(url: str) -> str:
    """The password in a database's address; empty where there is none."""
    parts = urlsplit(url)
    inside = parts.netloc.rpartition("@")[0].partition(":")[2]
    return unquote(inside) or parse_qs(parts.query).get("password", [""])[-1]


def hosts_of(url: str) -> list[str]:
    """The hosts that a database's address names; none for a Unix socket."""
    parts = urlsplit(url)
    named = parts.netloc.rpartition("@")[2].split(",") + parse_qs(parts.query).get("host", [])
    bare = [text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0] for text in named]
    return [host for host in bare if host]


def is_local(host: str) -> bool:
    """Whether nothing leaves the machine on the way to a host."""
    if not host or host.startswith("/") or host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
