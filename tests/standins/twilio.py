# SPDX-License-Identifier: Apache-2.0
"""Stand-in for Twilio's API of messages, as strict as the real one where the product meets it.

What it sends is signed over the address as it knows it and all fields. A wrong account or token (20003), a number that
is not the account's (21606), a text of nothing (21602) or of more than 1600 characters (21617), people who said STOP
(21610), and too many calls (20429) are refused. A file that came with a message is for the account alone: it is led to
where that is, and there nobody is asked who they are. Facts: twilio.com/docs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import urllib.parse
from dataclasses import dataclass, field

from .platform_api import Answer, PlatformApi, Sent

LONGEST = 1600


@dataclass
class Twilio(PlatformApi):
    """A running stand-in. stopped: who wants nothing any more; sms_url: where the number's messages go.

    media: files that came with messages, by their names; proofs: what was told where they are.
    """

    account: str = "AC" + "7" * 32
    token: str = "e" * 32
    number: str = "+15005550006"
    sms_url: str = "https://demo.twilio.com/welcome/sms/reply"
    stopped: set[str] = field(default_factory=set)
    media: dict[str, bytes] = field(default_factory=dict)
    proofs: list[str] = field(default_factory=list)

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
        if not text:
            return refused(400, 21602, "Message body is required")
        if len(text) > LONGEST:
            return refused(
                400, 21617, "The concatenated message body exceeds the 1600 character limit"
            )
        if user in self.stopped:
            return refused(400, 21610, "Attempt to send to unsubscribed recipient")
        if self.is_busy(user):
            return refused(429, 20429, "Too Many Requests")
        return 201, {"sid": self.note(Sent(user, text)), "status": "queued"}


def refused(status: int, code: int, message: str) -> Answer:
    """Return a refusal as the platform words it."""
    return status, {"code": code, "message": message, "status": status}
