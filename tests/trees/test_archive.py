"""Archives as file systems: names, links, kinds, times, damage, and content that is read later."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded, NotAFile, UnsupportedFormat
from forensics_lib.formats.tar import AFTER_END
from forensics_lib.model import Origin, Problem, ProblemLog
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.sources.decompress import Compression, Limits, decompress
from forensics_lib.sources.spool import SpoolSource
from forensics_lib.sources.stream import BlockStream
from forensics_lib.trees.archive import clean_path, tar_tree
from forensics_lib.trees.base import NodeKind
from forensics_lib.trees.index import IndexTree
from tests.tarmaker import TarMaker, base256, header
from tests.tarreader import in_blocks

ORIGIN = Origin("export.tar")
SECOND = 10**9


def read(data: bytes | Source, limits: Limits | None = None) -> tuple[IndexTree, list[Problem]]:
    problems = ProblemLog()
    source = BytesSource(data, ORIGIN) if isinstance(data, bytes) else data
    return tar_tree(source, problems, limits or Limits()), list(problems.rows)


def clean(data: bytes) -> IndexTree:
    return tar_tree(BytesSource(data, ORIGIN), ProblemLog(strict=True), Limits())


def messages(data: bytes) -> list[str]:
    return [problem.message for problem in read(data)[1]]


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path", "unusual"),
    [
        ("etc/passwd", "/etc/passwd", False),
        ("./etc/passwd", "/etc/passwd", False),
        ("/etc/passwd", "/etc/passwd", False),
        ("//etc///passwd/", "/etc/passwd", False),
        ("etc/./passwd/.", "/etc/passwd", False),
        ("", "/", False),
        (".", "/", False),
        ("./", "/", False),
        ("/", "/", False),
        ("///", "/", False),
        ("..a/b..", "/..a/b..", False),
        (".wh..wh..opq", "/.wh..wh..opq", False),
        ("a.", "/a.", False),
        ("usr/../etc/passwd", "/etc/passwd", True),
        ("../../etc/passwd", "/etc/passwd", True),
        ("..", "/", True),
        ("a/..", "/", True),
        ("a/../../b", "/b", True),
    ],
)
def test_clean_paths(name: str, path: str, unusual: bool) -> None:
    assert clean_path(name)[0] == path
    assert (clean_path(name)[1] is not None) is unusual


@given(st.text("ab./", max_size=14))
@settings(deadline=None)
def test_a_clean_path_is_what_a_chrooted_system_makes_of_it(name: str) -> None:
    path, fault = clean_path(name)
    normal = os.path.normpath("/" + name)
    assert path == ("/" + normal.lstrip("/"))
    assert (fault is not None) is (".." in name.split("/"))
    assert clean_path(path) == (path, None)


def test_names_that_lead_out_stay_inside_and_are_a_problem() -> None:
    tree, problems = read(TarMaker().file("../../etc/shadow", b"x").end())
    assert tree.read("/etc/shadow") == b"x"
    (problem,) = problems
    assert problem.message == ("'../../etc/shadow': name leads out of the archive; it is kept inside the root")
    assert str(problem.origin) == "export.tar > tar header @0"


def test_names_that_are_no_utf_8() -> None:
    tree = clean(TarMaker().file(b"caf\xe9/\xff", b"1").end())
    assert [node.path for node in tree.walk()] == ["/", "/caf\udce9", "/caf\udce9/\udcff"]
    assert tree.read(os.fsdecode(b"/caf\xe9/\xff")) == b"1"


# --- what a member becomes --------------------------------------------------------------------------------------------


def test_every_kind_with_all_that_is_recorded() -> None:
    maker = TarMaker("gnu", uid=7, gid=8, mtime=1500000000)
    maker.dir("d/", mode=0o41755).file("d/f", b"content", mode=0o106755).symlink("s", "../d/f")
    maker.device("c", "3", major=1, minor=300, mode=0o666).device("b", "4", major=259, minor=1).fifo("p")
    maker.member("v7", "\0", b"old").member("cont", "7", b"contiguous").gnu_sparse("sp", [(5, 3)], 10, b"abc")
    maker.file("slash/", mode=0o700).member("inc/", "D", b"Yf\0\0")
    tree, problems = read(maker.end())
    kinds = {node.path: node.kind for node in tree.walk()}
    assert kinds == {
        "/": NodeKind.DIR,
        "/b": NodeKind.BLOCK,
        "/c": NodeKind.CHAR,
        "/cont": NodeKind.FILE,
        "/d": NodeKind.DIR,
        "/d/f": NodeKind.FILE,
        "/inc": NodeKind.DIR,
        "/p": NodeKind.FIFO,
        "/s": NodeKind.SYMLINK,
        "/slash": NodeKind.DIR,
        "/sp": NodeKind.FILE,
        "/v7": NodeKind.FILE,
    }
    file = tree.node("/d/f")
    assert (file.mode, file.uid, file.gid, file.size, file.mtime_ns) == (0o6755, 7, 8, 7, 1500000000 * SECOND)
    assert (file.atime_ns, file.ctime_ns, file.btime_ns, file.target, dict(file.xattrs)) == (None, None, None, None, {})
    assert str(file.origin) == "export.tar > tar header @512"
    assert tree.node("/d").mode == 0o1755
    assert tree.node("/s").target == "../d/f"
    assert tree.read("/s") == b"content"
    assert (os.major(tree.node("/c").rdev), os.minor(tree.node("/c").rdev)) == (1, 300)
    assert (os.major(tree.node("/b").rdev), os.minor(tree.node("/b").rdev)) == (259, 1)
    assert (tree.read("/v7"), tree.read("/cont"), tree.read("/sp")) == (b"old", b"contiguous", b"\0" * 5 + b"abc\0\0")
    for path in ("/c", "/p", "/d"):
        with pytest.raises(NotAFile):
            tree.read(path)
    assert [problem.message for problem in problems] == [
        "'slash/': regular file whose name ends with a slash (a folder for most tools)"
    ]


def test_times_and_attributes_of_records() -> None:
    records = {"mtime": "1.000000001", "atime": "2.5", "ctime": "-3", "LIBARCHIVE.creationtime": "4"}
    node = clean(TarMaker().pax(records | {"SCHILY.xattr.user.k": "v"}).file("f").end()).node("/f")
    assert (node.mtime_ns, node.atime_ns, node.ctime_ns, node.btime_ns) == (
        SECOND + 1,
        2_500_000_000,
        -3 * SECOND,
        4 * SECOND,
    )
    assert dict(node.xattrs) == {"user.k": b"v"}


@pytest.mark.parametrize("maker", [TarMaker("gnu"), TarMaker("star")], ids=["gnu", "star"])
def test_times_that_headers_hold(maker: TarMaker) -> None:
    node = clean(maker.file("f", mtime=1, atime=2, ctime=3).end()).node("/f")
    assert (node.mtime_ns, node.atime_ns, node.ctime_ns) == (SECOND, 2 * SECOND, 3 * SECOND)


def test_a_prefix_is_no_time() -> None:
    node = clean(TarMaker().file("1" * 90 + "/" + "2" * 90).end()).node("/" + "1" * 90 + "/" + "2" * 90)
    assert (node.atime_ns, node.ctime_ns) == (None, None)


def test_members_of_unknown_type_are_shown_as_files() -> None:
    tree, problems = read(TarMaker().member("odd", "Z", b"content").end())
    assert tree.read("/odd") == b"content"
    assert [problem.message for problem in problems] == ["'odd': member of unknown type 'Z' is shown as a file"]
    assert isinstance(problems[0].error, UnsupportedFormat)


def test_what_is_no_file_of_the_tree() -> None:
    maker = TarMaker("gnu").member("label", "V").member("rest", "M", b"of a volume").member("old", "N", b"1")
    tree = clean(maker.global_pax({"comment": "x"}).file("f").end())
    assert [node.path for node in tree.walk()] == ["/", "/f"]


# --- links ------------------------------------------------------------------------------------------------------------


def test_hard_links_share_what_they_link() -> None:
    maker = TarMaker().file("a", b"content", mode=0o640, mtime=5).hardlink("./dir/b", "./a", mode=0o777, mtime=9)
    tree = clean(maker.hardlink("c", "dir/b").end())
    for path in ("/a", "/dir/b", "/c"):
        node = tree.node(path)
        assert (node.path, node.mode, node.mtime_ns, node.nlink, node.size) == (path, 0o640, 5 * SECOND, 3, 7)
        assert tree.read(path) == b"content"
    assert len({tree.node(path).inode for path in ("/a", "/dir/b", "/c")}) == 1
    assert str(tree.node("/c").origin) == "export.tar > tar header @1536"


def test_a_hard_link_keeps_what_its_target_was() -> None:
    tree = clean(TarMaker().file("a", b"old").hardlink("b", "a").file("a", b"new").end())
    assert (tree.read("/a"), tree.read("/b")) == (b"new", b"old")
    assert (tree.node("/a").nlink, tree.node("/b").nlink) == (1, 1)


def test_hard_links_to_what_is_no_file() -> None:
    tree = clean(TarMaker().symlink("s", "t").hardlink("h", "s").fifo("p").hardlink("q", "p").end())
    assert (tree.node("/h").kind, tree.node("/h").target, tree.node("/q").kind) == (
        NodeKind.SYMLINK,
        "t",
        NodeKind.FIFO,
    )


@pytest.mark.parametrize("target", ["nowhere", "b", "d", "../../etc/passwd", ""])
def test_a_hard_link_to_nothing_is_a_problem_and_raises_when_it_is_read(target: str) -> None:
    tree, problems = read(TarMaker().dir("d").hardlink("b", target).end())
    assert tree.node("/b").kind is NodeKind.FILE
    assert any("which is not there" in problem.message for problem in problems)
    with pytest.raises(DamagedData, match="which is not there"):
        tree.read("/b")


def test_a_hard_link_with_content_of_its_own() -> None:
    maker = TarMaker("pax").file("a", b"1234567").hardlink("b", "a", size=7).content(b"1234567")
    assert clean(maker.end()).read("/b") == b"1234567"


# --- one name, several members ----------------------------------------------------------------------------------------


def test_the_last_of_several_members_counts() -> None:
    tree = clean(TarMaker().file("a", b"1").file("./a", b"22").symlink("b", "x").file("/b", b"3").end())
    assert (tree.read("/a"), tree.read("/b"), len(tree)) == (b"22", b"3", 3)


def test_a_file_in_place_of_a_folder_and_the_other_way_round() -> None:
    tree = clean(TarMaker().file("x/y", b"1").file("x", b"2").file("a", b"3").file("a/b", b"4").end())
    assert [node.path for node in tree.walk()] == ["/", "/a", "/a/b", "/x"]
    assert tree.read("/x") == b"2"


def test_a_folder_twice_keeps_what_is_in_it() -> None:
    tree = clean(TarMaker().dir("d", mode=0o700).file("d/f").dir("d", mode=0o755).end())
    assert (tree.node("/d").mode, "/d/f" in tree) == (0o755, True)


def test_folders_that_no_member_describes() -> None:
    node = clean(TarMaker().file("a/b/c").end()).node("/a/b")
    assert (node.kind, node.mode, node.uid, node.mtime_ns) == (NodeKind.DIR, 0o755, 0, None)


def test_the_root_can_be_described_but_not_replaced() -> None:
    assert clean(TarMaker().dir("./", mode=0o700).end()).node("/").mode == 0o700
    tree, problems = read(TarMaker().file("f").symlink(".", "/elsewhere").end())
    assert tree.node("/").kind is NodeKind.DIR
    assert [problem.message for problem in problems] == ["a member would replace the root itself; it is left out"]


# --- damage -----------------------------------------------------------------------------------------------------------


def test_everything_unusual_becomes_a_problem() -> None:
    damaged = bytearray(header("broken"))
    damaged[0] ^= 1
    maker = TarMaker("gnu").file("a", mode=b"no mode").raw(bytes(damaged)).file("b", b"1")
    found = messages(maker.end() + b"garbage!" * 64)
    assert found == [
        "'a': mode field holds no number: b'no mode\\x00'",
        "'b': found after 512 bytes that are no valid archive",
        "no valid header here; reading goes on at the next one",
        "512 bytes that are no archive follow the end-of-archive marker",
    ]
    with pytest.raises(DamagedData, match="mode field"):
        clean(maker.end())


def test_members_after_the_end_are_named_but_not_in_the_tree() -> None:
    data = TarMaker().file("a", b"1").end() + TarMaker().file("a", b"evil").file("b", b"2").end()
    tree, problems = read(data)
    assert ([node.path for node in tree.walk()], tree.read("/a")) == (["/", "/a"], b"1")
    assert [problem.message for problem in problems] == [f"'a': {AFTER_END}", f"'b': {AFTER_END}"]


def test_content_that_is_cut_off_is_read_up_to_the_cut() -> None:
    data = bytes(TarMaker().file("a", b"1").file("b", b"2" * 5000))[:-3000]
    tree, problems = read(data)
    assert [problem.message for problem in problems] == [
        "'b': content is cut off: 2880 of 5000 bytes are missing",
        "no end-of-archive marker",
    ]
    assert tree.node("/b").source().read_at(0, 2120) == b"2" * 2120
    with pytest.raises(DamagedData):
        tree.read("/b")


def test_a_damaged_compressed_archive_gives_what_came_before_the_damage() -> None:
    maker = TarMaker()
    for number in range(50):
        maker.file(f"{number:02}", random.Random(number).randbytes(20_000))
    data = gzip.compress(maker.end(), 1)[:-300_000]
    source = SpoolSource(BytesSource(data, ORIGIN), Compression.GZIP, ORIGIN.to("gzip"))
    tree, problems = read(source)
    names = [node.name for node in tree.walk() if node.kind is NodeKind.FILE]
    assert names == [f"{number:02}" for number in range(len(names))]
    assert 30 < len(names) < 40
    assert tree.read("/05") == random.Random(5).randbytes(20_000)
    assert any("is cut off" in problem.message for problem in problems)
    with pytest.raises(DamagedData):
        tar_tree(source, ProblemLog(strict=True), Limits())
    source.close()


def test_more_members_than_allowed() -> None:
    tree, problems = read(TarMaker().file("a").file("b").file("c").end(), Limits(entries=2))
    assert [node.path for node in tree.walk()] == ["/", "/a", "/b"]
    assert isinstance(problems[0].error, LimitExceeded)


@given(st.binary(max_size=1500), st.integers(0, 3000), st.integers(0, 255))
@settings(deadline=None)
def test_no_bytes_raise(data: bytes, position: int, value: int) -> None:
    archive = bytearray(TarMaker("gnu").dir("d").file("d/f", data, mtime=base256(-9, 12)).hardlink("h", "d/f").end())
    archive[position % len(archive)] = value
    for made in (data, bytes(archive)):
        tree, _ = read(made)
        for node in tree.walk():
            try:
                content = node.read() if node.kind is NodeKind.FILE else b""
            except ForensicsError:
                continue
            assert len(content) == node.size or node.kind is not NodeKind.FILE


# --- reading later ----------------------------------------------------------------------------------------------------


class CountingSource(BytesSource):
    """Counts the bytes that were read of it."""

    count = 0

    def read_at(self, offset: int, length: int) -> bytes:
        data = super().read_at(offset, length)
        self.count += len(data)
        return data


def test_an_index_made_from_a_stream_reads_content_by_position() -> None:
    data = TarMaker("pax").file("a", b"1" * 3000).pax_sparse("s", [(100, 5)], 200, b"12345").file("z", b"9").end()
    archive = BytesSource(data, ORIGIN)
    tree = tar_tree(archive, ProblemLog(strict=True), Limits(), BlockStream(in_blocks(data, 100)))
    assert (tree.read("/a"), tree.read("/s")) == (b"1" * 3000, bytes(100) + b"12345" + bytes(95))
    assert tree.read("/z") == b"9"


def test_reading_files_of_a_compressed_archive_does_not_inflate_it_again_and_again() -> None:
    maker = TarMaker()
    for number in range(200):
        maker.file(str(number), random.Random(number).randbytes(5000))
    packed = CountingSource(gzip.compress(maker.end(), 1), ORIGIN)
    spool = SpoolSource(packed, Compression.GZIP, ORIGIN.to("gzip"))
    stream = BlockStream(decompress(packed.blocks(), Compression.GZIP, ORIGIN))
    tree = tar_tree(spool, ProblemLog(strict=True), Limits(), stream)
    assert packed.count == packed.size
    for number in (150, 3, 199, 77, 150):
        assert tree.read(f"/{number}") == random.Random(number).randbytes(5000)
    assert packed.count == 2 * packed.size
    spool.close()


def test_evidence_that_is_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "rootfs.tar.gz"
    path.write_bytes(gzip.compress(TarMaker().dir("etc").file("etc/hostname", b"web\n").dir("usr").end()))
    with fl.open(path) as evidence:
        (found,) = evidence.filesystems
        assert found.tree.read("/etc/hostname") == b"web\n"
        origin = str(found.tree.node("/etc/hostname").origin)
        assert origin.startswith("rootfs.tar.gz > gzip > tar header @512")
        assert list(evidence.problems) == []
