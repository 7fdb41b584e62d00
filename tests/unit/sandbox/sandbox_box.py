# SPDX-License-Identifier: Apache-2.0
"""A sandbox for tests: an image folder with a stand-in for Hermes, a disk and a run folder."""

import ctypes
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.measured import measure_sandbox
from tests.processes import alive
from tests.standins.ports import free_port

CONTAINER = Path(__file__).resolve().parents[3] / "container"
KEY = "gateway-key-of-this-boot-0123456789"
TOKEN = "dashboard-token-of-this-boot-0123456789"
RUNS_A_PROGRAM = """import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def lay_out(image: Path) -> Path:
    """Make an image folder whose `hermes` is the stand-in."""
    shutil.copytree(
        CONTAINER / "sandbox", image / "sandbox", ignore=shutil.ignore_patterns("__pycache__")
    )
    here = Path(__file__)
    shutil.copy(
        here.with_name("fake_dashboard.py"), image / "sandbox" / "in_hermes" / "serve_dashboard.py"
    )
    (image / "sandbox" / "in_hermes" / "run_program.py").write_text(RUNS_A_PROGRAM)
    shutil.copy(CONTAINER / "start-hermes.sh", image / "start-hermes.sh")
    (image / "bin").mkdir()
    programs = image / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    shutil.copy(here.with_name("fake_hermes.py"), programs / "hermes")
    (programs / "hermes").chmod(0o755)
    write_program(
        image / "bin" / "sandbox",
        """root=${0%/bin/sandbox}
exec "$root/venv/bin/python" -I -S "$root/sandbox" "$@"
""",
    )
    measure_sandbox(image)
    return image


def write_program(path: Path, text: str) -> None:
    """Write a shell script."""
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)


def carrying(variable: str) -> "list[int]":
    """Return the live processes that were started with NAME=value in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and variable.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if alive(pid)]


