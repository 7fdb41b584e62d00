# SPDX-License-Identifier: Apache-2.0
"""From asleep to the first token: through the Worker on Docker, against the same container started by hand.

By hand is what somebody would do who does not need the Worker: `docker run` of the same disk with the same settings,
and a chat that is sent to Hermes itself until somebody takes it. Both take turns and speak to the same provider.
HERMES_BENCH_ROUNDS (9) says how often each wakes.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from figure import Figure

from parts.container import HOME, Contained, contained, docker, provider

ROUNDS = int(os.environ.get("HERMES_BENCH_ROUNDS", "9"))
GOAL = 1.15
PATIENCE = 60
"""Seconds until somebody must take a chat."""
PORT = 18789
START = "/opt/hermes/start-hermes.sh"
MANAGED = "/run/hermes/managed/config.yaml"
CHAT = {"model": "hermes", "stream": True, "messages": [{"role": "user", "content": "Hello."}]}


def first_token(host: str, port: int, key: str) -> float:
    """Seconds until a chat says its first word; it is sent again until somebody takes it."""
    began = time.perf_counter()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    while time.perf_counter() < began + PATIENCE:
        connection = http.client.HTTPConnection(host, port, timeout=120)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(CHAT), headers)
            answer = connection.getresponse()
        except OSError:
            time.sleep(0.02)
            continue
        for line in answer:
            if b'"content": "' in line and b'"content": ""' not in line:
                seconds = time.perf_counter() - began
                answer.read()
                return seconds
        raise RuntimeError(f"no word was said; the answer had status {answer.status}")
    raise TimeoutError(f"nobody took the chat within {PATIENCE} s")


@dataclass
class ByHand:
    """Hermes in a container of the same engine, without the Worker."""

    made: Contained
    options: list[str]
    """Of `docker run`: the settings of the Hermes that the Worker started."""
    key: str

    @classmethod
    def like(cls, made: Contained, folder: Path, url: str, key: str) -> ByHand:
        """Take over the settings of the Hermes that runs now; the provider is at `url` and takes `key`."""
        config = json.loads(made.inside("cat", MANAGED))
        environ = json.loads(made.inside("cat", "/run/hermes/env.json"))
        for entry in (config["model"], *config["providers"].values()):
            entry["base_url"] = url + "/v1"
        environ["HERMES_PROVIDER_CAPABILITY"] = key
        (folder / "config.yaml").write_text(json.dumps(config))
        (folder / "env").write_text("".join(f"{n}={value}\n" for n, value in environ.items()))
        options = [f"--env-file={folder}/env", "--env=HERMES_MANAGED_DIR=/managed"]
        options += [
            f"--entrypoint={START}",
            f"--volume={folder}:/managed",
            "--env=SANDBOX_BIND=0.0.0.0",
            "--env=SANDBOX_RUN=/run/hermes",
            "--env=HERMES_HOME=/root/.hermes",
        ]
        return cls(made, options, environ["API_SERVER_KEY"])

    def wake(self, image: str, *more: str) -> float:
        """Seconds from nothing to the first token; `more` options of `docker run`."""
        engine = self.made.engine
        began = time.perf_counter()
        name = engine("run", "--detach", *self.options, *more, image)
        try:
            networks = engine.inspect(name.splitlines()[-1])["NetworkSettings"]["Networks"]
            (network,) = networks.values()
            first_token(network["IPAddress"], PORT, self.key)
            return time.perf_counter() - began
        finally:
            engine("rm", "--force", "--volumes", name)


def through_worker(made: Contained) -> float:
    """Seconds from asleep to the first token."""
    return first_token("127.0.0.1", made.deployment.port, made.deployment.token)


def from_snapshot(made: Contained, hand: ByHand, folder: Path) -> tuple[float, float]:
    """Wake once each from the disk of the last sleep."""
    made.sleep()
    newest = made.deployment.status()["snapshots"][-1]["id"]
    return through_worker(made), hand.wake(f"workerd-container-snap-{newest}")


def from_vault(made: Contained, hand: ByHand, folder: Path) -> tuple[float, float]:
    """Wake once each from the image and the state; by hand the state lies in a folder already."""
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    made.engine("cp", f"{made.hermes}:{HOME}", str(home))
    made.sleep()
    made.engine("rmi", *made.snapshots())
    return through_worker(made), hand.wake(made.image(), f"--volume={home}:{HOME}")


def both(made: Contained, hand: ByHand, folder: Path) -> list[Figure]:
    """Let both ways of waking take turns."""
    wakes = {"wake from a snapshot": from_snapshot, "wake from the vault": from_vault}
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in wakes}
    # The first of each is not counted: what it reads may come from the disk.
    for _ in range(ROUNDS + 1):
        for name, wake in wakes.items():
            samples[name].append(wake(made, hand, folder))
    return [Figure.against(name, rounds[1:], "by hand", GOAL) for name, rounds in samples.items()]


def measure() -> list[Figure]:
    """Hold a wake to its first token against Hermes itself."""
    with (
        docker() as engine,
        provider(engine.gateway) as model,
        contained(engine, model) as made,
        tempfile.TemporaryDirectory(prefix="hermes-bench-") as folder,
    ):
        hand = ByHand.like(made, Path(folder), model.url, model.key)
        return both(made, hand, Path(folder))
