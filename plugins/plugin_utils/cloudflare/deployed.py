# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment on Cloudflare is now, and what has to change."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...module_utils.cards import Card
from ...module_utils.cloudflare import scripts
from ...module_utils.cloudflare.client import Cloudflare
from ...module_utils.settings.settings import Settings
from ...module_utils.worker_client import Answer, RemoteClient, Unreachable, WorkerClient
from ..build import COMPATIBILITY_DATE, SECRET_BINDINGS, Sources, compatibility_flags
from ..layout import Deployment
from ..plan import Actual, Change, differing_secrets, hermes_change, variables_of
from ..processes import health
from . import hostname
from .account import Account
from .config import REFERENCE, application_name, version_of, worker_variables

SERVED_SECONDS = 360.0
"""How long a new version may take: Cloudflare lets an object that is in use keep the old one for up to 300 s."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
URGED_SECONDS = 1.0
"""An object that is not of its Worker for so long has its update deferred."""
WORKER = "the Worker"
OWN_BINDINGS = (("INSTANCE", "durable_object_namespace"),)
"""What an upload binds beside variables and secrets."""


@dataclass
class Deployed:
    """The Worker as Cloudflare's API tells it. Secrets by name only: nobody can read their values back."""

    exists: bool = False
    variables: dict[str, str] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    bindings: dict[str, str] = field(default_factory=dict)
    """Kind of each binding that is neither a variable nor a secret, by name."""
    tags: list[str] = field(default_factory=list)
    compatibility_date: str = ""
    compatibility_flags: set[str] = field(default_factory=set)

    @property
    def version(self) -> str:
        """The version that marks its code and configuration."""
        return self.variables.get("WORKER_VERSION", "")

    @property
    def reference(self) -> str:
        """The image that it runs Hermes from, by its digest."""
        return self.variables.get(REFERENCE, "")

    def has_image(self, wanted: str) -> bool:
        """Tell whether it runs the image of these sources. wanted: their digest's name."""
        return bool(self.reference) and self.variables.get("HERMES_IMAGE") == wanted


def read(api: Cloudflare, name: str) -> Deployed:
    """Ask what is there: one call."""
    found = scripts.settings(api, name)
    if found is None:
        return Deployed()
    return Deployed(
        exists=True,
        variables=scripts.variables(found),
        secrets=scripts.secret_names(found),
        bindings=scripts.further_bindings(found),
        tags=list(found.get("tags") or []),
        compatibility_date=found.get("compatibility_date") or "",
        compatibility_flags=set(found.get("compatibility_flags") or []),
    )


def host_of(settings: Settings, account: Account) -> str:
    """Return the host of a deployment's API."""
    return f"{settings.name}.{account.subdomain}.workers.dev"


def is_ours(deployed: Deployed) -> bool:
    """Tell whether a Worker of this name was made by this collection; tags may have been cut off."""
    return scripts.TAG in deployed.tags or deployed.variables.get("HERMES_PLATFORM") == "cloudflare"


def observe(host: str, deployment: Deployment, wanted: dict[str, str]) -> Actual:
    """Look at the running Worker; never wakes a sleeping Hermes.

    The token in the state folder is the one that was last delivered, so it is tried before a new one.
    """
    for token in dict.fromkeys((deployment.token(), wanted.get("API_TOKEN"))):
        client = RemoteClient(host, token)
        answer = health(client, timeout=20.0)
        if answer is None:
            break
        if answer.status == 200:
            content = answer.json()
            return Actual(None, client, content if isinstance(content, dict) else {})
    return Actual()


def client_for(host: str, deployment: Deployment, wanted: dict[str, str]) -> WorkerClient | None:
    """Return a client whose token the Worker accepts; None when it does not answer, or knows none of our tokens."""
    return observe(host, deployment, wanted).client


def secret_changes(
    deployed: Deployed, wanted: dict[str, str], client: WorkerClient | None
) -> list[str] | None:
    """Return the names of the secrets to write or delete; None when the Worker does not prove what it holds."""
    foreign = sorted(deployed.secrets - set(SECRET_BINDINGS))
    proved = differing_secrets(client, wanted)
    return None if proved is None else list(dict.fromkeys(proved + foreign))


def secret_words(names: list[str], deployed: Deployed) -> str:
    """Return secrets that differ as people know them, with what somebody did to them by hand."""
    words = []
    for name, variable in zip(names, variables_of(names), strict=True):
        if name not in SECRET_BINDINGS:
            words.append(f"{name} (added by hand)")
        else:
            words.append(variable if name in deployed.secrets else f"{variable} (missing)")
    return ", ".join(words)


def worker_changes(
    settings: Settings,
    sources: Sources,
    account: Account,
    deployed: Deployed,
    deployment: Deployment,
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
        if (name, kind) not in OWN_BINDINGS
    ]
    words += [
        f"{name} was removed by hand"
        for name, kind in OWN_BINDINGS
        if deployed.bindings.get(name) != kind
    ]
    if deployed.compatibility_date != COMPATIBILITY_DATE:
        words.append("its compatibility date was changed by hand")
    if deployed.compatibility_flags != set(compatibility_flags(settings)):
        words.append("its compatibility flags were changed by hand")
    if application_name(settings.name) not in account.applications:
        words.append("its container application is missing")
    return words


def code_changed(api: Cloudflare, deployment: Deployment, account: Account, name: str) -> bool:
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
    """What a deploy will do, with what it was judged by."""

    changes: list[Change]
    reference: str
    """The image by its digest; empty as long as it is not in the registry."""


