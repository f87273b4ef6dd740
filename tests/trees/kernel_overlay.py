"""What the kernel's own overlay file system shows; run by test_overlay.py in a mount namespace of its own, as root.

    kernel_overlay.py probe FOLDER
    kernel_overlay.py work FOLDER OPTIONS SEED      random work on a mounted overlay, twice, the second over the first
    kernel_overlay.py layers FOLDER OPTIONS SEED    layers with random marks

Prints {path: facts} as JSON.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


@contextlib.contextmanager
def mounted(options: str) -> Iterator[Path]:
    """An overlay, until the block ends; paths are relative to the current folder."""
    place = Path("merged")
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def facts(place: Path) -> dict[str, Any]:
    status = place.lstat()
    kind = KINDS[stat.S_IFMT(status.st_mode)]
    row: dict[str, Any] = {
        "kind": kind,
        "mode": stat.S_IMODE(status.st_mode),
        "owner": [status.st_uid, status.st_gid],
        "mtime": status.st_mtime_ns,
        "target": str(place.readlink()) if kind == "symlink" else None,
        "rdev": status.st_rdev,
        "xattrs": {
            name: os.getxattr(place, name, follow_symlinks=False).hex()
            for name in sorted(os.listxattr(place, follow_symlinks=False))
        },
    }
    if kind == "file":
        content = base64.b64encode(place.read_bytes()).decode()
        row |= {"size": status.st_size, "nlink": status.st_nlink, "content": content}
    return row


def snapshot(root: Path) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    pending = [root]
    while pending:
        place = pending.pop()
        name = "/" + str(place.relative_to(root)) if place != root else "/"
        try:
            rows[name] = facts(place)
            if rows[name]["kind"] == "dir":
                pending += list(place.iterdir())
        except OSError as error:
            rows[name] = {"error": error.strerror}
    return rows


def paths(root: Path) -> tuple[list[Path], list[Path]]:
    """Directories and all else below a folder."""
    directories, others = [root], list[Path]()
    for here, names, files in os.walk(root):
        for name in names + files:
            place = Path(here, name)
            (directories if place.is_dir() and not place.is_symlink() else others).append(place)
    return directories, others


def write(place: Path, data: bytes, flags: int) -> None:
    """Write to a file; a FIFO without a reader is refused, not waited for."""
    descriptor = os.open(place, os.O_WRONLY | os.O_NONBLOCK | flags, 0o644)
    os.write(descriptor, data)
    os.close(descriptor)


def work(root: Path, chance: random.Random, steps: int) -> None:
    """Random changes; what the file system refuses is left."""
    for step in range(steps):
        directories, others = paths(root)
        where = chance.choice(directories)
        new = where / chance.choice(["a", "b", "c", "x", "z", f"n{step}", f"m{step}"])
        old = chance.choice(others) if others else new
        folder = chance.choice(directories)
        with contextlib.suppress(OSError):
            match chance.randrange(24):
                case 0 | 1 | 18 | 19 | 20:
                    write(new, b"%d" % step, os.O_CREAT | os.O_TRUNC)
                case 2:
                    write(old, b"+%d" % step, os.O_APPEND)
                case 3 | 4:
                    old.unlink()
                case 5 if folder.parent not in (root, root.parent):
                    shutil.rmtree(folder)
                case 6 | 21 | 22 | 23:
                    new.mkdir(mode=0o750)
                case 7 if folder.parent not in (root, root.parent):
                    shutil.rmtree(folder)
                    folder.mkdir()
                    (folder / "again").write_bytes(b"again")
                case 8:
                    old.rename(new)
                case 9 | 10 if folder != root:
                    folder.rename(new)
                case 11:
                    chance.choice([old, folder]).chmod(chance.choice([0o600, 0o4755, 0o1777, 0o640]))
                case 12:
                    os.chown(chance.choice([old, folder]), 1000 + step, 2000 + step, follow_symlinks=False)
                case 13:
                    new.symlink_to(chance.choice(["a", "/b", "../c"]))
                case 14:
                    new.hardlink_to(old)
                case 15:
                    os.utime(chance.choice([old, folder]), ns=(step, 10**18 + step), follow_symlinks=False)
                case 16:
                    os.setxattr(chance.choice([old, folder]), "user.k", b"%d" % step)
                case 17:
                    os.mkfifo(new)


def job_work(options: str, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    lower = Path("lower")
    for index, top in enumerate("abcde"):
        for depth in ("", "x", "x/y", "z", "z/v/w"):
            place = lower / top / depth
            place.mkdir(parents=True, exist_ok=True)
            for name in ("f", "a", top):
                (place / name).write_bytes(b"%d" % index * (index + 1))
    (lower / "link").symlink_to("a/f")
    (lower / "hard").hardlink_to(lower / "a/f")
    (lower / "a/.wh.f").write_bytes(b"an ordinary name")
    below = "lower"
    for number in (1, 2):
        Path(f"upper{number}").mkdir()
        Path(f"work{number}").mkdir()
        layers = f"lowerdir={below},upperdir=upper{number},workdir=work{number},{options}"
        with mounted(layers) as root:
            work(root, chance, 100)
        below = f"upper{number}:{below}"
    with mounted(layers) as root:
        return snapshot(root)


def make_layer(layer: Path, chance: random.Random, lowest: bool, top: bool) -> None:
    """Random files, directories and marks; names are few so that layers meet."""
    names = ("a", "b", "c")
    for _ in range(14):
        place = layer.joinpath(*(chance.choice(names) for _ in range(chance.randrange(1, 4))))
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            redirect = chance.choice([chance.choice(names), f"/{chance.choice(names)}/{chance.choice(names)}"]).encode()
            match chance.randrange(8):
                case 0 | 1:
                    place.write_bytes(str(layer / place).encode()[:9])
                case 2:
                    place.mkdir()
                case 3:
                    place.mkdir()
                    os.setxattr(place, "trusted.overlay.opaque", b"y")
                case 4:
                    place.mkdir()
                    os.setxattr(place, "trusted.overlay.redirect", redirect)
                case 5:
                    os.mknod(place, stat.S_IFCHR, 0)
                case 6 if not lowest:
                    place.write_bytes(b"\0" * 9)
                    os.setxattr(place, "trusted.overlay.metacopy", b"")
                    if chance.random() < 0.5:
                        os.setxattr(place, "trusted.overlay.redirect", redirect)
                case 7 if not top:
                    place.mkdir()
                    os.setxattr(place, "trusted.overlay.opaque", b"x")
                    gone = place / chance.choice(names)
                    gone.touch()
                    os.setxattr(gone, "trusted.overlay.whiteout", b"")


def job_layers(options: str, seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    for index in range(4):
        Path(f"layer{index}").mkdir()
        make_layer(Path(f"layer{index}"), chance, lowest=index == 3, top=index == 0)
    Path("work").mkdir()
    layers = f"lowerdir=layer1:layer2:layer3,upperdir=layer0,workdir=work,{options}"
    with mounted(layers) as root:
        return snapshot(root)


def probe() -> dict[str, Any]:
    for name in ("lower", "upper", "work"):
        Path(name).mkdir()
    Path("lower/f").write_bytes(b"f")
    with mounted("lowerdir=lower,upperdir=upper,workdir=work,redirect_dir=on,metacopy=on,index=off") as root:
        (root / "f").unlink()
        return snapshot(root)


def main(job: str, folder: str, options: str = "", seed: str = "0") -> None:
    Path(folder).mkdir(exist_ok=True)
    os.chdir(folder)
    match job:
        case "work":
            rows = job_work(options, int(seed))
        case "layers":
            rows = job_layers(options, int(seed))
        case _:
            rows = probe()
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
