# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proves a deployment by real chats through the Worker, and shows the summary."""

from __future__ import annotations

import json
import shlex
from typing import Any, ClassVar

from ..module_utils.cards import NOTHING_CHANGED, Card
from ..module_utils.settings.catalogue import REHEARSAL_MODEL
from ..module_utils.settings.values import canonical
from ..plugin_utils.actions.deployment_action import SETTINGS_OPTION, DeploymentAction
from ..plugin_utils.actions.status_words import health_words, job_words, state_rows
from ..plugin_utils.agent.content import TABLE
from ..plugin_utils.build import declared
from ..plugin_utils.display.table import FULL_CARDS
from ..plugin_utils.inputs.answers import yes_or_no
from ..plugin_utils.platform import Service, service_of
from ..plugin_utils.proof import agent as agent_proof
from ..plugin_utils.proof import channels, packages, toolsets
from ..plugin_utils.proof.chats import SLEEP_BY_FORCE, Chats
from ..plugin_utils.proof.health import health
from ..plugin_utils.proof.in_force import (
    BEHIND,
    is_late,
    not_in_force,
    outstanding,
    stays_late,
    wait_until_known,
)
from ..plugin_utils.proof.starting import shown
from ..plugin_utils.workerd import confinement
from ..plugin_utils.workerd.storage import Storage


