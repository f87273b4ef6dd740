"""Names of folders that no directory tells any more, from what lies in them.

Docker names its folders by what they hold: a container's folder by the id in its record and in the name of its log, a
layer's record by the chain id that its ``diff`` and ``parent`` make, a layer's directory as the link tells whose name
is in its ``link``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from forensics_lib.errors import ForensicsError
from forensics_lib.images.digest import chain_ids
from forensics_lib.recovery.remnant import Remnant

__all__ = ["named_by_contents"]

_NAMELESS = re.compile(r"(.*/(?:containers|layerdb/sha256|overlay2)/<inode \d+>)(?:/(.+))?")
_LOG = re.compile(r"([0-9a-f]{64})-json\.log(?:\.\d+(?:\.gz)?)?")
_ID = re.compile(rb'"ID":"([0-9a-f]{64})"')
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LINK = re.compile(r".*/l/([A-Z0-9]{26})")
_TARGET = re.compile(r"\.\./([0-9a-z]+(?:-init)?)/diff")
_RECORD = 1 << 16
_SHORT = 128


def named_by_contents(remnants: Sequence[Remnant]) -> Iterator[Remnant]:
    """The same remnants, those in a folder without a name under the name that its files tell.

    A number can have been that of several folders one after the other. So a name counts for the files that tell it
    themselves, and for the others only when nothing in the folder tells another.

    Args:
        remnants: what was deleted, with paths in which ``<inode N>`` stands for a folder without a name.
    """
    targets = dict(_links(remnants))
    nameless: dict[str, list[tuple[str, Remnant]]] = {}
    for remnant in remnants:
        if (place := _place(remnant.path)) is not None:
            nameless.setdefault(place[0], []).append((place[1], remnant))
    names: dict[str, str] = {}
    own: dict[int, str] = {}
    for folder, files in nameless.items():
        if "/layerdb/" in folder:
            told = {_chain(files)} - {""}
        elif "/containers/" in folder:
            found = {id(one): _container(path, one) for path, one in files}
            own |= found
            told = {name for name in found.values() if name}
        else:
            told = {targets[text] for path, one in files if path == "link" and (text := _text(one)) in targets}
        if len(told) == 1:
            names[folder] = told.pop()
    for remnant in remnants:
        place = _place(remnant.path)
        name = own.get(id(remnant)) or names.get(place[0]) if place is not None else None
        yield _renamed(remnant, *place, name) if place is not None and name else remnant


def _place(path: str) -> tuple[str, str] | None:
    """A folder without a name and the path of a file in it; None where all names are known."""
    match = _NAMELESS.fullmatch(path)
    return None if match is None else (match[1], match[2] or "")


def _renamed(remnant: Remnant, folder: str, path: str, name: str) -> Remnant:
    above = folder.rpartition("/")[0]
    words = "folder named by what lies in it"
    return replace(
        remnant,
        path=f"{above}/{name}" + (f"/{path}" if path else ""),
        container_id=remnant.container_id or (name if above.endswith("/containers") else ""),
        detail=f"{remnant.detail}; {words}" if remnant.detail else words,
    )


def _container(path: str, remnant: Remnant) -> str:
    """The id of the container whose folder a file lies in, as its name or the record in it tells."""
    log = _LOG.fullmatch(path)
    if log is not None:
        return log[1]
    if path != "config.v2.json" or not remnant.complete:
        return ""
    match = _ID.search(_bytes(remnant, _RECORD))
    return match[1].decode() if match is not None else ""


def _chain(files: Iterable[tuple[str, Remnant]]) -> str:
    """The folder's name of a layer's record, from the two digests in it; empty unless both are known for certain."""
    known: dict[str, set[str]] = {}
    for path, remnant in files:
        if path in ("diff", "parent"):
            known.setdefault(path, set()).add(_text(remnant))
    diffs, parents = known.get("diff", set()), known.get("parent", set())
    if len(diffs) != 1 or len(parents) != 1:
        return ""
    (diff,), (parent,) = diffs, parents
    if not (_DIGEST.fullmatch(diff) and _DIGEST.fullmatch(parent)):
        return ""
    return chain_ids([parent, diff])[-1].removeprefix("sha256:")


def _links(remnants: Iterable[Remnant]) -> Iterator[tuple[str, str]]:
    """Names of layers' directories by the names of the links to them."""
    for remnant in remnants:
        match = _LINK.fullmatch(remnant.path)
        if match is not None and (target := _TARGET.fullmatch(_text(remnant))):
            yield match[1], target[1]


def _text(remnant: Remnant) -> str:
    return _bytes(remnant, _SHORT).decode("ascii", "replace") if remnant.complete else ""


def _bytes(remnant: Remnant, limit: int) -> bytes:
    if remnant.content is None:
        return b""
    try:
        return remnant.content.read_some(0, limit)
    except ForensicsError:
        return b""
