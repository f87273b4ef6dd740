"""What a copy lost is said once for each kind, and nothing of a copy that lost nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from forensics_lib.engines.docker.drivers import DRIVERS
from forensics_lib.trees.base import NodeKind
from tests.engines.docker.dataroot import hexid
from tests.engines.docker.rootmaker import Layer, RootMaker, owned, tar_split
from tests.tarmaker import TarMaker
from tests.trees.layers import OPAQUE, Entry, device, file, folder, link, whiteout

LOST = "the copy lost metadata: "


def host(driver: str = "overlay2") -> RootMaker:
    """A root with everything that copies lose."""
    root = RootMaker(driver)
    base = root.layer(
        {
            "/bin/su": file(b"su", mode=0o4755),
            "/bin/wall": file(b"wall", mode=0o2755),
            "/bin/ping": file(b"ping", {"security.capability": b"\1\0\0\2\0\x20" + bytes(14)}),
            "/dev/null": device(1, 3),
            "/dev/loop0": device(7, 0, NodeKind.BLOCK),
            "/home/eve": replace(folder(), uid=1000, gid=1000),
            "/home/eve/a": owned(b"a", 1000, 1000),
            "/home/bob/b": owned(b"b", 1001, 1001),
            "/etc/old": b"old",
            "/srv/a": b"1",
            "/link": link("etc/old"),
        }
    )
    top = root.layer(
        {"/etc/old": whiteout(), "/srv": folder(OPAQUE), "/srv/b": b"2"} if driver == "overlay2" else {}, base
    )
    root.container("web", top, {"/etc/new": b"1"})
    return root


def losses(root: RootMaker, place: Path) -> list[str]:
    with root.opened(place) as ev:
        return [row.message.removeprefix(LOST) for row in ev.problems if row.message.startswith(LOST)]


def spoil(root: RootMaker, change: Callable[[str, Entry], Entry | None]) -> None:
    """Copy the layers' files as a bad copier would; None leaves one out."""
    for path, made in list(root.entries.items()):
        if "/diff" in path:
            copied = change(path, file(made) if isinstance(made, bytes) else made)
            if copied is None:
                del root.entries[path]
            else:
                root.entries[path] = copied


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_good_copy(driver: str, tmp_path: Path) -> None:
    with host(driver).opened(tmp_path) as ev:
        assert [row.message for row in ev.problems] == []


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (lambda _, node: replace(node, xattrs={}), "extended attributes are lost: directories that replaced"),
        (lambda _, node: replace(node, uid=0, gid=0), "owners are lost"),
        (lambda _, node: replace(node, uid=node.uid + 7), "owners are lost"),
        (lambda _, node: replace(node, mode=node.mode & 0o777), "set-user-ID and set-group-ID bits are lost"),
        (lambda _, node: replace(node, mode=node.mode & 0o7750), "permissions are lost"),
        (lambda _, node: replace(node, mtime_ns=1_800_000_000 * 10**9), "times of change are lost"),
        (lambda path, node: None if "/dev/" in path else node, "device nodes are lost"),
        (lambda path, node: None if path.endswith("/etc/old") and not node.size else node, "whiteouts are lost"),
    ],
    ids=["attributes", "owners of root", "owners of others", "set-id", "modes", "times", "devices", "whiteouts"],
)
def test_each_loss_is_said_once(change: Callable[[str, Entry], Entry | None], lost: str, tmp_path: Path) -> None:
    root = host()
    spoil(root, change)
    (message,) = losses(root, tmp_path)
    assert message.startswith(lost)
    assert "looked at, e.g. " in message


def test_files_of_layers_that_were_not_copied(tmp_path: Path) -> None:
    root = host()
    spoil(root, lambda path, node: None if node.size or node.kind is NodeKind.SYMLINK else node)
    assert any(message.startswith("files of image layers are missing") for message in losses(root, tmp_path))


def test_everything_at_once(tmp_path: Path) -> None:
    root = host()

    def copied(path: str, node: Entry) -> Entry | None:
        if node.kind in (NodeKind.CHAR, NodeKind.BLOCK):
            return None
        return replace(node, uid=0, gid=0, mode=node.mode & 0o777, xattrs={}, mtime_ns=0)

    spoil(root, copied)
    found = losses(root, tmp_path)
    assert sorted(message.split()[0] for message in found) == [
        "device",
        "extended",
        "owners",
        "set-user-ID",
        "times",
        "whiteouts",
    ]


def test_one_file_that_was_changed_on_the_host_is_no_loss(tmp_path: Path) -> None:
    root = host()
    place = next(path for path in root.entries if path.endswith("/home/eve/a"))
    root.entries[place] = owned(file(b"a", mtime_ns=0), 0, 0)
    assert losses(root, tmp_path) == []


def test_attributes_are_missed_without_a_layer_that_proves_it(tmp_path: Path) -> None:
    """A directory that was copied up into a container has a mark; without any record of layers that is the proof."""
    root = RootMaker()
    top = root.layer({"/etc/passwd": b"root"}, split=False)
    root.container("web", top, {"/etc/new": b"1"})
    assert losses(root, tmp_path) == []
    spoil(root, lambda _, node: replace(node, xattrs={}))
    (message,) = losses(root, tmp_path)
    assert message.startswith("extended attributes are lost")
    assert "e.g. /etc" in message


def test_files_that_a_program_wrote_anew_are_no_loss(tmp_path: Path) -> None:
    root = RootMaker()
    top = root.layer({f"/etc/{name}": b"old" for name in "abcdef"})
    root.container("web", top, {f"/etc/{name}": b"new" for name in "abcdef"})
    assert losses(root, tmp_path) == []


def test_times_of_the_archive_with_a_fraction_are_compared_by_seconds(tmp_path: Path) -> None:
    root = RootMaker()
    layer = Layer({}, TarMaker("pax", mtime="1700000000.9").file("a", b"1").end(), hexid("directory"))
    record = f"image/overlay2/layerdb/sha256/{layer.chain_id[7:]}"
    for name, text in (("diff", layer.diff_id), ("cache-id", layer.cache_id), ("size", "1")):
        root.put(f"{record}/{name}", text)
    root.put(f"{record}/tar-split.json.gz", tar_split(layer.archive))
    root.put(f"overlay2/{layer.cache_id}/diff/a", b"1")
    assert losses(root, tmp_path) == []


@pytest.mark.parametrize("record", [b"", b"no gzip", b"\x1f\x8b\x08"])
def test_a_damaged_record_is_no_loss(record: bytes, tmp_path: Path) -> None:
    root = host()
    for path in [path for path in root.entries if path.endswith("tar-split.json.gz")]:
        root.entries[path] = record
    assert losses(root, tmp_path) == []
