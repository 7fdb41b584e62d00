# SPDX-License-Identifier: Apache-2.0
"""A certificate authority of the stand-in's own, and a certificate for each hostname that has one."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import trustme


class Authority:
    """Issues certificates when a hostname is first asked for."""

    def __init__(self, path: Path) -> None:
        """path: where the authority's certificate is written, for clients that are to trust it."""
        self._ca = trustme.CA(
            organization_name="Stand-in for Cloudflare", key_type=trustme.KeyType.ECDSA
        )
        self._ca.cert_pem.write_to_path(str(path))
        self._contexts: dict[str, ssl.SSLContext] = {}

    def server_context(self, default: str, known: Callable[[str], bool]) -> ssl.SSLContext:
        """Return a context that serves each known hostname with its certificate, and breaks off for others."""
        # Who names an address instead of a host sends no name; that is the registry on loopback.
        context = self.context(default, "127.0.0.1", "localhost")

        def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
            if name is None:
                return None
            if not known(name):
                return ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE
            connection.context = self.context(name)
            return None

        context.sni_callback = choose
        return context

    def context(self, hostname: str, *further: str) -> ssl.SSLContext:
        """Return the context with a hostname's certificate, made for further names too."""
        if hostname not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.set_alpn_protocols(["http/1.1"])
            self._ca.issue_cert(hostname, *further).configure_cert(context)
            self._contexts[hostname] = context
        return self._contexts[hostname]
