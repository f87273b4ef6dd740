"""Copying out: nothing that the evidence says may decide where something is written."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.errors import DamagedData, LimitExceeded, PathNotFound, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.archive import tar_tree
from forensics_lib.trees.base import Node, NodeKind, Tree
from forensics_lib.trees.directory import DirectoryTree
from forensics_lib.trees.extract import Extracted, extract, is_safe, substitute
from forensics_lib.trees.index import IndexTree
from tests.imagemaker import Recipe, docker_save, write_tar
from tests.tarmaker import TarMaker

POSIX = pytest.mark.skipif(os.name != "posix", reason="modes and links of POSIX")


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """A folder to extract to; nothing else below the test's folder may change."""
    (tmp_path / "precious").write_bytes(b"precious")
    before = set(tmp_path.rglob("*"))
    yield tmp_path / "case" / "out"
    outside = {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "case")}
    assert outside == before
    assert (tmp_path / "precious").read_bytes() == b"precious"


def tree_of(maker: TarMaker) -> Tree:
    return tar_tree(BytesSource(maker.end(), Origin("a.tar")), ProblemLog(), Limits())


def everything(
    tree: Tree, out: Path, path: str = "/", *, symlinks: bool = False
) -> tuple[dict[str, Extracted], list[str]]:
    problems = ProblemLog()
    rows = list(extract(tree, path, out, problems, symlinks=symlinks))
    by_path = {row.path: row for row in rows}
    assert len(by_path) == len(rows)
    for row in rows:
        if row.to is not None:
            assert row.to == out or out in row.to.parents
            if row.kind is NodeKind.FILE:
                data = row.to.read_bytes()
                assert (len(data), hashlib.sha256(data).hexdigest()) == (row.size, row.sha256)
    return by_path, [problem.message for problem in problems.rows]


def on_disk(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*")}


def test_a_folder_comes_out_as_it_is(out: Path) -> None:
    maker = TarMaker(mtime=1_600_000_000).dir("etc", mtime=1_500_000_000).file("etc/a", b"content").file("b")
    rows, problems = everything(tree_of(maker), out)
    assert on_disk(out) == {"etc", "etc/a", "b"}
    assert problems == []
    row = rows["/etc/a"]
    assert row == Extracted(
        "/etc/a",
        out / "etc" / "a",
        NodeKind.FILE,
        7,
        "9a0364b9e99bb480dd25e1f0284c8555",
        "040f06fd774092478d450774f5ba30c5da78acc8",
        "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73",
        "",
        row.origin,
    )
    assert str(row.origin) == "a.tar > tar header @512"
    assert (out / "etc" / "a").stat().st_mtime == 1_600_000_000
    assert (out / "etc").stat().st_mtime == 1_500_000_000
    assert [rows[path].kind for path in ("/", "/etc", "/b")] == [NodeKind.DIR, NodeKind.DIR, NodeKind.FILE]


def test_what_is_named_lies_in_the_folder_by_its_last_name(out: Path) -> None:
    tree = tree_of(TarMaker().file("usr/lib/x/a", b"1").symlink("lib", "usr/lib"))
    rows, _ = everything(tree, out, "/lib/x")
    assert on_disk(out) == {"x", "x/a"}
    assert set(rows) == {"/usr/lib/x", "/usr/lib/x/a"}
    rows, _ = everything(tree, out.with_name("file"), "usr/lib/x/a")
    assert on_disk(out.with_name("file")) == {"a"}


@POSIX
def test_nothing_is_made_executable_or_readable_to_others(out: Path) -> None:
    everything(tree_of(TarMaker(mode=0o6777).dir("d", mode=0o777).file("d/suid", b"1")), out)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (out, out / "d", out / "d" / "suid")}
    assert modes == {"out": 0o700, "d": 0o700, "suid": 0o600}


