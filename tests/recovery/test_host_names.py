"""Files with a container's host name are its own, when the name is the start of one id only."""

from __future__ import annotations

from typing import Any

import pytest

from forensics_lib.recovery.host_names import named_by_host_names
from forensics_lib.recovery.remnant import Remnant
from tests.engines.docker.dataroot import hexid
from tests.recovery.scene import remnant

WEB, DB = hexid("web"), hexid("db")
HOSTS = b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\n172.17.0.8\t%s\n"


def named(content: bytes, *ids: str, **changes: Any) -> Remnant:
    (found,) = named_by_host_names([remnant(content, **changes)], ids or (WEB, DB, ""))
    return found


@pytest.mark.parametrize(
    ("name", "content"), [("hostname", f"{WEB[:12]}\n".encode()), ("hosts", HOSTS % WEB[:12].encode())]
)
def test_the_container_is_told_by_its_host_name(name: str, content: bytes) -> None:
    found = named(content)
    assert (found.path, found.container_id) == (f"containers/{WEB}/{name}", WEB)
    assert "told by the host name in it" in found.detail
    assert named(content, DB).path == ""
    assert named(content, WEB, f"{WEB[:12]}{'0' * 52}").path == ""
    assert named(content, path="x").path == "x"
    assert named(content, complete=False).path == ""


def test_other_texts_have_no_name() -> None:
    short = WEB[:12].encode()
    two = (HOSTS % short) + b"172.18.0.2\t" + DB[:12].encode() + b"\n"
    for content in (short, HOSTS % b"web.example", b"x" + HOSTS % short, two, short + b"\n" + short + b"\n"):
        assert named(content).path == ""
