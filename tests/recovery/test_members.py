"""Files in recovered archives are rows of their own: as sure and as complete as their archive."""

from __future__ import annotations

import gzip

from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.model import ProblemLog
from forensics_lib.recovery.members import archive_members
from forensics_lib.recovery.remnant import Confidence, Remnant
from tests.recovery.scene import nanoseconds, remnant
from tests.tarmaker import TarMaker


def archive(*files: tuple[str, bytes]) -> bytes:
    tar = TarMaker("ustar", mtime=1795276800)
    for name, content in files:
        tar.file(name, content)
    return tar.dir("etc/").end()


LAYER = archive(("etc/passwd", b"root:x:0:0"), ("tmp/empty", b""), ("./opt/loot", b"L" * 3000))


def members(*remnants: Remnant) -> list[Remnant]:
    return list(archive_members(remnants, ProblemLog(strict=True)))


def test_files_of_a_plain_and_of_a_compressed_layer() -> None:
    for content in (LAYER, gzip.compress(LAYER)):
        found = members(remnant(content, "blobs/x", "layer", confidence=Confidence.VERIFIED, image_id="sha256:1"))
        assert [(one.path, one.size, one.complete) for one in found] == [
            ("etc/passwd", 10, True),
            ("tmp/empty", 0, False),
            ("opt/loot", 3000, True),
        ]
        assert [one.read() for one in found if one.size] == [b"root:x:0:0", b"L" * 3000]
        assert {one.kind for one in found} == {"file"}
        assert found[0].method == "test > tar"
        assert (found[0].confidence, found[1].confidence) == (Confidence.VERIFIED, Confidence.METADATA_ONLY)
        assert (found[0].image_id, found[0].modified_ns) == ("sha256:1", nanoseconds(0))
        assert "in the archive blobs/x" in found[0].detail
        assert "tar member etc/passwd" in str(found[0].origin)


def test_a_file_is_no_more_complete_than_its_archive() -> None:
    (found, *_) = members(remnant(LAYER, "x", complete=False, confidence=Confidence.CARVED))
    assert (found.complete, found.confidence) == (False, Confidence.CARVED)


def test_equal_archives_are_listed_once_and_what_is_none_is_passed_over() -> None:
    other = [remnant(gzip.compress(b"no archive" * 100), "log.gz"), remnant(b"x" * 600, "text"), remnant(None, "gone")]
    assert len(members(remnant(LAYER, "a"), remnant(LAYER, "b"), *other)) == 3


def test_an_archive_in_an_archive() -> None:
    outer = members(remnant(archive(("1/layer.tar", LAYER)), "saved.tar"))
    assert [one.path for one in members(*outer)] == ["etc/passwd", "tmp/empty", "opt/loot"]
    assert members(*outer)[0].method == "test > tar > tar"


@given(st.data())
def test_damaged_archives_give_problems_at_most(data: st.DataObject) -> None:
    packed = data.draw(st.booleans())
    content = bytearray(gzip.compress(LAYER) if packed else LAYER)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    del content[data.draw(st.integers(0, len(content))) :]
    for found in archive_members([remnant(bytes(content), "x", complete=False)], ProblemLog()):
        assert not found.complete
        assert found.sha256 is None or len(found.sha256) == 64
