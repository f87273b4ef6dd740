"""Whose paths and ids are, on a data root made here and on real ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.ownership import OwnerKind
from forensics_lib.errors import AmbiguousName
from tests.engines.docker.dataroot import (
    CONTAINERD,
    GRAPHDRIVER,
    HALF_REMOVED,
    NO_EVIDENCE,
    SMALL,
    bolt,
    chain,
    digest,
    document,
    hexid,
    message,
    values,
    write,
)

BASE, TOP, UNUSED, GONE = digest("base"), digest("top"), digest("unused"), digest("gone")
TOP_CHAIN = chain(BASE, TOP)
IMAGE = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [BASE, TOP]}}
IMAGE_ID = digest(json.dumps(IMAGE))
WEB, GHOST, MOUNTED, UNREADABLE = hexid("web"), hexid("ghost"), hexid("mounted image"), hexid("unreadable")
WEB_DIR, GHOST_DIR, MOUNTED_DIR = hexid("web directory"), hexid("ghost directory"), hexid("mounted directory")
BASE_DIR, TOP_DIR, UNUSED_DIR = hexid("base directory"), "d" * 25, hexid("unused directory")
REMOVING, UNFINISHED = hexid("removing directory"), hexid("unfinished directory")
CACHED, SNAPSHOT, CACHED_DIR, BARE_DIR = "c" * 25, "s" * 25, "e" * 25, "b" * 25
ORPHAN, ORPHAN_STEP, ORPHAN_BELOW = hexid("orphan"), "o" * 25, hexid("orphan below others")
LINK, LOST_LINK = "A" * 26, "B" * 26
BUILD = "r" * 25
NETWORK = hexid("network")
REMOVED_CHAIN = f"{GONE[7:]}-{hexid('random')}-removing"
BLOB = digest("compressed base")


def layer(directory: str, diff_id: str, cache_id: str, parent: str = "") -> dict[str, bytes]:
    folder = f"image/overlay2/layerdb/{directory}"
    files = {f"{folder}/diff": diff_id.encode(), f"{folder}/cache-id": cache_id.encode()}
    return files | ({f"{folder}/parent": parent.encode()} if parent else {})


def mount(container: str, directory: str, parent: str, *, init: bool = True) -> dict[str, bytes]:
    folder = f"image/overlay2/layerdb/mounts/{container}"
    files = {f"{folder}/mount-id": directory.encode(), f"{folder}/parent": parent.encode()}
    return files | ({f"{folder}/init-id": f"{directory}-init".encode()} if init else {})


CONFIG = {
    "ID": WEB,
    "Name": "/web",
    "Driver": "overlay2",
    "Image": IMAGE_ID,
    "HostnamePath": f"/data/docker/containers/{WEB}/hostname",
    "MountPoints": {
        "/srv": {"Type": "volume", "Name": "data", "Destination": "/srv", "Driver": "local"},
        "/conf": {"Type": "bind", "Source": "/etc/site", "Destination": "/conf"},
        "/img": {"Type": "image", "Name": "acme/tool:1", "ID": MOUNTED, "Destination": "/img"},
    },
}
NETWORK_RECORD = bytes(8) + document({"id": NETWORK, "name": "front", "networkType": "bridge"})
FILES: dict[str, bytes | str | None] = {
    **layer(f"sha256/{BASE[7:]}", BASE, BASE_DIR),
    **layer(f"sha256/{TOP_CHAIN[7:]}", TOP, TOP_DIR, BASE),
    **layer(f"sha256/{UNUSED[7:]}", UNUSED, UNUSED_DIR),
    **layer(f"sha256/{REMOVED_CHAIN}", GONE, REMOVING),
    **layer("tmp/write-set-1", digest("new"), UNFINISHED),
    **mount(WEB, WEB_DIR, TOP_CHAIN),
    **mount(GHOST, GHOST_DIR, BASE),
    **mount(MOUNTED, MOUNTED_DIR, BASE, init=False),
    f"image/overlay2/imagedb/content/sha256/{IMAGE_ID[7:]}": document(IMAGE),
    "image/overlay2/repositories.json": document(
        {"Repositories": {"acme/web": {"acme/web:1.0": IMAGE_ID, "acme/web:2": IMAGE_ID}}}
    ),
    f"image/overlay2/distribution/diffid-by-digest/sha256/{BLOB[7:]}": BASE.encode(),
    f"image/overlay2/distribution/v2metadata-by-diffid/sha256/{GONE[7:]}": document(
        [{"Digest": digest("compressed gone"), "SourceRepository": "docker.io/evil/miner"}]
    ),
    f"containers/{WEB}/config.v2.json": document(CONFIG),
    f"containers/{WEB}/hostconfig.json": document({"LogConfig": {"Type": "json-file"}}),
    f"containers/{WEB}/{WEB}-json.log": b"",
    f"containers/{UNREADABLE}/config.v2.json": b"{",
    "volumes/data/_data/file": b"1",
    "volumes/junk/file": b"1",
    "network/files/local-kv.db": bolt({"libnetwork": {f"docker/network/v1.0/network/{NETWORK}/": NETWORK_RECORD}}),
    "buildkit/metadata_v2.db": bolt(
        {"_main": {CACHED: values(cache__description="[1/2] RUN make", cache__snapshot=SNAPSHOT)}}
    ),
    "buildkit/snapshots.db": bolt(
        {
            SNAPSHOT: {"committed": CACHED_DIR.encode()},
            CACHED_DIR: {"iscommitted": b""},
            BARE_DIR: {"parent": b""},
        }
    ),
    "buildkit/history.db": bolt(
        {
            "_records": {
                BUILD: message(
                    (1, BUILD),
                    (4, message((1, "image"), (2, message((1, "name"), (2, "acme/web:1.0"))))),
                    (8, message((2, digest("log")))),
                    (10, message((3, message((2, message((2, IMAGE_ID))))))),
                )
            }
        }
    ),
    "buildkit/cache.db": b"",
    "engine-id": b"x",
    f"rootfs/overlayfs/{MOUNTED}": None,
    f"overlay2/{WEB_DIR}/link": LINK.encode(),
    f"overlay2/{BASE_DIR}/link": LOST_LINK.encode(),
    f"overlay2/l/{LINK}": f"../{WEB_DIR}/diff",
    f"overlay2/{ORPHAN_BELOW}/committed": b"",
    **{
        f"overlay2/{name}/diff": None
        for name in (
            *(WEB_DIR, f"{WEB_DIR}-init", GHOST_DIR, f"{GHOST_DIR}-init", MOUNTED_DIR, BASE_DIR, TOP_DIR, UNUSED_DIR),
            *(REMOVING, UNFINISHED, CACHED_DIR, BARE_DIR, ORPHAN, f"{ORPHAN}-init", ORPHAN_STEP, ORPHAN_BELOW),
        )
    },
}
NAMES = "acme/web:1.0, acme/web:2"


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fl.Evidence]:
    folder = tmp_path_factory.mktemp("host")
    write(folder / "data/docker", FILES)
    write(folder, {"var/lib/docker": "../../data/docker"})
    with fl.open(folder) as opened:
        yield opened


def shown(evidence: fl.Evidence, path_or_id: str) -> list[tuple[str, str, str]]:
    """Kind, name or id, and detail of each owner."""
    return [(owner.kind.value, owner.name or owner.id, owner.detail) for owner in evidence.owner(path_or_id)]


CONTAINER = ("container", "web", "its writable layer")
ON_TOP = [
    ("image-layer", NAMES, "layer 1 of 2"),
    ("container", "web", "layer of its image"),
    ("container", GHOST, "layer of its image"),
    ("image-mount", "acme/tool:1", "layer of its image"),
]
STEP = ("build-cache", CACHED, "[1/2] RUN make")
VOLUME = [("volume", "data", "local"), ("container", "web", "mounts it at /srv")]


@pytest.mark.parametrize(
    ("path_or_id", "owners"),
    [
        (f"overlay2/{WEB_DIR}/diff/etc/passwd", [CONTAINER]),
        (f"/data/docker/overlay2/{WEB_DIR}/diff", [CONTAINER]),
        (f"data/docker/overlay2/{WEB_DIR}", [CONTAINER]),
        (f"/var/lib/docker/overlay2/{WEB_DIR}", [CONTAINER]),
        (f"overlay2/./x/../{WEB_DIR}/", [CONTAINER]),
        (f"overlay2/l/{LINK}/etc", [CONTAINER]),
        (LINK, [CONTAINER]),
        (WEB_DIR, [CONTAINER]),
        (WEB_DIR[:12], [CONTAINER]),
        (f"overlay2/{WEB_DIR}-init/diff", [("container-init", "web", "what Docker puts into every container")]),
        (f"{WEB_DIR}-init", [("container-init", "web", "what Docker puts into every container")]),
        (f"overlay2/{GHOST_DIR}", [("container", GHOST, "its records are missing")]),
        (f"image/overlay2/layerdb/mounts/{GHOST}/mount-id", [("container", GHOST, "its records are missing")]),
        (f"overlay2/{MOUNTED_DIR}", [("image-mount", "acme/tool:1", "mounted at /img in container web")]),
        (f"rootfs/overlayfs/{MOUNTED}/bin", [("image-mount", "acme/tool:1", "mounted at /img in container web")]),
        (MOUNTED, [("image-mount", "acme/tool:1", "mounted at /img in container web")]),
        (f"overlay2/{UNUSED_DIR}", [("image-layer", UNUSED, "no image of the store has it")]),
        (f"overlay2/{REMOVING}", [("image-layer", GONE, "its removal was interrupted")]),
        (f"image/overlay2/layerdb/sha256/{REMOVED_CHAIN}/diff", [("image-layer", GONE, "its removal was interrupted")]),
        (f"overlay2/{UNFINISHED}", [("image-layer", "", "its registration was interrupted")]),
        ("image/overlay2/layerdb/tmp/write-set-1", [("image-layer", "", "its registration was interrupted")]),
        (
            f"image/overlay2/layerdb/sha256/{TOP_CHAIN[7:]}/diff",
            [
                ("image-layer", NAMES, "layer 2 of 2"),
                ("container", "web", "layer of its image"),
            ],
        ),
        (f"overlay2/l/{LOST_LINK}", ON_TOP),
        (LOST_LINK, ON_TOP),
        (f"overlay2/{BASE_DIR}/diff", ON_TOP),
        (BASE, ON_TOP),
        (BLOB, ON_TOP),
        (f"image/overlay2/distribution/diffid-by-digest/sha256/{BLOB[7:]}", ON_TOP),
        (GONE, [("image-layer", "docker.io/evil/miner", "not in the store any more")]),
        (IMAGE_ID, [("image", NAMES, ""), ("build-cache", "acme/web:1.0", "result of a build")]),
        (f"overlay2/{CACHED_DIR}/diff/src", [STEP]),
        (CACHED, [STEP]),
        (SNAPSHOT, [STEP]),
        (f"overlay2/{BARE_DIR}", [("build-cache", BARE_DIR, "snapshot without a record")]),
        (BUILD, [("build-cache", "acme/web:1.0", "build")]),
        (f"buildkit/content/blobs/sha256/{digest('log')[7:]}", [("build-cache", "acme/web:1.0", "log of a build")]),
        (f"containers/{WEB}/{WEB}-json.log.1", [("log", "web", "log of the driver json-file")]),
        (f"containers/{WEB}/local-logs/container.log", [("log", "web", "log of the driver json-file")]),
        (f"/data/docker/containers/{WEB}/hostname", [("container", "web", "its records")]),
        (f"containers/{UNREADABLE}", [("container", UNREADABLE, "its records cannot be read")]),
        ("web", [("container", "web", "")]),
        (WEB[:12], [("container", "web", "")]),
        ("volumes/data/_data/file", VOLUME),
        ("data", VOLUME),
        ("volumes/junk/file", [("orphan", "junk", "a folder that is no volume")]),
        ("front", [("network", "front", "bridge")]),
        (NETWORK[:9], [("network", "front", "bridge")]),
        ("/etc/site/nginx.conf", [("container", "web", "mounts it at /conf")]),
        ("network/files/local-kv.db", [("engine", "", "the records of networks")]),
        ("buildkit/cache.db", [("engine", "", "data of BuildKit")]),
        ("overlay2", [("engine", "", "the layers of the storage driver overlay2")]),
        ("overlay2/l", [("engine", "", "the layers of the storage driver overlay2")]),
        ("overlay2/backingFsBlockDev", [("engine", "", "a file of the storage driver overlay2")]),
        ("/data/docker", [("engine", "", "the data root")]),
        ("engine-id", [("engine", "", "id of the daemon")]),
        (f"overlay2/{ORPHAN}/diff", [("orphan", ORPHAN, "writable layer of a container: no record names it")]),
        (f"overlay2/{ORPHAN}-init", [("orphan", f"{ORPHAN}-init", "init layer of a container: no record names it")]),
        (f"overlay2/{ORPHAN_STEP}", [("orphan", ORPHAN_STEP, "build step: no record names it")]),
        (f"overlay2/{ORPHAN_BELOW}", [("orphan", ORPHAN_BELOW, "layer below others: no record names it")]),
        (f"overlay2/{'0' * 64}", [("orphan", "0" * 64, "no record names it, and it is not in the evidence")]),
    ],
)
def test_whose_it_is(evidence: fl.Evidence, path_or_id: str, owners: list[tuple[str, str, str]]) -> None:
    found = shown(evidence, path_or_id)
    assert found[0] == owners[0]  # the closest first
    assert sorted(found) == sorted(owners)


@pytest.mark.parametrize("nothing", ["", "nobody", "f" * 64, "/opt/x", "volumes/none/_data", "containers/none", "../x"])
def test_nobody(evidence: fl.Evidence, nothing: str) -> None:
    assert shown(evidence, nothing) == []


def test_the_start_of_several_ids_is_ambiguous(evidence: fl.Evidence) -> None:
    names = (BASE_DIR, WEB_DIR, GHOST_DIR, MOUNTED_DIR, UNUSED_DIR, REMOVING, UNFINISHED, WEB, GHOST, NETWORK)
    starts = sorted(name[0] for name in names)
    twice = next(one for one, following in pairwise(starts) if one == following)
    with pytest.raises(AmbiguousName) as caught:
        evidence.owner(twice)
    assert {name for name in names if name.startswith(twice)} <= set(caught.value.candidates)
    assert all(name.startswith(twice) for name in caught.value.candidates)


def test_the_record_that_says_so(evidence: fl.Evidence) -> None:
    (owner,) = evidence.owner(f"overlay2/{WEB_DIR}")
    assert str(owner.origin).endswith(f"layerdb/mounts/{WEB}")
    assert str(evidence.owner(f"overlay2/{BASE_DIR}")[0].origin).endswith(f"layerdb/sha256/{BASE[7:]}")
    assert "metadata_v2.db > bbolt page" in str(evidence.owner(CACHED)[0].origin)
    assert str(evidence.owner(f"overlay2/{ORPHAN}")[0].origin).endswith(f"overlay2/{ORPHAN}")
    assert evidence.owner(CACHED).columns == ("kind", "id", "name", "detail", "origin")


def root_of(evidence: fl.Evidence) -> DockerRoot:
    (docker,) = evidence._holdings.dockers
    return docker


def test_orphans_are_what_no_record_names(evidence: fl.Evidence) -> None:
    found = {orphan.id: orphan for orphan in root_of(evidence).orphans()}
    assert {name: orphan.likely for name, orphan in found.items()} == {
        ORPHAN: "writable layer of a container",
        f"{ORPHAN}-init": "init layer of a container",
        ORPHAN_STEP: "build step",
        ORPHAN_BELOW: "layer below others",
    }
    assert found[ORPHAN].path == f"/data/docker/overlay2/{ORPHAN}"
    assert found[ORPHAN].driver == "overlay2"


def test_without_its_records_every_layer_is_an_orphan(tmp_path: Path) -> None:
    files = {name: content for name, content in FILES.items() if not name.startswith(("image/", "buildkit/"))}
    write(tmp_path, files)
    with fl.open(tmp_path) as opened:
        assert len(root_of(opened).orphans()) == 16
        assert any("image/overlay2 is missing" in problem.message for problem in opened.problems)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("aufs/diff/{}/etc", "web"),
        ("aufs/layers/{}", "web"),
        ("aufs/mnt/{}", "web"),
        ("aufs/diff/{}-removing/etc", "web"),
        ("vfs/dir/{}/etc", "web"),
        ("btrfs/subvolumes/{}/etc", "web"),
        ("devicemapper/metadata/{}", "web"),
        ("devicemapper/mnt/{}/rootfs", "web"),
        ("zfs/graph/{}", "web"),
        ("overlay/{}/upper", "web"),
        ("fuse-overlayfs/{}/diff", "web"),
    ],
)
def test_every_storage_driver(tmp_path: Path, path: str, name: str) -> None:
    driver = path.partition("/")[0]
    files = {
        f"image/{driver}/layerdb/mounts/{WEB}/mount-id": WEB_DIR.encode(),
        f"containers/{WEB}/config.v2.json": document(CONFIG | {"Driver": driver}),
        f"containers/{WEB}/hostconfig.json": b"{}",
    }
    write(tmp_path, files)
    with fl.open(tmp_path) as opened:
        assert shown(opened, path.format(WEB_DIR)) == [CONTAINER]
        assert shown(opened, WEB_DIR) == [CONTAINER]


def test_before_docker_1_10_directories_had_the_ids(tmp_path: Path) -> None:
    base, top = hexid("old base"), hexid("old top")
    config = {"ID": WEB, "Name": "/web", "Driver": "aufs", "Image": top}
    files: dict[str, bytes | str | None] = {
        f"graph/{base}/json": document({"id": base}),
        f"graph/{top}/json": document({"id": top, "parent": base}),
        "graph/_tmp": None,
        "repositories-aufs": document({"Repositories": {"acme/web": {"1.0": top}}}),
        f"containers/{WEB}/config.json": document(config),
        f"containers/{WEB}/hostconfig.json": b"{}",
        **{f"aufs/diff/{name}": None for name in (base, top, WEB, f"{WEB}-init", hexid("orphan"))},
        "volumes/x/_data": None,
    }
    write(tmp_path, files)
    with fl.open(tmp_path) as opened:
        assert shown(opened, f"aufs/diff/{base}/bin") == [
            ("image-layer", base, "its own layer"),
            ("image-layer", "acme/web:1.0", "layer below it"),
        ]
        assert shown(opened, f"aufs/diff/{top}") == [("image-layer", "acme/web:1.0", "its own layer")]
        assert shown(opened, f"graph/{top}/json")[0] == ("image", "acme/web:1.0", "")
        assert shown(opened, f"aufs/diff/{WEB}") == [CONTAINER]
        assert shown(opened, f"aufs/diff/{WEB}-init")[0][:2] == ("container-init", "web")
        assert [orphan.id for orphan in root_of(opened).orphans()] == [hexid("orphan")]


def test_of_two_data_roots_the_one_that_knows_answers(tmp_path: Path) -> None:
    write(tmp_path / "var/lib/docker", FILES)
    inner = {
        f"image/overlay2/layerdb/mounts/{GHOST}/mount-id": ORPHAN.encode(),
        f"containers/{GHOST}/config.v2.json": document({"ID": GHOST, "Name": "/inner", "Driver": "overlay2"}),
        f"containers/{GHOST}/hostconfig.json": b"{}",
        f"overlay2/{ORPHAN}/diff": None,
    }
    write(tmp_path / "var/lib/docker/100000.100000", inner)
    with fl.open(tmp_path) as opened:
        assert shown(opened, f"overlay2/{ORPHAN}") == [("container", "inner", "its writable layer")]
        path = f"/var/lib/docker/100000.100000/overlay2/{ORPHAN}"
        assert shown(opened, path) == [("container", "inner", "its writable layer")]


def test_a_copy_that_starts_inside_the_data_root(tmp_path: Path) -> None:
    write(tmp_path, {f"{WEB}/config.v2.json": document(CONFIG), f"{WEB}/hostconfig.json": b"{}"})
    with fl.open(tmp_path) as opened:
        assert shown(opened, f"/{WEB}/config.v2.json") == [("container", "web", "its records")]
        assert shown(opened, f"containers/{WEB}/hosts") == [("container", "web", "its records")]


def test_links_of_the_evidence_do_not_lead_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "outside" / "secret").mkdir(parents=True)
    files = {name: content for name, content in FILES.items() if not name.startswith("volumes/")}
    write(tmp_path / "evidence", {**files, "volumes": str(tmp_path / "outside")})
    with fl.open(tmp_path / "evidence") as opened:
        assert shown(opened, "volumes/secret/x") == []


def test_an_image_archive_has_no_owners(tmp_path: Path) -> None:
    write(tmp_path, {"etc/passwd": b"root"})
    with fl.open(tmp_path) as opened:
        assert not opened.owner("/etc/passwd")
        assert not opened.build_cache
        assert not opened.build_history
        assert not opened.pull_history


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_text_gives_owners_or_is_ambiguous(evidence: fl.Evidence, data: st.DataObject) -> None:
    names = [*FILES, *(name for path in FILES for name in path.split("/")), "..", "", "\0", "\udcff", "x" * 300]
    parts = data.draw(st.lists(st.sampled_from(names) | st.text(max_size=5), max_size=4))
    try:
        owners = evidence.owner("/".join(parts))
    except AmbiguousName:
        return
    assert all(isinstance(owner.kind, OwnerKind) for owner in owners)


def real(path: Path) -> fl.Evidence:
    if not path.is_file():
        pytest.skip(NO_EVIDENCE)
    return fl.open(path)


@pytest.mark.parametrize(
    ("archive", "count"),
    [
        (SMALL / "evidence/clean/var-lib-docker.tar", 53),
        (SMALL / "evidence/crash/var-lib-docker.tar", 53),
        (GRAPHDRIVER / "evidence/clean/root.tar", 80),
        (HALF_REMOVED / "evidence/2-killed-during-rm.tar", 7),
        (HALF_REMOVED / "evidence/4-killed-during-rmi.tar", 6),
    ],
    ids=lambda value: value.parent.parent.parent.name if isinstance(value, Path) else str(value),
)
def test_every_real_directory_has_an_owner(archive: Path, count: int) -> None:
    with real(archive) as opened:
        docker = root_of(opened)
        names = list(docker.driver("overlay2").directories())
        assert len(names) == count
        for name in names:
            kinds = {owner.kind for owner in opened.owner(f"overlay2/{name}/diff")}
            assert kinds
            assert OwnerKind.ORPHAN not in kinds
        assert docker.orphans() == []
        for container in opened.containers:
            record = docker.layer_db("overlay2").mounts[container.id]
            assert shown(opened, record.mount_id) == [("container", container.name, "its writable layer")]
            assert [owner.id for owner in opened.owner(f"overlay2/{record.init_id}")] == [container.id]
            link = docker.reader.text(f"{docker.driver('overlay2').folder(record.mount_id)}/link")
            if link:  # a removal that was interrupted may have taken it
                assert [owner.id for owner in opened.owner(f"overlay2/l/{link}/etc")] == [container.id]


def test_layers_of_real_images(tmp_path: Path) -> None:
    with real(GRAPHDRIVER / "evidence/clean/root.tar") as opened:
        records = root_of(opened).layer_db("overlay2")
        for image in opened.images:
            for one in image.layers:
                assert one.chain_id is not None
                owners = opened.owner(records.layers[one.chain_id].cache_id)
                assert image.id in {owner.id for owner in owners.where(kind="image-layer")}
                below = {c.id for c in opened.containers if c.image_id == image.id}
                assert below <= {owner.id for owner in owners.where(kind="container")}


def test_the_mounted_image_of_a_real_container() -> None:
    with real(GRAPHDRIVER / "evidence/clean/root.tar") as opened:
        (owner,) = opened.owner("7bf414057451f7cb")
        assert (owner.kind, owner.name) == (OwnerKind.IMAGE_MOUNT, "acme/tool:1")
    with real(CONTAINERD / "evidence/clean/root.tar") as opened:
        (owner,) = opened.owner("rootfs/overlayfs/b65b0a71726826609298dee44ae139f9d6f7060decb183865328dece9f3de92e")
        assert (owner.kind, owner.name) == (OwnerKind.IMAGE_MOUNT, "acme/tool:1")
