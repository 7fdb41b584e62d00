# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Digests name content, not circumstances; proofs tell which secrets differ."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from ansible_collections.hermes.workers.plugins.module_utils.digests import (
    differing,
    digest_of,
    files_below,
    proof,
)

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
