"""Deleted files of XFS: content, names, paths and times, from what the log and the inodes remember.

A file counts as whole when all its blocks are free today, and nothing later that the log knows of used one of them in
between. That is no proof: content can have been written and deleted again between two transactions. So its form has to
fit its name, too.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.formats.run import Run
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_log_history import LogHistory
from forensics_lib.model import Origin, ProblemLog, Progress
from forensics_lib.recovery.intervals import Intervals
from forensics_lib.recovery.judge import container_of, judged, kind_of
from forensics_lib.recovery.lives import NOW
from forensics_lib.recovery.paths import Name
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.recovery.xfs_free import FreeMap
from forensics_lib.recovery.xfs_lives import Life, Lives, State
from forensics_lib.recovery.xfs_names import Names
from forensics_lib.recovery.xfs_past import Past
from forensics_lib.recovery.xfs_remains import Remains
from forensics_lib.recovery.xfs_shared import SharedBlocks, is_shared
from forensics_lib.sources.base import BytesSource, ExtentSource, Source
from forensics_lib.trees.xfs import XfsTree

__all__ = ["undelete"]

_VOLUME = re.compile(r"(/volumes/[^/]+)/<inode \d+>(?=/|$)")
_LINK_HEADER, _LINK_MAGIC, _LINK_BLOCKS = 56, b"XSLM", 16
_TRIMMED = 16 << 20


def undelete(tree: XfsTree, problems: ProblemLog, progress: Progress | None = None) -> Iterator[Remnant]:
    """Everything deleted that the log, the inodes and free space still know, the newest first.

    Regular files with content, or with metadata only where blocks were used again; former content of files that were
    truncated or replaced; directories and symbolic links. The content of a link is its target; its size is 0, as of
    every node that is no file.

    Args:
        tree: the file system.
        problems: gets what could not be read.
        progress: called with what is done and in total: records of the log, then bytes of the free space.
    """
    geometry = tree.geometry

    def report(fault: str) -> None:
        problems.add(tree.origin.to("log"), fault)

    free = FreeMap(geometry, problems)
    remains = Remains.of(geometry, free.ranges(), progress)
    try:
        history = LogHistory(geometry, report, progress)
        past = Past(geometry, history.transactions(), report)
        if history.unfinished:
            report(f"{history.unfinished} transactions of the log have no end, and are not used")
    except (DamagedData, UnsupportedFormat) as error:
        report(f"the log cannot be used for deleted files: {error}")
        past = Past(geometry, (), report)
    if remains.is_cut:
        problems.add(tree.origin.to("free space"), "it holds more inodes and directories than are kept")
    lives = Lives(geometry, past, remains, problems)
    names = Names(geometry, past, lives, remains)
    yield from _Undelete(tree.origin, geometry, past, free, names).run(lives)


@dataclass(slots=True)
class _Find:
    """A state of a life, and which of its blocks are still its own."""

    life: Life
    state: State | None
    kept: tuple[Run, ...] = ()
    is_last: bool = True
    is_grown: bool = False
    shared: int = 0

    @property
    def last(self) -> int:
        """The last transaction that knew it."""
        return self.state.last if self.state else self.life.last


class _Undelete:
    """Joins content, names and allocation."""

    def __init__(self, origin: Origin, geometry: XfsGeometry, past: Past, free: FreeMap, names: Names) -> None:
        """Start with nothing overwritten."""
        self._disk = origin
        self._geometry = geometry
        self._past = past
        self._free = free
        self._names = names
        self._used = Intervals()
        self._shared = SharedBlocks(geometry, iter(()), self._used.inside)

    def run(self, lives: Lives) -> Iterator[Remnant]:
        """The remnants; those whose path is not known come last, after a look at all directories."""
        unnamed: list[_Find] = []
        for find in self._finds(lives):
            found = self._names.of(find.life)
            if not found or not found[0].is_whole:
                unnamed.append(find)
            elif not find.is_grown or kind_of(found[0].path) == "log":
                yield self._remnant(find, found)
        if unnamed:
            self._names.read_remains()
        for find in unnamed:
            found = self._names.of(find.life)
            if find.is_grown and (not found or kind_of(found[0].path) != "log"):
                continue
            if found or find.state is not None or find.life.ended == NOW:
                yield self._remnant(find, found)

    def _finds(self, lives: Lives) -> Iterator[_Find]:
        """What was deleted, the newest first, so that what overwrote comes before what was overwritten.

        Earlier content of a log that grew is a find of its own; of other files it may have been changed in place.
        """
        finds: list[_Find] = []
        for life in lives:
            if not life.states and not life.alive:
                finds.append(_Find(life, None))
            finds += (_Find(life, state, is_last=index == 0) for index, state in enumerate(life.states))
            finds += (_Find(life, state, is_last=False, is_grown=True) for state in life.grown)
        finds.sort(key=lambda find: (find.last, find.life.number), reverse=True)
        self._look_for_shared(lives, finds)
        own: dict[tuple[int, int], Intervals] = {}
        for find in finds:
            life, state = find.life, find.state
            if state is not None:
                kept = own.setdefault((life.number, life.order), Intervals()) if life.grown else Intervals()
                if find.is_grown:
                    find.kept = state.runs if life.alive or kept.cover(state.runs) else ()
                else:
                    find.kept = self._kept(find, state)
                    if stat.S_ISREG(life.inode.mode):  # what else has blocks is in the log, and asked of it
                        self._used.add(state.runs)
                    kept.add(find.kept)
                whole = _blocks(find.kept) == _blocks(state.runs)
                if (find.is_last and life.alive) or not (find.is_last or whole):
                    continue
            yield find

    def _look_for_shared(self, lives: Lives, finds: list[_Find]) -> None:
        """Note which allocated blocks of deleted files belong to living files that share them."""
        wanted = Intervals()
        for find in finds:
            if find.state is not None and is_shared(find.state.inode.flags2):
                wanted.add(find.state.runs)
        self._shared = SharedBlocks(self._geometry, iter(lives.sharing), wanted.inside)

    def _kept(self, find: _Find, state: State) -> tuple[Run, ...]:
        """The runs of a state that nothing else can have overwritten."""
        if state.last == NOW and self._is_open(find.life, state):
            return state.runs
        born_ns = state.inode.times[3]
        kept: list[Run] = []
        for run in state.runs:
            parts: list[tuple[int, int]] = []
            for start, count in self._free.parts(run.block, run.count):
                for begin, end in self._used.gaps(start, start + count):
                    for used in (*self._past.written_after(begin, end - begin, state.last), end):
                        if used > begin:
                            parts.append((begin, used))
                        begin = used + 1
            if born_ns is not None and is_shared(state.inode.flags2):
                shared = self._shared.parts(run.block, run.block + run.count, born_ns)
                shared = [
                    part for part in shared if not any(True for _ in self._free.parts(part[0], part[1] - part[0]))
                ]
                find.shared += sum(end - begin for begin, end in shared)
                parts += shared
            for begin, end in sorted(parts):
                kept.append(Run(run.logical + begin - run.block, begin, end - begin, run.written))
        return tuple(kept)

    def _is_open(self, life: Life, state: State) -> bool:
        """Whether the blocks are still allocated, to a file without a name that was open when the disk was copied."""
        return (
            life.inode.mode != 0
            and not life.inode.nlink
            and not any(True for run in state.runs for _ in self._free.parts(run.block, run.count))
        )

    def _remnant(self, find: _Find, names: list[Name]) -> Remnant:
        life, state = find.life, find.state
        inode = state.inode if state else life.inode
        path = _VOLUME.sub(r"\1/_data", names[0].path) if names else ""
        origin = self._origin(life, state)
        details = [_described(life)] if inode.mode and not stat.S_ISREG(inode.mode) else []
        details += [f"written as {names[0].written_as}"] if names and names[0].written_as else []
        others = list(dict.fromkeys(name.path for name in names[1:] if name.path != path and not name.written_as))
        details += [f"also {', '.join(others[:4])}"] if others else []
        content: Source | None = None
        grade = Confidence.METADATA_ONLY
        size: int | None = None
        if stat.S_ISLNK(inode.mode):
            size = 0
            content, grade = self._target(find, origin)
            if content is not None:
                details[:1] = [f"symbolic link to {content.read_at(0, 4096).decode('utf-8', 'surrogateescape')}"]
        elif stat.S_ISREG(inode.mode) or not inode.mode:
            content, grade, words = self._judge(find, path, origin)
            details += words
            size = None if state is None else inode.size if content is None or state.is_sized else content.size
        if find.is_grown:
            details.append("what a log held before it grew")
        elif life.alive:
            details.append("earlier content of a file that still exists")
        elif state is not None and not find.is_last:
            details.append("content before the file was truncated or replaced")
        elif state is not None and state.last == NOW and self._is_open(life, state) and state.runs:
            details.append("deleted, but still open when the disk was copied")
        if names and names[0].is_left_over:
            details.append("name from remains of a directory")
        return Remnant(
            kind=kind_of(path),
            path=path,
            container_id=container_of(path),
            image_id="",
            method="xfs log" if 0 <= find.last < NOW else "xfs inode",
            confidence=grade,
            complete=grade in (Confidence.INTACT, Confidence.VERIFIED),
            size=size,
            origin=origin,
            detail="; ".join(details),
            deleted_ns=life.deleted_ns,
            modified_ns=inode.mtime_ns,
            content=content,
        )

    def _target(self, find: _Find, origin: Origin) -> tuple[Source | None, Confidence]:
        """The target of a link; a long one has blocks of its own, which the log holds as well."""
        state = find.state
        if state is None:
            return None, Confidence.METADATA_ONLY
        if state.data is not None:
            return BytesSource(state.data, origin), Confidence.INTACT
        size, target = self._geometry.block_size, b""
        logged = True
        for run in state.runs:
            data = b""
            for block in range(run.block, run.block + min(run.count, _LINK_BLOCKS)):
                logged = logged and self._past.has(block, find.life.first, state.last)
                now = self._geometry.source.read_at(block * size, size)
                data += self._past.as_of(block, state.last, now)
            if self._geometry.version == 5:
                if data[:4] != _LINK_MAGIC or int.from_bytes(data[32:40], "big") != state.inode.number:
                    return None, Confidence.METADATA_ONLY
                data = data[_LINK_HEADER : _LINK_HEADER + int.from_bytes(data[8:12], "big")]
            target += data
        if len(target) < state.inode.size or not (logged or _blocks(find.kept) == _blocks(state.runs)):
            return None, Confidence.METADATA_ONLY
        return BytesSource(target[: state.inode.size], origin), Confidence.INTACT

    def _judge(self, find: _Find, path: str, origin: Origin) -> tuple[Source | None, Confidence, list[str]]:
        """The content of a file, how sure it is, and what has to be said about it."""
        state = find.state
        if state is None:
            return (
                None,
                Confidence.METADATA_ONLY,
                ["no content is known: never written, empty, or forgotten by the log"],
            )
        content = self._content(state, find.kept, origin)
        whole, kept = _blocks(state.runs), _blocks(find.kept)
        if kept < whole:
            left = f"{kept} of {whole} blocks are still there" if kept else "all blocks were used again"
            return (content if kept else None), Confidence.METADATA_ONLY, [left]
        words = [f"{find.shared} of {whole} blocks are shared with a file that still exists"] if find.shared else []
        grade, wrong = judged(path, content)
        words += [wrong] if wrong else []
        if state.is_sized or grade is not Confidence.INTACT:
            return content, grade, words
        words.append("its size is not known, zeros at the end are left out")
        return content, Confidence.INTACT if _ends_itself(content) else Confidence.CARVED, words

    def _content(self, state: State, kept: tuple[Run, ...], origin: Origin) -> Source:
        if state.data is not None:
            return BytesSource(state.data, origin)
        size = self._geometry.block_size
        extents = [(run.logical * size, run.block * size, run.count * size) for run in kept if run.written]
        end = state.inode.size
        if not state.is_sized:
            end = max((logical + length for logical, _, length in extents), default=0)
            end = _trimmed(ExtentSource(self._geometry.source, extents, end, origin))
        return ExtentSource(self._geometry.source, extents, end, origin)

    def _origin(self, life: Life, state: State | None) -> Origin:
        last, at = (state.last, state.at) if state else (life.last, life.at)
        if last == NOW or last < 0:
            return self._disk.to(f"inode {life.number}", at)
        return self._disk.to(self._past.label_of(last)).to(f"inode {life.number}", at)


def _blocks(runs: tuple[Run, ...]) -> int:
    return sum(run.count for run in runs)


def _described(life: Life) -> str:
    kinds = {stat.S_IFDIR: "directory", stat.S_IFLNK: "symbolic link", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(life.inode.mode), "device")


def _trimmed(content: Source) -> int:
    """The size of content without the zeros at its end, of which not too many are looked at."""
    size, step = content.size, 64 << 10
    while size > max(content.size - _TRIMMED, 0):
        start = max(size - step, 0)
        try:
            data = content.read_at(start, size - start).rstrip(b"\0")
        except DamagedData:
            return size
        if data:
            return start + len(data)
        size = start
    return size


def _ends_itself(content: Source) -> bool:
    """Whether the last bytes are an end that content of this form has: then no zeros belong to it."""
    try:
        head, tail = content.read_at(0, 512), content.read_at(max(content.size - 512, 0), 512)
    except DamagedData:
        return False
    return b"\0" not in head and b"\0" not in tail and tail.endswith((b"\n", b"}", b"]"))
