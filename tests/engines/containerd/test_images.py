"""What the names of images stand for."""

from __future__ import annotations

import hashlib
import json

from forensics_lib.engines.containerd.content import ContentStore
from forensics_lib.engines.containerd.images import platform_rank, read_target
from forensics_lib.formats.containerd_meta import ImageEntry
from forensics_lib.images.layer import SpoolPool
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.decompress import Limits
from tests.trees.layers import tree

INDEX, MANIFEST = "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"
HOME = "/ctr/io.containerd.content.v1.content/blobs"


class Blobs:
    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}

    def put(self, content: object) -> dict[str, object]:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        name = hashlib.sha256(data).hexdigest()
        self.entries[f"{HOME}/sha256/{name}"] = data
        return {"digest": f"sha256:{name}", "size": len(data)}

    def image(self, architecture: str) -> dict[str, object]:
        config = self.put({"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": []}})
        layer = self.put(f"layer of {architecture}".encode())
        described = {"mediaType": "application/vnd.oci.image.config.v1+json", **config}
        layers = [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **layer}]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers}
        platform = {"os": "linux", "architecture": architecture}
        return {"mediaType": MANIFEST, **self.put(manifest), "platform": platform}

    def store(self, *, recorded: bool = True, problems: ProblemLog | None = None) -> ContentStore:
        names = {f"sha256:{path.rpartition('/')[2]}" for path in self.entries}
        log = problems or ProblemLog(strict=True)
        known = names if recorded else None
        return ContentStore(tree("host", self.entries), "/ctr", log, Limits(), SpoolPool(1 << 20), known)


def entry(target: dict[str, object], media_type: str) -> ImageEntry:
    size = target["size"]
    assert isinstance(size, int)
    return ImageEntry("x", str(target["digest"]), media_type, size, None, None, {}, {}, Origin("meta.db"))


def test_an_index_of_two_platforms_one_of_which_was_never_fetched() -> None:
    blobs = Blobs()
    amd, arm = blobs.image("amd64"), {"mediaType": MANIFEST, "digest": f"sha256:{'a' * 64}", "size": 7}
    index = blobs.put({"schemaVersion": 2, "mediaType": INDEX, "manifests": [amd, arm]})
    target = read_target(blobs.store(), entry(index, INDEX))
    (image,) = target.images
    assert (image.parts.platform, image.descriptor, target.absent) == ("linux/amd64", amd, (arm["digest"],))
    sizes = sum(len(data) for data in blobs.entries.values())
    size = index["size"]
    assert isinstance(size, int)
    assert (image.packed_size, image.content_size) == (sizes, sizes - size)


def test_nested_indexes_count_on_the_way() -> None:
    blobs = Blobs()
    inner = {
        "mediaType": INDEX,
        **blobs.put({"schemaVersion": 2, "mediaType": INDEX, "manifests": [blobs.image("arm64")]}),
    }
    outer = blobs.put({"schemaVersion": 2, "mediaType": INDEX, "manifests": [inner]})
    (image,) = read_target(blobs.store(), entry(outer, INDEX)).images
    assert image.packed_size == sum(len(data) for data in blobs.entries.values())


def test_an_index_that_names_itself_ends() -> None:
    blobs = Blobs()
    digest = f"sha256:{'b' * 64}"
    loop = {"mediaType": INDEX, "digest": digest, "size": 1}
    blobs.entries[f"{HOME}/sha256/{'b' * 64}"] = json.dumps({"schemaVersion": 2, "manifests": [loop]}).encode()
    problems = ProblemLog()
    assert read_target(blobs.store(problems=problems), entry(loop, INDEX)).images == ()


def test_what_is_recorded_and_lost_is_told_by_the_store() -> None:
    blobs = Blobs()
    manifest = blobs.image("amd64")
    store = blobs.store()
    lost = next(path for path, data in blobs.entries.items() if data.startswith(b"layer"))
    store.tree = tree("host", {path: data for path, data in blobs.entries.items() if path != lost})
    (image,) = read_target(store, entry(manifest, MANIFEST)).images
    assert image.parts.layers[0].size is None
    assert list(store.lost()) == [f"sha256:{lost.rpartition('/')[2]}"]
    assert image.content_size == image.packed_size - len(blobs.entries[lost])


def test_without_records_what_is_missing_is_a_problem() -> None:
    problems = ProblemLog()
    missing = {"mediaType": MANIFEST, "digest": f"sha256:{'c' * 64}", "size": 1}
    target = read_target(Blobs().store(recorded=False, problems=problems), entry(missing, MANIFEST))
    assert (target.images, target.absent) == ((), (missing["digest"],))
    assert ["is missing from the evidence" in row.message for row in problems.rows] == [True]


def test_digests_and_small_documents() -> None:
    blobs = Blobs()
    blobs.put({"a": 1})
    blobs.put(b'{"a": 1}\n{"b": 2}\n')
    blobs.put(b"\x1f\x8b")
    blobs.entries[f"{HOME}/sha256/no-digest"] = b"{}"
    blobs.entries[f"{HOME}/md5/{'d' * 32}"] = b"{}"
    store = blobs.store()
    found = dict(store.digests())
    assert len(found) == 3
    documents = [store.small(node) for node in found.values()]
    assert [one.object.raw for one in documents if one is not None] == [{"a": 1}]


def test_ranks_of_platforms() -> None:
    ranked = sorted(
        ["linux/s390x", "linux/arm/v7", "windows/amd64", "linux/arm64", "linux/386", "linux/amd64"],
        key=lambda platform: platform_rank(platform, "linux/arm64"),
    )
    assert ranked[:2] == ["linux/arm64", "linux/arm/v7"]
    assert min(["linux/386", "linux/amd64"], key=lambda one: platform_rank(one, "linux/amd64")) == "linux/amd64"
