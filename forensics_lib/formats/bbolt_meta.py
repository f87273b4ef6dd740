"""The meta pages of bbolt and BoltDB files; they tell page size and byte order, so they come first.

Source of the format: go.etcd.io/bbolt, ``internal/common/meta.go`` and ``db.go`` (getPageSize).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.model import Origin
from forensics_lib.sources.base import Source

__all__ = ["Meta", "find_metas"]

_ORDERS = {b"\xed\xda\x0c\xed": "<", b"\xed\x0c\xda\xed": ">"}
_VERSION = 2
_SIZE = 80
_NOT_STORED = 0xFFFFFFFFFFFFFFFF
_PAGE_SIZES = range(512, (16 << 20) + 1)
_PROBES = tuple(512 << shift for shift in range(16))


@dataclass(frozen=True, slots=True)
class Meta:
    """A meta page: the database as one transaction left it. The two meta pages take turns.

    Attributes:
        page: 0 or 1.
        page_size: in bytes.
        root: page of the root bucket.
        sequence: counter of the root bucket.
        freelist: page of the list of free pages; None when it is not stored.
        high_water: first page that was never allocated (the field ``pgid``).
        txid: number of the transaction.
        checksum: as stored.
        valid: whether version and checksum are right.
        origin: where the page is.
    """

    page: int
    page_size: int
    root: int
    sequence: int
    freelist: int | None
    high_water: int
    txid: int
    checksum: int
    valid: bool
    origin: Origin


def find_metas(source: Source) -> tuple[str, tuple[Meta, ...]]:
    """Byte order (as `struct` writes it) and meta pages: the valid ones first, the newest first.

    The second page lies at the page size, which only the first one tells; when that is damaged, it is searched.

    Raises:
        UnsupportedFormat: there is none.
    """
    first = _read_meta(source, 0, 0)
    offsets = [first[1].page_size] if first else []
    if not first or not first[1].valid:
        offsets += _PROBES
    seconds = [meta for offset in offsets if (meta := _read_meta(source, 1, offset)) and meta[1].page_size == offset]
    seconds.sort(key=lambda found: not found[1].valid)
    metas = [meta for meta in (first, *seconds[:1]) if meta]
    metas.sort(key=lambda found: (found[1].valid, found[1].txid), reverse=True)
    if not metas:
        raise UnsupportedFormat("no bbolt database: there is no meta page")
    order, best = metas[0]
    return order, tuple(meta for its, meta in metas if (its, meta.page_size) == (order, best.page_size))


def _read_meta(source: Source, page: int, offset: int) -> tuple[str, Meta] | None:
    try:
        data = source.read_at(offset, _SIZE)
    except DamagedData:
        return None
    order = _ORDERS.get(data[16:20])
    if order is None or len(data) < _SIZE:
        return None
    version, size, _, root, sequence, freelist, high_water, txid, checksum = struct.unpack_from(
        order + "IIIQQQQQQ", data, 20
    )
    if size not in _PAGE_SIZES:
        return None
    return order, Meta(
        page=page,
        page_size=size,
        root=root,
        sequence=sequence,
        freelist=None if freelist == _NOT_STORED else freelist,
        high_water=high_water,
        txid=txid,
        checksum=checksum,
        valid=version == _VERSION and checksum == _fnv(data[16:72]),
        origin=source.origin.to(f"bbolt page {page}", offset),
    )


def _fnv(data: bytes) -> int:
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value
