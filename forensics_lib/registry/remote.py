"""One repository of a registry, spoken to through oras within limits and with the library's errors.

Specification: OCI Distribution 1.1.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urljoin

from oras import defaults
from oras.auth import AuthenticationException
from oras.auth.token import TokenAuth
from oras.container import Container
from oras.provider import Registry
from requests import RequestException, Response
from requests import exceptions as failures
from requests.adapters import HTTPAdapter
from urllib3 import Retry
from urllib3.exceptions import HTTPError

from forensics_lib.errors import (
    DamagedData,
    ForensicsError,
    LimitExceeded,
    NotFound,
    UnsupportedFormat,
    VerificationFailed,
)
from forensics_lib.formats.jsondoc import MAX_BYTES, JsonObject, parse_object
from forensics_lib.images.digest import parse_digest
from forensics_lib.images.reference import Reference
from forensics_lib.model import Origin
from forensics_lib.registry.plan import DOCUMENTS, INDEX, INDEXES, Descriptor, digest_of, media_type_of, to_json
from forensics_lib.sources.base import BLOCK

if TYPE_CHECKING:
    from requests import PreparedRequest

__all__ = ["Remote"]

_ACCEPT = {"Accept": ", ".join(defaults.default_manifest_accepted_media_types)}
_CHUNK: int = defaults.default_chunksize
_MAX_ANSWER = 1 << 20
_MAX_PAGES = 256
_TIMEOUT = (10.0, 60.0)
_RETRIES = Retry(
    2, backoff_factor=0.2, status_forcelist=(502, 503, 504), respect_retry_after_header=False, raise_on_status=False
)


class Remote:
    """One repository of a registry; close it when done, or use it as a context manager.

    Args:
        reference: of an image in that repository.
        insecure: speak plain HTTP.
        username: for the registry; None takes what Docker's configuration has, or nothing.
        password: for the registry.

    Attributes:
        reference: the same.
        name: registry and repository.

    Raises:
        ForensicsError: Docker's configuration cannot be read.
    """

    def __init__(self, reference: Reference, insecure: bool, username: str | None, password: str | None) -> None:
        """Prepare; nothing is sent yet."""
        self.reference = reference
        self.name = f"{reference.registry}/{reference.repository}"
        hub = reference.registry == defaults.registry.index_name  # a name only: API and account are elsewhere
        self._container = Container("repository")
        self._container.repository = reference.repository
        self._container.registry = defaults.registry.default_v2_registry["host"] if hub else reference.registry
        self._client = _Client(insecure)
        if username is not None:
            self._client.auth.set_basic_auth(username, password or "")
        else:
            account = defaults.registry.index_server if hub else reference.registry
            with _translated("the credentials of Docker's configuration"):
                self._client.auth.load_configs(Container("repository", registry=account))

    def __enter__(self) -> Remote:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        self._client.session.close()

    def top(self) -> tuple[Descriptor, bytes]:
        """The manifest or index that the reference names, with its exact bytes.

        Raises:
            NotFound: there is none.
            VerificationFailed: the registry's own digest is not that of the bytes.
            UnsupportedFormat: it is something else.
        """
        name = self.reference.digest or self.reference.tag or defaults.default_tag
        raw, response = self._document(self._url("manifests", name))
        _require_digest(raw, response.headers.get("Docker-Content-Digest"), "what the registry sends")
        media_type = media_type_of(raw, response.headers.get("Content-Type", ""), Origin(str(self.reference)))
        return Descriptor(media_type, self.reference.digest or digest_of(raw), len(raw)), raw

    def chunks(self, descriptor: Descriptor) -> Iterator[bytes]:
        """What the registry sends for a digest: unverified, and maybe without end."""
        kind = "manifests" if descriptor.media_type in DOCUMENTS else "blobs"
        with self._get(self._url(kind, descriptor.digest)) as response:
            yield from _body(response)

    def upload(self, path: Path, blob: Descriptor) -> None:
        """Send a file, unless the repository has that blob; large ones in chunks."""
        with _translated(f"upload of {blob.digest}"):
            self._client.upload_blob(
                str(path), self._container, blob.entry, do_chunked=blob.size > _CHUNK, chunk_size=_CHUNK
            )

    def require_digest(self, raw: bytes) -> None:
        """Refuse to push what is not what the reference names.

        Raises:
            VerificationFailed: the reference has the digest of something else.
        """
        _require_digest(raw, self.reference.digest, "what is to be pushed")

    def put(self, raw: bytes, media_type: str, digest: str | None = None) -> str:
        """Store a manifest under its digest if given, else as the reference says; returns its digest.

        A registry that keeps no list of referrers gets the manifest's subject listed under the fallback tag.

        Raises:
            VerificationFailed: the registry stored something else.
        """
        name = digest or self.reference.digest or self.reference.tag or digest_of(raw)
        digest = digest_of(raw, name)
        response = self._client.do_request(
            self._url("manifests", name), "PUT", data=raw, headers={"Content-Type": media_type}
        )
        _require_digest(raw, response.headers.get("Docker-Content-Digest"), "what the registry stored")
        document = parse_object(raw, Origin(digest))
        subject = document.object("subject").text("digest")
        if subject and "OCI-Subject" not in response.headers:
            self._list_by_tag(subject, Descriptor(media_type, digest, len(raw)), document)
        return digest

    def referrers(self, digest: str) -> list[JsonObject]:
        """The descriptors of what refers to a digest: as the registry lists them, else as the fallback tag does."""
        first = url = self._url("referrers", digest)
        entries: list[JsonObject] = []
        for _ in range(_MAX_PAGES):
            try:
                raw, response = self._document(url)
            except NotFound:
                if url != first:
                    raise
                return self._tagged(digest).objects("manifests")
            if response.headers.get("Content-Type", "").partition(";")[0] != INDEX:  # a page for every address
                return self._tagged(digest).objects("manifests")
            entries += parse_object(raw, Origin(url)).objects("manifests")
            link = response.links.get("next", {}).get("url")
            if link is None:
                return entries
            with _translated("the list of referrers"):
                url = urljoin(url, link)
            if not url.startswith(first):
                raise DamagedData("the list of referrers goes on at another place", origin=Origin(url))
        raise LimitExceeded(f"more than {_MAX_PAGES} pages of referrers", origin=Origin(url))

    def _list_by_tag(self, subject: str, pushed: Descriptor, document: JsonObject) -> None:
        index = self._tagged(subject)
        if any(entry.text("digest") == pushed.digest for entry in index.objects("manifests")):
            return
        entry = pushed.entry
        if artifact_type := document.text("artifactType") or document.object("config").text("mediaType"):
            entry["artifactType"] = artifact_type
        if annotations := document.mapping("annotations"):
            entry["annotations"] = annotations
        entries = [*(other.raw for other in index.objects("manifests")), entry]
        raw = to_json({"schemaVersion": 2, "mediaType": INDEX, **index.raw, "manifests": entries})
        self._client.do_request(
            self._url("manifests", _fallback_tag(subject)), "PUT", data=raw, headers={"Content-Type": INDEX}
        )

    def _tagged(self, subject: str) -> JsonObject:
        """The index under the fallback tag; empty when there is none."""
        url = self._url("manifests", _fallback_tag(subject))
        try:
            raw, response = self._document(url)
        except NotFound:
            return JsonObject({})
        if media_type_of(raw, response.headers.get("Content-Type", ""), Origin(url)) not in INDEXES:
            raise DamagedData("the fallback tag of the referrers is no index", origin=Origin(url))
        return parse_object(raw, Origin(url))

    def _url(self, kind: str, name: str) -> str:
        return f"{self._client.prefix}://{self._container.registry}/v2/{self._container.api_prefix}/{kind}/{name}"

    def _get(self, url: str) -> Response:
        return self._client.do_request(url, "GET", headers=_ACCEPT, stream=True)

    def _document(self, url: str) -> tuple[bytes, Response]:
        raw = bytearray()
        with self._get(url) as response:
            for chunk in _body(response):
                raw += chunk
                if len(raw) > MAX_BYTES:
                    raise LimitExceeded(f"a document of more than {MAX_BYTES} bytes", origin=Origin(url))
        return bytes(raw), response


class _Client(Registry):  # type: ignore[misc] # oras has no types
    """oras' transport within limits."""

    def __init__(self, insecure: bool) -> None:
        super().__init__(insecure=insecure)
        self.auth = _Credentials(self.session, self.prefix)
        self.session.headers["Accept-Encoding"] = "identity"  # a digest is over the bytes as they are stored
        self.session.adapters.clear()  # without one for http, no redirect and no token server can leave TLS
        for scheme in ("https", "http") if insecure else ("https",):
            self.session.mount(f"{scheme}://", _Limits(max_retries=_RETRIES))

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        json: object = None,
        stream: bool = False,
    ) -> Response:
        """One request.

        Raises:
            NotFound: the registry does not know the address; no error for HEAD, which asks just that.
            ForensicsError: any other refusal or failure.
        """
        send = inspect.unwrap(Registry.do_request)  # its retries take two minutes, also after "access denied"
        with _translated(f"{method} {url}"):
            response = cast("Response", send(self, url, method, data, dict(headers or {}), json, stream))
        if response.ok or (response.status_code == 404 and method == "HEAD"):
            return response
        kind = NotFound if response.status_code == 404 else ForensicsError
        raise kind(f"{method} {url}: {response.status_code} {_complaint(response)}")


