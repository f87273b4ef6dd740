"""Encrypted volumes: recognised, named, and opened with their passphrase."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded, MissingExtra, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.file import FileSource
from forensics_lib.sources.volumes import VolumeKind, find_volumes, read_superblock
from forensics_lib.sources.volumes.dmcrypt import DecryptedSource, check_encryption
from forensics_lib.sources.volumes.luks import LuksSource, luks_version
from tests.diskmaker import MIB, assert_same, content, fixture, stored, tool

KEY = "open sesame"
KEY_FILE = b"\0\xff key file \n"
PLAIN = 16 << 10
PLAIN2 = 64 << 10
START2 = 8 * MIB
SIZE2 = 16 << 10
"""Of a header of version 2."""


@pytest.fixture
def cryptography() -> None:
    pytest.importorskip("cryptography")


def found(*keys: str | bytes, name: str = "luks1.img", data: bytes | None = None) -> tuple[list[Any], list[str]]:
    problems = ProblemLog()
    source = fixture(name) if data is None else BytesSource(data, Origin(name))
    volumes = find_volumes(source, problems, keys=keys)
    return [(volume.kind, volume.size) for volume in volumes], [problem.message for problem in problems.rows]


def opened(data: bytes, *keys: str | bytes) -> LuksSource:
    return LuksSource(BytesSource(data, Origin("x")), keys)


# --- what cryptsetup and qemu-img made --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "about"),
    [
        ("luks1.img", "LUKS version 1, aes-cbc-plain64, keyslots 0 pbkdf2"),
        ("luks2.img", "LUKS version 2, aes-xts-plain64, keyslots 0 argon2id"),
        ("luks2-cbc.img", "LUKS version 2, aes-cbc-essiv:sha256, keyslots 0 argon2i, 1 pbkdf2"),
    ],
)
def test_a_volume_without_a_key_is_named(name: str, about: str) -> None:
    volumes, problems = found(name=name)
    assert [kind for kind, _ in volumes] == [VolumeKind.DISK]
    assert problems == [f"the volume is encrypted ({about}); it can be read with its passphrase"]
    superblock = read_superblock(fixture(name))
    assert superblock is not None
    assert superblock.type == "crypto_LUKS"
    assert len(superblock.uuid) == 36
    assert superblock.label == ("" if name == "luks1.img" else "vault")
    assert luks_version(fixture(name)) == int(name[4])


@pytest.mark.usefixtures("cryptography")
@pytest.mark.parametrize("name", ["luks1.img", "luks2.img", "luks2-cbc.img"])
def test_a_wrong_key(name: str) -> None:
    volumes, (problem,) = found("wrong", b"also wrong", bytes(64), name=name)
    assert len(volumes) == 1
    assert problem.endswith("and no key given opens it")


@pytest.mark.usefixtures("cryptography")
@pytest.mark.parametrize("key", [KEY, KEY.encode()])
def test_the_plain_side(key: str | bytes) -> None:
    volumes, problems = found("wrong", key)
    assert volumes == [(VolumeKind.DISK, fixture("luks1.img").size), (VolumeKind.LUKS, PLAIN)]
    assert problems == []
    plain = find_volumes(fixture("luks1.img"), ProblemLog(), keys=[KEY])[1]
    assert_same(plain.source, content()[:PLAIN], border=512)
    assert plain.type == "LUKS1"
    superblock = read_superblock(fixture("luks1.img"))
    assert superblock is not None
    assert plain.uuid == superblock.uuid
    assert pickle.loads(pickle.dumps(plain.source)).read_at(5, 50) == content()[5:55]


@pytest.mark.usefixtures("cryptography")
@pytest.mark.parametrize(("name", "key"), [("luks2.img", KEY), ("luks2-cbc.img", KEY), ("luks2-cbc.img", KEY_FILE)])
def test_the_plain_side_of_version_2(name: str, key: str | bytes) -> None:
    problems = ProblemLog()
    volumes = find_volumes(fixture(name), problems, keys=[key])
    assert not problems.rows
    assert [volume.kind for volume in volumes] == [VolumeKind.DISK, VolumeKind.LUKS]
    plain = volumes[1]
    assert (plain.type, plain.offset, plain.size) == ("LUKS2", START2, PLAIN2)
    assert str(plain.origin) == f"{name} > LUKS @{START2}"
    assert_same(plain.source, content()[:PLAIN2], border=512)
    again = pickle.loads(pickle.dumps(plain.source))
    assert again.read_at(4090, 5000) == content()[4090:9090]
    with pytest.raises(DamagedData):
        plain.source.read_at(-1, 5)


def test_libluksde_reads_the_same() -> None:
    pyluksde = pytest.importorskip("pyluksde")
    pytest.importorskip("cryptography")
    volume = pyluksde.volume()
    volume.open_file_object(fixture("luks1.img").open())
    volume.set_password(KEY)
    assert volume.unlock()
    ours = opened(stored("luks1.img"), KEY)
    assert volume.size == ours.size
    assert volume.read_buffer_at_offset(PLAIN, 0) == ours.read_at(0, PLAIN)


VARIANTS = {
    "default": ("--pbkdf", "argon2id"),
    "argon2i": ("--pbkdf", "argon2i", "-s", "256", "--sector-size", "4096"),
    "sha512": ("--pbkdf", "pbkdf2", "--hash", "sha512"),
    "ripemd160": ("--pbkdf", "pbkdf2", "--hash", "ripemd160"),
    "blake2b": ("--pbkdf", "pbkdf2", "--hash", "blake2b-512"),
    "xts-plain": ("--pbkdf", "pbkdf2", "-c", "aes-xts-plain", "-s", "256"),
    "cbc-plain64": ("--pbkdf", "pbkdf2", "-c", "aes-cbc-plain64", "-s", "192"),
    "essiv": ("--pbkdf", "pbkdf2", "-c", "aes-cbc-essiv:sha256", "-s", "256", "--sector-size", "4096"),
}


@pytest.mark.usefixtures("cryptography")
@pytest.mark.parametrize("variant", VARIANTS)
def test_volumes_that_cryptsetup_encrypts(variant: str, tmp_path: Path) -> None:
    cryptsetup = tool("cryptsetup")
    image, key = tmp_path / "image", tmp_path / "key"
    data = content(2 * MIB, variant)
    with image.open("wb") as file:
        file.write(data)
        file.truncate(len(data) + 16 * MIB)
    key.write_text(KEY)
    rounds = ("--pbkdf-force-iterations", "4" if "argon2" in VARIANTS[variant][1] else "1000")
    costs = ("--pbkdf-memory", "32768") if rounds[1] == "4" else ()
    how = ("reencrypt", "--encrypt", "-q", "--type", "luks2", "--reduce-device-size", "16M", "--key-file", str(key))
    subprocess.run([cryptsetup, *how, *VARIANTS[variant], *rounds, *costs, str(image)], check=True)
    (volume,) = find_volumes(FileSource(image), ProblemLog(), keys=[KEY])[1:]
    assert volume.size == image.stat().st_size - START2
    assert_same(volume.source.slice(0, len(data), "data"), data, border=512)
    secret = tmp_path / "secret"
    command = ("luksDump", "--dump-volume-key", "-q", "--key-file", str(key), "--volume-key-file", str(secret))
    subprocess.run([cryptsetup, *command, str(image)], check=True, capture_output=True)
    with_key = LuksSource(FileSource(image), [secret.read_bytes()])  # the key of the volume itself
    assert with_key.read_at(0, 5000) == data[:5000]


def test_a_group_inside_an_encrypted_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain side is searched as well: here it is the physical volume of a group."""
    from forensics_lib.sources.volumes import find

    class Opened(BytesSource):
        uuid, version, offset = "u", 2, START2

        def __init__(self, carrier: BytesSource, keys: tuple[str, ...], problems: ProblemLog) -> None:
            super().__init__(stored("pv1.img"), carrier.origin.to("LUKS"))

    monkeypatch.setattr(find, "LuksSource", Opened)
    volumes = find_volumes([fixture("luks1.img"), fixture("pv0.img")], ProblemLog())
    kinds = [volume.kind for volume in volumes]
    assert kinds == [VolumeKind.DISK, VolumeKind.DISK, VolumeKind.LUKS, *[VolumeKind.LVM] * 3]


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)

    class Gone:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "cryptography":
                raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(sys, "meta_path", [Gone(), *sys.meta_path])
    problems = ProblemLog()
    assert len(find_volumes(fixture("luks2.img"), problems, keys=[KEY])) == 1
    (problem,) = problems.rows
    assert isinstance(problem.error, MissingExtra)
    assert problem.error.extra == "disk"


