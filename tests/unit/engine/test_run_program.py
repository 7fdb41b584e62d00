# SPDX-License-Identifier: Apache-2.0
"""What `go` brought holds in real Hermes where a job runs, whatever a `.env` says."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

KEY = "capability-of-this-boot-0123456789"
STALE = "capability-of-an-earlier-boot-0123"
BASE = "http://127.0.0.1:9/provider/v1"
TOKEN = 'a "b" $HOME ${HOME} #c'
# As Hermes does it in each folder that it works in.
LOOK = """
import json, os
from pathlib import Path
from agent import coding_context

names = ("x.name", "core.fsmonitor")
status = coding_context._git(Path("repository"), "status", "--porcelain=2")
print(json.dumps([status, *(coding_context._git(Path("repository"), "config", name) for name in names)]))
"""
# As the scheduler does it for each job.
PROBE = """
import json, os
from pathlib import Path
from agent import secret_scope
from hermes_cli.config import save_env_value
from hermes_cli.env_loader import load_hermes_dotenv
from hermes_cli.runtime_provider import resolve_runtime_provider

home = Path(os.environ["HERMES_HOME"])
save_env_value("WEATHER_TOKEN", "another")
save_env_value("OF_THE_OWNER", "kept, and more")
secret_scope.set_secret_scope(secret_scope.build_profile_secret_scope(home))
load_hermes_dotenv(hermes_home=home)
found = resolve_runtime_provider(requested=None, target_model="m")
names = ("WEATHER_TOKEN", "OF_THE_OWNER")
print(json.dumps({
    "key": found["api_key"],
    "base": found["base_url"],
    "scope": {name: secret_scope.get_secret(name) for name in names},
    "environment": {name: os.environ.get(name) for name in names},
}))
"""

COLLECTING = """
import gc, json
import gateway.run
often = gc.get_threshold()[0]
import gateway.platforms.api_server
kept = gc.get_freeze_count() > 50_000
print(json.dumps([often > 700, kept, *gc.get_threshold()]))
"""


@pytest.mark.parametrize("words", [["gateway", "run"], ["dashboard"]], ids=" ".join)
def test_garbage_is_looked_for_seldom_until_the_gateway_is_imported_and_then_as_usual(
    tmp_path: Path, image: Path, words: "list[str]"
) -> None:
    (tmp_path / "run" / "managed").mkdir(parents=True)
    (tmp_path / "run" / "env.json").write_text("{}")
    told = ask(
        image,
        tmp_path,
        COLLECTING,
        {"HERMES_HOME": str(tmp_path), "SANDBOX_RUN": str(tmp_path / "run")},
        *words,
    )
    is_gateway = words == ["gateway", "run"]
    assert told == [is_gateway, True, 700, 10, 10]


@pytest.mark.parametrize(
    ("provider", "variables"),
    [
        ("anthropic", {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": BASE}),
        ("openrouter", {"OPENROUTER_API_KEY": KEY, "OPENROUTER_BASE_URL": BASE}),
        ("openai-api", {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": BASE}),
        ("custom:sealed-custom", {"HERMES_PROVIDER_CAPABILITY": KEY}),
        ("custom:sealed-custom", {"CUSTOM_API_KEY": KEY}),
    ],
    ids=["anthropic", "openrouter", "openai", "custom", "custom with its own key"],
)
def test_a_job_has_the_key_and_the_variables_of_this_boot(
    tmp_path: Path, image: Path, provider: str, variables: "dict[str, str]"
) -> None:
    home, run, managed = (tmp_path / name for name in ("home", "run", "run/managed"))
    home.mkdir()
    managed.mkdir(parents=True)
    brought = {**variables, "WEATHER_TOKEN": TOKEN}
    (run / "env.json").write_text(json.dumps(brought))
    (home / "config.yaml").touch()
    named = {"base_url": BASE, "key_env": next(iter(variables)), "api_mode": "chat_completions"}
    model = {"provider": provider, "default": "m", "base_url": BASE, "context_length": 200000}
    config = {"model": model, "providers": {"sealed-custom": named}}
    (managed / "config.yaml").write_text(json.dumps(config))
    stale = "".join(f"{name}={STALE}\n" for name in brought)
    (home / ".env").write_text(stale + "OF_THE_OWNER=kept\n")

    told = ask(
        image, tmp_path, PROBE, {**brought, "HERMES_HOME": str(home), "SANDBOX_RUN": str(run)}
    )
    assert (told["key"], told["base"].rstrip("/")) == (KEY, BASE)
    expected = {"WEATHER_TOKEN": TOKEN, "OF_THE_OWNER": "kept, and more"}
    assert told["scope"] == expected
    assert told["environment"] == expected
    assert "another" not in (home / ".env").read_text()


def test_a_repository_runs_nothing_when_hermes_looks_at_it(tmp_path: Path, image: Path) -> None:
    """Its own settings may name a command that git runs at each look (CVE-2026-71963)."""
    repository, marker, run = (tmp_path / name for name in ("repository", "marker", "run"))
    run.mkdir()
    (run / "env.json").write_text("{}")
    git = ["git", "-C", str(repository)]
    subprocess.run(["git", "init", "--quiet", str(repository)], check=True)
    monitor = ["core.fsmonitor", f"touch {marker}; false"]
    subprocess.run([*git, "config", *monitor], check=True)
    (repository / "new").touch()
    subprocess.run([*git, "status"], check=True, capture_output=True)
    assert marker.exists(), "this git knows no monitors: the test could not fail"
    marker.unlink()

    of_the_owner = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "x.name",
        "GIT_CONFIG_VALUE_0": "kept",
    }
    environ = {**of_the_owner, "HERMES_HOME": str(tmp_path), "SANDBOX_RUN": str(run)}
    status, *names = ask(image, tmp_path, LOOK, environ)
    assert status == "? new"
    assert names == ["kept", "false"]
    assert not marker.exists()


TAG = "import json; from tools import lazy_deps; print(json.dumps(lazy_deps._python_abi_tag()))"
# As a backend does it that asks for its packages.
LATER = """
import json, os, sys
import hermes_bootstrap
from tools import lazy_deps

