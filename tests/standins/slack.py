# SPDX-License-Identifier: Apache-2.0
"""Stand-in for Slack on loopback, as strict as the real one where the product meets it.

A Request URL is taken when it gives back a challenge. What the app is sent is signed, has to be answered with 2xx
within 3 s, and is sent again up to three times, under the same name. Calls without the token, without text, into
channels that the app is no member of, or in threads that there are not, are refused (200 with `ok: false`, as Slack
does); a channel that gets too much is told to wait (429 with Retry-After). Slack cuts a text after 4000 characters;
here that is refused. Of a file Slack is told name and length, is sent the bytes where it says, without a token, and is
told where to show it; all of that takes the scope files:write. A block of text has at most 3000 characters, a row of
buttons at most 25 with at most 75 characters each, and each its own name; what is changed without a word of its blocks
is shown without them. What an app answers to a press by its address takes the message's place.
Facts: docs.slack.dev.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import urllib.parse
from collections.abc import Callable
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

    def edit(self, ts: str, text: str, user: str, channel: str) -> tuple[int, bytes]:
        """Change a message that somebody wrote."""
        direct = channel.startswith("D")
        said = {"type": "message", "user": user, "ts": ts}
        said["text"] = text if direct else f"<@{BOT}> {text}"
        edited = {"user": user, "ts": f"1700000002.{next(self.numbers):06}"}
        _, body = self.event(
            "",
            user,
            channel,
            type="message",
            subtype="message_changed",
            hidden=True,
            channel_type="im" if direct else "channel",
            message=said | {"edited": edited},
            previous_message=said,
        )
        told = json.loads(body)
        # The author is told of with the message.
        del told["event"]["user"], told["event"]["text"]
        return self.send(self.request_url, json.dumps(told).encode())

    def press(self, message: Sent, label: str, user: str) -> tuple[int, bytes]:
        """Press a button below a message of the app's."""
        number = next(self.numbers)
        value = dict(message.buttons)[label]
        action = {"type": "button", "block_id": "b", "action_id": value, "value": value}
        payload = {
            "type": "block_actions",
            "user": {"id": user, "username": "ann", "team_id": TEAM},
            "team": {"id": TEAM, "domain": "standin"},
            "channel": {"id": message.chat, "name": "directmessage"},
            "container": {
                "type": "message",
                "message_ts": message.name,
                "channel_id": message.chat,
            },
            "message": {"type": "message", "ts": message.name, "text": message.text, "bot_id": "B0"}
            | ({} if message.thread is None else {"thread_ts": message.thread}),
            "actions": [action | {"action_ts": f"1700000003.{number:06}"}],
            "trigger_id": f"{number}.1.abc",
            "response_url": f"{super().url}/actions/{message.name}/{number}",
        }
        body = urllib.parse.urlencode({"payload": json.dumps(payload)}).encode()
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
        if room in ("commands", "actions"):
            return (
                self._respond(name, said) if room == "commands" else self._replace(name, said, 400)
            )
        if authorization != f"Bearer {self.token}":
            return refused("invalid_auth")
        if name == "auth.test":
            return 200, {"ok": True, "user": "hermes", "user_id": BOT, "team_id": TEAM}
        if name.startswith("files.") and "files:write" not in self.scopes:
            return refused("missing_scope")
        methods: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "files.getUploadURLExternal": self._expect,
            "files.completeUploadExternal": self._show,
            "chat.update": lambda said: self._replace(said.get("ts", ""), said),
            "chat.postMessage": self._post,
        }
        return methods[name](said) if name in methods else refused("unknown_method")

    def _replace(self, ts: str, said: dict[str, Any], status: int = 200) -> Answer:
        if why := why_not(said):
            return refused(why, status)
        if not self.change(ts, said["text"], buttons_of(said)):
            return refused("message_not_found", status)
        return 200, {"ok": True, "ts": ts}

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
        if why := why_not(said):
            return refused(why)
        if thread is not None and thread not in self._written:
            return refused("thread_not_found")
        if self.is_busy(channel):
            return refused("ratelimited", 429)
        ts = f"1700000001.{next(self.numbers):06}"
        self._written.add(ts)
        shown = text if shown is None else shown
        buttons = buttons_of(said)
        self.note(Sent(channel, shown, thread=thread, name=ts, file=file, buttons=buttons))
        return 200, {"ok": True, "ts": ts, "channel": channel}

    def _respond(self, channel: str, said: dict[str, Any]) -> Answer:
        """Take the answer to a command."""
        if not said.get("text"):
            return refused("no_text", 400)
        self.note(Sent(channel, said["text"], way="command"))
        return 200, {}


def buttons_of(said: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the buttons of a message: the words of each, and what it sends back."""
    rows = [block["elements"] for block in said.get("blocks", []) if block["type"] == "actions"]
    return tuple((one["text"]["text"], one["value"]) for row in rows for one in row)


def why_not(said: dict[str, Any]) -> str | None:
    """Return why Slack does not take a message, or None."""
    if not said.get("text", "").strip():
        return "no_text"
    if len(said["text"]) > LONGEST:
        return "msg_too_long"
    for block in said.get("blocks", []):
        if block["type"] == "section" and not 0 < len(block["text"]["text"]) <= 3000:
            return "invalid_blocks"
        names = [one["action_id"] for one in block.get("elements", [])]
        if block["type"] == "actions" and not (0 < len(names) == len(set(names)) <= 25):
            return "invalid_blocks"
        if any(len(one["text"]["text"]) > 75 for one in block.get("elements", [])):
            return "invalid_blocks"
    return None


def refused(error: str, status: int = 200) -> Answer:
    """Return a refusal as Slack words it."""
    return status, {"ok": False, "error": error}
