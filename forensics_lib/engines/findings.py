"""What an examiner should look at first in a container's configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forensics_lib.model import Origin

if TYPE_CHECKING:
    from forensics_lib.engines.container_parts import ContainerParts

__all__ = ["Finding", "findings_of", "is_secret", "mask", "masked_text"]

_SECRET_NAME = re.compile(r"pass(w(or)?d|phrase)?|secret|token|api_?key|private_?key|credential|auth|access_?key", re.I)
_SECRET_VALUE = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|gh[pousr]_[A-Za-z0-9]{30,}|xox[abp]-")
_CREDENTIALS_IN_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]+:([^/\s@]+)@", re.I)
_URL_PASSWORD = re.compile(r"([a-z][a-z0-9+.-]{0,15}://[^/\s:@]{1,255}:)([^/\s@]{1,1024})(?=@)", re.I)
_LOGIN_PASSWORD = re.compile(r"(?<!\S)((?:--password|--token|-p)(?:=|\s+)?)([^\s=]\S*)")
_SETTING = re.compile(r"""(?<![\w.-])([A-Za-z_][\w.-]{0,63})=(?=([^\s"']+|["']))""")
_QUOTES = ("'", '"')
_STRONG = {
    "ALL",
    "SYS_ADMIN",
    "SYS_PTRACE",
    "SYS_MODULE",
    "SYS_RAWIO",
    "DAC_READ_SEARCH",
    "NET_ADMIN",
    "BPF",
    "SYS_BOOT",
}
_SENSITIVE = (
    "/etc",
    "/root",
    "/home",
    "/proc",
    "/sys",
    "/dev",
    "/boot",
    "/var/lib",
    "/var/run",
    "/run",
    "/usr",
    "/bin",
)
_SOCKETS = ("docker.sock", "containerd.sock", "crio.sock", "podman.sock")
_NAMESPACES = (("network", "network_mode"), ("pid", "pid_mode"), ("ipc", "ipc_mode"), ("uts", "uts_mode"))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth a look.

    Attributes:
        kind: short name, e.g. ``privileged`` or ``socket-mounted``.
        detail: what exactly; secrets masked.
        origin: the record that says so.
    """

    kind: str
    detail: str
    origin: Origin


def findings_of(parts: ContainerParts, config: Origin, host_config: Origin) -> Iterator[Finding]:
    """Findings from a container's settings, the gravest first.

    Args:
        parts: the container.
        config: record that holds its command, environment and mounts.
        host_config: record that holds its rights.
    """
    if parts.privileged:
        yield Finding("privileged", "has all rights of the host's root", host_config)
    for mount in parts.mounts:
        yield from _mount_findings(mount.type, mount.source, mount.destination, mount.read_only, config)
    for name, attribute in _NAMESPACES:
        if getattr(parts, attribute) == "host":
            yield Finding("host-namespace", f"shares the host's {name} namespace", host_config)
    if parts.userns_mode == "host":
        yield Finding("host-namespace", "is outside of the engine's user namespace", host_config)
    for capability in parts.cap_add:
        name = capability.upper().removeprefix("CAP_")
        strength = "strong capability" if name in _STRONG else "capability"
        yield Finding("capability-added", f"{strength} {capability}", host_config)
    for option in parts.security_opt:
        name, _, value = option.replace(":", "=", 1).partition("=")
        if value in ("unconfined", "disable", "disabled"):
            yield Finding("protection-disabled", f"{name} is {value}", host_config)
    for device in parts.devices:
        yield Finding("device", device, host_config)
    for variable in parts.env:
        name, _, value = variable.partition("=")
        if is_secret(name, value):
            yield Finding("secret-in-environment", f"{name}={mask(value)}", config)
    for word in (parts.path, *parts.args):
        if is_secret("", word):
            yield Finding("secret-in-command", mask(word), config)


def is_secret(name: str, value: str) -> bool:
    """Whether a setting looks like a password, key or token, by its name or by its value."""
    named = _SECRET_NAME.search(name) is not None
    return bool(value) and (named or bool(_SECRET_VALUE.search(value)) or bool(_CREDENTIALS_IN_URL.search(value)))


def mask(secret: str) -> str:
    """Enough of a secret to recognise it, not enough to use it."""
    return "*" * 8 if len(secret) < 8 else f"{secret[:2]}{'*' * 6} ({len(secret)} characters)"


def masked_text(text: str) -> str:
    """A command or setting with the secrets in it masked: passwords in addresses and of logins, secret variables."""
    parts, done = [], 0
    for found in _SETTING.finditer(text):
        start, end = found.span(2)
        before = text[max(found.start() - 1, 0) : found.start()]
        quote = before if before in _QUOTES else text[start : start + 1]
        if quote in _QUOTES:  # the value ends with the quote that lies before the name or the value
            start += quote != before
            end = text.find(quote, start) if text.find(quote, start) >= 0 else len(text)
        value = text[start:end]
        if start >= done and is_secret(found[1], value) and not _URL_PASSWORD.search(value):
            parts += [text[done:start], mask(value)]
            done = end
    text = "".join((*parts, text[done:]))
    if " login" in text:
        text = _LOGIN_PASSWORD.sub(lambda found: found[1] + mask(found[2]), text)
    return _URL_PASSWORD.sub(lambda found: found[1] + mask(found[2]), text)


def _mount_findings(kind: str, source: str, destination: str, read_only: bool, origin: Origin) -> Iterator[Finding]:
    if kind != "bind" or not source:
        return
    access = "read-only" if read_only else "read and write"
    what = f"{source} at {destination}, {access}"
    if source == "/":
        yield Finding("host-root-mounted", what, origin)
    elif source.endswith(_SOCKETS) or source in ("/var/run", "/run"):
        yield Finding("socket-mounted", what, origin)
    elif any(source == folder or source.startswith(f"{folder}/") for folder in _SENSITIVE):
        yield Finding("host-path-mounted", what, origin)
