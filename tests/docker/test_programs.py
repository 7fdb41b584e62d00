# SPDX-License-Identifier: Apache-2.0
"""Debian's programs from the lock run on the base, laid as the Dockerfile lays them."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.hermes.workers.plugins.plugin_utils.build import debian

from tests.docker.engine import ROOT, Docker

CLONE = """
set -eu
git init -q /there && cd /there
git -c user.name=ada -c user.email=ada@localhost commit -q --allow-empty -m "the first one"
git clone -q /there /here && git -C /here log --format=%s
ssh -V 2>&1
git ls-remote https://127.0.0.1:1/nobody 2>&1 || true
"""


def test_git_clones_a_repository_and_speaks_tls(docker: Docker, base: str, tmp_path: Path) -> None:
    debian.lay(ROOT / "container", ["git"], tmp_path / "debian")
    assert sum(one.lstat().st_size for one in (tmp_path / "debian").rglob("*")) < 60_000_000
    lines = (ROOT / "container" / "Dockerfile").read_text().splitlines()
    (copy,) = (line for line in lines if line.startswith("COPY debian"))
    (lay,) = (line for line in lines if "cp -an /opt/debian/. /" in line)
    text = f"FROM {base}\n{copy}\nRUN {lay.strip().removesuffix('; ' + chr(92))}\n"
    (tmp_path / "Dockerfile").write_text(text)
    name = docker.build(tmp_path, "hermes-tests/programs:git")
    said = docker("run", "--rm", "--network=none", "--entrypoint", "sh", name, "-c", CLONE)
    assert "the first one" in said and "OpenSSH" in said
    assert "Failed to connect to 127.0.0.1 port 1" in said, "its part for https is loaded"
