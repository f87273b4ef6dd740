from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.images.config import ImageConfig
from forensics_lib.images.dockerfile import dockerfile
from forensics_lib.images.history import HistoryStep, align
from forensics_lib.images.instructions import MAX_TEXT
from forensics_lib.model import Origin, ProblemLog

LAYER = "sha256:8d96d8f383c0885c37bce9d335a7dd19abad426278bb1a676cf41f29fc5ffad8"
FILE = "file:2566ce210758509f2fb6be064d50e4c00c2cb077c24adda96a255fd0fef39bdc"
NOP = "/bin/sh -c #(nop) "
KEYWORDS = re.compile(
    "ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|RUN|SHELL|STOPSIGNAL|USER|VOLUME|WORKDIR"
)


def image(config: dict[str, Any] | None = None, os: str = "linux") -> ImageConfig:
    document = {"os": os, "config": config or {}, "rootfs": {}}
    return ImageConfig.parse(json.dumps(document).encode(), Origin("image"), ProblemLog(strict=True))


def steps(*texts: str, comment: str = "") -> list[HistoryStep]:
    """Steps of which those that copy, add or run made a layer."""
    fills = re.compile(r"(\|\d+ .*)?(/bin/sh -c #\(nop\) +)?(ADD|COPY|RUN|/bin/sh -c (?!#)|cmd /S /C (?!#))", re.DOTALL)
    return [
        HistoryStep(index, created_by=text, comment=comment, empty=fills.match(text) is None)
        for index, text in enumerate(texts)
    ]


def instructions(text: str) -> list[str]:
    """The instructions of a Dockerfile, read by a parser's rules: comments, continued lines and here-documents."""
    lines = text.split("\n")
    escape = "`" if lines[0] == "# escape=`" else "\\"
    found: list[str] = []
    while lines:
        line = lines.pop(0)
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        while line.rstrip().endswith(escape):
            line = line.rstrip()[:-1] + lines.pop(0)
        keyword = line.split()[0].upper()
        for delimiter in re.findall(r"<<-?(\w+)", line) if keyword in ("RUN", "COPY", "ADD", "ONBUILD") else []:
            body: list[str] = []
            while lines[0] != delimiter:
                body.append(lines.pop(0))
            line += "\n" + "\n".join([*body, lines.pop(0)])
        found.append(line)
    return found


