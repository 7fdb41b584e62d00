# SPDX-License-Identifier: Apache-2.0
"""The account's image registry: Docker's registry API version 2, with credentials that expire."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from tests.cloudflare.calls import TOKEN

NAME = r"{name:[0-9a-f]{32}/[a-z0-9._/-]+?}"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MANIFEST_BYTES = 4 * 1024 * 1024
CATALOG_PAGE = 100
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
USER = "v1"
ACCOUNT = web.RequestKey("account", str)


@dataclass
class Loan:
    """A password that was lent: what for, and until when."""

    account: str
    permissions: frozenset[str]
    expires_at: float


@dataclass
class Manifest:
    """A stored manifest."""

    content: bytes
    media_type: str


@dataclass
class Repository:
    """Manifests by digest, and tags."""

    manifests: dict[str, Manifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class RegistryError(Exception):
    """A refusal in the registry's own words."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Registry:
    """Stores images. `hosts` are the names that it is known by."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self.folder = folder
        self.clock = clock
        self.hosts = {"registry.cloudflare.com"}
        self.public: set[str] = set()
        """Repositories that anybody may pull from: an account's registry has none. With one, nobody is challenged."""
        self.repositories: dict[str, Repository] = {}
        self._loans: dict[str, Loan] = {}
        (folder / "blobs").mkdir(parents=True, exist_ok=True)
        (folder / "uploads").mkdir(exist_ok=True)

    def lend(self, account: str, permissions: list[str], seconds: float) -> str:
        """Return a password for one account that expires."""
        password = secrets.token_urlsafe(32)
        self._loans[password] = Loan(account, frozenset(permissions), self.clock() + seconds)
        return password

    def has(self, repository: str, digest: str) -> bool:
        """Tell whether a manifest is stored."""
        found = self.repositories.get(repository)
        return found is not None and digest in found.manifests

    def add_image(self, repository: str, tag: str = "latest", note: str = "") -> str:
        """Store an image without layers, as if it had been pushed, and return its digest; notes tell images apart."""
        config = json.dumps({"os": "linux", "architecture": "amd64", "note": note}).encode()
        digest = self._store(config)
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest,
                "size": len(config),
            },
            "layers": [],
        }
        return self.put_manifest(repository, tag, json.dumps(manifest).encode(), OCI_MANIFEST)

    def put_manifest(self, name: str, reference: str, content: bytes, media_type: str) -> str:
        """Store a manifest whose blobs are all there; return its digest."""
        digest = digest_of(content)
        if DIGEST.fullmatch(reference) and reference != digest:
            raise RegistryError(400, "DIGEST_INVALID", f"the content has digest {digest}")
        try:
            manifest = json.loads(content)
        except ValueError as error:
            raise RegistryError(400, "MANIFEST_INVALID", "the manifest is not JSON") from error
        repository = self.repositories.setdefault(name, Repository())
        for part in manifest.get("manifests") or []:
            if part["digest"] not in repository.manifests:
                raise RegistryError(404, "MANIFEST_UNKNOWN", f"{part['digest']} is not here")
        for blob in [manifest.get("config"), *(manifest.get("layers") or [])]:
            if blob and not self.blob(blob["digest"]).exists():
                raise RegistryError(404, "MANIFEST_BLOB_UNKNOWN", f"{blob['digest']} is not here")
        repository.manifests[digest] = Manifest(content, media_type)
        if not DIGEST.fullmatch(reference):
            repository.tags[reference] = digest
        return digest

    def blob(self, digest: str) -> Path:
        """Return where a blob lies or would lie."""
        if not DIGEST.fullmatch(digest):
            raise RegistryError(400, "DIGEST_INVALID", f"{digest} is no digest")
        return self.folder / "blobs" / digest.partition(":")[2]

    def _store(self, content: bytes) -> str:
        digest = digest_of(content)
        self.blob(digest).write_bytes(content)
        return digest

    def borrower(self, header: str, permission: str) -> Loan:
        """Return the loan behind an Authorization header, or refuse it."""
        scheme, _, value = header.partition(" ")
        if scheme == "Basic":
            try:
                user, _, password = base64.b64decode(value).decode().partition(":")
            except ValueError:
                user = password = ""
            loan = self._loans.get(password) if user == USER else None
        else:
            loan = self._loans.get(value) if scheme == "Bearer" else None
        if loan is None or loan.expires_at < self.clock():
            raise RegistryError(401, "UNAUTHORIZED", "authentication required")
        if permission not in loan.permissions and permission:
            raise RegistryError(403, "DENIED", f"the credentials do not permit to {permission}")
        return loan

    def application(self) -> web.Application:
        """Return the registry as a web application."""
        return _Api(self).application


