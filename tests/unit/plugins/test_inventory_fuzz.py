# SPDX-License-Identifier: Apache-2.0
"""Whatever an inventory says, it ends in one card or in a deployment that is what it says; no secret is ever told.

HERMES_FUZZ_CASES=20000 tries more, HERMES_FUZZ_SEED=12345 begins elsewhere. Each failing case has a number, which with
HERMES_FUZZ_CASES=1 makes it again.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.action import preflight
from ansible_collections.hermes.workers.plugins.module_utils.settings.catalogue import (
    ENVIRONMENT,
    INPUTS,
    role_argument,
)
from ansible_collections.hermes.workers.plugins.module_utils.settings.features import CHROMIUM
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.build import (
    debian,
    installer,
    variables,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare import wrangler_config
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd import config
from inventory_play import Outcome, Plays
from odd_inventory import CANARY, Case, case

CASES = int(os.environ.get("HERMES_FUZZ_CASES", "2000"))
FIRST = int(os.environ.get("HERMES_FUZZ_SEED", "1"))
SHOWN, SHOWN_LINE = 10, 300
"""Failing cases that are told of, and how much of a line of them."""
INTERNAL = re.compile(r"Traceback|object at 0x|_Ansible|<class |[\x00-\x09\x0b-\x1f\x7f]")
LINE = re.compile(r"(\w+)[\w.-]*: .+[.?]")
LONGEST_LINE = 500
WORDS = {"true": True, "yes": True, "on": True, "1": True}
WORDS |= {"false": False, "no": False, "off": False, "0": False}
UNITS = {"s": 1, "m": 60, "h": 3600}

Meaning = Callable[[Any], Any]


def same(value: Any) -> Any:
    return value


def word(value: Any) -> bool:
    return WORDS[str(value).strip().lower()]


def seconds(value: str) -> int:
    text = value.strip()
    return int(text[:-1]) * UNITS[text[-1]]


def port(value: Any) -> int:
    return int(str(value).strip())


def entry(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


ANYWHERE: dict[str, Meaning] = {
    **dict.fromkeys(
        ("name", "platform", "provider_keys", "on_disconnect", "after_reboot", "verify"), same
    ),
    **dict.fromkeys(("instance_type", "location", "route_mode", "uploader", "state_dir"), same),
    **dict.fromkeys(("token_vault_file", "base_image", "sidecar_image", "token_command"), same),
    **dict.fromkeys(("cors_origins", "access_audiences", "accept_advisories", "version"), same),
    **dict.fromkeys(("port", "providers_port", "dashboard_port"), port),
    **dict.fromkeys(("dashboard", "host_tools", "allow_unauthenticated", "prune_images"), word),
    **dict.fromkeys(("take_over_hostname", "check_provider_key", "lazy_installs"), word),
    **dict.fromkeys(("sleep_after", "drain_timeout", "token_overlap", "dashboard_idle"), seconds),
    "dashboard_hostname": lambda value: value.strip().lower().rstrip("."),
    "access_team_domain": str.lower,
    "provider_base_url": lambda value: value.rstrip("/"),
    "egress": lambda value: value if isinstance(value, str) else ",".join(value),
    "env": lambda value: {name: entry(each) for name, each in value.items()},
}
"""What each variable means, by the field of the settings: said once more, in fewer words than the code's."""
BROUGHT = {"browser", "installs", "mcp"}
ON_CLOUDFLARE: dict[str, Meaning] = {
    "account_id": lambda value: value.strip().lower(),
    "api_base_url": lambda value: value.rstrip("/"),
}


@pytest.fixture(scope="module")
def sources() -> Sources:
    return Sources()


@pytest.fixture
def plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: Sources) -> Plays:
    for name in ENVIRONMENT.values():
        monkeypatch.delenv(name, raising=False)
    # The same for all cases, and what takes most of a case's time.
    monkeypatch.setattr(preflight, "Sources", lambda **_more: sources)
    monkeypatch.setattr(installer, "system_node", lambda: (None, "none is there"))
    return Plays(tmp_path, monkeypatch)


