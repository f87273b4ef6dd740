"""What goes into the image archive of a Docker container."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from forensics_lib.engines.docker.archive import layer_archive, split_entries
from forensics_lib.engines.docker.containers import ContainerRecord
from forensics_lib.engines.docker.departures import departures
from forensics_lib.engines.docker.drivers import GraphDriver
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.layerdb import LayerDb, LayerRecord, MountRecord
from forensics_lib.engines.save import ImageLayer, Saving
from forensics_lib.errors import DamagedData
from forensics_lib.formats.jsondoc import JsonObject
from forensics_lib.formats.tar_split import Segment
from forensics_lib.images.digest import chain_ids
from forensics_lib.images.image import Image
from forensics_lib.images.layer import LayerBlob
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.base import Tree

__all__ = ["saving_of"]


def saving_of(
    docker: DockerRoot,
    record: ContainerRecord,
    mount: MountRecord,
    base: Callable[[], Tree],
    tree: Callable[[], Tree],
    limits: Limits,
) -> Saving:
    """All that goes into the archive of a container.

    The layers are those that its writable layer lies on, so they are found even when the image was removed under it.
    """
    parts = record.parts
    image = next((one for one in docker.images if one.id == parts.image_id), None)
    times = (parts.created_ns, parts.started_ns, parts.finished_ns)
    config = record.config.object("Config")
    return Saving(
        container_id=record.id,
        command=(parts.path, *parts.args) if parts.path else parts.args,
        changed_ns=max((time for time in times if time is not None), default=None),
        config=config if config.raw or image is None else image.config.raw.object("config"),
        platform=_platform(record.config) if image is None else image.config.raw,
        history=() if image is None else image.config.history,
        layers=partial(_layers, docker, parts.storage_driver, mount, image, limits),
        base=base,
        tree=tree,
        origin=record.config_origin,
    )


def _platform(config: JsonObject) -> JsonObject:
    """What a container's record tells of the platform of its image."""
    platform = config.object("ImagePlatform")
    system = platform.text("os") or config.text("OS") or config.text("Platform") or "linux"
    return JsonObject({**platform.raw, "architecture": platform.text("architecture"), "os": system})


def _layers(
    docker: DockerRoot, driver_name: str, mount: MountRecord, image: Image | None, limits: Limits
) -> list[ImageLayer]:
    """The layers below a container, base first.

    Raises:
        DamagedData: one is not recorded.
    """
    driver = docker.driver(driver_name)
    if not mount.parent and image is not None and not image.config.diff_ids:  # no layers, or Docker before 1.10
        return [ImageLayer(one.diff_id or "", None, partial(image.tree, one.index + 1)) for one in image.layers]
    return [
        ImageLayer(diff_id, partial(_archive, docker, driver, one, limits), partial(driver.tree, one.cache_id))
        for diff_id, one in _recorded(docker.layer_db(driver_name), mount, image)
    ]


def _recorded(store: LayerDb, mount: MountRecord, image: Image | None) -> list[tuple[str, LayerRecord]]:
    """The layers below a container by diff id, base first.

    Raises:
        DamagedData: nothing leads to the layer that the container was put on.
    """
    for diff_ids in _diff_ids(store, mount, image):
        try:
            chains = chain_ids(diff_ids)
        except DamagedData:
            continue
        records = [store.layers[chain] for chain in chains if chain in store.layers]
        if chains and mount.parent in ("", chains[-1]) and len(records) == len(chains):
            return list(zip(diff_ids, records, strict=True))
    raise DamagedData(f"the layers up to {mount.parent or 'its image'} are not all recorded", origin=mount.origin)


def _diff_ids(store: LayerDb, mount: MountRecord, image: Image | None) -> Iterator[Sequence[str]]:
    """What says which layers lie below a container: its image, then the records of the layers."""
    if image is not None:
        yield image.config.diff_ids
    yield [one.diff_id for one in reversed(store.chain(mount.parent))]


def _archive(
    docker: DockerRoot, driver: GraphDriver, layer: LayerRecord, limits: Limits
) -> tuple[int, Iterator[bytes]]:
    """The size of a layer's archive, and the archive.

    Raises:
        ForensicsError: nothing tells how it was.
    """
    blob = docker.layer_db(driver.name).archive(layer)
    if blob is not None:
        return blob.archive().size, _kept(docker, driver, layer, blob, limits)
    size = 0
    for entry in split_entries(docker, layer, limits):
        size += len(entry.data) if isinstance(entry, Segment) else entry.size
    return size, _pieces(docker, driver, layer, limits)


def _kept(
    docker: DockerRoot, driver: GraphDriver, layer: LayerRecord, blob: LayerBlob, limits: Limits
) -> Iterator[bytes]:
    """The archive of a layer as containerd keeps it.

    Raises:
        ForensicsError: it cannot be read, or the layer's directory has files that are not in it and would be lost.
    """
    _compare(docker, driver, layer, limits)
    yield from blob.stream()


def _pieces(docker: DockerRoot, driver: GraphDriver, layer: LayerRecord, limits: Limits) -> Iterator[bytes]:
    """The archive of a layer, piece by piece.

    Raises:
        ForensicsError: it cannot be put together, or its directory has files that are not in it and would be lost.
    """
    _compare(docker, driver, layer, limits)
    for piece, _, _ in layer_archive(docker, driver, layer, limits):
        if piece is not None:
            yield piece


def _compare(docker: DockerRoot, driver: GraphDriver, layer: LayerRecord, limits: Limits) -> None:
    """Say what in a layer's directory is not as in its archive.

    Raises:
        DamagedData: there are files that are not in the archive and would be lost.
    """
    differing = []
    for departure in departures(docker, driver, layer, limits):
        if "added" in departure.what:
            message = f"{departure.node.path} was put into its directory and is not of its archive"
            raise DamagedData(message, origin=departure.node.origin)
        differing.append(departure)
    if differing:
        names = ", ".join(f"{one.node.path} ({', '.join(one.what)})" for one in differing[:5])
        message = f"layer {layer.diff_id} is saved as it was; {len(differing)} of its files are different now: {names}"
        docker.reader.problems.add(layer.origin, message)
