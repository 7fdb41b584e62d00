# SPDX-License-Identifier: Apache-2.0
"""Rehearses a deployment to Cloudflare on this machine: `make rehearse`.

Real plays, real wrangler and, where a container engine is, a real build and push, in front of the stand-in for
Cloudflare. It leaves nothing running and nothing behind.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.docker import (
    DockerEngine,
    DockerError,
    find_socket,
    socket_path,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import (
    REPOSITORY,
    Sources,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.containers.image import Containers
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder

from tests.cloudflare.acceptance import ROOT, SETTINGS, Acceptance, Failed, table
from tests.cloudflare.accounts import hex_id
from tests.cloudflare.plane import API, ControlPlane
from tests.cloudflare.recorder import Recorder, write


def main() -> int:
    """Rehearse; returns the exit code."""
    options = parse()
    # Like Ctrl-C: everything that was started ends on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with state_folder(options.state) as state:
            wanted = Rehearsal(
                options.inventory, state, options.image, options.arguments, options.hostname
            )
            acceptance = wanted.run(options.record)
    except Failed as failure:
        print(f"\nRehearsal failed: {failure}. Nothing was left behind.")
        return 1
    except KeyboardInterrupt:
        print("\nRehearsal ended early. Nothing was left behind.")
        return 130
    print("\n".join(["", *summary(acceptance, wanted.builds)]))
    return 0


class Rehearsal:
    """One rehearsal of an inventory."""

    def __init__(
        self,
        inventory: str,
        state: Path,
        image: str = "given",
        arguments: Sequence[str] = (),
        hostname: str = "",
    ) -> None:
        """state: folder of deployments; image: auto, built or given; hostname: wins over the inventory's."""
        self.inventory = inventory
        self.state = state
        self.builds = container_engine() if image == "auto" else image == "built"
        self.arguments = list(arguments)
        self.account, self.token = hex_id(), f"rehearsal-{hex_id()}"
        hosts = hosts_of(inventory)
        self.names = [str(variables.get("hermes_name", host)) for host, variables in hosts.items()]
        given = [variables.get("hermes_dashboard_hostname") for variables in hosts.values()]
        self.hostnames = [str(one).lower() for one in [*given, hostname] if one]
        self.variables = {
            "hermes_account_id": self.account,
            "cloudflare_api_token": self.token,
            "hermes_state_dir": str(state),
            **SETTINGS,
        }
        if hostname:
            self.variables["hermes_dashboard_hostname"] = hostname

    def run(self, record: Path | None = None) -> Acceptance:
        """Run the whole acceptance. record: file for what the API answered. Raises Failed."""
        print(
            "Rehearsal: a stand-in for Cloudflare on this machine. No account is asked, nothing is paid.",
            flush=True,
        )
        # Beside the deployments, whose clearing up would take what only the stand-in runs.
        runtime = self.state / "stand-in"
        with (
            no_images(self.state),
            tempfile.TemporaryDirectory(prefix="hermes-rehearsal-") as place,
            ControlPlane(Path(place) / "cloudflare", runtime) as plane,
        ):
            self._prepare(plane)
            if record is None:
                return self._accept(plane, Path(place), self._count(plane))
            names = names_of(self.names, self.hostnames)
            with Recorder(f"https://{API}", names, plane.env) as recorder:
                self.variables["cloudflare_api_base_url"] = f"{recorder.url}/client/v4"
                done = self._accept(plane, Path(place), recorder.count)
            write(recorder.answered, record)
            return done

    def _prepare(self, plane: ControlPlane) -> None:
        zones = {".".join(one.split(".")[-2:]) for one in self.hostnames}
        plane.add_account(self.account, self.token, subdomain="rehearsal", zones=zones)
        if not self.builds:
            tag = Sources().container_image("")
            plane.registry.add_image(f"{self.account}/{REPOSITORY}", tag)

    def _count(self, plane: ControlPlane) -> Callable[[], tuple[int, int]]:
        return lambda: (sum(call.host == API for call in plane.calls), len(plane.writes()))

    def _accept(
        self, plane: ControlPlane, place: Path, count: Callable[[], tuple[int, int]]
    ) -> Acceptance:
        acceptance = Acceptance(
            inventory=self.inventory,
            variables=self.variables,
            environment=plane.env,
            folder=place,
            count=count,
            show=lambda line: print(line, flush=True),
            arguments=self.arguments,
        )
        acceptance.run()
        left = leftovers(plane, self.account)
        if left:
            raise Failed(f"after the destroy there still is {', '.join(left)}")
        return acceptance


