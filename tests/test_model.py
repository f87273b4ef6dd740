"""Where facts come from, what went wrong, and times for people."""

from __future__ import annotations

import dataclasses
import pickle
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib import model
from forensics_lib.errors import DamagedData, LimitExceeded, NotFound
from forensics_lib.model import ArtifactHash, Origin, ProblemLog, utc_from_ns

DISK = Origin("disk.E01")


def test_an_origin_is_a_chain_that_can_be_followed_by_hand() -> None:
    inode = DISK.to("partition 2", 1048576).to("ext4 inode 1385").to("/var/lib/docker/config.v2.json", 0)
    assert str(inode) == "disk.E01 > partition 2 @1048576 > ext4 inode 1385 > /var/lib/docker/config.v2.json @0"
    assert str(DISK) == "disk.E01"
    assert inode.parent == DISK.to("partition 2", 1048576).to("ext4 inode 1385")
    assert hash(DISK.to("a", 1)) == hash(Origin("disk.E01").to("a", 1))
    assert DISK.to("a", 1) != DISK.to("a")


def test_a_long_chain_has_a_text() -> None:
    origin = DISK
    for number in range(5000):
        origin = origin.to(str(number))
    assert str(origin).endswith("4998 > 4999")


def test_rows_cannot_be_changed_and_go_to_other_processes() -> None:
    row = ArtifactHash("sha256:1", "/etc/passwd", "file", 5, "00", None, "11", DISK.to("tar header", 512))
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.size = 6  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(row)) == row


def test_digests_by_name() -> None:
    row = ArtifactHash("o", "p", "file", 5, "00", None, "11", DISK, (("sha512", "22"),))
    found = {name: row.digest(name) for name in ("md5", "sha1", "sha256", "sha512", "blake2b")}
    assert found == {"md5": "00", "sha1": None, "sha256": "11", "sha512": "22", "blake2b": None}


# --- the problem log --------------------------------------------------------------------------------------------------


def test_problems_are_kept_in_order_and_once() -> None:
    log = ProblemLog()
    log.add(DISK, "first")
    log.add(DISK, NotFound("second"))
    log.add(DISK, "first")
    log.add(DISK.to("partition 1"), "first")
    log.add(DISK, DamagedData("first", offset=5))
    assert [(str(row.origin), row.message) for row in log.rows] == [
        ("disk.E01", "first"),
        ("disk.E01", "second"),
        ("disk.E01 > partition 1", "first"),
    ]
    assert isinstance(log.rows[0].error, DamagedData)
    assert log.rows[0].error.origin == DISK
    assert isinstance(log.rows[1].error, NotFound)


def test_a_strict_log_raises_at_the_first_problem() -> None:
    log = ProblemLog(strict=True)
    error = NotFound("missing")
    with pytest.raises(NotFound) as caught:
        log.add(DISK, error)
    assert caught.value is error
    with pytest.raises(DamagedData, match="text"):
        log.add(DISK, "text")
    assert log.rows == []


def test_checks_that_are_put_off_run_when_somebody_asks() -> None:
    log = ProblemLog()
    ran: list[str] = []

    def second() -> None:
        ran.append("second")
        log.add(DISK, "of the second check")

    def first() -> None:
        ran.append("first")
        log.defer(second)

    log.defer(first)
    log.add(DISK, "at once")
    assert ran == []
    assert [row.message for row in log.rows] == ["at once", "of the second check"]
    assert [row.message for row in log.rows] == ["at once", "of the second check"]
    assert ran == ["first", "second"]


def test_a_strict_log_puts_nothing_off() -> None:
    log = ProblemLog(strict=True)
    with pytest.raises(DamagedData, match="found"):
        log.defer(lambda: log.add(DISK, "found"))


def test_problems_do_not_pile_up_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_MAX_PROBLEMS", 10)
    log = ProblemLog()
    for number in range(50):
        log.add(DISK, str(number))
    assert [row.message for row in log.rows[:10]] == [str(number) for number in range(10)]
    (last,) = log.rows[10:]
    assert isinstance(last.error, LimitExceeded)
    assert last.message == "more than 10 problems; no more are listed"


def test_threads_share_a_log() -> None:
    log = ProblemLog()

    def add(start: int) -> None:
        for number in range(500):
            log.add(DISK, str(start + number))

    threads = [threading.Thread(target=add, args=(start,)) for start in (0, 250, 500, 750)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(row.message) for row in log.rows) == list(range(1250))


# --- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nanoseconds", "moment"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1462296160123456789, datetime(2016, 5, 3, 17, 22, 40, 123456, tzinfo=UTC)),
        (-1, datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        (-62135596800 * 10**9, datetime(1, 1, 1, tzinfo=UTC)),
        (253402300799999999999, datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        (-62135596800 * 10**9 - 1, None),
        (253402300800 * 10**9, None),
        (10**40, None),
        (-(10**40), None),
        (None, None),
    ],
)
def test_times_for_people(nanoseconds: int | None, moment: datetime | None) -> None:
    assert utc_from_ns(nanoseconds) == moment


@given(st.integers(-(2**62), 2**62))
@settings(deadline=None)
def test_times_are_cut_to_microseconds_never_rounded(nanoseconds: int) -> None:
    moment = utc_from_ns(nanoseconds)
    assert moment is not None
    assert moment.tzinfo is UTC
    assert (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) == nanoseconds // 1000


def test_a_kept_problem_holds_nothing_of_what_was_being_read() -> None:
    log = ProblemLog()

    def read() -> None:
        try:
            bytes(1)[1]
        except IndexError as error:
            raise DamagedData("too short", origin=DISK) from error

    try:
        read()
    except DamagedData as error:
        log.add(DISK, error)
    (problem,) = log.rows
    assert isinstance(problem.error.__cause__, IndexError)
    assert problem.error.__traceback__ is problem.error.__cause__.__traceback__ is None
