# SPDX-License-Identifier: Apache-2.0
"""The stand-in judged by wrangler: its own commands, from the first deploy until the Worker is deleted."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.cloudflare import ControlPlane
from tests.cloudflare.accounts import Worker
from tests.cloudflare.stub import StubEdge
from tests.cloudflare.uploading import ACCOUNT, CODE, TOKEN

CONFIG = """\
name = "box"
account_id = "{account}"
main = "index.js"
no_bundle = true
compatibility_date = "2026-08-15"
workers_dev = true
send_metrics = false

[vars]
GREETING = "hi"

[[durable_objects.bindings]]
name = "BOX"
class_name = "Box"

[[migrations]]
tag = "v1"
new_sqlite_classes = ["Box"]

[[containers]]
name = "box-hermes"
class_name = "Box"
scheduling_policy = "durable_object"

[containers.images.box]
image = "{image}"
"""


class Wrangler:
    """wrangler in a folder of its own, before the stand-in."""

    def __init__(self, command: list[str], plane: ControlPlane, folder: Path) -> None:
        self.command = command
        self.folder = folder
        image = plane.add_image(ACCOUNT)
        (folder / "wrangler.toml").write_text(CONFIG.format(account=ACCOUNT, image=image))
        (folder / "index.js").write_text(CODE)
        self.env = {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            **plane.env,
            "HOME": str(folder),
            "CI": "1",
            "NO_COLOR": "1",
            "CLOUDFLARE_API_TOKEN": TOKEN,
            "CLOUDFLARE_ACCOUNT_ID": ACCOUNT,
            "WRANGLER_SEND_ERROR_REPORTS": "false",
        }

    def __call__(self, *words: str, said: str = "") -> str:
        """Run a command that has to succeed; said: its standard input."""
        done = subprocess.run(
            [*self.command, *words],
            cwd=self.folder,
            env=self.env,
            input=said,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"wrangler {' '.join(words)}\n{done.stdout}{done.stderr}"
        return done.stdout


def shares(worker: Worker) -> list[float]:
    """How the requests are shared, as the last deployment has it."""
    rest = [percentage for _version, percentage in worker.deployments[-1].others]
    return [100 - sum(rest), *rest]


def test_wrangler_finds_an_account_as_it_knows_it(wrangler: list[str], tmp_path: Path) -> None:
    with ControlPlane(tmp_path / "plane", edge=StubEdge) as plane:
        account = plane.add_account(ACCOUNT, TOKEN)
        run = Wrangler(wrangler, plane, tmp_path)
        assert ACCOUNT in run("whoami")
        run("deploy")
        worker = account.workers["box"]
        assert [one.name for one in account.applications.values()] == ["box-hermes"]
        first = worker.current.id

        # What the dashboard deploys last is asked for in detail, and then gives way.
        worker.versions[-1].source = "dash"
        worker.versions[-1].bindings.append({"type": "json", "name": "ADDED", "json": {"a": 1}})
        run("deploy")
        assert worker.current.source == "wrangler"
        assert "ADDED" not in str(worker.current.bindings)
        second = worker.current.id

        assert {first, second} <= {
            one["id"] for one in json.loads(run("versions", "list", "--json"))
        }
        run("versions", "view", second)
        run("versions", "deploy", f"{first}@50", f"{second}@50", "--yes")
        assert shares(worker) == [50, 50]
        assert second in run("deployments", "status")
        run("versions", "deploy", f"{second}@100", "--yes")
        run("rollback", first, "--yes", "--message", "back")
        assert (worker.current.id, shares(worker)) == (first, [100])
        assert "back" in run("deployments", "list")

        run("deploy")
        run("secret", "put", "ONE", said="1")
        run("secret", "bulk", said=json.dumps({"TWO": "2", "THREE": "3"}))
        run("secret", "delete", "THREE")
        assert worker.current.secrets() == {"ONE": "1", "TWO": "2"}
        assert "TWO" in run("secret", "list")

        assert "box-hermes" in run("containers", "list", "--json")
        (application,) = account.applications
        assert application in run("containers", "info", application)
        run("containers", "instances", application, "--json")
        assert "hermes" in run("containers", "images", "list")

        run("delete", "--force")
        assert account.workers == {}
        assert account.applications, "which wrangler leaves, and which costs"
