# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Makes a virtual environment from a hashed lock, with nothing but a Python 3.11 to 3.13 at hand.

    python3 requirements/bootstrap.py .venv requirements/deploy.lock
    python3 requirements/bootstrap.py .ansible/collections/ansible_collections/hermes/workers --link

The syntax stays old on purpose: an old Python has to get as far as the message that it is too old. So types are in
comments.
"""

from __future__ import print_function

import errno
import fcntl
import filecmp
import glob
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from types import ModuleType  # noqa: F401 - named in a comment

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
NOT_INSTALLED = """registry not reachable, or refused: the packages of {lock} could not be installed{host} \
(see above).{told}
Nothing was changed.
Do: check the network, or name your mirror (PIP_INDEX_URL, UV_DEFAULT_INDEX), proxy (HTTPS_PROXY) \
or own certificate authority (SSL_CERT_FILE); then run it again.
Docs: docs/errors.md#network"""
DISK = """disk: no space left while the packages of {lock} were installed: {free} MB free below {place}.
Nothing was changed.
Do: free space there{instead}, then run it again.
Docs: docs/errors.md#disk"""
HASH = """{lock}: a package is not the one that it pins (see above).
Nothing was changed.
Do: ask who runs your package mirror; do not go on with a changed package.
Docs: docs/errors.md#hash"""
OF_MACHINE = """{subject}: {sentence}.
Nothing was changed.
Do: {remedy}
Docs: docs/errors.md#{heading}"""
COLON = """{path}: has a colon in it, and Python makes no environment there.
Nothing was changed.
Do: move the checkout to a folder without one, then run it again.
Docs: docs/errors.md#python"""
EXPANDED = """{path}: has the name of a variable in it, and Ansible would put its value there.
Nothing was changed.
Do: move the checkout to a folder without a dollar sign, then run it again.
Docs: docs/errors.md#ansible"""
PATTERN = """{path}: is a pattern for names of files, by which Ansible would not find its own there.
Nothing was changed.
Do: move the checkout to a folder without brackets, stars and question marks, then run it again.
Docs: docs/errors.md#ansible"""
NO_TEXT = """{path!a}: is no text in UTF-8, and the tools would not find it.
Nothing was changed.
Do: move the checkout to a folder whose name is, then run it again.
Docs: docs/errors.md#ansible"""
NO_LINKS = """{path}: has files where the repository has links, so that Ansible finds no collection there.
Nothing was changed.
Do: clone it on a disk that has links, with git -c core.symlinks=true clone, then run it there.
Docs: docs/errors.md#ansible"""
NO_ENVIRONMENT = """python: {python} made no virtual environment (see above).
Nothing was changed.
Do: mend what it names, or name another one: make deploy PYTHON=python3.12
Docs: docs/errors.md#python"""
NOT_WRITTEN = """{path}: cannot be written: {reason}.
Nothing was changed.
Do: {remedy}
Docs: docs/errors.md#system"""
INTERRUPTED = """interrupted: you ended the installation of the tools.
Nothing was changed.
Do: run it again.
Docs: docs/errors.md#interrupted"""
SIGN_OF_LIFE = 8
LINK = "playbooks/collections/ansible_collections/hermes/workers/plugins"
"""Where the playbooks of a checkout find its plugins; git without links writes a file."""
HERE = os.path.dirname(os.path.abspath(__file__))
REMEDIES = {
    errno.ENOSPC: "free space on its disk, then run it again.",
    errno.EDQUOT: "free space on its disk, then run it again.",
    errno.EROFS: "copy it to where you can write, cp -R {checkout} ~/hermes.workers, and run it there.",
}


def main(folder, lock):
    # type: (str, str) -> int
    """Make the environment `folder` hold exactly what `lock` names; returns the exit code."""
    if not LEAST <= sys.version_info[:2] < BELOW:
        return fail(WRONG_PYTHON, found=".".join(map(str, sys.version_info[:3])))
    settle_umask()
    try:
        return link(folder) if lock == "--link" else install(folder, lock)
    except KeyboardInterrupt:
        fail(INTERRUPTED)
        return 130
    except MemoryError as error:
        return fail(OF_MACHINE, **shared("symptoms").of_machine(repr(error), {}))
    except OSError as error:
        found = shared("symptoms").of_machine(repr(error), {})
        return fail(OF_MACHINE, **found) if found else not_written(error, error.filename or folder)


def settle_umask():
    # type: () -> None
    """Have nobody else write into what is made here, whatever the shell permits: it is code that this user runs."""
    os.umask(os.umask(0o077) | 0o022)


