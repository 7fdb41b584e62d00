# SPDX-License-Identifier: Apache-2.0
"""Plain calls leave at Cloudflare what real wrangler leaves; and what a fleet of them does where things go wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from plays import PLAYBOOK, ROOT, clean_environment, run

from tests.cloudflare import ControlPlane
from tests.cloudflare.accounts import Worker
from tests.cloudflare.stub import StubEdge

ACCOUNTS = {"wrangler": "1" * 32, "plain": "2" * 32}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("plane"), edge=StubEdge) as plane:
        for name, account in ACCOUNTS.items():
            plane.add_account(account, f"token-of-{name}", subdomain=name)
            tag = Sources().container_image("")
            plane.registry.add_image(f"{account}/hermes-workers", tag)
        yield plane


def command(home: Path, uploader: str, *names: str, **variables: Any) -> list[str]:
    """A deploy of some hosts by plain calls or by wrangler, each in an account of its own."""
    host = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "hermes_uploader": uploader,
        "hermes_account_id": ACCOUNTS[uploader],
        "cloudflare_api_token": f"token-of-{uploader}",
        "hermes_state_dir": str(home),
        "anthropic_api_key": "the-same-key-for-both",
        "hermes_env": {"QUOTED": 'a "quote", an \u00e4 and a \\ backslash'},
        **variables,
    }
    inventory = home / f"inventory-{uploader}.json"
    hosts = {name: {} for name in names}
    inventory.write_text(json.dumps({"all": {"hosts": hosts, "vars": host}}))
    return [str(PLAYBOOK), "playbooks/deploy.yml", "-i", str(inventory)]


def run_at(plane: ControlPlane, words: list[str]) -> subprocess.CompletedProcess[str]:
    return run(words, env=clean_environment(**plane.env))


def deploy(plane: ControlPlane, home: Path, uploader: str, *names: str, **variables: Any) -> None:
    done = run_at(plane, command(home, uploader, *names, **variables))
    assert done.returncode == 0, done.stdout


def told(plane: ControlPlane, uploader: str, **more: Any) -> dict[str, Any]:
    """What the account holds of the Worker, without what differs between any two accounts."""
    account = plane.state.accounts[ACCOUNTS[uploader]]
    worker: Worker = account.workers["same"]
    version = worker.current
    # The version is a digest of the configuration, which names the account.
    bindings = [one for one in version.bindings if one["name"] != "WORKER_VERSION"]
    metadata = {**version.metadata, "bindings": sorted(bindings, key=lambda one: one["name"])}
    (application,) = [one for one in account.applications.values() if one.name == "same-hermes"]
    seen = {
        "metadata": metadata,
        "modules": [(one.name, one.content_type, one.content) for one in version.modules],
        "namespaces": [(one.class_name, one.sqlite) for one in worker.namespaces.values()],
        "migration": worker.migration_tag,
        "versions": len(worker.versions),
        "tags": worker.tags,
        "address": (worker.subdomain_enabled, worker.previews_enabled),
        "application": application.name,
        "logs": application.observability,
        **more,
    }
    return json.loads(json.dumps(seen, default=repr).replace(account.id, "ACCOUNT"))


def test_plain_calls_leave_what_wrangler_leaves(plane: ControlPlane, home: Path) -> None:
    """The state folder is the same for both, so that the rendered paths are."""
    other = {"hermes_sleep_after": "1h", "anthropic_api_key": "another-key"}
    for change in ({}, {**other, "hermes_soul": "You are kind.\nAnd brief.\n"}):
        for uploader in ACCOUNTS:
            # As an application that an earlier release made.
            for one in plane.state.accounts[ACCOUNTS[uploader]].applications.values():
                one.observability = None
            token = {"hermes_api_token": "the-same-token-for-both"}
            deploy(plane, home, uploader, "same", **token, **change)
            shutil.rmtree(home / "same")
        plain, original = told(plane, "plain"), told(plane, "wrangler")
        for part in original.keys() | plain.keys():
            assert plain.get(part) == original.get(part), part
        declared = [one for one in plain["modules"] if one[0] == "agent.tar.gz"]
        assert bool(declared) is ("hermes_soul" in change), "it travels with the version"
        assert plain["logs"] == {"logs": {"enabled": False}}, "what Hermes prints is not kept there"
        assert plain["metadata"]["code_update_strategy"] == {"mode": "immediate"}


@pytest.mark.parametrize("uploader", ACCOUNTS)
def test_an_image_or_a_version_that_is_not_ready_yet(
    plane: ControlPlane, home: Path, uploader: str
) -> None:
    words = command(home, uploader, "slow")
    workers = plane.state.accounts[ACCOUNTS[uploader]].workers
    plane.preparations[:] = ["pending", "error"]
    failed = run_at(plane, words)
    assert failed.returncode != 0
    assert re.search(r"^slow: FAILED\n  slow: .*image", failed.stdout, re.MULTILINE), failed.stdout
    assert "The image could not be converted for the Containers runtime." in failed.stdout
    assert "slow | Cloudflare is preparing the image, 0 s" in failed.stdout
    assert "Nothing was changed." in failed.stdout
    assert plane.preparations == []
    assert "slow" not in workers

    plane.preparations[:] = ["pending"]
    plane.unready_versions = 1
    done = run_at(plane, words)
    assert done.returncode == 0, done.stdout
    assert (plane.preparations, plane.unready_versions) == ([], 0), "both were met"
    assert len(workers["slow"].versions) == 1, "nothing was uploaded twice"
    shutil.rmtree(home / "slow")


def test_plain_calls_are_few(plane: ControlPlane, home: Path) -> None:
    """Fifty first deployments have to stay far below Cloudflare's 1,200 calls in five minutes."""
    start = len(plane.calls)
    deploy(plane, home, "plain", "few")
    shutil.rmtree(home / "few")
    calls = [one for one in plane.calls[start:] if one.host == "api.cloudflare.com"]
    of_the_account = 10
    assert len(calls) <= of_the_account + 12, [str(one) for one in calls]


