# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of one deployment, and what has been made of it so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .settings import Settings
from .values import Reader


class Inputs(Reader):
    """Raw inputs, and the settings and secrets that are read from them; which problems there are, the reader has."""

    def __init__(self, raw: Mapping[str, Any], *, sources: Mapping[str, str] | None = None) -> None:
        """raw: values by inventory variable, of those that are set; sources: where each was set, for people."""
        super().__init__(raw)
        self.sources = dict(sources or {})
        self.settings = Settings()
        self.secrets: dict[str, str] = {}
        self.cloudflare_token = ""
