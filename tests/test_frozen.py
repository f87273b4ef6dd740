"""Frozen dataclasses that are made quickly are made as dataclasses make them."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from forensics_lib._frozen import maker, quick


@dataclass(frozen=True, slots=True)
class Plain:
    first: int
    second: str = "two"
    third: list[int] = field(default_factory=list)


@quick
@dataclass(frozen=True, slots=True)
class Quick:
    first: int
    second: str = "two"
    third: list[int] = field(default_factory=list)


make = maker(Quick)


@pytest.mark.parametrize("build", [Quick, make], ids=["class", "function"])
def test_objects_are_those_of_the_dataclass(build: type[Quick]) -> None:
    for one, plain in (
        (build(1), Plain(1)),
        (build(1, "b"), Plain(1, "b")),
        (build(third=[5], first=2), Plain(third=[5], first=2)),
    ):
        assert type(one) is Quick
        assert (one.first, one.second, one.third) == (plain.first, plain.second, plain.third)
        assert repr(one) == repr(plain).replace("Plain", "Quick")
        assert one == Quick(plain.first, plain.second, plain.third) == copy.copy(one)
        assert pickle.loads(pickle.dumps(one)) == one
        assert replace(one, first=9) == Quick(9, plain.second, plain.third)


@pytest.mark.parametrize("build", [Quick, make], ids=["class", "function"])
def test_objects_are_frozen_and_share_no_default(build: type[Quick]) -> None:
    one = build(1)
    with pytest.raises(FrozenInstanceError):
        one.first = 2  # type: ignore[misc]
    one.third.append(1)
    assert build(1).third == []


def test_a_missing_field_is_an_error() -> None:
    with pytest.raises(TypeError, match="first"):
        make()  # type: ignore[call-arg]
