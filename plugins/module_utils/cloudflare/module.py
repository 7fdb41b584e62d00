# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Base of the modules for Cloudflare's API: options, client, check mode, diff, structured failure."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from ansible.module_utils.basic import AnsibleModule, env_fallback

from ..difference import Differences
from . import zones
from .budget import Budget
from .client import BASE_URL, Cloudflare, CloudflareError

API_TOKEN = {
    "type": "str",
    "required": True,
    "no_log": True,
    "fallback": (env_fallback, ["CLOUDFLARE_API_TOKEN"]),
}
ACCOUNT_ID = {
    "type": "str",
    "required": True,
    "fallback": (env_fallback, ["CLOUDFLARE_ACCOUNT_ID"]),
}
API_BASE_URL = {
    "type": "str",
    "default": BASE_URL,
    "fallback": (env_fallback, ["CLOUDFLARE_API_BASE_URL"]),
}


class Refused(Exception):
    """The module will not do what it was told, because it would harm what is not its own.

    code: name of the reason, for a program to react to; details: further facts, never a secret.
    """

    def __init__(self, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.details = details


class CloudflareModule(ABC):
    """Declares OPTIONS, and does its work in execute(), which fills `result` and `differences`."""

    OPTIONS: ClassVar[dict[str, dict[str, Any]]] = {}
    RULES: ClassVar[dict[str, Any]] = {}
    """Further arguments of AnsibleModule, such as required_if."""

    api: Cloudflare

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.options: dict[str, Any] = module.params
        self.differences = Differences()
        self.result: dict[str, Any] = {}

    @classmethod
    def define_module(cls) -> AnsibleModule:
        """Make the AnsibleModule with these options and those that all modules share."""
        shared = {"api_token": API_TOKEN, "account_id": ACCOUNT_ID, "api_base_url": API_BASE_URL}
        shared["budget_dir"] = {"type": "path"}
        options = copy.deepcopy(shared | cls.OPTIONS)
        return AnsibleModule(argument_spec=options, supports_check_mode=True, **cls.RULES)

    @classmethod
    def main(cls) -> None:
        """Run the module, which ends this process."""
        instance = cls(cls.define_module())
        try:
            instance.api = instance._client()
            instance.execute()
        except CloudflareError as error:
            instance._fail(f"{error.message}. {error.remedy}".rstrip(". ") + ".", error.failure())
        except Refused as error:
            failure = {"code": error.code, "message": str(error), "details": error.details}
            instance._fail(str(error), failure)
        instance._exit()

    @abstractmethod
    def execute(self) -> None:
        """Look, compare, and change unless in check mode. Raises CloudflareError and Refused."""

    @property
    def check_mode(self) -> bool:
        """Whether nothing may be changed."""
        return bool(self.module.check_mode)

    def zone_of(self, hostname: str) -> dict[str, Any]:
        """Return the zone that a hostname lies in, or the one that the option `zone` names. Raises Refused."""
        name = self.options.get("zone") or hostname
        zone = zones.find(self.api, name)
        if zone is None or (
            self.options.get("zone") and zones.ascii_name(zone["name"]) != zones.ascii_name(name)
        ):
            raise Refused(
                "no_zone",
                f"{name}: the token sees no zone of it. Add the domain to Cloudflare, or give the"
                " token Zone: Read for it.",
                hostname=hostname,
            )
        return zone

    def _client(self) -> Cloudflare:
        token, folder = self.options["api_token"], self.options["budget_dir"]
        budget = Budget(folder, token) if folder else None
        return Cloudflare(token, self.options["account_id"], self.options["api_base_url"], budget)

    def _fail(self, message: str, failure: dict[str, Any]) -> None:
        self.module.fail_json(msg=message, failure=failure, **self.result)

    def _exit(self) -> None:
        result = {"changed": bool(self.differences), **self.result}
        if self.module._diff:
            result["diff"] = self.differences.as_diff()
        self.module.exit_json(**result)
