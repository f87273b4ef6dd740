"""What ``import forensics_lib`` costs and what it brings along."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, sys, time
start = time.process_time()
import forensics_lib
print(json.dumps([time.process_time() - start, sorted(sys.modules)]))
"""
HEAVY = {"tarfile", "requests", "ssl", "pandas", "polars", "pyarrow", "yara", "magic", "pytsk3", "jsonschema", "oras"}
LIMIT = 0.200  # seconds of processor time


def import_it() -> tuple[float, set[str]]:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, text=True)
    seconds, modules = json.loads(done.stdout)
    return seconds, set(modules)


def test_import_is_fast() -> None:
    assert min(import_it()[0] for _ in range(5)) < LIMIT


def test_import_brings_nothing_heavy() -> None:
    assert not import_it()[1] & HEAVY
