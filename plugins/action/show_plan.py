# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the plans of a batch's hosts in one piece, before anything is written. Runs once for all of them."""

from __future__ import annotations

from typing import Any, ClassVar

from ..plugin_utils.actions.card_action import CardAction
from ..plugin_utils.display.table import FULL_CARDS


class ActionModule(CardAction):
    """The action `hermes.workers.show_plan`."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = {
        "register": {"type": "str", "default": "preflight_result"},
        "unlisted_deployments": {"type": "list", "elements": "dict", "default": []},
    }

    def execute(self, options: dict[str, Any]) -> dict[str, Any]:
        """Do the work and return the task's result. Raises Card."""
        plans = {}
        # Not of ansible_play_hosts: earlier batches are done, and their plans carried out.
        for host in self.task_vars.get("ansible_play_batch", []):
            plan = self.task_vars["hostvars"][host].get(options["register"])
            if plan and "changes" in plan:
                plans[host] = plan
        in_full = len(self.task_vars.get("ansible_play_hosts_all", [])) <= FULL_CARDS
        self.show(
            [
                *lines(plans, in_full=in_full),
                *noted(plans),
                *unlisted(options["unlisted_deployments"]),
            ]
        )
        return {"changed": False}


def lines(plans: dict[str, dict[str, Any]], *, in_full: bool) -> list[str]:
    """Return the plans as text: the changes for each host, in full with a table of values, then the totals."""
    text = []
    created: list[str] = []
    updated: list[str] = []
    unchanged: list[str] = []
    restarts: list[str] = []
    for host, plan in plans.items():
        changes = plan["changes"]
        kind = created if _is_new(plan) else updated if changes else unchanged
        kind.append(host)
        if said := [change["restarts"] for change in changes if change["restarts"]]:
            restarts.append(f"{host} ({'; '.join(dict.fromkeys(said))})")
        if in_full:
            text += ["", f"Plan for {host}"]
            text += [f"  {what:<13} {value:<34} ({source})" for what, value, source in plan["rows"]]
        elif changes:
            text += ["", host]
        width = max([10, *(len(change["what"]) for change in changes)])
        text += [
            f"  {change['action']:<7} {change['what']:<{width}} {change['detail']}"
            for change in changes
        ]
    text.append("")
    if not created and not updated:
        text.append("No changes. 0 calls written.")
    else:
        text.append(
            f"Plan: {len(created)} to create, {len(updated)} to update, {len(unchanged)} unchanged."
            f" Restarts: {', '.join(restarts) or 'none'}."
        )
    return text


def noted(plans: dict[str, dict[str, Any]]) -> list[str]:
    """Return what was said and does nothing, each once, with the hosts that it is said of where there are several."""
    hosts: dict[str, list[str]] = {}
    for host, plan in plans.items():
        for note in plan.get("notes", []):
            hosts.setdefault(note, []).append(host)
    several = len(plans) > 1
    return [
        f"Note: {note}" + (f" ({', '.join(those)})" if several else "")
        for note, those in hosts.items()
    ]


def unlisted(deployments: list[dict[str, str]]) -> list[str]:
    """Return what is said of deployments that no host of the inventory is."""
    names = [f"{one['name']} (account {one['account_id']})" for one in deployments]
    if not names:
        return []
    return [f"Not in this inventory: {', '.join(names)}. Nothing is done to them."]


def _is_new(plan: dict[str, Any]) -> bool:
    """Tell whether there was no such deployment; one that is only stopped is there."""
    return any(
        change["what"] == "worker" and change["action"] == "create" for change in plan["changes"]
    )
