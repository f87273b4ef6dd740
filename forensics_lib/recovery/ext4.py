"""Deleted files of ext2, ext3 and ext4: content, names, paths and times, from what the journal remembers.

A file counts as whole when all its blocks are unallocated today, and no later file or directory that the journal knows
of used one of them in between. That is no proof: content can have been written and deleted again between two
transactions. So its form has to fit its name, too.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from forensics_lib.errors import DamagedData
from forensics_lib.formats.ext4_fast_commit import read_fast_commits
from forensics_lib.formats.ext4_groups import BlockGroups
from forensics_lib.formats.jbd2_history import JournalHistory
from forensics_lib.formats.run import Run
from forensics_lib.model import Origin, ProblemLog, Progress
from forensics_lib.recovery.ext4_free import free_ranges
from forensics_lib.recovery.ext4_lives import Life, Lives, State
from forensics_lib.recovery.ext4_names import Names
from forensics_lib.recovery.intervals import Intervals
from forensics_lib.recovery.judge import container_of, judged, kind_of
from forensics_lib.recovery.lives import NOW
from forensics_lib.recovery.paths import Name
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.sources.base import BytesSource, ExtentSource, Source
from forensics_lib.trees.ext import ExtTree

__all__ = ["undelete"]

_METHOD = "ext4 journal"
_VOLUME = re.compile(r"(/volumes/[^/]+)/<inode \d+>(?=/|$)")


def undelete(tree: ExtTree, problems: ProblemLog, progress: Progress | None = None) -> Iterator[Remnant]:
    """Everything deleted that the journal and the inode tables of a file system still know, the newest first.

    Regular files with content, or with metadata only where blocks were used again; former content of files that were
    truncated or replaced; directories and symbolic links. The content of a link is its target; its size is 0, as of
    every node that is no file.

    Args:
        tree: the file system.
        problems: gets what could not be read.
        progress: called with bytes done and in total: of the journal, then of the free space if names are missing.
    """
    source = tree.source
    groups = BlockGroups(source)
    try:
        history = JournalHistory(_log(tree), progress)
        if history.block_size not in (0, groups.block_size):
            raise DamagedData("the journal has blocks of another size", origin=tree.origin)
    except DamagedData as error:
        problems.add(tree.origin.to("journal"), error)
        history = JournalHistory(None)
    fast = list(read_fast_commits(history.fast_area(), history.block_size)) if history.fast_size else []
    if fast and tree.geometry.needs_recovery:
        message = f"{len(fast)} records of fast commits are not replayed; what only they know is among the remnants"
        problems.add(tree.origin.to("journal", history.fast_at), message)
    lives = Lives(source, history, groups, problems, fast)
    names = Names(source, tree.geometry, history, groups, lives, fast)
    yield from _Undelete(tree, source, history, groups, names).run(lives, progress)


def _log(tree: ExtTree) -> Source | None:
    number = tree.geometry.journal_inode
    if not number:
        return None
    inode = tree.geometry.inode(number)
    return tree.content(number, inode.size, tree.origin.to("journal", inode.offset))


@dataclass(slots=True)
class _Find:
    """A state of a life, and which of its blocks are still its own."""

    life: Life
    state: State | None
    kept: tuple[Run, ...] = ()
    is_last: bool = True
    is_grown: bool = False

    @property
    def last(self) -> int:
        """The last transaction that knew it."""
        return self.state.last if self.state else self.life.last


class _Undelete:
    """Joins content, names and allocation."""

    def __init__(
        self, tree: ExtTree, source: Source, history: JournalHistory, groups: BlockGroups, names: Names
    ) -> None:
        """Start with nothing overwritten."""
        self._tree = tree
        self._source = source
        self._history = history
        self._groups = groups
        self._names = names
        self._used = Intervals()

    def run(self, lives: Lives, progress: Progress | None) -> Iterator[Remnant]:
        """The remnants; those whose path is not known come last, after a look at the free space."""
        unnamed: list[_Find] = []
        for find in self._finds(lives):
            found = self._names.of(find.life)
            if not found or not found[0].is_whole:
                unnamed.append(find)
            elif not find.is_grown or kind_of(found[0].path) == "log":
                yield self._remnant(find, found)
        if unnamed:
            self._names.read_remains(free_ranges(self._tree), progress)
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
        own: dict[tuple[int, int], Intervals] = {}
        for find in finds:
            life, state = find.life, find.state
            if state is not None:
                kept = own.setdefault((life.number, life.order), Intervals()) if life.grown else Intervals()
                if find.is_grown:
                    find.kept = state.runs if life.alive or kept.cover(state.runs) else ()
                else:
                    find.kept = self._kept(life, state)
                    self._used.add(state.runs)
                    kept.add(find.kept)
                whole = _blocks(find.kept) == _blocks(state.runs)
                if (find.is_last and life.alive) or not (find.is_last or whole):
                    continue
            yield find

    def _kept(self, life: Life, state: State) -> tuple[Run, ...]:
        """The runs of a state that nothing else can have overwritten."""
        if state.last == NOW and self._is_open(life, state):
            return state.runs
        kept: list[Run] = []
        for run in state.runs:
            for start, count in self._groups.free_parts(run.block, run.count):
                for begin, end in self._used.gaps(start, start + count):
                    for used in (*self._history.written_after(begin, end - begin, state.last), end):
                        if used > begin:
                            shift = begin - run.block
                            kept.append(Run(run.logical + shift, begin, used - begin, run.written))
                        begin = used + 1
        return tuple(kept)

    def _is_open(self, life: Life, state: State) -> bool:
        """Whether the blocks are still allocated, to a file without a name that was open when the disk was copied."""
        return not life.inode.nlink and not any(
            True for run in state.runs for _ in self._groups.free_parts(run.block, run.count)
        )

    def _remnant(self, find: _Find, names: list[Name]) -> Remnant:
        life, state = find.life, find.state
        inode = state.inode if state else life.inode
        path = _VOLUME.sub(r"\1/_data", names[0].path) if names else ""
        origin = self._origin(life, state)
        details = [_described(life)] if not stat.S_ISREG(inode.mode) else []
        details += [f"written as {names[0].written_as}"] if names and names[0].written_as else []
        others = list(dict.fromkeys(name.path for name in names[1:] if name.path != path and not name.written_as))
        details += [f"also {', '.join(others[:4])}"] if others else []
        content: Source | None = None
        grade = Confidence.METADATA_ONLY
        if stat.S_ISLNK(inode.mode) and state is not None:
            content, grade = self._target(find, origin)
            if content is not None:
                details[:1] = [f"symbolic link to {content.read_at(0, 4096).decode('utf-8', 'surrogateescape')}"]
        elif stat.S_ISREG(inode.mode):
            content, grade, words = self._judge(find, path, origin)
            details += words
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
            method=_METHOD if life.last != -1 else "ext4 inode",
            confidence=grade,
            complete=grade is not Confidence.METADATA_ONLY,
            size=inode.size
            if stat.S_ISREG(inode.mode) and state is not None
            else 0
            if stat.S_ISLNK(inode.mode)
            else None,
            origin=origin,
            detail="; ".join(details),
            deleted_ns=life.deleted_ns,
            modified_ns=inode.mtime_ns,
            content=content,
        )

    def _target(self, find: _Find, origin: Origin) -> tuple[Source | None, Confidence]:
        """The target of a link; a long one has a block of its own, which the journal holds as well."""
        state = find.state
        if state is None or (state.data is None and len(state.runs) != 1):
            return None, Confidence.METADATA_ONLY
        if state.data is not None:
            return BytesSource(state.data, origin), Confidence.INTACT
        data = self._history.between(state.runs[0].block, find.life.first, state.last)
        if data is not None:
            return BytesSource(data[: state.inode.size], origin), Confidence.VERIFIED
        if _blocks(find.kept) == _blocks(state.runs):
            return self._content(state, find.kept, origin), Confidence.INTACT
        return None, Confidence.METADATA_ONLY

    def _judge(self, find: _Find, path: str, origin: Origin) -> tuple[Source | None, Confidence, list[str]]:
        """The content of a file, how sure it is, and what has to be said about it."""
        state = find.state
        if state is None:
            return (
                None,
                Confidence.METADATA_ONLY,
                ["no content is known: never written, empty, or forgotten by the journal"],
            )
        content = self._content(state, find.kept, origin)
        whole, kept = _blocks(state.runs), _blocks(find.kept)
        if kept < whole:
            words = f"{kept} of {whole} blocks are still there" if kept else "all blocks were used again"
            return (content if kept else None), Confidence.METADATA_ONLY, [words]
        grade, words = judged(path, content)
        return content, grade, [words] if words else []

    def _content(self, state: State, kept: tuple[Run, ...], origin: Origin) -> Source:
        if state.data is not None:
            return BytesSource(state.data, origin)
        size = self._groups.block_size
        extents = [(run.logical * size, run.block * size, run.count * size) for run in kept if run.written]
        return ExtentSource(self._source, extents, state.inode.size, origin)

    def _origin(self, life: Life, state: State | None) -> Origin:
        last, at = (state.last, state.at) if state else (life.last, life.at)
        if last == NOW or last < 0:
            return self._tree.origin.to(f"inode {life.number}", at)
        return self._tree.origin.to(f"journal transaction {last}").to(f"inode {life.number}", at)


def _blocks(runs: tuple[Run, ...]) -> int:
    return sum(run.count for run in runs)


def _described(life: Life) -> str:
    kinds = {stat.S_IFDIR: "directory", stat.S_IFLNK: "symbolic link", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(life.inode.mode), "device")
