# SPDX-License-Identifier: Apache-2.0
"""A state of 105 MB leaves Cloudflare and comes back, though no request over 100 MB gets in there."""

from __future__ import annotations

import json
import os

import requests
from clouds import Cloud, cloud, home_of

__all__ = ["cloud"]

SIZE = 105_000_000
SKILL = "---\nname: gauges\ndescription: Reads gauges.\n---\nRead it twice.\n"


def test_a_large_state_is_backed_up_and_restored_although_it_is_cut_in_between(
    cloud: Cloud,
) -> None:
    agent = {
        "hermes_soul": {"text": "You live in a lighthouse."},
        "hermes_skills": {"gauges": {"text": SKILL}},
        "hermes_cron_jobs": {"lamp": {"schedule": "0 0 2 2 *", "prompt": "Trim the lamp."}},
    }
    cloud.deploy("large", **agent)
    large = home_of(cloud, "large") / "memories" / "large.bin"
    large.parent.mkdir(exist_ok=True)
    content = os.urandom(SIZE)
    large.write_bytes(content)
    play = cloud.play("backup", "large")
    assert play.code == 0, play.output
    assert "105 MB: Cloudflare lets in no more than 100 MB at once" in play.output
    (kept,) = (cloud.home / "backups").glob("large-*.hermes")
    token = (cloud.home / "large" / "api_token").read_text().strip()
    whole = requests.put(
        "https://large.acme.workers.dev/api/instance/backups",
        data=kept.read_bytes(),
        headers={"Authorization": f"Bearer {token}"},
        proxies={"https": cloud.plane.env["HTTPS_PROXY"]},
        verify=cloud.plane.env["SSL_CERT_FILE"],
        timeout=120,
    )
    assert whole.status_code == 413, "the edge takes it in no one piece"

    agent["hermes_soul"] = {"text": "You live in a windmill."}
    cloud.deploy("large", **agent)
    large = home_of(cloud, "large") / "memories" / "large.bin"
    large.write_bytes(b"something else")
    restore = ("-e", f"hermes_backup={kept}")
    cloud.plane.faults.on("PUT", r"large\..*/uploads/[0-9a-f]+/5", "cut-before", times=4)
    play = cloud.play("restore", "large", *restore)
    cloud.plane.faults.clear()
    assert play.code != 0
    assert "what has arrived is kept for a day, and only the rest is sent" in play.output
    assert large.read_bytes() == b"something else", "nothing was replaced"

    start = len(cloud.plane.calls)
    play = cloud.play("restore", "large", *restore)
    assert play.code == 0, play.output
    assert "5 of 7 parts are there already" in play.output
    sent = [one.path for one in cloud.plane.calls[start:] if one.method == "PUT"]
    assert len(sent) == 2, sent
    found = home_of(cloud, "large") / "memories" / "large.bin"
    assert found.read_bytes() == content
    assert cloud.chat("large", "Are you there?")[0] == 200
    # What is declared now is laid over the older backup, and comes back from a sleep.
    for order in (None, "sleep"):
        if order:
            assert cloud.deployment("large").call("POST", f"/api/instance/{order}").status == 200
            assert cloud.chat("large", "Are you there?")[0] == 200
        own = home_of(cloud, "large")
        assert "windmill" in (own / "SOUL.md").read_text()
        assert (own / "skills" / "gauges" / "SKILL.md").read_text() == SKILL
        jobs = json.loads((own / "cron" / "jobs.json").read_text())["jobs"]
        assert [one["name"] for one in jobs] == ["lamp"]
