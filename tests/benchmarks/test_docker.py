"""What listing and comparing containers cost, and that no content of layers is read for it.

`--benchmark-enable` measures. The assertions are about what is found and read, never about time; the ratio of the time
for four times as many containers and layers is in the benchmark's extra information.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from forensics_lib.engines.docker.engine import DockerRoot
from forensics_lib.model import ProblemLog
from forensics_lib.sources.base import BytesSource, Source
from forensics_lib.trees.base import Node, NodeKind
from forensics_lib.trees.index import IndexTree
from tests.engines.docker.rootmaker import Layer, RootMaker, docker_root

pytest.importorskip("pytest_benchmark")

DEPTH = 10
FILES = 20


@dataclass(frozen=True, slots=True)
class Counted:
    """Content that counts how often it is asked for."""

    node: Node
    reads: Counter[str]

    def source(self) -> Source:
        self.reads[self.node.path] += 1
        return BytesSource(self.node.read(), self.node.origin)


def host(containers: int, layers: int) -> tuple[IndexTree, Counter[str]]:
    """A root of images of ten layers each, and the reads of every file in it."""
    root = RootMaker()
    tops: list[Layer] = []
    for image in range(layers // DEPTH):
        top = None
        for level in range(DEPTH):
            files = {f"/srv/{level}/{name}": f"{image} {level} {name}".encode() for name in range(FILES)}
            top = root.layer(files, top)
        assert top is not None
        root.image(top, tags=[f"acme/{image}:1"])
        tops.append(top)
    for number in range(containers):
        root.container(f"c{number}", tops[number % len(tops)], {"/srv/0/0": b"changed", f"/new/{number}": b"1"})
    reads: Counter[str] = Counter()
    tree = IndexTree(root.tree().origin)
    for node in root.tree().walk():
        if node.path != "/":
            tree.put(replace(node, content=Counted(node, reads)) if node.kind is NodeKind.FILE else node)
    return tree, reads


def content(reads: Counter[str]) -> dict[str, int]:
    """Reads of what layers hold."""
    return {path: count for path, count in reads.items() if "/diff/" in path}


def ask(tree: IndexTree) -> tuple[int, int]:
    docker: DockerRoot = docker_root(tree, ProblemLog(strict=True))
    listed = [(c.id, c.name, c.state, c.command, c.ports, c.mounts, c.inspect()) for c in docker.containers]
    return len(listed), len([(image.id, image.tags, image.size, image.inspect()) for image in docker.images])


def fastest(call: Callable[[], object], rounds: int = 3) -> float:
    """CPU seconds of the quickest of some rounds."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def test_listing_containers(benchmark) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    containers, layers = (1000, 500) if benchmark.enabled else (400, 200)
    small, reads_of_small = host(containers // 4, layers // 4)
    large, reads_of_large = host(containers, layers)
    assert benchmark(ask, large) == (containers, layers // DEPTH)
    assert content(reads_of_large) == {}
    once = Counter(reads_of_large)
    reads_of_large.clear()
    ask(large)
    assert ask(small) == (containers // 4, layers // 4 // DEPTH)
    assert content(reads_of_small) == {}
    # each record is read as often as it is in a root of any size
    assert set(reads_of_large) == set(once)
    of_records = sum(reads_of_large.values()) / sum(reads_of_small.values())
    assert of_records == pytest.approx(4, rel=0.05)
    benchmark.extra_info["reads for 4 times the containers"] = round(of_records, 2)
    if benchmark.enabled:
        ratio = fastest(lambda: ask(large)) / max(fastest(lambda: ask(small)), 1e-6)
        benchmark.extra_info["CPU for 4 times the containers"] = round(ratio, 2)


def test_diff_and_tree_read_no_content(benchmark) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    tree, reads = host(10, 50)

    def compare() -> list[list[str]]:
        return [[f"{one.kind} {one.path}" for one in c.diff()] for c in docker_root(tree, ProblemLog()).containers]

    found = benchmark(compare)
    assert sorted(len(changes) for changes in found) == [5] * 10
    assert all("C /srv/0/0" in changes for changes in found)
    assert content(reads) == {}


def test_a_tree_reads_the_content_that_is_asked_for(benchmark) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    tree, reads = host(10, 50)

    def walk() -> int:
        return sum(1 for c in docker_root(tree, ProblemLog()).containers for _ in c.tree().walk())

    assert benchmark(walk) > 10 * DEPTH * FILES
    assert content(reads) == {}
    container = docker_root(tree, ProblemLog()).containers[0]
    merged = container.tree()
    assert merged.read("/srv/0/0") == b"changed"
    assert merged.read("/srv/9/19").endswith(b" 9 19")
    assert list(content(reads).values()) == [1, 1]
