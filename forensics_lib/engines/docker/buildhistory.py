"""BuildKit's history: every build it still remembers, with its arguments, steps and results.

Formats: buildkit ``api/services/control/control.proto`` (BuildHistoryRecord) in ``history.db``, or in
``history_c8d.db`` of containerd's store; the notes that the client keeps in the user's home, buildx ``localstate``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from forensics_lib.engines.findings import is_secret, mask
from forensics_lib.errors import DamagedData
from forensics_lib.formats.protobuf import Message
from forensics_lib.model import Origin, utc_from_ns
from forensics_lib.trees.base import NodeKind
from forensics_lib.trees.documents import DocumentReader

if TYPE_CHECKING:
    from forensics_lib.engines.docker.engine import DockerRoot

__all__ = ["BuildExporter", "BuildRecord", "ClientNote", "decode_build", "read_builds"]

_DATABASES = ("buildkit/history.db", "buildkit/history_c8d.db")
_BUILD_ARG = "build-arg:"
_CANCELED = 1  # of google.rpc.Code


@dataclass(frozen=True, slots=True)
class BuildExporter:
    """What a build was asked to make.

    Attributes:
        type: ``image``, ``oci``, ``docker``, ``tar``, ``local`` …
        attrs: (name, value) of its settings.
    """

    type: str
    attrs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ClientNote:
    """What the client that asked for a build noted of it, in the home of who ran it.

    Attributes:
        context: folder, or URL, that was built; ``-`` for standard input.
        dockerfile: its Dockerfile; empty when that came from standard input.
        origin: the note, ``<home>/.docker/buildx/refs/<builder>/<node>/<ref>``.
    """

    context: str
    dockerfile: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """One build, as ``docker buildx history`` lists and inspects it.

    ``docker buildx history rm`` may leave the record on the disk, so there can be more of them than were listed.

    Attributes:
        ref: the build's name.
        created_ns: when it began, nanoseconds since 1970; None when that is not recorded.
        completed_ns: when it ended; None when it was not seen to end.
        error: why it failed; empty when it did not.
        error_code: number of google.rpc.Code; 0 for success.
        frontend: what read the build file when it was not the client, e.g. ``dockerfile.v0``.
        attrs: (name, value) of its settings as they were given, secrets too: build arguments, labels, target …
        exporters: what it was asked to make.
        response: (name, value) of what the exporters answered, e.g. the image's configuration.
        cached_steps: steps that were taken from the cache.
        completed_steps: steps that ended.
        total_steps: all steps.
        warnings: warnings of the build file.
        results: digests of the images it made: configurations with a graph driver, manifests or indexes otherwise.
        attestations: digests of statements of how it was made.
        log_digest: the blob of its log; empty when none was kept.
        trace_digest: the blob of its timings.
        pinned: whether it was to be kept.
        client: what the client noted; None when no note is in the evidence.
        origin: the record.
    """

    ref: str
    created_ns: int | None
    completed_ns: int | None
    error: str
    error_code: int
    frontend: str
    attrs: tuple[tuple[str, str], ...]
    exporters: tuple[BuildExporter, ...]
    response: tuple[tuple[str, str], ...]
    cached_steps: int
    completed_steps: int
    total_steps: int
    warnings: int
    results: tuple[str, ...]
    attestations: tuple[str, ...]
    log_digest: str
    trace_digest: str
    pinned: bool
    client: ClientNote | None
    origin: Origin

    __table_columns__ = (
        "ref",
        "created",
        "completed",
        "status",
        "error",
        "images",
        "context",
        "dockerfile",
        "masked_attrs",
        "cached_steps",
        "completed_steps",
        "total_steps",
        "results",
        "log_digest",
        "origin",
    )

    @property
    def created(self) -> datetime | None:
        """When it began (aware UTC)."""
        return utc_from_ns(self.created_ns)

    @property
    def completed(self) -> datetime | None:
        """When it ended (aware UTC)."""
        return utc_from_ns(self.completed_ns)

    @property
    def status(self) -> str:
        """``completed``, ``error``, ``canceled``, or ``running`` when it was not seen to end."""
        if self.error_code or self.error:
            return "canceled" if self.error_code == _CANCELED else "error"
        return "running" if self.completed_ns is None else "completed"

    @property
    def images(self) -> tuple[str, ...]:
        """Names that the results were to get."""
        names = [value for exporter in self.exporters for key, value in exporter.attrs if key == "name"]
        return tuple(name for value in names for name in value.split(",") if name)

    @property
    def build_args(self) -> tuple[tuple[str, str], ...]:
        """(name, value) of the build arguments, secrets too."""
        return tuple(
            (name.removeprefix(_BUILD_ARG), value) for name, value in self.attrs if name.startswith(_BUILD_ARG)
        )

    @property
    def masked_attrs(self) -> tuple[tuple[str, str], ...]:
        """The settings with values masked that look secret or whose names do."""
        return tuple(
            (name, mask(value) if is_secret(name.removeprefix(_BUILD_ARG), value) else value)
            for name, value in self.attrs
        )

    @property
    def context(self) -> str:
        """Folder or URL that was built, as the client or else the record tells; empty when neither does."""
        return self.client.context if self.client is not None else dict(self.attrs).get("context", "")

    @property
    def dockerfile(self) -> str:
        """Path of the Dockerfile as the client tells, else its name as the record does."""
        noted = self.client.dockerfile if self.client is not None else ""
        return noted or dict(self.attrs).get("filename", "")


def read_builds(docker: DockerRoot) -> list[BuildRecord]:
    """The builds of a data root, newest first as ``docker buildx history ls``; damaged ones with what is left."""
    notes = dict(_notes(docker.reader))
    found = []
    for path in _DATABASES:
        for key, value, origin in docker.bucket(path, b"_records"):
            ref = key.decode("utf-8", "surrogateescape")
            record, damage = decode_build(value, ref, origin, notes.get(ref))
            if damage is not None:
                docker.reader.problems.add(origin, DamagedData(f"build {ref}: {damage}", origin=origin))
            found.append(record)
    return sorted(found, key=lambda record: (-(record.created_ns or 0), record.ref))


def decode_build(
    data: bytes, ref: str, origin: Origin, client: ClientNote | None = None
) -> tuple[BuildRecord, DamagedData | None]:
    """A record of the database, and what is wrong with its bytes; it then has the fields before the damage."""
    message = Message(data)
    status, result = message.message(5), message.message(10)
    results = [result, *(entry.message(2) for entry in message.messages(11))]
    record = BuildRecord(
        ref=message.text(1) or ref,
        created_ns=_timestamp(message, 6),
        completed_ns=_timestamp(message, 7),
        error=status.text(2),
        error_code=status.signed(1),
        frontend=message.text(2),
        attrs=tuple(sorted(message.mapping(3).items())),
        exporters=tuple(
            BuildExporter(one.text(1), tuple(sorted(one.mapping(2).items()))) for one in message.messages(4)
        ),
        response=tuple(sorted(message.mapping(9).items())),
        cached_steps=message.signed(15),
        completed_steps=message.signed(17),
        total_steps=message.signed(16),
        warnings=message.signed(19),
        results=tuple(dict.fromkeys(digest for one in results for digest in _results(one))),
        attestations=tuple(digest.text(2) for one in results for digest in one.messages(2)),
        log_digest=message.message(8).text(2),
        trace_digest=message.message(13).text(2),
        pinned=message.flag(14),
        client=client,
        origin=origin,
    )
    return record, message.damage


def _results(result: Message) -> Iterator[str]:
    """Digests of what was made: one until BuildKit 0.11, a map of them since."""
    if result.message(1).text(2):
        yield result.message(1).text(2)
    for entry in result.messages(3):
        if entry.message(2).text(2):
            yield entry.message(2).text(2)


def _timestamp(message: Message, number: int) -> int | None:
    if number not in message:
        return None
    time = message.message(number)
    return time.signed(1) * 10**9 + time.signed(2)


def _notes(reader: DocumentReader) -> Iterator[tuple[str, ClientNote]]:
    """What clients noted, by the build's name."""
    homes = ["/root", *(node.path for node in reader.folder("/home"))]
    for home in homes:
        for builder in reader.folder(f"{home}/.docker/buildx/refs"):
            for node in reader.folder(builder.path):
                for note in reader.folder(node.path):
                    document = reader.parse(note) if note.kind is NodeKind.FILE else None
                    if document is not None:
                        fields = document.object
                        client = ClientNote(fields.text("LocalPath"), fields.text("DockerfilePath"), document.origin)
                        yield note.name, client
