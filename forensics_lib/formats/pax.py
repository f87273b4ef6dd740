"""Extended header records of tar archives: ``length key=value newline``, as POSIX.1-2001 pax and Solaris write them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

__all__ = ["parse_integer", "parse_records", "parse_seconds", "xattrs"]

_SPARSE_PAIR = {b"GNU.sparse.offset", b"GNU.sparse.numbytes"}
_MAX_RECORDS = 1 << 16


def parse_records(data: bytes) -> tuple[dict[bytes, bytes], str | None]:
    """The records of one extended header and what is wrong with them, if anything.

    A later record overrides an earlier one of the same key; an empty value stands for a deleted key. The offset and
    numbytes records that GNU sparse format 0.0 repeats are gathered, in order, in one ``GNU.sparse.map`` as 0.1 has it.
    """
    if (simple := _simple_records(data)) is not None:
        return simple, None
    records: dict[bytes, bytes] = {}
    pairs: list[bytes] = []
    position, end = 0, len(data)
    while position < end:
        space = data.find(b" ", position, position + 20)
        number = data[position:space] if space > 0 else b""
        if not number.isdigit():
            if not data[position:].strip(b"\0"):
                break  # some writers pad with NUL
            return _gathered(records, pairs), f"extended header record at byte {position} has no length"
        after = position + int(number)
        if after > end or after <= space + 1 or data[after - 1] != 0x0A:
            return _gathered(records, pairs), f"extended header record at byte {position} has a wrong length"
        key, equals, value = data[space + 1 : after - 1].partition(b"=")
        if not equals or not key:
            return _gathered(records, pairs), f"extended header record at byte {position} has no key"
        if len(records) >= _MAX_RECORDS:
            return _gathered(records, pairs), f"more than {_MAX_RECORDS} extended header records"
        if key in _SPARSE_PAIR:
            pairs.append(value)
        else:
            records[key] = value
        position = after
    return _gathered(records, pairs), None


def _simple_records(data: bytes) -> dict[bytes, bytes] | None:
    """The records when each of them is one line, as nearly always; None leaves the header to the exact way."""
    lines = data.split(b"\n")
    if lines.pop() or len(lines) > 64:
        return None
    records: dict[bytes, bytes] = {}
    for line in lines:
        length, _, rest = line.partition(b" ")
        key, equals, value = rest.partition(b"=")
        if len(length) > 19 or not length.isdigit() or int(length) != len(line) + 1:
            return None
        if not equals or not key or key in _SPARSE_PAIR:
            return None
        records[key] = value
    return records


def _gathered(records: dict[bytes, bytes], pairs: list[bytes]) -> dict[bytes, bytes]:
    if pairs:
        records.setdefault(b"GNU.sparse.map", b",".join(pairs))
    return records


def parse_integer(text: bytes) -> int | None:
    """A decimal whole number; None when it is none.

    >>> parse_integer(b"0000000000000000000000999"), parse_integer(b"-2"), parse_integer(b"0x10")
    (999, -2, None)
    """
    return int(text) if len(text) < 64 and text.removeprefix(b"-").isdigit() else None


def parse_seconds(text: bytes) -> int | None:
    """Decimal seconds as whole nanoseconds (finer digits are cut); None when it is no number.

    >>> parse_seconds(b"-1.5"), parse_seconds(b"1453146164.953123768"), parse_seconds(b"x")
    (-1500000000, 1453146164953123768, None)
    """
    whole, _, fraction = text.partition(b".")
    if whole.isdigit() and fraction.isdigit() and len(text) <= 40:  # nearly always
        return int(whole + fraction[:9].ljust(9, b"0"))
    negative = text.startswith(b"-")
    whole = whole.removeprefix(b"-")
    if not (whole + fraction).isdigit() or len(text) > 40:
        return None
    value = int(whole or b"0") * 10**9 + int(fraction[:9].ljust(9, b"0"))
    return -value if negative else value


def xattrs(records: Mapping[bytes, bytes]) -> dict[str, bytes]:
    """Extended attributes, from the records of star and GNU tar (SCHILY), libarchive and Red Hat's tar."""
    found: dict[str, bytes] = {}
    for key, value in records.items():
        if key.startswith(b"SCHILY.xattr."):
            found[_text(key[13:])] = value
        elif key.startswith(b"LIBARCHIVE.xattr."):
            try:
                decoded = base64.b64decode(value + b"=" * (-len(value) % 4))
            except binascii.Error:
                decoded = value
            found.setdefault(_text(unquote_to_bytes(key[17:])), decoded)
        elif key == b"RHT.security.selinux":
            found.setdefault("security.selinux", value)
    return found


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
