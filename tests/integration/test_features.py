# SPDX-License-Identifier: Apache-2.0
"""What features bring is used in a turn: the model calls a tool of it, and what the tool found comes back."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from ansible_collections.hermes.workers.plugins.plugin_utils.build.runtime import Runtime
from ansible_collections.hermes.workers.plugins.plugin_utils.build.sources import Sources
from ansible_collections.hermes.workers.plugins.plugin_utils.state.folder import StateFolder
from plays import PLAYBOOK, ROOT, Deployment, Play, run, wait_until
from turns import BY_GIT, BY_RIPGREP, TOUCHING_NO_MACHINE, TOUCHING_THE_MACHINE

from tests.standins.fal import PICTURE, Fal
from tests.standins.ports import free_port
from tests.standins.provider import Provider
from tests.standins.telegram import Telegram
from tests.standins.tool_services import FOUND, MAIL, ToolServices, spoken
from tools import what_works

FEATURES = ["editors", "google", "images", "mcp", "messaging", "search", "web"]
SPEAKING = ["voice", "web"]
TOKEN = "canary-of-somebodys-tools"
SEARCH_KEY = "fc-canary-of-a-search-key"
SPEECH_KEY = "sk-canary-of-a-speech-key"
MAIL_KEY = "ya29.canary-of-a-mail-key"
PICTURE_KEY = "canary-of-a:picture-key"
SERVER = ROOT / "tests" / "standins" / "tool_server.py"
READER_OF_MAIL = """
import sys
from google.oauth2.credentials import Credentials
from googleapiclient.discovery import build
key, address = sys.argv[1:]
mail = build("gmail", "v1", credentials=Credentials(key), client_options={"api_endpoint": address})
print(mail.users().messages().list(userId="me", q="from:quokkas").execute()["messages"])
"""
"""What Hermes' own skill for Google does, and writes such programs for."""


@pytest.fixture(scope="module")
def image(home: Path) -> Path:
    """What Hermes runs from with the features."""
    runtime = Runtime(StateFolder(str(home), "none"), Sources(features=FEATURES), print)
    runtime.folder.mkdir(mode=0o700, exist_ok=True)
    runtime.install_image()
    return runtime.image


@contextmanager
def serving_tools(image: Path, port: int) -> Iterator[str]:
    """An MCP server over HTTP, run by the Python that the features are installed for; its address."""
    command = [str(image / "venv" / "bin" / "python"), str(SERVER), str(port)]
    with subprocess.Popen(command, env={**os.environ, "TOOLS_TOKEN": TOKEN}) as serving:
        try:
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            serving.terminate()


@pytest.fixture(scope="module")
def tools(image: Path) -> Iterator[str]:
    """The address of a server that is there from the beginning."""
    with serving_tools(image, free_port()) as address:
        yield address


@pytest.fixture(scope="module")
def services() -> Iterator[ToolServices]:
    """What the tools for the web and for speech ask, in place of their services."""
    with ToolServices(SEARCH_KEY, SPEECH_KEY, MAIL_KEY) as running:
        yield running


@pytest.fixture(scope="module")
def authority(image: Path) -> tuple[trustme.CA, Path]:
    """An authority, and the file of its certificate, where Hermes can read it: bubblewrap shows it little else."""
    made = trustme.CA()
    path = image / "authority.pem"
    made.cert_pem.write_to_path(path)
    return made, path


