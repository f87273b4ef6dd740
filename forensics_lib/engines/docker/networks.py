"""Docker's networks: records of ``network/files/local-kv.db``.

Format: moby ``daemon/libnetwork``; every value is 8 bytes of index and a JSON document, address ranges are JSON inside
JSON inside JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from forensics_lib.engines.docker.version import Engine
from forensics_lib.engines.network import Network
from forensics_lib.errors import ForensicsError
from forensics_lib.formats.jsondoc import JsonObject, iter_objects, parse, parse_object, parse_time, to_bytes
from forensics_lib.model import Origin, ProblemLog

__all__ = ["NetworkStore", "decode_networks"]

_PREFIX = "docker/network/v1.0/"
_INDEX = 8
_GENERIC = "com.docker.network.generic"
_NO_ADDRESS = "<nil>"


@dataclass(slots=True)
class NetworkStore:
    """The documents of the store by kind (``network``, ``endpoint``, ``sandbox`` …) and the rest of their key."""

    documents: dict[str, dict[str, tuple[JsonObject, Origin]]] = field(default_factory=dict)

    def kind(self, name: str) -> Mapping[str, tuple[JsonObject, Origin]]:
        """Documents of one kind."""
        return self.documents.get(name, {})

    @property
    def networks(self) -> list[JsonObject]:
        """The networks' documents."""
        return [document for document, _ in self.kind("network").values()]

    def list(self, engine: Engine, problems: ProblemLog) -> list[Network]:
        """The networks, by name."""
        created = {document.text("id"): parse_time(document.text("created"))[1] or 0 for document in self.networks}
        # the daemon makes its default network anew when it starts
        started = max((created[one.text("id")] for one in self.networks if one.text("name") == "bridge"), default=0)
        rows = [
            self._network(
                document, origin, engine, problems, engine.at_least(28) or created[document.text("id")] < started
            )
            for document, origin in self.kind("network").values()
        ]
        return sorted(rows, key=lambda row: (row.name, row.id))

    def _network(
        self, document: JsonObject, origin: Origin, engine: Engine, problems: ProblemLog, complete: bool
    ) -> Network:
        ranges = list(_ranges(document, origin, problems, complete))
        options = _options(document)
        return Network(
            id=document.text("id"),
            name=document.text("name"),
            driver=document.text("networkType"),
            scope=document.text("scope") or "local",
            created_ns=parse_time(document.text("created"))[1],
            subnets=tuple(str(one.get("Subnet", "")) for one in ranges),
            gateways=tuple(str(one.get("Gateway", "")) for one in ranges),
            internal=document.flag("internal"),
            labels=tuple(document.mapping("labels").items()),
            options=tuple((key, str(value)) for key, value in options.items()),
            origin=origin,
            _inspect=lambda: self._inspect(document, origin, engine, complete),
        )

    def _inspect(self, document: JsonObject, origin: Origin, engine: Engine, complete: bool) -> dict[str, object]:
        quiet = ProblemLog()  # what is wrong was reported when the network was listed
        answer: dict[str, object] = {
            "Name": document.text("name"),
            "Id": document.text("id"),
            "Created": document.text("created"),
            "Scope": document.text("scope") or "local",
            "Driver": document.text("networkType"),
            "EnableIPv6": document.flag("enableIPv6"),
            "IPAM": {
                "Driver": document.text("ipamType") or "default",
                "Options": document.get("ipamOptions"),
                "Config": list(_ranges(document, origin, quiet, complete)),
            },
            "Internal": document.flag("internal"),
            "Attachable": document.flag("attachable"),
            "Ingress": document.flag("ingress"),
            "ConfigFrom": {"Network": document.text("configFrom")},
            "ConfigOnly": document.flag("configOnly"),
            "Containers": dict(self._containers(document.text("id"))),
            "Options": _options(document),
            "Labels": document.get("labels") or {},
        }
        if engine.at_least(28):
            answer["EnableIPv4"] = document.flag("enableIPv4")
        return answer

    def _containers(self, network_id: str) -> Iterator[tuple[str, dict[str, object]]]:
        """Containers that were connected when the store was last written: endpoints and the sandboxes they are in."""
        owners = {sandbox.text("ID"): sandbox.text("Cid") for sandbox, _ in self.kind("sandbox").values()}
        for key, (endpoint, _) in self.kind("endpoint").items():
            if key.partition("/")[0] != network_id:
                continue
            interface = endpoint.object("ep_iface")
            owner = owners.get(endpoint.text("sandbox"), "") or f"ep-{endpoint.text('id')}"
            yield (
                owner,
                {
                    "Name": endpoint.text("name"),
                    "EndpointID": endpoint.text("id"),
                    "MacAddress": interface.text("mac"),
                    "IPv4Address": _address(interface.text("addr")),
                    "IPv6Address": _address(interface.text("addrv6")),
                },
            )


