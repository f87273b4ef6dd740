"""Names and proofs for the files of removed images, from the recovered records of their layers.

Docker keeps of each layer a description of its archive (tar-split): the names and checksums of all files. A recovered
description names files whose directory entries are gone. Where all of them are there, the archive can be put together,
and its digest, which image configs list, proves every byte.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from forensics_lib.errors import ForensicsError
from forensics_lib.formats.tar_split import Segment, SplitFile, crc64, decode
from forensics_lib.images.digest import chain_ids
from forensics_lib.model import ProblemLog
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.sources.decompress import Compression, Limits, decompress, sniff

__all__ = ["named_by_layers"]

_LIMITS = Limits()
_MAX_DESCRIPTION = 16 << 20
_MAX_DESCRIPTIONS = 10_000
_MAX_ENTRIES = 1_000_000
_MAX_PARENTS = 10_000
_DIGEST_SIZE = 71
_RECORD = re.compile(r"layerdb/sha256/([0-9a-f]{64})")
_LIST = re.compile(rb'"diff_ids":\s*\[(?:\s*"sha256:[0-9a-f]{64}"\s*,?){1,512}\s*\]')
_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")
_CHECKED = 64 << 20  # bytes whose slow checksum is computed in all


_Key = tuple[int, int]


@dataclass(slots=True)
class _Description:
    """One recovered description of a layer's archive."""

    index: int
    entries: list[Segment | SplitFile]


def named_by_layers(remnants: Sequence[Remnant], problems: ProblemLog) -> list[Remnant]:
    """The same remnants; files that a recovered description fits have a name and the proof of their checksum.

    Args:
        remnants: what was found, carved descriptions (``tar-split.json.gz``) and image configs among them.
        problems: gets descriptions that cannot be read.
    """
    found = list(remnants)
    descriptions = list(_descriptions(found, problems))
    if not descriptions:
        return found
    chains = _Chains(found)
    sizes = {entry.size for one in descriptions for entry in one.entries if isinstance(entry, SplitFile)} - {0}
    contents = _contents(found, sizes, problems)
    for one in descriptions:
        _name_files(found, one, contents)
        _name_layer(found, one, contents, chains, problems)
    return found


def _descriptions(remnants: Iterable[Remnant], problems: ProblemLog) -> Iterator[_Description]:
    seen: set[str] = set()
    for index, remnant in enumerate(remnants):
        if remnant.content is None or not remnant.complete or not 18 < (remnant.size or 0) <= _MAX_DESCRIPTION:
            continue
        try:
            if sniff(remnant.content.read_some(0, 16)) is not Compression.GZIP:
                continue
            entries = _entries(remnant)
        except ForensicsError as error:
            if "tar-split" in remnant.path:
                problems.add(remnant.origin, error)
            continue
        digest = remnant.sha256 or ""
        if any(isinstance(entry, SplitFile) and entry.size for entry in entries) and digest not in seen:
            seen.add(digest)
            yield _Description(index, entries)
        if len(seen) >= _MAX_DESCRIPTIONS:
            return


def _entries(remnant: Remnant) -> list[Segment | SplitFile]:
    """The entries of a description; raises for any other gzip file."""
    if remnant.content is None:
        return []
    failed: list[ForensicsError] = []
    blocks = decompress(remnant.content.blocks(), Compression.GZIP, remnant.origin, _LIMITS, failed.append)
    entries = []
    for entry in decode(blocks, remnant.origin):
        entries.append(entry)
        if len(entries) >= _MAX_ENTRIES:
            break
    return [] if failed else entries


def _contents(remnants: Iterable[Remnant], sizes: set[int], problems: ProblemLog) -> dict[_Key, list[int]]:
    """Complete remnants by size and checksum."""
    found: dict[_Key, list[int]] = defaultdict(list)
    known: dict[str, int] = {}
    left = _CHECKED
    for index, remnant in enumerate(remnants):
        size = remnant.size or 0
        if remnant.content is None or not remnant.complete or size not in sizes:
            continue
        try:
            digest = remnant.sha256 or ""
            if digest not in known:
                if size > left:
                    continue
                left -= size
                known[digest] = crc64(remnant.content.blocks())
        except ForensicsError as error:
            problems.add(remnant.origin, error)
            continue
        found[size, known[digest]].append(index)
    return found


