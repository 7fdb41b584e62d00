# SPDX-License-Identifier: Apache-2.0
"""wrangler itself accepts every configuration that is rendered, and reads out of it what was put in."""

from __future__ import annotations

import os
import subprocess
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.settings import Checker, Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.build import SECRET_BINDINGS, Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.config import (
    BUILD_FILE,
    render,
    worker_variables,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.layout import Deployment
from ansible_collections.hermes.workers.plugins.plugin_utils.runtime import Runtime

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
            "hermes_dashboard_hostname": "hermes.example.com",
            "hermes_route_mode": "zone_route",
            "hermes_dashboard_idle": "1h",
            "hermes_cors_origins": ["https://app.example.com", "https://other.example.com"],
            "hermes_access_team_domain": "team.cloudflareaccess.com",
            "hermes_access_audiences": ["a" * 64],
            "hermes_egress": ["api.example.com"],
            "openai_api_key": "sk-openai-0123456789abcdef",
            "anthropic_api_key": "sk-ant-0123456789abcdef",
            "openrouter_api_key": "sk-or-0123456789abcdef",
        },
        list(SECRET_BINDINGS),
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


def settings_of(name: str, variables: dict[str, Any]) -> Settings:
    """The settings as the preflight makes them of an inventory's variables."""
    place = {"hermes_name": name, "hermes_account_id": ACCOUNT, "cloudflare_api_token": "token"}
    raw = {**place, "hermes_platform": "cloudflare", **variables}
    checker = Checker(raw, raw).check()
    assert checker.problems == []
    return checker.settings


@pytest.fixture(scope="module")
def wrangler(home: Path) -> list[str]:
    deployment = Deployment(str(home), "none")
    deployment.runtime.mkdir(mode=0o700, exist_ok=True)
    return Runtime(deployment, Sources(), print, "cloudflare").install_wrangler()


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
        done = subprocess.run(
            [*wrangler, *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        return done.stdout if done.returncode or "WARNING" in done.stdout else ""

    with ThreadPoolExecutor(2) as pool:
        refused = dict(zip(OPTIONS, pool.map(accepted, OPTIONS), strict=True))
    assert not any(refused.values()), refused
