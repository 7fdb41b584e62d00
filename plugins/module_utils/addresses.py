# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses, names and origins: which networks they lead to, and how browsers and runtimes write them."""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LOOPBACK_NETWORKS = ["127.0.0.1/32", "::1/128"]
# What workerd means by a private network, loopback among it.
PRIVATE = [
    ipaddress.ip_network(network)
    for network in (
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
        "100.64.0.0/10",  # shared address space: Tailscale, and providers' own networks
        *("::1/128", "fc00::/7", "fe80::/10"),
    )
]
# Names that no public DNS has: of one machine, of a local network, of containers.
LOCAL_NAME = re.compile(
    r"[^.]+|.*\.(local|localhost|localdomain|internal|intranet|lan|home|corp|private|home\.arpa)"
)
# Of a page as browsers send it, where it is none of http: app://obsidian.md, chrome-extension://..., tauri://localhost.
APP_ORIGIN = re.compile(r"(?!https?:)[a-z][a-z0-9+.-]*://[A-Za-z0-9._-]+(:[1-9]\d{0,4})?", re.ASCII)
WEB_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:]+\])(:(?P<port>[1-9]\d{0,4}))?",
    re.ASCII,
)
OPAQUE_ORIGINS = ("null", "file://")
"""What pages send that have no origin of their own: files, and frames that are kept apart, of any site."""
DEFAULT_PORTS = {"http": "80", "https": "443"}


def special_networks(url: str) -> list[str]:
    """Return the networks that workerd must be allowed to reach an owner's endpoint; none when it is on the internet.

    A name may lead anywhere. Without TLS it is held to private networks, wherever it leads to later.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in LOOPBACK:
        return LOOPBACK_NETWORKS
    if not host or is_address(host):
        return ["private"] if private_address(host) else []
    return ["private"] if parts.scheme == "http" else ["public", "private"]


def private_address(host: str) -> bool:
    """Tell whether a host is written as an address of this machine or of a private network."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address.version == network.version and address in network for network in PRIVATE)


def is_address(host: str) -> bool:
    """Tell whether a host is an IP address, in whichever way URLs may write one (2130706433, 0x7f.1)."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # What ends in a number is one to everybody who parses URLs, or is none at all.
        return bool(re.fullmatch(r"[0-9]+|0x[0-9a-f]*", host.rstrip(".").rpartition(".")[2]))
    return True


def local_name(host: str) -> bool:
    """Tell whether a host is a name that means something in a local network only."""
    return not is_address(host) and bool(LOCAL_NAME.fullmatch(host.rstrip(".")))


def web_origin(value: Any) -> bool:
    """Tell whether a value is the origin of a web page as browsers write it."""
    match = WEB_ORIGIN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return False
    port = match["port"] or ""
    return (
        port != DEFAULT_PORTS[match["scheme"]] and int(port or 1) <= 65535 and _host(match["host"])
    )


def origin(value: Any) -> bool:
    """Tell whether a value is the origin of a page as browsers and desktop programs send it."""
    if web_origin(value):
        return True
    return isinstance(value, str) and (
        value in OPAQUE_ORIGINS or bool(APP_ORIGIN.fullmatch(value) and len(value) <= 300)
    )


def _host(host: str) -> bool:
    """Tell whether a host is written as browsers write it: an address in its shortest form, or a name."""
    try:
        if host.startswith("["):
            address = ipaddress.IPv6Address(host[1:-1])
            return address.ipv4_mapped is None and str(address) == host[1:-1]
        if is_address(host):
            return str(ipaddress.IPv4Address(host)) == host
        return len(host) <= 253 and bool(host.encode().decode("idna"))
    except (ValueError, UnicodeError):
        return False
