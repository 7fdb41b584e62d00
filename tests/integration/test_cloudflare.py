# SPDX-License-Identifier: Apache-2.0
"""Real plays and real wrangler against the stand-in for Cloudflare: from an inventory to a verified chat, and back."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from pathlib import Path

import requests
from ansible_collections.hermes.workers.plugins.plugin_utils.build.runtime import Runtime
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import (
    REPOSITORY,
    Sources,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder
from clouds import ACCOUNT, KEY, TOKEN, Cloud, busy, cloud, hermes_with, provider
from plays import clean_environment, run

from tests.standins.provider import Provider

__all__ = ["cloud", "provider"]


def test_a_first_deploy_ends_in_a_verified_chat_and_a_second_writes_nothing(
    cloud: Cloud, tmp_path: Path
) -> None:
    with Watch(TOKEN, KEY) as watch:
        # Whatever lasts of Ansible's own temporary files is looked at too.
        kept = {"ANSIBLE_HOME": str(tmp_path / "ansible"), "ANSIBLE_KEEP_REMOTE_FILES": "true"}
        play = cloud.deploy("first", "-vvv", "--diff", env={"TMPDIR": str(tmp_path), **kept})
    assert "first: deployed and verified" in play.output
    assert "https://first.acme.workers.dev" in play.output
    assert "Plan: 1 to create" in play.output
    worker = cloud.worker("first")
    token = (cloud.home / "first" / "api_token").read_text().strip()
    assert worker.current.secrets() == {"ANTHROPIC_API_KEY": KEY, "API_TOKEN": token}
    assert set(worker.tags) == {"hermes.workers", "hermes.workers:first"}

    assert watch.seen == [], "secrets in arguments"
    for secret in (TOKEN, KEY, token):
        assert secret not in play.output
        assert holding(secret, cloud.home, tmp_path) <= {cloud.home / "first" / "api_token"}
    assert (cloud.home / "first" / "build" / "wrangler.toml").is_file()

    start = len(cloud.plane.calls)
    again = cloud.deploy("first")
    assert again.changed("first") == 0
    assert "No changes. 0 calls written." in again.output
    assert cloud.writes(start) == []


def test_what_was_rendered_can_be_run_by_hand(cloud: Cloud) -> None:
    """As its first lines say: it keeps the secrets that the Worker has, and is what a deploy would make."""
    cloud.deploy("first")
    build = cloud.home / "first" / "build"
    assert "npx wrangler@4 deploy" in (build / "wrangler.toml").read_text()
    deployment = StateFolder(str(cloud.home), "first")
    wrangler = Runtime(deployment, Sources(), print, "cloudflare").install_wrangler()
    worker = cloud.worker("first")
    before, secrets_before = worker.current, worker.current.secrets()
    env = clean_environment(**cloud.plane.env, CLOUDFLARE_API_TOKEN=TOKEN, CI="1")
    done = run([*wrangler, "deploy"], build, env)
    assert done.returncode == 0, done.stdout
    assert worker.current is not before
    assert worker.current.secrets() == secrets_before
    assert "No changes. 0 calls written." in cloud.deploy("first").output


def test_a_restart_brings_along_what_lies_beside_hermes_home(cloud: Cloud) -> None:
    """By a snapshot, from which nothing can be started yet when Cloudflare has just taken it."""
    cloud.deploy("first")
    before = cloud.told("first", "instance/status")
    assert cloud.chat("first", "Are you awake?")[0] == 200
    (disk,) = (cloud.plane.edge.folder / cloud.worker("first").tag / "disks").glob("*/disk/tmp")
    (disk / "installed").write_text("by hand")
    assert cloud.deployment("first").call("POST", "/api/instance/restart").status == 200
    told = cloud.told("first", "instance/status")
    assert told["bootId"] != before["bootId"]
    assert (told["restored"]["snapshot"] is None, told["restored"]["passedOver"]) == (False, [])
    (disk,) = (cloud.plane.edge.folder / cloud.worker("first").tag / "disks").glob("*/disk/tmp")
    assert (disk / "installed").read_text() == "by hand"


class Watch:
    """Looks for secrets in the arguments of every process, as often as it can."""

    def __init__(self, *secrets: str) -> None:
        self.secrets = [secret.encode() for secret in secrets]
        self.seen: list[bytes] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    arguments = process.read_bytes()
                    if any(secret in arguments for secret in self.secrets):
                        self.seen.append(arguments)


def holding(secret: str, *folders: Path) -> set[Path]:
    """The files below folders that hold a secret, the test's own inventories aside."""
    wanted = secret.encode()
    return {
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and not path.name.startswith("inventory-")
        if wanted in path.read_bytes()
    }


