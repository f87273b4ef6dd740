"""YARA rules over everything. The rules look for invented, harmless texts."""

from __future__ import annotations

from pathlib import Path

import pytest

import forensics_lib as fl
from forensics_lib.analysis.inventory import Inventory, TarStream
from forensics_lib.analysis.scan import rules_name, scan
from forensics_lib.errors import DamagedData, LimitExceeded, PathNotFound, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.decompress import Compression, Limits
from tests.imagemaker import Recipe, docker_save, write_tar
from tests.tarmaker import TarMaker

yara = pytest.importorskip("yara")

MARKER = "HARMLESS-TEST-MARKER"
RULE = """
rule marker : test harmless {
    meta:
        author = "first"
        author = "second"
        score = 75
        sure = true
    strings:
        $text = "HARMLESS-TEST-MARKER" ascii wide
        $number = /id=[0-9]{3}/
    condition:
        $text and #number >= 0
}
"""
CONTENT = b"id=007 " + MARKER.encode() + b" and " + MARKER.encode()


def inventory(*layers: bytes, strict: bool = False) -> Inventory:
    streams = []
    for index, layer in enumerate(layers):
        source = BytesSource(layer, Origin(f"layer{index}"))
        streams.append(TarStream(f"layer{index}", "", source, Compression.NONE, source.origin, Limits()))
    return Inventory("evidence", ProblemLog(strict=strict), streams=tuple(streams))


def messages(what: Inventory) -> list[str]:
    return [problem.message for problem in what.problems.rows]


def paths(what: Inventory, rules: str | Path) -> list[tuple[str, str]]:
    return [(match.rule, match.path) for match in scan(what, rules)]


def test_a_match_says_where_and_why() -> None:
    rows = list(scan(inventory(TarMaker().file("clean", b"nothing").file("bad", CONTENT).end()), RULE))
    assert len(rows) == 1
    match = rows[0]
    assert (match.owner, match.path, match.rule, match.namespace) == ("layer0", "/bad", "marker", "default")
    assert match.tags == ("test", "harmless")
    assert match.meta == (("author", "first"), ("author", "second"), ("score", 75), ("sure", True))
    assert match.strings == (
        ("$text", 7, MARKER.encode()),
        ("$text", 32, MARKER.encode()),
        ("$number", 0, b"id=007"),
    )
    assert match.size == len(CONTENT)
    assert str(match.origin) == "layer0 > tar header @1024"


def test_hidden_and_repeated_files_match_too() -> None:
    first = TarMaker().file("a", CONTENT).hardlink("b", "a").end()
    second = TarMaker().file(".wh.a").file("copy", CONTENT).end()
    rows = list(scan(inventory(first, second), RULE))
    assert [(row.owner, row.path) for row in rows] == [("layer0", "/a"), ("layer0", "/b"), ("layer1", "/copy")]
    assert len({(row.sha256, row.strings) for row in rows}) == 1


def test_evidence_gives_a_table_and_a_record(tmp_path: Path) -> None:
    layers = [TarMaker().file("a", CONTENT).end(), TarMaker().file(".wh.a").end()]
    archive = write_tar(docker_save(Recipe(layers, ["acme/web:1.0"])), tmp_path / "web.tar")
    with fl.open(archive) as evidence:
        matches = evidence.scan(RULE, timeout=30)
        assert [row.path for row in matches] == ["/a"]
        assert matches[0].owner == evidence.images[0].layers[0].diff_id
        assert matches.columns[:4] == ("owner", "path", "rule", "namespace")
        entry = evidence.custody.entries[-1]
        assert entry.action == "scan"
        assert rules_name(RULE) in entry.details
        with pytest.raises(DamagedData, match="undefined string"):
            evidence.scan("rule broken { condition: $nothing }")  # at once, before anything is read


def test_rules_from_a_file_a_folder_and_compiled(tmp_path: Path) -> None:
    layer = TarMaker().file("bad", CONTENT).end()
    file = tmp_path / "one.rule"
    file.write_text(RULE)
    compiled = tmp_path / "compiled"
    yara.compile(source=RULE).save(str(compiled))
    for rules in (RULE, file, str(file), compiled, yara.compile(source=RULE)):
        assert paths(inventory(layer), rules) == [("marker", "/bad")]
    folder = tmp_path / "rules"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.yar").write_text(RULE)
    (folder / "deep" / "b.YARA").write_text(RULE)
    (folder / "notes.txt").write_text("no rules")
    rows = list(scan(inventory(layer), folder))
    assert [(row.rule, row.namespace) for row in rows] == [("marker", "a.yar"), ("marker", "deep/b.YARA")]


