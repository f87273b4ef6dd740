"""The public surface: complete, documented and typed."""

from __future__ import annotations

import ast
import importlib
import importlib.resources
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from types import ModuleType

import pytest

import forensics_lib as fl
from forensics_lib.evidence import open_evidence

MODULES = [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(fl.__path__, "forensics_lib.")
    if found.name != "forensics_lib.sources._zstd"  # nothing but another package's names
]


def name_of(module: ModuleType) -> str:
    return module.__name__


def exported(module: ModuleType) -> list[str]:
    names: list[str] = module.__all__
    return names


def classes_and_functions(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Public classes and functions that the module defines, and the classes' public methods and properties."""
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            yield f"{module.__name__}.{name}", value
        if inspect.isclass(value):
            for member, inside in vars(value).items():
                if not member.startswith("_") and (
                    inspect.isfunction(inside) or isinstance(inside, property | classmethod | staticmethod)
                ):
                    yield f"{module.__name__}.{name}.{member}", inside


def test_all_is_sorted_and_every_name_is_there() -> None:
    public = {name: getattr(fl, name) for name in fl.__all__}
    assert fl.__all__ == sorted(public)
    assert set(fl.__all__) <= set(dir(fl))
    assert public["open"] is open_evidence
    assert all(name in ("open", "__version__") or value.__name__ == name for name, value in public.items())
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        getattr(fl, "nonsense")  # noqa: B009 - type checkers know that it is not there


def test_type_checkers_and_readers_are_told_the_same_names() -> None:
    source = ast.parse(importlib.resources.files(fl).joinpath("__init__.py").read_text("utf-8"))
    imported = {
        (alias.asname or alias.name, node.module)
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("forensics_lib.")
        for alias in node.names
    }
    homes = {(name, f"forensics_lib.{home}") for home, names in fl._HOMES.items() for name in names}
    assert imported == homes | {("open", "forensics_lib.evidence"), ("__version__", "forensics_lib._version")}
    assert {name for name, _ in imported} == set(fl.__all__)


@pytest.mark.parametrize("module", [m for m in MODULES if hasattr(m, "__all__")], ids=name_of)
def test_every_module_exports_names_it_has_sorted_as_ruff_sorts_them(module: ModuleType) -> None:
    names = exported(module)
    assert len(names) == len(set(names))
    assert not [name for name in names if not hasattr(module, name)]
    kinds = [(not name.isupper(), not name[0].isupper(), name) for name in names]
    assert kinds == sorted(kinds)


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_everything_public_has_a_docstring(module: ModuleType) -> None:
    assert module.__doc__
    undocumented = [name for name, value in classes_and_functions(module) if not inspect.getdoc(value)]
    assert undocumented == []


def _annotations(value: object) -> Iterator[object]:
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, classmethod | staticmethod):
        value = value.__func__
    yield from getattr(value, "__annotations__", {}).values()
    if inspect.isclass(value):
        yield from getattr(value.__init__, "__annotations__", {}).values()


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_no_public_signature_says_any(module: ModuleType) -> None:
    loose = [
        name
        for name, value in classes_and_functions(module)
        for annotation in _annotations(value)
        if "Any" in {node.id for node in ast.walk(ast.parse(str(annotation))) if isinstance(node, ast.Name)}
        or annotation is typing.Any
    ]
    assert loose == []


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_every_public_function_is_typed(module: ModuleType) -> None:
    for name, value in classes_and_functions(module):
        if inspect.isfunction(value):
            parameters = [p for p in inspect.signature(value).parameters.values() if p.name not in ("self", "cls")]
            assert not [p.name for p in parameters if p.annotation is inspect.Parameter.empty], name
            assert inspect.signature(value).return_annotation is not inspect.Signature.empty, name


def test_the_package_is_marked_as_typed() -> None:
    assert (importlib.resources.files("forensics_lib") / "py.typed").is_file()
