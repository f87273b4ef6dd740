"""Deleted files of a file system whose log remembers its inodes: content, names and allocation joined.

A file counts as whole when all its blocks are free today, and nothing later that the log knows of used one of them in
between. That is no proof: content can have been written and deleted again between two transactions. So its form has to
fit its name, too.
"""

from __future__ import annotations

import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic

from forensics_lib.errors import DamagedData
from forensics_lib.formats.run import Run
from forensics_lib.model import Origin
from forensics_lib.recovery.intervals import Intervals
from forensics_lib.recovery.judge import container_of, judged, kind_of
from forensics_lib.recovery.lives import NOW, AnyInode, Life, LifeTable, State
from forensics_lib.recovery.paths import Name, Paths
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.sources.base import BytesSource, ExtentSource, Source

__all__ = ["Find", "Undelete", "block_count", "described", "name_words"]

_VOLUME = re.compile(r"(/volumes/[^/]+)/<inode \d+>(?=/|$)")
_TRIMMED = 16 << 20
_KINDS = {stat.S_IFDIR: "directory", stat.S_IFLNK: "symbolic link", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}


@dataclass(slots=True)
class Find(Generic[AnyInode]):
    """Content of a life that may have been deleted.

    Attributes:
        life: whose content it is.
        state: the content; None when none is known.
        kept: which of its blocks are still its own.
        is_last: whether the life had no later content.
        is_grown: whether later content only added to it.
        shared: how many of its blocks a file has that still exists.
    """

    life: Life[AnyInode]
    state: State[AnyInode] | None
    kept: tuple[Run, ...] = ()
    is_last: bool = True
    is_grown: bool = False
    shared: int = 0

    @property
    def last(self) -> int:
        """The last transaction that knew it."""
        return self.state.last if self.state else self.life.last