def test_links_and_devices_are_listed_not_made(out: Path) -> None:
    maker = TarMaker().symlink("link", "/etc/passwd").fifo("fifo").device("null", "3", major=1, minor=3).file("a", b"1")
    rows, problems = everything(tree_of(maker.hardlink("again", "a")), out)
    assert on_disk(out) == {"a", "again"}
    assert {path: row.note for path, row in rows.items() if row.note} == {
        "/link": "symbolic link to /etc/passwd; not made",
        "/fifo": "a fifo is never made",
        "/null": "a char is never made",
    }
    assert all(rows[path].to is None and rows[path].sha256 is None for path in ("/link", "/fifo", "/null"))
    assert rows["/again"].sha256 == rows["/a"].sha256
    assert problems == []


@POSIX
def test_links_are_made_last_when_asked_for(out: Path, tmp_path: Path) -> None:
    target = str(tmp_path / "precious")
    maker = TarMaker("pax").symlink("a", target).symlink("b", "").dir("c").symlink("d", "c").file("e", b"1")
    rows, problems = everything(tree_of(maker), out, symlinks=True)
    assert list(rows)[-3:] == ["/a", "/b", "/d"]
    assert (out / "a").readlink() == Path(target)
    assert (out / "d").readlink() == Path("c")
    assert rows["/a"].to == out / "a"
    assert rows["/b"].to is None
    assert len(problems) == 1
    assert problems[0].startswith("/b: cannot be made here")


@POSIX
@pytest.mark.parametrize("symlinks", [False, True])
def test_hostile_archives_write_nothing_outside(out: Path, tmp_path: Path, symlinks: bool) -> None:
    maker = (
        TarMaker("pax")
        .file("../../evil", b"1")
        .file("/../../../../../../../../" + str(tmp_path) + "/evil", b"2")
        .file(str(tmp_path / "absolute"), b"3")
        .symlink("way", str(tmp_path))
        .file("way/precious", b"overwritten")
        .symlink("other", "..")
        .symlink("precious", "../../precious")
        .hardlink("hard", "../../precious")
        .file("new\nline", b"4")
        .file("back\\slash", b"5")
        .file(b"\xff\xfe", b"6")
        .file("-rf", b"7")
        .file("a/" + "n" * 300 + "/deep", b"8")
        .pax({"path": b"nul\0nul"})
        .file("short", b"9")
        .dir("..")
        .dir(".")
    )
    rows, _ = everything(tree_of(maker), out, symlinks=symlinks)
    assert rows["/new\nline"].to == out / "new\nline"
    assert rows["/way/precious"].to == out / "way" / "precious"  # the folder took the place of the link
    assert rows["/a/" + "n" * 300].note == "renamed: the disk cannot hold the name"
    deep = rows["/a/" + "n" * 300 + "/deep"]
    assert deep.to is not None
    assert deep.to.parent.parent == out / "a"
    nul = next(row for path, row in rows.items() if path.startswith("/nul"))
    assert nul.to is not None
    assert "\0" not in str(nul.to)
    assert (out / "other").is_symlink() == symlinks


@POSIX
def test_a_file_below_a_link_is_not_written_through_it(out: Path, tmp_path: Path) -> None:
    """A tree that has children below a link: no archive gives one, a damaged file system could."""
    tree = Bent(Origin("bent"))
    tree.put(Node("/way", NodeKind.SYMLINK, 0o777, 0, 0, 0, None, Origin("x"), target=str(tmp_path)))
    rows, problems = everything(tree, out, symlinks=True)
    assert rows["/way/evil"].to is not None
    assert rows["/way/evil"].to.parent == out
    assert rows["/way/evil"].note == "moved: the disk cannot hold the path"
    assert problems == []


class Bent(IndexTree):
    """Walks into a link."""

    def walk(self, path: str = "/") -> Iterator[Node]:
        yield from super().walk(path)
        yield Node("/way/evil", NodeKind.FILE, 0o644, 0, 0, 0, None, Origin("x"))


class Odd(IndexTree):
    """Has names that no archive can have."""

    def walk(self, path: str = "/") -> Iterator[Node]:
        yield self.node("/")
        for name in ("..", ".", "", "\ud800"):
            yield Node(f"/{name}", NodeKind.FILE, 0o644, 0, 0, 0, None, Origin("x"))


def test_names_that_are_none(out: Path) -> None:
    problems = ProblemLog()
    rows = list(extract(Odd(Origin("odd")), "/", out, problems))
    assert [row.note for row in rows[1:]] == ["renamed: the disk cannot hold the name"] * 4
    assert len(on_disk(out)) == 4
    assert all(row.to is not None and row.to.parent == out for row in rows[1:])
    assert problems.rows == []


