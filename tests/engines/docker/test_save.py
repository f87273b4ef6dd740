"""Containers saved as image archives, their sizes and what was mounted into them."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.engines.container import Container
from forensics_lib.engines.save import SavedContainer
from forensics_lib.errors import DamagedData, PathNotFound
from forensics_lib.trees.base import Node, NodeKind, Tree
from tests.engines.docker.imageroot import (
    DOCKER,
    GONE,
    LATER,
    SECOND,
    Entry,
    ImageRoot,
    digest_of,
    file,
    folder,
    hardlink,
    symlink,
    to_json,
)
from tests.samples import archive_tree

EVIDENCE = Path(os.environ.get("FORENSICS_EVIDENCE", "nowhere"))
CAPABILITY = {"security.capability": b"\x01\0\0\x02\0\x20\0\0" + bytes(12)}
BASE = {
    "bin": folder(),
    "bin/sh": file(b"#!elf", mode=0o755),
    "etc": folder(),
    "etc/passwd": file(b"root:x:0:0\n"),
    "etc/old": file(b"1"),
    "opt/a": file(b"shared", mode=0o600, uid=1000),
    "opt": folder(),
    "opt/b": hardlink("opt/a"),
    "ping": file(b"#!elf", xattrs=CAPABILITY),
    "tmp": folder(mode=0o1777),
}
TOP = {"bin": folder(), "bin/ls": symlink("sh"), "etc": folder(), "etc/old": GONE, "srv": folder(), "srv/x": file(b"x")}
OWN = {
    "etc": folder(mtime=LATER),
    "etc/passwd": file(b"root::0:0\n", mtime=LATER),
    "opt": folder(mtime=LATER),
    "opt/b": GONE,
    "tmp": folder(mode=0o1777, mtime=LATER),
    "tmp/caf\udce9": file(b"e", mtime=f"{LATER}.25"),
    "tmp/one": file(b"same", mtime=LATER),
    "tmp/two": hardlink("tmp/one"),
    "tmp/pipe": Entry("6", b"", {"mtime": LATER}),
    "tmp/zero": Entry("3", b"", {"mtime": LATER, "major": 1, "minor": 5}),
}
DRIVERS = ["overlay2", "vfs"]


def image_root(driver: str = "overlay2") -> ImageRoot:
    return ImageRoot(driver).layer(BASE).layer(TOP).run(OWN)


@pytest.fixture(params=DRIVERS)
def root(request: pytest.FixtureRequest) -> ImageRoot:
    return image_root(request.param)


def opened(root: ImageRoot, folder: Path, **options: Any) -> fl.Evidence:
    return fl.open(root.write(folder / "root.tar"), **options)


def problems(evidence: fl.Evidence) -> list[str]:
    return [problem.message for problem in evidence.problems]


# --- the archive ------------------------------------------------------------------------------------------------------


def test_the_archive_holds_the_container(root: ImageRoot, tmp_path: Path) -> None:
    with opened(root, tmp_path) as evidence:
        container = evidence.container("web")
        saved = container.save(tmp_path / "web.tar", tag="case-42/web:seized")
        assert problems(evidence) == []
        assert saved.layers[:2] == tuple(digest_of(layer) for layer in root.layers)
        assert (saved.container_id, saved.replaced, saved.path) == (root.container, (), tmp_path / "web.tar")
        assert saved.sha256 == digest_of(saved.path.read_bytes())[7:]
        assert saved.size == saved.path.stat().st_size
        with fl.open(saved.path) as archive:
            (image,) = archive.images
            assert [image.id, *image.tags] == [saved.image_id, "case-42/web:seized"]
            assert [layer.diff_id for layer in image.layers] == list(saved.layers)
            assert (image.alignment, [check for check in archive.verify() if not check.ok]) == ("exact", [])
            assert differences(container, evidence, image.tree()) == []
            tree = image.tree()
            assert tree.read("/etc/passwd") == b"root::0:0\n"
            assert tree.node("/tmp/caf\udce9").mtime_ns == LATER * SECOND + SECOND // 4
            assert tree.node("/tmp/one").nlink == tree.node("/tmp/two").nlink == 2
            assert "/etc/hosts" not in tree, "what the engine puts into every container is no part of an image"
            assert problems(archive) == []


def test_the_last_layer_is_what_docker_commit_stores(tmp_path: Path) -> None:
    with opened(image_root(), tmp_path) as evidence:
        evidence.container("web").save(tmp_path / "web.tar")
    with fl.open(tmp_path / "web.tar") as archive:
        changes = [f"{change.kind} {change.path}" for change in archive.images[0].layers[-1].changes()]
    assert changes == [
        "C /", "C /etc", "C /etc/passwd", "C /opt", "D /opt/b", "C /tmp", "A /tmp/caf\udce9", "A /tmp/one",
        "A /tmp/pipe", "A /tmp/two", "A /tmp/zero",
    ]  # fmt: skip


def test_the_configuration_is_that_of_docker_commit(tmp_path: Path) -> None:
    root = image_root()
    with opened(root, tmp_path) as evidence:
        evidence.container("web").save(tmp_path / "web.tar")
    with fl.open(tmp_path / "web.tar") as archive:
        document = json.loads(archive.images[0].raw_config or b"")
    comment = f"saved from container {root.container} by forensics_lib {fl.__version__}"
    assert document == {
        "architecture": "amd64",
        "os": "linux",
        "container": root.container,
        "created": "2024-02-29T13:00:00Z",
        "config": root.record["Config"],
        "history": [
            {"created": "2024-02-29T12:00:00.5Z", "created_by": "step 0"},
            {"created": "2024-02-29T12:00:00.5Z", "created_by": "step 1"},
            {"created": "2024-02-29T13:00:00Z", "created_by": "/bin/httpd -p 80", "comment": comment},
        ],
        "rootfs": document["rootfs"],
    }


def test_the_files_of_the_archive(tmp_path: Path) -> None:
    with opened(image_root(), tmp_path) as evidence:
        saved = evidence.container("web").save(tmp_path / "web.tar", tag="web")
        nameless = evidence.container("web").save(tmp_path / "nameless.tar")
    blobs = [f"blobs/sha256/{layer[7:]}" for layer in saved.layers]
    members = {entry.name: entry for entry in fl.tar_entries(tmp_path / "web.tar")}
    assert list(members)[:5] == ["blobs/", "blobs/sha256/", *blobs]
    assert list(members)[-4:] == ["index.json", "manifest.json", "oci-layout", "repositories"]
    assert all(entry.mtime_ns == 0 and entry.anomalies == () for entry in members.values())
    with archive_tree(tmp_path / "web.tar") as tree:
        files = {node.path: json.loads(node.read()) for node in tree.children() if node.size}
    manifest = files["/index.json"]["manifests"][0]
    assert manifest["annotations"] == {
        "io.containerd.image.name": "docker.io/library/web:latest",
        "org.opencontainers.image.ref.name": "latest",
    }
    listed = files["/manifest.json"][0]
    assert listed["Config"] == f"blobs/sha256/{saved.image_id[7:]}"
    assert (listed["RepoTags"], listed["Layers"]) == (["web:latest"], blobs)
    assert files["/oci-layout"] == {"imageLayoutVersion": "1.0.0"}
    assert files["/repositories"] == {"web": {"latest": saved.layers[-1][7:]}}
    assert nameless.image_id == saved.image_id
    with fl.open(tmp_path / "nameless.tar") as archive:
        assert archive.images[0].tags == ()
    with archive_tree(tmp_path / "nameless.tar") as tree:
        assert "/repositories" not in tree


def test_the_same_container_gives_the_same_bytes(root: ImageRoot, tmp_path: Path) -> None:
    with opened(root, tmp_path) as evidence:
        one = evidence.container("web").save(tmp_path / "one.tar")
        two = evidence.container("web").save(tmp_path / "two.tar")
    assert one.sha256 == two.sha256
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_a_layer_that_comes_twice_is_stored_once(tmp_path: Path) -> None:
    root = ImageRoot().layer(BASE).layer(TOP).layer(TOP).run({})
    with opened(root, tmp_path) as evidence:
        saved = evidence.container("web").save(tmp_path / "web.tar")
    assert saved.layers[1] == saved.layers[2]
    blobs = [entry.name for entry in fl.tar_entries(saved.path) if entry.name.startswith("blobs/sha256/")]
    assert len(blobs) == len(set(blobs)) == 1 + 3 + 2
    with fl.open(saved.path) as archive:
        assert all(check.ok for check in archive.verify())


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "web.tar"
    target.write_bytes(b"mine")
    with opened(image_root(), tmp_path) as evidence:
        with pytest.raises(FileExistsError):
            evidence.container("web").save(target)
        with pytest.raises(FileExistsError):
            evidence.container("web").save(tmp_path)
    assert target.read_bytes() == b"mine"


def test_nothing_is_left_after_a_failure(tmp_path: Path) -> None:
    root = image_root()
    root.remove(f"{root.record_of(0)}/tar-split.json.gz")
    with opened(root, tmp_path, strict=True) as evidence, pytest.raises(DamagedData):
        evidence.container("web").save(tmp_path / "web.tar")
    root.remove(root.place("own"))
    with opened(root, tmp_path) as evidence, pytest.raises(PathNotFound):
        evidence.container("web").save(tmp_path / "web.tar")
    root.record["Driver"] = "devicemapper"
    with opened(root, tmp_path) as evidence, pytest.raises(DamagedData, match="not recorded by the driver"):
        evidence.container("web").save(tmp_path / "web.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["root.tar"]


@pytest.mark.parametrize("tag", ["UPPER", "a b", "", "x:y:z"])
def test_wrong_names(tag: str, tmp_path: Path) -> None:
    with opened(image_root(), tmp_path) as evidence:
        with pytest.raises(DamagedData, match="no valid image name"):
            evidence.container("web").save(tmp_path / "web.tar", tag=tag)
        with pytest.raises(ValueError, match="cannot be chosen"):
            evidence.container("web").save(tmp_path / "web.tar", tag=f"x@{digest_of(b'')}")
    assert not (tmp_path / "web.tar").exists()


# --- layers that are not what they were -------------------------------------------------------------------------------


def saved_tree(root: ImageRoot, folder: Path) -> tuple[list[str], tuple[str, ...], int, list[str]]:
    """Save, and compare with the container: differing paths, replaced layers, number of layers, problems."""
    with opened(root, folder) as evidence:
        container = evidence.container("web")
        saved = container.save(folder / "web.tar")
        with fl.open(saved.path) as archive:
            assert all(check.ok for check in archive.verify())
            found = differences(container, evidence, archive.images[0].tree())
        return found, saved.replaced, len(saved.layers), problems(evidence)


def test_a_changed_file_gives_its_layer_another_digest(root: ImageRoot, tmp_path: Path) -> None:
    diff_id = digest_of(root.layers[0])
    root.members[root.place("layer0", "bin/sh")] = file(b"#evil", mode=0o755)
    if root.driver == "vfs":
        for name in ("layer1", "own-init", "own"):
            root.members[root.place(name, "bin/sh")] = file(b"#evil", mode=0o755)
    found, replaced, count, said = saved_tree(root, tmp_path)
    assert (found, replaced, count) == ([], (diff_id,), 3)
    assert any(diff_id in message and "not those that the image had" in message for message in said)


@pytest.mark.parametrize("spoiled", ["tar-split", "missing file", "added file", "added deletion"])
def test_a_layer_that_cannot_be_put_together_is_made_anew(spoiled: str, tmp_path: Path) -> None:
    root = image_root()
    diff_id = digest_of(root.layers[1])
    match spoiled:
        case "tar-split":
            root.remove(f"{root.record_of(1)}/tar-split.json.gz")
        case "missing file":
            root.remove(root.place("layer1", "srv/x"))
        case "added file":
            root.members[root.place("layer1", "bin/backdoor")] = file(b"evil", mode=0o4755)
        case "added deletion":
            root.members[root.place("layer1", "bin/sh")] = GONE
    found, replaced, count, said = saved_tree(root, tmp_path)
    assert (found, replaced, count) == ([], (diff_id,), 3)
    assert [message for message in said if diff_id in message]


def test_a_changed_mode_is_told(tmp_path: Path) -> None:
    root = image_root()
    root.members[root.place("layer0", "bin/sh")] = file(b"#!elf", mode=0o4755)
    found, replaced, _, said = saved_tree(root, tmp_path)
    assert (found, replaced) == (["/bin/sh"], ())
    assert any("1 of its files are different now: /bin/sh (mode)" in message for message in said)


def test_without_its_layers_it_is_saved_as_one(tmp_path: Path) -> None:
    root = image_root()
    root.remove(f"{DOCKER}/overlay2/layer1")
    with opened(root, tmp_path) as evidence:
        container = evidence.container("web")
        saved = container.save(tmp_path / "web.tar")
        assert any("saved as a single layer with all its files" in message for message in problems(evidence))
        with fl.open(saved.path) as archive:
            (image,) = archive.images
            assert facts(image.tree()) == facts(container.tree())
            assert [step.empty for step in image.history()] == [False, True, True]
    assert saved.replaced == tuple(digest_of(layer) for layer in root.layers)
    assert len(saved.layers) == 1


def test_layers_outlive_their_image(tmp_path: Path) -> None:
    root = image_root()
    root.record |= {"Image": digest_of(b"removed"), "ImagePlatform": {"architecture": "arm64", "os": "linux"}}
    with opened(root, tmp_path) as evidence:
        saved = evidence.container("web").save(tmp_path / "web.tar")
    assert saved.layers[:2] == tuple(digest_of(layer) for layer in root.layers)
    with fl.open(saved.path) as archive:
        (image,) = archive.images
        assert (image.platform, image.alignment, len(image.config.history)) == ("linux/arm64", "exact", 3)
        assert image.config.cmd == ("-p", "80")


def test_layers_are_found_by_their_image_where_their_records_do_not_lead_to_them(tmp_path: Path) -> None:
    root = image_root()
    root.remove(f"{root.record_of(1)}/parent")
    root.remove(f"{root.record_of(0)}/diff")
    assert saved_tree(root, tmp_path)[:3] == ([], (), 3)
    (tmp_path / "web.tar").unlink()
    root.record["Image"] = digest_of(b"removed")
    with opened(root, tmp_path) as evidence:
        saved = evidence.container("web").save(tmp_path / "web.tar")
        assert len(saved.layers) == 1
        assert any("are not all recorded" in message for message in problems(evidence))


def test_nothing_but_the_container_is_left(tmp_path: Path) -> None:
    root = image_root("vfs")
    root.record["Image"] = digest_of(b"removed")
    root.remove(f"{DOCKER}/image/vfs/layerdb/sha256")
    with opened(root, tmp_path) as evidence:
        container = evidence.container("web")
        saved = container.save(tmp_path / "web.tar")
        with fl.open(saved.path) as archive:
            assert facts(archive.images[0].tree()) == facts(container.tree())
            assert archive.images[0].platform == "linux"
    assert (len(saved.layers), saved.replaced) == (1, ())


def test_an_image_without_layers(tmp_path: Path) -> None:
    root = ImageRoot().run({"app": file(b"1")}, init={})
    found, replaced, count, said = saved_tree(root, tmp_path)
    assert (found, replaced, count, said) == ([], (), 1, [])


def test_containers_of_docker_before_1_10(tmp_path: Path) -> None:
    root = ImageRoot("vfs")
    base, top, own = (digest_of(name)[7:] for name in (b"base", b"top", b"own"))
    trees = {base: BASE, top: BASE | TOP, f"{own}-init": BASE | TOP, own: BASE | TOP | OWN}
    for name, entries in trees.items():
        root.members[root.place(name)] = folder()
        for path, entry in entries.items():
            if entry.typeflag == "1":
                entry = hardlink(root.place(name, entry.fields["linkname"]))
            if entry is not GONE:
                root.members[root.place(name, path)] = entry
    for name, parent in ((base, ""), (top, base)):
        document: dict[str, Any] = {
            "id": name,
            "parent": parent,
            "created": "2014-01-01T00:00:00Z",
            "architecture": "amd64",
        }
        document |= {"os": "linux", "container_config": {"Cmd": [name[:4]]}, "config": {"Cmd": ["/bin/sh"]}}
        root.members[f"{DOCKER}/graph/{name}/json"] = file(to_json(document))
    repositories = {"Repositories": {"web": {"latest": top}}}
    root.members[f"{DOCKER}/repositories-vfs"] = file(to_json(repositories))
    root.container = own
    root.record |= {"ID": own, "Image": top}
    with opened(root, tmp_path) as evidence:
        container = evidence.container("web")
        saved = container.save(tmp_path / "web.tar")
        with fl.open(saved.path) as archive:
            (image,) = archive.images
            assert facts(image.tree()) == facts(container.tree())
            assert (image.platform, image.alignment, len(image.layers)) == ("linux/amd64", "exact", 3)
        assert container.size_root_fs is None


WRONG: st.SearchStrategy[Any] = st.sampled_from(
    [None, 5, "x", [], [5], {}, {"x": 5}, {"id": []}, "9999-12-31T23:59:59Z", -(2**70), "\udcff\0"]
)
KEYS = ["Config", "Created", "State", "Path", "Args", "Driver", "OS", "ImagePlatform", "MountPoints", "Image", "ID"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_the_records_say(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    root = with_mounts(data={"Type": "volume", "Name": "data"}, conf={"Type": "bind", "Source": "/srv/conf"})
    for name in data.draw(st.lists(st.sampled_from(sorted(root.members)), max_size=3)):
        root.members[name] = data.draw(st.sampled_from([file(b""), file(b"\0{"), GONE, symlink("/"), Entry("5")]))
    for key, value in data.draw(st.dictionaries(st.sampled_from(KEYS), WRONG, max_size=4)).items():
        root.record[key] = value
    for key, value in data.draw(st.dictionaries(st.sampled_from(sorted(root.config)), WRONG, max_size=3)).items():
        root.config[key] = value
    splits = f"{root.record_of(0)}/tar-split.json.gz"
    lines = st.fixed_dictionaries({"type": st.integers(0, 3), "name": st.text(), "size": st.integers(-5, 2**70)})
    if data.draw(st.booleans()):
        root.members[splits] = file(gzip.compress(b"\n".join(map(to_json, data.draw(st.lists(lines, max_size=3))))))
    with opened(root, folder) as evidence:
        for number, container in enumerate(evidence.containers):
            for question in (
                lambda c: c.mount("/data"),
                lambda c: c.mount("/conf"),
                lambda c: (c.size_rw, c.size_root_fs),
            ):
                with contextlib.suppress(fl.ForensicsError):
                    question(container)
            target = folder / f"{number}.tar"
            try:
                container.save(target)
            except fl.ForensicsError:
                assert not target.exists()
            else:
                with fl.open(target) as archive:
                    failed = [check.subject for check in archive.verify() if not check.ok]
                    assert [subject for subject in failed if "history" not in subject] == []


# --- custody and copies -----------------------------------------------------------------------------------------------


def test_the_custody_records_what_leaves_the_evidence(tmp_path: Path) -> None:
    with opened(image_root(), tmp_path) as evidence:
        container = evidence.container("web")
        saved = container.save(tmp_path / "web.tar")
        rows = container.extract("/etc", tmp_path / "out")
        entries = [entry for entry in evidence.custody.entries if entry.action in ("save", "extract")]
    assert json.loads(entries[0].details) == {
        "container": container.id,
        "image": saved.image_id,
        "sha256": saved.sha256,
        "size": saved.size,
        "to": str(tmp_path / "web.tar"),
    }
    assert entries[0].subject == str(tmp_path / "root.tar")
    assert [entry.subject for entry in entries[1:]] == ["/etc/hosts", "/etc/passwd", str(tmp_path / "root.tar")]
    assert (tmp_path / "out/etc/passwd").read_bytes() == b"root::0:0\n"
    assert {row.path: row.sha256 for row in rows}["/etc/passwd"] == digest_of(b"root::0:0\n")[7:]


def test_nothing_is_written_into_the_evidence(tmp_path: Path) -> None:
    root = ImageRoot("vfs").layer({"a": file(b"1")}).run({"b": file(b"2")})
    evidence_folder = tmp_path / "evidence"
    with fl.open(root.write(tmp_path / "root.tar")) as archive:
        archive.extract(tree_of(archive), "/", evidence_folder)
    with fl.open(evidence_folder) as evidence:
        container = evidence.container("web")
        for target in (evidence_folder / "web.tar", evidence_folder / "var/../x"):
            with pytest.raises(ValueError, match="inside the evidence"):
                container.save(target)
            with pytest.raises(ValueError, match="inside the evidence"):
                container.extract("/", target)
        container.save(tmp_path / "web.tar")
    with fl.open(tmp_path / "web.tar") as archive:
        assert {"/a", "/b"} <= {node.path for node in archive.images[0].tree().walk()}


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_sizes(root: ImageRoot, tmp_path: Path) -> None:
    image = 5 + 11 + 1 + 6 + 5 + 2 + 1  # as its layers are recorded
    own = 10 + 1 + 4  # a hard-linked file once, devices and deletions nothing
    with opened(root, tmp_path) as evidence:
        container = evidence.container("web")
        assert (container.size_rw, container.size_root_fs) == (own, own + image)


def test_a_file_that_was_copied_up_counts_where_its_driver_counts_it(tmp_path: Path) -> None:
    for driver, expected in (("overlay2", 5), ("vfs", 0)):
        root = ImageRoot(driver).layer(BASE).run({"bin/sh": BASE["bin/sh"]})
        with opened(root, tmp_path) as evidence:
            assert evidence.container("web").size_rw == expected


def test_sizes_that_cannot_be_told(tmp_path: Path) -> None:
    root = image_root()
    root.remove(f"{root.record_of(0)}/size")
    with opened(root, tmp_path) as evidence:
        container = evidence.container("web")
        assert (container.size_rw, container.size_root_fs) == (15, None)
    root.remove(root.place("own"))
    with opened(root, tmp_path) as evidence:
        container = evidence.container("web")
        assert (container.size_rw, container.size_root_fs) == (None, None)
        assert any("own/diff is not in the evidence" in message for message in problems(evidence))


# --- mounts -----------------------------------------------------------------------------------------------------------


def with_mounts(**points: dict[str, Any]) -> ImageRoot:
    root = image_root()
    root.record["MountPoints"] = {f"/{name}": {"Destination": f"/{name}"} | point for name, point in points.items()}
    root.record["HostsPath"] = f"/{DOCKER}/containers/{root.container}/hosts"
    volume = f"{DOCKER}/volumes/data/_data"
    root.members |= {
        f"{volume}/f": file(b"1"),
        f"{volume}/sub/g": file(b"2"),
        "srv/conf/key": file(b"secret"),
        "srv/link": symlink("/srv/conf"),
        "srv/out": symlink("../../../etc"),
        "srv/file": file(b"x"),
        "etc/shadow": file(b"x"),
    }
    return root


def listed(tree: Tree) -> list[str]:
    return [node.path for node in tree.walk()]


def test_volumes(tmp_path: Path) -> None:
    volume = {"Type": "volume", "Name": "data", "Driver": "local"}
    part = {"Spec": {"Type": "volume", "VolumeOptions": {"Subpath": "sub"}}}
    root = with_mounts(data=volume, part=volume | part, gone=volume | {"Name": "gone"}, old={"Name": "data"})
    with opened(root, tmp_path) as evidence:
        container = evidence.container("web")
        assert listed(container.mount("/data")) == ["/", "/f", "/sub", "/sub/g"]
        assert listed(container.mount("/data/")) == listed(container.mount("/old"))
        assert listed(container.mount("/part")) == ["/", "/g"]
        with pytest.raises(PathNotFound, match="volume gone is not in the evidence"):
            container.mount("/gone")
        with pytest.raises(PathNotFound, match="nothing was mounted at /f; mount points: /data, /part"):
            container.mount("/f")


def test_folders_of_the_host(tmp_path: Path) -> None:
    sources = {
        "conf": "/srv/conf",
        "link": "/srv/link",
        "out": "/srv/out",
        "host": "/",
        "own": f"/{DOCKER}/volumes/data/_data",
        "file": "/srv/file",
        "none": "/none",
    }
    root = with_mounts(**{name: {"Type": "bind", "Source": source} for name, source in sources.items()})
    with opened(root, tmp_path) as evidence:
        container = evidence.container("web")
        assert container.mount("/conf").read("/key") == b"secret"
        assert container.mount("/link").read("/key") == b"secret"
        assert listed(container.mount("/out")) == ["/", "/shadow"], "as the host would have followed it, no further"
        assert "/etc/shadow" in container.mount("/host")
        assert listed(container.mount("/own"))[1] == "/f"
        assert listed(container.mount("/file")) == ["/"]
        assert container.mount("/file").read("/") == b"x"
        with pytest.raises(PathNotFound):
            container.mount("/file").node("/x")
        with pytest.raises(PathNotFound, match="does not exist on the host"):
            container.mount("/none")


def test_a_copied_data_root_has_no_host(tmp_path: Path) -> None:
    root = with_mounts(
        conf={"Type": "bind", "Source": "/srv/conf"}, own={"Type": "bind", "Source": f"/{DOCKER}/volumes"}
    )
    with opened(root, tmp_path) as evidence:
        evidence.extract(tree_of(evidence), f"/{DOCKER}", tmp_path / "copy")
    with fl.open(tmp_path / "copy/docker") as evidence:
        container = evidence.container("web")
        assert "/data/_data/f" in container.mount("/own")
        with pytest.raises(PathNotFound, match="/srv/conf of the host is not in the evidence"):
            container.mount("/conf")


def test_images_memory_and_plugins(tmp_path: Path) -> None:
    image = {"Type": "image", "Name": "web:1", "ID": "imagemount"}
    root = with_mounts(img=image, lost=image | {"ID": "lost"}, run={"Type": "tmpfs"}, pipe={"Type": "npipe"})
    root.host_config["Tmpfs"] = {"/cache": "rw"}
    mounts = f"{DOCKER}/image/overlay2/layerdb/mounts/imagemount"
    root.put(mounts, {"mount-id": "layer1"})
    with opened(root, tmp_path) as evidence:
        container = evidence.container("web")
        assert container.mount("/img").read("/srv/x") == b"x"
        for name, message in {
            "/lost": "not in the evidence",
            "/run": "type tmpfs",
            "/pipe": "type npipe",
            "/cache": "memory only",
        }.items():
            with pytest.raises(PathNotFound, match=message):
                container.mount(name)


# --- other tools ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", [None, "case-42/web:seized"])
def test_skopeo_reads_the_archive(root: ImageRoot, tag: str | None, tmp_path: Path) -> None:
    with opened(root, tmp_path) as evidence:
        saved = evidence.container("web").save(tmp_path / "web.tar", tag=tag)
    check_with_skopeo(saved, tmp_path)


def check_with_skopeo(saved: SavedContainer, folder: Path) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    for transport in ("docker-archive", "oci-archive"):
        name = f"{transport}:{saved.path}"
        config = subprocess.run(["skopeo", "inspect", "--raw", "--config", name], capture_output=True, check=True)
        assert digest_of(config.stdout) == saved.image_id
        copy = folder / transport
        subprocess.run(["skopeo", "copy", name, f"oci:{copy}:x"], capture_output=True, check=True)
        with fl.open(copy) as layout:
            assert layout.images[0].config.diff_ids == saved.layers
            assert all(check.ok for check in layout.verify())


# --- real data roots --------------------------------------------------------------------------------------------------

REAL = [
    ("docker-small/small-ext4-overlay2", "var-lib-docker.tar"),
    ("docker29-graphdriver/modern-graphdriver-nocrash", "root.tar"),
    ("docker-vfs/vfs", "var-lib-docker.tar"),
]


@pytest.fixture(params=REAL, ids=[name.partition("/")[0] for name, _ in REAL])
def real(request: pytest.FixtureRequest) -> Iterator[tuple[fl.Evidence, Path]]:
    name, file = request.param
    path = EVIDENCE / name / "evidence/clean" / file
    if not path.exists():
        pytest.skip("FORENSICS_EVIDENCE names no folder with this evidence")
    with fl.open(path) as evidence:
        yield evidence, EVIDENCE / name / "truth/5-stopped"


def test_real_containers_have_the_sizes_that_docker_shows(real: tuple[fl.Evidence, Path]) -> None:
    evidence, truth = real
    for container in evidence.containers:
        document = json.loads((truth / "containers" / f"{container.id}.json").read_text())
        shown = document[0] if isinstance(document, list) else document
        assert (container.size_rw, container.size_root_fs) == (shown["SizeRw"], shown["SizeRootFs"]), container.name


@pytest.mark.parametrize("name", ["web", "db", "priv", "hardened", "exit0"])
def test_real_containers_are_saved_as_they_are(name: str, real: tuple[fl.Evidence, Path], tmp_path: Path) -> None:
    evidence, _ = real
    container = evidence.container(name)
    saved = container.save(tmp_path / "saved.tar", tag=f"case/{name}:1")
    with fl.open(saved.path) as archive:
        (image,) = archive.images
        original = evidence.image(container.image_id)
        assert [layer.diff_id for layer in image.layers[:-1]] == [layer.diff_id for layer in original.layers]
        assert all(check.ok for check in archive.verify())
        assert differences(container, evidence, image.tree()) == []
        assert (problems(archive), saved.replaced, image.alignment) == ([], (), "exact")
        assert not [message for message in problems(evidence) if "saved" in message or "left out" in message]
    check_with_skopeo(saved, tmp_path)


# --- helpers ----------------------------------------------------------------------------------------------------------


def tree_of(evidence: fl.Evidence) -> Tree:
    """The files of a data root's archive."""
    return evidence.filesystems[0].tree


