"""Which bytes of an ext file system are not allocated."""

from __future__ import annotations

import bisect
import heapq
import re
import struct
from collections.abc import Iterable, Iterator, Sequence

from forensics_lib.errors import DamagedData
from forensics_lib.formats.ext4_groups import BlockGroups
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.free import FreeSpace
from forensics_lib.trees.ext import ExtTree

__all__ = ["as_of_now", "free_ranges", "free_space", "without"]

_SUPERBLOCK = 1024
_64BIT, _BIGALLOC, _CHECKSUMS = 0x80, 0x200, 0x410
_BLOCK_UNINIT = 0x2
_RUNS = re.compile(rb"\x00+|\xff+|[^\x00\xff]", re.DOTALL)


def free_space(tree: ExtTree, problems: ProblemLog) -> FreeSpace:
    """The free space of an ext file system, its journal replayed."""
    return FreeSpace(tree.source, free_ranges(tree, problems), tree.geometry.block_size)


def free_ranges(tree: ExtTree, problems: ProblemLog) -> Iterator[tuple[int, int]]:
    """(offset, length) in bytes of the free space of an ext file system, ascending.

    What files use since the newest fast commits is not free, what they had before is. A group whose bitmap was never
    written is free but for the file system's own blocks. A group whose descriptor or bitmap cannot be read is a problem
    and counts as allocated.
    """
    size = tree.geometry.block_size
    yield from as_of_now(tree, _ranges(tree, problems), size)


def as_of_now(tree: ExtTree, parts: Iterable[tuple[int, int]], unit: int = 1) -> Iterator[tuple[int, int]]:
    """Free ranges (first, number), ascending, as they are since the newest fast commits, which bitmaps do not know.

    Args:
        tree: the file system.
        parts: what its bitmaps say.
        unit: what a block counts in them.
    """
    freed = [(start * unit, count * unit) for start, count in tree.freed]
    held = [(start * unit, count * unit) for start, count in tree.held]
    return without(heapq.merge(parts, freed), held) if held or freed else iter(parts)


def without(parts: Iterable[tuple[int, int]], held: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What is left of ranges (first, number) when others are taken away; both ascending."""
    done = 0
    for start, count in parts:
        start, end = max(start, done), start + count
        done = max(done, end)
        index = bisect.bisect_right(held, start, key=lambda one: one[0] + one[1])
        for first, number in held[index:]:
            if first >= end:
                break
            if first > start:
                yield start, first - start
            start = max(start, first + number)
        if start < end:
            yield start, end - start


def _ranges(tree: ExtTree, problems: ProblemLog) -> Iterator[tuple[int, int]]:
    source, geometry = tree.source, tree.geometry
    data = source.read_at(_SUPERBLOCK, 1024)
    (first,) = struct.unpack_from("<I", data, 20)
    log_cluster, per_group = struct.unpack_from("<II", data, 28)
    (readonly_features,) = struct.unpack_from("<I", data, 100)
    (descriptor_size,) = struct.unpack_from("<H", data, 254)
    wide = bool(geometry.incompat & _64BIT)
    step = max(32, descriptor_size) if wide else 32
    size, groups = geometry.block_size, BlockGroups(source)
    ratio = 1 << min(max(log_cluster - (size.bit_length() - 11), 0), 20) if readonly_features & _BIGALLOC else 1
    blocks = min(geometry.block_count, source.size // size)  # what a damaged superblock says beyond is not there
    for group in range((blocks - first + per_group - 1) // per_group if per_group else 0):
        start = first + group * per_group
        count = min(per_group, blocks - start)
        place = geometry.descriptor_offset(group)
        try:
            free = _group(source.read_at(place, step), wide, bool(readonly_features & _CHECKSUMS))
            bitmap = b"" if free is None else source.read_at(free * size, (count // ratio + 7) // 8)
        except (DamagedData, struct.error) as error:
            problems.add(tree.origin.to(f"group {group}", place), f"its free space is not known: {error}")
            continue
        if free is None:
            yield from ((block * size, length * size) for block, length in groups.free_parts(start, count))
            continue
        for index, length in _clear_bits(bitmap):
            index, length = index * ratio, length * ratio
            length = min(length, count - index)
            if length > 0:
                yield (start + index) * size, length * size


def _group(descriptor: bytes, wide: bool, checksums: bool) -> int | None:
    """Block of a group's bitmap; None when it was never written."""
    (low,) = struct.unpack_from("<I", descriptor)
    (flags,) = struct.unpack_from("<H", descriptor, 18)
    high = struct.unpack_from("<I", descriptor, 32)[0] if wide else 0
    return None if checksums and flags & _BLOCK_UNINIT else int(high << 32 | low)


def _clear_bits(bitmap: bytes) -> Iterator[tuple[int, int]]:
    """(first, number) of each run of clear bits, lowest bit first."""
    start = end = 0
    for match in _RUNS.finditer(bitmap):
        byte, at = bitmap[match.start()], match.start() * 8
        whole = [(at, (match.end() - match.start()) * 8)]
        runs = whole if byte == 0 else [(at + bit, 1) for bit in range(8) if not byte >> bit & 1]
        for first, length in runs:
            if first != end:
                if end > start:
                    yield start, end - start
                start = first
            end = first + length
    if end > start:
        yield start, end - start
