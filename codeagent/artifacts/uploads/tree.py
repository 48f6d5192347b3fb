"""The tree an archive describes, held in memory by name alone, and the question whether its links leave it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from codeagent.artifacts.uploads.limits import ArchiveLimits, refused, too_many_entries
from codeagent.artifacts.uploads.paths import shown, stays_inside

_MOST_HOPS = 40
"""Links passed on the way to one file, as Linux allows them."""


@dataclass(slots=True, eq=False)
class Node:
    """A directory has `children`, a symbolic link a `target`; anything else is a file in the spool."""

    name: str
    parent: Node | None
    children: dict[str, Node] | None = None
    target: str | None = None
    executable: bool = False
    offset: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a link leads: below `node` by `missing` names that do not exist, after `hops` links."""

    node: Node
    missing: int
    hops: int


class Tree:
    """Grows entry by entry; directories nobody mentioned are there as well. Every method may raise `Rejected`."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._root = Node("", None, children={})
        self._count = 0
        self._places: dict[Node, _Place | None] = {}

    def add_directory(self, parts: tuple[str, ...]) -> None:
        """Saying it twice says nothing new."""
        self._directory(parts, wanted=parts)

    def add(self, parts: tuple[str, ...], node: Node) -> None:
        """Places a file or a link, once."""
        if not parts:
            raise refused("archive_path_outside", "the top of the archive is not a directory")
        parent, children = self._directory(parts[:-1], wanted=parts)
        node.name, node.parent = parts[-1], parent
        if node.name in children:
            raise _duplicate(parts)
        children[node.name] = self._counted(node)

    def _directory(self, parts: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[Node, dict[str, Node]]:
        """The directory at `parts` and its children, made if it is missing, on the way to `wanted`."""
        here, children = self._root, _children(self._root)
        for depth, name in enumerate(parts, start=1):
            found = children.get(name)
            if found is None:
                found = children[name] = self._counted(Node(name, here, children={}))
            if found.target is not None and depth < len(wanted):
                raise refused("archive_link_outside", f"an entry is placed behind a link: {shown('/'.join(wanted))}")
            if found.children is None:
                raise _duplicate(parts[:depth])
            here, children = found, found.children
        return here, children

    def _counted(self, node: Node) -> Node:
        self._count += 1
        if self._count > self._limits.entries:
            raise too_many_entries(self._limits)
        return node

    def leaf(self, parts: tuple[str, ...]) -> Node | None:
        """The file or link that is at `parts` so far; links on the way are not followed."""
        here: Node | None = self._root
        for name in parts:
            here = None if here is None or here.children is None else here.children.get(name)
        return None if here is None or here.children is not None else here

    def entries(self) -> Iterator[tuple[str, Node]]:
        """All nodes with their paths, in no particular order, a directory before what is in it."""
        pending = [("", self._root)]
        while pending:
            path, node = pending.pop()
            for child in _children(node).values():
                below = f"{path}/{child.name}" if path else child.name
                yield below, child
                if child.children is not None:
                    pending.append((below, child))

    def check_links(self) -> None:
        """Raises `Rejected` (`archive_link_outside`) if a link leaves the tree, by its text or through other links."""
        for path, node in self.entries():
            if node.target is None:
                continue
            inside = stays_inside(tuple(path.split("/")), node.target, self._limits)
            if not inside or self._followed(node, depth=1) is None:
                raise refused("archive_link_outside", f"a link leaves the archive or leads in circles: {shown(path)}")

    def _followed(self, link: Node, depth: int) -> _Place | None:
        """Where `link` leads in the end; None when that is outside or nowhere."""
        if link not in self._places:
            self._places[link] = None  # what a link meets again while it is followed is a circle
            if depth <= _MOST_HOPS:
                self._places[link] = self._walked(link, depth)
        return self._places[link]

    def _walked(self, link: Node, depth: int) -> _Place | None:
        here, missing, hops = link.parent, 0, 1
        for name in (link.target or "").split("/"):
            if here is None:
                return None
            if name in ("", "."):
                continue
            if name == "..":
                here, missing = (here, missing - 1) if missing else (here.parent, 0)
                continue
            found = None if missing or here.children is None else here.children.get(name)
            if found is None:
                missing += 1
            elif found.target is None:
                here = found
            else:
                place = self._followed(found, depth + 1)
                if place is None or hops + place.hops > _MOST_HOPS:
                    return None
                here, missing, hops = place.node, place.missing, hops + place.hops
        return None if here is None else _Place(here, missing, hops)


def _children(node: Node) -> dict[str, Node]:
    assert node.children is not None, "a directory"
    return node.children


def _duplicate(parts: tuple[str, ...]) -> Exception:
    return refused("archive_duplicate", f"a path is there twice: {shown('/'.join(parts))}")
