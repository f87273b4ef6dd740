"""Raw images in several files, and joined sources in general."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.sources.file import FileSource
from forensics_lib.sources.joined import JoinedSource, MissingSource, ZeroSource
from forensics_lib.sources.split import open_split
from tests.diskmaker import assert_same, content, raw_file, run

PART = 1_000_000


def cut(folder: Path, *names: str, disk: bytes | None = None) -> Path:
    """The disk in files of the given names; "-" leaves one out."""
    disk = content() if disk is None else disk
    for number, name in enumerate(names):
        if name != "-":
            (folder / name).write_bytes(disk[number * PART : (number + 1) * PART])
    return folder / names[0]


def opened(path: Path) -> tuple[Source, list[str]]:
    problems = ProblemLog()
    disk = open_split(FileSource(path), problems)
    assert disk is not None
    return disk, [problem.message for problem in problems.rows]


@pytest.mark.parametrize(
    "names",
    [
        ["disk.001", "disk.002", "disk.003", "disk.004"],
        ["disk.raw.000", "disk.raw.001", "disk.raw.002", "disk.raw.003"],
        ["disk.dd.00", "disk.dd.01", "disk.dd.02", "disk.dd.03"],
        ["disk.aa", "disk.ab", "disk.ac", "disk.ad"],
        ["xaa", "xab", "xac", "xad"],
        ["a b.00001", "a b.00002", "a b.00003", "a b.00004"],
    ],
)
def test_names_that_tools_give(tmp_path: Path, names: list[str]) -> None:
    path = cut(tmp_path, *names)
    (tmp_path / "other.001").write_bytes(b"another image")
    (tmp_path / "disk.0001x").write_bytes(b"another file")
    disk, problems = opened(path)
    assert problems == []
    assert_same(disk, content(), border=PART)
    assert str(disk.origin) == f"{names[0]} > split image"


@pytest.mark.parametrize("options", [["-d", "-a", "3", "--numeric-suffixes=1"], [], ["-a", "3"], ["-d"]])
def test_files_of_split(tmp_path: Path, options: list[str]) -> None:
    path = raw_file(tmp_path)
    run("split", "-b", "65536", *options, path, tmp_path / "part.")
    path.unlink()
    disk, problems = opened(min(tmp_path.iterdir()))
    assert problems == []
    assert_same(disk, content(), border=65_536)


def test_a_segment_that_is_missing(tmp_path: Path) -> None:
    disk, problems = opened(cut(tmp_path, "d.001", "d.002", "-", "d.004"))
    assert problems == ["segment 'd.003' of the image is missing"]
    assert disk.size == len(content())
    assert disk.read_at(PART, PART) == content()[PART : 2 * PART]
    assert disk.read_at(3 * PART, 5000) == content()[3 * PART : 3 * PART + 5000]
    with pytest.raises(DamagedData, match=r"segment 'd\.003' of the image is missing") as caught:
        disk.read_at(2 * PART - 1, 2)
    assert caught.value.offset == 0


def test_a_segment_that_is_cut_off(tmp_path: Path) -> None:
    path = cut(tmp_path, "d.001", "d.002", "d.003", "d.004")
    (tmp_path / "d.002").write_bytes(content()[PART : PART + 10])
    disk, problems = opened(path)
    assert problems == ["segment 'd.002' has 10 bytes, 1000000 were expected"]
    assert disk.read_at(PART, 10) == content()[PART : PART + 10]
    assert disk.read_at(2 * PART, PART) == content()[2 * PART : 3 * PART]
    with pytest.raises(DamagedData, match="10 bytes, 1000000 were expected"):
        disk.read_at(PART + 10, 1)


@pytest.mark.parametrize("name", ["disk.raw", "disk.002", "disk.ab", "disk", "disk.1", "notes.txt", "disk.001"])
def test_what_is_no_first_segment(tmp_path: Path, name: str) -> None:
    for beside in ("disk.003", "disk.ac", "disk.000"):
        (tmp_path / beside).write_bytes(b"x")
    (tmp_path / name).write_bytes(b"x")
    assert open_split(FileSource(tmp_path / name), ProblemLog()) is None


def test_a_single_file_is_no_split_image(tmp_path: Path) -> None:
    (tmp_path / "disk.001").write_bytes(b"x")
    assert open_split(FileSource(tmp_path / "disk.001"), ProblemLog()) is None
    assert open_split(BytesSource(b"x", Origin("disk.001")), ProblemLog()) is None


def test_a_link_in_the_evidence_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s" * PART)
    folder = tmp_path / "evidence"
    folder.mkdir()
    path = cut(folder, "d.001", "-", "d.003")
    (folder / "d.002").symlink_to(tmp_path / "secret")
    disk, problems = opened(path)
    assert problems == ["segment 'd.002' of the image is missing"]
    with pytest.raises(DamagedData):
        disk.read_at(PART, 1)


# --- joined sources ---------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=20), max_size=8), st.integers(0, 180), st.integers(-2, 180))
def test_parts_one_behind_the_other(parts: list[bytes], offset: int, length: int) -> None:
    joined = JoinedSource([BytesSource(part, Origin("part")) for part in parts], Origin("whole"))
    whole = b"".join(parts)
    assert joined.size == len(whole)
    assert joined.read_at(offset, length) == whole[offset : offset + max(0, length)]


def test_a_part_that_is_shorter_than_it_says() -> None:
    part = BytesSource(b"abc", Origin("part"))
    part.size = 5
    joined = JoinedSource([part, BytesSource(b"xyz", Origin("next"))], Origin("whole"))
    with pytest.raises(DamagedData, match="a part ends before its size"):
        joined.read_at(0, 7)


def test_zeros_and_nothing() -> None:
    zeros, missing = ZeroSource(10, Origin("hole")), MissingSource(10, Origin("lost"), "it is lost")
    assert zeros.read_at(5, 10) == bytes(5)
    assert zeros.read_at(50, 10) == b""
    assert missing.read_at(10, 5) == missing.read_at(3, 0) == b""
    with pytest.raises(DamagedData, match="it is lost"):
        missing.read_at(9, 1)
    for source in (zeros, missing, JoinedSource([zeros], Origin("whole"))):
        with pytest.raises(DamagedData, match="before the start"):
            source.read_at(-1, 1)
