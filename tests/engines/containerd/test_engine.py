"""containerd by itself: containers of ctr, nerdctl and Kubernetes nodes."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.custody import Custody
from forensics_lib.engines.container_parts import ContainerState
from forensics_lib.engines.containerd.engine import ContainerdEngine
from forensics_lib.engines.containerd.unpacked import verify_unpacked
from forensics_lib.engines.docker.containerd import find_stores
from forensics_lib.errors import DamagedData, PathNotFound
from forensics_lib.images.layer import SpoolPool
from forensics_lib.model import EvidenceKind, ProblemLog
from forensics_lib.recovery.containerd import node_remnants
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.documents import DocumentReader
from forensics_lib.trees.outlet import Outlet
from tests.engines.containerd.test_images import INDEX, MANIFEST, Blobs
from tests.engines.containerd.test_snapshotter import record, varint
from tests.engines.docker.dataroot import EVIDENCE, NO_EVIDENCE, Buckets, bolt, message, write
from tests.tarmaker import TarMaker
from tests.trees.layers import shown, tree

CTR = "var/lib/containerd"
META = f"{CTR}/io.containerd.metadata.v1.bolt/meta.db"
OVERLAY = f"{CTR}/io.containerd.snapshotter.v1.overlayfs"
CONTENT = f"{CTR}/io.containerd.content.v1.content/blobs"
TIME = bytes.fromhex("010000000ee293b7c23548abc2ffff")
LOG = "/var/log/pods/prod_web-0_u/web/0.log"
REAL = EVIDENCE / "engines"

SPEC: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "hostname": "web-0",
    "process": {
        "args": ["/bin/app", "--port", "80"], "cwd": "/srv", "env": ["A=b"], "user": {"uid": 7, "gid": 8},
        "capabilities": {"bounding": ["CAP_CHOWN", "CAP_NET_ADMIN"]},
    },
    "root": {"path": "rootfs", "readonly": True},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/data", "type": "bind", "source": "/etc/data", "options": ["rbind", "ro"]},
        {"destination": "/creds", "type": "bind", "source": "/var/lib/kubelet/pods/u/volumes/creds"},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm"},
        {"destination": "/cache", "type": "tmpfs", "source": "tmpfs"},
    ],
    "linux": {"maskedPaths": ["/proc/kcore"], "namespaces": [{"type": "pid"}, {"type": "mount"}]},
}  # fmt: skip


def container(spec: object = SPEC, extensions: Mapping[str, object] | None = None, **more: bytes) -> Buckets:
    data = spec if isinstance(spec, bytes) else json.dumps(spec).encode()
    added = {name: message((1, "type"), (2, json.dumps(value))) for name, value in (extensions or {}).items()}
    made: dict[str, bytes | Buckets] = {
        "createdat": TIME, "image": b"docker.io/library/x:1", "snapshotter": b"overlayfs", "snapshotKey": b"web",
        "runtime": {"name": b"io.containerd.runc.v2"}, "spec": message((1, "Spec"), (2, data)),
    }  # fmt: skip
    return {**made, **more, **({"extensions": added} if added else {})}


def cri(**metadata: object) -> dict[str, object]:
    return {"io.cri-containerd.container.metadata": {"Version": "v1", "Metadata": metadata}}


def host(spaces: Buckets, snapshots: Buckets | None = None, **more: bytes) -> dict[str, bytes]:
    kept = {"k8s.io/1/base": record(1, 3), "k8s.io/2/web": record(2, 2, "k8s.io/1/base")}
    return {
        META: bolt({"v1": {"version": varint(8), **spaces}}),
        f"{OVERLAY}/metadata.db": bolt({"v1": {"snapshots": kept if snapshots is None else snapshots}}),
        f"{OVERLAY}/snapshots/1/fs/bin/app": b"app",
        f"{OVERLAY}/snapshots/2/fs/new": b"new",
        **{path.replace("__", "/"): data for path, data in more.items()},
    }


def engine(files: Mapping[str, bytes], problems: ProblemLog | None = None, others: tuple[str, ...] = ()) -> Any:
    log = problems or ProblemLog(strict=True)
    reader = DocumentReader(tree("host", {f"/{path}": data for path, data in files.items()}), log)
    (store,) = find_stores([reader], [], Limits(), SpoolPool(1 << 30))
    return ContainerdEngine(store, Outlet(Path("host.tar"), None, Custody(), log), lambda: others)


def texts(one: fl.Container) -> list[str]:
    return [log.text for log in one.logs()]


def test_a_container_of_kubernetes() -> None:
    metadata = cri(Name="web_web-0_prod_u_0", ImageRef="sha256:aa", LogPath=LOG)
    status = {"Version": "v1", "StartedAt": 5, "FinishedAt": 9, "ExitCode": 3, "Reason": "Error", "Message": "gone"}
    files = host({"k8s.io": {"containers": {"c": container(extensions=metadata)}}}) | {
        f"{CTR}/io.containerd.grpc.v1.cri/containers/c/status": json.dumps(status).encode(),
        LOG[1:]: b"2026-11-21T16:03:16Z stdout F third\n",
        f"{LOG[1:]}.20261121-160315": b"2026-11-21T16:03:15Z stderr P sec\n2026-11-21T16:03:15Z stderr F ond\n",
        f"{LOG[1:]}.20261121-160314.gz": gzip.compress(b"2026-11-21T16:03:14Z stdout F first\n"),
        f"{LOG[1:]}.other": b"2026-11-21T16:03:14Z stdout F not a log\n",
        "etc/data/rows": b"1",
    }
    (one,) = engine(files).containers
    assert (one.name, one.image_id, one.state) == ("web_web-0_prod_u_0", "sha256:aa", ContainerState.EXITED)
    assert (one.exit_code, one.state_note, one.error, one.started_ns, one.finished_ns) == (3, "Error", "gone", 5, 9)
    assert (one.command, one.working_dir, one.user) == (("/bin/app", "--port", "80"), "/srv", "7:8")
    assert (one.hostname, one.read_only, one.privileged) == ("web-0", True, False)
    assert [(m.type, m.destination, m.read_only) for m in one.mounts] == [
        ("bind", "/data", True),
        ("volume", "/creds", False),
        ("tmpfs", "/cache", False),
    ]
    assert one.capabilities_added == ("NET_ADMIN",)
    assert "SYS_CHROOT" in one.capabilities_dropped
    assert texts(one) == ["first", "sec", "ond", "third"]
    assert {found.kind for found in one.findings} >= {"host-path-mounted", "capability-added", "host-namespace"}
    assert shown(one.mount("/data/")) == {"/rows": b"1"}
    with pytest.raises(PathNotFound, match="mount points: /data, /creds, /cache"):
        one.mount("/nowhere")
    raw = one.inspect()
    assert raw["Runtime"] == {"Name": "io.containerd.runc.v2"}
    assert raw["Spec"] == SPEC
    assert raw["CreatedAt"] == "2026-11-21T16:03:14.89395501Z"


def test_its_files() -> None:
    (one,) = engine(host({"k8s.io": {"containers": {"c": container()}}})).containers
    assert shown(one.tree()) == {"/bin": "dir", "/bin/app": b"app", "/new": b"new"}
    assert [(str(change.kind), change.path) for change in one.diff()] == [("A", "/new")]


def test_a_container_of_nerdctl() -> None:
    made = {**container(), "labels": {"nerdctl/name": b"web", "nerdctl/log-uri": b"binary:///usr/bin/nerdctl"}}
    log = {f"var/lib/nerdctl/{name}/containers/default/c/c-json.log": b"" for name in ("1935db59",)}
    line = b'{"log":"hello\\n","stream":"stdout","time":"2026-11-21T16:03:14Z"}\n'
    files = host({"default": {"containers": {"c": made}}}) | dict.fromkeys(log, line)
    (one,) = engine(files).containers
    assert (one.name, one.log_driver, texts(one)) == ("web", "binary:///usr/bin/nerdctl", ["hello"])


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ({}, ContainerState.CREATED),
        ({f"{CTR}/io.containerd.runtime.v2.task/default/c/log": b""}, ContainerState.RUNNING),
        ({f"{CTR}/io.containerd.grpc.v1.cri/containers/c/status": b'{"StartedAt":5}'}, ContainerState.RUNNING),
        ({f"{CTR}/io.containerd.grpc.v1.cri/containers/c/status": b'{"Version":"v1"}'}, ContainerState.CREATED),
    ],
)
def test_what_is_known_of_its_state(more: dict[str, bytes], state: ContainerState) -> None:
    (one,) = engine(host({"default": {"containers": {"c": container()}}}) | more).containers
    assert (one.state, one.exit_code) == (state, None)


def test_namespaces_of_others_are_left_to_them() -> None:
    spaces = {"moby": {"containers": {"a": container()}}, "default": {"containers": {"b": container()}}}
    assert [one.id for one in engine(host(spaces), others=("moby",)).containers] == ["b"]


def test_images_by_their_names() -> None:
    blobs = Blobs()
    image = blobs.image("amd64")
    files = {f"{CONTENT}/{path.partition('/blobs/')[2]}": data for path, data in blobs.entries.items()}
    target: Buckets = {
        "digest": str(image["digest"]).encode(), "mediatype": MANIFEST.encode(), "size": varint(2 * len(b"")),
    }  # fmt: skip
    lost: Buckets = {"digest": b"sha256:" + b"a" * 64, "mediatype": INDEX.encode(), "size": varint(2)}
    names: dict[str, bytes | Buckets] = {
        "docker.io/library/x:1": {"target": target},
        "sha256:config": {"target": target},
    }
    blob: Buckets = {
        f"sha256:{path.rpartition('/')[2]}": {"size": varint(2 * len(data))} for path, data in files.items()
    }
    space: Buckets = {"images": names, "content": {"blob": blob}}
    broken: Buckets = {"images": {**names, "docker.io/library/y:1": {"target": lost}}, "content": {"blob": blob}}
    problems = ProblemLog()
    first, second = engine(host({"default": space, "k8s.io": broken}) | files, problems).images
    assert (first.id, first.tags) == (image["digest"], ("x:1",))
    assert (second.id, second.tags) == (second.config_digest, ("x:1",))
    assert [row.message for row in problems.rows if "stands for" in row.message] == [
        f"docker.io/library/y:1 stands for sha256:{'a' * 64}, of which no image is in the content store"
    ]


def test_damage_is_named_and_the_rest_answers() -> None:
    problems = ProblemLog()
    extension = message((1, "type"), (2, "{"))
    spoiled = {**container(b"{"), "extensions": {"io.cri-containerd.container.metadata": extension}}
    elsewhere = {**container(), "snapshotKey": b"gone"}
    other = {key: value for key, value in container().items() if key != "snapshotter"}
    one, two, three = engine(
        host({"k8s.io": {"containers": {"a": spoiled, "b": elsewhere, "c": other}}}), problems
    ).containers
    assert [row.message.split(":")[1] for row in problems.rows] == [
        " its runtime specification is damaged", " its record of the Kubernetes plugin is damaged",
    ]  # fmt: skip
    assert (one.command, one.mounts, one.privileged, any(mode for _, mode in one.namespaces)) == (
        (), (), False, False,
    )  # fmt: skip
    assert shown(one.tree()) == {"/bin": "dir", "/bin/app": b"app", "/new": b"new"}
    with pytest.raises(DamagedData, match="its snapshot gone is not recorded by overlayfs"):
        two.tree()
    assert two.size_rw is None
    with pytest.raises(PathNotFound, match="names no snapshotter"):
        three.tree()


def test_a_snapshot_whose_parent_has_no_record() -> None:
    files = host({"k8s.io": {"containers": {"c": container()}}}, {"k8s.io/2/web": record(2, 2, "k8s.io/1/base")})
    (one,) = engine(files, ProblemLog()).containers
    with pytest.raises(DamagedData, match="1/base has no record"):
        list(one.diff())


@pytest.mark.parametrize("at", ["", "copy/containerd"])
def test_a_copy_of_a_host_or_of_the_root_alone(tmp_path: Path, at: str) -> None:
    files = host({"k8s.io": {"containers": {"c": container()}}})
    if at:
        files = {f"containerd/{path.removeprefix(f'{CTR}/')}": data for path, data in files.items()}
    write(tmp_path / "host", files)
    with fl.open(tmp_path / "host") as evidence:
        assert evidence.kind is EvidenceKind.CONTAINERD_ROOT
        (one,) = evidence.containers
        assert one.tree().read("/new") == b"new"
        assert [check for check in evidence.verify() if not check.ok] == []
        assert list(evidence.deleted_containers) == []


def test_a_root_without_images_or_containers_is_a_tree(tmp_path: Path) -> None:
    write(tmp_path / "host", host({"default": {}}))
    with fl.open(tmp_path / "host") as evidence:
        assert evidence.kind is EvidenceKind.FILESYSTEM_TREE


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_damage_of_the_metadata_is_survived(data: st.DataObject) -> None:
    files = host({"k8s.io": {"containers": {"c": container(extensions=cri(Name="n", LogPath=LOG))}}})
    content = bytearray(files[META])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    problems = ProblemLog()
    for one in engine(files | {META: bytes(content)}, problems).containers:
        one.inspect()
        list(one.logs())
        try:
            list(one.diff())
        except fl.ForensicsError:
            continue


def test_each_unpacked_file_is_compared_with_its_layer() -> None:
    content = TarMaker().file("bin/app", b"app").file("bin/other", b"other").end()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    labels = {"containerd.io/uncompressed": digest.encode()}
    blob: Buckets = {"blob": {digest: {"size": varint(2 * len(content)), "labels": labels}}}
    files = host({"k8s.io": {"content": blob}}, {f"k8s.io/1/{digest}": record(1, 3)})
    del files[f"{OVERLAY}/snapshots/2/fs/new"]
    files |= {f"{CONTENT}/sha256/{digest[7:]}": content, f"{OVERLAY}/snapshots/1/fs/bin/other": b"other"}
    (space,) = engine(files).spaces
    assert [check for check in verify_unpacked(space) if not check.ok] == []
    files |= {f"{OVERLAY}/snapshots/1/fs/bin/other": b"OTHER", f"{OVERLAY}/snapshots/1/fs/bin/new": b"n"}
    del files[f"{OVERLAY}/snapshots/1/fs/bin/app"]
    (space,) = engine(files).spaces
    assert [check.actual for check in verify_unpacked(space) if not check.ok] == [
        "/bin/app is missing", "/bin/other has another content", "/bin/new is not in the archive",
    ]  # fmt: skip


def test_what_lost_its_owner() -> None:
    stray = hashlib.sha256(b"stray").hexdigest()
    pod = "var/log/pods/prod_web-0_u/web"
    files = host({"k8s.io": {"containers": {"c": container(extensions=cri(Name="n", LogPath=LOG))}}}) | {
        f"{CONTENT}/sha256/{stray}": b"stray",
        f"{OVERLAY}/snapshots/9/fs/left": b"left",
        f"{pod}/0.log": b"", f"{pod}/0.log.20261121-160315": b"", f"{pod}/1.log": b"", f"{pod}/note": b"",
        "var/log/pods/prod_gone_u-2/app/0.log.20261121-160315.gz": b"x",
    }  # fmt: skip
    found = {one.path: one for one in node_remnants(engine(files))}
    gone, other = "/var/log/pods/prod_gone_u-2/app/0.log.20261121-160315.gz", f"/{pod}/1.log"
    assert set(found) == {f"/{CONTENT}/sha256/{stray}", f"/{OVERLAY}/snapshots/9", gone, other}
    assert found[gone].detail == "log of container app of the pod gone in prod (u-2), which no record names"
    problems = ProblemLog()
    assert [one.kind for one in node_remnants(engine(files | {META: b"torn"}, problems))] == ["layer"]


# Real hosts ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL.is_dir(), reason=NO_EVIDENCE)
@pytest.mark.parametrize(("name", "images"), [("containerd", 4), ("k8s-node-containerd", 3)])
def test_a_real_host(name: str, images: int) -> None:
    folder = REAL / name
    said = [json.loads(line) for line in (folder / "truth/ps.jsonl").read_text().splitlines()]
    with fl.open(folder / "evidence/host.tar") as evidence:
        assert evidence.kind is EvidenceKind.CONTAINERD_ROOT
        found = {one.id: one for one in evidence.containers}
        assert {row["id"] for row in said} <= set(found)
        assert {found[row["id"]].image for row in said} == {row["image"] for row in said}
        assert len(evidence.images) == images
        checks = list(evidence.verify())
        assert checks
        assert all(check.ok for check in checks)
        for log in (folder / "truth/logs").glob("*.log"):
            if log.stem in found and found[log.stem].log_driver == "cri":
                assert list(found[log.stem].logs()) != []
