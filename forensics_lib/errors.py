"""Every exception the library raises.

ForensicsError
├── UnsupportedFormat                    nothing recognises this, or a feature of it cannot be read here
├── DamagedData                          recognised, but the bytes contradict the format   (.origin, .offset)
│   └── LimitExceeded                    a bomb, a cycle, a depth or count beyond its limit
├── NotFound (KeyError)                  no such image, container, layer or path
│   └── PathNotFound (FileNotFoundError)
├── NotAFile (OSError)                   the path exists, but has no content to read
├── AmbiguousName (LookupError)          the name or id prefix fits several                (.candidates)
├── VerificationFailed                   a stored digest or size is not the computed one   (.expected, .actual)
├── EvidenceChanged                      the evidence was written to while it was read
└── MissingExtra (ModuleNotFoundError)   an optional package is not installed              (.extra)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forensics_lib.model import Origin

__all__ = [
    "AmbiguousName",
    "DamagedData",
    "EvidenceChanged",
    "ForensicsError",
    "LimitExceeded",
    "MissingExtra",
    "NotAFile",
    "NotFound",
    "PathNotFound",
    "UnsupportedFormat",
    "VerificationFailed",
]


class ForensicsError(Exception):
    """Base of every exception of this library."""

    def __str__(self) -> str:
        """The message itself (a KeyError would show it quoted); what evidence put in it can do nothing to a screen."""
        text = str(self.args[0]) if self.args else type(self).__name__
        if text.isprintable():
            return text
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class UnsupportedFormat(ForensicsError):
    """Nothing recognises the evidence, or a feature of it cannot be read here; the message says which and why."""


class DamagedData(ForensicsError):
    """The format was recognised, but its bytes contradict the specification.

    Attributes:
        origin: where the bytes are, when known.
        offset: byte offset inside that place, when known.
    """

    def __init__(self, message: str, *, origin: Origin | None = None, offset: int | None = None) -> None:
        """Keep where the damage lies beside the message."""
        super().__init__(message)
        self.origin = origin
        self.offset = offset

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the keyword-only attributes, so that workers can hand errors back."""
        return (_rebuild, (type(self), str(self), {"origin": self.origin, "offset": self.offset}))


class LimitExceeded(DamagedData):
    """The evidence asks for more than a bound allows: a decompression bomb, a cycle, a depth or a count."""


class NotFound(ForensicsError, KeyError):
    """No image, container, layer or path of that name."""


class PathNotFound(NotFound, FileNotFoundError):
    """No such path in the tree or on disk."""


class NotAFile(ForensicsError, OSError):
    """The path exists but is no regular file, so there is no content to read."""


class AmbiguousName(ForensicsError, LookupError):
    """A name or id prefix fits more than one object.

    Attributes:
        candidates: the full names or ids it fits.
    """

    def __init__(self, message: str, candidates: tuple[str, ...] = ()) -> None:
        """Keep the candidates beside the message."""
        super().__init__(message)
        self.candidates = candidates

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the candidates."""
        return (type(self), (str(self), self.candidates))


class VerificationFailed(ForensicsError):
    """A stored digest or size differs from the computed one.

    Attributes:
        expected: what the evidence (or the registry) says.
        actual: what was computed.
    """

    def __init__(self, message: str, *, expected: str = "", actual: str = "") -> None:
        """Keep both values beside the message."""
        super().__init__(message)
        self.expected = expected
        self.actual = actual

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the keyword-only attributes."""
        return (_rebuild, (type(self), str(self), {"expected": self.expected, "actual": self.actual}))


class EvidenceChanged(ForensicsError):
    """The evidence was written to while the library read it; answers from before and after may not agree."""


class MissingExtra(ForensicsError, ModuleNotFoundError):
    """An optional package is needed for this call; the message says what to install."""

    def __init__(self, package: str, extra: str) -> None:
        """Name the package and the extra that brings it."""
        super().__init__(f"{package} is not installed: pip install 'forensics_lib[{extra}]'")
        self.extra = extra

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by package name and extra."""
        return (type(self), (str(self).split(" ", 1)[0], self.extra))


def _rebuild(kind: type[ForensicsError], message: str, attributes: dict[str, object]) -> ForensicsError:
    return kind(message, **attributes)
