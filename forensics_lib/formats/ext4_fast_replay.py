"""What the fast commits of ext4 change beyond the transactions of the journal, as mounting would apply them.

Format: Linux ``fs/ext4/fast_commit.c``. Three things differ from what a kernel makes of the same records, because it
fills in what they do not tell: it gives changed directories the time of the mount, does not count new directories in
their parents, and loses content that moved out of an inode. Here directories keep their older times and are counted,
and such content is where the records say.
"""

from __future__ import annotations

import bisect
import functools
import struct
from collections.abc import Iterable, Sequence

from forensics_lib.errors import DamagedData
from forensics_lib.formats.directory import Directory, Report
from forensics_lib.formats.ext4 import ExtGeometry
from forensics_lib.formats.ext4_dir import read_directory
from forensics_lib.formats.ext4_fast_commit import FastInode, FastName, FastRange, FastRecord
from forensics_lib.formats.ext4_inode import EXTENTS, INLINE_DATA, ExtInode, decode_inode
from forensics_lib.formats.run import Run
from forensics_lib.sources.base import Source

__all__ = ["FastReplay"]

_DIR, _FILE = 0x4000, 0x8000
_BLOCK, _BEHIND_BLOCK = 40, 100  # where an inode's map begins and ends
_LINKS = 26
_MAGIC = 0xF30A
_ROOM = 4  # extents in the inode itself
_EMPTY_MAP = struct.pack("<HHHH", _MAGIC, 0, _ROOM, 0).ljust(_BEHIND_BLOCK - _BLOCK, b"\0")
_LONGEST = 0x8000
_CACHED = 64


