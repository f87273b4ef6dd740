"""The accounts of a host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from forensics_lib.trees.base import NodeKind
from forensics_lib.trees.documents import DocumentReader

__all__ = ["User", "users_of"]

_SIGNS = (".bash_history", ".zsh_history", ".bashrc", ".profile", ".docker")
"""What a home has."""


@dataclass(frozen=True, slots=True)
class User:
    """One account, or one home without an account.

    Attributes:
        name: its name; that of the folder where there is no account.
        uid: its number; empty where it is not known.
        gid: number of its first group.
        home: path of its home.
        shell: its shell.
    """

    name: str
    uid: str
    gid: str
    home: str
    shell: str

    @property
    def may_log_in(self) -> bool:
        """Whether it has a shell."""
        return bool(self.shell) and not self.shell.endswith(("nologin", "false", "sync", "shutdown", "halt"))


def users_of(reader: DocumentReader) -> Iterator[User]:
    """The accounts of ``/etc/passwd``, each home once, then homes below ``/home`` that no account names.

    A file system that is mounted at ``/home`` has the homes at its top.
    """
    homes = {"/", ""}
    for line in (reader.text("/etc/passwd") or "").splitlines():
        parts = line.split(":")
        if len(parts) == 7:
            yield User(parts[0], parts[2], parts[3], "" if parts[5] in homes else parts[5], parts[6])
            homes.add(parts[5])
    folders = [("root", "/root"), *((n.name, n.path) for n in reader.folder("/home") if n.kind is NodeKind.DIR)]
    if "/etc" not in reader.tree:
        at_top = [node for node in reader.folder("/") if node.kind is NodeKind.DIR]
        folders += [(n.name, n.path) for n in at_top if any(f"{n.path}/{sign}" in reader.tree for sign in _SIGNS)]
    for name, path in folders:
        if path not in homes:
            yield User(name, "", "", path, "")
