from __future__ import annotations

import pickle
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.images.config import HistoryEntry
from forensics_lib.images.history import Alignment, HistoryStep, align

MOMENT = datetime(2026, 11, 21, 16, 16, 44, 131011, UTC)
BASE = HistoryEntry(created=MOMENT, created_ns=1795277804131011682, comment="lab base rootfs", author="ops")
ENV = HistoryEntry(created_by="/bin/sh -c #(nop)  ENV A=b", empty_layer=True)
RUN = HistoryEntry(created_by="/bin/sh -c echo hi")


def test_exact_pairs_in_order() -> None:
    status, steps = align([BASE, ENV, RUN, ENV], ["sha256:a", "sha256:b"])
    assert status is Alignment.EXACT
    assert steps == [
        HistoryStep(0, MOMENT, 1795277804131011682, "", "lab base rootfs", "ops", None, False, "sha256:a"),
        HistoryStep(1, created_by=ENV.created_by, size=0, empty=True),
        HistoryStep(2, created_by=RUN.created_by, layer="sha256:b"),
        HistoryStep(3, created_by=ENV.created_by, size=0, empty=True),
    ]


def test_missing_gives_a_step_for_each_layer() -> None:
    status, steps = align([], ["sha256:a", "sha256:b"])
    assert status == "missing"
    assert steps == [HistoryStep(0, layer="sha256:a"), HistoryStep(1, layer="sha256:b")]


def test_neither_history_nor_layers_is_exact() -> None:
    assert align([], []) == (Alignment.EXACT, [])


def test_a_mismatch_pairs_nothing() -> None:
    """kaniko leaves out entries of empty layers and their mark: more entries than layers, or fewer."""
    for layers in ([], ["sha256:a"], ["sha256:a", "sha256:b", "sha256:c"]):
        status, steps = align([BASE, RUN, ENV], layers)
        assert status is Alignment.MISMATCH
        assert [step.layer for step in steps] == [None, None, None]
        assert [step.created_by for step in steps] == [BASE.created_by, RUN.created_by, ENV.created_by]
        assert [step.size for step in steps] == [None, None, 0]


def test_a_step_can_be_sent_to_another_process() -> None:
    step = align([BASE], ["sha256:a"])[1][0]
    assert pickle.loads(pickle.dumps(step)) == step


@given(st.lists(st.booleans(), max_size=12), st.lists(st.text(max_size=3), max_size=12))
def test_a_layer_is_never_invented_nor_used_twice(empty: list[bool], layers: list[str]) -> None:
    history = [HistoryEntry(created_by=str(index), empty_layer=flag) for index, flag in enumerate(empty)]
    status, steps = align(history, layers)
    paired = [step.layer for step in steps if step.layer is not None]
    assert paired == ([] if status is Alignment.MISMATCH else layers)
    assert [step.index for step in steps] == list(range(len(steps)))
    if status is not Alignment.MISSING:
        assert [step.created_by for step in steps] == [entry.created_by for entry in history]
        assert all(step.layer is None for step in steps if step.empty)
