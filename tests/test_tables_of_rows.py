"""Every table that the library returns converts, is saved and is shown, with rows and without."""

from __future__ import annotations

import ast
import csv
import json
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import polars
import pyarrow
import pyarrow.parquet
import pytest

import forensics_lib as fl
from forensics_lib.custody import Custody, verify_custody
from forensics_lib.engines.container import Container
from forensics_lib.recovery.remnant import Confidence, Remnant
from forensics_lib.registry import Referrer
from forensics_lib.sources.base import BytesSource
from tests.engines.docker.imageroot import DOCKER, ImageRoot, file, folder
from tests.formats.journals import journal
from tests.imagemaker import Layout, Recipe, write_tar
from tests.tarmaker import TarMaker

PACKAGE = Path(fl.__file__).parent
HOSTILE = "n\x1b[2J\n<b>=1\udcff"
LOG = b'{"log":"GET /\\n","stream":"stdout","time":"2024-02-29T12:00:02.000000001Z"}\n'
TOOL = {"schemaVersion": 2, "artifactType": "application/x-report", "config": {}, "layers": []}


def image_archive(path: Path) -> Path:
    base = TarMaker("pax").dir("etc/").file("etc/key", b"root s3cr3t").file(HOSTILE.encode("utf-8", "surrogateescape"))
    upper = TarMaker("pax").file("etc/.wh.key").file("etc/new", b"#!/bin/sh\n", xattrs={"user.k": b"\xff"})
    layout = Layout()
    layout.name(layout.manifest(Recipe([base.end(), upper.end()])), "acme/web:1.0")
    layout.name(layout.add(TOOL, "application/vnd.oci.image.manifest.v1+json"))
    layout.manifests.append({"digest": "sha256:" + "0" * 64})
    return write_tar(layout.files(), path)


def data_root(path: Path) -> Path:
    root = ImageRoot().layer({"etc": folder(), "etc/passwd": file(b"root")})
    root.run({"etc": folder(), "etc/passwd": file(b"toor"), "etc/new": file(b"1")})
    root.record["LogPath"] = f"/{DOCKER}/containers/{root.container}/{root.container}-json.log"
    root.host_config |= {"Privileged": True, "LogConfig": {"Type": "json-file"}}
    root.members[root.record["LogPath"].lstrip("/")] = file(LOG)
    root.members[f"{DOCKER}/volumes/data/_data"] = folder()
    root.members["etc/hostname"] = file(b"srv\n")
    root.members["var/log/journal/m/system.journal"] = file(journal("compact-keyed-zstd"))
    return root.write(path)


def remnants() -> fl.Table[Remnant]:
    origin = fl.Origin("disk")
    row = Remnant("file", "/x", "", "", "orphan", Confidence.INTACT, True, 1, origin, content=BytesSource(b"1", origin))
    return fl.Table(Remnant, [row])


