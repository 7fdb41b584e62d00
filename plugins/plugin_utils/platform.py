# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a platform is to those who deploy: a place before, a delivery of keys, a service after; and which one it is.

workerd/ and cloudflare/ have a file for each face. A third platform is a third folder, and a word in each function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..module_utils.cards import Card, Problem
from ..module_utils.settings.settings import Settings
from ..module_utils.worker_client import Answer, WorkerClient
from .build.runtime import Runtime
from .cloudflare.delivery import CloudflareDelivery
from .cloudflare.place import CloudflarePlace, open_api
from .cloudflare.service import CloudflareService
from .plan import Change
from .state.folder import StateFolder
from .workerd.delivery import WorkerdDelivery
from .workerd.place import WorkerdPlace
from .workerd.service import WorkerdService


class Place(Protocol):
    """Where a deployment is to run, before anything is changed."""

    @property
    def address(self) -> str:
        """Where its API will be served."""

    def connect(self, token: str | None) -> WorkerClient:
        """Return a client of what runs there, with this token."""

    def problems(self) -> list[Problem]:
        """Return everything that stands against the deployment."""

    def problems_of_keys(self) -> list[Problem]:
        """Return what stands against changing the keys of what runs already."""

    def changes(self, secrets: dict[str, str]) -> list[Change]:
        """Return what a deploy will change, in its order. secrets: the Worker's, by name."""

    def node(self) -> str:
        """Return which Node will install the Worker's tools, and why."""

    def rows(self, source: Callable[[str], str]) -> list[list[str]]:
        """Return what the plan's table says of the place: what, value, source. source: of a variable's value."""

    def notes(self) -> list[str]:
        """Return what was said and does nothing, as things stand there."""


class Delivery(Protocol):
    """What gives a running Worker other secrets, and takes them back until they are proved."""

    @property
    def url(self) -> str:
        """Where its API is served."""

    def connect(self, token: str | None) -> WorkerClient:
        """Return a client with this token."""

    def before(self) -> str:
        """Return what undo() has to be told later."""

    def deliver(self, values: dict[str, str], client: WorkerClient) -> None:
        """Give the Worker these secrets, and wait until it has them, also those of a delivery that was cut off.

        client: whose token it takes before and after. Raises a Card.
        """

    def undo(self, before: str, values: dict[str, str], client: WorkerClient) -> None:
        """Give it the secrets of before deliver(). Raises a Card."""

    def settle(self) -> None:
        """Forget the secrets of before: the new ones are proved."""


class Service(Protocol):
    """A deployment that is served."""

    @property
    def audience(self) -> str:
        """Who reaches it, in words."""

    @property
    def url(self) -> str:
        """Where its API is served."""

    @property
    def reached(self) -> str:
        """Where others on the internet reach it; empty when they do not."""

    @property
    def version(self) -> str:
        """The version of the Worker that the inventory makes."""

    def connect(self, token: str | None) -> WorkerClient:
        """Return a client with this token."""

    def stranger(self, token: str | None) -> WorkerClient:
        """Return a client with a made-up token, or none."""

    def is_as_built(self) -> bool:
        """Tell whether it runs what a deploy made, and not what somebody made of it."""

    def not_served(self, answer: Answer | None) -> Card:
        """Return the card for a Worker that does not answer as it should."""

    def prune(self) -> None:
        """Remove what the version before left, now that this one is proved."""

    def dashboard(self, status: dict[str, Any]) -> str:
        """Return where Hermes' dashboard is, or why it is nowhere. status: the answer of /api/health."""

    def rows(self, status: dict[str, Any]) -> list[tuple[str, str]]:
        """Return what the summary says of the platform. status: the answer of /api/health."""


def place_of(
    settings: Settings,
    deployment: StateFolder,
    runtime: Runtime,
    *,
    listens: bool,
    cloudflare_token: str,
    known: Callable[[str], dict[str, Any] | None],
) -> Place:
    """Return where a deployment is to run, as far as the inputs name it.

    listens: whether the play is to have the ports listened on; known: returns what was found out about an account.
    """
    if settings.platform == "workerd":
        return WorkerdPlace(settings, deployment, runtime, listens=listens)
    return CloudflarePlace(settings, deployment, runtime, cloudflare_token, known)


def delivery_of(
    settings: Settings, deployment: StateFolder, runtime: Runtime, cloudflare_token: str
) -> Delivery:
    """Return what brings secrets to the Worker, and takes them back. Raises a Card."""
    if settings.platform == "workerd":
        return WorkerdDelivery(settings, deployment, runtime.sources.host)
    return CloudflareDelivery(
        settings, open_api(settings, cloudflare_token, deployment, runtime.progress)
    )


def service_of(
    settings: Settings, deployment: StateFolder, runtime: Runtime, cloudflare_token: str = ""
) -> Service:
    """Return where a deployment is served. cloudflare_token: for pruning images."""
    if settings.platform == "workerd":
        return WorkerdService(settings, deployment, runtime)
    return CloudflareService(settings, deployment, runtime, cloudflare_token)
