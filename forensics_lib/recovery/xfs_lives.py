"""The lives of inodes: what each number of an XFS file system was, one file after the other, as far as is remembered.

A deleted inode keeps its times, and often the places of its extents, but not its size; older copies in the log have all
of it. A number is given to new files again and again; generation and time of creation tell them apart.
"""

from __future__ import annotations

import stat

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.run import Run
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_fork import decode_extents, fork_extents
from forensics_lib.formats.xfs_inode import ForkFormat, InodeTable, XfsInode
from forensics_lib.formats.xfs_space import inode_chunks
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.lives import NOW, LifeTable
from forensics_lib.recovery.lives import Life as AnyLife
from forensics_lib.recovery.lives import State as AnyState
from forensics_lib.recovery.xfs_past import Past, Version, same_life
from forensics_lib.recovery.xfs_remains import Remains
from forensics_lib.recovery.xfs_shared import is_shared

__all__ = ["Life", "Lives", "State"]

_MAX_RUNS = 1 << 22
_MAX_FORMER = 1 << 20
_FORK_AT, _FORK_AT_3 = 100, 176
_OWNER_AT = 56
_NEVER = bytes(4)


Life = AnyLife[XfsInode]
State = AnyState[XfsInode]


class Lives(LifeTable[XfsInode]):
    """All lives that the log, the inodes and free space know of, except those of inodes that simply live on.

    Args:
        geometry: of the file system.
        past: what its log tells; gets the versions that lie in the file system.
        remains: what free space holds.
        problems: gets inodes that cannot be read.

    Attributes:
        directories: numbers of the directories that live.
        sharing: numbers of the inodes in use that share blocks.
        former: data forks of freed inodes that can have been directories, by number.
    """

    def __init__(self, geometry: XfsGeometry, past: Past, remains: Remains, problems: ProblemLog) -> None:
        """Read all inodes."""
        super().__init__()
        self._geometry = geometry
        self._past = past
        self._problems = problems
        self._table = InodeTable(geometry)
        self._fork_at = _FORK_AT_3 if geometry.version == 5 else _FORK_AT
        self._runs_left = _MAX_RUNS
        self.directories: list[int] = []
        self.sharing: list[int] = []
        self.former: dict[int, bytes] = {}
        self._collect_present()
        for inode in remains.inodes:
            sequence = past.sequence_of(inode.lsn)
            past.remember(inode.number, Version(sequence, sequence, inode.at, inode.data))
        for number in sorted(past.versions):
            versions = past.versions.pop(number)
            if versions and versions[-1].last != NOW:
                versions.append(Version(NOW, NOW, 0, b""))
            found = self._split(number, versions)
            if found:
                self._lives[number] = found
        self._by_low: dict[int, list[int]] = {}
        for number in self._lives:
            self._by_low.setdefault(number & 0xFFFFFFFF, []).append(number)

    def before(self, number: int, sequence: int) -> Life | None:
        """What a number was before a transaction; None when that is not known."""
        found: Life | None = None
        for life in self._lives.get(number, ()):
            if life.first < sequence:
                found = life
        return found

    def numbers(self, low: int) -> list[int]:
        """The numbers with certain low 32 bits that have lives."""
        return self._by_low.get(low & 0xFFFFFFFF, [])

    def _collect_present(self) -> None:
        def report(fault: str) -> None:
            self._problems.add(self._geometry.source.origin.to("inodes"), fault)

        size = self._geometry.inode_size
        left = self._geometry.block_count * self._geometry.block_size  # chunks do not overlap, whatever records say
        for chunk in inode_chunks(self._geometry, report):
            left -= chunk.inodes * size
            try:
                data = self._geometry.source.read_at(chunk.offset, chunk.inodes * size)
            except DamagedData as error:
                report(f"inodes {chunk.first} to {chunk.first + chunk.inodes - 1} cannot be read: {error}")
                continue
            if left < 0:
                report("the inode trees declare more inodes than there is room for")
                return
            self._collect_chunk(chunk.first, chunk.offset, data)

    def _collect_chunk(self, first: int, offset: int, data: bytes) -> None:
        size, versions = self._geometry.inode_size, self._past.versions
        for at in range(0, len(data) - size + 1, size):
            if data[at : at + 2] != b"IN":
                continue
            number = first + at // size
            mode = data[at + 2] << 8 | data[at + 3]
            if mode & 0xF000 == 0x4000:
                self.directories.append(number)
            if self._fork_at == _FORK_AT_3 and mode and is_shared(data[at + 127]):
                self.sharing.append(number)
            wanted = number in versions
            if not wanted:
                if mode:
                    wanted = data[at + 16 : at + 20] == _NEVER and data[at + 4] > 1  # deleted, but open
                else:
                    wanted = data[at + 48 : at + 56] != bytes(8)  # it was in use once
            fork = at + self._fork_at
            if not mode and any(data[fork + 2 : fork + 6]) and len(self.former) < _MAX_FORMER:
                self.former[number] = data[fork : at + size]
            if wanted:
                self._past.remember(number, Version(NOW, NOW, offset + at, data[at : at + size]))

    def _split(self, number: int, versions: list[Version]) -> list[Life]:
        """The lives in the versions of an inode, oldest first."""
        lives: list[Life] = []
        alive: list[tuple[Version, XfsInode]] = []
        before = b""
        for version in versions:
            if not version.data:
                if lives and lives[-1].alive:
                    self._end(lives[-1], version, None, alive)
                    alive = []
                continue
            inode = self._table.decode(number, version.data, 0, version.at)
            new = not before or not same_life(before, version.data)
            before = version.data
            if lives and lives[-1].alive and (new or not inode.mode):
                self._end(lives[-1], version, None if new else inode, alive)
                alive = []
            elif not inode.mode and new and inode.ctime:
                life = AnyLife(number, len(lives), (lives[-1].ended or 0) if lives else -1, -1, inode, version.at)
                left = self._left(version, inode)
                life.states = [left] if left is not None else []
                life.ended, life.deleted_ns = version.first, inode.ctime_ns
                lives.append(life)
            if not inode.mode:
                continue
            if new or not lives or not lives[-1].alive:
                lives.append(AnyLife(number, len(lives), version.first, -1, inode, version.at))
            life = lives[-1]
            life.last, life.inode, life.at = version.last, inode, version.at
            alive.append((version, inode))
        if lives and lives[-1].alive:
            life = lives[-1]
            if len(alive) > 1 or life.is_dir or not life.inode.nlink:
                self._set_states(life, alive)
            if life.last == NOW and not life.inode.nlink:
                life.ended, life.deleted_ns = NOW, life.inode.ctime_ns
        return lives

    def _end(self, life: Life, version: Version, inode: XfsInode | None, alive: list[tuple[Version, XfsInode]]) -> None:
        """Note how a life ended; `inode` is its deleted inode, None when that is not known."""
        life.ended = version.first
        if inode is not None:
            life.deleted_ns = inode.ctime_ns
        elif not life.inode.nlink:
            life.deleted_ns = life.inode.ctime_ns
        self._set_states(life, alive)
        if inode is not None and version.last == NOW and not life.states:
            left = self._left(version, inode)
            life.states = [left] if left is not None else []

    def _set_states(self, life: Life, alive: list[tuple[Version, XfsInode]]) -> None:
        """Keep the contents of a life; of a directory only the last one with blocks of its own."""
        if life.is_dir:
            states = (self._state(version, inode) for version, inode in reversed(alive))
            life.states = [state for state in states if state is not None and state.runs][:1]
            return
        life.sort_in(
            (self._state(version, inode) if inode.size else None, self._written_ns(version, inode))
            for version, inode in reversed(alive)
        )

    def _written_ns(self, version: Version, inode: XfsInode) -> int:
        """When a version was written first; nothing but times may have changed since."""
        return self._table.decode(inode.number, version.early or version.data, 0, 0).mtime_ns

    def _state(self, version: Version, inode: XfsInode) -> State | None:
        kind = stat.S_IFMT(inode.mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK) or inode.is_realtime:
            return None
        if inode.format == ForkFormat.LOCAL:
            whole = version.sure and inode.size <= len(inode.data_fork)
            return AnyState(inode, (), version.last, version.at, inode.data_fork[: inode.size]) if whole else None
        try:
            found = self._runs(inode, version)
        except DamagedData:
            return None
        return AnyState(inode, found, version.last, version.at) if found else None

    def _runs(self, inode: XfsInode, version: Version) -> tuple[Run, ...]:
        """The blocks of an inode, up to its size.

        Raises:
            DamagedData: they cannot be what the inode had when it was written.
        """

        def read(block: int) -> bytes:
            place = self._geometry.block_offset(block) // self._geometry.block_size
            data = self._past.as_of(place, version.last, self._geometry.read_blocks(block))
            if self._geometry.version == 5 and int.from_bytes(data[_OWNER_AT : _OWNER_AT + 8], "big") != inode.number:
                raise DamagedData("it is not of this inode")
            return data

        extents = fork_extents(self._geometry, inode, _refuse, read=read)
        total = sum(extent.length for extent in extents)
        exact = not inode.attribute_extents and inode.format == ForkFormat.EXTENTS
        if total > inode.blocks or (total < inode.blocks and exact and not version.sure):
            raise DamagedData(f"inode {inode.number}: the places of its content are those of another time")
        wanted = -(-inode.size // self._geometry.block_size) if stat.S_ISREG(inode.mode) else 1 << 54
        found: list[Run] = []
        for extent in extents:
            if extent.offset >= wanted or extent.block is None:
                break
            count = min(extent.length, wanted - extent.offset)
            found.append(Run(extent.offset, self._place(extent.block, count), count, not extent.unwritten))
        self._runs_left -= len(found)
        if self._runs_left < 0:
            message = f"files of more than {_MAX_RUNS} pieces; the content of the others is not looked for"
            self._problems.add(self._geometry.source.origin, LimitExceeded(message))
            raise DamagedData(message)
        return tuple(found)

    def _place(self, block: int, count: int) -> int:
        return self._geometry.block_offset(block, count) // self._geometry.block_size

    def _left(self, version: Version, inode: XfsInode) -> State | None:
        """The content whose extents a freed inode still has; how many they were and the size is not told."""
        found: list[Run] = []
        end = 0
        for extent in decode_extents(version.data[self._fork_at :], 1 << 10):
            if not extent.length or extent.offset < end or extent.block is None:
                break
            try:
                block = self._place(extent.block, extent.length)
            except DamagedData:
                break
            end = extent.offset + extent.length
            found.append(Run(extent.offset, block, extent.length, not extent.unwritten))
        if not found or found[0].logical:
            return None
        return AnyState(inode, tuple(found), version.last, version.at, is_sized=False)


def _refuse(fault: str) -> None:
    raise DamagedData(fault)
