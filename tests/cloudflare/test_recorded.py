# SPDX-License-Identifier: Apache-2.0
"""What wrangler 4.164.0 and our REST calls were seen to send is answered in the shape that they were seen to take."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import Cloudflare

from tests.cloudflare import ControlPlane
from tests.cloudflare.shapes import lacks, shape
from tests.cloudflare.uploading import ACCOUNT, CODE, TOKEN, upload

Make = Callable[..., Cloudflare]
RECORDED = Path(__file__).with_name("recorded")
ZONE = "5ababd603b22780302dd8d83498e5172"
ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
IMAGE = re.compile(r"localhost/[^\"@]+@sha256:[0-9a-f]{64}")


class Replay:
    """Sends recorded calls again; ids that the stand-in made take the places of the recorded ones."""

    def __init__(self, plane: ControlPlane) -> None:
        self.image = plane.add_image(ACCOUNT)
        self.registry = plane.env["CLOUDFLARE_CONTAINER_REGISTRY"]
        self.ids: dict[str, str] = {}
        self.session = requests.Session()

    def file(self, name: str) -> None:
        for line in (RECORDED / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            self.call(json.loads(line))

    def call(self, recorded: dict[str, Any]) -> None:
        path = self.now(recorded["path"]).replace(
            "/registries/localhost/", f"/registries/{self.registry}/"
        )
        url = f"https://api.cloudflare.com{path}?{recorded['query']}"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        if recorded["content_type"] not in ("", "multipart/form-data"):
            headers["Content-Type"] = recorded["content_type"]
        answer = self.session.request(
            recorded["method"], url, headers=headers, timeout=30, **self.body(recorded)
        )
        said = f"{recorded['method']} {path}"
        assert answer.status_code == recorded["status"], (said, answer.text)
        found = answer.json()
        assert [one["code"] for one in found["errors"]] == [
            one["code"] for one in recorded["answer"]["errors"]
        ], said
        missing = list(lacks(shape(recorded["answer"]), shape(found)))
        assert not missing, (said, missing)
        self.learn(recorded["answer"], found)

    def body(self, recorded: dict[str, Any]) -> dict[str, Any]:
        if recorded["request"] is None:
            return {}
        body = json.loads(self.now(IMAGE.sub(self.image, json.dumps(recorded["request"]))))
        if recorded["content_type"] != "multipart/form-data":
            return {"data": json.dumps(body)}
        metadata = json.dumps(body.pop("metadata"))
        parts = {"metadata": (None, metadata, "application/json")}
        for name in body:
            kind = "source-map" if name.endswith(".map") else "javascript+module"
            parts[name] = (name, CODE, f"application/{kind}")
        return {"files": parts}

    def now(self, text: str) -> str:
        return ID.sub(lambda found: self.ids.get(found[0], found[0]), text)

    def learn(self, recorded: Any, found: Any) -> None:
        """Note which id here stands for which recorded one."""
        if isinstance(recorded, dict) and isinstance(found, dict):
            for name in recorded.keys() & found.keys():
                self.learn(recorded[name], found[name])
        elif isinstance(recorded, list) and isinstance(found, list):
            for one, other in zip(recorded, found, strict=False):
                self.learn(one, other)
        elif isinstance(recorded, str) and isinstance(found, str) and ID.fullmatch(recorded):
            self.ids[recorded] = found
            if "-" not in recorded:
                self.ids[dashed(recorded)] = dashed(found)


def dashed(text: str) -> str:
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


@pytest.fixture
def replay(plane: ControlPlane) -> Replay:
    zone = next(iter(plane.state.zones.values()))
    plane.state.zones = {ZONE: zone}
    zone.id = ZONE
    return Replay(plane)


def test_a_first_and_a_second_deploy_by_wrangler(replay: Replay) -> None:
    replay.file("do-first")
    replay.file("do-second")


def test_a_deploy_with_declared_exports(replay: Replay) -> None:
    replay.file("exports-first")


def test_a_deploy_by_plain_calls(replay: Replay) -> None:
    replay.file("rest-deploy")


def test_lists_and_secrets_of_a_worker_that_exists(replay: Replay, client: Make) -> None:
    upload(client(), "w-default")
    replay.file("secret-bulk")
    replay.file("images-list")


def test_deleting_a_worker(replay: Replay, client: Make) -> None:
    upload(client(), "w-default")
    replay.file("do-first")
    replay.file("delete-force")
