"""Tar archives made byte by byte, right ones and wrong ones.

>>> archive = TarMaker().dir("etc/").file("etc/hostname", b"web\\n").symlink("host", "etc/hostname").end()
>>> len(archive) // 512  # three headers, one block of content, two of the end marker
6
>>> archive = TarMaker("pax").file("a", b"1", mtime="1.5", xattrs={"user.k": b"v"}).end()
>>> archive = TarMaker("gnu").gnu_long("x" * 300).file("short", b"1").end()
>>> archive = TarMaker().pax({"path": "real"}).file("short").raw(b"garbage").end()

A number may be given as bytes, which are then the field itself: ``size=b"0000012\\0"``, ``uid=base256(-2, 8)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypedDict, Unpack

__all__ = ["Fields", "TarMaker", "base256", "header", "octal", "pax_header", "pax_record"]

BLOCK = 512
Format = Literal["v7", "ustar", "pax", "gnu", "star"]
Text = str | bytes
Number = int | bytes
Parts = Sequence[tuple[int, int]]
Records = Mapping[str, Text] | Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[Text, Text]] | bytes


class Fields(TypedDict, total=False):
    """What a header can hold besides name and type; a number as bytes is the field itself."""

    size: Number
    mode: Number
    uid: Number
    gid: Number
    mtime: Number | str
    linkname: Text
    uname: Text
    gname: Text
    major: Number
    minor: Number
    atime: Number
    ctime: Number
    extra: Mapping[int, bytes]
    checksum: Literal["unsigned", "signed"] | bytes


_MAGIC = {"v7": b"", "ustar": b"ustar\x0000", "pax": b"ustar\x0000", "gnu": b"ustar  \0", "star": b"ustar\x0000"}


class TarMaker:
    """An archive that grows with every call; `end` gives its bytes.

    Args:
        format: how headers are written. Names and numbers that do not fit are stored as that format does it: with a
            prefix (ustar, star), in records (pax), in a long-name member or base-256 (gnu).
        fields: fields of every header, such as ``mtime=1`` or ``uname="root"``.
    """

    def __init__(self, format: Format = "ustar", **fields: Unpack[Fields]) -> None:
        self.format: Format = format
        self._fields = fields
        self._data = bytearray()

    # members

    def file(
        self, name: Text, data: bytes = b"", *, xattrs: Mapping[str, bytes] | None = None, **fields: Unpack[Fields]
    ) -> TarMaker:
        return self.member(name, "0", data, xattrs=xattrs, **fields)

    def dir(self, name: Text, **fields: Unpack[Fields]) -> TarMaker:
        return self.member(name, "5", **Fields(mode=0o755) | fields)

    def symlink(self, name: Text, target: Text, **fields: Unpack[Fields]) -> TarMaker:
        return self.member(name, "2", **Fields(mode=0o777, linkname=target) | fields)

    def hardlink(self, name: Text, target: Text, **fields: Unpack[Fields]) -> TarMaker:
        return self.member(name, "1", **Fields(linkname=target) | fields)

    def device(self, name: Text, typeflag: Literal["3", "4"], **fields: Unpack[Fields]) -> TarMaker:
        return self.member(name, typeflag, **fields)

    def fifo(self, name: Text, **fields: Unpack[Fields]) -> TarMaker:
        return self.member(name, "6", **fields)

    def member(
        self,
        name: Text,
        typeflag: Text,
        data: bytes = b"",
        *,
        xattrs: Mapping[str, bytes] | None = None,
        **fields: Unpack[Fields],
    ) -> TarMaker:
        """Any member: header, content and padding. A stated ``size`` may differ from that of `data`."""
        every = Fields(size=len(data)) | self._fields | fields
        raw = _bytes(name)
        records: dict[str, Text] = {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
        link = _bytes(every.get("linkname", b""))
        if self.format == "gnu":
            if len(link) > 100:
                self.gnu_long(link=link)
            if len(raw) > 100:
                self.gnu_long(raw)
        if self.format == "pax":
            records |= _records_for(raw, link, every)
        if records:
            self.pax(records)
        self._data += header(raw, typeflag, format=self.format, **every)
        return self.content(data)

    def content(self, data: bytes) -> TarMaker:
        """Bytes, padded to whole blocks with zeros."""
        return self.raw(data + bytes(-len(data) % BLOCK))

    # extension headers

    def pax(self, records: Records, typeflag: str = "x", **fields: Unpack[Fields]) -> TarMaker:
        """Records for the next member; as bytes they are the whole content of the extended header."""
        self._data += pax_header(records, typeflag, **fields)
        return self

    def global_pax(self, records: Records, **fields: Unpack[Fields]) -> TarMaker:
        """Records for all later members."""
        return self.pax(records, "g", **fields)

    def gnu_long(self, name: Text | None = None, link: Text | None = None) -> TarMaker:
        """GNU's long name or long link of the next member."""
        for typeflag, text in (("K", link), ("L", name)):
            if text is not None:
                data = _bytes(text) + b"\0"
                self._data += header("././@LongLink", typeflag, size=len(data), format="gnu")
                self.content(data)
        return self

    # sparse files: parts are (offset, length), total is the size with all holes, data is what is stored of the parts

    def gnu_sparse(self, name: Text, parts: Parts, total: int, data: bytes, **fields: Unpack[Fields]) -> TarMaker:
        """GNU's old format: four parts in the header, 21 in each block after it."""
        blocks = [parts[start : start + 21] for start in range(4, len(parts), 21)]
        table = _old_parts(parts[:4], 4) + (b"\1" if blocks else b"\0") + _field(total, 12, "gnu")
        every = Fields(size=len(data), extra={386: table}) | fields
        self._data += header(_bytes(name), "S", format="gnu", **every)
        for index, block in enumerate(blocks):
            self._data += _old_parts(block, 21) + (b"\1" if index + 1 < len(blocks) else b"\0") + bytes(7)
        return self.content(data)

    def star_sparse(self, name: Text, parts: Parts, total: int, data: bytes) -> TarMaker:
        """Star's format of the same idea: four parts at another place of the header, 21 in each block after it."""
        blocks = [parts[start : start + 21] for start in range(4, len(parts), 21)]
        extra = {355: (b"\1" if blocks else b"\0") + _old_parts(parts[:4], 4) + _field(total, 12, "gnu")}
        self._data += header(_bytes(name), "S", size=len(data), format="star", atime=0, ctime=0, extra=extra)
        for index, block in enumerate(blocks):
            self._data += _old_parts(block, 21) + (b"\1" if index + 1 < len(blocks) else b"\0") + bytes(7)
        return self.content(data)

    def pax_sparse(self, name: str, parts: Parts, total: int, data: bytes, version: str = "1.0") -> TarMaker:
        """A sparse file in pax records: version 0.0, 0.1 or 1.0."""
        flat = [str(number) for part in parts for number in part]
        records: list[tuple[Text, Text]] = []
        if version == "1.0":
            records = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", name)]
            records.append(("GNU.sparse.realsize", str(total)))
            table = "".join(f"{line}\n" for line in (str(len(parts)), *flat)).encode()
            data = table + bytes(-len(table) % BLOCK) + data
        else:
            records = [("GNU.sparse.size", str(total)), ("GNU.sparse.numblocks", str(len(parts)))]
            if version == "0.1":
                records += [("GNU.sparse.name", name), ("GNU.sparse.map", ",".join(flat))]
            else:
                for offset, length in parts:
                    records += [("GNU.sparse.offset", str(offset)), ("GNU.sparse.numbytes", str(length))]
        shown = name if version == "0.0" else f"GNUSparseFile.1/{name}"
        return self.pax(records).member(shown, "0", data)

    # the rest

    def raw(self, data: bytes) -> TarMaker:
        """Bytes as they are: garbage, zero blocks, a broken header, another archive."""
        self._data += data
        return self

    def damage(self, offset: int, data: bytes) -> TarMaker:
        """Overwrite what was made already; a negative offset counts from the end."""
        start = offset % len(self._data) if self._data else 0
        self._data[start : start + len(data)] = data
        return self

    def __len__(self) -> int:
        """Bytes made so far: where the next member's header will lie."""
        return len(self._data)

    def __bytes__(self) -> bytes:
        """What was made, without an end-of-archive marker."""
        return bytes(self._data)

    def end(self, blocks: int = 2) -> bytes:
        """The archive with its end-of-archive marker."""
        return bytes(self._data) + bytes(blocks * BLOCK)


