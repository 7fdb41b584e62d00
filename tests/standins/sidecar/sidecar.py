# SPDX-License-Identifier: Apache-2.0
"""Stand-in for workerd's network sidecar (the image cloudflare/proxy-everything).

A container that workerd starts lives in this container's network namespace. Here are the three
services that workerd asks for, on the port that it publishes:

    CONNECT, X-Dst-Addr: host:port   a way in to a port of the container; 400: nobody listens
    PUT /egress                      where workerd listens, and whether the internet is open
    GET /ca                          the certificate of this instance's authority

and the way out: plain HTTP to 198.51.100.0/24, addresses that no network uses. They are added to
this namespace's loopback, so connections to them end here, and each is carried through a CONNECT
to workerd's listener, as the real sidecar does for every address. While the internet is closed
nothing else leaves the namespace: routing rules make every destination unreachable, except for
answers on the published port and for connections to workerd's listener. The sandbox cannot change
them: this container has CAP_NET_ADMIN, the sandbox has not.

Not here: interception of TLS, of names and of other addresses.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import ipaddress
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from typing import NamedTuple

INTERCEPTED = ipaddress.IPv4Network("198.51.100.0/24")
WORKERD = "host.docker.internal"
HEAD_LIMIT = 16 * 1024
BODY_LIMIT = 64 * 1024
CHUNK = 64 * 1024
CONNECT_PATIENCE = 10.0

# From the kernel's rtnetlink.h, fib_rules.h and sockios.h.
RTM_NEWRULE, RTM_DELRULE = 32, 33
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
FRA_DST, FRA_PRIORITY, FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE = 1, 6, 22, 23, 24
FR_ACT_TO_TBL, FR_ACT_UNREACHABLE = 1, 7
RT_TABLE_MAIN = 254
SIOCSIFADDR, SIOCSIFNETMASK = 0x8916, 0x891C

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class RefusedError(Exception):
    """A request that is answered with `status` and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


# The namespace


def add_loopback_network(network: ipaddress.IPv4Network) -> None:
    """Have connections to a network end at the loopback interface. Needs CAP_NET_ADMIN."""
    values = (SIOCSIFADDR, str(network[1])), (SIOCSIFNETMASK, str(network.netmask))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for call, value in values:
            inet = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(control, call, struct.pack("16s", b"lo:1") + inet)


class Rule(NamedTuple):
    """A routing rule: what goes to `host`, from or to a port, may leave; no host: nothing may."""

    host: str = ""
    source_port: int = 0
    port: int = 0

    def attributes(self) -> list[tuple[int, bytes]]:
        """The attributes of its netlink message: kind and bytes."""
        if not self.host:
            return [(FRA_PRIORITY, struct.pack("=I", 200))]
        ranges = {FRA_SPORT_RANGE: self.source_port, FRA_DPORT_RANGE: self.port}
        return [
            (FRA_PRIORITY, struct.pack("=I", 100)),
            (FRA_DST, socket.inet_aton(self.host)),
            (FRA_IP_PROTO, struct.pack("=B", socket.IPPROTO_TCP)),
            *((kind, struct.pack("=HH", port, port)) for kind, port in ranges.items() if port),
        ]

    def packed(self, family: int) -> bytes:
        """Return it as the body of a netlink message."""
        if self.host:
            head = (family, 32, 0, 0, RT_TABLE_MAIN, 0, 0, FR_ACT_TO_TBL)
        else:
            head = (family, 0, 0, 0, 0, 0, 0, FR_ACT_UNREACHABLE)
        message = struct.pack("=8BI", *head, 0)
        for kind, value in self.attributes():
            padding = b"\0" * (-len(value) % 4)
            message += struct.pack("=HH", 4 + len(value), kind) + value + padding
        return message


class Gate:
    """What may leave this namespace."""

    def __init__(self, ingress_port: int) -> None:
        self.ingress_port = ingress_port
        self.gateway = default_gateway()
        self.rules: list[Rule] = []

    def close(self, workerd: str, port: int) -> None:
        """Let out answers on the published port and connections to workerd, nothing else."""
        answers = Rule(self.gateway, source_port=self.ingress_port)
        self._change([answers, Rule(workerd, port=port), Rule()])

    def open(self) -> None:
        """Let everything pass again."""
        self._change([])

    def _change(self, wanted: list[Rule]) -> None:
        """Go from the present rules to `wanted` without a moment that is more open than both."""
        for rule in wanted:
            if rule not in self.rules:
                self._tell(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, rule)
        for rule in reversed(self.rules):
            if rule not in wanted:
                self._tell(RTM_DELRULE, 0, rule)
        self.rules = wanted

    @staticmethod
    def _tell(kind: int, flags: int, rule: Rule) -> None:
        netlink_call(kind, flags, rule.packed(socket.AF_INET))
        if not rule.host:
            with contextlib.suppress(FileNotFoundError):
                netlink_call(kind, flags, rule.packed(socket.AF_INET6))


