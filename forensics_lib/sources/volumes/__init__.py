"""What is on a disk: partitions, logical volumes and encrypted volumes, and which file system each of them holds."""

from forensics_lib.sources.volumes.ext_backup import by_backup
from forensics_lib.sources.volumes.find import find_volumes, has_volumes
from forensics_lib.sources.volumes.superblock import Superblock, read_superblock, sniff_filesystem
from forensics_lib.sources.volumes.volume import Volume, VolumeKind

__all__ = [
    "Superblock",
    "Volume",
    "VolumeKind",
    "by_backup",
    "find_volumes",
    "has_volumes",
    "read_superblock",
    "sniff_filesystem",
]
