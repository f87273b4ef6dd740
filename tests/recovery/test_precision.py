"""Nothing that a newer file may have taken is called complete, whatever part of the disk was taken."""

from __future__ import annotations

import random
import struct
from functools import cache

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from forensics_lib.model import Origin, ProblemLog
from forensics_lib.recovery.agree import agreed
from forensics_lib.recovery.carve import carve
from forensics_lib.recovery.ext4 import undelete
from forensics_lib.recovery.ext4_free import free_space
from forensics_lib.recovery.layers import named_by_layers
from forensics_lib.recovery.members import archive_members
from forensics_lib.recovery.remnant import Remnant
from forensics_lib.sources.base import BytesSource, ExtentSource, SliceSource, Source
from forensics_lib.trees.ext import ExtTree
from tests.diskmaker import stored

BLOCK = 1024


@cache
def disk() -> bytes:
    """A disk as it is after its journal was replayed; else that would write over what is changed here."""
    data = stored("ext4-deleted.img")
    replayed = bytearray(tree_of(data).source.read_at(0, len(data)))
    replayed[1024 + 96] &= ~0x04  # needs no recovery
    return bytes(replayed)


def tree_of(data: bytes) -> ExtTree:
    return ExtTree(BytesSource(data, Origin("disk")), ProblemLog())


def found(data: bytes) -> list[Remnant]:
    """Everything that the methods for a disk find together."""
    tree, problems = tree_of(data), ProblemLog()
    carved = carve(free_space(tree, problems), problems)
    rows = named_by_layers(list(agreed(undelete(tree, problems), carved, problems)), problems)
    return [*rows, *archive_members(rows, problems)]


def places(content: Source | None) -> set[int] | None:
    """The blocks of the disk that content consists of; None where it does not come from blocks."""
    if isinstance(content, ExtentSource) and isinstance(content.parent, BytesSource):
        parts = [(start, size) for _, start, size in content.extents]
    elif isinstance(content, SliceSource) and isinstance(content.parent, BytesSource):
        parts = [(content.offset, content.size)]
    else:
        return None
    return {at // BLOCK for start, size in parts for at in range(start, start + size)} if parts else None


@cache
def whole() -> tuple[frozenset[str | None], tuple[int, ...]]:
    """(digests of what is complete on the disk as it is, the free blocks that it consists of)."""
    rows = [one for one in found(disk()) if one.complete and one.size and "still open" not in one.detail]
    return frozenset(one.sha256 for one in rows), tuple(
        sorted(set().union(*(places(one.content) or () for one in rows)))
    )


def taken(data: bytearray, blocks: list[int]) -> None:
    """Mark blocks as used in the bitmaps of their groups."""
    first, per_group = struct.unpack_from("<I", data, 1024 + 20)[0], struct.unpack_from("<I", data, 1024 + 32)[0]
    step = struct.unpack_from("<H", data, 1024 + 254)[0] or 32
    for block in blocks:
        group, index = divmod(block - first, per_group)
        (bitmap,) = struct.unpack_from("<I", data, 2 * BLOCK + group * step)
        data[bitmap * BLOCK + index // 8] |= 1 << index % 8


@settings(max_examples=30, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.data())
def test_a_remnant_with_a_block_that_is_used_again_is_not_complete(data: st.DataObject) -> None:
    digests, blocks = whole()
    assert len(blocks) > 50
    chosen = data.draw(st.lists(st.sampled_from(blocks), min_size=1, max_size=12, unique=True))
    changed = bytearray(disk())
    taken(changed, chosen)
    if data.draw(st.booleans()):
        noise = random.Random(data.draw(st.integers(0, 1 << 32)))
        for block in chosen:
            changed[block * BLOCK : (block + 1) * BLOCK] = noise.randbytes(BLOCK)
    for one in found(bytes(changed)):
        if one.complete and one.size and "still open" not in one.detail:
            own = places(one.content)
            assert own is None or own.isdisjoint(chosen), (one.path, one.method)
            assert one.sha256 in digests, (one.path, one.method)
