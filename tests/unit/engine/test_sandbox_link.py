# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A snapshot of processes that run is none."""

from __future__ import annotations

import asyncio

import pytest
from engine import sandbox_link
from engine.errors import EngineError
from engine.sandbox import Sandbox


class NoSnapshots:
    """Takes none."""

    def take(self, *_: object) -> dict[str, object]:
        raise AssertionError("a disk was copied while its processes ran")


def test_no_disk_is_copied_when_pid_1_does_not_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_link, "PAUSE_TIME", 0.05)

    async def snapshot() -> None:
        sandbox = Sandbox.__new__(Sandbox)
        sandbox.link = sandbox_link.SandboxLink()
        await sandbox.snapshot(NoSnapshots(), "name")

    with pytest.raises(EngineError, match="could not be paused"):
        asyncio.run(snapshot())
