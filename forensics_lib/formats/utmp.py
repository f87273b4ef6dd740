"""Records of logins and starts of the machine (``wtmp``), and of each user's last login (``lastlog``).

Format: glibc ``struct utmp`` and ``struct lastlog``, in the form of x86 (384 bytes) and in that of machines where
``time_t`` has 64 bit in it (400 bytes).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["LASTLOG_SIZE", "LoginRecord", "read_utmp", "utmp_size"]

LASTLOG_SIZE = 292

_NARROW = struct.Struct("<hxxi32s4s32s256shhiii16s20x")
_WIDE = struct.Struct("<hxxi32s4s32s256shhqqq16s20x4x")
_TYPES = {1: "run level", 2: "boot", 3: "clock set", 4: "clock was", 5: "init", 6: "getty", 7: "login", 8: "logout"}
_LOOKED_AT = 16
_LATEST = 1 << 33


@dataclass(frozen=True, slots=True)
class LoginRecord:
    """One record.

    Attributes:
        type: ``boot``, ``run level``, ``login``, ``logout``, ``clock set`` …
        pid: process.
        line: terminal; ``~`` for the machine itself.
        user: who; ``reboot`` or ``shutdown`` for the machine itself.
        host: from where; for a boot the kernel's release.
        time_ns: when, nanoseconds since 1970.
        offset: where it lies.
    """

    type: str
    pid: int
    line: str
    user: str
    host: str
    time_ns: int
    offset: int


def utmp_size(head: bytes) -> int:
    """Bytes of a record, as the first records tell: 384 or 400."""

    def fits(form: struct.Struct) -> int:
        count = 0
        for start in range(0, min(len(head) + 1, _LOOKED_AT * form.size) - form.size, form.size):
            kind, _, _, _, _, _, _, _, _, seconds, micros, _ = form.unpack_from(head, start)
            count += kind in _TYPES and 0 < seconds < _LATEST and 0 <= micros < 1_000_000
        return count

    return _WIDE.size if fits(_WIDE) > fits(_NARROW) else _NARROW.size


def read_utmp(blocks: Iterable[bytes], size: int) -> Iterator[LoginRecord]:
    """The records of a file; those that are empty are passed over, as is the rest of one that is cut off.

    Args:
        blocks: the file's bytes.
        size: bytes of a record.
    """
    form = _WIDE if size == _WIDE.size else _NARROW
    offset, held = 0, b""
    for block in blocks:
        held += block
        whole = len(held) - len(held) % size
        for start in range(0, whole, size):
            kind, pid, line, _, user, host, _, _, _, seconds, micros, _ = form.unpack_from(held, start)
            name = _TYPES.get(kind)
            if name is not None:
                time = (seconds * 1_000_000 + micros) * 1000 if 0 <= micros < 1_000_000 else seconds * 10**9
                yield LoginRecord(name, pid, _text(line), _text(user), _text(host), time, offset + start)
        offset, held = offset + whole, held[whole:]


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "backslashreplace")
