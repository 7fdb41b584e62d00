# SPDX-License-Identifier: Apache-2.0
"""The declared agent is laid whole or not at all, follows its declaration, and nothing of others is lost."""

import contextlib
import fcntl
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from declared import FIRST, agent, go, lay, member, packed, sent, told, waiting
from sandbox.agent import found, hermes_settings
from sandbox_box import KEY, TOKEN, Box, wait_for

SKILL = "---\nname: greet\ndescription: Greets.\n---\n"
FILES = {
    "SOUL.md": "You are Ada.\n",
    "memories/USER.md": "Likes tea.\n",
    "skills/greet/SKILL.md": SKILL,
    "skills/greet/scripts/hello.sh": "#!/bin/sh\necho hello\n",
}
ITEMS = ["memories/USER.md", "skills/greet", "soul"]
# One thing of each kind, as an item and as a file of it.
KINDS = [
    ("soul", "SOUL.md"),
    ("skills/greet", "skills/greet/SKILL.md"),
    ("memories/USER.md", "memories/USER.md"),
]
# Where Hermes keeps what it writes when it finds none.
SOUL_OF_HERMES = """
DEFAULT_SOUL_MD = "You are Hermes.\\n"


def is_legacy_template_soul(text):
    return text == "old default"
"""
LOADED = """
import sys

sys.path[:0] = [sys.argv[1]]
from sandbox.cli import main

code = main(sys.argv[2:])
print(*[name for name in sys.modules if name.startswith(("sandbox.", "tarfile"))])
sys.exit(code)
"""


@pytest.fixture
def ready(box: Box, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    """A sandbox that waits for `go`, with nobody in it but one who reads what PID 1 is told."""
    box.modules = box.folder / "modules"
    (box.modules / "hermes_cli").mkdir(parents=True)
    (box.modules / "hermes_cli" / "default_soul.py").write_text(SOUL_OF_HERMES)
    yield from waiting(box, monkeypatch)


def of_home(box: Box) -> "dict[str, object]":
    """Return all files of the home but our own record."""
    files = {name: what for name, what in box.tree().items() if what[0] != "folder"}
    files.pop(".declared.json", None)
    return files


def text(box: Box, name: str) -> "str | None":
    path = box.home / name
    return path.read_text() if path.exists() else None


def write(box: Box, name: str, content: "str | None") -> None:
    path = box.home / name
    if content is None:
        shutil.rmtree(path.parent) if "skills" in name else path.unlink()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_what_is_declared_follows_the_declaration_and_nothing_else_does(ready: Box) -> None:
    others = {"skills/own/SKILL.md": "own", "memories/MEMORY.md": "learnt", "notes": "a note"}
    for name, content in others.items():
        write(ready, name, content)
    lay(ready, agent(FILES))
    assert {name: text(ready, name) for name in FILES} == FILES
    assert os.access(ready.home / "skills/greet/scripts/hello.sh", os.X_OK)
    assert not os.access(ready.home / "skills/greet/SKILL.md", os.X_OK)
    assert told(ready) == (ITEMS, {})
    # What running it leaves is no change.
    write(ready, "skills/greet/scripts/__pycache__/x.pyc", "compiled")

    changed = {**FILES, "skills/greet/SKILL.md": "new", "skills/two/SKILL.md": "two"}
    del changed["skills/greet/scripts/hello.sh"], changed["SOUL.md"]
    lay(ready, agent(changed))
    assert told(ready) == (["memories/USER.md", "skills/greet", "skills/two"], {})
    assert text(ready, "skills/greet/SKILL.md") == "new"
    assert not (ready.home / "skills/greet/scripts").exists()
    assert text(ready, "SOUL.md") is None

    lay(ready, None)
    assert set(of_home(ready)) == {*others}
    assert {name: text(ready, name) for name in others} == others
    assert told(ready) == ([], {})
    assert not (ready.home / ".declared.json").exists()
    assert [path.name for path in ready.home.parent.iterdir()] == [".hermes"]


@pytest.mark.parametrize(("item", "name"), KINDS, ids=[item for item, _ in KINDS])
def test_what_hermes_changed_stays_and_is_told_until_it_is_taken_over(
    ready: Box, item: str, name: str
) -> None:
    memory = item.startswith("memories")
    declared = {**FILES, name: f"{FILES[name]}newer"}
    for made, why in (("mine", "changed"), (None, "deleted")):
        lay(ready, agent(FILES))
        write(ready, name, made)
        kept = {} if memory else {item: f"{why} by Hermes or its owner"}
        assert told(ready)[1] == kept
        # Whatever the declaration does to it.
        for next_one in (declared, {"SOUL.md" if memory else "memories/USER.md": "x"}):
            lay(ready, agent(next_one))
            assert text(ready, name) == made
        if made and not memory:
            assert told(ready)[1] == {item: f"{kept[item]}, and no longer declared"}
        for take_over in ([item], [item.partition("/")[0]]):
            lay(ready, agent(declared, take_over=take_over))
            assert text(ready, name) == declared[name]
            assert told(ready) == (ITEMS, {})
            # For as long as it is named, at each start.
            write(ready, name, "mine again")
        lay(ready, agent(declared, take_over=[item]))
        assert text(ready, name) == declared[name]
        lay(ready, agent(declared, take_over=["skills/gre", "sou"]))
        lay(ready, None)
        assert of_home(ready) == {}


def test_every_change_by_hand_is_seen(ready: Box) -> None:
    """Of the same length, of a mode alone, or by another file with the times of the one before."""
    lay(ready, agent(FILES))
    folders = [path for path in ready.home.iterdir() if path.is_dir()]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}
    skill = ready.home / "skills/greet/SKILL.md"
    before = skill.stat()

    def edit() -> None:
        skill.write_text(SKILL.swapcase())

    def exchange() -> None:
        edit()
        skill.rename(skill.with_name("away"))
        skill.write_text(SKILL.swapcase())
        skill.with_name("away").unlink()
        os.utime(skill, ns=(before.st_atime_ns, before.st_mtime_ns))

    for change in (edit, lambda: skill.chmod(0o744), exchange):
        assert told(ready) == (ITEMS, {})
        change()
        assert told(ready)[1] == {"skills/greet": "changed by Hermes or its owner"}
        skill.write_text(SKILL)
        skill.chmod(0o644)


