# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the owner keeps an API token that the inventory gives: a file of Ansible Vault's, or behind a command."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, is_encrypted, parse_vaulttext_envelope

from ...module_utils.cards import Card
from ...module_utils.settings.settings import Settings
from .disk import write_private

VARIABLE = "hermes_api_token"
# The variable with its value, which may go on in deeper lines.
ENTRY = re.compile(rf"^{VARIABLE}:.*(?:\n[ \t]+.*)*$", re.MULTILINE)
COMMAND_SECONDS = 120.0


def write(settings: Settings, token: str, loader: DataLoader) -> None:
    """Write the token to where the inventory takes it from. Raises a Card; then the store holds the token of before.

    loader: the play's, which knows the passwords of its vaults.
    """
    if settings.token_vault_file:
        _write_vault(Path(settings.token_vault_file).expanduser(), token, loader)
    elif settings.token_command:
        _run(settings, token)


def check(settings: Settings, loader: DataLoader) -> None:
    """Make sure that a token could be written, before anything depends on it. Raises a Card."""
    if settings.token_vault_file:
        _open(Path(settings.token_vault_file).expanduser(), loader)


def _write_vault(path: Path, token: str, loader: DataLoader) -> None:
    text, label, vault = _open(path, loader)
    secret = _secret(vault, label, path)
    if label is None:
        # A plain file in which single values are encrypted.
        lines = vault.encrypt(token, secret[1], secret[0]).decode().splitlines()
        entry = f"{VARIABLE}: !vault |\n" + "\n".join(f"  {line}" for line in lines)
        changed = _replaced(text, entry)
    else:
        plain = _replaced(text, f"{VARIABLE}: {json.dumps(token)}")
        changed = vault.encrypt(plain, secret[1], label or None).decode()
    try:
        mode = path.stat().st_mode & 0o777
        write_private(path, changed, durable=True)
        path.chmod(mode)
    except OSError as error:
        raise _refused(f"{path} cannot be written: {error.strerror or error}.") from error


def _open(path: Path, loader: DataLoader) -> tuple[str, str | None, VaultLib]:
    """Return a file's text in the clear, its vault id (None where only single values are encrypted), and the vault."""
    vault: VaultLib = loader._vault
    try:
        text = path.read_text(encoding="utf-8")
        if not os.access(path.parent, os.W_OK):
            raise _refused(f"{path.parent} cannot be written by you.")
        if not is_encrypted(text):
            _secret(vault, None, path)
            return text, None, vault
        _ciphertext, _version, _cipher, label = parse_vaulttext_envelope(text.encode())
        return vault.decrypt(text.encode()).decode(), label or "", vault
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(f"{path} cannot be read: {error}.") from error
    except AnsibleError as error:
        raise _refused(f"{path} cannot be decrypted with the passwords of this play.") from error


def _secret(vault: VaultLib, label: str | None, path: Path) -> tuple[str, Any]:
    """Return the vault id and the secret to encrypt with: the file's own, else the play's first."""
    known = vault.secrets or []
    found = [entry for entry in known if entry[0] == label] or known
    if not found:
        raise _refused(f"this play has no vault password to encrypt {path} with.")
    label_of_it, secret = found[0]
    return label_of_it, secret


def _replaced(text: str, entry: str) -> str:
    """Return a file of variables with another value of the token; everything else as it was."""
    if ENTRY.search(text):
        return ENTRY.sub(lambda _found: entry, text, count=1)
    return f"{text.rstrip()}\n{entry}\n" if text.strip() else f"{entry}\n"


def _run(settings: Settings, token: str) -> None:
    """Run the owner's command with the token on its standard input; its output may repeat it, and is not shown."""
    try:
        done = subprocess.run(
            settings.token_command,
            input=token,
            env={**os.environ, "HERMES_NAME": settings.name},
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = "did not end" if isinstance(error, subprocess.TimeoutExpired) else error.strerror
        raise _refused(f"{settings.token_command[0]}: {reason}.") from None
    if done.returncode != 0:
        raise _refused(f"{settings.token_command[0]} ended with exit code {done.returncode}.")


def _refused(sentence: str) -> Card:
    return Card.of(
        VARIABLE,
        f"the new one cannot be kept: {sentence}",
        "mend hermes_token_vault_file or hermes_token_command and run it again: it goes on with the same token.",
        "token-store",
    )
