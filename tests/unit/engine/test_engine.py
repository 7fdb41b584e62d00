# SPDX-License-Identifier: Apache-2.0
"""The engine behaves as a container does, the unkind parts too, and leaves nothing behind."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import aiohttp
import pytest
from engine_client import Client, read_frame
from engine_server import Server, add_image, boot, bubblewrap_works, gone, ok
from sandbox_box import KEY, wait_for

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="looks for survivors in /proc"
)


def shell(text: str) -> "tuple[str, ...]":
    return "sh", "-c", text


# Start and end


def test_it_describes_itself_and_what_runs(either: Server) -> None:
    async def test(client: Client) -> None:
        idle = dict.fromkeys(("labels", "image", "ports", "confined"))
        said = {"engine": "process", "diskFree": ANY}
        assert await client.get() == (200, {**said, **idle, "running": False})
        ports = await boot(client, labels={"tenant": "alice"})
        assert set(ports) == {"18789", "9119", "18790"}
        async with aiohttp.ClientSession() as outside:
            answer = await outside.get(f"http://127.0.0.1:{ports['18789']}/health")
            assert (await answer.json(content_type=None))["env"]["API_SERVER_KEY"] == KEY
        assert (await client.get())[1] == {
            **said,
            "running": True,
            "confined": either.confine == "always",
            "labels": {"tenant": "alice"},
            "image": "image-a",
            "ports": ports,
        }

    either.run(test)


def test_only_the_owner_can_connect(server: Server) -> None:
    mode = (server.state / "run" / "engine.sock").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert stat.S_IMODE((server.state / "engine" / "disks").stat().st_mode) == 0o700


def test_of_many_starts_at_once_one_wins(either: Server) -> None:
    async def test(client: Client) -> None:
        answers = await asyncio.gather(
            *(client.post("/start", {"image": "image-a"}) for _ in range(10))
        )
        assert sorted(status for status, _ in answers) == [200] + 9 * [409]
        refusals = {body["error"]["code"] for status, body in answers if status == 409}
        assert refusals == {"already_running"}

    either.run(test)
    assert len(either.disks()) == 1


def test_every_start_has_a_fresh_disk(either: Server) -> None:
    async def test(client: Client) -> None:
        for _ in range(2):
            await boot(client)
            done = await client.exec(*shell("ls -A ~ $TMPDIR; touch ~/kept $TMPDIR/kept"))
            assert b"kept\n" not in done.out
            await client.post("/destroy")
        assert not either.disks()

    either.run(test)


def test_unknown_images_are_named(server: Server) -> None:
    async def test(client: Client) -> None:
        for image in ("missing", "../image-a", None, 7):
            status, body = await client.post("/start", {"image": image})
            assert (status, body["error"]["code"]) == (404, "image_not_found")
            assert repr(image) in body["error"]["message"]
        (server.images / "half").mkdir()  # its image.json, written last, is not there
        assert (await client.post("/start", {"image": "half"}))[0] == 404

    server.run(test)
    assert not server.disks()


def test_what_is_no_order_is_refused_in_the_engines_words(server: Server) -> None:
    async def test(client: Client) -> None:
        for data in (b"no json", b"[]", b'"start"'):
            async with client.session.post("http://engine/start", data=data) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (400, "invalid")
        status, body = await client.get("/nothing")
        assert (status, body["error"]["code"]) == (404, "http")
        assert (await client.get())[1]["running"] is False

    server.run(test)


@pytest.mark.parametrize(
    "body",
    [
        {"env": {"A": 1}},
        {"env": []},
        {"env": {"A=B": "1"}},
        {"labels": {"a": None}},
        {"entrypoint": "sh"},
        {"containerSnapshot": "x"},
    ],
)
def test_a_start_that_cannot_be_meant_is_refused(server: Server, body: dict) -> None:
    async def test(client: Client) -> None:
        assert (await client.post("/start", {"image": "image-a", **body}))[0] == 400
        assert (await client.post("/start", {"image": "image-a"}))[0] == 200

    server.run(test)


def test_without_a_sandbox_there_is_nothing_to_ask(server: Server) -> None:
    async def test(client: Client) -> None:
        for path, body in (
            ("/signal", {"signal": 15}),
            ("/snapshot", {}),
            ("/inactivity-timeout", {"ms": 5}),
        ):
            status, answer = await client.post(path, body)
            assert (status, answer["error"]["code"]) == (409, "not_running")
        assert (await client.get("/monitor"))[0] == 409
        assert (await client.exec("true"))[0] == 409
        assert await client.post("/destroy") == (200, {})
        assert (await client.get("/nothing"))[0] == 404

    server.run(test)


def test_destroy_ends_everything_at_once(either: Server) -> None:
    async def test(client: Client) -> None:
        await boot(client)
        stubborn = "trap '' TERM INT HUP; setsid env -i sleep 5551 & setsid sleep 5552 & sleep 5553"
        running = asyncio.ensure_future(client.exec(*shell(stubborn)))
        processes, memory = await until(lambda: seven(either)), either.memory()
        assert either.confine == "always" or len(memory) == 1
        await asyncio.gather(*(client.post("/destroy") for _ in range(3)))
        await until(lambda: gone(processes))
        assert (await running).code is None  # the stream does not end as a success does
        assert not either.disks()
        assert not any(path.exists() for path in memory)
        assert (await client.get())[1]["running"] is False

    either.run(test)


def test_a_start_can_be_destroyed_while_it_is_under_way(server: Server) -> None:
    async def test(client: Client) -> None:
        await boot(client)
        await client.exec(*shell("head -c 300000000 /dev/zero > ~/large"))
        snapshot = (await client.post("/snapshot"))[1]
        await client.post("/destroy")
        start = asyncio.ensure_future(
            client.post("/start", {"containerSnapshot": {"id": snapshot["id"]}})
        )
        await asyncio.sleep(0.03)
        assert (await client.post("/destroy"))[0] == 200
        assert (await client.get())[1]["running"] is False
        status, body = await start
        assert status == 200 or body["error"]["code"] == "destroyed"
        assert not server.disks()
        assert (await client.post("/start", {"image": "image-a"}))[0] == 200

    server.run(test)


def test_monitor_tells_the_exit_code_of_the_sandbox_that_it_watched(either: Server) -> None:
    async def test(client: Client) -> None:
        await boot(client, labels={"n": "1"})
        watches = [asyncio.ensure_future(client.get("/monitor")) for _ in range(2)]
        await asyncio.sleep(0.5)
        await client.post("/signal", {"signal": 15})
        for watch in watches:
            assert await watch == (200, {"exitCode": 0, "labels": {"n": "1"}})
        assert not either.disks()
        await client.post("/start", {"image": "image-a", "entrypoint": list(shell("exit 7"))})
        assert (await client.get("/monitor"))[1]["exitCode"] == 7

    either.run(test)


def test_a_sandbox_whose_first_process_is_killed_leaves_nothing(either: Server) -> None:
    async def test(client: Client) -> None:
        await boot(client)
        processes = either.processes()
        watch = asyncio.ensure_future(client.get("/monitor"))
        await asyncio.sleep(0.5)
        first = min(processes)
        hidden = {pid for pid in processes if b"4321" in Path(f"/proc/{pid}/cmdline").read_bytes()}
        os.kill(first, signal.SIGKILL)
        assert (await watch)[1]["exitCode"] == 137
        # The one that hid only the killed process could have found, where no namespace holds it.
        left = hidden if either.confine == "never" else set()
        # The kernel ends what is in a namespace one after the other.
        await until(lambda: gone(processes - left))
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not either.disks()

    either.run(test)


# Exec


def test_exec_streams_both_ways_and_tells_the_exit_code(either: Server) -> None:
    async def test(client: Client) -> None:
        await boot(client)
        done = await client.exec(*shell("cat; echo problem >&2; exit 3"), stdin=b"abc" * 100_000)
        assert (done.out, done.err, done.code) == (b"abc" * 100_000, b"problem\n", 3)
        assert done.pid > 0

        told = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b"first\n"
            await told.wait()
            yield b"second\n"

        async with client.open_exec("cat", stdin=slowly()) as answer:
            assert (await read_frame(answer))[0] == 0
            assert await read_frame(answer) == (1, b"first\n")  # before stdin has ended
            told.set()
            assert await read_frame(answer) == (1, b"second\n")
            assert await read_frame(answer) == (3, b"0")

    either.run(test)


def test_exec_takes_environment_folder_and_where_output_goes(either: Server) -> None:
    async def test(client: Client) -> None:
        await boot(client)
        done = await client.exec(*shell("pwd; echo $A"), env={"A": "b"}, cwd="/usr")
        assert done.out == b"/usr\nb\n"
        both = shell("echo out; echo err >&2")
        assert (await client.exec(*both, stderr="combined")).out == b"out\nerr\n"
        assert (await client.exec(*both, stdout="ignore")).out == b""
        assert (await client.exec(*both, stderr="ignore")).err == b""
        nothing = await client.exec(*both, stdout="ignore", stderr="combined")
        assert (nothing.out, nothing.err, nothing.code) == (b"", b"", 0)
        assert (await client.exec(*shell("kill -9 $$"))).code == 137

    either.run(test)


def test_a_command_gets_nothing_of_what_the_start_was_given(either: Server) -> None:
    async def test(client: Client) -> None:
        await boot(client, env={"HERMES_BOOT_ID": "boot-1", "GIVEN": "to PID 1"})
        assert (await client.exec(*shell("echo $GIVEN$HERMES_BOOT_ID"))).out == b"\n"
        assert (await client.exec("sandbox", "status", "--boot", "boot-1")).code == 0

    either.run(test)


def test_exec_refuses_what_it_cannot_run(server: Server) -> None:
    async def test(client: Client) -> None:
        await boot(client)
        status, body = await client.exec("no-such-command")
        assert (status, body["error"]["code"]) == (404, "command_not_found")
        assert (await client.exec("true", cwd="/no/such/folder"))[0] == 404
        for order in (
            {"cmd": []},
            {"cmd": "true"},
            {"cmd": ["a\0b"]},
            {"cmd": ["true"], "env": {"A": 1}},
            {"cmd": ["true"], "cwd": 1},
            {"cmd": ["true"], "stdout": "file"},
            [],
        ):
            data = json.dumps(order).encode() + b"\n"
            async with client.session.post("http://engine/exec", data=data) as answer:
                assert answer.status == 400, order
        for data in (b"", b"no json\n", b"x" * 500_000):
            async with client.session.post("http://engine/exec", data=data) as answer:
                assert answer.status == 400
        assert (await client.exec("true", env={"A": "x" * 100_000})).code == 0

    server.run(test)


def test_a_client_that_goes_away_kills_its_process(either: Server) -> None:
    async def test(client: Client) -> None:
        await boot(client)
        async with client.open_exec(*shell("sleep 7771 & sleep 7772")) as answer:
            assert (await read_frame(answer))[0] == 0
            before = await until(lambda: found if len(found := sleepers(either)) == 2 else None)
            answer.close()
        await until(lambda: gone(before))
        assert (await client.exec("true")).code == 0

    either.run(test)


async def until(true: Callable[[], Any]) -> Any:
    """Return the first true value of `true()`."""
    for _ in range(600):
        if value := true():
            return value
        await asyncio.sleep(0.05)
    raise AssertionError("not within 30 s")


def seven(server: Server) -> "set[int]":
    """Return the processes of a sandbox in which three were started in the background; none before."""
    found = server.processes()
    return found if len(found) >= 7 else set()


def sleepers(server: Server) -> "set[int]":
    found = set()
    for pid in server.processes():
        if b"777" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"sleep")[-1]:
            found.add(pid)
    return {pid for pid in found if b"sh" not in Path(f"/proc/{pid}/comm").read_bytes()}


def test_a_slow_reader_slows_the_process_and_costs_no_memory(server: Server) -> None:
    async def test(client: Client) -> None:
        await boot(client)
        before = rss(server.process.pid)
        async with client.open_exec("head", "-c", "200000000", "/dev/zero") as answer:
            await read_frame(answer)
            await asyncio.sleep(0.5)
            assert rss(server.process.pid) - before < 8_000_000
            size = 0
            while True:
                kind, payload = await read_frame(answer)
                if kind == 3:
                    assert payload == b"0"
                    break
                size += len(payload)
        assert size == 200_000_000

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(400):
                yield bytes(500_000)

        done = await client.exec("wc", "-c", stdin=endless())
        assert done.out.strip() == b"200000000"
        done = await client.exec(*shell("sleep 0.5; exec <&-; echo stopped"), stdin=endless())
        assert (done.out, done.code) == (b"stopped\n", 0)
        assert rss(server.process.pid) - before < 16_000_000

    server.run(test)


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_background_process_does_not_hold_an_exec_open(server: Server) -> None:
    async def test(client: Client) -> None:
        await boot(client)
        done = await client.exec(*shell("echo started; setsid sleep 86400 &"))
        assert (done.out, done.code) == (b"started\n", 0)

    server.run(test)


def test_many_execs_at_once(server: Server) -> None:
    async def test(client: Client) -> None:
        await boot(client)
        numbers = range(30)
        done = await asyncio.gather(
            *(
                client.exec(*shell(f"cat; exit {number}"), stdin=b"%d" % number)
                for number in numbers
            )
        )
        assert [(each.out, each.code) for each in done] == [(b"%d" % n, n) for n in numbers]
        assert len(pipes(server)) <= 2  # its own output may be some

    server.run(test)


def pipes(server: Server) -> "list[str]":
    """Return the pipes that an engine holds open."""
    links = []
    for path in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed while we looked
            links.append(os.readlink(path))
    return [link for link in links if link.startswith("pipe:")]


# Isolation


def test_the_sandbox_knows_nothing_of_the_engine_s_environment(either: Server) -> None:
    async def test(client: Client) -> None:
        await boot(client)
        text = (await client.exec("env")).out.decode()
        names = {line.split("=", 1)[0] for line in text.splitlines()}
        assert Server.SECRET not in text
        assert names <= {
            "PATH",
            "LANG",
            "LC_ALL",
            "TZ",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "HOME",
            "TMPDIR",
            "PWD",
            "HERMES_HOME",
            "HERMES_MANAGED_DIR",
            "HERMES_BOOT_ID",
            "SANDBOX_RUN",
            "SANDBOX_BIND",
            "SANDBOX_CONFINED",
            "SANDBOX_ID",
            "PORT_18789",
            "PORT_9119",
            "PORT_18790",
        }
        if either.confine == "always":
            others = await client.exec(*shell("cat /proc/*/environ"))
            assert Server.SECRET.encode() not in others.out

    either.run(test)


@pytest.mark.skipif(not bubblewrap_works(), reason="bubblewrap does not work here")
def test_bubblewrap_confines_from_the_next_start_after_it_was_installed(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    server = Server(tmp_path / "state", confine="auto")
    server.path = str(programs)

    async def test(client: Client) -> None:
        for installed in (False, True, False):
            if installed:
                (programs / "bwrap").symlink_to(shutil.which("bwrap"))
            else:
                (programs / "bwrap").unlink(missing_ok=True)
            await boot(client)
            assert (await client.get())[1]["confined"] is installed
            hidden = await client.exec("ls", str(programs))
            assert (hidden.code != 0) is installed
            await client.post("/destroy")

    with server:
        server.run(test)


MINE = {str(one) for one in Path(sys.prefix).parents}


@pytest.mark.skipif(not bubblewrap_works(), reason="bubblewrap does not work here")
@pytest.mark.parametrize("either", ["always"], indirect=True)
def test_a_confined_sandbox_sees_only_what_it_needs(either: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret-of-another-deployment"
    secret.write_text("x")

    async def test(client: Client) -> None:
        await boot(client)
        for hidden in (secret, either.state / "run", Path.home() / ".bashrc", Path("/var/log")):
            done = await client.exec("ls", str(hidden))
            assert done.code != 0, hidden
        image = either.images / "image-a"
        for target in ("/usr/x", "/etc/x", "/x", f"{image}/x"):
            assert (await client.exec("touch", target)).code != 0, target
        seen = await client.exec(*shell("ls -d /proc/[0-9]* | wc -l; find /home -maxdepth 1"))
        count, *homes = seen.out.decode().split()
        assert int(count) < 12
        # The program that runs there may be below its owner's home: that path alone is seen.
        assert {"/home", "/home/hermes"} <= set(homes) <= {"/home", "/home/hermes", *MINE}
        assert (await client.exec(*shell("kill -9 1; sleep 0.2; echo still here"))).code == 0

    either.run(test)


# Snapshots


def test_a_snapshot_brings_the_disk_back_and_nothing_else(either: Server) -> None:
    async def test(client: Client) -> None:
        await boot(client)
        await client.exec(
            *shell(
                "echo kept > ~/.hermes/file; chmod 750 ~/.hermes/file; "
                "ln -s file ~/.hermes/link; mkfifo ~/pipe"
            )
        )
        status, snapshot = await client.post("/snapshot", {"name": "before"})
        assert (status, snapshot["name"]) == (200, "before")
        assert snapshot["size"] > 5
        await client.exec(*shell("echo changed > ~/.hermes/file"))  # a copy is no hard link
        await client.post("/destroy")
        start = {"containerSnapshot": {"id": snapshot["id"]}, "env": {"HERMES_BOOT_ID": "boot-2"}}
        assert (await client.post("/start", start))[0] == 200
        await ok(client, "restore", "--keep", boot="boot-2")
        done = await client.exec(
            *shell("cat ~/.hermes/link; stat -c %a ~/.hermes/file; ls $SANDBOX_RUN")
        )
        assert done.out.startswith(b"kept\n750\n")
        assert b"env.json" not in done.out
        assert KEY.encode() not in b"".join(
            path.read_bytes() for path in (either.state / "engine").rglob("*") if path.is_file()
        )

    either.run(test)


def test_a_snapshot_is_consistent_while_hermes_writes(server: Server) -> None:
    async def test(client: Client) -> None:
        await boot(client)
        write = "while :; do echo x >> ~/a; echo x >> ~/b; done"
        writer = asyncio.ensure_future(client.exec(*shell(write)))
        await client.exec(*shell("until [ -s ~/b ]; do sleep 0.05; done; sleep 0.3"))
        _, snapshot = await client.post("/snapshot")
        root = server.state / "engine" / "snapshots" / snapshot["id"] / "disk" / "home"
        first, second = ((root / name).stat().st_size for name in "ab")
        assert first > 10
        assert first - second in (0, 2)
        running = await client.exec(*shell("wc -c < ~/a; sleep 0.3; wc -c < ~/a"))
        assert len(set(running.out.split())) == 2  # it goes on afterwards
        writer.cancel()

    server.run(test)


def test_snapshots_end_and_belong_to_an_image(server: Server) -> None:
    add_image(server.images, "image-b")

    async def test(client: Client) -> None:
        await boot(client)
        taken = [(await client.post("/snapshot"))[1]["id"] for _ in range(4)]
        await client.post("/destroy")

        async def refusal(**body: object) -> str:
            status, answer = await client.post("/start", body)
            assert status == 404
            return answer["error"]["code"]

        newest = {"id": taken[3]}
        assert await refusal(containerSnapshot={"id": taken[0]}) == "snapshot_not_found"
        assert await refusal(containerSnapshot={"id": "0" * 32}) == "snapshot_not_found"
        assert await refusal(containerSnapshot={"id": "../../disks"}) == "snapshot_not_found"
        other = await refusal(containerSnapshot=newest, image="image-b")
        assert other == "snapshot_of_other_image"
        month = time.time() - 30 * 24 * 3600 - 60
        description = server.state / "engine" / "snapshots" / taken[3] / "snapshot.json"
        os.utime(description, (month + 120, month + 120))
        assert (await client.post("/start", {"containerSnapshot": newest}))[0] == 200
        assert description.stat().st_mtime > time.time() - 60  # a restore renews it
        await client.post("/destroy")
        os.utime(description, (month, month))
        assert await refusal(containerSnapshot=newest) == "snapshot_not_found"

    server.run(test)


# The engine's own end


def test_a_killed_engine_takes_everything_with_it(either: Server) -> None:
    async def test(client: Client) -> None:
        await boot(client)
        background = "setsid env -i sleep 6661 & setsid sleep 6662 & sleep 6663"
        async with client.open_exec(*shell(background)) as answer:
            await read_frame(answer)
            test.processes = await until(lambda: seven(either))
            either.kill()

    either.run(test)
    wait_for(lambda: gone(test.processes), 30)
    memory = either.memory()
    assert either.confine == "always" or len(memory) == 1
    either.start()  # on the same folder: finds nothing stale
    assert not either.disks()
    assert not any(path.exists() for path in memory)
    either.run(lambda client: boot(client, boot="boot-2"))


def test_an_engine_and_its_first_process_killed_together_leave_what_the_next_ends(
    server: Server,
) -> None:
    server.run(boot)
    processes = server.processes()
    hidden = {pid for pid in processes if b"4321" in Path(f"/proc/{pid}/cmdline").read_bytes()}
    first = min(processes)
    os.kill(server.process.pid, signal.SIGSTOP)
    os.kill(first, signal.SIGKILL)
    server.kill()
    assert not gone(processes - {first})
    for pid in hidden:
        os.kill(pid, signal.SIGKILL)
    server.start()
    assert gone(processes)
    assert not server.disks()


def test_term_stops_in_an_orderly_way(either: Server) -> None:
    async def test(client: Client) -> None:
        await boot(client)
        test.processes = either.processes()
        watch = asyncio.ensure_future(client.get("/monitor"))
        await asyncio.sleep(0.5)
        either.process.terminate()
        assert (await watch)[1]["exitCode"] == 0

    either.run(test)
    assert either.process.wait(30) == 0
    wait_for(lambda: gone(test.processes), 30)
    assert not either.disks()
    assert not (either.state / "run" / "engine.sock").exists()


def test_a_folder_has_one_engine(server: Server) -> None:
    assert server.refused() == 69
    server.run(boot)


def test_nobody_calling_ends_the_sandbox(server: Server) -> None:
    async def test(client: Client) -> None:
        await boot(client)
        watch = asyncio.ensure_future(client.get("/monitor"))
        assert (await client.post("/inactivity-timeout", {"ms": 1500}))[0] == 200
        for _ in range(4):  # calls put it off, and so does an exec that is under way
            await asyncio.sleep(0.5)
            assert (await client.get())[1]["running"] is True
        await client.exec("sleep", "2")
        assert not watch.done()
        assert (await asyncio.wait_for(watch, 30))[1]["exitCode"] == 0
        await client.post("/start", {"image": "image-a"})
        for milliseconds in (0, -1, 6 * 3600 * 1000 + 1, "5", None):
            status, _ = await client.post("/inactivity-timeout", {"ms": milliseconds})
            assert status == 400

    server.run(test)


def test_a_full_disk_is_told_apart_and_leaves_nothing(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root")
    state = tmp_path / "state"
    with Server(state) as server:

        async def fill(client: Client) -> str:
            await boot(client)
            await client.exec(*shell("head -c 9000000 /dev/zero > ~/large"))
            identity = (await client.post("/snapshot"))[1]["id"]
            await client.post("/destroy")
            return identity

        identity = server.run(fill)
        disks = state / "engine" / "disks"
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "small", str(disks)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("this machine does not let root mount")
        try:

            async def test(client: Client) -> None:
                status, body = await client.post("/start", {"containerSnapshot": {"id": identity}})
                assert (status, body["error"]["code"]) == (507, "disk_full")
                assert not server.disks()
                assert (await client.post("/start", {"image": "image-a"}))[0] == 200
                await client.post("/destroy")

            server.run(test)
        finally:
            subprocess.run(["umount", str(disks)], check=True)


def test_it_is_small(server: Server) -> None:
    rollup = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text()
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss < 30_000  # KiB