def test_whatever_is_said_ends_in_one_card_or_in_what_was_said(
    plays: Plays, sources: Sources
) -> None:
    wrong, kinds = [], dict.fromkeys(("unread", "card", "plan"), 0)
    for seed in range(FIRST, FIRST + CASES):
        one = case(seed)
        try:
            outcome = plays.run(one.text, others=seed % 4 == 0)
            kind = "unread" if outcome.unread else "card" if outcome.card else "plan"
            kinds[kind] += 1
            JUDGES[kind](one, outcome, sources)
            for other in outcome.others:
                assert other.get("failed"), "it acted on a deployment that is not there"
                judge_text(other["msg"])
        except Exception as error:  # noqa: BLE001 - a traceback in a play is what is looked for
            lines = [f"{seed}: {error!r}", *one.text.splitlines()]
            wrong.append("\n".join(line[:SHOWN_LINE] for line in lines))
    assert not wrong, f"{len(wrong)} of {CASES}:\n" + "\n".join(wrong[:SHOWN])
    if CASES >= 1000:
        assert min(kinds.values()) > CASES / 100, "the cases are of all kinds"


def judge_unread(_one: Case, outcome: Outcome, _sources: Sources) -> None:
    """Ansible warns of a file that is no inventory, and the play is for nobody, which is a card of its own."""
    assert outcome.unread == "no host"


def judge_card(_one: Case, outcome: Outcome, _sources: Sources) -> None:
    judge_words("\n".join(outcome.shown))
    judge_text(outcome.card)


def judge_text(told: str) -> None:
    judge_words(told)
    head, _changed, rest = told.partition("\nNothing was changed.\n")
    assert rest.startswith("Do: ") and "\nDocs: " in rest
    lines = head.splitlines()
    assert len(lines) == len(set(lines))
    for line in lines:
        found = LINE.fullmatch(line)
        assert found, line
        assert len(line) < LONGEST_LINE, line
        known = {found[1], found[1].lower()} & KNOWN
        assert known or found[1].startswith("preflight_") or "not deployed" in line, line


def judge_plan(_one: Case, outcome: Outcome, sources: Sources) -> None:
    judge_words("\n".join(outcome.shown))
    assert CANARY not in json.dumps(outcome.results)
    settings = outcome.settings
    meanings = ANYWHERE | (ON_CLOUDFLARE if settings["platform"] == "cloudflare" else {})
    for field, meaning in meanings.items():
        value = said(outcome, variable_of(field))
        if value not in (None, ""):
            assert settings[field] == meaning(value), field
    aged = [
        line
        for line in outcome.shown
        if f"Chromium {debian.told(sources.container, CHROMIUM)}" in line
    ]
    assert len(aged) == ("chromium" in settings["features"]), "which browser, and of which day"
    assert settings["default_model"] in (
        said(outcome, "hermes_default_model") or settings["default_model"],
        "rehearsal/rehearsal",
    )
    # Other settings bring along what they need.
    features = {*(said(outcome, "hermes_features") or [])}
    assert features <= {*settings["features"]} <= features | BROUGHT
    assert ("installs" in settings["features"]) is settings["lazy_installs"]
    further = said(outcome, "hermes_models") or []
    assert settings["models"] == [
        model for model in dict.fromkeys(further) if model != settings["default_model"]
    ]
    judge_rendered(Settings(**settings), sources)


def judge_rendered(settings: Settings, sources: Sources) -> None:
    """What the Worker is given says the same."""
    if settings.platform == "workerd":
        config.render(settings, sources).text.encode()
        return
    rendered = wrangler_config.render(settings, sources, "reference", ["API_TOKEN"])
    wanted = variables.variables(settings, sources, rendered.version)
    given = tomllib.loads(rendered.text)["vars"]
    assert {name: given[name] for name in wanted} == wanted


def judge_words(text: str) -> None:
    found = INTERNAL.search(text) or re.search(CANARY, text, re.IGNORECASE)
    assert not found, f"told: {text[max(0, found.start() - 80) :][:200]!r}"
    text.encode()


def said(outcome: Outcome, variable: str) -> Any:
    """What the inventory says; nothing where it is set to nothing."""
    argument = role_argument(variable)
    return outcome.values.get(argument, outcome.values.get(variable)) if argument else None


def variable_of(field: str) -> str:
    return f"cloudflare_{field}" if f"cloudflare_{field}" in INPUTS else f"hermes_{field}"


JUDGES = {"unread": judge_unread, "card": judge_card, "plan": judge_plan}
KNOWN = INPUTS | set(ENVIRONMENT.values())
