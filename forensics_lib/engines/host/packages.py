"""Which engines were installed on a host, in which versions, and when that changed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from forensics_lib.engines.host.fact import HostFact, fact_at, text_of
from forensics_lib.engines.host.files import LOG_FOLDERS, HostFiles, place_of
from forensics_lib.engines.host.zone import host_zone
from forensics_lib.formats.syslog import LocalStamp, ns_of

__all__ = ["package_facts"]

_PACKAGES = re.compile(
    r"docker(\.io|-ce|-ce-cli|-ee|-engine|-compose|-compose-plugin|-buildx-plugin|-cli)?|containerd(\.io)?|runc|crun|podman|"
    r"buildah|skopeo|cri-o|cri-tools|conmon|kubelet|kubeadm|kubectl|nerdctl|moby-engine|moby-containerd|fuse-overlayfs"
)
_DPKG_LOG = re.compile(r"dpkg\.log")
_CHANGE = re.compile(
    rb"(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d) (install|upgrade|remove|purge) ([^\s:]+)(?::\S+)? (\S+) (\S+)"
)


def package_facts(host: HostFiles) -> Iterator[HostFact]:
    """Versions of the engines that Debian's and Alpine's package managers have on record, and dpkg's log of changes."""
    for path, name_key, version_key in (
        ("/var/lib/dpkg/status", b"Package: ", b"Version: "),
        ("/lib/apk/db/installed", b"P:", b"V:"),
        ("/usr/lib/apk/db/installed", b"P:", b"V:"),
    ):
        node = host.reader.find(path)
        name, start = "", 0
        for offset, line in host.lines(node) if node is not None else ():
            if line.startswith(name_key):
                name, start = text_of(line[len(name_key) :]), offset
            elif line.startswith(version_key) and node is not None and _PACKAGES.fullmatch(name):
                yield fact_at("package", name, text_of(line[len(version_key) :]), node, start)
    yield from _changes(host)


def _changes(host: HostFiles) -> Iterator[HostFact]:
    zone, is_known = host_zone(host.reader)
    for folder in LOG_FOLDERS:
        for node in host.logs(folder, _DPKG_LOG):
            for offset, line in host.lines(node):
                change = _CHANGE.fullmatch(line)
                if change is not None and _PACKAGES.fullmatch(text_of(change[8])):
                    year, month, day, hour, minute, second = map(int, change.groups()[:6])
                    stamp = LocalStamp(year, month, day, hour * 3600 + minute * 60 + second, 0)
                    words = (
                        [change[7], change[9], b"to", change[10]]
                        if change[7] == b"upgrade"
                        else [change[7], change[10]]
                    )
                    value = text_of(b" ".join(words)) + ("" if is_known else " (its time taken for UTC)")
                    origin = place_of(node).to("line", offset)
                    yield HostFact("package change", text_of(change[8]), value, ns_of(stamp, year, zone), origin)
