# SPDX-License-Identifier: Apache-2.0
"""Stand-in for Slack on loopback, as strict as the real one where the product meets it.

A Request URL is taken when it gives back a challenge. What the app is sent is signed, has to be answered with 2xx
within 3 s, and is sent again up to three times, under the same name. Calls without the token, without text, into
channels that the app is no member of, or in threads that there are not, are refused (200 with `ok: false`, as Slack
does); a channel that gets too much is told to wait (429 with Retry-After). Slack cuts a text after 4000 characters;
here that is refused.
Facts: docs.slack.dev.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LONGEST = 4000
SCOPES = "chat:write,app_mentions:read,im:history,commands"
BOT, TEAM = "U0BOT00", "T0TEAM0"
ANSWER_SECONDS = 3.0
ATTEMPTS = 4


@dataclass
class Posted:
    """One message of the app's."""

    channel: str
    thread: str | None
    text: str
    ts: str
    by_command: bool = False


@dataclass
class Slack:
    """A running stand-in.

    token, secret: of the app; request_url: where events go; busy: channel -> how often it is told to wait; member_of:
    channels in which the app is, besides talks with it; opener: by which the request URL is reached.
    """

    token: str = "xoxb-1111-2222-StandInStandInStandIn"
    secret: str = b"5lack5ecret".hex()[:22] + "0" * 10
    scopes: str = SCOPES
    busy: dict[str, int] = field(default_factory=dict)
    member_of: set[str] = field(default_factory=lambda: {"C0GENERAL"})
    opener: urllib.request.OpenerDirector = field(default_factory=urllib.request.build_opener)
    request_url: str = ""
    posted: list[Posted] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    answers: list[tuple[int, bytes]] = field(default_factory=list)

    def __enter__(self) -> Slack:
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)
        self._written: set[str] = set()
        handler = type("Handler", (_Handler,), {"slack": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where its API is served, without a trailing slash."""
        return f"http://127.0.0.1:{self._server.server_port}/api"

    def set_request_url(self, url: str) -> None:
        """Say where events go. Raises AssertionError when that does not give back the challenge."""
        challenge = f"challenge-{next(self._numbers)}"
        body = json.dumps({"type": "url_verification", "token": "old", "challenge": challenge})
        status, answer = self.send(url, body.encode())
        assert (status, answer.decode().strip()) == (200, challenge), (status, answer)
        self.request_url = url

    def signed(self, body: bytes, at: float | None = None) -> dict[str, str]:
        """Return the headers by which a body is known to be Slack's."""
        moment = str(int(time.time() if at is None else at))
        text = f"v0:{moment}:".encode() + body
        digest = hmac.new(self.secret.encode(), text, hashlib.sha256).hexdigest()
        return {"X-Slack-Request-Timestamp": moment, "X-Slack-Signature": f"v0={digest}"}

    def send(
        self,
        url: str,
        body: bytes,
        headers: dict[str, str] | None = None,
        kind: str = "application/json",
    ) -> tuple[int, bytes]:
        """Send something to the app once; returns the status and what it says."""
        known = self.signed(body) if headers is None else headers
        request = urllib.request.Request(url, body, {"Content-Type": kind} | known)
        try:
            with self.opener.open(request, timeout=ANSWER_SECONDS) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def event(self, text: str, user: str, channel: str, **more: Any) -> tuple[str, bytes]:
        """Return a message's own name and the delivery of it. more: further fields of the event."""
        number = next(self._numbers)
        ts = f"1700000000.{number:06}"
        self._written.add(ts)
        direct = channel.startswith("D")
        event = {
            "type": "message" if direct else "app_mention",
            "user": user,
            "text": text if direct else f"<@{BOT}> {text}",
            "ts": ts,
            "channel": channel,
            **({"channel_type": "im"} if direct else {}),
            **more,
        }
        return ts, json.dumps(
            {
                "type": "event_callback",
                "team_id": TEAM,
                "event_id": f"Ev{number}",
                "authorizations": [{"team_id": TEAM, "user_id": BOT, "is_bot": True}],
                "event": event,
            }
        ).encode()

    def write(self, text: str, user: str, channel: str, *, twice: bool = False, **more: Any) -> str:
        """Write something; returns the message's name. twice: as if the first acknowledgement was lost."""
        ts, body = self.event(text, user, channel, **more)
        if twice:
            self.answers.append(self.send(self.request_url, body))
        for attempt in range(ATTEMPTS):
            retry = {"X-Slack-Retry-Num": str(attempt)} if attempt else {}
            answer = self.send(self.request_url, body, self.signed(body) | retry)
            self.answers.append(answer)
            if 200 <= answer[0] < 300:
                return ts
        raise AssertionError(f"not taken: {self.answers[-ATTEMPTS:]}")

    def command(self, command: str, text: str, user: str, channel: str) -> tuple[int, bytes]:
        """Give a slash command."""
        number = next(self._numbers)
        hook = f"{self.url.removesuffix('/api')}/commands/{channel}/{number}"
        form = {"command": command, "text": text, "user_id": user, "user_name": "ann"}
        form |= {"channel_id": channel, "team_id": TEAM, "trigger_id": f"{number}.1.abc"}
        body = urllib.parse.urlencode(form | {"response_url": hook}).encode()
        return self.send(self.request_url, body, kind="application/x-www-form-urlencoded")

    def await_posted(self, words: str, seconds: float = 60.0) -> Posted:
        """Return the first message of the app's with some words. Raises AssertionError without one in time."""

        def found() -> list[Posted]:
            return [one for one in self.posted if words in one.text]

        with self._changed:
            if self._changed.wait_for(found, seconds):
                return found()[0]
        raise AssertionError(f"nothing says {words!r}: {self.posted}")

    def call(self, method: str, said: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answer one call of the API."""
        self.calls.append(method)
        if method == "auth.test":
            return 200, {"ok": True, "user": "hermes", "user_id": BOT, "team_id": TEAM}
        if method != "chat.postMessage":
            return 200, {"ok": False, "error": "unknown_method"}
        channel, text, thread = said.get("channel", ""), said.get("text", ""), said.get("thread_ts")
        if not channel.startswith("D") and channel not in self.member_of:
            return 200, {"ok": False, "error": "not_in_channel"}
        if not text.strip():
            return 200, {"ok": False, "error": "no_text"}
        if len(text) > LONGEST:
            return 200, {"ok": False, "error": "msg_too_long"}
        if thread is not None and thread not in self._written:
            return 200, {"ok": False, "error": "thread_not_found"}
        if self.busy.get(channel, 0) > 0:
            self.busy[channel] -= 1
            return 429, {"ok": False, "error": "ratelimited"}
        return 200, {"ok": True, "ts": self._post(channel, thread, text), "channel": channel}

    def _post(
        self, channel: str, thread: str | None, text: str, *, by_command: bool = False
    ) -> str:
        with self._changed:
            ts = f"1700000001.{next(self._numbers):06}"
            self._written.add(ts)
            self.posted.append(Posted(channel, thread, text, ts, by_command))
            self._changed.notify_all()
        return ts

    def respond(self, channel: str, said: dict[str, Any]) -> int:
        """Take the answer to a command."""
        if not said.get("text"):
            return 400
        self._post(channel, None, said["text"], by_command=True)
        return 200


class _Handler(BaseHTTPRequestHandler):
    slack: Slack
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Keep the test's output to the test's own words."""

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        _, kind, name, *_rest = f"{self.path}/".split("/")
        answer: dict[str, Any] = {}
        if kind == "commands":
            status = self.slack.respond(name, said)
        elif self.headers.get("Authorization") != f"Bearer {self.slack.token}":
            status, answer = 200, {"ok": False, "error": "invalid_auth"}
        else:
            status, answer = self.slack.call(name, said)
        body = json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("X-OAuth-Scopes", self.slack.scopes)
            if status == 429:
                self.send_header("Retry-After", "1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            return
