# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells what a deployment does now, and shows its logs; never wakes Hermes, changes nothing."""

from __future__ import annotations

from datetime import UTC
from typing import Any, ClassVar

from ..module_utils.worker_client import Unreachable, WorkerClient
from ..plugin_utils.actions.deployment_action import REFUSED, ExistingAction
from ..plugin_utils.actions.status_words import (
    channel_rows,
    job_words,
    provider_words,
    state_rows,
)
from ..plugin_utils.cloudflare import cost
from ..plugin_utils.display import logs
from ..plugin_utils.display.logs import tail
from ..plugin_utils.display.times import lasting, said
from ..plugin_utils.proof.agent import status_rows
from ..plugin_utils.proof.chats import SLEEP_BY_FORCE
from ..plugin_utils.proof.in_force import outstanding
from ..plugin_utils.proof.starting import starting_in, words_of
from ..plugin_utils.state.disk import full_disk
from ..plugin_utils.workerd.plan import at_boot_of
from ..plugin_utils.workerd.storage import Storage

LOGS = ("supervisor", "workerd", "engine", "cleaner")
PATIENCE = 20.0
"""How long the Worker may take for each of its answers, in seconds."""
UNANSWERED = "the Worker does not answer to the token in the state folder"
LONGEST_LINE = 4000
MOST_BYTES = 2_000_000


class ActionModule(ExistingAction):
    """The action `hermes.workers.deployment_info`."""

    FURTHER_INPUTS: ClassVar[frozenset[str]] = frozenset(("lines",))
    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = ExistingAction.OPTIONS | {
        "log_lines": {"type": "raw"}
    }

    is_refused = False
    """Whether the Worker did not take our token."""

    def deploy(self) -> dict[str, Any]:
        """Do the work and return the task's result. Raises Card."""
        asked = self.options["log_lines"]
        want = None if asked is None else logs.wanted(self.said, asked)
        self.require()
        client = self.client()
        health = self._get(client, "/api/health")
        status = self._get(client, "/api/instance/status")
        if want:
            self._logs(client, want)
        else:
            self.show(self._card(client, health, status))
        return {"changed": False, "running": client is not None, "health": health, "status": status}

    def _after_reboot(self, record: dict[str, Any] | None) -> list[tuple[str, str | None]]:
        """Return the rows on the next reboot and on the last one."""
        if record is None:
            return []
        at_boot, deploy = at_boot_of(self.settings), self.command("deploy")
        return [("after reboot", at_boot.words(deploy)), ("lacking", at_boot.lacking(deploy))]

    def _get(self, client: WorkerClient | None, path: str) -> dict[str, Any]:
        """Return the JSON of a GET, or an empty dict when the Worker does not answer it."""
        try:
            answer = client.request("GET", path, timeout=PATIENCE) if client else None
        except Unreachable:
            return {}
        self.is_refused = answer is not None and answer.status == REFUSED
        return answer.json() if answer is not None and answer.status == 200 else {}

    def _card(
        self, client: WorkerClient | None, health: dict[str, Any], status: dict[str, Any]
    ) -> list[str]:
        record = self.deployment.supervisor()
        lines = ["", f"{self.settings.name}: {self._verdict(record, health)}"]
        host = self.deployment.note("host")
        if host:
            lines.append(f"  {'URL':<12} https://{host}")
        if record:
            for label, name in (("URL", "http"), ("dashboard", "dashboard")):
                if name in record["ports"]:
                    lines.append(f"  {label:<12} http://127.0.0.1:{record['ports'][name]}")
        worker = health.get("worker", {})
        hermes = health.get("hermes", {})
        rows = [
            ("version", self._version(worker, hermes, status)),
            ("SQLite", status.get("sqlite")),
            ("model", health.get("models", {}).get("default")),
            ("Hermes", self._instance(status or health.get("instance", {}))),
            ("settings", self._settings(health)),
            *(status_rows(client, "hermes_take_over", PATIENCE) if client and health else []),
            ("why awake", words(status.get("whyAwake"))),
            ("ran", ran(status.get("running", {}))),
            ("cost", self._cost(status)),
            ("next", coming(status.get("next"))),
            ("last save", said(status["lastSave"]) if status.get("lastSave") else None),
            ("not saved", trouble(status.get("lastSaveError"))),
            ("storage", self._storage(health)),
            ("backups", words(status.get("backups", {}).get("count"))),
            ("left out", "; ".join(status.get("backups", {}).get("leftOut", []))),
            *state_rows(
                status,
                self.command("lifecycle", hermes_action=SLEEP_BY_FORCE),
                status.get("instanceType"),
            ),
            ("disk", getattr(full_disk(self.deployment.folder), "sentence", None)),
            ("last error", trouble(status.get("lastError"))),
            ("provider", provider_words(status.get("lastProviderError"))),
            ("jobs", job_words(status.get("lastJobError"))),
            *channel_rows(status),
            *self._after_reboot(record),
            ("supervisor", revived((record or {}).get("revived", 0))),
            (
                "token",
                self.deployment.shown(self.deployment.token_file)
                if self.deployment.token()
                else None,
            ),
        ]
        return lines + [f"  {name:<12} {value}" for name, value in rows if value]

    @staticmethod
    def _version(
        worker: dict[str, Any], hermes: dict[str, Any], status: dict[str, Any]
    ) -> str | None:
        """Return the versions that were deployed, and which Hermes runs where that is another."""
        if not worker:
            return None
        deployed, running = hermes.get("version"), status.get("hermesVersion")
        other = f" ({running} runs)" if running not in (None, deployed) else ""
        return f"{worker['version']}, Hermes {deployed}{other}"

    def _cost(self, status: dict[str, Any]) -> str | None:
        """Return what this month cost; nothing of one that runs on this machine."""
        if not self.deployment.note("host"):
            return None
        if not status:
            return "not known while the Worker does not answer; the dashboard shows what is billed"
        return billed(status.get("instanceType"), status.get("running", {}))

    def _settings(self, health: dict[str, Any]) -> str | None:
        """Return what of the deployed settings the running Hermes does not have, or None."""
        left = outstanding(health)
        if not left:
            return None
        return f"not in force: {', '.join(left.because)}; `{self.command('deploy')}` brings them"

    def _storage(self, health: dict[str, Any]) -> str | None:
        """Return what is wrong with the files of the Worker's memory, or None."""
        if self.deployment.note("host"):
            return None
        storage = Storage(self.deployment)
        return storage.another(health.get("storage")) if health else storage.flaw()

    def _verdict(self, record: dict[str, Any] | None, health: dict[str, Any]) -> str:
        if old := self.deployment.moved_from():
            return f"moved here from {old} while it ran; `{self.command('deploy')}` makes it anew"
        if health:
            return "running"
        if self.deployment.note("host"):
            return f"deployed, but {UNANSWERED}"
        if record and self.is_refused:
            return f"its processes run, but {self.stranger().sentence.rstrip('.')}"
        if record:
            return (
                f"its processes run, but the Worker does not answer; see `{self.command('logs')}`"
            )
        if self.deployment.orphans():
            return f"its supervisor and the guardian were killed; `{self.command('deploy')}` brings them back"
        return f"stopped; `{self.command('deploy')}` starts it"

    @staticmethod
    def _instance(status: dict[str, Any]) -> str | None:
        """Return what state it is in and since when. status: of the instance, as the status or the health tells."""
        if starting := status.get("starting"):
            return f"starting {lasting(starting['since'])}: {starting['why']}"
        if not status.get("state"):
            return None
        return str(status["state"]) + (
            f" {lasting(status['since'])}" if status.get("since") else ""
        )

    def _logs(self, client: WorkerClient | None, want: logs.Wanted) -> None:
        """Show of each log what is wanted; times that name no zone are this machine's, or a container's."""
        found: dict[str, list[logs.Entry]] = {}
        for name in () if self.deployment.note("host") else LOGS:
            path = self.deployment.folder / "logs" / f"{name}.log"
            lines = tail(path, want.read, LONGEST_LINE, MOST_BYTES)
            found[self.deployment.shown(path)] = logs.chosen(lines, want, None)
        hermes = self._get(client, f"/api/instance/logs?lines={min(want.read, logs.MOST_READ)}")
        told = hermes.get("log")
        if told:
            process = (self.deployment.supervisor() or {}).get("kind") == "process"
            zone = None if process else UTC
            lines = told if isinstance(told, list) else str(told).splitlines()
            found["Hermes"] = logs.chosen(lines, want, zone)
        if want.raw:
            self.show_raw([entry.raw for entries in found.values() for entry in entries])
            return
        for title, entries in found.items():
            if entries:
                self.show(["", f"{self.settings.name}: {title}", *map(logs.line_of, entries)])
        if client and not hermes:
            self.show(["", f"{self.settings.name}: Hermes' log is not known: {UNANSWERED}"])
        elif began := words_of(starting_in({"instance": hermes})):
            self.show(["", f"{self.settings.name}: Hermes has no log yet: {began}"])
        elif not any(found.values()):
            self.show(["", f"{self.settings.name}: nothing of that kind is in its logs"])


