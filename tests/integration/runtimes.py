# SPDX-License-Identifier: Apache-2.0
"""What deployments ask npm for is installed once in a run of the tests, and linked into each state folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.hermes.workers.plugins.plugin_utils.build.runtime import Runtime
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder


def share_tools(home: Path) -> None:
    """Have workerd and the bundler in a state folder's runtime."""
    shared = _shared()
    shared.install_tools()
    _link(shared.tools, _runtime(home).tools)


def share_wrangler(home: Path) -> list[str]:
    """Have the pinned wrangler there; return the command that starts it."""
    shared, own = _shared(), _runtime(home)
    shared.install_wrangler()
    _link(shared.wrangler, own.wrangler)
    return own.install_wrangler()


@contextmanager
def furnished(home: Path) -> Iterator[Path]:
    """Make of a folder a state folder for many deployments, with what is installed already; removed at the end."""
    home.chmod(0o700)
    # The last deployment takes the runtime with it when it is destroyed: there is always another one.
    (home / "neighbour" / "build").mkdir(parents=True)
    share_tools(home)
    share_bytecode(home)
    yield home
    shutil.rmtree(home, ignore_errors=True)


def share_bytecode(home: Path) -> None:
    """Have the image of Hermes there for its bytecode, if it is installed already; elsewhere it is no other's image."""
    shared = _shared()
    if shared.has_image():
        _link(shared.image, _runtime(home).image.with_name("elsewhere"))


def _shared() -> Runtime:
    return _runtime(Path(os.environ["HERMES_TEST_RUNTIME"]))


def _runtime(home: Path) -> Runtime:
    deployment = StateFolder(str(home), "none")
    deployment.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Runtime(deployment, Sources(), print, "cloudflare")


def _link(there: Path, here: Path) -> None:
    if not here.exists():
        shutil.copytree(there, here, symlinks=True, copy_function=os.link)
