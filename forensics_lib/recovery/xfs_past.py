"""What the log of XFS tells of the past: versions of inodes, names in directories, blocks of trees and links.

A position in time is the number of a transaction, counted from the oldest that the log still holds.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.directory import Report
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_dir_remains import Name, dir_block, names_in_block, names_in_inode
from forensics_lib.formats.xfs_inode import ForkFormat
from forensics_lib.formats.xfs_log_buffer import CANCEL, buffer_header, buffer_regions
from forensics_lib.formats.xfs_log_record import BASIC_BLOCK, LogItem, Transaction
from forensics_lib.formats.xfs_replay_inode import InodeChange

__all__ = ["Entry", "Past", "Version", "same_life"]

_INODE, _BUFFER, _CREATE = 0x123B, 0x123C, 0x123F
_TYPE_SHIFT = 11
_LINK, _DIR_TYPES = 9, (10, 11)
_TREE_MAGICS = (b"BMAP", b"BMA3")
_DIR_MAGICS = (b"XD2B", b"XD2D", b"XDB3", b"XDD3")
_OWNER_AT, _OWNER_END = 40, 48
_LONGEST_ENTRY = 280
_INODE_BUFFER = 0x01
_HEAD = 4
_MOST_BLOCKS = 128  # of one buffer
_CREATION = struct.Struct(">7I")
_MAX_VERSIONS, _MAX_NAMES, _MAX_SHADOWS = 1 << 20, 1 << 21, 1 << 15
_MAX_BYTES = 256 << 20


class Entry(NamedTuple):
    """A name that a directory had.

    Attributes:
        owner: inode of the directory; where only the block is known, its number as a negative one.
        inode: the inode that it names; of one that was taken out perhaps only the low 32 bits.
        name: its bytes.
        kind: type of the inode, as directories number it; 0 where that is not told.
        deleted: whether it was taken out.
    """

    owner: int
    inode: int
    name: bytes
    kind: int
    deleted: bool


@dataclass(slots=True)
class Version:
    """An inode as it was for a while.

    Attributes:
        first: the first transaction that left it so.
        last: the last one.
        at: where the newest copy of it lies in the file system, in bytes.
        data: its bytes, as they lie on disk; empty when there is no inode.
        sure: whether its data fork is known to be of that time.
        early: the bytes of its oldest copy, which may have other times.
    """

    first: int
    last: int
    at: int
    data: bytes
    sure: bool = True
    early: bytes = b""


class Past:
    """Everything that matters of a log's transactions.

    Args:
        geometry: of the file system as it is now.
        transactions: those of its log, oldest first.
        report: gets what cannot be used.

    Attributes:
        versions: of each inode, oldest first.
        names: the transactions that saw a name, ascending; of names that were taken out the first one only.
        starts: where each transaction starts, as positions in the log.
    """

    def __init__(self, geometry: XfsGeometry, transactions: Iterable[Transaction], report: Report) -> None:
        """Go through the transactions once."""
        self._geometry = geometry
        self._report = report
        self.versions: dict[int, list[Version]] = {}
        self.names: dict[Entry, list[int]] = {}
        self._written: dict[int, dict[bytes, int]] = {}  # how metadata began, and the last transaction that wrote it
        self.starts: list[int] = []
        self._current: dict[int, bytes] = {}
        self._forks: set[int] = set()
        self._shadows: dict[int, bytearray] = {}
        self._patches: dict[int, list[tuple[int, int, bytes]]] = {}
        self._left = {"versions of inodes": _MAX_VERSIONS, "names": _MAX_NAMES, "bytes of trees": _MAX_BYTES}
        self._unusable = 0
        for sequence, transaction in enumerate(transactions):
            self.starts.append(transaction.lsn)
            for item in transaction.items:
                try:
                    self._take(item, sequence)
                except (DamagedData, struct.error, IndexError):
                    self._unusable += 1
        self._current.clear()
        self._shadows.clear()
        self._blocks = sorted(self._written)
        if self._unusable:
            report(f"{self._unusable} changes in the log contradict themselves, and are not used")
        for what, left in self._left.items():
            if left < 0:
                report(str(LimitExceeded(f"the log has more {what} than are kept; the newest are not used")))

    def sequence_of(self, lsn: int) -> int:
        """The transaction that a position in the log belongs to; -1 for what is older than the log."""
        return bisect.bisect_right(self.starts, lsn) - 1

    def label_of(self, sequence: int) -> str:
        """A transaction as people and other tools name it: by cycle and block."""
        return f"log transaction {self.starts[sequence] >> 32}:{self.starts[sequence] & 0xFFFFFFFF}"

    def written_after(self, block: int, count: int, sequence: int) -> Iterator[int]:
        """Those of some blocks that metadata of a transaction after this one was written to, in order.

        What was given back before it came to its place left nothing there; then the block does not begin as it did.
        """
        for index in range(bisect.bisect_left(self._blocks, block), len(self._blocks)):
            number = self._blocks[index]
            if number >= block + count:
                return
            heads = [head for head, last in self._written[number].items() if last > sequence]
            if heads:
                now = self._geometry.source.read_at(number * self._geometry.block_size, _HEAD)
                if any(now.startswith(head) for head in heads):
                    yield number

    def as_of(self, block: int, sequence: int, now: bytes) -> bytes:
        """A block of a tree of extents or of a link, as a transaction left it.

        Args:
            block: counted from the start of the file system.
            sequence: the transaction.
            now: what lies there today, for the parts that the log says nothing about.
        """
        found = bytearray(now)
        known = self._patches.get(block, ())
        for _, at, data in reversed([patch for patch in known if patch[0] > sequence]):
            found[at : at + len(data)] = data  # without an older state, the next later one is the nearest there is
        for _, at, data in [patch for patch in known if patch[0] <= sequence]:
            found[at : at + len(data)] = data
        return bytes(found[: len(now)])

    def has(self, block: int, first: int, last: int) -> bool:
        """Whether transactions from `first` to `last` wrote the first byte of a block of a tree or link."""
        return any(first <= sequence <= last and not at for sequence, at, _ in self._patches.get(block, ()))

    def _take(self, item: LogItem, sequence: int) -> None:
        if item.kind == _INODE:
            self._take_inode(item, sequence)
        elif item.kind == _BUFFER:
            self._take_buffer(item, sequence)
        elif item.kind == _CREATE:
            group, block, _, _, blocks, _ = _CREATION.unpack_from(item.regions[0])[1:]
            first = self._geometry.group_offset(group) // self._geometry.block_size + block
            for number in range(first, first + min(blocks, _MOST_BLOCKS)):
                self._mark(number, b"IN", sequence)

    def _mark(self, block: int, head: bytes, sequence: int) -> None:
        """Note that a block was written, and how it began; empty when that is not known."""
        if block < self._geometry.block_count:
            self._written.setdefault(block, {})[head] = sequence

    # Inodes ----------------------------------------------------------------------------------------------------------

    def _take_inode(self, item: LogItem, sequence: int) -> None:
        change = InodeChange(item)
        number = change.number
        before = self._current.get(number)
        data = self._changed(change, self._present(number) if before is None else before)
        if change.has_data_fork:
            self._forks.add(number)
        elif before is not None and not same_life(before, data):
            self._forks.discard(number)
        self._current[number] = data
        if not self.remember(number, Version(sequence, sequence, item.at, data, number in self._forks)):
            return
        if number in self._forks and data[2] & 0xF0 == 0x40 and data[5] == ForkFormat.LOCAL:
            fork = data[176 if data[4] == 3 else 100 :]
            parent, names = names_in_inode(fork, has_ftype=self._geometry.has_ftype)
            for name in (Name(b"..", parent, 2, deleted=False), *names):
                self._note(number, name, sequence)

    def remember(self, number: int, version: Version) -> bool:
        """Keep a version of an inode in its place among the others, if there is room for it.

        One that differs from the one before it only in its times replaces that.
        """
        known = self.versions.setdefault(number, [])
        index = bisect.bisect_right(known, version.first, key=lambda one: one.first)
        if index and _essence(known[index - 1].data) == _essence(version.data):
            before = known[index - 1]
            before.early = before.early or before.data
            if version.last >= before.last:
                before.last, before.at, before.data = version.last, version.at, version.data
            before.sure |= version.sure
            return True
        self._left["versions of inodes"] -= 1
        if self._left["versions of inodes"] < 0:
            return False
        known.insert(index, version)
        return True

    def _changed(self, change: InodeChange, before: bytes) -> bytes:
        """An inode with a change applied; what was something else before gives nothing but its place."""
        size = self._geometry.inode_size
        data = bytearray(before or size)
        change.apply(data, 0)
        if before and not same_life(before, data):
            data = bytearray(size)
            change.apply(data, 0)
        return bytes(data)

    def _present(self, number: int) -> bytes:
        """The inode that lies there today, for the parts that the log says nothing about."""
        offset = self._geometry.inode_offset(number)
        data = self._geometry.source.read_at(offset, self._geometry.inode_size)
        return data if data[:2] == b"IN" and len(data) == self._geometry.inode_size else b""

    # Buffers ---------------------------------------------------------------------------------------------------------

    def _take_buffer(self, item: LogItem, sequence: int) -> None:
        flags, length, place = buffer_header(item)
        size = self._geometry.block_size
        block = place * BASIC_BLOCK // size
        if flags & CANCEL:
            self._shadows.pop(block, None)
            return
        if place < 0:
            raise DamagedData("a buffer lies before the start of the file system")
        patches = list(buffer_regions(item, length * BASIC_BLOCK))
        if not patches or place * BASIC_BLOCK % size:
            return  # nothing, or one of the headers that share a block
        inodes = bool(flags & _INODE_BUFFER)
        for number in range(min(-(-length * BASIC_BLOCK // size), _MOST_BLOCKS)):
            head = next(
                (data[number * size - at :][:_HEAD] for at, data in patches if 0 <= number * size - at < len(data)), b""
            )
            self._mark(block + number, b"IN" if inodes else head, sequence)
        head = patches[0][1] if patches[0][0] == 0 else b""
        kind = flags >> _TYPE_SHIFT
        if head[:4] in _DIR_MAGICS or kind in _DIR_TYPES or (block in self._shadows and not head):
            self._take_directory(block, length * BASIC_BLOCK, patches, sequence)
        elif kind == _LINK or head[:4] in _TREE_MAGICS or (block in self._patches and not head):
            for start, data in patches:
                for at in range(start - start % size, start + len(data), size):
                    part = data[max(at - start, 0) : at + size - start]
                    self._left["bytes of trees"] -= len(part)
                    if self._left["bytes of trees"] >= 0:
                        patch = (sequence, max(start - at, 0), part)
                        self._patches.setdefault(block + at // size, []).append(patch)

    def _take_directory(self, block: int, length: int, patches: list[tuple[int, bytes]], sequence: int) -> None:
        shadow = self._shadows.pop(block, None)
        head = patches[0][1] if patches[0][0] == 0 else b""
        if (
            shadow is None
            or len(shadow) != length
            or (head and shadow[:4] != bytes(4) and _owner(shadow) != _owner(head))
        ):
            shadow = bytearray(length)
        if len(self._shadows) >= _MAX_SHADOWS:
            del self._shadows[next(iter(self._shadows))]
        self._shadows[block] = shadow
        for at, data in patches:
            shadow[at : at + len(data)] = data
        known = bytes(shadow)
        header = dir_block(self._geometry, known)
        owner = header.owner if header is not None and header.owner else -block
        for at, data in patches:
            start = max(at - _LONGEST_ENTRY, 0)
            found = names_in_block(known, start, at + len(data), has_ftype=self._geometry.has_ftype)
            for name in found:
                if name.name != b".":
                    self._note(owner, name, sequence)

    def _note(self, owner: int, name: Name, sequence: int) -> None:
        known = self.names.setdefault(Entry(owner, name.inode, name.name, name.kind, name.deleted), [])
        if known and (name.deleted or known[-1] == sequence):
            return
        self._left["names"] -= 1
        if self._left["names"] >= 0:
            known.append(sequence)


def _owner(data: bytes | bytearray) -> bytes:
    return bytes(data[_OWNER_AT:_OWNER_END]) if data[3:4] == b"3" else bytes(data[16:24])


def same_life(before: bytes, after: bytes | bytearray) -> bool:
    """Whether an inode is the same file as before: a new one has another generation, and a time of its own."""
    if before[4] == 3 and before[144:152] != after[144:152]:
        return False
    was, now = int.from_bytes(before[92:96], "big"), int.from_bytes(after[92:96], "big")
    steps = (after[2:4] == b"\0\0") - (before[2:4] == b"\0\0")  # to free an inode raises its generation by one
    return now == (was + steps) & 0xFFFFFFFF


def _essence(data: bytes) -> tuple[bytes, ...]:
    """What makes a version more than a newer time: all but the times and what follows from each change."""
    if not data:
        return ()
    if data[4] == 3:
        return data[2:32], data[56:84], data[90:96], data[144:152], data[176:]
    return data[2:30], data[56:84], data[90:96], data[100:]
