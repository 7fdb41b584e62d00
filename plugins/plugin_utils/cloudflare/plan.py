# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to change of a deployment on Cloudflare."""

from __future__ import annotations

from dataclasses import dataclass

from ...module_utils.cloudflare import scripts
from ...module_utils.cloudflare.client import Cloudflare
from ...module_utils.settings.catalogue import WORKER_SECRETS
from ...module_utils.settings.settings import Settings
from ...module_utils.worker_client import WorkerClient
from ..build.sources import Sources
from ..build.variables import COMPATIBILITY_DATE, compatibility_flags
from ..plan import Change, channels_change, hermes_change
from ..proof.secrets import differing_secrets, variables_of
from ..state.folder import StateFolder
from . import hostname, mailbox
from .account import Account
from .deployed import Deployed, is_behind, observe
from .wrangler_config import MAIL_BINDING, application_name, version_of, worker_variables

WORKER = "the Worker"
BEHIND = "the Worker has them, its Durable Object still runs with what it had before"


def own_bindings(settings: Settings) -> list[tuple[str, str]]:
    """Return what an upload binds beside variables and secrets: names and kinds."""
    mail = [(MAIL_BINDING, "send_email")] if settings.mail_address else []
    return [("INSTANCE", "durable_object_namespace"), *mail]


def secret_changes(
    deployed: Deployed, wanted: dict[str, str], client: WorkerClient | None
) -> list[str] | None:
    """Return the names of the secrets to write or delete; None when the Worker does not prove what it holds."""
    foreign = sorted(deployed.secrets - set(WORKER_SECRETS))
    proved = differing_secrets(client, wanted)
    return None if proved is None else list(dict.fromkeys(proved + foreign))


def secret_words(names: list[str], deployed: Deployed) -> str:
    """Return secrets that differ as people know them, with what somebody did to them by hand."""
    words = []
    for name, variable in zip(names, variables_of(names), strict=True):
        if name not in WORKER_SECRETS:
            words.append(f"{name} (added by hand)")
        else:
            words.append(variable if name in deployed.secrets else f"{variable} (missing)")
    return ", ".join(words)


def worker_changes(
    settings: Settings,
    sources: Sources,
    account: Account,
    deployed: Deployed,
    deployment: StateFolder,
) -> list[str]:
    """Return in words what of the Worker differs from the inventory, apart from its secrets."""
    wanted = worker_variables(settings, sources, deployed.reference)
    if deployed.version != wanted["WORKER_VERSION"]:
        by_hand = " (changed by hand)" if deployment.is_proved(wanted["WORKER_VERSION"]) else ""
        found = f"{deployed.version or 'unknown'}{by_hand}"
        return [f"version {found} -> {wanted['WORKER_VERSION']}"]
    names = sorted(
        name
        for name in wanted.keys() | deployed.variables.keys()
        if wanted.get(name) != deployed.variables.get(name)
    )
    words = [f"{name} was changed by hand" for name in names]
    words += [
        f"{name} ({kind}) was added by hand"
        for name, kind in sorted(deployed.bindings.items())
        if (name, kind) not in own_bindings(settings)
    ]
    words += [
        f"{name} was removed by hand"
        for name, kind in own_bindings(settings)
        if deployed.bindings.get(name) != kind
    ]
    if deployed.compatibility_date != COMPATIBILITY_DATE:
        words.append("its compatibility date was changed by hand")
    if deployed.compatibility_flags != set(compatibility_flags(settings)):
        words.append("its compatibility flags were changed by hand")
    if application_name(settings.name) not in account.applications:
        words.append("its container application is missing")
    return words


def code_changed(api: Cloudflare, deployment: StateFolder, account: Account, name: str) -> bool:
    """Tell whether somebody put other code there since this controller uploaded its own.

    What Cloudflare knows a script by may change with its secrets, too: so it is looked who made the newer versions.
    """
    noted, uploaded = deployment.note("etag"), deployment.note("version")
    if not noted or account.scripts.get(name) in ("", None, noted):
        return False
    for version in scripts.versions(api, name) if uploaded else ():
        if version["id"] == uploaded:
            return False
        if not scripts.changes_secrets_only(version):
            break
    return True


@dataclass
class Plan:
    """What a deploy will do, by what it is judged."""

    api: Cloudflare
    settings: Settings
    sources: Sources
    account: Account
    deployed: Deployed
    deployment: StateFolder
    wanted: dict[str, str]
    """Secrets by name."""
    reference: str
    """The image by its digest; empty as long as it is not in the registry, and has to be built."""

    def changes(self) -> list[Change]:
        """Return the changes that a deploy will make, in the order in which it makes them."""
        changes = []
        if not self.reference:
            image = self.sources.image_for(self.settings)
            words = f"Hermes {self.sources.hermes_version}, image {image}"
            changes.append(Change("create", "image", words))
        changes += self._of_the_worker()
        steps: list[hostname.Step | mailbox.Step] = [
            *hostname.steps(self.settings, self.account, self.deployed.tags),
            *mailbox.steps(self.settings, self.account, self.deployed.tags),
        ]
        changes += [Change(step.action, "routes", step.words) for step in steps]
        if not steps and self.deployed.exists and not _tagged(self.settings, self.deployed):
            words = "tags that mark the Worker as this deployment"
            changes.append(Change("update", "routes", words))
        return changes

    def _of_the_worker(self) -> list[Change]:
        settings, deployed = self.settings, self.deployed
        if not deployed.exists:
            version = version_of(settings, self.sources)
            return [Change("create", "worker", f"version {version} on {settings.host}")]
        actual = observe(settings.host, self.deployment, self.wanted)
        texts = worker_variables(settings, self.sources, self.reference)
        words = worker_changes(settings, self.sources, self.account, deployed, self.deployment)
        running = (actual.health.get("worker") or {}).get("version")
        if not words and running not in (None, texts["WORKER_VERSION"]):
            words = [f"version {running} serves, though a newer one is there"]
        if not words and deployed.reference != self.reference:
            words = ["another image"]
        if not words and code_changed(self.api, self.deployment, self.account, settings.name):
            words = ["its code was changed by hand"]
        names = secret_changes(deployed, self.wanted, actual.client)
        known = [name for name in names or [] if name in WORKER_SECRETS]
        if not words and names is None:
            words = ["it does not answer to our token, or not with its version"]
        changes = []
        if words:
            changes.append(Change("update", "worker", "; ".join(words), WORKER))
        elif names:
            changes.append(Change("update", "secrets", secret_words(names, deployed), WORKER))
        elif actual.health and is_behind(actual.health):
            # Whoever changed it was ended before its object had it too.
            changes.append(Change("update", "secrets", BEHIND, WORKER))
        hermes = hermes_change(texts, actual, changed=bool(words), secrets=known)
        told = channels_change(settings, actual, f"https://{settings.host}")
        return [*changes, *filter(None, (hermes, told))]


def _tagged(settings: Settings, deployed: Deployed) -> bool:
    return set(scripts.our_tags(settings.name)) <= set(deployed.tags)
