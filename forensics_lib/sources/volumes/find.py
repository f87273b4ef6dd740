"""Finds every volume of one or several disks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from forensics_lib.errors import ForensicsError
from forensics_lib.model import ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.sources.volumes.bcache import backing_device
from forensics_lib.sources.volumes.ext_backup import by_backup
from forensics_lib.sources.volumes.gpt import Gpt, has_header
from forensics_lib.sources.volumes.luks import LuksSource
from forensics_lib.sources.volumes.lvm import PhysicalVolume, logical_volumes
from forensics_lib.sources.volumes.mbr import Mbr, MbrEntry
from forensics_lib.sources.volumes.md import MdMember
from forensics_lib.sources.volumes.md_array import arrays
from forensics_lib.sources.volumes.superblock import sniff_filesystem
from forensics_lib.sources.volumes.volume import Volume, VolumeKind

__all__ = ["find_volumes", "has_volumes"]

_MAX_NESTING = 4
_PROTECTIVE_PLACE = 512


def find_volumes(
    disks: Source | Sequence[Source], problems: ProblemLog, *, keys: Sequence[str | bytes] = ()
) -> list[Volume]:
    """The volumes of one disk, or of several disks whose logical volumes may span them.

    Partitions come first, in the order of their numbers and disk by disk, then what lies inside them: the plain side of
    LUKS volumes, arrays of Linux' RAID and the logical volumes of LVM, or the partitions of these. A disk without a
    partition table is one volume by itself. Everything is listed, whether or not it holds a known file system:
    `sniff_filesystem` tells.

    Args:
        disks: the disk, or all disks of a machine.
        problems: told of damaged tables, partitions that overlap or end behind the disk, members that are missing,
            and encrypted volumes that no key opens.
        keys: passphrases, key files or keys to try on encrypted volumes.
    """
    found = [volume for disk in _several(disks) for volume in _on_disk(disk, problems)]
    fresh = found
    members: list[PhysicalVolume] = []
    known: set[tuple[str, str]] = set()
    for _ in range(_MAX_NESTING):  # a group in a LUKS volume, a LUKS volume in a group
        opened = _carried(fresh, keys, problems)
        joined = [member for volume in [*fresh, *opened] if (member := _physical(volume, problems))]
        members.extend(joined)
        logical = list(logical_volumes(members, problems)) if joined else []
        logical = [volume for volume in logical if (volume.name, volume.uuid) not in known]
        known.update((volume.name, volume.uuid) for volume in logical)
        fresh = [one for volume in logical for one in _inside(volume, problems)]
        found = [*found, *opened, *fresh]
        if not fresh:
            break
    return found


def _carried(volumes: Sequence[Volume], keys: Sequence[str | bytes], problems: ProblemLog) -> list[Volume]:
    """What lies in LUKS volumes and arrays, also in each other."""
    found: list[Volume] = []
    for _ in range(_MAX_NESTING):
        opened = [plain for volume in volumes if (plain := _opened(volume, keys, problems)) is not None]
        members = [member for volume in volumes if (member := _member(volume, problems)) is not None]
        for array in arrays(members, problems):
            opened += _inside(array, problems)
        if not opened:
            break
        found += opened
        volumes = opened
    return found


def _member(volume: Volume, problems: ProblemLog) -> MdMember | None:
    member = MdMember.read(volume.source)
    kind = sniff_filesystem(volume.source) if member is not None else None
    if member is None or kind == "linux_raid_member":
        return member
    message = f"the superblock of an array ({member.title}) is left over: the {kind} there takes up its place"
    problems.add(volume.source.origin.to("MD superblock", member.place), message)
    return None


def _inside(volume: Volume, problems: ProblemLog) -> list[Volume]:
    """The partitions of an array or of a logical volume, such as the disk of a virtual machine; or itself."""
    if sniff_filesystem(volume.source) is not None:
        return [volume]
    parts = [one for one in _on_disk(volume.source, problems) if one.kind is not VolumeKind.DISK]
    return [replace(one, within=volume.title) for one in parts] or [volume]


def _physical(volume: Volume, problems: ProblemLog) -> PhysicalVolume | None:
    is_member = sniff_filesystem(volume.source) == "LVM2_member"  # not of an array that begins with one
    return PhysicalVolume.read(volume.source, problems) if is_member else None


def has_volumes(source: Source) -> bool:
    """Whether the bytes are those of a disk: a partition table, or a file system or other volume by itself."""
    quiet = ProblemLog()
    if sniff_filesystem(source) is not None:
        return True
    mbr = Mbr.read(source)
    if mbr is not None and any(0 < entry.start * 512 < source.size for entry in mbr.entries):
        return True
    return Gpt.read(source, quiet) is not None or by_backup(source) is not None


def _several(disks: Source | Sequence[Source]) -> Sequence[Source]:
    return [disks] if isinstance(disks, Source) else disks


def _on_disk(disk: Source, problems: ProblemLog) -> list[Volume]:
    mbr = Mbr.read(disk)
    whole = sniff_filesystem(disk)
    if whole == "linux_raid_member" and not (mbr and _ends_with_a_member(disk, mbr)):
        return [Volume(0, VolumeKind.DISK, 0, disk.size, "", "", "", disk, disk.origin)]  # the array has the partitions
    found: list[Volume] = []
    if mbr is None or mbr.is_protective:
        gpt = None if mbr is None and whole is not None else Gpt.read(disk, problems)  # may be left over at the end
        if gpt is not None:
            found = list(_gpt_volumes(disk, gpt))
        elif mbr is not None:
            problems.add(disk.origin.to("GPT", _PROTECTIVE_PLACE), "neither of the two partition tables can be read")
        if mbr is not None:
            found += _hybrid_volumes(disk, mbr, found, gpt.sector_size if gpt is not None else 512, problems)
    elif whole not in ("vfat", "ntfs", "exfat"):  # their boot sector has code where the table would be
        found = _mbr_volumes(disk, mbr, problems)
        if has_header(disk):
            message = "a GPT is there as well, but the MBR does not announce it, so it is not used (nor by the kernel)"
            problems.add(disk.origin.to("GPT", 512), message)
    _check_places(disk, found, problems)
    if found and whole is None:
        return found
    if found:
        message = f"there is a partition table, and a file system ({whole}) on the whole disk: one of them is left over"
        problems.add(disk.origin, message)
    return [Volume(0, VolumeKind.DISK, 0, disk.size, "", "", "", disk, disk.origin), *found]


def _ends_with_a_member(disk: Source, mbr: Mbr) -> bool:
    """Whether the superblock of an array at the end of a disk is that of a partition."""
    quiet = ProblemLog()
    gpt = Gpt.read(disk, quiet) if mbr.is_protective else None
    parts = _gpt_volumes(disk, gpt) if gpt is not None else _mbr_partitions(disk, mbr, 512, quiet)
    return any(MdMember.read(part.source) is not None for part in parts)


def _gpt_volumes(disk: Source, gpt: Gpt) -> Iterator[Volume]:
    for entry in gpt.entries:
        offset = entry.first * gpt.sector_size
        size = max(0, entry.last - entry.first + 1) * gpt.sector_size
        yield _partition(disk, VolumeKind.GPT, entry.index, offset, size, entry.type, entry.name, entry.uuid)


def _mbr_volumes(disk: Source, mbr: Mbr, problems: ProblemLog) -> list[Volume]:
    """The partitions in units of 512 bytes, or of 4096 if only then there are file systems where they begin."""
    for sector in (512, 4096):
        if any(sniff_filesystem(volume.source) for volume in _mbr_partitions(disk, mbr, sector, ProblemLog())):
            return _mbr_partitions(disk, mbr, sector, problems)
    return _mbr_partitions(disk, mbr, 512, problems)


def _mbr_partitions(disk: Source, mbr: Mbr, sector: int, problems: ProblemLog) -> list[Volume]:
    return [_from_entry(disk, mbr, entry, sector) for entry in mbr.partitions(disk, sector, disk.origin, problems)]


def _hybrid_volumes(
    disk: Source, mbr: Mbr, known: Sequence[Volume], sector: int, problems: ProblemLog
) -> Iterator[Volume]:
    """Partitions that only the MBR of a disk with a GPT knows."""
    places = {volume.offset for volume in known}
    for entry in mbr.partitions(disk, sector, disk.origin, problems):
        volume = _from_entry(disk, mbr, entry, sector)
        if volume.offset not in places:
            problems.add(volume.origin, "the MBR lists a partition that the GPT does not know")
            yield volume


def _from_entry(disk: Source, mbr: Mbr, entry: MbrEntry, sector: int) -> Volume:
    uuid = f"{mbr.disk_id:08x}-{entry.index:02x}"
    offset, size = entry.start * sector, entry.sectors * sector
    return _partition(disk, VolumeKind.MBR, entry.index, offset, size, f"{entry.type:#04x}", "", uuid)


def _partition(
    disk: Source, kind: VolumeKind, index: int, offset: int, size: int, type_: str, name: str, uuid: str
) -> Volume:
    source = disk.slice(offset, size, f"partition {index}")
    return Volume(index, kind, offset, size, type_, name, uuid, source, source.origin)


def _check_places(disk: Source, volumes: Iterable[Volume], problems: ProblemLog) -> None:
    before: Volume | None = None
    for volume in sorted(volumes, key=lambda volume: (volume.offset or 0, volume.size)):
        offset = volume.offset or 0
        if not volume.size:
            problems.add(volume.origin, f"partition {volume.index} has no size")
        elif offset + volume.size > disk.size:
            message = f"partition {volume.index} ends at byte {offset + volume.size}, the disk at {disk.size}"
            problems.add(volume.origin, message)
        if before is not None and offset < (before.offset or 0) + before.size:
            problems.add(volume.origin, f"partitions {before.index} and {volume.index} overlap")
        if before is None or offset + volume.size > (before.offset or 0) + before.size:
            before = volume


def _opened(volume: Volume, keys: Sequence[str | bytes], problems: ProblemLog) -> Volume | None:
    """What an encrypted volume or a backing device of bcache holds; None, and a problem, when it stays closed."""
    carrier, kind = volume.source, sniff_filesystem(volume.source)
    try:
        if kind == "crypto_LUKS":
            plain = LuksSource(carrier, keys, problems=problems)
            about = VolumeKind.LUKS, plain.offset, plain.size, f"LUKS{plain.version}", "", plain.uuid
            return Volume(volume.index, *about, plain, plain.origin, volume.title)
        if kind == "bcache":
            data = backing_device(carrier, problems)
            about = VolumeKind.BCACHE, data.offset, data.size, "bcache", "", ""
            return Volume(volume.index, *about, data, data.origin, volume.title)
    except ForensicsError as error:
        problems.add(volume.origin, error)
    return None