def test_a_broken_file_of_rules_is_a_problem_and_the_others_run(tmp_path: Path) -> None:
    (tmp_path / "bad.yar").write_text("rule broken {")
    (tmp_path / "good.yar").write_text(RULE)
    (tmp_path / "named.yar").write_text('rule named { condition: filename == "bad" }')
    what = inventory(TarMaker().file("bad", CONTENT).end())
    assert sorted(paths(what, tmp_path)) == [("marker", "/bad"), ("named", "/bad")]
    assert len(messages(what)) == 1
    assert "bad.yar: no YARA rules that compile" in messages(what)[0]
    assert str(what.problems.rows[0].origin) == f"{tmp_path.name} > bad.yar"
    with pytest.raises(DamagedData):
        scan(inventory(strict=True), tmp_path)


def test_rules_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match="no file of rules"):
        scan(inventory(), tmp_path)
    with pytest.raises(PathNotFound):
        scan(inventory(), tmp_path / "missing.yar")
    (tmp_path / "bad.yar").write_text("rule broken {")
    for rules in (tmp_path, tmp_path / "bad.yar", "rule broken { condition: nowhere }"):
        with pytest.raises(DamagedData, match="no YARA rules that compile"):
            scan(inventory(), rules)
    (tmp_path / "old").write_bytes(b"YARA" + bytes(100))
    with pytest.raises(UnsupportedFormat, match="compiled rules"):
        scan(inventory(), tmp_path / "old")


NAMED = """
rule by_name { condition: filename == "run.PHP" }
rule by_path { condition: filepath == "/var/www/run.PHP" }
rule by_extension { condition: extension == ".php" }
rule empty { condition: filetype == "" and owner == "" and md5 == "" and filename == "b" }
"""


@pytest.mark.parametrize("compiled", [False, True])
def test_rules_can_ask_for_the_name(compiled: bool, tmp_path: Path) -> None:
    rules: str | Path = NAMED
    if compiled:
        names = ("filename", "filepath", "extension", "filetype", "owner", "md5")
        yara.compile(source=NAMED, externals=dict.fromkeys(names, "")).save(str(tmp_path / "rules"))
        rules = tmp_path / "rules"
    layer = TarMaker("pax").file("var/www/run.PHP", b"same").file("b", b"same").file(b"\xff.php", b"same").end()
    assert sorted(paths(inventory(layer), rules)) == [
        ("by_extension", "/var/www/run.PHP"),
        ("by_extension", "/\udcff.php"),
        ("by_name", "/var/www/run.PHP"),
        ("by_path", "/var/www/run.PHP"),
        ("empty", "/b"),
    ]


def test_a_hidden_file_has_no_extension() -> None:
    layer = TarMaker().file("root/.bashrc").end()
    assert paths(inventory(layer), 'rule a { condition: extension == "" }') == [("a", "/root/.bashrc")]


def test_large_content_is_scanned_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forensics_lib.analysis.contents.IN_MEMORY", 1000)
    data = bytes(300_000) + MARKER.encode() + bytes(300_000)
    rows = list(scan(inventory(TarMaker().file("big", data).end()), RULE))
    assert [(row.size, row.strings) for row in rows] == [(len(data), (("$text", 300_000, MARKER.encode()),))]


def test_too_many_strings_are_cut_and_said() -> None:
    what = inventory(TarMaker().file("many", b"ab " * 1500).end())
    rows = list(scan(what, 'rule many { strings: $a = "ab" condition: $a }'))
    assert len(rows[0].strings) == 1000
    assert messages(what) == ["/many: rule many: the first 1000 strings are listed"]


def test_what_yara_gives_up_counting_is_said() -> None:
    what = inventory(TarMaker().file("many", b"a" * 1_100_000).end())
    rows = list(scan(what, 'rule many { strings: $a = "a" condition: $a }'))
    assert [row.rule for row in rows] == ["many"]
    assert any("stopped counting" in message for message in messages(what))


SLOW = "rule slow { strings: $a = /x.*y.*z.*w/ condition: $a }"


def test_a_timeout_is_a_problem_of_its_path() -> None:
    what = inventory(TarMaker().file("slow", b"x" * 20_000_000).file("quick", b"x y z w").end())
    assert [row.path for row in scan(what, SLOW, timeout=1)] == ["/quick"]
    assert messages(what) == ["/slow: scanning took longer than 1 seconds"]
    assert isinstance(what.problems.rows[0].error, LimitExceeded)


def test_rules_are_named_in_records(tmp_path: Path) -> None:
    assert rules_name(tmp_path / "a.yar") == str(tmp_path / "a.yar")
    assert rules_name("rules/a.yar") == "rules/a.yar"
    assert rules_name(yara.compile(source=RULE)) == "compiled rules"
    text = "rule empty { condition: false }"
    digest = "6ed7e4e6e08dd9dcdee8480e8fc1fdf6a5f52f2760ec71d7d8d33160fbb4c570"
    assert rules_name(text) == f"text of sha256 {digest}"
