# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation that the modules for Cloudflare's API share."""

from __future__ import annotations


class ModuleDocFragment:
    """What every module for Cloudflare's API has in common."""

    DOCUMENTATION = r"""
author:
  - hermes.workers contributors (!UNKNOWN)
version_added: 1.0.0
requirements:
  - requests
options:
  api_token:
    description:
      - API token of Cloudflare.
      - If not set, the environment variable E(CLOUDFLARE_API_TOKEN) is used.
    type: str
    required: true
  account_id:
    description:
      - Id of the account, 32 hexadecimal digits.
      - If not set, the environment variable E(CLOUDFLARE_ACCOUNT_ID) is used.
    type: str
    required: true
  api_base_url:
    description:
      - Address of the API.
      - If not set, the environment variable E(CLOUDFLARE_API_BASE_URL) is used.
    type: str
    default: https://api.cloudflare.com/client/v4
  budget_dir:
    description:
      - Folder in which all processes of this machine count a token's calls together, to stay within Cloudflare's limit
        of 1,200 in five minutes.
      - Without it a call that exceeds the limit waits as long as Cloudflare tells it to.
    type: path
notes:
  - Calls are repeated when Cloudflare is in trouble or asks to wait, as far as that does no harm.
  - Proxies and one's own certificates are taken from E(HTTPS_PROXY) and E(REQUESTS_CA_BUNDLE).
"""

    ACTION_GROUP = r"""
attributes:
  action_group:
    description: Use C(group/hermes.workers.cloudflare) in C(module_defaults) to set the shared options once.
    support: full
    membership:
      - hermes.workers.cloudflare
"""

    CHANGES = r"""
attributes:
  check_mode:
    description: Predicts what would change and writes nothing.
    support: full
  diff_mode:
    description: Shows what changes.
    support: full
"""

    INFO = r"""
attributes:
  check_mode:
    description: Only reads.
    support: full
  diff_mode:
    description: Changes nothing that a diff could show.
    support: none
"""

    # A zone's name is never needed, but saves the calls that look for it.
    ZONE = r"""
options:
  zone:
    description:
      - Name of the zone.
      - Found by itself when not set.
    type: str
"""
