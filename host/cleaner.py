# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Removes from a container engine what a deployment has there no more, and what the engine itself keeps.

That is outdated snapshots, and the volumes that an image of upstream's declares: one comes with each container, and
workerd removes its containers without them.

    python cleaner.py SOCKET SESSION

Snapshots only make a wake faster: what is removed here by mistake costs nothing but that.
"""

import sys
import time

from docker import SESSION_LABEL, SNAPSHOTS, DockerEngine, DockerError

KEPT = 2
"""The newest, and the one before it while the newest is still being written down."""
EVERY_SECONDS = 60


def main(socket: str, session: str) -> None:
    """Clean for as long as this process lives."""
    engine = DockerEngine(socket)
    troubled = False
    volumes: set[str] = set()
    while True:
        try:
            clean(engine, session)
            volumes = drop_volumes(engine, session, volumes)
            troubled = False
        except (DockerError, OSError) as error:
            if not troubled:
                print(f"the container engine does not answer: {error}", flush=True)
            troubled = True
        time.sleep(EVERY_SECONDS)


def clean(engine: DockerEngine, session: str) -> None:
    """Remove all snapshots of a session but the newest ones; one that a container runs from stays."""
    found = [
        image
        for image in engine.images(SNAPSHOTS)
        if (image.get("Labels") or {}).get(SESSION_LABEL) == session
    ]
    found.sort(key=lambda image: image["Created"], reverse=True)
    for image in found[KEPT:]:
        for name in image["RepoTags"]:
            if engine.remove_image(name):
                print(f"removed {name}", flush=True)


def drop_volumes(engine: DockerEngine, session: str, seen: set[str]) -> set[str]:
    """Remove the volumes that were seen with containers which are gone; return those that there are.

    Nothing is kept in them: Hermes' home is elsewhere.
    """
    there: set[str] = engine.anonymous_volumes(session)
    return there | {name for name in seen - there if not engine.remove_volume(name)}


if __name__ == "__main__":
    main(*sys.argv[1:])
