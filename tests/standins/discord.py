# SPDX-License-Identifier: Apache-2.0
"""Stand-in for Discord's API of interactions, as strict as the real one where the product meets it.

An address for interactions is taken when it answers a PING, and refuses one whose signature is wrong. Interactions are
signed with Ed25519, and have to be answered with a body of their kind. A wrong token (0), a text of nothing (50006) or
of more than 2000 characters (50035), an interaction that is over (10015), a channel that the bot does not see (50001)
are refused, and too much is told to wait. A file comes in a form, with the message in its field payload_json, and is
refused when it is larger than 10 MB (40005). A row holds at most five buttons, each with at most 80 characters and a
name of its own of at most 100. Facts: docs.discord.com.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from . import multipart
from .platform_api import Answer, PlatformApi, Sent

LONGEST = 2000
LARGEST_FILE = 10 * 1024 * 1024


@dataclass
class Discord(PlatformApi):
    """A running stand-in. over: tokens of interactions that are over; sees: channels in which the bot may write."""

    token: str = "MTIz." + "standIn-_" * 7
    application: str = "123456789012345678"
    endpoint: str | None = None
    over: set[str] = field(default_factory=set)
    sees: set[str] = field(default_factory=set)
    commands: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        # Token of a press -> the message with the button.
        self._below: dict[str, str] = {}

    @property
    def public_key(self) -> str:
        """By which it proves itself."""
        return self._key.public_key().public_bytes_raw().hex()

    def deliver(
        self,
        interaction: dict[str, Any],
        *,
        forged: bool = False,
        at: float | None = None,
        url: str | None = None,
    ) -> tuple[int, Any]:
        """Send an interaction; returns the status and the answer."""
        body = json.dumps(interaction).encode()
        moment = str(int(time.time() if at is None else at))
        signature = self._key.sign(moment.encode() + (b"x" if forged else b"") + body).hex()
        headers = {"X-Signature-Ed25519": signature, "X-Signature-Timestamp": moment}
        headers["Content-Type"] = "application/json"
        status, answer = self.ask(url or self.endpoint or "", body, headers)
        return status, json.loads(answer) if answer else None

    def command(self, text: str, user: str, channel: str) -> dict[str, Any]:
        """Return the interaction of /hermes."""
        number = next(self.numbers)
        return {
            "type": 2,
            "id": f"{900000000000000000 + number}",
            "application_id": self.application,
            "token": f"interaction-token-{number}",
            "channel_id": channel,
            "guild_id": "777777777777777777",
            "member": {"user": {"id": user, "username": "ann"}},
            "data": {"name": "hermes", "options": [{"name": "text", "type": 3, "value": text}]},
        }

    def pressed(self, message: Sent, label: str, user: str, channel: str) -> dict[str, Any]:
        """Return the interaction of a button below a message of the application's."""
        number = next(self.numbers)
        self._below[f"interaction-token-{number}"] = message.name
        return self.command("", user, channel) | {
            "type": 3,
            "id": f"{900000000000000000 + number}",
            "token": f"interaction-token-{number}",
            "data": {"component_type": 2, "custom_id": dict(message.buttons)[label]},
            "message": {"id": message.name, "content": message.text},
        }

    def answer(self, method: str, path: str, authorization: str, body: bytes, kind: str) -> Answer:
        """Answer one call."""
        said, file = said_by(body, kind)
        if path.startswith(f"/webhooks/{self.application}/"):
            return self._by_interaction(method, path, said, file)
        if authorization != f"Bot {self.token}":
            return 401, {"message": "401: Unauthorized", "code": 0}
        if path == "/applications/@me":
            if "interactions_endpoint_url" in said and not self._takes(
                said["interactions_endpoint_url"]
            ):
                return 400, {"message": "Invalid Form Body", "code": 50035}
            return 200, {
                "id": self.application,
                "name": "Hermes",
                "verify_key": self.public_key,
                "interactions_endpoint_url": self.endpoint,
            }
        if path == f"/applications/{self.application}/commands":
            if method == "POST":
                self.commands[said["name"]] = said | {"id": f"c-{said['name']}"}
                return 201, self.commands[said["name"]]
            return 200, list(self.commands.values())
        if path.startswith(f"/applications/{self.application}/commands/") and method == "DELETE":
            name = path.split("/")[-1].removeprefix("c-")
            gone = self.commands.pop(name, None)
            return (
                (404, {"message": "Unknown application command", "code": 10063})
                if gone is None
                else (204, {})
            )
        if path.startswith("/channels/") and method == "POST":
            channel = path.split("/")[2]
            if channel not in self.sees:
                return 403, {"message": "Missing Access", "code": 50001}
            return self._message(channel, "channel", said, file)
        return 404, {"message": "404: Not Found", "code": 0}

    def _takes(self, url: str | None) -> bool:
        if url is not None:
            ping = {"type": 1, "id": "1", "application_id": self.application}
            if self.deliver(ping, url=url) != (200, {"type": 1}):
                return False
            if self.deliver(ping, forged=True, url=url)[0] != 401:
                return False
        self.endpoint = url
        return True

    def _by_interaction(
        self, method: str, path: str, said: dict[str, Any], file: multipart.File | None
    ) -> Answer:
        token = path.split("/")[3].partition("?")[0]
        if method == "PATCH" and path.endswith("/messages/@original"):
            return self._change(token, said)
        if token in self.over or not token.startswith("interaction-token-"):
            return 404, {"message": "Unknown Webhook", "code": 10015}
        return self._message(token, "interaction", said, file)

    def _change(self, token: str, said: dict[str, Any]) -> Answer:
        if token in self.over or token not in self._below:
            return 404, {"message": "Unknown Webhook", "code": 10015}
        if why := why_not(said):
            return why
        self.change(self._below[token], said["content"], buttons_of(said))
        return 200, {"id": self._below[token]}

    def _message(
        self, chat: str, way: str, said: dict[str, Any], file: multipart.File | None
    ) -> Answer:
        text = said.get("content", "")
        if file is not None and len(file.data) > LARGEST_FILE:
            return 413, {"message": "Request entity too large", "code": 40005}
        if (why := why_not(said)) and not (file is not None and not text.strip()):
            return why
        if self.is_busy(chat):
            return 429, {
                "message": "You are being rate limited.",
                "retry_after": 0.5,
                "global": False,
            }
        return 200, {
            "id": self.note(Sent(chat, text, way=way, file=file, buttons=buttons_of(said)))
        }


def buttons_of(said: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the buttons of a message: the words of each, and what it sends back."""
    rows = said.get("components", [])
    return tuple((one["label"], one["custom_id"]) for row in rows for one in row["components"])


def why_not(said: dict[str, Any]) -> Answer | None:
    """Return the refusal of a message without a file, or None."""
    text, buttons = said.get("content", ""), buttons_of(said)
    if not text.strip():
        return 400, {"message": "Cannot send an empty message", "code": 50006}
    rows = [row["components"] for row in said.get("components", [])]
    names = [name for _, name in buttons]
    if (
        len(text) > LONGEST
        or any(not 0 < len(row) <= 5 for row in rows)
        or len(names) != len(set(names))
        or any(not (0 < len(label) <= 80 and 0 < len(name) <= 100) for label, name in buttons)
    ):
        return 400, {"message": "Invalid Form Body", "code": 50035}
    return None


def said_by(body: bytes, kind: str) -> tuple[dict[str, Any], multipart.File | None]:
    """Return what a call says, and the file that goes with it."""
    if kind.startswith("multipart/form-data"):
        fields, files = multipart.read(kind, body)
        return json.loads(fields["payload_json"]), files["files[0]"]
    return json.loads(body) if body else {}, None
