# SPDX-License-Identifier: Apache-2.0
"""What is shown of a wrangler that failed: the cause first, no secret, no decoration."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare import wrangler
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.wrangler import (
    Wrangler,
    telling_lines,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder

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


PROGRAM = """
import json, os, sys
noted = {"argv": sys.argv[1:], "env": dict(os.environ), "stdin": json.load(sys.stdin)}
open("noted.json", "w").write(json.dumps(noted))
with open(os.environ["WRANGLER_OUTPUT_FILE_PATH"], "a") as output:
    output.write(%r)
print("[ERROR] the token t0ken-canary and sk-canary are wrong")
sys.exit(%d)
"""
DEPLOYED = '{"type":"session"}\n\n{"type":"deploy","version_id":null}\n{"type":"deploy","version_id":"v2"}\n'


class Run:
    """One deploy by a program in wrangler's place."""

    def __init__(self, folder: Path, output: str = DEPLOYED, code: int = 0, base: str = "") -> None:
        self.deployment = StateFolder(str(folder / "state"), "alice")
        self.deployment.create()
        script = folder / "wrangler.py"
        script.write_text(PROGRAM % (output, code))
        given = {"api_base_url": base} if base else {}
        self.made = Wrangler(
            [sys.executable, str(script)], Settings(name="alice", **given), self.deployment
        )

    def deploy(self) -> str:
        return self.made.deploy("t0ken-canary", {"OPENAI_API_KEY": "sk-canary"})

    @property
    def noted(self) -> dict[str, Any]:
        return dict(json.loads((self.deployment.build / "noted.json").read_text()))


def test_token_and_secrets_are_in_no_file_and_no_argument(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.deploy() == "v2"
    noted = run.noted
    assert noted["env"].pop("CLOUDFLARE_API_TOKEN") == "t0ken-canary"
    assert noted["stdin"] == {"OPENAI_API_KEY": "sk-canary"}
    assert "canary" not in str(noted["argv"]) + str(noted["env"])
    (run.deployment.build / "noted.json").unlink()
    for path in run.deployment.folder.rglob("*"):
        assert not path.is_file() or "canary" not in path.read_text()
    assert "CLOUDFLARE_API_BASE_URL" not in noted["env"]
    home = str(run.deployment.folder / "wrangler")
    assert noted["env"]["HOME"] == noted["env"]["WRANGLER_HOME"] == home, "no login of the user's"


def test_another_address_of_the_api_is_wranglers_too(tmp_path: Path) -> None:
    run = Run(tmp_path, base="http://127.0.0.1:1/client/v4")
    run.deploy()
    assert run.noted["env"]["CLOUDFLARE_API_BASE_URL"] == "http://127.0.0.1:1/client/v4"


@pytest.mark.parametrize(
    ("output", "code"), [("", 0), (DEPLOYED, 1)], ids=["no version", "an exit code"]
)
def test_what_wrangler_did_not_do_is_told_in_its_words(
    tmp_path: Path, output: str, code: int
) -> None:
    run = Run(tmp_path, output, code)
    with pytest.raises(Card) as caught:
        run.deploy()
    told = caught.value.render()
    assert "could not deploy the Worker: the token ******** and ******** are wrong" in told


def test_a_version_of_an_earlier_run_is_none_of_this_one(tmp_path: Path) -> None:
    run = Run(tmp_path, "")
    home = run.deployment.folder / "wrangler"
    home.mkdir()
    (home / "output.ndjson").write_text(DEPLOYED)
    with pytest.raises(Card):
        run.deploy()


def test_a_wrangler_that_writes_nothing_and_one_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path)
    run.made.command = [sys.executable, "-c", "import sys; sys.exit(3)"]
    with pytest.raises(Card, match="could not deploy the Worker: exit code 3"):
        run.deploy()

    def hangs(command: list[str], *_: Any, timeout: float, **__: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(wrangler, "captured", hangs)
    with pytest.raises(Card, match="it did not end within 1200 s"):
        run.deploy()
