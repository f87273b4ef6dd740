"""Volumes encrypted with LUKS: recognised always, opened with a key when there is one.

Format: the two specifications that `luks1` and `luks2` name.
"""

from __future__ import annotations

from collections.abc import Sequence

from forensics_lib.errors import DamagedData, ForensicsError, MissingExtra, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.sources.volumes.dmcrypt import DecryptedSource, check_encryption
from forensics_lib.sources.volumes.luks1 import read_luks1
from forensics_lib.sources.volumes.luks2 import FIRST, SECOND, read_luks2
from forensics_lib.sources.volumes.luks_keys import LuksHeader
from forensics_lib.sources.volumes.superblock import LUKS2_PLACES

__all__ = ["LuksSource", "luks_version"]

_KEY_SIZES = (16, 24, 32, 64)


class LuksSource(DecryptedSource):
    """The plain bytes of a LUKS volume of version 1 or 2. Needs the extra ``disk``.

    Keyslots are opened with PBKDF2, Argon2i and Argon2id; their bytes and those of the volume are read when they are
    encrypted with AES, as `SectorCipher` says. Not read: other ciphers, integrity (dm-integrity below the volume), a
    volume that was being encrypted anew, detached headers and encryption by the drive itself (OPAL).

    Args:
        carrier: the encrypted bytes.
        keys: passphrases, as text or as the bytes of a key file, or the key of the volume itself; the first that fits
            is used.
        origin: of the plain bytes; a step below the carrier by default.
        problems: told of a header or keyslot that is damaged while the volume can be opened all the same.

    Attributes:
        version: 1 or 2.
        uuid: of the volume.

    Raises:
        UnsupportedFormat: no LUKS volume, or no key fits, or it is of a kind that is not read.
        DamagedData: the header contradicts the format.
        MissingExtra: the package ``cryptography`` is not installed.
    """

    def __init__(
        self,
        carrier: Source,
        keys: Sequence[str | bytes],
        origin: Origin | None = None,
        problems: ProblemLog | None = None,
    ) -> None:
        """Unlock the volume."""
        version = luks_version(carrier)
        problems = problems or ProblemLog()
        if version not in (1, 2):
            raise UnsupportedFormat("no LUKS volume of version 1 or 2: it does not begin with its magic")
        header = read_luks1(carrier) if version == 1 else read_luks2(carrier, problems)
        size = carrier.size - header.offset if header.size is None else header.size
        self.version = header.version
        self.uuid = header.uuid
        origin = origin or carrier.origin.to("LUKS", header.offset)
        if not keys:
            raise UnsupportedFormat(f"the volume is encrypted ({_about(header)}); it can be read with its passphrase")
        check_encryption(header.encryption, _KEY_SIZES[2], header.sector_size)
        if header.offset + size > carrier.size:
            there = carrier.size - header.offset
            problems.add(origin, f"the encrypted bytes of the LUKS volume are {size}, only {there} are there")
        super().__init__(
            carrier,
            header.offset,
            size // header.sector_size * header.sector_size,
            header.encryption,
            _unlocked(carrier, header, keys),
            sector_size=header.sector_size,
            tweak=header.tweak,
            origin=origin,
        )


def luks_version(source: Source) -> int | None:
    """The version of a LUKS volume, also of one that has only its second header; None when the bytes are none."""
    for place in (0, *LUKS2_PLACES):
        try:
            head = source.read_at(place, 8)
        except DamagedData:
            continue
        if head.startswith(SECOND if place else FIRST) and len(head) == 8:
            return int.from_bytes(head[6:8], "big")
    return None


def _about(header: LuksHeader) -> str:
    kinds = ", ".join(f"{slot.name} {slot.kdf.name}" for slot in header.keyslots)
    tokens = f"; tokens {', '.join(header.tokens)}" if header.tokens else ""
    return f"LUKS version {header.version}, {header.encryption}, keyslots {kinds or 'none'}{tokens}"


def _unlocked(carrier: Source, header: LuksHeader, keys: Sequence[str | bytes]) -> bytes:
    """The key of the volume.

    Raises:
        UnsupportedFormat: no key opens it, with the reasons for keyslots that could not be tried.
    """
    faults = list(header.faults)
    for given in keys:
        passphrase = given.encode("utf-8", "surrogateescape") if isinstance(given, str) else bytes(given)
        if isinstance(given, bytes) and len(given) in _KEY_SIZES and _is_proven(header, given):
            return given
        for slot in header.keyslots:
            try:
                key = slot.open(carrier, passphrase)
                if _is_proven(header, key):
                    return key
            except MissingExtra:
                raise
            except ForensicsError as error:
                faults.append(f"keyslot {slot.name}: {error}")
    reasons = "".join(f"; {fault}" for fault in dict.fromkeys(faults))
    message = f"the volume is encrypted ({_about(header)}), and no key given opens it{reasons}"
    raise UnsupportedFormat(message)


def _is_proven(header: LuksHeader, key: bytes) -> bool:
    return any(digest.proves(key) for digest in header.digests)
