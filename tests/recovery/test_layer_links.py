"""The links of layers' directories are told by the directories above them."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.recovery.layer_links import LayerLinks
from forensics_lib.recovery.records import Records, named_by_records
from forensics_lib.recovery.remnant import Remnant
from tests.engines.docker.dataroot import chain, digest, hexid, stores
from tests.recovery.scene import data_root, remnant
from tests.recovery.test_records import image, lying

BASE, TOP = digest("base"), digest("top")
CHAINS = [chain(BASE), chain(BASE, TOP)]
LOW, HIGH, MOUNT = (hexid(one) for one in ("low", "high", "mount"))
LINKS = {name: letter * 26 for name, letter in ((LOW, "A"), (HIGH, "B"), (f"{MOUNT}-init", "C"), (MOUNT, "D"))}


def lower(*folders: str) -> str:
    return ":".join(f"l/{LINKS[one]}" for one in folders)


def cache_ids(*names: str) -> list[Remnant]:
    pairs = zip(CHAINS, names, strict=True)
    return [remnant(name.encode(), f"/layerdb/sha256/{one.removeprefix('sha256:')}/cache-id") for one, name in pairs]


def paths(rows: list[Remnant], *others: Remnant) -> list[str]:
    known = Records.of([*others, *rows], [])
    return [one.path for one in named_by_records(rows, rows, known, 1024)]


def test_link_and_lower_before_the_record_of_a_writable_layer() -> None:
    texts = [LINKS[MOUNT], lower(f"{MOUNT}-init", HIGH, LOW), MOUNT, f"{MOUNT}-init", CHAINS[1]]
    below = [remnant(text.encode()) for text in (LINKS[f"{MOUNT}-init"], lower(HIGH, LOW))]
    rows = lying(*(text.encode() for text in texts))
    names = [f"overlay2/{MOUNT}/link", f"overlay2/{MOUNT}/lower", "mount-id", "init-id", ""]
    assert paths([*rows, *below]) == [*names, f"overlay2/{MOUNT}-init/link", f"overlay2/{MOUNT}-init/lower"]


def test_a_file_lower_tells_all_directories_below() -> None:
    top = remnant(lower(HIGH, LOW).encode(), f"/overlay2/{MOUNT}-init/lower")
    texts = (LINKS[HIGH], lower(LOW), LINKS[LOW])
    rows = [top, *(remnant(text.encode()) for text in texts)]
    known = LayerLinks.of([top, *cache_ids(LOW, HIGH)], [])
    known.add_mount(MOUNT, CHAINS[1])
    told = {f"overlay2/{HIGH}/link": texts[0], f"overlay2/{HIGH}/lower": texts[1], f"overlay2/{LOW}/link": texts[2]}
    layers = {CHAINS[0]: (BASE, ""), CHAINS[1]: (TOP, CHAINS[0])}
    assert {path: text for text, path in known.places(layers)} == told
    assert list(known.places({})) == [(texts[0], f"overlay2/{HIGH}/link"), (texts[1], f"overlay2/{HIGH}/lower")]
    known.live = {HIGH}
    assert [path for _, path in known.places(layers)] == [f"overlay2/{LOW}/link"]
    own = remnant(lower(LOW).encode(), f"/overlay2/{HIGH}/lower")
    assert paths(rows, own, image(BASE, TOP), *cache_ids(LOW, HIGH))[1:] == ["", "", f"overlay2/{LOW}/link"]


def test_what_is_told_in_two_ways_is_not_told() -> None:
    known = LayerLinks(lowers={"x": lower(HIGH), "y": lower(LOW)}, below={"x": "z", "y": "z"})
    assert list(known.places({})) == []
    known = LayerLinks(caches={CHAINS[0]: {LOW, HIGH}})  # the layer came again
    known.add_mount(MOUNT, CHAINS[0])
    assert known.below == {MOUNT: f"{MOUNT}-init"}
    ring = LayerLinks(lowers={"x": lower(HIGH, LOW)}, below={"x": "y", "y": "x"})
    assert {path for _, path in ring.places({})} == {"overlay2/y/link", "overlay2/y/lower", "overlay2/x/link"}


def test_directories_that_are_there(tmp_path: Path) -> None:
    mounts = f"image/overlay2/layerdb/mounts/{hexid('web')}"
    layer = f"image/overlay2/layerdb/sha256/{CHAINS[0].removeprefix('sha256:')}"
    files: dict[str, bytes | str | None] = {
        **stores("docker"),
        f"docker/{mounts}/mount-id": MOUNT.encode(),
        f"docker/{mounts}/init-id": f"{MOUNT}-init".encode(),
        f"docker/{mounts}/parent": CHAINS[0].encode(),
        f"docker/{layer}/cache-id": LOW.encode(),
        f"docker/{layer}/diff": BASE.encode(),
        f"docker/overlay2/{MOUNT}/lower": lower(f"{MOUNT}-init", LOW).encode(),
        f"docker/overlay2/{MOUNT}/diff": None,
    }
    known = LayerLinks.of([], [data_root(tmp_path, files)])
    assert known.caches == {CHAINS[0]: {LOW}}
    assert known.lowers == {MOUNT: lower(f"{MOUNT}-init", LOW)}
    assert {path: text for text, path in known.places({})}[f"overlay2/{LOW}/link"] == LINKS[LOW]


NAMES = st.sampled_from("abc")


@given(st.dictionaries(NAMES, st.text(max_size=90)), st.dictionaries(NAMES, NAMES))
def test_any_text_is_survived(lowers: dict[str, str], below: dict[str, str]) -> None:
    assert all(path.startswith("overlay2/") for _, path in LayerLinks(lowers=lowers, below=below).places({}))
