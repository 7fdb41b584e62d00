# SPDX-License-Identifier: Apache-2.0
"""The lines of docs/reverse-proxy.md in the proxies that Debian has, before the real Worker in a real workerd."""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trustme
from plays import ROOT, wait_until

from tests.docker.engine import without
from tests.standins.lone_worker import TOKEN, LoneWorker
from tests.standins.ports import free_port

PAGE = (ROOT / "docs" / "reverse-proxy.md").read_text()
BLOCKS = {
    kind: re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[0]
    for kind in ("nginx", "apache", "caddyfile")
}
MODULES = "mpm_event unixd authz_core ssl socache_shmcb proxy proxy_http"
HOST, API = "hermes.example.com", "api.example.com"
SOCKET = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@pytest.fixture(scope="module")
def worker() -> Iterator[LoneWorker]:
    with LoneWorker() as running:
        assert running.call("POST", "/api/instance/wake")[0] == 200
        yield running


class Proxy:
    """A proxy with the page's lines, of which some are replaced."""

    def __init__(self, kind: str, folder: Path, worker: LoneWorker, **change: str) -> None:
        self.folder, self.port = folder, free_port()
        self.context = ssl.create_default_context()
        authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        authority.configure_trust(self.context)
        certificate = authority.issue_cert(HOST, API)
        for path, blob in (
            ("hermes.pem", b"".join(one.bytes() for one in certificate.cert_chain_pems)),
            ("hermes.key", certificate.private_key_pem.bytes()),
        ):
            (folder / path).write_bytes(blob)
        text = BLOCKS[kind].replace("/etc/ssl", str(folder))
        for port, ours in (("8787", worker.port), ("9787", worker.dashboard_port)):
            text = text.replace(port, str(ours))
        for line, other in change.items():
            assert line in text
            text = text.replace(line, other)
        self.command = getattr(self, f"_{kind}")(text)

    def __enter__(self) -> Proxy:
        log = (self.folder / "log").open("wb")
        self._process = subprocess.Popen(
            self.command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"HOME": str(self.folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )

        def listens() -> bool:
            assert self._process.poll() is None, (self.folder / "log").read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_until(listens, "the proxy listens")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def ask(
        self, host: str, method: str, path: str, body: str | bytes | None = None, **headers: str
    ) -> tuple[int, http.client.HTTPMessage, http.client.HTTPResponse]:
        """One request as a browser sends it, which is on the default port."""
        connection = http.client.HTTPSConnection(host, timeout=60, context=self.context)
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sock = self.context.wrap_socket(plain, server_hostname=host)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Origin": f"https://{host}", **named})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer

    def sign_in(self) -> tuple[int, str]:
        """Returns the status and the cookie."""
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        status, headers, _ = self.ask(HOST, "POST", "/login", urlencode({"token": TOKEN}), **form)
        return status, (headers.get("Set-Cookie") or "").partition(";")[0]

    def _nginx(self, text: str) -> list[str]:
        text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl")
        temporary = "".join(
            f"{kind}_temp_path {self.folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = f"user root; pid {self.folder}/pid; events {{}} http {{ access_log off; {temporary}\n{text}}}\n"
        (self.folder / "nginx.conf").write_text(config)
        quiet = "daemon off; error_log stderr;"
        return ["nginx", "-p", str(self.folder), "-c", f"{self.folder}/nginx.conf", "-g", quiet]

    def _apache(self, text: str) -> list[str]:
        modules = Path("/usr/lib/apache2/modules")
        loaded = "".join(
            f"LoadModule {name}_module {modules}/mod_{name}.so\n"
            for name in MODULES.split()
            if (modules / f"mod_{name}.so").exists()
        )
        config = (
            f"ServerName here\nServerRoot {self.folder}\nDefaultRuntimeDir {self.folder}\nPidFile {self.folder}/pid\n"
            f"ErrorLog /dev/stderr\nListen 127.0.0.1:{self.port}\nMutex file:{self.folder} default\n{loaded}"
            f"{text.replace('*:443', f'127.0.0.1:{self.port}')}"
        )
        (self.folder / "apache.conf").write_text(config)
        return ["apache2", "-D", "FOREGROUND", "-f", f"{self.folder}/apache.conf"]

    def _caddyfile(self, text: str) -> list[str]:
        tls = f"tls {self.folder}/hermes.pem {self.folder}/hermes.key"
        text = re.sub(
            r"^(\S+\.example\.com) \{", rf"\1:{self.port} {{\n    {tls}", text, flags=re.MULTILINE
        )
        # Its automatic certificates, and the port that redirects to them, need the internet.
        config = (
            f"{{\n admin off\n auto_https disable_redirects\n default_bind 127.0.0.1\n}}\n{text}"
        )
        (self.folder / "Caddyfile").write_text(config)
        return ["caddy", "run", "--config", f"{self.folder}/Caddyfile", "--adapter", "caddyfile"]


@pytest.fixture
def proxy(tmp_path: Path) -> Callable[..., Proxy]:
    def make(kind: str, worker: LoneWorker, **change: str) -> Proxy:
        program = {"apache": "apache2", "caddyfile": "caddy"}.get(kind, kind)
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            without(f"{program} is not installed")
        folder = Path(tmp_path / f"{kind}-{len(list(tmp_path.iterdir()))}")
        folder.mkdir()
        return Proxy(kind, folder, worker, **change)

    return make


@pytest.mark.parametrize("kind", BLOCKS)
def test_the_documented_lines_pass_all_that_the_dashboard_and_the_api_need(
    kind: str, worker: LoneWorker, proxy: Callable[..., Proxy]
) -> None:
    with proxy(kind, worker) as through:
        status, cookie = through.sign_in()
        assert (status, cookie.partition("=")[0]) == (303, "__Host-hermes-lone")
        assert through.ask(HOST, "GET", "/api/auth/me", Cookie=cookie)[0] == 200
        assert through.ask(HOST, "GET", "/api/events", Cookie=cookie, **SOCKET)[0] == 101
        large = b"x" * 3_000_000
        assert through.ask(HOST, "PUT", "/api/x", large, Cookie=cookie)[0] == 200
        foreign = {"Cookie": cookie, "Origin": "https://evil.example"}
        assert through.ask(HOST, "GET", "/api/events", **foreign, **SOCKET)[0] == 403
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert through.ask(API, "GET", "/v1/models", **bearer)[0] == 200
        chat = '{"messages": [{"content": "x"}], "stream": true, "chunks": 3, "every": 1}'
        _, headers, answer = through.ask(API, "POST", "/v1/chat/completions", chat, **bearer)
        assert headers["Content-Type"] == "text/event-stream"
        before = worker.seen()["finished"]
        assert answer.read1(1) != b""
        assert worker.seen()["finished"] == before, "its first words come before its last ones"
        answer.read()


def test_a_proxy_that_hides_the_host_needs_the_origin_named(
    proxy: Callable[..., Proxy], worker: LoneWorker
) -> None:
    hides = {"proxy_set_header Host $http_host;": ""}
    with proxy("nginx", worker, **hides) as through:
        assert through.sign_in()[0] == 403
    with LoneWorker(HERMES_DASHBOARD_ORIGIN=f"https://{HOST}") as named:
        assert named.call("POST", "/api/instance/wake")[0] == 200
        with proxy("nginx", named, **hides) as through:
            status, cookie = through.sign_in()
            assert (status, cookie.partition("=")[0]) == (303, "__Host-hermes-lone")
            assert through.ask(HOST, "GET", "/api/auth/me", Cookie=cookie)[0] == 200
            assert through.ask(HOST, "GET", "/api/events", Cookie=cookie, **SOCKET)[0] == 101
        # A Host with the port that goes without saying is the same.
        with proxy("nginx", worker, **{"$http_host": f"{HOST}:443"}) as through:
            assert through.sign_in()[0] == 303
