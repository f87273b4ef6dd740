from __future__ import annotations

import ast
import gzip
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib import registry
from forensics_lib.errors import (
    AmbiguousName,
    DamagedData,
    ForensicsError,
    LimitExceeded,
    NotFound,
    PathNotFound,
    UnsupportedFormat,
    VerificationFailed,
)
from forensics_lib.images.reference import Reference
from forensics_lib.registry import remote
from forensics_lib.registry.layout import Layout
from forensics_lib.registry.plan import Descriptor, Plan
from tests.registry_server import INDEX, RegistryServer

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # of the two bytes {}
REPORT = "application/vnd.example.report"
PACKAGE = Path(registry.__file__).parents[1]


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def descriptor(media_type: str, data: bytes, **more: object) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data), **more}


def tar(name: str, data: bytes) -> bytes:
    """One file in a ustar archive."""
    fields = (name.encode(), b"0000644", b"0000000", b"0000000", b"%011o" % len(data), b"00000000000", b" " * 8, b"0")
    layout = "100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x"
    rest = (b"", b"ustar", b"00", b"root", b"root", b"", b"", b"")
    header = bytearray(struct.pack(layout, *fields, *rest))
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data + bytes(-len(data) % 512) + bytes(1024)


@dataclass
class Image:
    """A tiny image; its manifest is written with odd spaces, so that only exact bytes have its digest."""

    config: bytes
    layer: bytes
    manifest: bytes

    @classmethod
    def make(cls, content: bytes = b"hello", *, architecture: str = "amd64", **more: object) -> Image:
        archive = tar("hello.txt", content)
        rootfs = {"type": "layers", "diff_ids": [sha256(archive)]}
        config = json.dumps({"os": "linux", "architecture": architecture, "rootfs": rootfs}).encode()
        layer = gzip.compress(archive, mtime=0)
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, config),
            "layers": [descriptor(LAYER, layer)],
            **more,
        }
        return cls(config, layer, json.dumps(document, indent=5).encode() + b"\n\n")

    @property
    def raw_manifest(self) -> bytes:
        return self.manifest

    @property
    def manifest_media_type(self) -> str:
        return MANIFEST

    @property
    def blobs(self) -> list[bytes]:
        return [self.config, self.layer, self.manifest]

    def serve(self, server: RegistryServer, name: str, tag: str) -> str:
        server.add_blob(self.config)
        server.add_blob(self.layer)
        return server.add_manifest(name, tag, MANIFEST, self.manifest)


def index_of(*entries: dict[str, Any], **more: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries), **more}, indent=1).encode()


def write_layout(folder: Path, blobs: list[bytes], *entries: dict[str, Any]) -> Path:
    (folder / "blobs/sha256").mkdir(parents=True)
    for blob in blobs:
        (folder / "blobs/sha256" / hashlib.sha256(blob).hexdigest()).write_bytes(blob)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_bytes(index_of(*entries))
    return folder


def blobs_of(layout: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in layout.glob("blobs/*/*")}


def contents(*blobs: bytes) -> dict[str, bytes]:
    return {hashlib.sha256(blob).hexdigest(): blob for blob in blobs}


def entries_of(layout: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((layout / "index.json").read_bytes())["manifests"]
    return entries


def multi_platform() -> tuple[bytes, dict[str, Image], bytes, list[bytes]]:
    """An index of amd64, a nested index of arm64, and an attestation of amd64; (index, images, attestation, all)."""
    images = {name: Image.make(name.encode(), architecture=name) for name in ("amd64", "arm64")}
    statement = b'{"_type": "https://in-toto.io/Statement/v0.1"}'
    attestation = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, b"{}"),
            "layers": [descriptor("application/vnd.in-toto+json", statement)],
        }
    ).encode()
    arm = images["arm64"].manifest
    nested = index_of(descriptor(MANIFEST, arm, platform={"os": "linux", "architecture": "arm64", "variant": "v8"}))
    amd = images["amd64"].manifest
    about = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": sha256(amd)}
    index = index_of(
        descriptor(MANIFEST, amd, platform={"os": "linux", "architecture": "amd64"}),
        descriptor(INDEX, nested),
        descriptor(MANIFEST, attestation, annotations=about, platform={"os": "unknown", "architecture": "unknown"}),
    )
    everything = [b"{}", statement, attestation, nested, index]
    for image in images.values():
        everything += image.blobs
    return index, images, attestation, everything


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No credentials, no proxies and no names from outside of the test."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as server:
        yield server


