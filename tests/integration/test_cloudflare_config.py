# SPDX-License-Identifier: Apache-2.0
"""wrangler itself accepts every configuration that is rendered, and reads out of it what was put in.

Its own reader is shown every combination of what changes the file; `deploy --dry-run` takes longer, and is given
configurations in which each option has each kind of its values.
"""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

from ansible_collections.hermes.workers.plugins.module_utils.settings.catalogue import (
    WORKER_SECRETS,
)
from ansible_collections.hermes.workers.plugins.module_utils.settings.checks import Checker
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.build.variables import (
    COMPATIBILITY_DATE,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.wrangler_config import (
    BUILD_FILE,
    render,
    worker_variables,
)
from plays import run

ACCOUNT = "0123456789abcdef0123456789abcdef"
IMAGE = f"registry.cloudflare.com/{ACCOUNT}/hermes-workers@sha256:{'0' * 64}"
CODE = """
import { DurableObject } from "cloudflare:workers";
export class HermesInstance extends DurableObject {}
export default { fetch: () => new Response() };
"""
HOSTILE = (
    "quote \" backslash \\ tab \t delete \x7f nul-like \\u0000 umlaut ü emoji 😀 $HOME ${x} ''' # ;"
)
# What decides about variables, secrets, flags and names in the rendered file.
AXES: tuple[tuple[dict[str, Any], ...], ...] = (
    (
        {"hermes_provider": "rehearsal"},
        {"anthropic_api_key": "sk-ant-0123456789abcdef"},
        {
            "hermes_default_model": "openrouter/anthropic/claude-sonnet-4.5",
            "hermes_models": ["openai/gpt-5-mini"],
            "openrouter_api_key": "sk-or-0123456789abcdef",
            "openai_api_key": "sk-openai-0123456789abcdef",
        },
        {
            "hermes_default_model": "custom/llama",
            "hermes_provider_base_url": "https://models.example.com/v1",
            "hermes_provider_keys": "environment",
            "custom_api_key": "sk-custom-0123456789abcdef",
        },
        {
            "hermes_ai_gateway": f"{ACCOUNT}/gateway",
            "hermes_ai_gateway_token": "gateway-0123456789abcdef",
            "anthropic_api_key": "sk-ant-0123456789abcdef",
        },
    ),
    (
        {},
        {"hermes_dashboard_hostname": "hermes.example.com"},
        {
            "hermes_dashboard_hostname": "hermes.example.com",
            "hermes_route_mode": "zone_route",
            "hermes_access_team_domain": "team.cloudflareaccess.com",
            "hermes_access_audiences": ["a" * 64],
        },
        {"hermes_dashboard_hostname": "hermes.example.com", "hermes_dashboard": False},
    ),
    ({}, {"hermes_on_disconnect": "finish"}),
    ({}, {"hermes_location": "weur"}),
    ({"hermes_api_token": "hw_0123456789abcdef"}, {"hermes_allow_unauthenticated": True}),
    ({}, {"hermes_env": {"HOSTILE": HOSTILE}, "hermes_secrets": {"A": "b"}}),
    ({}, {"hermes_egress": "providers"}, {"hermes_egress": ["api.example.com"]}),
    ({"hermes_name": "a"}, {"hermes_name": "n" * 54, "hermes_instance_type": "standard-4"}),
)
READ = """
const { unstable_readConfig } = require(process.argv[1]);
const lines = require("fs").readFileSync(0, "utf8").trim().split("\\n");
for (const config of lines) console.log(JSON.stringify(unstable_readConfig({ config })));
"""
# Every option that reaches the rendered file takes each kind of its values at least once.
OPTIONS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "bare": ({"hermes_allow_unauthenticated": True, "hermes_provider": "rehearsal"}, []),
    "full": (
        {
            "hermes_default_model": "openrouter/anthropic/claude-sonnet-4.5",
            "hermes_models": ["openai/gpt-5-mini", "anthropic/claude-sonnet-4-5"],
            "hermes_env": {"HOSTILE": HOSTILE, "EMPTY": "", "LONG": "x" * 2000},
            "hermes_sleep_after": "6h",
            "hermes_drain_timeout": "0s",
            "hermes_token_overlap": "24h",
            "hermes_instance_type": "standard-4",
            "hermes_location": "apac-ne",
            "hermes_dashboard_hostname": "hermes.example.com",
            "hermes_route_mode": "zone_route",
            "hermes_dashboard_idle": "1h",
            "hermes_cors_origins": ["https://app.example.com", "https://other.example.com"],
            "hermes_access_team_domain": "team.cloudflareaccess.com",
            "hermes_access_audiences": ["a" * 64],
            "hermes_egress": ["api.example.com"],
            "hermes_on_disconnect": "finish",
            "openai_api_key": "sk-openai-0123456789abcdef",
            "anthropic_api_key": "sk-ant-0123456789abcdef",
            "openrouter_api_key": "sk-or-0123456789abcdef",
        },
        list(WORKER_SECRETS),
    ),
    "gateway": (
        {
            "hermes_ai_gateway": f"{ACCOUNT}/gateway",
            "hermes_dashboard_hostname": "hermes.example.com",
            "hermes_route_mode": "custom_domain",
            "hermes_egress": "providers",
            "hermes_instance_type": "lite",
            "hermes_dashboard": False,
            "anthropic_api_key": "sk-ant-0123456789abcdef",
        },
        ["API_TOKEN", "ANTHROPIC_API_KEY"],
    ),
    "n" * 54: (
        {
            "hermes_default_model": "custom/llama",
            "hermes_provider_base_url": "https://models.example.com/v1",
            "hermes_provider_keys": "environment",
        },
        ["API_TOKEN"],
    ),
}


