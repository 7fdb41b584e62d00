# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""Containers: how the engine's API is spoken, and which images and snapshots are removed."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.hermes.workers.plugins.module_utils import docker
from ansible_collections.hermes.workers.plugins.module_utils.cards import Card
from ansible_collections.hermes.workers.plugins.module_utils.docker import (
    DockerEngine,
    DockerError,
    tar_of,
)
from ansible_collections.hermes.workers.plugins.module_utils.settings.settings import Settings
from ansible_collections.hermes.workers.plugins.plugin_utils.cloudflare.image import PushedImage
from ansible_collections.hermes.workers.plugins.plugin_utils.containers import network
from ansible_collections.hermes.workers.plugins.plugin_utils.containers.engine import (
    ContainerEngine,
)
from ansible_collections.hermes.workers.plugins.plugin_utils.containers.image import (
    ContainerImage,
    Containers,
    speaking,
)
from container_engine import StandIn, stand_in

__all__ = ["stand_in"]

IMAGE = f"a.example/hermes@sha256:{'a' * 64}"
CLOUDFLARE = Settings(platform="cloudflare", engine="cloudflare", source={"image": IMAGE})
CLEANER = Path(__file__).resolve().parents[3] / "host" / "cleaner.py"


@pytest.fixture(params=["", "docker.io/library/"], ids=["docker", "podman"])
def either(stand_in: StandIn, request: pytest.FixtureRequest) -> StandIn:
    stand_in.registry = request.param
    return stand_in


@pytest.fixture
def engine(stand_in: StandIn) -> DockerEngine:
    return DockerEngine(stand_in.path)


DIGEST = "sha256:" + "0a" * 32
IN_WORDS = {"status": f"one: digest: {DIGEST} size: 425"}


@pytest.mark.parametrize(
    "lines",
    [
        [{"status": "Pushed"}, IN_WORDS, {"aux": {"Tag": "one", "Digest": DIGEST}}],
        [{"status": "Copying config"}, IN_WORDS],
    ],
    ids=["docker", "podman"],
)
def test_a_push_tells_the_digest_whichever_way_the_engine_does(
    stand_in: StandIn, engine: DockerEngine, lines: list[dict[str, Any]]
) -> None:
    stand_in.pushed = b"".join(json.dumps(line).encode() + b"\r\n" for line in lines)
    told: list[str] = []
    found = engine.push("r/i", "one", "user", "canary", told.append)
    assert found == DIGEST
    assert "canary" not in str(told + stand_in.seen)


def test_a_push_that_tells_no_digest_is_none(stand_in: StandIn, engine: DockerEngine) -> None:
    stand_in.pushed = json.dumps({"status": "pushed"}).encode() + b"\n"
    with pytest.raises(DockerError, match="without the image's digest"):
        engine.push("one", "tag", "me", "secret", print)


def test_a_folder_is_sent_whole_and_a_failed_build_is_an_error(
    stand_in: StandIn, engine: DockerEngine, tmp_path: Path
) -> None:
    folder = tmp_path / "context"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_text("content" * 10_000)
    told: list[str] = []
    with pytest.raises(DockerError, match="no space"):
        engine.build(folder, "name", {}, told.append)
    assert told == ["Step 1"]
    with tarfile.open(fileobj=io.BytesIO(stand_in.body)) as archive:
        assert archive.getnames() == ["deep", "deep/file"]
        assert archive.getmember("deep/file").size == 70_000


