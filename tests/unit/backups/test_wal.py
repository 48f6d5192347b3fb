"""Which segments of an archive can be replayed one after the other, over timelines too."""

from __future__ import annotations

from pathlib import Path

import pytest

from codeagent.backups.wal import Segment, Timeline, WalArchive, covered, parse_position

SIZE = 16 << 20
FIRST = Timeline(1)
SECOND = Timeline(2, ((1, 5 * SIZE + 100),))
THIRD = Timeline(3, ((1, 5 * SIZE + 100), (2, 7 * SIZE)))


def segments(*pairs: tuple[int, int]) -> set[Segment]:
    return {Segment(*pair) for pair in pairs}


@pytest.mark.parametrize(
    ("segment", "size", "name"),
    [
        (Segment(1, 1), SIZE, "000000010000000000000001"),
        (Segment(1, 256), SIZE, "000000010000000100000000"),
        (Segment(0x1A, 0x2FF), SIZE, "0000001A00000002000000FF"),
        (Segment(1, 4), 1 << 30, "000000010000000100000000"),
    ],
)
def test_a_segment_is_named_as_postgresql_names_it(segment: Segment, size: int, name: str) -> None:
    assert segment.name(size) == name
    assert Segment.named(name, size) == segment


@pytest.mark.parametrize(
    "name", ["00000002.history", "000000010000000000000003.partial", "000000010000000000000002.00000028.backup", "lock"]
)
def test_other_files_of_an_archive_are_no_segments(name: str) -> None:
    assert Segment.named(name, SIZE) is None


def test_a_place_is_a_number() -> None:
    assert parse_position("1/3000148") == (1 << 32) + 0x3000148


def test_segments_are_covered_up_to_the_first_that_is_missing() -> None:
    there = segments((1, 2), (1, 3), (1, 4), (1, 6), (1, 7))
    found = covered(3, FIRST, there, SIZE)
    assert (found.last, found.missing, found.beyond) == (Segment(1, 4), Segment(1, 5), 2)
    found = covered(6, FIRST, there, SIZE)
    assert (found.last, found.missing, found.beyond) == (Segment(1, 7), Segment(1, 8), 0)
    assert covered(9, FIRST, there, SIZE).last is None


def test_a_timeline_goes_on_where_it_left_the_one_before() -> None:
    there = segments((1, 4), (1, 5), (1, 6), (1, 7), (2, 5), (2, 6))
    found = covered(4, SECOND, there, SIZE)
    assert (found.last, found.missing, found.beyond) == (Segment(2, 6), Segment(2, 7), 0)
    assert covered(4, FIRST, there, SIZE).last == Segment(1, 7)


def test_the_segment_in_which_it_left_may_be_the_former_timelines_still() -> None:
    assert covered(4, SECOND, segments((1, 4), (1, 5)), SIZE).last == Segment(1, 5)
    # No later one may: what is in it is not this timeline's.
    assert covered(4, SECOND, segments((1, 4), (1, 5), (1, 6)), SIZE).last == Segment(1, 5)


def test_a_timeline_has_what_its_ancestors_had_until_they_were_left() -> None:
    assert THIRD.descends_from(1, 5 * SIZE)
    assert not THIRD.descends_from(1, 6 * SIZE)
    assert THIRD.descends_from(2, 7 * SIZE)
    assert THIRD.descends_from(3, 99 * SIZE)
    assert not SECOND.descends_from(3, 0)


def test_an_archive_tells_its_timelines_and_whole_segments(tmp_path: Path) -> None:
    (tmp_path / "00000003.history").write_text("1\t0/5000064\tno recovery target specified\n\n2\t0/7000000\tbefore x\n")
    (tmp_path / "000000010000000000000001").write_bytes(bytes(1 << 20))
    (tmp_path / "000000010000000000000002").write_bytes(bytes(1 << 19))
    archive = WalArchive(tmp_path, 1 << 20)
    assert archive.timelines() == {3: Timeline(3, ((1, 0x5000064), (2, 0x7000000)))}
    assert archive.segments() == {Segment(1, 1)}
    assert WalArchive(tmp_path / "none", SIZE).segments() == set()
