# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the actions on a deployment at Cloudflare share."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

from ...module_utils.cloudflare.client import Cloudflare, CloudflareError
from ..cloudflare import account as accounts
from ..cloudflare import hostname, mailbox
from ..cloudflare.deployed import Deployed, read
from ..cloudflare.place import open_api
from ..proof.secrets import effective_secrets
from .deployment_action import SETTINGS_OPTION, DeploymentAction


class CloudflareAction(DeploymentAction):
    """An action that speaks to Cloudflare. STEP names it in an error."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = SETTINGS_OPTION
    STEP: ClassVar[str] = "cloudflare"

    def execute(self, options: dict[str, Any]) -> dict[str, Any]:
        """Do the work; what Cloudflare refuses is told as a card."""
        try:
            return super().execute(options)
        except CloudflareError as error:
            raise error.card(f"{self.STEP} of {self.settings.name}") from error

    @cached_property
    def api(self) -> Cloudflare:
        """The client of the deployment's account."""
        return open_api(self.settings, self.cloudflare_token, self.deployment, self.progress)

    @cached_property
    def account(self) -> accounts.Account:
        """What the account has of hostnames and mail addresses now, those that the deployment had before among them."""
        owned = hostname.owned(self.deployed.tags)
        wanted = filter(None, [self.settings.dashboard_hostname, *owned])
        mails = filter(None, [self.settings.mail_address, *mailbox.owned(self.deployed.tags)])
        return accounts.of_hostnames(self.api, wanted, mails)

    @cached_property
    def deployed(self) -> Deployed:
        """The Worker as it is at the beginning of this step."""
        return read(self.api, self.settings.name)

    @cached_property
    def wanted_secrets(self) -> dict[str, str]:
        """The secrets that the Worker should hold, by name."""
        return effective_secrets(self.settings, self.given_secrets, self.deployment)
