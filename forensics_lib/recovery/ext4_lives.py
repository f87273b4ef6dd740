"""The lives of inodes: what each number of an ext file system was, one file after the other, as far as is remembered.

A deleted inode of ext3 and ext4 no longer says where its content lay, but older copies of it in the journal do. A
number is given to new files again and again; its generation and its time of creation tell them apart.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.ext4_fast_commit import FastInode, FastName
from forensics_lib.formats.ext4_groups import BlockGroups, InodeTable
from forensics_lib.formats.ext4_inode import INLINE_DATA, ExtInode, decode_inode
from forensics_lib.formats.ext4_map import is_short_link, runs
from forensics_lib.formats.jbd2_history import JournalHistory
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.lives import NOW, LifeTable
from forensics_lib.recovery.lives import Life as AnyLife
from forensics_lib.recovery.lives import State as AnyState
from forensics_lib.sources.base import Source

__all__ = ["Life", "Lives", "State"]

_ROOT, _FIRST_ORDINARY = 2, 11
_MAX_VERSIONS = 1 << 21
_MAX_RUNS = 1 << 22
_TABLE_STEP = 256


@dataclass(slots=True)
class _Version:
    first: int
    last: int
    at: int
    data: bytes


Life = AnyLife[ExtInode]
State = AnyState[ExtInode]


class Lives(LifeTable[ExtInode]):
    """All lives that the journal and the inode tables know of, except those of inodes that simply live on.

    Args:
        source: the file system as it is.
        history: its journal.
        groups: its block groups.
        problems: gets inodes that cannot be read.
        fast: the records of its fast commits.

    Attributes:
        directories: numbers of the directories that live.
    """

    def __init__(
        self,
        source: Source,
        history: JournalHistory,
        groups: BlockGroups,
        problems: ProblemLog,
        fast: Sequence[FastInode | FastName] = (),
    ) -> None:
        """Read the copies in the log and the inode tables."""
        super().__init__()
        self._source = source
        self._history = history
        self._groups = groups
        self._problems = problems
        self._runs_left = _MAX_RUNS
        self.directories: list[int] = []
        versions: dict[int, list[_Version]] = {}
        inodes = sorted((one for one in fast if isinstance(one, FastInode)), key=lambda one: one.sequence)
        self._collect_past(versions, inodes)
        self._collect_present(versions)
        for number in sorted(versions):
            found = self._split(number, versions.pop(number))
            if found:
                self._lives[number] = found

    def like(self, number: int, data: bytes) -> Life | None:
        """The life of a number that a copy of its inode belongs to, by its generation and time of creation."""
        inode = decode_inode(number, data.ljust(self._groups.inode_size, b"\0")[: self._groups.inode_size], 0)
        for life in self.of(number):
            if (life.inode.generation, life.inode.btime_ns) == (inode.generation, inode.btime_ns):
                return life
        return None

    def _collect_past(self, versions: dict[int, list[_Version]], fast: list[FastInode]) -> None:
        """The copies in the log; fast commits come before the transaction that was under way."""
        size, count, done = self._groups.inode_size, 0, 0
        seen: dict[int, bytes] = {}
        changed: set[int] = set()
        for copy in self._history.copies:
            while done < len(fast) and fast[done].sequence <= copy.sequence:
                count += self._take_fast(versions, fast[done], changed)
                done += 1
            place = self._groups.table_of(copy.block)
            if place is None:
                continue
            data = self._history.content(copy)
            if data is None:
                continue
            number = place[1]
            before = seen.get(copy.block, b"")
            seen[copy.block] = data
            offset = self._history.offset(copy)
            for position in range(0, len(data) - size + 1, size):
                raw = data[position : position + size]
                this = number + position // size
                if raw == before[position : position + size] and this not in changed:
                    known = versions.get(number + position // size)
                    if known:
                        known[-1].last = copy.sequence
                    continue
                if any(raw[:2]) or number + position // size in versions:
                    count += _remember(versions, number + position // size, copy.sequence, offset + position, raw)
            if count > _MAX_VERSIONS:
                message = f"more than {_MAX_VERSIONS} versions of inodes; the newest transactions are not used"
                self._problems.add(self._source.origin.to("journal"), LimitExceeded(message))
                return
        for one in fast[done:]:
            self._take_fast(versions, one, changed)

    def _take_fast(self, versions: dict[int, list[_Version]], one: FastInode, changed: set[int]) -> int:
        """Add a version from a fast commit; gives the number of versions added."""
        if one.number < 1 or self._groups.group_of(one.number) >= len(self._groups.tables) or not any(one.data[:2]):
            return 0
        changed.add(one.number)
        size = self._groups.inode_size
        data = one.data.ljust(size, b"\0")[:size]
        return _remember(versions, one.number, one.sequence, self._history.fast_at + one.at, data)

    def _collect_present(self, versions: dict[int, list[_Version]]) -> None:
        step = _TABLE_STEP * (self._groups.block_size // self._groups.inode_size)
        known: dict[int, int] = {}
        left = self._source.size  # tables do not overlap, whatever descriptors say
        for number in versions:
            group = self._groups.group_of(number)
            known[group] = max(known.get(group, 0), number)
        for group, table in enumerate(self._groups.tables):
            count = max(table.used, known.get(group, 0) - table.first + 1)
            for start in range(0, count, step):
                read = self._read_table(table, start, min(step, count - start), versions)
                left -= read
                if not read or left < 0:
                    break

    def _read_table(self, table: InodeTable, start: int, count: int, versions: dict[int, list[_Version]]) -> int:
        """Read inodes of a table; gives the number of bytes that were there."""
        size = self._groups.inode_size
        offset = table.block * self._groups.block_size + start * size
        try:
            data = self._source.read_at(offset, count * size)
        except DamagedData as error:
            self._problems.add(self._source.origin.to("inode table", offset), error)
            return 0
        for position in range(0, len(data) - size + 1, size):
            number = table.first + start + position // size
            mode = data[position] | data[position + 1] << 8
            linked = data[position + 26] | data[position + 27]
            if linked and mode & 0xF000 == 0x4000 and (number >= _FIRST_ORDINARY or number == _ROOT):
                self.directories.append(number)
            if number in versions or (mode and not linked and number >= _FIRST_ORDINARY):
                _remember(versions, number, NOW, offset + position, data[position : position + size])
        return len(data)

    def _split(self, number: int, versions: list[_Version]) -> list[Life]:
        """The lives in the versions of an inode, oldest first."""
        lives: list[Life] = []
        key: bytes = b""
        alive: list[tuple[_Version, ExtInode]] = []
        for version in versions:
            inode = decode_inode(number, version.data, version.at)
            this = version.data[100:104] + version.data[144:152]
            new = not lives or (inode.mode != 0 and this != key)
            if lives and lives[-1].alive and (new or not self._is_alive(inode)):
                self._end(lives[-1], version, None if new else inode, alive)
                alive = []
            if inode.mode == 0 or (not new and not self._is_alive(inode)):
                continue
            if new or not lives[-1].alive:
                key = this
                lives.append(AnyLife(number, len(lives), version.first, -1, inode, version.at))
                if not self._is_alive(inode):
                    self._end(lives[-1], version, inode, [])
                    continue
            life = lives[-1]
            life.last, life.inode, life.at = version.last, inode, version.at
            alive.append((version, inode))
        if lives and lives[-1].alive:
            life = lives[-1]
            if len(alive) > 1 or life.is_dir or not life.inode.nlink:
                self._set_states(life, alive)
            if life.last == NOW and not life.inode.nlink:
                life.ended, life.deleted_ns = NOW, life.inode.ctime_ns
            elif life.last != NOW:
                life.ended = NOW
        return lives

    def _end(
        self, life: Life, version: _Version, inode: ExtInode | None, alive: list[tuple[_Version, ExtInode]]
    ) -> None:
        """Note how a life ended; `inode` is its deleted inode, None when the number was given to something else."""
        life.ended = version.first
        self._set_states(life, alive)
        if inode is not None and inode.mode:
            life.deleted_ns = inode.ctime_ns if not inode.nlink else None
            if life.deleted_ns is None and self._is_time(inode):
                life.deleted_ns = inode.dtime * 10**9
        elif not life.inode.nlink:
            life.deleted_ns = life.inode.ctime_ns
        if life.deleted_ns is None:
            life.deleted_ns = self._history.committed_ns.get(version.first)

    def _is_alive(self, inode: ExtInode) -> bool:
        """Whether it has a name, or is open without one; freed inodes of ext2 keep their size, but note a time."""
        if not inode.mode:
            return False
        return inode.nlink > 0 or (inode.size > 0 and not self._is_time(inode))

    def _is_time(self, inode: ExtInode) -> bool:
        """Whether the field tells when the inode was deleted, not which one is next in the list of orphans."""
        return inode.dtime >= max(min(inode.ctime_ns, inode.mtime_ns) // 10**9 - 1, 1 << 24)

    def _set_states(self, life: Life, alive: list[tuple[_Version, ExtInode]]) -> None:
        life.sort_in(
            (self._state(version, inode) if inode.size else None, inode.mtime_ns) for version, inode in reversed(alive)
        )

    def _state(self, version: _Version, inode: ExtInode) -> State | None:
        kind = stat.S_IFMT(inode.mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            return None
        if self._runs_left < 0:
            message = f"files of more than {_MAX_RUNS} pieces; the content of the others is not looked for"
            self._problems.add(self._source.origin, LimitExceeded(message))
            return None
        if inode.flags & INLINE_DATA:
            return AnyState(inode, (), version.last, version.at, inode.block[: inode.size])
        if kind == stat.S_IFLNK and is_short_link(inode):
            return AnyState(inode, (), version.last, version.at, inode.block[: inode.size])
        for read in (lambda block: self._then(block, version.last), self._now):
            try:
                found = runs(inode, read, self._groups.block_size, self._groups.block_count)
            except DamagedData:
                continue
            self._runs_left -= len(found)
            return AnyState(inode, found, version.last, version.at) if found else None
        return None

    def _then(self, block: int, sequence: int) -> bytes:
        data = None if sequence == NOW else self._history.as_of(block, sequence)
        return self._now(block) if data is None else data

    def _now(self, block: int) -> bytes:
        if not 0 < block < self._groups.block_count:
            return b""
        return self._source.read_at(block * self._groups.block_size, self._groups.block_size)


def _remember(versions: dict[int, list[_Version]], number: int, sequence: int, at: int, data: bytes) -> int:
    """Add a version; one that differs only in times replaces the one before it. Gives the number of versions added."""
    known = versions.setdefault(number, [])
    if known and _essence(known[-1].data) == _essence(data):
        known[-1].last, known[-1].at, known[-1].data = sequence, at, data
        return 0
    known.append(_Version(sequence, sequence, at, data))
    return 1


def _essence(data: bytes) -> tuple[bytes, ...]:
    """What makes a version more than a newer time: mode, size, deletion, links, flags, blocks, generation, creation."""
    return data[:8], data[20:36], data[40:112], data[144:152]
