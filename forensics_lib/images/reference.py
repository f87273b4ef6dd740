"""Image names: registry, repository, tag and digest, by the rules of Docker.

`oras.container` splits the name. Its pattern is looser than the grammar of the distribution project and knows no
``localhost`` without a port, so the name is checked before and its parts are put right after.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from forensics_lib.errors import DamagedData
from forensics_lib.images.digest import parse_digest
from forensics_lib.model import Origin

__all__ = ["Reference"]

_DEFAULT_REGISTRY = "docker.io"
_INDEX = "index.docker.io"
_DEFAULT_TAG = "latest"
_OFFICIAL = "library/"
_MAX_LENGTH = 1024
_MAX_REPOSITORY = 255

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_NAME = re.compile(rf"(?:{_HOST}/)?{_PATH}(?::\w[\w.-]{{0,127}})?(?:@[\w:+.-]+)?", re.ASCII)
_REPOSITORY = re.compile(_PATH, re.ASCII)
_IMAGE_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reference:
    """The normalised name of an image.

    Attributes:
        registry: host of the registry, with its port where one is given; ``docker.io`` when the name has none.
        repository: path in the registry; ``library/…`` for Docker's official images.
        tag: tag, or None.
        digest: manifest digest, or None.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        """The canonical form."""
        return self.canonical

    @property
    def canonical(self) -> str:
        """The whole name, as containerd stores it: ``docker.io/library/ubuntu:22.04``."""
        return f"{self.registry}/{self.repository}{self._suffix}"

    @property
    def familiar(self) -> str:
        """The name as ``docker images`` shows it: ``ubuntu:22.04``, ``acme/web:1.0``, ``registry.lab:5000/x``."""
        if self.registry != _DEFAULT_REGISTRY:
            return self.canonical
        official = self.repository.removeprefix(_OFFICIAL)
        return f"{self.repository if '/' in official else official}{self._suffix}"

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @classmethod
    def parse(cls, text: str, *, default_tag: bool = False, origin: Origin | None = None) -> Reference:
        """Read a name as a user types it or as a store records it.

        Args:
            text: the name.
            default_tag: give a name without tag and digest the tag ``latest``, as ``docker run`` does.
            origin: where the name stands, for the error.

        Raises:
            DamagedData: no valid image name.
        """
        try:
            reference = cls._split(text)
        except (ValueError, DamagedData) as error:
            raise DamagedData(f"no valid image name: {text[:300]!a}: {error}", origin=origin) from error
        if default_tag and reference.tag is None and reference.digest is None:
            return replace(reference, tag=_DEFAULT_TAG)
        return reference

    @classmethod
    def _split(cls, text: str) -> Reference:
        import oras.container

        # The grammar first: oras takes "a//b" for "b", and needs more than a second for some names of 1000 characters.
        if len(text) > _MAX_LENGTH or _NAME.fullmatch(text) is None:
            raise ValueError("not of the form [registry/]path[:tag][@digest], the path in lower case")
        if _IMAGE_ID.fullmatch(text):
            raise ValueError("this is an image id")
        parts = oras.container.Container(text)
        registry, digest = parts.registry, parts.digest
        path = f"{parts.namespace}/{parts.repository}" if parts.namespace else parts.repository
        tag = parts.tag if text.partition("@")[0].endswith(f":{parts.tag}") else None  # oras fills in "latest"
        if path.startswith("localhost/") and text.startswith("localhost/"):  # to oras, a part of the path
            registry, path = "localhost", path.removeprefix("localhost/")
        if registry == _INDEX:
            registry = _DEFAULT_REGISTRY
        if registry == _DEFAULT_REGISTRY and "/" not in path:
            path = f"{_OFFICIAL}{path}"
        if len(path) > _MAX_REPOSITORY or _REPOSITORY.fullmatch(path) is None:
            raise ValueError("the path is too long or not in lower case")
        if digest is not None:
            parse_digest(digest)
        return cls(registry, path, tag, digest)
