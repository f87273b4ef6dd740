"""Are the image layers of a data root still what was pulled or built? Ids and archives, recomputed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from forensics_lib.engines.docker.archive import file_of, layer_archive, split_entries
from forensics_lib.engines.docker.departures import departures
from forensics_lib.engines.docker.drivers import GraphDriver
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.layerdb import LayerRecord
from forensics_lib.engines.docker.sizes import layer_size
from forensics_lib.errors import ForensicsError
from forensics_lib.formats.tar_split import SplitFile, crc64
from forensics_lib.images.digest import chain_ids
from forensics_lib.model import Check
from forensics_lib.sources.decompress import Limits

__all__ = ["verify_root"]


def verify_root(docker: DockerRoot, limits: Limits) -> Iterator[Check]:
    """Image ids, chain ids, sizes, and every layer's archive put together again from its files."""
    for image in docker.images:
        expected = image.config_digest
        if image.raw_config is not None and expected is not None:
            actual = f"sha256:{hashlib.sha256(image.raw_config).hexdigest()}"
            yield Check(f"image {image.id} configuration", expected, actual, actual == expected, image.origin)
    if docker.store is not None:
        from forensics_lib.engines.docker.store_verify import verify_store

        yield from verify_store(docker, docker.store)
    for name in docker.graph_drivers:
        driver = docker.driver(name)
        for record in docker.layer_db(name).layers.values():
            yield from _check_layer(docker, driver, record, limits)


def _check_layer(docker: DockerRoot, driver: GraphDriver, record: LayerRecord, limits: Limits) -> Iterator[Check]:
    subject = f"layer {record.chain_id}"
    try:
        below = [record.parent] if record.parent else []
        actual = chain_ids([*below, record.diff_id])[-1]
        yield Check(f"{subject} chain id", record.chain_id, actual, actual == record.chain_id, record.origin)
    except ForensicsError as error:
        yield Check(f"{subject} chain id", record.chain_id, str(error), False, record.origin)
    archive = layer_archive(docker, driver, record, limits)
    digest = hashlib.sha256()
    changed: list[str] = []
    size = 0
    try:
        for piece, file, node in archive:
            if piece is not None:
                digest.update(piece)
            elif file is not None:
                size += file.size
                if node is None:
                    changed.append(f"{file.name.decode('utf-8', 'surrogateescape')} is missing")
                elif node.size != file.size:
                    changed.append(f"{node.path} has {node.size} bytes instead of {file.size}")
        if record.size is not None:
            size = layer_size(driver, record.cache_id, size)
            yield Check(f"{subject} size", str(record.size), str(size), size == record.size, record.origin)
    except ForensicsError as error:
        docker.reader.problems.add(record.origin, error)
        yield Check(f"{subject} archive", record.diff_id, f"cannot be put together: {error}", False, record.origin)
        return
    actual = f"sha256:{digest.hexdigest()}"
    yield Check(f"{subject} archive", record.diff_id, actual, actual == record.diff_id, record.origin)
    if actual != record.diff_id:
        changed += _changed_files(docker, driver, record, limits)
    changed += _departures(docker, driver, record, limits)
    for what in changed:
        yield Check(f"{subject} file", "as in the archive", what, False, record.origin)


def _changed_files(docker: DockerRoot, driver: GraphDriver, record: LayerRecord, limits: Limits) -> Iterator[str]:
    """Files of the right size whose content is not what the layer's record has a checksum of."""
    tree = driver.alone(record.cache_id)
    for entry in split_entries(docker, record, limits):
        if isinstance(entry, SplitFile) and entry.size and entry.crc is not None:
            node = file_of(tree, entry)
            if node is not None and node.size == entry.size and crc64(node.source().blocks()) != entry.crc:
                yield f"{node.path} has another content"


def _departures(docker: DockerRoot, driver: GraphDriver, record: LayerRecord, limits: Limits) -> Iterator[str]:
    """What the digest of the archive does not show, for its headers come from the record: files put in beside it."""
    try:
        for departure in departures(docker, driver, record, limits):
            what = "is not in the archive" if "added" in departure.what else f"has another {', '.join(departure.what)}"
            yield f"{departure.node.path} {what}"
    except ForensicsError:
        return  # missing files and other sizes, which are told already
