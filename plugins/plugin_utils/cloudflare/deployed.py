# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deployment on Cloudflare is now, and how to wait until it is as it should be."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ...module_utils.cards import Card
from ...module_utils.cloudflare import scripts
from ...module_utils.cloudflare.client import Cloudflare
from ...module_utils.settings.settings import Settings
from ...module_utils.worker_client import Answer, RemoteClient, Unreachable, WorkerClient
from ..plan import Actual
from ..proof.health import health
from ..state.folder import StateFolder
from .account import Account
from .wrangler_config import REFERENCE

SERVED_SECONDS = 360.0
"""How long a new version may take: Cloudflare lets an object that is in use keep the old one for up to 300 s."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
URGED_SECONDS = 1.0
"""An object that is not of its Worker for so long has its update deferred."""
RENEWED_SECONDS, HELD_SECONDS = 10.0, 30.0
"""How often a Worker is asked to go on holding requests back, and for how long it does each time."""


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


def observe(host: str, deployment: StateFolder, wanted: dict[str, str]) -> Actual:
    """Look at the running Worker; never wakes a sleeping Hermes.

    The token in the state folder is the one that was last delivered, so it is tried before a new one.
    """
    for token in dict.fromkeys((deployment.token(), wanted.get("API_TOKEN"))):
        client = RemoteClient(host, token)
        answer = health(client, timeout=20.0)
        if answer is None:
            break
        if answer.status == 200:
            return Actual(None, client, answer.json())
    return Actual()


def client_for(host: str, deployment: StateFolder, wanted: dict[str, str]) -> WorkerClient | None:
    """Return a client whose token the Worker accepts; None when it does not answer, or knows none of our tokens."""
    return observe(host, deployment, wanted).client


@contextlib.contextmanager
def held_back(client: WorkerClient | None, seconds: float) -> Iterator[None]:
    """Let what is under way end, at most so long, and have what comes wait for the new version that is made meanwhile.

    A new version cuts answers that have begun; requests that were not answered yet are sent again by the Worker. It
    holds them back for half a minute, so it is asked again and again: an upload may be slow, or wait for its turn.
    """
    over = threading.Event()
    hold = _hold(client, "", seconds + 10) if client else None
    if client and hold is None and _is_awake(client):
        # It was starting, and what waited for that has begun since: that has its time, and then what came after it.
        hold = _hold(client, "", 2 * seconds + HELD_SECONDS + 10)
    renewing = threading.Thread(target=_renew, args=(client, hold, over), daemon=True)
    if hold:
        renewing.start()
    try:
        yield
    finally:
        over.set()
        if hold:
            renewing.join()


def _renew(client: WorkerClient, hold: str, over: threading.Event) -> None:
    """Have what is held back wait on until it is over. hold: what it is known by."""
    while not over.wait(RENEWED_SECONDS):
        # An object that was started over meanwhile has nothing to hold back.
        if _hold(client, f"?again={hold}", 20.0) == "":
            return


def _is_awake(client: WorkerClient) -> bool:
    """Tell whether Hermes runs, and is not just being started."""
    answer = health(client)
    told = answer.json() if answer is not None and answer.status == 200 else {}
    instance = told.get("instance") or {}
    return bool(instance.get("bootId")) and not instance.get("starting")


def _hold(client: WorkerClient, again: str, timeout: float) -> str | None:
    """Have requests held back; returns by what that is known, empty where they are not, None without an answer."""
    try:
        answer = client.request("POST", f"/api/instance/hold{again}", timeout=timeout)
    except Unreachable:
        return None
    told = answer.json() if answer.status == 200 else {}
    # A Worker of an earlier release holds them back once, and has no name for it.
    return str(told.get("hold") or "") if told.get("held") else ""


def wait_until_served(
    settings: Settings, api: Cloudflare, client: WorkerClient, version: str
) -> None:
    """Wait until the Worker and its object run this version; raises a Card with the last answer."""
    last: list[Answer | None] = [None]

    def is_new() -> bool:
        last[0] = health(client, timeout=20.0)
        found = last[0].json() if last[0] is not None and last[0].status == 200 else {}
        return bool(found.get("worker", {}).get("version") == version)

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
    return bool(told) and not is_behind(told)


def is_behind(told: dict[str, Any]) -> bool:
    """Tell whether the object runs with what the Worker had before. told: the answer of /api/health."""
    worker, instance = told.get("worker", {}), told.get("instance", {})
    return not instance.get("inStep", worker.get("version") == instance.get("version"))


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