@pytest.fixture(scope="session")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary = shutil.which("docker-registry")
    if binary is None:
        pytest.skip("docker-registry is not installed")
    folder = tmp_path_factory.mktemp("docker-registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "config.yml"
    storage = json.dumps({"filesystem": {"rootdirectory": str(folder / "data")}})
    config.write_text(f'version: 0.1\nlog: {{level: error}}\nstorage: {storage}\nhttp: {{addr: "{host}"}}\n')
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([binary, "serve", str(config)], stdout=log, stderr=log)
    try:
        for _ in range(200):
            try:
                with urlopen(f"http://{host}/v2/"):
                    break
            except OSError:
                time.sleep(0.05)
        else:
            pytest.fail((folder / "log").read_text())
        yield host
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(params=["referrers-api", "no-referrers-api", "docker-registry"])
def repository(request: pytest.FixtureRequest) -> Iterator[str]:
    """A repository that no other test uses, of several kinds of registry."""
    name = "case/" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    if request.param == "docker-registry":
        yield f"{request.getfixturevalue('docker_registry')}/{name}"
        return
    with RegistryServer(referrers_api=request.param == "referrers-api") as server:
        yield f"{server.host}/{name}"


class TestEveryRegistry:
    def test_image_comes_back_with_the_same_bytes(self, repository: str, tmp_path: Path) -> None:
        image = Image.make()
        layout = write_layout(tmp_path / "in", image.blobs, descriptor(MANIFEST, image.manifest))
        pushed = registry.push_layout(layout, f"{repository}:1.0", insecure=True)
        assert pushed.digest == sha256(image.manifest)
        assert pushed.reference == f"{repository}@{pushed.digest}"
        assert pushed.raw_manifest == image.manifest

        checks = registry.pull(f"{repository}:1.0", tmp_path / "out", insecure=True)

        assert blobs_of(tmp_path / "out") == contents(*image.blobs)
        assert json.loads((tmp_path / "out/oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
        names = {"io.containerd.image.name": f"{repository}:1.0", "org.opencontainers.image.ref.name": "1.0"}
        assert entries_of(tmp_path / "out") == [descriptor(MANIFEST, image.manifest, annotations=names)]
        assert len(checks) == 6
        assert all(check.ok and check.expected == check.actual for check in checks)
        found = {(check.subject, check.actual) for check in checks}
        assert (f"blob {sha256(image.layer)} digest", sha256(image.layer)) in found
        assert (f"blob {sha256(image.layer)} size", str(len(image.layer))) in found
        assert str(checks[0].origin) == f"{tmp_path / 'out'} > blobs/sha256/{sha256(image.manifest)[7:]}"

    def test_by_digest(self, repository: str, tmp_path: Path) -> None:
        image = Image.make()
        layout = write_layout(tmp_path / "in", image.blobs, descriptor(MANIFEST, image.manifest))
        pushed = registry.push_layout(layout, repository, insecure=True)
        registry.pull(pushed.reference, tmp_path / "out", insecure=True)
        assert entries_of(tmp_path / "out")[0]["annotations"] == {"io.containerd.image.name": pushed.reference}
        with pytest.raises(NotFound):
            registry.pull(repository, tmp_path / "none", insecure=True)

    def test_all_platforms_attestations_and_nested_indexes(self, repository: str, tmp_path: Path) -> None:
        index, _, _, everything = multi_platform()
        layout = write_layout(tmp_path / "in", everything, descriptor(INDEX, index))
        registry.push_layout(layout, f"{repository}:multi", insecure=True)
        registry.pull(f"{repository}:multi", tmp_path / "out", insecure=True)
        assert blobs_of(tmp_path / "out") == contents(*everything)

    def test_one_platform_with_what_attests_it(self, repository: str, tmp_path: Path) -> None:
        index, images, attestation, everything = multi_platform()
        layout = write_layout(tmp_path / "in", everything, descriptor(INDEX, index))
        registry.push_layout(layout, f"{repository}:multi", insecure=True)

        registry.pull(f"{repository}:multi", tmp_path / "amd", platform="linux/amd64", insecure=True)
        assert entries_of(tmp_path / "amd")[0]["digest"] == sha256(index)
        found = blobs_of(tmp_path / "amd")
        assert contents(*images["amd64"].blobs, attestation).items() <= found.items()
        assert not contents(*images["arm64"].blobs).keys() & found.keys()

        registry.pull(f"{repository}:multi", tmp_path / "arm", platform="linux/arm64/v8", insecure=True)
        found = blobs_of(tmp_path / "arm")
        assert contents(*images["arm64"].blobs).items() <= found.items()
        assert not contents(*images["amd64"].blobs, attestation).keys() & found.keys()

        with pytest.raises(NotFound, match="no image for windows/amd64; there is linux/amd64, linux/arm64"):
            registry.pull(f"{repository}:multi", tmp_path / "windows", platform="windows/amd64", insecure=True)
        assert entries_of(tmp_path / "windows") == []

    def test_platform_of_a_single_image_is_in_its_configuration(self, repository: str, tmp_path: Path) -> None:
        image = Image.make()
        layout = write_layout(tmp_path / "in", image.blobs, descriptor(MANIFEST, image.manifest))
        registry.push_layout(layout, f"{repository}:1", insecure=True)
        registry.pull(f"{repository}:1", tmp_path / "out", platform="linux/amd64", insecure=True)
        assert blobs_of(tmp_path / "out") == contents(*image.blobs)
        with pytest.raises(NotFound, match="no image for linux/s390x; there is linux/amd64"):
            registry.pull(f"{repository}:1", tmp_path / "none", platform="linux/s390x", insecure=True)

    def test_large_blobs_go_in_chunks(self, repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(remote, "_CHUNK", 1000)
        image = Image.make(os.urandom(5000))
        layout = write_layout(tmp_path / "in", image.blobs, descriptor(MANIFEST, image.manifest))
        steps: list[tuple[int, int]] = []
        registry.push_layout(
            layout, f"{repository}:1", insecure=True, progress=lambda done, total: steps.append((done, total))
        )
        total = len(image.layer) + len(image.config)
        assert steps[-1] == (total, total)
        registry.pull(f"{repository}:1", tmp_path / "out", insecure=True)
        assert blobs_of(tmp_path / "out") == contents(*image.blobs)

    def test_progress_ends_at_the_total(self, repository: str, tmp_path: Path) -> None:
        image = Image.make()
        layout = write_layout(tmp_path / "in", image.blobs, descriptor(MANIFEST, image.manifest))
        registry.push_layout(layout, f"{repository}:1", insecure=True)
        for _ in range(2):  # fetched, then already there
            steps: list[tuple[int, int]] = []
            registry.pull(
                f"{repository}:1",
                tmp_path / "out",
                insecure=True,
                progress=lambda done, total, steps=steps: steps.append((done, total)),  # type: ignore[misc]
            )
            total = len(image.layer) + len(image.config)
            assert steps[-1] == (total, total)
            assert steps == sorted(steps)

    def test_report_refers_to_the_examined_image(self, repository: str, tmp_path: Path) -> None:
        image = Image.make()
        layout = write_layout(tmp_path / "in", image.blobs, descriptor(MANIFEST, image.manifest))
        registry.push_layout(layout, f"{repository}:1.0", insecure=True)
        report, table = tmp_path / "report.html", tmp_path / "hashes.bin"
        report.write_bytes(b"<p>nothing found</p>")
        table.write_bytes(b"")

        pushed = registry.push(
            [report, str(table)],
            repository,
            artifact_type=REPORT,
            subject=image,
            annotations={"org.example.case": "17"},
            insecure=True,
        )

        assert json.loads(pushed.raw_manifest) == {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": REPORT,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY, "size": 2},
            "layers": [
                {
                    "mediaType": "text/html",
                    "digest": sha256(b"<p>nothing found</p>"),
                    "size": 20,
                    "annotations": {"org.opencontainers.image.title": "report.html"},
                },
                {
                    "mediaType": "application/octet-stream",
                    "digest": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                    "size": 0,
                    "annotations": {"org.opencontainers.image.title": "hashes.bin"},
                },
            ],
            "subject": {"mediaType": MANIFEST, "digest": sha256(image.manifest), "size": len(image.manifest)},
            "annotations": {"org.example.case": "17"},
        }
        for asked in (f"{repository}:1.0", f"{repository}@{sha256(image.manifest)}"):
            (row,) = registry.referrers(asked, insecure=True)
            assert row.digest == pushed.digest == sha256(pushed.raw_manifest)
            assert row.reference == pushed.reference
            assert row.size == len(pushed.raw_manifest)
            assert (row.media_type, row.artifact_type) == (MANIFEST, REPORT)
            assert row.annotations == (("org.example.case", "17"),)
        registry.pull(pushed.reference, tmp_path / "out", insecure=True)
        assert report.read_bytes() in blobs_of(tmp_path / "out").values()

    def test_referrers_add_up_and_are_listed_once(self, repository: str, tmp_path: Path) -> None:
        image = Image.make()
        layout = write_layout(tmp_path / "in", image.blobs, descriptor(MANIFEST, image.manifest))
        registry.push_layout(layout, f"{repository}:1.0", insecure=True)
        assert list(registry.referrers(f"{repository}:1.0", insecure=True)) == []
        report = tmp_path / "report.json"
        report.write_text("{}")
        kinds = ["application/vnd.example.a", "application/vnd.example.b"]
        pushed = {
            kind: registry.push({"result": report}, repository, artifact_type=kind, subject=image, insecure=True)
            for kind in [*kinds, kinds[0]]
        }
        # a referrer can be a subject itself
        reply = registry.push([], repository, artifact_type=REPORT, subject=pushed[kinds[0]], insecure=True)

        rows = registry.referrers(f"{repository}:1.0", insecure=True)
        assert {row.digest for row in rows} == {made.digest for made in pushed.values()}
        assert len(rows) == 2
        only = registry.referrers(f"{repository}:1.0", artifact_type=kinds[1], insecure=True)
        assert [row.digest for row in only] == [pushed[kinds[1]].digest]
        (row,) = registry.referrers(pushed[kinds[0]].reference, insecure=True)
        assert row.digest == reply.digest

    def test_recovered_image_refers_to_the_original(self, repository: str, tmp_path: Path) -> None:
        original, recovered = Image.make(b"original"), Image.make(b"recovered")
        layout = write_layout(tmp_path / "in", recovered.blobs, descriptor(MANIFEST, recovered.manifest))
        pushed = registry.push_layout(layout, f"{repository}:recovered", subject=original, insecure=True)
        document = json.loads(pushed.raw_manifest)
        assert document["manifests"] == [descriptor(MANIFEST, recovered.manifest)]
        assert document["subject"] == descriptor(MANIFEST, original.manifest)
        (row,) = registry.referrers(f"{repository}@{sha256(original.manifest)}", insecure=True)
        assert (row.digest, row.media_type) == (pushed.digest, INDEX)
        registry.pull(f"{repository}:recovered", tmp_path / "out", insecure=True)
        assert contents(*recovered.blobs).items() <= blobs_of(tmp_path / "out").items()

    def test_images_are_added_and_a_name_moves_on(self, repository: str, tmp_path: Path) -> None:
        images = [Image.make(b"first"), Image.make(b"second")]
        for number, image in enumerate(images):
            layout = write_layout(tmp_path / f"in{number}", image.blobs, descriptor(MANIFEST, image.manifest))
            registry.push_layout(layout, f"{repository}:latest", insecure=True)
            registry.pull(repository, tmp_path / "out", insecure=True)
            registry.pull(repository, tmp_path / "out", insecure=True)  # again: nothing is added
        first, second = entries_of(tmp_path / "out")
        assert first == descriptor(MANIFEST, images[0].manifest, annotations={})
        assert second["digest"] == sha256(images[1].manifest)
        assert second["annotations"]["io.containerd.image.name"] == f"{repository}:latest"
        assert blobs_of(tmp_path / "out") == contents(*images[0].blobs, *images[1].blobs)
        copied = registry.push_layout(tmp_path / "out", f"{repository}:copy", name="latest", insecure=True)
        assert copied.digest == sha256(images[1].manifest)

    def test_unknown_tag(self, repository: str, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="404"):
            registry.pull(f"{repository}:none", tmp_path / "out", insecure=True)
        assert not (tmp_path / "out").exists()
        with pytest.raises(NotFound):
            registry.referrers(f"{repository}:none", insecure=True)

    def test_real_images(self, repository: str, tmp_path: Path) -> None:
        evidence = os.environ.get("FORENSICS_EVIDENCE")
        found = sorted(Path(evidence).glob("docker-small/*/evidence/skopeo/*/oci-layout")) if evidence else []
        if not found:
            pytest.skip("FORENSICS_EVIDENCE names no folder with docker-small/*/evidence/skopeo/*/oci-layout")
        for number, layout in enumerate(path.parent for path in found):
            for entry in entries_of(layout):
                name = entry["annotations"]["org.opencontainers.image.ref.name"]
                registry.push_layout(layout, f"{repository}{number}:{name}", name=name, insecure=True)
                out = tmp_path / f"{number}-{name}"
                assert all(check.ok for check in registry.pull(f"{repository}{number}:{name}", out, insecure=True))
                assert entries_of(out)[0]["digest"] == entry["digest"]
                assert blobs_of(out).items() <= blobs_of(layout).items()


class TestHostileRegistry:
    """Nothing wrong is left looking right, and nothing but the library's errors comes out."""

    @pytest.fixture
    def image(self, server: RegistryServer) -> Image:
        image = Image.make()
        image.serve(server, "acme/web", "1.0")
        return image

    def refused(self, server: RegistryServer, to: Path, error: type[ForensicsError], match: str | None = None) -> None:
        with pytest.raises(error, match=match):
            registry.pull(f"{server.host}/acme/web:1.0", to, insecure=True)
        if to.exists():
            assert entries_of(to) == []
            assert all(hashlib.sha256(blob).hexdigest() == name for name, blob in blobs_of(to).items())

    def test_changed_blob(self, server: RegistryServer, image: Image, tmp_path: Path) -> None:
        wrong = bytes([image.layer[0] ^ 1]) + image.layer[1:]
        server.sent[sha256(image.layer)] = wrong
        with pytest.raises(VerificationFailed) as caught:
            registry.pull(f"{server.host}/acme/web:1.0", tmp_path / "out", insecure=True)
        assert (caught.value.expected, caught.value.actual) == (sha256(image.layer), sha256(wrong))
        assert blobs_of(tmp_path / "out") == contents(image.config, image.manifest)
        assert entries_of(tmp_path / "out") == []

        server.sent.clear()  # the same folder goes on from there
        server.requests.clear()
        assert all(check.ok for check in registry.pull(f"{server.host}/acme/web:1.0", tmp_path / "out", insecure=True))
        assert server.paths("GET") == ["/v2/acme/web/manifests/1.0", f"/v2/acme/web/blobs/{sha256(image.layer)}"]

    @pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b""])
    def test_wrong_size(self, server: RegistryServer, image: Image, tmp_path: Path, change: Any) -> None:
        server.sent[sha256(image.layer)] = change(image.layer)
        self.refused(server, tmp_path / "out", VerificationFailed, "size|larger")

    def test_endless_blob_ends_at_its_size(self, server: RegistryServer, image: Image, tmp_path: Path) -> None:
        server.endless.add(sha256(image.layer))
        self.refused(server, tmp_path / "out", VerificationFailed, "is larger than its")

    def test_endless_manifest(
        self, server: RegistryServer, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(remote, "MAX_BYTES", 1 << 20)
        server.endless.add("1.0")
        self.refused(server, tmp_path / "out", LimitExceeded, "document of more than")

    def test_connection_that_ends_early(self, server: RegistryServer, image: Image, tmp_path: Path) -> None:
        server.cut.add(sha256(image.layer))
        self.refused(server, tmp_path / "out", ForensicsError, "IncompleteRead")

    def test_missing_blob(self, server: RegistryServer, image: Image, tmp_path: Path) -> None:
        del server.blobs[sha256(image.layer)]
        self.refused(server, tmp_path / "out", NotFound, sha256(image.layer))

    def test_complaint_is_shown_without_control_characters(
        self, server: RegistryServer, image: Image, tmp_path: Path
    ) -> None:
        server.status["1.0"] = 500
        with pytest.raises(ForensicsError) as caught:
            registry.pull(f"{server.host}/acme/web:1.0", tmp_path / "out", insecure=True)
        assert type(caught.value) is ForensicsError
        assert str(caught.value).endswith(": 500 [31mnothing known of 1.0")

    def test_registry_that_is_down_for_a_moment(self, server: RegistryServer, image: Image, tmp_path: Path) -> None:
        server.status["1.0"] = 503
        self.refused(server, tmp_path / "out", ForensicsError, "503")
        assert len(server.requests) == 3

    def test_other_manifest_than_the_digest_asked_for(
        self, server: RegistryServer, image: Image, tmp_path: Path
    ) -> None:
        digest = sha256(image.manifest)
        server.sent[digest] = Image.make(b"other").manifest
        server.headers[digest] = {"Docker-Content-Digest": sha256(server.sent[digest])}
        with pytest.raises(VerificationFailed):
            registry.pull(f"{server.host}/acme/web@{digest}", tmp_path / "out", insecure=True)
        assert blobs_of(tmp_path / "out") == {}

    @pytest.mark.parametrize("claimed", [sha256(b"other"), "sha512:00", "../../x", ""])
    def test_registry_contradicts_itself(
        self, server: RegistryServer, image: Image, tmp_path: Path, claimed: str
    ) -> None:
        server.headers["1.0"] = {"Docker-Content-Digest": claimed}
        self.refused(server, tmp_path / "out", VerificationFailed, "what the registry sends is sha")

    @pytest.mark.parametrize(
        "digest",
        [
            "sha256:../../../../escaped",
            "../" * 20 + "escaped:x",
            "sha256:" + "A" * 64,
            "sha256:" + "0" * 63,
            "md5:" + "0" * 32,
            "sha256:" + "0" * 64 + "\n",
            "",
            7,
        ],
    )
    @pytest.mark.parametrize("place", ["config", "layers", "manifests"])
    def test_digest_that_is_a_path(self, server: RegistryServer, tmp_path: Path, digest: object, place: str) -> None:
        bad = {"mediaType": LAYER if place == "layers" else MANIFEST, "digest": digest, "size": 5}
        document: dict[str, object] = {"schemaVersion": 2, "config": descriptor(CONFIG, b"{}"), "layers": []}
        if place == "manifests":
            document = {"schemaVersion": 2, "manifests": [bad]}
        else:
            document[place] = bad if place == "config" else [bad]
        server.add_manifest("acme/web", "1.0", "application/json", json.dumps(document).encode())
        self.refused(server, tmp_path / "deep/er/out", DamagedData, "digest")
        assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file())[1:] == ["index.json", "oci-layout"]
        assert len(server.paths("GET")) == 1

    @pytest.mark.parametrize("size", [-1, 1.5, "5", None, True])
    def test_impossible_size(self, server: RegistryServer, tmp_path: Path, size: object) -> None:
        layer = {"mediaType": LAYER, "digest": sha256(b"x"), "size": size}
        document = {"schemaVersion": 2, "config": descriptor(CONFIG, b"{}"), "layers": [layer]}
        server.add_manifest("acme/web", "1.0", MANIFEST, json.dumps(document).encode())
        self.refused(server, tmp_path / "out", DamagedData, "no possible size")

    def test_image_larger_than_the_disk(self, server: RegistryServer, tmp_path: Path) -> None:
        layer = {"mediaType": LAYER, "digest": sha256(b"x"), "size": 1 << 62}
        document = {"schemaVersion": 2, "config": descriptor(CONFIG, b"{}"), "layers": [layer]}
        server.add_manifest("acme/web", "1.0", MANIFEST, json.dumps(document).encode())
        self.refused(server, tmp_path / "out", ForensicsError, "has room for")

    def test_one_digest_with_two_sizes(self, server: RegistryServer, tmp_path: Path) -> None:
        layers = [descriptor(LAYER, b"x"), descriptor(LAYER, b"x") | {"size": 2}]
        document = {"schemaVersion": 2, "config": descriptor(CONFIG, b"{}"), "layers": layers}
        server.add_manifest("acme/web", "1.0", MANIFEST, json.dumps(document).encode())
        self.refused(server, tmp_path / "out", DamagedData, "different sizes")

    def test_manifest_and_index_at_once(self, server: RegistryServer, image: Image, tmp_path: Path) -> None:
        both = json.loads(image.manifest) | {"manifests": []}
        server.add_manifest("acme/web", "1.0", MANIFEST, json.dumps(both).encode())
        self.refused(server, tmp_path / "out", DamagedData, "at once")

    @pytest.mark.parametrize(
        ("content_type", "body", "error"),
        [
            ("application/vnd.docker.distribution.manifest.v1+prettyjws", b'{"fsLayers": []}', UnsupportedFormat),
            ("text/html", b"<html>log in first</html>", DamagedData),
            ("application/json", b"{}", UnsupportedFormat),
            ("application/json", b"[]", DamagedData),
            (MANIFEST, b"{}", DamagedData),
            (MANIFEST, b"\xff\xfe", DamagedData),
            (MANIFEST, b"[" * 100_000, LimitExceeded),
        ],
    )
    def test_no_manifest(
        self, server: RegistryServer, tmp_path: Path, content_type: str, body: bytes, error: type[ForensicsError]
    ) -> None:
        server.manifests["acme/web", "1.0"] = (content_type, body)
        self.refused(server, tmp_path / "out", error)

    def test_indexes_nested_without_end(self, server: RegistryServer, tmp_path: Path) -> None:
        index = index_of()
        for _ in range(12):
            server.add_manifest("acme/web", "1.0", INDEX, index)
            index = index_of(descriptor(INDEX, index))
        self.refused(server, tmp_path / "out", LimitExceeded, "nested")

    def test_encoded_transfer(self, server: RegistryServer, image: Image, tmp_path: Path) -> None:
        server.sent[sha256(image.layer)] = gzip.compress(image.layer)
        server.headers[sha256(image.layer)] = {"Content-Encoding": "gzip"}
        self.refused(server, tmp_path / "out", UnsupportedFormat, "encodes")

    def test_foreign_layer_that_is_absent(self, server: RegistryServer, tmp_path: Path) -> None:
        kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        layer = descriptor(kind, b"base of windows", urls=["http://192.0.2.1/layer"])
        document = {"schemaVersion": 2, "config": descriptor(CONFIG, b"{}"), "layers": [layer]}
        server.add_blob(b"{}")
        server.add_manifest("acme/web", "1.0", MANIFEST, json.dumps(document).encode())
        checks = registry.pull(f"{server.host}/acme/web:1.0", tmp_path / "out", insecure=True)
        (bad,) = checks.where(ok=False)
        assert (bad.expected, bad.actual) == (sha256(b"base of windows"), "absent")
        pushed = registry.push_layout(tmp_path / "out", f"{server.host}/copy/web:1.0", insecure=True)
        assert pushed.raw_manifest == json.dumps(document).encode()

    def test_build_cache_lists_layers_in_an_index(self, server: RegistryServer, tmp_path: Path) -> None:
        server.add_blob(b"layer")
        index = index_of(descriptor(LAYER, b"layer"))
        server.add_manifest("acme/web", "1.0", INDEX, index)
        registry.pull(f"{server.host}/acme/web:1.0", tmp_path / "out", insecure=True)
        assert blobs_of(tmp_path / "out") == contents(b"layer", index)

    def test_pages_of_referrers(self, server: RegistryServer, image: Image, tmp_path: Path) -> None:
        server.page_size = 2
        for number in range(5):
            registry.push(
                [], f"{server.host}/acme/web", artifact_type=f"{REPORT}.{number}", subject=image, insecure=True
            )
        rows = registry.referrers(f"{server.host}/acme/web:1.0", insecure=True)
        assert [row.artifact_type for row in rows] == [f"{REPORT}.{number}" for number in range(5)]

        server.headers["referrers"] = {"Link": f"<http://{server.host}/elsewhere>; rel=next"}
        with pytest.raises(DamagedData, match="another place"):
            registry.referrers(f"{server.host}/acme/web:1.0", insecure=True)
        server.headers["referrers"] = {"Link": "<./sha256:none/x>; rel=next"}
        with pytest.raises(ForensicsError):
            registry.referrers(f"{server.host}/acme/web:1.0", insecure=True)
        server.headers["referrers"] = {"Link": "<http://[>; rel=next"}
        with pytest.raises(ForensicsError):
            registry.referrers(f"{server.host}/acme/web:1.0", insecure=True)
        server.headers["referrers"] = {"Link": '<?page=0>; rel="next"'}
        with pytest.raises(LimitExceeded, match="pages"):
            registry.referrers(f"{server.host}/acme/web:1.0", insecure=True)

    def test_web_page_in_place_of_referrers(self, server: RegistryServer, image: Image) -> None:
        server.headers["referrers"] = {"Content-Type": "text/html"}
        assert list(registry.referrers(f"{server.host}/acme/web:1.0", insecure=True)) == []

    def test_malformed_referrers(self, server: RegistryServer, image: Image) -> None:
        server.referrers_api = False
        tag = sha256(image.manifest).replace(":", "-")
        server.add_manifest("acme/web", tag, INDEX, index_of({"mediaType": MANIFEST, "digest": "../x", "size": 1}))
        with pytest.raises(DamagedData):
            registry.referrers(f"{server.host}/acme/web:1.0", insecure=True)
        server.add_manifest("acme/web", tag, MANIFEST, image.manifest)
        with pytest.raises(DamagedData, match="no index"):
            registry.referrers(f"{server.host}/acme/web:1.0", insecure=True)

    def test_registry_stores_something_else(self, server: RegistryServer, image: Image) -> None:
        server.headers["PUT 2"] = {"Docker-Content-Digest": sha256(b"other")}
        with pytest.raises(VerificationFailed, match="stored"):
            registry.push([], f"{server.host}/acme/web:2", artifact_type=REPORT, insecure=True)

    def test_nobody_answers(self, tmp_path: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            host = f"127.0.0.1:{probe.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(ForensicsError) as caught:
            registry.pull(f"{host}/acme/web:1.0", tmp_path / "out", insecure=True)
        assert type(caught.value) is ForensicsError
        assert time.monotonic() - started < 10
        assert not (tmp_path / "out").exists()

    def test_plain_http_has_to_be_asked_for(self, server: RegistryServer, image: Image, tmp_path: Path) -> None:
        with pytest.raises(ForensicsError):
            registry.pull(f"{server.host}/acme/web:1.0", tmp_path / "out")
        assert server.requests == []


class TestCredentials:
    @pytest.fixture
    def image(self, server: RegistryServer) -> Image:
        image = Image.make()
        image.serve(server, "acme/web", "1.0")
        return image

    @pytest.mark.parametrize("auth", ["basic", "token"])
    def test_user_name_and_password(self, server: RegistryServer, image: Image, tmp_path: Path, auth: str) -> None:
        server.auth = auth
        name = f"{server.host}/acme/web:1.0"
        registry.pull(name, tmp_path / "out", insecure=True, username="examiner", password="secret")
        assert blobs_of(tmp_path / "out") == contents(*image.blobs)
        # the token for pulling does not suffice here; a second one is asked for
        layout = tmp_path / "out"
        registry.push_layout(
            layout, f"{server.host}/acme/copy:1", insecure=True, username="examiner", password="secret"
        )
        assert server.manifests["acme/copy", "1"] == (MANIFEST, image.manifest)
        for username in ("examiner", None):
            with pytest.raises(ForensicsError) as caught:
                registry.pull(name, tmp_path / "none", insecure=True, username=username, password="wrong")
            assert type(caught.value) is ForensicsError

    def test_token_for_everybody(self, server: RegistryServer, image: Image, tmp_path: Path) -> None:
        server.auth = "anonymous"
        registry.pull(f"{server.host}/acme/web:1.0", tmp_path / "out", insecure=True)
        assert blobs_of(tmp_path / "out") == contents(*image.blobs)

    def test_token_that_expires(
        self, server: RegistryServer, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.auth = "anonymous"
        take = Layout.take

        def expire(self: Layout, *arguments: Any) -> None:
            server.revoked.update(given.removeprefix("Bearer ") for _, _, given in server.requests if given)
            take(self, *arguments)

        monkeypatch.setattr(Layout, "take", expire)
        registry.pull(f"{server.host}/acme/web:1.0", tmp_path / "out", insecure=True)
        assert blobs_of(tmp_path / "out") == contents(*image.blobs)
        assert server.paths("GET").count("/token") == 3

    def test_stored_credentials_of_docker(
        self, server: RegistryServer, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.auth = "token"
        config = tmp_path / "home/.docker/config.json"
        config.parent.mkdir(parents=True)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        config.write_text(json.dumps({"auths": {server.host: {"auth": "ZXhhbWluZXI6c2VjcmV0"}}}))  # examiner:secret
        registry.pull(f"{server.host}/acme/web:1.0", tmp_path / "out", insecure=True)
        config.write_text("no JSON")
        with pytest.raises(ForensicsError, match="Docker's configuration"):
            registry.pull(f"{server.host}/acme/web:1.0", tmp_path / "none", insecure=True)

    def test_no_credentials_for_another_host(self, server: RegistryServer, image: Image, tmp_path: Path) -> None:
        server.auth = "basic"
        with RegistryServer() as storage:
            storage.blobs = dict(server.blobs)
            server.storage = storage
            registry.pull(
                f"{server.host}/acme/web:1.0",
                tmp_path / "out",
                insecure=True,
                username="examiner",
                password="secret",
            )
            assert blobs_of(tmp_path / "out") == contents(*image.blobs)
            assert len(storage.requests) == 2
            assert {given for _, _, given in storage.requests} == {""}

    @pytest.mark.parametrize(
        "challenge",
        ['Bearer realm="nowhere"', "Bearer", 'Bearer realm="ftp://127.0.0.1/"', "Basic", "Digest x", "\x7f"],
    )
    def test_strange_challenge(self, server: RegistryServer, tmp_path: Path, challenge: str) -> None:
        server.manifests["acme/web", "1.0"] = (MANIFEST, b"{}")
        server.sent["1.0"] = b""
        server.status["1.0"] = 401
        server.challenge = challenge
        for username in ("examiner", None):
            with pytest.raises(ForensicsError):
                registry.pull(f"{server.host}/acme/web:1.0", tmp_path / "out", insecure=True, username=username)

    def test_no_way_from_https_to_http(self) -> None:
        client = remote._Client(insecure=False)
        assert list(client.session.adapters) == ["https://"]

    def test_docker_hub_is_found_where_it_is(self) -> None:
        hub = remote.Remote(Reference.parse("ubuntu:22.04"), False, None, None)
        assert hub._url("manifests", "22.04") == "https://registry-1.docker.io/v2/library/ubuntu/manifests/22.04"


class TestFolder:
    def test_folder_in_other_use(self, server: RegistryServer, tmp_path: Path) -> None:
        Image.make().serve(server, "acme/web", "1.0")
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(UnsupportedFormat, match="neither empty nor"):
            registry.pull(f"{server.host}/acme/web:1.0", tmp_path, insecure=True)
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

    def test_wrong_blob_that_was_there_before_is_left_and_told(self, server: RegistryServer, tmp_path: Path) -> None:
        image = Image.make()
        image.serve(server, "acme/web", "1.0")
        layout = write_layout(tmp_path / "layout", [])
        wrong = layout / "blobs/sha256" / sha256(image.layer)[7:]
        wrong.write_bytes(b"x" * len(image.layer))
        with pytest.raises(VerificationFailed, match=str(wrong)):
            registry.pull(f"{server.host}/acme/web:1.0", layout, insecure=True)
        assert wrong.read_bytes() == b"x" * len(image.layer)
        assert entries_of(layout) == []

    def test_link_of_a_hostile_layout_is_not_followed(self, server: RegistryServer, tmp_path: Path) -> None:
        image = Image.make()
        image.serve(server, "acme/web", "1.0")
        layout = write_layout(tmp_path / "layout", [])
        own = tmp_path / "own"
        own.write_bytes(b"the examiner's")
        for link in (f"blobs/sha256/.{sha256(image.layer)[7:]}.partial", ".index.json.partial"):
            (layout / link).symlink_to(own)
        registry.pull(f"{server.host}/acme/web:1.0", layout, insecure=True)
        assert own.read_bytes() == b"the examiner's"
        assert entries_of(layout)[0]["digest"] == sha256(image.manifest)

    def test_other_fields_of_the_index_stay(self, server: RegistryServer, tmp_path: Path) -> None:
        Image.make().serve(server, "acme/web", "1.0")
        layout = write_layout(tmp_path / "layout", [])
        (layout / "index.json").write_bytes(index_of({"digest": "?", "x": 1}, annotations={"case": "17"}))
        registry.pull(f"{server.host}/acme/web:1.0", layout, insecure=True)
        assert json.loads((layout / "index.json").read_bytes())["annotations"] == {"case": "17"}
        assert entries_of(layout)[0] == {"digest": "?", "x": 1}


class TestPush:
    def test_tampered_layout_is_not_sent(self, server: RegistryServer, tmp_path: Path) -> None:
        image = Image.make()
        layout = write_layout(tmp_path / "in", image.blobs, descriptor(MANIFEST, image.manifest))
        (layout / "blobs/sha256" / sha256(image.layer)[7:]).write_bytes(image.layer + b"x")
        with pytest.raises(VerificationFailed, match="size"):
            registry.push_layout(layout, f"{server.host}/acme/web:1", insecure=True)
        assert server.requests == []

    def test_incomplete_layout_is_not_sent(self, server: RegistryServer, tmp_path: Path) -> None:
        image = Image.make()
        layout = write_layout(tmp_path / "in", image.blobs[1:], descriptor(MANIFEST, image.manifest))
        with pytest.raises(PathNotFound, match=sha256(image.config)[7:]):
            registry.push_layout(layout, f"{server.host}/acme/web:1", insecure=True)
        with pytest.raises(PathNotFound):
            registry.push_layout(tmp_path, f"{server.host}/acme/web:1", insecure=True)
        assert server.requests == []

    def test_link_to_a_file_of_the_examiner_is_not_sent(self, server: RegistryServer, tmp_path: Path) -> None:
        image = Image.make()
        layout = write_layout(tmp_path / "in", image.blobs[1:], descriptor(MANIFEST, image.manifest))
        (tmp_path / "own").write_bytes(image.config)
        (layout / "blobs/sha256" / sha256(image.config)[7:]).symlink_to(tmp_path / "own")
        with pytest.raises(ForensicsError):
            registry.push_layout(layout, f"{server.host}/acme/web:1", insecure=True)
        assert server.requests == []

    def test_layout_of_several_images(self, server: RegistryServer, tmp_path: Path) -> None:
        images = [Image.make(b"a"), Image.make(b"b")]
        names = [{"org.opencontainers.image.ref.name": tag} for tag in ("1.0", "2.0")]
        entries = [descriptor(MANIFEST, i.manifest, annotations=n) for i, n in zip(images, names, strict=True)]
        layout = write_layout(tmp_path / "in", images[0].blobs + images[1].blobs, *entries)
        with pytest.raises(AmbiguousName) as caught:
            registry.push_layout(layout, f"{server.host}/acme/web:1", insecure=True)
        assert caught.value.candidates == ("1.0", "2.0")
        with pytest.raises(NotFound, match=r"named 3\.0"):
            registry.push_layout(layout, f"{server.host}/acme/web:1", name="3.0", insecure=True)
        for name in ("2.0", sha256(images[1].manifest)):
            pushed = registry.push_layout(layout, f"{server.host}/acme/web:1", name=name, insecure=True)
            assert pushed.digest == sha256(images[1].manifest)

    def test_blob_is_sent_once(self, server: RegistryServer, tmp_path: Path) -> None:
        image = Image.make()
        layout = write_layout(tmp_path / "in", image.blobs, descriptor(MANIFEST, image.manifest))
        for tag in ("1", "2"):
            registry.push_layout(layout, f"{server.host}/acme/web:{tag}", insecure=True)
        assert len(server.paths("POST")) == 2

    def test_digest_that_is_not_that_of_what_is_pushed(self, server: RegistryServer, tmp_path: Path) -> None:
        with pytest.raises(VerificationFailed, match="what is to be pushed"):
            registry.push([], f"{server.host}/acme/web@{sha256(b'x')}", artifact_type=REPORT, insecure=True)
        assert server.requests == []

    def test_subject_of_a_hostile_layout_is_no_address(self, server: RegistryServer, tmp_path: Path) -> None:
        server.referrers_api = False
        image = Image.make(subject={"mediaType": MANIFEST, "digest": "../../../elsewhere", "size": 1})
        layout = write_layout(tmp_path / "in", image.blobs, descriptor(MANIFEST, image.manifest))
        with pytest.raises(DamagedData, match="no valid digest"):
            registry.push_layout(layout, f"{server.host}/acme/web:1", insecure=True)
        assert all("elsewhere" not in path for _, path, _ in server.requests)

    def test_subject_without_a_manifest(self, server: RegistryServer, tmp_path: Path) -> None:
        class OldImage:
            raw_manifest = None
            manifest_media_type = ""

        with pytest.raises(NotFound, match="without a manifest"):
            registry.push([], f"{server.host}/acme/web", artifact_type=REPORT, subject=OldImage(), insecure=True)
        assert server.requests == []

    def test_files_need_titles_of_their_own(self, server: RegistryServer, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        paths = [tmp_path / "report.txt", tmp_path / "a/report.txt"]
        for number, path in enumerate(paths):
            path.write_text(str(number))
        with pytest.raises(AmbiguousName, match="same name"):
            registry.push(paths, f"{server.host}/acme/web", artifact_type=REPORT, insecure=True)
        titled = {"disk 1": paths[0], "disk 2.tar.gz": paths[1]}
        pushed = registry.push(titled, f"{server.host}/acme/web:r", artifact_type=REPORT, insecure=True)
        layers = json.loads(pushed.raw_manifest)["layers"]
        assert [layer["annotations"]["org.opencontainers.image.title"] for layer in layers] == list(titled)
        assert {layer["mediaType"] for layer in layers} == {"application/octet-stream"}
        assert server.manifests["acme/web", "r"] == (MANIFEST, pushed.raw_manifest)
        with pytest.raises(PathNotFound):
            registry.push([tmp_path / "none"], f"{server.host}/acme/web", artifact_type=REPORT, insecure=True)


def test_importing_the_library_loads_no_network_code() -> None:
    code = "import sys, forensics_lib; print(*sys.modules, sep='\\n')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    loaded = set(run.stdout.split())
    assert "forensics_lib" in loaded
    assert not loaded & {"forensics_lib.registry", "oras.provider", "oras.oci", "requests", "urllib3", "tarfile"}


def test_nothing_else_of_the_library_uses_it() -> None:
    others = [path for path in PACKAGE.rglob("*.py") if "registry" not in path.relative_to(PACKAGE).parts]
    assert others
    for path in others:
        tree = ast.walk(ast.parse(path.read_text()))
        nodes = [node for node in tree if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in nodes for alias in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        assert not names & {"forensics_lib.registry", "registry", "oras.provider", "oras.layout", "requests"}, path


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
DESCRIPTOR = st.fixed_dictionaries(
    {},
    optional={
        "mediaType": st.sampled_from([MANIFEST, INDEX, LAYER]) | JSON,
        "digest": st.sampled_from([sha256(b"a"), sha256(b"b")]) | JSON,
        "size": st.integers(0, 9) | JSON,
        "platform": st.just({"os": "linux", "architecture": "amd64"}) | JSON,
        "annotations": st.just({"vnd.docker.reference.digest": sha256(b"a")}) | JSON,
    },
)
DOCUMENT = st.fixed_dictionaries(
    {},
    optional={
        "config": DESCRIPTOR | JSON,
        "layers": st.lists(DESCRIPTOR, max_size=3) | JSON,
        "manifests": st.lists(DESCRIPTOR, max_size=3) | JSON,
    },
)


@given(
    documents=st.lists(DOCUMENT.map(lambda document: json.dumps(document).encode()) | st.binary(), min_size=3),
    media_type=st.sampled_from([MANIFEST, INDEX, "text/plain"]),
    platform=st.none() | st.text(max_size=12) | st.just("linux/amd64"),
)
@settings(deadline=None)
def test_any_documents_give_a_plan_or_an_error_of_the_library(
    documents: list[bytes], media_type: str, platform: str | None
) -> None:
    rest = iter(documents)
    try:
        plan = Plan(Descriptor(media_type, sha256(b""), 1), lambda _: next(rest, b"{}"), platform)
    except ForensicsError:
        return
    for digest, found in (plan.manifests | plan.blobs).items():
        assert found.digest == digest
        assert found.size >= 0
        assert digest in (sha256(b""), sha256(b"a"), sha256(b"b"))


@given(index=st.binary() | DOCUMENT.map(lambda document: json.dumps(document).encode()), name=st.none() | st.text())
@settings(deadline=None)
def test_any_index_gives_an_entry_or_an_error_of_the_library(index: bytes, name: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        Path(folder, "oci-layout").write_text("{}")
        Path(folder, "index.json").write_bytes(index)
        try:
            found = layout.entry(name)
        except ForensicsError:
            return
        assert layout.path(found).parent == Path(folder, "blobs/sha256")
        layout.name(found, Reference.parse("acme/web:1.0"))
        entries: list[object] = [*entries_of(Path(folder))]
        assert found.digest in [entry.get("digest") for entry in entries if isinstance(entry, dict)]