FLEET = [f"fleet-{number}" for number in range(6)]


@pytest.fixture
def fleet(plane: ControlPlane, home: Path) -> Iterator[list[str]]:
    """The words of a deploy of six, which were never deployed before."""
    yield command(home, "plain", *FLEET)
    plane.faults.clear()
    account = plane.state.accounts[ACCOUNTS["plain"]]
    for name in FLEET:
        account.workers.pop(name, None)
        shutil.rmtree(home / name, ignore_errors=True)
    account.applications = {
        key: one for key, one in account.applications.items() if not one.name.startswith("fleet-")
    }


def is_whole(plane: ControlPlane, home: Path) -> None:
    """Each has one Worker, one application, and the token that its owner finds."""
    account = plane.state.accounts[ACCOUNTS["plain"]]
    names = [one.name for one in account.applications.values() if one.name.startswith("fleet-")]
    assert sorted(names) == [f"{name}-hermes" for name in FLEET]
    for name in FLEET:
        kept = (home / name / "api_token").read_text().strip()
        assert account.workers[name].current.secrets()["API_TOKEN"] == kept
        assert set(account.workers[name].tags) == {"hermes.workers", f"hermes.workers:{name}"}


def test_where_answers_are_lost_and_calls_are_too_many_the_next_run_is_through(
    plane: ControlPlane, home: Path, fleet: list[str]
) -> None:
    plane.faults.every(10, "cut-after")
    plane.faults.every(25, "rate-limit")
    # Which calls are hit depends on how the deployments take turns; each run does what those before did not.
    for _ in range(8):
        done = run_at(plane, fleet)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stdout
    is_whole(plane, home)
    plane.faults.clear()
    assert "No changes. 0 calls written." in run_at(plane, fleet).stdout


