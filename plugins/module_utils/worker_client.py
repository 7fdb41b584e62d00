# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP clients for a Worker: one on this machine, one at an https address."""

from __future__ import annotations

import hmac
import http.client
import io
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

try:
    import requests
except ImportError:
    requests = None  # type: ignore[assignment] # a card tells of it where it is needed

from .digests import proof

BYTES = "application/octet-stream"
IDENTITY = "/api/identity"
"""Where a Worker proves to who holds an API token that it does too, so that the token need not be sent to find out."""
ASKER = "X-Hermes-Asked"
"""Header by which the one who asks shows first that it holds the token."""
PIECE = 1 << 20
"""Bytes that a download hands on at once."""


IDENTITY_SECONDS = 20.0
START_SECONDS = 300.0
"""What the Worker waits for its sandbox at most: Cloudflare brings a new image to where it is started."""
CHANGE_SECONDS = 3600.0
"""Longest silence while the Worker saves, ends or starts Hermes: more than all of its own limits together.

A start under way comes first, then turns and jobs come to their end, then what Hermes knows is saved. Who gives up
before the Worker does takes a deployment that is at work for one that does not answer.
"""
KEPT_ALIVE = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 8))
        if hasattr(socket, name)
    ),
]
"""Options of a socket. A network that is gone is found out in three minutes, however long the Worker may be silent."""


class Owner(Enum):
    """Who answers at an address."""

    OURS = "ours"
    ANOTHER = "another"
    NOBODY = "nobody"


class Unreachable(Exception):
    """Nothing answered on the port, or the connection broke."""


@dataclass(frozen=True)
class Answer:
    """An answer: status code, headers with lower-case names, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the object that the body is as JSON; an empty one when it is none, as where a stranger answers."""
        try:
            content = json.loads(self.body)
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    def complaint(self) -> str:
        """Return the error's sentence in one line, for people."""
        error = self.json().get("error")
        message = error.get("message") if isinstance(error, dict) else None
        text = message or self.body[:300].decode("utf-8", "replace")
        return " ".join(str(text).split()) or f"HTTP {self.status}"