class _Credentials(TokenAuth):  # type: ignore[misc] # oras has no types
    """oras' tokens; also Basic authentication, and a new token where the present one is too old or too narrow."""

    def __init__(self, session: object, prefix: str) -> None:
        super().__init__()
        self.session, self.prefix, self._tls_verify = session, prefix, True
        self.scheme = "Bearer"

    def get_auth_header(self) -> dict[str, str]:
        return {"Authorization": f"{self.scheme} {self.token}"}

    def authenticate_request(
        self, original: Response, headers: dict[str, str], refresh: bool = False
    ) -> tuple[dict[str, str], bool]:
        self.scheme, self.token = "Bearer", None
        if not original.headers.get("Www-Authenticate", "").lower().startswith("basic"):
            return cast("tuple[dict[str, str], bool]", super().authenticate_request(original, headers, refresh))
        account: str | None = getattr(self, "_basic_auth", None)
        if account is None:
            return headers, False
        self.scheme, self.token = "Basic", account
        return {**headers, **self.get_auth_header()}, True


class _Limits(HTTPAdapter):
    """Every wait ends, and only what is streamed and successful can be large."""

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,
        cert: str | tuple[str, str] | None = None,
        proxies: dict[str, str] | None = None,
    ) -> Response:
        response = super().send(request, stream, timeout or _TIMEOUT, verify, cert, proxies)
        if not (stream and response.status_code == 200):
            try:
                body = response.raw.read(_MAX_ANSWER, decode_content=False)
            except HTTPError as error:
                raise failures.ConnectionError(error, request=request) from error
            finally:
                response.raw.close()
            response.raw = BytesIO(body)
        return response


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Errors of oras and requests as the library's; oras meets an unexpected answer with whatever Python raises."""
    try:
        yield
    except ForensicsError:
        raise
    except (
        RequestException,
        HTTPError,
        AuthenticationException,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
    ) as error:
        raise ForensicsError(f"{what}: {error}") from error


def _body(response: Response) -> Iterator[bytes]:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise UnsupportedFormat(f"{response.url}: the registry encodes what it was asked to send as it is")
    with _translated(response.url):
        yield from response.iter_content(BLOCK)


def _complaint(response: Response) -> str:
    """What the registry says is wrong, made safe for display."""
    try:
        errors = parse_object(response.content, Origin(response.url)).objects("errors")
    except DamagedData:
        errors = []
    text = "; ".join(error.text("message") or error.text("code") for error in errors) or response.reason or ""
    return "".join(character for character in text[:500] if character.isprintable())


def _require_digest(raw: bytes, wanted: str | None, what: str) -> None:
    actual = digest_of(raw, wanted)
    if wanted is not None and wanted != actual:
        raise VerificationFailed(f"{what} is {actual} instead of {wanted[:200]}", expected=wanted, actual=actual)


def _fallback_tag(digest: str) -> str:
    algorithm, encoded = parse_digest(digest)
    return f"{algorithm}-{encoded[:64]}"
