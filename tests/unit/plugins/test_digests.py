# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Digests name content, not circumstances; proofs tell which secrets differ."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.digests import (
    differing,
    digest_of,
    files_below,
    proof,
)
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.module_utils.worker_client import (
    Answer,
    Unreachable,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.proof.secrets import (
    PREVIOUS,
    effective_secrets,
    prove_secrets,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder

NONCE = "ab" * 32


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.py").write_text("x = 1\n")
    (tmp_path / "two.sh").write_text("echo 2\n")
    return tmp_path


def digest(tree: Path, *facts: str) -> str:
    return digest_of(tree, files_below(tree), *facts)


def test_a_digest_is_of_names_and_contents(tree: Path) -> None:
    first = digest(tree)
    (tree / "two.sh").write_text("echo 3\n")
    second = digest(tree)
    (tree / "two.sh").rename(tree / "three.sh")
    assert len({first, second, digest(tree), digest(tree, "python 3.12")}) == 4


def test_line_ends_of_a_windows_clone_do_not_count(tree: Path) -> None:
    first = digest(tree)
    (tree / "two.sh").write_bytes(b"echo 2\r\n")
    assert digest(tree) == first


def test_caches_and_tests_do_not_count(tree: Path) -> None:
    first = digest(tree)
    for name in ("a/__pycache__/one.pyc", "tests/test_one.py", "node_modules/x.js", "a/x.pyc"):
        path = tree / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("noise")
    assert digest(tree) == first


def test_a_proof_is_hmac_sha256_keyed_by_the_value() -> None:
    assert proof("key", NONCE) == hmac.new(b"key", NONCE.encode(), hashlib.sha256).hexdigest()


def test_missing_other_and_surplus_secrets_differ() -> None:
    wanted = {"SAME": "a", "OTHER": "b", "MISSING": "c"}
    proofs = {"SAME": proof("a", NONCE), "OTHER": proof("x", NONCE), "SURPLUS": proof("d", NONCE)}
    assert differing(wanted, proofs, NONCE) == ["MISSING", "OTHER", "SURPLUS"]


def test_the_token_that_is_kept_is_wanted_where_none_is_given(tmp_path: Path) -> None:
    deployment, settings = StateFolder(str(tmp_path), "alice"), Settings(name="alice")
    key = {"ANTHROPIC_API_KEY": "key"}
    assert effective_secrets(settings, key, deployment) == key, "one has yet to be generated"
    deployment.create()
    deployment.keep_token("kept")
    assert effective_secrets(settings, key, deployment) == {**key, "API_TOKEN": "kept"}
    given = {"API_TOKEN": "given"}
    assert effective_secrets(settings, given, deployment) == given
    settings.allow_unauthenticated = True
    assert effective_secrets(settings, key, deployment) == key


class Holder:
    """A Worker that proves these secrets, or answers otherwise."""

    def __init__(self, held: dict[str, str], **otherwise: Any) -> None:
        self.held = held
        self.otherwise = otherwise

    def request(self, _method: str, path: str, body: dict[str, str], timeout: float) -> Answer:
        assert path == "/api/secrets/proof" and timeout
        if "unreachable" in self.otherwise:
            raise Unreachable("gone")
        proofs = {name: proof(value, body["nonce"]) for name, value in self.held.items()}
        content = json.dumps(self.otherwise.get("body", {"proofs": proofs})).encode()
        return Answer(self.otherwise.get("status", 200), {}, content)


WANTED = {"API_TOKEN": "token", "ANTHROPIC_API_KEY": "key"}


@pytest.mark.parametrize(
    ("held", "differ"),
    [
        (WANTED, []),
        ({**WANTED, "ANTHROPIC_API_KEY": "another"}, ["anthropic_api_key"]),
        ({"ANTHROPIC_API_KEY": "key"}, ["hermes_api_token"]),
        ({**WANTED, "STRANGER": "x"}, ["STRANGER"]),
        ({**WANTED, PREVIOUS: "of before a rotation"}, []),
    ],
)
def test_what_a_worker_holds_otherwise_is_named_by_its_variable(
    held: dict[str, str], differ: list[str]
) -> None:
    assert prove_secrets(Holder(held), WANTED) == differ


def test_the_token_of_before_is_held_to_where_it_is_wanted() -> None:
    wanted = {**WANTED, PREVIOUS: "before"}
    assert prove_secrets(Holder(WANTED), wanted) == ["hermes_api_token (the one before)"]


@pytest.mark.parametrize(
    "otherwise",
    [{"status": 401}, {"body": []}, {"body": {"proofs": "no"}}, {"unreachable": True}],
    ids=["refused", "no object", "no proofs", "gone"],
)
def test_without_a_proof_nothing_is_known(otherwise: dict[str, Any]) -> None:
    assert prove_secrets(Holder(WANTED, **otherwise), WANTED) is None
    assert prove_secrets(None, WANTED) is None