@POSIX
def test_paths_longer_than_the_disk_allows_are_moved(out: Path) -> None:
    long = "/".join(["d" * 200] * 30)
    rows, problems = everything(tree_of(TarMaker("pax").file(f"{long}/a", b"1").file(f"{long}/b", b"2")), out)
    assert problems == []
    assert all(row.to is not None for row in rows.values())
    moved = {"", "moved: the disk cannot hold the path"}
    assert moved <= {row.note for row in rows.values()} <= moved | {"renamed: the disk cannot hold the name"}
    files = [row.to for row in rows.values() if row.kind is NodeKind.FILE]
    assert len({path.parent for path in files if path is not None}) == 1  # they are still together


def test_names_that_are_one_on_this_disk_get_another(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, folder = os.open, Path.mkdir
    taken: set[str] = set()

    def claim(path: Path) -> None:
        if str(path).lower() in taken:
            raise FileExistsError(17, "File exists", str(path))
        taken.add(str(path).lower())

    def case_insensitive_open(path: Path, flags: int, mode: int = 0o777) -> int:
        claim(path)
        return make(path, flags, mode)

    def case_insensitive_mkdir(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        claim(path)
        folder(path, mode, parents, exist_ok)

    tree = tree_of(TarMaker().file("README", b"1").file("readme", b"2").file("D/a", b"3").file("d/a", b"4"))
    out.mkdir(parents=True)
    monkeypatch.setattr(os, "open", case_insensitive_open)
    monkeypatch.setattr(Path, "mkdir", case_insensitive_mkdir)
    rows, problems = everything(tree, out)
    monkeypatch.undo()
    assert problems == []
    renamed = {path: row.to.name for path, row in rows.items() if row.note and row.to is not None}
    assert renamed == {"/d": substitute("d", 0), "/readme": substitute("readme", 0)}
    assert {row.sha256 for row in rows.values() if row.sha256} == {
        hashlib.sha256(b"%d" % n).hexdigest() for n in (1, 2, 3, 4)
    }


@pytest.mark.parametrize(
    "name",
    [
        "con",
        "NUL.txt",
        "com1",
        "LPT³.log",
        "a:stream",
        "a<b",
        "a|b",
        'a"b',
        "a?",
        "a*",
        "a\\b",
        "dot.",
        "space ",
        "a\nb",
        "CONIN$",
    ],
)
def test_names_that_mean_something_else_on_windows(name: str) -> None:
    assert not is_safe(name, windows=True)
    assert is_safe(name, windows=False)
    assert is_safe(substitute(name, 0), windows=True)


@pytest.mark.parametrize("name", ["console", "com", "com10", "a.con", ".profile", "nul_", "ä", "a b", "COM1x"])
def test_names_that_are_fine_everywhere(name: str) -> None:
    assert is_safe(name, windows=True)


@given(st.text(min_size=1), st.integers(0, 20))
def test_substitutes_are_safe_everywhere(name: str, attempt: int) -> None:
    found = substitute(name, attempt)
    assert is_safe(found, windows=True)
    assert is_safe(found, windows=False)
    assert found.isascii()
    assert len(found) <= 113
    assert "/" not in found
    assert found != substitute(name, attempt + 1)


def test_only_an_empty_folder_is_written_to(out: Path, tmp_path: Path) -> None:
    tree = tree_of(TarMaker().file("a", b"1"))
    with pytest.raises(FileExistsError):
        list(extract(tree, "/", tmp_path, ProblemLog()))
    with pytest.raises(FileExistsError):
        list(extract(tree, "/", tmp_path / "precious", ProblemLog()))
    with pytest.raises(PathNotFound):
        list(extract(tree, "/missing", out, ProblemLog()))
    assert not out.exists()
    out.mkdir(parents=True)
    everything(tree, out)
    assert on_disk(out) == {"a"}
    with pytest.raises(FileExistsError):
        list(extract(tree, "/", out, ProblemLog()))
    assert (out / "a").read_bytes() == b"1"


@POSIX
def test_a_link_in_the_place_of_the_folder_is_refused(out: Path) -> None:
    out.parent.mkdir()
    (out.parent / "empty").mkdir()
    for name, target in (("good", "empty"), ("dangling", "nowhere")):
        (out.parent / name).symlink_to(target)
        with pytest.raises(FileExistsError):
            list(extract(tree_of(TarMaker().file("a")), "/", out.parent / name, ProblemLog()))
    assert on_disk(out.parent) == {"empty", "good", "dangling"}


class Broken(Source):
    """Readable up to a place."""

    def __init__(self, good: int) -> None:
        self.size = 1000
        self.origin = Origin("disk")
        self._good = good

    def read_at(self, offset: int, length: int) -> bytes:
        if offset >= self._good:
            raise DamagedData("bad sector", origin=self.origin, offset=offset)
        return b"x" * min(length, self._good - offset)


class BrokenContent:
    def __init__(self, good: int) -> None:
        self._good = good

    def source(self) -> Source:
        return Broken(self._good)


def broken_tree(good: int) -> IndexTree:
    tree = IndexTree(Origin("disk"))
    node = Node("/log", NodeKind.FILE, 0o644, 0, 0, 1000, 10**18, Origin("inode"), content=BrokenContent(good))
    tree.put(node)
    tree.put(replace(node, path="/log.partial", size=0, content=None))
    return tree


def test_the_readable_part_of_a_damaged_file_is_marked(out: Path) -> None:
    rows, problems = everything(broken_tree(300), out)
    row = rows["/log"]
    assert row.to is not None
    assert row.size == 300
    assert row.note == "only the first 300 of 1000 bytes can be read: bad sector"
    assert problems == [f"/log: {row.note}"]
    # the evidence has a file of that name as well; it comes later and gets the substitute
    assert row.to == out / "log.partial"
    assert row.to.read_bytes() == b"x" * 300
    assert on_disk(out) == {"log.partial", substitute("log.partial", 0)}


def test_a_file_that_cannot_be_read_at_all_leaves_nothing(out: Path) -> None:
    rows, problems = everything(broken_tree(0), out)
    assert rows["/log"].to is None
    assert rows["/log"].note == "/log: bad sector"
    assert problems == ["/log: bad sector"]
    assert on_disk(out) == {"log.partial"}


@pytest.mark.parametrize("good", [0, 300])
def test_a_strict_log_leaves_no_half_a_file(out: Path, good: int) -> None:
    with pytest.raises(DamagedData, match="bad sector"):
        list(extract(broken_tree(good), "/", out, ProblemLog(strict=True)))
    assert on_disk(out) == set()


def test_a_full_disk_leaves_no_half_a_file(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Broken, offset: int, length: int) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Broken, "read_at", full)
    with pytest.raises(OSError, match="No space left"):
        list(extract(broken_tree(300), "/", out, ProblemLog()))
    assert on_disk(out) == set()


def test_what_is_larger_than_the_disk_is_a_problem(out: Path) -> None:
    size = 1 << 62
    maker = TarMaker("gnu").gnu_sparse("bomb", [(size, 0)], size, b"").file("next", b"1")
    problems = ProblemLog()
    rows = {row.path: row for row in extract(tree_of(maker), "/", out, problems)}
    assert rows["/bomb"].to is None
    assert isinstance(problems.rows[0].error, LimitExceeded)
    assert on_disk(out) == {"next"}


def test_a_time_the_disk_cannot_hold_is_a_problem(out: Path) -> None:
    maker = TarMaker("gnu").file("old", b"1", mtime=1 << 70).file("new", b"2", mtime=1)
    _, problems = everything(tree_of(maker), out)
    assert on_disk(out) == {"old", "new"}
    assert len(problems) == 1
    assert problems[0].startswith("/old: the disk does not take its time")


def test_a_name_the_disk_takes_under_no_circumstances(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, flags: int, mode: int = 0o777) -> int:
        raise OSError(22, "Invalid argument", str(path))

    tree = tree_of(TarMaker().file("a", b"1"))
    monkeypatch.setattr(os, "open", refuse)
    problems = ProblemLog()
    rows = list(extract(tree, "/", out, problems))
    monkeypatch.undo()
    assert rows[1].to is None
    assert isinstance(problems.rows[0].error, UnsupportedFormat)
    assert problems.rows[0].message.startswith("/a: cannot be made here")


def test_extraction_is_recorded(tmp_path: Path) -> None:
    layers = [TarMaker().file("etc/passwd", b"root").file("etc/shadow", b"*").symlink("etc/link", "passwd").end()]
    archive = write_tar(docker_save(Recipe(layers, ["acme/web:1.0"])), tmp_path / "web.tar")
    with fl.open(archive) as evidence:
        table = evidence.extract(evidence.image("acme/web:1.0").tree(), "/etc", tmp_path / "out")
        assert [(row.path, row.kind) for row in table] == [
            ("/etc", "dir"),
            ("/etc/link", "symlink"),
            ("/etc/passwd", "file"),
            ("/etc/shadow", "file"),
        ]
        entries = [entry for entry in evidence.custody.entries if entry.action == "extract"]
        assert [entry.subject for entry in entries] == ["/etc/passwd", "/etc/shadow", str(archive)]
        details = json.loads(entries[0].details)
        assert details["sha256"] == hashlib.sha256(b"root").hexdigest()
        assert details["to"] == str(tmp_path / "out" / "etc" / "passwd")
        assert json.loads(entries[2].details)["files"] == 2
        assert all(check.ok for check in evidence.custody.verify())


def test_nothing_is_written_into_the_evidence(tmp_path: Path) -> None:
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "a").write_bytes(b"1")
    with fl.open(tmp_path / "evidence") as evidence:
        tree = evidence.filesystems[0].tree
        for place in ("evidence/out", "evidence/x/../out", "other/../evidence/out"):
            with pytest.raises(ValueError, match="inside the evidence"):
                evidence.extract(tree, "/", tmp_path / place)
        evidence.extract(tree, "/", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "evidence").iterdir()) == ["a"]
    assert (tmp_path / "out" / "a").read_bytes() == b"1"


