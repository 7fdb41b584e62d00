# SPDX-License-Identifier: Apache-2.0
"""The SQLite of an image: of a release that loses nothing, for every Python in it, and whole."""

import multiprocessing.pool
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine != "x86_64",
    reason="the lock has a newer SQLite for x86-64 Linux alone",
)

# What Hermes and its tools use of the module, and of the library.
USED = """
import sqlite3
database = sqlite3.connect(":memory:", isolation_level=None)
database.execute("CREATE VIRTUAL TABLE found USING fts5(text, tokenize='trigram')")
database.execute("INSERT INTO found VALUES ('hello')")
assert database.execute("SELECT text FROM found WHERE found MATCH 'ell'").fetchone() == ("hello",)
assert sqlite3.threadsafety == 3
database.backup(sqlite3.connect(":memory:"))
database.serialize(), list(database.iterdump()), sqlite3.Blob
try:
    database.execute("SELECT nothing")
except sqlite3.OperationalError as error:
    assert error.sqlite_errorcode == sqlite3.SQLITE_ERROR
assert sqlite3.sqlite_version_info >= (3, 51, 3), sqlite3.sqlite_version
"""
WRITER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
database.execute("PRAGMA synchronous = OFF")
database.execute("PRAGMA wal_autocheckpoint = 1")
for number in range(int(sys.argv[3])):
    database.execute("INSERT INTO written VALUES (?, ?)", (sys.argv[2], number))
"""


def run(*command: "str | Path", environ: "dict[str, str] | None" = None) -> str:
    done = subprocess.run(
        [str(word) for word in command], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("words", [[], ["-P"], ["-I"]])
def test_every_python_of_the_image_has_it_whole(image: Path, words: "list[str]") -> None:
    assert run(image / "venv" / "bin" / "python", *words, "-c", USED) == ""


def test_the_sandbox_has_it_which_takes_the_backups(image: Path) -> None:
    told = "import sqlite3; assert sqlite3.sqlite_version_info >= (3, 51, 3)"
    start = (
        "import sys; sys.argv = [sys.argv[1]]; sys.path.insert(0, '')\n"
        "import runpy\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        f"except SystemExit: pass\n{told}"
    )
    python = image / "venv" / "bin" / "python"
    run(python, "-I", "-S", "-c", start, image / "sandbox", environ={"PATH": os.defpath})


def test_no_module_is_left_that_is_not_pythons_own(image: Path) -> None:
    asks = "import importlib.util; assert importlib.util.find_spec('pysqlite3') is None"
    run(image / "venv" / "bin" / "python", "-c", asks)


def test_two_that_write_at_once_lose_nothing(image: Path, tmp_path: Path) -> None:
    python, database, each = str(image / "venv" / "bin" / "python"), tmp_path / "state.db", 2000
    make = (
        "import sqlite3, sys; database = sqlite3.connect(sys.argv[1]);"
        "database.execute('PRAGMA journal_mode = WAL');"
        "database.execute('CREATE TABLE written (who, number)')"
    )
    run(python, "-c", make, database)
    with multiprocessing.pool.ThreadPool(2) as pool:
        words = [(python, "-c", WRITER, database, who, str(each)) for who in ("a", "b")]
        pool.starmap(run, words)
    count = (
        "import sqlite3, sys; database = sqlite3.connect(sys.argv[1]);"
        "print(database.execute('PRAGMA integrity_check').fetchone()[0],"
        " database.execute('SELECT count(*) FROM written').fetchone()[0])"
    )
    assert run(python, "-c", count, database) == f"ok {2 * each}\n"
