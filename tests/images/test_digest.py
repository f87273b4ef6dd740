from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.errors import DamagedData
from forensics_lib.images.digest import chain_ids, parse_digest

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_parse_digest() -> None:
    assert parse_digest(f"sha256:{EMPTY}") == ("sha256", EMPTY)
    assert parse_digest("sha512:" + "0a" * 64) == ("sha512", "0a" * 64)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        EMPTY,
        f"sha256:{EMPTY[:-1]}",
        f"sha256:{EMPTY}0",
        f"sha256:{EMPTY.upper()}",
        f"SHA256:{EMPTY}",
        f"sha256:{EMPTY}\n",
        f" sha256:{EMPTY}",
        f"sha512:{EMPTY}",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha256:../../../etc/passwd",
        "sha256:" + "\u0661" * 64,
    ],
)
def test_a_digest_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(DamagedData):
        parse_digest(text)


def test_chain_ids_of_a_known_image() -> None:
    """Two layers of a Docker 20.10 image; the chain id is the name of its directory in image/overlay2/layerdb."""
    first = "sha256:8d96d8f383c0885c37bce9d335a7dd19abad426278bb1a676cf41f29fc5ffad8"
    second = "sha256:1b6e96a7bb6057af8aced761e3cbf19fd4c86b1c632b09e4760dab8827772600"
    assert chain_ids([]) == []
    assert chain_ids([first]) == [first]
    assert chain_ids([first, second]) == [
        first,
        "sha256:181f5ae72c8b06a91c6272673453eb8e68e16f244b588f9276d14bf008364474",
    ]


def test_chain_ids_refuse_what_is_no_digest() -> None:
    with pytest.raises(DamagedData):
        chain_ids([f"sha256:{EMPTY}", "sha256:short"])


@given(st.lists(st.binary(max_size=4), max_size=6))
def test_each_chain_id_names_the_layers_below(contents: list[bytes]) -> None:
    diff_ids = [f"sha256:{hashlib.sha256(content).hexdigest()}" for content in contents]
    chain = chain_ids(diff_ids)
    assert len(chain) == len(diff_ids)
    for index in range(1, len(chain)):
        expected = hashlib.sha256(f"{chain[index - 1]} {diff_ids[index]}".encode()).hexdigest()
        assert chain[index] == f"sha256:{expected}"


@given(st.text())
def test_parse_digest_of_any_text(text: str) -> None:
    try:
        algorithm, digits = parse_digest(text)
    except DamagedData:
        return
    assert f"{algorithm}:{digits}" == text
