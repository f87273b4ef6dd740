from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forensics_lib import custody as custody_module
from forensics_lib._version import __version__
from forensics_lib.custody import Custody, CustodyEntry, verify_custody
from forensics_lib.errors import PathNotFound, VerificationFailed


@pytest.fixture
def custody() -> Custody:
    record = Custody()
    record.record("open", "disk.E01", size=4096, kind="disk-image", strict=False)
    record.record("extract", "/etc/caf\udce9", sha256="00", to=None, names=["a", 1, True, None])
    record.record("close", "disk.E01")
    return record


@pytest.fixture
def saved(custody: Custody, tmp_path: Path) -> Path:
    path = tmp_path / "custody.jsonl"
    custody.save(path)
    return path


def broken(path: Path) -> list[str]:
    """Where the broken lines are, e.g. ``line 2``, and what is wrong with them."""
    return [f"{check.origin.label}: {check.subject.split()[-1]}" for check in verify_custody(path).where(ok=False)]


def rewrite(path: Path, number: int, **members: object) -> None:
    """Change members of one line and give it the digest that fits."""
    lines = path.read_text().splitlines()
    entry = json.loads(lines[number - 1]) | members
    del entry["digest"]
    entry["digest"] = hashlib.sha256(json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    lines[number - 1] = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    path.write_text("\n".join(lines) + "\n")


# --- recording -------------------------------------------------------------------------------------------------------


def test_the_first_entry_records_the_versions(custody: Custody) -> None:
    first = custody.entries[0]
    assert (first.sequence, first.action, first.subject, first.previous) == (1, "session", "forensics_lib", "0" * 64)
    versions = json.loads(first.details)
    assert versions["forensics_lib"] == __version__
    assert versions["python"].endswith(platform.python_version())
    assert versions["platform"] == f"{platform.system()} {platform.release()} {platform.machine()}"
    assert {"isal", "oras", "yara-python", "python-magic", "pytsk3"} < versions.keys()


def test_packages_that_are_not_installed_are_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package == "pytsk3":
            raise metadata.PackageNotFoundError(package)
        return "1.2"

    monkeypatch.setattr(metadata, "version", version)
    record = Custody()
    record.record("open", "x")
    versions = json.loads(record.entries[0].details)
    assert (versions["pytsk3"], versions["isal"]) == ("not installed", "1.2")


def test_entries_hold_what_was_recorded(custody: Custody) -> None:
    before = datetime.now(UTC) - timedelta(minutes=5)
    assert [entry.action for entry in custody.entries] == ["session", "open", "extract", "close"]
    assert [entry.sequence for entry in custody.entries] == [1, 2, 3, 4]
    assert custody.entries[1].details == '{"kind":"disk-image","size":4096,"strict":false}'
    assert json.loads(custody.entries[2].details) == {"sha256": "00", "to": None, "names": ["a", 1, True, None]}
    assert custody.entries[2].subject == "/etc/caf\udce9"
    assert custody.entries[3].details == "{}"
    assert all(before < entry.time <= datetime.now(UTC) for entry in custody.entries)
    assert all(entry.time.utcoffset() == timedelta(0) for entry in custody.entries)


def test_a_new_entry_is_the_last_of_the_chain(custody: Custody) -> None:
    custody.record("hash", "disk.E01", algorithms=("md5", "sha1"))
    entry = custody.entries[-1]
    assert entry.previous == custody.entries[-2].digest
    assert entry.digest == custody.digest
    assert entry.details == '{"algorithms":["md5","sha1"]}'


def test_entries_are_a_snapshot(custody: Custody) -> None:
    entries = custody.entries
    custody.record("later", "x")
    assert len(entries) == 4
    assert entries.columns == ("sequence", "time", "action", "subject", "details", "previous", "digest")


def test_an_empty_record() -> None:
    record = Custody()
    assert not record.entries
    assert record.digest == "0" * 64
    assert [check.ok for check in record.verify()] == [False]


def test_details_that_json_does_not_know_leave_no_trace() -> None:
    record = Custody()
    with pytest.raises(TypeError):
        record.record("open", "x", raw=b"bytes")
    with pytest.raises(ValueError, match="JSON"):
        record.record("open", "x", ratio=float("nan"))  # type: ignore[arg-type]
    assert not record.entries


def test_entries_too_long_to_be_read_back_are_refused(monkeypatch: pytest.MonkeyPatch, custody: Custody) -> None:
    monkeypatch.setattr(custody_module, "_LONGEST_LINE", 1000)
    with pytest.raises(ValueError, match="the limit is 1000"):
        custody.record("open", "x" * 1000)
    assert len(custody.entries) == 4


def test_threads_make_one_chain() -> None:
    record = Custody()

    def work() -> None:
        for number in range(50):
            record.record("hash", "file", number=number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(record.entries) == 201
    assert all(check.ok for check in record.verify())


# --- the saved file --------------------------------------------------------------------------------------------------


def test_the_file_can_be_checked_by_hand(saved: Path, custody: Custody) -> None:
    previous = "0" * 64
    lines = saved.read_bytes().split(b"\n")
    assert lines.pop() == b""
    for line, entry in zip(lines, custody.entries, strict=True):
        assert line.isascii()
        members = json.loads(line)
        digest = members.pop("digest")
        canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode("ascii")
        assert hashlib.sha256(canonical).hexdigest() == digest == entry.digest
        assert members["previous"] == previous
        assert members["time"].endswith("+00:00")
        previous = digest


def test_saving_again_only_adds(saved: Path, custody: Custody) -> None:
    before = saved.read_bytes()
    custody.save(saved)
    assert saved.read_bytes() == before
    custody.record("open", "again")
    custody.save(str(saved))
    assert saved.read_bytes().startswith(before)
    assert [check.ok for check in verify_custody(saved)] == [True] * 5


def test_a_torn_file_is_completed(saved: Path, custody: Custody) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[:-40])
    custody.save(saved)
    assert saved.read_bytes() == whole


def test_other_files_are_left_alone(saved: Path, custody: Custody, tmp_path: Path) -> None:
    longer = Custody.load(saved)
    longer.record("more", "x")
    longer.save(saved)
    notes = tmp_path / "notes.txt"
    notes.write_bytes(b"my notes")
    for path in (saved, notes):
        before = path.read_bytes()
        with pytest.raises(VerificationFailed, match="is not the beginning of this custody record"):
            custody.save(path)
        assert path.read_bytes() == before


def test_loading_gives_the_same_entries(saved: Path, custody: Custody) -> None:
    loaded = Custody.load(saved)
    assert list(loaded.entries) == list(custody.entries)
    assert loaded.digest == custody.digest


def test_a_loaded_record_is_continued_with_the_versions_in_use(saved: Path) -> None:
    loaded = Custody.load(saved)
    loaded.record("open", "disk.E01")
    loaded.save(saved)
    assert [entry.action for entry in Custody.load(saved).entries][4:] == ["session", "open"]
    assert broken(saved) == []


def test_a_missing_file() -> None:
    for use in (Custody.load, verify_custody):
        with pytest.raises(PathNotFound):
            use("no/such/custody.jsonl")


# --- tampering -------------------------------------------------------------------------------------------------------


def test_an_untouched_file_has_one_good_check_per_line(saved: Path) -> None:
    checks = list(verify_custody(saved))
    assert [check.ok for check in checks] == [True] * 4
    assert [check.subject for check in checks] == [f"entry {number} digest" for number in (1, 2, 3, 4)]
    assert checks[1].origin.offset == saved.read_bytes().index(b"\n") + 1
    assert str(checks[1].origin).startswith(f"{saved} > line 2 @")


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    record = Custody()
    record.record("open", "disk.E01", size=1)
    path = tmp_path / "custody.jsonl"
    record.save(path)
    whole = path.read_bytes()
    for position, byte in enumerate(whole):
        # One bit, another case of a letter, white space, a line end: what a parser might forgive.
        for changed in {byte ^ 1, byte ^ 0x20, 0x20, 0x0A} - {byte}:
            path.write_bytes(whole[:position] + bytes([changed]) + whole[position + 1 :])
            assert broken(path), (position, changed)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_change_of_bytes_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    record = Custody()
    record.record("open", "é\udcff")
    path = tmp_path_factory.mktemp("custody") / "custody.jsonl"
    record.save(path)
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole) - 1))
    stop = data.draw(st.integers(start, min(len(whole), start + 9)))
    edited = whole[:start] + data.draw(st.binary(max_size=8)) + whole[stop:]
    first_line = whole.index(b"\n") + 1
    if edited not in (whole, whole[:first_line]):  # a whole line cut off the end cannot be seen
        path.write_bytes(edited)
        assert broken(path)
        with pytest.raises(VerificationFailed):
            Custody.load(path)


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_any_bytes_give_checks(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("custody") / "custody.jsonl"
    path.write_bytes(content)
    assert broken(path)


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"time":"0001-01-01T00:00:00+05:00","action":"","subject":"","previous":"","digest":"","sequence":1}',
        b"[]",
        b"7",
        b'{"details":NaN}',
        b'{"sequence":' + b"9" * 5000 + b"}",
    ],
)
def test_hostile_lines_are_broken_lines(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "custody.jsonl"
    path.write_bytes(line + b"\n")
    assert broken(path) == ["line 1: form"]


def test_a_changed_entry_is_named_alone(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes().replace(b'"size":4096', b'"size":4097'))
    assert broken(saved) == ["line 2: digest"]


def test_a_changed_entry_with_a_new_digest_breaks_the_link(saved: Path) -> None:
    rewrite(saved, 2, subject="other.E01")
    assert broken(saved) == ["line 3: previous"]


def test_a_removed_line(saved: Path) -> None:
    lines = saved.read_bytes().splitlines(keepends=True)
    saved.write_bytes(b"".join(lines[:1] + lines[2:]))
    assert broken(saved) == ["line 2: previous"]
    saved.write_bytes(b"".join(lines[1:]))
    assert broken(saved) == ["line 1: previous"]


def test_exchanged_and_repeated_lines(saved: Path) -> None:
    one, two, three, four = saved.read_bytes().splitlines(keepends=True)
    saved.write_bytes(one + three + two + four)
    assert broken(saved) == ["line 2: previous", "line 3: previous", "line 4: previous"]
    saved.write_bytes(one + two + two + three + four)
    assert broken(saved) == ["line 3: previous"]


def test_a_wrong_number(saved: Path) -> None:
    rewrite(saved, 4, sequence=9)
    assert broken(saved) == ["line 4: sequence"]


@pytest.mark.parametrize("members", [{"sequence": True}, {"action": 5}, {"more": 1}, {"time": "2024-01-01T00:00:00"}])
def test_members_of_wrong_types(saved: Path, members: dict[str, object]) -> None:
    rewrite(saved, 4, **members)
    assert broken(saved) == ["line 4: form"]


def test_an_empty_file_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "custody.jsonl"
    path.touch()
    (check,) = verify_custody(path)
    assert (check.ok, check.expected) == (False, "at least one entry")


def test_a_long_line_is_not_read_whole(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custody_module, "_LONGEST_LINE", 1000)
    saved.write_bytes(b"x" * 2500 + b"\n")
    assert broken(saved) == ["line 1: form", "line 2: form", "line 3: form"]


def test_loading_names_the_broken_line(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes().replace(b'"size":4096', b'"size":4097'))
    with pytest.raises(VerificationFailed, match=r"line 2 @\d+: entry 2 digest") as caught:
        Custody.load(saved)
    assert len(caught.value.expected) == 64
    assert caught.value.actual not in ("", caught.value.expected)


def test_a_record_changed_in_memory_is_found(custody: Custody) -> None:
    first, second, *rest = custody.entries
    forged = CustodyEntry(2, second.time, "open", "other.E01", second.details, second.previous, second.digest)
    custody._entries[:] = [first, forged, *rest]
    assert [check.ok for check in custody.verify()] == [True, False, True, True]


def test_importing_is_cheap() -> None:
    code = (
        "import sys, forensics_lib.custody as c; c.Custody();"
        "heavy = {'platform', 'importlib.metadata', 'email', 'subprocess', 'pandas', 'polars', 'pyarrow', 'oras'};"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
