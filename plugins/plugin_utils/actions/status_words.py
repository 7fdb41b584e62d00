# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Worker tells of a deployment's state, as rows and words for people."""

from __future__ import annotations

from typing import Any

from ...module_utils.settings.catalogue import SECRET_VARIABLES
from ..cloudflare import cost
from ..display.times import said

COUNTED = ("dropped", "again", "twice", "refused")
"""What a channel counts that its owner should see; docs/channels.md says what each is."""


def cost_awake(instance_type: str) -> str:
    """Return what a Hermes costs that never sleeps."""
    return f"about ${cost.ran(instance_type, cost.DAYS * cost.DAY):.0f} a month"


def health_words(status: dict[str, Any]) -> str:
    """Return the answer of /api/health in a few words."""
    return f"{status.get('status')}, Hermes is {status.get('instance', {}).get('state')}"


def job_words(trouble: dict[str, Any] | None) -> str | None:
    """Return a cron job's failure in a few words, or None. trouble: `lastJobError` of the Worker."""
    if not trouble:
        return None
    why = " ".join(trouble["message"].split())
    return f"a job failed {said(trouble['at'])}: {trouble['job']}: {why}"


def provider_words(trouble: dict[str, Any] | None) -> str | None:
    """Return what a provider refused in a few words, or None. trouble: `lastProviderError` of the Worker."""
    if not trouble:
        return None
    variable = SECRET_VARIABLES.get(trouble["variable"], trouble["variable"])
    here = trouble.get("why") == "region"
    what = "serves nobody from where Hermes runs" if here else f"refused the key ({variable})"
    return f"{trouble['provider']} {what}, status {trouble['status']}, {said(trouble.get('at'))}"


def state_rows(
    told: dict[str, Any], sleep: str, instance_type: str | None
) -> list[tuple[str, str]]:
    """Return the rows of a card for a state that is in danger, from /api/health or the status.

    sleep: the command that has Hermes sleep by force; instance_type: what it costs to be awake, None where nothing.
    """
    rows = []
    if risk := told.get("stateAtRisk"):
        rows.append(("AT RISK", f"nothing is saved; it began {said(risk['since'])}: {risk['why']}"))
        paid = f", and costs {cost_awake(instance_type)}" if instance_type else ""
        rows.append(("", f"until it is saved Hermes does not sleep{paid}; mend the cause"))
        rows.append(("", f"or leave what cannot be saved to a snapshot alone: `{sleep}`"))
    if shrank := told.get("stateShrank"):
        before = shrank["before"]
        rows.append(
            (
                "state shrank",
                f"from {before['bytes']} bytes to {shrank['bytes']}; backup {before['backup']} from before is kept",
            )
        )
    return rows


def person(told: dict[str, Any]) -> str:
    """Return who somebody is on a channel: their id there, and how they call themselves."""
    return f"{told['user']} ({told['name']})" if told.get("name") else str(told["user"])


def channel_rows(told: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows on channels of GET /api/instance/status."""
    found = []
    for name, channel in told.get("channels", {}).items():
        words = [f"{channel['waiting']} waiting"] if channel["waiting"] else []
        for key, label in (("lastIn", "last in"), ("lastOut", "last out")):
            words += [f"{label} {said(channel[key])}"] if channel[key] else []
        words += [f"{channel[key]} {key}" for key in COUNTED if channel.get(key)]
        if paired := channel.get("paired"):
            words += [f"{len(paired)} let in by a code"]
        words += [f"{person(one)} asks to be let in" for one in channel.get("asking", ())]
        words += [f"does not work: {channel['trouble']}"] if channel["trouble"] else []
        found.append((name, ", ".join(words) or "nothing yet"))
    if unanswered := told.get("unanswered"):
        newest = unanswered[-1]
        found.append(
            (
                "unanswered",
                f"{len(unanswered)}, the last one {said(newest['received'])}: {newest['why']}",
            )
        )
    return found
