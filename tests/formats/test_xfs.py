from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, ForensicsError
from forensics_lib.formats.xfs import XfsGeometry, checksum_fits, is_xfs
from forensics_lib.formats.xfs_attr import Attribute, linux_xattrs, read_attributes
from forensics_lib.formats.xfs_dir import decode_block, read_directory
from forensics_lib.formats.xfs_fork import Extent, decode_extents, fork_extents, fork_source
from forensics_lib.formats.xfs_inode import ForkFormat, InodeTable, XfsInode
from forensics_lib.formats.xfs_remote import link_target, remote_value
from forensics_lib.model import Origin
from forensics_lib.sources.base import BytesSource

BLOCK = 4096


def superblock(version: int = 5, blocks: int = 64) -> bytes:
    """One of a file system of one group."""
    data = bytearray(512)
    struct.pack_into(">4sIQ", data, 0, b"XFSB", BLOCK, blocks)
    struct.pack_into(">16sQQ", data, 32, b"identifier of it", 0, 128)
    struct.pack_into(">II", data, 84, blocks, 1)
    struct.pack_into(">HHHH12s", data, 100, version, 512, 512, 8, b"a label")
    struct.pack_into("5B", data, 120, 12, 9, 9, 3, (blocks - 1).bit_length())
    struct.pack_into(">I", data, 216, 1)
    return bytes(data)


def geometry(content: bytes = b"", version: int = 5) -> XfsGeometry:
    """A file system with some bytes behind its superblock, from block 1 on."""
    data = superblock(version).ljust(BLOCK, b"\0") + content
    return XfsGeometry(BytesSource(data.ljust(64 * BLOCK, b"\0"), Origin("disk")))


def inode(data: bytes = b"", attributes: bytes = b"", **fields: int) -> XfsInode:
    """An inode of version 3 with some bytes in its forks."""
    words = 40 - len(attributes) // 8 - 1 if attributes else 0
    forks = data.ljust(8 * words or 336, b"\0") + attributes
    core: dict[str, int] = dict.fromkeys(XfsInode._fields, 0) | {"magic": 0x494E, "version": 3, "fork_words": words}
    row = core | {"number": 128, "own_number": 128} | fields
    return XfsInode(**{**row, "forks": forks.ljust(336, b"\0")})  # type: ignore[arg-type]


def extent_record(offset: int, block: int, length: int, *, unwritten: bool = False) -> bytes:
    value = int(unwritten) << 127 | offset << 73 | block << 21 | length
    return value.to_bytes(16, "big")


def ignore(fault: str) -> None:
    """Takes reports that no test looks at."""


def test_geometry() -> None:
    found = geometry()
    assert is_xfs(found.source)
    assert not is_xfs(BytesSource(b"\0" * 10, Origin("x")))
    assert (found.label, found.root, found.version, found.has_ftype) == ("a label", 128, 5, True)
    assert found.uuid == "6964656e-7469-6669-6572-206f66206974"
    assert found.faults == ["the checksum of the superblock does not fit"]
    assert found.block_offset(3) == 3 * BLOCK
    assert found.inode_offset(129) == 16 * BLOCK + 512
    assert found.inode_at(16 * BLOCK + 512) == 129
    for number in 64, 1 << 40:
        with pytest.raises(DamagedData):
            found.block_offset(number)
        with pytest.raises(DamagedData):
            found.inode_offset(number * 8)
    with pytest.raises(DamagedData):
        found.block_offset(60, 5)


def test_checksums() -> None:
    assert checksum_fits(bytes(4) + bytes.fromhex("76e1ec9d") + bytes(4), 4) is False
    data = b"abcd" + bytes(4) + b"efgh"
    from forensics_lib._crc32c import crc32c

    assert checksum_fits(b"abcd" + struct.pack("<I", crc32c(data)) + b"efgh", 4)


@pytest.mark.parametrize(
    ("stored", "flags2", "nanoseconds"),
    [
        (0xFFFFFFFF_3B9AC9FF, 0, -1_000_000_000 + 999_999_999),
        (0x80000000_00000000, 0, -(1 << 31) * 10**9),
        (0x7FFFFFFF_00000001, 0, ((1 << 31) - 1) * 10**9 + 1),
        (0, 8, -(1 << 31) * 10**9),
        ((1 << 31) * 10**9 + 5, 8, 5),
        ((1 << 64) - 1, 8, (1 << 64) - 1 - (1 << 31) * 10**9),
    ],
)
def test_times(stored: int, flags2: int, nanoseconds: int) -> None:
    row = inode(atime=stored, mtime=stored, ctime=stored, btime=stored, flags2=flags2)
    assert row.times == (nanoseconds,) * 4
    assert row._replace(version=2).times[3] is None or flags2