def rebuilt(*texts: str, config: dict[str, Any] | None = None, comment: str = "", os: str = "linux") -> list[str]:
    """All instructions but the FROM of the first stage."""
    found = instructions(dockerfile(image(config, os), steps(*texts, comment=comment)))
    assert found[0] == "FROM scratch"
    return found[1:]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('CMD ["httpd" "-f"]', 'CMD ["httpd", "-f"]'),
        ('ENTRYPOINT ["/bb"]', 'ENTRYPOINT ["/bb"]'),
        ("CMD []", "CMD []"),
        (f"COPY {FILE} in /etc/app.conf ", f"COPY {FILE} /etc/app.conf"),
        (f"COPY --chown=1000:1000{FILE} in /root/ ", f"COPY --chown=1000:1000 {FILE} /root/"),
        (f"ADD {FILE.replace('file', 'multi')} in / ", f"ADD {FILE.replace('file', 'multi')} /"),
        (f"COPY {FILE} in /my dir/x ", f'COPY ["{FILE}", "/my dir/x"]'),
        ("ADD https://a.test/x.tgz in /x ", "ADD https://a.test/x.tgz /x"),
        (" ENV A=b C=d", "ENV A=b C=d"),
        (" ENV A=$HOME and more", r'ENV A="\$HOME and more"'),
        (" ENV key the value", 'ENV key="the value"'),
        (" ARG TOKEN=default", "ARG TOKEN=default"),
        (" ARG TOKEN", "ARG TOKEN"),
        (" LABEL a=b", "LABEL a=b"),
        (" EXPOSE 80/tcp 9000/udp", "EXPOSE 80/tcp 9000/udp"),
        (" EXPOSE map[80/tcp:{}]", "EXPOSE 80/tcp"),
        (" EXPOSE map[8000-8002/tcp:{} 53/udp:{}]", "EXPOSE 8000-8002/tcp 53/udp"),
        (" VOLUME [/a /b]", 'VOLUME ["/a", "/b"]'),
        (" VOLUME map[/data:{}]", 'VOLUME ["/data"]'),
        (" USER root", "USER root"),
        (" USER [root]", "USER root"),
        ("WORKDIR /www", "WORKDIR /www"),
        (" STOPSIGNAL [SIGTERM]", "STOPSIGNAL SIGTERM"),
        (" ONBUILD RUN true", "ONBUILD RUN true"),
        (" MAINTAINER Ops <ops@acme.test>", "MAINTAINER Ops <ops@acme.test>"),
        (" SHELL [/bin/bash -c]", 'SHELL ["/bin/bash", "-c"]'),
    ],
)
def test_steps_of_the_classic_builder(text: str, line: str) -> None:
    assert rebuilt(NOP + text) == [line]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("/bin/sh -c apt-get update && true", "RUN apt-get update && true"),
        ("|1 TOKEN=tok /bin/sh -c echo $TOKEN", "RUN echo $TOKEN"),
        ("|2 A=1 2 B= /bin/sh -c true", "RUN true"),
        ("|1 A=b apt-get update", 'RUN ["apt-get", "update"]'),
    ],
)
def test_run_of_the_classic_builder(text: str, line: str) -> None:
    assert rebuilt(text) == [line]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("RUN /bin/sh -c apt-get update # buildkit", "RUN apt-get update"),
        ("RUN |1 TOKEN=tok /bin/sh -c echo $TOKEN # buildkit", "RUN echo $TOKEN"),
        ("RUN apt-get update # buildkit", 'RUN ["apt-get", "update"]'),
        ("RUN a <<EOF # buildkit", r'RUN ["a", "\u003c\u003cEOF"]'),
        ("RUN /bin/sh -c echo a\necho b\n # buildkit", "RUN <<EOT\necho a\necho b\nEOT"),
        ("RUN /bin/sh -c cat <<EOF\nx\nEOF # buildkit", "RUN <<EOT\ncat <<EOF\nx\nEOF\nEOT"),
        ("RUN /bin/sh -c echo EOT\nEOT\n # buildkit", "RUN <<EOT_\necho EOT\nEOT\nEOT_"),
        ("COPY site/ /www/ # buildkit", "COPY site/ /www/"),
        ("COPY --chown=1:1 --chmod=600 a b /x/ # buildkit", "COPY --chown=1:1 --chmod=600 a b /x/"),
        ("COPY <<EOT /etc/x.conf # buildkit", "COPY EOT /etc/x.conf"),
        ("ADD special.tar / # buildkit", "ADD special.tar /"),
        ("WORKDIR /www", "WORKDIR /www"),
        ("ENV A=b C=two words", 'ENV A=b C="two words"'),
        ("EXPOSE [80/tcp 9000/udp]", "EXPOSE 80/tcp 9000/udp"),
        ("EXPOSE map[80/tcp:{}]", "EXPOSE 80/tcp"),
        ("VOLUME [/x]", 'VOLUME ["/x"]'),
        ("USER 1000:1000", "USER 1000:1000"),
        ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGTERM"),
        ("ARG TARGETARCH=arm64", "ARG TARGETARCH=arm64"),
        ('CMD ["httpd" "-f"]', 'CMD ["httpd", "-f"]'),
        ("SHELL [/bin/bash -o pipefail -c]", 'SHELL ["/bin/bash", "-o", "pipefail", "-c"]'),
        ("MAINTAINER Ops", "MAINTAINER Ops"),
    ],
)
def test_steps_of_buildkit(text: str, line: str) -> None:
    assert rebuilt(text, comment="buildkit.dockerfile.v0") == [line]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("RUN apt-get update && apt-get install -y x", "RUN apt-get update && apt-get install -y x"),
        ("RUN --mount=type=cache,target=/c make", "RUN --mount=type=cache,target=/c make"),
        ('RUN ["make"]', 'RUN ["make"]'),
        ("COPY --from=build /a /b", "COPY --from=build /a /b"),
        ("COPY $SRC /b", "COPY $SRC /b"),
        ('ENV A="two words"', 'ENV A="two words"'),
        ("ENV PATH=$PATH:/x", "ENV PATH=$PATH:/x"),
        ("CMD nginx -g 'daemon off;'", "CMD nginx -g 'daemon off;'"),
        ('CMD ["nginx"]', 'CMD ["nginx"]'),
        ("CMD [/bin/sh]", 'CMD ["/bin/sh"]'),
        ("EXPOSE $PORT", "EXPOSE $PORT"),
        ("WORKDIR $HOME", "WORKDIR $HOME"),
        ("RUN cat <<EOF", "RUN <<EOT\ncat <<EOF\nEOT"),
    ],
)
def test_steps_of_kaniko_stay_as_they_were_written(text: str, line: str) -> None:
    assert rebuilt(text) == [line]


