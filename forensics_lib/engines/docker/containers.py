"""Docker's containers: ``containers/<id>/config.v2.json`` and ``hostconfig.json``.

Format: moby ``daemon/container/container.go``. Keys come and go with the versions; a missing one is neutral, an unknown
one is kept in `DockerContainer.config`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from forensics_lib.engines.container_parts import ContainerParts, ContainerState, Endpoint, Mount, Port
from forensics_lib.engines.docker.root import DataRoot
from forensics_lib.formats.jsondoc import JsonObject, parse_time
from forensics_lib.model import Origin
from forensics_lib.trees.base import Node, NodeKind, join
from forensics_lib.trees.documents import Document, DocumentReader

__all__ = ["ContainerRecord", "mount_type", "read_containers", "record_of", "state_of"]

_CONFIGS = ("config.v2.json", "config.json")
_LEFTOVER = re.compile(r"\.tmp-(config\.v2\.json|hostconfig\.json)\d*")


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """One container's folder.

    Attributes:
        id: from the folder's name, else from the record.
        folder: path of the folder in the tree.
        config: the container's record; empty when it is missing.
        host_config: its settings towards the host; empty when they are missing.
        config_origin: where the record lies.
        host_origin: where the settings lie.
        parts: the same, typed.
    """

    id: str
    folder: str
    config: JsonObject
    host_config: JsonObject
    config_origin: Origin
    host_origin: Origin
    parts: ContainerParts


def read_containers(reader: DocumentReader, root: DataRoot) -> list[ContainerRecord]:
    """Every container of a data root, newest first as ``docker ps``; damaged ones with what is left of them."""
    found = []
    for container_id, folder in root.containers(reader).items():
        record = _read(reader, root, container_id, folder)
        if record is not None:
            found.append(record)
    return sorted(found, key=lambda record: (-(record.parts.created_ns or 0), record.id))


def _read(reader: DocumentReader, root: DataRoot, container_id: str, folder: Node) -> ContainerRecord | None:
    config = _newest(reader, folder, *_CONFIGS)
    host = _newest(reader, folder, "hostconfig.json")
    origin = folder.origin.to(folder.path.lstrip("/"))
    is_missing = not any(join(folder.path, name) in reader.tree for name in _CONFIGS)
    if config is None and host is None:
        message = f"container {container_id}: neither config.v2.json nor hostconfig.json "
        is_missing = is_missing and join(folder.path, "hostconfig.json") not in reader.tree
        is_removed = is_missing and _driver_of(reader, root, container_id) is None
        message += ("is there" if is_missing else "can be read") + "; "
        message += "it was being removed" if is_removed else "it is listed by its id, with its logs and files"
        reader.problems.add(origin, message)
        if is_removed:
            return None
    elif config is None and is_missing:
        reader.problems.add(origin, f"container {container_id}: its config.v2.json is missing; little is known of it")
    config_object = config.object if config is not None else JsonObject({})
    host_object = host.object if host is not None else JsonObject({})
    config_origin = config.origin if config is not None else origin
    stated = config_object.text("ID")
    if stated and stated != container_id:
        reader.problems.add(config_origin, f"the record in folder {container_id} says it is container {stated}")
    host_origin = host.origin if host is not None else origin
    record = record_of(container_id, folder.path, config_object, host_object, config_origin, host_origin)
    if not record.parts.storage_driver and (driver := _driver_of(reader, root, container_id)):
        return replace(record, parts=replace(record.parts, storage_driver=driver))
    return record


def _driver_of(reader: DocumentReader, root: DataRoot, container_id: str) -> str | None:
    """The storage driver that has a container's writable layer; empty where no driver's records are in the evidence.

    A removal takes the record of the layer before the container's folder: None is a container that was being removed.
    """
    drivers = [node for node in reader.folder(root.at("image")) if join(node.path, "layerdb/mounts") in reader.tree]
    found = (node.name for node in drivers if join(node.path, f"layerdb/mounts/{container_id}") in reader.tree)
    return next(found, None if drivers else "")


def record_of(
    container_id: str, folder: str, config: JsonObject, host: JsonObject, config_origin: Origin, host_origin: Origin
) -> ContainerRecord:
    """A container by its two documents, each empty where it is missing."""
    parts = _parts(container_id, config, host, config_origin)
    return ContainerRecord(container_id, folder, config, host, config_origin, host_origin, parts)


def _newest(reader: DocumentReader, folder: Node, *names: str) -> Document | None:
    """The record; where writing a newer version was interrupted, that version if it is whole.

    What a crash left lies beside the record until the container is removed, while newer versions replace the record.
    """
    record, written_ns = None, None
    for name in names:
        path = join(folder.path, name)
        if path in reader.tree and (document := reader.document(path)) is not None:
            if isinstance(document.value, dict):
                node = reader.find(path)
                record, written_ns = document, node.mtime_ns if node is not None else None
                break
            reader.problems.add(document.origin, f"{name} holds no object")
    for node in reader.folder(folder.path):
        match = _LEFTOVER.fullmatch(node.name)
        if match is None or match[1] not in names or node.kind is not NodeKind.FILE:
            continue
        document = reader.parse(node) if node.size else None
        whole = document is not None and isinstance(document.value, dict)
        state = "an incomplete newer version"
        if document is not None and whole:
            older = record is not None and _age(document, node.mtime_ns) < _age(record, written_ns)
            state = "a version older than the record, which is not used" if older else "a newer version, which is used"
            if not older:
                record, written_ns = document, node.mtime_ns
        reader.problems.add(node.origin.to(node.path.lstrip("/")), f"an interrupted write left {state}")
    return record


def _age(document: Document, written_ns: int | None) -> tuple[int, int]:
    """Sort key for versions of a record: what it last tells of the container, then when it was written."""
    state = document.object.object("State")
    probes = (probe.text("End") for probe in state.object("Health").objects("Log"))
    times = (parse_time(text)[1] or 0 for text in (state.text("StartedAt"), state.text("FinishedAt"), *probes))
    return max(times), written_ns or 0


def _parts(container_id: str, config: JsonObject, host: JsonObject, origin: Origin) -> ContainerParts:
    settings, state = config.object("Config"), config.object("State")
    policy = host.object("RestartPolicy")
    count = policy.integer("MaximumRetryCount")
    devices = [
        ":".join((d.text("PathOnHost"), d.text("PathInContainer"), d.text("CgroupPermissions")))
        for d in host.objects("Devices")
    ]
    started, finished = parse_time(state.text("StartedAt"))[1], parse_time(state.text("FinishedAt"))[1]
    name, note = state_of(state)
    return ContainerParts(
        id=container_id,
        name=config.text("Name").removeprefix("/"),
        image=settings.text("Image"),
        image_id=config.text("Image"),
        created_ns=parse_time(config.text("Created"))[1],
        state=name,
        state_note=note,
        origin=origin,
        path=config.text("Path"),
        args=config.texts("Args"),
        env=settings.texts("Env"),
        labels=tuple(settings.mapping("Labels").items()),
        working_dir=settings.text("WorkingDir"),
        user=settings.text("User"),
        hostname=settings.text("Hostname"),
        ports=tuple(_ports(config, host)),
        mounts=tuple(_mounts(config, host)),
        networks=tuple(_networks(config)),
        started_ns=started,
        finished_ns=finished,
        exit_code=state.integer("ExitCode") if started is not None else None,
        pid=state.integer("Pid") or 0,
        error=state.text("Error"),
        restart_count=config.integer("RestartCount") or 0,
        restart_policy=policy.text("Name") + (f":{count}" if policy.text("Name") == "on-failure" and count else ""),
        log_driver=host.object("LogConfig").text("Type"),
        storage_driver=config.text("Driver"),
        privileged=host.flag("Privileged"),
        read_only=host.flag("ReadonlyRootfs"),
        auto_remove=host.flag("AutoRemove"),
        cap_add=host.texts("CapAdd"),
        cap_drop=host.texts("CapDrop"),
        devices=tuple(devices),
        security_opt=host.texts("SecurityOpt"),
        network_mode=host.text("NetworkMode"),
        pid_mode=host.text("PidMode"),
        ipc_mode=host.text("IpcMode"),
        uts_mode=host.text("UTSMode"),
        userns_mode=host.text("UsernsMode"),
        cgroupns_mode=host.text("CgroupnsMode"),
    )


def state_of(state: JsonObject) -> tuple[ContainerState, str]:
    """The state as the daemon derives it, and why it cannot be true of a dead disk."""
    if not state.raw:
        return ContainerState.UNKNOWN, "no record of its state can be read"
    running, pid = state.flag("Running"), state.integer("Pid") or 0
    if running:
        note = f"running when it was written down (process {pid}); the daemon did not see it end"
        if state.flag("Paused"):
            return ContainerState.PAUSED, note
        if state.flag("Restarting"):
            return ContainerState.RESTARTING, note
        return ContainerState.RUNNING, note
    if state.flag("RemovalInProgress"):
        return ContainerState.REMOVING, "its removal was begun and not completed"
    if state.flag("Dead"):
        return ContainerState.DEAD, "its removal was begun and not completed"
    if parse_time(state.text("StartedAt"))[1] is None:
        return ContainerState.CREATED, ""
    return ContainerState.EXITED, ""


def _ports(config: JsonObject, host: JsonObject) -> Iterator[Port]:
    """Published ports as they were bound or, of a stopped container, asked for; then those merely exposed."""
    bound = config.object("NetworkSettings").object("Ports")
    asked = host.object("PortBindings")
    names = dict.fromkeys((*bound.raw, *asked.raw, *config.object("Config").object("ExposedPorts").raw))
    for name in names:
        number, _, protocol = name.partition("/")
        if not number.isdecimal() or len(number) > 5:
            continue
        bindings = bound.objects(name) or asked.objects(name)
        for binding in bindings:
            text = binding.text("HostPort")
            host_port = int(text) if text.isdecimal() and len(text) < 6 else None
            yield Port(int(number), protocol or "tcp", binding.text("HostIp"), host_port)
        if not bindings:
            yield Port(int(number), protocol or "tcp")


def _mounts(config: JsonObject, host: JsonObject) -> Iterator[Mount]:
    points = config.object("MountPoints")
    for destination in points.raw:
        point = points.object(destination)
        yield Mount(
            type=mount_type(point),
            source=point.text("Source"),
            destination=point.text("Destination") or destination,
            name=point.text("Name"),
            driver=point.text("Driver"),
            read_only=point.get("RW") is False,
            options=point.text("Relabel") or point.text("Mode"),
        )
    for destination, options in host.mapping("Tmpfs").items():
        yield Mount("tmpfs", "", destination, options=options, read_only="ro" in options.split(","))


def mount_type(point: JsonObject) -> str:
    """The type of a mount; Docker before 1.13 did not write it down."""
    return point.text("Type") or ("volume" if point.text("Name") or point.text("Driver") else "bind")


def _networks(config: JsonObject) -> Iterator[Endpoint]:
    settings = config.object("NetworkSettings")
    networks = settings.object("Networks")
    for name in networks.raw:
        entry = networks.object(name)
        yield Endpoint(
            network=name,
            network_id=entry.text("NetworkID"),
            ip_address=entry.text("IPAddress"),
            ipv6_address=entry.text("GlobalIPv6Address"),
            mac_address=entry.text("MacAddress"),
            gateway=entry.text("Gateway"),
            aliases=entry.texts("Aliases"),
        )
    if not networks.raw and settings.text("IPAddress"):  # Docker before 1.9
        yield Endpoint(
            "bridge", "", settings.text("IPAddress"), "", settings.text("MacAddress"), settings.text("Gateway")
        )
