"""Fast commits of ext4: small records behind the log of what changed since the last transaction.

Each carries copies of inodes, where their content lies, and the names that were made and removed. The area is written
from its start on after every transaction, so that records of older ones are left behind the newest.

Format: Linux ``fs/ext4/fast_commit.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from forensics_lib._crc32c import crc32c

__all__ = ["FastInode", "FastName", "FastRange", "FastRecord", "Pending", "pending_commits", "read_fast_commits"]

_TAG = struct.Struct("<HH")
_ADD_RANGE, _DELETE_RANGE, _CREATE, _LINK, _UNLINK, _INODE, _PAD, _TAIL, _HEAD = range(1, 10)
_NAMES = (_CREATE, _LINK, _UNLINK)
_SMALLEST_INODE = 128
_LONGEST_WRITTEN = 0x8000
_NO_SEED = 0xFFFFFFFF  # the checksum begins with 0, without the inversion that is usual


@dataclass(frozen=True, slots=True)
class FastInode:
    """A copy of an inode.

    Attributes:
        number: of the inode.
        data: its bytes, without what its table has behind the extra fields.
        sequence: number of the transaction that was under way.
        at: where it lies in the area.
    """

    number: int
    data: bytes
    sequence: int
    at: int


@dataclass(frozen=True, slots=True)
class FastName:
    """A name that was made or removed.

    Attributes:
        parent: inode number of the directory.
        inode: number that the name stands for.
        name: as bytes.
        removed: whether it was removed.
        sequence: number of the transaction that was under way.
        data: the inode as the same commit has it; empty when that has none.
        created: whether the inode was made with the name.
    """

    parent: int
    inode: int
    name: bytes
    removed: bool
    sequence: int
    data: bytes = b""
    created: bool = False


@dataclass(frozen=True, slots=True)
class FastRange:
    """Where a part of a file's content lies since the commit.

    Attributes:
        inode: its number.
        logical: first block in the file.
        count: number of blocks.
        block: first block in the file system; 0 where the part became a hole.
        written: False for blocks that are reserved and read as zeros.
    """

    inode: int
    logical: int
    count: int
    block: int
    written: bool


FastRecord: TypeAlias = FastInode | FastName | FastRange


class Pending(NamedTuple):
    """What mounting takes from the area.

    Attributes:
        commits: records of each fast commit, in the order in which they apply.
        fault: why the first one that follows is not taken although it belongs to them; empty when none does.
    """

    commits: list[list[FastRecord]]
    fault: str


def pending_commits(area: bytes, block_size: int, inode_size: int, sequence: int) -> Pending:
    """The fast commits that mounting replays: those of one transaction, from the start of the area on.

    Args:
        area: the blocks behind the log.
        block_size: bytes of a block.
        inode_size: bytes of an inode in its table.
        sequence: number of the transaction behind the last whole one of the log.
    """
    commits: list[list[FastRecord]] = []
    position = 0
    while True:
        found = _commit(area, position, block_size)
        parts = found.parts
        if not commits and not (parts and parts[0].tag == _HEAD):
            return Pending([], "")
        heads = [
            struct.unpack_from("<II", area, part.start) for part in parts if part.tag == _HEAD and part.length == 8
        ]
        if any(number != sequence for _, number in heads):
            return Pending(commits, "")
        if any(features for features, _ in heads):
            return Pending(commits, "it has features that are not known")
        if not found.whole or found.sequence != sequence:
            torn = found.sequence == sequence or not commits
            return Pending(commits, "it is torn or its checksum is wrong" if torn else "")
        if not all(_is_sound(part, inode_size) for part in parts):
            return Pending(commits, "its records contradict themselves")
        commits.append(_records(area, parts, sequence))
        position = found.end


def read_fast_commits(area: bytes, block_size: int) -> Iterator[FastInode | FastName]:
    """The copies of inodes and the names of all fast commits whose checksum is right, in the order of their places.

    Args:
        area: the blocks behind the log.
        block_size: bytes of a block; each commit begins with one.
    """
    for start in range(0, len(area), block_size):
        found = _commit(area, start, block_size)
        if found.whole:
            rows = _records(area, found.parts, found.sequence)
            yield from (row for row in rows if isinstance(row, FastInode))
            yield from (row for row in rows if isinstance(row, FastName))


class _Part(NamedTuple):
    tag: int
    start: int
    length: int


class _Commit(NamedTuple):
    parts: list[_Part]
    sequence: int | None
    whole: bool
    end: int


def _commit(area: bytes, start: int, block_size: int) -> _Commit:
    """The commit that begins at the start of a block, up to its tail; not whole when none does, or it is torn."""
    parts: list[_Part] = []
    checksum = _NO_SEED
    at = start
    while at + _TAG.size <= len(area):
        block_end = at - at % block_size + block_size
        if at + _TAG.size > block_end:  # older kernels leave a byte
            at = block_end
            continue
        tag, length = _TAG.unpack_from(area, at)
        value, end = at + _TAG.size, at + _TAG.size + length
        if not _ADD_RANGE <= tag <= _HEAD or end > min(block_end, len(area)):
            break
        if tag == _TAIL:
            if length < 8 or not parts:
                break
            sequence, stored = struct.unpack_from("<II", area, value)
            right = crc32c(area[at : value + 4], checksum) ^ 0xFFFFFFFF == stored
            return _Commit(parts, sequence, right, block_end)
        checksum = crc32c(area[at:end], checksum)
        parts.append(_Part(tag, value, length))
        at = end
    return _Commit(parts, None, False, at)


def _is_sound(part: _Part, inode_size: int) -> bool:
    """Whether a record has the length of its kind."""
    tag, _, length = part
    if tag in _NAMES:
        return 8 < length <= 8 + 255
    if tag == _INODE:
        return 4 + _SMALLEST_INODE <= length <= 4 + inode_size
    return tag == _PAD or length == {_ADD_RANGE: 16, _DELETE_RANGE: 12, _HEAD: 8}[tag]


def _records(area: bytes, parts: list[_Part], sequence: int | None) -> list[FastRecord]:
    number = sequence or 0
    newest: dict[int, bytes] = {}
    rows: list[FastRecord] = []
    for tag, start, length in parts:
        data = area[start : start + length]
        if tag == _INODE and length >= 4 + _SMALLEST_INODE:
            (inode,) = struct.unpack_from("<I", data)
            newest[inode] = data[4:]
            rows.append(FastInode(inode, data[4:], number, start + 4))
        elif tag in _NAMES and length > 8:
            parent, inode = struct.unpack_from("<II", data)
            rows.append(FastName(parent, inode, data[8:], tag == _UNLINK, number, b"", tag == _CREATE))
        elif tag == _ADD_RANGE and length >= 16:
            inode, logical, count, high, low = struct.unpack_from("<IIHHI", data)
            written = count <= _LONGEST_WRITTEN
            rows.append(
                FastRange(inode, logical, count if written else count - _LONGEST_WRITTEN, high << 32 | low, written)
            )
        elif tag == _DELETE_RANGE and length >= 12:
            inode, logical, count = struct.unpack_from("<III", data)
            rows.append(FastRange(inode, logical, count, 0, True))
    return [
        FastName(row.parent, row.inode, row.name, row.removed, number, newest.get(row.inode, b""), row.created)
        if isinstance(row, FastName)
        else row
        for row in rows
    ]
