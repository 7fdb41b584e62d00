# SPDX-License-Identifier: Apache-2.0
"""Deployments whose Hermes runs in a container, and a look at what they have in the engine."""

from __future__ import annotations

import json
import secrets
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import psutil
import pytest
from appointments import keeps, soon, use
from plays import Answer, Deployment, Play, wait_until

from tests.docker.engine import KEPT, Docker
from tests.standins.provider import Provider

SESSION = "dev.workerd.session"
HOME = "/root/.hermes"
SKILL = "---\nname: gauges\ndescription: Reads gauges.\n---\nRead it twice.\n"
DECLARED = {
    "hermes_soul": {"text": "You live in a lighthouse."},
    "hermes_skills": {"gauges": {"text": SKILL}},
    "hermes_cron_jobs": {"lamp": {"schedule": "0 0 2 2 *", "prompt": "Trim the lamp."}},
    # Nobody is there whom Hermes could ask whether a program may run.
    "hermes_config": {"initial": {"display": {"language": "de"}, "approvals": {"mode": "off"}}},
}
"""An agent, as an inventory declares it."""
ENVIRONMENTS = ("sh", "-c", "cat /proc/[0-9]*/environ 2>/dev/null; cat /proc/1/environ")
"""Prints the environments of all that runs in a container; some of it may end meanwhile, but not the first."""


def in_container(docker: Docker, base: str, sidecar: str) -> dict[str, str]:
    """The variables of a deployment that runs in an engine of the tests."""
    return {
        "hermes_engine": "docker",
        "hermes_docker_socket": f"unix:{docker.socket}",
        "hermes_base_image": base,
        "hermes_sidecar_image": sidecar,
    }


def speaking_to(provider: Provider) -> dict[str, str]:
    """The variables of a deployment whose model a stand-in provides."""
    return {
        "custom_api_key": provider.key,
        "hermes_default_model": "custom/stand-in",
        "hermes_provider_base_url": provider.url + "/v1",
    }


@contextmanager
def remembering(contained: Contained, provider: Provider) -> Iterator[None]:
    """What was said and saved before some trouble is known after it, by a chat that is answered."""
    deployment = contained.deployment
    word, session = secrets.token_hex(8), secrets.token_hex(8)
    assert deployment.chat(f"The word is {word}.", session=session).status == 200
    taken = deployment.call("POST", "/api/instance/backups")
    assert taken.status == 200, taken.text
    yield
    answer = deployment.chat("What is the word?", session=session)
    assert answer.status == 200, answer.text
    asked = [seen.body["messages"] for seen in provider.seen if seen.body]
    assert word in str(asked[-1]), "the conversation is lost"
    assert deployment.instance_state() == "awake"
    assert len(contained.containers()) == 2, "Hermes and its sidecar"


def keeps_an_appointment(contained: Contained, provider: Provider, errand: str) -> None:
    """Hermes is asked to make one, sleeps, and keeps it."""
    deployment = contained.deployment
    use(deployment, "cronjob", action="create", name="soon", schedule=soon(), prompt=errand)

    def is_done() -> bool:
        jobs = contained.inside("cat", f"{HOME}/cron/jobs.json", check=False)
        return contained.is_running() and errand not in jobs

    keeps(deployment, provider, errand, is_done)


def assert_declared(contained: Contained, prompt: str) -> None:
    """Hermes is what is declared of it. prompt: what the model was told before a new conversation."""
    soul = contained.deployment.variables["hermes_soul"]["text"]
    assert soul in prompt and "Reads gauges." in prompt, "what is declared is lost"
    assert contained.inside("cat", f"{HOME}/cron/jobs.json").count("Trim the lamp.") == 1
    assert "language: de" in contained.inside("cat", f"{HOME}/config.yaml")


def kept_images(engine: Docker) -> list[str]:
    """The images of Hermes that this run keeps in an engine, by name."""
    listed = engine("images", "--format", "{{.Repository}}:{{.Tag}}", KEPT).split()
    # Podman lists all names of an image that has one asked for, and puts "localhost/" before what it loaded.
    return [name for name in listed if f"{KEPT}:" in name]


def hand_over(docker: Docker, other: Docker) -> None:
    """Copy the kept images of Hermes from one engine to another."""
    if kept := kept_images(docker):
        save = ["docker", "--host", f"unix://{docker.socket}", "save", *kept]
        load = ["docker", "--host", f"unix://{other.socket}", "load", "--quiet"]
        with subprocess.Popen(save, stdout=subprocess.PIPE) as saving:
            subprocess.run(load, stdin=saving.stdout, check=True, stdout=subprocess.DEVNULL)
        assert saving.returncode == 0


