# SPDX-License-Identifier: Apache-2.0
"""What is shown of a wrangler that failed: the cause first, no secret, no decoration."""

from __future__ import annotations

from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.wrangler import (
    telling_lines,
)

MARK = "\x1b[31m✘ \x1b[41;31m[\x1b[41;97mERROR\x1b[41;31m]\x1b[0m \x1b[1m"
OUTPUT = f"""
Your Worker has access to the following bindings:
env.API_TOKEN ("(hidden)")      Environment Variable

{MARK}A request to the Cloudflare API (/accounts/x/workers/scripts/alice) failed.\x1b[0m

  Script startup exceeded sk-secret-1 limits. [code: 10021]

  If you think this is a bug, please open an issue at: https://github.com/
🪵  Logs were written to "/home/.wrangler/logs/wrangler.log"
"""


def test_the_cause_comes_first_although_colours_lie_in_its_mark() -> None:
    assert telling_lines(OUTPUT, ["sk-secret-1", ""]) == [
        "A request to the Cloudflare API (/accounts/x/workers/scripts/alice) failed.",
        "Script startup exceeded ******** limits. [code: 10021]",
    ]


def test_without_a_mark_the_last_lines_tell() -> None:
    assert telling_lines("\n".join(map(str, range(50))), [])[-1] == "49"
