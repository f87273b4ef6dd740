from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData
from forensics_lib.images.reference import Reference
from forensics_lib.model import Origin

DIGEST = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "familiar"),
    [
        ("ubuntu", "docker.io", "library/ubuntu", None, "ubuntu"),
        ("ubuntu:22.04", "docker.io", "library/ubuntu", "22.04", "ubuntu:22.04"),
        ("library/ubuntu", "docker.io", "library/ubuntu", None, "ubuntu"),
        ("docker.io/ubuntu", "docker.io", "library/ubuntu", None, "ubuntu"),
        ("index.docker.io/ubuntu", "docker.io", "library/ubuntu", None, "ubuntu"),
        ("index.docker.io/acme/web", "docker.io", "acme/web", None, "acme/web"),
        ("docker.io/library/ubuntu:22.04", "docker.io", "library/ubuntu", "22.04", "ubuntu:22.04"),
        ("docker.io/library/a/b", "docker.io", "library/a/b", None, "library/a/b"),
        ("acme/web:1.0", "docker.io", "acme/web", "1.0", "acme/web:1.0"),
        ("registry.lab:5000/x", "registry.lab:5000", "x", None, "registry.lab:5000/x"),
        ("registry.lab:5000/x:5000", "registry.lab:5000", "x", "5000", "registry.lab:5000/x:5000"),
        ("registry.lab.test:5000/acme/web:prod", "registry.lab.test:5000", "acme/web", "prod", None),
        ("localhost/foo", "localhost", "foo", None, "localhost/foo"),
        ("localhost/foo:1", "localhost", "foo", "1", "localhost/foo:1"),
        ("localhost:5000/foo", "localhost:5000", "foo", None, "localhost:5000/foo"),
        ("localhost/localhost/foo", "localhost", "localhost/foo", None, "localhost/localhost/foo"),
        ("localhost", "docker.io", "library/localhost", None, "localhost"),
        ("docker.io/localhost/foo", "docker.io", "localhost/foo", None, "localhost/foo"),
        ("host:5000", "docker.io", "library/host", "5000", "host:5000"),
        ("foo.bar", "docker.io", "library/foo.bar", None, "foo.bar"),
        ("a/b.c/d", "docker.io", "a/b.c/d", None, "a/b.c/d"),
        ("[2001:db8::1]:5000/x:1", "[2001:db8::1]:5000", "x", "1", None),
        ("Registry.Lab/x", "Registry.Lab", "x", None, None),
        ("latest", "docker.io", "library/latest", None, "latest"),
        ("x:latest", "docker.io", "library/x", "latest", "x:latest"),
        ("a__b/c---d.e_f", "docker.io", "a__b/c---d.e_f", None, "a__b/c---d.e_f"),
        ("quay.io/latest:latest", "quay.io", "latest", "latest", None),
    ],
)
def test_parse(text: str, registry: str, repository: str, tag: str | None, familiar: str | None) -> None:
    reference = Reference.parse(text)
    assert reference == Reference(registry, repository, tag, None)
    assert reference.familiar == (familiar or text)
    assert reference.canonical == f"{registry}/{repository}" + (f":{tag}" if tag else "")
    assert str(reference) == reference.canonical


def test_digest_and_tag() -> None:
    assert Reference.parse(f"x@{DIGEST}") == Reference("docker.io", "library/x", None, DIGEST)
    both = Reference.parse(f"localhost/x:1@{DIGEST}")
    assert both == Reference("localhost", "x", "1", DIGEST)
    assert both.familiar == both.canonical == f"localhost/x:1@{DIGEST}"
    assert Reference.parse("x@sha512:" + "ab" * 64).digest == "sha512:" + "ab" * 64


def test_a_default_tag_only_when_asked_for_and_without_digest() -> None:
    assert Reference.parse("x").tag is None
    assert Reference.parse("x", default_tag=True).tag == "latest"
    assert Reference.parse("x:1", default_tag=True).tag == "1"
    assert Reference.parse(f"x@{DIGEST}", default_tag=True).tag is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Foo/bar",
        "foo/Bar",
        "foo:",
        ":tag",
        "@",
        "x@",
        "x@sha256:abc",
        f"x@{DIGEST.upper()}",
        "x@md5:d41d8cd98f00b204e9800998ecf8427e",
        "/x",
        "x/",
        "a//b",
        "foo/bar:tag/baz",
        "a:b/c",
        "foo\n",
        "a b",
        "-a/b",
        "a___b",
        "a..b",
        "x:-1",
        "x:" + "t" * 129,
        "a" * 256,
        "registry.lab:port/x",
        "https://registry.lab/x",
        "../../etc/passwd",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "ubuntu:22.04@",
        "\u00e9clair",
        "a:" * 511 + "a",
    ],
)
def test_a_name_that_is_none_is_refused_with_its_origin(text: str) -> None:
    origin = Origin("repositories.json")
    with pytest.raises(DamagedData) as caught:
        Reference.parse(text, origin=origin)
    assert caught.value.origin is origin
    assert "\n" not in str(caught.value)


def test_a_reference_can_be_sent_to_another_process() -> None:
    reference = Reference.parse("acme/web:1.0")
    assert pickle.loads(pickle.dumps(reference)) == reference


def test_parsing_imports_no_network_and_no_tar_module() -> None:
    program = (
        "import sys; from forensics_lib.images.reference import Reference; assert 'oras' not in sys.modules;"
        "Reference.parse('acme/web:1.0'); print(sorted({'tarfile', 'requests', 'jsonschema'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


component = st.from_regex(r"[a-z0-9]{1,5}([._-][a-z0-9]{1,3})?", fullmatch=True)
registry = st.from_regex(r"([a-zA-Z0-9]{1,5}\.[a-z]{2,3}|localhost|h)(:[0-9]{1,5})?", fullmatch=True).filter(
    lambda text: "." in text or ":" in text or text == "localhost"
)
tags = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(registry, st.lists(component, min_size=1, max_size=4), tags, st.none() | st.just(DIGEST))
def test_what_is_put_together_is_taken_apart(host: str, path: list[str], tag: str | None, digest: str | None) -> None:
    text = f"{host}/{'/'.join(path)}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    reference = Reference.parse(text)
    assert reference == Reference(host, "/".join(path), tag, digest)
    assert Reference.parse(reference.canonical) == reference
    assert Reference.parse(reference.familiar) == reference


@given(st.text() | st.text(alphabet="ab.:/@-_5[]", max_size=40))
def test_any_text_gives_a_reference_or_an_error(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except DamagedData:
        return
    assert Reference.parse(reference.canonical) == reference
    assert reference.repository == reference.repository.lower()
