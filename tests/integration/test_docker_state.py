# SPDX-License-Identifier: Apache-2.0
"""What Hermes knows outlives its container: sleeps, image changes, a lost snapshot, a damaged backup."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.state.backups import PART
from appointments import use
from contained import (
    DECLARED,
    HOME,
    Contained,
    assert_declared,
    in_container,
    keeps_an_appointment,
    speaking_to,
)
from plays import PLAYBOOK, ROOT, Deployment, Play, run, wait_until
from turns import BY_GIT, BY_RIPGREP, TOUCHING_NO_MACHINE, TOUCHING_THE_MACHINE

from tests.docker.engine import Docker
from tests.standins.provider import Provider

MEMORY = "The owner collects barometers."
ERRAND = "Water the ferns."
WISH = "Wish a happy new year."
SERVERS = {"time": {"command": "python3", "args": ["-m", "mcp_server_time"]}}
"""Their feature makes another image."""
TOKYO = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
TURNS = TOUCHING_NO_MACHINE + TOUCHING_THE_MACHINE + BY_RIPGREP + BY_GIT
FILE = "/root/notes.txt"
GENERATIONS = 3
"""Backups that the vault keeps."""
SNAPSHOTS = 2
"""Snapshots that the cleaner leaves."""


@pytest.fixture(scope="module")
def lasting(
    make_deployment: Callable[..., Deployment],
    docker: Docker,
    base: str,
    sidecar: str,
    provider: Provider,
) -> Contained:
    """A Hermes that was told something, and made to write a memory, a file and a cron job."""
    variables = in_container(docker, base, sidecar) | speaking_to(provider) | DECLARED
    lasting = Contained.deployed(make_deployment, "lasting", docker, **variables)
    made = lasting.deployment
    made.chat("My boat is called Halcyon.", session="first")
    use(made, "memory", action="add", target="memory", content=MEMORY)
    use(made, "write_file", path=FILE, content="Barometers rise.\n")
    use(made, "cronjob", action="create", name="yearly", schedule="0 0 1 1 *", prompt=WISH)
    return lasting


def told(provider: Provider, said: str) -> str:
    """All that the model was told by the request in which somebody said this last."""
    asked = [seen.body["messages"] for seen in provider.seen if seen.body]
    found = [messages for messages in asked if said in json.dumps(messages[-1])]
    assert found, f"nobody said {said!r} to the model"
    return json.dumps(found[-1])


def told_last(provider: Provider) -> str:
    """What came last in all that the model was told."""
    bodies = [seen.body for seen in provider.seen if seen.body]
    return json.dumps(bodies[-1]["messages"][-1])


def told_of_debian(deployment: Deployment) -> dict[str, Any]:
    """What Hermes says of the packages of Debian in its sandbox, by name."""
    running = deployment.call("GET", "/api/instance/agent").json["running"]
    return dict(running["packages"]["debian"])


def assert_all_is_there(lasting: Contained, provider: Provider) -> None:
    question = f"Do you remember? {secrets.token_hex(4)}"
    assert lasting.deployment.chat(question, session="first").status == 200
    assert "Halcyon" in told(provider, question), "the conversation is lost"
    question = f"What do I collect? {secrets.token_hex(4)}"
    assert lasting.deployment.chat(question).status == 200
    prompt = told(provider, question)
    assert MEMORY in prompt, "the memory is lost"
    jobs = lasting.inside("cat", f"{HOME}/cron/jobs.json")
    assert WISH in jobs, "the cron job is lost"
    assert_declared(lasting, prompt)


def has_file(lasting: Contained) -> bool:
    return "Barometers rise." in lasting.inside("cat", FILE, check=False)


def test_all_of_it_outlives_a_sleep(lasting: Contained, provider: Provider) -> None:
    lasting.sleep()
    assert_all_is_there(lasting, provider)
    assert has_file(lasting)
    assert lasting.deployment.status()["restored"]["snapshot"] is not None


def test_a_job_that_is_due_while_it_sleeps_runs_in_time_and_once(
    lasting: Contained, provider: Provider
) -> None:
    keeps_an_appointment(lasting, provider, ERRAND)
    assert_all_is_there(lasting, provider)


def test_a_job_runs_with_a_key_that_hermes_holds(
    lasting: Contained, provider: Provider, docker: Docker
) -> None:
    """It speaks to the provider by itself then, out of its container."""
    before = dict(lasting.deployment.variables)
    with Provider(provider.key, host=docker.gateway) as reached:
        direct = speaking_to(reached) | {"hermes_provider_keys": "environment"}
        lasting.deployment.variables.update(direct)
        lasting.deployment.deploy()
        keeps_an_appointment(lasting, reached, f"{ERRAND} With a key of your own.")
    lasting.deployment.variables.clear()
    lasting.deployment.variables.update(before)
    lasting.deployment.deploy()


def engine_of(deployment: Deployment) -> dict[str, Any]:
    """The variables that say where a deployment's containers are."""
    return {
        name: value
        for name, value in deployment.variables.items()
        if name.endswith(("_engine", "_socket", "_image"))
    }


