"""The journal fixtures: files as systemd wrote them, and what journalctl read of them."""

from __future__ import annotations

from functools import cache

from forensics_lib.formats.journal import JournalEntry
from tests.samples import FIXTURES, archive_tree

FORMS = ("wide-jenkins-plain", "wide-jenkins-xz", "wide-keyed-lz4", "compact-keyed-zstd", "systemd-247")
FORMATS = FIXTURES / "journal" / "formats.tar.zst"
HOST = FIXTURES / "journal" / "host.tar.zst"

Row = tuple[int, int, str, tuple[tuple[str, bytes], ...]]
"""Time, time since the start, start, and fields by name."""


@cache
def member(path: str) -> bytes:
    """A file of the archive of forms."""
    with archive_tree(FORMATS) as tree:
        return tree.read(path)


@cache
def journal(form: str) -> bytes:
    """A journal in one form, without the room that was reserved behind its last object."""
    data = member(f"/{form}.journal").rstrip(b"\0")
    data += bytes(-len(data) % 8)
    header_size = int.from_bytes(data[88:96], "little")
    return data[:96] + (len(data) - header_size).to_bytes(8, "little") + data[104:]


def exported(data: bytes) -> list[Row]:
    """The entries of a text in the journal's export format, as journalctl writes it."""
    rows, fields, position = [], list[tuple[str, bytes]](), 0
    while position < len(data):
        end = data.index(b"\n", position)
        line, position = data[position:end], end + 1
        name, found, value = line.partition(b"=")
        if line and not found:
            length = int.from_bytes(data[position : position + 8], "little")
            value = data[position + 8 : position + 8 + length]
            position += 8 + length + 1
        if line:
            fields.append((name.decode(), value))
        if (not line or position >= len(data)) and fields:
            meta = dict(fields)
            rows.append(
                (
                    int(meta["__REALTIME_TIMESTAMP"]),
                    int(meta["__MONOTONIC_TIMESTAMP"]),
                    meta["_BOOT_ID"].decode(),
                    tuple(sorted({pair for pair in fields if not pair[0].startswith("__") and pair[0] != "_BOOT_ID"})),
                )
            )
            fields = []
    return rows


def row(entry: JournalEntry) -> Row:
    """An entry as `exported` has it."""
    fields = sorted({pair for pair in entry.fields if pair[0] != "_BOOT_ID"})
    return entry.realtime_us, entry.monotonic_us, entry.boot_id, tuple(fields)
