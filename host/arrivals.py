# Copyright: hermes.workers contributors
# SPDX-License-Identifier: Apache-2.0
"""What arrives at a listening socket while the process behind it is replaced: it waits in the kernel."""

import contextlib
import ctypes
import socket
import struct
import sys
from collections.abc import Iterable

import psutil

DEFER_SECONDS = 30
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)
"""A program of the kernel's packet filter: return 0 bytes of everything."""
IP_MINTTL, MOST_HOPS = 21, 255


def only_with_data(listener: socket.socket) -> None:
    """Have connections wait in the kernel until their request begins to arrive, where the kernel can.

    A workerd that ends closes those it has accepted and read nothing from, and their clients would see that.
    """
    if hasattr(socket, "TCP_DEFER_ACCEPT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_SECONDS)


def turn_arrivals_away(listener: socket.socket) -> None:
    """Have the kernel drop what arrives for a listening socket; clients send it again, after a second at most.

    Where only administrators may attach a filter, packets have to come with more hops left than any client gives them:
    that drops new connections alike, but not the first data of one that was opened before.
    """
    code = ctypes.create_string_buffer(DROP_ALL)
    program = struct.pack("HP", 1, ctypes.addressof(code))
    try:
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    except PermissionError:
        listener.setsockopt(socket.IPPROTO_IP, IP_MINTTL, MOST_HOPS)


def let_arrivals_in(listener: socket.socket) -> None:
    """Undo turn_arrivals_away()."""
    if not sys.platform.startswith("linux"):
        return
    listener.setsockopt(socket.IPPROTO_IP, IP_MINTTL, 0)
    with contextlib.suppress(OSError):  # there is no filter
        listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def serves(pids: Iterable[int], port: int) -> bool:
    """Tell whether a client of these processes is connected to a port."""
    with contextlib.suppress(psutil.Error):
        return any(
            one.laddr.port == port and one.status == psutil.CONN_ESTABLISHED
            for pid in pids
            for one in psutil.Process(pid).net_connections("tcp4")
        )
    return False
