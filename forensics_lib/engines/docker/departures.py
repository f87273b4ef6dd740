"""Where the directory of an image layer is not what the layer's archive says: files that somebody put into it.

The digest of an archive that is put together again does not show them, because it is made of the record's headers.
"""

from __future__ import annotations

from collections.abc import Iterator

from forensics_lib.engines.docker.archive import archive_headers
from forensics_lib.engines.docker.drivers import GraphDriver
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.layerdb import LayerRecord
from forensics_lib.errors import DamagedData
from forensics_lib.formats.tar_split import SplitFile
from forensics_lib.images.departures import Departure, departures_from, members_of
from forensics_lib.model import ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.archive import clean_path, read_members

__all__ = ["Departure", "departures"]


def departures(docker: DockerRoot, driver: GraphDriver, layer: LayerRecord, limits: Limits) -> Iterator[Departure]:
    """What is in the directory of a layer and not as in its archive; content is not read.

    Raises:
        PathNotFound: the layer has no record of its archive, or no directory.
        DamagedData: a file of the archive is not there, or has another size.
    """
    own = driver.alone(layer.cache_id)

    def check(entry: SplitFile) -> None:
        path = clean_path(entry.name.decode("utf-8", "surrogateescape"))[0]
        if entry.size and ((node := own.find(path)) is None or node.size != entry.size):
            raise DamagedData(f"{path} is not the file of {entry.size} bytes that the layer had", origin=layer.origin)

    blob = docker.layer_db(driver.name).archive(layer)
    if blob is not None:
        recorded = members_of(blob)
    else:
        headers = archive_headers(docker, driver, layer, limits, check)
        nothing = BytesSource(b"", layer.origin)
        recorded = dict(read_members(headers, nothing, layer.origin, ProblemLog()))
    parent = docker.layer_db(driver.name).layers.get(layer.parent)
    below = driver.tree(parent.cache_id) if parent is not None else None
    yield from departures_from(recorded, own, below, attributes=driver.name != "fuse-overlayfs")