def header(
    name: Text,
    typeflag: Text = "0",
    *,
    format: Format = "ustar",
    **fields: Unpack[Fields],
) -> bytes:
    """One header block. The ``extra`` field is laid over it, by offset, before the checksum is made."""
    raw, prefix = _bytes(name), b""
    if len(raw) > 100 and format in ("ustar", "star"):
        prefix, raw = _split(raw, 155 if format == "ustar" else 131)
    block = bytearray(BLOCK)

    def put(offset: int, data: bytes) -> None:
        block[offset : offset + len(data)] = data

    put(0, raw[:100])
    put(100, _field(fields.get("mode", 0o644), 8, format))
    put(108, _field(fields.get("uid", 0), 8, format))
    put(116, _field(fields.get("gid", 0), 8, format))
    put(124, _field(fields.get("size", 0), 12, format))
    mtime = fields.get("mtime", 0)
    put(136, _field(int(float(mtime)) if isinstance(mtime, str) else mtime, 12, format))
    put(156, _bytes(typeflag))
    put(157, _bytes(fields.get("linkname", b""))[:100])
    put(257, _MAGIC[format])
    if format != "v7":
        put(265, _bytes(fields.get("uname", b""))[:32])
        put(297, _bytes(fields.get("gname", b""))[:32])
        put(329, _field(fields.get("major", 0), 8, format))
        put(337, _field(fields.get("minor", 0), 8, format))
    put(345, prefix)
    if format == "star":
        put(476, _field(fields.get("atime", 0), 12, "star")[:11] + b" ")
        put(488, _field(fields.get("ctime", 0), 12, "star")[:11] + b" ")
        put(508, b"tar\0")
    elif format == "gnu":
        put(345, _field(fields["atime"], 12, "gnu") if "atime" in fields else b"")
        put(357, _field(fields["ctime"], 12, "gnu") if "ctime" in fields else b"")
    for offset, data in fields.get("extra", {}).items():
        put(offset, data)
    put(148, b" " * 8)
    checksum = fields.get("checksum", "unsigned")
    if isinstance(checksum, bytes):
        put(148, checksum)
    else:
        total = sum(block) - (256 * sum(byte >> 7 for byte in block) if checksum == "signed" else 0)
        put(148, b"%06o\0 " % total if total >= 0 else base256(total, 8))
    return bytes(block)


