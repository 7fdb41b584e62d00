# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is a deployment's own is written down as tags of its Worker, before it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from ...module_utils.cloudflare import scripts
from ...module_utils.cloudflare.client import Cloudflare
from ...module_utils.settings.settings import Settings
from .account import Account


class Tagged:
    """Carries out steps for what is written down so. prefix: of its tags."""

    prefix: ClassVar[str]

    def __init__(
        self,
        api: Cloudflare,
        settings: Settings,
        account: Account,
        tags: list[str],
        progress: Callable[[str], None],
    ) -> None:
        self.api = api
        self.settings = settings
        self.account = account
        self.tags = tags
        self.progress = progress
        self.done: list[str] = []
        """The steps that are through, in words."""

    def note(self, own: list[str]) -> None:
        """Write down what is its own, and leave all other tags."""
        base = scripts.our_tags(self.settings.name)
        ours = [f"{self.prefix}{one}" for one in dict.fromkeys(own)]
        others = [tag for tag in self.tags if tag not in base and not tag.startswith(self.prefix)]
        wanted = [*base, *ours, *others]
        if set(wanted) != set(self.tags):
            scripts.set_tags(self.api, self.settings.name, wanted)
            self.tags = wanted
            if "its tags" not in self.done:  # a card names them once
                self.done.append("its tags")
