"""Links between containers, as ``docker inspect`` shows them."""

from __future__ import annotations

from typing import Any

import pytest

from forensics_lib.engines.docker.containers import ContainerRecord, read_containers
from forensics_lib.engines.docker.links import finder, links_of, shown_links
from forensics_lib.engines.docker.root import DataRoot
from forensics_lib.formats.jsondoc import JsonObject
from forensics_lib.model import ProblemLog
from forensics_lib.trees.documents import DocumentReader
from tests.engines.docker.dataroot import hexid
from tests.engines.docker.rootmaker import RootMaker
from tests.trees.layers import tree


def records(**hosts: dict[str, Any]) -> dict[str, ContainerRecord]:
    root = RootMaker(at="/")
    for name, settings in hosts.items():
        root.container(name, host=settings)
    reader = DocumentReader(tree("host", root.entries), ProblemLog(strict=True))
    return {record.parts.name: record for record in read_containers(reader, DataRoot("/", "test"))}


def shown(found: dict[str, ContainerRecord], name: str, *, reloaded: bool = True) -> list[str] | None:
    return shown_links(found[name], finder(found.values()), reloaded=reloaded)


@pytest.mark.parametrize("asked", ["db:store", "/db:/web/store", hexid("container db") + ":store"])
def test_a_link_is_shown_with_the_names_of_both(asked: str) -> None:
    found = records(db={}, web={"NetworkMode": "default", "Links": [asked]})
    assert shown(found, "web") == ["/db:/web/store"]


def test_without_an_alias_the_name_is_one() -> None:
    found = records(db={}, web={"NetworkMode": "bridge", "Links": ["db"]})
    assert shown(found, "web") == ["/db:/web/db"]


def test_a_user_defined_network_has_no_links() -> None:
    found = records(db={}, web={"NetworkMode": "shop_default", "Links": ["db:store"]})
    assert shown(found, "web") is None
    assert list(links_of(found["web"].host_config)) == []


def test_a_link_to_a_guest_of_another_network_goes_to_its_host() -> None:
    found = records(
        db={"NetworkMode": "container:" + hexid("container pod")}, pod={},
        web={"NetworkMode": "default", "Links": ["db:store"]},
    )  # fmt: skip
    assert shown(found, "web") == ["/pod:/web/store"]


def test_a_circle_of_guests_ends() -> None:
    found = records(
        a={"NetworkMode": "container:" + hexid("container b")}, b={"NetworkMode": "container:" + hexid("container a")},
        web={"NetworkMode": "default", "Links": ["a:x"]},
    )  # fmt: skip
    assert shown(found, "web") in (["/a:/web/x"], ["/b:/web/x"])


def test_a_daemon_that_was_restarted_forgot_the_links_to_what_is_gone() -> None:
    found = records(web={"NetworkMode": "default", "Links": ["gone:store"]})
    assert shown(found, "web", reloaded=False) == ["/gone:/web/store"]
    assert shown(found, "web", reloaded=True) is None


def test_alone_a_record_is_taken_at_its_word() -> None:
    (record,) = records(web={"NetworkMode": "default", "Links": ["gone:store"]}).values()
    assert shown_links(record, None, reloaded=True) == ["/gone:/web/store"]


def test_what_is_no_link_is_none() -> None:
    assert list(links_of(JsonObject({"NetworkMode": "default", "Links": [1, None]}))) == []
