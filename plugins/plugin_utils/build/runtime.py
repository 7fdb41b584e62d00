# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runtime that all deployments of a state folder share: each part is installed once, named by its digest."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from ...module_utils.cards import Card
from ...module_utils.digests import clean_bytes, files_below
from ..state.disk import INSTALL_BYTES
from ..state.folder import StateFolder
from . import build_context, conformance, installer
from .sources import NPM_FILES, Sources

IMAGE_MARKER = "image.json"
# The engine starts this by its absolute path, on a PATH of its own.
LAUNCHER = """#!/bin/sh
root=${0%/bin/sandbox}
exec "$root/venv/bin/python" -I -S "$root/sandbox" "$@"
"""


class Runtime:
    """Knows where each part is or will be, and installs it. Installing raises a Card when it fails."""

    def __init__(
        self,
        deployment: StateFolder,
        sources: Sources,
        progress: installer.Progress,
        engine: str = "process",
    ) -> None:
        """progress: shows one line about a step that takes seconds; engine: what runs Hermes."""
        self.engine = engine
        self.folder = deployment.runtime
        self.sources = sources
        self.progress = progress
        self.image = self.folder / "images" / sources.image
        self.host = self.folder / f"host-{sources.host}"
        self.tools = self.folder / f"worker-{sources.tools}"
        self.wrangler = self.folder / f"wrangler-{sources.wrangler}"
        self.bundle = self.folder / f"bundle-{sources.code}"

    def parts(self) -> set[str]:
        """Return the names of the parts, relative to the runtime's folder."""
        parts = [self.tools, self.bundle]
        parts.append(self.wrangler if self.engine == "cloudflare" else self.host)
        if self.engine == "process":
            parts.append(self.image)
        return {part.relative_to(self.folder).as_posix() for part in parts}

    def missing_bytes(self) -> int:
        """Return how much room is needed for the parts that are not installed yet."""
        missing = [] if installer.is_complete(self.tools) else ["tools"]
        if self.engine == "cloudflare":
            missing += [] if installer.is_complete(self.wrangler) else ["wrangler"]
        else:
            missing += [] if installer.is_complete(self.host) else ["host"]
        if missing and missing != ["host"] and installer.system_node()[0] is None:
            missing += [] if installer.is_complete(self._packaged_node()) else ["node"]
        if self.engine == "process" and not self.has_image():
            missing.append("image")
        return sum(INSTALL_BYTES[part] for part in missing) - self._cut_short()

    def _cut_short(self) -> int:
        """Return how much of the disk is in what a killed installation left, which the next one removes first."""
        left = [
            folder
            for folder in (self.tools, self.host, self.wrangler, self.image, self._packaged_node())
            if folder.is_dir()
            and installer.installed_at(
                folder, IMAGE_MARKER if folder == self.image else installer.COMPLETE
            )
            is None
        ]
        return sum(own_bytes(folder) for folder in left)

    def _packaged_node(self) -> Path:
        return installer.node_folder(self.folder, self.sources.node_lock)

    def has_image(self) -> bool:
        """Tell whether the image is installed completely."""
        return installer.is_complete(self.image, IMAGE_MARKER)

    def install_image(self) -> None:
        """Install the process engine's image: Hermes from its lock, with the sandbox's scripts."""
        label = f"Hermes {self.sources.hermes_version}"
        with installer.installing(self.image, label, self.progress, IMAGE_MARKER) as needed:
            if needed:
                done = installer.timed(self.progress, f"installing {label} from its hashed lock")
                self._fill_image()
                self._conforms()
                self._finish_image()
                done()

    def _fill_image(self) -> None:
        lock = self.image / build_context.LOCK
        lock.write_text(self.sources.lock_text, encoding="utf-8")
        wheels = self.sources.release.wheels if self.sources.release else None
        python = installer.make_environment(
            self.image / "venv", lock, "Hermes", wheels, self.earlier()
        )
        copy_sources(self.sources.sandbox, self.image / "sandbox")
        packages = next(self.image.glob("venv/lib/python3*/site-packages"))
        build_context.lay_programs(packages, self.image / "venv" / "bin")
        build_context.trim_node(packages)
        sqlite = self.image / "venv" / build_context.SQLITE
        build_context.lay_sqlite(packages, self.sources.container, sqlite)
        script = self.image / "start-hermes.sh"
        script.write_bytes(clean_bytes(self.sources.start_script))
        launcher = self.image / "bin" / "sandbox"
        launcher.parent.mkdir()
        launcher.write_text(LAUNCHER, encoding="utf-8")
        node = packages / build_context.NODE
        (launcher.parent / "node").symlink_to(os.path.relpath(node, launcher.parent))
        for path in (script, launcher):
            path.chmod(0o755)
        compile_python(python, self.image / "sandbox", *([sqlite] if sqlite.is_dir() else []))

    def earlier(self) -> Path | None:
        """Return the environment of the newest other image, which has bytecode to take over, or None."""
        # Another play may remove one meanwhile.
        with contextlib.suppress(OSError):
            markers = self.folder.glob(f"images/*/{IMAGE_MARKER}")
            others = [marker for marker in markers if marker.parent != self.image]
            newest = max(others, key=lambda marker: marker.stat().st_mtime, default=None)
            return newest.with_name("venv") if newest else None
        return None

    def _conforms(self) -> None:
        """See that another Hermes than the pinned one is what is assumed of one. Raises a Card."""
        if self.sources.release:
            command = [
                str(self.image / installer.PYTHON),
                "-P",
                str(self.image / conformance.SUITE),
            ]
            done = installer.captured(command, installer.clean_environment())
            conformance.judge(self.sources.release, done.stdout, self.progress)

    def _finish_image(self) -> None:
        description = {
            "digest": self.sources.image,
            "hermesVersion": self.sources.hermes_version,
            "entrypoint": ["sandbox", "init"],
        }
        installer.finish(self.image, description, IMAGE_MARKER)

    def install_host(self) -> None:
        """Install the supervisor and the process engine."""
        if installer.is_complete(self.host):
            return
        what = "the supervisor and the process engine"
        with installer.installing(self.host, what, self.progress) as needed:
            if not needed:
                return
            done = installer.timed(self.progress, f"installing {what}")
            python = installer.make_environment(
                self.host / "venv", self.sources.host_lock, "the supervisor"
            )
            programs = []
            for source in self.sources.host_programs:
                programs.append(self.host / source.name)
                programs[-1].write_bytes(clean_bytes(source))
            engine = next(self.host.glob("venv/lib/python3*/site-packages")) / "engine"
            copy_sources(self.sources.engine, engine)
            compile_python(python, engine, *programs)
            installer.finish(self.host, {"host": self.sources.host})
            done()

    def install_tools(self) -> None:
        """Install workerd and the bundler from npm."""
        if installer.is_complete(self.tools):
            return
        with installer.installing(self.tools, "workerd", self.progress) as needed:
            if not needed:
                return
            done = installer.timed(self.progress, "installing workerd and the bundler from npm")
            for name, text in self.sources.production_packages.items():
                (self.tools / name).write_text(text, encoding="utf-8")
            self._npm_ci("workerd", self.tools)
            self.workerd()
            installer.finish(self.tools, {"tools": self.sources.tools})
            done()

    def install_wrangler(self) -> list[str]:
        """Install wrangler from npm; return the command that starts it."""
        if not installer.is_complete(self.wrangler):
            with installer.installing(self.wrangler, "wrangler", self.progress) as needed:
                if needed:
                    done = installer.timed(self.progress, "installing wrangler from npm")
                    for name in NPM_FILES:
                        content = clean_bytes(self.sources.wrangler_lock / name)
                        (self.wrangler / name).write_bytes(content)
                    self._npm_ci("wrangler", self.wrangler)
                    installer.finish(self.wrangler, {"wrangler": self.sources.wrangler})
                    done()
        program = self.wrangler / "node_modules" / "wrangler" / "bin" / "wrangler.js"
        return [self._node()[0], str(program)]

    def _npm_ci(self, label: str, folder: Path) -> None:
        """Install exactly what the folder's lock names; no package may run a program of its own."""
        _node, npm, path = self._node()
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        env = installer.installer_environment(PATH=path)
        installer.run([*npm, "ci", *options], label, cwd=folder, env=env)

    def _node(self) -> tuple[str, list[str], str]:
        """Return node, npm's command, and the PATH with that node in front."""
        path = os.environ.get("PATH", os.defpath)
        node, _words = installer.system_node()
        if node:
            return node, ["npm"], path
        folder = installer.install_node(self.folder, self.sources.node_lock, self.progress)
        command, binaries = installer.packaged_npm(folder)
        return command[0], command, f"{binaries}{os.pathsep}{path}"

    def has_bundle(self) -> bool:
        """Tell whether the Worker is bundled."""
        return installer.is_complete(self.bundle)

    def install_bundle(self) -> Path:
        """Bundle the Worker with the installed tools; return the bundle."""
        if self.has_bundle():
            return self.bundle / "worker.js"
        with installer.installing(self.bundle, "the Worker", self.progress) as needed:
            if needed:
                self._run_bundler()
                installer.finish(self.bundle, {"code": self.sources.code})
        return self.bundle / "worker.js"

    def _run_bundler(self) -> None:
        esbuild = self._npm_binary("@esbuild", "esbuild")
        done = subprocess.run(
            self.sources.bundle_command(esbuild, self.bundle / "worker.js"),
            cwd=self.sources.worker,
            env=installer.clean_environment(NODE_PATH=str(self.tools / "node_modules")),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise installer.installer_card("the Worker", "esbuild", done.returncode, done.stderr)

    def workerd(self) -> Path:
        """Return workerd's binary. Raises a Card when npm brought none for this machine."""
        return self._npm_binary("@cloudflare", "workerd")

    def _npm_binary(self, scope: str, name: str) -> Path:
        wanted = installer.package_platform()
        # workerd names x64 machines "64".
        package = f"workerd-{wanted}".replace("x64", "64") if name == "workerd" else str(wanted)
        path = self.tools / "node_modules" / scope / package / "bin" / name
        if not path.is_file():
            raise Card.of(
                name,
                f"npm installed no {name} for {wanted}.",
                "see whether npm is told to omit optional packages.",
                "tools",
            )
        return path

    @contextlib.contextmanager
    def installing_ahead(self) -> Iterator[None]:
        """Install the other parts while the caller installs the largest one: most of it is waiting.

        A failure here is left to the step whose part it is: that one tries again and tells it.
        """
        thread = threading.Thread(target=self._install_others)
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def _install_others(self) -> None:
        with contextlib.suppress(Card, OSError):
            self.install_tools()
            self.install_host()


def own_bytes(folder: Path) -> int:
    """Return how much of the disk would be free without a folder: what has another name elsewhere stays."""
    taken = 0
    for path, _folders, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                found = os.lstat(os.path.join(path, name))
                taken += found.st_blocks * 512 if found.st_nlink == 1 else 0
    return taken


def copy_sources(source: Path, target: Path) -> None:
    """Copy a package's sources, without caches and with Unix line ends."""
    for path in files_below(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(clean_bytes(path))


def compile_python(python: Path, *paths: Path) -> None:
    """Compile sources ahead of their first start."""
    words = [str(path) for path in paths]
    installer.run([str(python), "-m", "compileall", "-q", *words], "our own programs")