@pytest.fixture(scope="module")
def pictures(authority: tuple[trustme.CA, Path]) -> Iterator[Fal]:
    """What makes pictures, in place of its service."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority[0].issue_cert("127.0.0.1").configure_cert(tls)
    with Fal(PICTURE_KEY, tls) as running:
        yield running


def pointed_at(services: ToolServices) -> dict[str, object]:
    """What an inventory says so that Hermes asks these services, by settings that Hermes documents."""
    speech = {"provider": "openai", "openai": {"base_url": f"{services.url}/v1"}}
    return {
        "hermes_env": {"FIRECRAWL_API_URL": services.url},
        "hermes_secrets": {"FIRECRAWL_API_KEY": SEARCH_KEY, "VOICE_TOOLS_OPENAI_KEY": SPEECH_KEY},
        "hermes_config": {"initial": {"tts": speech}},
    }


@pytest.fixture(scope="module")
def written_to() -> Iterator[Telegram]:
    """Telegram, as Hermes reaches it itself."""
    with Telegram() as running:
        yield running


@pytest.fixture(scope="module")
def deployment(
    make_deployment: Callable[..., Deployment],
    tools: str,
    pictures: Fal,
    authority: tuple[trustme.CA, Path],
    written_to: Telegram,
) -> Deployment:
    made = make_deployment(
        "features",
        hermes_provider="rehearsal",
        hermes_host_tools=True,
        # What the servers need comes along by itself.
        hermes_features=[one for one in FEATURES if one != "mcp"],
        hermes_secrets={
            "TOOLS_TOKEN": TOKEN,
            "FAL_KEY": PICTURE_KEY,
            "TELEGRAM_BOT_TOKEN": written_to.token,
        },
        hermes_env={
            "TELEGRAM_ALLOWED_USERS": "77",
            "FAL_QUEUE_RUN_HOST": pictures.url.removeprefix("https://"),
            "SSL_CERT_FILE": str(authority[1]),
        },
        # Nobody is there whom Hermes could ask whether a program may run.
        hermes_config={
            "initial": {"approvals": {"mode": "off"}},
            "pinned": {"platforms": {"telegram": {"extra": {"base_url": f"{written_to.url}/bot"}}}},
        },
        hermes_mcp_servers={
            "time": {"command": "python3", "args": ["-m", "mcp_server_time"]},
            "stock": {"url": tools, "headers": {"Authorization": "Bearer ${TOOLS_TOKEN}"}},
        },
    )
    play = made.deploy()
    assert "2 servers with 3 tools" in play.output
    assert ", ".join(FEATURES) in play.output
    assert PICTURE_KEY not in play.output and TOKEN not in play.output
    return made


@pytest.fixture(scope="module")
def speaking(
    make_deployment: Callable[..., Deployment],
    telegram: Telegram,
    services: ToolServices,
    provider: Provider,
) -> Deployment:
    """A Hermes that has no tools that touch this machine, and may be written to by Telegram."""
    made = make_deployment(
        "speaking",
        hermes_default_model="custom/stand-in",
        hermes_provider_base_url=f"{provider.url}/v1",
        custom_api_key=provider.key,
        hermes_features=SPEAKING,
        hermes_channels={"telegram": {"token": telegram.token, "allow": [77]}},
        hermes_telegram_api_url=telegram.url,
        **pointed_at(services),
    )
    play = made.deploy()
    assert SEARCH_KEY not in play.output and SPEECH_KEY not in play.output
    return made


@contextmanager
def browser(profile: Path) -> Iterator[str]:
    """A Chromium of this machine that can be spoken to; its address."""
    port = free_port()
    program = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    flags += [f"--remote-debugging-port={port}", f"--user-data-dir={profile}"]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen([program, *flags, "about:blank"], stderr=subprocess.DEVNULL) as running:
        try:
            wait_until(lambda: answers(f"{address}/json/version"), "the browser answers")
            yield address
        finally:
            running.terminate()


def answers(address: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(address, timeout=5) as answer:
        return answer.status == 200
    return False


def called(deployment: Deployment, tool: str, **arguments: str) -> str:
    """Return what a tool answered in a turn of its own, as the model was told it."""
    answer = deployment.chat(f"call {tool} {json.dumps(arguments)}")
    assert answer.status == 200
    assert answer.said.startswith("The tool answered: "), answer.said
    return answer.said


def told_by_tools(provider: Provider) -> list[str]:
    """Return what the model was told by the tools that it called, in their order."""
    last = [seen.body["messages"][-1] for seen in provider.seen if seen.body]
    return [str(one["content"]) for one in last if one["role"] == "tool"]


def test_search_finds_by_ripgrep(deployment: Deployment) -> None:
    for tool, arguments, comes_back in BY_RIPGREP:
        assert comes_back in called(deployment, tool, **arguments)


def test_web_searches_without_a_key(deployment: Deployment) -> None:
    """No network is promised to a test: the client is there, and its own words come back."""
    said = called(deployment, "web_search", query="cats")
    assert "DuckDuckGo" in said or "web" in said
    assert "not installed" not in said
    assert "No web search provider" not in said


def test_git_clones_a_repository(deployment: Deployment) -> None:
    """In a folder of its own sandbox; the repository is made by this machine's git."""
    for tool, arguments, comes_back in BY_GIT:
        assert comes_back in called(deployment, tool, **arguments)
    (copy,) = deployment.state.glob("engine/disks/*/disk/home/here/.git/HEAD")
    assert copy.read_text().startswith("ref: ")


