"""Finding one image by the names that its tools accept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from forensics_lib.errors import AmbiguousName, NotFound
from forensics_lib.images.image import Image
from forensics_lib.images.manifests import familiar

__all__ = ["find_image"]


def find_image(images: Sequence[Image], name: str) -> Image:
    """The image of a name, a full id or digest, or the unique start of one.

    Raises:
        NotFound: there is no such image.
        AmbiguousName: it fits several.
    """
    for candidates in _candidates(images, name):
        if len(candidates) > 1 and len({image.id for image in candidates}) > 1:
            platforms = {image.id: image.platform for image in candidates if name in image.tags}
            if len(set(platforms.values())) == len({image.id for image in candidates}):
                return candidates[0]  # the platforms of one name; the host's comes first
            raise AmbiguousName(f"{name!r} fits {len(candidates)} images", tuple(image.id for image in candidates))
        if candidates:
            return candidates[0]
    known = ", ".join(tag for image in images for tag in image.tags) or "none has a name"
    raise NotFound(f"no image {name!r}; there are: {known}")


def _candidates(images: Sequence[Image], name: str) -> Iterator[list[Image]]:
    """Images that a name fits, the strongest kind of fit first."""
    yield [image for image in images if name in (image.id, image.manifest_digest, image.index_digest, *image.digests)]
    yield [image for image in images if name in image.tags]
    yield [image for image in images if f"{name}:latest" in image.tags]
    start = name.removeprefix("sha256:")
    if start and all(character in "0123456789abcdef" for character in start):
        ids = [(image, (image.id, image.manifest_digest, image.index_digest)) for image in images]
        yield [i for i, names in ids if any((n or "").removeprefix("sha256:").startswith(start) for n in names)]
    yield [image for image in images if name and any(tag.rpartition(":")[0] == name for tag in image.tags)]
    if (short := familiar(name)) != name:  # docker.io/library/debian
        yield from _candidates(images, short)
