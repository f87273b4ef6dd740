"""Deleted files of ext2, ext3 and ext4: content, names, paths and times, from what the journal remembers."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from itertools import islice

from forensics_lib.errors import DamagedData
from forensics_lib.formats.ext4_fast_commit import read_fast_commits
from forensics_lib.formats.ext4_groups import BlockGroups
from forensics_lib.formats.ext4_inode import ExtInode
from forensics_lib.formats.jbd2_history import JournalHistory
from forensics_lib.formats.run import Run
from forensics_lib.model import Origin, ProblemLog, Progress
from forensics_lib.recovery.ext4_free import as_of_now, free_ranges
from forensics_lib.recovery.ext4_lives import Lives, State
from forensics_lib.recovery.ext4_names import Names
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.recovery.undelete import Find, Undelete, block_count
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.trees.ext import ExtTree

__all__ = ["undelete"]

_LOOKED_AT, _FEW = 2048, 5


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
    lives = Lives(source, history, groups, problems, fast)
    names = Names(source, tree.geometry, history, groups, lives, fast)
    free = free_ranges(tree, problems)
    yield from _Undelete(tree, history, groups, names, free, progress).run(lives)


def _log(tree: ExtTree) -> Source | None:
    number = tree.geometry.journal_inode
    if not number:
        return None
    inode = tree.geometry.inode(number)
    return tree.content(number, inode.size, tree.origin.to("journal", inode.offset))


class _Undelete(Undelete[ExtInode]):
    """Deleted files of one file system; what its journal holds of links is used, too."""

    log = "journal"

    def __init__(
        self,
        tree: ExtTree,
        history: JournalHistory,
        groups: BlockGroups,
        names: Names,
        free: Iterator[tuple[int, int]],
        progress: Progress | None,
    ) -> None:
        """Start with nothing overwritten; `free` are (offset, length) of the free space."""
        super().__init__(tree.source, groups.block_size, tree.origin, names)
        self._names: Names = names
        self._tree = tree
        self._free = free
        self._history = history
        self._groups = groups
        self._progress = progress
        self._holds_data = False

    def _prepare(self, finds: Sequence[Find[ExtInode]]) -> None:
        """Tell whether content went through the journal (``data=journal``): else blocks there were never a file's."""
        files = (one for one in finds if one.state is not None and stat.S_ISREG(one.life.inode.mode))
        known = [self._in_journal(find) is not None for find in islice(files, _LOOKED_AT)]
        self._holds_data = sum(known) * _FEW > len(known)

    def _logged(self, find: Find[ExtInode]) -> tuple[Source, Confidence] | None:
        content = self._in_journal(find) if self._holds_data else None
        if content is None:
            return None
        return content, Confidence.VERIFIED if self._history.is_checked else Confidence.INTACT

    def _in_journal(self, find: Find[ExtInode]) -> Source | None:
        life, state = find.life, find.state
        if state is None or state.data is not None or not state.runs:
            return None
        origin = self._origin(life, state)
        return self._history.data(state.runs, state.inode.size, life.first, state.last, origin)

    def _read_remains(self) -> None:
        self._names.read_remains(self._free, self._progress)

    def _free_parts(self, run: Run) -> Iterator[tuple[int, int]]:
        end = run.block + run.count
        parts = as_of_now(self._tree, self._groups.free_parts(run.block, run.count))
        return (
            (max(start, run.block), min(start + count, end) - max(start, run.block))
            for start, count in parts
            if start < end and start + count > run.block
        )

    def _written_after(self, block: int, count: int, sequence: int) -> Iterator[int]:
        return self._history.written_after(block, count, sequence)

    def _long_target(self, find: Find[ExtInode], state: State, origin: Origin) -> tuple[Source | None, Confidence]:
        """It has one block, which the journal holds as well."""
        if len(state.runs) != 1:
            return None, Confidence.METADATA_ONLY
        data = self._history.between(state.runs[0].block, find.life.first, state.last)
        if data is not None:
            return BytesSource(data[: state.inode.size], origin), Confidence.VERIFIED
        if block_count(find.kept) == block_count(state.runs):
            return self._content(state, find.kept, origin), Confidence.INTACT
        return None, Confidence.METADATA_ONLY

    def _method(self, find: Find[ExtInode]) -> str:
        return "ext4 inode" if find.life.last == -1 else "ext4 journal"

    def _transaction(self, sequence: int) -> str:
        return f"journal transaction {sequence}"
