# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads of single files: what passes by itself, as a name that is not resolved for a moment, is tried again."""

from __future__ import annotations

from http.client import HTTPException
from urllib.error import HTTPError

PAUSES_SECONDS = (1.0, 2.0, 4.0)
"""Before the second attempt, and those after it."""


def download(address: str, patience: float) -> bytes:
    """Return what an address holds, whole. patience: seconds without a byte. Raises OSError."""
    # Here: an unchanged deployment fetches nothing, and Ansible's client is slow to load.
    from ansible.module_utils.api import retry_with_delays_and_condition
    from ansible.module_utils.urls import open_url

    def attempt() -> bytes:
        try:
            with open_url(address, timeout=patience) as answer:
                content: bytes = answer.read()
                return content
        except HTTPException as error:
            raise ConnectionError(f"it was cut: {error}") from error

    whole: bytes = retry_with_delays_and_condition(PAUSES_SECONDS, _may_pass)(attempt)()
    return whole


def _may_pass(error: Exception) -> bool:
    if isinstance(error, HTTPError):
        return error.code == 429 or error.code >= 500
    return isinstance(error, OSError)
