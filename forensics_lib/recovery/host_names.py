"""Names for carved files of containers' folders that hold the container's host name, by default the start of its id."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from forensics_lib.errors import ForensicsError
from forensics_lib.recovery.forms import CONTAINER_ID
from forensics_lib.recovery.remnant import Remnant

__all__ = ["named_by_host_names"]

_HOSTNAME = re.compile(rb"([0-9a-f]{12})\n")
_HOSTS = re.compile(rb"127\.0\.0\.1\tlocalhost\n(?:[^\n\0]{1,1024}\n){1,256}")
_ADDRESS = re.compile(rb"^[0-9a-f.:]+[\t ]+([0-9a-f]{12})\n", re.MULTILINE)
_LARGEST = 64 << 10


def named_by_host_names(carved: Iterable[Remnant], ids: Collection[str]) -> Iterator[Remnant]:
    """The same remnants; files ``hostname`` and ``hosts`` have a path where the host name starts one id only.

    Args:
        carved: remnants that were found by their form.
        ids: full ids of containers.
    """
    known = sorted(one for one in set(ids) if CONTAINER_ID.fullmatch(one))
    for remnant in carved:
        name, start = _file(remnant) if not remnant.path and not remnant.container_id else ("", "")
        fits = known[bisect_left(known, start) : bisect_left(known, f"{start}g")] if start else []
        if len(fits) != 1:
            yield remnant
            continue
        detail = f"{remnant.detail}; told by the host name in it, the start of the container's id".lstrip("; ")
        yield replace(remnant, path=f"containers/{fits[0]}/{name}", container_id=fits[0], detail=detail)


def _file(remnant: Remnant) -> tuple[str, str]:
    """Which file of a container's folder this is, and the host name in it; empty for any other."""
    if remnant.content is None or not remnant.complete or (remnant.size or 0) > _LARGEST:
        return "", ""
    try:
        data = remnant.read()
    except ForensicsError:
        return "", ""
    if found := _HOSTNAME.fullmatch(data):
        return "hostname", found[1].decode()
    names = set(_ADDRESS.findall(data)) if _HOSTS.fullmatch(data) else set()
    return ("hosts", names.pop().decode()) if len(names) == 1 else ("", "")
