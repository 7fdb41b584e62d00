# SPDX-License-Identifier: Apache-2.0
"""What a play says is there for its reader at once, line by line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[3] / "requirements"
LINES = """
import os, sys, output
output.install()
print("a sign of life")
print("another", file=sys.stderr)
os._exit(0)  # without what Python writes at its end
"""


def test_a_line_waits_for_no_other() -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", LINES]
    done = subprocess.run(
        command, cwd=REQUIREMENTS, env=env, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("a sign of life\n", "another\n")
