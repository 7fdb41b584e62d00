# SPDX-License-Identifier: Apache-2.0
"""Many deployments at once, against the stand-in for Cloudflare with a data plane that runs nothing.

HERMES_BENCH_DEPLOYMENTS (50) says how many; the goals are for fifty. The linear growth is looked at up to four times as
many. The manual steps are run a few times and multiplied: they are the same each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from aiohttp import ClientError, ClientSession, TCPConnector
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from figure import Figure

from parts.checkout import ROOT
from tests.cloudflare import ControlPlane
from tests.cloudflare.stub import StubEdge

COUNT = int(os.environ.get("HERMES_BENCH_DEPLOYMENTS", "50"))
ACCOUNT = "0123456789abcdef0123456789abcdef"
TOKEN = "bench-token-of-the-fleet"  # noqa: S105 - of a stand-in
KEY = "sk-ant-bench"
MANUAL_RUNS = 3
THINKS = 0.3
"""Seconds that a chat takes."""
PLAYBOOK = ROOT / ".venv" / "bin" / "ansible-playbook"


class SlowEdge(StubEdge):
    """Chats take a moment, so that requests are under way when a version changes."""

    thinks = THINKS


@dataclass
class Run:
    """One play."""

    seconds: float
    processor: float
    """Seconds of all its processes; what else runs on the machine hardly matters to it."""
    writes: int
    calls: int
    largest: float
    """Megabytes that the largest process of the play had resident."""
    output: str


@dataclass
class Fleet:
    """Deployments of one account."""

    plane: ControlPlane
    home: Path
    names: list[str] = field(default_factory=list)

    def play(self, playbook: str, names: list[str], *arguments: str, key: str = KEY) -> Run:
        """Run a playbook on some of them."""
        inventory = self.home / "inventory.json"
        inventory.write_text(json.dumps(self._inventory(names, key)))
        command = [str(PLAYBOOK), f"playbooks/{playbook}.yml", "-i", str(inventory), *arguments]
        # Cloudflare's limit of calls would be met by several plays within five minutes; none alone may come near it.
        for path in (self.home / ".runtime").glob("calls-*"):
            path.unlink()
        self.plane.advance(300)
        calls, writes = len(self.plane.calls), len(self.plane.writes())
        started, used = time.monotonic(), children_seconds()
        log = self.home / "play.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **self.plane.env, "ANSIBLE_NOCOLOR": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            largest = watch(process)
        text = log.read_text()
        if process.returncode:
            raise RuntimeError(f"{playbook} failed:\n{text[-6000:]}")
        api = [one for one in self.plane.calls[calls:] if one.host == "api.cloudflare.com"]
        return Run(
            time.monotonic() - started,
            children_seconds() - used,
            len(self.plane.writes()) - writes,
            len(api),
            largest,
            text,
        )

    def _inventory(self, names: list[str], key: str) -> dict[str, Any]:
        shared = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "hermes_platform": "cloudflare",
            "hermes_state_dir": str(self.home),
            "hermes_account_id": ACCOUNT,
            "cloudflare_api_token": TOKEN,
            "anthropic_api_key": key,
        }
        return {"all": {"hosts": {name: {} for name in names}, "vars": shared}}

    def token(self, name: str) -> str:
        """A deployment's API token."""
        return (self.home / name / "api_token").read_text().strip()


def children_seconds() -> float:
    """Processor seconds of all processes that ended so far, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def watch(process: subprocess.Popen[Any]) -> float:
    """Wait for a play; return the megabytes of its largest process of Ansible's."""
    largest = 0.0
    root = psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            for one in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    if "ansible" in " ".join(one.cmdline()):
                        largest = max(largest, one.memory_info().rss / 1e6)
        time.sleep(0.1)
    return largest


@contextmanager
def fleet() -> Iterator[Fleet]:
    """An account with the image in its registry."""
    with tempfile.TemporaryDirectory(prefix="hermes-bench-") as folder:
        home = Path(folder) / "state"
        home.mkdir(mode=0o700)
        with ControlPlane(Path(folder) / "plane", edge=SlowEdge) as plane:
            plane.rate_limit = 10**9
            plane.add_account(ACCOUNT, TOKEN)
            plane.registry.add_image(f"{ACCOUNT}/hermes-workers", Sources().container_image(""))
            yield Fleet(plane, home)


