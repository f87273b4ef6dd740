"""The chain of custody: what was done to the evidence, when and with which versions, in an append-only record.

Saved, it is one JSON object per line, in ASCII, keys sorted and without spaces. Each entry carries the SHA-256 of the
entry before it (``previous``) and of its own line without the member ``digest`` (``digest``), so whoever has the last
digest can prove that no line was changed, removed, added or moved since. Keep that digest apart from the file, in the
signed report for example: a file whose end was cut off, or that was written anew as a whole, is valid in itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeAlias

from forensics_lib._version import __version__
from forensics_lib.errors import PathNotFound, VerificationFailed
from forensics_lib.model import Check, Origin
from forensics_lib.table import Table

__all__ = ["Custody", "CustodyEntry", "Detail", "verify_custody"]

Detail: TypeAlias = "bool | int | str | Sequence[Detail] | None"
"""What the details of an entry may hold."""

_NOTHING_BEFORE = "0" * 64
_LONGEST_LINE = 16 << 20
_ENTRY_OVERHEAD = 400  # digests, time and the names of the members
_RECORDED_PACKAGES = ("isal", "oras", "pytsk3", "python-magic", "yara-python")


@dataclass(frozen=True, slots=True)
class CustodyEntry:
    """One thing that was done.

    Attributes:
        sequence: 1 for the first entry; the number of its line in the saved file.
        time: when it was done, by the clock of the examiner's machine (aware UTC).
        action: what was done, e.g. ``open``, ``extract``.
        subject: to what.
        details: everything else, a JSON object as text with sorted keys.
        previous: SHA-256 of the entry before; zeros for the first.
        digest: SHA-256 of this entry's line without this member.
    """

    sequence: int
    time: datetime
    action: str
    subject: str
    details: str
    previous: str
    digest: str


class Custody:
    """The record of one examination; entries are added to its end and never changed. Safe to use from threads."""

    def __init__(self) -> None:
        """Start an empty record; the versions in use are recorded together with the first entry."""
        self._entries: list[CustodyEntry] = []
        self._pending: list[tuple[datetime, str, str, str]] = []
        self._versions_recorded = False
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """How long it is, and the digest that stands for it."""
        entries = self._chained()
        return f"Custody({len(entries)} entries, {self.digest[:12]})"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Custody:
        """A saved record, to be continued; its next entry is preceded by one of the versions then in use.

        Raises:
            PathNotFound: no such file.
            VerificationFailed: a line is broken; `verify_custody` lists all of them.
        """
        custody = cls()
        for check, entry in _verified(_lines(_existing(path)), Origin(str(path))):
            if entry is None or not check.ok:
                message = f"{check.origin}: {check.subject}: {check.expected} expected, {check.actual} found"
                raise VerificationFailed(message, expected=check.expected, actual=check.actual)
            custody._entries.append(entry)
        return custody

    @property
    def entries(self) -> Table[CustodyEntry]:
        """All entries up to now, oldest first."""
        return Table(CustodyEntry, self._chained(), name="custody")

    @property
    def digest(self) -> str:
        """The digest of the last entry, which stands for the whole record; zeros while it is empty."""
        entries = self._chained()
        return entries[-1].digest if entries else _NOTHING_BEFORE

    def record(self, action: str, subject: str, **details: Detail) -> None:
        """Add an entry with the present time; it is chained to the others when the record is next looked at.

        Raises:
            TypeError: a detail is nothing that JSON knows; nothing was recorded.
            ValueError: the entry is longer than a line of the saved file may be (16 MiB).
        """
        text = _dumps(details)
        length = len(_dumps([action, subject])) + len(text) + _ENTRY_OVERHEAD
        if length > _LONGEST_LINE:
            raise ValueError(f"a custody entry of {length} bytes; the limit is {_LONGEST_LINE}")
        with self._lock:
            self._pending.append((datetime.now(UTC), action, subject, text))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record to a file; where the file holds its beginning, only what is missing is added.

        Raises:
            VerificationFailed: the file holds something else; it was left as it is.
        """
        entries = self._chained()
        lines = b"".join(map(_line, entries))
        with Path(path).open("a+b") as file:
            file.seek(0)
            present = file.read(len(lines) + 1)
            if not lines.startswith(present):
                raise VerificationFailed(f"{path} is not the beginning of this custody record; it was left as it is")
            file.write(lines[len(present) :])
            file.flush()
            os.fsync(file.fileno())

    def verify(self) -> Table[Check]:
        """Recompute the chain as it is in memory; see `verify_custody` for a saved one."""
        entries = self._chained()
        origin = Origin("custody record in memory")
        return Table(Check, lambda: _checks(map(_line, entries), origin), name="custody checks")

    def _chained(self) -> tuple[CustodyEntry, ...]:
        """All entries; looking up the versions and hashing wait until here, so that recording costs nothing."""
        with self._lock:
            if self._pending and not self._versions_recorded:
                self._append(self._pending[0][0], "session", "forensics_lib", _dumps(_versions()))
                self._versions_recorded = True
            for event in self._pending:
                self._append(*event)
            self._pending.clear()
            return tuple(self._entries)

    def _append(self, time: datetime, action: str, subject: str, details: str) -> None:
        previous = self._entries[-1].digest if self._entries else _NOTHING_BEFORE
        entry = CustodyEntry(len(self._entries) + 1, time, action, subject, details, previous, "")
        self._entries.append(replace(entry, digest=_digest(entry)))