@pytest.mark.parametrize(("item", "name"), KINDS, ids=[item for item, _ in KINDS])
def test_what_was_there_before_is_not_ours(ready: Box, item: str, name: str) -> None:
    write(ready, name, "theirs")
    lay(ready, agent(FILES))
    assert text(ready, name) == "theirs"
    if not item.startswith("memories"):
        assert told(ready)[1] == {item: "made by Hermes or its owner"}
        write(ready, name, None)
        assert told(ready)[1] == {item: "what was there before is gone"}
        write(ready, name, "theirs")
    lay(ready, None)
    assert {each: content[2] for each, content in of_home(ready).items()} == {name: b"theirs"}
    assert told(ready) == ([], {})
    # Nor when it is what is declared.
    write(ready, "skills/greet/scripts/hello.sh", FILES["skills/greet/scripts/hello.sh"])
    (ready.home / "skills/greet/scripts/hello.sh").chmod(0o755)
    write(ready, name, FILES[name])
    write(ready, "skills/greet/SKILL.md", SKILL)
    lay(ready, agent(FILES))
    assert told(ready) == (ITEMS, {})
    lay(ready, None)
    assert text(ready, name) == FILES[name]
    # But it follows as soon as it was declared.
    lay(ready, agent(FILES))
    lay(ready, agent({**FILES, name: "newer"}))
    assert text(ready, name) == "newer"


def test_the_soul_that_hermes_writes_where_it_finds_none_makes_way(ready: Box) -> None:
    for content in ("You are Hermes.\n", "old default", "\n"):
        write(ready, "SOUL.md", content)
        lay(ready, agent(FILES))
        assert text(ready, "SOUL.md") == FILES["SOUL.md"], content
        lay(ready, None)


def test_an_empty_memory_is_none_and_a_full_one_is_never_told(ready: Box) -> None:
    write(ready, "memories/USER.md", "")
    lay(ready, agent(FILES))
    assert text(ready, "memories/USER.md") == "Likes tea.\n"
    write(ready, "memories/USER.md", "Likes coffee.\n")
    lay(ready, agent({**FILES, "memories/USER.md": "Likes milk.\n"}))
    assert text(ready, "memories/USER.md") == "Likes coffee.\n"
    assert told(ready) == (ITEMS, {})


