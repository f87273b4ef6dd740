"""Changesets: every rule of the specification, as `docker save` archive and as OCI layout."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import forensics_lib as fl
from forensics_lib.trees.base import NodeKind, Tree
from tests.imagemaker import Recipe, oci_layout, write_folder
from tests.samples import CHANGESETS, unpack
from tests.tarmaker import TarMaker

# What each layer does to each path, from the rules: "A /a" is an addition, "C /a" a change, "D /a" a deletion.
# A layer's directory entry that repeats what is there already changes nothing.
CHANGES: dict[str, tuple[str, ...]] = {
    "abs-names": ("A /a", "D /a, A /b"),
    "char00-overlay-whiteout": ("A /a", "C /a"),
    "dir-over-file": ("A /d", "C /d, A /d/x"),
    "dir-over-symlink": ("A /l, A /t, A /t/keep", "C /l, A /l/new"),
    "dot-slash-names": ("C /, A /a", "D /a, A /b"),
    "dotdot-escape": ("A /evil, A /ok",),
    "dotdot-inside": ("A /a, A /d",),
    "dup-entry-last-wins": ("A /a",),
    "file-over-dir": ("A /d, A /d/x", "C /d, D /d/x"),
    "file-through-symlink": ("A /l, A /t", "C /l, A /l/new"),
    "hardlink-lower-layer": ("A /a", "A /b"),
    "hardlink-same-layer": ("A /a, A /b",),
    "hardlink-then-replace-source": ("A /a, A /b", "C /a"),
    "hardlink-then-wh-source": ("A /a, A /b", "D /a"),
    "implicit-parents": ("A /x, A /x/y, A /x/y/z",),
    "opq-first": ("A /d, A /d/old", "A /d/new, D /d/old"),
    "opq-last": ("A /d, A /d/old", "A /d/new, D /d/old"),
    "opq-nested": ("A /a, A /a/b, A /a/b/c, A /a/b/c/bar", "D /a/b/c/bar, A /a/b/c/foo"),
    "opq-no-dir-entry": ("A /d, A /d/old", "A /d/new, D /d/old"),
    "opq-over-symlink": ("A /l, A /t, A /t/keep", "C /l, A /l/new"),
    "opq-prefix-name": ("A /etc, A /etc/passwd", ""),
    "opq-root": ("A /old", "A /new, D /old"),
    "parent-wh-child-add": ("A /d, A /d/old", "C /d, A /d/new, D /d/old"),
    "pax-overlay-opaque": ("A /d, A /d/old", "C /d, A /d/new"),
    "wh-after-same-name": ("A /a", "C /a"),
    "wh-as-directory-type": ("A /a, A /z", "D /a"),
    "wh-bare": ("A /etc, A /etc/passwd", ""),
    "wh-before-same-name": ("A /a", "C /a"),
    "wh-dir-after-recreate": ("A /d, A /d/old", "A /d/new, D /d/old"),
    "wh-dir-before-recreate": ("A /d, A /d/old", "A /d/new, D /d/old"),
    "wh-in-base-layer": ("A /a", "A /c"),
    "wh-missing-target": ("A /a", ""),
    "wh-plnk-meta": ("A /a", "A /b"),
    "wh-simple": ("A /d, A /d/a, A /d/b", "D /d/a"),
    "wh-then-readd-later": ("A /a", "D /a", "A /a"),
    "wh-through-symlink": ("A /l, A /t, A /t/f", ""),
}
# Where the specification is silent, the library's own rule: names are literal, links of lower layers are not followed.
SILENT: dict[str, dict[str, str]] = {
    "char00-overlay-whiteout": {"a": "<char>"},
    "dotdot-escape": {"evil": "1", "ok": "2"},
    "file-through-symlink": {"t/": "", "l/": "", "l/new": "n"},
    "pax-overlay-opaque": {"d/": "", "d/old": "1", "d/new": "2"},
    "wh-through-symlink": {"l": "<symlink>", "t/": "", "t/f": "1"},
}
REMARKS = {
    "char00-overlay-whiteout": "an overlay whiteout (device 0:0) in a layer archive deletes nothing",
    "dotdot-escape": "name leads out of the archive",
    "dotdot-inside": "name contains '..'",
    "dup-entry-last-wins": "stored more than once in the layer",
    "file-through-symlink": "/l (symlink) gives way to a directory for /l/new",
    "opq-prefix-name": "bookkeeping of AUFS",
    "pax-overlay-opaque": "trusted.overlay.opaque in a layer archive has no effect",
    "wh-bare": "a whiteout without a name is ignored",
    "wh-plnk-meta": "bookkeeping of AUFS",
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(CHANGESETS, tmp_path_factory.mktemp("changesets"))


@pytest.fixture(params=["docker.tar", "oci"])
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def listing(tree: Tree) -> dict[str, str]:
    found = {}
    for node in tree.walk():
        name = node.path.lstrip("/")
        if name and node.kind is NodeKind.DIR:
            found[name + "/"] = ""
        elif name:
            found[name] = node.read().decode() if node.kind is NodeKind.FILE else f"<{node.kind}>"
    return found


def expected(case: Path) -> dict[str, Any] | None:
    answer: dict[str, Any] | None = json.loads((case / "expected.json").read_text())["spec_expected"]
    return answer


def test_every_case_is_known(cases: Path) -> None:
    assert {path.parent.name for path in cases.glob("*/expected.json")} == set(CHANGES)
    assert {path.parent.name for path in cases.glob("*/expected.json") if expected(path.parent) is None} == set(SILENT)


@pytest.mark.parametrize("case", CHANGES)
def test_merged_tree(cases: Path, case: str, shape: str) -> None:
    with fl.open(cases / case / shape) as evidence:
        assert listing(evidence.images[0].tree()) == (expected(cases / case) or SILENT[case])


@pytest.mark.parametrize("case", CHANGES)
def test_changes(cases: Path, case: str, shape: str) -> None:
    with fl.open(cases / case / shape) as evidence:
        layers = evidence.images[0].layers
        assert tuple(", ".join(f"{c.kind} {c.path}" for c in layer.changes()) for layer in layers) == CHANGES[case]


@pytest.mark.parametrize("case", CHANGES)
def test_remarks(cases: Path, case: str, shape: str) -> None:
    with fl.open(cases / case / shape) as evidence:
        evidence.images[0].tree()
        messages = [problem.message for problem in evidence.problems]
    if case in REMARKS:
        assert REMARKS[case] in messages[0]
    else:
        assert messages == []


def replayed(image: fl.Image) -> Iterator[str]:
    """The paths that are left when the changes of all layers are done by hand."""
    present = {"/"}
    for layer in image.layers:
        for change in layer.changes():
            present.discard(change.path)
            if change.kind is not fl.ChangeKind.DELETED:
                present.add(change.path)
    yield from sorted(present)


@pytest.mark.parametrize("case", CHANGES)
def test_changes_add_up_to_the_tree(cases: Path, case: str, shape: str) -> None:
    with fl.open(cases / case / shape) as evidence:
        image = evidence.images[0]
        assert sorted(node.path for node in image.tree().walk()) == list(replayed(image))
        for layer in image.layers:
            for change in layer.changes():
                assert (change.node is None) == (change.kind is fl.ChangeKind.DELETED)
                assert (change.previous is None) == (change.kind is fl.ChangeKind.ADDED)
                assert bool(change.what) == (change.kind is fl.ChangeKind.CHANGED)


@pytest.mark.parametrize("name", ["file", ".wh..wh..opq"])
def test_paths_deeper_than_any_file_system_has_cost_no_memory(tmp_path: Path, name: str) -> None:
    layer = TarMaker("pax").file("d/" * 6_000 + name, b"").file("kept", b"1").end()  # its parents make 36 MB of names
    with fl.open(write_folder(oci_layout(Recipe([layer])), tmp_path / "layout")) as evidence:
        (image,) = evidence.images
        tracemalloc.start()
        try:
            assert [node.path for node in image.tree().walk()] == ["/", "/kept"]
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()
        (problem,) = evidence.problems
        assert isinstance(problem.error, fl.LimitExceeded)
