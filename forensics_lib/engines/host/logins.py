"""Starts and ends of a host and logins, out of ``wtmp`` and ``lastlog``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from forensics_lib.engines.host.fact import HostFact, present, text_of
from forensics_lib.engines.host.files import LOG_FOLDERS, HostFiles, place_of
from forensics_lib.engines.host.users import User
from forensics_lib.errors import ForensicsError
from forensics_lib.formats.utmp import LASTLOG_SIZE, read_utmp, utmp_size
from forensics_lib.sources.decompress import decompress, sniff
from forensics_lib.trees.base import Node

__all__ = ["login_facts"]

_WTMP = re.compile(r"wtmp")
_MAX_USERS = 100_000


def login_facts(host: HostFiles, users: Sequence[User]) -> Iterator[HostFact]:
    """Starts and ends of the machine and logins, out of ``wtmp``, and each user's last login."""
    for folder in LOG_FOLDERS:
        for node in host.logs(folder, _WTMP):
            yield from _wtmp(host, node)
    numbers = {user.uid: user.name for user in users}
    for node in present(host, "/var/log/lastlog"):
        for uid in sorted(int(number) for number in numbers if number.isdecimal() and len(number) < 11)[:_MAX_USERS]:
            try:
                record = node.source().read_at(uid * LASTLOG_SIZE, LASTLOG_SIZE)
            except ForensicsError as error:
                host.reader.problems.add(place_of(node), error)
                break
            if len(record) == LASTLOG_SIZE and any(record[:4]):
                line, source = (text_of(part.partition(b"\0")[0]) for part in (record[4:36], record[36:]))
                time = int.from_bytes(record[:4], "little") * 10**9
                origin = place_of(node).to("record", uid * LASTLOG_SIZE)
                yield HostFact("last login", numbers[str(uid)], f"{line} from {source or 'here'}", time, origin)


def _wtmp(host: HostFiles, node: Node) -> Iterator[HostFact]:
    try:
        source = node.source()
        compression = sniff(source.read_at(0, 16))
        head = next(iter(decompress(source.blocks(), compression, place_of(node), host.limits)), b"")
        blocks = decompress(source.blocks(), compression, place_of(node), host.limits)
        for record in read_utmp(blocks, utmp_size(head)):
            origin = place_of(node).to("record", record.offset)
            if record.type == "boot":
                yield HostFact("boot", record.user, f"kernel {record.host}", record.time_ns, origin)
            elif record.type == "run level" and record.user == "shutdown":
                yield HostFact("shutdown", record.user, f"kernel {record.host}", record.time_ns, origin)
            elif record.type == "login":
                value = f"{record.line} from {record.host or 'here'}, process {record.pid}"
                yield HostFact("login", record.user, value, record.time_ns, origin)
    except ForensicsError as error:
        host.reader.problems.add(place_of(node), error)
