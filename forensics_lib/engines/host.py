"""What a host tells around its containers: which it was, who could use the engine, what was typed and logged."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from forensics_lib.engines.findings import mask
from forensics_lib.errors import ForensicsError
from forensics_lib.formats.jsondoc import JsonObject
from forensics_lib.formats.log_record import split_lines
from forensics_lib.model import Origin, utc_from_ns
from forensics_lib.sources.decompress import Limits, decompress, sniff
from forensics_lib.trees.base import Node, NodeKind
from forensics_lib.trees.documents import DocumentReader

__all__ = ["HostFact", "host_facts"]

_COMMAND = re.compile(
    rb"\b(docker|dockerd|docker-compose|podman|buildah|skopeo|nerdctl|ctr|crictl|kubectl|runc|containerd)\b"
)
_DAEMON = re.compile(rb"\b(dockerd|containerd|containerd-shim[\w-]*|docker|podman|kubelet|runc)(\[\d+\])?:")
_AUDIT = re.compile(rb'"(?:/usr/(?:local/)?s?bin/)?(?:docker|dockerd|containerd|containerd-shim[\w-]*|runc|podman)"')
_HISTORIES = (
    ".bash_history",
    ".zsh_history",
    ".ash_history",
    ".sh_history",
    ".history",
    ".local/share/fish/fish_history",
)
_BASH_TIME = re.compile(rb"#(\d{9,11})$")
_ZSH_LINE = re.compile(rb": (\d{9,11}):\d+;(.*)$", re.DOTALL)
_LOGS = re.compile(r"(syslog|messages|daemon\.log|docker\.log|user\.log)([.-].*)?$")
_MAX_LINES = 100_000
_MAX_LINE = 1 << 20


@dataclass(frozen=True, slots=True)
class HostFact:
    """One thing that a host's files tell.

    Attributes:
        kind: ``hostname``, ``os``, ``kernel``, ``time zone``, ``machine-id``, ``user``, ``docker group``,
            ``registry login``, ``shell history``, ``log`` or ``audit``.
        name: whose it is: a user, a registry, a file.
        value: what it says; passwords masked.
        time_ns: when, nanoseconds since 1970; None where it is not recorded.
        origin: the file, and the byte where a line starts.
    """

    kind: str
    name: str
    value: str
    time_ns: int | None
    origin: Origin

    __table_columns__ = ("kind", "name", "value", "time", "origin")

    @property
    def time(self) -> datetime | None:
        """When (aware UTC)."""
        return utc_from_ns(self.time_ns)


def host_facts(reader: DocumentReader, limits: Limits) -> Iterator[HostFact]:
    """Everything of a host's file system that belongs to work with containers; nothing where it is no host's."""
    yield from _identity(reader)
    homes = list(_users(reader))
    for user, home in homes:
        yield from _logins(reader, user, home)
    for user, home in homes:
        for name in _HISTORIES:
            yield from _history(reader, user, f"{home}/{name}", limits)
    yield from _logs(reader, limits)


def _identity(reader: DocumentReader) -> Iterator[HostFact]:
    for kind, path in (
        ("hostname", "/etc/hostname"),
        ("machine-id", "/etc/machine-id"),
        ("time zone", "/etc/timezone"),
    ):
        node = reader.find(path)
        text = reader.text(path) if node is not None else None
        if node is not None and text:
            yield HostFact(kind, "", text.splitlines()[0], None, _at(node))
    if "/etc/localtime" in reader.tree:
        node = reader.tree.node("/etc/localtime")
        if node.target and "zoneinfo/" in node.target:
            yield HostFact("time zone", "", node.target.partition("zoneinfo/")[2], None, _at(node))
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        node = reader.find(path)
        found = re.search(r'^PRETTY_NAME="?([^"\n]*)', reader.text(path) or "", re.MULTILINE)
        if node is not None and found:
            yield HostFact("os", "", found[1], None, _at(node))
            break
    for folder in ("/lib/modules", "/usr/lib/modules"):
        kernels = [HostFact("kernel", "", node.name, node.mtime_ns, _at(node)) for node in reader.folder(folder)]
        yield from kernels
        if kernels:
            break
    yield from _accounts(reader)


def _accounts(reader: DocumentReader) -> Iterator[HostFact]:
    passwd, group = reader.find("/etc/passwd"), reader.find("/etc/group")
    for line in (reader.text("/etc/passwd") or "").splitlines():
        parts = line.split(":")
        if passwd is not None and len(parts) == 7 and not parts[6].endswith(("nologin", "false", "sync")):
            yield HostFact("user", parts[0], f"uid {parts[2]}, home {parts[5]}, shell {parts[6]}", None, _at(passwd))
    for line in (reader.text("/etc/group") or "").splitlines():
        parts = line.split(":")
        if group is not None and len(parts) == 4 and parts[0] == "docker":
            for member in parts[3].split(","):
                if member:
                    yield HostFact("docker group", member, "may use the daemon, and so be root", None, _at(group))


def _users(reader: DocumentReader) -> Iterator[tuple[str, str]]:
    """(user, home) of everybody with a folder."""
    yield "root", "/root"
    for node in reader.folder("/home"):
        if node.kind is NodeKind.DIR:
            yield node.name, node.path


def _logins(reader: DocumentReader, user: str, home: str) -> Iterator[HostFact]:
    """Registry logins of ``.docker/config.json`` and of Podman's ``auth.json``; passwords masked."""
    for path in (f"{home}/.docker/config.json", f"{home}/.config/containers/auth.json"):
        node = reader.find(path)
        document = reader.parse(node) if node is not None else None
        if node is None or document is None:
            continue
        auths = document.object.object("auths")
        helper = document.object.text("credsStore")
        for registry in auths.raw:
            value = _login(auths.object(registry)) or (
                f"kept by the helper {helper}" if helper else "no password stored"
            )
            yield HostFact("registry login", f"{user} at {registry}", value, node.mtime_ns, _at(node))


