"""The single door to optional packages: what is missing is said together with how to install it."""

from __future__ import annotations

import importlib
from types import ModuleType

from forensics_lib.errors import MissingExtra

__all__ = ["require"]


def require(package: str, extra: str) -> ModuleType:
    """Import an optional package at the moment it is needed.

    Args:
        package: name of the module, also of a submodule such as ``pyarrow.parquet``.
        extra: the extra of this library that installs it.

    Raises:
        MissingExtra: the package is not installed. That something is missing inside an installed package is no
            matter of the extra and stays a ModuleNotFoundError.
    """
    top = package.partition(".")[0]
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != top:
            raise
        raise MissingExtra(top, extra) from error
