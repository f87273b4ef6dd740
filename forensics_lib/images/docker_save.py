"""Writing an image archive as ``docker save`` does from version 25 on: an OCI layout with ``manifest.json`` beside it.

Formats: OCI image-spec ``image-layout.md`` and ``manifest.md``; moby ``daemon/internal/image/tarexport``. Such an
archive is read by ``docker load``, podman, skopeo (``docker-archive:`` and ``oci-archive:``) and containerd. The same
image always gives the same bytes: the members have no times of their own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from oras import defaults

from forensics_lib.errors import DamagedData, ForensicsError, LimitExceeded
from forensics_lib.formats.tar_write import END_OF_ARCHIVE, TarMember, header, padding
from forensics_lib.images.reference import Reference

__all__ = ["ImageArchive", "to_json"]

_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER: str = defaults.default_blob_media_type
_MANIFEST: str = defaults.default_manifest_media_type
_INDEX: str = defaults.default_index_media_type
_IMAGE_NAME = "io.containerd.image.name"
_REF_NAME: str = defaults.oci_ref_name_annotation
_NOT_KNOWN_YET = "0" * 64


class ImageArchive:
    """An archive of one image that grows blob by blob.

    Args:
        file: where to write; it has to be empty, and able to seek.
        path: where that file is, to see how much room its disk has.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        """Write the folders."""
        self._file = file
        self._path = path
        self._sizes: dict[str, int] = {}
        for folder in ("blobs/", "blobs/sha256/"):
            file.write(header(TarMember(folder, "5", mode=0o755)))

    @property
    def room(self) -> int:
        """Bytes that still fit on the disk."""
        return shutil.disk_usage(self._path.parent).free

    def layer(self, size: int, chunks: Iterable[bytes]) -> str:
        """Write a layer; one that is there already is not written again.

        Args:
            size: its bytes.
            chunks: these, piece by piece.

        Returns:
            Its digest.

        Raises:
            LimitExceeded: it does not fit on the disk.
            ForensicsError: its bytes cannot be read; nothing of it was written.
        """
        if size > self.room:
            raise LimitExceeded(f"the {size} bytes of the layer are more than the disk has free")
        start = self._file.tell()
        self._file.write(_blob_header(_NOT_KNOWN_YET, size))
        digest, left = hashlib.sha256(), size
        try:
            for chunk in chunks:
                left -= len(chunk)
                if left < 0:
                    break
                self._file.write(chunk)
                digest.update(chunk)
            if left:
                raise DamagedData(
                    f"the layer has {'fewer' if left > 0 else 'more'} than the {size} bytes it should have"
                )
        except ForensicsError:
            self._cut(start)
            raise
        if digest.hexdigest() in self._sizes:
            self._cut(start)
            return f"sha256:{digest.hexdigest()}"
        self._file.write(padding(size))
        end = self._file.tell()
        self._file.seek(start)
        self._file.write(_blob_header(digest.hexdigest(), size))
        self._file.seek(end)
        self._sizes[digest.hexdigest()] = size
        return f"sha256:{digest.hexdigest()}"

    def finish(self, config: bytes, layers: Sequence[str], name: Reference | None) -> str:
        """Write all documents and the end of the archive.

        Args:
            config: the image configuration.
            layers: digests of the layers, base first.
            name: with a tag; None for an image without a name.

        Returns:
            The digest of the configuration, which is the image's id.
        """
        layer_sources = {layer: self._descriptor(_LAYER, layer) for layer in layers}
        image_id = self._document(config)
        manifest = {
            "schemaVersion": defaults.oci_index_schema_version,
            "mediaType": _MANIFEST,
            "config": self._descriptor(_CONFIG, image_id),
            "layers": [layer_sources[layer] for layer in layers],
        }
        entry = self._descriptor(_MANIFEST, self._document(to_json(manifest)))
        if name is not None:
            entry["annotations"] = {_IMAGE_NAME: name.canonical, _REF_NAME: name.tag or ""}
        index = {
            "schemaVersion": defaults.oci_index_schema_version,
            "mediaType": _INDEX,
            "manifests": [entry],
        }
        listed = {
            "Config": _path_of(image_id),
            "RepoTags": [name.familiar] if name is not None else None,
            "Layers": [_path_of(layer) for layer in layers],
            "LayerSources": layer_sources,
        }
        self._member(defaults.oci_image_index_file, to_json(index))
        self._member("manifest.json", to_json([listed]))
        self._member(defaults.oci_layout_file, to_json({"imageLayoutVersion": defaults.oci_layout_version_pin}))
        if name is not None:
            repository, _, tag = name.familiar.rpartition(":")
            self._member("repositories", to_json({repository: {tag: layers[-1].removeprefix("sha256:")}}))
        self._file.write(END_OF_ARCHIVE)
        return image_id

    def _document(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self._sizes[digest] = len(data)
        self._member(_path_of(digest), data)
        return f"sha256:{digest}"

    def _member(self, name: str, data: bytes) -> None:
        self._file.write(header(TarMember(name, size=len(data))) + data + padding(len(data)))

    def _descriptor(self, media_type: str, digest: str) -> dict[str, object]:
        return {"mediaType": media_type, "digest": digest, "size": self._sizes[digest.removeprefix("sha256:")]}

    def _cut(self, end: int) -> None:
        self._file.seek(end)
        self._file.truncate()


def to_json(value: object) -> bytes:
    """A document in one line, keys sorted; bytes that were no UTF-8 where they come from are written as they were."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogateescape")


def _path_of(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _blob_header(digest: str, size: int) -> bytes:
    return header(TarMember(_path_of(digest), size=size))