def test_values_with_spaces_end_where_the_configuration_says() -> None:
    config = {"Env": ["A=1 B=2", "C=3"], "Labels": {"t": "x y=z"}, "Volumes": {"/my dir": {}}, "Cmd": ["/bin/sh", "-c"]}
    texts = ["ENV A=1 B=2 C=3", "LABEL t=x y=z", "VOLUME [/my dir /b]", "CMD [/bin/sh -c]"]
    assert rebuilt(*texts, config=config, comment="buildkit.dockerfile.v0") == [
        'ENV A="1 B=2" C=3',
        'LABEL t="x y=z"',
        'VOLUME ["/my dir", "/b"]',
        'CMD ["/bin/sh", "-c"]',
    ]


def test_another_shell() -> None:
    config = {"Shell": ["/bin/bash", "-o", "pipefail", "-c"]}
    texts = [
        "/bin/sh -c #(nop)  SHELL [/bin/bash -o pipefail -c]",
        "/bin/bash -o pipefail -c curl x | sh",
        "|1 A=b /bin/bash -o pipefail -c true",
        '/bin/bash -o pipefail -c #(nop)  CMD ["x"]',
        "RUN /bin/bash -o pipefail -c make # buildkit",
        "RUN /bin/sh -c make # buildkit",
    ]
    found = instructions(dockerfile(image(config), steps(*texts)))
    assert found == [
        "FROM scratch AS base-1",
        'SHELL ["/bin/bash", "-o", "pipefail", "-c"]',
        "RUN curl x | sh",
        "RUN true",
        'CMD ["x"]',
        "FROM base-1",
        "RUN make",
        'RUN ["/bin/sh", "-c", "make"]',
    ]
    assert rebuilt("/bin/bash -o pipefail -c true", config=config) == [
        "RUN true"
    ]  # the SHELL step is not in the history


def test_windows() -> None:
    texts = [
        "cmd /S /C #(nop) WORKDIR C:\\app",
        "cmd /S /C mkdir C:\\x && dir C:\\",
        f"cmd /S /C #(nop) COPY {FILE} in C:\\app\\ ",
        "cmd /S /C #(nop)  ENV DIR=C:\\my app",
        "RUN cmd /S /C echo `",
    ]
    text = dockerfile(image(os="windows"), steps(*texts))
    assert text.startswith("# escape=`\n")
    assert instructions(text)[1:] == [
        "WORKDIR C:\\app",
        "RUN mkdir C:\\x && dir C:\\",
        f"COPY {FILE} C:\\app\\",
        'ENV DIR="C:\\my app"',
        "RUN <<EOT\necho `\nEOT",
    ]


def test_powershell() -> None:
    shell = ["powershell", "-Command", "$ErrorActionPreference = 'Stop';"]
    texts = [
        "cmd /S /C #(nop)  SHELL [powershell -Command $ErrorActionPreference = 'Stop';]",
        "powershell -Command $ErrorActionPreference = 'Stop'; Write-Host hi",
    ]
    found = instructions(dockerfile(image({"Shell": shell}, "windows"), steps(*texts)))[1:]
    assert found == [f"SHELL {json.dumps(shell)}", "RUN Write-Host hi"]


@pytest.mark.parametrize(
    ("check", "line"),
    [
        (
            {"Test": ["CMD", "/bin/true"], "Interval": 90 * 10**9, "Timeout": 500 * 10**6, "Retries": 2},
            'HEALTHCHECK --interval=1m30s --timeout=500ms --retries=2 CMD ["/bin/true"]',
        ),
        (
            {"Test": ["CMD-SHELL", "curl -f x || exit 1"], "StartPeriod": 2 * 10**9, "StartInterval": 10**9},
            "HEALTHCHECK --start-period=2s --start-interval=1s CMD curl -f x || exit 1",
        ),
        ({"Test": ["NONE"]}, "HEALTHCHECK NONE"),
    ],
)
def test_the_health_check_is_taken_from_the_configuration(check: dict[str, Any], line: str) -> None:
    config = image({"Healthcheck": check})
    printed = 'HEALTHCHECK &{["CMD" "/bin/old"] "5s" "0s" "0s" \'\\x00\'}'
    text = dockerfile(config, steps(NOP + " " + printed, "HEALTHCHECK {Test:[CMD x] Interval:5s}"))
    assert instructions(text) == ["FROM scratch", line]
    assert f"# cannot be written without loss: {NOP}  {printed}" not in text
    assert "/bin/old" in text  # the one that was replaced stays as a comment
    assert "In the configuration" not in text


