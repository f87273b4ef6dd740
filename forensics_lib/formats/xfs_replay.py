"""An XFS file system as it reads once its log is replayed: done in memory, with nothing written.

Buffers, inodes and new clusters of inodes of committed transactions are applied, in the order and under the conditions
under which Linux applies them: freed buffers are left out, and so is what is newer in place. Not applied: quota
records, and operations that were begun in one transaction and had to be finished in another (what they did so far is
applied; the rest, mostly the freeing of space, is not).

Format: XFS Algorithms & Data Structures (kernel.org), "Journaling Log"; the order of replay is that of Linux 6.
"""

from __future__ import annotations

import struct
from collections import Counter

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.xfs import XfsGeometry
from forensics_lib.formats.xfs_fork import Report
from forensics_lib.formats.xfs_log import BASIC_BLOCK, LogItem, Transaction, XfsLog
from forensics_lib.formats.xfs_replay_inode import InodeItem
from forensics_lib.sources.base import Source

__all__ = ["XfsReplayed"]

_PAGE = 4096
_MAX_PAGES = 1 << 18  # 1 GiB
_INODE, _BUFFER, _QUOTA, _QUOTA_OFF, _CREATE = 0x123B, 0x123C, 0x123D, 0x123E, 0x123F
_INTENTS = {
    0x1236: "extents to free",
    0x1240: "reverse mappings",
    0x1242: "reference counts",
    0x1244: "mappings of files",
    0x1246: "extended attributes",
    0x1248: "exchanges of mappings",
}

_BUFFER_HEADER = struct.Struct("HHHHqI")
_INODE_BUFFER, _CANCEL, _QUOTA_BUFFERS = 0x01, 0x02, 0x1C
_CHUNK = 128  # bytes of a buffer that one bit stands for
_UNLINKED_AT = 96
_CREATE_ITEM = struct.Struct(">4x6I")

_MISSING = 0xFFFFFFFFFFFFFFFF