class ActionModule(DeploymentAction):
    """The action `hermes.workers.verify_deployment`."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = SETTINGS_OPTION | {
        "changed_before": {"type": "bool", "default": False},
        "left_asleep": {"type": "bool", "default": False},
    }
    left_asleep = False
    """Whether Hermes sleeps, and is not woken for a proof."""

    def deploy(self) -> dict[str, Any]:
        """Do the work and return the task's result. Raises Card."""
        self.service = self._service()
        if self.check_mode and self.options["changed_before"]:
            return {
                "changed": False,
                "skipped": True,
                "msg": "Not verified: nothing was deployed in check mode.",
            }
        self.client = self.service.connect(self.deployment.token())
        self.chats = Chats(self.client, self.settings, self.command("logs"), self._changed)
        status = self._health()
        self.left_asleep = self._leaves_asleep(status)
        result: dict[str, Any] = {
            "changed": False,
            "version": self.service.version,
            "url": self.service.url,
            "verified": "health",
        }
        self._storage(status)
        self.running = agent_proof.told(self.client) if self.agent else None
        self.turned_off: list[tuple[str, str]] = []
        if self._full() and not self.check_mode:
            self._refuses_strangers()
            self.progress("asking Hermes; a sleeping one wakes first")
            with shown(self.service.connect(self.deployment.token()), self.progress):
                model = self.chats.ask()
                first = round(self.chats.stream(), 2)
            result |= {"verified": "chat", "model": model, "seconds_to_first_token": first}
            self._version()
            self._agent()
            self._packages()
            self._toolsets()
            self._proved()
            status = self._health()
            self._storage(status)
        elif self.left_asleep and not self.check_mode:
            self._refuses_strangers()
            self._proved()
        elif self.running and self.deployment.is_unasked() and not self.check_mode:
            self._agent()
            self._proved()
        result["health"] = health_words(status)
        result["channels"] = channels.register(
            self.client, self.settings, self.service.reached, look=True
        )
        if len(self.task_vars.get("ansible_play_hosts_all", [])) <= FULL_CARDS:
            self.show(self._summary(status, result))
        else:
            # In a table there is no room for what must not be overlooked.
            for label, words in self._risks(status):
                self.progress(f"{label:<12} {words}")
        return result

    def _leaves_asleep(self, status: dict[str, Any]) -> bool:
        """Tell whether Hermes sleeps, and only what it wakes with was changed since its last chat."""
        sleeps = status["instance"]["state"] == "asleep" and self.settings.verify != "full"
        unasked = self.deployment.is_unasked() and self.deployment.is_proved(self.service.version)
        return sleeps and (self.options["left_asleep"] or unasked)

    def _proved(self) -> None:
        """Keep that this version is proved, and remove what the one before left."""
        self.deployment.note_proof(self.service.version, asked=not self.left_asleep)
        self.service.prune()

    def _version(self) -> None:
        """Make sure that the Hermes that runs is the one that was asked for, by its own word. Raises a Card."""
        wanted = self.sources.hermes_version
        told = self.chats.request(self.client, "GET", "/api/instance/status").json()
        running = told.get("hermesVersion")
        if running not in (None, wanted):
            raise not_in_force(
                self.settings.name,
                f"Hermes {running} runs, not {wanted}.",
                f"run `{self.command('lifecycle', hermes_action='restart')}`, then verify it again.",
            )

    def _agent(self) -> None:
        """Make sure that Hermes is what is declared of it. Raises a Card."""
        if not self.agent:
            return
        self.running = agent_proof.settled(self.client)
        restart = self.command("lifecycle", hermes_action="restart-gateway")
        archive = self.settings.agent["archive"]
        problems = agent_proof.missing(self.agent, archive, self.running, restart)
        if problems:
            raise Card(problems, self._changed())

    def _packages(self) -> None:
        """Make sure that the Hermes that runs has the declared packages in their versions. Raises a Card."""
        if wanted := declared.packages(self.settings, self.sources):
            remedy = packages.remedy_on(
                self.settings.engine,
                self.runtime.image,
                self.command("lifecycle", hermes_action="restart"),
                self.command("lifecycle", hermes_action="sleep"),
                self.command("deploy"),
            )
            running = self.running or agent_proof.told(self.client)
            if problems := packages.missing(wanted, running, remedy):
                raise Card(problems, self._changed())

    def _toolsets(self) -> None:
        """Make sure that the Hermes that runs offers its model no tools that it is not to have. Raises a Card."""
        answer = self.chats.request(self.client, "GET", toolsets.TOOLSETS)
        told = answer.json().get("data")
        if answer.status != 200 or not isinstance(told, list):
            raise not_in_force(
                self.settings.name,
                f"Hermes does not tell which tools it has: {answer.complaint()}",
                f"see `{self.command('logs')}`, then verify it again.",
            )
        config = json.loads(self.agent[TABLE].content)["config"] if self.agent else {"pinned": {}}
        refused, offered = toolsets.refused(self.settings, config["pinned"]), toolsets.offered(told)
        restart = self.command("lifecycle", hermes_action="restart-gateway")
        if problems := toolsets.not_refused(refused, offered, restart):
            raise Card(problems, self._changed())
        self.turned_off = toolsets.rows(self.settings, refused, offered)
        self.turned_off += agent_proof.hidden_rows(self.agent, self.running, told)

    def _risks(self, status: dict[str, Any]) -> list[tuple[str, str]]:
        size = self.settings.instance_type if self.settings.platform == "cloudflare" else None
        sleep = self.command("lifecycle", hermes_action=SLEEP_BY_FORCE)
        return state_rows(status, sleep, size)

    def _service(self) -> Service:
        """Return where the deployment is served."""
        if old := self.deployment.moved_from():
            raise Card.of(
                self.settings.name,
                f"it was moved here from {old} while it ran; its programs are not found any more.",
                f"run `{self.command('deploy')}`; it makes them anew.",
                "moved",
            )
        return service_of(self.settings, self.deployment, self.runtime, self.cloudflare_token)

    def _storage(self, status: dict[str, Any]) -> None:
        """Make sure that the Worker has the storage that it had, and note it. Raises a Card."""
        if self.settings.platform != "workerd":
            return
        storage, told = Storage(self.deployment), status.get("storage")
        forget = yes_or_no("hermes_forget", self.task_vars.get("hermes_forget"))
        lost = None if forget else storage.lost(told, self.command)
        if lost:
            raise lost
        if not self.check_mode:
            storage.note(told)

    def _changed(self) -> str:
        return f"{self.changed_so_far() or NOTHING_CHANGED} Deployed, not verified."

    def _full(self) -> bool:
        if self.left_asleep:
            return False
        wanted = self.options["changed_before"] or self.settings.verify == "full"
        return wanted or not self.deployment.is_proved(self.service.version)

    def _health(self) -> dict[str, Any]:
        """Return /api/health of the version that was deployed. Raises a Card."""
        answer = health(self.client, timeout=10)
        if (
            answer is None
            or answer.status != 200
            or answer.json().get("worker", {}).get("version") != self.service.version
            or not self.service.is_as_built()
        ):
            raise self.service.not_served(answer)
        if not self.options["changed_before"]:
            self._in_step(answer.json())
        told = wait_until_known(self.client, self.settings.name)
        # Where nothing was changed, the plan has just asked what the machine has.
        confines = (
            confinement.next_start(self.settings, self.sources.container) if self._full() else None
        )
        if left := outstanding(told, confines):
            raise not_in_force(
                self.settings.name,
                f"{', '.join(left.because)}: not in force in the running Hermes.",
                f"run `{self.command('deploy')}`; it {left.deed}.",
            )
        return told

    def _in_step(self, told: dict[str, Any]) -> None:
        """Make sure that the Worker's object has what the Worker has: nothing here brings it that. Raises a Card."""
        if not is_late(told):
            return
        self.progress(f"{BEHIND[:-1]}; Cloudflare may be about to change that")
        if stays_late(self.client, told):
            raise not_in_force(
                self.settings.name,
                BEHIND,
                f"run `{self.command('deploy')}`; it brings it what it lacks.",
            )

    def _refuses_strangers(self) -> None:
        """Make sure that nobody gets in without the token."""
        if self.settings.allow_unauthenticated:
            return
        for token, words in ((None, "no token"), ("hw_wrong", "a wrong token")):
            answer = self.chats.request(self.service.stranger(token), "GET", "/api/health")
            if answer.status != 401:
                raise Card.of(
                    self.settings.name,
                    f"the Worker answers {answer.status} to a request with {words}, not 401.",
                    f"run `{self.command('destroy')}` and report it: the deployment is not safe.",
                    "verify",
                )

    def _summary(self, status: dict[str, Any], result: dict[str, Any]) -> list[str]:
        url = self.service.url
        rows = [
            ("URL", url),
            ("version", f"{self.service.version}, Hermes {self.sources.hermes_version}"),
            ("health", result["health"]),
            *self._risks(status),
        ]
        if failed := job_words(status.get("hermes", {}).get("lastJobError")):
            rows.append(("jobs", failed))
        if "seconds_to_first_token" in result:
            rows.append(("first token", f"{result['seconds_to_first_token']} s"))
        rows += agent_proof.rows(self.agent, self.running, "hermes_take_over")
        rows += self.turned_off
        rows += [
            ("dashboard", self.service.dashboard(status)),
            ("model", self._model_words()),
            *(channels.row(name, told, url) for name, told in result["channels"].items()),
            *self.service.rows(status),
            *(("note", note) for note in self.chats.notes),
            ("token", self._token_words()),
        ]
        verdict = "deployed and verified"
        if result["verified"] == "health":
            verdict += f" (by its health; {self._since_its_chat()})"
        lines = ["", f"{self.settings.name}: {verdict}"]
        lines += [f"  {name:<12} {value}" for name, value in rows]
        return [*lines, "", "Next:", *(f"  {line}" for line in self._next(url))]

    def _since_its_chat(self) -> str:
        if self.left_asleep:
            return "not its new content: Hermes sleeps, and wakes with it"
        return "nothing changed since its last chat"

    def _model_words(self) -> str:
        if self.settings.default_model == REHEARSAL_MODEL:
            return "rehearsal: answers come from this machine, no provider is called; set a provider key to change that"
        return ", ".join([self.settings.default_model, *self.settings.models])

    def _token_words(self) -> str:
        if self.deployment.token():
            return self.deployment.shown(self.deployment.token_file)
        return f"none: {self.service.audience} may use it (hermes_allow_unauthenticated)"

    def _next(self, url: str) -> list[str]:
        shown = shlex.quote(self.deployment.shown(self.deployment.token_file))
        header = f'-H "Authorization: Bearer $(cat {shown})" ' if self.deployment.token() else ""
        body = canonical({"model": "hermes", "messages": [{"role": "user", "content": "Hello"}]})
        return [
            f"curl {url}/v1/chat/completions {header}-H 'Content-Type: application/json' -d '{body}'",
            self.command("logs"),
            self.command("destroy"),
        ]
