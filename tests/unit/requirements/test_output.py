# SPDX-License-Identifier: Apache-2.0
"""What a play says is there for its reader at once, line by line."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[3] / "requirements"
sys.path.insert(0, str(REQUIREMENTS))

import output  # noqa: E402

LINES = """
import os, sys, output
output.install()
print("a sign of life")
print("another", file=sys.stderr)
os._exit(0)  # without what Python writes at its end
"""


def test_a_line_waits_for_no_other() -> None:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", LINES]
    done = subprocess.run(
        command, cwd=REQUIREMENTS, env=env, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("a sign of life\n", "another\n")


def test_what_does_not_wait_for_its_reader_is_waited_for() -> None:
    """As a program before it, or beside it, may have left the terminal."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    text = b"0123456789" * 100_000
    read = bytearray()

    def reader() -> None:
        while part := os.read(reading, 65536):
            read.extend(part)

    thread = threading.Thread(target=reader)
    with output.Stream(writing, "w") as stream, output.io.BufferedWriter(stream) as buffered:
        with contextlib.suppress(BlockingIOError):
            while True:  # until it is full
                os.write(writing, b"x" * 4096)
        thread.start()
        buffered.write(text)
    thread.join()
    os.close(reading)
    assert bytes(read).lstrip(b"x") == text
