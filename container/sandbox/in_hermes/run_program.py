# SPDX-License-Identifier: Apache-2.0
"""Runs a program of Hermes in which what `go` brought holds: `run_program.py PROGRAM [WORD...]`.

Runs on Hermes' own interpreter. Hermes runs its jobs, and the turns of further profiles, in a scope
of secrets that it reads from a home's `.env` and from nothing else; and what that file says
replaces what its process was started with. So what this boot brought is made what Hermes calls
managed: it is in every scope, nothing in a home replaces it, and Hermes refuses to write it there.
All of it stays in memory.

And Hermes' API gets one more address, on which it says what holds in this process: that a setting was
given to it does not say so.
"""

import asyncio
import contextlib
import functools
import gc
import importlib
import importlib.util
import json
import os
import runpy
import shutil
import sqlite3
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Asked by the Worker; Hermes has nothing below this.
IN_FORCE = "/sandbox/in-force"
LOOK_AGAIN = "/sandbox/look-again"
_API = "gateway.platforms.api_server"

_RELAY = [f"GATEWAY_RELAY_{name}" for name in ("URL", "ID", "SECRET", "PLATFORMS", "BOT_IDS")]
"""What the bridge of its relay tells Hermes."""


def hold() -> None:
    """Make it so in this process, before anything of Hermes has read its settings.

    Raises AttributeError for a Hermes that looks for them in another way.
    """
    from agent import secret_scope
    from hermes_cli import config, env_loader, managed_scope

    brought = _brought()
    of_home, of_file = secret_scope.build_profile_secret_scope, config.load_env

    def rest_of_file() -> dict[str, str]:
        return {name: value for name, value in of_file().items() if name not in brought}

    _replace(secret_scope, "build_profile_secret_scope", lambda home: {**of_home(home), **brought})
    _replace(config, "load_env", rest_of_file)
    _replace(env_loader, "_apply_managed_env", lambda: os.environ.update(brought))
    _replace(managed_scope, "load_managed_env", lambda: dict(brought))


def _brought() -> "dict[str, str]":
    """Return what this process was started with of the names that came with `go`."""
    with open(os.path.join(os.environ["SANDBOX_RUN"], "env.json"), encoding="utf-8") as file:
        names = [*json.load(file), "API_SERVER_HOST", "API_SERVER_PORT", *_RELAY]
    return {name: os.environ[name] for name in names if name in os.environ}


def _bridge_relay() -> None:
    """Start what leads from Hermes' relay to the Worker, where people write by our channels."""
    if "HERMES_RELAY_BOTS" not in os.environ or sys.argv[1:] != ["gateway", "run"]:
        return
    _beside("relay_bridge").serve(os.environ, _questions())


@functools.cache
def _questions() -> Any:
    """What Hermes asks people: its relay notes it, and the bridge hears what they say to it."""
    return _beside("questions").Questions()


@functools.cache
def _beside(name: str) -> ModuleType:
    """Return the module in a file beside this one; they are no package to Hermes' interpreter."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_USUAL = gc.get_threshold()
_SELDOM = (50_000, 20, 20)
"""How many new objects Python's garbage collector waits for while Hermes is imported: of that hardly any is garbage."""


def _import_at_speed() -> None:
    """Have the collector look seldom until Hermes' API is there: docs/decisions/0099."""
    if sys.argv[1:] == ["gateway", "run"]:
        gc.set_threshold(*_SELDOM)


def _imported() -> None:
    """Have it look as usual again, but never more at what is here by now, and stays."""
    gc.freeze()
    gc.set_threshold(*_USUAL)


def _replace(module: ModuleType, name: str, function: object) -> None:
    getattr(module, name)  # what nobody calls would be replaced without any effect
    setattr(module, name, function)


