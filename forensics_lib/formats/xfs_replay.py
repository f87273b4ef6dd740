"""An XFS file system as it reads once its log is replayed: done in memory, with nothing written.

Buffers, inodes and new clusters of inodes of committed transactions are applied, in the order and under the conditions
under which Linux applies them: freed buffers are left out, and so is what is newer in place. Not applied are quota
records, and what was begun in one transaction and left to be finished by another. Checksums are not renewed.

Format: XFS Algorithms & Data Structures (kernel.org), "Journaling Log"; the order of replay is that of Linux 6.
"""

from __future__ import annotations

import struct
from collections import Counter

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.directory import Report
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_log import BASIC_BLOCK, LogItem, Transaction, XfsLog
from forensics_lib.formats.xfs_log_buffer import CANCEL, buffer_header, buffer_regions
from forensics_lib.formats.xfs_replay_inode import InodeChange
from forensics_lib.sources.base import Source

__all__ = ["XfsReplayed"]

_PAGE = 4096
_MAX_PAGES = 1 << 18  # 1 GiB
_INODE, _BUFFER, _QUOTA, _CREATE = 0x123B, 0x123C, 0x123D, 0x123F
_INTENTS = {
    0x1236: "freeing of extents",
    0x1240: "reverse mapping",
    0x1242: "reference counting",
    0x1244: "mapping of a file's extents",
    0x1246: "change of an extended attribute",
    0x1248: "exchange of mappings",
    0x124A: "freeing of realtime extents",
    0x124C: "reverse mapping of realtime extents",
    0x124E: "reference counting of realtime extents",
}

_INODE_BUFFER, _QUOTA_BUFFERS = 0x01, 0x1C
_UNLINKED_AT = 96
_CREATION = struct.Struct(">7I")
_INODES_AT_ONCE = 64

# Where blocks keep the position in the log of their last change, and the identifier of the file system, by magic.
_PLACES = {
    **dict.fromkeys((b"AB3B", b"AB3C", b"IAB3", b"FIB3", b"RMB3", b"R3FC"), (24, 32)),
    b"BMA3": (32, 40),
    b"XAGF": (208, 64),
    b"XAFL": (24, 8),
    b"XAGI": (320, 296),
    b"XSLM": (48, 16),
    **dict.fromkeys((b"XDB3", b"XDD3", b"XDF3"), (16, 24)),
}
_INDEX_MAGICS = (0x3DF1, 0x3DFF, 0x3EBE, 0x3BEE)
_INDEX_PLACE = (24, 32)
_SUPERBLOCK_PLACE = 240
_NO_LSN = (1 << 64) - 1


