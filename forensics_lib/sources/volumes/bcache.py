"""Backing devices of bcache, read without their cache.

Format: drivers/md/bcache/bcache_ondisk.h of Linux.
"""

from __future__ import annotations

from struct import Struct

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.model import ProblemLog
from forensics_lib.sources._bounds import read_exactly
from forensics_lib.sources.base import SliceSource, Source

__all__ = ["BCACHE_MAGIC", "backing_device"]

BCACHE_MAGIC = b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"
_PLACE = 4096
_SUPERBLOCK = Struct("<8xQQ16s16x16x32sQ8x64xQ")
_SECTOR = 512
_BACKING, _BACKING_WITH_OFFSET = (1, 4, 6), (4, 6)
_DEFAULT_START = 16
_STATE_SHIFT = 61
_STATES = {0: "never attached", 1: "clean", 2: "dirty", 3: "stale"}


def backing_device(source: Source, problems: ProblemLog) -> SliceSource:
    """What a backing device holds. When it says that its cache has newer bytes, that is a problem: they are not read.

    Args:
        source: a device with a superblock of bcache.
        problems: told when the bytes are not the newest.

    Raises:
        UnsupportedFormat: it is a cache, which holds no file system.
        DamagedData: its superblock contradicts the format.
    """
    head = read_exactly(source, _PLACE, _SUPERBLOCK.size, "the superblock of bcache")
    place, version, magic, _, flags, start = _SUPERBLOCK.unpack(head)
    if magic != BCACHE_MAGIC or place * _SECTOR != _PLACE:
        raise DamagedData("the superblock of bcache is damaged", origin=source.origin, offset=_PLACE)
    if version not in _BACKING:
        raise UnsupportedFormat("this is the cache of a bcache device; only what lies behind it is read")
    offset = (start if version in _BACKING_WITH_OFFSET else _DEFAULT_START) * _SECTOR
    if not _PLACE < offset < source.size:
        message = f"the data of a bcache device begin at {offset}, which is impossible"
        raise DamagedData(message, origin=source.origin, offset=_PLACE)
    state = flags >> _STATE_SHIFT & 3
    if state > 1:
        message = f"the bcache device is {_STATES[state]}: its cache has newer bytes, which are not read"
        problems.add(source.origin, message)
    return source.slice(offset, source.size - offset, "bcache")
