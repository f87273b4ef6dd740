"""The same bytes found twice."""

from __future__ import annotations

from forensics_lib.model import ProblemLog
from forensics_lib.recovery.agree import agreed
from forensics_lib.recovery.remnant import Confidence
from tests.recovery.scene import remnant


def test_two_methods_and_equal_copies() -> None:
    named = remnant(b"same", "etc/x", method="ext4 journal")
    lost = remnant(None, "etc/y", method="ext4 journal")
    same = remnant(b"same", method="carving", confidence=Confidence.CARVED, container_id="c")
    copies = [remnant(b"copy", method="carving", modified_ns=time) for time in (1, 3, 2)]
    torn = remnant(b"same", method="carving", complete=False)
    rows = list(agreed([named, lost], [same, *copies, torn], ProblemLog()))
    assert [(row.method, row.path, row.container_id) for row in rows] == [
        ("ext4 journal + carving", "etc/x", "c"),
        ("ext4 journal", "etc/y", ""),
        ("carving", "", ""),
        ("carving", "", ""),
    ]
    assert rows[0].confidence is Confidence.INTACT
    assert rows[2].detail.endswith("3 equal copies")
    assert rows[2].modified_ns == 3
    assert not rows[3].complete


def test_equal_settings_of_different_containers_stay_apart() -> None:
    rows = [remnant(b"same", method="carving", container_id=owner) for owner in ("a", "b", "a")]
    assert [row.container_id for row in agreed([], rows, ProblemLog())] == ["a", "b"]
    named = [remnant(b"same", "b/hostconfig.json", container_id="b")]
    found = list(agreed(named, rows, ProblemLog()))
    assert [(row.container_id, row.method) for row in found] == [("b", "test + carving"), ("a", "carving")]
