"""Removed containers put together again: generations, settings, logs, files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from forensics_lib.engines.container import Container
from forensics_lib.engines.container_parts import ContainerState
from forensics_lib.errors import PathNotFound, UnsupportedFormat
from forensics_lib.model import Origin, ProblemLog
from forensics_lib.recovery.assemble import deleted_containers
from forensics_lib.recovery.carve import carve
from forensics_lib.recovery.ext4_free import free_space
from forensics_lib.recovery.free import FreeSpace
from forensics_lib.recovery.remnant import Remnant
from forensics_lib.sources.base import BytesSource
from forensics_lib.sources.file import FileSource
from forensics_lib.trees.ext import ExtTree
from tests.engines.docker.dataroot import NO_EVIDENCE, SMALL, chain, digest, hexid
from tests.recovery.scene import (
    BLOCK,
    at,
    config,
    data_root,
    disk,
    encoded,
    host_config,
    line,
    nanoseconds,
    remnant,
)

WEB, DB, LAYER = hexid("web"), hexid("db"), hexid("layer")
CREATED = encoded(config(WEB, "web", 1))
RUNNING = encoded(config(WEB, "web", 1, Running=True, Pid=437, StartedAt=at(2)))
EXITED = encoded(config(WEB, "web", 1, StartedAt=at(2), FinishedAt=at(9), ExitCode=137))
DEAD = encoded(config(WEB, "web", 1, StartedAt=at(2), FinishedAt=at(9), ExitCode=137, Dead=True))
FOLDER = f"var/lib/docker/containers/{WEB}"


def carved(*files: bytes) -> list[Remnant]:
    data = disk(*files)
    return list(carve(FreeSpace(BytesSource(data, Origin("disk")), [(0, len(data))], BLOCK), ProblemLog()))


def one(remnants: Sequence[Remnant]) -> Container:
    (container,) = deleted_containers(remnants, [], ProblemLog(strict=True))
    return container


def texts(container: Container) -> list[str]:
    return [record.text for record in container.logs()]


def test_the_generations_of_a_container() -> None:
    container = one(carved(DEAD, RUNNING, encoded(host_config(Privileged=True)), EXITED, CREATED))
    assert (container.id, container.name, container.state) == (WEB, "web", ContainerState.DEAD)
    assert (container.finished_ns, container.exit_code) == (nanoseconds(9), 137)
    assert container.privileged
    states = ["created, not started", "running as process 437", "exited with 137", "dead"]
    places = [container.state_note.index(state) for state in states]
    assert places == sorted(places)
    assert container.state_note.endswith("(identity: carved by carving)")


def test_inspect_is_that_before_the_removal() -> None:
    container = one(carved(encoded(host_config()), EXITED, DEAD))
    answer = container.inspect()
    assert answer["Name"] == "/web"
    assert answer["HostConfig"] == host_config()
    state = answer["State"]
    assert isinstance(state, dict)
    assert (state["Status"], state["Dead"]) == ("exited", False)


def test_a_live_container_is_not_listed(tmp_path: Path) -> None:
    live = {f"containers/{WEB}/config.v2.json": EXITED, f"containers/{WEB}/hostconfig.json": encoded(host_config())}
    docker = data_root(tmp_path, live)
    rows = [*carved(RUNNING, encoded(config(DB, "db", 3))), remnant(None, f"containers/{WEB}/hosts")]
    assert [c.name for c in deleted_containers(rows, [docker], ProblemLog())] == ["db"]


def test_settings_without_a_name_that_fit_one_record() -> None:
    bound = config(WEB, "web", 1) | {"MountPoints": {"/data": {"Type": "bind", "Source": "/srv"}}}
    fitting, other = encoded(host_config(Binds=["/srv:/data"])), encoded(host_config(Binds=["/srv:/other"]))
    container = one(carved(encoded(bound), bytes(BLOCK), fitting, bytes(BLOCK), other))
    assert container.inspect()["HostConfig"] == host_config(Binds=["/srv:/data"])
    assert "by what they fit only" in container.state_note
    usual = one(carved(CREATED, bytes(BLOCK), encoded(host_config())))
    assert usual.inspect()["HostConfig"] == {}
    more = encoded(host_config(Binds=["/srv:/data"], Privileged=True))
    ambiguous = one(carved(encoded(bound), bytes(BLOCK), fitting, bytes(BLOCK), more))
    assert ambiguous.inspect()["HostConfig"] == {}
    assert "its settings towards the host were not" in ambiguous.state_note


def test_a_torn_record_still_tells_who_it_was() -> None:
    record = encoded(config(WEB, "web", 1) | {"Labels": "x" * 2 * BLOCK})
    container = one([remnant(record[:BLOCK], f"{FOLDER}/config.v2.json", "config", complete=False)])
    assert (container.name, container.image_id) == ("web", f"sha256:{'1' * 64}")


def test_a_torn_record_tells_all_that_stands_before_the_tear() -> None:
    record = encoded(config(WEB, "web", 1, Running=True, Pid=7, StartedAt=at(2)))
    torn = record[: record.index(b'"NetworkSettings"')] + bytes(100) + b'"Name":"/other"}'
    container = one([remnant(torn, f"{FOLDER}/config.v2.json", "config", complete=False)])
    assert (container.id, container.command, container.env) == (WEB, ("sh", "-c", "web"), ("A=1",))
    assert (container.image_id, container.name) == (f"sha256:{'1' * 64}", "")
    assert "only the beginning of its record was recovered" in container.state_note


def test_a_folder_of_which_only_the_name_is_left() -> None:
    container = one([remnant(None, f"{FOLDER}/hostname", deleted_ns=5)])
    assert (container.id, container.name, container.state) == (WEB, "", ContainerState.REMOVING)
    assert "its record was not recovered" in container.state_note


def test_what_only_a_runtime_specification_tells() -> None:
    specification = {"ociVersion": "1", "process": {"args": ["sh", "x"], "env": ["A=1"]}, "hostname": "h", "root": {}}
    container = one([remnant(encoded(specification), "meta.db", "record", container_id=WEB)])
    assert (container.command, container.env, container.hostname) == (("sh", "x"), ("A=1",), "h")


def test_named_logs_also_rotated_and_compressed() -> None:
    host = remnant(encoded(host_config()), f"{FOLDER}/hostconfig.json", "config")
    record = remnant(EXITED, f"{FOLDER}/config.v2.json", "config")
    log = f"{FOLDER}/{WEB}-json.log"
    older = remnant(line("three\n", 5), log, "log", modified_ns=1)
    newer = remnant(line("three\n", 5) + line("four\n", 6), log, "log", modified_ns=2)
    rotated = remnant(gzip.compress(line("one\n", 3) + line("two\n", 4)), f"{log}.1.gz", "log")
    assert texts(one([record, host, newer, older, rotated])) == ["one", "two", "three", "four"]


def test_pieces_of_a_log_go_to_the_container_that_ran() -> None:
    other = encoded(config(DB, "db", 20, Running=True, StartedAt=at(21)))
    log, later = line("web\n", 3) + line("web\n", 3), line("db\n", 30)
    rows = carved(EXITED, other, log, bytes(BLOCK), log[: len(log) // 2], later)
    web, db = sorted(deleted_containers(rows, [], ProblemLog()), key=lambda c: c.created_ns or 0)
    assert texts(web) == ["web", "web"]  # equal records of one log are kept, a copy of it adds none
    assert texts(db) == ["db"]
    assert [record.text for record in web.logs(pattern="db")] == []


def test_a_piece_of_a_log_that_has_a_name_is_not_given_to_somebody_else() -> None:
    first = encoded(config(DB, "db", 2, Running=True, StartedAt=at(2.5)))
    log = line("web\n", 3)
    rows = [*carved(RUNNING, first, log), remnant(log, f"{FOLDER}/{WEB}-json.log", "log")]
    found = {container.name: texts(container) for container in deleted_containers(rows, [], ProblemLog())}
    assert found == {"web": ["web"], "db": []}


def test_a_log_that_two_containers_could_have_written_is_a_problem() -> None:
    other = encoded(config(DB, "db", 1.5, Running=True, StartedAt=at(1.6)))
    problems = ProblemLog()
    rows = carved(RUNNING, other, line("x\n", 3))
    found = {container.name: texts(container) for container in deleted_containers(rows, [], problems)}
    assert found == {"web": ["x"], "db": []}
    assert [DB[:12] in row.message for row in problems.rows] == [True]


def test_pieces_that_read_alike_are_of_one_log() -> None:
    other = encoded(config(DB, "db", 2.5, Running=True, StartedAt=at(2.6)))
    rows = carved(RUNNING, other, line("job 12 done", 3.5), line("ready", 2.7), line("job 7 done", 2.1))
    found = {container.name: texts(container) for container in deleted_containers(rows, [], ProblemLog())}
    assert found == {"web": ["job 7 done", "job 12 done"], "db": ["ready"]}


def test_what_begins_after_a_container_had_stopped_is_of_the_next() -> None:
    other = encoded(config(DB, "db", 9.4, Running=True, StartedAt=at(9.5)))
    rows = carved(EXITED, other, line("request 1", 3), line("request 1", 9.6))
    found = {container.name: texts(container) for container in deleted_containers(rows, [], ProblemLog())}
    assert found == {"web": ["request 1"], "db": ["request 1"]}


def test_a_log_that_only_grows_has_no_earlier_pieces() -> None:
    other = encoded(config(DB, "db", 1, Running=True, StartedAt=at(1)))
    log = remnant(line("one", 3) + line("two", 5), f"{FOLDER}/{WEB}-json.log", "log")
    rows = [*carved(RUNNING, other, line("x", 4), line("three", 6)), log]
    found = {container.name: texts(container) for container in deleted_containers(rows, [], ProblemLog())}
    assert found == {"web": ["one", "two", "three"], "db": ["x"]}


def rotating(files: int, **changes: str) -> Remnant:
    options = {"max-size": "1k", "max-file": str(files), **changes}
    document = encoded(host_config(LogConfig={"Type": "json-file", "Config": options}))
    return remnant(document, f"{FOLDER}/hostconfig.json", "config")


@pytest.mark.parametrize(("files", "expected"), [(2, ["two", "three"]), (3, ["one", "two", "three"])])
def test_a_rotated_log_that_is_whole_gets_back_nothing_that_docker_threw_away(files: int, expected: list[str]) -> None:
    log = f"{FOLDER}/{WEB}-json.log"
    named = [remnant(line("three", 5), log, "log"), remnant(line("two", 4), f"{log}.1", "log")]
    container = one(
        [remnant(EXITED, f"{FOLDER}/config.v2.json", "config"), rotating(files), *named, *carved(line("one", 3))]
    )
    assert texts(container) == expected


def test_files_of_two_rotations_make_no_whole_log() -> None:
    log = f"{FOLDER}/{WEB}-json.log"
    named = [remnant(line("two", 4), log, "log"), remnant(line("three", 5), f"{log}.1", "log")]
    record = remnant(EXITED, f"{FOLDER}/config.v2.json", "config")
    assert texts(one([record, rotating(2), *named, *carved(line("one", 3))])) == ["one", "two", "three"]


def test_a_compressed_piece_is_of_a_log_that_was_compressed() -> None:
    other = [encoded(config(DB, "db", 2.5, Running=True, StartedAt=at(2.6)))]
    piece = remnant(gzip.compress(line("x", 3)), "", "log")
    rows = [
        *carved(*other),
        remnant(RUNNING, f"{FOLDER}/config.v2.json", "config"),
        rotating(3, compress="true"),
        piece,
    ]
    found = {container.name: texts(container) for container in deleted_containers(rows, [], ProblemLog())}
    assert found == {"web": ["x"], "db": []}


def test_files_of_the_writable_layer(tmp_path: Path) -> None:
    base = digest("base")
    base_dir = hexid("base directory")
    image = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [base]}}
    top = chain(base)
    docker = data_root(
        tmp_path,
        {
            f"image/overlay2/layerdb/sha256/{top[7:]}/diff": base.encode(),
            f"image/overlay2/layerdb/sha256/{top[7:]}/cache-id": base_dir.encode(),
            f"image/overlay2/imagedb/content/sha256/{digest(json.dumps(image))[7:]}": json.dumps(image).encode(),
            f"overlay2/{base_dir}/diff/etc/passwd": b"root",
            f"overlay2/{base_dir}/link": b"A" * 26,
        },
    )
    mounts = f"image/overlay2/layerdb/mounts/{WEB}"
    rows = [
        remnant(EXITED, f"{FOLDER}/config.v2.json", "config"),
        remnant(LAYER.encode(), f"{mounts}/mount-id"),
        remnant(top.encode(), f"{mounts}/parent"),
        remnant(b"echo", f"overlay2/{LAYER}/diff/tmp/.x/payload.sh"),
        remnant(b"A" * 26, f"overlay2/{LAYER}/link"),
    ]
    (container,) = deleted_containers(rows, [docker], docker.reader.problems)
    assert container.tree().read("/tmp/.x/payload.sh") == b"echo"
    assert container.tree().read("/etc/passwd") == b"root"
    assert [change.path for change in container.diff()] == ["/tmp", "/tmp/.x", "/tmp/.x/payload.sh"]


def test_a_removed_image_below_a_removed_container() -> None:
    top = digest("gone")
    mounts, record = f"image/overlay2/layerdb/mounts/{WEB}", f"image/overlay2/layerdb/sha256/{top[7:]}"
    rows = [
        remnant(EXITED, f"{FOLDER}/config.v2.json", "config"),
        remnant(LAYER.encode(), f"{mounts}/mount-id"),
        remnant(top.encode(), f"{mounts}/parent"),
        remnant(hexid("gone directory").encode(), f"{record}/cache-id"),
        remnant(b"lower", f"overlay2/{hexid('gone directory')}/diff/etc/conf"),
        remnant(b"upper", f"overlay2/{LAYER}/diff/etc/conf"),
        remnant(b"new", f"overlay2/{LAYER}/diff/new"),
    ]
    container = one(rows)
    assert container.tree().read("/etc/conf") == b"upper"
    assert {change.path: str(change.kind) for change in container.diff()}["/new"] == "A"


def test_a_writable_layer_told_by_its_time() -> None:
    born = nanoseconds(1.006)
    rows = [
        remnant(EXITED, f"{FOLDER}/config.v2.json", "config"),
        remnant(b"A" * 26, f"overlay2/{LAYER}/link", modified_ns=born),
        remnant(b"echo", f"overlay2/{LAYER}/diff/x"),
        remnant(b"A" * 26, f"overlay2/{hexid('much later')}/link", modified_ns=nanoseconds(30)),
    ]
    container = one(rows)
    assert container.tree().read("/x") == b"echo"
    assert "by the time only" in container.state_note


def test_a_snapshot_told_by_the_time_of_its_init_layer() -> None:
    folder = "var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"
    rows = [
        remnant(EXITED, f"{FOLDER}/config.v2.json", "config"),
        remnant(b"", f"{folder}/8/fs/.dockerenv", modified_ns=nanoseconds(1.006)),
        remnant(b"loot", f"{folder}/9/fs/tmp/loot"),
        remnant(b"other", f"{folder}/12/fs/tmp/other"),
    ]
    container = one(rows)
    assert container.tree().read("/tmp/loot") == b"loot"
    assert "/tmp/other" not in container.tree()
    assert "9 is its writable layer is told by the time only" in container.state_note


def test_what_is_not_known_is_said() -> None:
    container = one(carved(EXITED))
    with pytest.raises(UnsupportedFormat, match="which directory"):
        container.tree()
    with pytest.raises(UnsupportedFormat, match="copied out"):
        container.save("x.tar")
    with pytest.raises(PathNotFound, match="no data root"):
        container.mount("/data")
    assert (container.size_rw, container.size_root_fs) == (None, None)


def test_hostile_remnants() -> None:
    rows = [
        remnant(b"[" * 100_000, f"{FOLDER}/config.v2.json", "config"),
        remnant(b"\xff\0{", f"{FOLDER}/hostconfig.json", "config"),
        remnant(encoded({"ID": DB, "State": [], "Name": 5}), f"{FOLDER}/config.v2.json", "config"),
        remnant(b"../../etc", f"image/overlay2/layerdb/mounts/{WEB}/mount-id", container_id=WEB),
        remnant(b"x", f"overlay2/{LAYER}/diff/{'/'.join('a' * 3000)}"),
    ]
    container = one(rows)
    assert (container.id, container.name) == (WEB, "")


@pytest.mark.skipif(not SMALL.is_dir(), reason=NO_EVIDENCE)
def test_containers_carved_from_a_real_disk() -> None:
    problems = ProblemLog()
    source = FileSource(SMALL / "evidence/clean/disk.raw")
    tree = ExtTree(source, problems)
    rows = list(carve(free_space(tree, problems), problems))
    found = {container.id: container for container in deleted_containers(rows, [], problems)}
    for want in json.loads((SMALL / "truth/deleted.json").read_text())["containers"]:
        container, inspected = found[want["id"]], want["inspect"]
        assert (f"/{container.name}", container.image_id) == (want["name"], inspected["Image"])
        answer = container.inspect()
        mounts = answer["Mounts"]
        assert isinstance(mounts, list)
        assert sorted(m["Destination"] for m in mounts) == sorted(m["Destination"] for m in inspected["Mounts"])
        for key in ("HostConfig", "Config", "Created", "Path", "Args", "LogPath", "Driver"):
            assert answer[key] == inspected[key], (container.name, key)
    source.close()


def test_numbers_in_words_tell_logs_apart_and_those_between_words_do_not() -> None:
    rows = [
        remnant(
            encoded(config(WEB, "web", 1, StartedAt=at(2), FinishedAt=at(9))), f"{FOLDER}/config.v2.json", "config"
        ),
        remnant(
            encoded(config(DB, "db", 3, StartedAt=at(4), FinishedAt=at(9))), f"containers/{DB}/config.v2.json", "config"
        ),
        remnant(line("APP1 line 1", 2.5), kind="log"),
        remnant(line("APP2 line 1", 4.5), kind="log"),
        remnant(line("APP1 line 2", 5), kind="log"),
    ]
    found = {one.name: texts(one) for one in deleted_containers(rows, [], ProblemLog())}
    assert found == {"web": ["APP1 line 1", "APP1 line 2"], "db": ["APP2 line 1"]}


def test_a_container_whose_record_is_lost_gets_a_log_only_if_nobody_else_fits() -> None:
    mount = f"image/overlay2/layerdb/mounts/{DB}/mount-id"
    rows = [
        remnant(
            encoded(config(WEB, "web", 1, StartedAt=at(2), FinishedAt=at(9))), f"{FOLDER}/config.v2.json", "config"
        ),
        remnant(LAYER.encode(), mount, container_id=DB, modified_ns=nanoseconds(3)),
        remnant(line("text", 4), kind="log"),
        remnant(line("late", 30), kind="log"),
    ]
    found = {one.id: texts(one) for one in deleted_containers(rows, [], ProblemLog())}
    assert found == {WEB: ["text"], DB: ["late"]}