def test_the_base_image_is_guessed_from_its_last_step() -> None:
    texts = [
        f"{NOP}ADD {FILE} in / ",
        f'{NOP} CMD ["bash"]',
        f"{NOP} ENV LANG=C.UTF-8",
        "/bin/sh -c build python",
        f'{NOP} ENTRYPOINT ["python3"]',
        f'{NOP} CMD ["-i"]',
        f"{NOP}COPY {FILE} in /app ",
        f'{NOP} CMD ["/app"]',
        f"{NOP} USER app",
    ]
    text = dockerfile(image({"Cmd": ["/app"]}), steps(*texts))
    assert [line for line in instructions(text) if line.startswith(("FROM", "CMD", "ADD", "COPY", "ENV"))] == [
        "FROM scratch AS base-1",
        f"ADD {FILE} /",
        'CMD ["bash"]',
        "FROM base-1 AS base-2",
        "ENV LANG=C.UTF-8",
        'CMD ["-i"]',
        "FROM base-2",
        f"COPY {FILE} /app",
        'CMD ["/app"]',
    ]
    assert text.count("# A guess:") == 2
    assert "the first layer, by ADD, brings the root file system" in text


def test_the_base_image_that_buildah_recorded() -> None:
    history = [
        HistoryStep(0, created_by="ADD rootfs.tar /"),
        HistoryStep(1, created_by="CMD [/bin/sh]", empty=True),
        HistoryStep(2, created_by=f"{NOP}ARG SECRET", comment="FROM docker.io/library/evbase:1.0", empty=True),
        HistoryStep(3, created_by=f"{NOP}ENV A=1", comment="FROM 4d51735f7545", empty=True),
        HistoryStep(4, created_by="|1 SECRET=s /bin/sh -c make", comment="FROM cd2a47310dea"),
    ]
    found = instructions(dockerfile(image(), history))
    assert found == [
        "FROM scratch AS base-1",
        "ADD rootfs.tar /",
        'CMD ["/bin/sh"]',
        "FROM docker.io/library/evbase:1.0",
        "ARG SECRET",
        "ENV A=1",
        "RUN make",
    ]


def test_the_base_image_that_an_annotation_names() -> None:
    name, digest = "debian:12", "sha256:" + "ab" * 32
    annotations = {"org.opencontainers.image.base.name": name, "org.opencontainers.image.base.digest": digest}
    texts = [f"{NOP}ADD {FILE} in / ", f'{NOP} CMD ["bash"]', "/bin/sh -c make"]
    text = dockerfile(image(), steps(*texts), annotations)
    assert instructions(text)[3:] == [f"FROM docker.io/library/debian:12@{digest}", "RUN make"]
    text = dockerfile(image(), steps("/bin/sh -c make"), annotations)
    assert instructions(text) == [f"FROM docker.io/library/debian:12@{digest}", "RUN make"]
    assert "which steps below are its own is not recorded" in text
    forged = {"org.opencontainers.image.base.name": "x\nRUN evil"}
    assert instructions(dockerfile(image(), steps("/bin/sh -c make"), forged)) == ["FROM scratch", "RUN make"]


