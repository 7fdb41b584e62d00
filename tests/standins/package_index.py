# SPDX-License-Identifier: Apache-2.0
"""A registry of Python packages, as PEP 503 has it: a page for each package with its files, and the files."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def wheel(name: str, version: str, modules: Mapping[str, str]) -> tuple[str, bytes]:
    """Return the file name and the content of a package that needs no other. modules: their texts, by path."""
    stem = f"{name}-{version}"
    files = {
        **modules,
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},{_digest(text)},{len(text)}\n" for path, text in files.items())
    files[f"{stem}.dist-info/RECORD"] = f"{record}{stem}.dist-info/RECORD,,\n"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for path, text in files.items():
            packed.writestr(path, text)
    return f"{stem}-py3-none-any.whl", content.getvalue()


def _digest(text: str) -> str:
    found = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return f"sha256={found.decode().rstrip('=')}"


class PackageIndex:
    """What was asked of it, and what it has: the content of each wheel by its file name."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.wheels: dict[str, bytes] = {}
        self.url = ""

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Return status, type and content."""
        self.asked.append(path)
        if path.startswith("/files/"):
            content = self.wheels.get(path.removeprefix("/files/"))
            return (200, "application/zip", content) if content else (404, "text/plain", b"")
        named = re.fullmatch(r"/simple/([a-z0-9-]+)/", path)
        links = [
            f'<a href="/files/{html.escape(name)}#sha256={hashlib.sha256(content).hexdigest()}">{name}</a>'
            for name, content in self.wheels.items()
            if named and _normal(name.split("-")[0]) == named[1]
        ]
        if not links:
            return 404, "text/plain", b""
        return 200, "text/html", f"<!DOCTYPE html>{''.join(links)}".encode()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@contextmanager
def package_index(host: str = "127.0.0.1") -> Iterator[PackageIndex]:
    """Serve a registry at its `url` until the block ends."""
    index = PackageIndex()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            status, kind, content = index.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((host, 0), Handler) as server:
        index.url = f"http://{host}:{server.server_port}/simple"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield index
        server.shutdown()
