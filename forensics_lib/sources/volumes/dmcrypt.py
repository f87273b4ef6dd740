"""Sectors as dm-crypt encrypts them.

Format: Documentation/admin-guide/device-mapper/dm-crypt.rst of Linux; IEEE 1619 for XTS. AES is the one of the package
``cryptography``, which the extra ``disk`` installs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal

from forensics_lib._optional import require
from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.model import Origin
from forensics_lib.sources._bounds import end_of, read_exactly
from forensics_lib.sources.base import Source

__all__ = ["HASHES", "DecryptedSource", "SectorCipher", "check_encryption"]

HASHES = {
    name: name.replace("-", "_") if name.startswith("sha3") else name
    for name in ("sha1", "sha224", "sha256", "sha384", "sha512", "sha3-256", "sha3-384", "sha3-512", "ripemd160")
} | {"blake2b-512": "blake2b512", "blake2s-256": "blake2s256"}
"""Names of hashes in headers, and what Python and OpenSSL call them."""

_UNIT = 512  # what initialisation vectors count in, whatever the size of a sector
_SECTORS = (512, 1024, 2048, 4096)
_KEYS = {"xts": (32, 64), "cbc": (16, 24, 32)}
_COUNTED: dict[str, tuple[int, Literal["little", "big"]]] = {
    "plain": (32, "little"),
    "plain64": (64, "little"),
    "plain64be": (64, "big"),
}
"""Vectors that are the number of the sector: its bits and their order."""


class SectorCipher:
    """Decrypts sectors; AES in XTS or CBC mode, with the vectors ``plain``, ``plain64``, ``plain64be`` and ``essiv``.

    Args:
        encryption: as dm-crypt writes it: ``aes-xts-plain64``, ``aes-cbc-essiv:sha256`` …
        key: of the volume; in XTS mode both halves.
        sector_size: bytes that are encrypted at a time.

    Raises:
        UnsupportedFormat: of another cipher, mode or vector.
        DamagedData: the key or the sectors have an impossible size.
        MissingExtra: the package ``cryptography`` is not installed.
    """

    def __init__(self, encryption: str, key: bytes, sector_size: int = _UNIT) -> None:
        """Prepare the key."""
        check_encryption(encryption, len(key), sector_size)
        _, mode, vector = encryption.split("-", 2)
        if mode == "xts" and key[: len(key) // 2] == key[len(key) // 2 :]:
            raise DamagedData("both halves of the key are the same")
        ciphers = require("cryptography.hazmat.primitives.ciphers", "disk")
        self.sector_size = sector_size
        self._cipher = ciphers.Cipher
        self._algorithm = ciphers.algorithms.AES(key)
        self._mode = ciphers.modes.XTS if mode == "xts" else ciphers.modes.CBC
        if vector in _COUNTED:
            size, order = _COUNTED[vector]
            self._vector: Callable[[int], bytes] = lambda sector: (sector & (1 << size) - 1).to_bytes(16, order)
        else:
            salt = hashlib.new(HASHES[vector.removeprefix("essiv:")], key).digest()
            salted = ciphers.Cipher(ciphers.algorithms.AES(salt), ciphers.modes.ECB())
            self._vector = lambda sector: bytes(salted.encryptor().update(sector.to_bytes(16, "little")))

    def decrypt(self, first: int, data: bytes) -> bytes:
        """The plain bytes of whole sectors.

        Args:
            first: number of the first, in units of 512 bytes.
            data: the encrypted bytes.
        """
        size, step = self.sector_size, self.sector_size // _UNIT
        pieces: list[bytes] = []
        for place in range(0, len(data), size):
            mode = self._mode(self._vector(first + place // size * step))
            pieces.append(self._cipher(self._algorithm, mode).decryptor().update(data[place : place + size]))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class DecryptedSource(Source):
    """The plain bytes of a run of encrypted sectors.

    Args:
        carrier: what holds the run.
        offset: where it begins.
        size: how many bytes it takes up, whole sectors.
        encryption: as `SectorCipher` takes it.
        key: of the volume.
        sector_size: bytes that are encrypted at a time.
        tweak: what the vectors count from.
        origin: of the plain bytes.
    """

    def __init__(
        self,
        carrier: Source,
        offset: int,
        size: int,
        encryption: str,
        key: bytes,
        *,
        sector_size: int = _UNIT,
        tweak: int = 0,
        origin: Origin,
    ) -> None:
        """Decrypt what is read."""
        self.carrier = carrier
        self.offset = offset
        self.encryption = encryption
        self.tweak = tweak
        self.origin = origin
        self.size = size
        self._key = key
        self._cipher = SectorCipher(encryption, key, sector_size)

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: the carrier cannot be read there, or ends before.
        """
        end = end_of(self, offset, length)
        if end <= offset:
            return b""
        sector = self._cipher.sector_size
        start, stop = offset // sector * sector, -(-end // sector) * sector
        data = read_exactly(self.carrier, self.offset + start, stop - start, "an encrypted sector")
        plain = self._cipher.decrypt(self.tweak + start // _UNIT, data)
        return plain[offset - start : end - start]

    def close(self) -> None:
        """Close the carrier."""
        self.carrier.close()

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the key of the volume, as deriving it from a passphrase is made to be slow."""
        sector_size = self._cipher.sector_size
        args = (self.carrier, self.offset, self.size, self.encryption, self._key)
        return (_decrypted, (*args, sector_size, self.tweak, self.origin))


def check_encryption(encryption: str, key_size: int, sector_size: int = _UNIT) -> None:
    """Whether `SectorCipher` can do this.

    Raises:
        UnsupportedFormat: another cipher, mode or vector.
        DamagedData: the key or the sectors have an impossible size.
    """
    cipher, _, rest = encryption.partition("-")
    mode, _, vector = rest.partition("-")
    name = vector.removeprefix("essiv:")
    if cipher != "aes" or mode not in _KEYS:
        raise UnsupportedFormat(f"the encryption {encryption!r} is not read; AES in XTS or CBC mode is")
    if vector not in _COUNTED and (vector == name or name not in HASHES):
        raise UnsupportedFormat(f"the encryption {encryption!r} is not read: its vectors are not known")
    if key_size not in _KEYS[mode] or sector_size not in _SECTORS:
        message = f"{encryption} with a key of {key_size} bytes and sectors of {sector_size} is impossible"
        raise DamagedData(message)
    if vector != name and hashlib.new(HASHES[name]).digest_size not in _KEYS["cbc"]:
        raise UnsupportedFormat(f"the encryption {encryption!r} is not read: {name} makes no key for AES")


def _decrypted(
    carrier: Source, offset: int, size: int, encryption: str, key: bytes, sector_size: int, tweak: int, origin: Origin
) -> DecryptedSource:
    return DecryptedSource(carrier, offset, size, encryption, key, sector_size=sector_size, tweak=tweak, origin=origin)
