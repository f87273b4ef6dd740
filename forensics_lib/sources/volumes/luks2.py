"""The header of LUKS volumes of version 2.

Format: "LUKS2 On-Disk Format Specification" 1.1.3 of the cryptsetup project.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from struct import Struct

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded, UnsupportedFormat
from forensics_lib.model import ProblemLog
from forensics_lib.sources._bounds import read_exactly
from forensics_lib.sources.base import Source
from forensics_lib.sources.volumes.luks_keys import Argon2, Digest, Keyslot, LuksHeader, Pbkdf2
from forensics_lib.sources.volumes.superblock import LUKS2_PLACES

__all__ = ["FIRST", "SECOND", "read_luks2"]

FIRST, SECOND = b"LUKS\xba\xbe", b"SKUL\xba\xbe"

_HEADER = Struct(">6sHQQ48s32s64s40s48sQ")
_BINARY = 4096
_CHECKSUM = slice(448, 512)
_MAX_OBJECTS = 1024
_UNDER_WAY = ("online-reencrypt", "offline-reencrypt")

_Object = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Copy:
    """One of the two headers, with a checksum that is right."""

    place: int
    sequence: int
    uuid: str
    text: bytes


def read_luks2(carrier: Source, problems: ProblemLog) -> LuksHeader:
    """The newer of the two headers of a volume whose checksums are right.

    Args:
        carrier: the volume.
        problems: told of a header that is damaged, or older than the other.

    Raises:
        DamagedData: neither can be read, or they contradict the format.
        UnsupportedFormat: something that the format allows, but is not read.
    """
    copies: list[_Copy] = []
    faults: list[ForensicsError] = []
    for place in (0, *LUKS2_PLACES):
        if copies and place and place != len(copies[0].text) + _BINARY:
            continue  # the first header tells where the second is
        try:
            copy = _copy(carrier, place)
        except ForensicsError as error:
            faults.append(error)
            continue
        if copy is not None:
            copies.append(copy)
        if len(copies) + len(faults) == 2 or (copies and place):
            break
    if not copies:
        raise faults[0] if faults else DamagedData("no header of the LUKS volume is there", origin=carrier.origin)
    best = max(copies, key=lambda copy: copy.sequence)
    if len(copies) < 2:
        which = "second" if best.place == 0 else "first"
        reason = str(faults[0]) if faults else "it is missing"
        problems.add(carrier.origin.to("LUKS header"), f"the {which} header of the LUKS volume is not used: {reason}")
    elif copies[0].sequence != copies[1].sequence:
        numbers = " and ".join(str(copy.sequence) for copy in copies)
        message = f"the headers of the LUKS volume differ in age (numbers {numbers}); the newer one is used"
        problems.add(carrier.origin.to("LUKS header"), message)
    try:
        document = json.loads(best.text.split(b"\0", 1)[0])
    except (ValueError, RecursionError) as error:
        raise DamagedData(f"the description of the LUKS volume is no JSON: {error}", origin=carrier.origin) from error
    return _described(carrier, _mapping(document, "the description"), best.uuid)


def _copy(carrier: Source, place: int) -> _Copy | None:
    """The header at a place; None when there is none."""
    head = carrier.read_at(place, _HEADER.size)
    if len(head) < _HEADER.size or not head.startswith(SECOND if place else FIRST):
        return None
    _, version, size, sequence, _, algorithm, _, uuid, _, offset = _HEADER.unpack(head)
    if version != 2 or (place and offset != place):
        return None
    if size not in LUKS2_PLACES or offset != place:
        raise DamagedData("a header of the LUKS volume has an impossible size", origin=carrier.origin, offset=place)
    name = _text(algorithm)
    if name not in ("sha1", "sha256", "sha512"):
        raise UnsupportedFormat(f"a header of the LUKS volume has a checksum of the kind {name!r}")
    data = bytearray(read_exactly(carrier, place, size, "a header of the LUKS volume"))
    stored = bytes(data[_CHECKSUM])
    data[_CHECKSUM] = bytes(len(stored))
    digest = hashlib.new(name, data).digest()
    if stored[: len(digest)] != digest:
        message = "the checksum of a header of the LUKS volume is wrong"
        raise DamagedData(message, origin=carrier.origin, offset=place)
    return _Copy(place, sequence, _text(uuid), bytes(data[_BINARY:]))


def _described(carrier: Source, document: _Object, uuid: str) -> LuksHeader:
    requirements = _mapping(_mapping(document.get("config", {}), "config").get("requirements", {}), "requirements")
    mandatory = [str(one) for one in _list(requirements.get("mandatory", []), "requirements")]
    if any(one.startswith(_UNDER_WAY) for one in mandatory):
        raise UnsupportedFormat("the volume is encrypted (LUKS version 2), and was being encrypted anew: not read")
    if mandatory:
        raise UnsupportedFormat(f"the volume is encrypted (LUKS version 2) and requires {', '.join(mandatory)}")
    segments = _objects(document, "segments")
    if len(segments) != 1:
        raise UnsupportedFormat(f"the volume is encrypted (LUKS version 2) in {len(segments)} segments; one is read")
    ((segment_name, segment),) = segments.items()
    if segment.get("type") != "crypt" or "integrity" in segment:
        kind = "a crypt segment with integrity" if segment.get("type") == "crypt" else repr(segment.get("type"))
        raise UnsupportedFormat(f"the volume is encrypted (LUKS version 2) as {kind}, which is not read")
    offset = _number(segment, "offset")
    size = None if segment.get("size") == "dynamic" else _number(segment, "size")
    if offset >= carrier.size:
        raise DamagedData("the encrypted bytes of the LUKS volume lie beyond the end", origin=carrier.origin)
    if not offset:
        raise UnsupportedFormat("the header belongs to a LUKS volume that is kept elsewhere (a detached header)")
    digests: list[Digest] = []
    proven: set[str] = set()
    for digest in _objects(document, "digests").values():
        if digest.get("type") != "pbkdf2" or segment_name not in _list(digest.get("segments", []), "segments"):
            continue
        digests.append(Digest(_pbkdf2(digest), _bytes(digest, "digest")))
        proven.update(str(name) for name in _list(digest.get("keyslots", []), "keyslots"))
    if not digests:
        raise UnsupportedFormat("the volume is encrypted (LUKS version 2), and nothing proves its key")
    slots: list[tuple[int, Keyslot]] = []
    faults = []
    for name, slot in _objects(document, "keyslots").items():
        if name not in proven:
            continue
        try:
            slots.append((_number(slot, "priority") if "priority" in slot else 1, _keyslot(name, slot)))
        except ForensicsError as error:
            faults.append(f"keyslot {name}: {error}")
    slots.sort(key=lambda pair: -pair[0])
    return LuksHeader(
        2,
        uuid,
        tuple(slot for _, slot in slots),
        tuple(digests),
        offset,
        size,
        _string(segment, "encryption"),
        _number(segment, "sector_size"),
        _number(segment, "iv_tweak"),
        tuple(str(token.get("type", "")) for token in _objects(document, "tokens").values()),
        tuple(faults),
    )


def _keyslot(name: str, slot: _Object) -> Keyslot:
    if slot.get("type") != "luks2":
        raise UnsupportedFormat(f"its type {slot.get('type')!r} is not read")
    area, splitter = _mapping(slot.get("area"), "area"), _mapping(slot.get("af"), "af")
    kdf = _mapping(slot.get("kdf"), "kdf")
    kind = kdf.get("type")
    stretch: Pbkdf2 | Argon2
    if kind == "pbkdf2":
        stretch = _pbkdf2(kdf)
    elif kind in ("argon2i", "argon2id"):
        costs = (_number(kdf, "time"), _number(kdf, "memory"), _number(kdf, "cpus"))
        stretch = Argon2(str(kind), _bytes(kdf, "salt"), *costs)
    else:
        raise UnsupportedFormat(f"the function {kind!r} for stretching its passphrase is not known")
    if area.get("type") != "raw" or splitter.get("type") != "luks1":
        raise UnsupportedFormat("its area or splitter is of a type that is not read")
    return Keyslot(
        name,
        stretch,
        _number(area, "offset"),
        _number(area, "size"),
        _string(area, "encryption"),
        _number(area, "key_size"),
        _number(slot, "key_size"),
        _number(splitter, "stripes"),
        _string(splitter, "hash"),
    )


def _pbkdf2(entry: _Object) -> Pbkdf2:
    return Pbkdf2(_string(entry, "hash"), _bytes(entry, "salt"), _number(entry, "iterations"))


def _objects(document: _Object, key: str) -> dict[str, _Object]:
    entries = _mapping(document.get(key, {}), key)
    if len(entries) > _MAX_OBJECTS:
        raise LimitExceeded(f"the LUKS volume describes {len(entries)} {key}")
    return {name: _mapping(entry, key) for name, entry in entries.items()}


def _mapping(value: object, what: str) -> _Object:
    if not isinstance(value, dict):
        raise DamagedData(f"the description of the LUKS volume has no {what!r} that can be used")
    return value


def _list(value: object, what: str) -> list[object]:
    if not isinstance(value, list):
        raise DamagedData(f"the description of the LUKS volume has no {what!r} that can be used")
    return value


def _string(entry: _Object, key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise DamagedData(f"the description of the LUKS volume has no {key!r} that can be used")
    return value


def _number(entry: _Object, key: str) -> int:
    """A number that is not negative; those of 64 bits are written as text."""
    value = entry.get(key)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise DamagedData(f"the description of the LUKS volume has no {key!r} that can be used")
    return value


def _bytes(entry: _Object, key: str) -> bytes:
    try:
        return base64.b64decode(_string(entry, key), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DamagedData(f"the description of the LUKS volume has no {key!r} that can be used") from error


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("ascii", "replace")
