# SPDX-License-Identifier: Apache-2.0
"""Command line and life of the engine process."""

import argparse
import asyncio
import fcntl
import gc
import os
import signal
import socket
import sys

from aiohttp.web import AppRunner, SockSite

from engine import confine
from engine.disks import Disks
from engine.engine import Engine
from engine.images import Images
from engine.server import runner
from engine.snapshots import Snapshots

ALREADY_RUNNING = 69


def main(arguments: "list[str]") -> int:
    """Serve until SIGTERM or SIGINT. Returns 69 when another engine owns the state folder."""
    options = _parse(arguments)
    os.umask(0o077)
    for folder in (options.disks, options.snapshots, os.path.dirname(options.socket) or "."):
        os.makedirs(folder, 0o700, exist_ok=True)
    lock = open(os.path.join(options.disks, ".lock"), "w")  # noqa: SIM115 - held for life
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"engine: another engine owns {options.disks}", file=sys.stderr)
        return ALREADY_RUNNING
    asyncio.run(_serve(options))
    return 0


async def _serve(options: argparse.Namespace) -> None:
    disks = Disks(options.disks)
    disks.remove_leftovers()
    snapshots = Snapshots(options.snapshots)
    snapshots.prune()
    if options.confine == "always" and not confine.works():
        raise SystemExit("engine: bubblewrap is not installed or does not work here")
    engine = Engine(Images(options.images), disks, snapshots, options.ports, options.confine)
    server = runner(engine)
    await server.setup()
    await _site(server, options.socket)
    gc.collect()
    gc.freeze()
    print(f"engine: ready on {options.socket}, confine: {options.confine}", file=sys.stderr)
    await _told_to_stop()
    print("engine: stopping", file=sys.stderr)
    await engine.close()
    await server.cleanup()
    os.unlink(options.socket)


async def _site(server: AppRunner, path: str) -> None:
    if os.path.lexists(path):  # the lock says that its owner is dead
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)  # umask 077: nobody else can connect, not even for a moment
    os.chmod(path, 0o600)
    await SockSite(server, listener, backlog=256).start()


async def _told_to_stop() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def _parse(arguments: "list[str]") -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="engine", description="Runs one sandbox as processes.")
    parser.add_argument("--socket", required=True, help="unix socket to serve on")
    parser.add_argument("--images", required=True, help="folder of images, one folder a digest")
    parser.add_argument("--disks", required=True, help="folder for the disks of running sandboxes")
    parser.add_argument("--snapshots", required=True, help="folder for snapshots")
    parser.add_argument("--ports", default="18789,9119,18790", type=_ports, help="ports, by comma")
    parser.add_argument(
        "--confine",
        choices=("auto", "always", "never"),
        default="auto",
        help="use bubblewrap: where it works, or fail, or never",
    )
    return parser.parse_args(arguments)


def _ports(text: str) -> "list[int]":
    ports = [int(port) for port in text.split(",")]
    if not all(0 < port < 65536 for port in ports):
        raise argparse.ArgumentTypeError("ports are numbers from 1 to 65535")
    return ports
