"""Storage drivers: where a layer's files lie and how they are merged, on sound roots and on hostile ones."""

from __future__ import annotations

from pathlib import Path

import pytest

import forensics_lib as fl
from forensics_lib.engines.docker.drivers import DRIVERS
from forensics_lib.errors import PathNotFound, UnsupportedFormat
from forensics_lib.model import ProblemLog
from forensics_lib.trees.base import NodeKind, Tree
from tests.engines.docker.dataroot import hexid
from tests.engines.docker.rootmaker import INIT, Layer, Made, RootMaker, docker_root, short
from tests.trees.layers import OPAQUE, file, folder, link, whiteout

SECRET = "this line is of the examiner's own disk"
COMMON: dict[str, bytes | str] = {
    "/.dockerenv": b"", "/etc": "dir", "/etc/hostname": b"", "/etc/hosts": b"", "/srv": "dir",
}  # fmt: skip


def host(driver: str = "overlay2") -> tuple[RootMaker, Layer, str]:
    """A root with two layers and a container: each changes a file of the one below."""
    root = RootMaker(driver)
    base = root.layer({"/etc/passwd": b"base", "/etc/old": b"old", "/srv/a": b"1"})
    gone = {"/etc/old": whiteout()} if driver != "aufs" else {"/etc/.wh.old": b""}
    top = root.layer({"/etc/passwd": b"top", "/srv/b": b"2", **gone}, base)
    more: dict[str, Made] = {"/srv/a": whiteout()} if driver != "aufs" else {"/srv/.wh.a": b""}
    web = root.container("web", top, {"/etc/passwd": b"container", "/new": b"3", **more})
    return root, top, web


def shown(tree: Tree) -> dict[str, bytes | str]:
    return {
        node.path: node.read() if node.kind is NodeKind.FILE else str(node.kind)
        for node in tree.walk()
        if node.path != "/"
    }


@pytest.mark.parametrize("driver", DRIVERS)
def test_container_and_image_of_every_driver(driver: str, tmp_path: Path) -> None:
    root, top, _ = host(driver)
    root.image(top, tags=["acme/web:1"])
    with root.opened(tmp_path, strict=True) as ev:
        web = ev.container("web")
        assert shown(web.tree()) == COMMON | {"/etc/passwd": b"container", "/srv/b": b"2", "/new": b"3"}
        assert [(str(change.kind), change.path) for change in web.diff()] == [
            ("C", "/etc"),
            ("C", "/etc/passwd"),
            ("A", "/new"),
            ("C", "/srv"),
            ("D", "/srv/a"),
        ]
        image = ev.image("acme/web:1")
        assert shown(image.tree()) == {
            "/etc": "dir", "/etc/passwd": b"top", "/srv": "dir", "/srv/a": b"1", "/srv/b": b"2",
        }  # fmt: skip
        versions = image.versions("/etc/passwd")
        assert [(one.layer, one.node and one.node.read()) for one in versions] == [(0, b"base"), (1, b"top")]
        assert web.inspect()["GraphDriver"] == image_driver(root, web.id)


def image_driver(root: RootMaker, container_id: str) -> dict[str, object]:
    """What moby shows of a driver for the container ``web``."""
    mount = hexid("mount web")
    home = f"/var/lib/docker/{root.driver}/{mount}"
    lower = [f"{mount}-init", *(one.cache_id for one in _stack(root))]
    match root.driver:
        case "overlay2" | "fuse-overlayfs":
            data: object = {
                "LowerDir": ":".join(f"/var/lib/docker/{root.driver}/{one}/diff" for one in lower),
                "MergedDir": f"{home}/merged", "UpperDir": f"{home}/diff", "WorkDir": f"{home}/work",
            }  # fmt: skip
        case "overlay":
            data = {
                "LowerDir": f"/var/lib/docker/overlay/{lower[1]}/root",
                "MergedDir": f"{home}/merged", "UpperDir": f"{home}/upper", "WorkDir": f"{home}/work",
            }  # fmt: skip
        case _:
            data = None
    return {"Data": data, "Name": root.driver}


def _stack(root: RootMaker) -> list[Layer]:
    return max((layer.stack for layer in root._layers.values()), key=len)