def make_plan(
    api: Cloudflare,
    settings: Settings,
    sources: Sources,
    account: Account,
    deployed: Deployed,
    deployment: Deployment,
    wanted: dict[str, str],
    reference: str,
) -> Plan:
    """Return the changes that a deploy will make, in the order in which it makes them.

    wanted: secrets by name; reference: of the image, empty when it has to be built.
    """
    changes = []
    if not reference:
        words = f"Hermes {sources.hermes_version}, image {sources.image_for(settings)}"
        changes.append(Change("create", "image", words))
    changes += _worker_plan(
        api, settings, sources, account, deployed, deployment, wanted, reference
    )
    steps = hostname.steps(settings, account, deployed.tags)
    changes += [Change(step.action, "routes", step.words) for step in steps]
    if not steps and deployed.exists and not _tagged(settings, deployed):
        changes.append(Change("update", "routes", "tags that mark the Worker as this deployment"))
    return Plan(changes, reference)


def _worker_plan(
    api: Cloudflare,
    settings: Settings,
    sources: Sources,
    account: Account,
    deployed: Deployed,
    deployment: Deployment,
    wanted: dict[str, str],
    reference: str,
) -> list[Change]:
    if not deployed.exists:
        version = version_of(settings, sources)
        return [Change("create", "worker", f"version {version} on {settings.host}")]
    actual = observe(settings.host, deployment, wanted)
    texts = worker_variables(settings, sources, reference)
    words = worker_changes(settings, sources, account, deployed, deployment)
    running = (actual.health.get("worker") or {}).get("version")
    if not words and running not in (None, texts["WORKER_VERSION"]):
        words = [f"version {running} serves, though a newer one is there"]
    if not words and deployed.reference != reference:
        words = ["another image"]
    if not words and code_changed(api, deployment, account, settings.name):
        words = ["its code was changed by hand"]
    names = secret_changes(deployed, wanted, actual.client)
    known = [name for name in names or [] if name in SECRET_BINDINGS]
    if not words and names is None:
        words = ["it does not answer to our token, or not with its version"]
    changes = []
    if words:
        changes.append(Change("update", "worker", "; ".join(words), WORKER))
    elif names:
        changes.append(Change("update", "secrets", secret_words(names, deployed), WORKER))
    hermes = hermes_change(texts, actual, changed=bool(words), secrets=known)
    return [*changes, hermes] if hermes else changes


def _tagged(settings: Settings, deployed: Deployed) -> bool:
    return set(scripts.our_tags(settings.name)) <= set(deployed.tags)


def drain(client: WorkerClient | None, seconds: float) -> None:
    """Let what is under way end, at most so long, and have what comes wait for the new version that follows.

    A new version cuts answers that have begun; requests that were not answered yet are sent again by the Worker.
    """
    if client is None:
        return
    with contextlib.suppress(Unreachable):
        client.request("POST", "/api/instance/hold", timeout=seconds + 10)


def wait_until_served(
    settings: Settings, api: Cloudflare, client: WorkerClient, version: str
) -> None:
    """Wait until the Worker and its object run this version; raises a Card with the last answer."""
    last: list[Answer | None] = [None]

    def is_new() -> bool:
        last[0] = health(client, timeout=20.0)
        found = last[0].json() if last[0] is not None and last[0].status == 200 else {}
        return isinstance(found, dict) and found.get("worker", {}).get("version") == version

    if not wait_until_in_force(settings, api, client, is_new, SERVED_SECONDS):
        raise not_served(settings, last[0], version)


def wait_until_in_force(
    settings: Settings,
    api: Cloudflare,
    client: WorkerClient,
    is_new: Callable[[], bool],
    seconds: float,
) -> bool:
    """Wait until the Worker is as it was deployed, and its object with it; False when it is not in time.

    An object in use may keep what it was started with for minutes. Where it does it is told to take what is there.
    is_new: asks the Worker.
    """
    deadline, pause, urged_at = time.monotonic() + seconds, FIRST_PAUSE, None
    while True:
        now = time.monotonic()
        if is_new():
            if is_in_step(client):
                return True
            urged_at = urged_at or now + URGED_SECONDS
            if now >= urged_at:
                scripts.urge(api, settings.name)
                urged_at = deadline + seconds
        if now > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)


def is_in_step(client: WorkerClient) -> bool:
    """Tell whether the Worker's object runs with all that the Worker has; one of an earlier release does not tell."""
    answer = health(client, timeout=20.0)
    told = answer.json() if answer is not None and answer.status == 200 else {}
    worker, instance = told.get("worker", {}), told.get("instance", {})
    return bool(told) and instance.get("inStep", worker.get("version") == instance.get("version"))


def versions(told: dict[str, Any]) -> list[str | None]:
    """Return which versions the Worker and its object run. told: the answer of /api/health."""
    return [told.get("worker", {}).get("version"), told.get("instance", {}).get("version")]


def not_served(settings: Settings, answer: Answer | None, version: str) -> Card:
    """Return the card for a Worker that does not answer as it should."""
    if answer is None:
        sentence = "the Worker's address does not answer."
    elif answer.status == 200:
        running = next((one for one in versions(answer.json()) if one != version), version)
        sentence = f"version {running} is running, and the inventory makes version {version}."
    else:
        sentence = f"/api/health is answered with {answer.status}: {answer.complaint()}"
    return Card.of(
        settings.name,
        sentence,
        "run the deploy again; `npx wrangler tail` shows what the Worker says.",
        "not-served",
    )