def test_a_new_version_cuts_no_answer_and_loses_no_request(
    cloud: Cloud, provider: Provider
) -> None:
    variables = {"hermes_provider": None, "hermes_drain_timeout": "2m"}
    cloud.deploy("busy", **variables)
    variables["hermes_sleep_after"] = "2h"
    with busy(cloud, "busy", provider):
        cloud.deploy("busy", **variables)
    assert cloud.worker("busy").current.variables()["HERMES_SLEEP_AFTER"] == "2h"

    provider.also = KEY + "-2"
    keys = ("-e", "hermes_keys=api_token,provider_keys")
    with busy(cloud, "busy", provider):
        play = cloud.play("rotate_keys", "busy", *keys, **variables, anthropic_api_key=KEY + "-2")
    assert play.code == 0, play.output
    assert cloud.worker("busy").current.secrets()["ANTHROPIC_API_KEY"] == KEY + "-2"

    # A secret that the inventory no longer has is taken away by a version of its own.
    cloud.worker("busy").current.bindings.append(
        {"type": "secret_text", "name": "STRANGER", "text": "x"}
    )
    variables |= {"anthropic_api_key": KEY + "-2", "hermes_sleep_after": "3h"}
    with busy(cloud, "busy", provider):
        cloud.deploy("busy", **variables)
    assert "STRANGER" not in cloud.worker("busy").current.secrets()


def test_settings_and_secrets_reach_a_hermes_that_is_awake(cloud: Cloud) -> None:
    """Set, changed and taken away; judged by what the process has, not by what the Worker was given."""
    values = ["first-" + secrets.token_hex(8), "second-" + secrets.token_hex(8)]
    direct = {"hermes_provider_keys": "environment", "hermes_models": ["anthropic/stand-in"]}
    cloud.deploy("reached")
    for variables, held, gone in (
        ({"hermes_secrets": {"THING": values[0]}}, values[0], None),
        ({"hermes_secrets": {"THING": values[1]}}, values[1], values[0]),
        ({"hermes_env": {"THING": values[0]}}, values[0], values[1]),
        (direct, KEY, values[0]),
        ({}, None, KEY),
    ):
        assert cloud.chat("reached", "Are you awake?")[0] == 200
        play = cloud.deploy("reached", **variables)
        assert "reached: deployed and verified" in play.output
        assert "Hermes, because of" in play.output
        assert held is None or hermes_with(held), "not in force"
        assert gone is None or not hermes_with(gone), "still in force"
    assert cloud.deploy("reached").changed("reached") == 0


def test_what_was_changed_by_hand_is_seen_and_mended(cloud: Cloud) -> None:
    cloud.deploy("drifting")
    # What the dashboard deployed last wrangler looks at in detail before it deploys over it.
    cloud.worker("drifting").versions[-1].source = "dash"
    bindings = cloud.worker("drifting").current.bindings
    bindings.append({"type": "secret_text", "name": "STRANGER", "text": "x"})
    for one in bindings:
        if one["name"] == "HERMES_SLEEP_AFTER":
            one["text"] = "5h"
    images = cloud.plane.registry.repositories[f"{ACCOUNT}/{REPOSITORY}"].tags
    before = set(images)
    cloud.plane.registry.add_image(f"{ACCOUNT}/{REPOSITORY}", "of-last-year", note="old")
    start = len(cloud.plane.calls)
    play = cloud.deploy("drifting", hermes_prune_images=True)
    assert "drifting/environments/production/bindings" in str(
        [one.path for one in cloud.plane.calls[start:]]
    )
    assert "HERMES_SLEEP_AFTER was changed by hand" in play.output
    assert "deleted old images from the registry: of-last-year" in play.output
    assert set(images) == before, "what a Worker names stays"
    current = cloud.worker("drifting").current
    assert current.variables()["HERMES_SLEEP_AFTER"] == "4h"
    assert "STRANGER" not in current.secrets()
    assert cloud.deploy("drifting").changed("drifting") == 0

    account = cloud.plane.state.accounts[ACCOUNT]
    (namespace,) = cloud.worker("drifting").namespaces.values()
    gone = account.applications.pop(namespace.id)
    cloud.plane.edge.changed(cloud.worker("drifting"))
    status, text = cloud.chat("drifting", "Is anybody there?")
    assert (status, json.loads(text)["error"]["code"]) == (503, "no_container")
    play = cloud.deploy("drifting")
    assert "its container application is missing" in play.output
    assert account.applications[namespace.id].name == gone.name
    assert cloud.chat("drifting", "And now?")[0] == 200

    cloud.worker("drifting").subdomain_enabled = False
    assert "it does not answer to our token" in cloud.deploy("drifting").output
    assert cloud.worker("drifting").subdomain_enabled


