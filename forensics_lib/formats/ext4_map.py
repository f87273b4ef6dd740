"""Where the content of an inode lies: extent trees of ext4, block numbers of ext2 and ext3.

Format: Linux Documentation/filesystems/ext4/ifork.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from operator import attrgetter
from struct import Struct

from forensics_lib.errors import DamagedData
from forensics_lib.formats.ext4_inode import EXTENTS, INLINE_DATA, ExtInode
from forensics_lib.formats.run import Run, make_run

__all__ = ["Run", "is_short_link", "runs"]

_MAGIC = 0xF30A
_HEAD, _LEAF, _INDEX = Struct("<HHHH"), Struct("<IHHI"), Struct("<IIHxx")
_NUMBERS = Struct("<15I")
_LONGEST = 0x8000
_MAX_NODES, _MAX_RUNS = 1 << 16, 1 << 20
_MAX_LOGICAL = 1 << 32
_NO_BLOCKS = (0x1000, 0x2000, 0x6000, 0xC000)  # fifo, devices, socket


def runs(
    inode: ExtInode,
    read: Callable[[int], bytes],
    block_size: int,
    block_count: int,
    lost: list[tuple[int, int]] | None = None,
    known: Sequence[Run] | None = None,
) -> tuple[Run, ...]:
    """The blocks of an inode in the order of the file; none for inline content and short links.

    Args:
        inode: which one.
        read: gives a block of the file system by number.
        block_size: bytes of a block.
        block_count: number of blocks there are.
        lost: gets (first, number behind the last) of blocks of the file whose place cannot be told; without it the
            first of them raises.
        known: what counts instead of the map that the inode leads to.

    Raises:
        DamagedData: the map contradicts itself, or is larger than any real one.
    """
    kind = inode.mode & 0xF000
    if kind in _NO_BLOCKS or inode.flags & INLINE_DATA or (kind == 0xA000 and is_short_link(inode)):
        return ()
    damages: list[tuple[int, int]] = []
    if known is not None:
        found = list(known)
    elif inode.flags & EXTENTS:
        found = _extents(inode, read, damages)
    else:
        found = _numbers(inode, read, block_size, damages)
    found.sort(key=_logical)
    kept: list[Run] = []
    end = 0
    for run in found:
        if run.logical < end:  # two places for one block: neither is to be believed
            raise _damaged(inode)
        end = run.logical + run.count
        if 0 < run.block <= block_count - run.count:
            kept.append(run)
        else:
            damages.append((run.logical, end))
    if damages and lost is None:
        raise _damaged(inode)
    if lost is not None:
        lost += damages
    return tuple(kept)


def is_short_link(inode: ExtInode) -> bool:
    """Whether the target of a symbolic link lies in the inode itself."""
    return inode.size < 60 and not inode.flags & EXTENTS


def _extents(inode: ExtInode, read: Callable[[int], bytes], lost: list[tuple[int, int]]) -> list[Run]:
    found: list[Run] = []
    stack: list[tuple[bytes, int, int, int]] = [(inode.block, 5, 0, _MAX_LOGICAL)]
    nodes = 0
    while stack:
        node, deepest, start, end = stack.pop()
        nodes += 1
        if nodes > _MAX_NODES or len(found) > _MAX_RUNS:
            raise _damaged(inode)
        magic, entries, _, depth = _HEAD.unpack_from(node if len(node) >= 8 else bytes(8))
        if magic != _MAGIC or depth > deepest or 12 + 12 * entries > len(node):
            lost.append((start, end))
            continue
        if depth == 0:
            for logical, length, high, low in _LEAF.iter_unpack(node[12 : 12 + 12 * entries]):
                written = length <= _LONGEST
                count = length if written else length - _LONGEST
                if count:
                    found.append(make_run(logical, high << 32 | low, count, written))
            continue
        for logical, low, high in reversed(list(_INDEX.iter_unpack(node[12 : 12 + 12 * entries]))):
            stack.append((_read(read, high << 32 | low), depth - 1, logical, max(end, logical)))
            end = logical
    return found


def _read(read: Callable[[int], bytes], number: int) -> bytes:
    """A block of the map; empty where it cannot be read."""
    try:
        return read(number)
    except DamagedData:
        return b""


def _numbers(inode: ExtInode, read: Callable[[int], bytes], block_size: int, lost: list[tuple[int, int]]) -> list[Run]:
    """Runs of an inode with direct, single, double and triple indirect block numbers."""
    per = block_size // 4
    wanted = (inode.size + block_size - 1) // block_size
    found: list[Run] = []
    nodes = 0

    def add(logical: int, number: int) -> None:
        last = found[-1] if found else None
        if last and last.block + last.count == number and last.logical + last.count == logical:
            found[-1] = Run(last.logical, last.block, last.count + 1)
        else:
            found.append(Run(logical, number, 1))

    def descend(number: int, logical: int, level: int) -> None:
        nonlocal nodes
        if not number or logical >= wanted:
            return
        if level == 0:
            add(logical, number)
            return
        nodes += 1
        data = _read(read, number)
        if nodes > _MAX_NODES or len(found) > _MAX_RUNS:
            raise _damaged(inode)
        if len(data) < block_size:
            lost.append((logical, logical + per**level))
            return
        for index, child in enumerate(struct.unpack(f"<{per}I", data)):
            if child:
                descend(child, logical + index * per ** (level - 1), level - 1)

    start = 0
    for slot, number in enumerate(_NUMBERS.unpack(inode.block)):
        level = max(0, slot - 11)
        descend(number, start, level)
        start += per**level
    return found


_logical = attrgetter("logical")


def _damaged(inode: ExtInode) -> DamagedData:
    return DamagedData(f"the block map of inode {inode.number} contradicts itself", offset=inode.offset)
