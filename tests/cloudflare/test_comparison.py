# SPDX-License-Identifier: Apache-2.0
"""The report of a live run names what is different, and nothing else."""

from __future__ import annotations

from typing import Any

from tests.cloudflare.comparison import differences, report
from tests.cloudflare.recorder import Answered, Recorder
from tests.cloudflare.shapes import shape


def answered(
    path: str = "/a", status: int = 200, codes: tuple[int, ...] = (), **result: Any
) -> Answered:
    return Answered("GET", path, status, list(codes), shape({"result": result, "errors": []}))


def test_equal_answers_make_no_difference_however_often_they_came() -> None:
    stand_in = [answered(id="x", list=[]), answered("/b")]
    real = [answered(id="y", list=["one"]), answered(id="z", list=[]), answered("/b")]
    assert differences(real, stand_in) == []
    assert "All 2 kinds of calls" in report("Title", [], real, [])


def test_other_codes_fields_and_calls_are_named() -> None:
    stand_in = [answered(id="x", old=1), answered("/gone", 404, (10007,)), answered("/unsent")]
    real = [answered(id=5, new=True), answered("/gone", 404, (10090,)), answered("/only")]
    found = differences(real, stand_in)
    assert found == [
        ("GET /a", "unlike the stand-in's: .result.id is number, not str"),
        ("GET /a", "unlike the stand-in's: .result.old is missing"),
        ("GET /a", "has more than the stand-in's: .result.new"),
        ("GET /gone", "answers 404 (code 10090); the stand-in 404 (code 10007)"),
        ("GET /only", "the stand-in's run did not send it"),
        ("GET /unsent", "only the stand-in's run sent it"),
    ]
    assert "`GET /only`" in report("Title", found, real, [])


def test_a_moment_s_trouble_is_no_difference() -> None:
    trouble = [answered(status=429), answered(status=503), Answered("GET", "/a", 0, [], None)]
    assert differences([*trouble, answered()], [answered()]) == []


def test_paths_are_alike_in_every_run() -> None:
    recorder = Recorder("https://api.example", ["hermes-live-1", "hermes-live-1-hermes"])
    path = f"/client/v4/accounts/{'a' * 32}/workers/scripts/hermes-live-1/versions/"
    version = "0f6f1f5e-8f0c-4f7a-9a3e-3f1f5e8f0c4f"
    generic = "/client/v4/accounts/{id}/workers/scripts/{name}/versions/{id}"
    assert recorder._generic(path + version) == generic
    registry = f"/client/v4/accounts/{'b' * 32}/containers/registries/127.0.0.1:5000/credentials"
    assert recorder._generic(registry).endswith("/registries/{registry}/credentials")
