# SPDX-License-Identifier: Apache-2.0
"""Stand-in for a team of Cloudflare Access: its public keys, and what it signs for whom it lets in."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

PERSON = "owner@example.com"


class Access:
    """One team; `certs` is what it publishes at /cdn-cgi/access/certs."""

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def certs(self) -> dict[str, Any]:
        """The keys as Access publishes them."""
        numbers = self._key.public_key().public_numbers()
        modulus, exponent = numbers.n.to_bytes(256, "big"), numbers.e.to_bytes(3, "big")
        key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1"}
        return {"keys": [{**key, "n": _text(modulus), "e": _text(exponent)}]}

    def vouch(self, audience: str) -> str:
        """Return the assertion for somebody who signed in to the application with this audience tag."""
        now = int(time.time())
        claims = {
            "iss": f"https://{self.domain}",
            "aud": [audience],
            "iat": now,
            "exp": now + 3600,
            "email": PERSON,
        }
        parts = ({"alg": "RS256", "kid": "1"}, claims)
        signed = ".".join(_text(json.dumps(part).encode()) for part in parts)
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_text(signature)}"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
