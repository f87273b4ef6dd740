"""Keys of LUKS volumes: how a passphrase opens a keyslot, and how the key of the volume is known to be right.

Format: as `luks`; "New Methods in Hard Disk Encryption" (Clemens Fruhwirth) for the splitter; RFC 8018 and RFC 9106 for
the functions that stretch a passphrase.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from forensics_lib._optional import require
from forensics_lib.errors import DamagedData, LimitExceeded, UnsupportedFormat
from forensics_lib.sources._bounds import read_exactly
from forensics_lib.sources.base import Source
from forensics_lib.sources.volumes.dmcrypt import HASHES, SectorCipher, check_encryption

__all__ = ["MAX_KEY", "Argon2", "Digest", "Keyslot", "LuksHeader", "Pbkdf2"]

MAX_KEY = 512
"""Bytes of the largest key that a header may declare."""

_MAX_ROUNDS = 50_000_000
_MAX_MEMORY = 4 << 20  # KiB, as cryptsetup
_MAX_WORK = 256 << 20  # KiB times passes: some minutes
_MAX_LANES = 64
_MAX_STRIPES = 1 << 16
_MAX_AREA = 64 << 20
_SECTOR = 512


@dataclass(frozen=True, slots=True)
class Pbkdf2:
    """PBKDF2 with its costs.

    Attributes:
        hash: as the header names it.
        salt: of the header.
        rounds: iterations; 50 millions at most (some ten seconds).
    """

    hash: str
    salt: bytes
    rounds: int

    @property
    def name(self) -> str:
        """Name of the function."""
        return "pbkdf2"

    def derive(self, passphrase: bytes, length: int) -> bytes:
        """The key that a passphrase makes.

        Raises:
            UnsupportedFormat: of another hash.
            LimitExceeded: it would take hours.
            DamagedData: the costs are impossible.
        """
        if self.rounds > _MAX_ROUNDS:
            raise LimitExceeded(f"a key of the LUKS volume takes {self.rounds} rounds, more than {_MAX_ROUNDS}")
        if self.rounds < 1 or length < 1:
            raise DamagedData("a key of the LUKS volume takes no rounds")
        return hashlib.pbkdf2_hmac(_hash(self.hash), passphrase, self.salt, self.rounds, length)


@dataclass(frozen=True, slots=True)
class Argon2:
    """Argon2 with its costs.

    Attributes:
        name: ``argon2i`` or ``argon2id``.
        salt: of the header.
        passes: over the memory.
        memory: KiB; 4 GiB at most, and together with the passes 256 GiB (some minutes).
        lanes: how many threads it is made for; 64 at most.
    """

    name: str
    salt: bytes
    passes: int
    memory: int
    lanes: int

    def derive(self, passphrase: bytes, length: int) -> bytes:
        """The key that a passphrase makes.

        Raises:
            LimitExceeded: it would take hours, or more memory than there is.
            DamagedData: the costs are impossible.
            MissingExtra: the package ``cryptography`` is not installed.
        """
        if self.memory > _MAX_MEMORY or self.memory * self.passes > _MAX_WORK or self.lanes > _MAX_LANES:
            costs = f"{self.memory} KiB of memory, {self.passes} passes and {self.lanes} lanes"
            raise LimitExceeded(f"a key of the LUKS volume takes {costs}")
        argon2 = require("cryptography.hazmat.primitives.kdf.argon2", "disk")
        function = argon2.Argon2i if self.name == "argon2i" else argon2.Argon2id
        try:
            kdf = function(
                salt=self.salt, length=length, iterations=self.passes, lanes=self.lanes, memory_cost=self.memory
            )
            return bytes(kdf.derive(passphrase))
        except ValueError as error:
            raise DamagedData(f"a key of the LUKS volume has impossible costs: {error}") from error
        except MemoryError as error:
            raise LimitExceeded(f"a key of the LUKS volume takes {self.memory} KiB of memory, too much here") from error


@dataclass(frozen=True, slots=True)
class Keyslot:
    """One of the places where the key of the volume is kept, encrypted with a passphrase.

    Attributes:
        name: number, as cryptsetup shows it.
        kdf: what makes a key of the passphrase.
        offset: of its bytes in the volume.
        size: how many bytes it may use.
        encryption: of its bytes.
        area_key_size: bytes of the key that encrypts them.
        key_size: bytes of the key of the volume.
        stripes: how many pieces the key is split into.
        hash: of the splitter.
    """

    name: str
    kdf: Pbkdf2 | Argon2
    offset: int
    size: int
    encryption: str
    area_key_size: int
    key_size: int
    stripes: int
    hash: str

    def open(self, carrier: Source, passphrase: bytes) -> bytes:
        """What the passphrase makes of the keyslot: the key of the volume, or noise if it is wrong.

        Raises:
            UnsupportedFormat: its encryption or hash is not known.
            DamagedData: it lies beyond the end, or contradicts the format.
            LimitExceeded: its costs are out of bounds.
            MissingExtra: the package ``cryptography`` is not installed.
        """
        length = self.key_size * self.stripes
        if not (0 < self.key_size <= MAX_KEY and 0 < self.area_key_size <= MAX_KEY and self.stripes > 0):
            raise DamagedData("it has a key or a splitter of an impossible size")
        if self.stripes > _MAX_STRIPES or length > _MAX_AREA:
            raise LimitExceeded(f"its key is split into {self.stripes} pieces")
        whole = -(-length // _SECTOR) * _SECTOR
        if whole > self.size:
            raise DamagedData(f"its key takes {whole} bytes, its area has {self.size}")
        splitter = _hash(self.hash)
        check_encryption(self.encryption, self.area_key_size)  # before the costs are paid
        data = read_exactly(carrier, self.offset, whole, "a keyslot")
        cipher = SectorCipher(self.encryption, self.kdf.derive(passphrase, self.area_key_size))
        return _merged(cipher.decrypt(0, data)[:length], self.key_size, splitter)


@dataclass(frozen=True, slots=True)
class Digest:
    """What proves the key of the volume.

    Attributes:
        kdf: what makes the digest of the key.
        value: the digest.
    """

    kdf: Pbkdf2
    value: bytes

    def proves(self, key: bytes) -> bool:
        """Whether this is the key of the volume.

        Raises:
            UnsupportedFormat: of another hash.
            LimitExceeded: its costs are out of bounds.
            DamagedData: it contradicts the format.
        """
        return hmac.compare_digest(self.kdf.derive(key, len(self.value)), self.value)


@dataclass(frozen=True, slots=True)
class LuksHeader:
    """What a header says, of either version.

    Attributes:
        version: 1 or 2.
        uuid: of the volume.
        keyslots: in the order in which they are tried.
        digests: what proves the key of the encrypted bytes.
        offset: where the encrypted bytes begin.
        size: how many they are; None for all that follow.
        encryption: of them, as dm-crypt writes it.
        sector_size: bytes that are encrypted at a time.
        tweak: what the vectors count from.
        tokens: what else can open keyslots: ``systemd-tpm2``, ``clevis`` …
        faults: why keyslots cannot be used.
    """

    version: int
    uuid: str
    keyslots: tuple[Keyslot, ...]
    digests: tuple[Digest, ...]
    offset: int
    size: int | None
    encryption: str
    sector_size: int = _SECTOR
    tweak: int = 0
    tokens: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


def _merged(data: bytes, size: int, name: str) -> bytes:
    """The key out of its pieces: each but the last is mixed in and spread over the whole key."""
    mixed = bytes(size)
    for place in range(0, len(data), size):
        piece = data[place : place + size]
        mixed = (int.from_bytes(mixed, "little") ^ int.from_bytes(piece, "little")).to_bytes(size, "little")
        if place + size < len(data):
            mixed = _spread(mixed, name)
    return mixed


def _spread(data: bytes, name: str) -> bytes:
    step = hashlib.new(name).digest_size
    blocks = [data[place : place + step] for place in range(0, len(data), step)]
    digests = (hashlib.new(name, index.to_bytes(4, "big") + block).digest() for index, block in enumerate(blocks))
    return b"".join(digest[: len(block)] for digest, block in zip(digests, blocks, strict=True))


def _hash(name: str) -> str:
    known = HASHES.get(name.lower())
    if known is None or not _is_there(known):
        raise UnsupportedFormat(f"the hash {name!r} is not known here")
    return known


def _is_there(name: str) -> bool:
    try:
        hashlib.new(name)
    except ValueError:  # OpenSSL was built, or is configured, without it
        return False
    return True
