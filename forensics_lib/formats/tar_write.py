"""Writing tar archives: the same members always give the same bytes.

ustar headers (POSIX.1-2017 pax, "ustar Interchange Format"), preceded by a pax extended header only where one is
needed: names that are too long or not ASCII, numbers beyond the octal fields, fractions of seconds, extended attributes
(``SCHILY.xattr.``, as star, GNU tar and container engines write them). Nothing of the examiner's system goes into an
archive. Not written: sparse files, owners' names.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote_from_bytes

from forensics_lib.errors import DamagedData, UnsupportedFormat
from forensics_lib.formats.tar_header import BLOCK_SIZE

__all__ = ["END_OF_ARCHIVE", "TarMember", "archive", "header", "padding"]

END_OF_ARCHIVE = bytes(2 * BLOCK_SIZE)
_NAME, _PREFIX = 100, 155
_SECOND = 10**9


@dataclass(frozen=True, slots=True)
class TarMember:
    """What a header says of one member.

    Attributes:
        name: as it is stored, that of a directory with a slash at its end; undecodable bytes as surrogates.
        typeflag: ``0`` file, ``1`` hard link, ``2`` symbolic link, ``3`` character device, ``4`` block device,
            ``5`` directory, ``6`` FIFO.
        size: bytes of content that follow.
        mode: permission bits.
        uid: owner's number.
        gid: group's number.
        mtime_ns: time of last change, nanoseconds since 1970.
        linkname: what a link points to.
        rdev: major and minor number of a device.
        xattrs: extended attributes by full name.
    """

    name: str
    typeflag: str = "0"
    size: int = 0
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    linkname: str = ""
    rdev: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


def archive(members: Iterable[tuple[TarMember, Iterable[bytes]]]) -> Iterator[bytes]:
    """A whole archive, piece by piece, from members with their content.

    Raises:
        UnsupportedFormat: a name that no archive can hold.
        DamagedData: a content is longer or shorter than its member says; what was handed out is no archive.
    """
    for member, content in members:
        yield header(member)
        left = member.size
        for piece in content:
            left -= len(piece)
            if left < 0:
                break
            yield piece
        if left:
            fault = f"{left} bytes are missing" if left > 0 else "there is more"
            raise DamagedData(f"{member.name}: its content is not the {member.size} bytes it should be: {fault}")
        yield padding(member.size)
    yield END_OF_ARCHIVE


def padding(size: int) -> bytes:
    """The zeros that follow a content of so many bytes."""
    return bytes(-size % BLOCK_SIZE)


def header(member: TarMember) -> bytes:
    """The header of a member, with the extended header before it where it needs one.

    Raises:
        UnsupportedFormat: its name or link target is empty or contains NUL, which no archive can hold.
    """
    name, link = _bytes(member.name), _bytes(member.linkname)
    if not name or b"\0" in name + link:
        raise UnsupportedFormat(f"{member.name!r}: no archive can hold this name or its target {member.linkname!r}")
    records: dict[bytes, bytes] = {}
    prefix, stem = b"", name
    if not name.isascii() or (parts := _split(name)) is None:
        records[b"path"], stem = name, _shortened(name)
    else:
        prefix, stem = parts
    if len(link) > _NAME or not link.isascii():
        records[b"linkpath"], link = link, _shortened(link)
    block = bytearray(BLOCK_SIZE)
    block[0 : len(stem)] = stem
    block[100:108] = _octal(member.mode & 0o7777, 8)
    block[108:116] = _number(b"uid", member.uid, 8, records)
    block[116:124] = _number(b"gid", member.gid, 8, records)
    block[124:136] = _number(b"size", member.size, 12, records)
    block[136:148] = _number(b"mtime", member.mtime_ns // _SECOND, 12, records)
    if member.mtime_ns % _SECOND:
        records[b"mtime"] = _seconds(member.mtime_ns)
    block[148:156] = b"        "
    block[156:157] = member.typeflag.encode("ascii")
    block[157 : 157 + len(link)] = link
    block[257:265] = b"ustar\x0000"
    block[329:337] = _number(b"SCHILY.devmajor", member.rdev[0], 8, records)
    block[337:345] = _number(b"SCHILY.devminor", member.rdev[1], 8, records)
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b"%06o\0 " % sum(block)
    for key, value in sorted(member.xattrs.items()):
        records |= _attribute(_bytes(key), value)
    return _extended(records, name) + block


def _extended(records: Mapping[bytes, bytes], name: bytes) -> bytes:
    """The extended header that holds the records; nothing where there are none."""
    if not records:
        return b""
    texts = [records[key] for key in (b"path", b"linkpath") if key in records]
    charset = {} if all(map(_is_utf8, texts)) else {b"hdrcharset": b"BINARY"}
    data = b"".join(_record(key, value) for key, value in {**charset, **records}.items())
    own = TarMember(f"PaxHeaders.0/{_shortened(name.rstrip(b'/').rpartition(b'/')[2])[:80].decode()}", "x")
    return header(replace(own, size=len(data))) + data + padding(len(data))


def _record(key: bytes, value: bytes) -> bytes:
    """One record, whose length counts its own digits.

    >>> _record(b"path", b"x" * 90)[:8], _record(b"path", b"x" * 91)[:9]
    (b'99 path=', b'101 path=')
    """
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %b=%b\n" % (length, key, value)


def _attribute(name: bytes, value: bytes) -> dict[bytes, bytes]:
    """The record of an attribute; a key ends at its first ``=``, so such names are written as libarchive does."""
    if b"=" in name or b"\0" in name:
        return {b"LIBARCHIVE.xattr." + quote_from_bytes(name).encode("ascii"): base64.b64encode(value)}
    return {b"SCHILY.xattr." + name: value}


def _number(key: bytes, value: int, width: int, records: dict[bytes, bytes]) -> bytes:
    """A number field; what does not fit goes to the records."""
    if 0 <= value < 8 ** (width - 1):
        return _octal(value, width)
    records[key] = b"%d" % value
    return _octal(0, width)


def _octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def _seconds(nanoseconds: int) -> bytes:
    """Nanoseconds as decimal seconds.

    >>> _seconds(1_500_000_000), _seconds(-1)
    (b'1.5', b'-0.000000001')
    """
    whole, fraction = divmod(abs(nanoseconds), _SECOND)
    return f"{'-' if nanoseconds < 0 else ''}{whole}.{fraction:09}".rstrip("0").encode("ascii")


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Prefix and name of a header; None when the name fits in no header."""
    if len(name) <= _NAME:
        return b"", name
    cut = name.find(b"/", len(name) - _NAME - 1)
    return (name[:cut], name[cut + 1 :]) if 0 < cut <= _PREFIX and cut + 1 < len(name) else None


def _shortened(name: bytes) -> bytes:
    """What stands in the field of a name that a record holds, for tools that know no records."""
    return bytes(byte if 0x20 <= byte < 0x7F else 0x5F for byte in name[-_NAME:])


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
