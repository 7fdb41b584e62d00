# SPDX-License-Identifier: Apache-2.0
"""Stand-in for WhatsApp's Cloud API, as strict as the real one where the product meets it.

A callback URL is taken when it gives back the challenge for the right word. What the app is sent is signed with its
secret. A wrong token (190), another number (100), a text of nothing or of more than 4096 characters (100), and too
much to one of them (131056) are refused. What is for people who have not written for a day is taken, and the callback
is told then that it was not delivered (131047). A file is given before the message that shows it, in a form with its
type; of a type that there is not, too large for what it is, or shown as what it is not it is refused (100), and so are
a text with what is heard, and what is no Ogg file as something spoken.
Facts: developers.facebook.com.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from . import multipart
from .platform_api import Answer, PlatformApi, Sent

LONGEST = 4096
LONGEST_CAPTION = 1024
MB = 1024 * 1024
OFFICE = "application/vnd.openxmlformats-officedocument"
TAKEN = {
    "image": (5 * MB, ("image/jpeg", "image/png")),
    "audio": (16 * MB, ("audio/aac", "audio/amr", "audio/mpeg", "audio/mp4", "audio/ogg")),
    "video": (16 * MB, ("video/mp4", "video/3gpp")),
    "document": (
        100 * MB,
        (
            "text/plain",
            "application/pdf",
            "application/msword",
            "application/vnd.ms-excel",
            "application/vnd.ms-powerpoint",
            f"{OFFICE}.wordprocessingml.document",
            f"{OFFICE}.spreadsheetml.sheet",
            f"{OFFICE}.presentationml.presentation",
        ),
    ),
}


@dataclass
class WhatsApp(PlatformApi):
    """A running stand-in. open_for: who has written in the last day."""

    token: str = "EAAstandInStandInStandIn"
    secret: str = "5" * 32
    verify_token: str = "made-up-word"
    number_id: str = "106540352242922"
    open_for: set[str] = field(default_factory=set)
    callback: str = ""

    def __post_init__(self) -> None:
        self._media: dict[str, bytes] = {}
        self._uploads: dict[str, multipart.File] = {}

    def shown(self, picture: bytes, caption: str, user: str) -> tuple[str, bytes]:
        """Return the name of a message that is a picture, and the update that brings it."""
        self.open_for.add(user)
        name, media = f"wamid.{next(self.numbers)}", f"{next(self.numbers):015}"
        self._media[media] = picture
        image = {"id": media, "mime_type": "image/png", "caption": caption}
        message = {"from": user, "id": name, "timestamp": "1700000000", "type": "image"}
        return name, self.update(messages=[message | {"image": image}])

    def set_callback(self, url: str) -> None:
        """Say where updates go. Raises AssertionError when that does not know the word."""
        wrong = {
            "hub.mode": "subscribe",
            "hub.challenge": "1158201444",
            "hub.verify_token": "other",
        }
        assert self.ask(f"{url}?{urllib.parse.urlencode(wrong)}", None, {})[0] == 401
        right = wrong | {"hub.verify_token": self.verify_token}
        found = self.ask(f"{url}?{urllib.parse.urlencode(right)}", None, {})
        assert found == (200, b"1158201444"), found
        self.callback = url

    def update(self, **value: Any) -> bytes:
        """Return an update with this in it."""
        metadata = {"display_phone_number": "15550783881", "phone_number_id": self.number_id}
        value = {"messaging_product": "whatsapp", "metadata": metadata} | value
        changes = [{"field": "messages", "value": value}]
        entry = [{"id": "102290129340398", "changes": changes}]
        return json.dumps({"object": "whatsapp_business_account", "entry": entry}).encode()

    def deliver(self, body: bytes, signed: bytes | None = None) -> int:
        """Send an update; returns the status. signed: what the signature is of."""
        text = body if signed is None else signed
        digest = hmac.new(self.secret.encode(), text, hashlib.sha256).hexdigest()
        headers = {"Content-Type": "application/json", "X-Hub-Signature-256": f"sha256={digest}"}
        return self.ask(self.callback, body, headers)[0]

    def written(self, text: str, user: str) -> tuple[str, bytes]:
        """Return the name of a message and the update that brings it."""
        self.open_for.add(user)
        name = f"wamid.{next(self.numbers)}"
        message = {"from": user, "id": name, "timestamp": "1700000000", "type": "text"}
        contact = {"profile": {"name": "Ann"}, "wa_id": user}
        return name, self.update(contacts=[contact], messages=[message | {"text": {"body": text}}])

    def answer(self, method: str, path: str, authorization: str, body: bytes, kind: str) -> Answer:
        """Answer one call."""
        if authorization != f"Bearer {self.token}":
            return refused(401, 190, "Invalid OAuth access token")
        media = self._media.get(path.split("/")[-1])
        if method == "GET" and media is not None:
            if path.startswith("/attachments/"):
                return 200, media
            url = f"{self.url}/attachments{path}"
            return 200, {"url": url, "mime_type": "image/png", "file_size": len(media)}
        if not path.startswith(f"/{self.number_id}"):
            return refused(400, 100, "Unsupported request. Object does not exist")
        if method == "GET":
            return 200, {"display_phone_number": "+1 555-078-3881", "id": self.number_id}
        if path == f"/{self.number_id}/media":
            return self._upload(kind, body)
        return self._message(json.loads(body))

    def _message(self, said: dict[str, Any]) -> Answer:
        user, way = said["to"], said.get("type", "")
        shown = said.get(way, {})
        file = self._uploads.get(shown.get("id", ""))
        text = shown.get("body" if way == "text" else "caption", "")
        if said.get("messaging_product") != "whatsapp" or not self._is_right(way, shown, file):
            return refused(400, 100, "Invalid parameter")
        if self.is_busy(user):
            return refused(400, 131056, "(Business Account, Consumer Account) pair rate limit hit")
        reply_to = said.get("context", {}).get("message_id")
        if user not in self.open_for:
            name = f"wamid.{next(self.numbers)}"
            error = {"code": 131047, "title": "Re-engagement message"}
            status = {"id": name, "status": "failed", "recipient_id": user, "errors": [error]}
            update = self.update(statuses=[status])
            threading.Thread(target=self.deliver, args=(update,), daemon=True).start()
            return 200, {"messages": [{"id": name}]}
        way = "voice" if shown.get("voice") else way
        if file is not None and "filename" in shown:
            file.name = shown["filename"]
        return 200, {"messages": [{"id": self.note(Sent(user, text, reply_to, way, file=file))}]}

    def _upload(self, kind: str, body: bytes) -> Answer:
        fields, files = multipart.read(kind, body)
        file, mime = files.get("file"), fields.get("type")
        allowed = [most for most, types in TAKEN.values() if mime in types]
        if fields.get("messaging_product") != "whatsapp" or file is None or file.mime != mime:
            return refused(400, 100, "(#100) The parameter messaging_product is required.")
        if not allowed:
            return refused(
                400, 100, "(#100) Param file must be a file with one of the following types"
            )
        if not file.data or len(file.data) > allowed[0]:
            return refused(400, 131053, "Media upload error")
        number = f"{next(self.numbers):015}"
        self._uploads[number] = file
        return 200, {"id": number}

    def _is_right(self, way: str, shown: dict[str, Any], file: multipart.File | None) -> bool:
        if way == "text":
            return 0 < len(shown.get("body", "")) <= LONGEST
        if file is None or way not in TAKEN or len(shown.get("caption", "")) > LONGEST_CAPTION:
            return False
        if way == "audio" and ("caption" in shown or shown.get("voice", False)):
            return "caption" not in shown and file.mime == "audio/ogg"
        return way == "document" or file.mime in TAKEN[way][1]


def refused(status: int, code: int, message: str) -> Answer:
    """Return a refusal as the platform words it."""
    return status, {"error": {"message": message, "type": "OAuthException", "code": code}}
