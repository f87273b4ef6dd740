"""Arrays of Linux' software RAID (MD), put together from the members that are there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from forensics_lib.errors import DamagedData, ForensicsError, UnsupportedFormat
from forensics_lib.model import ProblemLog
from forensics_lib.sources.base import Source
from forensics_lib.sources.joined import JoinedSource
from forensics_lib.sources.volumes.md import MdMember
from forensics_lib.sources.volumes.md_layout import MirroredSource, MirroredStripes, ParityStripes, Stripes
from forensics_lib.sources.volumes.volume import Volume, VolumeKind

__all__ = ["arrays"]

_MAX_DEVICES = 4096
_MAX_CHUNK = 1 << 30
_SECTOR = 512


def arrays(members: Iterable[MdMember], problems: ProblemLog) -> Iterator[Volume]:
    """The arrays that members belong to, each as a volume.

    Level 1 is read from any member that is up to date, linear arrays as far as their members are there; levels 0, 4,
    5, 6 and 10 when what is missing can be made up for (one device of level 4, 5 or 6 by its parity, mirrored chunks of
    level 10). An array that cannot be read is a problem that tells its level, UUID and the roles of its members.

    Args:
        members: of all disks that are there.
        problems: told of members that are missing, damaged, spare or out of date, and of arrays that are not read.
    """
    known: dict[str, list[MdMember]] = {}
    for member in members:
        known.setdefault(member.uuid, []).append(member)
    for group in known.values():
        origin = group[0].source.origin
        try:
            array = _Array(group, problems)
            source = array.source()
        except ForensicsError as error:
            problems.add(origin, error)
            continue
        newest = array.newest
        kind = newest.kind
        yield Volume(0, VolumeKind.MD, None, source.size, kind, newest.title, newest.uuid, source, source.origin)


class _Array:
    """The members of one array by their roles.

    Raises:
        UnsupportedFormat: none of them holds its data.
        DamagedData: they contradict the format.
    """

    def __init__(self, group: Sequence[MdMember], problems: ProblemLog) -> None:
        sound = [member for member in group if member.is_sound] or list(group)
        self.newest = max(sound, key=lambda member: member.events)
        self.problems = problems
        self.roles: dict[int, MdMember] = {}
        name = f"{self.newest.name} " if self.newest.name else ""
        self.what = f"{self.newest.kind} {name}({self.newest.uuid})"
        if not 0 < self.newest.devices <= _MAX_DEVICES:
            raise DamagedData(f"the array {self.what} has {self.newest.devices} devices")
        for member in group:
            reason = self._fault(member)
            if reason:
                problems.add(member.source.origin, f"this member of the array {self.what} is not used: {reason}")
            else:
                self.roles[member.role or 0] = member
        self.roles = dict(sorted(self.roles.items(), key=lambda pair: (not pair[1].is_sound, pair[0])))
        origin = next(iter(self.roles.values()), self.newest).source.origin
        self.origin = origin.to(f"MD {self.newest.title}")

    def source(self) -> Source:
        """The bytes of the array."""
        newest, count = self.newest, self.newest.devices
        there = ", ".join(map(str, sorted(self.roles))) or "none"
        about = f"the array {self.what} of {count} devices (roles that are there: {there})"
        if not self.roles:
            raise UnsupportedFormat(f"{about} is not read: no member holds its data")
        if newest.level == 1:
            copies = [self._data(member) for member in self.roles.values()]
            return copies[0] if len(copies) == 1 else MirroredSource(copies, self.origin)
        if newest.level in (0, 4, 5, 6, 10) and (not 0 < newest.chunk <= _MAX_CHUNK or newest.chunk % _SECTOR):
            raise DamagedData(f"{about} has chunks of {newest.chunk} bytes")
        devices = [self._data(self.roles[role]) if role in self.roles else None for role in range(count)]
        missing = [role for role, device in enumerate(devices) if device is None]
        present = [device for device in devices if device is not None]
        try:
            if newest.level == -1:
                return self._linear(devices)
            if newest.level == 0 and not missing:
                return Stripes(present, newest.chunk, newest.layout, self.origin)
            if newest.level == 10:
                mirrored = MirroredStripes(devices, newest.chunk, newest.layout, self.origin)
                if not mirrored.lost():
                    self._say_missing(missing)
                    return mirrored
            if newest.level in (4, 5, 6) and len(missing) < 2:
                self._say_missing(missing)
                return ParityStripes(devices, newest.chunk, newest.level, newest.layout, self.origin)
        except ForensicsError as error:
            raise type(error)(f"{about} is not read: {error}") from error
        raise UnsupportedFormat(f"{about} is not read: {f'devices {missing} are missing' if missing else 'its level'}")

    def _fault(self, member: MdMember) -> str:
        """Why a member cannot be used; empty when it can."""
        newest = self.newest
        if not member.is_sound and newest.level != 1:
            return "the checksum of its superblock is wrong"
        if member.role is None:
            return "it is a spare, faulty or journal device"
        if not member.is_whole:
            return "it was being rebuilt or reshaped"
        if member.events + 1 < newest.events:
            return f"it is out of date ({member.events} events, the newest has {newest.events}); alone it can be opened"
        if member.role >= newest.devices or (member.level, member.chunk) != (newest.level, newest.chunk):
            return "it contradicts the newest member"
        other = self.roles.get(member.role)
        return f"{other.source.origin} has the same role" if other is not None else ""

    def _data(self, member: MdMember) -> Source:
        if not member.is_sound:
            self.problems.add(member.source.origin, f"the checksum of a superblock of the array {self.what} is wrong")
        if member.data_offset + member.size > member.source.size:
            message = f"the data of a member of the array {self.what} end behind its end"
            self.problems.add(member.source.origin, message)
        return member.source.slice(member.data_offset, member.size, f"MD {self.newest.title}")

    def _linear(self, devices: Sequence[Source | None]) -> Source:
        parts: list[Source] = []
        for role, device in enumerate(devices):
            if device is None:
                message = f"device {role} of the array {self.what} is missing"
                self.problems.add(self.origin, message)
                if not any(devices[role:]):
                    break
                raise UnsupportedFormat("a device before others is missing, and with it where these begin")
            parts.append(device)
        return JoinedSource(parts, self.origin)

    def _say_missing(self, missing: Sequence[int]) -> None:
        for role in missing:
            message = f"device {role} of the array {self.what} is missing; its bytes come from the others"
            self.problems.add(self.origin, message)