def revived(times: int) -> str | None:
    """Return how often the supervisor had to be started again."""
    if not times:
        return None
    return f"was killed and started again, {times} {'time' if times == 1 else 'times'} by now"


def coming(due: dict[str, str] | None) -> str | None:
    """Return what the Worker does next by itself, and when."""
    return f"{due['what']} {said(due['at'])}" if due else None


def ran(running: dict[str, int]) -> str | None:
    """Return for how long the sandbox ran. running: seconds for each period of the status."""
    periods = (("today", "today"), ("month", "this month"), ("lastMonth", "last month"))
    told = [f"{hours(running[key])} {name}" for key, name in periods if running.get(key)]
    at_most = "at most " if running.get("atMost") else ""
    return at_most + ", ".join(told) if told else None


def hours(seconds: int) -> str:
    """Return seconds as hours and minutes, rounded up."""
    whole, minutes = divmod(-(-seconds // 60), 60)
    return f"{whole} h {minutes:02} min" if whole else f"{minutes} min"


def billed(instance_type: str | None, running: dict[str, int]) -> str:
    """Return what a sandbox cost this month, as far as its size is known."""
    if instance_type not in cost.SIZES:
        return f"not known for the size {instance_type or 'that it does not tell'}"
    dollars = cost.ran(instance_type, running.get("month", 0))
    return f"at most ${dollars:.2f} this month for memory and disk; processor by use"


def trouble(told: dict[str, Any] | None) -> str | None:
    """Return a failure of the status in a few words, or None."""
    if not told:
        return None
    return (
        f"{said(told.get('at'))}: {' '.join(str(told.get('message')).split())} ({told.get('code')})"
    )


def words(value: Any) -> str | None:
    """Return a value of the status as short text, or None when there is nothing to say."""
    if value is None or value == "" or value == [] or value == {}:
        return None
    if isinstance(value, dict):
        return ", ".join(f"{name} {entry}" for name, entry in value.items() if entry is not None)
    if isinstance(value, list):
        return ", ".join(str(entry) for entry in value)
    return str(value)
