"""The same bytes found twice are one finding."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

from forensics_lib.errors import ForensicsError
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.remnant import Confidence, Remnant

__all__ = ["agreed"]


def agreed(described: Iterable[Remnant], carved: Iterable[Remnant], problems: ProblemLog) -> Iterator[Remnant]:
    """Remnants that a file system or database described, then carved ones that none of them equals.

    A described remnant whose bytes were carved as well names both methods. Of carved ones with equal bytes the first is
    given, the detail tells how many there are. Incomplete remnants are given as they are.

    Args:
        described: remnants with what is known of them.
        carved: remnants that were found by their form.
        problems: gets content that cannot be read.
    """
    groups: dict[tuple[int, bytes], list[Remnant]] = {}
    torn = []
    for remnant in carved:
        digest = _digest(remnant, problems) if remnant.complete else None
        if digest is None:
            torn.append(remnant)
        else:
            groups.setdefault((remnant.size or 0, digest), []).append(remnant)
    sizes = {size for size, _ in groups}
    seen: set[tuple[int, bytes]] = set()
    for remnant in described:
        if remnant.complete and remnant.size in sizes and (digest := _digest(remnant, problems)) is not None:
            key = (remnant.size or 0, digest)
            if key in groups:
                seen.add(key)
                remnant = _joined(remnant, groups[key][0])
        yield remnant
    for key, group in groups.items():
        if key not in seen:
            first, times = group[0], [one.modified_ns for one in group if one.modified_ns is not None]
            if len(group) > 1:
                detail = f"{first.detail}; {len(group)} equal copies"
                first = replace(first, detail=detail, modified_ns=max(times, default=None))
            yield first
    yield from torn


def _joined(remnant: Remnant, carved: Remnant) -> Remnant:
    """A remnant with what carving tells of the same bytes."""
    sure = Confidence.VERIFIED if carved.confidence is Confidence.VERIFIED else remnant.confidence
    return replace(
        remnant,
        method=f"{remnant.method} + {carved.method}",
        confidence=sure,
        container_id=remnant.container_id or carved.container_id,
        image_id=remnant.image_id or carved.image_id,
        path=remnant.path or carved.path,
    )


def _digest(remnant: Remnant, problems: ProblemLog) -> bytes | None:
    if remnant.content is None:
        return None
    digest = hashlib.sha256()
    try:
        for block in remnant.content.blocks():
            digest.update(block)
    except ForensicsError as error:
        problems.add(remnant.origin, error)
        return None
    return digest.digest()
