"""The hashes that a journal keeps of every value and of every entry, computed again: whether something was altered.

Format: systemd ``docs/JOURNAL_FILE_FORMAT.md``. The hashes are no proof against somebody who computes them anew; the
seals would be, but their key is not in the file.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from forensics_lib.errors import DamagedData, LimitExceeded
from forensics_lib.formats.journal import JournalFile
from forensics_lib.formats.journal_hash import jenkins64, siphash24
from forensics_lib.formats.journal_objects import ObjectKind

__all__ = ["HashCheck", "check_hashes"]

_HASH = struct.Struct("<Q")
_VALUE_HASH, _ENTRY_HASH = 16, 56
_LONGEST = 1 << 20
_RATIO, _ALWAYS = 10, 64 << 20


@dataclass(frozen=True, slots=True)
class HashCheck:
    """One hash.

    Attributes:
        what: ``value`` of a field, or ``entry``.
        name: the field's name; empty for an entry.
        offset: where the object lies.
        stored: the hash in the file.
        computed: the same, computed; None where the bytes cannot be read, or are too many.
        left_out: whether it was not computed because a value is longer than 1 MiB.
    """

    what: str
    name: str
    offset: int
    stored: int
    computed: int | None
    left_out: bool = False


def check_hashes(file: JournalFile) -> Iterator[HashCheck]:
    """Every hash of a journal, those of its values first.

    Args:
        file: the journal.

    Raises:
        LimitExceeded: its packed values give far more than it has bytes.
    """
    objects, key = file.objects, bytes.fromhex(file.header.file_id)
    keyed = "keyed hash" in file.header.features
    places, hashes, long = array("Q"), array("Q"), set[int]()
    room = _ALWAYS + _RATIO * objects.size
    for kind, offset, _ in objects.scan():
        if kind is not ObjectKind.DATA:
            continue
        stored = _stored(file, offset + _VALUE_HASH)
        try:
            value = objects.payload(offset, _LONGEST)
        except DamagedData as error:
            is_long = isinstance(error, LimitExceeded)
            if is_long:
                long.add(offset)
            yield HashCheck("value", "", offset, stored, None, is_long)
            continue
        room -= len(value)
        if room < 0:
            raise LimitExceeded(
                "the values of the journal are far larger than it is", origin=file.origin, offset=offset
            )
        name = value.partition(b"=")[0].decode("ascii", "backslashreplace")
        jenkins = jenkins64(value)
        places.append(offset)
        hashes.append(jenkins)
        yield HashCheck("value", name, offset, stored, siphash24(value, key) if keyed else jenkins)
    for offset in file.entry_places:
        yield _of_entry(file, offset, places, hashes, long)


def _of_entry(
    file: JournalFile, offset: int, places: array[int], hashes: array[int], long: Collection[int]
) -> HashCheck:
    """The hash of an entry: those of its values by exclusive or, whatever hash the values themselves have."""
    try:
        items, stored, computed = file.items_of(offset), _stored(file, offset + _ENTRY_HASH), 0
    except DamagedData:
        return HashCheck("entry", "", offset, 0, None)
    for place in items:
        position = bisect_left(places, place)
        if position == len(places) or places[position] != place:
            return HashCheck("entry", "", offset, stored, None, place in long)
        computed ^= hashes[position]
    return HashCheck("entry", "", offset, stored, computed)


def _stored(file: JournalFile, offset: int) -> int:
    stored: int = _HASH.unpack(file.objects.read(offset, _HASH.size))[0]
    return stored
