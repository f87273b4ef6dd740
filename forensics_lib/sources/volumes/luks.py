"""Volumes encrypted with LUKS: recognised always, opened with a key when there is one.

Format: "LUKS1 On-Disk Format Specification" and "LUKS2 On-Disk Format Specification" of the cryptsetup project. Decoded
by libluksde, which (as of 20260902) reads version 1 only.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Protocol

from forensics_lib._optional import require
from forensics_lib.errors import DamagedData, LimitExceeded, UnsupportedFormat
from forensics_lib.model import Origin
from forensics_lib.sources._libyal import LibyalSource, SourceFile, reason_of
from forensics_lib.sources.base import Source

__all__ = ["LuksSource", "luks_version"]

_MAGIC = b"LUKS\xba\xbe"
_SECTOR = 512
_SLOT = Struct(">II40x")  # state, iterations
_SLOTS = 208
_ENABLED = 0x00AC_71F3
_MAX_ITERATIONS = 50_000_000


class _Volume(Protocol):
    size: int
    volume_identifier: str

    def open_file_object(self, file: SourceFile, /) -> None: ...
    def set_password(self, password: str, /) -> None: ...
    def unlock(self) -> bool: ...
    def read_buffer_at_offset(self, size: int, offset: int, /) -> bytes | None: ...


class LuksSource(LibyalSource):
    """The plain bytes of a LUKS volume. Needs the extra ``disk``.

    Args:
        carrier: the encrypted bytes.
        keys: passphrases; the first that fits is used.
        origin: of the plain bytes; a step below the carrier by default.

    Attributes:
        version: 1 or 2.
        uuid: of the volume.

    Raises:
        UnsupportedFormat: no LUKS volume, or no key fits, or it is of version 2.
        DamagedData: the header contradicts the format.
        MissingExtra: libluksde is not installed.
    """

    def __init__(self, carrier: Source, keys: Sequence[str], origin: Origin | None = None) -> None:
        """Unlock the volume."""
        origin = origin or carrier.origin.to("LUKS")
        version = luks_version(carrier)
        if version is None:
            raise UnsupportedFormat("no LUKS volume: it does not begin with its magic")
        self.version = version
        self.carrier = carrier
        self.keys = tuple(keys)
        if version == 1 and not keys:
            raise UnsupportedFormat("the volume is encrypted (LUKS version 1); it can be read with its passphrase")
        if version != 1:
            raise UnsupportedFormat("the volume is encrypted (LUKS version 2); only version 1 can be opened here")
        _check_iterations(carrier, origin)
        pyluksde = require("pyluksde", "disk")
        file = SourceFile(carrier)
        try:
            volume = next((opened for key in self.keys if (opened := _unlocked(pyluksde.volume(), file, key))), None)
            if volume is None:
                raise UnsupportedFormat("the volume is encrypted (LUKS version 1), and no passphrase given opens it")
            self.uuid = volume.volume_identifier
            super().__init__(volume, [file], volume.size, origin)
        except (OSError, ValueError) as error:  # how libluksde fails
            raise file.error or DamagedData(
                f"the LUKS volume cannot be opened: {reason_of(error)}", origin=origin
            ) from error

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: the library cannot decode them.
        """
        inside = offset % _SECTOR  # libluksde returns wrong bytes for reads that begin inside a sector
        return super().read_at(offset - inside, inside + length)[inside:] if length > 0 else b""

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by carrier and keys: another process unlocks it again."""
        return (LuksSource, (self.carrier, self.keys, self.origin))


def luks_version(source: Source) -> int | None:
    """The version of a LUKS volume; None when the bytes are none."""
    try:
        head = source.read_at(0, 8)
    except DamagedData:
        return None
    return int.from_bytes(head[6:8], "big") if head.startswith(_MAGIC) and len(head) == 8 else None


def _check_iterations(carrier: Source, origin: Origin) -> None:
    """Refuse a header whose keys would take hours to derive; a slow machine of today chooses some millions."""
    head = carrier.read_at(0, _SLOTS + 8 * _SLOT.size)
    if len(head) < _SLOTS + 8 * _SLOT.size:
        raise DamagedData("the header of the LUKS volume is cut off", origin=origin)
    counts = [count for state, count in _SLOT.iter_unpack(head[_SLOTS:]) if state == _ENABLED]
    if max(int.from_bytes(head[164:168], "big"), *counts, 0) > _MAX_ITERATIONS:
        raise LimitExceeded(f"a key of the LUKS volume takes more than {_MAX_ITERATIONS} rounds", origin=origin)


def _unlocked(volume: _Volume, file: SourceFile, key: str) -> _Volume | None:
    file.seek(0)
    volume.open_file_object(file)
    volume.set_password(key)
    return volume if volume.unlock() else None
