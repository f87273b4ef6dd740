"""An OCI registry on the loopback interface that knows what the tests need, and lies when it is told to."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

INDEX = "application/vnd.oci.image.index.v1+json"
_ROUTE = re.compile(r"/v2/(?P<name>.+?)/(?P<kind>manifests|blobs/uploads|blobs|referrers)/(?P<ref>[^/]*)")


class RegistryServer:
    """One registry; use it as a context manager. Faults are set by digest or tag at any time."""

    def __init__(self, *, referrers_api: bool = True) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.requests: list[tuple[str, str, str]] = []
        """Method, path and Authorization of each request."""
        self.referrers_api = referrers_api
        self.page_size = 100
        self.auth = ""
        """Empty, ``basic``, ``token`` (for the account) or ``anonymous`` (a token for everybody)."""
        self.account = ("examiner", "secret")
        self.revoked: set[str] = set()
        self.challenge = ""
        """What comes with every 401, where it is not the challenge of `auth`."""
        self.storage: RegistryServer | None = None
        """Where blobs are redirected to."""
        self.sent: dict[str, bytes] = {}
        """What is sent in place of the right bytes."""
        self.headers: dict[str, dict[str, str]] = {}
        """What is added to, or replaces, the right headers."""
        self.status: dict[str, int] = {}
        self.endless: set[str] = set()
        self.cut: set[str] = set()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.registry = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> RegistryServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def add_blob(self, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def add_manifest(self, name: str, reference: str, media_type: str, data: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.manifests[name, digest] = self.manifests[name, reference] = (media_type, data)
        return digest

    def paths(self, method: str) -> list[str]:
        return [path for verb, path, _ in self.requests if verb == method]

    def referrers(self, name: str, subject: str) -> list[dict[str, Any]]:
        entries = []
        for (repository, reference), (media_type, data) in self.manifests.items():
            document = json.loads(data)
            if repository != name or ":" not in reference or document.get("subject", {}).get("digest") != subject:
                continue
            entry = {"mediaType": media_type, "digest": reference, "size": len(data)}
            for key in ("artifactType", "annotations"):
                if key in document:
                    entry[key] = document[key]
            entries.append(entry)
        return entries


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    disable_nagle_algorithm = True

    @property
    def registry(self) -> RegistryServer:
        registry: RegistryServer = self.server.registry  # type: ignore[attr-defined]
        return registry

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError):  # a client that hung up has seen enough
            super().handle_one_request()

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.registry.requests.append((self.command, url.path, self.headers.get("Authorization", "")))
        if url.path == "/token":
            self._token(parse_qs(url.query))
            return
        if url.path.startswith("/storage/"):
            self._send_stored(url.path.removeprefix("/storage/"), "application/octet-stream", self.registry.blobs)
            return
        route = _ROUTE.fullmatch(url.path)
        if route is None:
            self._answer(404, b"<html>no such page</html>", {"Content-Type": "text/html"})
        elif self._allowed(route["name"]):
            name, kind, reference = route.group("name", "kind", "ref")
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            if kind == "manifests":
                self._manifest(name, reference, body)
            elif kind == "blobs":
                self._blob(reference)
            elif kind == "referrers":
                self._referrers(name, reference, int(query.get("page", 0)))
            else:
                self._upload(name, reference, query.get("digest"), body)

    def _allowed(self, name: str) -> bool:
        registry, given = self.registry, self.headers.get("Authorization", "")
        right = "pull" if self.command in ("GET", "HEAD") else "push"
        scope = "pull" if right == "pull" else "pull,push"
        if registry.auth == "":
            return True
        if registry.auth == "basic":
            if given == self._basic():
                return True
            challenge = 'Basic realm="Registry Realm"'
        else:
            token = given.removeprefix("Bearer ")
            if given.startswith("Bearer ") and right in token and token not in registry.revoked:
                return True
            challenge = f'Bearer realm="http://{registry.host}/token",service="test",scope="repository:{name}:{scope}"'
        self._answer(401, _error("UNAUTHORIZED", "authentication required"), {"WWW-Authenticate": challenge})
        return False

    def _basic(self) -> str:
        return "Basic " + base64.b64encode(":".join(self.registry.account).encode()).decode()

    def _token(self, query: dict[str, list[str]]) -> None:
        if self.registry.auth == "token" and self.headers.get("Authorization") != self._basic():
            self._answer(401, _error("UNAUTHORIZED", "who are you?"))
            return
        token = f"{len(self.registry.requests)}:{query['scope'][0]}"
        self._answer(200, json.dumps({"token": token}).encode(), {"Content-Type": "application/json"})

    def _manifest(self, name: str, reference: str, body: bytes) -> None:
        stored = self.registry.manifests
        if self.command == "PUT":
            digest = self.registry.add_manifest(name, reference, self.headers["Content-Type"], body)
            if reference.startswith("sha256:") and reference != digest:
                del stored[name, reference]
                self._answer(400, _error("DIGEST_INVALID", "provided digest did not match"))
                return
            subject = json.loads(body).get("subject", {}).get("digest")
            listed = {"OCI-Subject": subject} if subject and self.registry.referrers_api else {}
            listed |= {"Docker-Content-Digest": digest} | self.registry.headers.get(f"PUT {reference}", {})
            self._answer(201, b"", listed)
            return
        media_type, data = stored.get((name, reference), ("", b""))
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self._send_stored(reference, media_type, {reference: data} if data else {}, {"Docker-Content-Digest": digest})

    def _blob(self, digest: str) -> None:
        storage = self.registry.storage
        if storage is not None and digest in storage.blobs:
            self._answer(307, b"", {"Location": f"http://{storage.host}/storage/{digest}"})
        else:
            self._send_stored(digest, "application/octet-stream", self.registry.blobs)

    def _send_stored(
        self, key: str, media_type: str, stored: dict[str, bytes], headers: dict[str, str] | None = None
    ) -> None:
        registry = self.registry
        status = registry.status.get(key, 200 if key in stored else 404)
        if status != 200:
            challenge = {"WWW-Authenticate": registry.challenge} if registry.challenge else {}
            self._answer(status, _error("UNKNOWN", f"\x1b[31mnothing known of {key}"), challenge)
            return
        data = registry.sent.get(key, stored[key])
        merged = {"Content-Type": media_type, **(headers or {}), **registry.headers.get(key, {})}
        if key in registry.endless:
            self._answer_chunks(merged, iter(lambda: b"x" * 65536, b""))
        elif key in registry.cut:
            self._answer(200, data[: len(data) // 2], {**merged, "Content-Length": str(len(data))})
            self.close_connection = True
        else:
            self._answer(200, data, merged)

    def _referrers(self, name: str, subject: str, page: int) -> None:
        registry = self.registry
        if not registry.referrers_api:
            self._answer(404, b"404 page not found", {"Content-Type": "text/plain"})
            return
        entries = registry.referrers(name, subject)
        first = page * registry.page_size
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries[first : first + registry.page_size]}
        headers = {"Content-Type": INDEX}
        if first + registry.page_size < len(entries):
            headers["Link"] = f'</v2/{name}/referrers/{subject}?page={page + 1}>; rel="next"'
        self._answer(200, json.dumps(document).encode(), headers | registry.headers.get("referrers", {}))

    def _upload(self, name: str, upload: str, digest: str | None, body: bytes) -> None:
        uploads = self.registry.uploads
        if self.command == "POST":
            upload = f"upload{len(uploads)}"
            uploads[upload] = bytearray()
        uploads[upload] += body
        location = {"Location": f"/v2/{name}/blobs/uploads/{upload}?state=1"}
        if self.command != "PUT" and digest is None:
            self._answer(202, b"", location)
            return
        data = bytes(uploads[upload])
        if digest != f"sha256:{hashlib.sha256(data).hexdigest()}":
            self._answer(400, _error("DIGEST_INVALID", "provided digest did not match uploaded content"))
            return
        self.registry.add_blob(data)
        self._answer(201, b"", {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": str(digest)})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _answer_chunks(self, headers: dict[str, str], chunks: Iterator[bytes]) -> None:
        self.send_response(200)
        for key, value in (headers | {"Transfer-Encoding": "chunked"}).items():
            self.send_header(key, value)
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))


def _error(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()
