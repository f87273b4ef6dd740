"""The deletion scenarios: recall and precision of the recovery, beside published figures.

FORENSICS_DELETIONS names a folder of scenarios, whose form `deletions` describes; the table is printed at the end.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.deletions import PUBLISHED, SCENARIOS, Row, score, table
from tests.diskmaker import DISKS, stored

FOLDER = Path(os.environ.get("FORENSICS_DELETIONS", "nowhere"))
NAMES = [
    f"{system}-{scenario}"
    for system in ("ext4", "xfs", "btrfs")
    for scenario in SCENARIOS
    if (FOLDER / f"out/{system}-{scenario}.gt.json.gz").is_file()
]
NO_SCENARIOS = "FORENSICS_DELETIONS names no folder of scenarios"


@pytest.fixture(scope="module")
def rows(pytestconfig: pytest.Config) -> Iterator[list[Row]]:
    found: list[Row] = []
    yield found
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    if found and capture is not None:
        with capture.global_and_fixture_disabled():
            sys.stdout.write(f"\n{table(found)}\n")


@pytest.mark.parametrize("name", NAMES or [pytest.param("none", marks=pytest.mark.skip(reason=NO_SCENARIOS))])
def test_what_survives_comes_back_and_what_is_claimed_is_true(name: str, rows: list[Row]) -> None:
    row = score(FOLDER, name)
    rows.append(row)
    assert row.precision >= 98, row.wrong  # the last block of a text looks like one of a block
    assert row.containers in (None, 100)
    assert row.invented == 0
    if row.survivors is not None:
        assert row.survivors >= 93, row.missed
    else:
        assert row.content >= (PUBLISHED.get(name, (0,))[0] or 0), row.missed


def test_scores_of_a_known_disk(tmp_path: Path) -> None:
    """What comes back counts as found, what no file ever had as wrong, and what survives unfound as missed."""
    truth = json.loads((DISKS / "ext4-deleted.json").read_text())
    known, gone = truth["whole"], truth["gone"]
    files = [{**row, "kind": "file", "deleted": "container"} for row in (*known[1:], *gone)]
    files += [{"path": "/a", "size": 7, "sha256": "0" * 64, "kind": "file", "deleted": "oldversion", "bh": ["0" * 16]}]
    for folder in ("img", "out"):
        (tmp_path / folder).mkdir()
    (tmp_path / "img/ext4-one.img").write_bytes(stored("ext4-deleted.img"))
    with gzip.open(tmp_path / "out/ext4-one.gt.json.gz", "wt") as file:
        json.dump({"files": files}, file)
    row = score(tmp_path, "ext4-one")
    assert row.content == pytest.approx(100 * (len(known) - 1) / len(known))
    assert row.path == 100
    assert (row.older, row.old_survivors, row.lines) == (0, None, None)
    assert row.precision < 100
    assert any(known[0]["path"] in one for one in row.wrong)
    assert table([row]).count("\n") == 1
