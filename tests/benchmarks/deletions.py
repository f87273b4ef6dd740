"""What comes back of containers that were deleted from made file systems, and how much of what is claimed is true.

A scenario is an image of a file system in which a data root of Docker was imitated, containers were deleted and, in
some, other things written afterwards. A folder of scenarios holds

    img/FS-SCENARIO.img             the image
    out/FS-SCENARIO.gt.json.gz      {"files": [{"path", "size", "sha256", "kind", "deleted", "bh"}, …]}: every content
                                    that a file had; `deleted` is null, "container" or "oldversion"; `bh`, which may be
                                    missing, the first 8 bytes of BLAKE2b of each of its blocks of 4 KiB
    out/FS-SCENARIO.logs.json.gz    {path: content} of the logs; may be missing

The published figures are those of the prototypes that the recovery was designed by, each the best of its methods.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import forensics_lib as fl
from forensics_lib.recovery.remnant import Remnant

__all__ = ["PUBLISHED", "SCENARIOS", "Row", "score", "table"]

SCENARIOS = (
    "few",
    "many",
    "big",
    "hostlike",
    "fewafter",
    "manyafter",
    "bigafter",
    "fewpull",
    "fewdiscard",
    "shortlived",
)
_BLOCK = 4096
_CHUNK = 64 << 20

# content, path, older generations, log lines; percent
PUBLISHED: dict[str, tuple[float | None, float | None, float | None, float | None]] = {
    "ext4-few": (100, 100, 56.5, 99.1),
    "ext4-many": (95.8, 94.7, 86.5, 99.1),
    "ext4-big": (100, 94.4, 75, 99.9),
    "ext4-hostlike": (100, 100, 78.3, 99.2),
    "ext4-fewafter": (9.9, 84, 53.2, 75.8),
    "ext4-manyafter": (66.2, 90.4, 63.9, 81.2),
    "ext4-bigafter": (43.5, 69.4, 72.5, 98.4),
    "ext4-fewpull": (0, 77.8, 47.8, 68.7),
    "ext4-fewdiscard": (0, 92.6, None, 0),
    "ext4-shortlived": (7.4, 83.3, 100, 0),
    "xfs-few": (100, 100, 26.1, 99.3),
    "xfs-many": (97.3, 99.9, 27.1, 98.7),
    "xfs-big": (99.1, 100, 37.5, 100),
    "xfs-hostlike": (100, 100, 6, None),
    "xfs-fewafter": (0, 61.7, 6.4, 0),
    "xfs-bigafter": (38.9, 82.4, 5, 96.5),
    "xfs-fewpull": (46.9, 100, 4.3, 81.4),
    "xfs-fewdiscard": (0, 100, 0, None),
    "xfs-shortlived": (None, None, None, 0.2),
    "btrfs-few": (100, 100, 60.9, None),
    "btrfs-many": (100, 100, 79.4, None),
    "btrfs-big": (99.1, 100, 62.5, None),
    "btrfs-hostlike": (100, 100, 89.2, None),
    "btrfs-fewafter": (96.3, 100, 68.1, None),
    "btrfs-manyafter": (86.1, 100, 66, None),
    "btrfs-bigafter": (96.3, 100, 87.5, None),
    "btrfs-fewpull": (93.8, 100, 47.8, None),
    "btrfs-fewdiscard": (53.1, 100, 60.9, None),
    "btrfs-shortlived": (24.4, 39.8, 92.6, None),
}


@dataclass(frozen=True, slots=True)
class Row:
    """What one scenario gave; everything in percent.

    Attributes:
        scenario: ``FS-SCENARIO``.
        content: files of deleted containers of which a complete remnant has exactly the bytes.
        size: their bytes.
        survivors: the same of those files of which every block still lies somewhere in the image; None when unknown.
        named: files of which a remnant with the content has the whole path, too.
        path: files of which any remnant, also one of metadata only, has the whole path.
        older: replaced contents that a complete remnant has; None when there were none.
        old_survivors: the same of those whose blocks still lie in the image.
        lines: different lines of deleted logs that a remnant of a log has; None when they are not known.
        line_survivors: the same of those that still lie in the image in one piece.
        precision: complete remnants of files whose bytes some file had, of all complete ones.
        claimed: the number of those.
        containers: removed containers that were put together again with their id, of all.
        invented: containers that never existed, a number.
        wrong: some of the complete remnants that are not true.
        missed: some of the surviving files that were not found.
    """

    scenario: str
    content: float
    size: float
    survivors: float | None
    named: float
    path: float
    older: float | None
    old_survivors: float | None
    lines: float | None
    line_survivors: float | None
    precision: float
    claimed: int
    containers: float | None
    invented: int
    wrong: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()


def score(folder: Path, name: str) -> Row:
    """Compare what is found in an image with what was in it."""
    files: list[dict[str, Any]] = _stored(folder / f"out/{name}.gt.json.gz")["files"]
    logs = _logs(folder, name, files)
    with fl.open(folder / f"img/{name}.img") as evidence:
        remnants = list(evidence.remnants())
        ids = [container.id for container in evidence.deleted_containers]
        whole = [one for one in remnants if one.complete and one.size and one.content is not None]
        digests: dict[str, list[Remnant]] = {}
        for one in whole:
            digests.setdefault(one.sha256 or "", []).append(one)
        pieces = [one.read() for one in remnants if one.kind == "log" and one.content is not None]
        known = {file["sha256"] for file in files}
        wrong = [one for digest, found in digests.items() if digest not in known for one in found]
        wrong = [one for one in wrong if not _is_part(one, logs)]
    paths = {one.path for one in remnants}
    gone = [file for file in files if file["deleted"] == "container" and file["size"]]
    older = [file for file in files if file["deleted"] == "oldversion"]
    image, hashes = folder / f"img/{name}.img", _hashes(folder, name, files)
    live = {file["sha256"] for file in files if not file["deleted"]}  # the blocks may be those of such a file
    alive, old_alive = (
        _survivors(image, [file for file in some if file["sha256"] not in live], hashes) for some in (gone, older)
    )
    has: Callable[[dict[str, Any]], bool] = lambda file: file["sha256"] in digests  # noqa: E731
    removed = {part[1] for file in gone if (part := file["path"].partition("/containers/")[1:])[1]}
    removed = {part.split("/")[0] for part in removed}
    every = {file["path"].partition("/containers/")[2].split("/")[0] for file in files}
    lines = {line for file in gone if file["path"] in logs for line in logs[file["path"]].splitlines()}
    found = {line for piece in pieces for line in piece.splitlines()} if lines else set()
    there = _lines_in(image, lines) if lines else set()
    return Row(
        name,
        _percent(map(has, gone)),
        100 * sum(file["size"] for file in gone if has(file)) / max(sum(file["size"] for file in gone), 1),
        _percent(map(has, alive)) if alive else None,
        _percent(any(one.path == file["path"] for one in digests.get(file["sha256"], ())) for file in gone),
        _percent(file["path"] in paths for file in gone),
        _percent(map(has, older)) if older else None,
        _percent(map(has, old_alive)) if old_alive else None,
        _percent(line in found for line in lines) if lines else None,
        _percent(line in found for line in there) if there else None,
        100 * (1 - len(wrong) / max(len(whole), 1)),
        len(whole),
        _percent(one in ids for one in removed) if removed else None,
        sum(one not in every for one in ids),
        tuple(f"{one.method} {one.kind} {one.path} {one.size} {one.detail} {one.origin}" for one in wrong),
        tuple(f"{file['path']} {file['size']}" for file in alive or () if not has(file)),
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as text, published figures behind a slash."""
    heads = (
        "scenario",
        "content",
        "bytes",
        "surviving",
        "named",
        "path",
        "older",
        "surviving",
        "log lines",
        "surviving",
    )
    lines = [[*heads, "precision", "claimed", "containers", "invented"]]
    for row in rows:
        content, path, older, written = PUBLISHED.get(row.scenario, (None, None, None, None))
        cells = [row.scenario, _beside(row.content, content), _cell(row.size), _cell(row.survivors), _cell(row.named)]
        cells += [_beside(row.path, path), _beside(row.older, older), _beside(row.lines, written)]
        cells[7:7] = [_cell(row.old_survivors)]
        cells.append(_cell(row.line_survivors))
        lines.append([*cells, _cell(row.precision), str(row.claimed), _cell(row.containers), str(row.invented)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _stored(path: Path) -> Any:
    with gzip.open(path) as file:
        return json.load(file)


def _logs(folder: Path, name: str, files: Iterable[dict[str, Any]]) -> dict[str, bytes]:
    """The logs of a scenario, which are the same on every file system."""
    known = {file["sha256"] for file in files}
    for path in [folder / f"out/{name}.logs.json.gz", *folder.glob(f"out/*-{name.partition('-')[2]}.logs.json.gz")]:
        if path.is_file():
            found = {key: text.encode() for key, text in _stored(path).items()}
            return {key: text for key, text in found.items() if hashlib.sha256(text).hexdigest() in known}
    return {}


def _hashes(folder: Path, name: str, files: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """Hashes of blocks by the digest of the file, from this or another file system's truth."""
    found = {file["sha256"]: file["bh"] for file in files if file.get("bh")}
    if not found:
        for path in sorted(folder.glob(f"out/*-{name.partition('-')[2]}.gt.json.gz")):
            found |= {file["sha256"]: file["bh"] for file in _stored(path)["files"] if file.get("bh")}
    return found


def _survivors(
    image: Path, files: Iterable[dict[str, Any]], hashes: dict[str, list[str]]
) -> list[dict[str, Any]] | None:
    """The files of which every block still lies somewhere; None when their blocks are not known."""
    if not hashes:
        return None
    there = _blocks(image)
    return [file for file in files if file["sha256"] in hashes and there.issuperset(hashes[file["sha256"]])]


@lru_cache(maxsize=1)
def _blocks(image: Path) -> frozenset[str]:
    return frozenset(_each_block(image))


def _each_block(image: Path) -> Iterator[str]:
    zeros = bytes(_BLOCK)
    with image.open("rb") as file:
        while data := file.read(_CHUNK):
            for at in range(0, len(data), _BLOCK):
                block = data[at : at + _BLOCK]
                if block != zeros:
                    yield hashlib.blake2b(block, digest_size=8).hexdigest()


def _lines_in(image: Path, lines: set[bytes]) -> set[bytes]:
    """The lines that lie in an image in one piece."""
    found: set[bytes] = set()
    rest = b""
    with image.open("rb") as file:
        while data := file.read(_CHUNK):
            if data.strip(b"\0"):
                pieces = re.split(rb"[\n\0]+", rest + data)
                found |= lines.intersection(pieces)
                rest = pieces[-1][-_BLOCK:]
    return found


def _is_part(remnant: Remnant, logs: dict[str, bytes]) -> bool:
    """Whether it is whole records of a log: of what it was before it grew, or a piece of it."""
    if remnant.kind != "log" or not logs:
        return False
    data = remnant.read()
    return data.endswith(b"\n") and any(
        f"\n{data.decode('latin-1')}" in f"\n{log.decode('latin-1')}" for log in logs.values()
    )


def _percent(answers: Iterable[bool]) -> float:
    counted = list(answers)
    return 100 * sum(counted) / len(counted) if counted else 0.0


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _beside(value: float | None, published: float | None) -> str:
    return f"{_cell(value)} / {_cell(published)}"
