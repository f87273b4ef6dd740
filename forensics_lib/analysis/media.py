"""Whether a disk image still holds what was acquired."""

from __future__ import annotations

from collections.abc import Iterator

from forensics_lib.analysis.digests import digest_source
from forensics_lib.errors import ForensicsError
from forensics_lib.model import Check
from forensics_lib.sources.base import Source
from forensics_lib.sources.ewf import Ewf

__all__ = ["verify_media"]


def verify_media(disk: Source) -> Iterator[Check]:
    """The hashes of the whole disk that its image states, recomputed; only EWF images state any."""
    stored = dict(disk.stored_hashes) if isinstance(disk, Ewf) else {}
    if not stored:
        return
    try:
        digests, _ = digest_source(disk, tuple(stored))
    except ForensicsError as error:
        digests = dict.fromkeys(stored, str(error))
    for name, value in stored.items():
        yield Check(f"{disk.origin} {name}", value, digests[name], digests[name] == value, disk.origin)
