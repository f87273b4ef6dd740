"""containerd's containers: what its client, the runtime specification and the Kubernetes plugin (CRI) say of each.

Formats: OCI runtime-spec ``config.json``; containerd ``internal/cri/store`` (metadata and ``status`` of containers of
Kubernetes); labels of nerdctl. The state of a task is in the memory of its shim: on the disk are at most the status
that the plugin writes and the folder of the task.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from forensics_lib.engines.container_parts import ContainerParts, ContainerState, Mount
from forensics_lib.engines.containerd.space import Space
from forensics_lib.errors import ForensicsError
from forensics_lib.formats.containerd_meta import ContainerEntry
from forensics_lib.formats.jsondoc import JsonObject, parse_object
from forensics_lib.trees.base import join
from forensics_lib.trees.documents import DocumentReader

__all__ = ["ContainerRecord", "read_containers"]

_CRI = ("io.cri-containerd.container.metadata", "io.cri-containerd.sandbox.metadata")
_CRI_HOME = "io.containerd.grpc.v1.cri"
_TASKS = "io.containerd.runtime.v2.task"
_DEFAULT_CAPABILITIES = frozenset(
    [
        "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
        "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
    ]
)  # fmt: skip
_OF_EVERY_CONTAINER = ("/proc", "/dev", "/sys", "/run")
_NAMESPACES = ("network", "pid", "ipc", "uts", "user", "cgroup")
_OF_THE_POD = ("/kubelet/pods/", f"/{_CRI_HOME}/sandboxes/")
_IN_MEMORY = "whether it ran is in the memory of its shim only; a folder of its task was left"


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """One container.

    Attributes:
        entry: the record of the metadata.
        spec: the runtime specification; empty when it is missing.
        cri: what the Kubernetes plugin knows of it; empty for containers of other clients.
        parts: the same, typed.
    """

    entry: ContainerEntry
    spec: JsonObject
    cri: JsonObject
    parts: ContainerParts


def read_containers(space: Space) -> list[ContainerRecord]:
    """The containers of a namespace, newest first."""
    found = [_record(space, entry) for entry in space.namespace.containers.values()]
    return sorted(found, key=lambda record: (-(record.parts.created_ns or 0), record.parts.id))


def _record(space: Space, entry: ContainerEntry) -> ContainerRecord:
    reader = space.containerd.reader
    spec = _object(reader, entry, entry.spec, "runtime specification")
    stored = next((entry.extensions[name][1] for name in _CRI if name in entry.extensions), b"")
    cri = _object(reader, entry, stored, "record of the Kubernetes plugin").object("Metadata")
    return ContainerRecord(entry, spec, cri, _parts(space, entry, spec, cri))


def _object(reader: DocumentReader, entry: ContainerEntry, data: bytes, what: str) -> JsonObject:
    try:
        return parse_object(data, entry.origin) if data else JsonObject({})
    except ForensicsError as error:
        reader.problems.add(entry.origin, f"container {entry.id}: its {what} is damaged: {error}")
        return JsonObject({})


def _parts(space: Space, entry: ContainerEntry, spec: JsonObject, cri: JsonObject) -> ContainerParts:
    process, linux, config = spec.object("process"), spec.object("linux"), cri.object("Config")
    arguments = process.texts("args")
    status = _status(space, entry)
    state, note = _state(space, entry, status)
    capabilities = {one.removeprefix("CAP_") for one in process.object("capabilities").texts("bounding")}
    own = {one.text("type") for one in linux.objects("namespaces")}
    modes = {kind: "" if kind in own or not spec.raw else "host" for kind in _NAMESPACES}
    security = config.object("linux").object("security_context")
    masked = linux.texts("maskedPaths")
    user = process.object("user")
    return ContainerParts(
        id=entry.id,
        name=cri.text("Name") or entry.labels.get("nerdctl/name", "") or entry.id,
        image=entry.image,
        image_id=_image_id(space, entry, cri),
        created_ns=entry.created_ns,
        state=state,
        state_note=note,
        origin=entry.origin,
        path=arguments[0] if arguments else "",
        args=arguments[1:],
        env=process.texts("env"),
        labels=tuple(entry.labels.items()),
        working_dir=process.text("cwd"),
        user=f"{user.integer('uid') or 0}:{user.integer('gid') or 0}" if user.raw else "",
        hostname=spec.text("hostname"),
        mounts=tuple(_mounts(spec)),
        started_ns=status.integer("StartedAt") or None,
        finished_ns=status.integer("FinishedAt") or None,
        exit_code=status.integer("ExitCode") if status.integer("FinishedAt") else None,
        pid=status.integer("Pid") or 0,
        error=status.text("Message"),
        log_driver="cri" if cri.text("LogPath") else entry.labels.get("nerdctl/log-uri", ""),
        storage_driver=entry.snapshotter,
        privileged=security.flag("privileged") or (bool(spec.raw) and not masked and "SYS_ADMIN" in capabilities),
        read_only=spec.object("root").flag("readonly"),
        cap_add=tuple(sorted(capabilities - _DEFAULT_CAPABILITIES)),
        cap_drop=tuple(sorted(_DEFAULT_CAPABILITIES - capabilities)) if spec.raw else (),
        devices=tuple(one.text("path") for one in linux.objects("devices")),
        network_mode=modes["network"],
        pid_mode=modes["pid"],
        ipc_mode=modes["ipc"],
        uts_mode=modes["uts"],
        userns_mode=modes["user"] if "user" in own else "",
        cgroupns_mode=modes["cgroup"],
    )


def _image_id(space: Space, entry: ContainerEntry, cri: JsonObject) -> str:
    """The id of its image: as the Kubernetes plugin says, else what its name stands for now."""
    if cri.text("ImageRef"):
        return cri.text("ImageRef")
    image = space.namespace.images.get(entry.image)
    return image.digest if image is not None else ""


def _status(space: Space, entry: ContainerEntry) -> JsonObject:
    """The status that the Kubernetes plugin writes down; empty where there is none."""
    containerd = space.containerd
    path = containerd.root.at(f"{_CRI_HOME}/containers/{entry.id}/status")
    if "/" in entry.id or containerd.reader.find(path) is None:
        return JsonObject({})
    document = containerd.reader.document(path)
    return document.object if document is not None else JsonObject({})


def _state(space: Space, entry: ContainerEntry, status: JsonObject) -> tuple[ContainerState, str]:
    if status.integer("FinishedAt"):
        return ContainerState.EXITED, status.text("Reason")
    if status.integer("StartedAt"):
        note = f"running when it was written down (process {status.integer('Pid') or 0}); nobody saw it end"
        return ContainerState.RUNNING, note
    if status.raw:
        return ContainerState.CREATED, ""
    task = join(space.containerd.root.at(_TASKS), f"{space.namespace.name}/{entry.id}")
    if task in space.containerd.reader.tree:
        return ContainerState.RUNNING, _IN_MEMORY
    return ContainerState.CREATED, "whether it ran and how it ended is not recorded"


def _mounts(spec: JsonObject) -> Iterator[Mount]:
    """What was mounted beside what every container has; what the node made for the pod is a volume."""
    for mount in spec.objects("mounts"):
        destination, options = mount.text("destination"), mount.texts("options")
        is_bind = mount.text("type") == "bind" or "rbind" in options or "bind" in options
        usual = destination == "/proc" or destination.startswith(tuple(f"{one}/" for one in _OF_EVERY_CONTAINER))
        if is_bind or (mount.text("type") == "tmpfs" and not usual and destination not in _OF_EVERY_CONTAINER):
            source = mount.text("source") if is_bind else ""
            is_pods = any(place in source for place in _OF_THE_POD)
            yield Mount(
                type="volume" if is_pods else "bind" if is_bind else "tmpfs",
                source=source,
                destination=destination,
                read_only="ro" in options,
                options=",".join(options),
            )
