# SPDX-License-Identifier: Apache-2.0
"""Kill what can be killed: the next chat is answered, and the conversation is remembered."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from plays import Deployment, wait_until

from tests.processes import alive


def processes(deployment: Deployment) -> dict[str, psutil.Process]:
    """The processes of one deployment by what they are: its supervisor's descendants."""
    marks = {"workerd": " serve ", "engine": "--socket run/engine.sock", "hermes": "gateway run"}
    found = {}
    for one in deployment.running():
        line = " ".join(one.words)
        found.update({name: one.process for name, mark in marks.items() if mark in line})
    return found | {"supervisor": deployment.supervisor()}


def saved_generation(deployment: Deployment) -> str:
    """Which state the vault holds as its newest; empty when none."""
    backups = deployment.call("GET", "/api/instance/backups").json["backups"]
    return max((str(backup["id"]) for backup in backups), default="")


@pytest.mark.parametrize("victim", ["hermes", "workerd", "engine", "supervisor"])
def test_killed_process_is_back_with_its_memory(deployment: Deployment, victim: str) -> None:
    session = f"kill-{victim}"
    deployment.chat("My boat is called Halcyon.", session=session)
    taken = deployment.call("POST", "/api/instance/backups")
    assert taken.status in (200, 201), taken.text

    killed = processes(deployment)[victim]
    killed.kill()
    if victim == "supervisor":
        # Its guardian starts another, which ends the workerd that it left and begins anew.
        wait_until(lambda: pid_of(deployment) not in (0, killed.pid), "another supervisor")

    answer = deployment.chat("What did I say first?", session=session)
    assert answer.status == 200, answer.text
    assert 'You began with: "My boat is called Halcyon."' in answer.said
    assert "Turn 2" in answer.said


def test_a_turn_reaches_the_vault_without_being_asked(deployment: Deployment) -> None:
    before = saved_generation(deployment)
    deployment.chat("Remember the checkpoint.", session="checkpoint")
    wait_until(lambda: saved_generation(deployment) != before, "a checkpoint after a turn", 60)


def test_memory_outlives_sleep_and_restart(deployment: Deployment) -> None:
    deployment.chat("The code word is plover.", session="sleeper")
    assert deployment.call("POST", "/api/instance/sleep").status == 200
    assert deployment.instance_state() == "asleep"
    assert "plover" in deployment.chat("And now?", session="sleeper").said
    assert deployment.call("POST", "/api/instance/restart").status == 200
    answer = deployment.chat("And after a restart?", session="sleeper")
    assert "Turn 3" in answer.said and "plover" in answer.said


def test_fifty_at_once_on_a_sleeping_instance_make_one_boot(deployment: Deployment) -> None:
    deployment.call("POST", "/api/instance/sleep")
    boots = deployment.status()["boots"]

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda n: deployment.chat(f"I am number {n}."), range(50)))

    assert [answer.status for answer in answers] == [200] * 50
    for number, answer in enumerate(answers):
        assert f'"I am number {number}."' in answer.said
    assert deployment.status()["boots"] == boots + 1


def test_restart_gateway_lets_a_stream_finish(deployment: Deployment) -> None:
    text = "tell me slowly " * 40
    body = {"model": "hermes", "stream": True, "messages": [{"role": "user", "content": text}]}
    with deployment.open("POST", "/v1/chat/completions", body) as response:
        response.readline()
        with ThreadPoolExecutor(1) as pool:
            restart = pool.submit(deployment.call, "POST", "/api/instance/restart-gateway")
            rest = response.read().decode()
            assert restart.result().status == 200
    assert rest.rstrip().endswith("data: [DONE]")
    assert deployment.chat("Back again?").status == 200


def test_stop_and_wake(deployment: Deployment) -> None:
    assert deployment.call("POST", "/api/instance/stop").status == 200
    assert "hermes" not in processes(deployment)
    assert deployment.call("POST", "/api/instance/wake").status == 200
    assert deployment.instance_state() == "awake"
    assert deployment.chat("Hello?").status == 200


def test_a_lost_storage_is_not_deployed_over(deployment: Deployment) -> None:
    deployment.chat("The garden gate is green.", session="gate")
    assert deployment.play("backup").code == 0
    assert deployment.play("verify").code == 0
    deployment.supervisor().terminate()
    wait_until(lambda: not alive(pid_of(deployment)), "the supervisor's end")
    for path in deployment.state.glob("storage/hermes-instance/*.sqlite*"):
        path.write_bytes(b"")

    refused = deployment.play("deploy")
    assert refused.code != 0
    assert "is empty; it had" in refused.output
    assert "BACKUP=" in refused.output
    assert "Nothing was changed." in refused.output
    assert not alive(pid_of(deployment))
    assert "is empty" in deployment.play("status").output

    deployment.deploy("-e", "hermes_forget=true")
    assert deployment.play("restore", "-e", "hermes_backup=newest").code == 0
    assert "green" in deployment.chat("What did I say of the gate?", session="gate").said
    deployment.deploy()


def pid_of(deployment: Deployment) -> int:
    """The supervisor that ran last; 0 while it is being written down."""
    record = (deployment.state / "run" / "supervisor.json").read_text()
    return int(json.loads(record)["pid"]) if record.endswith("}") else 0
