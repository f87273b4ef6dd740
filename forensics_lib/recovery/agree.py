"""The same bytes found twice are one finding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from forensics_lib.errors import ForensicsError
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.remnant import Confidence, Remnant

__all__ = ["agreed"]


def agreed(described: Iterable[Remnant], carved: Iterable[Remnant], problems: ProblemLog) -> Iterator[Remnant]:
    """Remnants that a file system or database described, then carved ones that none of them equals.

    A described remnant whose bytes were carved as well names both methods. Of carved ones with equal bytes the last is
    given, the detail tells how many there are; equal settings of different containers stay apart. Incomplete remnants
    are given as they are.

    Args:
        described: remnants with what is known of them.
        carved: remnants that were found by their form.
        problems: gets content that cannot be read.
    """
    groups: dict[tuple[int, str], dict[str, list[Remnant]]] = {}
    torn = []
    for remnant in carved:
        digest = _digest(remnant, problems) if remnant.complete else None
        if digest is None:
            torn.append(remnant)
        else:
            of_container = groups.setdefault((remnant.size or 0, digest), {})
            of_container.setdefault(remnant.container_id, []).append(remnant)
    sizes = {size for size, _ in groups}
    seen: set[tuple[tuple[int, str], str]] = set()
    for remnant in described:
        if remnant.complete and remnant.size in sizes and (digest := _digest(remnant, problems)) is not None:
            key = (remnant.size or 0, digest)
            owners = groups.get(key, {})
            owner = remnant.container_id if remnant.container_id in owners else next(iter(owners), "")
            if owner in owners and (owner == remnant.container_id or not (owner and remnant.container_id)):
                seen.add((key, owner))
                remnant = _joined(remnant, owners[owner][0])
        yield remnant
    for key, owners in groups.items():
        for owner, group in owners.items():
            if (key, owner) not in seen:
                yield _one_of(group)
    yield from torn


def _one_of(group: list[Remnant]) -> Remnant:
    """The last of several equal ones, with the newest time that any of them tells."""
    if len(group) == 1:
        return group[0]
    newest = max((one.modified_ns for one in group if one.modified_ns is not None), default=None)
    return replace(group[-1], detail=f"{group[-1].detail}; {len(group)} equal copies".lstrip("; "), modified_ns=newest)


def _joined(remnant: Remnant, carved: Remnant) -> Remnant:
    """A remnant with what carving tells of the same bytes."""
    sure = Confidence.VERIFIED if carved.confidence is Confidence.VERIFIED else remnant.confidence
    nameless = not remnant.path and remnant.kind == "file"
    return replace(
        remnant,
        kind=carved.kind if nameless else remnant.kind,
        detail="; ".join(filter(None, (remnant.detail, carved.detail))) if nameless else remnant.detail,
        method=f"{remnant.method} + {carved.method}",
        confidence=sure,
        container_id=remnant.container_id or carved.container_id,
        image_id=remnant.image_id or carved.image_id,
        path=remnant.path or carved.path,
    )


def _digest(remnant: Remnant, problems: ProblemLog) -> str | None:
    if remnant.content is None:
        return None
    try:
        return remnant.content.sha256()
    except ForensicsError as error:
        problems.add(remnant.origin, error)
        return None
