"""Protocol buffers on the wire: the fields of a message, read without its schema.

Reads varints, 32 and 64 bit numbers and length-delimited fields; groups, which no engine writes, count as damage.
Specification: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator

from forensics_lib.errors import DamagedData, LimitExceeded

__all__ = ["MAX_FIELDS", "Message", "read_fields"]

MAX_FIELDS = 1_000_000
"""Most fields that are read of one message."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}
_MAX_NUMBER = (1 << 29) - 1


class Message:
    """The fields of one message by number, read with the type that the caller's schema gives them.

    As the specification asks, unknown fields do no harm and of several values of a single field the last counts. A
    field that is missing or of another wire type reads as its default. A damaged message has the fields before the
    damage.

    Attributes:
        damage: what is wrong with the bytes, with the offset in them; None for a clean message.
    """

    __slots__ = ("_fields", "damage")

    def __init__(self, data: bytes) -> None:
        """Read all fields of `data`."""
        self._fields: dict[int, list[int | bytes]] = {}
        self.damage: DamagedData | None = None
        try:
            for number, value in read_fields(data):
                self._fields.setdefault(number, []).append(value)
        except DamagedData as error:
            self.damage = error

    def __contains__(self, number: int) -> bool:
        """Whether there is a field of that number, whatever its type."""
        return number in self._fields

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the fields, in the order of their first occurrence."""
        return tuple(self._fields)

    def integer(self, number: int) -> int:
        """An unsigned number: uint32, uint64, fixed32, fixed64, enum; 0 by default."""
        for value in reversed(self._fields.get(number, ())):
            if isinstance(value, int):
                return value
        return 0

    def signed(self, number: int) -> int:
        """An int32 or int64; 0 by default."""
        value = self.integer(number)
        return value - (1 << 64) if value >> 63 else value

    def flag(self, number: int) -> bool:
        """A bool; False by default."""
        return self.integer(number) != 0

    def data(self, number: int) -> bytes:
        """Bytes; empty by default."""
        for value in reversed(self._fields.get(number, ())):
            if isinstance(value, bytes):
                return value
        return b""

    def text(self, number: int) -> str:
        """A string, bytes that are no UTF-8 as surrogates; empty by default."""
        return self.data(number).decode("utf-8", "surrogateescape")

    def texts(self, number: int) -> tuple[str, ...]:
        """Every value of a repeated string."""
        return tuple(value.decode("utf-8", "surrogateescape") for value in self._repeated(number))

    def message(self, number: int) -> Message:
        """An embedded message; one without fields by default."""
        return Message(self.data(number))

    def messages(self, number: int) -> Iterator[Message]:
        """Every value of a repeated message."""
        return map(Message, self._repeated(number))

    def mapping(self, number: int) -> dict[str, str]:
        """A map of strings to strings."""
        return {entry.text(1): entry.text(2) for entry in self.messages(number)}

    def _repeated(self, number: int) -> Iterator[bytes]:
        return (value for value in self._fields.get(number, ()) if isinstance(value, bytes))


def read_fields(data: bytes, *, limit: int = MAX_FIELDS) -> Iterator[tuple[int, int | bytes]]:
    """Each field as (number, value), in the order of the bytes: numbers unsigned, length-delimited ones as bytes.

    Raises:
        LimitExceeded: more than `limit` fields.
        DamagedData: bytes that are no field; those before were given, `offset` tells where it starts.
    """
    position = count = 0
    while position < len(data):
        start = position
        if count == limit:
            raise LimitExceeded(f"message of more than {limit} fields", offset=start)
        count += 1
        tag, position = _varint(data, position, start)
        number, wire = tag >> 3, tag & 7
        if not 0 < number <= _MAX_NUMBER:
            raise DamagedData(f"field number {number} is not allowed", offset=start)
        if wire in (_VARINT, _BYTES):
            value, position = _varint(data, position, start)
            if wire == _VARINT:
                yield number, value
                continue
        elif wire in _FIXED:
            value = _FIXED[wire]
        else:
            raise DamagedData(f"field {number} has wire type {wire}, which is not read", offset=start)
        content = data[position : position + value]
        if len(content) < value:
            message = f"field {number} has {value} bytes, only {len(content)} are there"
            raise DamagedData(message, offset=start)
        position += value
        yield number, content if wire == _BYTES else int.from_bytes(content, "little")


def _varint(data: bytes, position: int, field: int) -> tuple[int, int]:
    """A number of at most 64 bits, and where the bytes after it start."""
    value = shift = 0
    for byte in data[position : position + 10]:
        position += 1
        if byte < 0x80:
            value |= byte << shift
            if value >> 64:
                break
            return value, position
        value |= (byte & 0x7F) << shift
        shift += 7
    raise DamagedData("number is cut off or longer than 64 bits", offset=field)
