# SPDX-License-Identifier: Apache-2.0
"""Reads an inventory's text as Ansible does and has the check and the plan look at it, in this process.

What is asked beyond this machine's files (Cloudflare, a container engine) answers that all is well; nothing is
written but what an image was found to hold.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants, context
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.module_utils.common.collections import ImmutableDict
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible.playbook.play import Play
from ansible.playbook.task import Task
from ansible.plugins.loader import inventory_loader
from ansible.template import Templar
from ansible.utils.display import Display
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.hermes.workers.plugins.action import (
    backup,
    check_inventory,
    deployment_info,
    preflight,
    show_plan,
)
from ansible_collections.hermes.workers.plugins.module_utils.settings.catalogue import (
    INPUTS,
    ROLE_VARIABLES,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.actions.card_action import CardAction
from ansible_collections.hermes.workers.plugins.plugin_utils.build.releases import Found
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare import account, place
from ansible_collections.hermes.workers.plugins.plugin_utils.containers import engine
from ansible_collections.hermes.workers.plugins.plugin_utils.containers.image import ContainerImage
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd import confinement
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd import place as machine

HOST = "alice"
OTHERS = ((deployment_info, {"log_lines": "40"}), (backup, {}))
NAMES = INPUTS | ROLE_VARIABLES
UPSTREAMS = Found("0.22.1", "3.13", ["hermes-agent==0.22.1"])
"""What an image of upstream's holds."""
VAULT = VaultSecret(b"vault-password")


def vaulted(text: str) -> str:
    """A text as `ansible-vault encrypt_string` writes it, for the password that the plays know."""
    lines = VaultLib([("default", VAULT)]).encrypt(text, VAULT).decode().splitlines()
    return "!vault |\n" + "\n".join(f"        {line}" for line in lines)


@dataclass
class Outcome:
    """What became of one play."""

    results: list[dict[str, Any]] = field(default_factory=list)
    """Of its tasks; the last one may have failed."""
    others: list[dict[str, Any]] = field(default_factory=list)
    """Of plays for a deployment that is there already, which none is."""
    unread: str = ""
    """What Ansible itself said of an inventory that it cannot read."""
    shown: list[str] = field(default_factory=list)
    """What a person saw beside the card."""
    values: dict[str, Any] = field(default_factory=dict)
    """What the inventory's variables are, of those that Ansible can read."""

    @property
    def card(self) -> str:
        """The card of a failure, or an empty text."""
        last = self.results[-1] if self.results else {}
        return str(last["msg"]) if last.get("failed") else ""

    @property
    def settings(self) -> dict[str, Any]:
        """What would be deployed."""
        return dict(self.results[1]["settings"])


class Plays:
    """One process for many plays."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        patch.chdir(folder)
        patch.setattr(context, "CLIARGS", ImmutableDict(extra_vars=(), verbosity=0))
        # Looked for once, and not for each inventory: no other plugin has anything to say of one file.
        reader = [inventory_loader.get("yaml")]
        patch.setattr(InventoryManager, "_fetch_inventory_plugins", lambda _manager: reader)
        patch.setattr(constants, "VARIABLE_PLUGINS_ENABLED", [])
        patch.setattr(machine, "port_taken", lambda _port: False)
        patch.setattr(engine.ContainerEngine, "problems", lambda _engine: [])
        patch.setattr(preflight.upstream, "examine", lambda *_: UPSTREAMS)
        patch.setattr(machine.WorkerdPlace, "rows", lambda _place, _source: [])
        patch.setattr(ContainerImage, "has_image", lambda _image: False)
        patch.setattr(ContainerImage, "has_other", lambda _image: False)
        patch.setattr(confinement, "confines", lambda _container: True)
        patch.setattr(
            account, "survey", lambda _api, _names, _mails: account.Account(subdomain="acme")
        )
        patch.setattr(place.PushedImage, "reference", lambda _image: "")
        patch.setattr(place.hostname, "problems", lambda _api, _settings, _account: [])
        patch.setattr(place.mailbox, "problems", lambda _settings, _account: [])
        self.shown: list[str] = []
        patch.setattr(CardAction, "show", lambda _action, lines: self.shown.extend(lines))
        patch.setattr(CardAction, "progress", lambda _action, text: self.shown.append(text))
        patch.setattr(Display, "display", lambda *_, **__: None)

    def run(self, inventory: str, *, others: bool = False) -> Outcome:
        """Run the first tasks of a deploy for the host `alice`. others: of further plays too."""
        self.shown.clear()
        outcome = Outcome(shown=self.shown)
        path = self.folder / "hosts.yml"
        path.write_text(inventory, encoding="utf-8", errors="surrogatepass")
        loader = DataLoader()
        loader.set_vault_secrets([("default", VAULT)])
        try:
            hosts = InventoryManager(loader, sources=[str(path)])
            manager = VariableManager(loader, hosts)
            play = Play.load({"hosts": "all", "tasks": []}, manager, loader)
            host = hosts.get_host(HOST)
            variables = manager.get_vars(play=play, host=host) if host else {}
        except AnsibleError as error:
            outcome.unread = str(error)
            return outcome
        if not host:  # Ansible warns of the file, and the play is for nobody
            outcome.unread = "no host"
            return outcome
        templar = Templar(loader=loader, variables=variables)
        for name in variables.keys() & NAMES:
            with contextlib.suppress(AnsibleError):
                outcome.values[name] = templar.template(variables[name])
        variables["hostvars"] = HostVars(hosts, manager, loader)
        variables["ansible_play_batch"] = variables["ansible_play_hosts_all"] = [HOST]
        for action, given in OTHERS if others else ():
            outcome.others.append(self._task(action, given, loader, variables))
        arguments: dict[str, Any] = {}
        for action in (check_inventory, preflight):
            result = self._task(action, arguments, loader, variables)
            outcome.results.append(result)
            if result.get("failed"):
                return outcome
            arguments = {"accounts": result.get("accounts", {})}
        self.shown += show_plan.lines({HOST: outcome.results[-1]}, in_full=True)
        self.shown += show_plan.noted({HOST: outcome.results[-1]})
        return outcome

    def _task(
        self,
        action: Any,
        arguments: dict[str, Any],
        loader: DataLoader,
        variables: dict[str, Any],
    ) -> dict[str, Any]:
        task = Task()
        task.args, task.check_mode = arguments, False
        plugin = action.ActionModule(
            task=task,
            connection=Local(),
            play_context=None,
            loader=loader,
            templar=Templar(loader=loader, variables=variables),
            shared_loader_obj=None,
        )
        return dict(plugin.run(task_vars=variables))


class Local:
    """The connection of a play on this machine."""

    transport = "local"
    _shell = SimpleNamespace(tmpdir="unused")
