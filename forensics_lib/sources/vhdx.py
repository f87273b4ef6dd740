"""VHDX disk images, the newer format of Hyper-V.

Format: [MS-VHDX], Virtual Hard Disk v2 File Format. Decoded by libvhdi, below which the log is replayed.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from forensics_lib._optional import require
from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources._libyal import LibyalSource, SourceFile, reason_of
from forensics_lib.sources.base import Source
from forensics_lib.sources.vhdx_log import replayed

__all__ = ["Vhdx"]


class _File(Protocol):
    identifier: str | None
    parent_identifier: str | None
    parent_filename: str | None

    def get_media_size(self) -> int: ...
    def read_buffer_at_offset(self, size: int, offset: int, /) -> bytes | None: ...
    def set_parent(self, parent: object, /) -> None: ...


class Vhdx(LibyalSource):
    """The disk inside a VHDX image.

    Reads fixed, dynamic and differencing images. Changes that wait in the log of an image that was not closed properly
    are seen as if they had been carried out. Needs the extra ``disk``.

    Args:
        source: the image file.
        problems: told when the log holds changes, or cannot be read.
        parent: the image below a differencing image; without it, reading raises.
        origin: of the disk; a step below the image by default.

    Attributes:
        uuid: of this image.
        parent_uuid: of the image below; None for an image that stands alone.
        parent_name: recorded name of the image below; None for an image that stands alone.

    Raises:
        DamagedData: the image contradicts the format.
        UnsupportedFormat: it is no VHDX image.
        MissingExtra: libvhdi is not installed.
    """

    format: ClassVar[str] = "vhdx"
    magic: ClassVar[bytes] = b"vhdxfile"

    def __init__(
        self, source: Source, problems: ProblemLog, parent: Vhdx | None = None, origin: Origin | None = None
    ) -> None:
        """Open the image, and its log."""
        origin = origin or source.origin.to(self.format)
        if source.read_at(0, 8) != self.magic:
            raise UnsupportedFormat("no VHDX image: it does not begin with its magic")
        self.source = source
        self.parent = parent
        pyvhdi = require("pyvhdi", "disk")
        file = SourceFile(replayed(source, problems))
        handle: _File = pyvhdi.file()
        try:
            pyvhdi.file.open_file_object(handle, file)
            self.uuid = handle.identifier
            self.parent_uuid = handle.parent_identifier
            self.parent_name = handle.parent_filename
            size = handle.get_media_size()
            if parent is not None:
                handle.set_parent(parent.handle)
        except OSError as error:  # how libvhdi fails
            raise file.error or DamagedData(
                f"the VHDX image cannot be opened: {reason_of(error)}", origin=origin
            ) from error
        super().__init__(handle, [file], size, origin)

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end.

        Raises:
            DamagedData: the library cannot decode them, or the parent is missing.
        """
        if self.parent_uuid is not None and self.parent is None:
            message = f"the disk needs its parent image {self.parent_name!r}, which is missing"
            raise DamagedData(message, origin=self.origin, offset=offset)
        return super().read_at(offset, length)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by image: another process opens it again."""
        return (_reopen, (self.source, self.parent, self.origin))


def _reopen(source: Source, parent: Vhdx | None, origin: Origin) -> Vhdx:
    return Vhdx(source, ProblemLog(), parent, origin)  # its problems were told in the first process
