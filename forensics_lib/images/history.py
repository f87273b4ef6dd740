"""The steps an image says it was built by, and which layer each of them made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from forensics_lib.images.config import HistoryEntry

__all__ = ["Alignment", "HistoryStep", "align"]


class Alignment(StrEnum):
    """How well history and layers fit together.

    The history is optional and nothing enforces it: kaniko and nix leave entries out, a forger may add some.
    """

    EXACT = "exact"
    """As many entries that made a layer as there are layers: paired in order."""
    MISSING = "missing"
    """There are layers, but no history at all."""
    MISMATCH = "mismatch"
    """The numbers differ, so that no entry can be paired with a layer."""


@dataclass(frozen=True, slots=True)
class HistoryStep:
    """One step of an image's history.

    Attributes:
        index: position in the history, 0 for the oldest.
        created: when the step was made (aware UTC); None when not recorded.
        created_ns: the same in nanoseconds since 1970.
        created_by: the command or instruction; empty when not recorded.
        comment: message of a commit, or a mark of the builder.
        author: who the step was committed by.
        size: bytes of the layer it made, 0 when it made none; None while nobody has filled it in.
        empty: the step says that it changed the configuration only.
        layer: digest of the layer it made; None when it made none, or when it is not known which.
    """

    index: int
    created: datetime | None = None
    created_ns: int | None = None
    created_by: str = ""
    comment: str = ""
    author: str = ""
    size: int | None = None
    empty: bool = False
    layer: str | None = None


def align(history: Sequence[HistoryEntry], layers: Sequence[str]) -> tuple[Alignment, list[HistoryStep]]:
    """Pair the history with the layers, without ever guessing.

    Args:
        history: the configuration's entries, oldest first.
        layers: digests (diff ids as a rule) of the layers, base first.

    Returns:
        The status, and the steps oldest first:

        * exact: every entry, those that made a layer with its digest.
        * missing: one step for each layer, with nothing but the digest.
        * mismatch: every entry without a digest. The layers get no steps of their own, because their place among the
          entries would be an invention; the image still lists them as its layers.
    """
    if not history and layers:
        return Alignment.MISSING, [HistoryStep(index, layer=layer) for index, layer in enumerate(layers)]
    exact = sum(not entry.empty_layer for entry in history) == len(layers)
    remaining = iter(layers if exact else ())
    steps = [
        HistoryStep(
            index=index,
            created=entry.created,
            created_ns=entry.created_ns,
            created_by=entry.created_by,
            comment=entry.comment,
            author=entry.author,
            size=0 if entry.empty_layer else None,
            empty=entry.empty_layer,
            layer=None if entry.empty_layer else next(remaining, None),
        )
        for index, entry in enumerate(history)
    ]
    return Alignment.EXACT if exact else Alignment.MISMATCH, steps
