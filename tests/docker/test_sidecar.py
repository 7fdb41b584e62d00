# SPDX-License-Identifier: Apache-2.0
"""The network sidecar's stand-in: what workerd asks of it, and that nothing leaves around it."""

from __future__ import annotations

import http.client
import json
import socketserver
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.docker.engine import Docker, until

INGRESS = 39001
INTERCEPTED = "198.51.100.1"
Answer = tuple[int, str]


class Workerd(socketserver.ThreadingTCPServer):
    """Takes CONNECT as workerd's listener does, then answers one request inside."""

    daemon_threads = True

    def __init__(self, host: str) -> None:
        self.heads: list[str] = []
        self.refuses = False
        super().__init__((host, 0), _WorkerdConnection)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _WorkerdConnection(socketserver.StreamRequestHandler):
    server: Workerd

    def handle(self) -> None:
        self.server.heads.append(self._head())
        if self.server.refuses:
            self.wfile.write(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            return
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        self.server.heads.append(self._head())
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    def _head(self) -> str:
        lines = iter(lambda: self.rfile.readline().strip(), b"")
        return b"\n".join(lines).decode()


class Namespace:
    """A running sidecar, asked as workerd asks it; `run` is a program beside it."""

    def __init__(self, docker: Docker, name: str, base: str) -> None:
        self.docker, self.name, self.base = docker, name, base
        self.address = docker.inspect(name)["NetworkSettings"]["IPAddress"]

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.address, INGRESS, timeout=10)
        text = body if isinstance(body, str | None) else json.dumps(body)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, text, names)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def connect(self, target: str) -> Answer:
        """Open a way in and send one HTTP request through it."""
        connection = http.client.HTTPConnection(self.address, INGRESS, timeout=10)
        connection.set_tunnel("127.0.0.1", 1, {"X-Dst-Addr": target})
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def run(self, script: str) -> str:
        """Run Python in a container that shares the namespace, as the sandbox does."""
        network = f"container:{self.name}"
        words = ("run", "--rm", "--network", network, self.base, "python3", "-c", script)
        return self.docker(*words, check=False)

    def fetch(self, url: str) -> str:
        return self.run(
            "import urllib.request as u, urllib.error as e\n"
            f"try: print(u.urlopen({url!r}, timeout=5).read().decode())\n"
            "except e.HTTPError as error: print(error.code, error.read().decode())\n"
            "except OSError as error: print(error)"
        )


@pytest.fixture(scope="module")
def workerd(docker: Docker) -> Iterator[Workerd]:
    with Workerd(docker.gateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def namespace(docker: Docker, sidecar: str, base: str, workerd: Workerd) -> Iterator[Namespace]:
    """The sidecar, started with workerd's own command line."""
    name = "sidecar-under-test"
    docker(
        *("run", "--detach", "--name", name, "--cap-add", "NET_ADMIN"),
        *("--add-host", f"host.docker.internal:{docker.gateway}", sidecar),
        *("--http-egress-port", str(workerd.port), "--http-ingress-address", f"0.0.0.0:{INGRESS}"),
        *("--docker-gateway-cidr", "172.17.0.0/16", "--dns-enabled", "--tls-intercept"),
        "--disable-ipv6",
    )
    made = Namespace(docker, name, base)

    def ready() -> bool:
        try:
            return made.ask("GET", "/ca")[0] == 200
        except OSError:
            return False

    until(ready, "the sidecar serves")
    yield made
    docker("rm", "--force", name)


@pytest.fixture
def closed(namespace: Namespace, workerd: Workerd) -> Iterator[Callable[[bool], Answer]]:
    """Close the internet before a test and after it; the value opens and closes it."""

    def tell(enabled: bool) -> Answer:
        body = {"port": workerd.port, "internet": {"enabled": enabled}}
        return namespace.ask("PUT", "/egress", body)

    assert tell(False)[0] == 200
    yield tell
    tell(False)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", None, 404),
        ("PUT", "/egress/", '{"port": 1}', 404),
        ("GET", "/egress", None, 405),
        ("POST", "/ca", "x", 405),
        ("PUT", "/egress", "no JSON", 400),
        ("PUT", "/egress", {"port": 0}, 400),
        ("PUT", "/egress", {"port": "80"}, 400),
        ("PUT", "/egress", {"port": 80, "internet": {"enabled": "no"}}, 400),
        ("PUT", "/egress", {"port": 80, "internet": []}, 400),
        ("PUT", "/egress", "x" * 70_000, 413),
    ],
)
def test_what_workerd_never_asks_is_refused(
    namespace: Namespace, method: str, path: str, body: object, status: int
) -> None:
    assert namespace.ask(method, path, body)[0] == status


