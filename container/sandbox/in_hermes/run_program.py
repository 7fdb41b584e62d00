# SPDX-License-Identifier: Apache-2.0
"""Runs a program of Hermes in which what `go` brought holds: `run_program.py PROGRAM [WORD...]`.

Runs on Hermes' own interpreter. Hermes runs its jobs, and the turns of further profiles, in a scope
of secrets that it reads from a home's `.env` and from nothing else; and what that file says
replaces what its process was started with. So what this boot brought is made what Hermes calls
managed: it is in every scope, nothing in a home replaces it, and Hermes refuses to write it there.
All of it stays in memory.
"""

import contextlib
import json
import os
import runpy
import sqlite3
import sys
from types import ModuleType


def hold() -> None:
    """Make it so in this process, before anything of Hermes has read its settings.

    Raises AttributeError for a Hermes that looks for them in another way.
    """
    from agent import secret_scope
    from hermes_cli import config, env_loader, managed_scope

    brought = _brought()
    of_home, of_file = secret_scope.build_profile_secret_scope, config.load_env

    def rest_of_file() -> dict[str, str]:
        return {name: value for name, value in of_file().items() if name not in brought}

    _replace(secret_scope, "build_profile_secret_scope", lambda home: {**of_home(home), **brought})
    _replace(config, "load_env", rest_of_file)
    _replace(env_loader, "_apply_managed_env", lambda: os.environ.update(brought))
    _replace(managed_scope, "load_managed_env", lambda: dict(brought))


def _brought() -> "dict[str, str]":
    """Return what this process was started with of the names that came with `go`."""
    with open(os.path.join(os.environ["SANDBOX_RUN"], "env.json"), encoding="utf-8") as file:
        names = [*json.load(file), "API_SERVER_HOST", "API_SERVER_PORT"]
    return {name: os.environ[name] for name in names if name in os.environ}


def _replace(module: ModuleType, name: str, function: object) -> None:
    getattr(module, name)  # what nobody calls would be replaced without any effect
    setattr(module, name, function)


def _be_called(name: str) -> None:
    """Take a name by which whoever lists the processes finds this one, where there is /proc."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write(name)


def _tell_sqlite() -> None:
    """Tell the rest of the sandbox which SQLite this process writes Hermes' databases with."""
    path = os.path.join(os.environ["SANDBOX_RUN"], "sqlite")
    with open(path, "w", encoding="ascii") as file:
        file.write(sqlite3.sqlite_version)


def main() -> None:
    """Run the program with its words."""
    sys.argv = sys.argv[1:]
    _be_called(os.path.basename(sys.argv[0]))
    _tell_sqlite()
    hold()
    runpy.run_path(sys.argv[0], run_name="__main__")


main()
