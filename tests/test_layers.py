"""The arrows of the architecture: a module imports only from layers below its own, or from its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
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


@cache
def exported(name: str) -> frozenset[str]:
    """What a module offers to others."""
    path = ROOT.joinpath(*name.split("."))
    tree = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_modules_use_of_each_other_what_is_exported(module: Path) -> None:
    taken = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(module.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and is_module(node.module)
        for alias in node.names
        if alias.name not in exported(node.module) and not is_module(f"{node.module}.{alias.name}")
    ]
    assert [name for name in taken if not name.endswith(".__version__")] == []


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_no_module_reaches_into_the_private_parts_of_another(module: Path) -> None:
    nodes = list(ast.walk(ast.parse(module.read_text("utf-8"))))
    own = {"_asdict", "_fields", "_make", "_replace"}  # of named tuples
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    own |= {ast.unparse(node.target) for node in nodes if isinstance(node, ast.AnnAssign)}
    own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    strange = [
        ast.unparse(node)
        for node in nodes
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr not in own
        and ast.unparse(node.value) not in ("self", "cls", "super()")
    ]
    assert strange == []


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
