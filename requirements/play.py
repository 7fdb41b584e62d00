# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs a playbook of this checkout, as `ansible-playbook` would, whatever the shell that `make` was typed in is set to.

Run by the Makefile with the Python of the tools. What Ansible refuses before a play begins (a locale that is not
installed, options, an inventory or a vault that it cannot read) is shown as a card too.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import getpass
import importlib
import io
import locale
import os
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any, NoReturn

import output
from bootstrap import fail, misplaced, not_written, owned, settle_umask

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = "ansible_collections.hermes.workers.plugins."
OUTSIDE = f"{PLUGINS}plugin_utils.display.outside"
NOT_STARTED = """Ansible: does not start: {reason}.
Nothing was changed.
Do: mend that setting: it comes from a variable ANSIBLE_... of your shell, or from ansible.cfg.
Docs: docs/errors.md#ansible"""
NO_OPTION = """ARGS: {reason}.
Nothing was changed.
Do: take it out of ARGS; .venv/bin/ansible-playbook --help lists the options.
Docs: docs/errors.md#inputs"""
NOT_SHOWN = """{stream}: could not be written: {reason}.
The play went on to its end, and what it had to say is incomplete.
Do: mend the cause; `make status` tells what the deployment does now.
Docs: docs/errors.md#system"""
OBJECTS = 100_000
"""So many more of them before a play looks for circles of garbage: a start makes objects by the thousand, and keeps
them. 700, Python's own number, costs a fifteenth of a play."""
UTF8 = ("C.UTF-8", "en_US.UTF-8")
"""Locales that need no installation: on Linux, on macOS."""
# How Ansible is set up here stands in ansible.cfg; what a shell exports is meant for other projects. A collection in
# another folder would even be taken instead of this one.
OURS = (
    "ANSIBLE_CALLBACKS_ENABLED",
    "ANSIBLE_COLLECTIONS_PATH",
    "ANSIBLE_COLLECTIONS_PATHS",
    "ANSIBLE_HOME",
    "ANSIBLE_INVENTORY_ENABLED",
    "ANSIBLE_RUN_TAGS",
    "ANSIBLE_SKIP_TAGS",
    "ANSIBLE_STDOUT_CALLBACK",
    "ANSIBLE_STRATEGY",
)


def main(arguments: list[str]) -> None:
    """Run the playbook and exit as Ansible does."""
    gc.set_threshold(OBJECTS)
    settle_umask()
    settle_streams()
    settle_locale()
    vars(getpass)["fallback_getpass"] = piped
    streams = output.install()
    if misplaced(str(ROOT)):
        refuse(misplaced(str(ROOT)), path=str(ROOT))
    settle_folder(ROOT / ".ansible" / "tmp")
    for name in OURS:
        os.environ.pop(name, None)
    os.environ["ANSIBLE_CONFIG"] = str(ROOT / "ansible.cfg")
    said = io.StringIO()
    try:
        # A setting that is none makes Ansible print its own traceback.
        with contextlib.redirect_stderr(said):
            from ansible.cli.playbook import PlaybookCLI
    except SystemExit:
        first = next(iter(said.getvalue().splitlines()), "it did not say why")
        refuse(NOT_STARTED, reason=first.removeprefix("ERROR: ").rstrip("."))

    class Play(PlaybookCLI):
        """ansible-playbook with cards for what it refuses by itself."""

        def init_parser(self) -> None:
            super().init_parser()
            self.parser.error = lambda message: refuse(NO_OPTION, reason=message)

        def post_process_args(self, options: Any) -> Any:
            # A dash that a word processor made long makes a playbook of an option.
            strange = next((word for word in options.args if not os.path.exists(word)), None)
            if strange:
                refuse(NO_OPTION, reason=f"{strange} is no option, and no playbook")
            return super().post_process_args(options)

        def ask_passwords(self) -> Any:
            # The last step before inventory and vaults are read; the collection can be imported by now.
            sys.meta_path.insert(0, KeptBytecode())
            importlib.import_module(OUTSIDE).show_cards(quiet=True)
            return super().ask_passwords()

    try:
        Play.cli_executor(["ansible-playbook", *arguments])
    except SystemExit as ended:
        lost = {name: stream.lost for name, stream in streams.items() if stream.lost}
        for name, error in lost.items():
            fail(NOT_SHOWN, stream=name, reason=error.strerror)
        sys.exit(ended.code or int(bool(lost)))


class KeptBytecode:
    """Finds this collection's modules as Python finds every program's: with the bytecode in `__pycache__` beside them.

    Ansible's own finder takes that for plugins and compiles what they import anew at each start. What is stale is
    Python's to say, and where nothing can be written nothing is kept. A folder without code is left to Ansible.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        """Return where a module of the collection is; None for any other. path: of the package that it is in."""
        if not path or not name.startswith(PLUGINS):
            return None
        spec = self._finder(path[0]).find_spec(name)
        return spec if spec and spec.loader else None

    @staticmethod
    @cache
    def _finder(folder: str) -> FileFinder:
        return FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES))


def settle_streams() -> None:
    """Have all three standard streams, without which Ansible fails half-way; starts again where one was closed.

    What goes to one that somebody closed (`make deploy >&-`) is for nobody. One that does not wait, as some programs
    leave a terminal to those after them, has to: Ansible refuses it.
    """
    streams = (sys.stdin, sys.stdout, sys.stderr)
    if None not in streams:
        for number in range(len(streams)):
            os.set_blocking(number, True)
        return
    nothing = os.open(os.devnull, os.O_RDWR)
    for number, stream in enumerate(streams):
        if stream is None:
            os.dup2(nothing, number)
            os.set_inheritable(number, True)
    start_again()


def piped(prompt: str, _stream: object = None) -> str:
    """Return a password that is typed where there is no terminal: Python's own way warns of an echo there."""
    print(prompt, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


def settle_folder(kept: Path) -> None:
    """Have a folder for what Ansible keeps while it works, as it makes one itself; ends with a card where it cannot."""
    try:
        kept.mkdir(mode=0o700, exist_ok=True)
        os.rmdir(tempfile.mkdtemp(dir=kept))
    except OSError as error:
        if error.errno == errno.EACCES and not owned(str(kept)):
            end()
        not_written(error, str(kept))
        end()


def start_again() -> NoReturn:
    """Run this program anew, as it was called."""
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - itself


def settle_locale() -> None:
    """Have a locale with UTF-8, which Ansible demands. Starts this program again where Python began with another."""
    with contextlib.suppress(locale.Error, ValueError):
        locale.setlocale(locale.LC_ALL, "")
        encoding = (locale.getlocale()[1] or "").lower()
        if encoding in ("utf-8", "utf8") and sys.getfilesystemencoding().lower() == "utf-8":
            return
    for name in UTF8:
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_ALL, name)
            os.environ["LC_ALL"] = name
            start_again()


def refuse(card: str, **words: str) -> NoReturn:
    """Show a card and end."""
    fail(card, **words)
    end()


def end() -> NoReturn:
    """End where a card was shown, whatever of Ansible runs already."""
    sys.stderr.flush()
    os._exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
