# SPDX-License-Identifier: Apache-2.0
"""A mirror of Debian with the packages that this machine has, for machines on which a day's mirror has others by now.

Each is packed again out of its files: what the machine's dpkg lists of it, but what is there no more. A package that
lies here under another's name is that other one for whoever asks.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ansible_collections.hermes.workers.plugins.plugin_utils.build import debian_index

STATUS = Path("/var/lib/dpkg/status")


def needed(names: Collection[str], leave_out: Collection[str]) -> list[str]:
    """Return these packages of the machine and what they need beyond what every Debian has."""
    known: dict[str, dict[str, str]] = {}
    debian_index.merge(known, debian_index.packages(STATUS.read_text(), "debian"))
    return sorted(debian_index.needed(known, names, debian_index.base(known) | {*leave_out}))


def pack(names: Collection[str], folder: Path, moved: Mapping[str, str]) -> dict[str, Any]:
    """Pack packages of this machine into a folder; return a lock of them. moved: files that get another name."""
    locked = {}
    for name in names:
        path = folder / "debian" / f"{name}_1.0_amd64.deb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_packed(name, moved))
        locked[name] = {
            "archive": "debian",
            "path": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "size": path.stat().st_size,
            "version": _told("--show", "--showformat", "${Version}", name),
        }
    return locked


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve such a folder on loopback; its address."""
    files = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _packed(name: str, moved: Mapping[str, str]) -> bytes:
    """Return a package as dpkg would take it."""
    data, sums = io.BytesIO(), []
    with tarfile.open(fileobj=data, mode="w") as tar:
        for listed in _told("--listfiles", name).splitlines():
            path = Path(listed)
            # Folders are made for what is in them; on a Debian of today some are links.
            if not path.is_dir() and os.path.lexists(path):
                place = moved.get(listed, listed)
                tar.add(path, f".{place}", recursive=False)
                if not path.is_symlink():
                    digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
                    sums.append(f"{digest}  {place.lstrip('/')}\n")
    control = io.BytesIO()
    with tarfile.open(fileobj=control, mode="w") as tar:
        _add(tar, "./control", _told("--status", name) + "\n")
        _add(tar, "./md5sums", "".join(sums))
    parts = {"debian-binary": b"2.0\n", "control.tar": control.getvalue()}
    parts["data.tar"] = data.getvalue()
    return b"!<arch>\n" + b"".join(
        f"{part:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        + content
        + b"\n" * (len(content) % 2)
        for part, content in parts.items()
    )


def _add(tar: tarfile.TarFile, name: str, text: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(text.encode())
    tar.addfile(entry, io.BytesIO(text.encode()))


def _told(*words: str) -> str:
    return subprocess.run(
        ["dpkg-query", *words], check=True, capture_output=True, text=True
    ).stdout.strip()