def _name_files(found: list[Remnant], description: _Description, contents: dict[_Key, list[int]]) -> None:
    """Give nameless files the names that the archive has for their content."""
    for entry in description.entries:
        if not isinstance(entry, SplitFile) or not entry.size or entry.crc is None:
            continue
        for index in contents.get((entry.size, entry.crc), ()):
            remnant = found[index]
            if not remnant.path:
                name = entry.name.decode("utf-8", "surrogateescape").removeprefix("./").strip("/")
                detail = f"{remnant.detail}; named by the description of a layer, whose checksum it has".lstrip("; ")
                found[index] = replace(remnant, path=name, detail=detail, confidence=Confidence.VERIFIED)


def _name_layer(
    found: list[Remnant],
    description: _Description,
    contents: dict[_Key, list[int]],
    chains: _Chains,
    problems: ProblemLog,
) -> None:
    """Put the archive together; where an image config lists its digest, the description gets the layer's place."""
    digest = hashlib.sha256()
    for entry in description.entries:
        if isinstance(entry, Segment):
            digest.update(entry.data)
            continue
        places = contents.get((entry.size, entry.crc or 0), ()) if entry.size else ()
        content = found[places[0]].content if places else None
        if entry.size and content is None:
            return
        try:
            for block in content.blocks() if content is not None else ():
                digest.update(block)
        except ForensicsError as error:
            problems.add(found[description.index].origin, error)
            return
    diff_id = f"sha256:{digest.hexdigest()}"
    chain = chains.of(diff_id)
    if chain:
        remnant = found[description.index]
        path = f"layerdb/sha256/{chain.removeprefix('sha256:')}/tar-split.json.gz"
        detail = f"{remnant.detail}; all files of the layer are recovered, their archive is {diff_id}".lstrip("; ")
        named = remnant.path if "/" in remnant.path else path
        found[description.index] = replace(remnant, path=named, detail=detail, confidence=Confidence.VERIFIED)


class _Chains:
    """The chain ids of layers, by image configs that list them, and by records of layers that name them."""

    def __init__(self, remnants: Iterable[Remnant]) -> None:
        self._listed: dict[str, str] = {}
        self._digests: dict[str, None] = {}
        self._names: set[str] = set()
        for remnant in remnants:
            if match := _RECORD.search(remnant.path):
                self._names.add(f"sha256:{match[1]}")
            if remnant.content is None or (remnant.size or 0) > _MAX_DESCRIPTION:
                continue
            try:
                if remnant.size == _DIGEST_SIZE and remnant.complete:
                    self._digests[remnant.read().decode("ascii", "replace")] = None
                elif remnant.kind == "image":  # of a torn config the list may be left, which proves itself
                    for listed in _LIST.finditer(remnant.read()):
                        diff_ids = [text.decode() for text in _DIGEST.findall(listed[0])]
                        self._listed |= dict(zip(diff_ids, chain_ids(diff_ids), strict=True))
            except ForensicsError:
                continue

    def of(self, diff_id: str) -> str:
        """The chain id of a layer; empty where nothing names it."""
        if diff_id in self._listed:
            return self._listed[diff_id]
        known = self._names | set(self._digests)
        for parent in ("", *list(self._digests)[:_MAX_PARENTS]):
            chain = chain_ids((diff_id,))[0] if not parent else _above(parent, diff_id)
            if chain in known and (parent or chain in self._names):
                return chain
        return ""


def _above(parent: str, diff_id: str) -> str:
    """The chain id of a layer on another one."""
    return f"sha256:{hashlib.sha256(f'{parent} {diff_id}'.encode()).hexdigest()}"
