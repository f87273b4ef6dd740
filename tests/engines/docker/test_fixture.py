"""A real data root of Docker 20.10, with a container whose removal was interrupted, against what its daemon said.

The daemon refused to give a diff and logs of that container, so there is no truth of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import forensics_lib as fl
from forensics_lib.engines.container_parts import ContainerState
from tests.engines.docker.answers import differences
from tests.samples import DOCKER_ROOT, FIXTURES, unpack

TRUTH = FIXTURES / "truth" / "docker-root"
KEEP = "9ad29a90567412bd49e8dc1a616f0d4b75eebef396931304fc4f08f18e630bc4"
HALF = "6d6ba1a09d309de36015c2134625b71cf49a1b3612eabf894afaf1bdb096d5b1"


@pytest.fixture(scope="module")
def evidence() -> Iterator[fl.Evidence]:
    with fl.open(DOCKER_ROOT) as opened:
        yield opened


def test_all_answers(evidence: fl.Evidence) -> None:
    found, asked = differences(evidence, TRUTH)
    assert found == []
    assert asked == {
        "ps", "inspect", "diff", "logs", "images", "image-inspect", "history", "volume-inspect", "volume-files",
        "network-inspect",
    }  # fmt: skip


def test_a_folder_answers_the_same(tmp_path: Path) -> None:
    """But for what only root may write: owners, devices and the times that a copy has of its own."""
    with fl.open(unpack(DOCKER_ROOT, tmp_path / "host")) as ev:
        found, _ = differences(ev, TRUTH, skip={"volume-files", "volume-inspect"})
        assert found == []
        assert any("the copy lost metadata" in problem.message for problem in ev.problems)


def test_the_container_that_was_not_removed(evidence: fl.Evidence) -> None:
    keep = evidence.container("keep")
    assert (keep.id, keep.state, keep.exit_code) == (KEEP, ContainerState.EXITED, 255)
    assert list(keep.diff()) == []
    (record,) = keep.logs()
    text = (TRUTH / "logs" / f"{KEEP}.stdout").read_bytes()
    assert text.partition(b" ")[2] == record.line + b"\n"
    assert keep.command == ("sh", "-c", "echo keep; exec sleep 100000")


def test_what_is_left_of_the_container_that_was(evidence: fl.Evidence) -> None:
    half = evidence.container("half")
    assert (half.id, half.state) == (HALF, ContainerState.DEAD)
    assert half.state_note == "its removal was begun and not completed"
    assert [record.line for record in half.logs()] == [b"HALF-LOG"]
    left = {change.path: change.node.read() for change in half.diff() if change.node and change.path.startswith("/w/")}
    assert len(left) == 18  # of the 60 files that it wrote
    assert all(data == f"HALF-MARK {path[3:]}\n".encode() for path, data in left.items())
    (problem,) = evidence.problems
    assert problem.message.startswith("container half is half removed; left are ")
    assert problem.message.endswith("still holds 18 files of 232 bytes")
    assert HALF in str(problem.origin)


def test_every_digest_is_right(evidence: fl.Evidence) -> None:
    checks = list(evidence.verify())
    assert len(checks) == 3 + 3 * 3  # images; chain id, size and archive of each layer
    assert [check for check in checks if not check.ok] == []


def test_strict_opening_ends_at_the_first_problem() -> None:
    with pytest.raises(fl.ForensicsError, match="half removed"):
        fl.open(DOCKER_ROOT, strict=True)
