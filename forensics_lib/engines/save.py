"""A container as an image archive: ``docker commit`` and ``docker save`` in one, whatever engine it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from forensics_lib._version import __version__
from forensics_lib.errors import ForensicsError
from forensics_lib.formats.jsondoc import JsonObject, JsonValue
from forensics_lib.images.docker_save import ImageArchive, to_json
from forensics_lib.images.reference import Reference
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.trees.base import Tree
from forensics_lib.trees.changeset import layer_between
from forensics_lib.trees.index import IndexTree

__all__ = ["ImageLayer", "SavedContainer", "Saving"]

_PLATFORM = ("architecture", "variant", "os", "os.version", "os.features")


@dataclass(frozen=True, slots=True)
class SavedContainer:
    """A container that was saved as an image archive.

    Attributes:
        path: the archive.
        container_id: whose it is.
        image_id: id of the new image: the digest of its configuration.
        layers: diff ids of its layers, base first; the last one holds what the container changed.
        replaced: diff ids of layers of the container's image that could not be put together again byte for byte, and
            have others in `layers`.
        size: bytes of the archive.
        sha256: of the archive.
        origin: the record of the container.
    """

    path: Path
    container_id: str
    image_id: str
    layers: tuple[str, ...]
    replaced: tuple[str, ...]
    size: int
    sha256: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """A layer of a container's image, and the two ways to write it.

    Attributes:
        diff_id: digest of its archive.
        archive: gives the size of its archive and that archive, piece by piece, as it once was.
        merged: gives the file system of this layer on top of those below it.
    """

    diff_id: str
    archive: Callable[[], tuple[int, Iterator[bytes]]]
    merged: Callable[[], Tree]


@dataclass(frozen=True, slots=True)
class Saving:
    """All that an engine knows of a container and that goes into its image.

    Attributes:
        container_id: its id.
        command: what it ran.
        changed_ns: when its state last changed, nanoseconds since 1970; None when not recorded.
        config: its configuration, which the engine made of the image's and the user's when it created the container.
        image: configuration document of its image; without history and configuration when that is gone.
        layers: gives those of its image, base first; raises when one is missing.
        base: gives the file system that it started from.
        tree: gives its file system.
        origin: the record that describes it.
    """

    container_id: str
    command: tuple[str, ...]
    changed_ns: int | None
    config: JsonObject
    image: JsonObject
    layers: Callable[[], Sequence[ImageLayer]]
    base: Callable[[], Tree]
    tree: Callable[[], Tree]
    origin: Origin

    def save(self, path: Path, name: Reference | None, problems: ProblemLog) -> SavedContainer:
        """Write the archive.

        Where the layers of the image cannot be had, the archive has a single one with all files. What is not as it was
        becomes a problem.

        Raises:
            FileExistsError: there is something of that name; it was left as it is.
            ForensicsError: the container's files cannot be reached; no archive was left.
        """
        tree = self.tree()
        with path.open("x+b") as file:
            try:
                return self._write(file, path, name, tree, problems)
            except BaseException:  # also Ctrl-C: half an archive is none
                file.close()
                path.unlink()
                raise

    def _write(
        self, file: BinaryIO, path: Path, name: Reference | None, tree: Tree, problems: ProblemLog
    ) -> SavedContainer:
        archive = ImageArchive(file, path)
        known: Sequence[ImageLayer] = ()
        digests: list[str] = []
        try:
            known = self.layers()
            for index, layer in enumerate(known):
                digests.append(self._image_layer(archive, layer, known[index - 1] if index else None, problems))
            below = self.base()
        except ForensicsError as error:
            message = f"container {self.container_id} is saved as a single layer with all its files: {error}"
            problems.add(self.origin, type(error)(message))
            file.seek(0)
            file.truncate()
            archive, digests, below = ImageArchive(file, path), [], IndexTree(self.origin)
        own = layer_between(below, tree, problems, room=archive.room)
        history = self._history(len(digests))
        digests.append(archive.layer(own.size, own.chunks()))
        image_id = archive.finish(to_json(self._document(digests, history)), digests, name)
        size = file.tell()
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        replaced = tuple(layer.diff_id for layer in known if layer.diff_id not in digests)
        return SavedContainer(path, self.container_id, image_id, tuple(digests), replaced, size, sha256, self.origin)

    def _image_layer(
        self, archive: ImageArchive, layer: ImageLayer, below: ImageLayer | None, problems: ProblemLog
    ) -> str:
        """Write a layer of the image as it was or, where that is impossible, made anew of its files; its digest.

        Raises:
            ForensicsError: its files cannot be had either.
        """
        why = "its files are not those that the image had"
        try:
            digest = archive.layer(*layer.archive())
        except ForensicsError as error:
            why = str(error)
            old = below.merged() if below is not None else IndexTree(self.origin)
            anew = layer_between(old, layer.merged(), problems, room=archive.room)
            digest = archive.layer(anew.size, anew.chunks())
        if digest != layer.diff_id:
            message = f"layer {layer.diff_id} of container {self.container_id} is saved as {digest}: {why}"
            problems.add(self.origin, message)
        return digest

    def _history(self, layers: int) -> list[JsonValue]:
        """The steps of the image, so that as many of them made a layer as the archive has."""
        steps: list[JsonValue] = [step.raw for step in self.image.objects("history")]
        if not layers:
            return [{**step.raw, "empty_layer": True} for step in self.image.objects("history")]
        return steps or [{"comment": "layer of the container's image; its history is not known"}] * layers

    def _document(self, layers: Sequence[str], history: list[JsonValue]) -> dict[str, JsonValue]:
        """The image configuration, as ``docker commit`` makes it but for the time, which is the container's."""
        when: dict[str, JsonValue] = {} if self.changed_ns is None else {"created": _rfc3339(self.changed_ns)}
        step: dict[str, JsonValue] = {
            **when,
            "created_by": " ".join(self.command),
            "comment": f"saved from container {self.container_id} by forensics_lib {__version__}",
        }
        return {
            **{key: self.image.raw[key] for key in _PLATFORM if key in self.image},
            **when,
            "container": self.container_id,
            "config": self.config.raw or self.image.object("config").raw,
            "history": [*history, step],
            "rootfs": {"type": "layers", "diff_ids": list(layers)},
        }


def _rfc3339(nanoseconds: int) -> str:
    """A time as Go writes it.

    >>> _rfc3339(1_500_000_000)
    '1970-01-01T00:00:01.500000000Z'
    """
    seconds, fraction = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09}Z"