class _Api:
    """HTTP around a Registry."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.application = web.Application(middlewares=[self._guard], client_max_size=0)
        router = self.application.router
        router.add_get("/v2/", self._ping)
        router.add_get("/v2/_catalog", self._catalog)
        router.add_put("/v2/gc/layers", self._collect)
        router.add_get(f"/v2/{NAME}/tags/list", self._tags)
        router.add_post(f"/v2/{NAME}/blobs/uploads/", self._begin)
        router.add_patch(f"/v2/{NAME}/blobs/uploads/{{upload}}", self._append)
        router.add_put(f"/v2/{NAME}/blobs/uploads/{{upload}}", self._finish)
        router.add_get(f"/v2/{NAME}/blobs/{{digest}}", self._blob)
        router.add_get(f"/v2/{NAME}/manifests/{{reference}}", self._manifest)
        router.add_put(f"/v2/{NAME}/manifests/{{reference}}", self._put_manifest)
        router.add_delete(f"/v2/{NAME}/manifests/{{reference}}", self._delete_manifest)

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Demand credentials for the account that the path begins with."""
        permission = "pull" if request.method in ("GET", "HEAD") else "push"
        if request.path == "/v2/_catalog" or request.path.endswith("/tags/list"):
            permission = "list"
        if request.path == "/v2/":
            permission = ""
        open_to_all = (
            permission == "pull" and request.match_info.get("name") in self.registry.public
        )
        if open_to_all or (self.registry.public and not permission):
            request[ACCOUNT], request[TOKEN] = "", "registry:anybody"
            try:
                return await handler(request)
            except RegistryError as error:
                return _refusal(error)
        try:
            header = request.headers.get("Authorization", "")
            loan = self.registry.borrower(header, permission)
            request[ACCOUNT] = loan.account
            request[TOKEN] = f"registry:{loan.account}"
            name = request.match_info.get("name", loan.account + "/")
            if not name.startswith(loan.account + "/"):
                raise RegistryError(403, "DENIED", "the credentials belong to another account")
            return await handler(request)
        except RegistryError as error:
            return _refusal(error)

    async def _ping(self, request: web.Request) -> web.Response:
        return web.json_response({}, headers={"Docker-Distribution-Api-Version": "registry/2.0"})

    async def _catalog(self, request: web.Request) -> web.Response:
        own = sorted(
            name
            for name, repository in self.registry.repositories.items()
            if name.startswith(request[ACCOUNT] + "/") and repository.manifests
        )
        last = request.query.get("last", "")
        rest = [name for name in own if name > last]
        size = int(request.query.get("n") or CATALOG_PAGE)
        page = rest[:size]
        headers = {}
        if len(rest) > size:
            headers["Link"] = f'</v2/_catalog?tags=true&last={page[-1]}>; rel="next"'
        if request.query.get("tags") != "true":
            return web.json_response({"repositories": page}, headers=headers)
        tags = {name: list(self.registry.repositories[name].tags) for name in page}
        return web.json_response({"repositories": tags}, headers=headers)

    async def _collect(self, request: web.Request) -> web.Response:
        """Remove blobs that no manifest names any more."""
        needed = set()
        for repository in self.registry.repositories.values():
            for manifest in repository.manifests.values():
                needed.update(DIGEST.findall(manifest.content.decode()))
        for path in (self.registry.folder / "blobs").iterdir():
            if f"sha256:{path.name}" not in needed:
                path.unlink()
        return web.json_response({})

    async def _tags(self, request: web.Request) -> web.Response:
        repository = self._repository(request)
        return web.json_response(
            {"name": request.match_info["name"], "tags": sorted(repository.tags)}
        )

    async def _begin(self, request: web.Request) -> web.Response:
        mounted = request.query.get("mount", "")
        source = request.query.get("from", "")
        own = source.startswith(request[ACCOUNT] + "/")
        if mounted and own and self.registry.blob(mounted).exists():
            return self._created(request, "blobs", mounted)
        upload = secrets.token_hex(16)
        self._upload(upload).write_bytes(b"")
        return self._accepted(request, upload)

    async def _append(self, request: web.Request) -> web.Response:
        upload = request.match_info["upload"]
        await self._receive(request, self._known_upload(upload))
        return self._accepted(request, upload)

    async def _finish(self, request: web.Request) -> web.Response:
        path = self._known_upload(request.match_info["upload"])
        await self._receive(request, path)
        digest = request.query.get("digest", "")
        if digest_of_file(path) != digest:
            path.unlink()
            raise RegistryError(400, "DIGEST_INVALID", "the content has another digest")
        path.replace(self.registry.blob(digest))
        return self._created(request, "blobs", digest)

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        path = self.registry.blob(request.match_info["digest"])
        if not path.exists():
            raise RegistryError(404, "BLOB_UNKNOWN", "blob unknown to registry")
        headers = {
            "Docker-Content-Digest": request.match_info["digest"],
            "Content-Type": "application/octet-stream",
        }
        return web.FileResponse(path, headers=headers)

    async def _manifest(self, request: web.Request) -> web.Response:
        digest, manifest = self._find(request)
        headers = {"Docker-Content-Digest": digest, "Content-Type": manifest.media_type}
        return web.Response(body=manifest.content, headers=headers)

    async def _put_manifest(self, request: web.Request) -> web.Response:
        content = await request.content.read(MANIFEST_BYTES)
        while chunk := await request.content.read(MANIFEST_BYTES):
            content += chunk
        name, reference = request.match_info["name"], request.match_info["reference"]
        digest = self.registry.put_manifest(
            name, reference, content, request.headers.get("Content-Type", OCI_MANIFEST)
        )
        return self._created(request, "manifests", digest)

    async def _delete_manifest(self, request: web.Request) -> web.Response:
        """Delete a tag, or a manifest with all its tags."""
        digest, _ = self._find(request)
        repository = self._repository(request)
        reference = request.match_info["reference"]
        repository.tags.pop(reference, None)
        if reference == digest or digest not in repository.tags.values():
            del repository.manifests[digest]
            repository.tags = {tag: one for tag, one in repository.tags.items() if one != digest}
        return web.Response(status=202)

    def _repository(self, request: web.Request) -> Repository:
        found = self.registry.repositories.get(request.match_info["name"])
        if found is None:
            raise RegistryError(404, "NAME_UNKNOWN", "repository name not known to registry")
        return found

    def _find(self, request: web.Request) -> tuple[str, Manifest]:
        repository = self.registry.repositories.get(request.match_info["name"], Repository())
        reference = request.match_info["reference"]
        digest = repository.tags.get(reference, reference)
        if digest not in repository.manifests:
            raise RegistryError(404, "MANIFEST_UNKNOWN", "manifest unknown")
        return digest, repository.manifests[digest]

    def _upload(self, upload: str) -> Path:
        return self.registry.folder / "uploads" / upload

    def _known_upload(self, upload: str) -> Path:
        path = self._upload(upload)
        if not re.fullmatch(r"[0-9a-f]{32}", upload) or not path.exists():
            raise RegistryError(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        return path

    async def _receive(self, request: web.Request, path: Path) -> None:
        with path.open("ab") as file:
            async for chunk in request.content.iter_chunked(1 << 20):
                file.write(chunk)

    def _accepted(self, request: web.Request, upload: str) -> web.Response:
        size = self._upload(upload).stat().st_size
        headers = {
            "Location": f"/v2/{request.match_info['name']}/blobs/uploads/{upload}",
            "Docker-Upload-UUID": upload,
            "Range": f"0-{max(0, size - 1)}",
        }
        return web.Response(status=202, headers=headers)

    def _created(self, request: web.Request, kind: str, digest: str) -> web.Response:
        headers = {
            "Location": f"/v2/{request.match_info['name']}/{kind}/{digest}",
            "Docker-Content-Digest": digest,
        }
        return web.Response(status=201, headers=headers)


def digest_of(content: bytes) -> str:
    """Return a content's digest as registries write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def digest_of_file(path: Path) -> str:
    """Return a file's digest."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _refusal(error: RegistryError) -> web.Response:
    headers = {"Docker-Distribution-Api-Version": "registry/2.0"}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="registry.cloudflare.com"'
    content = {"errors": [{"code": error.code, "message": str(error)}]}
    return web.json_response(content, status=error.status, headers=headers)