def test_the_web_is_searched_and_speech_is_written_without_host_tools(
    speaking: Deployment, telegram: Telegram, services: ToolServices, provider: Provider
) -> None:
    """By the API and by a channel: what the services are asked, what the model is told, what lies on the disk."""
    for by in ("API", "Telegram"):
        for order in (
            f'call web_search {{"query": "quokkas by {by}"}}',
            f'call text_to_speech {{"text": "Good morning by {by}."}}',
        ):
            if by == "API":
                assert speaking.chat(order).status == 200
            else:
                telegram.await_answer(telegram.write(order, 77))
    asked = [body["query"] for path, body in services.asked if path == "/v2/search"]
    assert asked == ["quokkas by API", "quokkas by Telegram"]
    spoke = speaking.state.glob("engine/disks/*/disk/**/tts_*")
    assert {one.suffix: one.read_bytes() for one in spoke} == {
        ".mp3": spoken("Good morning by API.", "mp3"),
        ".ogg": spoken("Good morning by Telegram.", "opus"),
    }
    assert services.refused == []
    told = told_by_tools(provider)
    assert [FOUND["title"] in one for one in told] == [True, False, True, False]
    assert [Path(json.loads(told[n])["file_path"]).suffix for n in (1, 3)] == [".mp3", ".ogg"]