class Found:
    """One evidence of each kind, and what is asked of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.archive = fl.open(image_archive(folder / "web.tar"))
        self.root = fl.open(data_root(folder / "root.tar"))
        self.image = self.archive.images[0]

    def container(self) -> Container:
        return self.root.containers[0]

    def entries(self) -> fl.Table[Any]:
        len(self.archive.hashes())
        return self.archive.custody.entries

    def custody(self) -> Custody:
        self.entries()
        return self.archive.custody

    def saved_custody(self) -> fl.Table[fl.Check]:
        path = self.folder / "custody.jsonl"
        self.custody().save(path)
        return verify_custody(path)


TABLES: dict[str, Callable[[Found], fl.Table[Any]]] = {
    "images": lambda f: f.archive.images,
    "images of an engine": lambda f: f.root.images,
    "layers": lambda f: fl.Table(fl.Layer, f.image.layers),
    "layers of an engine": lambda f: fl.Table(fl.Layer, f.root.images[0].layers),
    "nodes": lambda f: fl.Table(fl.Node, f.image.tree().walk()),
    "artifacts": lambda f: f.archive.artifacts,
    "history": lambda f: f.image.history(),
    "changes": lambda f: f.image.layers[1].changes(),
    "versions": lambda f: f.image.versions("/etc/key"),
    "hidden": lambda f: f.image.hidden(),
    "hashes": lambda f: f.archive.hashes(),
    "other hashes": lambda f: f.archive.hashes(algorithms=("sha512",)),
    "verify": lambda f: f.archive.verify(),
    "identify": lambda f: f.archive.identify(),
    "scan": lambda f: f.archive.scan('rule r: t { meta: m = 1 strings: $a = "root" condition: $a }'),
    "search": lambda f: f.archive.search(re.compile(rb"root|PATH")),
    "problems": lambda f: f.archive.problems,
    "extract": lambda f: f.archive.extract(f.image.tree(), "/", f.folder / "out"),
    "custody": Found.entries,
    "custody checks": lambda f: f.custody().verify(),
    "saved custody": Found.saved_custody,
    "host": lambda f: f.root.host,
    "journal": lambda f: f.root.journal(),
    "commands": lambda f: f.root.commands,
    "daemon log": lambda f: f.root.daemon_log,
    "audit": lambda f: f.root.audit,
    "file systems": lambda f: f.root.filesystems,
    "containers": lambda f: f.root.containers,
    "volumes": lambda f: f.root.volumes,
    "networks": lambda f: f.root.networks,
    "build cache": lambda f: f.root.build_cache,
    "build history": lambda f: f.root.build_history,
    "pull history": lambda f: f.root.pull_history,
    "owner": lambda f: f.root.owner(f.container().id),
    "findings": lambda f: f.container().findings,
    "facts": lambda _: fl.Table(
        fl.Fact, [fl.Fact("name", "web", fl.Sureness.LIKELY, "daemon log", "by its time", fl.Origin("docker.log"))]
    ),
    "diff": lambda f: f.container().diff(),
    "hidden changes": lambda f: f.container().hidden_changes(),
    "logs": lambda f: f.container().logs(),
    "extract from a container": lambda f: f.container().extract("/etc", f.folder / "out of container"),
    "remnants": lambda _: remnants(),
    "referrers": lambda _: fl.Table(Referrer, [Referrer("r@sha256:1", "sha256:1", 1, "m", "a", (("k", "v"),))]),
}
LEAD_ON = {"Image", "Layer", "Container", "FileSystem", "Volume", "Network"}  # asked where the evidence is open
MAY_BE_EMPTY = {"networks", "build cache", "build history", "pull history", "hidden changes"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    found = Found(tmp_path_factory.mktemp("tables"))
    yield found
    found.archive.close()
    found.root.close()


@pytest.fixture(scope="module")
def tables(found: Found) -> dict[str, fl.Table[Any]]:
    return {name: table(found) for name, table in TABLES.items()}


@pytest.fixture(params=TABLES)
def table(request: pytest.FixtureRequest, tables: dict[str, fl.Table[Any]]) -> fl.Table[Any]:
    found = tables[request.param]
    assert len(found) > 0 or request.param in MAY_BE_EMPTY
    return found


def test_every_row_type_is_here(tables: dict[str, fl.Table[Any]]) -> None:
    returned = set()
    for module in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.returns is not None:
                returned |= set(re.findall(r"\bTable\[([A-Z]\w+)\]", ast.unparse(node.returns)))
    assert returned - {"T_co"} <= {table.row_type.__name__ for table in tables.values()}


def test_frames(table: fl.Table[Any]) -> None:
    arrow = table.to_arrow()
    assert (arrow.num_rows, arrow.column_names) == (len(table), list(table.columns))
    assert arrow.validate(full=True) is None
    assert pyarrow.table(cast("Any", table)).equals(arrow)
    assert list(table.to_pandas().columns) == list(table.columns)
    assert len(table.to_pandas()) == len(table)
    assert table.to_polars().shape == polars.DataFrame(table).shape == (len(table), len(table.columns))


def test_files(table: fl.Table[Any], tmp_path: Path) -> None:
    with table.save(tmp_path / "t.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == list(table.columns)
    assert {len(line) for line in lines} <= {len(header)}
    with table.save(tmp_path / "t.jsonl").open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        objects = [json.loads(line) for line in file]
    assert [list(one) for one in objects] == [list(table.columns)] * len(table)
    assert len(lines) == len(table)
    assert pyarrow.parquet.read_table(table.save(tmp_path / "t.parquet")).equals(table.to_arrow())


def test_displays(table: fl.Table[Any]) -> None:
    page, text = table._repr_html_(), repr(table)
    assert len(page) < 100_000
    for shown in (page, text):
        assert "\x1b" not in shown
        assert "\udcff" not in shown
    assert "<b>" not in page
    assert max(map(len, text.splitlines())) <= 120


def test_empty_tables_have_the_types_of_full_ones(table: fl.Table[Any]) -> None:
    """So that the answers of several exhibits can be put together, also where one has none."""
    empty = fl.Table(table.row_type, []).to_arrow().schema
    for field in table.to_arrow().schema:
        if any(value is not None for value in table.to_arrow()[field.name].to_pylist()):
            assert empty.field(field.name).type == field.type or pyarrow.types.is_list(field.type), field.name


def test_rows_are_values(table: fl.Table[Any]) -> None:
    """They can be kept in sets, and sent to another process."""
    assert len(set(table)) == len(dict.fromkeys(table))
    if table.row_type.__name__ in LEAD_ON:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copies = pickle.loads(pickle.dumps(table))
    if table.row_type is not fl.Problem:  # exceptions are never equal to their copies
        assert list(copies) == list(table)
        assert (copies.name, copies.columns) == (table.name, table.columns)
    else:
        assert [str(copy) for copy in copies] == [str(row) for row in table]


def test_content_is_read_from_a_copy(found: Found) -> None:
    """A row that leads to content carries where that is, not the content."""
    copy = pickle.loads(pickle.dumps(found.image.hidden()[0]))
    assert copy.node.read() == b"root s3cr3t"