def fact(node: Node) -> tuple[object, ...]:
    """All that is to be the same; of the attributes that which engines keep in layers."""
    content = node.read() if node.kind is NodeKind.FILE else b""
    seconds = node.mtime_ns // SECOND if node.mtime_ns else None
    capability = node.xattrs.get("security.capability")
    return (node.kind, node.mode, node.uid, node.gid, node.target, node.rdev, capability, seconds, content)


def facts(tree: Tree) -> dict[str, tuple[object, ...]]:
    return {node.path: fact(node) for node in tree.walk()}


def differences(container: Container, evidence: fl.Evidence, saved: Tree) -> list[str]:
    """Paths that are not as in the container; what its init layer put there may be as in the image."""
    docker = evidence._holdings.dockers[0]
    record = next(record for record in docker.records if record.id == container.id)
    mount = docker.mount(record)
    assert mount is not None
    driver = docker.driver(container.storage_driver)
    wanted, started, found = facts(container.tree()), facts(driver.tree(mount.init_id)), facts(saved)
    chain = docker.layer_db(driver.name).chain(mount.parent)
    image = facts(driver.tree(chain[0].cache_id)) if chain else {"/": wanted["/"]}
    differing = []
    for path in wanted.keys() | found.keys():
        from_init = wanted.get(path) == started.get(path) and found.get(path) == image.get(path)
        if wanted.get(path) != found.get(path) and not from_init:
            differing.append(path)
    return sorted(differing)
