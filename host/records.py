# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What a supervisor writes into its deployment's folder, for plays and for the supervisor after it."""

import contextlib
import fcntl
import json
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any, TextIO

import psutil

RECORD = Path("run/supervisor.json")
PROCESSES = Path("run/processes.json")
BOOT = Path("boot.json")
"""What the start after a reboot is given; there is none where it is to stay down."""
TOKEN = Path("api_token")
ENDED_IN_TURN = ("guardian", "workerd", "engine", "cleaner")
"""The guardian would start what is being ended; workerd finishes its requests while its engine still runs."""
PREVIOUS = "API_TOKEN_PREVIOUS"
ASKED_SECONDS = 1.0
"""How long somebody who only asks whether we live may hold a shared lock on the record."""
END_SECONDS = 10.0
"""How long a process that is told to end may take."""


def hold_record() -> TextIO:
    """Lock the record for as long as this process lives; raises BlockingIOError when another one does."""
    record = RECORD.open("a+", encoding="utf-8")
    until = time.monotonic() + ASKED_SECONDS
    while True:
        try:
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return record
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def write_record(record: TextIO, settings: dict[str, Any]) -> None:
    """Write down for others what runs here; no secret is in it."""
    kept = {name: settings[name] for name in ("host", "kind", "ports", "workerd_environment")}
    kept["revived"] = settings.get("revived", 0)
    record.seek(0)
    record.truncate()
    json.dump(kept | {"pid": os.getpid(), "folder": os.getcwd()}, record)
    record.flush()


def read_processes() -> dict[str, Any]:
    """Return the recorded processes: name -> {"pid", "created", "signal" that ends it, "folder" it was started in}.

    workerd's has "build" as well, the digest of what it was started from: a deploy sees what was changed by hand.
    """
    try:
        found: dict[str, Any] = json.loads(PROCESSES.read_text(encoding="utf-8"))
        return found
    except (FileNotFoundError, ValueError):
        return {}


noted: dict[str, dict[str, Any]] = {}
"""What this supervisor started: the record may be removed, and is then written again."""


def note_process(name: str, pid: int, stop_signal: int, build: str) -> None:
    """Record a started process, so that a later supervisor can recognise it. build: what it was started from."""
    with contextlib.suppress(psutil.NoSuchProcess):
        created = psutil.Process(pid).create_time()
        noted[name] = {
            "pid": pid,
            "created": created,
            "signal": int(stop_signal),
            "folder": os.getcwd(),
        }
        if build:
            noted[name]["build"] = build
    write_processes(noted)


def write_processes(found: dict[str, Any]) -> None:
    """Replace the record of processes in one step; there is none of no process."""
    if not found:
        PROCESSES.unlink(missing_ok=True)
        return
    temporary = PROCESSES.with_suffix(".new")
    temporary.write_text(json.dumps(found), encoding="utf-8")
    temporary.replace(PROCESSES)


def end_orphans(spared: int | None = None) -> None:
    """End what a killed supervisor left running: it holds our ports and our storage.

    spared: the guardian that we are started by, which tries again should we fail.
    """
    processes = read_processes()
    for name, found in sorted(processes.items(), key=lambda one: ENDED_IN_TURN.index(one[0])):
        if found["pid"] == spared:
            continue
        # A copied folder's record names the processes of the one that it is a copy of.
        if found["folder"] != os.getcwd() and os.path.isdir(found["folder"]):
            continue
        try:
            process = psutil.Process(found["pid"])
            if abs(process.create_time() - found["created"]) > 0.01:
                continue
            logging.warning(
                "ending %s (process %d), left by an earlier supervisor", name, process.pid
            )
            process.send_signal(found.get("signal", signal.SIGTERM))
            try:
                _await_end(process)
            except psutil.TimeoutExpired:
                process.kill()
                _await_end(process)
        except psutil.NoSuchProcess:
            continue
    noted.update({name: one for name, one in processes.items() if one["pid"] == spared})
    write_processes(noted)


def _await_end(process: psutil.Process) -> None:
    """Wait until a process has ended. Raises psutil.TimeoutExpired.

    One that nobody reaps, as where the first process of a container is no init, has ended: only its number is left.
    """
    until = time.monotonic() + END_SECONDS
    while process.status() != psutil.STATUS_ZOMBIE:
        try:
            process.wait(0.1)
            return
        except psutil.TimeoutExpired:
            if time.monotonic() > until:
                raise


def kept_for_boot() -> dict[str, Any]:
    """Return the settings of before the reboot, with the API token, which the folder holds in any case."""
    settings: dict[str, Any] = json.loads(BOOT.read_text(encoding="utf-8"))
    with contextlib.suppress(FileNotFoundError):
        token = TOKEN.read_text(encoding="ascii").strip()
        settings["secrets"] = {"API_TOKEN": token} | settings["secrets"]
    return settings


def keep_for_boot(settings: dict[str, Any]) -> None:
    """Keep what a start after a reboot needs, as far as the owner chose. settings: what a start now would be given."""
    wanted = settings.get("after_reboot", "stay_down")
    if wanted == "stay_down":
        BOOT.unlink(missing_ok=True)
        return
    secrets, own = settings["secrets"], settings["workerd_environment"]
    lacking = [name for name in settings.get("lacks", []) if name not in secrets]
    kept = {name: value for name, value in settings.items() if name not in ("guardian", "revived")}
    kept |= {"lacking": lacking, "lacks": lacking}
    if wanted != "start_with_keys":
        names = secrets.keys() - own.keys() - {"API_TOKEN", PREVIOUS}
        kept |= {"secrets": {}, "earlier_secrets": None, "lacks": sorted({*names, *lacking})}
    temporary = BOOT.with_suffix(".new")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(kept, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(BOOT)
