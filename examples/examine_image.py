"""The main job: what is this image, how was it made, what did each layer do, is it intact?

python examples/examine_image.py [ARCHIVE]
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import forensics_lib as fl

FIXTURE = Path(__file__).parent.parent / "fixtures" / "web.tar"


def main(path: Path) -> None:
    """Print the image's history, its layers' changes, its hashes and its verification."""
    with fl.open(path) as ev:
        print(f"{path.name}: {ev.kind}, {len(ev.images)} image(s)")
        for image in ev.images:
            show(image)

        hashes = ev.hashes()
        kinds = Counter(row.kind for row in hashes)
        print(f"\nhashed {kinds['file']} files, {kinds['layer']} layers, {kinds['blob']} blobs; for example:")
        for row in hashes.where(kind="file")[:3]:
            print(f"  {row.sha256}  {row.path!r}")

        checks = ev.verify()
        failed = checks.where(ok=False)
        print(f"\nverified {len(checks)} stored digests, sizes and counts: {len(failed)} differ")
        for check in failed:
            print(f"  {check.subject!r}: {check.expected!r} stated, {check.actual!r} found")
        for problem in ev.problems:
            print(f"problem: {str(problem.origin)!r}: {problem.error}")


def show(image: fl.Image) -> None:
    """Print one image."""
    print(f"\n{image!r}\n  {image.id}")
    print(
        f"  {len(image.layers)} layers, {image.stored_size} bytes stored, {image.wasted} bytes hidden by later layers"
    )
    print(f"  history ({image.alignment} with the layers), newest first:")
    for step in image.history():
        when = f"{step.created:%Y-%m-%d %H:%M}" if step.created else ""
        made = "-" if step.empty else str(step.size or 0)
        print(f"  {when:16} {made:>12}  {step.created_by[:90]!r}")
    for layer in image.layers:
        counts = Counter(str(change.kind) for change in layer.changes())
        print(f"  layer {layer.index}: added {counts['A']}, changed {counts['C']}, deleted {counts['D']}")
        for change in layer.changes().where(kind="D"):
            print(f"    deleted {change.path!r}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FIXTURE)