def test_a_link_is_never_followed(ready: Box, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "greet").mkdir(parents=True)
    (elsewhere / "greet" / "SKILL.md").write_text("of somebody else")
    (elsewhere / "soul").write_text("of somebody else")
    (ready.home / "skills").symlink_to(elsewhere)
    (ready.home / "SOUL.md").symlink_to(elsewhere / "soul")
    lay(ready, agent(FILES, take_over=["soul", "skills"]))
    assert told(ready) == (
        ["memories/USER.md", "soul"],
        {"skills/greet": "what is there cannot be read"},
    )
    assert text(ready, "SOUL.md") == FILES["SOUL.md"]
    assert not (ready.home / "SOUL.md").is_symlink()
    lay(ready, None)
    assert {path.name for path in elsewhere.rglob("*")} == {"greet", "SKILL.md", "soul"}
    assert (elsewhere / "soul").read_text() == "of somebody else"


BOMB = gzip.compress(bytes(40 << 20))
HOSTILE: "dict[str, tuple[dict, str]]" = {
    "nothing of it": (sent(b"x"), "does not begin with agent.json"),
    "no tar": (sent(gzip.compress(b"x" * 2000)), "does not begin with agent.json"),
    "cut": (
        sent(gzip.decompress(gzip.compress(b"")) + gzip.compress(b"")),
        "does not begin with agent.json",
    ),
    "another first": (packed(member("SOUL.md", b"x")), "does not begin with agent.json"),
    "a link first": (
        packed(member(FIRST, kind=tarfile.SYMTYPE, link="/etc/passwd")),
        "does not begin with agent.json",
    ),
    "another format": (packed(member(FIRST, b'{"format": 2}')), "format"),
    "no object": (packed(member(FIRST, b"[]")), "format"),
    "a list of settings": (packed(member(FIRST, b'{"format": 1, "config": []}')), "config"),
    "a list of servers": (
        packed(member(FIRST, b'{"format": 1, "mcp_servers": []}')),
        "mcp_servers",
    ),
    "a list of jobs": (packed(member(FIRST, b'{"format": 1, "cron_jobs": []}')), "cron_jobs"),
    "no list to take over": (packed(member(FIRST, b'{"format": 1, "take_over": {}}')), "take_over"),
    "more than comes": (sent(bytes((4 << 20) + 1)), "larger than 4 MB"),
    "jobs that are none": (
        packed(member(FIRST, b'{"format": 1, "cron_jobs": {"a": 1}}')),
        "cron_jobs",
    ),
    "another archive": ({**agent(FILES), "archive": "0" * 64}, "checksum"),
    "no base64": ({**agent(FILES), "content": "!!!"}, "base64"),
    "a bomb": (agent({"skills/a/b": "x" * (33 << 20)}), "more than 32 MB"),
    "a crowd": (agent({f"skills/a/{number}": "" for number in range(2001)}), "2000 files"),
}
FOLDERS = [member("skills/a", kind=tarfile.DIRTYPE), member("skills/a/b", b"b")]
PLACES = {
    "a way up": ("skills/a/../../x", {}, "no place"),
    "an absolute name": ("/tmp/x", {}, "no place"),
    "a name of Hermes'": ("config.yaml", {}, "no place"),
    "a job": ("cron/jobs.json", {}, "no place"),
    "a hidden skill": ("skills/.hub", {"kind": tarfile.DIRTYPE}, "no place"),
    "a skill that is a file": ("skills/b", {}, "no place"),
    "another memory": ("memories", {}, "no place"),
    "a link": ("skills/a/x", {"kind": tarfile.SYMTYPE, "link": "/etc"}, "neither file nor folder"),
    "a hard link": (
        "skills/a/x",
        {"kind": tarfile.LNKTYPE, "link": "agent.json"},
        "neither file nor folder",
    ),
    "a device": ("skills/a/x", {"kind": tarfile.CHRTYPE}, "neither file nor folder"),
    "a soul that is a folder": ("SOUL.md", {"kind": tarfile.DIRTYPE}, "no place"),
    "twice": ("skills/a/b", {}, "twice"),
    "below a file": ("skills/a/b/c", {}, "twice"),
}
HOSTILE |= {
    title: (
        packed(member(FIRST, b'{"format": 1}'), *FOLDERS, member(name, **more)),
        why,
    )
    for title, (name, more, why) in PLACES.items()
}


