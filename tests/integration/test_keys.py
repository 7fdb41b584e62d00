# SPDX-License-Identifier: Apache-2.0
"""Provider keys: they reach the provider, and nothing and nobody else."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from appointments import ask_hermes, keeps, keeps_its_own, run_now, runs_of, soon, use
from contained import speaking_to
from plays import ROOT, Deployment, Play, clean_environment

from tests.standins.provider import Provider


@pytest.fixture(scope="module")
def keyed(make_deployment: Callable[..., Deployment], provider: Provider) -> Deployment:
    made = make_deployment(
        "keyed",
        anthropic_api_key=provider.key,
        hermes_default_model="anthropic/claude-sonnet-4-5",
        hermes_provider_base_url=provider.url,
        hermes_secrets={"A_SECRET": "canary-" + secrets.token_hex(16)},
    )
    made.deploy()
    return made


def files_below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path


def test_the_provider_gets_its_key_and_the_answer_comes_back(
    keyed: Deployment, provider: Provider
) -> None:
    answer = keyed.chat("Is the key right?")
    assert answer.said.strip() == "The stand-in heard: Is the key right?"
    assert answer.headers["x-hermes-model"] == "anthropic/claude-sonnet-4-5"
    assert [s.headers["x-api-key"] for s in provider.seen if s.body][-1] == provider.key


def test_the_key_is_in_no_file_no_argv_and_not_with_hermes(
    keyed: Deployment, provider: Provider
) -> None:
    keyed.chat("Wake up and leave traces.")
    keyed.call("POST", "/api/instance/backups")
    canary = provider.key.encode()

    holding = [str(p) for p in files_below(keyed.state) if canary in p.read_bytes()]
    assert holding == [], "the key lies in a file"

    everyone = keyed.running()
    assert len(everyone) >= 4
    for one in everyone:
        assert provider.key not in " ".join(one.words)
    holders = {one.name for one in everyone if provider.key in str(one.environment)}
    assert holders == {"workerd"}, "workerd alone may hold the key"
    # What a sandbox keeps in memory, as its own processes see it.
    runs = {Path(f"/proc/{one.process.pid}/root/run/hermes") for one in everyone}
    disks = (keyed.state / "engine" / "disks").iterdir()
    runs |= {Path("/dev/shm", f"hermes-run-{disk.name}") for disk in disks}
    kept = [path for run in runs if run.is_dir() for path in files_below(run)]
    assert any(path.name == "env.json" for path in kept)
    assert [str(path) for path in kept if canary in path.read_bytes()] == []


def test_a_job_that_is_due_while_hermes_sleeps_reaches_the_provider_once(
    keyed: Deployment, provider: Provider
) -> None:
    keeps_its_own(keyed, provider, f"Water the ferns {secrets.token_hex(4)}.")
    assert {s.headers["x-api-key"] for s in provider.seen if s.body} == {provider.key}


def test_a_job_that_fails_is_told_until_it_works(keyed: Deployment, provider: Provider) -> None:
    keyed.call("POST", "/api/instance/wake")
    job = {"name": "tea", "schedule": "every 2h", "prompt": "Make tea."}
    made = ask_hermes(keyed, "POST", "/api/jobs", job)["job"]["id"]
    good, provider.key = provider.key, "sk-another-" + secrets.token_hex(8)
    try:
        assert run_now(keyed, made)["last_status"] == "error"
        keyed.call("POST", "/api/instance/sleep")
        told = keyed.status()["lastJobError"]
        assert (told["job"], told["id"]) == ("tea", made)
        assert "401" in told["message"]
        line = re.compile(
            rf"a job failed (?:now|.* ago) \([\d: -]+\): tea: {re.escape(told['message'])}"
        )
        assert line.search(keyed.play("status").output)
        assert line.search(keyed.deploy().output)
    finally:
        provider.key = good
    keyed.call("POST", "/api/instance/wake")
    assert run_now(keyed, made)["last_status"] == "ok"
    ask_hermes(keyed, "DELETE", f"/api/jobs/{made}")
    keyed.call("POST", "/api/instance/sleep")
    assert keyed.status()["lastJobError"] is None
    assert keyed.call("GET", "/api/health").json["hermes"]["lastJobError"] is None


def test_no_play_prints_the_key_or_the_token(keyed: Deployment, provider: Provider) -> None:
    rotated = provider.key + "-2"
    before, provider.key = provider.key, rotated
    keyed.variables["anthropic_api_key"] = rotated
    play = keyed.deploy("-vvv", "--diff")
    assert play.changed(keyed.name) > 0
    assert "changed anthropic_api_key" in play.output
    for secret in (before, rotated, keyed.token):
        assert secret not in play.output
    assert keyed.chat("With the new key").status == 200
    assert keyed.deploy().changed(keyed.name) == 0


PRINTING = [
    ("hermes.workers.cards", "-vvvv"),
    ("minimal", "-vvvv"),
    ("default", "-v"),
    ("oneline", "-vvvvv"),
]
EVERY_PLAY = [
    ("deploy", "--check", "--diff"),
    ("verify",),
    ("rotate_keys", "--check"),
    ("status",),
    ("status", "--check"),
    ("logs",),
    ("backup",),
    ("restore", "-e", "hermes_backup=newest", "--check"),
    ("lifecycle", "-e", "hermes_action=wake"),
    ("destroy", "--check", "-e", "hermes_confirm=yes", "-e", "hermes_forget=true"),
]


def loud(
    folder: Path, stdout_callback: str = "hermes.workers.cards", **more: str
) -> dict[str, str]:
    """An environment in which Ansible is told to print and to write down all it can."""
    return clean_environment(
        ANSIBLE_DISPLAY_ARGS_TO_STDOUT="1",
        ANSIBLE_DISPLAY_OK_HOSTS="1",
        ANSIBLE_DISPLAY_SKIPPED_HOSTS="1",
        ANSIBLE_DISPLAY_TRACEBACK="always",
        ANSIBLE_LOG_PATH=str(folder / "log"),
        ANSIBLE_STDOUT_CALLBACK=stdout_callback,
        ANSIBLE_CALLBACK_PLUGINS=str(ROOT / "tests" / "standins" / "callbacks"),
        ANSIBLE_CALLBACKS_ENABLED="prints_all",
        PRINTS_ALL_TO=str(folder / "told"),
        **more,
    )


def printed(play: Play, folder: Path) -> str:
    """All that a play showed and wrote down."""
    return play.output + "".join((folder / name).read_text() for name in ("log", "told"))


def test_no_setting_of_ansible_shows_a_key(keyed: Deployment, tmp_path: Path) -> None:
    """Whatever prints arguments, attributes and results, in every playbook, finds no secret there."""
    for playbook, *arguments in EVERY_PLAY:
        play = keyed.play(playbook, *arguments, "-vvv", env=loud(tmp_path))
        assert play.code == 0, play.output
    told = printed(play, tmp_path)
    assert "hermes.workers.verify_deployment" in told, "everything was written down"
    shown = {name for name, secret in secrets_of(keyed).items() if secret in told}
    assert shown == set()


@pytest.mark.parametrize(("callback", "verbosity"), PRINTING)
def test_no_callback_shows_a_key_that_is_to_be_deployed(
    make_deployment: Callable[..., Deployment], tmp_path: Path, callback: str, verbosity: str
) -> None:
    """Before the first deploy, and when the play ends with a card: one of the keys has a flaw."""
    canaries = {name: f"sk-canary-{secrets.token_hex(16)}" for name in ("openai", "openrouter")}
    planned = make_deployment(
        "loud",
        openai_api_key=canaries["openai"],
        hermes_default_model="openai/gpt-5-mini",
        hermes_secrets={"A_SECRET": canaries["openrouter"]},
    )
    exported = f"sk-canary-{secrets.token_hex(16)}"
    env = loud(tmp_path, callback, OPENROUTER_API_KEY=exported)
    play = planned.play("deploy", "--check", "--diff", verbosity, env=env)
    assert play.code == 0, play.output
    planned.variables["openai_api_key"] = canaries["openai"] + "\n"
    refused = planned.play("deploy", verbosity, env=env)
    assert refused.code != 0
    assert "has a line break" in refused.output
    told = play.output + printed(refused, tmp_path)
    assert [secret for secret in (*canaries.values(), exported) if secret in told] == []


def secrets_of(deployment: Deployment) -> dict[str, str]:
    """The secrets of a deployment, by where they stand."""
    variables = deployment.variables
    return {
        "anthropic_api_key": variables["anthropic_api_key"],
        "api_token": deployment.token,
        **variables["hermes_secrets"],
    }


def test_a_wrong_key_names_the_variable_to_mend(
    make_deployment: Callable[..., Deployment], provider: Provider
) -> None:
    wrong = make_deployment(
        "wrong-key",
        openai_api_key="sk-wrong-" + secrets.token_hex(8),
        hermes_default_model="openai/gpt-5-mini",
        hermes_provider_base_url=provider.url + "/v1",
    )
    asked = wrong.play("deploy", "-e", "hermes_check_provider_key=true")
    assert asked.code != 0
    assert "openai_api_key: openai refuses it with 401" in asked.output
    assert "Nothing was changed." in asked.output
    assert not wrong.state.exists()

    play = wrong.play("deploy")
    assert play.code != 0
    assert "openai_api_key" in play.output
    assert "401" in play.output or "Incorrect API key" in play.output
    assert wrong.variables["openai_api_key"] not in play.output

    wrong.variables["openai_api_key"] = provider.key
    assert "deployed and verified" in wrong.deploy().output


def test_a_request_may_choose_among_the_further_models(
    make_deployment: Callable[..., Deployment], provider: Provider
) -> None:
    several = make_deployment(
        "several-models",
        custom_api_key=provider.key,
        hermes_default_model="rehearsal/rehearsal",
        hermes_models=["custom/stand-in-large"],
        hermes_provider_base_url=provider.url + "/v1",
    )
    several.deploy()
    assert "Rehearsal" in several.chat("Who are you?").said
    chosen = several.chat("And you?", model="custom/stand-in-large")
    assert chosen.said.strip() == "The stand-in heard: And you?"
    assert chosen.headers["x-hermes-model"] == "custom/stand-in-large"
    asked = [seen.body["model"] for seen in provider.seen if seen.body]
    assert asked[-1] == "stand-in-large"


def test_a_provider_that_falls_silent_is_asked_again(
    make_deployment: Callable[..., Deployment], provider: Provider
) -> None:
    """By Hermes itself, which would have waited half an hour for the address that it is given."""
    patience = {"HERMES_STREAM_READ_TIMEOUT": "5"}
    patient = make_deployment("patient", hermes_env=patience, **speaking_to(provider))
    patient.deploy()
    assert patient.environment()["HERMES_STREAM_READ_TIMEOUT"] == "5"
    provider.silent = question = "Are you still there?"
    try:
        assert question in patient.chat(question).said
    finally:
        provider.wakes.set()
    assert runs_of(provider, question) >= 2


def test_keys_in_the_environment_are_with_hermes_and_in_no_file(
    make_deployment: Callable[..., Deployment], provider: Provider
) -> None:
    """The owner's choice: Hermes speaks to the provider by itself."""
    direct = make_deployment(
        "direct",
        custom_api_key=provider.key,
        hermes_provider_keys="environment",
        hermes_default_model="custom/stand-in",
        hermes_provider_base_url=provider.url + "/v1",
    )
    direct.deploy()
    assert direct.chat("By yourself?").said.strip() == "The stand-in heard: By yourself?"
    direct.call("POST", "/api/instance/backups")
    holders = {one.name for one in direct.running() if provider.key in str(one.environment)}
    assert holders - {"workerd"}
    canary = provider.key.encode()
    assert [str(p) for p in files_below(direct.state) if canary in p.read_bytes()] == []

    errand = f"Feed the fish {secrets.token_hex(4)}."
    use(direct, "cronjob", action="create", name="fish", schedule=soon(), prompt=errand)
    keeps(direct, provider, errand, lambda: ask_hermes(direct, "GET", "/api/jobs")["jobs"] == [])

    direct.call("POST", "/api/instance/wake")
    running = direct.hermes_pids()
    provider.key = direct.variables["custom_api_key"] = "sk-canary-" + secrets.token_hex(16)
    play = direct.play("rotate_keys", "-e", "hermes_keys=provider_keys")
    assert play.code == 0, play.output
    assert "Restarts: direct (Hermes)." in play.output
    assert direct.hermes_pids() != running, "Hermes has its environment from its start"
    assert direct.chat("With another?").said.strip() == "The stand-in heard: With another?"