def test_equal_folders_make_equal_archives(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
        os.utime(tmp_path / name / "file", (1e9, 1e9))
    assert b"".join(tar_of(tmp_path / "a")) == b"".join(tar_of(tmp_path / "b"))


@pytest.mark.parametrize(
    ("path", "ask"),
    [
        ("/networks/bridge", lambda one: one.bridge_gateway()),
        ("/images/a/json", lambda one: one.image("a")),
        ("/images/a", lambda one: one.remove_image("a")),
        ("/containers/create", lambda one: one.keep_running("a", "b", [])),
        ("/containers/a", lambda one: one.remove_container("a")),
    ],
    ids=["bridge", "image", "remove image", "container", "remove container"],
)
def test_an_engine_that_fails_is_not_taken_for_one_that_has_none(
    stand_in: StandIn, engine: DockerEngine, path: str, ask: Any
) -> None:
    stand_in.refused[path] = (500, {"message": "the disk is broken"})
    with pytest.raises(DockerError, match="the disk is broken"):
        ask(engine)


def test_a_container_that_cannot_call_this_machine_is_told_with_its_last_words(
    stand_in: StandIn, engine: DockerEngine
) -> None:
    stand_in.refused["/networks/bridge"] = (200, {"IPAM": {"Config": [{"Gateway": "127.0.0.1"}]}})
    stand_in.printed = (1, "Traceback ...\nTimeoutError: timed out\n")
    assert network.why_unreachable(engine, "image") == "TimeoutError: timed out"
    stand_in.printed = (0, "somebody else\n")
    assert network.why_unreachable(engine, "image") == "somebody else"
    stand_in.printed = (0, "")
    assert network.why_unreachable(engine, "image") == "it was not answered"
    stand_in.refused["/containers/create"] = (500, {"message": "the disk is broken"})
    with pytest.raises(DockerError, match="the disk is broken"):
        network.why_unreachable(engine, "image")


def test_what_is_gone_already_is_no_failure(stand_in: StandIn, engine: DockerEngine) -> None:
    assert engine.bridge_gateway() == "" and engine.published_on() == docker.EVERYWHERE
    assert engine.remove_image("a") is False and engine.remove_volume("a") is True
    engine.remove_container("a")
    assert engine.keep_running("a", "b", []) is True
    assert engine.keep_running("a", "b", []) is False


def test_an_image_that_is_not_there_is_none(engine: DockerEngine) -> None:
    assert engine.image("nothing:1") is None


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 100\r\n\r\n{",
        CHUNKED + b"100\r\n{",
        CHUNKED + b'9\r\n{"status"\r\n0\r\n\r\n',
        b"SSH-2.0-other\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ],
    ids=["nothing", "half", "half a refusal", "half a chunk", "half a line", "other", "no JSON"],
)
@pytest.mark.parametrize("call", ["version", "pull"])
def test_an_engine_that_breaks_off_is_told_as_one_that_does_not_answer(
    stand_in: StandIn, answer: bytes, call: str
) -> None:
    """As one does that is restarted in the middle."""
    stand_in.raw = {"/version": answer, "/images/create": answer}
    engine = DockerEngine(stand_in.path)
    calls = {"version": engine.version, "pull": lambda: engine.pull("a.example/b", print)}
    with pytest.raises(Card) as caught, speaking(stand_in.path):
        calls[call]()
    assert caught.value.render().startswith("hermes_engine: docker needs a Docker engine, and ")


def test_who_cannot_ask_a_registry_does_not_refuse(stand_in: StandIn, engine: DockerEngine) -> None:
    assert engine.registry_problem("a/b") == ""
    stand_in.refused["/distribution/a/b/json"] = (500, {"message": "no such host"})
    assert engine.registry_problem("a/b") == "no such host"


def test_an_image_goes_with_its_last_claim(either: StandIn) -> None:
    either.add("old", "hermes-workers:1", "hermes-workers:1-alice-00", "hermes-workers:1-bob-00")
    either.add("new", "hermes-workers:2", "hermes-workers:2-alice-00")
    either.add("nobody's", "hermes-workers:3")
    alice, bob = (Containers(either.path, session) for session in ("alice-00", "bob-00"))
    alice.prune(keep="hermes-workers:2")
    assert "hermes-workers:1-alice-00" not in either.names()
    assert "hermes-workers:1" in either.names(), "bob still claims it"
    bob.prune(keep=None)
    assert either.names() == {"hermes-workers:2", "hermes-workers:2-alice-00", "hermes-workers:3"}


def test_an_image_goes_when_its_last_two_claims_go_at_once(
    either: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    either.add("1", "hermes-workers:1", "hermes-workers:1-alice-00", "hermes-workers:1-bob-00")
    alice, bob = (Containers(either.path, session) for session in ("alice-00", "bob-00"))
    listing = DockerEngine.images

    def interrupted(engine: DockerEngine, pattern: str) -> list[dict[str, Any]]:
        found = listing(engine, pattern)
        monkeypatch.setattr(DockerEngine, "images", listing)
        bob.prune(keep=None)
        return found

    monkeypatch.setattr(DockerEngine, "images", interrupted)
    alice.prune(keep=None)
    assert either.names() == set()


def test_names_that_others_gave_an_image_stay(either: StandIn) -> None:
    either.add("1", "hermes-workers:1", "hermes-workers:1-alice-00", "somebody/hermes:mine")
    Containers(either.path, "alice-00").prune(keep=None)
    assert either.names() == {"somebody/hermes:mine"}


def test_what_is_removed_is_ones_own(either: StandIn) -> None:
    either.add("1", "workerd-container-snap-one:latest", session="alice-00")
    either.add("2", "workerd-container-snap-two:latest", session="bob-00")
    either.add("3", "workerd-container-snap-three:latest")
    either.containers = {"c1-proxy": "alice-00", "c1": "alice-00", "c2": "bob-00"}
    either.containers["hermes-bridge-alice-00"] = ""
    Containers(either.path, "alice-00").remove_all()
    assert either.containers == {"c2": "bob-00"}
    assert either.names() == {
        "workerd-container-snap-two:latest",
        "workerd-container-snap-three:latest",
    }


@pytest.fixture
def cleaner(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program that cleans, which finds the client of engines beside itself."""
    monkeypatch.setitem(sys.modules, "docker", docker)
    spec = importlib.util.spec_from_file_location("cleaner", CLEANER)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_cleaner_removes_the_volumes_of_containers_that_are_gone(
    stand_in: StandIn, engine: DockerEngine, cleaner: Any
) -> None:
    mine, others, held = ("a" * 64), ("b" * 64), ("c" * 64)
    stand_in.volumes = {mine, others, held, "named"}
    stand_in.containers = {"c1": "alice-00", "c2": "bob-00"}
    stand_in.mounts = {
        "c1": [{"Type": "volume", "Name": name} for name in (mine, held, "named")],
        "c2": [{"Type": "volume", "Name": others}],
    }
    seen = cleaner.drop_volumes(engine, "alice-00", set())
    assert seen == {mine, held}
    assert cleaner.drop_volumes(engine, "alice-00", seen) == seen, "they are in use"
    del stand_in.containers["c1"]
    stand_in.mounts["c1"] = [{"Type": "volume", "Name": held}]  # somebody else's, by now
    assert cleaner.drop_volumes(engine, "alice-00", seen) == {held}
    assert stand_in.volumes == {others, held, "named"}


def test_the_cleaner_keeps_the_newest_snapshots(
    either: StandIn, engine: DockerEngine, cleaner: Any
) -> None:
    for number in range(4):
        name = f"workerd-container-snap-{number}:latest"
        either.add(str(number), name, created=number, session="alice-00")
    either.add("other", "workerd-container-snap-x:latest", created=0, session="bob-00")
    either.used.add("1")
    cleaner.clean(engine, "alice-00")
    kept = {name.split("-")[-1].split(":")[0] for name in either.names()}
    assert kept == {"1", "2", "3", "x"}, "1 is in use"


def test_the_cleaner_goes_on_when_its_engine_does_and_tells_of_each_trouble_once(
    stand_in: StandIn,
    cleaner: Any,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(3):
        name = f"workerd-container-snap-{number}:latest"
        stand_in.add(str(number), name, created=number, session="alice-00")
    down, up = {"/images/json": (500, {"message": "it is starting"})}, {}
    rounds = iter((down, up, down))
    stand_in.refused = down

    def pause(seconds: float) -> None:
        assert seconds == cleaner.EVERY_SECONDS
        stand_in.refused = next(rounds)

    monkeypatch.setattr(cleaner.time, "sleep", pause)
    with pytest.raises(StopIteration):
        cleaner.main(stand_in.path, "alice-00")
    trouble = "the container engine does not answer: it is starting"
    assert capfd.readouterr().out.splitlines() == [
        trouble,
        "removed workerd-container-snap-0:latest",
        trouble,
    ]


@pytest.mark.parametrize(
    ("options", "beyond"),
    [
        ({docker.PUBLISHED_ON: "127.0.0.1"}, False),
        ({docker.PUBLISHED_ON: "0.0.0.0"}, True),
        (None, True),
    ],
)
def test_what_the_network_leaves_open_is_told(
    stand_in: StandIn, options: dict[str, str] | None, beyond: bool
) -> None:
    stand_in.refused["/networks/bridge"] = (200, {"Options": options})
    words = Containers(stand_in.path, "alice-00").network_words("providers")
    assert "holds TCP, not UDP" in words
    assert ("beyond this machine" in words) is beyond
    assert ("published on 127.0.0.1" in words) is not beyond
    assert "UDP" not in Containers(stand_in.path, "alice-00").network_words("open")


def test_the_socket_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(docker, "DOCKER_SOCKET", str(tmp_path / "docker.sock"))
    podman = tmp_path / "podman" / "podman.sock"
    podman.parent.mkdir()
    podman.touch()
    assert docker.find_socket() == str(podman)
    (tmp_path / "docker.sock").touch()
    assert docker.find_socket() == str(tmp_path / "docker.sock")


def test_no_engine_is_told_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(Card) as caught, speaking(str(tmp_path / "no")):
        DockerEngine(str(tmp_path / "no")).version()
    text = caught.value.render()
    assert text.startswith("hermes_engine: docker needs a Docker engine")
    assert "hermes_docker_socket" in text
    assert "#docker" in text


@pytest.mark.parametrize(
    ("settings", "subject", "remedy"),
    [
        (None, "hermes_engine", "(unix:/path)."),
        (
            Settings(platform="workerd", engine="docker"),
            "hermes_engine",
            "hermes_engine: process needs none.",
        ),
        (
            Settings(platform="workerd", engine="docker", egress="providers"),
            "hermes_engine",
            "(unix:/path).",
        ),
        (
            Settings(platform="workerd", engine="docker", source={"image": IMAGE}),
            "hermes_engine",
            "(unix:/path).",
        ),
        (CLOUDFLARE, "hermes_platform", "(unix:/path)."),
    ],
)
def test_an_engine_that_is_missing_is_told_with_what_the_settings_leave_open(
    tmp_path: Path, settings: Settings | None, subject: str, remedy: str
) -> None:
    with pytest.raises(Card) as caught, speaking(str(tmp_path / "no"), settings):
        DockerEngine(str(tmp_path / "no")).version()
    (problem,) = caught.value.problems
    assert problem.subject == subject
    assert f"{problem.remedy.rstrip('.')}.".endswith(remedy)


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_an_engine_that_only_builds_needs_no_bridge(
    stand_in: StandIn, tmp_path: Path, architecture: str
) -> None:
    """On Cloudflare no container calls this machine; on this machine each does."""
    stand_in.refused["/version"] = (200, {"Version": "1", "Arch": architecture})
    stand_in.refused["/networks/bridge"] = (200, {"IPAM": {"Config": []}})
    stand_in.refused["/info"] = (200, {})
    found = []
    for settings, image in (
        (Settings(platform="workerd", engine="docker"), ContainerImage),
        (CLOUDFLARE, PushedImage),
    ):
        made = object.__new__(image)
        Containers.__init__(made, stand_in.path, "session")
        made.settings, made.missing = settings, list
        engine = ContainerEngine(settings, None, made)
        found.append([(one.subject, one.remedy) for one in engine.problems()])
    here, on_cloudflare = found
    assert "--bip" in here.pop(0)[1]
    if architecture == "amd64":
        assert here == on_cloudflare == []
    else:
        (here_other,), (other,) = here, on_cloudflare
        assert here_other[0] == "hermes_engine" and "hermes_engine: process" in here_other[1]
        assert other == ("hermes_platform", "deploy from another machine.")


def test_something_else_on_the_socket_is_told(stand_in: StandIn) -> None:
    stand_in.refused["/version"] = (400, "what?")
    with pytest.raises(Card, match="refuses"), speaking(stand_in.path):
        DockerEngine(stand_in.path).version()


@pytest.mark.parametrize("address", ["unix:///run/d.sock", "unix:/run/d.sock", "/run/d.sock"])
def test_an_engines_address_may_be_written_in_three_ways(address: str) -> None:
    assert docker.socket_path(address) == "/run/d.sock"