@pytest.mark.parametrize("title", HOSTILE)
def test_a_hostile_archive_changes_nothing(ready: Box, title: str) -> None:
    lay(ready, agent(FILES))
    before = ready.tree()
    declared, why = HOSTILE[title]
    assert why in lay(ready, declared, code=70)
    assert ready.tree() == before
    assert [path.name for path in ready.home.parent.iterdir()] == [".hermes"]


@pytest.mark.parametrize("agent_of_no_use", [[], "x", {}, {"archive": 1, "content": ""}])
def test_what_is_no_declaration_is_refused(ready: Box, agent_of_no_use: object) -> None:
    done = ready.command("go", stdin=json.dumps({"agent": agent_of_no_use}).encode())
    if not agent_of_no_use and agent_of_no_use != {}:
        assert done.returncode in (0, 64)
    else:
        assert done.returncode == 64, done.stderr


def cut(box: Box, step: int, how: str, declared: "dict[str, str]") -> int:
    """Lay in a process of its own, in which a step fails or is the last, and return its exit code.

    200 when it came to its end before that step.
    """
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    left = step

    def count(event: str, _: object) -> None:
        nonlocal left
        if event not in ("os.mkdir", "os.remove", "os.rename", "os.rmdir"):
            return
        left -= 1
        if left == 0 and how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if left == 0:
            raise OSError(28, "No space left on device")

    code = 1
    try:
        sys.addaudithook(count)
        lay(box, declared)
        code = 200 if left > 0 else 0
    finally:
        os._exit(code)


STEPS_AT_MOST = 80


@pytest.mark.parametrize("how", ["fail", "kill"])
def test_nothing_is_half_laid(ready: Box, tmp_path: Path, how: str) -> None:
    write(ready, "skills/own/SKILL.md", "own")
    lay(ready, agent({**FILES, "skills/old/SKILL.md": "old"}))
    write(ready, "skills/old/more", "mine")
    next_one = {
        "SOUL.md": "You are Bea.\n",
        "memories/MEMORY.md": "new",
        "skills/greet/SKILL.md": "newer",
        "skills/old/SKILL.md": "newer",
        "skills/own/SKILL.md": "declared",
        "skills/third/SKILL.md": "third",
    }
    shutil.copytree(ready.home, tmp_path / "before", symlinks=True)
    before, files_before = ready.tree(), of_home(ready)
    lay(ready, agent(next_one))
    after, told_after = of_home(ready), told(ready)
    assert told_after[1] == {
        "skills/old": "changed by Hermes or its owner",
        "skills/own": "made by Hermes or its owner",
    }
    theirs = {name for name in after if name.startswith(("skills/old", "skills/own"))}
    for step in range(1, STEPS_AT_MOST):
        shutil.rmtree(ready.home)
        shutil.copytree(tmp_path / "before", ready.home, symlinks=True)
        code = cut(ready, step, how, agent(next_one))
        if code == 200:
            assert step > 10
            break
        if how == "fail" and code:
            # What comes after the laying may fail as well.
            assert ready.tree() == before or told(ready) == told_after, step
            assert of_home(ready) in (files_before, after), step
        lay(ready, agent(next_one))
        assert of_home(ready) == after, step
        assert told(ready) == told_after, step
        # What was laid is ours, wherever it was cut, and goes with its declaration.
        lay(ready, None)
        assert set(of_home(ready)) == set(theirs), step
    else:
        raise AssertionError("it never came to its end")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise RuntimeError('not today')", "RuntimeError: not today"),
        ("import os; os._exit(3)", "no reason"),
        ("import time; time.sleep(600)", "no reason"),
    ],
    ids=["fails", "vanishes", "never answers"],
)
def test_what_reads_hermes_settings_may_fail_and_nothing_is_half_laid(
    ready: Box, monkeypatch: pytest.MonkeyPatch, program: str, reason: str
) -> None:
    write(ready, "SOUL.md", "theirs")
    before = ready.tree()
    patience = 0.2 if "sleep" in program else 600
    monkeypatch.setattr(hermes_settings, "_PATIENCE", patience)
    (ready.modules / "hermes_cli" / "default_soul.py").write_text(program)
    said = lay(ready, agent(FILES, config={"initial": {"timezone": "Asia/Tokyo"}}), code=1)
    assert said == f"Hermes' settings cannot be written: {reason}"
    assert ready.tree() == before
    assert not (ready.run / "declaring").exists()
    assert [path.name for path in ready.home.parent.iterdir()] == [".hermes"]
    # Whoever asks how it is gets an answer all the same.
    monkeypatch.setattr(hermes_settings, "_PATIENCE", 600)
    (ready.modules / "hermes_cli" / "default_soul.py").write_text(SOUL_OF_HERMES)
    lay(ready, agent(FILES, config={"initial": {"timezone": "Asia/Tokyo"}}, take_over=["soul"]))
    (ready.home / "config.yaml").write_text("timezone: Asia/Seoul\n")
    (ready.modules / "yaml.py").write_text(program)
    monkeypatch.setattr(hermes_settings, "_PATIENCE", patience)
    unread = {"config/timezone": "what is there cannot be read"}
    assert told(ready) == (ITEMS, unread)
    monkeypatch.setattr(hermes_settings, "_PATIENCE", 600)
    (ready.modules / "yaml.py").unlink()
    (ready.home / "config.yaml").write_text("timezone: Asia/Tokyo\n")
    assert told(ready) == (["config/timezone", *ITEMS], {})


