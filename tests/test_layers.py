"""The arrows of the architecture: a module imports only from layers below its own, or from its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "forensics_lib").rglob("*.py"))
LAYERS = (  # the top first
    ("__init__", "evidence", "registry"),
    ("export",),
    ("analysis",),
    ("recovery",),
    ("holdings",),
    ("engines",),
    ("images",),
    ("opening", "disks"),
    ("trees",),
    ("formats",),
    ("sources",),
    ("custody",),
    ("table",),
    ("_cells",),
    ("model", "errors", "_crc32c", "_optional", "_frozen", "_version"),
)


def name_of(module: Path) -> str:
    return ".".join(module.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer_of(name: str) -> int:
    part = [*name.split("."), "__init__"][1]
    found = [index for index, names in enumerate(LAYERS) if part in names]
    assert found, f"{name} belongs to no layer of the architecture"
    return found[0]


def imports_of(module: Path) -> Iterator[str]:
    """Every imported module by its full name, wherever in the file the import stands."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_imports_go_down(module: Path) -> None:
    own = layer_of(name_of(module))
    inside = {name for name in imports_of(module) if name.split(".")[0] == "forensics_lib" and is_module(name)}
    upwards = {name for name in inside if layer_of(name) < own}
    assert not upwards, f"{name_of(module)} imports from above its layer: {sorted(upwards)}"


@pytest.mark.parametrize("module", [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda path: path.stem)
def test_nothing_reads_tar_with_tarfile(module: Path) -> None:
    assert "tarfile" not in set(imports_of(module))


@pytest.mark.parametrize("module", [m for m in MODULES if m.parent.name == "formats"], ids=name_of)
def test_formats_never_open_a_path(module: Path) -> None:
    imported = set(imports_of(module))
    assert not imported & {"os", "io", "pathlib", "shutil", "tempfile", "glob", "forensics_lib.sources.file"}
    calls = [node.func for node in ast.walk(ast.parse(module.read_text("utf-8"))) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "open"]


def test_only_itself_imports_the_registry() -> None:
    users = {
        name_of(module)
        for module in MODULES
        if any(name.startswith("forensics_lib.registry") for name in imports_of(module))
    }
    assert {name for name in users if not name.startswith("forensics_lib.registry")} == set()


def test_engines_and_below_never_print() -> None:
    printing = [
        name_of(module)
        for module in MODULES
        for node in ast.walk(ast.parse(module.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []
