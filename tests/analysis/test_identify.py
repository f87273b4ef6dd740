"""What files hold, by libmagic."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import forensics_lib as fl
from forensics_lib.errors import UnsupportedFormat
from tests.imagemaker import Recipe, docker_save, write_tar
from tests.samples import DOCKER_SAVE, WEB
from tests.tarmaker import TarMaker

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0\x90wS\xde"
SCRIPT = b"#!/bin/sh\necho harmless\n"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    layers = [
        TarMaker().file("picture.txt", PNG).file("empty").file("run", SCRIPT).hardlink("run.exe", "run").dir("d").end(),
        TarMaker().file(".wh.run").file("bin/copy", SCRIPT).file("text", b"nothing but words\n").end(),
    ]
    return write_tar(docker_save(Recipe(layers, ["acme/web:1.0"])), tmp_path / "web.tar")


def test_content_decides_not_the_name(archive: Path) -> None:
    with fl.open(archive) as evidence:
        table = evidence.identify()
        kinds = {row.path: row.mime for row in table if row.owner != "web.tar"}
        assert kinds == {
            "/picture.txt": "image/png",
            "/empty": kinds["/.wh.run"],
            "/run": "text/x-shellscript",
            "/run.exe": "text/x-shellscript",
            "/.wh.run": kinds["/empty"],
            "/bin/copy": "text/x-shellscript",
            "/text": "text/plain",
        }
        assert kinds["/empty"] in ("inode/x-empty", "application/x-empty")
        picture = table.where(path="/picture.txt").first()
        assert picture is not None
        assert picture.description.startswith("PNG image data, 1 x 1")
        assert picture.size == len(PNG)
        assert len(picture.sha256 or "") == 64
        assert str(picture.origin).endswith("layer.tar > tar header @0")
        assert "application/json" in {row.mime for row in table if row.owner == "web.tar"}
        assert evidence.custody.entries[-1].action == "identify"
        assert not evidence.problems


@pytest.mark.skipif(shutil.which("file") is None, reason="no file command")
@pytest.mark.parametrize("sample", [DOCKER_SAVE, WEB])
def test_answers_are_those_of_the_file_command(sample: Path) -> None:
    with fl.open(sample) as evidence:
        tree = evidence.images[0].tree()
        rows = {row.sha256: row for row in evidence.identify()}
        for node in tree.walk():
            if node.kind is not fl.NodeKind.FILE or not node.size or node.size > 1 << 20:
                continue
            data = node.read()
            row = rows[sha256(data)]
            for option, answer in (("--mime-type", row.mime), ("--no-buffer", row.description)):
                command = ["file", "--brief", option, "-"]
                said = subprocess.run(command, input=data, capture_output=True, check=True).stdout.decode().strip()
                assert answer == said, node.path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class FakeMagic(ModuleType):
    """python-magic that notes which thread asks which handle, and cannot cope with some content."""

    class MagicException(Exception):
        message = None

    def __init__(self) -> None:
        super().__init__("magic")
        self.asked: list[tuple[bytes, int, int]] = []
        outer = self

        class Magic:
            def __init__(self, mime: bool = False) -> None:
                self.mime = mime
                self.thread = threading.get_ident()

            def from_buffer(self, data: bytes) -> str:
                outer.asked.append((data, self.thread, threading.get_ident()))
                if data.startswith(b"BAD"):
                    raise FakeMagic.MagicException("regex error 14")
                return "text/plain" if self.mime else "text"

        self.Magic = Magic


def test_each_content_is_asked_once_and_handles_stay_in_their_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    magic = FakeMagic()
    monkeypatch.setitem(sys.modules, "magic", magic)
    layer = TarMaker()
    for number in range(600):
        layer.file(f"f{number}", b"%d" % (number % 300))
    layer.file("large", bytes(300_000))
    path = tmp_path / "files.tar"
    path.write_bytes(layer.end())
    with fl.open(path) as evidence:
        assert len(evidence.identify()) == 601
    assert all(made == used for _, made, used in magic.asked)
    assert sorted(data for data, _, _ in magic.asked) == sorted(
        2 * [*(b"%d" % number for number in range(300)), bytes(256 << 10)]
    )


def test_what_libmagic_cannot_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "magic", FakeMagic())
    path = tmp_path / "files.tar"
    path.write_bytes(TarMaker().file("a", b"BAD").file("b", b"good").end())
    with fl.open(path) as evidence:
        assert [(row.path, row.mime, row.description) for row in evidence.identify()] == [
            ("/a", "application/octet-stream", "data"),
            ("/b", "text/plain", "text"),
        ]
        assert [problem.message for problem in evidence.problems] == ["/a: libmagic: regex error 14"]


def test_without_libmagic_it_says_what_to_install(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "magic", None)
    monkeypatch.setitem(sys.modules, "pylibmagic", None)
    with fl.open(archive) as evidence, pytest.raises(UnsupportedFormat, match="pip install pylibmagic"):
        evidence.identify()


@pytest.mark.skipif(sys.platform != "linux" or find_spec("pylibmagic") is None, reason="no pylibmagic, or no Linux")
def test_pylibmagic_stands_in_for_a_missing_library(archive: Path) -> None:
    program = """
import ctypes, ctypes.util, sys
ctypes.util.find_library = lambda name: None
load = ctypes.CDLL.__init__
def refuse(self, name, *args, **more):
    if name == "libmagic.so.1":
        raise OSError("not on this machine")
    load(self, name, *args, **more)
ctypes.CDLL.__init__ = refuse
import forensics_lib as fl
with fl.open(sys.argv[1]) as evidence:
    print(evidence.identify().where(path="/picture.txt")[0].mime)
print("pylibmagic" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program, archive], capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["image/png", "True"]