class Undelete(ABC, Generic[AnyInode]):
    """Makes remnants of lives; what is peculiar to a file system is in the methods that it has to supply.

    Args:
        source: the file system.
        block_size: of its blocks, bytes.
        origin: the file system as a step of a chain.
        names: paths of the lives.

    Attributes:
        log: what its log is called.
    """

    log: ClassVar[str]

    def __init__(self, source: Source, block_size: int, origin: Origin, names: Paths[AnyInode]) -> None:
        """Start with nothing overwritten."""
        self._source = source
        self._block_size = block_size
        self._disk = origin
        self._names = names
        self._used = Intervals()

    def run(self, lives: LifeTable[AnyInode]) -> Iterator[Remnant]:
        """The remnants, the newest first; those without a path come last, after a look for names that are left over."""
        unnamed: list[Find[AnyInode]] = []
        for find in self._finds(lives):
            found = self._names.of(find.life)
            if not found or not found[0].is_whole:
                unnamed.append(find)
            elif not find.is_grown or kind_of(found[0].path) == "log":
                yield self._remnant(find, found)
        if unnamed:
            self._read_remains()
        for find in unnamed:
            found = self._names.of(find.life)
            if find.is_grown and (not found or kind_of(found[0].path) != "log"):
                continue
            if found or find.state is not None or find.life.ended == NOW:
                yield self._remnant(find, found)

    @abstractmethod
    def _read_remains(self) -> None:
        """Look for names in directories as they are and in free space."""

    @abstractmethod
    def _free_parts(self, run: Run) -> Iterator[tuple[int, int]]:
        """(first block, number of blocks) of what of a run is free today, in order."""

    @abstractmethod
    def _written_after(self, block: int, count: int, sequence: int) -> Iterable[int]:
        """Those of some blocks that the log knows to have been written after a transaction, in order."""

    @abstractmethod
    def _long_target(
        self, find: Find[AnyInode], state: State[AnyInode], origin: Origin
    ) -> tuple[Source | None, Confidence]:
        """The target of a symbolic link that is too long for its inode, and has blocks."""

    @abstractmethod
    def _method(self, find: Find[AnyInode]) -> str:
        """How it was found."""

    @abstractmethod
    def _transaction(self, sequence: int) -> str:
        """A transaction as a step of a chain."""

    def _logged(self, find: Find[AnyInode]) -> tuple[Source, Confidence] | None:
        """The content of a file that went through the log itself; None when it did not, or not all of it is there."""
        return None

    def _prepare(self, finds: Sequence[Find[AnyInode]]) -> None:
        """Look at all finds before the first is judged."""

    def _overwrites(self, life: Life[AnyInode]) -> bool:
        """Whether what a life wrote has to be remembered, for the log does not tell when its blocks were written."""
        return True

    def _finds(self, lives: LifeTable[AnyInode]) -> Iterator[Find[AnyInode]]:
        """What was deleted, the newest first, so that what overwrote comes before what was overwritten.

        Earlier content of a log that grew is a find of its own; of other files it may have been changed in place.
        """
        finds: list[Find[AnyInode]] = []
        for life in lives:
            if not life.states and not life.alive:
                finds.append(Find(life, None))
            finds += (Find(life, state, is_last=index == 0) for index, state in enumerate(life.states))
            finds += (Find(life, state, is_last=False, is_grown=True) for state in life.grown)
        finds.sort(key=lambda find: (find.last, find.life.number), reverse=True)
        self._prepare(finds)
        own: dict[tuple[int, int], Intervals] = {}
        for find in finds:
            life, state = find.life, find.state
            if state is not None:
                kept = own.setdefault((life.number, life.order), Intervals()) if life.grown else Intervals()
                if find.is_grown:
                    find.kept = state.runs if life.alive or kept.cover(state.runs) else ()
                else:
                    find.kept = self._kept(find, state)
                    if self._overwrites(life):
                        self._used.add(state.runs)
                    kept.add(find.kept)
                whole = block_count(find.kept) == block_count(state.runs)
                if (find.is_last and life.alive) or not (find.is_last or whole or self._logged(find) is not None):
                    continue
            yield find

    def _kept(self, find: Find[AnyInode], state: State[AnyInode]) -> tuple[Run, ...]:
        """The runs of a state that nothing else can have overwritten."""
        if state.last == NOW and self._is_open(find.life, state):
            return state.runs
        return tuple(
            Run(run.logical + begin - run.block, begin, end - begin, run.written)
            for run in state.runs
            for begin, end in self._parts_kept(find, state, run)
        )

    def _parts_kept(self, find: Find[AnyInode], state: State[AnyInode], run: Run) -> list[tuple[int, int]]:
        """(first block, the one behind the last) of what of a run is free and was not written since, in order."""
        parts: list[tuple[int, int]] = []
        for start, count in self._free_parts(run):
            for begin, end in self._used.gaps(start, start + count):
                for written in (*self._written_after(begin, end - begin, state.last), end):
                    if written > begin:
                        parts.append((begin, written))
                    begin = written + 1
        return parts

    def _is_open(self, life: Life[AnyInode], state: State[AnyInode]) -> bool:
        """Whether the blocks are still allocated, to a file without a name that was open when the disk was copied."""
        return (
            life.inode.mode != 0
            and not life.inode.nlink
            and not any(True for run in state.runs for _ in self._free_parts(run))
        )

    def _remnant(self, find: Find[AnyInode], names: list[Name]) -> Remnant:
        life, state = find.life, find.state
        inode = state.inode if state else life.inode
        path = _VOLUME.sub(r"\1/_data", names[0].path) if names else ""
        origin = self._origin(life, state)
        details = [described(life.inode.mode)] if inode.mode and not stat.S_ISREG(inode.mode) else []
        details += name_words(names, path)
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
            method=self._method(find),
            confidence=grade,
            complete=grade in (Confidence.INTACT, Confidence.VERIFIED),
            size=size,
            origin=origin,
            detail="; ".join(details),
            deleted_ns=life.deleted_ns,
            modified_ns=inode.mtime_ns,
            content=content,
        )

    def _target(self, find: Find[AnyInode], origin: Origin) -> tuple[Source | None, Confidence]:
        state = find.state
        if state is None:
            return None, Confidence.METADATA_ONLY
        if state.data is not None:
            return BytesSource(state.data, origin), Confidence.INTACT
        return self._long_target(find, state, origin)

    def _judge(self, find: Find[AnyInode], path: str, origin: Origin) -> tuple[Source | None, Confidence, list[str]]:
        """The content of a file, how sure it is, and what has to be said about it."""
        state = find.state
        if state is None:
            words = f"no content is known: never written, empty, or forgotten by the {self.log}"
            return None, Confidence.METADATA_ONLY, [words]
        logged = self._logged(find) if stat.S_ISREG(state.inode.mode) else None
        if logged is not None:
            return *logged, [f"its bytes are in the {self.log}"]
        content = self._content(state, find.kept, origin)
        whole, kept = block_count(state.runs), block_count(find.kept)
        if kept < whole:
            left = f"{kept} of {whole} blocks are still there" if kept else "all blocks were used again"
            return (content if kept else None), Confidence.METADATA_ONLY, [left]
        said = [f"{find.shared} of {whole} blocks are shared with a file that still exists"] if find.shared else []
        grade, wrong = judged(path, content)
        said += [wrong] if wrong else []
        if state.is_sized or grade is not Confidence.INTACT:
            return content, grade, said
        said.append("its size is not known, zeros at the end are left out")
        return content, Confidence.INTACT if _ends_itself(content) else Confidence.CARVED, said

    def _content(self, state: State[AnyInode], kept: tuple[Run, ...], origin: Origin) -> Source:
        if state.data is not None:
            return BytesSource(state.data, origin)
        size = self._block_size
        extents = [(run.logical * size, run.block * size, run.count * size) for run in kept if run.written]
        end = state.inode.size
        if not state.is_sized:
            end = max((logical + length for logical, _, length in extents), default=0)
            end = _trimmed(ExtentSource(self._source, extents, end, origin))
        return ExtentSource(self._source, extents, end, origin)

    def _origin(self, life: Life[AnyInode], state: State[AnyInode] | None) -> Origin:
        last, at = (state.last, state.at) if state else (life.last, life.at)
        if last == NOW or last < 0:
            return self._disk.to(f"inode {life.number}", at)
        return self._disk.to(self._transaction(last)).to(f"inode {life.number}", at)


def block_count(runs: Iterable[Run]) -> int:
    """How many blocks some runs have."""
    return sum(run.count for run in runs)


def described(mode: int) -> str:
    """What an inode is that is no regular file."""
    return _KINDS.get(stat.S_IFMT(mode), "device")


def name_words(names: Sequence[Name], path: str) -> list[str]:
    """What has to be said about the names of a remnant beside the path that it gets."""
    words = [f"written as {names[0].written_as}"] if names and names[0].written_as else []
    others = list(dict.fromkeys(name.path for name in names[1:] if name.path != path and not name.written_as))
    return words + ([f"also {', '.join(others[:4])}"] if others else [])


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
