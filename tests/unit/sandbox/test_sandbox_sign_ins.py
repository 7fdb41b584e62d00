# SPDX-License-Identifier: Apache-2.0
"""Keys and sign-ins travel apart: no backup holds one, and none is lost by a restore."""

import gzip
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sandbox_box import Box, dump, header

CANARY = "canary-7f3a91c2e5d8"
# The digest of nothing: what the Worker asks with while it has no sign-ins.
NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
PRIVATE = [
    "auth.json",
    "mcp-tokens/linear.json",
    "mcp-tokens/linear.client.json",
    ".anthropic_oauth.json",
    "google_token.json",
    "auth/google_oauth.json",
    "shared/nous_auth.json",
    "slack_tokens.json",
    "webhook_subscriptions.json",
    "google_chat_user_tokens/ada@example.org.json",
    "platforms/whatsapp/session/creds.json",
    "platforms/matrix/store/crypto.db",
    "weixin/accounts/a.json",
    "pairing/telegram.json",
    "hindsight/config.json",
    "mem0.json",
    "skills/mail/.env",
    "skills/mail/.env.production",
    "skills/mail/credentials.json",
    "profiles/work/auth.json",
    "profiles/work/.env",
    "profiles/work/mcp-tokens/x.json",
    "profiles/work/platforms/y",
]


def sign_in(home: Path) -> None:
    """Write a canary wherever Hermes keeps a key."""
    for name in [*PRIVATE, ".env"]:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".db"):
            database = sqlite3.connect(path)
            with database:
                database.execute("CREATE TABLE keys (key TEXT)")
                database.execute("INSERT INTO keys VALUES (?)", (CANARY,))
            database.close()
        else:
            path.write_text(json.dumps({"refresh_token": CANARY}))
            path.chmod(0o600)


@pytest.fixture
def full(box: Box) -> Box:
    box.pretend().fill()
    sign_in(box.home)
    return box


def content(archive: bytes) -> bytes:
    """Return all that an archive says, unpacked."""
    line, body = archive.split(b"\n", 1)
    return line + gzip.decompress(body)


def private(home: Path) -> "dict[str, object]":
    """Return what there is of keys and sign-ins."""
    found = {name: home / name for name in [*PRIVATE, ".env"] if (home / name).exists()}
    return {
        name: dump(path) if name.endswith(".db") else path.read_bytes()
        for name, path in found.items()
    }


def test_no_backup_holds_a_key_or_a_sign_in(full: Box) -> None:
    assert CANARY.encode() not in content(full.save())
    assert CANARY.encode() in content(full.ok("save-sign-ins"))


def test_sign_ins_come_back_apart_with_their_permissions(
    full: Box, new_box: Callable[[], Box]
) -> None:
    other = new_box().pretend(restored=False)
    other.ok("restore", stdin=full.save())
    assert private(other.home) == {}
    other.ok("restore-sign-ins", stdin=full.ok("save-sign-ins"))
    expected = private(full.home)
    del expected[".env"]  # of the boot alone
    assert private(other.home) == expected
    assert (other.home / "auth.json").stat().st_mode & 0o777 == 0o600
    assert (other.home / "skills" / "greet" / "run.sh").exists()
    assert (other.run / "restored").read_text() == other.boot
    assert header(other.save())["digest"] == header(full.save())["digest"]


def test_a_new_sign_in_is_a_change_of_the_sign_ins_alone(full: Box) -> None:
    state, signed = header(full.save())["digest"], header(full.ok("save-sign-ins"))["digest"]
    assert full.command("save-sign-ins", "--unless", signed).returncode == 3
    (full.home / "auth.json").write_text("another")
    assert full.command("save", "--unless", state).returncode == 3
    assert full.command("save-sign-ins", "--unless", signed).returncode == 0


def test_a_hermes_without_sign_ins_has_the_digest_of_nothing(box: Box) -> None:
    box.pretend().fill()
    assert box.command("save-sign-ins", "--unless", NOTHING).returncode == 3


def test_todays_sign_ins_take_the_place_of_those_that_a_state_brings(
    full: Box, new_box: Callable[[], Box]
) -> None:
    """As of a snapshot, or of a backup of an earlier release; what was signed out stays so."""
    other = new_box().pretend()
    other.fill()
    (other.home / "auth.json").write_text("today's")
    signed = other.ok("save-sign-ins")
    full.ok("restore-sign-ins", stdin=signed)
    assert private(full.home) == {
        "auth.json": b"today's",
        ".env": (full.home / ".env").read_bytes(),
    }
    assert not (full.home / "mcp-tokens").exists()
    assert (full.home / "a-file-nobody-knows.bin").exists()


