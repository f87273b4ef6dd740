"""Inodes of ext file systems, read one by one and many together."""

from __future__ import annotations

import pytest

from forensics_lib.errors import DamagedData
from forensics_lib.formats.ext4 import ExtGeometry
from forensics_lib.formats.ext4_inode import XATTR_MAGIC, ExtInode, decode_inode, inode_fields
from forensics_lib.model import Origin
from forensics_lib.sources.base import BytesSource
from tests.diskmaker import stored


class Torn(BytesSource):
    """A disk of which some bytes cannot be read."""

    bad = range(0)

    def read_at(self, offset: int, length: int) -> bytes:
        if offset < self.bad.stop and offset + length > self.bad.start:
            raise DamagedData("cannot be read", origin=self.origin, offset=offset)
        return super().read_at(offset, length)


@pytest.mark.parametrize("name", ["ext2.img", "ext4.img", "ext4-fast-commit.img"])
def test_inodes_read_together_are_those_read_one_by_one(name: str) -> None:
    source = BytesSource(stored(name), Origin("disk"))
    geometry = ExtGeometry(source)
    for number in (*range(1, geometry.inode_count + 1), *range(geometry.inode_count, 0, -7)):
        offset = geometry.inode_offset(number)
        alone = decode_inode(number, source.read_at(offset, geometry.inode_size), offset)
        assert geometry.inode(number) == ExtInode(*geometry.fields(number)) == alone
    for number in (-1, 0, geometry.inode_count + 1, 1 << 32):
        with pytest.raises(DamagedData, match=f"inode {number} does not exist"):
            geometry.inode(number)


@pytest.mark.parametrize(
    ("per_group", "together"), [(2048, 128), (1904, 119), (8112, 104), (104, 104), (8, 8), (131, 1)]
)
def test_groups_of_any_number_of_inodes(per_group: int, together: int) -> None:
    data = bytearray(stored("ext4.img"))
    data[1024 + 40 : 1024 + 44] = per_group.to_bytes(4, "little")
    source = BytesSource(bytes(data), Origin("disk"))
    geometry = ExtGeometry(source)
    assert geometry._together == together
    for number in range(1, min(per_group, geometry.inode_count) + 1):
        offset = geometry.inode_offset(number)
        alone = decode_inode(number, source.read_at(offset, geometry.inode_size), offset)
        assert geometry.inode(number) == alone


@pytest.mark.parametrize("first", [1, 2, 20])
def test_inodes_beside_bytes_that_cannot_be_read(first: int) -> None:
    whole = ExtGeometry(BytesSource(stored("ext4.img"), Origin("disk")))
    source = Torn(stored("ext4.img"), Origin("disk"))
    geometry = ExtGeometry(source)
    source.bad = range(whole.inode_offset(first) + 5, whole.inode_offset(first + 3))
    for number in range(1, 60):
        if first <= number < first + 3:
            with pytest.raises(DamagedData, match="cannot be read"):
                geometry.inode(number)
        else:
            assert geometry.inode(number) == whole.inode(number)


def test_a_disk_that_ends_among_its_inodes() -> None:
    whole = ExtGeometry(BytesSource(stored("ext4.img"), Origin("disk")))
    geometry = ExtGeometry(BytesSource(stored("ext4.img")[: whole.inode_offset(20) + 100], Origin("disk")))
    assert geometry.inode(19) == whole.inode(19)
    with pytest.raises(DamagedData, match="inode 20 lies beyond the end"):
        geometry.inode(20)


def tail(extra: int, at: int) -> bytes:
    """What an inode holds for attributes, its fields of `extra` bytes being followed by those of the next inode."""
    data = bytearray(256 + 128)
    data[128] = extra
    data[at : at + 4] = XATTR_MAGIC
    return inode_fields(12, bytes(data), 0, 0, 256)[15]


def test_attributes_behind_the_fields() -> None:
    assert tail(32, 160) == XATTR_MAGIC + bytes(92)
    assert tail(124, 252) == XATTR_MAGIC
    assert tail(125, 253) == tail(32, 164) == tail(0, 128) == tail(128, 256) == tail(200, 328) == b""
