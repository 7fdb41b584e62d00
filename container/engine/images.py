# SPDX-License-Identifier: Apache-2.0
"""Images: folders named by digest, complete when they hold an `image.json`."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from engine.errors import EngineError

_DIGEST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z")


class Image:
    """One image: `folder` is absolute and without links."""

    def __init__(self, folder: str, description: dict[str, Any]) -> None:
        self.folder = folder
        self.digest: str = description["digest"]
        self.entrypoint: list[str] = description["entrypoint"]

    @property
    def path(self) -> str:
        """Return the PATH for programs of this image."""
        own = [os.path.join(self.folder, "bin"), os.path.join(self.folder, "venv", "bin")]
        return ":".join([*own, "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"])

    def interpreter_folders(self) -> list[str]:
        """Return the folders outside the image that its Python interpreter lives in."""
        linked = os.path.join(self.folder, "venv", "bin", "python")
        folders, seen = [], 0
        while os.path.islink(linked) and seen < 40:
            linked = os.path.join(os.path.dirname(linked), os.readlink(linked))
            folders.append(os.path.dirname(os.path.dirname(os.path.abspath(linked))))
            seen += 1
        folders.append(os.path.dirname(os.path.dirname(os.path.realpath(linked))))
        return [folder for folder in dict.fromkeys(folders) if not self._has(folder)]

    def _has(self, folder: str) -> bool:
        return folder == self.folder or folder.startswith(self.folder + os.sep)


class Images:
    """The folder of images."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def find(self, digest: object) -> Image:
        """Return an image. Raises EngineError 404 when there is none of that digest."""
        if isinstance(digest, str) and _DIGEST.match(digest):
            folder = os.path.realpath(os.path.join(self._folder, digest))
            try:
                with open(os.path.join(folder, "image.json"), encoding="utf-8") as file:
                    return Image(folder, json.load(file))
            except (OSError, ValueError, KeyError):
                pass
        raise EngineError(404, "image_not_found", f"There is no image {digest!r} here.")