def test_steps_that_are_no_instruction_are_kept_as_comments() -> None:
    history = [
        HistoryStep(0, comment="Imported from -", layer=LAYER),
        HistoryStep(1, created_by="httpd -f", author="x <x@y>", comment="hacked\nRUN evil", layer=LAYER),
        HistoryStep(2, created_by="bazel build ...", layer=LAYER),
        HistoryStep(3, created_by="umoci config", empty=True),
        HistoryStep(4, created_by="FROM evil", empty=True),
        HistoryStep(5, created_by=f"{NOP}", empty=True),
    ]
    text = dockerfile(image(), history)
    assert instructions(text) == ["FROM scratch"]
    assert text.splitlines()[4:] == [
        f"# no instruction recorded, as by docker import (message Imported from -, layer {LAYER})",
        "# docker commit, or a tool that records no instruction: httpd -f"
        f" (author x <x@y>, message hacked\\nRUN evil, layer {LAYER})",
        f"# no instruction: bazel build ... (layer {LAYER})",
        "# no instruction: umoci config",
        "# no instruction: FROM evil",
        f"# no instruction: {NOP}",
    ]


def test_what_the_configuration_holds_beyond_the_history() -> None:
    config = {
        "Env": ["PATH=/bin", "KEY=x y"],
        "Labels": {"backdoor": "true", "a": "b"},
        "Cmd": ["/bin/sh"],
        "Entrypoint": ["/e"],
        "ExposedPorts": {"80/tcp": {}, "4444/tcp": {}},
        "Volumes": {"/v": {}},
        "User": "root",
        "WorkingDir": "/w",
        "StopSignal": "SIGINT",
        "OnBuild": ["RUN evil\nUSER 0"],
        "Shell": ["/bin/ash", "-c"],
        "Healthcheck": {"Test": ["CMD", "x"]},
    }
    texts = ["ENV PATH=/bin", "LABEL a=b", "EXPOSE 80", 'CMD ["/old"]']
    text = dockerfile(image(config), steps(*texts))
    assert instructions(text)[1:] == ["ENV PATH=/bin", "LABEL a=b", "EXPOSE 80", 'CMD ["/old"]']
    comments = text.partition("# In the configuration")[2].splitlines()[1:]
    assert comments == [
        '#   ENV KEY="x y"',
        "#   LABEL backdoor=true",
        "#   EXPOSE 4444/tcp",
        "#   VOLUME /v",
        "#   STOPSIGNAL SIGINT",
        "#   USER root",
        "#   WORKDIR /w",
        '#   SHELL ["/bin/ash", "-c"]',
        '#   ENTRYPOINT ["/e"]',
        '#   CMD ["/bin/sh"]',
        "#   ONBUILD RUN evil\\nUSER 0",
        '#   HEALTHCHECK CMD ["x"]',
    ]


@pytest.mark.parametrize(
    "text",
    [
        "ENV A=b\nRUN evil",
        "ENV A=b\u2028RUN evil",
        f"{NOP}LABEL a=b\rRUN evil",
        f"{NOP}USER x\nUSER root",
        f"{NOP}ONBUILD RUN cat <<EOF",
        f"{NOP}ONBUILD RUN true \\",
        f"{NOP}MAINTAINER me \\",
        "WORKDIR /a\x1b[2J",
        "VOLUME []",
        "EXPOSE http",
        "ARG a b=",
        "COPY onlyone # buildkit",
        "RUN make \x00",
        "STOPSIGNAL \u202e",
        "HEALTHCHECK CMD evil",
        "COPY <<EOF",
    ],
)
def test_what_cannot_be_written_becomes_one_comment(text: str) -> None:
    written = dockerfile(image(), steps(text))
    assert instructions(written) == ["FROM scratch"]
    assert len(written.splitlines()) == 5
    assert written.splitlines()[4].startswith("# cannot be written without loss: ")


@pytest.mark.parametrize("text", ["RUN /bin/sh -c echo \\", "RUN echo \\  ", "/bin/sh -c echo \\", "/bin/sh -c --x"])
def test_a_command_that_would_swallow_the_next_line_becomes_a_here_document(text: str) -> None:
    found = rebuilt(text, "USER root")
    assert len(found) == 2
    assert found[0].startswith("RUN <<EOT\n")
    assert found[1] == "USER root"


def test_only_a_checksum_is_called_one() -> None:
    note = "# the name of the source is not recorded, only a checksum"
    assert note in dockerfile(image(), steps(f"{NOP}COPY {FILE} in /x "))
    assert note not in dockerfile(image(), steps(f"{NOP}ADD https://a.test/x.tgz in /x "))


def test_build_arguments_are_shown() -> None:
    text = dockerfile(image(), steps("|2 A=1 B=x y /bin/sh -c make", "|1 T=a\nRUN_evil /bin/sh -c make"))
    assert "# build arguments: A=1 B=x y\nRUN make\n# build arguments: T=a\\nRUN_evil\nRUN make\n" in text


