"""tar-split records: entries, checksums, damage."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded
from forensics_lib.formats import tar_split
from forensics_lib.formats.tar_split import Segment, SplitFile, crc64, decode
from forensics_lib.model import Origin
from tests.engines.docker import rootmaker
from tests.tarmaker import TarMaker

ORIGIN = Origin("tar-split.json.gz")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def lines(*entries: Any) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


def decoded(data: bytes, step: int = 1 << 20) -> list[Segment | SplitFile]:
    return list(decode((data[start : start + step] for start in range(0, len(data), step)), ORIGIN))


def test_entries() -> None:
    crc = (0xB90956C775A41001).to_bytes(8, "big")
    data = lines(
        {"type": 2, "payload": b64(b"header"), "position": 0},
        {"type": 1, "name": "etc/passwd", "size": 9, "payload": b64(crc), "position": 1},
        {"type": 1, "name": "etc/", "payload": None, "position": 2},
        {"type": 1, "name_raw": b64(b"caf\xe9"), "name": "caf?", "size": 1, "payload": b64(crc), "position": 3},
        {"type": 2, "payload": "", "position": 4},
    )
    assert decoded(data) == [
        Segment(b"header"),
        SplitFile(b"etc/passwd", 9, 0xB90956C775A41001),
        SplitFile(b"etc/", 0, None),
        SplitFile(b"caf\xe9", 1, 0xB90956C775A41001),
        Segment(b""),
    ]


@pytest.mark.parametrize("step", [1, 7, 64])
def test_blocks_cut_anywhere(step: int) -> None:
    data = lines(*({"type": 2, "payload": b64(bytes([number]))} for number in range(9)))
    assert decoded(data, step) == [Segment(bytes([number])) for number in range(9)]


def test_empty_lines_and_a_last_line_without_newline() -> None:
    assert decoded(b"\n  \n" + lines({"type": 2, "payload": "YQ=="}).strip()) == [Segment(b"a")]
    assert decoded(b"") == []


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"1",
        b"\xff",
        b'{"type": 3}',
        b"{}",
        b'{"type": 2, "payload": "!"}',
        b'{"type": 2, "payload": "a"}',
        b'{"type": 1, "name": "a", "size": -1}',
    ],
)
def test_damage_says_where(line: bytes) -> None:
    good = lines({"type": 2, "payload": "YQ=="})
    entries = decode([good + line + b"\n"], ORIGIN)
    assert next(entries) == Segment(b"a")
    with pytest.raises(DamagedData) as caught:
        next(entries)
    assert caught.value.origin == ORIGIN


def test_an_entry_of_unknown_type_has_its_offset() -> None:
    good = lines({"type": 2, "payload": "YQ=="})
    with pytest.raises(DamagedData) as caught:
        decoded(good + b'{"type": 9}\n')
    assert caught.value.offset == len(good)


def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_split, "_MAX_LINE", 1000)
    with pytest.raises(LimitExceeded):
        decoded(b"x" * 2000, 100)


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (b"", 0),
        (b"123456789", 0xB90956C775A41001),
        (b"This is a test of the emergency broadcast system.", 0xE7FCF1006B503B61),
    ],
)
def test_crc64(data: bytes, crc: int) -> None:
    """Values of Go's ``hash/crc64`` with the ISO table, and of the catalogue of CRC algorithms."""
    assert crc64([data]) == crc


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_crc64_of_pieces_bit_by_bit(pieces: list[bytes]) -> None:
    assert crc64(pieces) == rootmaker.crc64(b"".join(pieces))


def test_an_archive_is_put_together_again() -> None:
    archive = TarMaker("pax", mtime="1.5").dir("etc/").file("etc/a", b"content").file("n" * 120, bytes(600)).end()
    contents = {b"etc/a": b"content", b"n" * 100: bytes(600)}
    pieces = []
    for entry in decoded(gzip.decompress(rootmaker.tar_split(archive))):
        if isinstance(entry, Segment):
            pieces.append(entry.data)
        elif entry.size:
            content = contents[entry.name]
            assert (entry.size, entry.crc) == (len(content), crc64([content]))
            pieces.append(content)
    assert b"".join(pieces) == archive


@given(st.lists(st.binary(max_size=80), max_size=4))
def test_any_bytes(blocks: list[bytes]) -> None:
    with contextlib.suppress(ForensicsError):
        list(decode(blocks, ORIGIN))


JSON = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
ENTRY = st.fixed_dictionaries(
    {"type": st.sampled_from([1, 2]) | JSON}, optional=dict.fromkeys(("payload", "name", "name_raw", "size"), JSON)
)


@given(ENTRY)
def test_any_entry(entry: dict[str, Any]) -> None:
    try:
        (found,) = decoded(lines(entry))
    except ForensicsError:
        return
    assert isinstance(found, Segment) or found.size >= 0
