"""Networks: records with JSON inside JSON inside JSON, and what ``docker network inspect`` makes of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forensics_lib.engines.docker.networks import NetworkStore, decode_networks
from forensics_lib.engines.docker.version import Engine
from forensics_lib.model import Origin, ProblemLog
from tests.engines.docker.dataroot import document, hexid

ID = hexid("network")
V20, V28 = Engine(20, 10), Engine(28)
INDEX = (7).to_bytes(8, "little")
MASK_6 = "fd00::1/64"


def record(**changes: Any) -> dict[str, Any]:
    """A bridge network as libnetwork stores it."""
    return {
        "id": ID, "name": "appnet", "networkType": "bridge", "scope": "local", "created": "2024-01-02T03:04:05.6Z",
        "ipamType": "default", "addrSpace": "LocalDefault", "enableIPv6": False, "internal": False,
        "attachable": True, "ingress": False, "configOnly": False, "configFrom": "", "labels": {"owner": "eve"},
        "generic": {
            "com.docker.network.enable_ipv6": False,
            "com.docker.network.generic": {"com.docker.network.bridge.name": "br0"},
        },
        "ipamOptions": {}, "ipamV4Config": "[]", "ipamV4Info": "[]",
    } | changes  # fmt: skip


def asked(**pool: Any) -> str:
    base = {"PreferredPool": "", "SubPool": "", "Gateway": "", "AuxAddresses": None}
    return json.dumps([base | pool])


def assigned(pool: str, gateway: str) -> str:
    data = json.dumps({"AddressSpace": "LocalDefault", "Gateway": gateway, "Pool": pool})
    return json.dumps([{"IPAMData": data, "PoolID": "x"}])


def decoded(*documents: tuple[str, Any]) -> tuple[NetworkStore, ProblemLog]:
    problems = ProblemLog()
    rows = [
        (f"docker/network/v1.0/{key}/".encode(), INDEX + document(value), Origin("local-kv.db").to(key))
        for key, value in documents
    ]
    return decode_networks(rows, problems), problems


def inspect(engine: Engine = V20, *more: tuple[str, Any], **changes: Any) -> dict[str, Any]:
    store, problems = decoded((f"network/{ID}", record(**changes)), *more)
    (network,) = [one for one in store.list(engine, problems) if one.id == ID]
    answer: dict[str, Any] = network.inspect()
    assert not problems.rows
    return answer


def test_everything() -> None:
    assert inspect() == {
        "Name": "appnet", "Id": ID, "Created": "2024-01-02T03:04:05.6Z", "Scope": "local", "Driver": "bridge",
        "EnableIPv6": False, "IPAM": {"Driver": "default", "Options": {}, "Config": []}, "Internal": False,
        "Attachable": True, "Ingress": False, "ConfigFrom": {"Network": ""}, "ConfigOnly": False, "Containers": {},
        "Options": {"com.docker.network.bridge.name": "br0"}, "Labels": {"owner": "eve"},
    }  # fmt: skip


def test_typed() -> None:
    store, problems = decoded(
        (f"network/{ID}", record(ipamV4Info=assigned("172.30.0.0/16", "172.30.0.1/16"), internal=True))
    )
    (network,) = store.list(V20, problems)
    assert (network.id, network.name, network.driver, network.scope) == (ID, "appnet", "bridge", "local")
    assert network.created_ns == 1_704_164_645_600_000_000
    assert (network.subnets, network.gateways) == (("172.30.0.0/16",), ("172.30.0.1",))
    assert network.internal
    assert network.labels == (("owner", "eve"),)
    assert network.options == (("com.docker.network.bridge.name", "br0"),)
    assert str(network.origin) == f"local-kv.db > network/{ID}"


POOL = "10.1.0.0/16"
GIVEN = asked(PreferredPool=POOL, SubPool="10.1.5.0/24", Gateway="10.1.5.254", AuxAddresses={"router": "10.1.5.1"})
SHOWN = {
    "Subnet": POOL, "IPRange": "10.1.5.0/24", "Gateway": "10.1.5.254", "AuxiliaryAddresses": {"router": "10.1.5.1"},
}  # fmt: skip
ONLY_ASKED = {"ipamV4Config": asked(PreferredPool=POOL)}
BOTH = ONLY_ASKED | {"ipamV4Info": assigned(POOL, "10.1.0.1/16")}
FOUR_AND_SIX = {"ipamV4Info": assigned(POOL, "10.1.0.1/16"), "ipamV6Config": asked(PreferredPool="fd01::/64")}
WITH_GATEWAY = {"Subnet": POOL, "Gateway": "10.1.0.1"}


@pytest.mark.parametrize(
    ("engine", "changes", "config"),
    [
        (V20, {"ipamV4Info": assigned(POOL, "10.1.0.1/16")}, [WITH_GATEWAY]),
        (V20, ONLY_ASKED, [{"Subnet": POOL}]),
        (V20, BOTH, [{"Subnet": POOL}]),
        (V28, BOTH, [WITH_GATEWAY]),
        (V20, {"ipamV4Config": GIVEN}, [SHOWN]),
        (V28, {"ipamV4Config": GIVEN}, [SHOWN]),
        (V20, {"ipamV6Info": assigned("fd00::/64", MASK_6)}, [{"Subnet": "fd00::/64", "Gateway": MASK_6}]),
        (V28, {"ipamV6Info": assigned("fd00::/64", MASK_6)}, [{"Subnet": "fd00::/64", "Gateway": "fd00::1"}]),
        (V20, FOUR_AND_SIX, [WITH_GATEWAY, {"Subnet": "fd01::/64"}]),
        (V20, {"ipamV4Info": assigned(POOL, "<nil>")}, [{"Subnet": POOL}]),
        (V20, {"ipamV4Config": "null", "ipamV4Info": "null"}, []),
    ],
)
def test_address_ranges(engine: Engine, changes: dict[str, Any], config: list[dict[str, Any]]) -> None:
    assert inspect(engine, **changes)["IPAM"]["Config"] == config


@pytest.mark.parametrize(("started", "complete"), [("2024-11-14T22:13:20Z", True), ("2022-11-14T22:13:20Z", False)])
def test_a_daemon_that_starts_again_completes_what_was_asked_for(started: str, complete: bool) -> None:
    changes = BOTH | {"ipamV6Info": assigned("fd00::/64", MASK_6)}
    bridge = (f"network/{hexid('bridge')}", record(id=hexid("bridge"), name="bridge", created=started))
    shown = inspect(V20, bridge, **changes)["IPAM"]["Config"]
    six = {"Subnet": "fd00::/64", "Gateway": "fd00::1" if complete else MASK_6}
    assert shown == [WITH_GATEWAY if complete else {"Subnet": POOL}, six]


@pytest.mark.parametrize(("engine", "shown"), [(V20, None), (V28, True)])
def test_ipv4_can_be_switched_off_from_28_on(engine: Engine, shown: bool | None) -> None:
    assert inspect(engine, enableIPv4=True).get("EnableIPv4") is shown


def endpoint(name: str, sandbox: str, address: str) -> tuple[str, dict[str, Any]]:
    interface = {"mac": "02:42:ac:1e:00:05", "addr": address, "addrv6": "<nil>", "routes": []}
    document = {"id": hexid(name), "name": name, "sandbox": sandbox, "ep_iface": interface}
    return f"endpoint/{ID}/{hexid(name)}", document


def test_containers_that_were_connected_when_the_power_failed() -> None:
    web = hexid("web container")
    more = (
        endpoint("web", "s1", "172.30.0.5/16"),
        endpoint("stray", "s9", ""),
        ("endpoint/other/x", {"id": "x", "name": "of another network"}),
        ("sandbox/s1", {"ID": "s1", "Cid": web, "Eps": []}),
    )
    address = {"MacAddress": "02:42:ac:1e:00:05", "IPv6Address": ""}
    assert inspect(V20, *more)["Containers"] == {
        web: {"Name": "web", "EndpointID": hexid("web"), "IPv4Address": "172.30.0.5/16", **address},
        f"ep-{hexid('stray')}": {"Name": "stray", "EndpointID": hexid("stray"), "IPv4Address": "", **address},
    }


def test_by_name() -> None:
    store, problems = decoded(*((f"network/{name}", record(id=name, name=name)) for name in ("none", "bridge", "host")))
    assert [network.name for network in store.list(V20, problems)] == ["bridge", "host", "none"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"docker/network/v1.0/network/x/", INDEX),
        (b"docker/network/v1.0/network/x/", b""),
        (b"other/network/x/", INDEX + b"{}"),
        (b"\xff\xfe", INDEX + b"{}"),
        (b"docker/network/v1.0/ipam/default/x/", b"binary\0\1\2 that is no JSON"),
    ],
)
def test_what_is_no_record_is_no_problem(key: bytes, value: bytes) -> None:
    problems = ProblemLog(strict=True)
    assert decode_networks([(key, value, Origin("db"))], problems).documents == {}


@pytest.mark.parametrize("value", [b"{", b"[]", b"\xff", b"12"])
def test_a_damaged_record_hides_no_other(value: bytes) -> None:
    problems = ProblemLog()
    key = b"docker/network/v1.0/network/%s/"
    rows = [(key % b"bad", INDEX + value, Origin("bad")), (key % b"good", INDEX + document(record()), Origin("good"))]
    store = decode_networks(rows, problems)
    assert [network.name for network in store.list(V20, problems)] == ["appnet"]
    assert [str(row.origin) for row in problems.rows] == ["bad"]


@pytest.mark.parametrize("key", ["ipamV4Config", "ipamV4Info", "ipamV6Info"])
def test_damaged_json_inside_json_is_reported_once(key: str) -> None:
    store, problems = decoded((f"network/{ID}", record(**{key: "[{"})))
    (network,) = store.list(V20, problems)
    assert network.subnets == ()
    assert network.inspect()["Name"] == "appnet"
    assert [str(row.origin) for row in problems.rows] == [f"local-kv.db > network/{ID}"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["[{}]", "[1]", "null", "[[]]"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from([*record(), "ipamV6Config", "ipamV6Info", "enableIPv4"]), VALUES, max_size=6),
    st.dictionaries(st.sampled_from(["id", "name", "sandbox", "ep_iface"]), VALUES, max_size=4),
    st.sampled_from([V20, V28]),
)
def test_any_shape_is_a_network(network: dict[str, Any], connected: dict[str, Any], engine: Engine) -> None:
    store, problems = decoded(
        (f"network/{ID}", record(**network)), (f"endpoint/{ID}/e", connected), ("sandbox/s", connected)
    )
    (row,) = store.list(engine, problems)
    assert "Containers" in row.inspect()