def _login(entry: JsonObject) -> str:
    try:
        name, _, password = (
            base64.b64decode(entry.text("auth"), validate=True).decode("utf-8", "replace").partition(":")
        )
    except (binascii.Error, ValueError):
        return "unreadable"
    name = name or entry.text("username")
    password = password or entry.text("password") or entry.text("identitytoken")
    return f"{name}, password {mask(password)}" if name or password else ""


def _history(reader: DocumentReader, user: str, path: str, limits: Limits) -> Iterator[HostFact]:
    """Commands about containers that a user typed, with their time where the shell noted it."""
    node = reader.find(path)
    if node is None:
        return
    time: int | None = None
    for offset, line in _lines(reader, node, limits):
        stamp = _BASH_TIME.match(line)
        if stamp:
            time = int(stamp[1]) * 10**9
            continue
        dated = _ZSH_LINE.match(line)
        if dated:
            time, line = int(dated[1]) * 10**9, dated[2]
        if _COMMAND.search(line):
            origin = _at(node).to("line", offset)
            yield HostFact("shell history", user, line.decode("utf-8", "backslashreplace"), time, origin)
        time = None


def _logs(reader: DocumentReader, limits: Limits) -> Iterator[HostFact]:
    """Lines of the engines in the system's logs and in the audit log."""
    for node in reader.folder("/var/log"):
        if node.kind is NodeKind.FILE and _LOGS.match(node.name):
            yield from _matching(reader, node, "log", _DAEMON, limits)
    for node in reader.folder("/var/log/audit"):
        if node.kind is NodeKind.FILE:
            yield from _matching(reader, node, "audit", _AUDIT, limits)


def _matching(
    reader: DocumentReader, node: Node, kind: str, pattern: re.Pattern[bytes], limits: Limits
) -> Iterator[HostFact]:
    count = 0
    for offset, line in _lines(reader, node, limits):
        if pattern.search(line):
            count += 1
            if count > _MAX_LINES:
                reader.problems.add(_at(node), f"more than {_MAX_LINES} lines of the engines; no more are listed")
                return
            stamp = re.search(rb"audit\((\d{9,11})\.(\d{3})", line)
            time = int(stamp[1]) * 10**9 + int(stamp[2]) * 10**6 if stamp else None
            yield HostFact(
                kind, node.name, line.decode("utf-8", "backslashreplace"), time, _at(node).to("line", offset)
            )


def _lines(reader: DocumentReader, node: Node, limits: Limits) -> Iterator[tuple[int, bytes]]:
    """Lines of a file, also a compressed one, with the byte where each starts."""
    try:
        source = node.source()
        blocks = decompress(source.blocks(), sniff(source.read_at(0, 16)), _at(node), limits)
        for offset, line, _ in split_lines(blocks, _MAX_LINE):
            yield offset, line.rstrip(b"\r")
    except ForensicsError as error:
        reader.problems.add(_at(node), error)


def _at(node: Node) -> Origin:
    return node.origin.to(node.path.lstrip("/"))
