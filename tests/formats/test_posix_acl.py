"""Access control lists of file systems, in the form in which Linux gives them to programs."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.formats.posix_acl import acl_of_ext, acl_of_xfs

NOBODY = 0xFFFFFFFF
ENTRIES = [(1, 6, NOBODY), (2, 7, 70000), (4, 5, NOBODY), (8, 4, 2000), (16, 7, NOBODY), (32, 0, NOBODY)]
SHOWN = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in ENTRIES)
OF_EXT = struct.pack("<I", 1) + b"".join(
    struct.pack("<HH", *entry[:2]) + (b"" if entry[2] == NOBODY else struct.pack("<I", entry[2])) for entry in ENTRIES
)


def test_a_list_of_ext() -> None:
    assert acl_of_ext(OF_EXT) == SHOWN
    assert acl_of_ext(OF_EXT[:4]) == SHOWN[:4]


def test_a_list_of_ext_that_contradicts_itself_is_given_as_stored() -> None:
    for stored in (OF_EXT[:-1], OF_EXT[:14], b"", b"\2\0\0\0" + OF_EXT[4:]):
        assert acl_of_ext(stored) == stored


def test_a_list_of_xfs() -> None:
    stored = struct.pack(">I", len(ENTRIES)) + b"".join(
        struct.pack(">IIHxx", tag, owner, permissions) for tag, permissions, owner in ENTRIES
    )
    assert acl_of_xfs(stored) == SHOWN


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    assert isinstance(acl_of_ext(data), bytes)
    assert acl_of_xfs(data)[:4] == SHOWN[:4]
