"""How the engines of a host were set up and started: settings, units of systemd, quadlets, cron."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from forensics_lib.engines.findings import is_secret, mask, masked_text
from forensics_lib.engines.host.commands import ABOUT_CONTAINERS
from forensics_lib.engines.host.fact import HostFact, fact_at, lines_about, present, text_of
from forensics_lib.engines.host.files import HostFiles, place_of
from forensics_lib.engines.host.users import User
from forensics_lib.formats.jsondoc import JsonValue
from forensics_lib.model import Origin
from forensics_lib.trees.base import Node, NodeKind

__all__ = ["cron_facts", "flat", "setting_facts", "unit_facts"]

_ENGINE_UNIT = re.compile(
    r"(docker|containerd|podman|crio|cri-o|kubelet|buildkit|k3s)[\w@.-]*\.(service|socket|timer)(\.d)?"
)
_UNIT_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
_UNIT_SETTING = re.compile(r"(Exec\w+|Environment|EnvironmentFile|User|ListenStream)=(.*)")
_SETTING_FILES = ("/etc/default/docker", "/etc/sysconfig/docker", "/etc/sysconfig/docker-storage", "/etc/conf.d/docker")
_QUADLETS = ("/etc/containers/systemd", "/usr/share/containers/systemd")
_CRON_FILES = ("/etc/crontab", "/etc/anacrontab")
_CRON_FOLDERS = (
    "/etc/cron.d",
    "/var/spool/cron",
    "/var/spool/cron/crontabs",
    "/etc/cron.hourly",
    "/etc/cron.daily",
    "/etc/cron.weekly",
    "/etc/cron.monthly",
)
_DAEMON_SETTINGS = ("/etc/docker/daemon.json", "/var/snap/docker/current/config/daemon.json")
_NO_SECRETS = ("authorization-plugins",)
_MAX_DEPTH = 8


def setting_facts(host: HostFiles, users: Sequence[User]) -> Iterator[HostFact]:
    """The settings of the daemons, also of those that users run; passwords of proxies masked."""
    homes = (f"{user.home}/.config/docker/daemon.json" for user in users if user.home)
    for path in (*_DAEMON_SETTINGS, *homes):
        node = host.reader.find(path)
        document = host.reader.parse(node) if node is not None else None
        for name in document.object.raw if document is not None else ():
            for key, value in flat(name, document.object.get(name) if document is not None else None):
                if node is not None:
                    yield HostFact("daemon setting", key, value, node.mtime_ns, place_of(node))
    for path in _SETTING_FILES:
        for node in present(host, path):
            for offset, line in host.lines(node):
                if line.strip() and not line.lstrip().startswith(b"#"):
                    yield fact_at("daemon setting", node.name, masked_text(text_of(line)), node, offset)


def flat(name: str, value: JsonValue, depth: int = 0) -> Iterator[tuple[str, str]]:
    """The single settings of a JSON value, secrets masked."""
    if isinstance(value, dict) and depth < _MAX_DEPTH:
        for key, inner in value.items():
            yield from flat(f"{name}.{key}", inner, depth + 1)
    elif isinstance(value, list) and depth < _MAX_DEPTH:
        for inner in value:
            yield from flat(name, inner, depth + 1)
    elif value is not None:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        is_masked = is_secret(name, text) and "://" not in text and not name.endswith(_NO_SECRETS)
        yield name, mask(text) if is_masked else masked_text(text)


def unit_facts(host: HostFiles, users: Sequence[User]) -> Iterator[HostFact]:
    """How systemd starts the engines, and which units of others start containers; quadlets of Podman."""
    seen: set[Origin] = set()
    folders = [(folder, False) for folder in _UNIT_FOLDERS]
    folders += [(f"{user.home}/.config/systemd/user", False) for user in users if user.home]
    folders += [(folder, True) for folder in _QUADLETS]
    folders += [(f"{user.home}/.config/containers/systemd", True) for user in users if user.home]
    for folder, is_quadlet in folders:
        for node in host.reader.folder(folder):
            is_engine = is_quadlet or _ENGINE_UNIT.fullmatch(node.name) is not None
            files = host.reader.folder(node.path) if node.kind is NodeKind.DIR and node.name.endswith(".d") else (node,)
            for file in files:
                if file.kind is NodeKind.FILE and place_of(file) not in seen:
                    seen.add(place_of(file))
                    yield from _unit(host, file, node.name, is_engine, is_quadlet)


def _unit(host: HostFiles, file: Node, unit: str, is_engine: bool, is_quadlet: bool) -> Iterator[HostFact]:
    for offset, line in host.lines(file):
        text = text_of(line).strip()
        setting = _UNIT_SETTING.fullmatch(text)
        if is_quadlet and text and not text.startswith(("#", ";", "[")):
            yield fact_at("unit setting", unit, masked_text(text), file, offset)
        elif setting is not None and (is_engine or ABOUT_CONTAINERS.search(line)):
            yield fact_at(
                "unit setting", f"{unit.removesuffix('.d')}: {setting[1]}", masked_text(setting[2]), file, offset
            )


def cron_facts(host: HostFiles) -> Iterator[HostFact]:
    """The lines of cron's tables and scripts that are about containers."""
    nodes = [node for path in _CRON_FILES for node in present(host, path)]
    nodes += [node for folder in _CRON_FOLDERS for node in host.reader.folder(folder) if node.kind is NodeKind.FILE]
    for node in nodes:
        yield from lines_about(host, "cron", node.name, node)
