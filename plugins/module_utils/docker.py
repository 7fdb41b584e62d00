# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client for the HTTP API that Docker and Podman serve on a unix socket; no `docker` command is needed."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import socket
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote, urlencode

DOCKER_SOCKET = "/var/run/docker.sock"
PUSHED = re.compile(r"digest: (sha256:[0-9a-f]{64})")
LONG = 900.0
"""Seconds without a byte that a pull or a build may take."""

PUBLISHED_ON = "com.docker.network.bridge.host_binding_ipv4"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - said of an engine, not listened on
SESSION_LABEL = "dev.workerd.session"
"""workerd's mark on every container that it makes, with the session id of its configuration."""

ANONYMOUS = re.compile(r"[0-9a-f]{64}")
"""How an engine names a volume that nobody named."""

SNAPSHOTS = "workerd-container-snap-*"
"""How workerd names the images of its snapshots."""


class DockerError(Exception):
    """The engine refused. status: its HTTP status; 0 when nothing usable answered."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def find_socket() -> str:
    """Return the path of this machine's engine: Docker's socket, else Podman's, else where Docker's would be."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    places = (DOCKER_SOCKET, f"{runtime}/podman/podman.sock", "/run/podman/podman.sock")
    return next((place for place in places if os.path.exists(place)), DOCKER_SOCKET)


