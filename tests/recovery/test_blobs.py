"""What a layout keeps of an image that was replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import forensics_lib as fl
from forensics_lib.recovery.remnant import Confidence
from tests.samples import CHANGESETS, DIR_GZIP, DOCKER_SAVE, OCI, OCI_ZSTD, PLATFORMS, UMOCI, WEB, unpack


def test_the_former_manifest_and_configuration_of_a_repacked_image() -> None:
    with fl.open(UMOCI) as evidence:
        former = {row.detail.rpartition(": ")[2]: row for row in evidence.remnants()}
        present = {image.config_digest: [layer.digest for layer in image.layers] for image in evidence.images}
        manifest = json.loads(former["application/vnd.oci.image.manifest.v1+json"].read())
        config = former["configuration of an image"]
        assert len(former) == 2
        assert manifest["config"]["digest"] == config.image_id
        assert config.image_id not in present
        assert [layer["digest"] for layer in manifest["layers"]] in present.values()  # umoci changed the configuration
        for row in former.values():
            assert (row.kind, row.method, row.complete) == ("image", "orphan", True)
            assert row.confidence is Confidence.VERIFIED
            assert row.image_id == f"sha256:{row.sha256}"


@pytest.mark.parametrize("path", [DOCKER_SAVE, OCI, OCI_ZSTD, WEB, PLATFORMS, DIR_GZIP], ids=lambda path: path.name)
def test_nothing_is_left_over_in_what_tools_just_wrote(path: Path) -> None:
    with fl.open(path) as evidence:
        assert list(evidence.remnants()) == []


def test_files_of_old_archives_that_are_no_part_of_an_image_are_not_told(tmp_path: Path) -> None:
    for archive in sorted(unpack(CHANGESETS, tmp_path).glob("*/*.tar"))[:6]:
        with fl.open(archive) as evidence:
            assert list(evidence.remnants()) == []


def test_a_left_over_blob_with_other_bytes_is_not_whole(tmp_path: Path) -> None:
    layout = unpack(UMOCI, tmp_path)
    with fl.open(layout) as evidence:
        config = next(row for row in evidence.remnants() if "configuration" in row.detail)
    blob = layout / config.path.lstrip("/")
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes().replace(b"linux", b"plan9"))
    with fl.open(layout) as evidence:
        changed = next(row for row in evidence.remnants() if row.path == config.path)
    assert (changed.confidence, changed.complete) == (Confidence.INTACT, False)
    assert changed.detail.endswith("its digest is another")