def test_fields_that_versions_keep_in_other_places() -> None:
    row = inode(old_links=3, links=7, small_extents=11, small_attribute_extents=12, large_extents=13)
    assert (row.nlink, row._replace(version=1).nlink) == (7, 3)
    assert (row.extents, row.attribute_extents) == (11, 12)
    large = row._replace(flags2=0x10)
    assert (large.extents, large.attribute_extents) == (13, 11)
    assert inode(struct.pack(">I", 300 << 18 | 70000)).device == (300, 70000)


def test_inodes_by_number() -> None:
    raw = struct.pack(">HHBB", 0x494E, 0o100644, 3, 2).ljust(152, b"\0") + struct.pack(">Q", 8)
    table = InodeTable(geometry(raw.ljust(512, b"\0") + raw))
    assert table.inode(8).mode == 0o100644
    assert table.inode(8).offset == BLOCK
    with pytest.raises(DamagedData, match="inode 8 is where inode 9 has to be"):
        table.inode(9)
    with pytest.raises(DamagedData, match="no inode is where inode 10 has to be"):
        table.inode(10)
    with pytest.raises(DamagedData, match="version 3"):
        InodeTable(geometry(raw, version=4)).inode(8)


def test_extents() -> None:
    data = extent_record(5, 1 << 40, 7) + extent_record(12, 3, (1 << 21) - 1, unwritten=True) + b"rest"
    assert list(decode_extents(data, 100)) == [
        Extent(5, 1 << 40, 7, unwritten=False),
        Extent(12, 3, (1 << 21) - 1, unwritten=True),
    ]
    assert len(list(decode_extents(data, 1))) == 1


def test_holes_and_unwritten_extents_are_zeros() -> None:
    disk = geometry(b"A" * BLOCK + b"B" * BLOCK)
    records = extent_record(1, 1, 1) + extent_record(2, 2, 1, unwritten=True) + extent_record(4, 2, 1)
    row = inode(records, format=ForkFormat.EXTENTS, small_extents=3)
    source = fork_source(disk, fork_extents(disk, row, ignore), 5 * BLOCK - 96, Origin("file"))
    assert source.read_at(0, 1 << 20) == bytes(BLOCK) + b"A" * BLOCK + bytes(2 * BLOCK) + b"B" * (BLOCK - 96)


