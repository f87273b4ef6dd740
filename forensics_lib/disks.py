"""The file systems of a disk: its image format, its partitions and volumes, and what each of them holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from forensics_lib.errors import ForensicsError, UnsupportedFormat
from forensics_lib.model import ProblemLog
from forensics_lib.opening import FileSystem
from forensics_lib.sources.base import Source
from forensics_lib.sources.volumes import Superblock, Volume, VolumeKind, find_volumes, read_superblock
from forensics_lib.trees.base import Tree
from forensics_lib.trees.sleuthkit import KIT_TYPES

__all__ = ["find_filesystems"]

_CARRIERS = ("LVM2_member", "crypto_LUKS", "BitLocker")
"""What volumes are made of; `find_volumes` opens them or says why not."""
_WITHOUT_FILES = ("swap", "swsuspend", "jbd")


def find_filesystems(disk: Source, problems: ProblemLog, keys: Sequence[str] = ()) -> list[FileSystem]:
    """Every file system that can be read; what cannot is a problem.

    Args:
        disk: its bytes.
        problems: told of damage, and of file systems that are not read.
        keys: passphrases to try on encrypted volumes.
    """
    volumes = [(volume, read_superblock(volume.source)) for volume in find_volumes(disk, problems, keys=keys)]
    found = []
    mounted: set[str] = set()
    for volume, superblock in volumes:
        if superblock is None or superblock.type in _CARRIERS or superblock.type in _WITHOUT_FILES:
            continue
        others = [
            other.source
            for other, its in volumes
            if its is not None and its.type == superblock.type == "btrfs" and its.uuid == superblock.uuid
        ]
        if others and superblock.uuid in mounted:
            continue  # another device of the same file system
        mounted.add(superblock.uuid)
        _check_size(volume, superblock, problems)
        try:
            found.append(_mount(volume, superblock, [one for one in others if one is not volume.source], problems))
        except ForensicsError as error:
            problems.add(volume.origin, error)
    return found


def _check_size(volume: Volume, superblock: Superblock, problems: ProblemLog) -> None:
    there, size = volume.source.size, superblock.size or 0
    if size > there and superblock.type not in ("xfs", "btrfs"):  # these tell themselves, or span devices
        problems.add(volume.origin, f"the file system takes up {size} bytes, only {there} are there")


def _mount(volume: Volume, superblock: Superblock, others: Sequence[Source], problems: ProblemLog) -> FileSystem:
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

        btrfs = BtrfsTree(source, problems, devices=others)
        replayed = btrfs.volume.replayed
        state = f"log tree replayed ({replayed} items)" if replayed else "clean"
        return _row(volume, superblock, btrfs, None, state)
    if superblock.type in KIT_TYPES:
        from forensics_lib.trees.sleuthkit import KitTree

        kit = KitTree(source, problems, superblock.type)
        return _row(volume, replace(superblock, label=kit.label or superblock.label), kit, None, "clean")
    raise UnsupportedFormat(f"{_name(volume)} holds {superblock.type}, which is not read")


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
    if volume.kind is VolumeKind.DISK:
        file = volume.origin
        while file.parent is not None:
            file = file.parent
        return file.label
    return volume.name if volume.kind is VolumeKind.LVM else f"partition {volume.index}"
