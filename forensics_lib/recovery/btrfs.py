"""Deleted files of btrfs: content, names, paths and times, from tree blocks of older transactions.

A file counts as whole when its inode's extents are all there and every sector is proven by a checksum of that time; or,
where there is none, is free and not known to have been written since.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from functools import partial

from forensics_lib.errors import ForensicsError
from forensics_lib.formats.btrfs_content import BtrfsContent
from forensics_lib.formats.btrfs_history import NodeHistory
from forensics_lib.formats.btrfs_items import FileExtent
from forensics_lib.formats.btrfs_space import BtrfsSpace
from forensics_lib.formats.jsondoc import parse
from forensics_lib.model import Origin, ProblemLog, Progress
from forensics_lib.recovery.btrfs_lives import Lives
from forensics_lib.recovery.btrfs_names import ROOT_DIRECTORY, Names
from forensics_lib.recovery.btrfs_proof import Proof, Standing, chunks_of_all_times, kept
from forensics_lib.recovery.btrfs_states import Life, State
from forensics_lib.recovery.btrfs_subvolumes import OldSubvolume, OldSubvolumes
from forensics_lib.recovery.forms import Form, form_of
from forensics_lib.recovery.judge import container_of, judged, kind_of
from forensics_lib.recovery.lives import STOOD_NS
from forensics_lib.recovery.paths import Name
from forensics_lib.recovery.remnant import Confidence, Remnant, trace
from forensics_lib.recovery.undelete import described, name_words
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.trees.btrfs import BtrfsTree

__all__ = ["undelete"]

_METHOD, _LOG_METHOD = "btrfs old tree", "btrfs log tree"
_COMPARED = 1 << 20
_LONGEST_LINK = 4096
_LARGEST_DOCUMENT = 4 << 20
_WHOLE = (Confidence.VERIFIED, Confidence.INTACT)


def undelete(
    tree: BtrfsTree, space: BtrfsSpace, problems: ProblemLog, progress: Progress | None = None
) -> Iterator[Remnant]:
    """Everything deleted that tree blocks of older transactions still know, by subvolume, the newest first.

    Regular files with content, or with metadata only where it was overwritten; former content of files that were
    truncated, changed or replaced; directories, symbolic links and whole subvolumes. The content of a link is its
    target; its size is 0, as of every node that is no file.

    Args:
        tree: the file system.
        space: what of it is in use; at the end the compressed content of deleted files counts as in use as well, for
            packed bytes are nobody's file.
        problems: gets what could not be read.
        progress: called with bytes done and in total of the search for tree blocks.
    """
    volume = tree.volume
    history = NodeHistory(volume, space.without_files(), problems, progress)
    subvolumes = OldSubvolumes(volume, history, problems)
    lives = Lives(volume, history, subvolumes, problems)
    names = Names(lives, subvolumes)
    chunks = chunks_of_all_times(volume, history)
    proof = Proof(volume, history, space, chunks, problems)
    proof.note_uses(
        (extent.logical, extent.stored, extent.generation)
        for life in lives
        for state in life.states
        for _, extent in state.extents
        if extent.logical
    )
    content = partial(BtrfsContent, chunks, sector_size=volume.superblock.sector_size)
    undeleting = _Undelete(tree, lives, subvolumes, names, proof, content)
    yield from undeleting.run()
    space.leave_out(undeleting.packed)


class _Undelete:
    """Joins content, names and proofs."""

    def __init__(
        self,
        tree: BtrfsTree,
        lives: Lives,
        subvolumes: OldSubvolumes,
        names: Names,
        proof: Proof,
        content: partial[BtrfsContent],
    ) -> None:
        self._tree = tree
        self._lives = lives
        self._subvolumes = subvolumes
        self._names = names
        self._proof = proof
        self._content = content
        self.packed: list[tuple[int, int]] = []

    def run(self) -> Iterator[Remnant]:
        """The remnants: deleted subvolumes, then what was in them and in others; then names without an inode."""
        for one in self._subvolumes.known.values():
            if not one.alive:
                yield self._subvolume(one)
        lives = sorted(self._lives, key=lambda life: (life.deleted_ns or 0, life.last, life.number), reverse=True)
        for life in lives:
            if life.number == ROOT_DIRECTORY:
                continue  # the subvolume itself
            yield from self._of_life(life, self._names.of(life.subvolume, life.number, life.born))
        for (subvolume, number), places in sorted(self._lives.names.items()):
            for *_, at in places:
                if not self._lives.born(subvolume, number, at)[0]:
                    yield from self._without_inode(subvolume, number, at)
                    break

    def _of_life(self, life: Life, names: list[Name]) -> Iterator[Remnant]:
        """The last content of what was deleted; earlier ones that are whole and did not only grow, but of logs."""
        later = self._lives.present.inode(life.subvolume, life.number) if life.alive else None
        is_log = bool(names) and kind_of(names[0].path) == "log"
        following_ns = later.since_ns if later is not None else life.deleted_ns
        for index, state in enumerate(reversed(life.states)):
            is_last = index == 0 and not life.alive
            if is_last or (state.inode.size and stat.S_ISREG(state.inode.mode)):
                stood = following_ns is not None and following_ns - state.since_ns >= STOOD_NS
                is_grown = not is_last and later is not None and self._grew(state, later)
                if not is_grown or (is_log and stood):
                    remnant = self._remnant(life, state, names, is_last=is_last, is_grown=is_grown)
                    if is_last or remnant.complete:
                        yield remnant
                        later = later if is_grown else state
            following_ns = state.since_ns

    def _grew(self, earlier: State, later: State) -> bool:
        """Whether a later content is the earlier one, perhaps with more at its end."""
        if earlier.inode.size > later.inode.size:
            return False
        same = 0
        for one, other in zip(earlier.extents, later.extents, strict=False):
            if one != other:
                break
            same = one[0] + one[1].length
        if earlier.inode.size - same > _COMPARED:
            return False
        origin = self._tree.origin
        first = self._content(extents=earlier.extents, size=earlier.inode.size, origin=origin)
        second = self._content(extents=later.extents, size=later.inode.size, origin=origin)
        length = max(earlier.inode.size - same, 0)
        try:
            return first.read_at(same, length) == second.read_at(same, length)
        except ForensicsError:
            return False

    def _remnant(self, life: Life, state: State, names: list[Name], *, is_last: bool, is_grown: bool) -> Remnant:
        inode = state.inode
        path = names[0].path if names else ""
        subvolume = self._tree.origin.to(f"subvolume {life.subvolume}")
        origin = subvolume.to(f"transaction {inode.transaction} inode {life.number}", state.at)
        details = [] if stat.S_ISREG(inode.mode) else [described(inode.mode)]
        details += name_words(names, path)
        content: Source | None = None
        grade, size = Confidence.METADATA_ONLY, None
        if stat.S_ISLNK(inode.mode):
            size = 0
            if state.whole and (target := self._target(state, origin)) is not None:
                content, grade = BytesSource(target, origin), Confidence.VERIFIED
                details[:1] = [f"symbolic link to {target.decode('utf-8', 'surrogateescape')}"]
        elif stat.S_ISREG(inode.mode):
            size = inode.size
            content, grade, words = self._judge(state, path, origin)
            details += words
        if is_grown:
            details.append("what a log held before it grew")
        elif life.alive:
            details.append("earlier content of a file that still exists")
        elif not is_last:
            details.append("content before the file was changed")
        elif life.is_open:
            details.append("deleted, but still open when the disk was copied")
        form = _form(content, size or 0) if not path and content is not None and grade in _WHOLE else None
        if form is not None:
            path = form.path
            details.append(form.detail)
        return Remnant(
            kind=form.kind if form is not None else kind_of(path),
            path=path,
            container_id=form.container_id if form is not None else container_of(path),
            image_id=form.image_id if form is not None else "",
            method=_LOG_METHOD if state.in_log else _METHOD,
            confidence=grade,
            complete=grade is not Confidence.METADATA_ONLY,
            size=size,
            origin=origin,
            detail="; ".join(details),
            deleted_ns=life.deleted_ns,
            modified_ns=inode.mtime_ns,
            content=content,
        )

    def _target(self, state: State, origin: Origin) -> bytes | None:
        try:
            content = self._content(extents=state.extents, size=state.inode.size, origin=origin)
            return content.read_at(0, _LONGEST_LINK).split(b"\0", 1)[0]
        except ForensicsError:
            return None

    def _judge(self, state: State, path: str, origin: Origin) -> tuple[Source | None, Confidence, list[str]]:
        """The content of a file, how sure it is, and what has to be said about it."""
        size = state.inode.size
        if not size:
            words = "empty when it was last seen: it was so, or its content was not written by then"
            return BytesSource(b"", origin), Confidence.METADATA_ONLY, [words]
        extents: list[tuple[int, FileExtent]] = []
        total = lost = 0
        worst = Standing.PROVEN
        for start, extent in state.extents:
            for offset, length, standing in self._proof.judge(extent, state.last):
                if start + offset >= size:
                    break
                total += length
                if standing is Standing.LOST:
                    lost += length
                else:
                    extents.append((start + offset, kept(extent, offset, length)))
                    if extent.compression and extent.stored:
                        self.packed.append((extent.logical, extent.logical + extent.stored))
                    worst = min(worst, standing)
        content = self._content(extents=extents, size=size, origin=origin)
        if lost:
            words = f"{total - lost} of {total} bytes are still there" if lost < total else "all of it was overwritten"
            return (content if lost < total else None), Confidence.METADATA_ONLY, [words]
        if not state.whole:
            words = "not all of its extents were found" if extents else "where its content lay was not found"
            return (content if extents else None), Confidence.METADATA_ONLY, [words]
        grade, wrong = judged(path, content)
        if worst is Standing.PROVEN:
            readable = self._readable(content)
            return content, Confidence.METADATA_ONLY if readable else Confidence.VERIFIED, [readable] * bool(readable)
        return content, grade, [wrong] if wrong else []

    def _readable(self, content: Source) -> str:
        """Why proven content cannot be unpacked; empty when it can."""
        try:
            for _ in content.blocks():
                pass
        except ForensicsError as error:
            return str(error)
        return ""

    def _without_inode(self, subvolume: int, number: int, transaction: int) -> Iterator[Remnant]:
        """What only a directory still names."""
        names = self._names.of(subvolume, number, transaction)
        if names:
            path = names[0].path
            origin = self._tree.origin.to(f"subvolume {subvolume}").to(f"inode {number}")
            yield _trace(path, origin, "only its name is known")

    def _subvolume(self, one: OldSubvolume) -> Remnant:
        path = self._names.subvolume(one.number)
        source = self._subvolumes.source(one.number)
        words = [f"subvolume {one.number}"]
        words += [f"snapshot of {self._names.subvolume(source)}"] if source is not None else []
        gone_ns = self._lives.changed_ns.get(one.gone) if one.gone is not None else None
        return _trace(path, self._tree.origin.to(f"subvolume {one.number}", one.at), ", ".join(words), gone_ns)


def _trace(path: str, origin: Origin, detail: str, deleted_ns: int | None = None) -> Remnant:
    container_id = container_of(path)
    return trace(kind_of(path), path, _METHOD, origin, detail, container_id=container_id, deleted_ns=deleted_ns)


def _form(content: Source, size: int) -> Form | None:
    """What a document without a name is."""
    if size > _LARGEST_DOCUMENT:
        return None
    try:
        data = content.read_at(0, size)
        return form_of(parse(data, content.origin), data) if data[:1] in (b"{", b"[") else None
    except ForensicsError:
        return None
