# SPDX-License-Identifier: Apache-2.0
"""The stand-in refuses what Cloudflare refuses, with its codes, and stores nothing of what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests
from ansible_collections.hermes.workers.plugins.module_utils.cloudflare.client import (
    Cloudflare,
    CloudflareError,
)

from tests.cloudflare import ControlPlane
from tests.cloudflare.accounts import PERMISSIONS
from tests.cloudflare.uploading import ACCOUNT, OTHER, metadata, upload

Make = Callable[..., Cloudflare]


def refused(act: Callable[..., Any], *arguments: Any, **named: Any) -> tuple[int, int]:
    """Return status and code of a refusal."""
    with pytest.raises(CloudflareError) as caught:
        act(*arguments, **named)
    return caught.value.status, (caught.value.codes or [0])[0]


def container(image: str) -> list[dict[str, Any]]:
    return [{"name": "box", "class_name": "Box", "images": {"box": image}}]


def test_an_unknown_token_an_unknown_account_and_the_token_of_another(
    plane: ControlPlane, client: Make
) -> None:
    plane.add_account(OTHER, "token-of-the-other", subdomain="other")
    scripts = f"/accounts/{ACCOUNT}/workers/scripts"
    assert refused(client("nonsense").get, "/user/tokens/verify") == (401, 1000)
    assert refused(client("nonsense").get, scripts) == (403, 9109)
    assert refused(client("token-of-the-other").get, scripts) == (403, 10000)
    assert refused(client("token-of-the-other").get, f"/accounts/{ACCOUNT}") == (403, 9109)
    assert refused(client().get, f"/accounts/{'0' * 32}/workers/scripts") == (403, 10000)
    assert refused(client().get, "/accounts/mine/workers/scripts") == (404, 7003)


@pytest.mark.parametrize(
    ("permission", "call"),
    [
        ("Workers Scripts Write", upload),
        ("Workers Containers Write", lambda one: one.get(one.account("containers/me"))),
        ("Zone Read", lambda one: one.get("/zones")),
        ("Account Settings Read", lambda one: one.get(one.account())),
    ],
)
def test_a_token_without_the_permission(
    plane: ControlPlane, client: Make, permission: str, call: Callable[[Cloudflare], Any]
) -> None:
    plane.add_account(ACCOUNT, "narrow", scopes=PERMISSIONS - {permission})
    assert refused(call, client("narrow")) == (403, 10000)
    assert plane.state.accounts[ACCOUNT].workers == {}


def test_reading_is_less_than_writing(plane: ControlPlane, client: Make) -> None:
    plane.add_account(ACCOUNT, "reader", scopes={"Workers Scripts Read"})
    assert client("reader").get(client().account("workers/scripts")) == []
    assert refused(upload, client("reader")) == (403, 10000)


@pytest.mark.parametrize("name", ["a" * 64, "Alice", "al.ice", "al ice"])
def test_a_name_that_is_too_long_or_no_name(plane: ControlPlane, client: Make, name: str) -> None:
    assert refused(upload, client(), name.replace(" ", "%20")) == (400, 10016)


def test_an_account_without_containers(plane: ControlPlane, client: Make) -> None:
    account = plane.state.accounts[ACCOUNT]
    image = plane.add_image(ACCOUNT)
    account.plan = "free"
    assert refused(client().get, client().account("containers/me"))[0] == 403
    assert refused(upload, client(), containers=container(image))[0] == 403
    assert account.workers == {}


def test_images_by_tag_of_strangers_or_not_pushed(plane: ControlPlane, client: Make) -> None:
    image = plane.add_image(ACCOUNT)
    host = image.partition("/")[0]
    bad = [
        image.partition("@")[0] + ":latest",
        image.replace(host, "docker.io"),
        image.replace(ACCOUNT, OTHER),
        image[:-4] + "0000",
    ]
    for one in bad:
        assert refused(upload, client(), containers=container(one))[0] == 400, one
        path = client().account("containers/image-preparations")
        assert refused(client().post, path, {"image": one})[0] == 400, one
    assert plane.state.accounts[ACCOUNT].workers == {}
    upload(client(), containers=container(image))


def test_objects_need_their_migration_and_keep_it(client: Make) -> None:
    assert refused(upload, client(), migrations=None) == (400, 10061)
    upload(client())
    upload(client(), migrations=None)
    assert refused(upload, client()) == (400, 10074)
    assert refused(upload, client(), migrations={"old_tag": "v0", "new_tag": "v2"}) == (412, 10079)
    assert refused(upload, client(), code="export default {}", migrations=None) == (400, 10064)


def test_inherited_bindings_must_exist(client: Make) -> None:
    secret = {"type": "inherit", "name": "KEY"}
    objects = metadata()["bindings"][2]
    assert refused(upload, client(), bindings=[secret, objects]) == (400, 10057)
    upload(client())
    upload(client(), bindings=[secret, objects], migrations=None)


def test_secrets_stay_only_when_they_are_kept(plane: ControlPlane, client: Make) -> None:
    upload(client())
    bare = {"bindings": metadata()["bindings"][2:], "migrations": None}
    upload(client(), **bare)
    worker = plane.state.accounts[ACCOUNT].workers["box"]
    assert worker.current.secrets() == {"KEY": "sekret"}
    upload(client(), keep_bindings=None, **bare)
    assert worker.current.secrets() == {}


def test_limits_of_values_variables_and_scripts(client: Make) -> None:
    big = {"type": "plain_text", "name": "BIG", "text": "x" * 5121}
    assert refused(upload, client(), bindings=[big])[0] == 400
    many = [{"type": "plain_text", "name": f"V{n}", "text": ""} for n in range(129)]
    assert refused(upload, client(), bindings=many)[0] == 400
    noise = "export class Box {} // " + "".join(chr(33 + (n * n * 7919) % 90) for n in range(1000))
    assert refused(upload, client(), compatibility_date="2126-01-01") == (400, 10021)
    upload(client(), code=noise)
    path = client().account("workers/scripts/box/secrets-bulk")
    large = {"KEY": {"name": "KEY", "type": "secret_text", "text": "x" * 5121}}
    assert refused(client().patch, path, {"secrets": large}, merge=True)[0] == 400
    taken = {"BOX": {"name": "BOX", "type": "secret_text", "text": "x"}}
    assert refused(client().patch, path, {"secrets": taken}, merge=True)[0] == 400


def test_secrets_are_never_shown_and_never_logged(plane: ControlPlane, client: Make) -> None:
    upload(client())
    for path in ("settings", "secrets", "versions"):
        assert "sekret" not in str(client().get(client().account(f"workers/scripts/box/{path}")))
    version = plane.state.accounts[ACCOUNT].workers["box"].current.id
    shown = client().get(client().account(f"workers/scripts/box/versions/{version}"))
    assert "sekret" not in str(shown)
    assert {"name": "KEY", "type": "secret_text"} in shown["resources"]["bindings"]
    assert "sekret" not in plane.calls_log.path.read_text()
    assert '"KEY"' in plane.calls_log.path.read_text()
    assert "token-of-the-account" not in plane.calls_log.path.read_text()


def test_an_earlier_version_with_other_secrets_needs_force(
    plane: ControlPlane, client: Make
) -> None:
    upload(client())
    first = plane.state.accounts[ACCOUNT].workers["box"].current
    secrets = {"KEY": {"name": "KEY", "type": "secret_text", "text": "new"}}
    bulk = client().account("workers/scripts/box/secrets-bulk")
    client().patch(bulk, {"secrets": secrets}, merge=True)
    path = client().account("workers/scripts/box/deployments")
    body = {
        "strategy": "percentage",
        "versions": [{"version_id": first.id, "percentage": 100}],
    }
    assert refused(client().post, path, body) == (400, 10220)
    assert client().post(path + "?force=true", body)["versions"][0]["version_id"] == first.id


def test_a_missing_worker_is_missing_everywhere(client: Make) -> None:
    for path in ("settings", "secrets", "deployments", "versions", "subdomain", "script-settings"):
        missing = client().account(f"workers/scripts/nobody/{path}")
        assert refused(client().get, missing) == (404, 10007), path


def test_workers_dev_needs_the_account_to_have_a_name(plane: ControlPlane, client: Make) -> None:
    plane.state.accounts[ACCOUNT].subdomain = None
    upload(client())
    path = client().account("workers/scripts/box/subdomain")
    assert refused(client().post, path, {"enabled": True}) == (400, 10063)


def test_a_suspended_account_can_be_read_only(plane: ControlPlane, client: Make) -> None:
    plane.state.accounts[ACCOUNT].suspended = True
    assert client().get(client().account("workers/scripts")) == []
    assert refused(upload, client())[0] == 403


def test_a_call_that_nobody_taught_it_fails_loudly(plane: ControlPlane, client: Make) -> None:
    assert refused(client().get, client().account("workers/queues")) == (404, 7000)
    assert refused(client().put, client().account("containers/me")) == (405, 7000)
    assert len(plane.unknown) == 2
    plane.unknown.clear()


def test_more_calls_than_the_limit_are_held_for_five_minutes(
    plane: ControlPlane, client: Make
) -> None:
    plane.rate_limit = 2
    url = f"https://api.cloudflare.com/client/v4/accounts/{ACCOUNT}/workers/scripts"
    headers = {"Authorization": "Bearer token-of-the-account"}
    answers = [requests.get(url, headers=headers, timeout=10) for _ in range(3)]
    assert [one.status_code for one in answers] == [200, 200, 429]
    assert 290 < int(answers[2].headers["Retry-After"]) <= 301
    plane.advance(301)
    assert requests.get(url, headers=headers, timeout=10).status_code == 200
