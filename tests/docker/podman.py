# SPDX-License-Identifier: Apache-2.0
"""A Podman of the tests' own, behind its Docker-compatible service."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import psutil

from tests.docker.engine import Docker, free_range, system_path, until, without

# Of this machine: some let nobody raise these limits, and Debian's crun knows no hybrid control groups.
CONFIGURATION = """
[containers]
base_hosts_file = "{hosts}"
default_ulimits = ["nofile=20000:20000", "nproc=10000:10000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
exit_command_delay = 5
[network]
network_backend = "netavark"
network_config_dir = "{networks}"
"""


class Podman:
    """Podman as root, beside any other: own folders, own network. No bridge is there while no container is."""

    def __init__(self, folder: Path) -> None:
        """folder: for all of its files."""
        for tool in ("podman", "runc", "iptables"):
            if not shutil.which(tool, path=system_path()):
                without(f"{tool} is not installed")
        if os.geteuid() != 0:
            without("only root can start a Podman that workerd can use")
        self.folder = folder
        # Podman takes no longer path than 50 characters for it.
        self.run = Path(tempfile.mkdtemp(prefix="podman-"))
        self.hosts = folder / "hosts"
        network = free_range()
        self.engine = Docker(folder / "socket", str(network[1]))
        self._configure(str(network), f"hermespm{os.getpid() % 1000000}")

    def _configure(self, subnet: str, interface: str) -> None:
        networks = self.folder / "networks"
        networks.mkdir()
        default = {
            "name": "podman",
            "id": "0" * 64,
            "driver": "bridge",
            "network_interface": interface,
            "created": "2026-01-01T00:00:00Z",
            "subnets": [{"subnet": subnet, "gateway": self.engine.gateway}],
            "ipam_options": {"driver": "host-local"},
        }
        (networks / "podman.json").write_text(json.dumps(default))
        # What docs/docker-engine.md tells users of a Podman before 4.7 to set.
        self.hosts.write_text(f"127.0.0.1 localhost\n{self.engine.gateway} host.docker.internal\n")
        configuration = CONFIGURATION.format(hosts=self.hosts, networks=networks)
        (self.folder / "containers.conf").write_text(configuration)

    def __enter__(self) -> Podman:
        service = ["system", "service", "--time=0", f"unix://{self.engine.socket}"]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                self._command(*service),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,
            )
        until(self._answers, "Podman's service")
        return self

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            without("Podman does not start: " + (self.folder / "log").read_text()[-1500:])
        return self.engine.answers()

    def __exit__(self, *_: object) -> None:
        remove = self._command("rm", "--all", "--force", "--time", "0")
        subprocess.run(remove, env=self._environment(), check=False, timeout=60)
        self.process.terminate()
        self.process.wait(timeout=60)
        until(lambda: not self._left(), "the end of Podman's watchers of commands in containers")
        # Podman mounts this folder onto itself; the last of its processes may have taken that back.
        overlay = str(self.folder / "root" / "overlay")
        subprocess.run(["umount", overlay], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(self.run)

    def _left(self) -> bool:
        """Whether processes of this Podman are left: one watches each command for a while after its end."""
        found = psutil.process_iter(["cmdline"])
        return any(str(self.folder / "root") in (one.info["cmdline"] or []) for one in found)

    def _command(self, *words: str) -> list[str]:
        root = self.folder / "root"
        return ["podman", "--root", str(root), "--runroot", str(self.run), *words]

    def _environment(self) -> dict[str, str]:
        configuration = str(self.folder / "containers.conf")
        return {**os.environ, "CONTAINERS_CONF": configuration, "PATH": system_path()}
