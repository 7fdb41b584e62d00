# SPDX-License-Identifier: Apache-2.0
"""Runs a module as Ansible does: arguments in, one JSON document out."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from typing import Any

import pytest
from ansible.module_utils import _internal
from ansible.module_utils.common.parameters import PASS_VARS
from ansible.module_utils.testing import patch_module_args


def run_module(
    name: str, /, check: bool = False, diff: bool = True, **arguments: Any
) -> dict[str, Any]:
    """Run plugins/modules/<name>.py; returns what it printed."""
    module = importlib.import_module(f"ansible_collections.hermes.workers.plugins.modules.{name}")
    switches = {"_ansible_check_mode": check, "_ansible_diff": diff}
    if "inject_invocation" in PASS_VARS:
        # Shown with -vvv; releases before 2.21 show it without being told.
        switches["_ansible_inject_invocation"] = True
    output = io.StringIO()
    with (
        patch_module_args(arguments | switches),
        contextlib.redirect_stdout(output),
        pytest.raises(SystemExit),
        # Another test may have imported the controller here, whose modules hand their warnings over otherwise.
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(_internal, "is_controller", False)
        module.main()
    return dict(json.loads(output.getvalue()))