class _Extended(MetaPathFinder):
    """Lets Hermes import a module when it wants to, too early would be in another home, and adds to it."""

    def __init__(self, name: str, extend: Callable[[Any], None]) -> None:
        self._name, self._extend = name, extend

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find that one module as others do, and have it extended as soon as it is loaded."""
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            load, extend = spec.loader.exec_module, self._extend

            def load_and_extend(module: ModuleType) -> None:
                load(module)
                with contextlib.suppress(AttributeError):  # a Hermes that is made otherwise goes on
                    extend(module)

            spec.loader.exec_module = load_and_extend  # type: ignore[method-assign]
        return spec


def _extend(api: Any) -> None:
    _imported()
    of_hermes = api.APIServerAdapter._http_route_table

    def routes(adapter: Any) -> list[tuple[Any, ...]]:
        def answering(tell: Callable[[], dict[str, object]]) -> Any:
            async def answer(request: Any) -> Any:
                if (refusal := adapter._check_auth(request)) is not None:
                    return refusal
                told = await asyncio.get_running_loop().run_in_executor(None, tell)
                return api.web.json_response(told)

            return answer

        return [
            *of_hermes(adapter),
            ("GET", IN_FORCE, answering(in_force)),
            ("POST", LOOK_AGAIN, answering(look_again)),
        ]

    api.APIServerAdapter._http_route_table = routes


def in_force() -> dict[str, object]:
    """Return what holds in this process: its MCP servers with their tools, packages, and names in its environment."""
    return {
        "mcp_servers": _mcp_servers(),
        "environment": sorted(os.environ),
        "packages": _beside("packages").told(),
    }


def look_again() -> dict[str, object]:
    """Forget what Hermes read once of its skills: they were laid anew, by another process."""
    from agent.prompt_builder import clear_skills_system_prompt_cache

    clear_skills_system_prompt_cache()
    return {}


def _mcp_servers() -> list[dict[str, object]]:
    """Return each server that is configured, and why it is not connected."""
    from hermes_cli.config import load_config
    from hermes_cli.mcp_security import validate_mcp_server_entry

    mcp_tool: Any = importlib.import_module("tools.mcp_tool")
    servers: dict[str, dict[str, object]] = {}
    for told in mcp_tool.get_mcp_status():
        name = told["name"]
        tools = getattr(mcp_tool._servers.get(name), "_tools", [])
        server = {key: told[key] for key in ("name", "transport", "status", "error") if key in told}
        servers[name] = {**server, "tools": sorted(tool.name for tool in tools)}
        if not mcp_tool._MCP_AVAILABLE and told["status"] == "configured":
            servers[name] |= {"status": "failed", "error": "The package mcp is not installed."}
    # What Hermes takes for an attack it does not even list.
    for name, entry in (load_config().get("mcp_servers") or {}).items():
        if name not in servers:
            why = "; ".join(validate_mcp_server_entry(name, entry)) or "Hermes does not take it."
            servers[name] = {"name": name, "status": "refused", "error": why, "tools": []}
    return list(servers.values())


def _drop_what_fits_no_more() -> None:
    """Forget packages that were fetched for another Python than the image has by now; Hermes asks for them again."""
    target = os.environ.get("HERMES_LAZY_INSTALL_TARGET", "")
    if not target:
        return
    with contextlib.suppress(ImportError, AttributeError, OSError):
        lazy_deps: Any = importlib.import_module("tools.lazy_deps")
        with open(os.path.join(target, lazy_deps._TARGET_STAMP_NAME), encoding="utf-8") as stamp:
            fits = stamp.read().strip() == lazy_deps._python_abi_tag()
        if not fits:
            shutil.rmtree(target)


def _be_called(name: str) -> None:
    """Take a name by which whoever lists the processes finds this one, where there is /proc."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write(name)


def _distrust_repositories() -> None:
    """Have no git that Hermes starts run the command that a repository's own settings name as its monitor.

    Hermes asks git about a folder before anybody was asked: CVE-2026-71963.
    """
    count = os.environ.get("GIT_CONFIG_COUNT", "")
    number = int(count) if count.isascii() and count.isdigit() else 0
    os.environ[f"GIT_CONFIG_KEY_{number}"] = "core.fsmonitor"
    os.environ[f"GIT_CONFIG_VALUE_{number}"] = "false"
    os.environ["GIT_CONFIG_COUNT"] = str(number + 1)


def _arrange_tools() -> None:
    """Have what features bring offered wherever people ask for it; what cannot run here is offered nowhere anyway.

    `web_search` stands in Hermes' toolset `browser` too, and whoever disables that takes it from `web`. And to clients
    of the API Hermes offers no speech.
    """
    with contextlib.suppress(ImportError, AttributeError, LookupError, ValueError):
        from toolsets import TOOLSETS

        TOOLSETS["hermes-api-server"]["tools"].append("text_to_speech")
        TOOLSETS["browser"]["tools"].remove("web_search")


def _tell_versions() -> None:
    """Tell the rest of the sandbox which Hermes this process is, and with which SQLite it writes its databases."""
    for name, version in (("sqlite", sqlite3.sqlite_version), ("version", _version())):
        path = os.path.join(os.environ["SANDBOX_RUN"], name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(version)


def _version() -> str:
    """Return the version of Hermes as its own `/health` has it."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("hermes-agent")
    from hermes_cli import __version__

    return str(__version__)


def _relay_extensions() -> dict[str, Callable[[Any], None]]:
    """Return what has Hermes do by its relay what it cannot in 0.19: send files, and ask people."""
    extensions = dict(_beside("questions").mended(_questions()))
    hear = extensions["gateway.relay.adapter"]

    def mend(relay: Any) -> None:
        _beside("sent_files").mend(relay, _beside("relay_bridge").offer)
        hear(relay)

    return extensions | {"gateway.relay.adapter": mend}


def main() -> None:
    """Run the program with its words."""
    sys.argv = sys.argv[1:]
    _be_called(os.path.basename(sys.argv[0]))
    _import_at_speed()
    _tell_versions()
    _distrust_repositories()
    _bridge_relay()
    _drop_what_fits_no_more()
    hold()
    _arrange_tools()
    extensions: dict[str, Callable[[Any], None]] = {_API: _extend}
    if _RELAY[0] in os.environ:
        extensions |= _relay_extensions()
    if "HERMES_OWN_MESSAGES_URL" in os.environ:
        extensions |= _beside("own_messages").mended(_beside("sent_files"))
    for name, extend in extensions.items():
        sys.meta_path.insert(0, _Extended(name, extend))
    runpy.run_path(sys.argv[0], run_name="__main__")


main()
