# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""A file is downloaded whole, though the network fails for a moment; what does not pass by itself is told at once."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from ansible_collections.hermes.workers.plugins.plugin_utils.build import download as module
from ansible_collections.hermes.workers.plugins.plugin_utils.build.download import download
from api_server import ApiServer, Reply

CONTENT = b"all of it"
CUT = Reply(200, CONTENT, {"Content-Length": "99"})


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited; nobody waits."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def served(replies: Iterator[Reply]) -> ApiServer:
    return ApiServer(lambda _call: next(replies))


@pytest.mark.parametrize(
    "failure",
    [Reply(503), Reply(429), Reply(drop=True), CUT],
    ids=["503", "429", "dropped", "cut"],
)
def test_what_passes_is_tried_again(failure: Reply, paused: list[float]) -> None:
    with served(iter([failure, failure, Reply(200, CONTENT)])) as server:
        assert download(f"{server.url}/it", 5) == CONTENT
    assert paused == [1, 2]


def test_a_name_that_is_not_resolved_for_a_moment_is_asked_for_again(
    paused: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, failures = socket.getaddrinfo, [socket.gaierror(socket.EAI_AGAIN, "not now")]

    def late(*asked: object, **more: object) -> object:
        if failures:
            raise failures.pop()
        return resolve(*asked, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", late)
    with served(iter([Reply(200, CONTENT)])) as server:
        assert download(f"{server.url}/it", 5) == CONTENT
    assert paused == [1]


def test_what_does_not_pass_is_told_and_what_is_refused_at_once(paused: list[float]) -> None:
    for reply, pauses in ((CUT, [*module.PAUSES_SECONDS]), (Reply(404), [])):
        with served(iter([reply] * 4)) as server, pytest.raises(OSError):
            download(f"{server.url}/it", 5)
        assert paused == pauses
        paused.clear()
