# SPDX-License-Identifier: Apache-2.0
"""The product's process engine, for which every container image is the one process image that is installed here.

Its own image store knows folders by digest. Here a Worker names images of a registry; what they would hold is built
from the same `container` folder as the process image, so that one is started, under the name that was asked for.
"""

import json
import sys
from pathlib import Path

from engine import cli
from engine.images import Image


class AnyImage:
    """Stands where the engine's images stand; `folder` is the installed process image."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder).resolve()

    def find(self, digest: object) -> Image:
        """Return the process image under the name that was asked for."""
        description = json.loads((self.folder / "image.json").read_text(encoding="utf-8"))
        return Image(str(self.folder), {**description, "digest": str(digest)})


if __name__ == "__main__":
    cli.Images = AnyImage
    sys.exit(cli.main(sys.argv[1:]))