class FastReplay:
    """The inodes, maps and names that fast commits changed.

    Args:
        source: the file system's bytes, the transactions of its journal laid over them.
        geometry: of it.
        commits: records of each fast commit, in their order.
        report: gets what cannot be applied.

    Attributes:
        inodes: bytes of each changed inode in its table, by its number.
        maps: blocks of the files whose maps do not fit into their inodes, by inode number.
        held: (first, number) of the blocks of all files whose maps changed, ascending; bitmaps do not know them.
        freed: the same of blocks that files had before.
    """

    def __init__(
        self, source: Source, geometry: ExtGeometry, commits: Iterable[Sequence[FastRecord]], report: Report
    ) -> None:
        """Apply the records."""
        self.inodes: dict[int, bytearray] = {}
        self.maps: dict[int, list[Run]] = {}
        self._source = source
        self._geometry = geometry
        self._report = report
        self._names: dict[int, dict[bytes, int]] = {}
        self._parents: dict[int, int] = {}
        self._gone: set[int] = set()
        self._before: list[Run] = []
        self._listed = functools.lru_cache(_CACHED)(self._read_directory)
        for records in commits:
            self._told = {record.number for record in records if isinstance(record, FastInode)}
            for record in records:
                try:
                    self._apply(record)
                except DamagedData as error:
                    report(f"a record of a fast commit cannot be applied: {error}")
        now = [run for number, runs in self.maps.items() if number not in self._gone for run in runs]
        self.held = sorted((run.block, run.count) for run in now)
        self.freed = sorted((run.block, run.count) for run in self._before)
        for number in list(self.maps):
            self._store_map(number)

    @property
    def touched(self) -> frozenset[int]:
        """Inode numbers of directories in which names changed."""
        return frozenset(self._names)

    def directory(self, number: int, inode: ExtInode, report: Report) -> Directory:
        """The names in a directory, changed ones included; what breaks a rule is reported and left out.

        Raises:
            DamagedData: nothing of it can be read.
        """
        changes = self._names.get(number, {})
        if number in self._parents:
            return Directory(self._parents[number], {name: inode for name, inode in changes.items() if inode})
        found = read_directory(self._geometry, inode, report)
        for name, target in changes.items():
            found.entries.pop(name, None)
            if target:
                found.entries[name] = target
        return found

    def _apply(self, record: FastRecord) -> None:
        if isinstance(record, FastInode):
            self._take(record)
        elif isinstance(record, FastRange):
            if self._alive(record.inode) is not None:
                self._map(record)
        elif record.removed:
            self._unlink(record)
        else:
            self._link(record)

    def _take(self, record: FastInode) -> None:
        """Replace an inode, but not its map, which other records tell."""
        raw = self._raw(record.number)
        data = record.data[: len(raw)]
        raw[:_BLOCK] = data[:_BLOCK]
        raw[_BEHIND_BLOCK : len(data)] = data[_BEHIND_BLOCK:]
        if record.number in self._gone:  # another file has got the number
            self._gone.discard(record.number)
            raw[_BLOCK:_BEHIND_BLOCK] = _EMPTY_MAP
            self.maps[record.number] = []
        (flags,) = struct.unpack_from("<I", raw, 32)
        if flags & EXTENTS:
            if struct.unpack_from("<H", raw, _BLOCK)[0] != _MAGIC:
                raw[_BLOCK:_BEHIND_BLOCK] = _EMPTY_MAP
        elif flags & INLINE_DATA or _kind(raw) not in (_FILE, _DIR):
            raw[_BLOCK:_BEHIND_BLOCK] = data[_BLOCK:_BEHIND_BLOCK]
            self.maps.pop(record.number, None)

    def _map(self, record: FastRange) -> None:
        runs = self._runs(record.inode)
        first, end = record.logical, record.logical + record.count
        low = bisect.bisect_right(runs, first, key=lambda run: run.logical + run.count)
        high = bisect.bisect_left(runs, end, key=lambda run: run.logical)
        pieces = []
        if low < high and runs[low].logical < first:
            pieces.append(_part(runs[low], runs[low].logical, first))
        if record.block:
            pieces.append(Run(first, record.block, record.count, record.written))
        if low < high and runs[high - 1].logical + runs[high - 1].count > end:
            pieces.append(_part(runs[high - 1], end, runs[high - 1].logical + runs[high - 1].count))
        runs[low:high] = [piece for piece in pieces if piece.count]

    def _runs(self, number: int) -> list[Run]:
        """The blocks of a file, a list that is to be changed."""
        if number not in self.maps:
            self.maps[number] = list(self._geometry.runs(decode_inode(number, bytes(self._raw(number)), 0)))
            self._before += self.maps[number]
        return self.maps[number]

    def _unlink(self, record: FastName) -> None:
        raw, folder = self._alive(record.inode), self._alive(record.parent)
        target = self._target(record) if raw is not None and folder is not None else None
        if raw is None or folder is None or target is None:
            return
        is_dir = _kind(raw) == _DIR
        if target == record.inode:
            self._names.setdefault(record.parent, {})[record.name] = 0
            if is_dir:
                self._count_below(record.parent, folder, -1)
        _count(raw, -1)
        (left,) = struct.unpack_from("<H", raw, _LINKS)
        if left < (2 if is_dir else 1):
            struct.pack_into("<H", raw, _LINKS, 0)
            self._gone.add(record.inode)
            self._runs(record.inode)
            self._names.pop(record.inode, None)
            self._parents.pop(record.inode, None)

    def _link(self, record: FastName) -> None:
        raw, folder = self._alive(record.inode), self._alive(record.parent)
        if raw is None or folder is None:
            if record.created:
                self._report(f"a fast commit makes {record.name!r} of inode {record.inode}, which does not exist")
            return
        is_dir = _kind(raw) == _DIR
        if record.created and is_dir:
            self._parents[record.inode] = record.parent
            self._names[record.inode] = {}
        if not self._target(record):
            self._names.setdefault(record.parent, {})[record.name] = record.inode
            if is_dir:
                self._count_below(record.parent, folder, 1)
            if not record.created:
                _count(raw, 1)
        if record.created and not is_dir:
            struct.pack_into("<H", raw, _LINKS, 1)

    def _count_below(self, number: int, folder: bytearray, change: int) -> None:
        """Count a directory in another one, unless the same commit tells of that as it was in the end."""
        if number not in self._told:
            _count(folder, change)

    def _target(self, record: FastName) -> int | None:
        """What a name leads to; nothing for one that is not there."""
        changed = self._names.get(record.parent, {}).get(record.name)
        if changed is not None or record.parent in self._parents:
            return changed or None
        return self._listed(record.parent).get(record.name)

    def _read_directory(self, number: int) -> dict[bytes, int]:
        inode = self._geometry.inode(number)
        return read_directory(self._geometry, inode, lambda _: None).entries  # is reported when it is listed

    def _alive(self, number: int) -> bytearray | None:
        """An inode that has a type and a name; a copy that is to be changed."""
        raw = self._raw(number)
        return raw if raw[:2] != b"\0\0" and raw[_LINKS : _LINKS + 2] != b"\0\0" else None

    def _raw(self, number: int) -> bytearray:
        raw = self.inodes.get(number)
        if raw is None:
            offset, size = self._geometry.inode_offset(number), self._geometry.inode_size
            data = self._source.read_at(offset, size)
            if len(data) < size:
                raise DamagedData(f"inode {number} lies beyond the end", origin=self._source.origin, offset=offset)
            raw = self.inodes[number] = bytearray(data)
        return raw

    def _store_map(self, number: int) -> None:
        """Write a map into the inode where it fits in."""
        raw, runs = self._raw(number), self.maps[number]
        (flags,) = struct.unpack_from("<I", raw, 32)
        if not flags & EXTENTS:
            return
        pieces = [piece for run in runs for piece in _pieces(run, _ROOM + 1)]
        if len(pieces) > _ROOM:
            return
        block = struct.pack("<HHHHI", _MAGIC, len(pieces), _ROOM, 0, 0)
        for run in pieces:
            length = run.count if run.written else run.count + _LONGEST
            block += struct.pack("<IHHI", run.logical, length, run.block >> 32 & 0xFFFF, run.block & 0xFFFFFFFF)
        raw[_BLOCK:_BEHIND_BLOCK] = block.ljust(_BEHIND_BLOCK - _BLOCK, b"\0")
        del self.maps[number]


def _kind(raw: bytearray) -> int:
    return raw[1] << 8 & 0xF000


def _count(raw: bytearray, change: int) -> None:
    """Change the number of names of an inode; directories with very many in them have 1."""
    (links,) = struct.unpack_from("<H", raw, _LINKS)
    if _kind(raw) != _DIR or links > 1:
        struct.pack_into("<H", raw, _LINKS, min(max(links + change, 0), 0xFFFF))


def _part(run: Run, start: int, end: int) -> Run:
    return Run(start, run.block + start - run.logical, end - start, run.written)


def _pieces(run: Run, most: int) -> Sequence[Run]:
    """A run in pieces that fit into extents, `most` at most."""
    longest = _LONGEST if run.written else _LONGEST - 1
    starts = range(run.logical, run.logical + run.count, longest)[:most]
    return [_part(run, start, min(start + longest, run.logical + run.count)) for start in starts]
