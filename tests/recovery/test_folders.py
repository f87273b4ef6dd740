"""Folders without a name get the one that their files tell."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.recovery.folders import named_by_contents
from forensics_lib.recovery.remnant import Remnant
from tests.engines.docker.dataroot import digest, hexid
from tests.recovery.scene import config, encoded, remnant

WEB, DB = hexid("web"), hexid("db")
FOLDER = "/var/lib/docker/containers/<inode 12>"
LAYERS = "/image/overlay2/layerdb/sha256/<inode 12>"


def paths(*remnants: Remnant) -> list[str]:
    return [one.path for one in named_by_contents(remnants)]


@pytest.mark.parametrize(
    "teller",
    [
        remnant(encoded(config(WEB, "web", 1)), f"{FOLDER}/config.v2.json", "config"),
        remnant(None, f"{FOLDER}/{WEB}-json.log", "log", complete=False),
        remnant(b"{}", f"{FOLDER}/{WEB}-json.log.2.gz", "log"),
    ],
)
def test_the_folder_of_a_container(teller: Remnant) -> None:
    hosts = remnant(b"127.0.0.1", f"{FOLDER}/hosts")
    found = list(named_by_contents([hosts, teller, remnant(None, FOLDER, complete=False)]))
    folder = FOLDER.replace("<inode 12>", WEB)
    assert [one.path for one in found] == [f"{folder}/hosts", teller.path.replace("<inode 12>", WEB), folder]
    assert {one.container_id for one in found} == {WEB}
    assert all("named by what lies in it" in one.detail for one in found)


def test_a_number_of_two_folders_names_only_the_files_that_tell() -> None:
    web, db = (remnant(b"", f"{FOLDER}/{one}-json.log", "log") for one in (WEB, DB))
    found = paths(web, db, remnant(b"x", f"{FOLDER}/hosts"))
    assert found == [*(FOLDER.replace("<inode 12>", one) + f"/{one}-json.log" for one in (WEB, DB)), f"{FOLDER}/hosts"]


def test_the_record_of_a_layer() -> None:
    diff, parent = digest("diff"), digest("parent")
    files = [remnant(one.encode(), f"{LAYERS}/{name}") for name, one in (("diff", diff), ("parent", parent))]
    name = hashlib.sha256(f"{parent} {diff}".encode()).hexdigest()
    assert paths(*files) == [one.path.replace("<inode 12>", name) for one in files]
    assert paths(files[0]) == [files[0].path]  # of the lowest layer, or of one whose parent is not known
    other = remnant(digest("other").encode(), f"{LAYERS}/parent")
    assert paths(*files, other) == [one.path for one in (*files, other)]


def test_the_directory_of_a_layer_by_the_link_to_it() -> None:
    link, folder = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", hexid("layer") + "-init"
    to = remnant(f"../{folder}/diff".encode(), f"/overlay2/l/{link}", size=0)
    inside = [remnant(link.encode(), "/overlay2/<inode 7>/link"), remnant(b"1", "/overlay2/<inode 7>/diff/a/b")]
    assert paths(to, *inside) == [to.path, f"/overlay2/{folder}/link", f"/overlay2/{folder}/diff/a/b"]
    assert paths(*inside) == [one.path for one in inside]


@pytest.mark.parametrize("path", ["", "/containers", "/volumes/<inode 3>/_data", "/containers/x/<inode 3>/y"])
def test_other_paths_stay(path: str) -> None:
    (same,) = named_by_contents([remnant(b"x", path)])
    assert same.path == path


@given(
    st.lists(
        st.tuples(st.sampled_from(["diff", "parent", "link", "config.v2.json", WEB + "-json.log", ""]), st.binary())
    )
)
def test_any_content_is_survived(files: list[tuple[str, bytes]]) -> None:
    for folder in (FOLDER, LAYERS, "/overlay2/<inode 1>"):
        rows = [remnant(data, f"{folder}/{name}".rstrip("/")) for name, data in files]
        assert len(paths(*rows)) == len(rows)
