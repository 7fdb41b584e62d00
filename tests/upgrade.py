# SPDX-License-Identifier: Apache-2.0
"""See an upgrade through: `make upgrade FROM=v1.0.0`.

Installs the tarball of an earlier commit, deploys, chats and keeps a backup; then installs today's over it and deploys
again. State, token and the old backup must come along. On request, before a release: a clone need not have the history.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from tests.standins.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / ".venv" / "bin"
NOT_THERE = "this clone has no commit {}: a shallow one has no history (git fetch --unshallow)."


class Machine:
    """A folder with an inventory, in which the collection is installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, providers, dashboard = (free_port() for _ in range(3))
        said = {
            "hermes_platform": "workerd",
            "hermes_provider": "rehearsal",
            "hermes_port": self.port,
            "hermes_providers_port": providers,
            "hermes_dashboard_port": dashboard,
        }
        inventory = {"all": {"hosts": {"alice": None}, "vars": said}}
        (folder / "hosts.json").write_text(json.dumps(inventory))

    def install(self, tree: Path) -> None:
        """Build the collection of a tree, and install it."""
        run(BIN / "ansible-galaxy", "collection", "build", "--force", cwd=tree)
        (tarball,) = tree.glob("hermes-workers-*.tar.gz")
        install = ("collection", "install", "--force", "--offline", "-p", "collections")
        run(BIN / "ansible-galaxy", *install, tarball, cwd=self.folder)

    def play(self, playbook: str, *words: str) -> str:
        """Run one of the installed playbooks. Raises SystemExit with what it printed when it fails."""
        installed = str(self.folder / "collections")
        command = (BIN / "ansible-playbook", f"hermes.workers.{playbook}", "-i", "hosts.json")
        return run(*command, *words, cwd=self.folder, ANSIBLE_COLLECTIONS_PATH=installed)

    @property
    def token(self) -> str:
        """The API token that the owner finds."""
        return (self.folder / ".hermes" / "alice" / "api_token").read_text().strip()

    def chat(self, text: str) -> str:
        """Say something in the one session; return the answer."""
        body = {"model": "hermes", "messages": [{"role": "user", "content": text}]}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            json.dumps(body).encode(),
            {
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                "X-Hermes-Session-Id": "kept",
            },
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return str(json.load(answer)["choices"][0]["message"]["content"])


def run(*words: str | Path, cwd: Path, **shell: str) -> str:
    """Run a command and return what it printed. Raises SystemExit with it when it fails."""
    done = subprocess.run(
        words,
        cwd=cwd,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1", "COLUMNS": "200"} | shell,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))} failed:\n{done.stdout}")
    return done.stdout


def tree_of(commit: str, folder: Path) -> Path:
    """Put the files of a commit into a folder. Raises SystemExit when there is no such commit."""
    folder.mkdir()
    exists = subprocess.run(
        ["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True
    )
    if exists.returncode:
        raise SystemExit(NOT_THERE.format(commit))
    with subprocess.Popen(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE) as packed:
        subprocess.run(["tar", "-x", "-C", str(folder)], stdin=packed.stdout, check=True)
    return folder


def check(is_so: bool, what: str) -> None:
    """Tell what was seen. Raises SystemExit when it is not so."""
    if not is_so:
        raise SystemExit(f"not so: {what}")
    print(f"  {what}", flush=True)


def upgrade(commit: str, folder: Path) -> None:
    """Deploy by a commit, then by HEAD, and see what came along."""
    machine = Machine(folder)
    machine.install(tree_of(commit, folder / "before"))
    try:
        machine.play("deploy")
        machine.chat("The code word is plover.")
        machine.play("backup")
        token = machine.token
        (backup,) = (folder / ".hermes" / "backups").glob("alice-*.hermes")
        check(True, f"{commit} is deployed, chatted with and backed up")
        machine.install(tree_of("HEAD", folder / "after"))
        machine.play("deploy")
        check(machine.token == token, "the API token is the same")
        check("plover" in machine.chat("And now?"), "the conversation goes on")
        again = machine.play("deploy")
        check(bool(re.search(r"alice +: .*changed=0 ", again)), "a second deploy changes nothing")
        machine.play("restore", "-e", f"hermes_backup={backup}")
        check("plover" in machine.chat("And then?"), "the old backup is put back")
        machine.play("rotate_keys", "-e", "hermes_keys=api_token")
        check(machine.token != token, "keys are rotated")
    finally:
        machine.play(
            "destroy", "-e", "hermes_confirm=yes", "-e", "confirm=yes", "-e", "hermes_forget=yes"
        )


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1]:
        raise SystemExit(
            "FROM=: name the commit or tag of the release before, for example FROM=v1.0.0"
        )
    with tempfile.TemporaryDirectory(prefix="hermes-upgrade-") as scratch:
        upgrade(sys.argv[1], Path(scratch))
