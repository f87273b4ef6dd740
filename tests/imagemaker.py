"""Builds image archives of every shape, sound or broken, from layers.

    recipe = Recipe([TarMaker().file("etc/passwd", b"root").end()], tags=["acme/web:1.0"])
    archive = write_tar(docker_save(recipe), tmp_path / "web.tar")

Every shape is a `Files`: content by path. It is easily spoiled before it is written: `files["manifest.json"] = b"{"`.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.tarmaker import TarMaker

Files = dict[str, bytes]
Json = dict[str, Any]

CREATED = "2024-02-29T12:34:56.123456789Z"
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass
class Recipe:
    """One image to be built.

    Attributes:
        layers: uncompressed tar archives, base first.
        tags: names with a tag.
        compression: how an OCI layout stores the layers: ``none``, ``gzip`` or ``zstd``.
        platform: operating system and architecture.
        config: what replaces parts of the configuration document; None takes a part away.
    """

    layers: Sequence[bytes]
    tags: Sequence[str] = ()
    compression: str = "gzip"
    platform: tuple[str, str] = ("linux", "amd64")
    config: Json = field(default_factory=dict)

    def configuration(self) -> bytes:
        """The exact bytes of the configuration."""
        history = [{"created": CREATED, "created_by": f"step {index}"} for index in range(len(self.layers))]
        document: Json = {
            "architecture": self.platform[1],
            "os": self.platform[0],
            "created": CREATED,
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in self.layers]},
            "history": history,
        } | self.config
        return to_json({key: value for key, value in document.items() if value is not None})


class Layout:
    """An OCI layout that grows blob by blob.

    Attributes:
        blobs: content by digest.
        manifests: the entries of ``index.json``.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: list[Json] = []

    def add(self, data: bytes | Json, media_type: str, **more: object) -> Json:
        """Store a blob and return the descriptor that names it."""
        content = data if isinstance(data, bytes) else to_json(data)
        self.blobs[digest_of(content)] = content
        return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **more}

    def manifest(self, recipe: Recipe, **more: object) -> Json:
        """Store an image and return the descriptor of its manifest; ``index.json`` does not name it yet."""
        suffix = "" if recipe.compression == "none" else f"+{recipe.compression}"
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.add(recipe.configuration(), CONFIG),
            "layers": [self.add(compressed(layer, recipe.compression), LAYER + suffix) for layer in recipe.layers],
        } | more
        system, architecture = recipe.platform
        return self.add(document, MANIFEST, platform={"os": system, "architecture": architecture})

    def name(self, descriptor: Json, *names: str) -> None:
        """Have ``index.json`` name a manifest or an index; without names it is listed without one."""
        for name in names or (None,):
            annotations = {} if name is None else {"annotations": {"org.opencontainers.image.ref.name": name}}
            self.manifests.append(descriptor | annotations)

    def files(self) -> Files:
        """The layout's files."""
        found = {f"blobs/{digest.replace(':', '/')}": content for digest, content in self.blobs.items()}
        found["index.json"] = to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.manifests})
        found["oci-layout"] = to_json({"imageLayoutVersion": "1.0.0"})
        return found


def oci_layout(*recipes: Recipe) -> Files:
    """An OCI image layout."""
    layout = Layout()
    for recipe in recipes:
        layout.name(layout.manifest(recipe), *recipe.tags)
    return layout.files()


def hybrid_save(*recipes: Recipe) -> Files:
    """``docker save`` of Docker 25 and later: an OCI layout with ``manifest.json`` beside it."""
    layout, entries = Layout(), []
    for recipe in recipes:
        layout.name(layout.manifest(recipe), *recipe.tags)
        layers = [digest_of(compressed(layer, recipe.compression)) for layer in recipe.layers]
        entries.append(
            {
                "Config": f"blobs/sha256/{digest_of(recipe.configuration())[7:]}",
                "RepoTags": list(recipe.tags),
                "Layers": [f"blobs/sha256/{digest[7:]}" for digest in layers],
            }
        )
    return layout.files() | {"manifest.json": to_json(entries)}


def docker_save(*recipes: Recipe) -> Files:
    """``docker save`` of Docker 1.10 to 24: ``manifest.json``, ``repositories`` and v1 folders."""
    files = v1_save(*recipes)
    entries = []
    for recipe in recipes:
        config = recipe.configuration()
        name = f"{digest_of(config)[7:]}.json"
        files[name] = config
        paths = [f"{identity}/layer.tar" for identity in v1_ids(recipe)]
        entries.append({"Config": name, "RepoTags": list(recipe.tags) or None, "Layers": paths})
    return files | {"manifest.json": to_json(entries)}


