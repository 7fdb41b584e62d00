# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cloudflare's registry of container images, by credentials that live for minutes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

try:
    import requests
except ImportError:
    requests = None  # type: ignore[assignment] # a card tells of it where it is needed

from .client import Cloudflare, CloudflareError, segment

HOST = "registry.cloudflare.com"
MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
TIMEOUT = (10.0, 60.0)


def host() -> str:
    """Return the registry's host; as with wrangler, the environment may name another."""
    return os.environ.get("CLOUDFLARE_CONTAINER_REGISTRY") or HOST


def credentials(
    api: Cloudflare, permissions: Iterable[str] = ("pull", "push"), minutes: int = 15
) -> tuple[str, str]:
    """Return a user name and a password that Cloudflare's registry takes for so long."""
    path = api.account(f"containers/registries/{segment(host())}/credentials")
    body = {"expiration_minutes": minutes, "permissions": list(permissions)}
    made = api.post(path, body, repeatable=True)
    api.hide(made["password"])
    return made["username"], made["password"]


class Registry:
    """The images of one account."""

    def __init__(self, api: Cloudflare, permissions: Iterable[str] = ("pull",)) -> None:
        """api: client of the account; permissions: "pull", and "push" for changes."""
        self._api = api
        name = host()
        # As every container engine has it: a registry on loopback needs no certificate.
        plain = name.split(":")[0] in ("localhost", "127.0.0.1")
        self._base = f"{'http' if plain else 'https'}://{name}"
        self._session = requests.Session()
        self._session.auth = credentials(api, permissions, minutes=5)

    def repositories(self) -> dict[str, list[str]]:
        """Return the tags of each repository, by its name without the account."""
        prefix = f"{self._api.account_id}/"
        return {
            name.lstrip("/").removeprefix(prefix): [t for t in tags if not t.startswith("sha256")]
            for page in self._pages("/v2/_catalog?tags=true")
            for name, tags in (page.get("repositories") or {}).items()
        }

    def digest(self, repository: str, tag: str) -> str:
        """Return the digest of a tag or digest, as "sha256:...", or an empty string when it is not there."""
        path = self._manifest(repository, tag)
        response = self._call("HEAD", path, missing_ok=True, headers={"Accept": MANIFESTS})
        return response.headers.get("Docker-Content-Digest", "") if response.ok else ""

    def used(self, repository: str, tags: Iterable[str], named: set[str]) -> set[str]:
        """Return those of the tags whose image is named, by its digest or by the tag. named: references."""
        digests = {reference.partition("@")[2] for reference in named} - {""}
        by_tag = {reference.rpartition("/")[2] for reference in named}
        return {
            tag
            for tag in tags
            if f"{repository}:{tag}" in by_tag or self.digest(repository, tag) in digests
        }

    def delete(self, repository: str, tag: str) -> bool:
        """Delete a tag; returns whether it was there. Call collect() after the last one."""
        path = self._manifest(repository, tag)
        return self._call("DELETE", path, missing_ok=True, headers={"Accept": MANIFESTS}).ok

    def collect(self) -> None:
        """Free the space of layers that no image has any more."""
        self._call("PUT", "/v2/gc/layers")

    def reference(self, repository: str, digest: str) -> str:
        """Return the reference by which a Worker names an image."""
        return f"{host()}/{self._api.account_id}/{repository}@{digest}"

    def _pages(self, path: str) -> Iterator[dict[str, Any]]:
        """Read a list to its end: each answer names where the next one is, by the header Link."""
        while path:
            response = self._call("GET", path)
            yield response.json()
            following = response.links.get("next", {}).get("url", "")
            # Of the address only what lies on this host counts: the credentials go with it.
            parts = urlsplit(following)
            path = f"{parts.path}?{parts.query}" if following else ""

    def _manifest(self, repository: str, tag: str) -> str:
        return f"/v2/{self._api.account_id}/{repository}/manifests/{tag}"

    def _call(
        self, method: str, path: str, missing_ok: bool = False, **options: Any
    ) -> requests.Response:
        try:
            response = self._session.request(method, self._base + path, timeout=TIMEOUT, **options)
        except requests.exceptions.RequestException as error:
            message = f"no answer from {host()}: {self._api.redact(str(error))}"
            remedy = f"check that this machine reaches {host()}, then run it again."
            raise CloudflareError(0, [], message, remedy, method, path) from None
        if response.ok or (missing_ok and response.status_code == 404):
            return response
        message = f"{host()} answers: HTTP {response.status_code} {response.reason}"
        remedy = "give the token the permission Containers: Edit, then run it again."
        raise CloudflareError(response.status_code, [], message, remedy, method, path)
