"""Free space of an ext file system by its bitmaps."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.recovery.ext4_free import _clear_bits


@given(st.binary(max_size=64) | st.lists(st.sampled_from([b"\0", b"\xff", b"\x0f"]), max_size=40).map(b"".join))
def test_runs_of_clear_bits(bitmap: bytes) -> None:
    clear = {first + step for first, length in _clear_bits(bitmap) for step in range(length)}
    assert clear == {bit for bit in range(8 * len(bitmap)) if not bitmap[bit // 8] >> bit % 8 & 1}
    runs = list(_clear_bits(bitmap))
    assert all(first + length < following for (first, length), (following, _) in pairwise(runs))
