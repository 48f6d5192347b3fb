"""Where the hashes of a tree are among its tiles, and what tiles are called."""

from __future__ import annotations

import pytest

from codeagent.transparency.tiles import Tile, hashes_of, node_in, parse_path, right_edge, tile_of_node, widths
from tests.unit.transparency import reference


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "0/000"),
        (Tile(0, 5, 1), "0/005.p/1"),
        (Tile(1, 1_234_067), "1/x001/x234/067"),
        (Tile(2, 1_000, 255), "2/x001/000.p/255"),
    ],
)
def test_a_tile_has_one_path(tile: Tile, path: str) -> None:
    assert tile.path() == path
    assert parse_path(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "0",
        "0/1",
        "00/000",
        "0/x000/001",
        "0/0000",
        "0/000.p/0",
        "0/000.p/256",
        "0/000.p/01",
        "x/000",
        "0/x001",
        "0/000/",
    ],
)
def test_what_is_no_path_names_no_tile(path: str) -> None:
    assert parse_path(path) is None


def test_the_tiles_of_70_000_leaves_are_those_of_the_specification() -> None:
    assert list(widths(70_000)) == [(0, 70_000), (1, 273), (2, 1)]
    assert list(right_edge(70_000)) == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert list(right_edge(256)) == [Tile(1, 0, 1)]
    assert list(right_edge(0)) == []


def test_a_node_is_found_in_the_tile_of_its_level() -> None:
    leaves = [reference.leaf(bytes([number])) for number in range(256)]
    assert tile_of_node(3, 33) == (0, 1, 8)
    assert node_in(b"".join(leaves), 3, 8) == reference.mth(leaves[8:16])
    assert tile_of_node(8, 257) == (1, 1, 1)
    assert node_in(b"".join(leaves), 8, 1) == leaves[1]
    assert hashes_of(b"".join(leaves)) == leaves