def test_settings_that_are_none_are_passed_over(ready: Box) -> None:
    lay(ready, agent(FILES, config={"pinned": [1], "initial": "x"}))
    assert told(ready) == (ITEMS, {})


def test_a_file_where_a_folder_should_be_stops_nothing_and_stays(ready: Box) -> None:
    odd = ["memories", "skills", "cron"]
    for name in odd:
        write(ready, name, "a file")
    jobs = {"morning": {"schedule": "0 7 * * *", "prompt": "x"}}
    for take_over in ([], odd):
        lay(ready, agent(FILES, cron_jobs=jobs, take_over=take_over))
        laid, kept = told(ready)
        assert laid == ["memories/USER.md", "soul"]
        assert kept == dict.fromkeys(
            ("jobs/morning", "skills/greet"), "what is there cannot be read"
        )
        assert {name: text(ready, name) for name in odd} == dict.fromkeys(odd, "a file")


def test_an_older_backup_and_another_boot_are_laid_over(
    ready: Box, new_box: Callable[[], Box]
) -> None:
    shutil.rmtree(ready.fill().home / "skills")
    (ready.home / "memories" / "MEMORY.md").unlink()
    lay(ready, agent({"skills/greet/SKILL.md": "old", "skills/gone/SKILL.md": "gone"}))
    archive = ready.save()
    lay(ready, agent(FILES))
    assert b".declared.json" in gzip.decompress(ready.save().partition(b"\n")[2])
    for restored in (archive, ready.save()):
        other = new_box()
        other.pretend(restored=False)
        os.mkfifo(other.run / "control")
        (other.run / "managed").mkdir()
        reader = os.open(other.run / "control", os.O_RDWR | os.O_NONBLOCK)
        other.ok("restore", stdin=restored)
        lay(other, agent(FILES))
        os.close(reader)
        # Its memory is filled already.
        assert told(other) == (ITEMS, {})
        assert {name: text(other, name) for name in FILES} == FILES
        assert not (other.home / "skills/gone").exists()


def test_what_hermes_writes_into_the_record_stops_nothing(ready: Box) -> None:
    lay(ready, agent(FILES))
    good = (ready.home / ".declared.json").read_text()
    for bad in (
        "",
        "[]",
        "{}",
        '{"format": 1, "items": {"soul": 1}}',
        good.replace('"format": 1', '"format": 2'),
        good.replace('"soul"', '"x"'),
    ):
        (ready.home / ".declared.json").write_text(bad)
        lay(ready, agent({**FILES, "SOUL.md": "Newer."}))
        assert text(ready, "SOUL.md") == FILES["SOUL.md"]
        told(ready)
    (ready.home / ".declared.json").unlink()
    lay(ready, agent(FILES))
    assert told(ready) == (ITEMS, {})


