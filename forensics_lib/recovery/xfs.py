"""Deleted files of XFS: content, names, paths and times, from what the log and the inodes remember."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.formats.run import Run
from forensics_lib.formats.xfs_inode import XfsInode
from forensics_lib.formats.xfs_log_history import LogHistory
from forensics_lib.model import Origin, ProblemLog, Progress
from forensics_lib.recovery.intervals import Intervals
from forensics_lib.recovery.lives import NOW
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.recovery.undelete import Find, Undelete, block_count
from forensics_lib.recovery.xfs_free import FreeMap
from forensics_lib.recovery.xfs_lives import Life, Lives, State
from forensics_lib.recovery.xfs_names import Names
from forensics_lib.recovery.xfs_past import Past
from forensics_lib.recovery.xfs_remains import Remains
from forensics_lib.recovery.xfs_shared import SharedBlocks, is_shared
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.trees.xfs import XfsTree

__all__ = ["undelete"]

_LINK_HEADER, _LINK_MAGIC, _LINK_BLOCKS = 56, b"XSLM", 16


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
    yield from _Undelete(tree, past, free, names, lives.sharing).run(lives)


class _Undelete(Undelete[XfsInode]):
    """Deleted files of one file system; blocks that they share with living files are theirs as well."""

    log = "log"

    def __init__(self, tree: XfsTree, past: Past, free: FreeMap, names: Names, sharing: Sequence[int]) -> None:
        """Start with nothing overwritten; `sharing` are the inodes in use that share blocks."""
        super().__init__(tree.geometry.source, tree.geometry.block_size, tree.origin, names)
        self._names: Names = names
        self._geometry = tree.geometry
        self._past = past
        self._free = free
        self._sharing = sharing
        self._shared = SharedBlocks(self._geometry, iter(()), self._used.inside)

    def _read_remains(self) -> None:
        self._names.read_remains()

    def _free_parts(self, run: Run) -> Iterator[tuple[int, int]]:
        return self._free.parts(run.block, run.count)

    def _written_after(self, block: int, count: int, sequence: int) -> Iterator[int]:
        return self._past.written_after(block, count, sequence)

    def _prepare(self, finds: Sequence[Find[XfsInode]]) -> None:
        """Note which allocated blocks of deleted files belong to living files that share them."""
        wanted = Intervals()
        for find in finds:
            if find.state is not None and is_shared(find.state.inode.flags2):
                wanted.add(find.state.runs)
        self._shared = SharedBlocks(self._geometry, iter(self._sharing), wanted.inside)

    def _overwrites(self, life: Life) -> bool:
        """Whether its blocks are content; what else has blocks is in the log, and asked of it."""
        return stat.S_ISREG(life.inode.mode)

    def _parts_kept(self, find: Find[XfsInode], state: State, run: Run) -> list[tuple[int, int]]:
        parts = super()._parts_kept(find, state, run)
        born_ns = state.inode.times[3]
        if born_ns is not None and is_shared(state.inode.flags2):
            for begin, end in self._shared.parts(run.block, run.block + run.count, born_ns):
                if not any(True for _ in self._free.parts(begin, end - begin)):
                    find.shared += end - begin
                    parts.append((begin, end))
        return sorted(parts)

    def _long_target(self, find: Find[XfsInode], state: State, origin: Origin) -> tuple[Source | None, Confidence]:
        """Its blocks are in the log as well."""
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
        if len(target) < state.inode.size or not (logged or block_count(find.kept) == block_count(state.runs)):
            return None, Confidence.METADATA_ONLY
        return BytesSource(target[: state.inode.size], origin), Confidence.INTACT

    def _method(self, find: Find[XfsInode]) -> str:
        return "xfs log" if 0 <= find.last < NOW else "xfs inode"

    def _transaction(self, sequence: int) -> str:
        return self._past.label_of(sequence)