def test_a_controller_that_is_killed_half_way_leaves_nothing_that_the_next_run_does_twice(
    plane: ControlPlane, home: Path, fleet: list[str]
) -> None:
    account = plane.state.accounts[ACCOUNTS["plain"]]
    with subprocess.Popen(
        fleet,
        cwd=ROOT,
        env=clean_environment(**plane.env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as play:
        while play.poll() is None and sum(name in account.workers for name in FLEET) < 3:
            time.sleep(0.02)
        os.killpg(play.pid, signal.SIGKILL)
    uploaded = {name for name in FLEET if name in account.workers}
    assert uploaded
    tokens = {name: account.workers[name].current.secrets()["API_TOKEN"] for name in uploaded}
    for name, token in tokens.items():
        assert (home / name / "api_token").read_text().strip() == token, "the owner gets in"
    done = run_at(plane, fleet)
    assert done.returncode == 0, done.stdout
    is_whole(plane, home)
    for name, token in tokens.items():
        assert account.workers[name].current.secrets()["API_TOKEN"] == token


def left_behind(
    plane: ControlPlane, home: Path, name: str, changes: str
) -> tuple[list[str], list[str]]:
    """Have a play that changes a secret cut before the object has it; returns a deploy's words, and that play's."""
    deploy(plane, home, "plain", name)
    worker: Worker = plane.state.accounts[ACCOUNTS["plain"]].workers[name]
    words = command(home, "plain", name, anthropic_api_key="another-key")
    again = [words[0], f"playbooks/{changes}.yml", *words[2:]]
    assert worker.serving.trigger != "secret"
    # The secrets are there, and nobody can tell the object to take them.
    plane.faults.on("POST", rf"/{name}/deployments", "refused")
    cut = run_at(plane, again)
    plane.faults.clear()
    assert cut.returncode != 0, cut.stdout
    assert worker.serving.secrets()["ANTHROPIC_API_KEY"] == "another-key"
    assert worker.serving.trigger == "secret"
    return words, again


@pytest.mark.parametrize("changes", ["deploy", "rotate_keys"])
def test_what_a_run_that_was_cut_left_to_the_object_the_next_one_brings(
    plane: ControlPlane, home: Path, changes: str
) -> None:
    """Not Cloudflare, five minutes later: until then an object in use keeps its secrets of before."""
    name = f"behind-{changes.partition('_')[0]}"
    words, again = left_behind(plane, home, name, changes)
    worker: Worker = plane.state.accounts[ACCOUNTS["plain"]].workers[name]
    done = run_at(plane, again)
    assert done.returncode == 0, done.stdout
    last = worker.deployments[-1]
    assert last.code_update_strategy.get("mode") == "immediate", "it was waited for"
    assert last.version is worker.deployments[-2].version, "nothing is written twice"
    unchanged = run_at(plane, words)
    assert "No changes. 0 calls written." in unchanged.stdout, unchanged.stdout


def test_of_what_a_run_that_was_cut_left_to_the_object_a_proof_tells_and_waits_for_nobody(
    plane: ControlPlane, home: Path
) -> None:
    """It changes nothing, so that it would be proved once Cloudflare has brought the object what it lacks."""
    words, _ = left_behind(plane, home, "behind-verify", "deploy")
    start = len(plane.calls)
    told = run_at(plane, [words[0], "playbooks/verify.yml", *words[2:]])
    assert told.returncode != 0, told.stdout
    assert (
        "its Durable Object still runs with the code, settings or secrets of before" in told.stdout
    )
    assert re.search(r"run `.*deploy.*`; it brings it what it lacks", told.stdout), told.stdout
    assert plane.writes(start) == []
    assert not [one for one in plane.calls[start:] if "/v1/chat/" in str(one)], "nobody is asked"


def rotation(fleet: list[str]) -> list[str]:
    """The words that rotate the fleet's API tokens."""
    return [str(PLAYBOOK), "playbooks/rotate_keys.yml", *fleet[2:], "-e", "hermes_keys=api_token"]


@contextmanager
def chatting(plane: ControlPlane, home: Path) -> Iterator[list[int]]:
    """A client for each of the fleet that chats with the token its owner finds; yields the statuses of the answers."""
    statuses: list[int] = []
    over = threading.Event()
    context = ssl.create_default_context(cafile=plane.env["SSL_CERT_FILE"])
    proxy = ProxyHandler({"https": plane.env["HTTPS_PROXY"]})
    opener = build_opener(proxy, HTTPSHandler(context=context))
    body = json.dumps({"model": "hermes", "messages": [{"role": "user", "content": "And on."}]})

    def chat(name: str) -> None:
        url = f"https://{name}.plain.workers.dev/v1/chat/completions"
        while not over.is_set():
            token = (home / name / "api_token").read_text().strip()
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            try:
                with opener.open(Request(url, body.encode(), headers), timeout=60) as answer:
                    statuses.append(answer.status)
            except HTTPError as error:
                statuses.append(error.code)
            except OSError:
                statuses.append(-1)
            over.wait(0.05)

    with ThreadPoolExecutor(len(FLEET)) as pool:
        clients = [pool.submit(chat, name) for name in FLEET]
        try:
            yield statuses
        finally:
            over.set()
    for client in clients:
        client.result()


def test_a_rotation_that_is_killed_and_loses_answers_locks_nobody_out(
    plane: ControlPlane, home: Path, fleet: list[str]
) -> None:
    assert run_at(plane, fleet).returncode == 0
    old = {name: (home / name / "api_token").read_text() for name in FLEET}
    with chatting(plane, home) as statuses:
        plane.faults.every(10, "cut-after")
        with subprocess.Popen(
            rotation(fleet),
            cwd=ROOT,
            env=clean_environment(**plane.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        ) as play:
            while play.poll() is None and not any(
                (home / name / "rotation.json").exists() for name in FLEET
            ):
                time.sleep(0.005)
            os.killpg(play.pid, signal.SIGKILL)
        assert any((home / name / "rotation.json").exists() for name in FLEET)
        for _ in range(3):
            done = run_at(plane, rotation(fleet))
            if done.returncode == 0:
                break
        assert done.returncode == 0, done.stdout
    assert len(statuses) > len(FLEET)
    assert set(statuses) == {200}
    is_whole(plane, home)
    for name in FLEET:
        assert (home / name / "api_token").read_text() != old[name]
        assert not (home / name / "rotation.json").exists()