def wait_for(condition: "object", seconds: float = 60.0) -> "object":
    """Return the first true value of `condition()`; fail after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not reached within {seconds} s")


class Box:
    """One boot of a sandbox. `boot` is its id, `home` Hermes' home, `run` the run folder."""

    def __init__(self, folder: Path, boot: str = "boot-1") -> None:
        self.folder = folder
        self.boot = boot
        self.image = lay_out(folder / "image")
        self.home = folder / "disk" / "home" / ".hermes"
        self.run = folder / "run"
        self.port = free_port()
        self.dashboard_port = free_port()
        self.confined = True
        self.more: dict[str, str] = {}
        # What stands for modules of Hermes', where a program of the sandbox needs some.
        self.modules: Path | None = None
        self.process: subprocess.Popen | None = None
        self.pipe = -1
        self.home.parent.mkdir(parents=True)
        self.run.mkdir()

    def __enter__(self) -> "Box":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.close_pipe()
            self.process.wait(10)

    @property
    def environ(self) -> "dict[str, str]":
        """What PID 1 is started with."""
        return {**self.constants, "HERMES_BOOT_ID": self.boot, **self.more}

    @property
    def constants(self) -> "dict[str, str]":
        """What a command has: where things are, and nothing of what the start was given."""
        programs = f"{self.image}/bin:{self.image}/venv/bin"
        return {
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home.parent),
            "HERMES_HOME": str(self.home),
            "HERMES_MANAGED_DIR": str(self.run / "managed"),
            "SANDBOX_RUN": str(self.run),
            "PORT_18789": str(self.port),
            "PORT_9119": str(self.dashboard_port),
            "SANDBOX_CONFINED": "1" if self.confined else "0",
            **({"PYTHONPATH": str(self.modules)} if self.modules else {}),
        }

    # PID 1

    def start(self, *command: str) -> subprocess.Popen:
        """Start PID 1, with a pipe to this process, and wait until it serves."""
        reader, self.pipe = os.pipe()
        environ = {**self.environ, "SANDBOX_PARENT_FD": str(reader)}
        words = [str(self.image / "bin" / "sandbox"), "init", *command]
        self.process = subprocess.Popen(
            words,
            env=environ,
            pass_fds=[reader],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(reader)
        wait_for((self.run / "control").exists)
        wait_for((self.run / "boot").exists)
        return self.process

    def close_pipe(self) -> None:
        """Do what the system does when the engine dies."""
        if self.pipe >= 0:
            os.close(self.pipe)
            self.pipe = -1

    def kill(self) -> None:
        """Kill PID 1 itself."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def pretend(self, restored: bool = True) -> "Box":
        """Make the run folder look as if PID 1 were there (and a restore done)."""
        (self.run / "boot").write_text(self.boot)
        if restored:
            (self.run / "restored").write_text(self.boot)
            self.home.mkdir(exist_ok=True)
        return self

    def state(self) -> dict:
        """Return what PID 1 last published."""
        return json.loads((self.run / "state.json").read_text())

    def run_hermes(self, **settings: object) -> "Box":
        """Start PID 1, begin empty, give the go and wait until the stand-in answers."""
        self.start()
        self.ok("restore", "--empty")
        environ = {"API_SERVER_KEY": KEY, "HERMES_DASHBOARD_SESSION_TOKEN": TOKEN}
        self.ok("go", stdin=json.dumps({"env": environ, **settings}).encode())
        wait_for(lambda: self.state()["state"] == "running")
        return self

    def change(self, module: str, old: str, new: str) -> None:
        """Change the code of this sandbox. Fails where what is to be changed is no longer there."""
        source = self.image / "sandbox" / module
        text = source.read_text()
        assert old in text, f"{module} has no {old!r}"
        source.write_text(text.replace(old, new, 1))

    def health(self) -> dict:
        """Ask the stand-in."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
            return json.load(answer)

    def page(self) -> dict:
        """Ask the stand-in for the dashboard."""
        url = f"http://127.0.0.1:{self.dashboard_port}/"
        request = urllib.request.Request(url, headers={"X-Hermes-Session-Token": TOKEN})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)

    # Commands

    def command(
        self,
        *words: str,
        stdin: bytes = b"",
        boot: "str | None" = None,
        timeout: float = 60,
        **more: object,
    ) -> subprocess.CompletedProcess:
        """Run a command of the sandbox to its end."""
        line = [str(self.image / "bin" / "sandbox"), words[0], "--boot", boot or self.boot]
        return subprocess.run(
            [*line, *words[1:]],
            env=self.constants,
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
            **more,
        )

    def ok(self, *words: str, stdin: bytes = b"") -> bytes:
        """Run a command that must succeed and return what it prints."""
        done = self.command(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def obeys(self, *words: str, stdin: bytes = b"", code: int = 0) -> subprocess.CompletedProcess:
        """Run a command as somebody for whom permissions count, whoever runs the tests."""
        done = self.command(*words, stdin=stdin, preexec_fn=_without_privilege)
        assert done.returncode == code, done.stderr.decode()
        return done

    def save(self) -> bytes:
        """Return an archive of the state."""
        return self.ok("save")

    # State

    def fill(self) -> "Box":
        """Put a little of everything into the home."""
        (self.home / "memories").mkdir(parents=True)
        (self.home / "memories" / "MEMORY.md").write_text("the user's cat is called Ada\n")
        (self.home / "skills" / "greet").mkdir(parents=True)
        script = self.home / "skills" / "greet" / "run.sh"
        script.write_text("#!/bin/sh\necho hello\n")
        script.chmod(0o755)
        (self.home / "sessions").mkdir()
        (self.home / "notes \u00e9\u4e16.txt").write_text("a name that is not ASCII")
        (self.home / "a-file-nobody-knows.bin").write_bytes(os.urandom(3_000_000))
        (self.home / "latest").symlink_to("memories/MEMORY.md")
        with sqlite3.connect(self.home / "state.db") as database:
            database.execute("CREATE TABLE sessions (id TEXT)")
            database.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, text TEXT)")
            database.executemany(
                "INSERT INTO messages (text) VALUES (?)", [(f"m{i} " * 50,) for i in range(500)]
            )
        return self

    def tree(self) -> "dict[str, object]":
        """Return everything in the home: contents, modes, link targets."""
        found: dict[str, object] = {}
        for path in sorted(self.home.rglob("*")):
            name = str(path.relative_to(self.home))
            if path.is_symlink():
                found[name] = ("link", os.readlink(path))
            elif path.is_dir():
                found[name] = ("folder", path.stat().st_mode)
            elif path.suffix == ".db":
                found[name] = ("database", dump(path))
            else:
                found[name] = ("file", path.stat().st_mode, path.read_bytes())
        return found


def _without_privilege() -> None:
    """Give up what lets root read and write everything; for good, so for what is executed next."""
    drop_from_the_bounding_set, override, read_search = 24, 1, 2
    if os.geteuid() == 0:
        for capability in (override, read_search):
            ctypes.CDLL(None).prctl(drop_from_the_bounding_set, capability, 0, 0, 0)


def dump(path: Path) -> "list[str]":
    """Return a database as SQL."""
    database = sqlite3.connect(path)
    try:
        return list(database.iterdump())
    finally:
        database.close()


def header(archive: bytes) -> dict:
    """Return an archive's first line."""
    return json.loads(archive.split(b"\n", 1)[0])
