"""The records of layers: names that could lead elsewhere, chains that end or turn back, leftovers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.engines.docker.layerdb import LayerDb
from forensics_lib.engines.docker.root import DataRoot
from forensics_lib.model import ProblemLog
from forensics_lib.trees.base import NodeKind
from forensics_lib.trees.documents import DocumentReader
from tests.engines.docker.dataroot import chain, digest, hexid
from tests.engines.docker.rootmaker import Made, RootMaker
from tests.trees.layers import entry, folder, link, tree

HOME = "/image/overlay2/layerdb"
BASE, TOP = digest("base"), digest("top")
TOP_CHAIN = chain(BASE, TOP)
DIRECTORY = hexid("directory")


def opened(entries: Mapping[str, Made]) -> tuple[LayerDb, ProblemLog]:
    problems = ProblemLog()
    host = tree("host", {f"{HOME}/{name}": made for name, made in entries.items()})
    return LayerDb(DocumentReader(host, problems), DataRoot("/", "test"), "overlay2"), problems


def layer(
    chain_id: str, diff_id: str = BASE, parent: str = "", *, changes: Mapping[str, bytes] | None = None
) -> dict[str, Made]:
    files = {"diff": diff_id.encode(), "cache-id": DIRECTORY.encode(), "size": b"12", "parent": parent.encode()}
    record = f"sha256/{chain_id.removeprefix('sha256:')}"
    return {f"{record}/{name}": made for name, made in (files | dict(changes or {})).items() if made}


def messages(problems: ProblemLog) -> list[str]:
    return [row.message for row in problems.rows]


def test_a_layer() -> None:
    layers, problems = opened(layer(BASE) | layer(TOP_CHAIN, TOP, BASE))
    record = layers.layers[TOP_CHAIN]
    assert (record.diff_id, record.parent, record.cache_id, record.size) == (TOP, BASE, DIRECTORY, 12)
    assert record.path == f"{HOME}/sha256/{TOP_CHAIN[7:]}"
    assert str(record.origin).endswith(f"image/overlay2/layerdb/sha256/{TOP_CHAIN[7:]}")
    assert [one.chain_id for one in layers.chain(TOP_CHAIN)] == [TOP_CHAIN, BASE]
    assert layers.by_cache_id[DIRECTORY].cache_id == DIRECTORY
    assert not problems.rows


def test_text_files_may_end_with_a_newline() -> None:
    layers, _ = opened(layer(BASE, changes={"cache-id": DIRECTORY.encode() + b"\n", "size": b"12\n"}))
    assert (layers.layers[BASE].cache_id, layers.layers[BASE].size) == (DIRECTORY, 12)


@pytest.mark.parametrize("size", [b"", b"-1", b"12 bytes", b"9" * 30, b"\xff"])
def test_sizes_that_are_none(size: bytes) -> None:
    layers, _ = opened(layer(BASE, changes={"size": size}))
    assert layers.layers[BASE].size is None


def test_everything_of_a_record_is_missing() -> None:
    layers, problems = opened({f"sha256/{BASE[7:]}": folder()})
    record = layers.layers[BASE]
    assert (record.diff_id, record.parent, record.cache_id, record.size) == ("", "", "", None)
    assert layers.by_cache_id == {}
    assert not problems.rows


@pytest.mark.parametrize("name", [b"../../etc", b"..", b".", b"/etc", b"a/b", b"a\0b", b"x" * 256, b"\xff", b"a b"])
def test_a_directory_name_that_leads_elsewhere_is_refused(name: bytes) -> None:
    layers, problems = opened(layer(BASE, changes={"cache-id": name}))
    assert layers.layers[BASE].cache_id == ""
    assert [message.startswith("no name of a directory") for message in messages(problems)] == [True]


@pytest.mark.parametrize("name", ["a" * 25, "d" * 64, f"{DIRECTORY}-init", "windows.1"])
def test_directory_names_of_all_engines(name: str) -> None:
    layers, problems = opened(layer(BASE, changes={"cache-id": name.encode()}))
    assert layers.layers[BASE].cache_id == name
    assert not problems.rows


@pytest.mark.parametrize("name", ["sha256/notes", f"sha256/{'A' * 64}/diff", "sha256/" + "1" * 63, "sha512/x"])
def test_other_names_are_no_layers(name: str) -> None:
    layers, problems = opened({name: b"x"})
    assert layers.layers == {}
    assert not problems.rows


def test_a_parent_that_is_missing_ends_the_chain() -> None:
    layers, problems = opened(layer(TOP_CHAIN, TOP, BASE))
    assert [one.chain_id for one in layers.chain(TOP_CHAIN)] == [TOP_CHAIN]
    assert messages(problems) == [f"layer {BASE} is missing"]


@pytest.mark.parametrize("parent", [TOP_CHAIN, BASE])
def test_a_circle_of_parents_ends(parent: str) -> None:
    layers, problems = opened(layer(BASE, parent=parent) | layer(TOP_CHAIN, TOP, BASE))
    assert [one.chain_id for one in layers.chain(TOP_CHAIN)] == [TOP_CHAIN, BASE]
    assert messages(problems) == [f"layer {parent} leads in a circle"]


def test_no_chain_of_nothing() -> None:
    layers, problems = opened({})
    assert layers.chain("") == []
    assert not problems.rows
    assert layers.chain("sha256:x") == []
    assert len(problems.rows) == 1


def test_leftovers_of_interrupted_removals_and_pulls() -> None:
    removing = f"sha256/{BASE[7:]}-{hexid('random')}-removing"
    layers, _ = opened(
        {
            f"{removing}/diff": BASE.encode(),
            f"{removing}/cache-id": DIRECTORY.encode(),
            "tmp/write-set-1/diff": TOP.encode(),
        }
    )
    assert layers.layers == {}
    assert [(one.chain_id, one.diff_id, one.cache_id) for one in layers.removing] == [(BASE, BASE, DIRECTORY)]
    assert [(one.chain_id, one.diff_id, one.cache_id) for one in layers.unfinished] == [("", TOP, "")]


def test_mounts() -> None:
    web, bare = hexid("web"), hexid("bare")
    layers, problems = opened(
        {
            f"mounts/{web}/mount-id": DIRECTORY.encode(),
            f"mounts/{web}/init-id": f"{DIRECTORY}-init".encode(),
            f"mounts/{web}/parent": BASE.encode(),
            f"mounts/{bare}": folder(),
            f"mounts/{hexid('evil')}/mount-id": b"../../../../etc",
            "mounts/file": b"",
        }
    )
    found = {name: (one.mount_id, one.init_id, one.parent) for name, one in layers.mounts.items()}
    assert found == {
        web: (DIRECTORY, f"{DIRECTORY}-init", BASE),
        bare: ("", "", ""),
        hexid("evil"): ("", "", ""),
    }
    assert len(problems.rows) == 1


@pytest.mark.parametrize("made", [link("/etc/hostname"), entry(NodeKind.FIFO, 0o600, None), folder()])
def test_what_is_no_file_is_not_read(made: Made) -> None:
    layers, _ = opened({f"mounts/{hexid('web')}/mount-id": made})
    assert layers.mounts[hexid("web")].mount_id == ""


def test_layers_of_a_made_root() -> None:
    root = RootMaker(at="/")
    base = root.layer({"/a": b"1"})
    top = root.layer({"/b": b"22"}, base)
    layers = LayerDb(DocumentReader(root.tree(), ProblemLog(strict=True)), DataRoot("/", "test"), "overlay2")
    assert [(one.diff_id, one.size) for one in layers.chain(top.chain_id)] == [(top.diff_id, 2), (base.diff_id, 1)]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), max_size=6), st.sampled_from("abcd"))
def test_any_chain_ends(links: list[tuple[str, str]], start: str) -> None:
    entries: dict[str, Made] = {}
    for child, parent in links:
        entries |= layer(digest(child), parent=digest(parent))
    layers, _ = opened(entries)
    found = [one.chain_id for one in layers.chain(digest(start))]
    assert len(found) == len(set(found)) <= 4
