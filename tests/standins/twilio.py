# SPDX-License-Identifier: Apache-2.0
"""Stand-in for Twilio's API of messages, as strict as the real one where the product meets it.

What it sends is signed over the address as it knows it and all fields. A wrong account or token (20003), a number that
is not the account's (21606), a text of nothing (21602) or of more than 1600 characters (21617), people who said STOP
(21610), and too many calls (20429) are refused. A file that came with a message is for the account alone: it is led to
where that is, and there nobody is asked who they are. A file that is sent is fetched from its address, without a proof,
after the message was taken: only for numbers in the United States and Canada (21612), by a number that can (21621),
from an address that anybody reaches (21620); what is not there, is of another type than it says, or of none that phones
take, or is too large fails then (11200, 12300, 11751). Facts: twilio.com/docs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from .multipart import File
from .platform_api import Answer, PlatformApi, Sent

LONGEST = 1600
LARGEST = 5 * 1024 * 1024
BEGINS = {
    "image/png": b"\x89PNG",
    "image/jpeg": b"\xff\xd8",
    "image/gif": b"GIF8",
    "application/pdf": b"%PDF",
}
"""How files begin of the types that it takes; of those that it takes besides tests send none."""


@dataclass
class Twilio(PlatformApi):
    """A running stand-in. stopped: who wants nothing any more; sms_url: where the number's messages go.

    media: files that came with messages, by their names; proofs: what was told where they are; has_mms: whether the
    number can send files; fetched: where those were that it sent; messages: what became of these, by their names.
    """

    account: str = "AC" + "7" * 32
    token: str = "e" * 32
    number: str = "+15005550006"
    sms_url: str = "https://demo.twilio.com/welcome/sms/reply"
    stopped: set[str] = field(default_factory=set)
    media: dict[str, bytes] = field(default_factory=dict)
    proofs: list[str] = field(default_factory=list)
    has_mms: bool = True
    fetched: list[str] = field(default_factory=list)
    messages: dict[str, dict[str, Any]] = field(default_factory=dict)

    def signature(self, url: str, form: dict[str, str]) -> str:
        """Return the signature of a call."""
        text = url + "".join(f"{name}{form[name]}" for name in sorted(form))
        digest = hmac.new(self.token.encode(), text.encode(), hashlib.sha1).digest()
        return base64.b64encode(digest).decode()

    def form(self, text: str, user: str, **more: str) -> dict[str, str]:
        """Return the fields of a message."""
        form = {"MessageSid": f"SM{next(self.numbers):032}", "AccountSid": self.account}
        form |= {"From": user, "To": self.number, "Body": text, "NumMedia": "0"}
        return form | more

    def pictured(self, picture: bytes, text: str, user: str) -> dict[str, str]:
        """Return the fields of a message with a picture."""
        form = self.form(text, user, NumMedia="1", MediaContentType0="image/png")
        name = f"/2010-04-01/Accounts/{self.account}/Messages/{form['MessageSid']}/Media/ME1"
        self.media[name] = picture
        return form | {"MediaUrl0": f"{self.url}{name}"}

    def headers(self, status: int) -> dict[str, str]:
        """Return where a file is."""
        return {"Location": f"{self.url}/there{self._asked}"} if status == 307 else {}

    def deliver(
        self, form: dict[str, str], signature: str | None = None, url: str | None = None
    ) -> tuple[int, bytes]:
        """Send a message to the number's address; returns the status and what it says."""
        known = self.sms_url if url is None else url
        made = self.signature(known, form) if signature is None else signature
        headers = {"Content-Type": "application/x-www-form-urlencoded", "X-Twilio-Signature": made}
        return self.ask(known, urllib.parse.urlencode(form).encode(), headers)

    def answer(self, method: str, path: str, authorization: str, body: bytes, kind: str) -> Answer:
        """Answer one call."""
        if path.startswith("/there/"):
            self.proofs.append(authorization)
            return 200, self.media[path.removeprefix("/there")]
        given = base64.b64encode(f"{self.account}:{self.token}".encode()).decode()
        root = f"/2010-04-01/Accounts/{self.account}/"
        if authorization != f"Basic {given}" or not path.startswith(root):
            return refused(401, 20003, "Authenticate")
        if method == "GET" and path in self.media:
            self._asked = path
            return 307, {}
        form = dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))
        name = path.removeprefix(root)
        if name == "Messages.json" and method == "POST":
            return self._send(form)
        known = name.removeprefix("Messages/").removesuffix(".json")
        if method == "GET" and known in self.messages:
            return 200, self.messages[known]
        mine = {"sid": "PN" + "1" * 32, "sms_url": self.sms_url, "sms_method": "POST"}
        if method == "GET" and name.startswith("IncomingPhoneNumbers.json?PhoneNumber="):
            found = [mine] if name.endswith(f"={self.number}") else []
            return 200, {"incoming_phone_numbers": found}
        if method == "POST" and name == f"IncomingPhoneNumbers/{mine['sid']}.json":
            self.sms_url = form["SmsUrl"]
            return 200, mine | {"sms_url": self.sms_url}
        return refused(404, 20404, "The requested resource was not found")

    def _send(self, form: dict[str, str]) -> Answer:
        user, text = form["To"], form.get("Body", "")
        if form.get("From") != self.number:
            return refused(400, 21606, "The 'From' phone number is not valid")
        media = form.get("MediaUrl", "")
        if not text and not media:
            return refused(400, 21602, "Message body is required")
        if len(text) > LONGEST:
            return refused(
                400, 21617, "The concatenated message body exceeds the 1600 character limit"
            )
        if user in self.stopped:
            return refused(400, 21610, "Attempt to send to unsubscribed recipient")
        if self.is_busy(user):
            return refused(429, 20429, "Too Many Requests")
        if media:
            return self._send_file(user, text, media)
        return 201, {"sid": self.note(Sent(user, text)), "status": "queued"}

    def _send_file(self, user: str, text: str, url: str) -> Answer:
        if not self.has_mms:
            return refused(400, 21621, "The 'From' number has not been enabled for MMS")
        if not user.startswith("+1"):
            both = f"'To' ({user}) and/or 'From' ({self.number})"
            return refused(
                400,
                21612,
                f"Message cannot be sent with the current combination of {both} parameters",
            )
        if not url.startswith("https://"):
            return refused(400, 21620, "Invalid media URL(s)")
        sid = f"MM{next(self.numbers):032}"
        message = {"sid": sid, "status": "queued", "error_code": None, "error_message": None}
        self.messages[sid] = message
        threading.Thread(target=self._fetch, args=(message, user, text, url), daemon=True).start()
        return 201, dict(message)

    def _fetch(self, message: dict[str, Any], user: str, text: str, url: str) -> None:
        self.fetched.append(url)
        really = url
        for begins, there in self.reaches.items():
            really = really.replace(begins, there, 1)
        error = None
        try:
            for method in ("HEAD", "GET"):
                request = urllib.request.Request(really, method=method)
                with self.opener.open(request, timeout=self.patience) as answer:
                    kind, data = answer.headers["Content-Type"], answer.read()
                    length = int(answer.headers["Content-Length"])
                    name = answer.headers.get_filename("")
            begins_with = BEGINS.get(kind)
            if begins_with is None or not data.startswith(begins_with):
                error = 12300
            elif length > LARGEST:
                error = 11751
        except (OSError, TypeError):
            error = 11200
        if error is None:
            self.note(Sent(user, text, name=message["sid"], file=File(name, kind, data)))
        message |= {"status": "sent" if error is None else "failed", "error_code": error}


def refused(status: int, code: int, message: str) -> Answer:
    """Return a refusal as the platform words it."""
    return status, {"code": code, "message": message, "status": status}
