"""Are the image layers of a data root still what was pulled or built? Ids and archives, recomputed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from forensics_lib.engines.docker.drivers import GraphDriver
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.layerdb import LayerRecord
from forensics_lib.engines.docker.sizes import layer_size
from forensics_lib.errors import ForensicsError, PathNotFound
from forensics_lib.formats.tar_split import Segment, SplitFile, crc64, decode
from forensics_lib.images.digest import chain_ids
from forensics_lib.model import Check
from forensics_lib.sources.decompress import Limits, decompress, sniff
from forensics_lib.trees.archive import clean_path
from forensics_lib.trees.base import Node, NodeKind, Tree, join

__all__ = ["layer_archive", "verify_root"]


def verify_root(docker: DockerRoot, limits: Limits) -> Iterator[Check]:
    """Image ids, chain ids, sizes, and every layer's archive put together again from its files."""
    for image in docker.images:
        if image.raw_config is not None:
            actual = f"sha256:{hashlib.sha256(image.raw_config).hexdigest()}"
            yield Check(f"image {image.id} configuration", image.id, actual, actual == image.id, image.origin)
    for name in docker.storage_drivers:
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
    for what in changed:
        yield Check(f"{subject} file", "as in the archive", what, False, record.origin)


def layer_archive(
    docker: DockerRoot, driver: GraphDriver, record: LayerRecord, limits: Limits
) -> Iterator[tuple[bytes | None, SplitFile | None, Node | None]]:
    """The archive of a layer, piece by piece, from its tar-split record and the driver's files.

    Yields:
        (bytes, None, None) for a piece of the archive; before the content of a file (None, its entry, its node), where
        the node is None when the file is missing: its content is then left out.

    Raises:
        PathNotFound: the layer has no tar-split record, or no directory.
        ForensicsError: something cannot be read.
    """
    tree = driver.alone(record.cache_id)
    for entry in split_entries(docker, record, limits):
        if isinstance(entry, Segment):
            yield entry.data, None, None
        elif entry.size:
            node = _file(tree, entry)
            yield None, entry, node
            if node is not None:
                left = entry.size
                for block in node.source().blocks(0, entry.size):
                    yield block[:left], None, None
                    left -= len(block)


def split_entries(docker: DockerRoot, record: LayerRecord, limits: Limits) -> Iterator[Segment | SplitFile]:
    """The entries of a layer's tar-split record.

    Raises:
        PathNotFound: there is none.
        ForensicsError: it cannot be read.
    """
    node = docker.reader.find(join(record.path, "tar-split.json.gz"))
    if node is None:
        raise PathNotFound(f"layer {record.chain_id} has no tar-split record")
    source = node.source()
    origin = node.origin.to(node.path.lstrip("/"))
    yield from decode(decompress(source.blocks(), sniff(source.read_at(0, 16)), origin, limits), origin)


def _changed_files(docker: DockerRoot, driver: GraphDriver, record: LayerRecord, limits: Limits) -> Iterator[str]:
    """Files of the right size whose content is not what the layer's record has a checksum of."""
    tree = driver.alone(record.cache_id)
    for entry in split_entries(docker, record, limits):
        if isinstance(entry, SplitFile) and entry.size and entry.crc is not None:
            node = _file(tree, entry)
            if node is not None and node.size == entry.size and crc64(node.source().blocks()) != entry.crc:
                yield f"{node.path} has another content"


def _file(tree: Tree, entry: SplitFile) -> Node | None:
    path = clean_path(entry.name.decode("utf-8", "surrogateescape"))[0]
    node = tree._lookup(path)
    return node if node is not None and node.kind is NodeKind.FILE else None