def manual_seconds(fleet: Fleet, name: str) -> float:
    """What a person types for one deployment: the deploy, then each secret; in a folder that is prepared already."""
    deployed = fleet.home / name
    folder = fleet.home / "manual" / name
    folder.mkdir(parents=True)
    text = (deployed / "build" / "wrangler.toml").read_text()
    text = text.replace(f'name = "{name}', f'name = "manual-{name}')
    required = text[text.index("[secrets]") : text.index("[observability]")]
    (folder / "wrangler.toml").write_text(text.replace(required, ""))
    (folder / "worker.js").write_bytes((deployed / "build" / "worker.js").read_bytes())
    wrangler = next((fleet.home / ".runtime").glob("wrangler-*/node_modules/.bin/wrangler"))
    node = subprocess.run(
        [sys.executable, str(ROOT / "requirements/node_path.py")],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    own = {"CLOUDFLARE_API_TOKEN": TOKEN, "CLOUDFLARE_ACCOUNT_ID": ACCOUNT, "CI": "1"}
    env = {**os.environ, **fleet.plane.env, **own, "PATH": f"{node}:{os.environ['PATH']}"}

    def run(*words: str, given: str = "") -> None:
        done = subprocess.run(
            [str(wrangler), *words],
            cwd=folder,
            env=env,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"wrangler {' '.join(words)}: {done.stdout}{done.stderr}")

    started = time.monotonic()
    run("deploy")
    for secret, value in (("API_TOKEN", "hw_manual-token-of-a-person"), ("ANTHROPIC_API_KEY", KEY)):
        run("secret", "put", secret, given=value)
    return time.monotonic() - started


class Chatters:
    """A client for each deployment, which chats without a pause with the token of the beginning."""

    def __init__(self, fleet: Fleet, names: list[str]) -> None:
        self.fleet = fleet
        self.tokens = {name: fleet.token(name) for name in names}
        self.good = 0
        self.failed: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))

    def __enter__(self) -> Chatters:
        self._thread.start()
        while self.good < len(self.tokens):
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    async def _all(self) -> None:
        context = ssl.create_default_context(cafile=self.fleet.plane.env["SSL_CERT_FILE"])
        async with ClientSession(connector=TCPConnector(limit=0, ssl=context)) as session:
            await asyncio.gather(*(self._chat(session, name) for name in self.tokens))

    async def _chat(self, session: ClientSession, name: str) -> None:
        url = f"https://{name}.acme.workers.dev/v1/chat/completions"
        body = {"model": "hermes", "messages": [{"role": "user", "content": "And on."}]}
        headers = {"Authorization": f"Bearer {self.tokens[name]}"}
        proxy = self.fleet.plane.env["HTTPS_PROXY"]
        while not self._over.is_set():
            try:
                async with session.post(url, json=body, headers=headers, proxy=proxy) as answer:
                    content = await answer.json()
                    if answer.status == 200 and content["choices"][0]["finish_reason"] == "stop":
                        self.good += 1
                    else:
                        self.failed.append(f"{name}: {answer.status}")
            except (ClientError, OSError, ValueError) as error:
                self.failed.append(f"{name}: {error!r}")


def measure() -> list[Figure]:
    """Deploy, deploy again and rotate a fleet, beside what a person would type for it."""
    names = [f"bench-{number:03}" for number in range(COUNT)]
    with fleet() as one:
        # The tools are installed once for all, as a person installs wrangler once.
        one.play("deploy", ["warm"])
        first = one.play("deploy", names)
        manual = [manual_seconds(one, name) for name in names[:MANUAL_RUNS]]
        by_hand = sum(manual) / len(manual) * COUNT
        print(f"   first: {first.seconds:.1f} s; by hand: {by_hand:.1f} s, from {MANUAL_RUNS} runs")
        unchanged = one.play("deploy", names)
        with Chatters(one, names) as chatters:
            rotation = one.play(
                "rotate_keys", names, "-e", "hermes_keys=api_token,provider_keys", key="sk-ant-2"
            )
        asked = chatters.good + len(chatters.failed)
        print(f"   {asked} chats during the rotation; failed: {chatters.failed[:5]}")
        for batch in range(1, 4):
            # One play of all would wait for Cloudflare's limit of calls.
            numbers = range(batch * COUNT, (batch + 1) * COUNT)
            more = [f"bench-{number:03}" for number in numbers]
            one.play("deploy", more, key="sk-ant-2")
            names += more
        grown = one.play("deploy", names, key="sk-ant-2")
    largest = max(run.largest for run in (first, unchanged, rotation, grown))
    return [
        Figure(f"{COUNT} unchanged deployments", round(unchanged.seconds, 1), "s", 15.0),
        Figure(f"{4 * COUNT} unchanged deployments", round(grown.seconds, 1), "s", 60.0),
        Figure("writes for them", unchanged.writes + grown.writes, "calls", 0),
        Figure(
            f"{4 * COUNT} unchanged deployments, processor time per deployment, against {COUNT}",
            round(grown.processor / 4 / unchanged.processor, 2),
            "times",
            1.1,
        ),
        Figure(
            f"{COUNT} first deployments, against the manual steps",
            round(first.seconds / by_hand, 3),
            "times",
            0.25,
            baseline=1.0,
        ),
        Figure(f"calls of {COUNT} first deployments", first.calls, "calls", 1200),
        Figure(f"rotating the keys of {COUNT} deployments", round(rotation.seconds, 1), "s", 20.0),
        Figure(
            f"requests that failed meanwhile, of {asked} by a client for each",
            len(chatters.failed),
            "requests",
            0,
        ),
        Figure("largest process of a play", round(largest), "MB resident", 150.0),
    ]
