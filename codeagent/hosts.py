"""Which hosts a command may be let reach: a name, or all names below one, each with a port.

Names and no addresses: what a name stands for is looked at when it is dialled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

DEFAULT_PORT = 443
MOST_HOSTS = 50
"""Of one list."""
LONGEST_HOST = 260
"""Characters of one entry, its port among them."""

_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
# The last label begins with a letter: no spelling of an address does, not even hexadecimal or shortened ones.
_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)+(?=[a-z]){_LABEL}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_OF_THE_MACHINE = ("localhost", "localdomain")
_METADATA = ("metadata.google.internal", "instance-data.ec2.internal", "metadata.goog")
_PRIVATE = ("corp", "home", "home.arpa", "internal", "intranet", "lan", "local", "private")


def is_name(text: str) -> bool:
    """Whether it is a host's full name in lower case, and nothing that stands for an address."""
    return _NAME.fullmatch(text) is not None


def listed(text: str) -> str:
    """An entry of a list of hosts as `name:port`, in lower case; `*.name:port` stands for every name below that one,
    and not for itself. Raises `ValueError` for addresses, for names of the machine itself and of metadata services, and
    for a `*` before what only a private network knows."""
    name, colon, port = text.lower().partition(":")
    plain = name.removeprefix("*.")
    if not is_name(plain):
        raise ValueError("it should be a host's full name, or *. and one, with or without a port")
    if colon and not (_PORT.fullmatch(port) and int(port) <= 65_535):
        raise ValueError("a port is a number from 1 to 65535")
    if _is_below(plain, _OF_THE_MACHINE) or _is_below(plain, _METADATA):
        raise ValueError("the machine itself and metadata services cannot be reached")
    if name != plain and _is_below(plain, _PRIVATE):
        raise ValueError("names of a private network are listed one by one")
    return f"{name}:{port or DEFAULT_PORT}"


def covers(entry: str, other: str) -> bool:
    """Whether an entry lets reach all that another one does."""
    (name, _, port), (asked, _, asked_port) = entry.rpartition(":"), other.rpartition(":")
    if entry == other:
        return True
    return name.startswith("*.") and port == asked_port and asked.removeprefix("*").endswith(name[1:])


def within(asked: Iterable[str], allowed: Iterable[str]) -> tuple[str, ...]:
    """What both lists let reach, sorted."""
    bounds = tuple(allowed)
    both: set[str] = set()
    for entry in asked:
        if any(covers(bound, entry) for bound in bounds):
            both.add(entry)
        else:
            both |= {bound for bound in bounds if covers(entry, bound)}
    return tuple(sorted(both))


def patterns_for(host: str, port: int) -> Iterable[str]:
    """The entries with a `*` that would let this host be reached, the most telling one first."""
    _, dot, rest = host.partition(".")
    while dot:
        yield f"*.{rest}:{port}"
        _, dot, rest = rest.partition(".")


def _is_below(name: str, tops: Iterable[str]) -> bool:
    return any(name == top or name.endswith(f".{top}") for top in tops)