@pytest.mark.parametrize(
    ("tool", "arguments", "comes_back"),
    TOUCHING_NO_MACHINE,
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_tool_that_touches_no_machine_is_used(
    speaking: Deployment, provider: Provider, tool: str, arguments: object, comes_back: str
) -> None:
    assert speaking.chat(f"call {tool} {json.dumps(arguments)}").status == 200
    told = told_by_tools(provider)[-1]
    assert comes_back in told and '"error"' not in told


@pytest.mark.parametrize(
    ("tool", "arguments", "comes_back"),
    TOUCHING_THE_MACHINE,
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_tool_that_touches_the_machine_is_used(
    deployment: Deployment, tool: str, arguments: dict[str, str], comes_back: str
) -> None:
    said = called(deployment, tool, **arguments)
    assert comes_back in said and '"error"' not in said


def test_two_deployments_share_what_is_equal_and_nothing_else(
    deployment: Deployment, speaking: Deployment, image: Path, home: Path
) -> None:
    """Neither has a package of the other's features, nor Hermes' own files twice."""
    spoken_by = Runtime(StateFolder(str(home), "none"), Sources(features=SPEAKING), print).image
    by_feature = json.loads((ROOT / "container" / "features.json").read_text())

    def of(features: list[str]) -> set[str]:
        return {name for feature in features for name in by_feature.get(feature, [])}

    def installed(place: Path) -> set[str]:
        notes = place.glob("venv/lib/python3*/site-packages/*.dist-info")
        return {one.name.partition("-")[0].lower().replace("_", "-") for one in notes}

    theirs, ours = installed(spoken_by), installed(image)
    # Some of a feature's are for other systems, or for another Python.
    assert {"mcp", "python-telegram-bot"} <= ours - theirs <= of(FEATURES) - of(SPEAKING)
    assert {"edge-tts"} <= theirs - ours <= of(SPEAKING) - of(FEATURES)
    compiled = "venv/lib/python3*/site-packages/hermes_cli/__pycache__/main.*.pyc"
    assert len({one.stat().st_ino for it in (spoken_by, image) for one in it.glob(compiled)}) == 1


@pytest.mark.parametrize("place", [0, 1], ids=what_works.TOOL_PLACES[:2])
def test_the_toolsets_of_a_running_hermes_are_those_of_the_page(
    speaking: Deployment, deployment: Deployment, place: int
) -> None:
    listed = (speaking, deployment)[place].call("GET", "/v1/toolsets").json["data"]
    offered = {
        row.name
        for row in what_works.rows("toolset")
        if row.places[place] not in ("off", "no") and row.by != "channels"
    }
    assert {one["name"] for one in listed if one["enabled"]} == offered
    assert {one["name"] for one in listed} == {row.name for row in what_works.rows("toolset")}


def test_a_server_of_tools_answers_over_stdio(deployment: Deployment) -> None:
    said = called(deployment, "mcp__time__get_current_time", timezone="Asia/Tokyo")
    assert "+09:00" in said


def test_a_server_of_tools_answers_over_http_to_who_knows_its_secret(
    deployment: Deployment,
) -> None:
    assert "There are 42 of apples." in called(deployment, "mcp__stock__in_stock", item="apples")


def test_a_picture_is_made(deployment: Deployment, pictures: Fal) -> None:
    said = called(deployment, "image_generate", prompt="A quokka that hops.")
    assert PICTURE["url"] in said and PICTURE_KEY not in said
    ((_, prompt),) = pictures.asked
    assert prompt == "A quokka that hops."


def test_mail_of_google_is_read(deployment: Deployment, services: ToolServices) -> None:
    called(deployment, "write_file", path="mail.py", content=READER_OF_MAIL)
    said = called(deployment, "terminal", command=f"python3 mail.py {MAIL_KEY} {services.url}")
    assert MAIL in said, said
    assert services.asked[-1][1]["q"] == "from:quokkas"


def test_hermes_own_telegram_answers_with_what_a_tool_found(
    deployment: Deployment, written_to: Telegram
) -> None:
    """The feature `messaging`: no channel of the Worker's is set up, and Hermes holds the token itself."""
    order = 'call todo {"todos": [{"id": "1", "content": "feed Ada", "status": "pending"}]}'
    written_to.write(order, 77)
    answer = written_to.await_text("The tool answered: ")
    assert answer.chat == 77 and "feed Ada" in answer.text
    assert "getUpdates" in {method for method, _said in written_to.calls}


def test_who_speaks_the_protocol_of_editors_is_answered(image: Path, tmp_path: Path) -> None:
    """As a program in the sandbox starts it."""
    (tmp_path / "config.yaml").write_text("security: {allow_lazy_installs: false}\n")
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": 1, "clientCapabilities": {}},
    }
    asked = [image / "venv" / "bin" / "python", "-P", "-m", "hermes_cli.main", "acp"]
    environment = {"HERMES_HOME": str(tmp_path), "HOME": str(tmp_path), "PATH": os.defpath}
    with subprocess.Popen(
        asked, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stdin is not None and serving.stdout is not None
        serving.stdin.write(json.dumps(hello) + "\n")
        serving.stdin.flush()
        answer = json.loads(serving.stdout.readline())
        serving.terminate()
    assert answer["result"]["agentInfo"]["name"] == "hermes-agent"


@pytest.mark.parametrize(
    ("feature", "part", "place"),
    [
        ("images", "module fal_client", "lib/python3*/site-packages/fal_client"),
        ("search", "program rg", "bin/rg"),
    ],
)
def test_what_is_gone_of_a_feature_is_named(
    deployment: Deployment, image: Path, feature: str, part: str, place: str
) -> None:
    """Although the notes of its package are still there."""
    (path,) = image.glob(f"venv/{place}")
    gone = path.rename(path.with_name("somewhere-else"))
    try:
        play = deployment.play("verify", "-e", "hermes_verify=full")
    finally:
        gone.rename(path)
    assert play.code != 0
    assert f"hermes_features.{feature}: its {part} is not there." in play.output
    assert deployment.play("verify", "-e", "hermes_verify=full").code == 0


def test_a_page_is_opened_in_a_browser(deployment: Deployment, tmp_path: Path) -> None:
    word = "Quokkas hop here"
    (tmp_path / "index.html").write_text(f"<title>{word}</title>")
    files = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), files) as pages,
        browser(tmp_path / "profile") as address,
    ):
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        deployment.variables["hermes_browser_url"] = address
        # It is another image, and who vouches for the service of pictures lies in the one of before.
        del deployment.variables["hermes_env"]["SSL_CERT_FILE"]
        del deployment.variables["hermes_secrets"]["FAL_KEY"]
        # By itself Hermes lets a browser elsewhere open no page of a private network.
        deployment.variables["hermes_config"]["initial"] = {"browser": {"allow_private_urls": True}}
        play = deployment.deploy()
        assert ", ".join(["browser", *FEATURES]) in play.output
        said = called(deployment, "browser_navigate", url=f"http://127.0.0.1:{pages.server_port}/")
        assert word in said
        pages.shutdown()


