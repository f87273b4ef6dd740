from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_questions_can_be_asked_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    monkeypatch.chdir(tmp_path)
    code = blocks("python")[0]
    assert len(re.findall(r"^# \d+\. ", code, re.MULTILINE)) == 12
    namespace: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), namespace)
    namespace["ev"].close()
    namespace["docker"].close()
    assert (tmp_path / "out/etc/os-release").exists()
    assert (tmp_path / "keep.tar").stat().st_size > 10_000


def test_two_commands_do_all_the_setting_up() -> None:
    (commands,) = (block for block in blocks("bash") if "venv" in block)
    lines = commands.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("python3 -m venv .venv && ")
    assert lines[1] == ".venv/bin/python -m pytest -q"
    for example in re.findall(r"examples/\S+\.py", commands):
        assert (ROOT / example).exists()


def test_every_file_the_readme_names_is_there() -> None:
    for name in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / name).exists(), name
