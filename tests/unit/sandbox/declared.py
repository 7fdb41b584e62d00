# SPDX-License-Identifier: Apache-2.0
"""What `go` is given of a declared agent, as the controller makes it, or as nobody should."""

import base64
import gzip
import hashlib
import io
import json
import tarfile

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
