"""Finding one container by the names that its tools accept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from forensics_lib.engines.container import Container
from forensics_lib.errors import AmbiguousName, NotFound

__all__ = ["find_container"]


def find_container(containers: Sequence[Container], name: str) -> Container:
    """The container of a name, a full id or the unique start of one.

    Raises:
        NotFound: there is no such container.
        AmbiguousName: it fits several.
    """
    for candidates in _candidates(containers, name.removeprefix("/")):
        if len(candidates) > 1:
            raise AmbiguousName(f"{name!r} fits {len(candidates)} containers", tuple(one.id for one in candidates))
        if candidates:
            return candidates[0]
    known = ", ".join(container.name for container in containers) or "none"
    raise NotFound(f"no container {name!r}; there are: {known}")


def _candidates(containers: Sequence[Container], name: str) -> Iterator[list[Container]]:
    """Containers that a name fits, the strongest kind of fit first."""
    yield [container for container in containers if container.id == name]
    yield [container for container in containers if container.name == name]
    yield [container for container in containers if name and container.id.startswith(name)]
    yield [container for container in containers if name in container.other_names]