def test_a_huge_step_is_cut() -> None:
    text = dockerfile(image(), steps("RUN " + "x" * MAX_TEXT))
    assert instructions(text) == ["FROM scratch"]
    assert len(text) < MAX_TEXT + 1000
    assert " …" in text


def test_an_image_without_history() -> None:
    text = dockerfile(image(), align([], [LAYER])[1])
    assert f"# no instruction recorded, as by docker import (layer {LAYER})" in text
    assert instructions(dockerfile(image(), [])) == ["FROM scratch"]


words = KEYWORDS.pattern.split("|")
starts = ["", NOP, "/bin/sh -c ", "|1 A=b /bin/sh -c ", "RUN /bin/sh -c ", "RUN |2 A=b ", "cmd /S /C ", "FROM "]
prefix = st.sampled_from([*starts, *(f"{NOP}{word} " for word in words), *(f"{word} " for word in words)])
syntax = ["A=b", " ", "\\", "`", '"', "'", "$X", "<<EOF", "EOF", "EOT", "[", "]", '["a" "b"]', "{}", "&{", "--x", "#"]
values = ["RUN evil", f"file:{'0' * 64}", " in ", "/x", "80/tcp", "map[", "=", "é"]
controls = ["\n", "\r", "\u2028", "\x85", "\x1b", "\udce9"]
pieces = st.sampled_from([*syntax, *values, *controls])
text = st.builds(
    lambda start, body, end: start + "".join(body) + end,
    prefix,
    st.lists(pieces | st.text(max_size=4), max_size=8),
    st.sampled_from(["", " # buildkit", "\n"]),
)
step = st.builds(
    HistoryStep,
    index=st.just(0),
    created_by=text,
    comment=text | st.sampled_from(["", "buildkit.dockerfile.v0", "FROM a/b:1"]),
    author=text,
    empty=st.booleans(),
    layer=st.none() | st.just(LAYER),
)
configs = st.fixed_dictionaries(
    {
        "Env": st.lists(pieces.map(lambda value: f"A={value}"), max_size=2),
        "Cmd": st.lists(pieces, max_size=2),
        "Labels": st.dictionaries(pieces, pieces, max_size=2),
        "Shell": st.lists(pieces, max_size=2),
        "Healthcheck": st.none() | st.fixed_dictionaries({"Test": st.lists(pieces, max_size=3)}),
        "OnBuild": st.lists(pieces, max_size=2),
        "User": pieces,
        "Volumes": st.dictionaries(pieces, st.just({}), max_size=2),
    }
)


@given(configs, st.lists(step, max_size=5), st.sampled_from(["linux", "windows"]))
def test_evidence_injects_no_line(config: dict[str, Any], history: Sequence[HistoryStep], os: str) -> None:
    """A parser finds no more instructions than there are steps and stages, whatever the evidence says."""
    written = dockerfile(image(config, os), [*history, HistoryStep(9, created_by=f"{NOP}LABEL end=x", empty=True)])
    found = instructions(written)
    stages = [line for line in found if re.fullmatch(r"FROM (scratch|base-\d+|docker\.io/a/b:1)( AS base-\d+)?", line)]
    others = [line for line in found if line not in stages]
    assert len(others) <= len(history) + 1
    assert others[-1] == "LABEL end=x"  # not swallowed by what stands before it
    assert all(KEYWORDS.fullmatch(line.split()[0]) for line in others)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]", written)
    written.encode()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("HEALTHCHECK NONE", "HEALTHCHECK NONE"),
        ('HEALTHCHECK &{["NONE"] "0s" "0s" "0s" "0s" \'\\x00\'}', "HEALTHCHECK NONE"),
        ("HEALTHCHECK {Test:[NONE] Interval:0s}", "HEALTHCHECK NONE"),
        ("HEALTHCHECK --retries=2 CMD curl -f x", "HEALTHCHECK --retries=2 CMD curl -f x"),
    ],
)
def test_a_health_check_that_a_later_one_replaced(text: str, line: str) -> None:
    check = {"Healthcheck": {"Test": ["CMD", "x"]}}
    assert rebuilt(text, "HEALTHCHECK {Test:[CMD x]}", config=check) == [line, 'HEALTHCHECK CMD ["x"]']
