"""How containerd writes values into its bbolt databases: times, numbers, labels, typed messages, nested buckets.

Source of the formats: containerd ``core/metadata/boltutil/helpers.go`` and ``core/metadata/bolt.go``; Go's
``time.Time.MarshalBinary`` and ``encoding/binary`` (varints).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from forensics_lib.errors import DamagedData
from forensics_lib.formats.bbolt import Bucket
from forensics_lib.formats.protobuf import Message
from forensics_lib.model import Origin, ProblemLog

__all__ = ["Folder", "load", "signed_varint", "text", "time_ns", "unsigned_varint"]

_YEAR_1 = 62_135_596_800  # seconds from the first of January of the year 1 to 1970
_TIME_SIZES = {1: 15, 2: 16}
_MAX_RECORDS = 5_000_000


@dataclass(slots=True)
class Folder:
    """A bucket with all that is in it.

    Attributes:
        values: by key.
        folders: the buckets in it, by name.
        origin: where the bucket is recorded.
        problems: told of values that are not what they should be.
    """

    origin: Origin
    problems: ProblemLog
    values: dict[bytes, bytes] = field(default_factory=dict)
    folders: dict[bytes, Folder] = field(default_factory=dict)

    def folder(self, *names: bytes) -> Folder:
        """A bucket below this one; an empty one when there is none."""
        found = self
        for name in names:
            found = found.folders.get(name) or Folder(found.origin, found.problems)
        return found

    def named(self) -> Iterator[tuple[str, Folder]]:
        """The buckets in it by name."""
        return ((text(name), folder) for name, folder in self.folders.items())

    def text(self, key: bytes) -> str:
        """A string; empty by default."""
        return text(self.values.get(key, b""))

    def time_ns(self, key: bytes) -> int | None:
        """A time in nanoseconds since 1970; None when it is missing or, with a problem, damaged."""
        return self._decoded(key, time_ns)

    def signed(self, key: bytes) -> int | None:
        """A number; None when it is missing or, with a problem, damaged."""
        return self._decoded(key, signed_varint)

    def unsigned(self, key: bytes) -> int | None:
        """A number that is never negative; None when it is missing or, with a problem, damaged."""
        return self._decoded(key, unsigned_varint)

    def mapping(self, name: bytes) -> dict[str, str]:
        """The strings of a bucket by key: labels, annotations."""
        return {text(key): text(value) for key, value in self.folder(name).values.items()}

    def typed(self, key: bytes) -> tuple[str, bytes]:
        """A typed message (``google.protobuf.Any``) as name of the type and content; empty when it is missing."""
        message = Message(self.values.get(key, b""))
        if message.damage is not None:
            self.problems.add(self.origin, f"{text(key)}: {message.damage}")
        return message.text(1), message.data(2)

    def _decoded(self, key: bytes, decode: Callable[[bytes], int | None]) -> int | None:
        data = self.values.get(key)
        if data is None:
            return None
        try:
            return decode(data)
        except DamagedData as error:
            self.problems.add(self.origin, f"{text(key)}: {error}")
            return None


def load(bucket: Bucket, origin: Origin, problems: ProblemLog) -> Folder:
    """A bucket with everything below it, in one walk; what cannot be read is left out and told by the database."""
    top = Folder(origin, problems)
    depth = len(bucket.path)
    for count, record in enumerate(bucket.walk()):
        if count >= _MAX_RECORDS:
            problems.add(origin, f"more than {_MAX_RECORDS} records; the others are not read")
            break
        folder = top
        for name in record.path[depth:]:
            folder = folder.folders.setdefault(name, Folder(record.origin, problems))
        if record.value is None:
            folder.folders[record.key] = Folder(record.origin, problems)
        else:
            folder.values[record.key] = record.value
    return top


def text(data: bytes) -> str:
    """A string, bytes that are no UTF-8 as surrogates."""
    return data.decode("utf-8", "surrogateescape")


def time_ns(data: bytes) -> int | None:
    """A time as Go marshals it, in nanoseconds since 1970; None for Go's zero time.

    Raises:
        DamagedData: no such time.
    """
    if not data or len(data) != _TIME_SIZES.get(data[0]):
        raise DamagedData(f"no time: {data[:20].hex()}")
    seconds = int.from_bytes(data[1:9], "big", signed=True)
    nanoseconds = int.from_bytes(data[9:13], "big", signed=True)
    if not 0 <= nanoseconds < 10**9:
        raise DamagedData(f"no time: {data.hex()}")
    return (seconds - _YEAR_1) * 10**9 + nanoseconds if seconds or nanoseconds else None


def unsigned_varint(data: bytes) -> int:
    """A number of at most 64 bits in groups of seven.

    Raises:
        DamagedData: cut off, longer, or followed by something else.
    """
    value = 0
    for index, byte in enumerate(data[:10]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if index + 1 < len(data) or value >> 64:
                break
            return value
    raise DamagedData(f"no number: {data[:20].hex()}")


def signed_varint(data: bytes) -> int:
    """A number of at most 64 bits in zig-zag order.

    Raises:
        DamagedData: as `unsigned_varint`.
    """
    value = unsigned_varint(data)
    return value >> 1 ^ -(value & 1)