def decode_networks(items: Iterable[tuple[bytes, bytes, Origin]], problems: ProblemLog) -> NetworkStore:
    """Sort the key-value pairs of the store's bucket; what cannot be decoded becomes a problem.

    Args:
        items: key, value and origin of each record.
        problems: gets damaged records.
    """
    store = NetworkStore()
    for key, value, origin in items:
        path = key.decode("utf-8", "surrogateescape").strip("/")
        if not path.startswith(_PREFIX) or len(value) <= _INDEX:
            continue
        kind, _, rest = path[len(_PREFIX) :].partition("/")
        if kind in ("macvlan", "ipvlan", "ipam"):
            continue
        try:
            document = parse_object(value[_INDEX:], origin)
        except ForensicsError as error:
            problems.add(origin, error)
            continue
        store.documents.setdefault(kind, {})[rest] = (document, origin)
    return store


def _options(document: JsonObject) -> dict[str, object]:
    return dict(document.object("generic").object(_GENERIC).raw)


def _ranges(document: JsonObject, origin: Origin, problems: ProblemLog, complete: bool) -> Iterator[dict[str, object]]:
    """Address ranges as ``docker network inspect`` shows them: those asked for, else those that were assigned.

    What was asked for is completed by what was assigned from 28 on, and before by the daemon's next start.
    """
    for version in ("4", "6"):
        wanted = _nested(document.text(f"ipamV{version}Config"), origin, problems)
        assigned = [
            next(iter(_nested(one.text("IPAMData"), origin, problems)), JsonObject({}))
            for one in _nested(document.text(f"ipamV{version}Info"), origin, problems)
        ]
        preferred = [(index, one) for index, one in enumerate(wanted) if one.text("PreferredPool")]
        if preferred:
            for index, one in preferred:
                data = assigned[index] if index < len(assigned) else JsonObject({})
                range_: dict[str, object] = {
                    "Subnet": (complete and data.text("Pool")) or one.text("PreferredPool"),
                    "IPRange": one.text("SubPool"),
                    "Gateway": one.text("Gateway") or (_bare(data.text("Gateway")) if complete else ""),
                    "AuxiliaryAddresses": one.mapping("AuxAddresses"),
                }
                yield {key: value for key, value in range_.items() if value}
            continue
        for data in assigned:
            if data.text("Pool"):
                with_mask = version == "6" and not complete
                gateway = data.text("Gateway") if with_mask else _bare(data.text("Gateway"))
                assigned_range: dict[str, object] = {"Subnet": data.text("Pool"), "Gateway": gateway}
                yield {key: value for key, value in assigned_range.items() if value}


def _nested(text: str, origin: Origin, problems: ProblemLog) -> list[JsonObject]:
    """The objects of JSON that stands as a string inside JSON."""
    if not text or text == "null":
        return []
    try:
        value = parse(to_bytes(text), origin)
    except ForensicsError as error:
        problems.add(origin, error)
        return []
    return list(iter_objects(value)) if isinstance(value, list) else list(iter_objects([value]))


def _bare(address: str) -> str:
    return "" if address.startswith(_NO_ADDRESS) else address.partition("/")[0]


def _address(address: str) -> str:
    return "" if address.startswith(_NO_ADDRESS) else address
