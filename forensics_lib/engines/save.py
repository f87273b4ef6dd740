"""A container as an image archive: ``docker commit`` and ``docker save`` in one, whatever engine it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path

from forensics_lib._version import __version__
from forensics_lib.errors import ForensicsError
from forensics_lib.formats.jsondoc import JsonObject, JsonValue, format_time
from forensics_lib.images.config import HistoryEntry
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
        diff_id: digest of its archive; empty when it is not recorded.
        archive: gives the size of its archive and that archive, piece by piece, as it once was; None where that is not
            recorded.
        merged: gives the file system of this layer on top of those below it.
    """

    diff_id: str
    archive: Callable[[], tuple[int, Iterator[bytes]]] | None
    merged: Callable[[], Tree]


@dataclass(frozen=True, slots=True)
class Saving:
    """All that an engine knows of a container and that goes into its image.

    Attributes:
        container_id: its id.
        command: what it ran.
        changed_ns: when its state last changed, nanoseconds since 1970; None when not recorded.
        config: its configuration, which the engine made of the image's and the user's when it created the container.
        platform: a document that names the platform as image configurations do.
        history: steps of its image, oldest first; empty when they are not known.
        layers: gives those of its image, base first; raises when one is missing.
        base: gives the file system that it started from.
        tree: gives its file system.
        origin: the record that describes it.
    """

    container_id: str
    command: tuple[str, ...]
    changed_ns: int | None
    config: JsonObject
    platform: JsonObject
    history: tuple[HistoryEntry, ...]
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
        self, file: BufferedRandom, path: Path, name: Reference | None, tree: Tree, problems: ProblemLog
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
            problems.add(self.origin, message)
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
        replaced = tuple(layer.diff_id for layer in known if layer.diff_id and layer.diff_id not in digests)
        return SavedContainer(path, self.container_id, image_id, tuple(digests), replaced, size, sha256, self.origin)

    def _image_layer(
        self, archive: ImageArchive, layer: ImageLayer, below: ImageLayer | None, problems: ProblemLog
    ) -> str:
        """Write a layer of the image as it was or, where that is impossible, made anew of its files; its digest.

        Raises:
            ForensicsError: its files cannot be had either.
        """
        digest, why = "", "its files are not those that the image had"
        try:
            digest = archive.layer(*layer.archive()) if layer.archive is not None else ""
        except ForensicsError as error:
            why = str(error)
        if not digest:
            old = below.merged() if below is not None else IndexTree(self.origin)
            anew = layer_between(old, layer.merged(), problems, room=archive.room)
            digest = archive.layer(anew.size, anew.chunks())
        if layer.diff_id and digest != layer.diff_id:
            message = f"layer {layer.diff_id} of container {self.container_id} is saved as {digest}: {why}"
            problems.add(self.origin, message)
        return digest

    def _history(self, layers: int) -> list[JsonValue]:
        """The steps of the image; where it became a single layer with the container, none of them made one."""
        if not self.history and layers:
            return [{"comment": "layer of the container's image; its history is not known"}] * layers
        return [_step(step, empty=step.empty_layer or not layers) for step in self.history]

    def _document(self, layers: Sequence[str], history: list[JsonValue]) -> dict[str, JsonValue]:
        """The image configuration, as ``docker commit`` makes it but for the time, which is the container's."""
        comment = f"saved from container {self.container_id} by forensics_lib {__version__}"
        last = HistoryEntry(created_ns=self.changed_ns, created_by=" ".join(self.command), comment=comment)
        document: dict[str, JsonValue] = {
            **{key: self.platform.raw[key] for key in _PLATFORM if key in self.platform},
            "container": self.container_id,
            "config": self.config.raw,
            "history": [*history, _step(last, empty=False)],
            "rootfs": {"type": "layers", "diff_ids": list(layers)},
        }
        return document | ({} if self.changed_ns is None else {"created": format_time(self.changed_ns)})


def _step(step: HistoryEntry, *, empty: bool) -> dict[str, JsonValue]:
    """A step of a history as an image configuration has it; what is empty is left out."""
    fields: dict[str, JsonValue] = {
        "created": "" if step.created_ns is None else format_time(step.created_ns),
        "author": step.author,
        "created_by": step.created_by,
        "comment": step.comment,
        "empty_layer": empty,
    }
    return {key: value for key, value in fields.items() if value}
