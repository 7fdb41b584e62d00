# SPDX-License-Identifier: Apache-2.0
"""Stand-in for Slack on loopback, as strict as the real one where the product meets it.

A Request URL is taken when it gives back a challenge. What the app is sent is signed, has to be answered with 2xx
within 3 s, and is sent again up to three times, under the same name. Calls without the token, without text, into
channels that the app is no member of, or in threads that there are not, are refused (200 with `ok: false`, as Slack
does); a channel that gets too much is told to wait (429 with Retry-After). Slack cuts a text after 4000 characters;
here that is refused. Of a file Slack is told name and length, is sent the bytes where it says, without a token, and is
told where to show it; all of that takes the scope files:write.
Facts: docs.slack.dev.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .multipart import File
from .platform_api import Answer, PlatformApi, Sent

LONGEST = 4000
SCOPES = "chat:write,app_mentions:read,im:history,commands,files:read,files:write"
BOT, TEAM = "U0BOT00", "T0TEAM0"
ATTEMPTS = 4


@dataclass
class Slack(PlatformApi):
    """A running stand-in.

    token, secret: of the app; request_url: where events go; member_of: channels in which the app is, besides talks with
    it; answers: what the app said to what it was sent.
    """

    token: str = "xoxb-1111-2222-StandInStandInStandIn"
    secret: str = b"5lack5ecret".hex()[:22] + "0" * 10
    scopes: str = SCOPES
    member_of: set[str] = field(default_factory=lambda: {"C0GENERAL"})
    request_url: str = ""
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    patience: ClassVar[float] = 3.0

    def __post_init__(self) -> None:
        self._written: set[str] = set()
        self._files: dict[str, bytes] = {}
        self._uploads: dict[str, tuple[int, File]] = {}

    def attached(self, data: bytes, name: str, kind: str) -> dict[str, Any]:
        """Return how a message tells of a file with these bytes. kind: its media type."""
        path = f"/files-pri/{TEAM}-F{next(self.numbers)}/download/{name}"
        self._files[path] = data
        url = {"url_private_download": f"{super().url}{path}"}
        return {"name": name, "mimetype": kind, "size": len(data)} | url

    @property
    def url(self) -> str:
        """Where its API is served, without a trailing slash."""
        return f"{super().url}/api"

    def set_request_url(self, url: str) -> None:
        """Say where events go. Raises AssertionError when that does not give back the challenge."""
        challenge = f"challenge-{next(self.numbers)}"
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
        return self.ask(url, body, {"Content-Type": kind} | known)

    def event(self, text: str, user: str, channel: str, **more: Any) -> tuple[str, bytes]:
        """Return a message's own name and the delivery of it. more: further fields of the event."""
        number = next(self.numbers)
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
        number = next(self.numbers)
        hook = f"{super().url}/commands/{channel}/{number}"
        form = {"command": command, "text": text, "user_id": user, "user_name": "ann"}
        form |= {"channel_id": channel, "team_id": TEAM, "trigger_id": f"{number}.1.abc"}
        body = urllib.parse.urlencode(form | {"response_url": hook}).encode()
        return self.send(self.request_url, body, kind="application/x-www-form-urlencoded")

    def headers(self, status: int) -> dict[str, str]:
        """Return what Slack says besides its answer."""
        return {"X-OAuth-Scopes": self.scopes} | ({"Retry-After": "1"} if status == 429 else {})

    def answer(self, method: str, path: str, authorization: str, body: bytes, kind: str) -> Answer:
        """Answer one call."""
        if method != "POST":
            # Whoever may not read a file is sent to where people sign in.
            may = authorization == f"Bearer {self.token}" and "files:read" in self.scopes
            return (200, self._files[path]) if may and path in self._files else (302, {})
        _, room, name, *_ = f"{path}/".split("/")
        if room == "upload":
            return self._uploaded(name, authorization, body, kind)
        if kind.startswith("application/x-www-form-urlencoded"):
            said: dict[str, Any] = dict(urllib.parse.parse_qsl(body.decode()))
        else:
            said = json.loads(body or b"{}")
        if room == "commands":
            return self._respond(name, said)
        if authorization != f"Bearer {self.token}":
            return refused("invalid_auth")
        if name == "auth.test":
            return 200, {"ok": True, "user": "hermes", "user_id": BOT, "team_id": TEAM}
        if name.startswith("files.") and "files:write" not in self.scopes:
            return refused("missing_scope")
        if name == "files.getUploadURLExternal":
            return self._expect(said)
        if name == "files.completeUploadExternal":
            return self._show(said)
        return self._post(said) if name == "chat.postMessage" else refused("unknown_method")

    def _expect(self, said: dict[str, Any]) -> Answer:
        length, name = int(said.get("length", 0)), said.get("filename", "")
        if length < 1 or not name:
            return refused("invalid_arguments")
        number = f"F0{next(self.numbers)}"
        self._uploads[number] = length, File(name, "", b"")
        return 200, {"ok": True, "upload_url": f"{super().url}/upload/{number}", "file_id": number}

    def _uploaded(self, number: str, authorization: str, body: bytes, kind: str) -> Answer:
        length, file = self._uploads.get(number, (0, None))
        # The address is secret enough: whoever sends the token there would lose it.
        if file is None or authorization or len(body) != length:
            return 400, {}
        file.data, file.mime = body, kind
        return 200, f"OK - {length}".encode()

    def _show(self, said: dict[str, Any]) -> Answer:
        (told,) = said["files"]
        _, file = self._uploads.get(told["id"], (0, None))
        if file is None or not file.data:
            return refused("file_not_found")
        text = said.get("initial_comment", "")
        place = {"channel": said.get("channel_id", ""), "thread_ts": said.get("thread_ts")}
        status, answer = self._post(place | {"text": text or file.name}, file, text)
        return status, answer | ({"files": said["files"]} if answer["ok"] else {})

    def _post(
        self, said: dict[str, Any], file: File | None = None, shown: str | None = None
    ) -> Answer:
        channel, text, thread = said.get("channel", ""), said.get("text", ""), said.get("thread_ts")
        if not channel.startswith("D") and channel not in self.member_of:
            return refused("not_in_channel")
        if not text.strip():
            return refused("no_text")
        if len(text) > LONGEST:
            return refused("msg_too_long")
        if thread is not None and thread not in self._written:
            return refused("thread_not_found")
        if self.is_busy(channel):
            return refused("ratelimited", 429)
        ts = f"1700000001.{next(self.numbers):06}"
        self._written.add(ts)
        shown = text if shown is None else shown
        self.note(Sent(channel, shown, thread=thread, name=ts, file=file))
        return 200, {"ok": True, "ts": ts, "channel": channel}

    def _respond(self, channel: str, said: dict[str, Any]) -> Answer:
        """Take the answer to a command."""
        if not said.get("text"):
            return refused("no_text", 400)
        self.note(Sent(channel, said["text"], way="command"))
        return 200, {}


def refused(error: str, status: int = 200) -> Answer:
    """Return a refusal as Slack words it."""
    return status, {"ok": False, "error": error}
