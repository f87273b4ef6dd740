"""What a recovered document is, by its own keys: whose it was, what state it tells of, and where it lay.

Keys: moby ``daemon/container`` (config.v2.json, hostconfig.json), OCI image and runtime specifications.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from forensics_lib.formats.jsondoc import JsonObject, JsonValue, parse_time

__all__ = ["CONTAINER_ID", "Form", "changed_ns", "form_of", "state_rank", "state_text", "text_form"]

CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
_TEXTS = (
    (re.compile(rb"sha256:[0-9a-f]{64}"), "digest of a layer, its parent or an image"),
    (re.compile(rb"[0-9a-f]{64}(?:-init)?|[0-9a-z]{25}"), "name of a layer's directory"),
    (re.compile(rb"[A-Z2-7]{26}"), "short name of a layer's directory"),
    (re.compile(rb"l/[A-Z2-7]{26}(?::l/[A-Z2-7]{26})*"), "short names of the layers below one"),
    (re.compile(rb"\.\./[0-9a-f]{64}(?:-init)?/diff"), "target of a link to a layer's directory"),
    (re.compile(rb"[0-9a-f]{12}\n"), "host name of a container, the start of its id"),
)
_LONGEST_SHOWN = 80
_ID_IN_PATH = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class Form:
    """What a document is by its content.

    Attributes:
        kind: as that of a remnant.
        path: where it lay below the engine's data root, as far as its content tells; empty when it does not.
        container_id: the container it describes; empty when it names none.
        image_id: digest of the image it describes; empty when it is no image's.
        detail: what it is, in words.
        modified_ns: the newest time in it; None when there is none.
    """

    kind: str
    path: str = ""
    container_id: str = ""
    image_id: str = ""
    detail: str = ""
    modified_ns: int | None = None


def form_of(value: JsonValue, raw: bytes) -> Form | None:
    """What a parsed document is; None for a document that no engine is known to write.

    Args:
        value: the document.
        raw: its exact bytes, of which digests are made.
    """
    if isinstance(value, list):
        entries = [JsonObject(item) for item in value if isinstance(item, dict)]
        if entries and all(entry.text("Digest").startswith("sha256:") for entry in entries):
            repositories = ", ".join(dict.fromkeys(entry.text("SourceRepository") for entry in entries))
            return Form("record", detail=f"where a layer was pulled from or pushed to: {repositories}")
        if entries and all(entry.text("Config") and "Layers" in entry for entry in entries):
            tags = ", ".join(tag for entry in entries for tag in entry.texts("RepoTags"))
            return Form("record", "manifest.json", detail=f"manifest of an image archive: {tags or 'no tags'}")
        return None
    return _object(JsonObject(value), raw) if isinstance(value, dict) else None


def text_form(data: bytes) -> Form | None:
    """What a short text is that Docker keeps of layers and containers; None for any other."""
    for pattern, what in _TEXTS:
        if pattern.fullmatch(data):
            return Form("record", detail=f"{what}: {data[:_LONGEST_SHOWN].decode().strip()}")
    return None


def _object(document: JsonObject, raw: bytes) -> Form | None:
    state = document.object("State")
    if CONTAINER_ID.fullmatch(document.text("ID")) and "Config" in document and state.raw:
        return _config(document, state)
    if "NetworkMode" in document and "RestartPolicy" in document:
        return Form("config", "hostconfig.json", detail="settings of a container towards the host")
    if document.text("ociVersion") and ("process" in document or "root" in document):
        return _specification(document)
    if "diff_ids" in document.object("rootfs") and ("architecture" in document or "os" in document):
        digest = hashlib.sha256(raw).hexdigest()
        created = parse_time(document.text("created"))[1]
        return Form("image", f"imagedb/content/sha256/{digest}", "", f"sha256:{digest}", "image config", created)
    if document.integer("schemaVersion") == 2 and ("layers" in document or "manifests" in document):
        what = "index" if "manifests" in document else "manifest"
        digest = hashlib.sha256(raw).hexdigest()
        image = document.object("config").text("digest")
        return Form("image", f"blobs/sha256/{digest}", "", image, f"image {what} sha256:{digest}")
    if CONTAINER_ID.fullmatch(document.text("id")) and ("container_config" in document or "parent" in document):
        return Form("record", "json", detail=f"description of a layer in an image archive: {document.text('id')}")
    if isinstance(document.get("Repositories"), dict):
        names = ", ".join(document.object("Repositories").raw)
        return Form("record", "repositories.json", detail=f"names of images: {names}")
    return None


def _config(document: JsonObject, state: JsonObject) -> Form:
    container_id, name = document.text("ID"), document.text("Name").removeprefix("/")
    detail = f"container {name}: {state_text(state)}"
    path = f"containers/{container_id}/config.v2.json"
    return Form("config", path, container_id, document.text("Image"), detail, changed_ns(document))


def _specification(document: JsonObject) -> Form:
    """A runtime specification names its container only by the paths that it mounts and its place among the cgroups."""
    places = [document.object("linux").text("cgroupsPath"), document.object("root").text("path")]
    places += [mount.text("source") for mount in document.objects("mounts")]
    ids = [match[0] for place in places if "/volumes/" not in place for match in _ID_IN_PATH.finditer(place)]
    # The root's path has the id of a layer, the other places that of the container.
    counted = sorted(dict.fromkeys(ids), key=lambda one: -ids.count(one))
    words = " ".join(document.object("process").texts("args"))
    return Form("record", "config.json", counted[0] if counted else "", detail=f"runtime specification: {words}")


def state_text(state: JsonObject) -> str:
    """A state in words."""
    if state.flag("Dead"):
        return "dead: its removal went on to the files"
    if state.flag("RemovalInProgress"):
        return "removal begun"
    if state.flag("Running"):
        paused = "paused" if state.flag("Paused") else "restarting" if state.flag("Restarting") else "running"
        return f"{paused} as process {state.integer('Pid') or 0} since {state.text('StartedAt')}"
    if parse_time(state.text("StartedAt"))[1] is None:
        return "created, not started"
    return f"exited with {state.integer('ExitCode') or 0} at {state.text('FinishedAt')}"


def state_rank(config: JsonObject) -> tuple[int, int, int]:
    """Sort key of the generations of a container's record, oldest first."""
    state = config.object("State")
    removal = state.flag("RemovalInProgress") + 2 * state.flag("Dead")
    return removal, changed_ns(config) or 0, 0 if state.flag("Running") else 1


def changed_ns(config: JsonObject) -> int | None:
    """The newest time that a container's record tells of its state, nanoseconds since 1970."""
    state = config.object("State")
    texts = (config.text("Created"), state.text("StartedAt"), state.text("FinishedAt"))
    return max((time for _, time in map(parse_time, texts) if time is not None), default=None)
