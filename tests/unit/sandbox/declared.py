# SPDX-License-Identifier: Apache-2.0
"""What `go` is given of a declared agent, as the controller makes it, or as nobody should, and what becomes of it."""

import base64
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator

import pytest
from sandbox_box import CONTAINER, Box

sys.path.insert(0, str(CONTAINER))

from sandbox.commands import hermes
from sandbox.errors import SandboxError
from sandbox.paths import Paths

FIRST = "agent.json"


def agent(files: "dict[str, str] | None" = None, **settings: object) -> "dict[str, str]":
    """Return a declaration of files by their names in a home, and of settings."""
    members = [member(FIRST, json.dumps({"format": 1, **settings}).encode())]
    folders: set[str] = set()
    for name, text in sorted((files or {}).items()):
        parts = name.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder not in folders:
                members.append(member(folder, kind=tarfile.DIRTYPE, mode=0o755))
            folders.add(folder)
        members.append(member(name, text.encode(), mode=0o755 if name.endswith(".sh") else 0o644))
    return packed(*members)


def member(
    name: str,
    content: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o644,
    link: str = "",
) -> "tuple[tarfile.TarInfo, bytes]":
    """Return one member."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.size = kind, mode, link, len(content)
    return info, content


def packed(*members: "tuple[tarfile.TarInfo, bytes]") -> "dict[str, str]":
    """Return an archive of just these members, as it comes with `go`."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return sent(gzip.compress(raw.getvalue(), mtime=0))


def sent(content: bytes) -> "dict[str, str]":
    """Return bytes as they come with `go`."""
    digest = hashlib.sha256(content).hexdigest()
    return {"archive": digest, "content": base64.b64encode(content).decode()}


def go(declared: "dict[str, str] | None" = None, **more: object) -> bytes:
    """Return the input of `go`, `declare` and `restart-gateway`."""
    settings = {"config": {}, "env": {}, **more}
    return json.dumps({**settings, **({"agent": declared} if declared else {})}).encode()


def waiting(box: Box, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    """Have a sandbox wait for `go`, in this process, with nobody in it but one who reads what PID 1 is told."""
    box.pretend()
    for name, value in box.constants.items():
        monkeypatch.setenv(name, value)
    os.mkfifo(box.run / "control")
    (box.run / "managed").mkdir()
    reader = os.open(box.run / "control", os.O_RDWR | os.O_NONBLOCK)
    yield box
    os.close(reader)


def lay(box: Box, declared: "dict[str, str] | None", code: int = 0, **more: object) -> str:
    """Give the go of another boot, in this process, and return what is said at its end."""
    (box.run / "go").unlink(missing_ok=True)
    said, ended = "", 0
    try:
        hermes.go(Paths(box.constants), io.BytesIO(go(declared, **more)))
    except SandboxError as error:
        said, ended = str(error), error.code
    assert ended == code, said
    assert (box.run / "go").exists() == (code == 0)
    return said


def told(box: Box) -> "tuple[list[str], dict[str, str]]":
    """Return what `status` says is laid, and what is kept with the reason."""
    said = json.loads(hermes.status(Paths(box.constants)))["agent"]
    return said["laid"], {item["item"]: item["why"] for item in said["kept"]}
