# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cloudflare as the place where a deployment runs: what stands against it there, and what has to change."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from ...module_utils.cards import Card, Problem
from ...module_utils.cloudflare.budget import Budget
from ...module_utils.cloudflare.client import Cloudflare, CloudflareError
from ...module_utils.settings.settings import Settings
from ...module_utils.worker_client import RemoteClient
from ..build.installer import Progress
from ..build.runtime import Runtime
from ..containers.engine import ContainerEngine
from ..controller import Controller
from ..plan import Change
from ..proof.secrets import effective_secrets
from ..state.folder import StateFolder
from . import account as accounts
from . import cost, deployed, hostname, mailbox, plan
from .image import PushedImage


def open_api(
    settings: Settings, token: str, deployment: StateFolder, progress: Progress
) -> Cloudflare:
    """Return a client of the deployment's account. Raises a Card."""
    # Counting the calls needs a file, and before a first deploy there is no folder for it.
    budget = Budget(deployment.runtime, token) if deployment.runtime.is_dir() else None
    try:
        return Cloudflare(token, settings.account_id, settings.api_base_url, budget, progress)
    except CloudflareError as error:
        raise error.card("cloudflare_api_token") from error


class CloudflarePlace(Controller):
    """One deployment on Cloudflare, seen before anything is changed."""

    def __init__(
        self,
        settings: Settings,
        deployment: StateFolder,
        runtime: Runtime,
        token: str,
        known: Callable[[str], dict[str, Any] | None],
    ) -> None:
        """known: returns what was found out about an account already, by accounts.key()."""
        super().__init__(settings, deployment, runtime)
        self.token = token
        self.known = known
        self.image: ContainerEngine | None = None
        self.wanted_location = settings.location

    @cached_property
    def api(self) -> Cloudflare:
        """The client."""
        return open_api(self.settings, self.token, self.deployment, self.runtime.progress)

    @cached_property
    def account(self) -> accounts.Account:
        """What the account has; asked for here where nobody did so for all hosts."""
        settings = self.settings
        found = self.known(accounts.key(settings.account_id, self.token, settings.api_base_url))
        if found is not None:
            return accounts.Account(**found)
        hostnames, mails = [settings.dashboard_hostname], [settings.mail_address]
        return accounts.survey(self.api, filter(None, hostnames), filter(None, mails))

    @cached_property
    def deployed(self) -> deployed.Deployed:
        """What is there under the deployment's name."""
        if self.settings.name not in self.account.scripts:
            return deployed.Deployed()
        return deployed.read(self.api, self.settings.name)

    @cached_property
    def reference(self) -> str:
        """The image by its digest; empty when it has to be built."""
        if self.deployed.has_image(self.runtime.sources.image_for(self.settings)):
            return self.deployed.reference
        return self._pushed().reference()

    @property
    def address(self) -> str:
        """Where the API will be served."""
        return f"https://{self.settings.host}"

    def _pushed(self) -> PushedImage:
        runtime = self.runtime
        return PushedImage(
            self.settings, runtime.sources, runtime.folder, runtime.progress, self.api
        )

    def problems(self) -> list[Problem]:
        """Return everything that stands against the deployment, on this machine and on Cloudflare."""
        found = super().problems()
        if not self.token or not self.settings.account_id or not self.settings.name:
            return found  # the inputs' own problems say so
        try:
            return found + self._account_problems()
        except CloudflareError as error:
            return [*found, error.problem(f"preflight of {self.settings.name}")]
        except Card as card:
            return found + card.problems

    def problems_of_keys(self) -> list[Problem]:
        """Return what stands against changing the keys of what runs already."""
        try:
            found = [Problem(**entry) for entry in self.account.problems]
            if not found:
                self.settings.host = deployed.host_of(self.settings, self.account)
                found = self._name()
        except CloudflareError as error:
            found = error.card("cloudflare").problems
        return super().problems_of_keys() + found

    def connect(self, token: str | None) -> RemoteClient:
        """Return a client of the deployment with this token."""
        return RemoteClient(self.settings.host, token)

    def _account_problems(self) -> list[Problem]:
        lacking = [
            *self.account.problems,
            *self.account.problems_of(self.settings.dashboard_hostname),
            *self.account.problems_of_mail(self.settings.mail_address),
        ]
        if lacking:
            return [Problem(**entry) for entry in lacking]
        self.settings.host = deployed.host_of(self.settings, self.account)
        if self.deployed.exists:
            # It stays where it was made. Another hint would only make another version of the Worker.
            self.settings.location = self.deployed.variables.get("HERMES_LOCATION", "")
        self.settings.deployments = self.account.deployments(self.settings.name)
        return [
            *self._subdomain(),
            *self._name(),
            *hostname.tag_problems(self.settings, self.deployed.tags),
            *hostname.problems(self.api, self.settings, self.account),
            *mailbox.problems(self.settings, self.account),
            *self._build(),
        ]

    def _subdomain(self) -> list[Problem]:
        if self.account.subdomain:
            return []
        return [
            Problem(
                "hermes_account_id",
                "the account has no workers.dev subdomain yet, at which the Worker would be served.",
                "open Workers & Pages in the dashboard once: it makes one.",
                "account",
            )
        ]

    def _name(self) -> list[Problem]:
        if not self.deployed.exists or deployed.is_ours(self.deployed):
            return []
        return [
            Problem(
                "hermes_name",
                f"{self.settings.name} is the name of a Worker that was not deployed by this collection.",
                "set another hermes_name, or delete that Worker in the dashboard.",
                "name",
            )
        ]

    def _build(self) -> list[Problem]:
        """A container engine is needed only where the image is not in the registry."""
        if self.reference:
            return []
        self.image = ContainerEngine(self.settings, self.runtime, self._pushed())
        return self.image.problems()

    def changes(self, secrets: dict[str, str]) -> list[Change]:
        """Return what a deploy will change. secrets: the Worker's, by name."""
        wanted = effective_secrets(self.settings, secrets, self.deployment)
        try:
            planned = plan.Plan(
                self.api,
                self.settings,
                self.runtime.sources,
                self.account,
                self.deployed,
                self.deployment,
                wanted,
                self.reference,
            )
            return planned.changes()
        except CloudflareError as error:
            raise error.card(f"preflight of {self.settings.name}") from error

    def notes(self) -> list[str]:
        """Return what was said and does nothing, as things stand where it runs."""
        if self.wanted_location in ("", self.settings.location):
            return []
        made = (
            f"in {self.settings.location}" if self.settings.location else "near its first request"
        )
        way = "To have it elsewhere, run destroy, which keeps a backup, then deploy and restore."
        return [
            f"hermes_location: without effect: it was made {made}, and an object never moves. {way}"
        ]

    def rows(self, source: Callable[[str], str]) -> list[list[str]]:
        """Return what the plan's table says of the place: what, value, source. source: of a variable's value."""
        settings = self.settings
        rows = [["size", settings.instance_type, source("hermes_instance_type")]]
        if settings.location or self.wanted_location:
            words = settings.location or "near its first request"
            fixed = self.deployed.exists
            rows.append(["location", words, "as made" if fixed else source("hermes_location")])
        if settings.dashboard_hostname:
            mode = settings.route_mode.replace("_", " ")
            words = f"{settings.dashboard_hostname} ({mode})"
            rows.append(["hostname", words, source("hermes_dashboard_hostname")])
        if settings.mail_address:
            rows.append(["mail", settings.mail_address, source("hermes_channels")])
        image = "in the registry" if self.reference else "will be built and pushed"
        rows += [
            ["image", image, "found"],
            *(["cost", words, "estimate"] for words in cost.estimates(settings)),
        ]
        return rows
