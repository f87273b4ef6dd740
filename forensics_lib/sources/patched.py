"""A source of which some pages are replaced, as by a log that was not carried out."""

from __future__ import annotations

from forensics_lib.model import Origin
from forensics_lib.sources._bounds import end_of
from forensics_lib.sources.base import Source

__all__ = ["PAGE", "PatchedSource"]

PAGE = 4096
"""Bytes of a page."""


class PatchedSource(Source):
    """Another source with some of its pages replaced; pages behind its end make it longer.

    Args:
        parent: what is below.
        pages: new content by page number; pages have `PAGE` bytes.
        origin: of the result.
    """

    def __init__(self, parent: Source, pages: dict[int, bytes], origin: Origin) -> None:
        """Serve the parent with the pages on top."""
        self.parent = parent
        self.pages = pages
        self.origin = origin
        self.size = max(parent.size, (max(pages) + 1) * PAGE if pages else 0)

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at a position; short only at the end."""
        end = end_of(self, offset, length)
        if offset >= end:
            return b""
        data = bytearray(self.parent.read_at(offset, end - offset).ljust(end - offset, b"\0"))
        for page in range(offset // PAGE, -(-end // PAGE)):
            content = self.pages.get(page)
            if content is not None:
                start, stop = max(offset, page * PAGE), min(end, page * PAGE + PAGE)
                data[start - offset : stop - offset] = content[start - page * PAGE : stop - page * PAGE]
        return bytes(data)