@pytest.mark.parametrize("target", ["", "127.0.0.1", "127.0.0.1:0", "a.example:80", "127.0.0.1:x"])
def test_a_way_in_needs_an_address(namespace: Namespace, target: str) -> None:
    with pytest.raises(OSError, match="400"):
        namespace.connect(target)


def test_a_way_in_leads_to_a_listener_only(namespace: Namespace) -> None:
    with pytest.raises(OSError, match="400"):
        namespace.connect("127.0.0.1:18789")
    assert namespace.connect(f"127.0.0.1:{INGRESS}")[0] == 404  # the sidecar's own answer


def test_its_authority_is_its_own(namespace: Namespace) -> None:
    status, first = namespace.ask("GET", "/ca")
    assert status == 200
    assert first.startswith("-----BEGIN CERTIFICATE-----")
    assert namespace.ask("GET", "/ca") == (200, first)


def test_the_intercepted_address_leads_to_workerd(
    namespace: Namespace, closed: Callable[[bool], Answer], workerd: Workerd
) -> None:
    workerd.heads.clear()
    assert namespace.fetch(f"http://{INTERCEPTED}/rehearsal/v1") == "hi"
    outer, inner = workerd.heads
    assert outer.startswith(f"CONNECT {INTERCEPTED}:80 HTTP/1.1")
    assert inner.startswith("GET /rehearsal/v1 HTTP/1.1")


def test_a_refusal_of_workerd_is_told(
    namespace: Namespace, closed: Callable[[bool], Answer], workerd: Workerd
) -> None:
    workerd.refuses = True
    try:
        assert namespace.fetch(f"http://{INTERCEPTED}/").startswith("502 workerd refused")
    finally:
        workerd.refuses = False


def test_workerd_may_move_to_another_port(
    namespace: Namespace, closed: Callable[[bool], Answer], docker: Docker, workerd: Workerd
) -> None:
    """A restarted workerd tells its new port and nothing about the internet."""
    with Workerd(docker.gateway) as moved:
        threading.Thread(target=moved.serve_forever, daemon=True).start()
        assert namespace.ask("PUT", "/egress", {"port": moved.port})[0] == 200
        assert namespace.fetch(f"http://{INTERCEPTED}/") == "hi"
        assert "unreachable" in namespace.fetch(f"http://{docker.gateway}:{workerd.port}/")
        moved.shutdown()


def test_nothing_else_leaves_while_the_internet_is_closed(
    namespace: Namespace, closed: Callable[[bool], Answer], docker: Docker
) -> None:
    with Workerd(docker.gateway) as elsewhere:
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        url = f"http://{docker.gateway}:{elsewhere.port}/"
        assert "unreachable" in namespace.fetch(url)
        assert "unreachable" in namespace.fetch("http://192.0.2.1/")
        assert closed(True)[0] == 200
        namespace.fetch(url)
        assert elsewhere.heads[0].startswith("GET / "), "an open internet lets it through"
        assert closed(False)[0] == 200
        assert "unreachable" in namespace.fetch(url)
        elsewhere.shutdown()


def test_the_sandbox_cannot_open_it(namespace: Namespace, closed: Callable[[bool], Answer]) -> None:
    """Deleting a rule needs CAP_NET_ADMIN, which a container beside the sidecar has not."""
    script = (
        "import socket, struct\n"
        "rule = struct.pack('=8BI', 2, 0, 0, 0, 0, 0, 0, 7, 0) + struct.pack('=HHI', 8, 6, 200)\n"
        "s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\n"
        "s.sendall(struct.pack('=IHHII', 16 + len(rule), 33, 5, 1, 0) + rule)\n"
        "print(struct.unpack_from('=i', s.recv(8192), 16)[0])"
    )
    assert namespace.run(script) == "-1"