def is_the_personal_assistant(it: Deployment) -> None:
    """The inventory of the documentation, in a container of the same image, a second time unchanged, and gone again."""
    own = {name: value for name, value in it.host().items() if name.endswith(("port", "_dir"))}
    words = ["-i", "inventories/personal", "-e", json.dumps(own | it.variables)]
    for is_new in (True, False):
        done = run([PLAYBOOK, "playbooks/deploy.yml", *words])
        assert done.returncode == 0, done.stdout
        assert "a soul, 2 skills, 1 job, 1 server with 2 tools, settings" in done.stdout
        assert "building" not in done.stdout, "it shares the image"
        assert (Play(0, done.stdout).changed("ada") > 0) is is_new
    forget = {"hermes_confirm": "yes", "hermes_forget": True}
    gone = run([PLAYBOOK, "playbooks/destroy.yml", *words, "-e", json.dumps(forget)])
    assert gone.returncode == 0, gone.stdout


def test_a_new_image_takes_over_with_the_state_and_the_old_one_goes(
    make_deployment: Callable[..., Deployment], lasting: Contained, provider: Provider
) -> None:
    deployment, engine = lasting.deployment, lasting.engine
    deployment.call("POST", "/api/instance/wake")
    old = lasting.image()
    # Somebody else in this engine goes on with the old image.
    claimed = f"{old}-somebody-0123456789ab"
    engine("tag", old, claimed)
    try:
        deployment.variables |= {
            "hermes_mcp_servers": SERVERS,
            "hermes_features": ["git", "search", "web"],
        }
        play = deployment.deploy()
        assert "restarting Hermes in a new sandbox, because of a new image" in play.output
        assert lasting.image() != old
        assert engine.inspect(lasting.hermes)["Config"]["Image"] == lasting.image()
        assert_all_is_there(lasting, provider)
        assert not has_file(lasting), "the disk is of the old image"
        assert engine.inspect(old), "somebody still claims it"
        assert "1 server with 2 tools" in play.output
        use(deployment, "mcp__time__convert_time", **TOKYO)
        assert "21:00" in told_last(provider), "what the server answered"
        for tool, arguments, comes_back in TURNS:
            use(deployment, tool, **arguments)
            told = told_last(provider)
            assert comes_back in told and '\\"error\\": \\"' not in told, tool

        is_the_personal_assistant(make_deployment("ada", **engine_of(deployment)))

        git = told_of_debian(deployment)["git"]
        locked = json.loads((ROOT / "container" / "debian.json").read_text())["packages"]["git"]
        assert f"/git_{git['version'].rpartition(':')[2]}_" in locked["path"]
        assert git["other"] == []
        lasting.inside("sh", "-c", "echo >> /usr/bin/git")
        assert told_of_debian(deployment)["git"]["other"] == ["usr/bin/git"]

        del deployment.variables["hermes_mcp_servers"], deployment.variables["hermes_features"]
        play = deployment.deploy()
        assert lasting.image() == old
        assert "building" not in play.output, "it was still there"
        assert_all_is_there(lasting, provider)
    finally:
        engine("rmi", claimed)