def test_an_opaque_directory_hides_the_lower_one(tmp_path: Path) -> None:
    root, top, _ = host()
    root.container("api", top, {"/srv": folder(OPAQUE), "/srv/c": b"new"})
    with root.opened(tmp_path, strict=True) as ev:
        assert {path for path in shown(ev.container("api").tree()) if path.startswith("/srv")} == {"/srv", "/srv/c"}


def test_missing_links_are_found_again_by_the_directories_own_names() -> None:
    root, _, _ = host()
    expected = _container(root, ProblemLog(strict=True))
    root.entries = {path: made for path, made in root.entries.items() if "/overlay2/l/" not in path}
    problems = ProblemLog(strict=True)
    assert _container(root, problems) == expected


def test_links_and_directories_own_names_both_missing() -> None:
    root, _, _ = host()
    root.entries = {p: made for p, made in root.entries.items() if "/overlay2/l/" not in p and not p.endswith("/link")}
    problems = ProblemLog()
    assert _container(root, problems) == {"/etc": "dir", "/etc/passwd": b"container", "/new": b"3", "/srv": "dir"}
    assert len(problems.rows) == 3
    assert all("is missing; the rest is merged" in row.message for row in problems.rows)


def test_a_missing_lower_file_is_replaced_by_the_records() -> None:
    root, _, _ = host()
    expected = _container(root, ProblemLog(strict=True))
    del root.entries[f"{root.mount_dir('web')}/lower"]
    problems = ProblemLog()
    assert _container(root, problems) == expected


def test_a_missing_lower_layer_is_reported_and_the_rest_merged() -> None:
    root, top, _ = host()
    base = top.stack[1]
    root.entries = {path: made for path, made in root.entries.items() if f"/overlay2/{base.cache_id}" not in path}
    problems = ProblemLog()
    assert _container(root, problems) == COMMON | {"/etc/passwd": b"container", "/srv/b": b"2", "/new": b"3"}
    (problem,) = problems.rows
    assert f"{base.cache_id}/diff is missing; the rest is merged" in problem.message


def test_a_loop_in_lower_ends() -> None:
    root, _, _ = host()
    own = short(hexid("mount web"))
    root.entries[f"{root.mount_dir('web')}/lower"] = f"l/{own}:l/{own}".encode()
    assert _container(root, ProblemLog()) == {"/etc": "dir", "/etc/passwd": b"container", "/new": b"3", "/srv": "dir"}


def test_a_lower_file_of_a_million_names() -> None:
    root, _, _ = host()
    root.entries[f"{root.mount_dir('web')}/lower"] = b":".join(b"l/%026d" % number for number in range(40_000))
    problems = ProblemLog()
    assert _container(root, problems)["/new"] == b"3"
    assert len(problems.rows) <= 513
    assert any(row.message.endswith(" lower layers; 512 are merged") for row in problems.rows)


@pytest.mark.parametrize(
    "lower", ["../../../../etc", "/etc", "l/../../../etc", "l/..", "l/", "..", "l/\0", "l/a/b", "\udcff"]
)
def test_lower_that_names_what_is_outside(lower: str, tmp_path: Path) -> None:
    root, _, _ = host()
    root.entries[f"{root.mount_dir('web')}/lower"] = lower.encode("utf-8", "surrogateescape")
    root.entries["/etc/evil"] = SECRET.encode()
    with root.opened(tmp_path) as ev:
        found = shown(ev.container("web").tree())
    assert "/evil" not in found
    assert SECRET.encode() not in found.values()


@pytest.mark.parametrize(
    "target", ["/etc", "../../../../../../etc", "../x/../../etc/diff", "..//diff", "../../diff", "diff"]
)
def test_a_short_link_that_leads_outside(target: str) -> None:
    root, top, _ = host()
    root.entries[f"/docker/overlay2/l/{short(top.cache_id)}"] = link(target)
    root.entries["/etc/evil"] = SECRET.encode()
    found = _container(root, ProblemLog())  # the directory is found by its own name
    assert found == COMMON | {"/etc/passwd": b"container", "/srv/b": b"2", "/new": b"3"}