def loaded(box: Box, word: str, stdin: bytes) -> "set[str]":
    """Return the modules that a command needed."""
    (box.run / "go").unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(box.image), word, "--boot", box.boot],
        env=box.constants,
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.decode().split())


def test_a_start_with_nothing_new_costs_next_to_nothing(ready: Box) -> None:
    def ours(names: "set[str]") -> "set[str]":
        return {name for name in names if name.startswith(("sandbox.agent", "tarfile"))}

    assert ours(loaded(ready, "go", go())) == set()
    assert ours(loaded(ready, "status", b"")) == set()
    lay(ready, agent(FILES))
    same = ours(loaded(ready, "go", go(agent(FILES))))
    assert same == {"sandbox.agent", "sandbox.agent.declared", "sandbox.agent.record"}


def test_the_pinned_holds_under_our_own(ready: Box) -> None:
    pinned = {
        "agent": {"disabled_toolsets": ["web"], "x": 1},
        "model": {"default": "theirs"},
        "a": [1],
    }
    declared = agent(config={"pinned": pinned}, mcp_servers={"files": {"command": "x"}})
    ours = {"agent": {"disabled_toolsets": ["terminal"], "x": 2}, "model": {"default": "ours"}}
    ready.ok("go", stdin=go(declared, config=ours))
    assert json.loads((ready.run / "managed" / "config.yaml").read_text()) == {
        "agent": {"disabled_toolsets": ["terminal", "web"], "x": 2},
        "model": {"default": "ours"},
        "a": [1],
        "mcp_servers": {"files": {"command": "x"}},
    }


def test_a_running_hermes_is_given_it_and_says_so(box: Box) -> None:
    box.run_hermes(agent=agent(FILES), configuration="first")
    environ = {"API_SERVER_KEY": KEY, "HERMES_DASHBOARD_SESSION_TOKEN": TOKEN}
    pid = box.state()["pid"]
    assert told(box) == (ITEMS, {})

    newer = {**FILES, "SOUL.md": "You are Bea.\n"}
    box.ok("declare", stdin=go(agent(newer), env=environ, configuration="second"))
    assert text(box, "SOUL.md") == newer["SOUL.md"]
    assert json.loads(box.ok("status"))["configuration"] == "second"
    assert box.state()["pid"] == pid

    # What needs a restart is not said to be there without one, and nothing of it is laid.
    for more in (
        {"config": {"a": 1}, "env": environ},
        {"env": {**environ, "A": "b"}},
    ):
        done = box.command("declare", stdin=go(agent(FILES), configuration="third", **more))
        assert done.returncode == 77, done.stderr
    pinned = agent(FILES, config={"pinned": {"a": 1}})
    refused = box.command("declare", stdin=go(pinned, env=environ, configuration="third"))
    assert (refused.returncode, refused.stderr) == (
        77,
        b"Hermes runs with another config: restart-gateway.\n",
    )
    assert text(box, "SOUL.md") == newer["SOUL.md"]
    assert json.loads(box.ok("status"))["configuration"] == "second"

    box.ok("restart-gateway", stdin=go(pinned, env=environ, configuration="third"))
    assert text(box, "SOUL.md") == FILES["SOUL.md"]
    assert json.loads((box.run / "managed" / "config.yaml").read_text()) == {"a": 1}
    assert json.loads(box.ok("status"))["configuration"] == "third"
    box.ok("restart-gateway", stdin=go(env=environ))
    assert text(box, "SOUL.md") is None
    # With nothing declared at all, the same holds.
    refused = box.command("declare", stdin=go(env={**environ, "A": "b"}, configuration="fourth"))
    assert refused.returncode == 77
    assert json.loads(box.ok("status"))["configuration"] is None
    box.ok("declare", stdin=go(env=environ, configuration="fourth"))
    assert json.loads(box.ok("status"))["configuration"] == "fourth"


