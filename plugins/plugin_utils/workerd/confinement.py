# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether bubblewrap confines a Hermes that starts now as a process of this machine."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

from ...module_utils.settings.settings import Settings
from ..build.installer import clean_environment

ASK = """
import sys
sys.path.insert(0, sys.argv[1])
from engine import confine
sys.exit(0 if confine.works() else 1)
"""


def next_start(settings: Settings, container: Path) -> bool | None:
    """Tell whether bubblewrap confines a Hermes that starts now; None where it is no process of this machine."""
    return confines(container) if settings.engine == "process" else None


@cache
def confines(container: Path) -> bool:
    """Ask what the engine asks at each start of Hermes. container: the collection's folder with the engine."""
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-c", ASK, str(container)],
        capture_output=True,
        check=False,
        env=clean_environment(),
    )
    return done.returncode == 0