class WorkerClient:
    """Speaks to http://127.0.0.1:<port>; the token travels in a header only."""

    def __init__(self, port: int, token: str | None, timeout: float = 10.0) -> None:
        """port: TCP port; token: bearer or None; timeout: seconds without a byte."""
        self.port = port
        self.token = token
        self.timeout = timeout

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        timeout: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send one request and read the whole answer. Raises Unreachable."""
        connection = self._connection(timeout)
        try:
            response = self._send(connection, method, path, body, headers)
            return Answer(response.status, _lower(response), response.read())
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(str(error) or type(error).__name__) from error
        finally:
            connection.close()

    def stream(
        self, path: str, body: Any, timeout: float | None = None
    ) -> Iterator[tuple[float, Answer | str]]:
        """POST and yield (seconds since the request, item).

        The first item is the Answer's head (its body is filled only when the status is not 200); each further item
        is the text of one server-sent event's data. Raises Unreachable, also when it takes longer than timeout in all:
        a Worker that waits for Hermes says so every few seconds, for as long as it waits.
        """
        connection = self._connection(timeout)
        started = time.monotonic()
        try:
            response = self._send(connection, "POST", path, body, None)
            body_bytes = response.read() if response.status != 200 else b""
            yield time.monotonic() - started, Answer(response.status, _lower(response), body_bytes)
            yield from _events(response, started, timeout or self.timeout)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(str(error) or type(error).__name__) from error
        finally:
            connection.close()

    def download(self, path: str, write: Callable[[bytes], Any], timeout: float) -> Answer:
        """GET and hand the body on piece by piece; the answer's body is empty unless it was refused.

        Raises Unreachable.
        """
        connection = self._connection(timeout)
        try:
            response = self._send(connection, "GET", path, None, None)
            if response.status != 200:
                return Answer(response.status, _lower(response), response.read())
            while piece := response.read(PIECE):
                write(piece)
            return Answer(200, _lower(response), b"")
        except http.client.HTTPException as error:
            raise Unreachable(str(error) or type(error).__name__) from error
        except (ConnectionError, TimeoutError) as error:
            # Any other OSError is the writer's: its disk may be full.
            raise Unreachable(str(error) or type(error).__name__) from error
        finally:
            connection.close()

    def upload(self, path: str, content: bytes, timeout: float) -> Answer:
        """PUT bytes. Raises Unreachable."""
        connection = self._connection(timeout)
        try:
            headers = self._headers({"Content-Type": BYTES})
            connection.request("PUT", path, body=content, headers=headers)
            response = connection.getresponse()
            return Answer(response.status, _lower(response), response.read())
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(str(error) or type(error).__name__) from error
        finally:
            connection.close()

    def _connection(self, timeout: float | None) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout or self.timeout)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Any,
        headers: dict[str, str] | None,
    ) -> http.client.HTTPResponse:
        sent = self._headers(headers)
        data = None
        if body is not None:
            sent["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        connection.request(method, path, body=data, headers=sent)
        return connection.getresponse()

    def _headers(self, more: dict[str, str] | None) -> dict[str, str]:
        sent = {"User-Agent": "hermes.workers"} | (more or {})
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        return sent


class RemoteClient(WorkerClient):
    """Speaks to https://<host>; proxies and certificates are the environment's, as for every HTTPS call.

    Whoever answers there gets the token only after it has proved that it holds the same: a hostname may be another
    Worker's by now, or a route lead elsewhere. Without that proof every call is answered with 401, here.
    """

    def __init__(
        self, host: str, token: str | None, timeout: float = 20.0, *, is_secret: bool = True
    ) -> None:
        """host: of the Worker; token: bearer or None; timeout: seconds without a byte.

        is_secret: false for a made-up token, which whoever answers there may see.
        """
        super().__init__(443, token, timeout)
        self.url = f"https://{host}"
        self._is_proved = not is_secret
        self._session = requests.Session()
        adapter = requests.adapters.HTTPAdapter()
        adapter.init_poolmanager(1, 1, socket_options=KEPT_ALIVE)
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, adapter)
        # As a callable, because requests would let a ~/.netrc win over a plain header.
        self._session.auth = self._sign

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        timeout: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send one request and read the whole answer. Raises Unreachable."""
        try:
            response = self._call(method, path, body, timeout, headers)
            return Answer(response.status_code, _lowered(response), response.content)
        except requests.exceptions.RequestException as error:
            raise Unreachable(cause(error)) from error

    def stream(
        self, path: str, body: Any, timeout: float | None = None
    ) -> Iterator[tuple[float, Answer | str]]:
        """POST and yield (seconds since the request, item), as WorkerClient does. Raises Unreachable."""
        started = time.monotonic()
        try:
            with self._call("POST", path, body, timeout, None, stream=True) as response:
                content = response.content if response.status_code != 200 else b""
                head = Answer(response.status_code, _lowered(response), content)
                yield time.monotonic() - started, head
                lines = response.iter_lines(chunk_size=None)  # type: ignore[call-overload] # None: as it comes
                yield from _events(lines, started, timeout or self.timeout)
        except requests.exceptions.RequestException as error:
            raise Unreachable(cause(error)) from error

    def download(self, path: str, write: Callable[[bytes], Any], timeout: float) -> Answer:
        """GET and hand the body on piece by piece; the answer's body is empty unless it was refused."""
        try:
            with self._call("GET", path, None, timeout, None, stream=True) as response:
                if response.status_code != 200:
                    return Answer(response.status_code, _lowered(response), response.content)
                for piece in response.iter_content(PIECE):
                    write(piece)
                return Answer(200, _lowered(response), b"")
        except requests.exceptions.RequestException as error:
            raise Unreachable(cause(error)) from error

    def upload(self, path: str, content: bytes, timeout: float) -> Answer:
        """PUT bytes. Raises Unreachable."""
        try:
            response = self._call("PUT", path, None, timeout, {"Content-Type": BYTES}, data=content)
            return Answer(response.status_code, _lowered(response), response.content)
        except requests.exceptions.RequestException as error:
            raise Unreachable(cause(error)) from error

    def _call(
        self,
        method: str,
        path: str,
        body: Any,
        timeout: float | None,
        headers: dict[str, str] | None,
        *,
        stream: bool = False,
        data: bytes | None = None,
    ) -> requests.Response:
        refusal = self.identify(self.token) if self.token and not self._is_proved else None
        if refusal is not None:
            return refusal
        return self._session.request(
            method,
            self.url + path,
            json=body,
            data=data,
            headers={"User-Agent": "hermes.workers"} | (headers or {}),
            timeout=(10.0, timeout or self.timeout),
            allow_redirects=False,
            stream=stream,
        )

    def identify(self, token: str) -> requests.Response | None:
        """Have the Worker prove who it is; returns what to tell where it does not. Raises RequestException."""
        nonce, host = token_hex(32), urlsplit(self.url).hostname
        asked = proof(token, f"asked {host} {nonce}")
        answer = self._session.get(
            self.url + IDENTITY,
            params={"nonce": nonce},
            headers={"User-Agent": "hermes.workers", ASKER: asked},
            timeout=(10.0, min(self.timeout, IDENTITY_SECONDS)),
            allow_redirects=False,
        )
        if answer.status_code == 200:
            wanted = proof(token, f"{host} {nonce}")
            self._is_proved = any(
                hmac.compare_digest(one.encode(), wanted.encode()) for one in _claims(answer)
            )
            return None if self._is_proved else _unproved(host)
        return answer if answer.status_code >= 400 else _unproved(host)

    def owner(self) -> Owner:
        """Tell whose answers come from there; without a token to prove, any answer is ours. Sends no secret."""
        try:
            refusal = self.identify(self.token) if self.token else None
            if self.token is None:
                self._session.get(
                    self.url + "/", timeout=(10.0, IDENTITY_SECONDS), allow_redirects=False
                )
        except requests.exceptions.RequestException:
            return Owner.NOBODY
        if refusal is None:
            return Owner.OURS
        # What Cloudflare itself says while a hostname has not arrived everywhere.
        return Owner.NOBODY if refusal.status_code >= 500 else Owner.ANOTHER

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.token and self._is_proved:
            request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def _events(
    lines: Iterable[bytes], started: float, limit: float
) -> Iterator[tuple[float, Answer | str]]:
    """Yield (seconds since the request, data) of the events among lines. Raises Unreachable after limit seconds."""
    for line in lines:
        seconds = time.monotonic() - started
        if seconds > limit:
            raise Unreachable(f"it had no end after {limit:.0f} s")
        if line.startswith(b"data:"):
            yield seconds, line[5:].strip().decode("utf-8", "replace")


def _claims(answer: requests.Response) -> list[str]:
    """Return the proofs that an answer holds, whoever gave it."""
    try:
        claimed = answer.json()["proofs"]
    except (ValueError, TypeError, KeyError):
        return []
    return [str(one) for one in claimed] if isinstance(claimed, list) else []


def _unproved(host: str | None) -> requests.Response:
    """Return the answer of an address whose owner is not known."""
    message = f"{host} does not prove that it holds this API token, so it was not sent there."
    answer = requests.Response()
    answer.status_code = 401
    answer.raw = io.BytesIO(
        json.dumps({"error": {"code": "unproved", "message": message}}).encode()
    )
    return answer


def cause(error: BaseException) -> str:
    """Return what lies at the bottom of an error, in one line."""
    while below := error.__cause__ or error.__context__:
        error = below
    return " ".join(str(error).split())[:200] or type(error).__name__


def _lowered(response: requests.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _lower(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}