def test_a_backup_goes_back_in_parts_and_after_a_cut_only_the_rest_of_it(
    lasting: Contained, provider: Provider
) -> None:
    deployment = lasting.deployment
    deployment.call("POST", "/api/instance/wake")
    bulk = f"{HOME}/memories/bulk"
    lasting.inside("dd", "if=/dev/urandom", f"of={bulk}", "bs=1M", "count=20")
    written = lasting.inside("sha256sum", bulk)
    play = deployment.play("backup")
    assert play.code == 0, play.output
    (kept,) = (deployment.home / "backups").glob(f"{deployment.name}-*.hermes")
    lasting.inside("rm", bulk)

    content = kept.read_bytes()
    place = f"/api/instance/backups/uploads/{hashlib.sha256(content).hexdigest()}"
    parts = [content[:PART], content[PART:]]
    assert put(deployment, place, 0, parts[0]) == 200
    put(deployment, place, 1, parts[1], cut=True)
    play = deployment.play("restore", "-e", f"hermes_backup={kept}")
    assert play.code == 0, play.output
    assert "1 of 2 parts are there already" in play.output
    assert lasting.inside("sha256sum", bulk) == written
    assert_all_is_there(lasting, provider)

    def taken() -> list[str]:
        log = lasting.events().splitlines()
        lines = [json.loads(line) for line in log if '"event":"request"' in line and place in line]
        return [one["route"][-1] for one in lines if (one["method"], one["status"]) == ("PUT", 200)]

    wait_until(lambda: taken() == ["0", "1"], "each part was sent once")
    lasting.inside("rm", bulk)
    kept.unlink()


def put(deployment: Deployment, place: str, n: int, part: bytes, cut: bool = False) -> int:
    """Send one of two parts, or break off in the middle of it; returns the status, 0 where there is none."""
    path = f"{place}/{n}?parts=2&sha256={hashlib.sha256(part).hexdigest()}"
    connection = HTTPConnection("127.0.0.1", deployment.port, timeout=60)
    with closing(connection):
        connection.putrequest("PUT", path)
        connection.putheader("Authorization", f"Bearer {deployment.token}")
        connection.putheader("Content-Length", str(len(part)))
        connection.endheaders(part[: len(part) // 2] if cut else part)
        return 0 if cut else connection.getresponse().status


def test_without_its_snapshot_it_wakes_from_the_vault(
    lasting: Contained, provider: Provider
) -> None:
    lasting.sleep()
    lasting.engine("rmi", *lasting.snapshots())
    assert_all_is_there(lasting, provider)
    restored = lasting.deployment.status()["restored"]
    assert restored["snapshot"] is None and restored["backup"] is not None
    assert "snapshot" in restored["passedOver"][0]


def test_a_damaged_backup_is_passed_over_and_said_so(
    lasting: Contained, provider: Provider
) -> None:
    deployment = lasting.deployment
    deployment.call("POST", "/api/instance/backups")
    deployment.variables["hermes_soul"] = {"text": "You live in a windmill."}
    deployment.deploy()
    deployment.chat("This is in the damaged backup alone.", session="damaged")
    lasting.sleep()
    lasting.engine("rmi", *lasting.snapshots())
    newest = deployment.call("GET", "/api/instance/backups").json["backups"][0]["id"]
    damage(deployment, newest)

    assert_all_is_there(lasting, provider)
    restored = deployment.status()["restored"]
    assert restored["backup"] < newest
    assert f"backup {newest}" in " ".join(restored["passedOver"])
    backups = deployment.call("GET", "/api/instance/backups").json["backups"]
    assert [b["state"] for b in backups if b["id"] == newest] == ["damaged"]
    wait_until(lambda: "backup_passed_over" in lasting.events(), "the log has it")


def damage(deployment: Deployment, backup: int) -> None:
    """Overwrite the bytes of a backup where workerd keeps them."""
    folder = deployment.state / "storage" / "hermes-instance"
    (path,) = [p for p in folder.glob("*.sqlite") if p.name != "metadata.sqlite"]
    with closing(sqlite3.connect(path, timeout=20)) as database:
        order = "UPDATE chunks SET data = zeroblob(length(data)) WHERE generation = ?"
        assert database.execute(order, (backup,)).rowcount > 0
        database.commit()


def test_sleeping_again_and_again_piles_nothing_up(lasting: Contained) -> None:
    """Five times after the first few here, a hundred times in the benchmark `soak`."""

    def sleep(rounds: range) -> dict[str, int]:
        for number in rounds:
            assert lasting.deployment.chat(f"Round {number}.").status == 200
            lasting.sleep()
        return lasting.holdings()

    few = sleep(range(GENERATIONS))
    few["images"] = len(lasting.images()) - len(lasting.snapshots()) + SNAPSHOTS
    sleep(range(5))
    wait_until(
        lambda: all(count <= few[what] for what, count in lasting.holdings().items()),
        f"not more than {few}",
        seconds=90,
    )