def checked(variables: dict[str, Any]) -> Checker:
    """Settings and secrets as the preflight makes them of an inventory's variables."""
    place = {"hermes_account_id": ACCOUNT, "cloudflare_api_token": "token"}
    raw = {**place, "hermes_platform": "cloudflare", **variables}
    return Checker(raw).check()


def settings_of(name: str, variables: dict[str, Any]) -> Settings:
    checker = checked({"hermes_name": name, **variables})
    assert checker.problems == []
    return checker.settings


def test_wrangler_accepts_what_every_option_renders(wrangler: list[str], tmp_path: Path) -> None:
    sources = Sources()

    def accepted(name: str) -> str:
        variables, secrets = OPTIONS[name]
        settings = settings_of(name, variables)
        rendered = render(settings, sources, IMAGE, secrets)
        read = tomllib.loads(rendered.text)
        assert read["vars"] == worker_variables(settings, sources, IMAGE)
        assert read["secrets"]["required"] == sorted(secrets)
        folder = tmp_path / name
        folder.mkdir()
        (folder / "worker.js").write_text(CODE)
        (folder / BUILD_FILE).write_text(rendered.text)
        (folder / "secrets.json").write_text(
            "{" + ", ".join(f'"{one}": "value"' for one in secrets) + "}"
        )
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "CI": "1", "NO_COLOR": "1"}
        words = ["deploy", "--dry-run", "--config", BUILD_FILE, "--secrets-file", "secrets.json"]
        done = run([*wrangler, *words], folder, environment)
        return done.stdout if done.returncode or "WARNING" in done.stdout else ""

    with ThreadPoolExecutor(2) as pool:
        refused = dict(zip(OPTIONS, pool.map(accepted, OPTIONS), strict=True))
    assert not any(refused.values()), refused


def test_wrangler_reads_every_combination_as_it_was_meant(
    wrangler: list[str], tmp_path: Path
) -> None:
    sources, made = Sources(), []
    for number, chosen in enumerate(product(*AXES)):
        variables = {name: value for part in chosen for name, value in part.items()}
        checker = checked(variables)
        refused = (
            {"hermes_egress"}
            if {"hermes_egress", "hermes_provider_keys"} <= variables.keys()
            else set()
        )
        assert {problem.subject for problem in checker.problems} == refused
        if refused:
            continue
        rendered = render(checker.settings, sources, IMAGE, checker.secrets)
        path = tmp_path / str(number) / BUILD_FILE
        path.parent.mkdir()
        path.write_text(rendered.text)
        made.append((checker, path))
    node, script = wrangler
    package = next(one for one in Path(script).parents if one.name == "wrangler")
    done = subprocess.run(
        [node, "-e", READ, str(package)],
        input="\n".join(str(path) for _, path in made),
        capture_output=True,
        text=True,
        timeout=300,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no warning"
    for (checker, _), line in zip(made, done.stdout.splitlines(), strict=True):
        judge(json.loads(line), checker, sources)


def judge(read: dict[str, Any], checker: Checker, sources: Sources) -> None:
    """Compare what wrangler read with what was meant."""
    settings = checker.settings
    assert (read["name"], read["account_id"]) == (settings.name, ACCOUNT)
    assert read["vars"] == worker_variables(settings, sources, IMAGE)
    assert read["secrets"] == {"required": sorted(checker.secrets)}
    assert read["compatibility_date"] == COMPATIBILITY_DATE
    alone = ["durable_object_io_tasks_prevent_eviction"]
    finishing = settings.on_disconnect == "finish"
    assert read["compatibility_flags"] == ["enable_request_signal", *(alone if finishing else [])]
    (binding,) = read["durable_objects"]["bindings"]
    assert binding["class_name"] == "HermesInstance"
    assert read["migrations"] == [{"tag": "v1", "new_sqlite_classes": ["HermesInstance"]}]
    (container,) = read["containers"]
    assert container["scheduling_policy"] == "durable_object"
    assert container["class_name"] == "HermesInstance"
    assert container["images"]["hermes"]["image"] == IMAGE
    assert read["observability"]["enabled"] is True
    assert (read["workers_dev"], read["preview_urls"]) == (True, False)
