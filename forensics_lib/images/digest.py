"""Content digests as images write them, and the chain ids that name a stack of layers.

Formats: OCI image-spec, ``descriptor.md`` (digests) and ``config.md`` (layer chain id).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from forensics_lib.errors import DamagedData
from forensics_lib.model import Origin

__all__ = ["chain_ids", "parse_digest"]

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_DIGEST = re.compile(r"(sha256|sha512):([0-9a-f]+)", re.ASCII)


def parse_digest(text: str, *, origin: Origin | None = None) -> tuple[str, str]:
    """A digest as (algorithm, lower-case hexadecimal), safe to use as a part of a path.

    Raises:
        DamagedData: not sha256 or sha512, or not exactly as many lower-case hexadecimal digits as the algorithm gives.
    """
    match = _DIGEST.fullmatch(text)
    if match is None or len(match[2]) != _HEX_LENGTH[match[1]]:
        raise DamagedData(f"no valid digest: {text[:150]!a}", origin=origin)
    return match[1], match[2]


def chain_ids(diff_ids: Iterable[str], *, origin: Origin | None = None) -> list[str]:
    """The chain id of every layer, base first: the name of that layer together with all below it.

    The base layer's chain id is its diff id; each next one is the sha256 of "<chain id below> <diff id>".

    Raises:
        DamagedData: a diff id is no digest.
    """
    chain: list[str] = []
    for diff_id in diff_ids:
        parse_digest(diff_id, origin=origin)
        below = f"{chain[-1]} {diff_id}" if chain else ""
        chain.append(f"sha256:{hashlib.sha256(below.encode()).hexdigest()}" if chain else diff_id)
    return chain
