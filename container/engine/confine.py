# SPDX-License-Identifier: Apache-2.0
"""Confinement by bubblewrap, where it is installed and works.

The sandbox sees the system's programs and libraries, its image and its disk; no home folder, no
state folder, no process of the host. The network is the host's.
"""

import os
import shutil
import subprocess
import sys

from engine.errors import EngineError
from engine.images import Image

HOME = "/home/hermes"
RUN = "/run/hermes"
_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store")
# What programs need of /etc to find names, users, certificates and the time; no more of it.
_SETTINGS = (
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "gai.conf",
    "group",
    "host.conf",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "pki",
    "protocols",
    "resolv.conf",
    "services",
    "ssl",
    "timezone",
)


def decide(mode: str) -> bool:
    """Tell whether a sandbox that starts now is confined. Raises EngineError 503 when it must be and cannot.

    Asked at each start: a bubblewrap that was installed meanwhile serves the next one.
    """
    confined = mode != "never" and works()
    if mode == "always" and not confined:
        raise EngineError(503, "not_confined", "bubblewrap is not installed or does not work here.")
    return confined


def works() -> bool:
    """Tell whether bubblewrap can confine a Python process on this machine."""
    if shutil.which("bwrap") is None:
        return False
    interpreter = os.path.realpath(sys.executable)
    command = [
        *_host(),
        *_read_only(_prefix(interpreter)),
        *_system(),
        "--tmpfs",
        RUN,
        "--",
        interpreter,
        "-I",
        "-S",
        "-c",
        "import socket",
    ]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def command(image: Image, root: str, run: "list[str]") -> "list[str]":
    """Return the command that runs `run` confined as PID 1, with the disk's folder `root`."""
    interpreter = [word for path in image.interpreter_folders() for word in _read_only(path)]
    return [
        *_host(),
        *_system(),
        "--tmpfs",
        RUN,
        "--bind",
        os.path.join(root, "home"),
        HOME,
        "--bind",
        os.path.join(root, "tmp"),
        "/tmp",  # noqa: S108 - the sandbox's own
        # Last: they may lie in a folder that was hidden above.
        *interpreter,
        *_read_only(image.folder),
        "--chdir",
        HOME,
        "--remount-ro",
        "/",
        "--",
        *run,
    ]


def _host() -> "list[str]":
    """Return bubblewrap, its name spaces, and the read-only part of the host."""
    words = [
        "bwrap",
        "--unshare-user",
        "--unshare-pid",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup-try",
        "--as-pid-1",
        "--die-with-parent",
        "--cap-drop",
        "ALL",
    ]
    for path in _PROGRAMS:
        if os.path.islink(path):
            words += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            words += _read_only(path)
    for name in _SETTINGS:
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return words


def _system() -> "list[str]":
    return ["--proc", "/proc", "--dev", "/dev"]


def _read_only(path: str) -> "list[str]":
    # What is inside a folder that is bound already is there.
    if any(path == shown or path.startswith(shown + "/") for shown in _PROGRAMS):
        return ["--ro-bind", path, path] if path in _PROGRAMS else []
    return ["--ro-bind", path, path]


def _prefix(interpreter: str) -> str:
    return os.path.dirname(os.path.dirname(interpreter))
