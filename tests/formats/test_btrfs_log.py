"""What the replay of a log tree makes of names and of what inodes count."""

from __future__ import annotations

import stat
import struct

from forensics_lib.formats.btrfs_items import ItemKind, parse_inode
from forensics_lib.formats.btrfs_log import _hash, replay
from forensics_lib.formats.btrfs_node import MAX_OFFSET, Key
from tests.formats.test_btrfs_overlay import Written

TOP, GONE, KEPT, DEEPER = 256, 257, 258, 259


def inode(number: int, mode: int, nlink: int) -> dict[Key, bytes]:
    data = struct.pack("<QQQQQIIII", 5, 5, 0, 0, 0, nlink, 0, 0, mode).ljust(160, b"\0")
    return {Key(number, ItemKind.INODE, 0): data}


def name(directory: int, index: int, text: bytes, number: int, file_type: int) -> dict[Key, bytes]:
    entry = struct.pack("<QBQQHHB", number, ItemKind.INODE, 0, 5, 0, len(text), file_type) + text
    return {Key(directory, ItemKind.DIR_INDEX, index): entry, Key(directory, ItemKind.DIR_ITEM, _hash(text)): entry}


def reference(number: int, directory: int, *names: tuple[int, bytes]) -> dict[Key, bytes]:
    data = b"".join(struct.pack("<QH", index, len(text)) + text for index, text in names)
    return {Key(number, ItemKind.INODE_REF, directory): data}


def test_names_in_a_directory_that_is_gone_count_no_more() -> None:
    """A file has names in a directory that was deleted with all that was in it, of which only the log of / tells."""
    below = {
        **inode(TOP, stat.S_IFDIR | 0o755, 1),
        **name(TOP, 2, b"gone", GONE, 2),
        **name(TOP, 3, b"kept", KEPT, 1),
        **inode(GONE, stat.S_IFDIR | 0o755, 1),
        **reference(GONE, TOP, (2, b"gone")),
        **name(GONE, 2, b"one", KEPT, 1),
        **name(GONE, 3, b"deeper", DEEPER, 2),
        **inode(DEEPER, stat.S_IFDIR | 0o755, 1),
        **reference(DEEPER, GONE, (3, b"deeper")),
        **name(DEEPER, 2, b"two", KEPT, 1),
        **inode(KEPT, stat.S_IFREG | 0o644, 3),
        **reference(KEPT, TOP, (3, b"kept")),
        **reference(KEPT, GONE, (2, b"one")),
        **reference(KEPT, DEEPER, (2, b"two")),
    }
    log = {
        **inode(TOP, stat.S_IFDIR | 0o755, 1),
        Key(TOP, ItemKind.DIR_INDEX, 3): below[Key(TOP, ItemKind.DIR_INDEX, 3)],
        Key(TOP, ItemKind.DIR_LOG_INDEX, 0): struct.pack("<Q", MAX_OFFSET),
    }
    tree, _ = replay(Written(log), Written(below), 4096)
    assert tree.get(GONE, ItemKind.INODE, 0) is None
    assert tree.get(DEEPER, ItemKind.INODE, 0) is None
    kept = tree.get(KEPT, ItemKind.INODE, 0)
    assert kept is not None
    assert parse_inode(kept.data).nlink == 1
    assert tree.get(TOP, ItemKind.DIR_INDEX, 3) is not None
