"""What kind of data every file holds, by its content and not by its name."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from forensics_lib.analysis.contents import Data, contents
from forensics_lib.analysis.inventory import Inventory
from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.model import Origin, Progress

if TYPE_CHECKING:
    from types import ModuleType

    from magic import Magic

__all__ = ["Identified", "identify"]

_HEAD = 256 << 10  # 2 of 2,000 files differ from what the first MiB says; 8 KiB: 33, and no faster (measured)
_ELF = b"\x7fELF"
_INSTALL = (
    "identifying files needs python-magic and the library libmagic: install it (apt install libmagic1, "
    "apk add libmagic, brew install libmagic) or pip install pylibmagic, which brings one for Linux and macOS; "
    "on Windows pip uninstall python-magic and pip install python-magic-bin"
)


@dataclass(frozen=True, slots=True)
class Identified:
    """What one file holds, as libmagic (the library behind ``file``) tells from 256 KiB, of ELF programs from all.

    Attributes:
        owner: a layer's digest for its files, the evidence's name for what lies beside the layers.
        path: path inside the owner.
        size: bytes of its content.
        sha256: of the content; None where only a part of it could be read, which was then identified.
        mime: media type, e.g. ``application/x-pie-executable``; ``application/octet-stream`` for the unknown.
        description: in words, as ``file`` prints it.
        origin: where it is recorded.
    """

    owner: str
    path: str
    size: int
    sha256: str | None
    mime: str
    description: str
    origin: Origin


def identify(inventory: Inventory, *, progress: Progress | None = None) -> Iterator[Identified]:
    """A row for every file of the evidence, those that later layers hide included; each content is identified once.

    python-magic does the work with the system's libmagic, or, where there is none, with the one that pylibmagic
    carries. pylibmagic has wheels for Linux (glibc and musl) and macOS on x86-64 and ARM64, and none for Windows. There
    python-magic-bin, to be installed in the place of python-magic, brings a libmagic of its own (x86 and x86-64); it
    is of 2017 and knows fewer formats. Which version answers is a matter of the machine, so the answers of
    two machines can differ.

    What libmagic cannot cope with is a problem of that path. It is C code and reads hostile data here; it runs in
    this process.

    Args:
        inventory: what there is.
        progress: told of stored bytes done and in total.

    Raises:
        UnsupportedFormat: at once, when python-magic finds no libmagic; the message says what to install.
    """
    return _rows(inventory, _Identifier(_load()), progress)


def _rows(inventory: Inventory, identifier: _Identifier, progress: Progress | None) -> Iterator[Identified]:
    for seen in contents(inventory, identifier, progress=progress):
        if seen.result is None:
            continue
        mime, description, fault = seen.result
        if fault:
            inventory.problems.add(seen.origin, DamagedData(f"{seen.path}: {fault}", origin=seen.origin))
        yield Identified(seen.owner, seen.path, seen.size, seen.sha256, mime, description, seen.origin)


class _Answer(NamedTuple):
    mime: str
    description: str
    fault: str = ""


class _Identifier:
    """Asks libmagic; its handles belong to one thread each."""

    def __init__(self, magic: ModuleType) -> None:
        self._magic = magic
        self._handles = threading.local()

    def __call__(self, data: Data, path: str) -> _Answer:
        handles = self._handles
        if not hasattr(handles, "both"):
            handles.both = self._magic.Magic(mime=True), self._magic.Magic()
        try:
            if os.name == "posix" and data[:4] == _ELF:
                return _Answer(*_ask_about_file(handles.both, data))
            return _Answer(*(handle.from_buffer(data[:_HEAD]) for handle in handles.both))
        except self._magic.MagicException as error:
            return _Answer("application/octet-stream", "data", f"libmagic: {error.message or error}")


def _ask_about_file(handles: tuple[Magic, Magic], data: Data) -> Iterator[str]:
    """Of a program that it can seek in, libmagic tells how it is linked and from which build it is."""
    import tempfile

    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        for handle in handles:
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            yield handle.from_descriptor(file.fileno())


def _load() -> ModuleType:
    """python-magic, with whichever libmagic there is."""
    reason: Exception | None = None
    for helper in (None, "pylibmagic"):  # imported first, it makes its libmagic known to this process
        try:
            if helper is not None:
                importlib.import_module(helper)
            return importlib.import_module("magic")
        except (ImportError, OSError) as error:
            reason = error
    raise UnsupportedFormat(_INSTALL) from reason
