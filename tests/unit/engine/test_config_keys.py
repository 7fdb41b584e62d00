# SPDX-License-Identifier: Apache-2.0
"""The names of Hermes' settings that an inventory may say are those that Hermes itself knows."""

import json
import subprocess
from pathlib import Path

from ansible_collections.hermes.workers.plugins.plugin_utils.agent.config_keys import ROOTS

ASKED = (
    "import json; from hermes_cli.config import _KNOWN_ROOT_KEYS as k; print(json.dumps(list(k)))"
)


def test_they_are_those_of_hermes(image: Path, tmp_path: Path) -> None:
    told = subprocess.run(
        [image / "venv" / "bin" / "python", "-c", ASKED],
        env={"HERMES_HOME": str(tmp_path), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(json.loads(told.stdout)) - {"_config_version"} == ROOTS