def not_written(error, path):
    # type: (OSError, str) -> int
    """Print the card of a path that cannot be written; returns the exit code."""
    remedy = REMEDIES.get(error.errno or 0, "mend the cause, then run it again.")
    remedy = remedy.format(checkout=shlex.quote(os.path.dirname(HERE)))
    return fail(NOT_WRITTEN, path=path, reason=error.strerror or error, remedy=remedy)


def link(path):
    # type: (str) -> int
    """Make the link by which Ansible finds this checkout; a folder of another checkout's has one of its own."""
    if not owned(os.curdir):
        return 1
    os.makedirs(os.path.dirname(path), exist_ok=True)
    # In one step, since another run may make it at the same time.
    made = "{}.{}".format(path, os.getpid())
    os.symlink(os.path.join(*[os.pardir] * path.count(os.sep)), made)
    os.rename(made, path)
    return 0


def install(folder, lock):
    # type: (str, str) -> int
    """Make the environment; returns the exit code."""
    checkout = os.path.dirname(os.path.abspath(folder))
    if os.pathsep in checkout:
        return fail(COLON, path=checkout)
    if misplaced(checkout):
        return fail(misplaced(checkout), path=checkout)
    if not owned(folder):
        return 1
    with open(lock) as handle:
        hold(handle.fileno(), lock)
        if installed(folder, lock):
            return 0
        try:
            code = fill(folder, lock)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if code:
            shutil.rmtree(folder, ignore_errors=True)
        return code


def hold(descriptor, lock):
    # type: (int, str) -> None
    """Hold the right to install what a lock file names, until it is closed; waits for another run that does so."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("Waiting for another run that installs the tools of {} ...".format(lock))
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        pass  # a disk without locks, as some networks have


def installed(folder, lock):
    # type: (str, str) -> bool
    """Tell whether an environment holds what a lock names."""
    noted = os.path.join(folder, "installed.lock")
    whole = os.path.exists(noted) and os.access(os.path.join(folder, "bin", "python"), os.X_OK)
    return whole and filecmp.cmp(lock, noted, shallow=False)


def fill(folder, lock):
    # type: (str, str) -> int
    """Make the environment anew; returns the exit code."""
    started = time.time()
    say("Installing the tools of {} into {} ...".format(lock, folder))
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)  # what cannot be written is told by us, and not by venv
    environment = settings_for_installers()
    if subprocess.call([sys.executable, "-m", "venv", "--without-pip", folder], env=environment):
        return fail(NO_ENVIRONMENT)
    python = os.path.join(folder, "bin", "python")
    uv, code, said = shutil.which("uv"), 0, ""
    if not uv:
        uv, code, said = install_uv(folder, python, lock, environment)
    if uv is None:
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
    code, said = call("uv", command, environment) if uv else (code, said)
    if code != 0:
        card, words = why(code, said, folder, environment, "uv" if uv else "pip")
        return fail(card, lock=lock, **words)
    shutil.copyfile(lock, os.path.join(folder, "installed.lock"))
    say("Installing the tools: done in {:.1f} s".format(time.time() - started))
    return 0


def why(code, said, folder, environment, tool):
    # type: (int, str, str, dict[str, str], str) -> tuple[str, dict[str, object]]
    """Return the card for an installer that failed, and its words. said: by it; environment: what it was told."""
    import pathlib

    symptoms, registries = shared("symptoms"), shared("registries")
    said = " ".join(said.split())  # it breaks its lines at the terminal's end
    if symptoms.FULL.search(said):
        place, free, name = symptoms.fullest(pathlib.Path(folder).absolute(), environment)
        instead = ", or set {} to another disk".format(name) if name else ""
        return DISK, {"place": place, "free": free // 1000000, "instead": instead}
    if symptoms.HASH.search(said):
        return HASH, {}
    found = symptoms.of_machine(said, environment, code)
    if found:
        return OF_MACHINE, found
    host = registries.host_of("", environment, tool)
    told = registries.obstacles(environment, tool)
    return NOT_INSTALLED, {"host": " from " + host if host else "", "told": told}


def misplaced(checkout):
    # type: (str) -> str
    """Return the card of a checkout in which Ansible finds no file of its own; empty where it does."""
    try:
        checkout.encode("utf-8")
    except UnicodeError:
        return NO_TEXT
    if os.path.isfile(os.path.join(checkout, LINK)):
        return NO_LINKS
    if os.path.expandvars(checkout) != checkout:
        return EXPANDED
    return "" if glob.glob(checkout) == [checkout] else PATTERN


def call(tool, command, environment):
    # type: (str, list[str], dict[str, str]) -> tuple[int, str]
    """Run an installer; says now and then that it is still under way. Returns its exit code and what it had to say.

    That is shown when it failed, and not when it was interrupted.
    """
    started = time.time()
    # In memory: the disk for temporary files may be what is full.
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        errors="replace",
    )
    try:
        while True:
            try:
                said = process.communicate(timeout=SIGN_OF_LIFE)[0]
                break
            except subprocess.TimeoutExpired:
                words = "  {} is still at it after {:.0f} s"
                say(words.format(tool, time.time() - started))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0:
        sys.stderr.write(fitted(said) + "\n")
    return process.returncode, said


def shared(name):
    # type: (str) -> ModuleType
    """Return a module that the collection's own installer reads too; its syntax is newer than this file's."""
    import importlib

    sys.path.insert(0, os.path.join(HERE, os.pardir, "plugins", "plugin_utils", "build"))
    try:
        return importlib.import_module(name)
    finally:
        del sys.path[0]


def settings_for_installers():
    # type: () -> dict[str, str]
    """Return the environment for pip and uv."""
    import pathlib

    return dict(shared("registries").environment(os.environ, pathlib.Path.home()))


def owned(folder):
    # type: (str) -> bool
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
        # A disk that cannot be written is told when it is tried.
        fine = os.access(path, os.W_OK) or uid == me
        remedy = "sudo chown -R {} {}; or run it as {}.".format(user, os.path.abspath(path), owner)
        if uid != 0:  # no run with sudo, but another person's checkout
            remedy = "use a checkout of your own, or run it as {}.".format(owner)
    if fine:
        return True
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        not_written(OSError(errno.EROFS, os.strerror(errno.EROFS)), os.path.abspath(path))
        return False
    fail(NOT_YOURS, path=path, owner=owner, me=user, remedy=remedy)
    return False


def name_of(uid):
    # type: (int) -> str
    """Return a user's name, or the number where this machine does not know it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def install_uv(folder, python, lock, environment):
    # type: (str, str, str, dict[str, str]) -> tuple[str | None, int, str]
    """Install uv from the lock with whatever pip there is; returns its path, "" when that failed, None: no pip.

    How pip ended, and what it had to say, come with it.
    """
    pip = find_pip(python, environment)
    if pip is None:
        return None, 1, ""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as only_uv:
        only_uv.write(entry_of(lock, "uv"))
        only_uv.flush()
        command = [
            "install",
            "-qq",
            "--no-deps",
            "--no-compile",
            "--require-hashes",
            "-r",
            only_uv.name,
        ]
        code, said = call("pip", pip[0] + command, pip[1])
    return ("" if code else os.path.join(folder, "bin", "uv")), code, said


