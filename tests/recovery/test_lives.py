"""Which life of a number is meant at a certain time."""

from __future__ import annotations

from forensics_lib.formats.ext4_inode import ExtInode, decode_inode
from forensics_lib.recovery.lives import Life, LifeTable

INODE = decode_inode(7, bytes(256), 0)


class Table(LifeTable[ExtInode]):
    def __init__(self, *spans: tuple[int, int | None]) -> None:
        super().__init__()
        self._lives[7] = [Life(7, order, first, -1, INODE, 0, ended) for order, (first, ended) in enumerate(spans)]


def orders(table: Table, sequence: int) -> tuple[int | None, int | None]:
    was, had_been = table.at(7, sequence), table.gone(7, sequence)
    return was.order if was else None, had_been.order if had_been else None


def test_what_is_there_and_what_had_been_there() -> None:
    table = Table((2, 4), (9, None))
    assert orders(table, 3) == (0, 0)
    assert orders(table, 4) == (1, 0)  # its number was free by then, and what had been there was the first
    assert orders(table, 8) == (1, 0)
    assert orders(table, 9) == (1, 1)


def test_what_is_known_late_only_may_have_been_there_before() -> None:
    assert orders(Table((5, 5)), 3) == (0, 0)


def test_a_number_without_lives() -> None:
    assert (Table().gone(8, 1), Table().at(8, 1)) == (None, None)
