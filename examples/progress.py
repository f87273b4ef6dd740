"""Hash an archive with a progress bar, and keep the result as a table.

python examples/progress.py [ARCHIVE]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

import forensics_lib as fl

FIXTURE = Path(__file__).parent.parent / "fixtures" / "web.tar"


def main(archive: Path) -> None:
    """Hash everything and save the rows."""
    with tqdm(unit="B", unit_scale=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        with fl.open(archive, progress=progress) as ev, tempfile.TemporaryDirectory() as folder:
            hashes = ev.hashes()
            saved = hashes.save(Path(folder) / "hashes.csv")
            print(f"{len(hashes)} rows, {saved.stat().st_size} bytes of CSV")
            ev.custody.save(Path(folder) / "custody.jsonl")
            for entry in ev.custody.entries:
                print(f"{entry.time:%H:%M:%S} {entry.action} {entry.digest[:16]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FIXTURE)
