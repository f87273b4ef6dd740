"""The image configuration: what an image runs, for which platform, and the history it tells of itself.

Formats: OCI image-spec ``config.md``; Docker's superset of it (``container_config``, ``Healthcheck``, ``OnBuild`` …);
the layer documents of Docker before 1.10 (``<id>/json``), which schema 1 manifests carry on as ``v1Compatibility``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from forensics_lib.formats.jsondoc import JsonObject, parse_object
from forensics_lib.images.config_reader import ConfigReader
from forensics_lib.model import Origin, ProblemLog

__all__ = ["Healthcheck", "HistoryEntry", "ImageConfig"]


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """How the engine asks a container whether it is well. Durations are nanoseconds; 0 means the engine's default.

    Attributes:
        test: empty (inherit), ``("NONE",)``, ``("CMD", arg, …)`` or ``("CMD-SHELL", command)``.
        interval_ns: time between two checks.
        timeout_ns: time after which a check counts as failed.
        start_period_ns: time after the start in which failures do not count.
        start_interval_ns: time between two checks during the start period.
        retries: failures in a row that make the container unhealthy.
    """

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One entry of the configuration's history, as it is written there.

    Attributes:
        created: when the step was made (aware UTC); None when not recorded.
        created_ns: the same in nanoseconds since 1970.
        created_by: the command or instruction.
        author: who the image was committed by.
        comment: message of a commit, or a mark of the builder.
        empty_layer: the step changed the configuration only and made no layer.
    """

    created: datetime | None = None
    created_ns: int | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """One image configuration document, typed; ``raw`` has everything that no attribute names.

    Texts are empty and tuples are empty where the document says nothing.

    Attributes:
        raw: the whole document.
        id: id of a layer document of Docker before 1.10; empty in image configurations.
        parent_id: id of the image this one was built on, where the document records it.
        created: when the image was made (aware UTC); None when not recorded.
        created_ns: the same in nanoseconds since 1970.
        architecture: CPU architecture by Go's name, e.g. ``amd64``.
        variant: variant of the architecture, e.g. ``v8``.
        os: operating system by Go's name.
        os_version: version of the operating system (Windows).
        os_features: features of the operating system the image needs (Windows).
        author: author of the image.
        comment: message of the commit or import.
        docker_version: engine that built the image, where it was Docker's classic builder.
        container: id of the container the image was committed from.
        size: bytes of the layer; only layer documents of Docker before 1.10 have it.
        hostname: host name of the container the configuration was taken from.
        domainname: domain of that container.
        user: user (and group) the process runs as.
        env: environment, each ``NAME=value``.
        entrypoint: start of the command line.
        cmd: rest of the command line; a user can replace it.
        args_escaped: the command line is already escaped (Windows).
        working_dir: working directory of the process.
        exposed_ports: ports such as ``80/tcp``.
        volumes: paths that become volumes.
        label_pairs: labels as (name, value) pairs, in the order of the document; see ``labels``.
        stop_signal: signal that stops the container.
        stop_timeout: seconds to wait after it; None when not set.
        shell: shell of the builder's shell form.
        on_build: instructions that run when another image is built on this one.
        healthcheck: the health check; None when not set.
        attach_stdin: standard input was attached.
        attach_stdout: standard output was attached.
        attach_stderr: standard error was attached.
        tty: a terminal is allocated.
        open_stdin: standard input stays open.
        stdin_once: standard input closes after the first client.
        network_disabled: the container has no network.
        mac_address: fixed MAC address.
        base_image: ``Image`` of the configuration: the image, by name or id, that the container it came from ran.
        diff_ids: digest of every layer's uncompressed tar, base first; an entry that is no text is kept as "".
        history: the history entries, oldest first.
    """

    raw: JsonObject = field(repr=False, compare=False)
    id: str = ""
    parent_id: str = ""
    created: datetime | None = None
    created_ns: int | None = None
    architecture: str = ""
    variant: str = ""
    os: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    author: str = ""
    comment: str = ""
    docker_version: str = ""
    container: str = ""
    size: int | None = None
    hostname: str = ""
    domainname: str = ""
    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    args_escaped: bool = False
    working_dir: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    label_pairs: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    network_disabled: bool = False
    mac_address: str = ""
    base_image: str = ""
    diff_ids: tuple[str, ...] = ()
    history: tuple[HistoryEntry, ...] = ()

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels by name, read-only."""
        return MappingProxyType(dict(self.label_pairs))

    @classmethod
    def parse(cls, data: bytes, origin: Origin, problems: ProblemLog) -> ImageConfig:
        """Read an image configuration, or a layer document of Docker before 1.10.

        A value of the wrong type becomes a problem and its neutral value; the rest is read on. A layer document has
        no diff ids, and its history is the one entry that it describes itself.

        Raises:
            LimitExceeded: the document is too large or nested too deep.
            DamagedData: no JSON, or no JSON object.
        """
        document = ConfigReader(parse_object(data, origin), "", origin, problems)
        config = document.object("config")
        created, created_ns = document.time("created")
        return cls(
            raw=document.fields,
            id=document.text("id"),
            parent_id=document.text("parent"),
            created=created,
            created_ns=created_ns,
            architecture=document.text("architecture"),
            variant=document.text("variant"),
            os=document.text("os"),
            os_version=document.text("os.version"),
            os_features=document.texts("os.features"),
            author=document.text("author"),
            comment=document.text("comment"),
            docker_version=document.text("docker_version"),
            container=document.text("container"),
            size=document.integer("Size"),
            hostname=config.text("Hostname"),
            domainname=config.text("Domainname"),
            user=config.text("User"),
            env=config.texts("Env"),
            entrypoint=config.command("Entrypoint"),
            cmd=config.command("Cmd"),
            args_escaped=config.flag("ArgsEscaped"),
            working_dir=config.text("WorkingDir"),
            exposed_ports=config.names("ExposedPorts"),
            volumes=config.names("Volumes"),
            label_pairs=config.pairs("Labels"),
            stop_signal=config.text("StopSignal"),
            stop_timeout=config.integer("StopTimeout"),
            shell=config.command("Shell"),
            on_build=config.texts("OnBuild"),
            healthcheck=_healthcheck(config),
            attach_stdin=config.flag("AttachStdin"),
            attach_stdout=config.flag("AttachStdout"),
            attach_stderr=config.flag("AttachStderr"),
            tty=config.flag("Tty"),
            open_stdin=config.flag("OpenStdin"),
            stdin_once=config.flag("StdinOnce"),
            network_disabled=config.flag("NetworkDisabled"),
            mac_address=config.text("MacAddress"),
            base_image=config.text("Image"),
            diff_ids=document.object("rootfs").digests("diff_ids"),
            history=_history(document),
        )


def _healthcheck(config: ConfigReader) -> Healthcheck | None:
    if config.fields.get("Healthcheck") is None:
        return None
    check = config.object("Healthcheck")
    return Healthcheck(
        test=check.texts("Test"),
        interval_ns=check.integer("Interval") or 0,
        timeout_ns=check.integer("Timeout") or 0,
        start_period_ns=check.integer("StartPeriod") or 0,
        start_interval_ns=check.integer("StartInterval") or 0,
        retries=check.integer("Retries") or 0,
    )


def _history(document: ConfigReader) -> tuple[HistoryEntry, ...]:
    if document.fields.get("rootfs") is None and document.fields.get("history") is None:
        return _layer_history(document)
    return tuple(_history_entry(entry) for entry in document.objects("history"))


def _history_entry(entry: ConfigReader) -> HistoryEntry:
    created, created_ns = entry.time("created")
    return HistoryEntry(
        created=created,
        created_ns=created_ns,
        created_by=entry.text("created_by"),
        author=entry.text("author"),
        comment=entry.text("comment"),
        empty_layer=entry.flag("empty_layer"),
    )


def _layer_history(document: ConfigReader) -> tuple[HistoryEntry, ...]:
    """The one entry a layer document stands for, by the rule with which Docker 1.10 migrated such layers."""
    if document.fields.get("container_config") is None and not document.text("id"):
        return ()
    created, created_ns = document.time("created")
    entry = HistoryEntry(
        created=created,
        created_ns=created_ns,
        created_by=" ".join(document.object("container_config").command("Cmd")),
        author=document.text("author"),
        comment=document.text("comment"),
        empty_layer=document.flag("throwaway"),
    )
    return (entry,)
