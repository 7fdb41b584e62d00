# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Makes a virtual environment from a hashed lock, with nothing but a Python 3.11 to 3.13 at hand.

    python3 requirements/bootstrap.py .venv requirements/deploy.lock

The syntax stays old on purpose: an old Python has to get as far as the message that it is too old.
"""

from __future__ import print_function

import glob
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time

LEAST, BELOW = (3, 11), (3, 14)
NO_PIP = """python3-venv: not installed, so {python} can make no virtual environment with pip in it.
Nothing was changed.
Do: install it (Debian, Ubuntu: apt install python3-venv), or put uv on the PATH, then run it again.
Docs: docs/errors.md#python"""
WRONG_PYTHON = """python: {found} at {python} cannot run Hermes: it needs 3.11, 3.12 or 3.13.
Nothing was changed.
Do: install one of these and name it: make deploy PYTHON=python3.12
Docs: docs/errors.md#python"""
NOT_YOURS = """{path}: belongs to {owner}, and this run is {me}'s: one of the two would be locked out.
Nothing was changed.
Do: {remedy}
Docs: docs/errors.md#owner"""
NOT_INSTALLED = """registry not reachable, or refused: the packages of {lock} could not be installed (see above).
Nothing was changed.
Do: check the network, or name your mirror (PIP_INDEX_URL, UV_INDEX_URL), proxy (HTTPS_PROXY)
    or own certificate authority (SSL_CERT_FILE); then run it again.
Docs: docs/errors.md#network"""


def main(folder, lock):
    """Make the environment `folder` hold exactly what `lock` names; returns the exit code."""
    if not LEAST <= sys.version_info[:2] < BELOW:
        return fail(WRONG_PYTHON, found=".".join(map(str, sys.version_info[:3])))
    if not owned(folder):
        return 1
    started = time.time()
    print("Installing the tools of {} into {} ...".format(lock, folder), flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    environment = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1")
    subprocess.check_call([sys.executable, "-m", "venv", "--without-pip", folder])
    python = os.path.join(folder, "bin", "python")
    uv = shutil.which("uv") or install_uv(folder, python, lock, environment)
    if uv is None:
        shutil.rmtree(folder, ignore_errors=True)
        return fail(NO_PIP)
    command = [
        uv,
        "pip",
        "sync",
        "--quiet",
        "--python",
        python,
        "--require-hashes",
        "--compile-bytecode",
        lock,
    ]
    if uv is False or subprocess.call(command, env=environment) != 0:
        shutil.rmtree(folder, ignore_errors=True)
        return fail(NOT_INSTALLED, lock=lock)
    shutil.copyfile(lock, os.path.join(folder, "installed.lock"))
    print("Installing the tools: done in {:.1f} s".format(time.time() - started), flush=True)
    return 0


def owned(folder):
    """Tell whether what is made here would belong to whom the checkout, or the environment of before, belongs to."""
    me = os.geteuid()
    path = folder if os.path.exists(folder) else os.path.dirname(os.path.abspath(folder))
    uid = os.stat(path).st_uid
    owner, user = name_of(uid), name_of(me)
    if me == 0:
        # A container sees its host's users by their numbers only.
        fine = uid == me or owner in (str(uid), "nobody")
        remedy = "run it as {}, without sudo.".format(owner)
    else:
        fine = os.access(path, os.W_OK)
        remedy = "sudo chown -R {} {}; or run it as {}.".format(user, os.path.abspath(path), owner)
    if fine:
        return True
    fail(NOT_YOURS, path=path, owner=owner, me=user, remedy=remedy)
    return False


def name_of(uid):
    """Return a user's name, or the number where this machine does not know it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def install_uv(folder, python, lock, environment):
    """Install uv from the lock with whatever pip there is; returns its path, False when that failed, None: no pip."""
    pip = find_pip(python, environment)
    if pip is None:
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as only_uv:
        only_uv.write(entry_of(lock, "uv"))
        only_uv.flush()
        command = [
            "install",
            "--quiet",
            "--no-deps",
            "--no-compile",
            "--require-hashes",
            "-r",
            only_uv.name,
        ]
        if subprocess.call(pip["command"] + command, env=pip["environment"]) != 0:
            return False
    return os.path.join(folder, "bin", "uv")


def find_pip(python, environment):
    """Return a pip that installs into the new environment: the wheel that Python brings, else the system's pip."""
    wheels = wheel_of_pip()
    if wheels:
        return {
            "command": [python, "-m", "pip"],
            "environment": dict(environment, PYTHONPATH=wheels[-1]),
        }
    probe = [sys.executable, "-m", "pip", "--python", python, "--version"]
    if subprocess.call(probe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
        return {
            "command": [sys.executable, "-m", "pip", "--python", python],
            "environment": environment,
        }
    return None


def wheel_of_pip():
    """Return the paths of pip's wheel as ensurepip brings it (Debian keeps it in a package and folder of its own)."""
    import sysconfig

    folders = [sysconfig.get_config_var("WHEEL_PKG_DIR"), "/usr/share/python-wheels"]
    try:
        import ensurepip

        folders.insert(0, os.path.join(os.path.dirname(ensurepip.__file__), "_bundled"))
    except ImportError:
        pass
    for wheels in folders:
        found = sorted(glob.glob(os.path.join(wheels, "pip-*.whl"))) if wheels else []
        if found:
            return found
    return []


def entry_of(lock, package):
    """Return the lines that pin one package with its hashes."""
    lines, inside = [], False
    with open(lock) as handle:
        for line in handle:
            if not line.startswith((" ", "#", "\n")):
                inside = line.startswith(package + "==")
            if inside:
                lines.append(line)
    return "".join(lines)


def fail(message, **words):
    """Print an error card; returns the exit code."""
    print(message.format(python=sys.executable, **words), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