def test_a_server_that_does_not_start_is_named_by_a_card(deployment: Deployment) -> None:
    servers = deployment.variables["hermes_mcp_servers"]
    env = {"TOKEN": "${TOOLS_TOKEN}"}
    broken = {"broken": {"command": "/no/such/program", "env": env}}
    deployment.variables["hermes_mcp_servers"] = {**servers, **broken}
    play = deployment.play("deploy")
    assert play.code != 0
    assert re.search(r"update +agent +servers: \+ broken", play.output)
    assert re.search(r"hermes_mcp_servers\.broken: is not connected \(failed\): \w+", play.output)
    assert "Deployed, not verified." in play.output and "#agent-not-in-force" in play.output
    assert "hermes_mcp_servers.time" not in play.output
    assert TOKEN not in play.output
    assert "There are 42 of apples." in called(deployment, "mcp__stock__in_stock", item="apples")


def test_a_server_that_is_started_later_is_connected_by_what_its_card_says(
    deployment: Deployment, image: Path
) -> None:
    port = free_port()
    authorized = {"Authorization": "Bearer ${TOOLS_TOKEN}"}
    late = {"url": f"http://127.0.0.1:{port}/mcp", "headers": authorized}
    servers = deployment.variables["hermes_mcp_servers"]
    servers.pop("broken", None)
    deployment.variables["hermes_mcp_servers"] = {**servers, "late": late}
    play = deployment.play("deploy")
    assert "hermes_mcp_servers.late: is not connected" in play.output
    command = re.findall(r"mend its cause, run `(.+?)`, ", play.output)[0]
    with serving_tools(image, port):
        typed = run(["sh", "-c", command])
        assert typed.returncode == 0, typed.stdout
        deployment.deploy()
        assert "There are 35 of pears." in called(deployment, "mcp__late__in_stock", item="pears")
        assert deployment.deploy().changed(deployment.name) == 0


def test_the_personal_assistant_is_deployed_and_stays_as_it_is(
    make_deployment: Callable[..., Deployment],
) -> None:
    """The inventory of the documentation, with ports and a folder of this test's own."""
    page = (ROOT / "docs" / "agent.md").read_text()
    (row,) = re.findall(r"^  agent        (.+)$", page, re.MULTILINE)
    it = make_deployment("ada")
    own = {name: value for name, value in it.host().items() if name.endswith(("port", "_dir"))}
    words = [PLAYBOOK, "playbooks/deploy.yml", "-i", "inventories/personal"]
    for is_new in (True, False):
        done = run([*words, "-e", json.dumps(own)])
        assert done.returncode == 0, done.stdout
        assert "ada: deployed and verified" in done.stdout
        assert "inventory source" not in done.stdout, "its texts are no inventories"
        assert f"agent {row}\n" in re.sub(" +", " ", done.stdout), "the card of the page"
        assert (Play(0, done.stdout).changed("ada") > 0) is is_new
    assert "+09:00" in called(it, "mcp__time__get_current_time", timezone="Asia/Tokyo")
    listed = it.call("GET", "/api/instance/agent").json["running"]
    assert listed["skills"] == ["minutes", "packing-list"]
    assert [job["name"] for job in listed["jobs"]] == ["morning"]
