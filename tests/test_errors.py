"""The exceptions: how they are caught, what they say, and that workers can hand them back."""

from __future__ import annotations

import copy
import inspect
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

import forensics_lib as fl
from forensics_lib import errors
from forensics_lib.errors import (
    AmbiguousName,
    DamagedData,
    EvidenceChanged,
    ForensicsError,
    LimitExceeded,
    MissingExtra,
    NotAFile,
    NotFound,
    PathNotFound,
    UnsupportedFormat,
    VerificationFailed,
)
from forensics_lib.model import Origin

ORIGIN = Origin("disk.img").to("partition 1", 1 << 20)
EVERY: list[ForensicsError] = [
    ForensicsError("text"),
    UnsupportedFormat("text"),
    DamagedData("text", origin=ORIGIN, offset=7),
    LimitExceeded("text", origin=ORIGIN),
    NotFound("text"),
    PathNotFound("text"),
    NotAFile("text"),
    AmbiguousName("text", ("web-1", "web-2")),
    VerificationFailed("text", expected="sha256:a", actual="sha256:b"),
    EvidenceChanged("text"),
    MissingExtra("pandas", "pandas"),
]


def raise_damage() -> None:
    raise DamagedData("from a worker", origin=ORIGIN, offset=9)


def test_every_exception_is_listed_here() -> None:
    defined = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ForensicsError)}
    assert {type(error) for error in EVERY} == defined
    assert {kind.__name__ for kind in defined} == set(errors.__all__)
    assert all(getattr(fl, name) is getattr(errors, name) for name in errors.__all__)


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_nothing_is_lost_on_the_way_to_another_process(error: ForensicsError, again: object) -> None:
    assert callable(again)
    other = again(error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert other.args == error.args
    assert vars(other) == vars(error)


def test_a_worker_hands_its_error_back() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, pytest.raises(DamagedData) as caught:
        pool.submit(raise_damage).result()
    assert (str(caught.value), caught.value.origin, caught.value.offset) == ("from a worker", ORIGIN, 9)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (NotFound("x"), KeyError),
        (PathNotFound("x"), FileNotFoundError),
        (PathNotFound("x"), NotFound),
        (NotAFile("x"), OSError),
        (AmbiguousName("x"), LookupError),
        (LimitExceeded("x"), DamagedData),
        (MissingExtra("p", "e"), ModuleNotFoundError),
    ],
)
def test_the_builtin_exceptions_catch_them_too(error: ForensicsError, builtin: type[Exception]) -> None:
    assert isinstance(error, builtin)
    assert isinstance(error, ForensicsError)


@pytest.mark.parametrize("error", EVERY[:-1], ids=lambda error: type(error).__name__)
def test_the_text_is_the_message_itself(error: ForensicsError) -> None:
    assert str(error) == "text"


def test_an_error_without_a_message_says_what_it_is() -> None:
    assert str(NotFound()) == "NotFound"


def test_what_to_install() -> None:
    error = MissingExtra("pyarrow", "arrow")
    assert str(error) == "pyarrow is not installed: pip install 'forensics_lib[arrow]'"
    assert error.extra == "arrow"


def test_attributes() -> None:
    assert AmbiguousName("x", ("a", "b")).candidates == ("a", "b")
    assert (VerificationFailed("x").expected, VerificationFailed("x").actual) == ("", "")
    assert (DamagedData("x").origin, DamagedData("x").offset) == (None, None)


def test_names_of_the_evidence_do_nothing_to_a_screen() -> None:
    error = NotFound("no /a\x1b[2J\u202e\udcff\n/caf\u00e9 here")
    assert str(error) == r"no /a\x1b[2J\u202e\udcff\n/café here"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
