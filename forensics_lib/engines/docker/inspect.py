"""The answer of ``docker inspect``, from a container's records (moby ``daemon/inspect.go``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from forensics_lib.engines.docker.containers import ContainerRecord, mount_type, state_of
from forensics_lib.engines.docker.links import Find, shown_links
from forensics_lib.engines.docker.version import Engine
from forensics_lib.formats.jsondoc import JsonObject, parse_time

__all__ = ["inspect_container"]

_PASSED_ON = (
    "Created", "Path", "Args", "Image", "ResolvConfPath", "HostnamePath", "HostsPath", "LogPath", "Name",
    "RestartCount", "Driver", "MountLabel", "ProcessLabel", "AppArmorProfile",
)  # fmt: skip
_STATE = (
    "Running", "Paused", "Restarting", "OOMKilled", "Dead", "Pid", "ExitCode", "Error", "StartedAt", "FinishedAt",
)  # fmt: skip
_NOT_SHOWN = ("IPAMOperational", "DesiredMacAddress")
# What the daemon takes back when a container stops.
_RELEASED: Mapping[str, object] = {
    "EndpointID": "",
    "Gateway": "",
    "IPAddress": "",
    "IPPrefixLen": 0,
    "IPv6Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "MacAddress": "",
}
_OLD_FIELDS: Mapping[str, object] = {
    "Bridge": "",
    "HairpinMode": False,
    "LinkLocalIPv6Address": "",
    "LinkLocalIPv6PrefixLen": 0,
    "SecondaryIPAddresses": None,
    "SecondaryIPv6Addresses": None,
}


def inspect_container(
    record: ContainerRecord,
    engine: Engine,
    real_root: str,
    graph_driver: dict[str, object] | None,
    log_path: str,
    *,
    reloaded: bool,
    find: Find | None = None,
    default_ulimits: JsonObject | None = None,
) -> dict[str, object]:
    """The object that ``docker inspect`` prints for one container.

    Args:
        record: the container.
        engine: what is known of the daemon that wrote it; the fields differ by version.
        real_root: path of the data root on its host.
        graph_driver: name and data of its storage; None in containerd's store.
        log_path: where its log lies, when the record does not say so.
        reloaded: whether the daemon was restarted since the container was made, and so read its record again.
        find: finds the containers it is linked to; None where no other container is known.
        default_ulimits: the daemon's own, which it shows of every container that has no other of that name.
    """
    config, state = record.config, record.config.object("State")
    answer: dict[str, object] = {"Id": record.id}
    for key in _PASSED_ON:
        if key in config:
            answer[key] = config.get(key)
    answer["LogPath"] = config.text("LogPath") or log_path
    system = config.text("OS") or config.object("ImagePlatform").text("os") or config.text("Platform")
    if system or engine.at_least(17, 12):  # a record of an older release is read as one of the host's system
        answer["Platform"] = system or "linux"
    answer["State"] = _state(state)
    answer["ExecIDs"] = None
    host_config: dict[str, object] = dict(record.host_config.raw)
    if "Links" in host_config:
        host_config["Links"] = shown_links(record, find, reloaded=reloaded)
    if host_config and default_ulimits is not None and default_ulimits.raw:
        host_config["Ulimits"] = [*_ulimits(record.host_config, default_ulimits)] or host_config.get("Ulimits")
    answer["HostConfig"] = host_config
    answer["Mounts"] = _mounts(config, real_root, engine)
    answer["Config"] = config.object("Config").raw
    answer["NetworkSettings"] = _network_settings(config, engine, reloaded)
    if graph_driver is not None:
        answer["GraphDriver"] = graph_driver
    else:
        answer["Storage"] = {"RootFS": {"Snapshot": {"Name": config.text("Driver")}}}
    if config.get("ImageManifest") is not None:
        manifest = config.object("ImageManifest").raw
        platform = config.object("ImagePlatform").raw
        answer["ImageManifestDescriptor"] = manifest | ({"platform": platform} if platform else {})
    return answer


def _ulimits(host_config: JsonObject, defaults: JsonObject) -> Iterator[Mapping[str, object]]:
    own = [limit.raw for limit in host_config.objects("Ulimits")]
    yield from own
    named = {limit.get("Name") for limit in own}
    yield from (defaults.object(name).raw for name in defaults.raw if name not in named and defaults.object(name).raw)


def _state(state: JsonObject) -> dict[str, object]:
    shown: dict[str, object] = {"Status": state_of(state)[0].value}
    shown |= {key: state.get(key) for key in _STATE if key in state}
    if state.get("Health") is not None:
        shown["Health"] = state.get("Health")
    return shown


def _mounts(config: JsonObject, real_root: str, engine: Engine) -> list[dict[str, object]]:
    points = config.object("MountPoints")
    shown = []
    for destination in points.raw:
        point = points.object(destination)
        mount: dict[str, object] = {
            "Type": mount_type(point),
            "Name": point.text("Name"),
            "Source": point.text("Source") or _volume_path(point, real_root),
            "Destination": point.text("Destination") or destination,
            "Driver": point.text("Driver"),
            "Mode": point.text("Relabel"),
            "RW": point.flag("RW"),
            "Propagation": point.text("Propagation"),
        }
        if not engine.at_least(1, 13):
            del mount["Type"]
        shown.append({key: value for key, value in mount.items() if value != "" or key not in ("Name", "Driver")})
    return shown


def _volume_path(point: JsonObject, real_root: str) -> str:
    """Where a volume lies that was never mounted, so that its path was not written down."""
    local = point.text("Name") and point.text("Driver") == "local"
    return f"{real_root}/volumes/{point.text('Name')}/_data" if local else ""


def _network_settings(config: JsonObject, engine: Engine, reloaded: bool) -> dict[str, object]:
    settings, state = config.object("NetworkSettings"), config.object("State")
    running = state.flag("Running")
    # A start that failed is undone in memory only; from 27 on a restarted daemon does so with all that do not run.
    never_ran = parse_time(state.text("StartedAt"))[1] is None
    undone = not running and (engine.at_least(27) or (never_ran and not reloaded))
    stored = settings.object("Networks")
    networks: dict[str, dict[str, object]] = {}
    for name in stored.raw:
        entry: dict[str, object] = {k: v for k, v in stored.object(name).raw.items() if k not in _NOT_SHOWN}
        if undone:
            entry |= {key: value for key, value in _RELEASED.items() if key in entry}
        networks[name] = entry
    forgotten = not running and engine.at_least(27)
    shown: dict[str, object] = {
        "SandboxID": "" if forgotten else settings.text("SandboxID"),
        "SandboxKey": "" if forgotten else settings.text("SandboxKey"),
        "Ports": {} if undone else settings.get("Ports") or {},
        "Networks": networks,
    }
    if not engine.at_least(29):
        shown |= {key: settings.get(key) if key in settings else value for key, value in _OLD_FIELDS.items()}
        shown |= _default_network(networks)
    return shown


def _default_network(networks: dict[str, dict[str, object]]) -> dict[str, object]:
    """The settings of the default network once more at the top, as every version before 29 shows them."""
    default = networks.get("bridge", {})
    return {key: default.get(key, value) for key, value in _RELEASED.items()}
