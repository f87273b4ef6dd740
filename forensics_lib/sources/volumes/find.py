"""Finds every volume of one or several disks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from forensics_lib.errors import ForensicsError
from forensics_lib.model import ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.sources.volumes.gpt import Gpt, has_header
from forensics_lib.sources.volumes.luks import LuksSource
from forensics_lib.sources.volumes.lvm import PhysicalVolume, logical_volumes
from forensics_lib.sources.volumes.mbr import Mbr, MbrEntry
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
    LUKS volumes and the logical volumes of LVM. A disk without a partition table is one volume by itself. Everything is
    listed, whether or not it holds a known file system: `sniff_filesystem` tells.

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
        opened = [plain for volume in fresh if (plain := _opened(volume, keys, problems)) is not None]
        joined = [member for volume in [*fresh, *opened] if (member := PhysicalVolume.read(volume.source, problems))]
        members.extend(joined)
        logical = list(logical_volumes(members, problems)) if joined else []
        logical = [volume for volume in logical if (volume.name, volume.uuid) not in known]
        known.update((volume.name, volume.uuid) for volume in logical)
        fresh = logical
        found = [*found, *opened, *logical]
        if not fresh:
            break
    return found


def has_volumes(source: Source) -> bool:
    """Whether the bytes are those of a disk: a partition table, or a file system or other volume by itself."""
    quiet = ProblemLog()
    if sniff_filesystem(source) is not None:
        return True
    mbr = Mbr.read(source)
    if mbr is not None and any(0 < entry.start * 512 < source.size for entry in mbr.entries):
        return True
    return Gpt.read(source, quiet) is not None


def _several(disks: Source | Sequence[Source]) -> Sequence[Source]:
    return [disks] if isinstance(disks, Source) else disks


def _on_disk(disk: Source, problems: ProblemLog) -> list[Volume]:
    mbr = Mbr.read(disk)
    whole = sniff_filesystem(disk)
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
    """The plain side of an encrypted volume; None, and a problem, when it stays closed."""
    if sniff_filesystem(volume.source) != "crypto_LUKS":
        return None
    try:
        plain = LuksSource(volume.source, keys, problems=problems)
    except ForensicsError as error:
        problems.add(volume.origin, error)
        return None
    kind = f"LUKS{plain.version}"
    return Volume(
        volume.index, VolumeKind.LUKS, plain.offset, plain.size, kind, volume.name, plain.uuid, plain, plain.origin
    )
