# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""The rendered workerd configuration: what it binds, what it never holds, and that workerd takes it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.build.variables import (
    COMPATIBILITY_DATE,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import session_of
from ansible_collections.hermes.workers.plugins.plugin_utils.workerd.config import render

NASTY = 'quote " backslash \\ line\nbreak tab\t bell\x07 dollar $(x) é 漢'


AGENT = {"agent": {"format": 1, "archive": "a" * 64, "parts": {"hermes_soul": "b" * 64}}}
IN_CONTAINER = {"engine": "docker", "docker_socket": "/var/run/docker.sock"}


@pytest.fixture
def sources() -> Sources:
    return Sources()


def texts(config: str) -> dict[str, str]:
    """Return the text bindings of a configuration, as far as they need no unescaping."""
    return dict(re.findall(r'\(name = "(\w+)", text = "([^"\\]*)"\)', config))


def test_bindings(sources: Sources) -> None:
    settings = Settings(
        name="alice",
        platform="workerd",
        port=9000,
        providers_port=9001,
        default_model="openai/gpt-5-mini",
    )
    rendered = render(settings, sources)
    found = texts(rendered.text)
    assert found["HERMES_NAME"] == "alice"
    assert found["WORKER_VERSION"] == rendered.version
    assert found["HERMES_IMAGE"] == sources.image
    assert found["HERMES_DEFAULT_MODEL"] == "openai/gpt-5-mini"
    assert found["PROVIDERS_ADDRESS"] == "http://127.0.0.1:9001"
    assert found["HERMES_SLEEP_AFTER"] == "4h"
    assert found["HERMES_DRAIN_TIMEOUT"] == "1m"
    assert 'address = "127.0.0.1:9000"' in rendered.text
    for secret in ("API_TOKEN", "ANTHROPIC_API_KEY", "CUSTOM_API_KEY", "HERMES_SECRETS"):
        assert f'(name = "{secret}", fromEnvironment = "{secret}")' in rendered.text
    assert "PROVIDER" not in found
    assert '"private"' not in rendered.text


@pytest.mark.parametrize("engine", ["process", "docker"])
def test_nothing_listens_beyond_this_machine(sources: Sources, engine: str) -> None:
    text = render(Settings(name="alice", engine=engine), sources).text
    sockets = text[text.index("sockets = [") :].split("]", 1)[0]
    found = re.findall(r'address = "([^"]+)"', sockets)
    assert len(found) == (3 if engine == "process" else 2)
    assert [address for address in found if not address.startswith("127.0.0.1:")] == []
    networks = re.findall(r'\(name = "(\w+)", network = \(allow = \[([^]]*)\]', text)
    local = {"loopback": '"127.0.0.1/32"'} if engine == "process" else {}
    assert dict(networks) == {"internet": '"public"'} | local


@pytest.mark.parametrize(("wanted", "stays"), [("stop", False), ("finish", True)])
def test_the_runtime_tells_of_clients_that_leave(
    sources: Sources, wanted: str, stays: bool
) -> None:
    text = render(Settings(name="alice", on_disconnect=wanted), sources).text
    assert texts(text)["HERMES_ON_DISCONNECT"] == wanted
    assert 'compatibilityFlags = ["enable_request_signal"' in text
    assert ("durable_object_io_tasks_prevent_eviction" in text) is stays
    # From this date on it is so for everybody, and whoever only watches is billed for it.
    assert COMPATIBILITY_DATE < "2026-10-01"


def test_a_container_is_reached_through_its_engine(sources: Sources) -> None:
    settings = Settings(name="alice", state_dir="/home/a/.hermes", **IN_CONTAINER)
    text = render(settings, sources).text
    image = sources.image_for(settings)
    assert image.startswith("hermes-workers:")
    assert texts(text)["HERMES_IMAGE"] == image
    assert texts(text)["PROVIDERS_ADDRESS"] == "http://198.51.100.1"
    assert f'image = "{image}"' in text
    assert "preventEviction = true" in text
    assert 'socketPath = "unix:/var/run/docker.sock"' in text
    assert f'sessionId = "{session_of(settings)}"' in text
    for name in ("ENGINE", "LOOPBACK", '(name = "providers"'):
        assert name not in text.replace("HERMES_ENGINE", "")


@pytest.mark.parametrize("engine", ["process", "docker"])
def test_the_dashboard_has_a_socket_of_its_own(sources: Sources, engine: str) -> None:
    more = IN_CONTAINER if engine == "docker" else {}
    text = render(
        Settings(name="alice", platform="workerd", dashboard_port=9123, **more), sources
    ).text
    assert texts(text)["HERMES_DASHBOARD"] == "on"
    assert 'address = "127.0.0.1:9123"' in text
    assert 'entrypoint = "Dashboard"' in text
    text = render(Settings(name="alice", platform="workerd", dashboard=False, **more), sources).text
    assert texts(text)["HERMES_DASHBOARD"].startswith("off: ")
    assert "Dashboard" not in text


def test_deployments_are_told_apart_in_one_engine() -> None:
    homes = [Settings(name="alice", state_dir=folder, **IN_CONTAINER) for folder in ("/a", "/b")]
    assert session_of(homes[0]) != session_of(homes[1])
    assert session_of(homes[0]) == session_of(Settings(name="alice", state_dir="/a"))


def test_another_base_makes_another_image(sources: Sources) -> None:
    own = Settings(name="alice", base_image="base:1", **IN_CONTAINER)
    assert sources.image_for(own) != sources.image_for(Settings(name="alice", **IN_CONTAINER))


