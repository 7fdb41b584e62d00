# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rotates the keys of a deployment so that no request fails, and nobody is locked out, wherever it is cut off."""

from __future__ import annotations

import contextlib
from functools import cached_property
from typing import Any, ClassVar

from ..module_utils.cards import Card
from ..module_utils.cloudflare.client import CloudflareError
from ..module_utils.worker_client import CHANGE_SECONDS, Unreachable, WorkerClient
from ..plugin_utils.actions.deployment_action import SETTINGS_OPTION, DeploymentAction
from ..plugin_utils.actions.rotation import CHANNEL_SECRETS, KEYS, Rotation
from ..plugin_utils.actions.status_words import health_words
from ..plugin_utils.display.table import FULL_CARDS
from ..plugin_utils.platform import Delivery, delivery_of, service_of
from ..plugin_utils.proof import channels
from ..plugin_utils.proof.chats import Chats
from ..plugin_utils.proof.health import health
from ..plugin_utils.proof.in_force import outstanding, refresh, wait_until_known
from ..plugin_utils.proof.secrets import PREVIOUS, differing_secrets, variables_of
from ..plugin_utils.proof.starting import shown
from ..plugin_utils.state import token_store


class ActionModule(DeploymentAction):
    """The action `hermes.workers.rotate_keys`."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = SETTINGS_OPTION | {
        "keys": {"type": "list", "elements": "str", "choices": KEYS, "required": True}
    }

    def execute(self, options: dict[str, Any]) -> dict[str, Any]:
        """Do the work and return the task's result. Raises Card."""
        try:
            return super().execute(options)
        except CloudflareError as error:
            raise error.card(f"keys of {self.settings.name}", self._so_far()) from error

    def deploy(self) -> dict[str, Any]:
        """Rotate, in an order in which each step can be taken up again by the next run."""
        self.delivered: list[str] = []
        keys = set(self.options["keys"])
        connect = self.delivery.connect
        self.rotation = Rotation(self.settings, self.deployment, self.given_secrets, keys, connect)
        problems = self.rotation.problems()
        if problems:
            raise Card(problems)
        changes = [vars(change) for change in self.rotation.changes()]
        result: dict[str, Any] = {
            "changed": bool(changes),
            "rotated": [change["what"] for change in changes],
        }
        if self.diff_mode:
            result["diff"] = {
                "prepared": "".join(f"rotated {name}\n" for name in result["rotated"])
            }
        if self.check_mode or not (changes or self.rotation.record):
            return result | self._told(self.rotation.standing.health)
        self.deployment.take("rotate keys")
        return result | self._rotate()

    @cached_property
    def delivery(self) -> Delivery:
        """What brings secrets to the Worker, and takes them back."""
        return delivery_of(self.settings, self.deployment, self.runtime, self.cloudflare_token)

    def _rotate(self) -> dict[str, Any]:
        rotation, token = self.rotation, self.rotation.new_token
        self._deliver(rotation.values, token)
        client = self.delivery.connect(token) if token else rotation.client
        proved: dict[str, Any] = {}
        try:
            self._restart_hermes()
            self._register(client)
            if self.delivered or "gateway_token" in rotation.keys:
                proved["seconds_to_first_token"] = self._prove(client)
        except Card as card:
            raise self._taken_back(card, client) from card
        if token:
            self._keep(token)
        if self.delivered:
            self.delivery.settle()
        self.deployment.end_rotation()
        if "dashboard_sessions" in rotation.keys:
            self._ask(client, "/api/dashboard/sessions/revoke", "the dashboard's sessions")
        answer = health(client, timeout=20.0)
        return proved | self._told(answer.json() if answer is not None else {})

    def _deliver(self, values: dict[str, str], token: str | None) -> None:
        """Write down what is about to be changed, the new token first of all, then have the Worker know it."""
        record = self.rotation.record
        names = sorted({*(record["names"] if record else []), *values} - {PREVIOUS})
        if not names:
            return
        if token and self._has_other_home(token):
            token_store.check(self.settings, self._loader)
        before = record["before"] if record else self.delivery.before()
        self.deployment.keep_rotation({"token": token, "names": names, "before": before})
        self.delivered = names
        old = self.rotation.client
        if values:
            told = variables_of([name for name in values if name != PREVIOUS])
            self.progress(f"changing {', '.join(told)}; requests under way come first")
        try:
            self.delivery.deliver(values, old)
        except (Card, CloudflareError):
            if not record and values.keys() <= set(differing_secrets(old, values) or []):
                # Nothing arrived, so that nothing has to be finished.
                self.deployment.end_rotation()
                self.delivered = []
            raise

    def _restart_hermes(self) -> None:
        """Have Hermes itself take the new secrets, where it has to; the new token is first used to prove it."""
        anew = "gateway_token" in self.rotation.keys
        client = self.rotation.client
        if anew and wait_until_known(client, self.settings.name)["instance"]["state"] != "asleep":
            self.progress("restarting Hermes with the new keys; requests under way come first")
            self._ask(client, "/api/instance/restart-gateway", "Hermes' restart")
        if self.delivered:
            self._bring_in_force(client)

    def _bring_in_force(self, client: WorkerClient) -> None:
        """Have a running Hermes take the secrets that its Worker has now. Raises a Card.

        An object that was just started has yet to find its Hermes; until then it does not tell what that one runs with.
        """
        restart = outstanding(wait_until_known(client, self.settings.name))
        if restart:
            self.progress(f"restarting {restart.words}; requests under way come first")
            with shown(self.delivery.connect(client.token), self.progress):
                refresh(client, self.settings.name, restart)

    def _register(self, client: WorkerClient) -> None:
        """Have platforms prove themselves with what is made of a bot's new token."""
        if CHANNEL_SECRETS & set(self.delivered):
            reached = service_of(self.settings, self.deployment, self.runtime).reached
            channels.register(client, self.settings, reached, look=False)

    def _ask(self, client: WorkerClient, path: str, what: str) -> None:
        try:
            with shown(self.delivery.connect(client.token), self.progress):
                answer = client.request("POST", path, timeout=CHANGE_SECONDS)
            complaint = "" if answer.status < 400 else answer.complaint()
        except Unreachable as error:
            complaint = str(error)
        if complaint:
            raise Card.of(
                self.settings.name,
                f"{what}: {complaint}",
                f"see `{self.command('logs')}`, mend the cause and run it again.",
                "rotation",
                changed=self._so_far(),
            )

    def _prove(self, client: WorkerClient) -> float:
        self.progress("asking Hermes; a sleeping one wakes first")
        chats = Chats(client, self.settings, self.command("logs"), lambda: self._so_far() or "")
        with shown(self.delivery.connect(client.token), self.progress):
            return round(chats.stream(), 2)

    def _taken_back(self, card: Card, client: WorkerClient) -> Card:
        """Go back to the keys of before, which were good; return the card that says so."""
        if not self.delivered:
            return card
        old = self.rotation.client
        answer = health(old, timeout=20.0)
        if answer is None or answer.status != 200:
            # The overlap is over, so that the new token is the one that is proved: it alone stays.
            if self.rotation.new_token and client.token == self.rotation.new_token:
                self._keep(client.token)
                self.deployment.end_rotation()
            card.changed = (
                f"{self._so_far()} Not taken back: the API token of before is refused already."
            )
            return card
        self.progress("the new keys are not proved; going back to those of before")
        before = (self.deployment.rotation() or {}).get("before", "")
        try:
            self.delivery.undo(before, self.rotation.values_of(self.delivered), old)
            self._bring_in_force(old)
            # A platform that refuses the old token as well is told of by the next deploy.
            with contextlib.suppress(Card):
                self._register(old)
        except Card as failure:
            return Card([*card.problems, *failure.problems], self._so_far())
        self.deployment.end_rotation()
        card.changed = (
            f"Taken back: {', '.join(variables_of(self.delivered))}. The keys of before are in use."
        )
        return card

    def _keep(self, token: str) -> None:
        """Write the proved token to where it is kept: the owner's store first, then the state folder."""
        if self._has_other_home(token):
            token_store.write(self.settings, token, self._loader)
        self.deployment.keep_token(token)

    def _has_other_home(self, token: str) -> bool:
        """Whether the inventory gives another token, so that the new one has to be written to where that comes from."""
        return self.given_secrets.get("API_TOKEN") not in (None, token)

    def _so_far(self) -> str | None:
        names = getattr(self, "delivered", [])
        return f"Changed: {', '.join(variables_of(names))}." if names else None

    def _told(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return what the closing table says, and show a card where there are few deployments."""
        told = {
            "url": self.delivery.url,
            "version": answer.get("worker", {}).get("version"),
            "health": health_words(answer),
            "left": self._left(answer),
        }
        if len(self.task_vars.get("ansible_play_hosts_all", [])) <= FULL_CARDS:
            self.show(self._card(told))
        return told

    def _left(self, answer: dict[str, Any]) -> str:
        """Return in words what differs from the inventory besides keys, which a rotation does not bring."""
        running = answer.get("worker", {}).get("version")
        if not running:
            return "not known: it tells no version"
        if running == service_of(self.settings, self.deployment, self.runtime).version:
            return "nothing"
        return f"more than keys differs from the inventory: run `{self.command('deploy')}`"

    def _card(self, told: dict[str, Any]) -> list[str]:
        rotated = [change.what for change in self.rotation.changes()]
        verdict = f"{'would rotate' if self.check_mode else 'rotated'} {', '.join(rotated)}"
        lines = ["", f"{self.settings.name}: {verdict if rotated else 'nothing to rotate'}"]
        lines += [f"  {name:<12} {told[name]}" for name in ("url", "version", "health", "left")]
        if self.rotation.new_token:
            lines.append(f"  {'token':<12} {self.deployment.shown(self.deployment.token_file)}")
        return lines
