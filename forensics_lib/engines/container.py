"""Containers, as every engine describes them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from forensics_lib._cells import shown
from forensics_lib.engines.container_parts import ContainerParts, ContainerState, Endpoint, Mount, Port
from forensics_lib.engines.fact import Fact
from forensics_lib.engines.findings import Finding
from forensics_lib.engines.logs import LogRecord, Pattern
from forensics_lib.model import Origin, utc_from_ns
from forensics_lib.table import Table
from forensics_lib.trees.base import Tree
from forensics_lib.trees.extract import Extracted
from forensics_lib.trees.layered import Change
from forensics_lib.trees.outlet import Outlet

if TYPE_CHECKING:
    from forensics_lib.engines.save import SavedContainer, Saving

__all__ = ["Container", "ContainerBackend"]


class ContainerBackend(Protocol):
    """What only the engine can tell of a container."""

    @property
    def outlet(self) -> Outlet:
        """The way for copies out of the evidence."""
        ...

    def inspect(self) -> dict[str, object]:
        """As the engine shows it."""
        ...

    def tree(self) -> Tree:
        """Its files."""
        ...

    def diff(self) -> Iterator[Change]:
        """What it changed."""
        ...

    def hidden_changes(self) -> Iterator[Change]:
        """What the engine does not show of that."""
        ...

    def logs(self, pattern: Pattern | None, since: datetime | None, until: datetime | None) -> Iterator[LogRecord]:
        """What it wrote, filtered."""
        ...

    def findings(self) -> Iterator[Finding]:
        """What to look at first."""
        ...

    def mount(self, destination: str) -> Tree:
        """What was mounted at a path."""
        ...

    def sizes(self) -> tuple[int | None, int | None]:
        """Bytes it wrote, and bytes of all its files; None for what cannot be told."""
        ...

    def saving(self) -> Saving:
        """What goes into an image archive of it."""
        ...


class Container:
    """A container as its engine last wrote it down."""

    __table_columns__ = ("id", "name", "image", "state", "created", "command", "origin")

    def __init__(self, parts: ContainerParts, backend: ContainerBackend) -> None:
        """Combine what a reader found; files and logs are read when they are asked for."""
        self._parts = parts
        self._backend = backend

    def __repr__(self) -> str:
        """Name, id and state."""
        return shown(f"Container({self.name}, {self.id[:12]}, {self.state})", 300)

    @property
    def id(self) -> str:
        """Full id."""
        return self._parts.id

    @property
    def name(self) -> str:
        """Name, without the leading slash Docker stores."""
        return self._parts.name

    @property
    def image(self) -> str:
        """Image by the name the user gave."""
        return self._parts.image

    @property
    def image_id(self) -> str:
        """Id of the image it was made from."""
        return self._parts.image_id

    @property
    def created(self) -> datetime | None:
        """When it was created (aware UTC)."""
        return utc_from_ns(self._parts.created_ns)

    @property
    def created_ns(self) -> int | None:
        """When it was created, nanoseconds since 1970."""
        return self._parts.created_ns

    @property
    def started(self) -> datetime | None:
        """When it was last started (aware UTC); None when it never was."""
        return utc_from_ns(self._parts.started_ns)

    @property
    def started_ns(self) -> int | None:
        """When it was last started, nanoseconds since 1970."""
        return self._parts.started_ns

    @property
    def finished(self) -> datetime | None:
        """When it last ended (aware UTC); None when it never did."""
        return utc_from_ns(self._parts.finished_ns)

    @property
    def finished_ns(self) -> int | None:
        """When it last ended, nanoseconds since 1970."""
        return self._parts.finished_ns

    @property
    def state(self) -> ContainerState:
        """State as it was written last; see `state_note` when that cannot be true any more."""
        return self._parts.state

    @property
    def state_note(self) -> str:
        """Why the state cannot be true any more; empty when it can."""
        return self._parts.state_note

    @property
    def exit_code(self) -> int | None:
        """Exit code of the last run; None when it never ran."""
        return self._parts.exit_code

    @property
    def pid(self) -> int:
        """Process id on the host, as written last; 0 when it was not running."""
        return self._parts.pid

    @property
    def error(self) -> str:
        """Why the engine could not start it; empty when it could."""
        return self._parts.error

    @property
    def command(self) -> tuple[str, ...]:
        """The program and its arguments."""
        return (self._parts.path, *self._parts.args) if self._parts.path else self._parts.args

    @property
    def env(self) -> tuple[str, ...]:
        """Environment, each ``NAME=value``."""
        return self._parts.env

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Labels as (name, value) pairs."""
        return self._parts.labels

    @property
    def working_dir(self) -> str:
        """Working directory of the program."""
        return self._parts.working_dir

    @property
    def user(self) -> str:
        """User the program ran as; empty for the image's default."""
        return self._parts.user

    @property
    def hostname(self) -> str:
        """Host name inside the container."""
        return self._parts.hostname

    @property
    def ports(self) -> tuple[Port, ...]:
        """Ports, published and merely exposed ones."""
        return self._parts.ports

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """What was mounted into it."""
        return self._parts.mounts

    @property
    def networks(self) -> tuple[Endpoint, ...]:
        """Its connections to networks, with the last addresses that were written down."""
        return self._parts.networks

    @property
    def restart_policy(self) -> str:
        """``no``, ``always``, ``unless-stopped`` or ``on-failure[:count]``."""
        return self._parts.restart_policy

    @property
    def restart_count(self) -> int:
        """How often the engine restarted it."""
        return self._parts.restart_count

    @property
    def log_driver(self) -> str:
        """Driver that kept its output."""
        return self._parts.log_driver

    @property
    def storage_driver(self) -> str:
        """Driver that kept its files."""
        return self._parts.storage_driver

    @property
    def privileged(self) -> bool:
        """Whether it ran with all rights of the host's root."""
        return self._parts.privileged

    @property
    def read_only(self) -> bool:
        """Whether its own file system was read-only."""
        return self._parts.read_only

    @property
    def auto_remove(self) -> bool:
        """Whether the engine was to remove it at its end."""
        return self._parts.auto_remove

    @property
    def capabilities_added(self) -> tuple[str, ...]:
        """Linux capabilities beyond the default ones."""
        return self._parts.cap_add

    @property
    def capabilities_dropped(self) -> tuple[str, ...]:
        """Linux capabilities taken away."""
        return self._parts.cap_drop

    @property
    def devices(self) -> tuple[str, ...]:
        """Devices of the host it could use, as ``host:container:permissions``."""
        return self._parts.devices

    @property
    def security_options(self) -> tuple[str, ...]:
        """Options for seccomp, AppArmor, SELinux and the like."""
        return self._parts.security_opt

    @property
    def namespaces(self) -> tuple[tuple[str, str], ...]:
        """Mode of each namespace, as (namespace, mode); an empty mode is the engine's default."""
        parts = self._parts
        return (
            ("network", parts.network_mode),
            ("pid", parts.pid_mode),
            ("ipc", parts.ipc_mode),
            ("uts", parts.uts_mode),
            ("user", parts.userns_mode),
            ("cgroup", parts.cgroupns_mode),
        )

    @property
    def other_names(self) -> tuple[str, ...]:
        """Names that other containers' links give it."""
        return self._parts.other_names

    @property
    def origin(self) -> Origin:
        """The record of the engine that describes it."""
        return self._parts.origin

    @property
    def findings(self) -> Table[Finding]:
        """What an examiner should look at first; secrets are masked."""
        return Table(Finding, self._backend.findings, name=f"findings in {self.name}")

    @property
    def facts(self) -> Table[Fact]:
        """What places other than its own record tell of a removed container, each with its source and how sure it is.

        Places that disagree give a row each. A container that is there has none: its record tells.
        """
        return Table(Fact, self._parts.facts, name=f"facts about {self.name or self.id[:12]}")

    def inspect(self) -> dict[str, object]:
        """The container as ``docker inspect`` shows it."""
        return self._backend.inspect()

    def diff(self) -> Table[Change]:
        """What it changed in its file system: equal to ``docker diff``."""
        return Table(Change, self._backend.diff, name=f"changes of {self.name}")

    def hidden_changes(self) -> Table[Change]:
        """What ``docker diff`` does not show: content changed behind an equal size and time, times, attributes."""
        return Table(Change, self._backend.hidden_changes, name=f"hidden changes of {self.name}")

    def logs(
        self,
        pattern: str | bytes | re.Pattern[str] | re.Pattern[bytes] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Table[LogRecord]:
        """What it wrote to its standard output and error, oldest first.

        Args:
            pattern: regular expression that a line has to contain.
            since: earliest time, inclusive.
            until: latest time, inclusive.
        """
        return Table(LogRecord, lambda: self._backend.logs(pattern, since, until), name=f"logs of {self.name}")

    def tree(self) -> Tree:
        """Its files as it saw them, volumes and bind mounts excepted: equal to ``docker export``.

        Raises:
            UnsupportedFormat: its storage driver keeps files where this evidence does not reach.
            DamagedData: the record of its files is missing.
        """
        return self._backend.tree()

    def mount(self, destination: str) -> Tree:
        """The files that it saw at a mount point: of a volume, a folder of the host or an image.

        A file that was mounted is a tree of its own: ``read("/")`` gives its content. Owners are those on the disk.

        Args:
            destination: the mount point, as `mounts` has it.

        Raises:
            PathNotFound: nothing was mounted there, it was kept in memory, or it is not in the evidence.
            UnsupportedFormat: a plugin kept the volume's files elsewhere.
        """
        return self._backend.mount(destination)

    @property
    def size_rw(self) -> int | None:
        """Bytes of the files that it wrote, as ``docker ps --size`` shows; None, with a problem, if out of reach."""
        return self._backend.sizes()[0]

    @property
    def size_root_fs(self) -> int | None:
        """Bytes of all its files, those of its image included; None where its layers are not all recorded."""
        return self._backend.sizes()[1]

    def extract(self, path: str, to: str | os.PathLike[str], *, symlinks: bool = False) -> Table[Extracted]:
        """Copy a file or folder of its file system out to the disk, now, with digests and entries in the custody.

        Args:
            path: what to copy.
            to: the folder that gets it; it must be empty or not exist.
            symlinks: make symbolic links too; see `trees.extract.extract`.

        Raises:
            PathNotFound: no such path.
            FileExistsError: the folder is not empty.
            ValueError: the folder lies inside the evidence.
        """
        return self._backend.outlet.extract(self.tree(), path, to, symlinks=symlinks)

    def save(self, path: str | os.PathLike[str], *, tag: str | None = None) -> SavedContainer:
        """Write it as an image archive, now: what ``docker commit`` and ``docker save`` would give, for other tools.

        The layers of its image have the digests they had; a last one holds what the container changed. Volumes and
        mounts are no part of it, nor is what the engine puts into every container. The same container always gives the
        same archive. What could not be written as it was becomes a problem.

        Args:
            path: the archive, which must not exist.
            tag: a name for the image, such as ``case-42/web:seized``; None for an image without a name.

        Raises:
            FileExistsError: there is something of that name.
            ValueError: the path lies inside the evidence, or the tag has a digest.
            DamagedData: the tag is no valid image name, or the record of the container's files is missing.
            UnsupportedFormat: the storage driver keeps files where this evidence does not reach.
        """
        from forensics_lib.images.reference import Reference

        name = None if tag is None else Reference.parse(tag, default_tag=True)
        if name is not None and name.digest is not None:
            raise ValueError(f"{tag}: the digest of an image cannot be chosen")
        outlet = self._backend.outlet
        saved = self._backend.saving().save(outlet.place(path), name, outlet.problems)
        outlet.done("save", container=self.id, to=str(path), image=saved.image_id, size=saved.size, sha256=saved.sha256)
        return saved
