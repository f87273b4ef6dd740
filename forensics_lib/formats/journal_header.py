"""The header of a systemd journal file.

Format: systemd ``docs/JOURNAL_FILE_FORMAT.md``. Every release of it since the first is read; what later ones added
is taken where the header is long enough.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.model import Origin

__all__ = ["LONGEST_HEADER", "SIGNATURE", "JournalHeader", "JournalState", "decode_header"]

SIGNATURE = b"LPKSHHRH"
LONGEST_HEADER = 4096
"""More than any release of systemd writes."""

_HEADER = struct.Struct("<8sIIB7x16s16s16s16s15Q")
_XZ, _LZ4, _KEYED_HASH, _ZSTD, _COMPACT = 1, 2, 4, 8, 16
_FEATURES = {_XZ: "xz", _LZ4: "lz4", _KEYED_HASH: "keyed hash", _ZSTD: "zstd", _COMPACT: "compact"}
_SEALED = 1


class JournalState(StrEnum):
    """How a file was left."""

    OFFLINE = "offline"
    ONLINE = "online"
    ARCHIVED = "archived"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class JournalHeader:
    """What a journal file says of itself.

    Attributes:
        state: ``offline`` (closed), ``archived`` (closed and rotated), ``online``: open when it was copied or when
            the machine stopped, so that its last entries may be missing.
        features: ``compact``, ``keyed hash``, and the compressions that values may have: ``xz``, ``lz4``, ``zstd``.
        sealed: whether it holds seals against alteration (which are not verified: their key is kept elsewhere).
        file_id: random number of the file.
        machine_id: of the machine that wrote it.
        boot_id: of the start of the machine that wrote the last entry.
        seqnum_id: which files count their entries together.
        header_size: bytes of the header.
        arena_size: bytes that follow it.
        field_table_offset: where the hash table of field names starts.
        field_table_size: its bytes.
        entry_array_offset: the first array of the entries' places.
        entries: number of entries.
        head_seqnum: number of the first entry.
        tail_seqnum: number of the last entry.
        head_realtime_us: time of the first entry, microseconds since 1970; 0 when there is none.
        tail_realtime_us: time of the last entry.
    """

    state: JournalState
    features: frozenset[str]
    sealed: bool
    file_id: str
    machine_id: str
    boot_id: str
    seqnum_id: str
    header_size: int
    arena_size: int
    field_table_offset: int
    field_table_size: int
    entry_array_offset: int
    entries: int
    head_seqnum: int
    tail_seqnum: int
    head_realtime_us: int
    tail_realtime_us: int

    @property
    def compact(self) -> bool:
        """Whether places in the file are kept in 32 bit."""
        return "compact" in self.features

    @property
    def closed(self) -> bool:
        """Whether the writer finished the file."""
        return self.state in (JournalState.OFFLINE, JournalState.ARCHIVED)


def decode_header(data: bytes, origin: Origin) -> JournalHeader:
    """The header at the start of a journal file.

    Args:
        data: the first bytes of the file; `LONGEST_HEADER` are enough.
        origin: the file.

    Raises:
        DamagedData: no journal, or a header that is cut off or contradicts itself.
        UnsupportedFormat: a release of the format that is newer than this reader.
    """
    if not data.startswith(SIGNATURE):
        raise DamagedData("is no journal: its signature is missing", origin=origin, offset=0)
    if len(data) < _HEADER.size:
        raise DamagedData("journal is cut off in its header", origin=origin, offset=len(data))
    values = _HEADER.unpack_from(data)
    _, compatible, incompatible, state, file_id, machine_id, boot_id, seqnum_id = values[:8]
    header_size, arena_size, _, _, fields, fields_size, _, _, entries, tail, head, array, first, last, _ = values[8:]
    if unknown := incompatible & ~sum(_FEATURES):
        raise UnsupportedFormat(f"journal needs features that are not known here (flags {unknown:#x})")
    if not _HEADER.size <= header_size <= LONGEST_HEADER or header_size % 8:
        raise DamagedData(f"journal has a header of {header_size} bytes", origin=origin, offset=88)
    states = (JournalState.OFFLINE, JournalState.ONLINE, JournalState.ARCHIVED)
    return JournalHeader(
        state=states[state] if state < len(states) else JournalState.UNKNOWN,
        features=frozenset(name for bit, name in _FEATURES.items() if incompatible & bit),
        sealed=bool(compatible & _SEALED),
        file_id=file_id.hex(),
        machine_id=machine_id.hex(),
        boot_id=boot_id.hex(),
        seqnum_id=seqnum_id.hex(),
        header_size=header_size,
        arena_size=arena_size,
        field_table_offset=fields,
        field_table_size=fields_size,
        entry_array_offset=array,
        entries=entries,
        head_seqnum=head,
        tail_seqnum=tail,
        head_realtime_us=first,
        tail_realtime_us=last,
    )
