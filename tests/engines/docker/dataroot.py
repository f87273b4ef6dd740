"""Writes the databases and folders that Docker and BuildKit keep, for tests of what reads them."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EVIDENCE = Path(os.environ.get("FORENSICS_EVIDENCE", "nowhere"))
GRAPHDRIVER = EVIDENCE / "docker29-graphdriver/modern-graphdriver-nocrash"
CONTAINERD = EVIDENCE / "docker29-containerd-store/modern-containerd-store-nocrash"
SMALL = EVIDENCE / "docker-small/small-ext4-overlay2"
HALF_REMOVED = EVIDENCE / "docker-half-removed/half-removed"
NO_EVIDENCE = "FORENSICS_EVIDENCE names no folder with this evidence"

PAGE = 4096
BUCKET = 1
LEAF, META = 2, 4
NOT_STORED = 0xFFFFFFFFFFFFFFFF

Buckets = Mapping[str, "bytes | Buckets"]


def write(folder: Path, files: Mapping[str, bytes | str | None]) -> None:
    """Make files of bytes, symbolic links of text, and folders of nothing."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)


def stores(at: str) -> dict[str, None]:
    """The folders that every data root has."""
    return dict.fromkeys(f"{at}/{name}" for name in ("containers", "image", "volumes", "network", "overlay2"))


def document(value: Any) -> bytes:
    return json.dumps(value).encode()


def digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def hexid(text: str) -> str:
    """64 hexadecimal digits that stand for a name."""
    return hashlib.sha256(text.encode()).hexdigest()


def chain(*diff_ids: str) -> str:
    """Chain id of the last layer."""
    name = diff_ids[0]
    for diff_id in diff_ids[1:]:
        name = digest(f"{name} {diff_id}")
    return name


def bolt(buckets: Buckets) -> bytes:
    """A bbolt database without a list of free pages; each bucket has a page of its own."""
    data = bytearray(2 * PAGE)
    root = _bucket(buckets, data)
    data[: 2 * PAGE] = b"".join(_meta(number, root, len(data) // PAGE) for number in (0, 1))
    return bytes(data)


def values(**fields: Any) -> dict[str, bytes]:
    """The values of a BuildKit record; ``__`` stands for a dot."""
    return {key.replace("__", "."): document({"value": value}) for key, value in fields.items()}


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A message of the wire format of protocol buffers."""
    data = b""
    for number, value in fields:
        if isinstance(value, int):
            data += _varint(number << 3) + _varint(value % (1 << 64))
        else:
            content = value.encode() if isinstance(value, str) else value
            data += _varint(number << 3 | 2) + _varint(len(content)) + content
    return data


def _bucket(buckets: Buckets, database: bytearray) -> int:
    """Append the pages of a bucket, those of the buckets in it before; its page number."""
    rows = []
    for name, value in sorted((name.encode(), value) for name, value in buckets.items()):
        if isinstance(value, bytes):
            rows.append((0, name, value))
        else:
            rows.append((BUCKET, name, struct.pack("<QQ", _bucket(value, database), 0)))
    table, data = b"", b""
    for index, (flags, name, value) in enumerate(rows):
        position = 16 * (len(rows) - index) + len(data)
        table += struct.pack("<IIII", flags, position, len(name), len(value))
        data += name + value
    number, span = len(database) // PAGE, -(-(16 + len(table) + len(data)) // PAGE)
    page = struct.pack("<QHHI", number, LEAF, len(rows), span - 1) + table + data
    database += page.ljust(span * PAGE, b"\0")
    return number


def _meta(number: int, root: int, pages: int) -> bytes:
    meta = struct.pack("<IIIIQQQQQ", 0xED0CDAED, 2, PAGE, 0, root, 0, NOT_STORED, pages, number)
    checksum = 0xCBF29CE484222325
    for byte in meta:
        checksum = (checksum ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return (struct.pack("<QHHI", number, META, 0, 0) + meta + struct.pack("<Q", checksum)).ljust(PAGE, b"\0")


def _varint(value: int) -> bytes:
    data = b""
    while value > 0x7F:
        data += bytes([value & 0x7F | 0x80])
        value >>= 7
    return data + bytes([value])