def socket_path(address: str) -> str:
    """Return the path in the address of a unix socket: unix:///path, unix:/path and /path are the same."""
    return re.sub(r"^//+", "/", address.removeprefix("unix:"))


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class DockerEngine:
    """One engine. Every method raises DockerError when it refuses, OSError when nobody listens."""

    def __init__(self, path: str) -> None:
        """path: of its unix socket."""
        self.path = path

    def version(self) -> str:
        """Return the engine's version."""
        return str(self._json("GET", "/version", timeout=10).get("Version"))

    def architecture(self) -> str:
        """Return what its containers run on, such as amd64."""
        return str(self._json("GET", "/version", timeout=10).get("Arch"))

    def root(self) -> str | None:
        """Return the folder of its images, on its own machine."""
        root: str | None = self._json("GET", "/info", timeout=30).get("DockerRootDir")
        return root

    def is_podman(self) -> bool:
        """Tell whether it is Podman."""
        parts = self._json("GET", "/version", timeout=10).get("Components") or []
        return any(part.get("Name") == "Podman Engine" for part in parts)

    def bridge_gateway(self) -> str:
        """Return the address of its default bridge; an empty text when it has no address, or no such bridge."""
        entries = (self._bridge().get("IPAM") or {}).get("Config") or []
        return next((entry["Gateway"] for entry in entries if entry.get("Gateway")), "")

    def published_on(self) -> str:
        """Return the address of this machine that it publishes ports on when none is asked for."""
        return (self._bridge().get("Options") or {}).get(PUBLISHED_ON) or EVERYWHERE

    def _bridge(self) -> dict[str, Any]:
        """Return what it tells of its default bridge; nothing when it has none."""
        try:
            found: dict[str, Any] = self._json("GET", "/networks/bridge", timeout=10)
            return found
        except DockerError as error:
            if error.status == 404:
                return {}
            raise

    def image(self, name: str) -> dict[str, Any] | None:
        """Return what the engine knows of an image (name, or id), or None when it has none of that name."""
        try:
            found: dict[str, Any] = self._json("GET", f"/images/{quote(name, safe='/:@')}/json")
            return found
        except DockerError as error:
            if error.status == 404:
                return None
            raise

    def images(self, pattern: str) -> list[dict[str, Any]]:
        """Return the images whose name matches a pattern; their RepoTags as Docker shortens names."""
        found = self._json("GET", "/images/json?" + _filters(reference=[pattern]))
        return [image | {"RepoTags": _short_names(image.get("RepoTags"))} for image in found]

    def tag(self, name: str, repository: str, tag: str) -> None:
        """Give an image a further name."""
        query = urlencode({"repo": repository, "tag": tag})
        self._json("POST", f"/images/{quote(name, safe='/:@')}/tag?{query}")

    def remove_image(self, name: str) -> bool:
        """Take a name from an image, and with its last one the image; False when it is in use, or gone."""
        try:
            self._json("DELETE", f"/images/{quote(name, safe='/:@')}", timeout=120)
        except DockerError as error:
            if error.status in (404, 409):
                return False
            raise
        return True

    def containers(self, session: str) -> list[str]:
        """Return the ids of the containers that a workerd with this session id made, running or not.

        Each comes before its sidecar: Podman refuses to remove a container whose network another one is in.
        """
        query = _filters(label=[f"{SESSION_LABEL}={session}"])
        found = self._json("GET", f"/containers/json?all=true&{query}")
        return [one["Id"] for one in sorted(found, key=_is_sidecar)]

    def anonymous_volumes(self, session: str) -> set[str]:
        """Return the volumes that the engine made for what an image declares, for a session's containers that exist."""
        query = _filters(label=[f"{SESSION_LABEL}={session}"])
        return {
            mount["Name"]
            for container in self._json("GET", f"/containers/json?all=true&{query}")
            for mount in container.get("Mounts") or []
            if mount.get("Type") == "volume" and ANONYMOUS.fullmatch(mount.get("Name") or "")
        }

    def remove_volume(self, name: str) -> bool:
        """Remove a volume; False when it is in use."""
        try:
            self._json("DELETE", f"/volumes/{name}", timeout=120)
        except DockerError as error:
            if error.status != 404:
                return False
        return True

    def keep_running(self, name: str, image: str, command: list[str]) -> bool:
        """Have a container of this name run a command on the default bridge, also after a restart of the engine.

        Returns whether it is a new one.
        """
        settings = {
            "Image": image,
            "Entrypoint": command,
            "HostConfig": {"NetworkMode": "bridge", "RestartPolicy": {"Name": "always"}},
        }
        new = True
        try:
            self._json("POST", f"/containers/create?name={name}", settings)
        except DockerError as error:
            if "already" not in str(error):
                raise
            new = False
        self._json("POST", f"/containers/{name}/start")
        return new

    def remove_container(self, identity: str) -> None:
        """End and remove a container with its anonymous volumes; nothing happens when it is gone."""
        try:
            self._json("DELETE", f"/containers/{identity}?force=true&v=true", timeout=120)
        except DockerError as error:
            if error.status not in (404, 409):
                raise

    def registry_problem(self, name: str) -> str:
        """Return why an image could not be pulled, an empty text when it could, or when the engine cannot tell."""
        try:
            self._json("GET", f"/distribution/{quote(name, safe='/:@')}/json", timeout=60)
        except TimeoutError:
            return "its registry does not answer"
        except DockerError as error:
            # Podman has no such call.
            return "" if error.status == 404 and "not found" in str(error).lower() else str(error)
        return ""

    def pull(self, name: str, tell: Callable[[str], None]) -> None:
        """Pull an image. tell: is given each line of what happens."""
        query = {"fromImage": name}
        if "@" not in name and ":" not in name.rsplit("/", 1)[-1]:
            query["tag"] = "latest"
        for line in self._lines("POST", f"/images/create?{urlencode(query)}"):
            tell(" ".join(filter(None, (line.get("id"), line.get("status")))))

    def push(
        self, name: str, tag: str, username: str, password: str, tell: Callable[[str], None]
    ) -> str:
        """Push an image to its registry and return its digest there.

        The credentials travel in a header of this one call: no configuration of the user's is read or written.
        """
        credentials = {"username": username, "password": password}
        encoded = base64.urlsafe_b64encode(json.dumps(credentials).encode()).decode()
        path = f"/images/{quote(name, safe='/:')}/push?{urlencode({'tag': tag})}"
        digest = ""
        for line in self._lines("POST", path, headers={"X-Registry-Auth": encoded}):
            # Docker names the digest in a field of its own, Podman in words alone.
            said = PUSHED.search(line.get("status") or "")
            digest = (line.get("aux") or {}).get("Digest") or (said[1] if said else digest)
            parts = (line.get("id"), line.get("status"), line.get("progress"))
            tell(" ".join(filter(None, parts)))
        if not digest:
            raise DockerError(0, "the push ended without the image's digest")
        return digest

    def build(
        self, folder: Path, name: str, arguments: Mapping[str, str], tell: Callable[[str], None]
    ) -> None:
        """Build a folder's Dockerfile and name the image. tell: is given each line that the build prints."""
        query = urlencode(
            {"t": name, "rm": "1", "forcerm": "1", "buildargs": json.dumps(arguments)}
        )
        headers = {"Content-Type": "application/x-tar"}
        for line in self._lines("POST", f"/build?{query}", tar_of(folder), headers):
            for text in str(line.get("stream", "")).splitlines():
                tell(text)

    def run(
        self, image: str, command: list[str], timeout: float = 60, host: str | None = None
    ) -> str:
        """Run a command in a new container and return what it printed. Raises when it fails.

        host: the name by which it finds this machine, on the default bridge; None gives it no network.
        """
        settings = {
            "Image": image,
            "Entrypoint": command,
            "NetworkDisabled": host is None,
            "HostConfig": {
                "NetworkMode": "bridge" if host else "none",
                "ExtraHosts": [f"{host}:host-gateway"] if host else [],
                "LogConfig": {"Type": "json-file"},
            },
        }
        identity = self._json("POST", "/containers/create", settings)["Id"]
        try:
            self._json("POST", f"/containers/{identity}/start")
            code = self._json("POST", f"/containers/{identity}/wait", timeout=timeout)["StatusCode"]
            output = self._log(identity)
        finally:
            self.remove_container(identity)
        if code != 0:
            raise DockerError(0, output.strip() or f"{command[0]} ended with {code}")
        return output

    def _log(self, identity: str) -> str:
        raw = self._whole("GET", f"/containers/{identity}/logs?stdout=true&stderr=true")
        text = b""
        # Frames: one byte for the stream, three unused, four of length.
        while len(raw) >= 8:
            length = int.from_bytes(raw[4:8], "big")
            text += raw[8 : 8 + length]
            raw = raw[8 + length :]
        return text.decode("utf-8", "replace")

    def _json(self, method: str, path: str, content: Any = None, timeout: float = 60) -> Any:
        body = None if content is None else json.dumps(content).encode()
        headers = {"Content-Type": "application/json"} if body else {}
        return _parsed(self._whole(method, path, body, headers, timeout))

    def _lines(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield the objects of a streamed answer; an error among them ends it."""
        with _heard():
            for raw in self._request(method, path, body, headers or {}, LONG):
                line = _parsed(raw)
                if line.get("error"):
                    raise DockerError(0, str(line["error"]))
                yield line

    def _whole(self, method: str, path: str, *more: Any) -> bytes:
        """Return all of an answer."""
        with _heard():
            return self._request(method, path, *more).read()

    def _request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> http.client.HTTPResponse:
        connection = _Connection(self.path, timeout)
        connection.request(
            method, path, body, headers or {}, encode_chunked=isinstance(body, Iterator)
        )
        response = connection.getresponse()
        if response.status >= 400:
            raise DockerError(response.status, _message(response.read()))
        return response


@contextmanager
def _heard() -> Iterator[None]:
    """Turn an answer that is none, or that breaks off, as where the engine is restarted, into a DockerError."""
    try:
        yield
    except http.client.HTTPException as error:
        raise DockerError(0, f"no container engine answers ({error!r})") from error


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise DockerError(0, "the answer is not JSON; no container engine serves it") from error


def tar_of(folder: Path) -> Iterator[bytes]:
    """Yield a folder as a tar archive that is the same for equal folders, piece by piece."""
    sink = _Sink()
    with tarfile.open(
        fileobj=cast(IO[bytes], sink), mode="w|", format=tarfile.PAX_FORMAT
    ) as archive:
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            archive.add(path, arcname=name, recursive=False, filter=_anonymous)
            yield from sink.take()
    yield from sink.take()


class _Sink:
    """What a tar archive is written to, until it is taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def take(self) -> list[bytes]:
        pieces, self._pieces = self._pieces, []
        return [piece for piece in pieces if piece]


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.mtime = int(entry.mtime)
    entry.uname = entry.gname = ""
    return entry


def _filters(**filters: list[str]) -> str:
    return urlencode({"filters": json.dumps(filters)})


def _is_sidecar(container: dict[str, Any]) -> bool:
    return any(name.endswith("-proxy") for name in container.get("Names") or [])


def _short_names(names: list[str] | None) -> list[str]:
    """Return names of images without the default registry, which Podman writes out."""
    return [re.sub(r"^docker\.io/(library/)?", "", name) for name in names or []]


def _message(body: bytes) -> str:
    """Return the sentence of a refusal."""
    try:
        content = json.loads(body)
        text = content.get("message") or content.get("cause")
    except (ValueError, AttributeError):
        text = None
    return str(text or body[:300].decode("utf-8", "replace")).strip() or "refused without a word"
