"""Files whose content went through ext4's journal (``data=journal``): it is there when the disk has nothing left."""

from __future__ import annotations

import json

from forensics_lib.formats.jbd2_history import JournalHistory
from forensics_lib.formats.run import Run
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.recovery.ext4 import undelete
from forensics_lib.recovery.remnant import Confidence
from forensics_lib.sources.base import BytesSource
from forensics_lib.trees.ext import ExtTree
from tests.diskmaker import DISKS, stored
from tests.recovery.test_ext4 import descriptor, log_of

TRUTH: dict[str, list[str]] = json.loads((DISKS / "ext4-data-journal.json").read_text())


def test_content_that_only_the_journal_has_is_verified() -> None:
    tree = ExtTree(BytesSource(stored("ext4-data-journal.img"), Origin("disk")), ProblemLog(strict=True))
    found = [one for one in undelete(tree, ProblemLog(strict=True)) if one.path in TRUTH and one.size]
    last = {one.path: one for one in found if "before" not in one.detail}
    assert {path: one.sha256 for path, one in last.items()} == {path: digests[-1] for path, digests in TRUTH.items()}
    assert {one.confidence for one in last.values()} == {Confidence.VERIFIED}
    assert all(one.complete and "in the journal" in one.detail for one in last.values())
    assert {one.sha256 for one in found if one.complete} <= {digest for digests in TRUTH.values() for digest in digests}


def test_the_content_is_that_of_the_time() -> None:
    log = log_of(
        {1: descriptor(3, [(5, b"a" * 1024)]), 2: b"a" * 1024, 3: descriptor(4, [(5, b"b" * 1024)]), 4: b"b" * 1024}
    )
    history = JournalHistory(log)

    def data(first: int, last: int, *runs: Run) -> bytes | None:
        source = history.data(runs or (Run(0, 5, 1),), 1000, first, last, Origin("file"))
        return None if source is None else source.read_at(0, 2000)

    assert data(1, 3) == b"a" * 1000
    assert data(1, 9) == b"b" * 1000
    assert data(5, 9) is None
    assert data(1, 9, Run(0, 5, 2)) is None  # one of two blocks
    assert data(1, 9, Run(0, 5, 2, written=False)) is None  # never written
