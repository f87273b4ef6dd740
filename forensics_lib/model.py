"""The small row types that every part of the library shares: where a fact comes from, and what went wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from forensics_lib._frozen import maker, quick
from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded

__all__ = [
    "ArtifactHash",
    "Check",
    "EvidenceKind",
    "Origin",
    "Problem",
    "ProblemLog",
    "Progress",
    "make_origin",
    "utc_from_ns",
]

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in total) while long work goes on."""


class EvidenceKind(StrEnum):
    """What kind of evidence was opened."""

    DOCKER_ARCHIVE = "docker-archive"
    OCI_LAYOUT = "oci-layout"
    IMAGE_DIR = "image-dir"
    DOCKER_ROOT = "docker-root"
    CONTAINERD_ROOT = "containerd-root"
    DISK_IMAGE = "disk-image"
    FILESYSTEM_TREE = "filesystem-tree"


@quick
@dataclass(frozen=True, slots=True)
class Origin:
    """The chain from the evidence file to the bytes that prove a fact; a second examiner can follow it by hand.

    Attributes:
        label: this step, e.g. a file name, ``gzip`` or ``blobs/sha256/…``.
        parent: the step before it; None for the evidence file itself.
        offset: byte offset of this step inside its parent; None where it has none.
    """

    label: str
    parent: Origin | None = None
    offset: int | None = None

    def __str__(self) -> str:
        """All steps, outermost first, joined by `` > ``."""
        steps: list[str] = []
        step: Origin | None = self
        while step is not None:
            steps.append(step.label if step.offset is None else f"{step.label} @{step.offset}")
            step = step.parent
        return " > ".join(reversed(steps))

    def to(self, label: str, offset: int | None = None) -> Origin:
        """The next step of the chain; a file of a folder whose path is the last step already gets no second one."""
        if offset is None and label == self.label and self.offset is None and self.parent is not None:
            return self
        return Origin(label, self, offset)


make_origin = maker(Origin)
"""`Origin`, made in less time: for walks."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something of the evidence that could not be read, or contradicts itself; the rest was read.

    Attributes:
        origin: where.
        message: what and why, for a person.
        error: the exception behind it, for a program.
    """

    origin: Origin
    message: str
    error: ForensicsError


@dataclass(frozen=True, slots=True)
class Check:
    """One stored digest, size or count, recomputed.

    Attributes:
        subject: what was checked, e.g. ``blob sha256:… digest``.
        expected: what the evidence says.
        actual: what was computed.
        ok: whether both agree.
        origin: where the checked bytes are.
    """

    subject: str
    expected: str
    actual: str
    ok: bool
    origin: Origin


@dataclass(frozen=True, slots=True)
class ArtifactHash:
    """The digests of one artifact: a file of a layer, a blob, a layer's uncompressed stream or the evidence itself.

    Attributes:
        owner: what the artifact belongs to: a layer's digest for its files, the evidence's name for blobs.
        path: path inside the owner.
        kind: ``file``, ``blob``, ``layer``, ``evidence`` (the file as stored) or ``media`` (the disk in an image).
        size: bytes that were hashed.
        md5: hexadecimal, or None when not asked for.
        sha1: hexadecimal, or None when not asked for.
        sha256: hexadecimal, or None when not asked for.
        origin: where the bytes are.
        others: (algorithm, hexadecimal) of further algorithms that were asked for.
    """

    owner: str
    path: str
    kind: str
    size: int
    md5: str | None
    sha1: str | None
    sha256: str | None
    origin: Origin
    others: tuple[tuple[str, str], ...] = ()

    def digest(self, algorithm: str) -> str | None:
        """The digest by algorithm name, e.g. ``sha512``; None when it was not computed."""
        if algorithm in ("md5", "sha1", "sha256"):
            value: str | None = getattr(self, algorithm)
            return value
        return dict(self.others).get(algorithm)


_MAX_PROBLEMS = 100_000


class ProblemLog:
    """Collects problems in the order they are found; the same fault is kept once. Safe to use from threads.

    Args:
        strict: raise at the first problem instead of keeping it.
    """

    def __init__(self, *, strict: bool = False) -> None:
        """Start with an empty log."""
        self.strict = strict
        self._rows: list[Problem] = []
        self._deferred: list[Callable[[], None]] = []
        self._seen: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    @property
    def rows(self) -> list[Problem]:
        """The problems so far; runs the checks that were put off."""
        while self._deferred:
            self._deferred.pop(0)()
        return self._rows

    def defer(self, check: Callable[[], None]) -> None:
        """Put a check off until somebody asks for problems; a strict log runs it now."""
        if self.strict:
            check()
        else:
            self._deferred.append(check)

    def add(self, origin: Origin, error: ForensicsError | str) -> None:
        """Record one problem; text stands for damaged data.

        Raises:
            ForensicsError: at once, when the log is strict.
        """
        if isinstance(error, str):
            error = DamagedData(error, origin=origin)
        if self.strict:
            raise error
        with self._lock:
            key = (str(origin), str(error))
            if key in self._seen or len(self._rows) > _MAX_PROBLEMS:
                return
            self._seen.add(key)
            if len(self._rows) == _MAX_PROBLEMS:
                error = LimitExceeded(f"more than {_MAX_PROBLEMS} problems; no more are listed")
            self._rows.append(Problem(origin, str(error), error))
        cause: BaseException | None = error
        while cause is not None and cause.__traceback__ is not None:  # its frames hold what was being read
            cause.__traceback__, cause = None, cause.__cause__ or cause.__context__


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def utc_from_ns(nanoseconds: int | None) -> datetime | None:
    """Aware UTC time for people (cut to microseconds); None for unknown or outside years 1 to 9999."""
    if nanoseconds is None:
        return None
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return None
