# SPDX-License-Identifier: Apache-2.0
"""The image of Hermes: what is in it, what is not, and how it lives as a container."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from ansible_collections.hermes.workers.plugins.module_utils.settings.features import FEATURES

from tests.docker.engine import Docker, Image, until
from tests.standins import debian_mirror
from tests.standins.provider import Provider
from tools.lock_programs import LEFT_OUT

LARGEST = 450_000_000
CANARY = "canary-5be1f0c2-not-in-any-image"
GATEWAY_KEY = "gateway-key-0123456789abcdef"
DASHBOARD_TOKEN = "dashboard-token-0123456789abcdef"
_numbers = itertools.count()


@dataclass
class Sandbox:
    """A container of the image, started as workerd starts it; `boot` is its boot id."""

    docker: Docker
    name: str
    boot: str

    def sandbox(self, command: str, *words: str, text: str | None = None) -> str:
        """Run one of the sandbox's own commands in the container."""
        words = (*self.bare, "sandbox", command, "--boot", self.boot, *words)
        return self.docker("exec", "--interactive", self.name, *words, text=text)

    @property
    def bare(self) -> tuple[str, ...]:
        """What runs a command as Cloudflare does: of the image's environment, and of the start's, it has PATH alone."""
        environ = self.docker.inspect(self.name)["Config"]["Env"]
        (path,) = (entry for entry in environ if entry.startswith("PATH="))
        return ("env", "-i", path)

    def sh(self, script: str, *, check: bool = True) -> str:
        return self.docker("exec", self.name, "sh", "-c", script, check=check)

    @property
    def state(self) -> dict[str, Any]:
        return dict(self.docker.inspect(self.name)["State"])

    def answers(self) -> bool:
        """Tell whether its first process takes orders."""
        command = (*self.bare, "sandbox", "status", "--boot", self.boot)
        return self.docker("exec", self.name, *command, check=False).startswith("{")

    @property
    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.sandbox("status")))

    def go(self, provider_url: str, provider_key: str) -> None:
        """Let Hermes start with an empty state, and wait until it is up."""
        model = {
            "provider": "custom",
            "default": "stand-in",
            "base_url": f"{provider_url}/v1",
            "api_key": provider_key,
            "context_length": 200_000,
        }
        go = {
            "config": {"model": model, "security": {"tirith_enabled": False}},
            "env": {
                "API_SERVER_KEY": GATEWAY_KEY,
                "API_SERVER_ENABLED": "true",
                "HERMES_DASHBOARD_SESSION_TOKEN": DASHBOARD_TOKEN,
            },
        }
        self.sandbox("restore", "--empty")
        self.sandbox("go", text=json.dumps(go))
        until(lambda: self.status["state"] == "running", "Hermes is running", 60)

    def page(self, path: str, token: str) -> tuple[int, str]:
        """Ask the dashboard from outside the container, as the platform does."""
        address = self.docker.inspect(self.name)["NetworkSettings"]["IPAddress"]
        connection = http.client.HTTPConnection(address, 9119, timeout=60)
        connection.request(
            "GET", path, headers={"Host": "127.0.0.1", "X-Hermes-Session-Token": token}
        )
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def chat(self, text: str) -> dict[str, Any]:
        address = self.docker.inspect(self.name)["NetworkSettings"]["IPAddress"]
        connection = http.client.HTTPConnection(address, 18789, timeout=300)
        body = json.dumps({"messages": [{"role": "user", "content": text}]})
        headers = {"Authorization": f"Bearer {GATEWAY_KEY}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", body, headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        return dict(json.loads(answer.read()))


@pytest.fixture
def start(docker: Docker, request: pytest.FixtureRequest) -> Iterator[Callable[..., Sandbox]]:
    """Start containers, of the image of Hermes or of another; they are gone after the test."""
    names: list[str] = []

    def run(*options: str, of: Image | None = None) -> Sandbox:
        of = of or request.getfixturevalue("image")
        # No id of the sandboxes outside containers: each kills what carries its own, in a container too.
        boot = f"container-{next(_numbers)}"
        names.append(boot)
        environment = ("--env", f"HERMES_BOOT_ID={boot}")
        docker("run", "--detach", "--name", boot, *environment, *options, of.name)
        sandbox = Sandbox(docker, boot, boot)
        until(sandbox.answers, "PID 1 takes orders")
        return sandbox

    yield run
    for name in names:
        docker("rm", "--force", "--volumes", name)


@pytest.fixture
def provider(docker: Docker) -> Iterator[Provider]:
    """A model provider that containers reach at the bridge's address."""
    with Provider("provider-key-0123456789", host=docker.gateway) as running:
        yield running


def test_it_is_small(docker: Docker, image: Image) -> None:
    assert docker.inspect(image.name)["Size"] <= LARGEST


def test_it_says_what_it_is(docker: Docker, image: Image) -> None:
    config = docker.inspect(image.name)["Config"]
    assert config["Entrypoint"] == ["sandbox", "init"]
    assert config["Labels"]["org.opencontainers.image.version"] == "0.19.0"
    assert config["Labels"]["workers.hermes.source-digest"] == image.digest


def test_it_can_neither_install_nor_compile(start: Callable[..., Sandbox]) -> None:
    sandbox = start()
    found = sandbox.sh("command -v pip pip3 uv gcc cc make ld npm; true")
    assert found == ""
    for module in ("pip", "ensurepip", "setuptools"):
        for python in ("python3", "/opt/hermes/bin/python3"):
            imported = sandbox.sh(f"{python} -c 'import {module}'", check=False)
            assert "No module named" in imported, f"{python} has {module}"


def test_nothing_is_compiled_at_run_time(start: Callable[..., Sandbox], provider: Provider) -> None:
    sandbox = start()
    sandbox.go(provider.url, provider.key)
    sandbox.chat("Hello")
    added = [line for line in sandbox.docker("diff", sandbox.name).splitlines() if ".pyc" in line]
    assert added == []


def test_equal_sources_make_an_equal_layer(
    docker: Docker,
    image: Image,
    build_hermes: Callable[..., Image],
    sources: Path,
    tmp_path: Path,
) -> None:
    """A Windows clone with its owner's secrets beside it gives the same bytes as the checkout."""
    clone = tmp_path / "container"
    shutil.copytree(sources, clone)
    for path in clone.rglob("*"):
        if path.suffix in (".py", ".sh", ".lock") or path.name == "Dockerfile":
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
            path.chmod(0o600)
    for name in (".env", "api_token", "sandbox/.env", "sandbox/notes.txt"):
        (clone / name).write_text(CANARY)

    again = build_hermes(clone, "clone")

    assert again.digest == image.digest
    assert again.layers == image.layers
    archive = tmp_path / "image.tar"
    docker("save", "--output", str(archive), again.name)
    assert CANARY.encode() not in archive.read_bytes()
    assert b"\r\n" not in _files_of(archive, "opt/hermes/start-hermes.sh")


def _files_of(archive: Path, name: str) -> bytes:
    """Return one file's content from the only layer of a saved image."""
    with tarfile.open(archive) as outer:
        manifest = json.load(outer.extractfile("manifest.json"))
        (layer,) = manifest[0]["Layers"]
        with tarfile.open(fileobj=outer.extractfile(layer)) as inner:
            return inner.extractfile(name).read()


def test_hermes_answers_a_chat(start: Callable[..., Sandbox], provider: Provider) -> None:
    sandbox = start()
    sandbox.go(provider.url, provider.key)
    answer = sandbox.chat("Is anybody there?")
    assert "Is anybody there?" in answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_the_dashboard_is_reached_from_outside_with_its_token_only(
    start: Callable[..., Sandbox], provider: Provider
) -> None:
    sandbox = start()
    sandbox.go(provider.url, provider.key)
    sandbox.chat("Is anybody there?")
    with pytest.raises(ConnectionRefusedError):  # it costs memory: only who wants it gets it
        sandbox.page("/", DASHBOARD_TOKEN)
    sandbox.sandbox("dashboard")
    assert sandbox.page("/", DASHBOARD_TOKEN)[0] == 200
    assert "Is anybody there?" in sandbox.page("/api/sessions", DASHBOARD_TOKEN)[1]
    assert sandbox.page("/", "wrong") == (401, "")
    assert "node: ok" in sandbox.sh("node -e 'console.log(\"node: ok\")'")


def test_keys_are_in_no_snapshot(
    docker: Docker, start: Callable[..., Sandbox], provider: Provider, tmp_path: Path
) -> None:
    """A snapshot is the container's disk; neither key, nor the marker of a restore, lies on it."""
    sandbox = start()
    sandbox.go(provider.url, provider.key)
    sandbox.chat("Remember me")
    disk = tmp_path / "disk.tar"
    docker("export", "--output", str(disk), sandbox.name)
    content = disk.read_bytes()
    assert GATEWAY_KEY.encode() not in content
    assert provider.key.encode() not in content
    with tarfile.open(disk) as tar:
        assert [name for name in tar.getnames() if name.startswith("run/hermes/")] == []


def test_it_reaps_orphans(start: Callable[..., Sandbox]) -> None:
    sandbox = start()
    sandbox.sandbox("status")
    sandbox.sh("for i in 1 2 3 4 5; do (sleep 0.1 &); done")
    processes = "cat /proc/[0-9]*/stat"
    until(lambda: "(sleep)" not in sandbox.sh(processes, check=False), "orphans are reaped", 10)


def test_term_ends_it_cleanly(start: Callable[..., Sandbox], provider: Provider) -> None:
    sandbox = start()
    sandbox.go(provider.url, provider.key)
    sandbox.docker("kill", "--signal", "TERM", sandbox.name)
    until(lambda: not sandbox.state["Running"], "the container has ended", 20)
    assert sandbox.state["ExitCode"] == 0


def test_a_boot_that_died_is_not_started_again(start: Callable[..., Sandbox]) -> None:
    """Docker restarts what workerd made; the second life of a boot must not wait for a go."""
    sandbox = start("--restart", "on-failure")
    sandbox.sandbox("restore", "--empty")
    os.kill(sandbox.state["Pid"], signal.SIGKILL)
    until(lambda: sandbox.state["Status"] == "exited", "Docker gives up on it", 20)
    assert sandbox.state["ExitCode"] == 0
    assert "this boot has ended" in sandbox.docker("logs", sandbox.name)


BROWSERS_USER = 64142
AUTHORITY = "/etc/site/authority.pem"
VISIT = "canary-of-what-a-page-knows-of-its-visitor"
SITE = f"""
import http.server, os, ssl, time

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        while not os.path.exists("/tmp/looked"):
            time.sleep(0.05)
        body = b"<title>Quokkas</title><h1>They hop</h1><a href='/burrow'>A burrow</a>"
        self.send_response(200)
        self.send_header("Set-Cookie", "visit={VISIT}; Max-Age=9999")
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body)

server = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), Page)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/etc/site/site.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
"""A page that comes once somebody has looked at its visitor."""
TELLING = r"""
set -eu
cd /usr/lib/chromium
mv chromium-headless-shell itself
printf '#!/bin/sh\nenv > /tmp/given\nexec /usr/lib/chromium/itself "$@"\n' > chromium-headless-shell
chmod 0755 chromium-headless-shell
"""
"""Has the browser tell what it was given: it writes over that itself."""


@pytest.fixture(scope="module")
def with_chromium(
    build_hermes: Callable[..., Image], sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> Image:
    """An image with the feature `chromium`, out of this machine's own Chromium.

    The one that is locked leaves the mirrors within days. This one is its brother with a screen, and has its name.
    """
    folder = tmp_path_factory.mktemp("chromium")
    container = Path(shutil.copytree(sources, folder / "container"))
    (feature,) = (one for one in FEATURES if one.name == "chromium")
    names = debian_mirror.needed(["chromium", *feature.debian[1:]], LEFT_OUT | {"libgtk-3-0"})
    moved = {"/usr/lib/chromium/chromium": f"/usr/lib/chromium/{feature.debian[0]}"}
    packages = debian_mirror.pack(names, folder / "mirror", moved)
    path = container / "debian.json"
    lock = json.loads(path.read_text()) | {"packages": packages, "parts": {"chromium": names}}
    path.write_text(json.dumps(lock))
    with debian_mirror.serving(folder / "mirror") as mirror, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HERMES_DEBIAN_MIRROR", mirror)
        made: Image = build_hermes(container, "chromium", ["browser", "chromium"])
    return made


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a page's server, and the certificate of an authority that nobody knows yet."""
    folder = tmp_path / "site"
    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    served = authority.issue_cert("localhost").private_key_and_cert_chain_pem
    served.write_to_path(folder / "site.pem")
    (folder / "site.py").write_text(SITE)
    return folder


@contextmanager
def visiting(sandbox: Sandbox, provider: Provider, site: Path) -> Iterator[Callable[[], str]]:
    """Have Hermes open the page; what is made returns what its tool told the model."""
    sandbox.docker("cp", str(site), f"{sandbox.name}:/etc")
    sandbox.docker("exec", "--detach", sandbox.name, "python3", "/etc/site/site.py")
    look = "import socket; socket.create_connection(('127.0.0.1', 8443)).close(); print('serves')"
    ask = ("exec", sandbox.name, "python3", "-c", look)
    until(lambda: sandbox.docker(*ask, check=False) == "serves", "the page is served", 60)
    sandbox.go(provider.url, provider.key)
    assert browsers(sandbox) == [], "it costs memory: only who opens a page has one"
    with ThreadPoolExecutor() as pool:
        order = 'call browser_navigate {"url": "https://localhost:8443/"}'
        turn = pool.submit(sandbox.chat, order)

        def told() -> str:
            turn.result()
            last = [seen.body["messages"][-1] for seen in provider.seen if seen.body]
            return "".join(str(one["content"]) for one in last if one["role"] == "tool")

        yield told


def browsers(sandbox: Sandbox) -> list[list[str]]:
    """What runs of a browser in the container: whose it is, and its arguments."""
    listed = sandbox.docker("top", sandbox.name, "-eo", "pid,uid,args").splitlines()[1:]
    return [line.split()[1:] for line in listed if " /usr/lib/chromium/" in line]


def test_a_page_is_opened_in_the_images_own_browser_which_has_nothing_of_hermes(
    start: Callable[..., Sandbox], provider: Provider, with_chromium: Image, site: Path
) -> None:
    """As with hermes_egress: whoever looks at what leaves vouches for the hosts by an authority of its own."""
    held = ("--env", f"SANDBOX_EXTRA_CA={AUTHORITY}")
    sandbox = start(*held, "--security-opt", "seccomp=unconfined", of=with_chromium)
    sandbox.sh(TELLING)
    with visiting(sandbox, provider, site) as told:
        running = until(
            lambda: (them := browsers(sandbox)) and "--type=renderer" in str(them) and them,
            "the page is asked for",
            120,
        )
        sandbox.sh("touch /tmp/looked")
        for words in ("Quokkas", "They hop", "A burrow"):
            assert words in told()

    assert {user for user, *_ in running} == {str(BROWSERS_USER)}
    given = sandbox.sh("cat /tmp/given")
    assert "HOME=/tmp/agent-browser-chrome-" in given
    for secret in (GATEWAY_KEY, DASHBOARD_TOKEN, provider.key):
        assert secret not in given
    as_it = ("exec", "--user", str(BROWSERS_USER), sandbox.name)
    assert "Permission denied" in sandbox.docker(*as_it, "ls", "/root/.hermes", check=False)
    namespaces = ("unshare", "--user", "--net", "--pid", "echo", "made")
    walls = "made" in sandbox.docker(*as_it, *namespaces, check=False)
    assert any("--no-sandbox" in words for words in running) is not walls

    until(lambda: browsers(sandbox) == [], "the browser ends with the turn", 120)
    left = "ls -d /tmp/agent-browser-chrome-* 2> /dev/null || true"
    until(lambda: sandbox.sh(left) == "", "what it knew goes with it", 120)
    assert sandbox.sh(f"grep -rsl {VISIT} /root || true") == "", "what backups are made of"


def test_an_authority_that_nobody_vouched_for_is_not_trusted(
    start: Callable[..., Sandbox], provider: Provider, with_chromium: Image, site: Path
) -> None:
    with visiting(start(of=with_chromium), provider, site) as told:
        assert "ERR_CERT_AUTHORITY_INVALID" in told()