def test_a_tree_of_extents() -> None:
    leaf = struct.pack(">4sHH", b"BMA3", 0, 2).ljust(72, b"\0") + extent_record(0, 9, 1) + extent_record(3, 11, 2)
    node = struct.pack(">4sHH", b"BMA3", 1, 1).ljust(72, b"\0")
    node += struct.pack(">Q", 0) + bytes(8 * ((BLOCK - 72) // 16 - 1)) + struct.pack(">Q", 2)
    disk = geometry(node.ljust(BLOCK, b"\0") + leaf)
    room = (336 - 4) // 16
    root = struct.pack(">HHQ", 2, 1, 0).ljust(4 + 8 * room, b"\0") + struct.pack(">Q", 1)
    faults: list[str] = []
    row = inode(root, format=ForkFormat.BTREE, small_extents=2)
    assert fork_extents(disk, row, faults.append) == [Extent(0, 9, 1, False), Extent(3, 11, 2, False)]
    assert faults == []
    wrong = struct.pack(">HH", 1, 1) + root[4:]
    assert fork_extents(disk, row._replace(forks=wrong.ljust(336, b"\0")), faults.append)[0].block is None
    assert faults[0] == "block 1 of the extents' tree cannot be used: it is on level 1 instead of 0"


def test_a_directory_inside_the_inode() -> None:
    data = struct.pack(">BBI", 2, 0, 77) + b"\4\0\0name\1" + struct.pack(">I", 200)
    data += b"\2\0\0\xff\xfe\2" + struct.pack(">I", 201)
    row = inode(data, format=ForkFormat.LOCAL, size=len(data))
    assert read_directory(geometry(), row, ignore) == (77, {b"name": 200, b"\xff\xfe": 201})
    wide = struct.pack(">BBQ", 1, 1, 1 << 40) + b"\4\0\0name\1" + struct.pack(">Q", 1 << 41)
    row = inode(wide, format=ForkFormat.LOCAL, size=len(wide))
    assert read_directory(geometry(), row, ignore) == (1 << 40, {b"name": 1 << 41})


def test_a_block_of_a_directory() -> None:
    entry = struct.pack(">QB", 130, 3) + b"abc\1" + b"\0\x40"
    unused = struct.pack(">HH", 0xFFFF, 24).ljust(24, b"\0")
    block = b"XDD3".ljust(64, b"\0") + unused + entry.ljust(16, b"\0")
    block += struct.pack(">HH", 0xFFFF, BLOCK - len(block)).ljust(BLOCK - len(block), b"\0")
    entries: dict[bytes, int] = {}
    assert decode_block(block, entries, ignore, has_ftype=True) == 1
    assert entries == {b"abc": 130}
    with pytest.raises(DamagedData):
        decode_block(bytes(BLOCK), entries, ignore, has_ftype=True)


def test_attributes_have_the_names_of_linux() -> None:
    acl = struct.pack(">IIIHxxIIHxx", 2, 1, 0xFFFFFFFF, 7, 2, 1000, 6)
    shown = linux_xattrs(
        iter(
            [
                Attribute(0, b"plain", b"1"),
                Attribute(2, b"overlay.opaque", b"y"),
                Attribute(4, b"capability", b"c"),
                Attribute(8, b"parent", b"not shown"),
                Attribute(0x80, b"unfinished", b"not shown"),
                Attribute(2, b"SGI_ACL_FILE", acl),
            ]
        )
    )
    assert shown == {
        "user.plain": b"1",
        "trusted.overlay.opaque": b"y",
        "security.capability": b"c",
        "trusted.SGI_ACL_FILE": acl,
        "system.posix_acl_access": struct.pack("<IHHIHHI", 2, 1, 7, 0xFFFFFFFF, 2, 6, 1000),
    }


def test_attributes_inside_the_inode() -> None:
    data = struct.pack(">HBB", 0, 2, 0) + b"\1\2\2" + b"nvv" + b"\1\0\0" + b"e"
    row = inode(attributes=data.ljust(24, b"\0"), attribute_format=ForkFormat.LOCAL)
    assert list(read_attributes(geometry(), row, ignore)) == [Attribute(2, b"n", b"vv"), Attribute(0, b"e", b"")]


def test_long_values_and_targets() -> None:
    value = struct.pack(">4sII", b"XARM", 0, 5).ljust(56, b"\0") + b"valueGARBAGE"
    link = struct.pack(">4sII", b"XSLM", 0, 6).ljust(56, b"\0") + b"targetGARBAGE"
    disk = geometry(value.ljust(BLOCK, b"\0") + link)
    assert remote_value(disk, [Extent(4, 1, 1, False)], 4, 5) == b"value"
    with pytest.raises(DamagedData):
        remote_value(disk, [Extent(4, 2, 1, False)], 4, 5)
    with pytest.raises(DamagedData):
        remote_value(disk, [], 0, 1 << 20)
    row = inode(extent_record(0, 2, 1), format=ForkFormat.EXTENTS, small_extents=1, size=6)
    assert link_target(disk, row, ignore) == b"target"
    for size in 7, 1 << 40:
        with pytest.raises(DamagedData):
            link_target(disk, row._replace(size=size), ignore)


@given(st.binary(max_size=300), st.booleans(), st.sampled_from([b"XD2B", b"XDB3", b"XDD3", b"XD2D"]))
def test_any_block_of_a_directory(data: bytes, has_ftype: bool, magic: bytes) -> None:
    block = (magic.ljust(64, b"\0") + data).ljust(512, b"\0")
    decode_block(block, {}, ignore, has_ftype=has_ftype)


@given(
    st.binary(min_size=336, max_size=336),
    st.integers(0, 41),
    st.sampled_from([1, 2, 3]),
    st.integers(0, 1 << 32),
    st.lists(st.binary(min_size=BLOCK // 16, max_size=BLOCK // 16), min_size=4, max_size=4),
    st.sampled_from([b"", b"XARM", b"BMA3", b"XDB3", bytes(8) + b"\x3b\xee", bytes(8) + b"\x3e\xbe"]),
)
def test_any_inode(forks: bytes, words: int, form: int, size: int, blocks: list[bytes], magic: bytes) -> None:
    disk = geometry(b"".join((magic + block).ljust(BLOCK, b"\0") for block in blocks))
    row = inode(format=form, attribute_format=form, size=size, small_extents=3, small_attribute_extents=3)
    row = row._replace(forks=forks, fork_words=words)
    for read in (
        lambda: read_directory(disk, row, ignore),
        lambda: dict(linux_xattrs(read_attributes(disk, row, ignore))),
        lambda: link_target(disk, row, ignore),
        lambda: fork_source(disk, fork_extents(disk, row, ignore), 1 << 16, Origin("file")).read_at(0, 1 << 16),
    ):
        try:
            read()
        except ForensicsError:
            continue
