# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A container engine on a unix socket, for the plugins' client: it holds images, containers and volumes by name."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from ansible_collections.hermes.workers.plugins.module_utils import docker


class StandIn(socketserver.ThreadingUnixStreamServer):
    """An engine that holds images by name and answers as Docker does, or as Podman."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.path = str(path)
        self.images: dict[str, dict[str, Any]] = {}
        self.containers: dict[str, str] = {}
        self.mounts: dict[str, list[dict[str, str]]] = {}
        self.volumes: set[str] = set()
        self.used: set[str] = set()
        self.refused: dict[str, tuple[int, Any]] = {}
        self.seen: list[tuple[str, str]] = []
        self.body = b""
        self.pushed = b""
        self.registry = ""
        """What it writes before the names of images that it lists."""
        self.printed: tuple[int, str] = (0, "")
        """How a command ends that is run in a container, and what it prints."""
        self.built: list[dict[str, str]] = [{"stream": "Step 1"}, {"error": "no space"}]
        """What a build tells; where that is no error, the image is there afterwards."""
        self.raw: dict[str, bytes] = {}
        """Answers to paths as they are on the line; it hangs up after each."""

    def add(self, identity: str, *names: str, created: int = 0, session: str | None = None) -> None:
        labels = {docker.SESSION_LABEL: session} if session else None
        self.images[identity] = {
            "Id": identity,
            "RepoTags": list(names),
            "Created": created,
            "Labels": labels,
        }

    def names(self) -> set[str]:
        return {name for image in self.images.values() for name in image["RepoTags"]}


class Handler(BaseHTTPRequestHandler):
    """The few calls that are made."""

    server: StandIn
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        self.server.seen.append((self.command, path))
        if path in self.server.raw:
            self.wfile.write(self.server.raw[path])
            self.close_connection = True
        elif path in self.server.refused:
            self.answer(*self.server.refused[path])
        else:
            room, _, rest = path.removeprefix("/").partition("/")
            getattr(self, f"of_{room}", self.of_nothing)(rest, query)

    def of_nothing(self, _rest: str, _query: dict[str, list[str]]) -> None:
        self.answer(404, {"message": "page not found"})

    def of_images(self, rest: str, query: dict[str, list[str]]) -> None:
        name, _, call = rest.rpartition("/")
        if rest == "json":
            self.answer(200, self.listed(json.loads(query["filters"][0])["reference"][0]))
        elif rest == "create":
            image = query["fromImage"][0]
            self.server.add(image, image)
            self.answer(200, None, b'{"id": "1a", "status": "Pull complete"}\n')
        elif self.command == "DELETE":
            self.remove(rest)
        elif call == "push":
            self.answer(200, None, self.server.pushed)
        elif call == "tag":
            self.named(name)["RepoTags"].append(f"{query['repo'][0]}:{query['tag'][0]}")
            self.answer(201, None, b"")
        elif image := self.named(name):
            self.answer(200, image)
        else:
            self.answer(404, {"message": "no such image"})

    def of_containers(self, rest: str, query: dict[str, list[str]]) -> None:
        if rest == "json":
            label = json.loads(query["filters"][0])["label"][0]
            self.answer(200, self.of_session(label.removeprefix(docker.SESSION_LABEL + "=")))
        elif rest == "create":
            self.create(query.get("name", [f"c{len(self.server.seen)}"])[0])
        elif self.command == "DELETE":
            self.remove_container(rest)
        elif rest.endswith("/start"):
            self.answer(204, None, b"")
        elif rest.endswith("/wait"):
            self.answer(200, {"StatusCode": self.server.printed[0]})
        else:  # its logs, in a frame
            text = self.server.printed[1].encode()
            self.answer(200, None, b"\1\0\0\0" + len(text).to_bytes(4, "big") + text)

    def of_volumes(self, name: str, _query: dict[str, list[str]]) -> None:
        self.remove_volume(name)

    def of_build(self, _rest: str, query: dict[str, list[str]]) -> None:
        self.server.body = self.chunked()
        built = self.server.built
        if not any("error" in line for line in built):
            self.server.add("built", query["t"][0])
        self.answer(200, None, b"".join(json.dumps(line).encode() + b"\r\n" for line in built))

    do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - the base class looks for these names

    def listed(self, pattern: str) -> list[dict[str, Any]]:
        prefix = pattern.rstrip("*")
        return [
            image | {"RepoTags": [self.server.registry + name for name in image["RepoTags"]]}
            for image in self.server.images.values()
            if any(name.startswith(prefix) for name in image["RepoTags"])
        ]

    def named(self, name: str) -> dict[str, Any] | None:
        """The image of a name, or an id."""
        images = self.server.images.items()
        return next((one for key, one in images if name in (key, *one["RepoTags"])), None)

    def of_session(self, session: str) -> list[dict[str, Any]]:
        return [
            {"Id": name, "Names": [f"/{name}"], "Mounts": self.server.mounts.get(name)}
            for name, of in self.server.containers.items()
            if of == session
        ]

    def create(self, name: str) -> None:
        if name in self.server.containers:
            return self.answer(409, {"message": f"the name {name} is in use already"})
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.containers[name] = ""
        return self.answer(201, {"Id": name})

    def remove(self, name: str) -> None:
        for identity, image in list(self.server.images.items()):
            if name == identity and not image["RepoTags"]:
                del self.server.images[identity]
                return self.answer(200, [])
            if name not in image["RepoTags"]:
                continue
            if identity in self.server.used and len(image["RepoTags"]) == 1:
                return self.answer(409, {"message": "is being used"})
            image["RepoTags"].remove(name)
            return self.answer(200, [])
        return self.answer(404, {"message": "no such image"})

    def remove_volume(self, name: str) -> None:
        mounts = (one for of in self.server.mounts.values() for one in of)
        if name in {one["Name"] for one in mounts}:
            return self.answer(409, {"message": "volume is in use"})
        if name not in self.server.volumes:
            return self.answer(404, {"message": "no such volume"})
        self.server.volumes.remove(name)
        return self.answer(204, None, b"")

    def remove_container(self, name: str) -> None:
        found = self.server.containers
        if name not in found:
            return self.answer(404, {"message": "no such container"})
        if self.server.registry and name.removesuffix("-proxy") in found.keys() - {name}:
            return self.answer(500, {"message": "has dependent containers"})
        del found[name]
        return self.answer(204, None, b"")

    def chunked(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        return found

    def answer(self, status: int, content: Any, body: bytes | None = None) -> None:
        body = json.dumps(content).encode() if body is None else body
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body:
            self.wfile.write(body)


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    with StandIn(tmp_path / "s") as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()