def test_sign_ins_for_which_there_is_no_place_any_more_hold_up_nothing(
    full: Box, new_box: Callable[[], Box]
) -> None:
    other = new_box().pretend()
    other.fill()
    (other.home / "profiles").write_text("a file now")
    other.ok("restore-sign-ins", stdin=full.ok("save-sign-ins"))
    assert (other.home / "auth.json").exists()
    assert (other.home / "profiles").read_text() == "a file now"


def test_damaged_sign_ins_change_nothing_and_hermes_may_start(full: Box) -> None:
    signed, before = full.ok("save-sign-ins"), private(full.home)
    damaged = signed[:-4] + bytes(4)
    for archive, code in ((damaged, 70), (signed[:-4], 74), (b"", 74)):
        assert full.command("restore-sign-ins", stdin=archive).returncode == code
        assert private(full.home) == before
        assert (full.run / "restored").read_text() == full.boot
    assert [path.name for path in full.home.parent.iterdir()] == [".hermes"]


def test_sign_ins_come_after_a_restore_and_before_the_go(box: Box) -> None:
    box.pretend(restored=False).home.mkdir()
    box.fill()
    assert box.command("restore-sign-ins", stdin=b"").returncode == 67
    assert box.command("save-sign-ins").returncode == 67
    (box.run / "restored").write_text(box.boot)
    signed = box.ok("save-sign-ins")
    (box.run / "go").touch()
    assert box.command("restore-sign-ins", stdin=signed).returncode == 66


def test_more_than_sign_ins_can_be_is_named(full: Box) -> None:
    (full.home / "platforms" / "media").write_bytes(os.urandom(9 << 20))
    done = full.command("save-sign-ins")
    assert (done.returncode, done.stdout) == (72, b"")
    assert b"platforms/media: 9 MB" in done.stderr and b"keys and sign-ins" in done.stderr
    full.save()


KEYS = [
    f"model:\n  provider: custom\n  api_key: {CANARY}\n",
    f"model: {{provider: custom, api_key: {CANARY}}}\n",
    f'"api_key": "{CANARY}"\n',
    f"mcp_servers:\n  x:\n    env:\n      GITHUB_PERSONAL_ACCESS_TOKEN: {CANARY}\n",
    f"mcp_servers:\n  x:\n    headers:\n      Authorization: Bearer {CANARY}\n",
    f"base_url: https://ada:{CANARY}@example.org/v1\n",
    f"api_key: >-\n  {CANARY}\n",
    f"api_key:\n  {CANARY}\n",
    f"keys_and_tokens:\n  - {CANARY}\n",
]
PLAIN = (
    "model:\n  provider: custom\n  api_key: ${MY_KEY}\n  max_tokens: 4096\n  key_env: MY_KEY\n"
    "auxiliary:\n  vision:\n    api_key: ''\n    token: null\n"
    "keyboard:\n  layout: us\n"
)


@pytest.mark.parametrize(
    "name", ["config.yaml", "config.yaml.bak.20260101", "profiles/work/config.yaml"]
)
@pytest.mark.parametrize("text", KEYS)
def test_settings_in_which_a_key_stands_are_private(full: Box, name: str, text: str) -> None:
    (full.home / name).write_text(text)
    assert CANARY.encode() not in content(full.save())
    assert full.ok("save-sign-ins")


def test_settings_without_a_key_are_state(full: Box, new_box: Callable[[], Box]) -> None:
    """So are a folder that is called like them, and an example of what a skill wants to know."""
    (full.home / "config.yaml").write_text(PLAIN)
    (full.home / "config.yaml.d").mkdir()
    (full.home / "config.yaml.d" / "notes").write_text("x")
    (full.home / "skills" / "mail" / ".env.example").write_text("KEY=")
    other = new_box().pretend(restored=False)
    other.ok("restore", stdin=full.save())
    assert (other.home / "config.yaml").read_text() == PLAIN
    assert (other.home / "config.yaml.d" / "notes").read_text() == "x"
    assert (other.home / "skills" / "mail" / ".env.example").read_text() == "KEY="
