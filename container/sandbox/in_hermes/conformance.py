# SPDX-License-Identifier: Apache-2.0
"""Tells what a Hermes lacks of what is assumed of it, by name: one JSON list. Runs on its own interpreter.

Looked at when an image is made of another Hermes than the pinned one: nothing of it is started,
so it takes seconds. What is needed, no deployment does without; of the rest it says what is lost.
"""

import contextlib
import importlib
import inspect
import json
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

# The Worker lets these through; see worker/src/gate/hermes-api.ts.
ROUTES = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/responses/{response_id}",
    "/v1/runs",
    "/v1/runs/{run_id}",
    "/v1/runs/{run_id}/events",
    "/v1/runs/{run_id}/approval",
    "/v1/runs/{run_id}/stop",
    "/v1/capabilities",
    "/v1/skills",
    "/v1/toolsets",
    "/health",
    "/health/detailed",
)
_API = "gateway.platforms.api_server"
_LATER = "_LAZY_TARGET_ENV _TARGET_STAMP_NAME _python_abi_tag"
_JOBS = "_jobs_lock load_jobs save_jobs create_job get_job update_job remove_job parse_schedule compute_next_run"


def _has(module: str, *names: str) -> Callable[[], bool]:
    """Return whether a module can be loaded and has these names; one in another has dots."""

    def look() -> bool:
        found: Any = importlib.import_module(module)
        for name in names:
            holder = found
            for part in name.split("."):
                holder = getattr(holder, part)
        return True

    return look


def _says(module: str, text: str) -> Callable[[], bool]:
    """Return whether the source of a module has a text."""
    return lambda: text in inspect.getsource(importlib.import_module(module))


def _keeps_its_memory() -> bool:
    path = importlib.import_module("hermes_state").DEFAULT_DB_PATH
    return str(path) == os.path.join(os.environ["HERMES_HOME"], "state.db")


def _has_built_pages() -> bool:
    server: Any = importlib.import_module("hermes_cli.web_server")
    return callable(server.app.add_middleware) and (server.WEB_DIST / "index.html").is_file()


# What is assumed, whether nothing goes without it, what is lost otherwise, and how it is seen.
ASSUMPTIONS: "list[tuple[str, bool, str, Callable[[], bool]]]" = [
    (
        "API server (aiohttp)",
        True,
        "nothing listens",
        _has(_API, "APIServerAdapter._check_auth", "web.json_response"),
    ),
    *((f"{path}", True, "clients call it", _says(_API, f'"{path}"')) for path in ROUTES),
    (
        "sessions (X-Hermes-Session-Id)",
        True,
        "turns are put in order by it",
        _says(_API, "X-Hermes-Session-Id"),
    ),
    ("client of Anthropic", True, "its models do not answer", _has("anthropic", "Anthropic")),
    (
        "managed settings (hermes_cli.managed_scope)",
        True,
        "the deployment's settings would not hold",
        _has("hermes_cli.managed_scope", "load_managed_env"),
    ),
    (
        "managed environment (hermes_cli.env_loader)",
        True,
        "the deployment's settings would not hold",
        _has("hermes_cli.env_loader", "_apply_managed_env"),
    ),
    (
        "scope of secrets (agent.secret_scope)",
        True,
        "jobs would not have the secrets",
        _has("agent.secret_scope", "build_profile_secret_scope"),
    ),
    (
        "environment file (hermes_cli.config.load_env)",
        True,
        "a home could replace the deployment's settings",
        _has("hermes_cli.config", "load_env", "load_config"),
    ),
    ("cron file (cron.jobs)", True, "jobs are lost asleep", _has("cron.jobs", *_JOBS.split())),
    ("memory in state.db", True, "backups would not hold it", _keeps_its_memory),
    (
        "restart signal (exit code 75)",
        True,
        "a restart would end it",
        lambda: importlib.import_module("gateway.restart").GATEWAY_SERVICE_RESTART_EXIT_CODE == 75,
    ),
    (
        "supervisor outside (HERMES_GATEWAY_EXTERNAL_SUPERVISOR)",
        False,
        "a restart that is asked for in a chat leaves a process behind",
        _says("gateway.restart", "HERMES_GATEWAY_EXTERNAL_SUPERVISOR"),
    ),
    (
        "records of jobs' runs (cron.executions)",
        False,
        "a job that runs does not keep it awake, and one that failed is not told",
        _has("cron.executions"),
    ),
    (
        "folder for later packages (HERMES_LAZY_INSTALL_TARGET)",
        False,
        "hermes_lazy_installs fetches nothing",
        _has("tools.lazy_deps", *_LATER.split()),
    ),
    (
        "table of its API's addresses",
        False,
        "what of hermes_mcp_servers, hermes_secrets, hermes_features and hermes_packages is in force cannot be asked",
        _has(_API, "APIServerAdapter._http_route_table"),
    ),
    ("dashboard with its pages", False, "hermes_dashboard shows nothing", _has_built_pages),
    (
        "relay of several platforms (gateway.relay)",
        False,
        "hermes_channels does not work",
        _has("gateway.relay", "relay_platform_identities", "relay_connection_auth"),
    ),
]


def broken() -> "list[dict[str, object]]":
    """Return what does not hold: its name, whether it is needed, what is lost without."""
    found = []
    for name, needed, lost, holds in ASSUMPTIONS:
        holding = False
        # A module of another Hermes may fail in any way, and end its process.
        with contextlib.suppress(Exception, SystemExit):
            holding = holds()
        if not holding:
            found.append({"name": name, "needed": needed, "lost": lost})
    return found


def main() -> None:
    """Look, in an empty home, and print it on the last line."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["HERMES_HOME"] = home
        os.environ["HERMES_DISABLE_LAZY_INSTALLS"] = "1"
        told = broken()
    sys.stdout.write(f"\n{json.dumps(told)}\n")
    sys.stdout.flush()
    # What a module started in the background is not waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
