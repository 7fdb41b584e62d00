# SPDX-License-Identifier: Apache-2.0
"""What a deployment on Cloudflare has to stand: the same plays in a rehearsal, and on a real account."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.processes import wait_for_ends

ROOT = Path(__file__).resolve().parents[2]
KEYS = ("ANTHROPIC_API_KEY", "OPENROUTER_API_KEY", "OPENAI_API_KEY", "HERMES_API_TOKEN")
"""What an environment may hold that would make it another deployment than the one that is wanted."""
SETTINGS = {"hermes_provider": "rehearsal", "hermes_prune_images": True}
"""No provider is paid, and no image is left."""
CHANGED = re.compile(r"^\S+ +: ok=.* changed=(\d+)", re.MULTILINE)
Show = Callable[[str], None]


class Failed(Exception):
    """A play did not do what it should; the message says which and what."""


@dataclass
class Step:
    """One play of the acceptance. calls, writes: how many the API got meanwhile."""

    name: str
    seconds: float
    calls: int
    writes: int


@dataclass
class Acceptance:
    """The plays, in front of one account."""

    inventory: str
    variables: Mapping[str, Any]
    """What wins over the inventory; secrets may be among it."""
    environment: Mapping[str, str]
    folder: Path
    """For files of the acceptance's own."""
    count: Callable[[], tuple[int, int]]
    """Returns how many calls the API has got so far, and how many of them were writes."""
    show: Show = print
    arguments: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    started: Callable[[int], None] = lambda _pid: None
    """Is told the process id of each play."""
    probe: Callable[[], None] = lambda: None
    """Asks what else is to be asked while everything is there."""

    def run(self) -> list[Step]:
        """Deploy, again, verify, back up, restore, rotate the keys, deploy again, destroy. Raises Failed."""
        self.deploy()
        self.deploy_again("again")
        self.play("verify", "Prove it once more")
        self.play("backup", "Back it up")
        self.play("restore", "Put the backup back", "-e", "hermes_backup=newest")
        self.play("rotate_keys", "Rotate its keys")
        self.deploy_again("rotated", "Deploy after the rotation: nothing may change")
        self.probe()
        self.destroy()
        return self.steps

    def deploy(self) -> None:
        """Deploy from nothing to a verified chat."""
        self.play("deploy", "Deploy")

    def deploy_again(self, name: str, title: str = "Deploy again: nothing may change") -> None:
        """Deploy once more; nothing may change, and no call may write."""
        output = self.play("deploy", title)
        step = self.steps[-1]
        step.name = name
        changed = sum(int(number) for number in CHANGED.findall(output))
        if changed or step.writes or "No changes. 0 calls written." not in output:
            raise Failed(
                f"a deploy ({name}) changed {changed} and sent {step.writes} calls that write"
            )

    def destroy(self, forget: bool = False) -> None:
        """Take it away. forget: without a last backup."""
        answers = ("-e", "hermes_confirm=yes", "-e", f"hermes_forget={'yes' if forget else 'no'}")
        self.play("destroy", "Destroy", *answers)

    def play(self, playbook: str, title: str, *words: str) -> str:
        """Run a playbook and show what it prints; returns it. Raises Failed."""
        self.show(f"\n=== {title} ===")
        lines = []
        with self._measured(playbook), self._started(playbook, *words) as process:
            for line in process.stdout or ():
                lines.append(line)
                self.show(line.rstrip("\n"))
        if process.returncode != 0:
            raise Failed(f"the playbook {playbook} ended with {process.returncode}")
        return "".join(lines)

    @contextmanager
    def _measured(self, name: str) -> Iterator[None]:
        (calls, writes), start = self.count(), time.monotonic()
        try:
            yield
        finally:
            after_calls, after_writes = self.count()
            seconds = time.monotonic() - start
            self.steps.append(Step(name, seconds, after_calls - calls, after_writes - writes))

    @contextmanager
    def _started(self, playbook: str, *words: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            [
                *(str(ROOT / ".venv" / "bin" / "python"), "-m", "ansible", "playbook"),
                *("-i", self.inventory, str(ROOT / "playbooks" / f"{playbook}.yml")),
                *("-e", f"@{self._variables_file()}", *words, *self.arguments),
            ],
            cwd=ROOT,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            self.started(process.pid)
            try:
                yield process
            finally:
                end(process.pid)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in KEYS}
        own = {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".ansible" / "collections"),
        }
        if sys.stdout.isatty():
            own["ANSIBLE_FORCE_COLOR"] = "1"
        return kept | own | dict(self.environment)

    def _variables_file(self) -> Path:
        path = self.folder / "variables.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(self.variables), encoding="utf-8")
        return path


def end(pid: int) -> None:
    """End a play with everything that it started; its workers have sessions of their own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        play = psutil.Process(pid)
        if not any("ansible" in word for word in play.cmdline()):
            return  # the play is over, and its id another's
        family = [play, *play.children(recursive=True)]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        wait_for_ends(family)


def table(steps: list[Step]) -> list[str]:
    """Return the steps as lines for people."""
    return [
        f"  {one.name:<12} {one.seconds:6.1f} s  {one.calls:3} calls, {one.writes} of them writes"
        for one in steps
    ]
