# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets people write whom a channel gave a code, and takes that back."""

from __future__ import annotations

import urllib.parse
from typing import Any, ClassVar

from ..module_utils.cards import Card
from ..module_utils.settings.values import show
from ..module_utils.worker_client import Unreachable
from ..plugin_utils.actions.deployment_action import ExistingAction
from ..plugin_utils.actions.status_words import person
from ..plugin_utils.display.times import said

SECONDS = 30.0
"""Longest wait for an answer."""
REFUSALS = {
    404: "nobody was given this code, or it is older than an hour.",
    429: "too many wrong codes were said; none is taken for an hour.",
}


class ActionModule(ExistingAction):
    """The action `hermes.workers.pairing`."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = ExistingAction.OPTIONS | {
        "code": {"type": "str", "default": ""},
        "remove": {"type": "str", "default": ""},
    }

    def deploy(self) -> dict[str, Any]:
        """Ask the Worker."""
        code, remove = str(self.options["code"]).strip(), str(self.options["remove"]).strip()
        if code and remove:
            remedy = "say one of them, then the other."
            raise Card.of("hermes_pair", "and hermes_unpair are both set.", remedy, "inputs")
        if code:
            return self._let_in(code)
        return self._remove(remove) if remove else self._tell()

    def _let_in(self, code: str) -> dict[str, Any]:
        if self.check_mode:
            return {"changed": True, "people": self._people()}
        client = self.running()
        self.deployment.take("pair")
        try:
            answer = client.request("POST", "/api/instance/channels/pair", {"code": code}, SECONDS)
        except Unreachable as error:
            raise self.silent(str(error)) from error
        if answer.status in REFUSALS:
            remedy = f"have them write to the bot again; `{self.command('pair')}` tells who asks."
            raise Card.of("hermes_pair", REFUSALS[answer.status], remedy, "pairing")
        if answer.status != 200:
            raise self.silent(answer.complaint())
        it = answer.json()
        return self._done(True, f"{person(it)} may write by {it['channel']}")

    def _remove(self, remove: str) -> dict[str, Any]:
        channel, colon, user = remove.partition(":")
        if not (colon and user):
            flaw = f"{show(remove)} is not a channel, a colon and an id."
            remedy = f"see `{self.command('pair')}`, and say for example telegram:123456789."
            raise Card.of("hermes_unpair", flaw, remedy, "inputs")
        people = self._people().get(channel, {}).get("paired", [])
        found = [one for one in people if one["user"] == user]
        if not found:
            return self._done(False, f"{user} does not write by a code of {channel}")
        if not self.check_mode:
            self.deployment.take("pair")
            asked = urllib.parse.urlencode({"channel": channel, "user": user})
            self.ask("POST", f"/api/instance/channels/unpair?{asked}", SECONDS)
        return self._done(True, f"{person(found[0])} writes by {channel} no longer")

    def _tell(self) -> dict[str, Any]:
        lines = []
        for channel, told in self._people().items():
            lines += [f"{person(one)} may write by {channel}" for one in told["paired"]]
            lines += [
                f"{person(one)} asks by {channel}, with a code that is good until {said(one['until'])}"
                for one in told["asking"]
            ]
        return self._done(False, *(lines or ["nobody asks, and nobody was let in by a code"]))

    def _people(self) -> dict[str, Any]:
        told = self.ask("GET", "/api/instance/channels", SECONDS)["channels"]
        return {
            name: {"paired": one["paired"], "asking": one["asking"]} for name, one in told.items()
        }

    def _done(self, changed: bool, *lines: str) -> dict[str, Any]:
        self.show(["", *(f"{self.settings.name}: {line}" for line in lines)])
        return {"changed": changed, "people": self._people()}