def find_pip(python, environment):
    # type: (str, dict[str, str]) -> tuple[list[str], dict[str, str]] | None
    """Return a pip that installs into the new environment: the wheel that Python brings, else the system's pip.

    It comes as its command and environment.
    """
    wheels = wheel_of_pip()
    if wheels:
        return [python, "-m", "pip"], dict(environment, PYTHONPATH=wheels[-1])
    probe = [sys.executable, "-m", "pip", "--python", python, "--version"]
    if subprocess.call(probe, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
        return [sys.executable, "-m", "pip", "--python", python], environment
    return None


def wheel_of_pip():
    # type: () -> list[str]
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
    # type: (str, str) -> str
    """Return the lines that pin one package with its hashes."""
    lines, inside = [], False
    with open(lock) as handle:
        for line in handle:
            if not line.startswith((" ", "#", "\n")):
                inside = line.startswith(package + "==")
            if inside:
                lines.append(line)
    return "".join(lines)


def say(line):
    # type: (str) -> None
    """Tell how far it is; where that cannot be written it goes on, and what runs after it tells so."""
    try:
        print(line, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python tries again at its end


def fail(message, **words):
    # type: (str, **object) -> int
    """Print an error card; returns the exit code."""
    print(fitted(message.format(python=sys.executable, **words)), file=sys.stderr)
    return 1


def fitted(card):
    # type: (str) -> str
    """Return a card whose lines are no longer than the terminal is wide; a single word may be."""
    try:
        width = max(40, shutil.get_terminal_size((80, 24)).columns)
    except AttributeError:  # of an old Python
        width = 80
    lines = [
        textwrap.fill(
            line, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
        for line in card.splitlines()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