target = os.environ.get("HERMES_LAZY_INSTALL_TARGET", "")
print(json.dumps([os.path.isdir(target), target in sys.path, lazy_deps._allow_lazy_installs()]))
"""


@pytest.mark.parametrize(
    ("stamp", "there"), [("", True), ("2.7:cpython-27.so", False)], ids=["of this", "of another"]
)
def test_packages_for_another_python_are_forgotten(
    tmp_path: Path, image: Path, stamp: str, there: bool
) -> None:
    run, target = tmp_path / "run", tmp_path / "lazy-packages"
    run.mkdir()
    (run / "env.json").write_text("{}")
    target.mkdir()
    environ = {"HERMES_HOME": str(tmp_path), "SANDBOX_RUN": str(run)}
    environ |= {"HERMES_DISABLE_LAZY_INSTALLS": "1"}
    own = ask(image, tmp_path, TAG, environ)
    (target / ".python-abi").write_text(stamp or own)
    environ["HERMES_LAZY_INSTALL_TARGET"] = str(target)
    assert ask(image, tmp_path, LATER, environ) == [there, there, True]
    del environ["HERMES_LAZY_INSTALL_TARGET"]
    assert ask(image, tmp_path, LATER, environ) == [False, False, False]


def ask(image: Path, folder: Path, probe: str, environ: "dict[str, str]", *words: str) -> Any:
    """Run a probe as a program of Hermes, with its words, and return what it prints."""
    (folder / "probe.py").write_text(probe)
    python, launcher = (
        image / "venv" / "bin" / "python",
        image / "sandbox" / "in_hermes" / "run_program.py",
    )
    done = subprocess.run(
        [python, "-P", launcher, folder / "probe.py", *words],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "HERMES_MANAGED_DIR": str(folder / "run" / "managed"),
            **environ,
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