@pytest.mark.parametrize("driver", DRIVERS)
def test_links_are_never_followed_to_the_examiners_disk(driver: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text(SECRET)
    root = RootMaker(driver)
    top = root.layer(
        {"/etc/passwd": link(str(mine)), "/dir": link(str(tmp_path)), "/up": link("../" * 30 + str(mine)[1:])}
    )
    root.container("web", top, {"/evil": link(str(mine))})
    with root.opened(tmp_path) as by_tar, _folder(root, tmp_path / "host") as by_folder:
        for ev in (by_tar, by_folder):
            tree = ev.container("web").tree()
            assert tree.node("/etc/passwd").target == str(mine)
            for path in ("/etc/passwd", "/evil", "/dir/mine.txt", "/up"):
                with pytest.raises(PathNotFound):
                    tree.read(path)


def _folder(root: RootMaker, place: Path) -> fl.Evidence:
    return fl.open(root.write(place))


@pytest.mark.parametrize("name", ["diff", "lower", "link"])
def test_a_layer_whose_own_files_are_links_to_the_examiners_disk(name: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "evil").write_text(SECRET)
    root, top, _ = host()
    place = f"/docker/overlay2/{top.cache_id}/{name}"
    root.entries = {path: made for path, made in root.entries.items() if not path.startswith(place)}
    root.entries[place] = link(str(outside if name == "diff" else outside / "evil"))
    with _folder(root, tmp_path / "host") as ev:
        found = shown(ev.container("web").tree())
        assert "/evil" not in found
        assert SECRET.encode() not in found.values()
        assert found["/etc/passwd"] == b"container"


def test_overlay_without_its_image() -> None:
    root, top, _ = host("overlay")
    root.entries = {path: made for path, made in root.entries.items() if f"/overlay/{top.cache_id}" not in path}
    problems = ProblemLog()
    found = _container(root, problems)
    assert (found["/etc/passwd"], "/srv/b" in found) == (b"container", False)
    assert [row.message for row in problems.rows] == [f"lower layer '{top.cache_id}' is missing"]


@pytest.mark.parametrize("lower", ["..", "../../etc", "/etc", "", "."])
def test_overlay_whose_lower_id_leads_elsewhere(lower: str) -> None:
    root, _, _ = host("overlay")
    root.entries[f"{root.mount_dir('web')}/lower-id"] = lower.encode()
    root.entries["/docker/root/evil"] = root.entries["/docker/overlay/root/evil"] = SECRET.encode()
    assert "/evil" not in _container(root, ProblemLog())


@pytest.mark.parametrize("name", ["../../etc", "..", "/etc", hexid("missing")])
def test_aufs_with_a_branch_that_is_not_there(name: str) -> None:
    root, _, _ = host("aufs")
    place = f"/docker/aufs/layers/{hexid('mount web')}"
    listed = root.entries[place]
    assert isinstance(listed, bytes)
    root.entries[place] = listed + b"\n" + name.encode()
    problems = ProblemLog()
    assert _container(root, problems)["/srv/b"] == b"2"
    assert ["is missing" in row.message for row in problems.rows] == [True]


def test_fuse_overlayfs_reads_whiteouts_by_name(tmp_path: Path) -> None:
    root, top, _ = host("fuse-overlayfs")
    root.container("api", top, {"/srv/.wh.a": b"", "/etc/.wh..wh..opq": b"", "/etc/mine": b"1"})
    with root.opened(tmp_path, strict=True) as ev:
        assert shown(ev.container("api").tree()) == {
            "/.dockerenv": b"", "/srv": "dir", "/srv/b": b"2", "/etc": "dir", "/etc/mine": b"1",
        }  # fmt: skip


def test_overlay2_takes_names_of_whiteouts_as_they_are(tmp_path: Path) -> None:
    root, top, _ = host()
    root.container("api", top, {"/srv/.wh.a": b""})
    with root.opened(tmp_path, strict=True) as ev:
        assert {"/srv/a", "/srv/.wh.a"} <= shown(ev.container("api").tree()).keys()


def test_a_rootless_engine_marks_with_user_attributes(tmp_path: Path) -> None:
    real = "/home/eve/.local/share/docker"
    root = RootMaker(at=real, real=real)
    top = root.layer({"/srv/a": b"1"})
    root.container("web", top, {"/srv": folder({"user.overlay.opaque": b"y"}), "/srv/b": b"2"})
    root.container("old", top, {"/srv": folder(OPAQUE), "/srv/b": b"2"})
    with root.opened(tmp_path) as ev:
        assert "/srv/a" not in ev.container("web").tree()
        assert "/srv/a" in ev.container("old").tree()


def test_metacopy_content_comes_from_below_never_zeros(tmp_path: Path) -> None:
    root = RootMaker()
    top = root.layer({"/bin/tool": b"real content"})
    root.container("web", top, {"/bin/tool": file(bytes(12), {"trusted.overlay.metacopy": b""}, mode=0o777)})
    with root.opened(tmp_path, strict=True) as ev:
        node = ev.container("web").tree().node("/bin/tool")
        assert (node.read(), node.mode) == (b"real content", 0o777)


@pytest.mark.parametrize(
    ("driver", "reason"),
    [("devicemapper", "block device pool"), ("zfs", "ZFS pool"), ("windowsfilter", "only the driver knows")],
)
def test_drivers_that_keep_files_elsewhere_are_listed_with_a_reason(driver: str, reason: str, tmp_path: Path) -> None:
    root = RootMaker(driver)
    base = root.layer({"/etc/passwd": b"root"}, split=False)
    image_id = root.image(base, tags=["acme/web:1"])
    web = root.container("web", base, Image=image_id)
    root.put(f"containers/{web}/{web}-json.log", '{"log":"hello\\n","stream":"stdout","time":"2024-01-01T00:00:00Z"}\n')
    with root.opened(tmp_path) as ev:
        container = ev.container("web")
        assert [record.line for record in container.logs()] == [b"hello"]
        assert container.inspect()["GraphDriver"] == {"Data": None, "Name": driver}
        image = ev.image("acme/web:1")
        assert [step.created_by for step in image.history()] == ["step 0"]
        assert container.size_rw is None
        for ask in (container.tree, lambda: list(container.diff()), image.tree):
            with pytest.raises(UnsupportedFormat, match=reason):
                ask()


def test_several_drivers_were_used_on_one_host(tmp_path: Path) -> None:
    old, new = RootMaker("aufs"), RootMaker("overlay2")
    for number, root in enumerate((old, new)):
        base = root.layer({"/version": root.driver.encode()})
        root.image(base, tags=[f"acme/{root.driver}:1"], author=root.driver)
        for one in range(number + 1):
            root.container(f"{root.driver}-{one}", base, {"/mine": root.driver.encode()})
    new.entries |= old.entries
    with new.opened(tmp_path, strict=True) as ev:
        assert {c.name: c.tree().read("/mine") for c in ev.containers} == {
            "aufs-0": b"aufs",
            "overlay2-0": b"overlay2",
            "overlay2-1": b"overlay2",
        }
        assert {image.tags[0]: image.tree().read("/version") for image in ev.images} == {
            "acme/overlay2:1": b"overlay2",
            "acme/aufs:1": b"aufs",
        }
        assert ev._holdings.dockers[0].storage_drivers == ["overlay2", "aufs"]
        assert all(check.ok for check in ev.verify())


def test_directories_of_layers_only() -> None:
    root, top, _ = host()
    driver = docker_root(root.tree()).driver("overlay2")
    mount = hexid("mount web")
    assert set(driver.directories()) == {mount, f"{mount}-init", *(one.cache_id for one in top.stack)}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("name", ["", "..", "../..", hexid("missing")])
def test_a_layer_without_directory(driver: str, name: str) -> None:
    root, _, _ = host(driver)
    reader = docker_root(root.tree(), ProblemLog()).driver(driver)
    for ask in (reader.tree, reader.alone):
        with pytest.raises(PathNotFound):
            ask(name)


def _container(root: RootMaker, problems: ProblemLog) -> dict[str, bytes | str]:
    return shown(docker_root(root.tree(), problems).containers[0].tree())


def test_init_is_below_each_container() -> None:
    root, _, _ = host()
    docker = docker_root(root.tree(), ProblemLog(strict=True))
    assert set(shown(docker.driver("overlay2").alone(f"{hexid('mount web')}-init"))) == {*INIT, "/etc"}