def test_destroy_keeps_a_backup_and_leaves_nothing_else(cloud: Cloud) -> None:
    hostname = {
        "hermes_dashboard_hostname": "leaving.example.com",
        "hermes_route_mode": "zone_route",
    }
    cloud.deploy("leaving", **hostname)
    account = cloud.plane.state.accounts[ACCOUNT]
    zone = next(zone for zone in cloud.plane.state.zones.values() if zone.name == "example.com")
    assert zone.routes and zone.records
    start = len(cloud.plane.calls)
    listed = cloud.play(
        "destroy", "leaving", "--check", "-e", "hermes_confirm=yes", "-e", "hermes_forget=yes"
    )
    assert "delete  Worker leaving" in listed.output
    assert "keep    nothing of Hermes' memory (hermes_forget)" in listed.output
    assert "a last backup" not in listed.output
    assert cloud.writes(start) == []

    asked = cloud.play("destroy", "leaving")
    assert asked.code != 0
    assert "nobody confirmed it" in asked.output
    assert cloud.writes(start) == []

    gone = cloud.play("destroy", "leaving", "-e", "hermes_confirm=yes", "-e", "hermes_forget=no")
    assert gone.code == 0, gone.output
    assert "keep    a last backup in" in gone.output
    assert "leaving" not in account.workers
    assert not any("leaving" in one.name for one in account.applications.values())
    assert not zone.routes
    assert not any("leaving" in record["name"] for record in zone.records.values())
    assert not (cloud.home / "leaving").exists()
    (backup,) = (cloud.home / "backups").glob("leaving-*.hermes")
    assert f"BACKUP={backup}" in gone.output


def chat_at(cloud: Cloud, name: str, token: str) -> bool:
    """One chat as a client has it; tells whether it was answered."""
    env = cloud.plane.env
    try:
        answer = requests.post(
            f"https://{name}.acme.workers.dev/v1/chat/completions",
            json={"model": "hermes", "messages": [{"role": "user", "content": "And on."}]},
            headers={"Authorization": f"Bearer {token}"},
            proxies={"https": env["HTTPS_PROXY"]},
            verify=env["REQUESTS_CA_BUNDLE"],
            timeout=180,
        )
        return bool(answer.json()["choices"][0]["finish_reason"] == "stop")
    except (requests.exceptions.RequestException, ValueError, KeyError):
        return False


def test_keys_rotate_without_a_failed_request(cloud: Cloud) -> None:
    cloud.deploy("turning")
    path = cloud.home / "turning" / "api_token"
    old = path.read_text().strip()
    answers: list[bool] = []
    over = threading.Event()

    def go_on() -> None:
        while not over.is_set():
            answers.append(chat_at(cloud, "turning", old))

    client = threading.Thread(target=go_on)
    client.start()
    start = len(cloud.plane.calls)
    keys = {"anthropic_api_key": KEY + "3"}
    play = cloud.play("rotate_keys", "turning", "-e", "hermes_keys=api_token,provider_keys", **keys)
    count = len(answers)
    while len(answers) < count + 2:
        over.wait(0.1)
    over.set()
    client.join()
    assert play.code == 0, play.output
    assert all(answers)
    # An object that kept its secrets is told to take the new ones, once.
    told = [
        "PATCH workers/scripts/turning/secrets-bulk",
        "POST workers/scripts/turning/deployments",
    ]
    assert cloud.writes(start) == told
    held = cloud.worker("turning").current.secrets()
    assert held["ANTHROPIC_API_KEY"] == KEY + "3"
    assert held["API_TOKEN"] == path.read_text().strip() != old
    assert held["API_TOKEN_PREVIOUS"] == old
    assert cloud.deploy("turning", **keys).changed("turning") == 0


def test_a_rotation_that_is_not_proved_goes_back_to_the_version_before(cloud: Cloud) -> None:
    cloud.deploy("turning", anthropic_api_key=KEY + "3")
    before = cloud.worker("turning").current
    cloud.plane.faults.on("POST", r"turning\..*/v1/chat/completions", "error", times=1)
    keys = {"anthropic_api_key": KEY + "4"}
    play = cloud.play("rotate_keys", "turning", "-e", "hermes_keys=api_token,provider_keys", **keys)
    cloud.plane.faults.clear()
    assert play.code != 0
    assert "Taken back: anthropic_api_key, hermes_api_token." in play.output, play.output
    assert cloud.worker("turning").current is before
    assert cloud.deploy("turning", anthropic_api_key=KEY + "3").changed("turning") == 0