@POSIX
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["file", "dir", "link", "hard", "fifo"]),
            st.lists(st.sampled_from(["..", ".", "", "a", "b", "A", "c" * 256, "\udcff", "n\n", "\0"]), max_size=4),
            st.sampled_from(["a", "..", "/", "b/a", "/tmp", ""]),
        ),
        max_size=8,
    ),
    st.booleans(),
)
def test_any_archive_stays_inside(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, list[str], str]], symlinks: bool
) -> None:
    base = tmp_path_factory.mktemp("any")
    maker = TarMaker("pax")
    for kind, parts, target in members:
        name = "/".join(parts)
        match kind:
            case "file":
                maker.file(name, b"content")
            case "dir":
                maker.dir(name)
            case "link":
                maker.symlink(name, target)
            case "hard":
                maker.hardlink(name, target)
            case _:
                maker.fifo(name)
    tree = tree_of(maker)
    rows = list(extract(tree, "/", base / "in" / "out", ProblemLog(), symlinks=symlinks))
    assert [row.path for row in rows if row.kind is NodeKind.FILE] == [
        node.path for node in tree.walk() if node.kind is NodeKind.FILE
    ]
    assert len(rows) == sum(1 for _ in tree.walk())
    assert sorted(path.name for path in base.iterdir()) == ["in"]
    assert [path.name for path in (base / "in").iterdir()] == ["out"]
    made = [row.to for row in rows if row.to is not None]
    assert len(set(made)) == len(made)
    assert {base / "in" / "out", *(base / "in" / "out").rglob("*")} == set(made)


def test_a_folder_of_the_disk_can_be_a_tree(tmp_path: Path) -> None:
    (tmp_path / "from" / "sub").mkdir(parents=True)
    (tmp_path / "from" / "sub" / "a").write_bytes(b"1")
    problems = ProblemLog()
    tree = DirectoryTree(tmp_path / "from", problems)
    rows = list(extract(tree, "/sub/a", tmp_path / "to", problems))
    assert [row.to for row in rows] == [tmp_path / "to" / "a"]
    assert (tmp_path / "to" / "a").read_bytes() == b"1"
    assert problems.rows == []