def verify_custody(path: str | os.PathLike[str]) -> Table[Check]:
    """One check for each line of a saved record; those that are not ok name the broken lines.

    Raises:
        PathNotFound: no such file.
    """
    file = _existing(path)
    return Table(Check, lambda: _checks(_lines(file), Origin(str(path))), name="custody checks")


def _existing(path: str | os.PathLike[str]) -> Path:
    if not Path(path).is_file():
        raise PathNotFound(f"no custody record at {path}")
    return Path(path)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from iter(partial(file.readline, _LONGEST_LINE), b"")


def _checks(lines: Iterable[bytes], origin: Origin) -> Iterator[Check]:
    return (check for check, _ in _verified(lines, origin))


def _verified(lines: Iterable[bytes], origin: Origin) -> Iterator[tuple[Check, CustodyEntry | None]]:
    sequence, previous, offset = 1, _NOTHING_BEFORE, 0
    for number, line in enumerate(lines, 1):
        entry = _parse(line)
        yield _check(line, entry, sequence, previous, origin.to(f"line {number}", offset)), entry
        # What the line says of itself, so that the fault of one line is not counted against all that follow.
        sequence, previous = (entry.sequence + 1, entry.digest) if entry else (sequence + 1, "")
        offset += len(line)
    if not offset:
        yield Check("custody record", "at least one entry", "none", False, origin), None


def _check(line: bytes, entry: CustodyEntry | None, sequence: int, previous: str, origin: Origin) -> Check:
    """The first fault of a line, else its digest; `previous` is empty after a line that could not be read."""
    if entry is None:
        return Check("form", "a custody entry in canonical form", "something else", False, origin)
    found = {
        "digest": (entry.digest, _digest(entry)),
        "previous": (entry.previous, previous or entry.previous),
        "sequence": (str(entry.sequence), str(sequence)),
    }
    for member, (expected, actual) in found.items():
        if expected != actual:
            return Check(f"entry {entry.sequence} {member}", expected, actual, False, origin)
    return Check(f"entry {entry.sequence} digest", entry.digest, entry.digest, True, origin)


def _parse(line: bytes) -> CustodyEntry | None:
    """The entry of a line; None for anything that `save` would not have written just so."""
    try:
        member = json.loads(line)
        moment = datetime.fromisoformat(member["time"]).astimezone(UTC)
        texts = [member[name] for name in ("action", "subject", "previous", "digest")]
        if type(member["sequence"]) is not int or not all(isinstance(text, str) for text in texts):
            return None
        action, subject, previous, digest = texts
        details = _dumps(member["details"])
        entry = CustodyEntry(member["sequence"], moment, action, subject, details, previous, digest)
        return entry if _line(entry) == line else None
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _line(entry: CustodyEntry) -> bytes:
    return _dumps({**_members(entry), "digest": entry.digest}).encode("ascii") + b"\n"


def _digest(entry: CustodyEntry) -> str:
    return hashlib.sha256(_dumps(_members(entry)).encode("ascii")).hexdigest()


def _members(entry: CustodyEntry) -> dict[str, object]:
    return {
        "sequence": entry.sequence,
        "time": entry.time.isoformat(timespec="microseconds"),
        "action": entry.action,
        "subject": entry.subject,
        "details": json.loads(entry.details),
        "previous": entry.previous,
    }


def _dumps(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _versions() -> dict[str, str]:
    # Imported here: recording is common, but many a program imports the library and records nothing.
    import platform
    from importlib import metadata

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "not installed"

    return {
        "forensics_lib": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
    } | {package: version(package) for package in _RECORDED_PACKAGES}