def v1_save(*recipes: Recipe) -> Files:
    """``docker save`` before Docker 1.10: ``repositories`` and a folder for each layer, no ``manifest.json``."""
    files: Files = {}
    repositories: dict[str, dict[str, str]] = {}
    for recipe in recipes:
        parent = ""
        for index, (identity, layer) in enumerate(zip(v1_ids(recipe), recipe.layers, strict=True)):
            document: Json = {"id": identity, "created": CREATED, "container_config": {"Cmd": [f"step {index}"]}}
            if parent:
                document["parent"] = parent
            if index == len(recipe.layers) - 1:
                system, architecture = recipe.platform
                document |= {"os": system, "architecture": architecture, "config": {"Cmd": ["/bin/sh"]}}
            files[f"{identity}/VERSION"] = b"1.0"
            files[f"{identity}/json"] = to_json(document)
            files[f"{identity}/layer.tar"] = layer
            parent = identity
        for tag in recipe.tags:
            name, _, version = tag.rpartition(":")
            repositories.setdefault(name, {})[version] = parent
    return files | ({"repositories": to_json(repositories)} if repositories else {})


def image_dir(recipe: Recipe) -> Files:
    """What ``skopeo copy … dir:`` writes."""
    layout = Layout()
    manifest = layout.blobs[layout.manifest(recipe)["digest"]]
    files = {digest[7:]: content for digest, content in layout.blobs.items() if content != manifest}
    return files | {"manifest.json": manifest, "version": b"Directory Transport Version: 1.1\n"}


def schema_one_dir(recipe: Recipe) -> Files:
    """``skopeo copy … dir:`` of an image of before 2016: a signed manifest, layers newest first."""
    histories: list[Json] = []
    for index, identity in enumerate(v1_ids(recipe)):
        step: Json = {"id": identity, "created": CREATED, "container_config": {"Cmd": [f"step {index}"]}}
        if index:
            step["parent"] = v1_ids(recipe)[index - 1]
        if index == len(recipe.layers) - 1:
            step |= {"architecture": recipe.platform[1], "os": recipe.platform[0], "config": {"Env": ["OLD=1"]}}
        histories.append({"v1Compatibility": to_json(step).decode()})
    stored = [compressed(layer, recipe.compression) for layer in recipe.layers]
    manifest = {
        "schemaVersion": 1,
        "name": "library/old",
        "tag": "1",
        "architecture": recipe.platform[1],
        "fsLayers": [{"blobSum": digest_of(layer)} for layer in reversed(stored)],
        "history": histories[::-1],
        "signatures": [{"signature": "invented"}],
    }
    files = {digest_of(layer)[7:]: layer for layer in stored}
    return files | {"manifest.json": to_json(manifest), "version": b"Directory Transport Version: 1.1\n"}


def v1_ids(recipe: Recipe) -> list[str]:
    """A 64-digit id for each layer, from the layers below it, as the engine makes them up."""
    running, found = hashlib.sha256(repr(recipe.tags).encode()), []
    for layer in recipe.layers:
        running.update(layer)
        found.append(running.hexdigest())
    return found


def digest_of(data: bytes) -> str:
    """The sha256 that names a blob."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def to_json(value: object) -> bytes:
    """A document as engines write it."""
    return json.dumps(value, separators=(",", ":")).encode()


def compressed(data: bytes, compression: str) -> bytes:
    """The bytes compressed, the same at every call."""
    if compression == "none":
        return data
    if compression == "gzip":
        return gzip.compress(data, mtime=0)
    if compression == "xz":
        return lzma.compress(data)
    if compression == "bzip2":
        return bz2.compress(data)
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    packed: bytes = zstd.compress(data)
    return packed


def write_folder(files: Mapping[str, bytes], folder: Path) -> Path:
    """Write the files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def to_tar(files: Mapping[str, bytes], prefix: str = "", links: Mapping[str, str] | None = None) -> bytes:
    """The files as a tar archive; `links` are symbolic links by path."""
    archive = TarMaker("pax")
    for name, content in files.items():
        archive.file(prefix + name, content)
    for name, target in (links or {}).items():
        archive.symlink(prefix + name, target)
    return archive.end()


def write_tar(files: Mapping[str, bytes], path: Path, compression: str = "none", prefix: str = "") -> Path:
    """Write the files as a tar archive, compressed as a whole or not."""
    path.write_bytes(compressed(to_tar(files, prefix), compression))
    return path
