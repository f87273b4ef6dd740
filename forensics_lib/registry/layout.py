"""An OCI image layout folder: verified blobs in, verified blobs out. Nothing here uses a network.

Specification: OCI Image 1.1, ``image-layout.md``. The names of an image are annotations of its entry in ``index.json``,
as containerd and Docker write them.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import cast

from oras import defaults

from forensics_lib.errors import (
    AmbiguousName,
    DamagedData,
    ForensicsError,
    LimitExceeded,
    NotFound,
    UnsupportedFormat,
    VerificationFailed,
)
from forensics_lib.formats.jsondoc import MAX_BYTES, JsonObject, JsonValue, parse_object
from forensics_lib.images.digest import parse_digest
from forensics_lib.images.reference import Reference
from forensics_lib.model import Check, Origin
from forensics_lib.registry.plan import INDEX, Descriptor, to_json
from forensics_lib.sources.file import FileSource

__all__ = ["Layout", "measure"]

_IMAGE_NAME = "io.containerd.image.name"
_REF_NAME: str = defaults.oci_ref_name_annotation


class Layout:
    """One layout folder. What is written to it gets its name only after it was found right on disk."""

    def __init__(self, folder: Path) -> None:
        """Look at a folder; nothing is read yet."""
        self.folder = folder
        self.origin = Origin(str(folder))
        self._checks: dict[str, tuple[Check, ...]] = {}

    @classmethod
    def create(cls, folder: Path) -> Layout:
        """A layout to write to: new, or one that is there.

        Raises:
            UnsupportedFormat: the folder holds something else.
        """
        layout = cls(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):
            Path(folder, defaults.oci_layout_file).write_text('{"imageLayoutVersion":"1.0.0"}', encoding="ascii")
            layout._write_index({"schemaVersion": 2, "mediaType": INDEX, "manifests": []})
        if not Path(folder, defaults.oci_layout_file).is_file() or not Path(folder, "index.json").is_file():
            raise UnsupportedFormat(f"{folder} is neither empty nor an OCI image layout")
        layout._index()
        return layout

    def path(self, descriptor: Descriptor) -> Path:
        """Where a blob is, or will be.

        Raises:
            DamagedData: the digest is none, so that it cannot name a place outside of the folder.
        """
        return self.folder.joinpath(defaults.oci_blobs_dir, *parse_digest(descriptor.digest))

    def has(self, descriptor: Descriptor) -> bool:
        """Whether there is a blob of that name, right or wrong."""
        return self.path(descriptor).exists()

    def checked(self) -> list[Check]:
        """All checks that were made, blob by blob."""
        return [check for checks in self._checks.values() for check in checks]

    def read(self, descriptor: Descriptor) -> bytes:
        """The verified bytes of a small document.

        Raises:
            LimitExceeded: it is said to be larger than any document is.
            VerificationFailed: as `verify`.
        """
        if descriptor.size > MAX_BYTES:
            raise LimitExceeded(f"document {descriptor.digest} of {descriptor.size} bytes", origin=self._at(descriptor))
        self.verify(descriptor, self.path(descriptor))
        return self.path(descriptor).read_bytes()

    def verify(self, descriptor: Descriptor, path: Path) -> None:
        """Hash what is on disk, and keep the checks.

        Raises:
            PathNotFound: there is no such file.
            VerificationFailed: it is not what the descriptor says.
        """
        digest, size = measure(path, descriptor.digest.partition(":")[0], follow=False)
        origin, name = self._at(descriptor), f"blob {descriptor.digest}"
        self._checks[descriptor.digest] = checks = (
            Check(f"{name} size", str(descriptor.size), str(size), size == descriptor.size, origin),
            Check(f"{name} digest", descriptor.digest, digest, digest == descriptor.digest, origin),
        )
        for check in checks:
            if not check.ok:
                message = f"{check.subject} is {check.actual} instead of {check.expected}: {path}"
                raise VerificationFailed(message, expected=check.expected, actual=check.actual)

    def miss(self, descriptor: Descriptor) -> None:
        """Keep a failed check of a blob that cannot be had."""
        subject = f"blob {descriptor.digest} digest"
        self._checks[descriptor.digest] = (Check(subject, descriptor.digest, "absent", False, self._at(descriptor)),)

    def take(
        self,
        descriptor: Descriptor,
        chunks: Callable[[Descriptor], Iterator[bytes]],
        advance: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Bring a blob into the folder; one that is there already is verified instead.

        Args:
            descriptor: of the blob.
            chunks: gives its bytes, which may be wrong or too many.
            advance: called with the number of bytes of each chunk.

        Raises:
            VerificationFailed: the bytes are not what the descriptor says; none of them stay.
        """
        path = self.path(descriptor)
        if descriptor.digest in self._checks or path.exists():
            if descriptor.digest not in self._checks:
                self.verify(descriptor, path)
            advance(descriptor.size)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.unlink(missing_ok=True)
        try:
            with partial.open("xb") as file:
                left = descriptor.size
                for chunk in chunks(descriptor):
                    left -= len(chunk)
                    if left < 0:
                        message = f"blob {descriptor.digest} is larger than its {descriptor.size} bytes"
                        raise VerificationFailed(message, expected=str(descriptor.size), actual="more")
                    file.write(chunk)
                    advance(len(chunk))
            self.verify(descriptor, partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def reserve(self, blobs: Mapping[str, Descriptor]) -> None:
        """Stop before the disk is full and not when it is.

        Raises:
            ForensicsError: there is too little room.
        """
        needed = sum(blob.size for blob in blobs.values() if not self.has(blob))
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise ForensicsError(f"the image needs {needed} more bytes, and {self.folder} has room for {free}")

    def entry(self, name: str | None) -> Descriptor:
        """The only image of the index, or the one of that tag, full name or digest.

        Raises:
            NotFound: there is none.
            AmbiguousName: there are several.
        """
        entries = self._index().objects("manifests")
        if name is not None:
            entries = [entry for entry in entries if name in _names(entry)]
        if not entries:
            raise NotFound(f"{self.folder} holds no image{'' if name is None else f' named {name}'}")
        if len(entries) > 1:
            candidates = tuple(_names(entry)[-1] for entry in entries)
            raise AmbiguousName(f"{self.folder} holds several images: {', '.join(candidates)}", candidates)
        return Descriptor.parse(entries[0], self.origin.to("index.json"))

    def name(self, top: Descriptor, reference: Reference) -> None:
        """Enter an image into the index; the name leaves the image that had it before."""
        document = self._index().raw
        entries = cast("list[JsonValue]", document["manifests"])
        named = str(reference if reference.tag is None else replace(reference, digest=None))
        annotations = {_IMAGE_NAME: named} | ({} if reference.tag is None else {_REF_NAME: reference.tag})
        for entry in entries:
            if isinstance(entry, dict) and JsonObject(entry).mapping("annotations").get(_IMAGE_NAME) == named:
                if entry.get("digest") == top.digest:
                    return
                old = cast("dict[str, JsonValue]", entry["annotations"])
                entry["annotations"] = {key: old[key] for key in old if key not in (_IMAGE_NAME, _REF_NAME)}
        entries.append(cast("JsonValue", {**top.entry, "annotations": annotations}))
        self._write_index(document)

    def _at(self, descriptor: Descriptor) -> Origin:
        return self.origin.to(f"blobs/{descriptor.digest.replace(':', '/')}")

    def _index(self) -> JsonObject:
        origin = self.origin.to("index.json")
        with closing(FileSource(self.folder / "index.json", origin, follow=False)) as file:
            index = parse_object(file.read_at(0, MAX_BYTES + 1), origin)
        if not isinstance(index.raw.get("manifests"), list):
            raise DamagedData("index.json lists no manifests", origin=origin)
        return index

    def _write_index(self, document: Mapping[str, object]) -> None:
        partial = self.folder / ".index.json.partial"
        partial.unlink(missing_ok=True)
        with partial.open("xb") as file:
            file.write(to_json(document))
        partial.replace(self.folder / "index.json")


def measure(path: Path, algorithm: str = "sha256", *, follow: bool = True) -> tuple[str, int]:
    """Digest and size of a file.

    Raises:
        PathNotFound: there is no such file.
        NotAFile: it is none, or a link that must not be followed.
        EvidenceChanged: it was written to meanwhile.
    """
    hasher = hashlib.new(algorithm)
    with closing(FileSource(path, follow=follow)) as file:
        for block in file.blocks():
            hasher.update(block)
        file.check_unchanged()
        return f"{algorithm}:{hasher.hexdigest()}", file.size


def _names(entry: JsonObject) -> list[str]:
    """What an entry can be asked for by; its digest first, its fullest name last."""
    annotations = entry.mapping("annotations")
    names = (annotations.get(_REF_NAME), annotations.get(_IMAGE_NAME))
    return [entry.text("digest"), *(name for name in names if name)]