def opened(pid: int) -> set[Path]:
    """The files that a process has open."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            found.add(link.readlink())
    return found


def test_no_backup_has_half_of_it(ready: Box) -> None:
    """A laying waits for a save that is under way, and a save for a laying."""
    with open(ready.run / "save.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        words = [str(ready.image / "bin" / "sandbox"), "go", "--boot", ready.boot]
        with subprocess.Popen(words, env=ready.constants, stdin=subprocess.PIPE) as laying:
            assert laying.stdin is not None
            laying.stdin.write(go(agent(FILES)))
            laying.stdin.close()
            # It has come to the lock that a save holds.
            wait_for(lambda: (ready.run / "save.lock") in opened(laying.pid))
            assert not (ready.home / "SOUL.md").exists()
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert laying.wait(30) == 0
    assert text(ready, "SOUL.md") == FILES["SOUL.md"]


def test_the_home_of_the_profile_that_hermes_works_in_is_laid(ready: Box) -> None:
    write(ready, "active_profile", "office\n")
    (ready.home / "profiles" / "office").mkdir(parents=True)
    lay(ready, agent(FILES))
    assert told(ready) == (ITEMS, {})
    assert text(ready, "profiles/office/SOUL.md") == FILES["SOUL.md"]
    assert text(ready, "SOUL.md") is None


def test_nothing_that_the_agent_puts_there_stops_a_start_or_a_status(ready: Box) -> None:
    declared = agent(FILES)
    lay(ready, declared)
    odd = {"soul": "SOUL.md", "skills/greet": "skills/greet/SKILL.md", "pipe": "skills/greet/x"}
    for name in odd.values():
        (ready.home / name).unlink(missing_ok=True)
        os.mkfifo(ready.home / name)
    below = ready.home / "skills" / "greet"
    for _ in range(1500):
        below /= "d"
        below.mkdir()
    changed = dict.fromkeys(("skills/greet", "soul"), "changed by Hermes or its owner")
    assert told(ready) == (["memories/USER.md"], changed)
    (ready.home / "cron").mkdir()
    os.mkfifo(ready.home / "cron" / "jobs.json")
    jobs = {"morning": {"schedule": "0 7 * * *", "prompt": "x"}}
    lay(ready, agent({**FILES, "SOUL.md": "newer"}, cron_jobs=jobs))
    assert told(ready)[1] == {**changed, "jobs/morning": "what is there cannot be read"}
    # What says in which profile Hermes works is as little to be relied on.
    os.mkfifo(ready.home / "active_profile")
    assert told(ready)[1] == {**changed, "jobs/morning": "what is there cannot be read"}
    # And a folder where a file was.
    (ready.home / "SOUL.md").unlink()
    (ready.home / "SOUL.md").mkdir()
    assert told(ready)[1]["soul"] == changed["soul"]
    lay(ready, agent(FILES, take_over=["soul", "skills"]))
    assert told(ready) == (ITEMS, {})
    assert text(ready, "SOUL.md") == FILES["SOUL.md"]


def test_more_than_can_be_declared_is_a_change_and_never_read_to_its_end(
    ready: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(ready, agent(FILES))
    changed = {"skills/greet": "changed by Hermes or its owner"}
    with open(ready.home / "skills" / "greet" / "large", "wb") as file:
        file.truncate(found.UNPACKED + 1)
    content = found._content

    def read(path: str, status: os.stat_result) -> str:
        assert not path.endswith("large")
        return content(path, status)

    monkeypatch.setattr(found, "_content", read)
    (ready.home / "skills" / "greet" / "SKILL.md").unlink()
    shutil.rmtree(ready.home / "skills" / "greet" / "scripts")
    assert told(ready)[1] == changed


def test_what_may_not_be_read_is_kept(ready: Box) -> None:
    lay(ready, agent(FILES))
    shut = ready.home / "skills" / "greet" / "scripts"
    shut.chmod(0)
    (ready.run / "go").unlink()
    ready.obeys("go", stdin=go(agent({**FILES, "skills/greet/SKILL.md": "newer"})))
    said = json.loads(ready.obeys("status").stdout)["agent"]
    shut.chmod(0o700)
    assert said["kept"] == [{"item": "skills/greet", "why": "what is there cannot be read"}]