class XfsReplayed(Source):
    """A file system with the changes of its log laid over it.

    Args:
        geometry: of the file system.
        log: its log, which is not clean.
        report: gets what cannot be applied.

    Attributes:
        transactions: number of those that were applied.
        applied: number of changes that were applied, by what they changed.
        skipped: number of changes that were left out, by why.
        unfinished: number of operations that were begun and not finished, by what they are.
    """

    def __init__(self, geometry: XfsGeometry, log: XfsLog, report: Report) -> None:
        """Replay the log."""
        self._parent = geometry.source
        self.size = self._parent.size
        self.origin = self._parent.origin
        self.transactions = 0
        self.applied: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.unfinished: Counter[str] = Counter()
        self._pages: dict[int, bytearray] = {}
        self._geometry = geometry
        self._report = report
        self._cancelled: Counter[tuple[int, int]] = Counter()  # buffers that a later transaction frees
        self._cancelled_at: Counter[int] = Counter()
        self._intents: dict[tuple[int, bytes], str] = {}
        try:
            for transaction in log.transactions():
                self._note_cancelled(transaction)
        except DamagedData as error:
            report(f"the log is replayed up to damage only: {error}")
        try:
            for transaction in log.transactions():
                self._replay(transaction)
        except LimitExceeded as error:
            report(f"the replay of the log was ended: {error}")
        except DamagedData:
            pass  # was reported the first time
        self.unfinished.update(self._intents.values())

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: they cannot be read.
        """
        data = self._parent.read_at(offset, length)
        first, last = offset // _PAGE, (offset + len(data) - 1) // _PAGE
        changed = [number for number in range(first, last + 1) if number in self._pages]
        if not changed:
            return data
        patched = bytearray(data)
        for number in changed:
            start = number * _PAGE - offset
            begin, end = max(start, 0), min(start + _PAGE, len(data))
            patched[begin:end] = self._pages[number][begin - start : end - start]
        return bytes(patched)

    def summary(self) -> str:
        """What was done, for a person."""
        counts = ", ".join(f"{count} {what}" for what, count in self.applied.items())
        text = f"the log was replayed in memory: {self.transactions} transactions with {counts or 'no changes'}"
        for counter, what in (self.skipped, "left out"), (self.unfinished, "begun and not finished, so not applied"):
            if counter:
                text += f"; {what}: " + ", ".join(f"{count} {name}" for name, count in counter.items())
        return text

    def _note_cancelled(self, transaction: Transaction) -> None:
        for item in transaction.items:
            if item.kind == _BUFFER:
                flags, length, block = buffer_header(item)
                if flags & CANCEL:
                    self._cancelled[block, length] += 1
                    self._cancelled_at[block] += 1

    def _replay(self, transaction: Transaction) -> None:
        """Apply a transaction: buffers first, then what is in them, then what Linux keeps in buffers of inodes."""
        self.transactions += 1
        for item in sorted(transaction.items, key=_rank):
            try:
                if item.kind == _BUFFER:
                    self._replay_buffer(item, transaction.lsn)
                elif item.kind == _INODE:
                    self._replay_inode(item, transaction.lsn)
                elif item.kind == _CREATE:
                    self._replay_creation(item)
                elif item.kind == _QUOTA:
                    self.skipped["quota records"] += 1
                else:
                    self._note_intent(item)
            except LimitExceeded:
                raise
            except (DamagedData, struct.error, IndexError) as error:
                self.skipped["damaged ones"] += 1
                self._report(f"a change in the log cannot be applied: {error}")

    def _note_intent(self, item: LogItem) -> None:
        identifier = item.regions[0][8:16]
        if item.kind in _INTENTS:
            self._intents[item.kind, identifier] = _INTENTS[item.kind]
        elif item.kind - 1 in _INTENTS:
            self._intents.pop((item.kind - 1, identifier), None)

    def _replay_buffer(self, item: LogItem, lsn: int) -> None:
        flags, length, block = buffer_header(item)
        key = (block, length)
        if flags & CANCEL:
            self._cancelled[key] -= 1
            self._cancelled_at[block] -= 1
        elif self._cancelled[key] > 0:
            self.skipped["buffers that were freed"] += 1
        elif flags & _QUOTA_BUFFERS:
            self.skipped["quota records"] += 1
        else:
            buffer = bytearray(self._read(block * BASIC_BLOCK, length * BASIC_BLOCK))
            if self._is_newer(buffer, lsn):
                self.skipped["buffers that are newer in place"] += 1
                return
            changed = bytearray(buffer)
            for at, region in buffer_regions(item, len(buffer)):
                changed[at : at + len(region)] = region
            if flags & _INODE_BUFFER:
                for at in range(_UNLINKED_AT, len(buffer), self._geometry.inode_size):
                    buffer[at : at + 4] = changed[at : at + 4]
                changed = buffer
            self._write(block * BASIC_BLOCK, changed)
            self.applied["buffers"] += 1

    def _replay_inode(self, item: LogItem, lsn: int) -> None:
        change = InodeChange(item)
        if self._cancelled[change.buffer] > 0:
            self.skipped["inodes whose cluster was freed"] += 1
            return
        offset = self._geometry.inode_offset(change.number)
        inode = bytearray(self._read(offset, self._geometry.inode_size))
        if inode[:2] != b"IN":
            raise DamagedData(f"no inode is where inode {change.number} has to be", offset=offset)
        if change.is_older(inode, lsn):
            self.skipped["inodes that are newer in place"] += 1
            return
        change.apply(inode, lsn)
        self._write(offset, inode)
        self.applied["inodes"] += 1

    def _replay_creation(self, item: LogItem) -> None:
        """Inodes that were made together, all of them free."""
        geometry = self._geometry
        group, block, count, size, blocks, generation = _CREATION.unpack_from(item.regions[0])[1:]
        most = max(_INODES_AT_ONCE, geometry.block_size // geometry.inode_size)
        if size != geometry.inode_size or count > most or count * size != blocks * geometry.block_size:
            raise DamagedData(f"{count} new inodes of {size} bytes in {blocks} blocks")
        start = geometry.group_offset(group) + block * geometry.block_size
        first, last = start // BASIC_BLOCK, (start + count * size) // BASIC_BLOCK
        if any(self._cancelled_at[place] > 0 for place in range(first, last)):
            self.skipped["new inodes whose cluster was freed"] += count
            return
        number = geometry.inode_at(start)
        cluster = bytearray()
        for index in range(count):
            inode = bytearray(size)
            struct.pack_into(">2sHB", inode, 0, b"IN", 0, 3 if geometry.version == 5 else 2)
            struct.pack_into(">II", inode, 92, generation, 0xFFFFFFFF)
            if geometry.version == 5:
                struct.pack_into(">Q16s", inode, 152, number + index, geometry.meta_uuid)
            cluster += inode
        self._read(start, len(cluster))
        self._write(start, cluster)
        self.applied["new inodes"] += count

    def _is_newer(self, buffer: bytes | bytearray, lsn: int) -> bool:
        """Whether a block was changed later than the transaction, and belongs to this file system."""
        if self._geometry.version < 5:
            return False
        uuid = self._geometry.meta_uuid
        places = _PLACES.get(bytes(buffer[:4]))
        if buffer[:4] == b"XFSB":
            (there,) = struct.unpack_from(">Q", buffer, _SUPERBLOCK_PLACE)
            return bool(lsn <= there < _NO_LSN)
        if places is None and struct.unpack_from(">8xH", buffer)[0] in _INDEX_MAGICS:
            places = _INDEX_PLACE
        if places is None:
            return False
        lsn_at, uuid_at = places
        (there,) = struct.unpack_from(">Q", buffer, lsn_at)
        return bool(lsn <= there < _NO_LSN and buffer[uuid_at : uuid_at + 16] == uuid)

    def _read(self, offset: int, length: int) -> bytes:
        end = self._geometry.block_count * self._geometry.block_size
        data = self.read_at(offset, length) if offset >= 0 and offset + length <= end else b""
        if len(data) < length or not length:
            raise DamagedData(f"{length} bytes at {offset} are not there", offset=offset)
        return data

    def _write(self, offset: int, data: bytearray) -> None:
        done = 0
        while done < len(data):
            number, at = divmod(offset + done, _PAGE)
            if number not in self._pages:
                if len(self._pages) >= _MAX_PAGES:
                    raise LimitExceeded(f"more than {_MAX_PAGES} pages of {_PAGE} bytes are changed by it")
                self._pages[number] = bytearray(self._parent.read_at(number * _PAGE, _PAGE))
            count = min(_PAGE - at, len(data) - done)
            self._pages[number][at : at + count] = data[done : done + count]
            done += count


def _rank(item: LogItem) -> int:
    if item.kind == _BUFFER:
        flags = buffer_header(item).flags
        if flags & CANCEL:
            return 3
        return 2 if flags & _INODE_BUFFER else 0
    return 0 if item.kind == _CREATE else 1
