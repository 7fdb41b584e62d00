# SPDX-License-Identifier: Apache-2.0
"""What developers run; `make` names each."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# By the link there, plugins have the names that Ansible knows them by.
sys.path.insert(0, str(ROOT / ".ansible" / "collections"))
