# SPDX-License-Identifier: Apache-2.0
"""What is declared: an archive whose first member is `agent.json`, which alone each boot needs."""

from __future__ import annotations

import binascii
import hashlib
import json
import zlib

from sandbox.errors import DAMAGED_ARCHIVE, SandboxError

# For type checkers only: see cli.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMAT = 1
FIRST = "agent.json"
# The controller knows these as well.
PACKED = 4 << 20
FIRST_LIMIT = 1 << 20
_BLOCK = 512
_KINDS = {"config": dict, "mcp_servers": dict, "cron_jobs": dict, "take_over": list}


class Declared:
    """A declaration. `digest` is the archive's SHA-256, "" where nothing is declared."""

    def __init__(self, digest: str, content: bytes, settings: dict[str, Any]) -> None:
        self.digest = digest
        self.content = content
        self._settings = settings

    @property
    def pinned(self) -> dict[str, Any]:
        """Return what holds whatever stands in Hermes' own configuration, MCP servers too."""
        pinned: dict[str, Any] = self._config("pinned")
        servers = self._settings.get("mcp_servers")
        return merged(pinned, {"mcp_servers": servers}) if servers else pinned

    @property
    def initial(self) -> dict[str, Any]:
        """Return what goes into Hermes' own configuration, which it may change."""
        return self._config("initial")

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        """Return the cron jobs by their names."""
        return self._settings.get("cron_jobs") or {}

    @property
    def take_over(self) -> list[str]:
        """Return the items and kinds of them that are laid whatever Hermes made of them."""
        return self._settings.get("take_over") or []

    def takes_over(self, item: str) -> bool:
        """Tell whether an item, its kind or the branch on which it hangs is named."""
        return any(
            item == name or item.startswith((f"{name}/", f"{name}."))
            for name in map(str, self.take_over)
        )

    def _config(self, strength: str) -> dict[str, Any]:
        found = (self._settings.get("config") or {}).get(strength)
        return found if isinstance(found, dict) else {}


NOTHING = Declared("", b"", {})


def read(given: dict[str, str] | None) -> Declared:
    """Return what came with `go`: {"archive": SHA-256, "content": base64}, or None for nothing.

    Raises SandboxError 70 when the archive is not the one that it says or does not begin as it must.
    """
    if given is None:
        return NOTHING
    try:
        content = binascii.a2b_base64(given["content"].encode("ascii"), strict_mode=True)
    except ValueError as error:
        raise unusable("its content is not base64") from error
    if len(content) > PACKED:
        raise unusable(f"it is larger than {PACKED >> 20} MB")
    if hashlib.sha256(content).hexdigest() != given["archive"]:
        raise unusable("its checksum is wrong")
    return Declared(given["archive"], content, _first(content))


def _first(content: bytes) -> dict[str, Any]:
    """Return what `agent.json` says, without a look at what comes after it."""
    try:
        text = zlib.decompressobj(31).decompress(content, _BLOCK + FIRST_LIMIT)
        size = int(text[124:136].strip(b"\0 "), 8)
        named = text[:100].rstrip(b"\0") == FIRST.encode() and text[156:157] in (b"0", b"\0")
        if not named or len(text) < _BLOCK + size:
            raise ValueError
        settings = json.loads(text[_BLOCK : _BLOCK + size])
    except (ValueError, RecursionError, zlib.error) as error:
        raise unusable(f"it does not begin with {FIRST}") from error
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise unusable(f"the format of its {FIRST} is not known here")
    for name, kind in _KINDS.items():
        if not isinstance(settings.get(name, kind()), kind):
            raise unusable(f"{name} in its {FIRST} is of no use")
    if not all(isinstance(job, dict) for job in settings.get("cron_jobs", {}).values()):
        raise unusable(f"cron_jobs in its {FIRST} is of no use")
    return settings


def unusable(reason: str) -> SandboxError:
    """Return the error for a declaration whose bytes prove that it must not be laid."""
    return SandboxError(DAMAGED_ARCHIVE, f"The declared agent cannot be laid: {reason}.")


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return one configuration with another laid over it, key by key; of two lists both hold."""
    result = {**under}
    for name, value in over.items():
        below = under.get(name)
        if isinstance(value, dict) and isinstance(below, dict):
            result[name] = merged(below, value)
        elif isinstance(value, list) and isinstance(below, list):
            result[name] = value + [item for item in below if item not in value]
        else:
            result[name] = value
    return result
