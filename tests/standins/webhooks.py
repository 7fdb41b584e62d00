# SPDX-License-Identifier: Apache-2.0
"""Programs that send webhooks, each signed as its sender's documentation says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Sender:
    """Who signs by one secret. kind: github, gitlab, stripe, svix or hmac."""

    kind: str
    secret: str
    _numbers: Any = field(default_factory=lambda: iter(range(1, 1_000_000)))

    def delivery(self, text: str, at: float | None = None) -> tuple[bytes, dict[str, str]]:
        """Return body and headers of one delivery. at: seconds since the epoch, now when None."""
        number = next(self._numbers)
        told = {"id": f"evt_{self.kind}_{number}", "type": "push", "note": {"text": text}}
        body = json.dumps(told).encode()
        moment = str(int(time.time() if at is None else at))
        sign = getattr(self, f"_{self.kind}")
        return body, {"Content-Type": "application/json"} | sign(body, moment, f"id-{number}")

    def _digest(self, text: bytes, key: bytes | None = None) -> bytes:
        return hmac.digest(self.secret.encode() if key is None else key, text, hashlib.sha256)

    def _github(self, body: bytes, _moment: str, name: str) -> dict[str, str]:
        signature = f"sha256={self._digest(body).hex()}"
        return {
            "X-Hub-Signature-256": signature,
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": name,
        }

    def _gitlab(self, _body: bytes, _moment: str, name: str) -> dict[str, str]:
        return {
            "X-Gitlab-Token": self.secret,
            "X-Gitlab-Event": "Push Hook",
            "Idempotency-Key": name,
        }

    def _stripe(self, body: bytes, moment: str, _name: str) -> dict[str, str]:
        signature = self._digest(f"{moment}.".encode() + body).hex()
        return {"Stripe-Signature": f"t={moment},v0={'1' * 64},v1={'0' * 64},v1={signature}"}

    def _svix(self, body: bytes, moment: str, name: str) -> dict[str, str]:
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        signature = base64.b64encode(self._digest(f"{name}.{moment}.".encode() + body, key))
        signatures = f"v1,{base64.b64encode(bytes(32)).decode()} v1,{signature.decode()}"
        return {"svix-id": name, "svix-timestamp": moment, "svix-signature": signatures}

    def _hmac(self, body: bytes, moment: str, _name: str) -> dict[str, str]:
        signature = self._digest(f"{moment}.".encode() + body).hex()
        return {"X-Webhook-Timestamp": moment, "X-Webhook-Signature-V2": signature}


def send(url: str, delivery: tuple[bytes, dict[str, str]]) -> tuple[int, str]:
    """Send a delivery; returns the status, and what became of it or the error's code."""
    body, headers = delivery
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, body, headers), timeout=60
        ) as answer:
            return answer.status, json.loads(answer.read())["status"]
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]["code"]
