"""Rollback journals of SQLite: pages as they were before a transaction changed them.

The engine deletes the journal when a transaction is committed, so that recovered ones tell what each changed.

Specification: https://www.sqlite.org/fileformat2.html, "The Rollback Journal".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from forensics_lib.sources.base import Source

__all__ = ["JOURNAL_MAGIC", "OldPage", "old_pages"]

JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_HEADER = struct.Struct(">8s5I")
_MAX_PAGES = 1 << 20
_STEP = 200


@dataclass(frozen=True, slots=True)
class OldPage:
    """A page as it was.

    Attributes:
        number: of the page, from 1 on.
        offset: where its bytes lie in the journal.
    """

    number: int
    offset: int


def old_pages(journal: Source, page_size: int) -> Iterator[OldPage]:
    """The pages of a journal whose checksum is right; none when its pages have another size or it is no journal.

    The magic number is written last, so that a journal of a transaction that was never synchronised has none.
    """
    head = journal.read_some(0, _HEADER.size) if journal.size else b""
    if len(head) < _HEADER.size:
        return
    magic, _, nonce, _, sector, size = _HEADER.unpack(head)
    if magic not in (JOURNAL_MAGIC, bytes(8)) or size != page_size or not _HEADER.size <= sector <= 1 << 16:
        return
    at = sector
    for _ in range(_MAX_PAGES):
        record = journal.read_at(at, 8 + size) if at + 8 + size <= journal.size else b""
        if record.startswith(JOURNAL_MAGIC):  # more of it was written with a header of its own
            nonce, at = struct.unpack_from(">I", record, 12)[0], at + sector
            continue
        if len(record) < 8 + size:
            return
        number, stored = struct.unpack_from(">I", record)[0], struct.unpack_from(">I", record, 4 + size)[0]
        page = record[4 : 4 + size]
        total = nonce + sum(page[place] for place in range(size - _STEP, 0, -_STEP))
        if not number or total & 0xFFFFFFFF != stored:
            return
        yield OldPage(number, at + 4)
        at += 8 + size
