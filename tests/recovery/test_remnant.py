"""What a remnant tells of itself."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from forensics_lib.errors import NotAFile
from forensics_lib.recovery.remnant import Remnant
from forensics_lib.table import Table
from tests.recovery.scene import remnant


def test_content_and_digest() -> None:
    row = remnant(b"dropped", "tmp/.x/payload.sh")
    assert row.read() == b"dropped"
    with row.open() as file:
        assert file.read(4) == b"drop"
    assert row.sha256 == hashlib.sha256(b"dropped").hexdigest()


def test_metadata_only() -> None:
    row = remnant(None, "etc/passwd", deleted_ns=1_795_276_800_000_000_000)
    assert row.sha256 is None
    assert row.deleted == datetime(2026, 11, 21, 16, 0, tzinfo=UTC)
    assert not row.complete
    with pytest.raises(NotAFile, match="nothing but metadata"):
        row.read()


def test_rows_of_a_table() -> None:
    table = Table(Remnant, [remnant(b"1", "a"), remnant(None, "b")], name="remnants")
    assert [row.path for row in table.where(complete=True)] == ["a"]
    assert "confidence" in table.columns
