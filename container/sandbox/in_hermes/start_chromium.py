# SPDX-License-Identifier: Apache-2.0
"""Starts the image's Chromium for Hermes' browser tool, which calls this by the browser's name.

Hermes is root in its container, and a browser runs what strangers wrote. So it becomes a user who owns nothing but
the browser's profile, which the tool made for this one browser and removes after it: it can read neither Hermes' home
nor the environments of other processes, where keys are, and it can never be more than that user again.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

# What type checkers know by this name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

BROWSER = "/usr/lib/chromium/chromium-headless-shell"
CERTUTIL = "/usr/bin/certutil"
USER = 64142
"""Nobody's in a Debian: neither a system's user, nor one of somebody who signs in."""
PASSED = ("LANG", "LC_ALL", "TZ", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
"""What of Hermes' environment the browser has, in small letters too; the rest holds keys."""

PR_SET_NO_NEW_PRIVS = 38
CAPABILITY_VERSION = 0x20080522
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000


def main(arguments: list[str]) -> None:
    """Become the browser. Raises OSError when the user cannot be changed or there is no browser."""
    profile = profile_of(arguments)
    authority = read(os.environ.get("SANDBOX_EXTRA_CA", ""))
    env = environment(os.environ, profile)
    os.chmod(profile, 0o700)
    os.chown(profile, USER, USER)
    become(USER)
    os.chdir(profile)
    if authority:
        trust(authority, profile, env)
    given = switches(arguments, confines=has_namespaces(), held=bool(authority))
    os.execve(BROWSER, [BROWSER, *given], env)  # noqa: S606 - the whole point


def profile_of(arguments: list[str]) -> str:
    """Return the folder of the profile, which the tool always names."""
    name = "--user-data-dir="
    found = [one.removeprefix(name) for one in arguments if one.startswith(name)]
    if not found:
        raise SystemExit("chromium: --user-data-dir is missing")
    return found[-1]


def environment(given: Mapping[str, str], profile: str) -> dict[str, str]:
    """Return what the browser is given. profile: its home, too, so that nothing of it is left elsewhere."""
    names = [*PASSED, *(name.lower() for name in PASSED)]
    kept = {name: given[name] for name in names if name in given}
    return {"PATH": "/usr/bin:/bin", "HOME": profile, "TMPDIR": profile, **kept}


def become(user: int) -> None:
    """Be a user, and never more again."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    give_up_rights()


def give_up_rights() -> None:
    """Have none of root's rights, and never get any: there are containers in which a change of the user leaves them."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    # Effective, permitted and inheritable ones, twice 32 of each; what is not permitted is not ambient either.
    none = (ctypes.c_uint32 * 6)()
    if _libc().capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")
    if _libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")


def has_namespaces() -> bool:
    """Tell whether this user may make what Chromium locks its own parts into."""
    child = os.fork()
    if child == 0:
        os._exit(bool(_libc().unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def switches(given: list[str], *, confines: bool, held: bool) -> list[str]:
    """Return the browser's arguments.

    confines: whether it can lock its parts into namespaces; held: whether what leaves the sandbox is looked at.
    """
    # The tool says both whenever Hermes is root.
    kept = [one for one in given if one not in ("--no-sandbox", "--disable-dev-shm-usage")]
    kept.append("--disable-dev-shm-usage")
    if held:
        # UDP is not looked at everywhere.
        kept += ["--disable-quic", "--force-webrtc-ip-handling-policy=disable_non_proxied_udp"]
    return kept if confines else [*kept, "--no-sandbox"]


def read(path: str) -> bytes:
    """Return a file's content; nothing when there is no such file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def trust(authority: bytes, profile: str, env: dict[str, str]) -> None:
    """Have the browser trust one more authority: the one that vouches for the hosts of hermes_egress."""
    database = os.path.join(profile, ".pki", "nssdb")
    os.makedirs(database, mode=0o700)
    for words in (["-N", "--empty-password"], ["-A", "-n", "egress", "-t", "C,,"]):
        command = [CERTUTIL, "-d", f"sql:{database}", *words]
        subprocess.run(command, env=env, input=authority, stdout=2, check=True)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


if __name__ == "__main__":
    main(sys.argv[1:])
