# Copyright: hermes.workers contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether containers reach this machine, as they must for whatever Hermes calls: workerd carries it on from here."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ...module_utils.docker import DockerEngine, DockerError

THIS_MACHINE = "host.docker.internal"
"""What workerd calls this machine in its sidecars (container-client.c++)."""

CALL = f"""
import socket, sys
print(socket.create_connection(("{THIS_MACHINE}", int(sys.argv[1])), 5).recv(99).decode())
"""


def why_unreachable(engine: DockerEngine, image: str) -> str:
    """Return why a container cannot call this machine; an empty text when it can.

    image: any with a `python3`. Raises DockerError, OSError.
    """
    greeting = secrets.token_hex(8)
    with _greeting(engine.bridge_gateway(), greeting) as port:
        try:
            said = engine.run(image, ["python3", "-c", CALL, str(port)], host=THIS_MACHINE).strip()
        except DockerError as error:
            if error.status:
                raise
            said = str(error).strip()
    return "" if said == greeting else (said or "it was not answered").splitlines()[-1][:200]


@contextmanager
def _greeting(address: str, text: str) -> Iterator[int]:
    """Send a text to whoever calls the port that is given; on 127.0.0.1 where the address is not here, like workerd."""
    try:
        listener = socket.create_server((address or "127.0.0.1", 0))
    except OSError:
        listener = socket.create_server(("127.0.0.1", 0))

    def greet() -> None:
        with suppress(OSError):
            while True:
                with listener.accept()[0] as caller:
                    caller.sendall(text.encode())

    threading.Thread(target=greet, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # ends accept()
        listener.close()