def pax_header(records: Records, typeflag: str = "x", **fields: Unpack[Fields]) -> bytes:
    """An extended header: its header block, its records and their padding."""
    if not isinstance(records, bytes):
        pairs = records.items() if isinstance(records, Mapping) else records
        records = b"".join(pax_record(key, value) for key, value in pairs)
    block = header("PaxHeaders/x", typeflag, **Fields(size=len(records)) | fields)
    return block + records + bytes(-len(records) % BLOCK)


def pax_record(key: Text, value: Text) -> bytes:
    """``length key=value newline``; the length counts its own digits.

    >>> pax_record("path", "a"), pax_record("k", "x" * 93)[:4]
    (b'9 path=a\\n', b'99 k')
    """
    body = b" " + _bytes(key) + b"=" + _bytes(value) + b"\n"
    length = len(body)
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return b"%d" % length + body


def octal(value: int, width: int, end: bytes = b"\0") -> bytes:
    """A number field as POSIX has it: octal digits with leading zeros.

    >>> octal(8, 8), octal(8, 8, b" \\0")
    (b'0000010\\x00', b'000010 \\x00')
    """
    digits = b"%0*o" % (width - len(end), value)
    if len(digits) + len(end) > width or value < 0:
        raise ValueError(f"{value} does not fit in {width} bytes")
    return digits + end


def base256(value: int, width: int) -> bytes:
    """A number field as GNU and star write what octal digits cannot hold.

    >>> base256(-1, 4), base256(256, 4)
    (b'\\xff\\xff\\xff\\xff', b'\\x80\\x00\\x01\\x00')
    """
    data = bytearray((value % (1 << (8 * width))).to_bytes(width, "big"))
    data[0] |= 0x80
    return bytes(data)


def _bytes(text: object) -> bytes:
    assert isinstance(text, str | bytes)
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


def _field(value: Number, width: int, format: Format) -> bytes:
    if isinstance(value, bytes):
        return value.ljust(width, b"\0")
    if 0 <= value < 1 << (3 * (width - 1)):
        return octal(value, width)
    if format in ("gnu", "star"):
        return base256(value, width)
    if format == "pax":
        return octal(0, width)  # the record holds it
    raise ValueError(f"{value} does not fit in a {format} header")


def _split(name: bytes, room: int) -> tuple[bytes, bytes]:
    cut = name.find(b"/", len(name) - 101)
    if not 0 < cut <= room:
        raise ValueError(f"{name!r} does not fit in prefix and name")
    return name[:cut], name[cut + 1 :]


def _records_for(name: bytes, link: bytes, fields: Fields) -> dict[str, Text]:
    records: dict[str, Text] = {}
    if len(name) > 100 or not name.isascii():
        records["path"] = name
    if len(link) > 100 or not link.isascii():
        records["linkpath"] = link
    for key, width in (("uid", 8), ("gid", 8), ("size", 12), ("mtime", 12)):
        value = fields.get(key, 0)
        if isinstance(value, str) or (isinstance(value, int) and not 0 <= value < 1 << (3 * (width - 1))):
            records[key] = str(value)
    return records


def _old_parts(parts: Parts, room: int) -> bytes:
    table = b"".join(_field(offset, 12, "gnu") + _field(length, 12, "gnu") for offset, length in parts)
    return table.ljust(24 * room, b"\0")
