"""A data root with one fault, and one with faults all over: each is told once, by name, and the rest is answered."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import forensics_lib as fl
from forensics_lib.custody import Custody
from forensics_lib.engines.docker.acquisition import report_losses
from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.engines.docker.leftovers import report_leftovers
from forensics_lib.engines.docker.root import find_roots
from forensics_lib.engines.docker.verify import verify_root
from forensics_lib.model import ProblemLog
from forensics_lib.sources.decompress import Limits
from forensics_lib.trees.base import Tree
from forensics_lib.trees.documents import DocumentReader
from forensics_lib.trees.outlet import Outlet
from tests.engines.docker.rootmaker import Made, RootMaker, short
from tests.engines.docker.test_engine import DB, FIFO, WEB, answers, host, sound
from tests.trees.layers import device, folder, link

CONFIG = f"containers/{DB}/config.v2.json"
HOST_CONFIG = f"containers/{DB}/hostconfig.json"
MOUNT = f"image/overlay2/layerdb/mounts/{WEB}/mount-id"
DATABASE, NETWORKS, NAMES = "volumes/metadata.db", "network/files/local-kv.db", "image/overlay2/repositories.json"
LOG = f"containers/{WEB}/{WEB}-json.log"


def lower_of_web(root: RootMaker) -> str:
    return f"{root.mount_dir('web').removeprefix('/docker/')}/lower"


def looped(root: RootMaker) -> bytes:
    """The list of lower layers with the layer itself in it, over and over."""
    own = root.mount_dir("web").rpartition("/")[2]
    return ":".join([f"l/{short(own)}"] * 300).encode()


def without(root: RootMaker, name: str) -> None:
    del root.entries[root.path(name)]


def cut(root: RootMaker, name: str) -> None:
    raw = root.entries[root.path(name)]
    assert isinstance(raw, bytes)
    root.put(name, raw[:5000])


FAULTS: dict[str, tuple[str, Callable[[RootMaker], object], set[str]]] = {
    "a config cut short": (CONFIG, lambda root: root.put(CONFIG, b'{"ID": "'), {"db", DB}),
    "a config that is no text": (CONFIG, lambda root: root.put(CONFIG, b'{"Name": "\xff\xfe\x00'), {"db", DB}),
    "a config that is a pipe": (CONFIG, lambda root: root.put(CONFIG, FIFO), {"db", DB}),
    "a config that leads to the examiner": (CONFIG, lambda root: root.put(CONFIG, link("/etc/passwd")), {"db", DB}),
    "settings cut short": (HOST_CONFIG, lambda root: root.put(HOST_CONFIG, b"{"), {"db"}),
    "settings that are a pipe": (HOST_CONFIG, lambda root: root.put(HOST_CONFIG, FIFO), {"db"}),
    "no mount-id": (WEB, lambda root: without(root, MOUNT), {"web"}),
    "a mount-id that leads elsewhere": (MOUNT, lambda root: root.put(MOUNT, b"../../etc"), {"web"}),
    "a mount-id that is a pipe": (WEB, lambda root: root.put(MOUNT, FIFO), {"web"}),
    "volumes cut short": (DATABASE, lambda root: cut(root, DATABASE), set()),
    "no volume database": (DATABASE, lambda root: root.put(DATABASE, b"no database"), set()),
    "networks cut short": (NETWORKS, lambda root: cut(root, NETWORKS), {"appnet"}),
    "names cut short": (NAMES, lambda root: root.put(NAMES, b"{"), {"()", "('acme/web:1',)", "('acme/base:1',)"}),
    "a log that is a pipe": (LOG, lambda root: root.put(LOG, FIFO), {"web"}),
    "a log that leads to the examiner": (LOG, lambda root: root.put(LOG, link("/etc/passwd")), {"web"}),
    "a circle of lower layers": ("overlay2", lambda root: root.put(lower_of_web(root), looped(root)), {"web"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_is_one_problem(fault: str, tmp_path: Path) -> None:
    where, spoil, touched = FAULTS[fault]
    root = host()
    spoil(root)
    with root.opened(tmp_path) as ev:
        found = answers(ev)
        rows = [f"{row.origin}: {row.message}" for row in ev.problems]
    expected = sound(tmp_path / "sound")
    differ = {key for key in {*expected, *found} if expected.get(key) != found.get(key)}
    assert {key.rpartition(" ")[0] for key in differ} <= touched
    assert len(rows) == 1, rows
    assert where in rows[0]


# faults all over ------------------------------------------------------------------------------------------------------

FILES = sorted(path for path, made in host().entries.items() if isinstance(made, bytes))
TOKENS = ((b'"', b""), (b"{", b"["), (b":", b","), (b"0", b"-" + b"9" * 30), (b"null", b"1e999"), (b"false", b'"x"'))
INSTEAD: list[Made | None] = [None, b"", FIFO, folder(), link("/etc/passwd"), link("."), device(0, 0)]


def flipped(raw: bytes, choose: random.Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(choose.choice((1, 1, 3, 40)) if raw else 0):
        changed[choose.randrange(len(changed))] = choose.randrange(256)
    return bytes(changed)


def shortened(raw: bytes, choose: random.Random) -> bytes:
    return raw[: choose.randrange(len(raw) + 1)]


def reworded(raw: bytes, choose: random.Random) -> bytes:
    """JSON whose signs or values are others."""
    for old, new in choose.sample(TOKENS, 2):
        at = raw.find(old, choose.randrange(len(raw) + 1))
        raw = raw if at < 0 else raw[:at] + new + raw[at + len(old) :]
    return raw


def zeroed(raw: bytes, choose: random.Random) -> bytes:
    start = choose.randrange(len(raw) + 1)
    return raw[:start] + bytes(len(raw[start : start + 512])) + raw[start + 512 :]


HURT = (flipped, flipped, shortened, reworded, zeroed)


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([1, 3, 12, len(FILES)]))
def test_any_damage_gives_problems_and_answers(choose: random.Random, count: int) -> None:
    root = host()
    for path in choose.sample(FILES, count):
        raw = root.entries[path]
        assert isinstance(raw, bytes)
        made = choose.choice(INSTEAD) if choose.random() < 0.1 else choose.choice(HURT)(raw, choose)
        if made is None:
            del root.entries[path]
        else:
            root.entries[path] = made
    problems = ProblemLog()
    whole = root.tree()
    for data_root in find_roots(DocumentReader(whole, problems)):
        outlet = Outlet(Path("host.tar"), None, Custody(), problems)
        ask_all(DockerRoot(DocumentReader(whole, problems), data_root, Limits(), outlet))
    assert all(str(row.origin).startswith("host") for row in problems.rows)


def ask_all(docker: DockerRoot) -> None:
    """Every question; it may be refused, but by no other exception."""
    for container in docker.containers:
        questions: list[Callable[[], object]] = [container.inspect, container.diff, container.hidden_changes]
        questions += [container.logs, container.tree, partial(getattr, container, "size_rw")]
        questions += [partial(getattr, container, "findings"), partial(repr, container)]
        questions += [partial(container.mount, mount.destination) for mount in container.mounts]
        for question in questions:
            ask(question)
    for image in docker.images:
        questions = [image.inspect, image.history, image.tree, image.dockerfile, partial(image.versions, "/srv/a")]
        for question in (*questions, *(layer.changes for layer in image.layers)):
            ask(question)
    for volume in docker.volumes:
        ask(volume.inspect)
        ask(volume.tree)
    for network in docker.networks:
        ask(network.inspect)
    ask(docker.orphans)
    ask(partial(verify_root, docker, Limits()))
    ask(partial(report_losses, docker, Limits()))
    ask(partial(getattr, docker, "build_history"))
    ask(partial(getattr, docker, "pull_history"))
    report_leftovers(docker)


def ask(question: Callable[[], object]) -> None:
    with suppress(fl.ForensicsError):
        answer = question()
        for _ in answer.walk() if isinstance(answer, Tree) else answer if isinstance(answer, Iterable) else ():
            pass
