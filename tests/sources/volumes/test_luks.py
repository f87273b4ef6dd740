"""Encrypted volumes: recognised, named, and opened with their passphrase."""

from __future__ import annotations

import pickle

import pytest

from forensics_lib.errors import DamagedData, LimitExceeded, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.volumes import VolumeKind, find_volumes, read_superblock
from forensics_lib.sources.volumes.luks import LuksSource, luks_version
from tests.diskmaker import MIB, assert_same, content, fixture, stored

KEY = "open sesame"
PLAIN = 16 << 10


def found(*keys: str, name: str = "luks1.img") -> tuple[list[tuple[VolumeKind, int]], list[str]]:
    problems = ProblemLog()
    volumes = find_volumes(fixture(name), problems, keys=keys)
    return [(volume.kind, volume.size) for volume in volumes], [problem.message for problem in problems.rows]


def test_a_volume_without_a_key_is_named() -> None:
    volumes, problems = found()
    assert [kind for kind, _ in volumes] == [VolumeKind.DISK]
    assert problems == ["the volume is encrypted (LUKS version 1); it can be read with its passphrase"]
    superblock = read_superblock(fixture("luks1.img"))
    assert superblock is not None
    assert superblock.type == "crypto_LUKS"
    assert len(superblock.uuid) == 36


def test_a_wrong_key() -> None:
    pytest.importorskip("pyluksde")
    _, problems = found("wrong", "also wrong")
    assert problems == ["the volume is encrypted (LUKS version 1), and no passphrase given opens it"]


def test_the_plain_side() -> None:
    pytest.importorskip("pyluksde")
    volumes, problems = found("wrong", KEY)
    assert volumes == [(VolumeKind.DISK, fixture("luks1.img").size), (VolumeKind.LUKS, PLAIN)]
    assert problems == []
    plain = find_volumes(fixture("luks1.img"), ProblemLog(), keys=[KEY])[1]
    assert_same(plain.source, content()[:PLAIN], border=512)  # libluksde itself is wrong for most of these
    assert plain.type == "LUKS1"
    assert str(plain.origin) == "luks1.img > LUKS"
    superblock = read_superblock(fixture("luks1.img"))
    assert superblock is not None
    assert plain.uuid == superblock.uuid
    assert pickle.loads(pickle.dumps(plain.source)).read_at(5, 50) == content()[5:55]


def test_a_group_inside_an_encrypted_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain side is searched as well: here it is the physical volume of a group."""
    from forensics_lib.sources.volumes import find

    class Opened(BytesSource):
        uuid = "u"

        def __init__(self, carrier: BytesSource, keys: tuple[str, ...]) -> None:
            super().__init__(stored("pv1.img"), carrier.origin.to("LUKS"))

    monkeypatch.setattr(find, "LuksSource", Opened)
    volumes = find_volumes([fixture("luks1.img"), fixture("pv0.img")], ProblemLog())
    kinds = [volume.kind for volume in volumes]
    assert kinds == [VolumeKind.DISK, VolumeKind.DISK, VolumeKind.LUKS, *[VolumeKind.LVM] * 3]


def test_version_2_is_named() -> None:
    assert luks_version(fixture("luks2.img")) == 2
    superblock = read_superblock(fixture("luks2.img"))
    assert superblock is not None
    assert (superblock.type, superblock.label) == ("crypto_LUKS", "vault")
    message = "the volume is encrypted (LUKS version 2); only version 1 can be opened here"
    assert found(name="luks2.img")[1] == found(KEY, name="luks2.img")[1] == [message]


def test_what_is_no_volume() -> None:
    assert luks_version(BytesSource(b"LUKS", Origin("x"))) is None
    with pytest.raises(UnsupportedFormat, match="magic"):
        LuksSource(BytesSource(bytes(MIB), Origin("x")), [KEY])


@pytest.mark.parametrize("place", [164, 208 + 4])
def test_keys_that_would_take_hours(place: int) -> None:
    data = bytearray(stored("luks1.img"))
    data[place : place + 4] = b"\xff" * 4
    with pytest.raises(LimitExceeded, match="more than 50000000 rounds"):
        LuksSource(BytesSource(bytes(data), Origin("x")), [KEY])


@pytest.mark.parametrize("end", [100, 592, 4096])
def test_a_cut_header(end: int) -> None:
    pytest.importorskip("pyluksde")
    with pytest.raises((DamagedData, UnsupportedFormat)):
        LuksSource(BytesSource(stored("luks1.img")[:end], Origin("x")), [KEY])
