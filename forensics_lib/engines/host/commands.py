"""Commands about containers: typed into a shell, given to sudo, or started by cron."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from forensics_lib.engines.findings import masked_text
from forensics_lib.engines.host.daemon_log import timed_lines
from forensics_lib.engines.host.files import LOG_FOLDERS, HostFiles, place_of
from forensics_lib.engines.host.users import users_of
from forensics_lib.engines.host.zone import zones_of
from forensics_lib.engines.journals import Journals
from forensics_lib.formats.shell_history import read_history
from forensics_lib.model import Origin, utc_from_ns

__all__ = ["ABOUT_CONTAINERS", "HostCommand", "host_commands"]

ABOUT_CONTAINERS = re.compile(
    rb"\b(docker|dockerd|docker-compose|podman|podman-compose|buildah|skopeo|nerdctl|ctr|crictl|kubectl|k3s|helm|"
    rb"runc|crun|containerd|kubeadm|buildctl|umoci|crane|lazydocker)\b|docker\.sock|containerd\.sock|/var/lib/docker"
)
"""Fits a command that is about containers."""

_HISTORIES = (
    (".bash_history", "bash"),
    (".zsh_history", "zsh"),
    (".zhistory", "zsh"),
    (".histfile", "zsh"),
    (".ash_history", "sh"),
    (".sh_history", "sh"),
    (".history", "sh"),
    (".local/share/fish/fish_history", "fish"),
)
_LOGS = re.compile(r"auth\.log|secure|syslog|messages|cron(\.log)?|sudo\.log")
_SUDO = re.compile(rb" *(\S+) : (?:.*? ; )?TTY=.*?; ?COMMAND=(.*)", re.DOTALL)
_CRON = re.compile(rb"\((\S+)\) CMD \((.*)\)", re.DOTALL)
_LOGGED = re.compile(rb"COMMAND=|CMD \(")
_CRON_PROGRAMS = ("CRON", "cron", "crond", "/usr/sbin/cron")


@dataclass(frozen=True, slots=True)
class HostCommand:
    """One command.

    Attributes:
        time_ns: when, nanoseconds since 1970; None where it was not noted.
        assumed: what of the time is assumed; see `DaemonLogLine`.
        user: whose history it stands in, who called sudo, or as whom cron ran it.
        command: the command as it was given; `masked` hides passwords.
        source: ``bash``, ``zsh``, ``fish``, ``sh``, ``sudo`` or ``cron``.
        origin: the line or the entry.
    """

    time_ns: int | None
    assumed: str
    user: str
    command: str
    source: str
    origin: Origin

    __table_columns__ = ("time", "user", "masked", "source", "assumed", "time_ns", "origin")

    @property
    def time(self) -> datetime | None:
        """When (aware UTC)."""
        return utc_from_ns(self.time_ns)

    @property
    def masked(self) -> str:
        """The command with the secrets in it masked."""
        return masked_text(self.command)


def host_commands(hosts: Sequence[HostFiles], journals: Journals | None) -> Iterator[HostCommand]:
    """Commands about containers: of every user's history, then what sudo and cron logged, in files and journals."""
    zones = zones_of([host.reader for host in hosts])
    for host, (zone, is_known) in zip(hosts, zones, strict=True):
        for user in users_of(host.reader):
            for name, shell in _HISTORIES if user.home else ():
                yield from _history(host, user.name, f"{user.home}/{name}", shell)
        yield from _of_logs(host, zone, is_known)
    if journals is not None:
        yield from _of_journals(journals)


def _history(host: HostFiles, user: str, path: str, shell: str) -> Iterator[HostCommand]:
    node = host.reader.find(path)
    if node is None:
        return
    for typed in read_history(host.lines(node), shell):
        if ABOUT_CONTAINERS.search(typed.command):
            origin = place_of(node).to("line", typed.offset)
            yield HostCommand(typed.time_ns, "", user, _text(typed.command), shell, origin)


def _of_logs(host: HostFiles, zone: tzinfo, is_known: bool) -> Iterator[HostCommand]:
    for folder in LOG_FOLDERS:
        for node in host.logs(folder, _LOGS):
            for offset, _, parsed, time, assumed in timed_lines(
                host, node, zone, zone_is_known=is_known, wanted=_LOGGED
            ):
                found = _logged(parsed.program, parsed.message) if parsed is not None else None
                if found is not None:
                    yield HostCommand(time, assumed, *found, place_of(node).to("line", offset))


def _of_journals(journals: Journals) -> Iterator[HostCommand]:
    programs = frozenset(name.encode() for name in ("sudo", *_CRON_PROGRAMS))
    for entry in journals.entries({"SYSLOG_IDENTIFIER": programs.__contains__}):
        found = _logged(entry.text("SYSLOG_IDENTIFIER"), entry.get("MESSAGE") or b"")
        if found is not None:
            yield HostCommand(entry.time_ns, "", *found, entry.origin)


def _logged(program: str, message: bytes) -> tuple[str, str, str] | None:
    """(user, command, source) of what sudo or cron says of a command about containers."""
    is_sudo = program == "sudo"
    if not is_sudo and program not in _CRON_PROGRAMS:
        return None
    found = (_SUDO if is_sudo else _CRON).fullmatch(message)
    if found is None or not ABOUT_CONTAINERS.search(found[2]):
        return None
    return _text(found[1]), _text(found[2]), "sudo" if is_sudo else "cron"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
