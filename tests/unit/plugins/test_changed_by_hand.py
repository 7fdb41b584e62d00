# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What somebody changes of a Worker in the dashboard is seen by the next plan, of whatever kind it is."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare import scripts
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.build.variables import (
    COMPATIBILITY_DATE,
    compatibility_flags,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare import plan
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.deployed import Deployed
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.wrangler_config import (
    application_name,
    worker_variables,
)

SETTINGS = Settings(name="alice", platform="cloudflare", engine="cloudflare")
OWN = {"type": "durable_object_namespace", "name": "INSTANCE", "namespace_id": "f" * 32}


def seen(*bindings: dict[str, Any], **changed: Any) -> list[str]:
    """What the plan says of a Worker with these bindings besides its variables."""
    sources = Sources()
    there = Deployed(
        exists=True,
        variables=worker_variables(SETTINGS, sources, ""),
        bindings=scripts.further_bindings({"bindings": [*bindings]}),
        compatibility_date=COMPATIBILITY_DATE,
        compatibility_flags=set(compatibility_flags(SETTINGS)),
    )
    for name, value in changed.items():
        setattr(there, name, value)
    account = MagicMock(applications={application_name("alice"): "id"})
    given = {
        "settings": SETTINGS,
        "sources": sources,
        "deployed": there,
        "account": account,
        "deployment": MagicMock(),
    }
    return plan.worker_changes(**given)


def test_what_is_as_it_was_uploaded_is_not_mentioned() -> None:
    assert seen(OWN) == []


@pytest.mark.parametrize("kind", ["json", "kv_namespace", "secrets_store_secret", "service"])
def test_a_binding_of_any_kind_that_was_added(kind: str) -> None:
    assert seen(OWN, {"type": kind, "name": "ADDED"}) == [f"ADDED ({kind}) was added by hand"]


def test_what_was_removed_or_set_otherwise() -> None:
    assert seen() == ["INSTANCE was removed by hand"]
    assert seen(OWN, compatibility_flags=set()) == ["its compatibility flags were changed by hand"]
