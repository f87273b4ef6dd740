"""The logs of containers that kubelet and nerdctl keep beside containerd.

Kubernetes: ``<log path>``, with rotated ``<log path>.<time>`` and ``.gz`` (kubelet ``pkg/kubelet/logs``). nerdctl:
``/var/lib/nerdctl/<address>/containers/<namespace>/<id>/<id>-json.log``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from forensics_lib.engines.containerd.containers import ContainerRecord
from forensics_lib.engines.logs import LogRecord
from forensics_lib.errors import ForensicsError
from forensics_lib.formats.cri_log import read_cri_log
from forensics_lib.formats.json_log import read_json_log
from forensics_lib.formats.log_record import OnProblem
from forensics_lib.model import Origin
from forensics_lib.sources.decompress import Limits, decompress, sniff
from forensics_lib.trees.base import Node, NodeKind, join, parent_of
from forensics_lib.trees.documents import DocumentReader

__all__ = ["container_logs"]

_ROTATED = re.compile(r"\.(\d{8}-\d{6})(?:\.gz)?")
_Decoder = Callable[[Iterable[bytes], Origin, OnProblem], Iterator[LogRecord]]


def container_logs(
    reader: DocumentReader, host: str, namespace: str, record: ContainerRecord, limits: Limits
) -> Iterator[LogRecord]:
    """Every record that is left of a container's logs, oldest first; none where its client kept none that is known.

    Args:
        reader: reads the tree.
        host: where the host's root lies in the tree.
        namespace: of the container.
        record: the container.
        limits: bounds on decompression.
    """
    path = record.cri.text("LogPath")
    if path.startswith("/"):
        for node in _kubelet(reader, join(host, path.lstrip("/"))):
            yield from _records(reader, node, read_cri_log, limits)
    container_id = record.parts.id
    for address in reader.folder(join(host, "var/lib/nerdctl")):
        log = reader.find(f"{address.path}/containers/{namespace}/{container_id}/{container_id}-json.log")
        if log is not None and "/" not in container_id:
            yield from _records(reader, log, read_json_log, limits)


def _kubelet(reader: DocumentReader, path: str) -> list[Node]:
    """The files of a log: the rotated ones by the time in their names, the one that is written last."""
    name = path.rpartition("/")[2]
    found: list[tuple[str, Node]] = []
    for node in reader.folder(parent_of(path)):
        rotated = _ROTATED.fullmatch(node.name.removeprefix(name)) if node.name.startswith(name) else None
        if node.kind is NodeKind.FILE and (rotated or node.name == name):
            found.append((rotated[1] if rotated else "~", node))
    return [node for _, node in sorted(found, key=lambda one: one[0])]


def _records(reader: DocumentReader, node: Node, decoder: _Decoder, limits: Limits) -> Iterator[LogRecord]:
    origin = node.origin.to(node.path.lstrip("/"))

    def report(error: ForensicsError) -> None:
        reader.problems.add(origin, error)

    try:
        source = node.source()
        blocks = decompress(source.blocks(), sniff(source.read_at(0, 16)), origin, limits, report)
        yield from decoder(blocks, origin, report)
    except ForensicsError as error:
        report(error)
