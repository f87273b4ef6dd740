"""The archive that a layer was unpacked from: kept in containerd's store, else put together again.

Graph drivers do not keep it; a tar-split record and the driver's files give it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from forensics_lib.engines.docker.drivers import GraphDriver
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.layerdb import LayerRecord
from forensics_lib.errors import LimitExceeded, PathNotFound
from forensics_lib.formats.tar import TarDecoder
from forensics_lib.formats.tar_split import Segment, SplitFile, decode
from forensics_lib.sources.decompress import Limits, decompress, sniff
from forensics_lib.sources.stream import BlockStream
from forensics_lib.trees.archive import clean_path
from forensics_lib.trees.base import Node, NodeKind, Tree, join

__all__ = ["archive_headers", "file_of", "layer_archive", "split_entries"]

_ZEROS = bytes(1 << 20)
_MAX_ARCHIVE = 1 << 40


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
            node = file_of(tree, entry)
            yield None, entry, node
            if node is not None:
                left = entry.size
                for block in node.source().blocks(0, entry.size):
                    yield block[:left], None, None
                    left -= len(block)


def archive_headers(
    docker: DockerRoot,
    driver: GraphDriver,
    record: LayerRecord,
    limits: Limits,
    check: Callable[[SplitFile], None] = lambda _: None,
) -> TarDecoder:
    """The members of a layer's archive; of one that is not kept from its tar-split record, with zeros for content.

    Args:
        docker: the data root.
        driver: where the layer is.
        record: the layer.
        limits: bounds on members.
        check: called with the entry of each file of such a record before its content; what it raises ends the reading.

    Raises:
        PathNotFound: while it is read: the layer has no tar-split record.
        ForensicsError: while it is read: the record cannot be read.
    """

    def blocks() -> Iterator[bytes]:
        total = 0
        for entry in split_entries(docker, record, limits):
            if isinstance(entry, Segment):
                yield entry.data
                continue
            check(entry)
            total += entry.size
            if total > _MAX_ARCHIVE:
                raise LimitExceeded(f"files of more than {_MAX_ARCHIVE} bytes", origin=record.origin)
            for start in range(0, entry.size, len(_ZEROS)):
                yield _ZEROS[: entry.size - start]

    blob = docker.layer_db(driver.name).archive(record)
    stream = blocks() if blob is None else blob.stream()
    return TarDecoder(BlockStream(stream), origin=record.origin, max_entries=limits.entries)


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


def file_of(tree: Tree, entry: SplitFile) -> Node | None:
    """The file of a record's entry; None when it is not there as one."""
    path = clean_path(entry.name.decode("utf-8", "surrogateescape"))[0]
    node = tree.find(path)
    return node if node is not None and node.kind is NodeKind.FILE else None