def test_a_provider_on_this_machine_gets_its_own_network(sources: Sources) -> None:
    settings = Settings(name="alice", provider_base_url="http://127.0.0.1:11434/v1")
    assert '(name = "PROVIDER", service = "provider")' in render(settings, sources).text


CONTROLLERS = {
    *("verify", "token_vault_file", "token_command", "host", "account_id", "api_base_url"),
    *("deployments", "after_reboot", "accept_advisories"),
    # What is resolved of these is part of the sources.
    *("version", "source", "packages"),
    # These stand in what the Worker is told of its channels too.
    *("channel_apis", "mail_address", "mail_people"),
    *("route_mode", "take_over_hostname", "uploader", "check_provider_key", "prune_images"),
}
"""Settings that are a play's own business: the Worker is the same, whatever they are."""
PROCESS_ONLY = {"providers_port"}
DOCKER_ONLY = {"state_dir", "docker_socket", "base_image", "sidecar_image"}


def other_value(name: str, value: Any) -> Any:
    """Return a value that a setting does not have by default."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if name == "features":
        return ["mcp"]
    if isinstance(value, list):
        return ["rehearsal/rehearsal"]
    if isinstance(value, dict):
        return {"A": "b"}
    return "https://x.example" if name == "provider_base_url" else f"{value}x"


@pytest.mark.parametrize(
    ("engine", "without"), [("process", DOCKER_ONLY), ("docker", PROCESS_ONLY)]
)
def test_the_version_follows_every_setting_and_nothing_else(
    sources: Sources, engine: str, without: set[str]
) -> None:
    base = Settings(name="alice", engine=engine)
    first = render(base, sources)
    assert render(base, Sources()) == first
    names = {field.name for field in fields(Settings)} - {"engine"}

    def version_with(name: str) -> str:
        other = replace(base, **{name: other_value(name, getattr(base, name))})
        return render(other, Sources(features=other.features)).version

    followed = {name for name in names if version_with(name) != first.version}
    assert followed == names - CONTROLLERS - without


def workerd() -> str | None:
    """Return a workerd to try the configuration with: named by WORKERD, or in the Worker's node_modules."""
    named = os.environ.get("WORKERD")
    found = Path(__file__).parents[3] / "worker" / "node_modules" / "@cloudflare"
    return named or next((str(path) for path in found.glob("workerd-*/bin/workerd")), None)


@pytest.mark.skipif(workerd() is None, reason="workerd is not installed: make test installs it")
@pytest.mark.parametrize("more", [{}, IN_CONTAINER, AGENT], ids=["process", "docker", "agent"])
def test_workerd_reads_what_was_written(
    sources: Sources, tmp_path: Path, more: dict[str, Any]
) -> None:
    settings = Settings(
        name="alice", env={"NASTY": NASTY}, provider_base_url="https://192.168.1.7/v1", **more
    )
    folder = tmp_path / "build"
    folder.mkdir()
    (folder / "config.capnp").write_text(render(settings, sources).text)
    if settings.agent:
        (folder / "agent.tar.gz").write_bytes(b"packed")
    (folder / "worker.js").write_text(
        "export default {}; export class HermesInstance {}; export class Providers {}"
    )
    binary = workerd()
    assert binary is not None
    compiled = subprocess.run(
        [binary, "compile", "build/config.capnp", "--config-only"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert compiled.returncode == 0, compiled.stderr.decode()
    assert json.dumps({"NASTY": NASTY}, ensure_ascii=False, separators=(",", ":")).encode() in (
        compiled.stdout
    )


def test_the_bundler_gets_the_options_of_the_worker_itself(
    sources: Sources, tmp_path: Path
) -> None:
    command = sources.bundle_command(Path("/x/esbuild"), tmp_path / "worker.js")
    assert command[:2] == ["/x/esbuild", "src/index.ts"]
    assert "--bundle" in command
    assert [word for word in command if word.startswith("--outfile")] == [
        f"--outfile={tmp_path}/worker.js"
    ]


def test_what_is_declared_of_the_agent_is_a_module_of_the_version(sources: Sources) -> None:
    bare, told = Settings(name="alice"), Settings(name="alice", **AGENT)
    assert texts(render(bare, sources).text)["HERMES_AGENT"] == "{}"
    assert "agent.tar.gz" not in render(bare, sources).text
    rendered = render(told, sources)
    assert '(name = "agent.tar.gz", data = embed "agent.tar.gz")' in rendered.text
    assert '\\"archive\\":\\"' + "a" * 64 in rendered.text
    assert rendered.version != render(bare, sources).version
    assert "--external:./agent.tar.gz" in sources.bundle_command(Path("/x"), Path("/y"))


def test_only_production_packages_are_installed(sources: Sources) -> None:
    packages = sources.production_packages
    lock = json.loads(packages["package-lock.json"])["packages"]
    assert "node_modules/@cloudflare/workerd-linux-64" in lock
    assert not [path for path, entry in lock.items() if entry.get("dev")]
    assert "devDependencies" not in json.loads(packages["package.json"])


def test_developers_tools_do_not_make_another_version(sources: Sources, tmp_path: Path) -> None:
    copy = Sources(tmp_path)
    shutil.copytree(
        sources.worker, copy.worker, ignore=shutil.ignore_patterns("node_modules", "dist")
    )
    before = Sources(tmp_path).code
    manifest = json.loads((copy.worker / "package.json").read_text())
    manifest["devDependencies"]["vitest"] = "0.0.1"
    (copy.worker / "package.json").write_text(json.dumps(manifest))
    assert Sources(tmp_path).code == before
    (copy.worker / "src" / "index.ts").write_text("export default {}")
    assert Sources(tmp_path).code != before
