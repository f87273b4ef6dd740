"""The file systems of a disk: its image format, its partitions and volumes, and what each of them holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from forensics_lib.errors import DamagedData, ForensicsError, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.opening import FileSystem, begins_tar
from forensics_lib.sources.base import Source
from forensics_lib.sources.disk import open_disk
from forensics_lib.sources.file import FileSource
from forensics_lib.sources.siblings import Siblings
from forensics_lib.sources.volumes import Superblock, Volume, by_backup, find_volumes, read_superblock
from forensics_lib.trees.base import Tree
from forensics_lib.trees.index import IndexTree
from forensics_lib.trees.sleuthkit import KIT_TYPES

__all__ = ["find_filesystems", "open_disks"]

_CARRIERS = ("LVM2_member", "crypto_LUKS", "linux_raid_member", "bcache")
"""What volumes are made of; `find_volumes` opens them or says why not."""
_WITHOUT_FILES = ("swap", "swsuspend", "jbd")
_NEVER_FILES = {
    "21686148-6449-6e6f-744e-656564454649": "BIOS boot",
    "e3c9e316-0b5c-4db8-817d-f92df00215ae": "Microsoft reserved",
    "9e1a2d38-c612-4316-aa26-8b49521e5a8b": "PReP boot",
    "0x41": "PReP boot",
}
"""Types of partitions that hold programs for starting the machine, or nothing."""


def open_disks(folder: Path, names: Sequence[str], problems: ProblemLog) -> list[tuple[FileSource, Source]]:
    """The disks whose images lie in a folder, each with the first file of its image.

    Files that another image needs (its segments, extents, backing files and parents) are no images of their own. When
    there is a disk, each file that is none is a problem; so are all damaged images.

    Args:
        folder: of the images.
        names: of its files.
        problems: told of what is no disk, is missing or contradicts itself.
    """
    found: list[tuple[FileSource, Source, ProblemLog]] = []
    faults: list[tuple[FileSource, ForensicsError]] = []
    needed: set[Path] = set()
    for name in names:
        if folder / name in needed:
            continue
        origin = Origin(f"{folder.name}/{name}")
        try:
            file = FileSource(folder / name, origin, follow=False)
        except ForensicsError as error:
            problems.add(origin, error)
            continue
        siblings, its = Siblings(file), ProblemLog()
        try:
            disk = None if begins_tar(file) else open_disk(file, its, siblings=siblings)
            if disk is None:
                raise UnsupportedFormat("this is no disk image that is read; it is not examined")
            found.append((file, disk, its))
        except ForensicsError as error:
            faults.append((file, error))
            file.close()
        needed.update(sibling.path for sibling in siblings.opened if sibling.is_open)
    disks = [(file, disk) for file, disk, _ in found if file.path not in needed]
    for file, disk, its in found:
        if file.path in needed:
            disk.close()
            file.close()
        for problem in its.rows if file.path not in needed else ():
            problems.add(problem.origin, problem.error)
    for file, fault in faults if disks else ():
        if file.path not in needed:
            problems.add(file.origin, fault)
    return disks


def find_filesystems(
    disks: Sequence[Source], problems: ProblemLog, keys: Sequence[str | bytes] = ()
) -> list[FileSystem]:
    """Every file system that can be read, and swap space; what cannot is a problem.

    Args:
        disks: the bytes of each.
        problems: told of damage, and of file systems that are not read.
        keys: passphrases, key files or keys to try on encrypted volumes.
    """
    volumes = [_recognised(volume, problems) for volume in find_volumes(disks, problems, keys=keys)]
    found = []
    mounted: set[str] = set()
    for volume, superblock in volumes:
        if superblock is None:
            _say_unknown(volume, problems)
            continue
        if superblock.type in _CARRIERS:
            continue
        others = [
            other.source
            for other, its in volumes
            if its is not None and its.type == superblock.type == "btrfs" and its.uuid == superblock.uuid
        ]
        seeds = [
            other.source
            for other, its in volumes
            if its is not None and its.type == superblock.type == "btrfs" and its.uuid != superblock.uuid
        ]
        if others and superblock.uuid in mounted:
            continue  # another device of the same file system
        mounted.add(superblock.uuid)
        _check_size(volume, superblock, problems)
        try:
            found.append(
                _mount(volume, superblock, [one for one in others if one is not volume.source], seeds, problems)
            )
        except ForensicsError as error:
            problems.add(volume.origin, error)
    if all(one.type in _WITHOUT_FILES for one in found):
        for one in found:
            problems.add(one.origin, UnsupportedFormat(f"{one.name} holds {one.type}, in which no files are"))
        return []
    return found if len(disks) == 1 else [_with_disk(one) for one in found]


def _recognised(volume: Volume, problems: ProblemLog) -> tuple[Volume, Superblock | None]:
    """A volume and its superblock, by a copy of that where the first is lost."""
    found = read_superblock(volume.source)
    mended = by_backup(volume.source) if found is None else None
    if mended is None:
        return volume, found
    source, copy = mended
    problems.add(copy, "the superblock is lost; the file system is read by this copy of it, which may be older")
    return replace(volume, source=source), read_superblock(source)


def _with_disk(found: FileSystem) -> FileSystem:
    """A file system whose name tells its disk as well."""
    disk = _disk_of(found.origin)
    return found if found.name == disk else replace(found, name=f"{disk} {found.name}")


def _say_unknown(volume: Volume, problems: ProblemLog) -> None:
    """Name a volume that nothing recognises, unless it is of a type that never holds a file system."""
    if volume.type in _NEVER_FILES:
        return
    try:
        empty = not any(volume.source.read_at(0, min(volume.size, 1 << 16)))
    except DamagedData as error:
        problems.add(volume.origin, error)
        return
    message = "begins with zeros" if empty else "holds nothing that is recognised"
    kind = f" (type {volume.type})" if volume.type else ""
    problems.add(volume.origin, UnsupportedFormat(f"{_name(volume)}{kind} of {volume.size} bytes {message}"))


def _check_size(volume: Volume, superblock: Superblock, problems: ProblemLog) -> None:
    there, size = volume.source.size, superblock.size or 0
    if size > there and superblock.type not in ("xfs", "btrfs"):  # these tell themselves, or span devices
        problems.add(volume.origin, f"the file system takes up {size} bytes, only {there} are there")


def _mount(
    volume: Volume,
    superblock: Superblock,
    others: Sequence[Source],
    seeds: Sequence[Source],
    problems: ProblemLog,
) -> FileSystem:
    source = volume.source
    if superblock.type in ("ext2", "ext3", "ext4"):
        from forensics_lib.trees.ext import ExtTree

        ext = ExtTree(source, problems)
        mounted = ext.geometry.mounted_s * 10**9 or None
        state = f"journal replayed ({ext.replayed} blocks)" if ext.replayed else "clean"
        return _row(volume, superblock, ext, mounted, state)
    if superblock.type == "xfs":
        from forensics_lib.trees.xfs import XfsTree

        xfs = XfsTree(source, problems)
        return _row(volume, superblock, xfs, None, f"log {xfs.log_state}" if xfs.log_state != "clean" else "clean")
    if superblock.type == "btrfs":
        from forensics_lib.trees.btrfs import BtrfsTree

        btrfs = BtrfsTree(source, problems, devices=others, seeds=seeds)
        replayed = btrfs.volume.replayed
        state = f"log tree replayed ({replayed} items)" if replayed else "clean"
        return _row(volume, superblock, btrfs, None, state)
    if superblock.type in KIT_TYPES:
        from forensics_lib.trees.sleuthkit import KitTree

        kit = KitTree(source, problems, superblock.type)
        return _row(volume, replace(superblock, label=kit.label or superblock.label), kit, None, "clean")
    if superblock.type in _WITHOUT_FILES:
        return _row(volume, superblock, IndexTree(volume.origin), None, "holds no files")
    label = f" ({superblock.label})" if superblock.label else ""
    raise UnsupportedFormat(f"{_name(volume)} holds {superblock.type}{label}, which is not read")


def _row(volume: Volume, superblock: Superblock, tree: Tree, mounted_ns: int | None, state: str) -> FileSystem:
    return FileSystem(
        _name(volume),
        superblock.type,
        tree,
        tree.origin,
        superblock.size,
        superblock.label,
        superblock.uuid,
        mounted_ns,
        state,
    )


def _name(volume: Volume) -> str:
    return volume.title or _disk_of(volume.origin)


def _disk_of(origin: Origin) -> str:
    """The file name of the image that an origin begins with."""
    while origin.parent is not None:
        origin = origin.parent
    return origin.label.rpartition("/")[2]
