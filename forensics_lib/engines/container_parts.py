"""What a container's records say: the rows that `Container` is made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from forensics_lib.engines.fact import Fact
from forensics_lib.model import Origin

__all__ = ["ContainerParts", "ContainerState", "Endpoint", "Mount", "Port"]


class ContainerState(StrEnum):
    """The state in the words of ``docker ps``, and ``unknown`` where no record of it can be read."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a container.

    Attributes:
        port: inside the container.
        protocol: ``tcp``, ``udp`` or ``sctp``.
        host_ip: address it was published on; empty when it was not, or on all.
        host_port: port it was published on; None when it was not, or when the engine was to choose one.
    """

    port: int
    protocol: str
    host_ip: str = ""
    host_port: int | None = None


@dataclass(frozen=True, slots=True)
class Mount:
    """Something mounted into a container.

    Attributes:
        type: ``bind``, ``volume``, ``tmpfs``, ``image``, ``npipe`` or ``cluster``.
        source: path on the host; empty for tmpfs.
        destination: path in the container.
        name: name of the volume; empty for others.
        driver: driver of the volume; empty for others.
        read_only: whether the container could not write to it.
        options: mode string as given.
    """

    type: str
    source: str
    destination: str
    name: str = ""
    driver: str = ""
    read_only: bool = False
    options: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's connection to a network; addresses are the last ones that were written down.

    Attributes:
        network: name of the network.
        network_id: its id.
        ip_address: IPv4 address; empty when none is recorded.
        ipv6_address: IPv6 address; empty when none is recorded.
        mac_address: MAC address; empty when none is recorded.
        gateway: IPv4 gateway; empty when none is recorded.
        aliases: further names in the network.
    """

    network: str
    network_id: str
    ip_address: str = ""
    ipv6_address: str = ""
    mac_address: str = ""
    gateway: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerParts:
    """What a reader of an engine's records found of one container; see `Container` for the meaning."""

    id: str
    name: str
    image: str
    image_id: str
    created_ns: int | None
    state: ContainerState
    state_note: str
    origin: Origin
    path: str = ""
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    user: str = ""
    hostname: str = ""
    ports: tuple[Port, ...] = ()
    mounts: tuple[Mount, ...] = ()
    networks: tuple[Endpoint, ...] = ()
    started_ns: int | None = None
    finished_ns: int | None = None
    exit_code: int | None = None
    pid: int = 0
    error: str = ""
    restart_count: int = 0
    restart_policy: str = ""
    log_driver: str = ""
    storage_driver: str = ""
    privileged: bool = False
    read_only: bool = False
    auto_remove: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    network_mode: str = ""
    pid_mode: str = ""
    ipc_mode: str = ""
    uts_mode: str = ""
    userns_mode: str = ""
    cgroupns_mode: str = ""
    other_names: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()