def netlink_call(kind: int, flags: int, message: bytes) -> None:
    """Send one message to the kernel's routing. Raises OSError with the kernel's reason."""
    head = struct.pack("=IHHII", 16 + len(message), kind, NLM_F_REQUEST | NLM_F_ACK | flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        netlink.sendall(head + message)
        code = struct.unpack_from("=i", netlink.recv(8192), 16)[0]
    if code != 0:
        raise OSError(-code, os.strerror(-code))


def default_gateway() -> str:
    """Return the address of the Docker bridge on the host."""
    with open("/proc/net/route", encoding="ascii") as table:
        for line in table.readlines()[1:]:
            _device, destination, gateway, *_ = line.split()
            if destination == "00000000":
                return socket.inet_ntoa(struct.pack("=I", int(gateway, 16)))
    raise RuntimeError("this namespace has no default route")


# HTTP, as much of it as workerd speaks


async def read_head(reader: asyncio.StreamReader) -> tuple[list[str], dict[str, str]]:
    """Return the words of the first line and the headers, their names in lower case."""
    try:
        block = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise RefusedError(431, "The head is too large.") from error
    first, *lines = block.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip():
            raise RefusedError(400, "A header line is malformed.")
        headers[name.lower()] = value.strip()
    return first.split(" "), headers


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """Return the body that Content-Length announces."""
    length = headers.get("content-length", "")
    if not length.isascii() or not length.isdigit():
        raise RefusedError(411, "The request needs a Content-Length.")
    if int(length) > BODY_LIMIT:
        raise RefusedError(413, "The body is too large.")
    return await reader.readexactly(int(length))


async def answer(writer: asyncio.StreamWriter, status: int, text: str, kind: str) -> None:
    """Answer an HTTP request and end the connection."""
    body = text.encode()
    head = f"HTTP/1.1 {status} {'OK' if status < 300 else 'Refused'}\r\n"
    head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction to its end, then close that direction only."""
    while chunk := await reader.read(CHUNK):
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()


async def tunnel(near: Stream, far: Stream) -> None:
    """Copy both ways until both have ended or one of them breaks."""
    both = [asyncio.create_task(pump(near[0], far[1])), asyncio.create_task(pump(far[0], near[1]))]
    try:
        await asyncio.gather(*both)
    finally:
        for task in both:
            task.cancel()
        far[1].transport.abort()


def host_and_port(text: str) -> tuple[str, int]:
    """Take "127.0.0.1:18789" apart."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise RefusedError(400, "X-Dst-Addr must be host:port.")
    try:
        return str(ipaddress.ip_address(host.strip("[]"))), int(port)
    except ValueError as error:
        raise RefusedError(400, "X-Dst-Addr must name an address.") from error


class Authority:
    """The certificate authority of this instance, made when first asked for."""

    def __init__(self) -> None:
        self._pem = ""

    def pem(self) -> str:
        """The certificate of its own authority, made when it is first asked for."""
        if not self._pem:
            with tempfile.NamedTemporaryFile() as key:
                command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
                command += ["ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
                command += ["-subj", "/CN=sidecar stand-in", "-keyout", key.name]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
            self._pem = done.stdout
        return self._pem


class Sidecar:
    """Both services, and what workerd last told them."""

    def __init__(self, egress_port: int, ingress_port: int) -> None:
        self.egress_port = egress_port
        self.authority = Authority()
        self.closed = True
        self.gate = Gate(ingress_port)
        self.apply()

    def apply(self) -> None:
        """Open or close the way out, as workerd last said."""
        if self.closed:
            self.gate.close(socket.gethostbyname(WORKERD), self.egress_port)
        else:
            self.gate.open()

    async def ingress(self, near: Stream) -> None:
        """Serve one connection on the published port."""
        words, headers = await read_head(near[0])
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise RefusedError(400, "This is not HTTP/1.")
        method, target = words[0], words[1]
        if method == "CONNECT":
            await self._way_in(near, headers)
        elif target not in ("/egress", "/ca"):
            raise RefusedError(404, "Only CONNECT, /egress and /ca are served.")
        elif (method, target) == ("PUT", "/egress"):
            self._configure(await read_body(near[0], headers))
            await answer(near[1], 200, "{}", "application/json")
        elif (method, target) == ("GET", "/ca"):
            await answer(near[1], 200, self.authority.pem(), "application/x-pem-file")
        else:
            raise RefusedError(405, f"{method} is not allowed here.")

    async def _way_in(self, near: Stream, headers: dict[str, str]) -> None:
        host, port = host_and_port(headers.get("x-dst-addr", ""))
        try:
            connecting = asyncio.open_connection(host, port)
            far = await asyncio.wait_for(connecting, CONNECT_PATIENCE)
        except ConnectionRefusedError as error:
            raise RefusedError(400, f"Nobody listens on {host}:{port}.") from error
        except OSError as error:
            raise RefusedError(502, f"{host}:{port} cannot be reached.") from error
        near[1].write(b"HTTP/1.1 200 OK\r\n\r\n")
        await tunnel(near, far)

    def _configure(self, body: bytes) -> None:
        """Take over workerd's port; `internet` is absent when workerd re-attaches."""
        try:
            told = json.loads(body)
            port, internet = told["port"], told.get("internet")
            enabled = None if internet is None else internet["enabled"]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise RefusedError(400, "The body must be JSON with a port.") from error
        if not isinstance(port, int) or not 0 < port < 65536:
            raise RefusedError(400, "The port must be a number from 1 to 65535.")
        if not isinstance(enabled, bool | None):
            raise RefusedError(400, "internet.enabled must be true or false.")
        self.egress_port = port
        if enabled is not None:
            self.closed = not enabled
        self.apply()

    async def egress(self, near: Stream) -> None:
        """Carry one connection of the sandbox to workerd."""
        asked = near[1].get_extra_info("sockname")[0]
        if ipaddress.ip_address(asked) not in INTERCEPTED:
            raise RefusedError(502, "Nothing is intercepted at this address.")
        try:
            connecting = asyncio.open_connection(WORKERD, self.egress_port)
            far = await asyncio.wait_for(connecting, CONNECT_PATIENCE)
        except OSError as error:
            raise RefusedError(502, "workerd cannot be reached.") from error
        target = f"{asked}:80"
        far[1].write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        words, _ = await read_head(far[0])
        if len(words) < 2 or not words[1].startswith("2"):
            far[1].transport.abort()
            raise RefusedError(502, "workerd refused the connection.")
        await tunnel(near, far)


def served(handle: Callable[[Stream], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Turn a method into what asyncio calls for each connection: refusals become answers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle((reader, writer))
        except RefusedError as refused:
            with contextlib.suppress(OSError):
                await answer(writer, refused.status, f"{refused}\n", "text/plain")
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    return serve


async def serve(egress_port: int, ingress_port: int) -> None:
    """Serve for ever. The internet is closed until workerd opens it."""
    add_loopback_network(INTERCEPTED)
    sidecar = Sidecar(egress_port, ingress_port)
    way_in, way_out = served(sidecar.ingress), served(sidecar.egress)
    async with (
        await asyncio.start_server(way_in, "0.0.0.0", ingress_port, limit=HEAD_LIMIT) as first,
        await asyncio.start_server(way_out, "0.0.0.0", 80, limit=HEAD_LIMIT) as second,
    ):
        await asyncio.gather(first.serve_forever(), second.serve_forever())


def arguments(words: list[str]) -> argparse.Namespace:
    """Read the command line that workerd gives the real image."""
    parser = argparse.ArgumentParser(prog="sidecar", allow_abbrev=False)
    parser.add_argument("--http-egress-port", type=int, required=True)
    parser.add_argument("--http-ingress-address", required=True)
    parser.add_argument("--docker-gateway-cidr", type=ipaddress.ip_network)
    for name in ("--dns-enabled", "--tls-intercept", "--disable-ipv6"):
        parser.add_argument(name, action="store_true")
    return parser.parse_args(words)


if __name__ == "__main__":
    given = arguments(sys.argv[1:])
    # PID 1 has no default for this signal: without a handler Docker would wait and then kill.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    asyncio.run(serve(given.http_egress_port, host_and_port(given.http_ingress_address)[1]))
