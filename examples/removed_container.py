"""A container that was removed: from the disk back to its configuration, its log and the files it dropped.

python examples/removed_container.py [DISK] [NAME]
"""

from __future__ import annotations

import sys
from pathlib import Path

import forensics_lib as fl

FIXTURE = Path(__file__).parent.parent / "fixtures" / "docker-disk.raw.zst"


def main(disk: Path, name: str) -> None:
    """Print what is left of the container, and how sure it is."""
    with fl.open(disk) as ev:
        print(ev.filesystems)
        print(f"there are {len(ev.containers)} containers; removed ones:")
        for container in ev.deleted_containers:
            print(f"  {container.id[:12]}  {container.name or '(name lost)'!r}  created {container.created}")
        container = next(one for one in ev.deleted_containers if name in (one.name, one.id))
        print(f"\n{container.name!r} ran {container.command!r:.200}")
        print(f"{container.state_note!r}\n\nits log:")
        for record in list(container.logs())[:5]:
            print(f"  {record.time}  {record.stream}  {record.text!r}")
        print("\nwhat it changed, and the first bytes of it:")
        for change in container.diff():
            if change.node is not None and change.node.kind is fl.NodeKind.FILE:
                print(
                    f"  {change.kind} {change.path!r}: {change.node.read()[:60]!r}\n    at {str(change.node.origin)!r}"
                )
        print("\nwhere all this was found:")
        for remnant in ev.remnants().where(container_id=container.id):
            size = "" if remnant.size is None else f"{remnant.size} bytes, "
            print(f"  {remnant.kind} {remnant.path or '(no path)'!r}: {size}{remnant.confidence} by {remnant.method}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FIXTURE, sys.argv[2] if len(sys.argv) > 2 else "dropper")
