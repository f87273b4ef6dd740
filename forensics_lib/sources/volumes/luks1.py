"""The header of LUKS volumes of version 1.

Format: "LUKS1 On-Disk Format Specification" 1.2.3 of the cryptsetup project.
"""

from __future__ import annotations

from struct import Struct

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.sources._bounds import read_exactly
from forensics_lib.sources.base import Source
from forensics_lib.sources.volumes.luks_keys import Digest, Keyslot, LuksHeader, Pbkdf2

__all__ = ["read_luks1"]

_HEADER = Struct(">6xH32s32s32sII20s32sI40s")
_SLOT = Struct(">II32sII")
_SLOTS = 8
_ENABLED = 0x00AC_71F3
_SECTOR = 512


def read_luks1(carrier: Source) -> LuksHeader:
    """The header at the beginning of a volume.

    Raises:
        DamagedData: it is cut off, or contradicts the format.
        UnsupportedFormat: it is not kept with its volume.
    """
    head = read_exactly(carrier, 0, _HEADER.size + _SLOTS * _SLOT.size, "the header of the LUKS volume")
    _, cipher, mode, name, start, key_size, digest, salt, rounds, uuid = _HEADER.unpack_from(head)
    encryption, hash_name = f"{_text(cipher)}-{_text(mode)}", _text(name)
    if not start:
        raise UnsupportedFormat("the header belongs to a LUKS volume that is kept elsewhere (a detached header)")
    if start * _SECTOR >= carrier.size:
        raise DamagedData("the encrypted bytes of the LUKS volume lie beyond the end", origin=carrier.origin)
    slots = []
    for index, (state, count, slot_salt, place, stripes) in enumerate(_SLOT.iter_unpack(head[_HEADER.size :])):
        if state == _ENABLED:
            size = -(-key_size * stripes // _SECTOR) * _SECTOR
            kdf = Pbkdf2(hash_name, slot_salt, count)
            slots.append(
                Keyslot(str(index), kdf, place * _SECTOR, size, encryption, key_size, key_size, stripes, hash_name)
            )
    proof = Digest(Pbkdf2(hash_name, salt, rounds), digest)
    return LuksHeader(1, _text(uuid), tuple(slots), (proof,), start * _SECTOR, None, encryption)


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("ascii", "replace")
