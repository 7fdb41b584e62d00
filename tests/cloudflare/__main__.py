# SPDX-License-Identifier: Apache-2.0
"""Runs the stand-in until SIGTERM or SIGINT: `python -m tests.cloudflare --state DIR`.

When it is ready, DIR/env holds `export` lines for a shell; every call is a line of DIR/calls.jsonl.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
from pathlib import Path

from tests.cloudflare.accounts import hex_id
from tests.cloudflare.plane import ControlPlane


def main() -> None:
    """Start with one account, say where everything is, and wait."""
    options = parse()
    token = f"rehearsal-{hex_id()}"
    # Whoever stops this waits for its processes to end too.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    with ControlPlane(options.state, options.runtime) as plane:
        plane.add_account(
            options.account,
            token,
            subdomain=options.subdomain,
            zones=options.zone,
            plan=options.plan,
        )
        own = {"CLOUDFLARE_ACCOUNT_ID": options.account, "CLOUDFLARE_API_TOKEN": token}
        lines = [
            f"export {name}={shlex.quote(value)}" for name, value in {**plane.env, **own}.items()
        ]
        draft = options.state / ".env"
        draft.touch(mode=0o600)
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.replace(draft, options.state / "env")
        print(f"ready: {options.state / 'env'}", flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
        plane.unknown.clear()


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.cloudflare", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder for its files")
    parser.add_argument("--runtime", type=Path, help="state folder with an installed runtime")
    parser.add_argument("--account", default=hex_id(), help="id of the account")
    parser.add_argument("--subdomain", default="rehearsal", help="the account's workers.dev name")
    parser.add_argument("--plan", default="paid", choices=("paid", "free"))
    parser.add_argument("--zone", action="append", default=[], help="a domain of the account")
    return parser.parse_args()


if __name__ == "__main__":
    main()
