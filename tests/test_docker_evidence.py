"""Real Docker data roots in every form of acquisition, against what their daemons said before.

FORENSICS_EVIDENCE names a folder that holds docker-small/, docker-vfs/, docker29-graphdriver/ and docker-half-removed/.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import forensics_lib as fl
from forensics_lib.engines.container_parts import ContainerState
from tests.engines.docker.answers import differences
from tests.engines.docker.dataroot import EVIDENCE, GRAPHDRIVER, HALF_REMOVED, NO_EVIDENCE, SMALL

VFS = EVIDENCE / "docker-vfs/vfs"
CLEAN, CRASH = SMALL / "evidence/clean", SMALL / "evidence/crash"
ALL = {
    "ps", "inspect", "diff", "logs", "export", "images", "image-inspect", "history", "volume-inspect", "volume-files",
    "network-inspect",
}  # fmt: skip

pytestmark = pytest.mark.skipif(
    not all(path.exists() for path in (SMALL, VFS, GRAPHDRIVER, HALF_REMOVED)), reason=NO_EVIDENCE
)


@pytest.mark.parametrize(
    ("evidence", "truth", "questions"),
    [
        (CLEAN / "var-lib-docker.tar", SMALL / "truth/5-stopped", ALL),
        (CLEAN / "disk.raw", SMALL / "truth/5-stopped", ALL),
        (CRASH / "var-lib-docker.tar", SMALL / "truth/3-at-crash", ALL - {"export"}),
        (CRASH / "disk-while-mounted-nosync.raw", SMALL / "truth/3-at-crash", ALL - {"export"}),
        (VFS / "evidence/clean/var-lib-docker.tar", VFS / "truth/5-stopped", ALL),
        (GRAPHDRIVER / "evidence/clean/root.tar", GRAPHDRIVER / "truth/5-stopped", ALL),
    ],
    ids=["overlay2", "overlay2 disk", "crash", "crash disk with its journal", "vfs", "29"],
)
def test_the_copy_answers_as_its_daemon_would_have(evidence: Path, truth: Path, questions: set[str]) -> None:
    with fl.open(evidence) as ev:
        assert ev.containers
        found, asked = differences(ev, truth, skip=ALL - questions)
        assert found == []
        assert asked == questions


@pytest.mark.parametrize("evidence", [CLEAN / "var-lib-docker.tar", VFS / "evidence/clean/var-lib-docker.tar"])
def test_a_good_copy_has_no_problems_and_all_digests(evidence: Path) -> None:
    with fl.open(evidence) as ev:
        assert [problem.message for problem in ev.problems] == []
        checks = list(ev.verify())
        assert len(checks) > 50
        assert [check for check in checks if not check.ok] == []


def test_containers_of_a_crash_were_running_when_they_were_written_down() -> None:
    with fl.open(CRASH / "var-lib-docker.tar") as ev:
        running = {c.name for c in ev.containers if c.state in (ContainerState.RUNNING, ContainerState.PAUSED)}
        assert {"web", "db", "tosleep"} <= running
        assert all(c.state_note for c in ev.containers if c.name in running)
        assert len([row for row in ev.problems if "running when it was written down" in row.message]) == len(running)


KINDS = (
    "extended attributes", "whiteouts", "device nodes", "owners", "times of change", "set-user-ID", "files of image",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("lossy-gnu-noxattr.tar", {"extended attributes"}),
        ("lossy-root.tar", {"extended attributes", "owners", "times of change", "set-user-ID"}),
        ("lossy-unpriv-extract.tar", {"extended attributes", "owners", "set-user-ID", "device nodes"}),
    ],
)
def test_lossy_copies_say_once_what_was_lost(name: str, lost: set[str]) -> None:
    with fl.open(CLEAN / name) as ev:
        messages = [row.message for row in ev.problems if row.message.startswith("the copy lost metadata")]
        assert {kind for kind in KINDS if any(f"metadata: {kind}" in message for message in messages)} == lost
        assert len(messages) == len(lost)
        found, _ = differences(ev, SMALL / "truth/5-stopped", skip={"diff", "export", "volume-files", "volume-inspect"})
        assert found == []  # what does not depend on the lost metadata is still answered


def test_a_copy_that_could_not_look_into_the_root() -> None:
    with fl.open(CLEAN / "lossy-unpriv.tar") as ev:
        assert not ev.containers
        (problem,) = ev.problems
        assert "copied without the right to read it" in problem.message


@pytest.mark.parametrize("stage", ["3-after-restart", "5-after-restart"])
def test_half_removed(stage: str) -> None:
    with fl.open(HALF_REMOVED / f"evidence/{stage}.tar") as ev:
        found, _ = differences(ev, HALF_REMOVED / "truth" / stage, skip={"diff", "logs"})
        assert found == []


@pytest.mark.parametrize("stage", ["2-killed-during-rm", "4-killed-during-rmi"])
def test_what_is_left_in_the_middle_of_a_removal(stage: str) -> None:
    with fl.open(HALF_REMOVED / f"evidence/{stage}.tar") as ev:
        messages = [row.message for row in ev.problems]
        if stage.endswith("rm"):
            half = ev.container("half")
            assert half.state is ContainerState.REMOVING
            assert [record.line for record in half.logs()] == [b"HALF-LOG"]
            assert any(message.startswith("container half is half removed") for message in messages)
        else:
            assert any("of an image is half removed; diff_id sha256:" in message for message in messages)
            assert any("still holds" in message for message in messages)
