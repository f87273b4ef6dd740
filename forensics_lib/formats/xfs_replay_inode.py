"""What the log of XFS says of an inode, and how it is put in the inode's place.

The fields are logged in the byte order of the machine, the forks as they are on disk; the root of a B+tree is logged as
a whole block of such a tree.

Format: XFS Algorithms & Data Structures (kernel.org), "Inode Updates" and "Inode Data Log Item".
"""

from __future__ import annotations

import struct

from forensics_lib.errors import DamagedData
from forensics_lib.formats.xfs_log import LogItem

__all__ = ["InodeChange"]

_HEADER, _HEADER_32 = "HHIHH4xQI12xqii", "HHIHHQI12xqii"
_DATA_FORK, _ATTRIBUTE_FORK, _DEVICE, _TREE_ROOTS = 0x00E, 0x1C0, 0x010, 0x108

_START = "HHBB2xIIIHH"
_EXTENTS_2, _EXTENTS_LARGE = "6xH", "Q"
_TIME, _BIG_TIME = "iI", "Q"
_MIDDLE = "QQIIHBbIHHI"
_CORE = 96  # bytes, to the pointer that is not changed by it
_CORE_3 = 176
_CHANGE_COUNT_AT, _LSN_AT, _FLAGS2_AT, _BTIME_AT, _NUMBER_AT = 104, 112, 120, 144, 152
_FLUSHES_AT, _FORK_WORDS_AT, _MAX_FLUSHES = 30, 82, 0xFFFF
_BIGTIME, _LARGE_COUNTS = 0x8, 0x10
_MAGIC = 0x494E
_TREE_HEADER, _TREE_HEADER_3 = 24, 72


class InodeChange:
    """An inode as a transaction left it.

    Args:
        item: the item of the log.

    Attributes:
        number: of the inode.
        buffer: basic block and length in basic blocks of the cluster that it is in.
        has_data_fork: whether the data fork is in the log with it; else it is as it was before.

    Raises:
        DamagedData: the item contradicts itself.
    """

    def __init__(self, item: LogItem) -> None:
        """Decode the item's header."""
        self._order = item.order
        self._regions = item.regions
        layout = struct.Struct(item.order + (_HEADER if len(item.regions[0]) >= 56 else _HEADER_32))
        if len(item.regions[0]) < layout.size or len(item.regions) < 2:
            raise DamagedData("an inode of the log is not complete")
        _, _, self._fields, _, _, self.number, self._device, block, length, _ = layout.unpack_from(item.regions[0])
        self.buffer = (block, length)
        self.has_data_fork = bool(self._fields & _DATA_FORK)
        self._core = item.regions[1].ljust(_CORE, b"\0")
        (magic,) = struct.unpack_from(f"{self._order}H", self._core)
        self._version = self._core[4]
        if magic != _MAGIC or not 1 <= self._version <= 3 or (self._version == 3 and len(self._core) < _CORE_3):
            raise DamagedData(f"inode {self.number} of the log is none")

    def is_older(self, inode: bytes | bytearray, lsn: int) -> bool:
        """Whether what is in place is newer.

        Args:
            inode: what is in place.
            lsn: of the transaction.
        """
        if inode[4] == 3:
            (there,) = struct.unpack_from(">Q", inode, _LSN_AT)
            return bool(lsn < there < (1 << 64) - 1)
        (there,) = struct.unpack_from(">H", inode, _FLUSHES_AT)
        (here,) = struct.unpack_from(f"{self._order}H", self._core, _FLUSHES_AT)
        return bool(here < there and not (there == _MAX_FLUSHES and here < _MAX_FLUSHES >> 1))

    def apply(self, inode: bytearray, lsn: int) -> None:
        """Change the inode that is in place.

        Raises:
            DamagedData: the forks do not fit.
        """
        self._apply_core(inode, lsn)
        start = _CORE_3 if self._version == 3 else 100
        boundary = start + 8 * inode[_FORK_WORDS_AT] if inode[_FORK_WORDS_AT] else len(inode)
        if boundary > len(inode):
            raise DamagedData(f"the forks of inode {self.number} of the log are not inside it")
        if self._fields & _DEVICE:
            struct.pack_into(">I", inode, start, self._device)
        regions = iter(self._regions[2:])
        for fork, first, end in (_DATA_FORK, start, boundary), (_ATTRIBUTE_FORK, boundary, len(inode)):
            if self._fields & fork:
                data = next(regions, b"")
                if self._fields & fork & _TREE_ROOTS:
                    data = self._root(data, end - first)
                data = data[: end - first]
                inode[first : first + len(data)] = data

    def _apply_core(self, inode: bytearray, lsn: int) -> None:
        flags2 = struct.unpack_from(f"{self._order}Q", self._core, _FLAGS2_AT)[0] if self._version == 3 else 0
        time = _BIG_TIME if flags2 & _BIGTIME else _TIME
        extents = _EXTENTS_LARGE if flags2 & _LARGE_COUNTS else _EXTENTS_2
        layout = _START + extents + time * 3 + _MIDDLE
        fields = struct.unpack_from(self._order + layout, self._core)
        struct.pack_into(">" + layout, inode, 0, *fields)
        if self._version < 3:
            inode[_FLUSHES_AT : _FLUSHES_AT + 2] = bytes(2)
            return
        (changes,) = struct.unpack_from(f"{self._order}Q", self._core, _CHANGE_COUNT_AT)
        (hint,) = struct.unpack_from(f"{self._order}I", self._core, _FLAGS2_AT + 8)
        btime = struct.unpack_from(self._order + time, self._core, _BTIME_AT)
        (number,) = struct.unpack_from(f"{self._order}Q", self._core, _NUMBER_AT)
        struct.pack_into(">QQQI12x", inode, _CHANGE_COUNT_AT, changes, lsn, flags2, hint)
        struct.pack_into(f">{time}Q", inode, _BTIME_AT, *btime, number)
        inode[_NUMBER_AT + 8 : _CORE_3] = self._core[_NUMBER_AT + 8 : _CORE_3]

    def _root(self, block: bytes, room: int) -> bytes:
        """The root of a B+tree as it is kept in an inode, from a block of such a tree."""
        header = _TREE_HEADER_3 if self._version == 3 else _TREE_HEADER
        slots, places = (len(block) - header) // 16, (room - 4) // 16
        level, count = struct.unpack_from(">HH", block.ljust(header, b"\0"), 4)
        if count > slots or count > places:
            raise DamagedData(f"the root of a tree of inode {self.number} of the log does not fit")
        keys = block[header : header + 8 * count]
        pointers = block[header + 8 * slots : header + 8 * slots + 8 * count]
        return struct.pack(">HH", level, count) + keys.ljust(8 * places, b"\0") + pointers
