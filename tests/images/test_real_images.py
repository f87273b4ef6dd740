"""What real daemons answered (Docker 20.10 and 29), against what their configurations say.

FORENSICS_EVIDENCE names a folder that holds docker-small/, docker29-graphdriver/ and docker29-containerd-store/.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forensics_lib.images.config import ImageConfig
from forensics_lib.images.dockerfile import dockerfile
from forensics_lib.images.history import Alignment, align
from forensics_lib.images.inspect import inspect_config
from forensics_lib.model import Origin, ProblemLog

ROOT = Path(os.environ.get("FORENSICS_EVIDENCE", "nowhere"))
NEEDED = ("docker-small", "docker29-graphdriver", "docker29-containerd-store")

pytestmark = [
    pytest.mark.skipif(
        not all((ROOT / name).is_dir() for name in NEEDED),
        reason="FORENSICS_EVIDENCE names no folder with this evidence",
    ),
    pytest.mark.skipif(shutil.which("tar") is None, reason="no tar command"),
]


def unpack(archive: Path, members: str, to: Path) -> dict[str, bytes]:
    subprocess.run(["tar", "-xf", archive, "-C", to, "--wildcards", members], check=True)
    return {path.name: path.read_bytes() for path in to.rglob("*") if path.is_file()}


def answers(truth: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted((truth / "images").iterdir()):
        value = json.loads(path.read_text())
        yield path, value[0] if isinstance(value, list) else value


def parse(data: bytes) -> ImageConfig:
    return ImageConfig.parse(data, Origin("image"), ProblemLog(strict=True))


def without_null(value: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if item is not None}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    base = ROOT / "docker-small" / "small-ext4-overlay2"
    return unpack(base / "evidence/clean/var-lib-docker.tar", "*imagedb/content/*", tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def modern(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    base = ROOT / "docker29-graphdriver" / "modern-graphdriver-nocrash"
    return unpack(base / "evidence/clean/root.tar", "*imagedb/content/*", tmp_path_factory.mktemp("modern"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    base = ROOT / "docker29-containerd-store" / "modern-containerd-store-nocrash"
    return unpack(base / "evidence/clean/root.tar", "*content.v1.content/blobs/*", tmp_path_factory.mktemp("store"))


def config_in_store(blobs: dict[str, bytes], digest: str, architecture: str) -> bytes:
    document = json.loads(blobs[digest.removeprefix("sha256:")])
    if "manifests" in document:
        found = [row for row in document["manifests"] if row["platform"]["architecture"] == architecture]
        document = json.loads(blobs[found[0]["digest"].removeprefix("sha256:")])
    return blobs[document["config"]["digest"].removeprefix("sha256:")]


def check(truth: dict[str, Any], config: ImageConfig, *, legacy: bool) -> None:
    assert without_null(inspect_config(config, legacy=legacy)) == without_null(truth["Config"] or {})
    assert list(config.diff_ids) == (truth["RootFS"].get("Layers") or [])
    assert (config.architecture, config.os) == (truth["Architecture"], truth["Os"])
    assert config.author == truth.get("Author", "")
    assert config.container == truth.get("Container", config.container)
    assert config.docker_version == truth.get("DockerVersion", config.docker_version)
    assert truth["Comment"] in (config.comment, config.history[-1].comment)
    seconds = truth["Created"][:19]
    assert config.created is not None
    assert config.created.strftime("%Y-%m-%dT%H:%M:%S") == seconds


def check_history(path: Path, config: ImageConfig) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    status, steps = align(config.history, config.diff_ids)
    assert status is Alignment.EXACT
    assert [step.layer for step in steps if not step.empty] == list(config.diff_ids)
    told = [
        (step.created_by.replace("\t", " "), step.created.strftime("%Y-%m-%dT%H:%M:%SZ"), step.comment)
        for step in reversed(steps)
        if step.created is not None
    ]
    assert told == [(row["CreatedBy"], row["CreatedAt"], row["Comment"]) for row in rows]
    sizes = [step.size for step in reversed(steps)]
    assert all(size is None or row["Size"] in ("0", "0B") for size, row in zip(sizes, rows, strict=True))


def test_inspect_and_history_of_docker_20_10(small: dict[str, bytes]) -> None:
    truth = ROOT / "docker-small" / "small-ext4-overlay2" / "truth" / "2-after-deletion"
    count = 0
    for path, answer in answers(truth):
        config = parse(small[answer["Id"].removeprefix("sha256:")])
        check(answer, config, legacy=True)
        check_history(truth / "history" / f"{path.stem}.jsonl", config)
        count += 1
    assert count == 34


def test_inspect_and_history_of_docker_29_graphdriver(modern: dict[str, bytes]) -> None:
    truth = ROOT / "docker29-graphdriver" / "modern-graphdriver-nocrash" / "truth" / "2-after-deletion"
    count = 0
    for path, answer in answers(truth):
        config = parse(modern[answer["Id"].removeprefix("sha256:")])
        check(answer, config, legacy=False)
        if path.suffix == ".json":
            check_history(truth / "history" / f"{path.stem}.jsonl", config)
        count += 1
    assert count == 10


def test_inspect_and_history_of_docker_29_containerd_store(store: dict[str, bytes]) -> None:
    truth = ROOT / "docker29-containerd-store" / "modern-containerd-store-nocrash" / "truth" / "2-after-deletion"
    count = 0
    for path, answer in answers(truth):
        name = path.name.split(".")[0]
        config = parse(config_in_store(store, name, answer["Architecture"]))
        check(answer, config, legacy=False)
        if path.suffix == ".json":
            check_history(truth / "history" / f"{path.stem}.jsonl", config)
        count += 1
    assert count == 12


def test_the_dockerfile_of_acme_web_has_the_instructions_it_was_built_from(small: dict[str, bytes]) -> None:
    """The Dockerfile that was built, with what a history keeps of it: expanded, and COPY by checksum."""
    config = parse(small["8286e287eeccbfaf041f06d01b99024b20b1731ca837df154f883abf45ad960f"])
    lines = dockerfile(config, align(config.history, config.diff_ids)[1]).splitlines()
    instructions = [line for line in lines if line and not line.startswith("#")]
    expected = [
        "FROM scratch",
        "ARG BUILD_TOKEN=default-token",
        'LABEL org.opencontainers.image.title="acme web" org.opencontainers.image.version=1.0'
        ' com.acme.team="shop ünïcode"',
        'LABEL maintainer="Ops <ops@acme.test>"',
        "ENV APP_SECRET=s3cr3t-in-env APP_MODE=prod",
        "ADD file:d1201437d804f78e60de5d5623eae7f40788cb50b2086a4cd66314274046971f /",
        "COPY dir:b241e247f9176513e52e393afe85b4775a83a7aef2e8cb78c98ab98394b3875f /www/",
        "COPY file:2566ce210758509f2fb6be064d50e4c00c2cb077c24adda96a255fd0fef39bdc /etc/acme/app.conf",
        "COPY --chown=1000:1000 file:5c85e72cba70ad1097e5f5df62899d22902f9c4901e511fbf2c924992db08c87"
        " /root/.ssh/id_rsa",
        "RUN mkdir -p /opt/app/lib /opt/olddir/sub /opt/keep && echo one > /opt/app/one.txt && echo two >"
        " /opt/app/lib/two.txt && echo old > /opt/olddir/sub/old.txt && echo k > /opt/keep/k.txt && echo bye >"
        " /opt/deleted-later.txt && echo shell > /opt/chmodme.sh && ln /opt/keep/k.txt /opt/keep/k-hard.txt",
        'RUN test -s /root/.ssh/id_rsa && echo "used key with $BUILD_TOKEN" > /root/used && rm -f /root/.ssh/id_rsa',
        "RUN rm -f /opt/deleted-later.txt && rm -rf /opt/app && mkdir /opt/app && echo replaced > /opt/app/new.txt",
        "RUN mv /opt/olddir /opt/newdir && chmod 0700 /opt/chmodme.sh && echo changed >> /opt/keep/k-hard.txt",
        'RUN rm -rf /special/sticky && echo "file over dir" > /special/sticky && rm /special/hard1 && mkdir'
        ' /special/hard1 && echo "dir over file" > /special/hard1/x',
        "RUN truncate -s 4194304 /opt/sparse.bin && printf 'END' | dd of=/opt/sparse.bin bs=1 seek=4194301"
        " conv=notrunc 2>/dev/null; mkfifo /opt/pipe; mknod /opt/zero c 1 5; : > /opt/empty",
        "WORKDIR /www",
        'VOLUME ["/var/cache/acme"]',
        "EXPOSE 80/tcp 9000/udp",
        "STOPSIGNAL SIGTERM",
        "HEALTHCHECK --interval=5s --timeout=3s --retries=2 CMD"
        ' ["/bin/busybox", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/index.html"]',
        "ONBUILD RUN true",
        'ENTRYPOINT ["/bin/busybox"]',
        'CMD ["httpd", "-f", "-p", "80", "-h", "/www"]',
    ]
    assert instructions == expected


def test_the_dockerfile_of_a_commit_tells_what_the_commit_changed(small: dict[str, bytes]) -> None:
    config = parse(small["2f96135747a16b01a51c16a29435c552370cddf65b786cdf1960e0d2c921a8a3"])
    text = dockerfile(config, align(config.history, config.diff_ids)[1])
    assert "\nFROM base-1\nRUN true\nRUN echo '<p>v1.1</p>' >> /www/index.html" in text  # acme/web:1.1 on acme/web:1.0
    assert (
        "# docker commit, or a tool that records no instruction: httpd -f -p 80 -h /www"
        " (author intruder <x@y>, message committed from web, layer "
    ) in text
    assert "\n#   LABEL backdoor=true\n" in text
    assert "\n#   ENV COMMITTED=1\n" in text


def test_every_step_of_buildkit_is_an_instruction(modern: dict[str, bytes]) -> None:
    config = parse(modern["14c2cb5e2fc82a68d4f55a7162468c4302728f38eb2f645f44c4ba1bc806ba7f"])
    text = dockerfile(config, align(config.history, config.diff_ids)[1])
    keywords = [step.created_by.split(" ")[0] for step in config.history[1:]]
    inside, found = False, []
    for line in text.splitlines():
        if inside or line.startswith("RUN <<EOT"):
            found += [] if inside else ["RUN"]
            inside = line != "EOT"
        elif line and not line.startswith("#"):
            found.append(line.split(" ")[0])
    assert found == ["FROM", *keywords]
    assert "\nRUN <<EOT\necho first > /opt/multi.txt\necho second >> /opt/multi.txt\nEOT\n" in text
    assert "\nCOPY EOT /etc/acme/heredoc.conf\n" in text
    assert "\n#   ONBUILD RUN true\n" in text  # BuildKit keeps no history of it
