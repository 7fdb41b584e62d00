# SPDX-License-Identifier: Apache-2.0
"""The acceptance on a real account: `make live`. Deploys a throw-away Hermes, proves it, and takes it away again.

Runs only when HERMES_LIVE_ACCOUNT_ID and HERMES_LIVE_API_TOKEN are set. It ends in a report of where Cloudflare
answered otherwise than the stand-in does. When it is stopped, it takes away what it made; when it is killed, a guard
does; and what even that could not do, the next run does first: one run an account at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import containers, scripts
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import (
    Cloudflare,
    CloudflareError,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare import deployed
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.image import prune

from tests.cloudflare.acceptance import ROOT, SETTINGS, Acceptance, Failed, end, table
from tests.cloudflare.comparison import differences, report
from tests.cloudflare.probes import Field, Verdict, ask_all
from tests.cloudflare.probes import report as probe_report
from tests.cloudflare.recorder import Recorder, read
from tests.cloudflare.rehearse import Rehearsal, names_of, state_folder

API = "https://api.cloudflare.com"
INVENTORY = "inventories/single"
PREFIX = "hermes-live-"
"""What every throw-away deployment's name begins with; nobody else's may."""
NEEDED = {
    "HERMES_LIVE_ACCOUNT_ID": "the id of an account on the Workers Paid plan",
    "HERMES_LIVE_API_TOKEN": "an API token as docs/cloudflare.md describes it",
}
HOSTNAME = "HERMES_LIVE_HOSTNAME"
"""Optional: a free hostname in a zone of the account, to prove custom domains as well."""
DONE = "done"


class Account:
    """The real account, as far as this run may touch it."""

    def __init__(self, environment: Mapping[str, str], state: Path, place: Path) -> None:
        """state: folder of deployments; place: for files of this run."""
        self.id = environment["HERMES_LIVE_ACCOUNT_ID"]
        self.token = environment["HERMES_LIVE_API_TOKEN"]
        self.hostname = environment.get(HOSTNAME, "")
        self.state = state
        self.place = place

    def acceptance(self, name: str, recorder: Recorder | None = None) -> Acceptance:
        """Return the acceptance for one deployment; its calls go through the recorder, if there is one."""
        variables: dict[str, Any] = {
            "hermes_name": name,
            "hermes_account_id": self.id,
            "cloudflare_api_token": self.token,
            "hermes_state_dir": str(self.state),
            "hermes_sleep_after": "60s",
            **SETTINGS,
        }
        if self.hostname:
            variables["hermes_dashboard_hostname"] = self.hostname
        if recorder:
            variables["cloudflare_api_base_url"] = f"{recorder.url}/client/v4"
        return Acceptance(
            inventory=INVENTORY,
            variables=variables,
            environment={"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"},
            folder=self.place,
            count=recorder.count if recorder else lambda: (0, 0),
            show=lambda line: print(line, flush=True),
        )

    def probe(self, name: str) -> list[Verdict]:
        """Ask what is assumed of Cloudflare, by a Worker beside the deployment of this name."""
        print("\n=== Ask what is assumed of Cloudflare ===", flush=True)
        # Not by the recorder: what a probe asks is no call of the product.
        api = Cloudflare(self.token, self.id)
        image = deployed.read(api, name).reference
        there = Field(api, f"{name}-probes", image, self.hostname)
        with there.deployed(self.place):
            return ask_all(there, lambda line: print(line, flush=True))

    def leftovers(self) -> list[str]:
        """Return the names of throw-away deployments of which something is there."""
        api = Cloudflare(self.token, self.id)
        # By its name, since what was cut early has no tags yet.
        names = {one["id"] for one in scripts.listing(api)}
        names |= {one["name"].removesuffix("-hermes") for one in containers.applications(api)}
        return sorted(name for name in names if name.startswith(PREFIX))

    def sweep(self, images: bool = True) -> None:
        """Take away every throw-away deployment, whichever run made it. images: also those that no Worker names."""
        for name in self.leftovers():
            print(f"taking away {name}, which a run left behind", flush=True)
            self.acceptance(name).destroy(forget=True)
        if images:
            prune(Cloudflare(self.token, self.id), keep="")


def main() -> int:
    """Run the acceptance, or the guard of one; returns the exit code."""
    options = parse()
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        print("make live speaks to a real account, and costs a few cents. It needs:")
        print("\n".join(f"  {name}  {words}" for name, words in NEEDED.items()))
        print(f"  {HOSTNAME}    optional: a free hostname in a zone of the account")
        print(f"Not set: {', '.join(missing)}. Nothing was done.")
        return 2
    if options.guard:
        return guard()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with state_folder(options.state) as state, tempfile.TemporaryDirectory() as place:
            return live(options, Account(os.environ, state, Path(place)))
    except CloudflareError as error:
        print(f"\nCloudflare: {error.message}. {error.remedy}")
    except Failed as failure:
        print(f"\nNot accepted: {failure}.")
    except KeyboardInterrupt:
        print("\nEnded early.")
    return 1


def live(options: argparse.Namespace, account: Account) -> int:
    """Run the acceptance at the stand-in and on the account, and compare them. Raises Failed."""
    # An image that is there already saves this run a build, and goes at its end.
    account.sweep(images=False)
    baseline = options.baseline
    if baseline is None:
        baseline = account.place / "baseline.jsonl"
        rehearsal = Rehearsal(INVENTORY, account.state, hostname=account.hostname)
        rehearsal.run(baseline)
    stand_in = read(baseline)
    name = PREFIX + secrets.token_hex(4)
    print(f"\nNow on the real account, as {name}.", flush=True)
    names = names_of([name], [account.hostname])
    with Recorder(API, names) as recorder, guarded() as watch:
        acceptance = account.acceptance(name, recorder)
        acceptance.started = lambda pid: watch(f"play {pid}")
        verdicts: list[Verdict] = []
        acceptance.probe = lambda: verdicts.extend(account.probe(name))
        outcome = "accepted"
        try:
            acceptance.run()
        except (Failed, KeyboardInterrupt) as error:
            outcome = f"not accepted: {error or 'ended early'}"
            raise
        finally:
            account.sweep()
            watch(DONE)
            left = account.leftovers()
            found = differences(recorder.answered, stand_in)
            notes = [
                f"{time.strftime('%Y-%m-%d %H:%M %Z')}, {outcome}.",
                "",
                "```",
                *table(acceptance.steps),
                "```",
                "",
                *(["## What was assumed", "", *probe_report(verdicts)] if verdicts else []),
            ]
            title = "How Cloudflare answered, beside the stand-in"
            text = report(title, found, recorder.answered, notes)
            options.report.parent.mkdir(parents=True, exist_ok=True)
            options.report.write_text(text, encoding="utf-8")
            print(f"\n{text}\nThe report is {options.report}.", flush=True)
    if left:
        raise Failed(f"left behind: {', '.join(left)}")
    print("Accepted; nothing was left behind.")
    return 0


@contextmanager
def guarded() -> Iterator[Any]:
    """Have a process beside this one that takes everything away should this one be killed; yields how to tell it."""
    command = [sys.executable, "-m", "tests.cloudflare.live", "--guard"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        stdin = cast(IO[str], process.stdin)

        def tell(line: str) -> None:
            with contextlib.suppress(BrokenPipeError):
                stdin.write(line + "\n")
                stdin.flush()

        yield tell
        stdin.close()


def guard() -> int:
    """Wait for the run to end; when it ended without a word, end its play and take away what it made."""
    heard = [line.strip() for line in sys.stdin]
    if DONE in heard:
        return 0
    print("The run was killed: its guard takes away what it made.", flush=True)
    for line in heard:
        word, _, pid = line.partition(" ")
        if word == "play":
            end(int(pid))
    with state_folder(None) as state, tempfile.TemporaryDirectory() as place:
        Account(os.environ, state, Path(place)).sweep()
    print("The guard is done.", flush=True)
    return 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make live", description=__doc__)
    parser.add_argument("--state", type=Path, help="state folder to use and to keep")
    parser.add_argument(
        "--baseline", type=Path, help="what a rehearsal recorded, instead of one now"
    )
    parser.add_argument("--report", type=Path, default=ROOT / ".cache" / "live-report.md")
    parser.add_argument("--guard", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