class Contained:
    """A deployment and what it has in the engine; to be made before it is deployed."""

    def __init__(self, deployment: Deployment, engine: Docker) -> None:
        self.deployment = deployment
        self.engine = engine
        self._foreign = set(self._images())

    @classmethod
    def deployed(
        cls, make: Callable[..., Deployment], name: str, engine: Docker, **variables: Any
    ) -> Contained:
        """Describe a deployment, and deploy it."""
        made = cls(make(name, **variables), engine)
        made.deploy()
        return made

    def events(self) -> str:
        """What its Worker has logged."""
        return (self.deployment.state / "logs" / "workerd.log").read_text()

    def deploy(self) -> Play:
        """Deploy it, with the image that an earlier deployment of this run built, if one did."""
        before = self._images()
        offered = {
            f"hermes-workers:{kept.rpartition(':')[2]}": kept for kept in kept_images(self.engine)
        }
        for name, kept in offered.items():
            self.engine("tag", kept, name)
        play = self.deployment.deploy()
        image = self.image()
        # Those of other sources, which nobody would take away.
        for name in offered.keys() - {image, *before}:
            self.engine("rmi", name)
        self.engine("tag", image, f"{KEPT}:{image.partition(':')[2]}")
        return play

    @property
    def session(self) -> str:
        place = json.loads((self.deployment.state / "containers.json").read_text())
        return str(place["session"])

    def containers(self, what: str = "{{.ID}}") -> list[str]:
        """Every container that was made for this deployment, Hermes' first."""
        mine = f"label={SESSION}={self.session}"
        return self.engine("ps", "--all", "--filter", mine, "--format", what).splitlines()

    @property
    def hermes(self) -> str:
        """Name of the container that Hermes runs in."""
        (name,) = [n for n in self.containers("{{.Names}}") if not n.endswith("-proxy")]
        return name

    def images(self) -> list[str]:
        """The images of Hermes and of snapshots that this deployment brought, by name."""
        return [name for name in self._images() if name not in self._foreign]

    def _images(self) -> list[str]:
        listed = self.engine("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
        return [n for n in listed if n.startswith(("hermes-workers:", "workerd-container-snap-"))]

    def snapshots(self) -> list[str]:
        """The snapshots of this deployment, by name."""
        mine = ("--filter", f"label={SESSION}={self.session}")
        listed = self.engine("images", *mine, "--format", "{{.Repository}}:{{.Tag}}").splitlines()
        return [name for name in listed if name.startswith("workerd-container-snap-")]

    def image(self) -> str:
        """The image that Hermes runs from, or would."""
        return str(self.deployment.call("GET", "/api/health").json["image"])

    def is_running(self) -> bool:
        """Whether the container of Hermes is there and runs."""
        running = self.engine(
            *("ps", "--filter", f"label={SESSION}={self.session}", "--format", "{{.Names}}")
        ).splitlines()
        return any(not name.endswith("-proxy") for name in running)

    def inside(self, *command: str, check: bool = True) -> str:
        """Run a command in Hermes' container and return what it printed."""
        return self.engine("exec", self.hermes, *command, check=check)

    def runs(self, command: str) -> bool:
        """Whether a command is under way in Hermes' container."""
        if not self.is_running():
            return False
        return command in self.engine("top", self.hermes, "-eo", "pid,args", check=False)

    def workerd(self) -> psutil.Process:
        """The process of this deployment's workerd."""
        children = self.deployment.supervisor().children()
        (found,) = [child for child in children if "build/config.capnp" in child.cmdline()]
        return found

    def sleep(self) -> None:
        answer = self.deployment.call("POST", "/api/instance/sleep")
        assert answer.status == 200, answer.text
        assert not self.is_running()

    def holdings(self) -> dict[str, int]:
        """How much of everything the deployment has, with all volumes of the engine."""
        return {
            "images": len(self.images()),
            "volumes": len(self.engine("volume", "ls", "--quiet").split()),
            "containers": len(self.containers()),
            "stored rows": self._rows(),
        }

    def _rows(self) -> int:
        """Rows of all tables that workerd keeps for the deployment."""
        count = 0
        for path in (self.deployment.state / "storage").rglob("*.sqlite"):
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=20)) as database:
                tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                for (table,) in tables.fetchall():
                    # Names that it gave itself.
                    found = database.execute(f'SELECT count(*) FROM "{table}"')  # noqa: S608
                    count += found.fetchone()[0]
        return count

    @contextmanager
    def held_at_start(self, asked: Callable[[], Answer]) -> Iterator[Background]:
        """Ask in the background for what starts the container, and have the Worker hold still from that moment on.

        The moment is the engine's own word: whoever looks again and again comes late on a busy machine.
        """
        words = ["docker", "--host", f"unix://{self.engine.socket}", "events"]
        mine = ["--filter", f"label={SESSION}={self.session}", "--filter", "event=start"]
        what = ["--since", str(time.time()), "--format", "{{.Actor.Attributes.name}}"]
        with subprocess.Popen([*words, *mine, *what], stdout=subprocess.PIPE, text=True) as told:
            assert told.stdout is not None

            def ask() -> Answer:
                try:
                    return asked()
                finally:
                    told.terminate()

            workerd = self.workerd()
            background = Background(ask)
            for name in told.stdout:
                if not name.strip().endswith("-proxy"):
                    workerd.suspend()
                    break
            else:
                pytest.fail(f"no container was started: {background.answer().text}")
            told.terminate()
        try:
            yield background
        finally:
            with suppress(psutil.NoSuchProcess):
                workerd.resume()

    def while_(self, asked: Callable[[], Answer], reached: Callable[[], bool]) -> Background:
        """Ask something in the background, and return once something is reached meanwhile."""
        background = Background(asked)
        wait_until(lambda: reached() or background.is_over, "the moment to strike")
        return background


class Background:
    """A request that is under way."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._answer: Any = None
        self._thread = threading.Thread(target=self._run, args=(ask,), daemon=True)
        self._thread.start()

    def _run(self, ask: Callable[[], Answer]) -> None:
        try:
            self._answer = ask()
        except OSError as error:  # the connection broke
            self._answer = error

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def answer(self) -> Any:
        """What it was answered, or how its connection broke."""
        self._thread.join(120)
        assert self.is_over, "never answered"
        return self._answer
