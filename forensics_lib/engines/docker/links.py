"""Links between containers of the default network, as the daemon shows them (moby ``daemon/links.go``).

``hostconfig.json`` keeps them as they were asked for: ``db``, ``db:alias`` or ``/db:/web/alias``. The daemon
registers them when it starts and when a container is made, but not for containers of a user-defined network: there an
alias of the network does the same, and ``docker inspect`` shows no link.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from forensics_lib.engines.docker.containers import ContainerRecord
from forensics_lib.formats.jsondoc import JsonObject

__all__ = ["Find", "finder", "links_of", "shown_links"]

_OWN_MODES = ("", "default", "bridge", "host", "none", "nat")
_MAX_STEPS = 16

Find = Callable[[str], ContainerRecord | None]


def finder(records: Iterable[ContainerRecord]) -> Find:
    """The container that a link means: by name, by id or by an id's beginning that only one container has."""
    known = list(records)
    by_name = {record.parts.name: record for record in known}
    by_id = {record.id: record for record in known}

    def find(text: str) -> ContainerRecord | None:
        found = by_id.get(text) or by_name.get(text.strip("/"))
        if found is None and text:
            begun = [record for record in known if record.id.startswith(text)]
            found = begun[0] if len(begun) == 1 else None
        return found

    return find


def links_of(host_config: JsonObject) -> Iterator[tuple[str, str]]:
    """Name and alias of each link that the daemon registers."""
    mode = host_config.text("NetworkMode")
    if mode not in _OWN_MODES and not mode.startswith("container:"):
        return
    for link in host_config.texts("Links"):
        name, _, alias = link.partition(":")
        yield (name.lstrip("/"), (alias or name).rpartition("/")[2])


def shown_links(record: ContainerRecord, find: Find | None, *, reloaded: bool) -> list[str] | None:
    """``HostConfig.Links`` of ``docker inspect``: ``/child:/parent/alias``.

    Args:
        record: the container whose links they are.
        find: finds the linked container; None where the others are not known, then the names are shown as written.
        reloaded: whether the daemon was restarted since; it then forgot the links to containers that are gone.
    """
    shown = []
    for name, alias in links_of(record.host_config):
        child = _owner_of_network(name, find) if find is not None else None
        if child is None and find is not None and reloaded:
            break
        shown.append(f"/{child.parts.name if child is not None else name}:/{record.parts.name}/{alias}")
    return shown or None


def _owner_of_network(name: str, find: Find) -> ContainerRecord | None:
    child = find(name)
    for _ in range(_MAX_STEPS):
        if child is None or not child.host_config.text("NetworkMode").startswith("container:"):
            break
        child = find(child.host_config.text("NetworkMode").partition(":")[2])
    return child
