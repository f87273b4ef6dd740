"""What a host's files tell around its containers: which host it was, who could use the engine, how that was set up."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from forensics_lib.engines.findings import mask
from forensics_lib.engines.host.fact import HostFact, lines_about, present
from forensics_lib.engines.host.files import HostFiles, place_of
from forensics_lib.engines.host.logins import login_facts
from forensics_lib.engines.host.packages import package_facts
from forensics_lib.engines.host.settings import cron_facts, flat, setting_facts, unit_facts
from forensics_lib.engines.host.users import User, users_of
from forensics_lib.engines.host.zone import zone_name
from forensics_lib.formats.jsondoc import JsonObject
from forensics_lib.trees.base import NodeKind

__all__ = ["host_facts"]


def host_facts(host: HostFiles) -> Iterator[HostFact]:
    """Everything of a host's file system that belongs to work with containers; nothing where it is no host's."""
    users = list(users_of(host.reader))
    yield from _identity(host)
    yield from package_facts(host)
    yield from _accounts(host, users)
    for user in users:
        if user.home:
            yield from _client(host, user)
    yield from setting_facts(host, users)
    yield from unit_facts(host, users)
    yield from cron_facts(host)
    yield from login_facts(host, users)


def _identity(host: HostFiles) -> Iterator[HostFact]:
    reader = host.reader
    for kind, path in (("hostname", "/etc/hostname"), ("machine-id", "/etc/machine-id")):
        node = reader.find(path)
        text = reader.text(path) if node is not None else None
        if node is not None and text:
            yield HostFact(kind, "", text.splitlines()[0], None, place_of(node))
    if name := zone_name(reader):
        path = "/etc/localtime" if "/etc/localtime" in reader.tree else "/etc/timezone"
        yield HostFact("time zone", "", name, None, place_of(reader.tree.node(path)))
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        node = reader.find(path)
        found = re.search(r'^PRETTY_NAME="?([^"\n]*)', reader.text(path) or "", re.MULTILINE)
        if node is not None and found:
            yield HostFact("os", "", found[1], None, place_of(node))
            break
    for folder in ("/lib/modules", "/usr/lib/modules"):
        kernels = [HostFact("kernel", "", node.name, node.mtime_ns, place_of(node)) for node in reader.folder(folder)]
        yield from kernels
        if kernels:
            break


def _accounts(host: HostFiles, users: list[User]) -> Iterator[HostFact]:
    reader = host.reader
    passwd, group = reader.find("/etc/passwd"), reader.find("/etc/group")
    for user in users if passwd is not None else ():
        if user.may_log_in and passwd is not None:
            value = f"uid {user.uid}, home {user.home}, shell {user.shell}"
            yield HostFact("user", user.name, value, None, place_of(passwd))
    for line in (reader.text("/etc/group") or "").splitlines():
        parts = line.split(":")
        if group is not None and len(parts) == 4 and parts[0] == "docker":
            by_first_group = [user.name for user in users if user.gid == parts[2]]
            for member in dict.fromkeys((*parts[3].split(","), *by_first_group)):
                if member:
                    value = "may use the daemon, and so be root"
                    yield HostFact("docker group", member, value, None, place_of(group))
    for node in (*present(host, "/etc/sudoers"), *reader.folder("/etc/sudoers.d")):
        if node.kind is NodeKind.FILE:
            yield from lines_about(host, "sudo rule", node.name, node)


def _client(host: HostFiles, user: User) -> Iterator[HostFact]:
    """Logins of a user's clients at registries, their proxies, and the folders of the builds they asked for."""
    reader = host.reader
    places = (
        f"{user.home}/.docker/config.json",
        f"{user.home}/.config/containers/auth.json",
        f"{user.home}/.dockercfg",
    )
    for path in places:
        node = reader.find(path)
        document = reader.parse(node) if node is not None else None
        if node is None or document is None:
            continue
        auths = document.object if path.endswith("cfg") else document.object.object("auths")
        helper = document.object.text("credsStore")
        helpers = document.object.mapping("credHelpers")
        for registry in dict.fromkeys((*auths.raw, *helpers)):
            kept = helpers.get(registry) or helper
            value = _login(auths.object(registry)) or (f"kept by the helper {kept}" if kept else "no password stored")
            yield HostFact("registry login", f"{user.name} at {registry}", value, node.mtime_ns, place_of(node))
        for key in ("proxies", "HttpHeaders", "currentContext"):
            for name, value in flat(key, document.object.get(key)):
                yield HostFact("client setting", f"{user.name}: {name}", value, node.mtime_ns, place_of(node))
    refs = f"{user.home}/.docker/buildx/refs"
    for builder in reader.folder(refs):
        for part in reader.folder(builder.path):
            for node in reader.folder(part.path):
                document = reader.parse(node) if node.kind is NodeKind.FILE else None
                if document is not None and (folder := document.object.text("LocalPath")):
                    file = document.object.text("DockerfilePath")
                    value = f"{folder}, {file}" if file else folder
                    yield HostFact("build folder", f"{user.name}: {node.name}", value, node.mtime_ns, place_of(node))


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