def names_of(names: Iterable[str], hostnames: Iterable[str]) -> list[str]:
    """Return what a recording has to generalise: everything that is called after a deployment."""
    return [*names, *(f"{name}-hermes" for name in names), *hostnames]


def summary(acceptance: Acceptance, engine: bool) -> list[str]:
    """Return what was rehearsed, and what was real about it."""
    image = (
        "built by the container engine here, and pushed to the stand-in's registry"
        if engine
        else "was not built, but taken as pushed: no container engine was used"
    )
    return [
        "Rehearsed: deployed, proved by a chat, unchanged by a second deploy, restored, rotated, destroyed.",
        *table(acceptance.steps),
        "  real         Ansible, wrangler, the Worker under workerd, Hermes",
        f"  image        {image}",
        "  stood in     Cloudflare's API, registry and edge, and the model",
        "",
        "Next: docs/cloudflare.md says what a real deployment needs and costs.",
    ]


def leftovers(plane: ControlPlane, account: str) -> list[str]:
    """Return what the account still holds that costs or answers."""
    held = plane.state.accounts[account]
    records = [one["name"] for zone in plane.state.zones.values() for one in zone.records.values()]
    routes = [one["pattern"] for zone in plane.state.zones.values() for one in zone.routes.values()]
    return [
        *held.workers,
        *(one.name for one in held.applications.values()),
        *held.domains,
        *records,
        *routes,
        *(tag for one in plane.registry.repositories.values() for tag in one.tags),
    ]


def container_engine() -> bool:
    """Tell whether a container engine answers where the plays look for one; it then builds and pushes the image."""
    given = os.environ.get("DOCKER_HOST")
    try:
        return bool(DockerEngine(socket_path(given) if given else find_socket()).version())
    except (OSError, DockerError):
        return False


def hosts_of(inventory: str) -> dict[str, dict[str, Any]]:
    """Return the variables of each host of an inventory. Raises Failed."""
    command = [str(ROOT / ".venv" / "bin" / "python"), "-m", "ansible", "inventory"]
    done = subprocess.run(
        [*command, "-i", inventory, "--list"], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise Failed(f"the inventory {inventory} cannot be read: {done.stderr.strip()}")
    listed = json.loads(done.stdout)
    return dict(listed.get("_meta", {}).get("hostvars", {}))


@contextmanager
def state_folder(given: Path | None) -> Iterator[Path]:
    """Give the folder that was named, or one that is removed afterwards."""
    if given:
        given.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield given
        return
    cache = ROOT / ".cache"
    cache.mkdir(exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="rehearsal-", dir=cache))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def no_images(state: Path) -> Iterator[None]:
    """Remove in the end what deployments that were not destroyed built; state: their folder."""
    try:
        yield
    finally:
        for folder in state.glob("*/"):
            if place := StateFolder(str(state), folder.name).containers():
                with suppress(Card):
                    Containers(**place).remove_all()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make rehearse", description=__doc__)
    parser.add_argument("--inventory", default="inventories/single", help="what is deployed")
    parser.add_argument("--state", type=Path, help="state folder to use and to keep")
    parser.add_argument(
        "--image",
        choices=("auto", "built", "given"),
        default="auto",
        help="built and pushed here, or taken as pushed; auto: built where a container engine answers",
    )
    parser.add_argument("--hostname", default="", help="a hostname to give it, in any domain")
    parser.add_argument("--record", type=Path, help="file for the codes and shapes of all answers")
    parser.add_argument("arguments", nargs="*", help="further arguments for every play")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
