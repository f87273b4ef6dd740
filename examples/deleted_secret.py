"""A file that a later layer deleted: find it, read every version of it, and see which step removed it.

python examples/deleted_secret.py [ARCHIVE] [PATH]
"""

from __future__ import annotations

import sys
from pathlib import Path

import forensics_lib as fl

FIXTURE = Path(__file__).parent.parent / "fixtures" / "web.tar"


def main(archive: Path, path: str | None) -> None:
    """Print what is hidden, then every version of one path."""
    with fl.open(archive) as ev:
        image = ev.images[0]
        steps = {step.layer: step.created_by for step in image.history() if step.layer}
        hidden = image.hidden()
        print(f"{len(hidden)} files that no container sees, {image.wasted} bytes:")
        for file in hidden:
            print(f"  {file.path!r}  {file.size} bytes in layer {file.layer}, hidden by layer {file.hidden_by}")
        if path is None:
            path = hidden[0].path
        print(f"\nversions of {path!r}:")
        for version in image.versions(path):
            made_by = steps.get(image.layers[version.layer].diff_id or "", "an unknown step")
            print(f"  layer {version.layer} {version.kind}  {version.sha256 or ''}\n    by {made_by[:100]!r}")
            if version.node is not None and version.node.kind == "file":
                print(f"    first bytes: {version.read()[:40]!r}\n    at {str(version.origin)!r}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FIXTURE, sys.argv[2] if len(sys.argv) > 2 else None)