# --- headers that are damaged, old or hostile -------------------------------------------------------------------------


def described(data: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(data[4096:SIZE2].split(b"\0", 1)[0])
    return document


def sealed(data: bytes, text: bytes, *, sequences: tuple[int, int] = (9, 9)) -> bytes:
    """The volume with another description in both headers, and checksums that are right."""
    volume = bytearray(data)
    for place, sequence in zip((0, SIZE2), sequences, strict=True):
        volume[place + 16 : place + 24] = sequence.to_bytes(8, "big")
        volume[place + 4096 : place + SIZE2] = text.ljust(SIZE2 - 4096, b"\0")[: SIZE2 - 4096]
        volume[place + 448 : place + 512] = bytes(64)
        volume[place + 448 : place + 480] = hashlib.sha256(volume[place : place + SIZE2]).digest()
    return bytes(volume)


def changed(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    document = described(data)
    change(document)
    return sealed(data, json.dumps(document).encode())


def cheap() -> bytes:
    """A volume whose only keyslot takes no time."""
    return changed(stored("luks2-cbc.img"), lambda document: document["keyslots"].pop("0"))


@pytest.mark.usefixtures("cryptography")
@pytest.mark.parametrize(
    ("damaged", "which"),
    [
        (0, "first header of the LUKS volume is not used: it is missing"),
        (5000, "first header of the LUKS volume is not used: the checksum of a header of the LUKS volume is wrong"),
        (8, "first header of the LUKS volume is not used: a header of the LUKS volume has an impossible size"),
        (SIZE2, "second header of the LUKS volume is not used: it is missing"),
        (SIZE2 + 5000, "second header of the LUKS volume is not used: the checksum of a header"),
    ],
)
def test_one_header_is_enough(damaged: int, which: str) -> None:
    data = bytearray(cheap())
    data[damaged] ^= 0xFF
    volumes, (problem,) = found(KEY_FILE, data=bytes(data))
    assert [kind for kind, _ in volumes] == [VolumeKind.DISK, VolumeKind.LUKS]
    assert which in problem


@pytest.mark.usefixtures("cryptography")
def test_a_disk_whose_beginning_was_wiped() -> None:
    data = bytes(4096 * 3) + cheap()[4096 * 3 :]
    superblock = read_superblock(BytesSource(data, Origin("x")))
    assert superblock is not None
    assert (superblock.type, superblock.label) == ("crypto_LUKS", "vault")
    assert opened(data, KEY_FILE).read_at(0, 100) == content()[:100]


@pytest.mark.usefixtures("cryptography")
@pytest.mark.parametrize("newer", [0, 1])
def test_the_newer_header_is_used(newer: int) -> None:
    new = cheap()
    document = described(new)
    document["keyslots"] = {}
    old = json.dumps(document).encode().ljust(SIZE2 - 4096, b"\0")
    sequences = (5, 4) if newer == 0 else (4, 5)
    data = bytearray(sealed(new, json.dumps(described(new)).encode(), sequences=sequences))
    place = SIZE2 * (1 - newer)
    data[place + 4096 : place + SIZE2] = old
    data[place + 448 : place + 512] = bytes(64)
    data[place + 448 : place + 480] = hashlib.sha256(data[place : place + SIZE2]).digest()
    _, problems = found(KEY_FILE, data=bytes(data))
    numbers = " and ".join(map(str, sequences))
    assert problems == [f"the headers of the LUKS volume differ in age (numbers {numbers}); the newer one is used"]
    assert opened(bytes(data), KEY_FILE).read_at(0, 100) == content()[:100]


def put(*path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        place = document
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = value

    return change


NOT_READ = {
    "requirements": (put("config", "requirements", value={"mandatory": ["new-thing"]}), "requires new-thing"),
    "under way": (
        put("config", "requirements", value={"mandatory": ["online-reencrypt-v2"]}),
        "was being encrypted anew",
    ),
    "integrity": (put("segments", "0", "integrity", value={"type": "hmac(sha256)"}), "crypt segment with integrity"),
    "drive": (put("segments", "0", "type", value="hw-opal"), "'hw-opal', which is not read"),
    "segments": (put("segments", "1", value={"type": "crypt"}), "in 2 segments"),
    "detached": (put("segments", "0", "offset", value="0"), "detached header"),
    "beyond": (put("segments", "0", "offset", value=str(1 << 40)), "lie beyond the end"),
    "cipher": (put("segments", "0", "encryption", value="serpent-xts-plain64"), "'serpent-xts-plain64' is not read"),
    "vectors": (put("segments", "0", "encryption", value="aes-xts-random"), "its vectors are not known"),
    "hash of vectors": (put("segments", "0", "encryption", value="aes-cbc-essiv:sha512"), "makes no key for AES"),
    "no size": (put("segments", "0", "sector_size", value=513), "sectors of 513 is impossible"),
    "no digest": (put("digests", value={}), "nothing proves its key"),
    "keyslot": (put("keyslots", "1", "type", value="reencrypt"), "keyslot 1: its type 'reencrypt' is not read"),
    "function": (put("keyslots", "1", "kdf", "type", value="scrypt"), "the function 'scrypt'"),
    "hash": (put("keyslots", "1", "kdf", "hash", value="whirlpool"), "keyslot 1: the hash 'whirlpool' is not known"),
    "rounds": (put("keyslots", "1", "kdf", "iterations", value=1 << 40), "takes 1099511627776 rounds, more than"),
    "no rounds": (put("keyslots", "1", "kdf", "iterations", value=0), "takes no rounds"),
    "memory": (
        put(
            "keyslots", "1", "kdf", value={"type": "argon2id", "salt": "AA==", "time": 1, "memory": 1 << 23, "cpus": 1}
        ),
        "takes 8388608 KiB of memory, 1 passes and 1 lanes",
    ),
    "time": (
        put("keyslots", "1", "kdf", value={"type": "argon2i", "salt": "", "time": 1 << 20, "memory": 1024, "cpus": 1}),
        "takes 1024 KiB of memory, 1048576 passes and 1 lanes",
    ),
    "costs": (
        put("keyslots", "1", "kdf", value={"type": "argon2i", "salt": "", "time": 0, "memory": 0, "cpus": 0}),
        "has impossible costs",
    ),
    "stripes": (put("keyslots", "1", "af", "stripes", value=1 << 30), "split into 1073741824 pieces"),
    "no stripes": (put("keyslots", "1", "af", "stripes", value=0), "an impossible size"),
    "area": (put("keyslots", "1", "area", "size", value="512"), "its key takes 64000 bytes, its area has 512"),
    "place": (put("keyslots", "1", "area", "offset", value=str(1 << 50)), "lies beyond the end of the file"),
    "salt": (put("keyslots", "1", "kdf", "salt", value="?"), "has no 'salt' that can be used"),
    "digest": (put("digests", "0", "salt", value=5), "has no 'salt' that can be used"),
}


@pytest.mark.usefixtures("cryptography")
@pytest.mark.parametrize("case", NOT_READ)
def test_what_is_not_read_is_named(case: str) -> None:
    change, message = NOT_READ[case]
    volumes, (problem,) = found(KEY_FILE, data=changed(cheap(), change))
    assert [kind for kind, _ in volumes] == [VolumeKind.DISK]
    assert message in problem


@pytest.mark.usefixtures("cryptography")
def test_a_declared_size_and_a_cut_end() -> None:
    data = changed(cheap(), put("segments", "0", "size", value="8192"))
    assert opened(data, KEY_FILE).size == 8192
    data = changed(cheap(), put("segments", "0", "size", value=str(MIB)))
    volumes, problems = found(KEY_FILE, data=data)
    assert volumes[1] == (VolumeKind.LUKS, MIB)
    assert problems == [f"the encrypted bytes of the LUKS volume are {MIB}, only {PLAIN2} are there"]
    with pytest.raises(DamagedData, match="an encrypted sector lies beyond the end"):
        opened(data, KEY_FILE).read_at(PLAIN2 - 10, 20)
    assert opened(cheap()[:-1000], KEY_FILE).size == PLAIN2 - 4096


@pytest.mark.usefixtures("cryptography")
def test_slots_are_tried_by_priority() -> None:
    data = changed(stored("luks2-cbc.img"), put("keyslots", "1", "priority", value=2))
    assert "keyslots 1 pbkdf2, 0 argon2i" in found(data=data)[1][0]
    data = changed(data, put("tokens", "0", value={"type": "systemd-tpm2", "keyslots": ["1"]}))
    assert "; tokens systemd-tpm2)" in found(data=data)[1][0]


def test_what_is_no_volume() -> None:
    assert luks_version(BytesSource(b"LUKS", Origin("x"))) is None
    with pytest.raises(UnsupportedFormat, match="magic"):
        opened(bytes(MIB), KEY)
    with pytest.raises(UnsupportedFormat, match="of version 1 or 2"):
        opened(b"LUKS\xba\xbe\0\3" + bytes(MIB), KEY)


def test_a_detached_header_of_version_1() -> None:
    data = bytearray(stored("luks1.img"))
    data[104:108] = bytes(4)
    with pytest.raises(UnsupportedFormat, match="detached"):
        opened(bytes(data), KEY)


@pytest.mark.usefixtures("cryptography")
@pytest.mark.parametrize("place", [164, 208 + 4])
def test_keys_that_would_take_hours(place: int) -> None:
    data = bytearray(stored("luks1.img"))
    data[place : place + 4] = b"\xff" * 4
    with pytest.raises(UnsupportedFormat, match="4294967295 rounds, more than 50000000"):
        opened(bytes(data), KEY)


@pytest.mark.parametrize("end", [100, 592, 4096])
def test_a_cut_header(end: int) -> None:
    pytest.importorskip("cryptography")
    with pytest.raises((DamagedData, UnsupportedFormat)):
        opened(stored("luks1.img")[:end], KEY)


@pytest.mark.usefixtures("cryptography")
def test_a_key_of_two_equal_halves_is_refused() -> None:
    with pytest.raises(DamagedData, match="the same"):
        DecryptedSource(BytesSource(bytes(512), Origin("x")), 0, 512, "aes-xts-plain64", bytes(64), origin=Origin("x"))


def test_what_dm_crypt_calls_the_same_cipher() -> None:
    check_encryption("aes-xts-plain64", 64, 4096)
    for encryption in ("aes", "aes-cbc", "aes-lrw-benbi", "", "capi:xts(aes)-plain64", "aes-cbc-essiv"):
        with pytest.raises(UnsupportedFormat):
            check_encryption(encryption, 32)


# --- any bytes --------------------------------------------------------------------------------------------------------

JUNK: st.SearchStrategy[object] = st.sampled_from(
    [None, True, -1, 0, 1, 1.5, 1 << 63, 1 << 70, "", "x", "7", "9" * 30, "aes-xts-plain64", [], {}, [[]]]
)


def leaves(value: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inside = (
        [leaf for key, one in value.items() for leaf in leaves(one, (*path, key))] if isinstance(value, dict) else []
    )
    return [*([path] if path else []), *inside]


LEAVES = leaves(described(stored("luks2-cbc.img")))
CHEAP = cheap()


@pytest.mark.usefixtures("cryptography")
@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(LEAVES), JUNK), min_size=1, max_size=3))
def test_any_description_opens_or_is_refused(changes: list[tuple[tuple[str, ...], object]]) -> None:
    document = described(CHEAP)
    for path, value in changes:
        place = document
        for key in path[:-1]:
            inner = place.get(key)
            if not isinstance(inner, dict):
                break
            place = inner
        else:
            place[path[-1]] = value
    try:
        source = opened(sealed(CHEAP, json.dumps(document).encode()), KEY_FILE)
        source.read_at(0, 5000)
    except ForensicsError:
        pass


@given(st.binary(max_size=200) | st.sampled_from([b"[" * 9000, b"9" * 9000, b'{"a":' * 1800, b"\xff", b"[]", b"null"]))
def test_any_text_is_refused(text: bytes) -> None:
    with pytest.raises(ForensicsError):
        opened(sealed(CHEAP, text), KEY_FILE)


@settings(max_examples=60)
@given(
    st.sampled_from(["luks1.img", "luks2-cbc.img"]),
    st.lists(st.tuples(st.integers(0, 2 * SIZE2), st.integers(1, 255)), max_size=5),
    st.none() | st.integers(0, 3 * SIZE2),
)
def test_any_damage_is_named(name: str, flips: list[tuple[int, int]], end: int | None) -> None:
    data = bytearray(stored("luks1.img") if name == "luks1.img" else CHEAP)
    for place, bits in flips:
        data[place] ^= bits
    volumes, problems = found(data=bytes(data[:end]))
    assert len(volumes) < 2
    assert problems or not volumes or luks_version(BytesSource(bytes(data[:end]), Origin("x"))) is None
    try:
        read_superblock(BytesSource(bytes(data[:end]), Origin("x")))
        LuksSource(BytesSource(bytes(data[:end]), Origin("x")), [])
    except (UnsupportedFormat, DamagedData, LimitExceeded):
        pass
