# SPDX-License-Identifier: Apache-2.0
"""What Hermes sends on its own account goes to people by the Worker: `mended()`.

Hermes sends results of its jobs, and what its engine for sending is told, with libraries that hold a
bot's token. There is none here: the Worker has it. So on platforms on which the Worker speaks, what
is to be sent is given to the Worker, which keeps it before it answers and sends it whenever the
platform takes it, be Hermes asleep again or not. Of all others nothing is changed.

Hermes looks in its settings whether a platform is there before it sends; while it does so, and at no
other time, these platforms are: its gateway would else connect to them itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import json
import os
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

BOTS = "HERMES_RELAY_BOTS"
ADDRESS = "HERMES_OWN_MESSAGES_URL"
"""Where the Worker takes what is to be sent; set by it where it speaks on some platform."""
CAPABILITY = "HERMES_PROVIDER_CAPABILITY"
FILE = "X-Hermes-File"
"""The header in which the Worker is told of a file; the body is what is in it."""
HELD = "held by the Worker"
"""What stands for a token."""
PATIENCE = 120.0
"""A Worker that is just being started over is asked again for so long, in seconds."""
PAUSE = 1.0
ANSWERS = 30.0
"""The Worker answers within so many seconds."""

_sends: contextvars.ContextVar[bool] = contextvars.ContextVar("sends", default=False)


def platforms() -> frozenset[str]:
    """Return the names of those on which the Worker speaks for Hermes."""
    if not os.environ.get(ADDRESS):
        return frozenset()
    told = json.loads(os.environ.get(BOTS) or "[]")
    return frozenset(bot["descriptor"]["platform"] for bot in told) - {"webhook"}


def _settings(config: Any) -> None:
    load = config.load_gateway_config

    @functools.wraps(load)
    def load_with_ours() -> Any:
        found = load()
        if _sends.get():
            for name in platforms():
                platform = config.Platform(name)
                chat = os.environ.get(f"{name.upper()}_HOME_CHANNEL", "")
                home = config.HomeChannel(platform=platform, chat_id=chat, name="Home")
                found.platforms[platform] = config.PlatformConfig(
                    enabled=True, token=HELD, home_channel=home if chat else None
                )
        return found

    config.load_gateway_config = load_with_ours


def _jobs(scheduler: Any) -> None:
    for name in ("_deliver_result", "cron_delivery_targets"):
        setattr(scheduler, name, _sending(getattr(scheduler, name)))


def _sender(tool: Any, files: Any) -> None:
    of_hermes = tool._send_to_platform

    async def send(
        platform: Any,
        pconfig: Any,
        chat_id: Any,
        message: str,
        thread_id: Any = None,
        media_files: Any = None,
        force_document: bool = False,
    ) -> Any:
        if platform.value not in platforms():
            more = {"media_files": media_files, "force_document": force_document}
            return await of_hermes(platform, pconfig, chat_id, message, thread_id, **more)
        thread = None if thread_id is None else str(thread_id)
        place = {"platform": platform.value, "chat": str(chat_id), "thread": thread}
        paths = [file[0] for file in media_files or ()]
        return await asyncio.to_thread(_keep_all, files, place, message, paths, force_document)

    tool._send_to_platform = send
    tool.send_message_tool = _sending(tool.send_message_tool)


def mended(files: Any) -> dict[str, Callable[[Any], None]]:
    """Return Hermes' modules, and what is to be done with each as soon as it is loaded.

    files: the module that knows which files may be sent, `sent_files`.
    """
    return {
        "gateway.config": _settings,
        "cron.scheduler": _jobs,
        "tools.send_message_tool": functools.partial(_sender, files=files),
    }


def _keep_all(
    files: Any, place: dict[str, Any], text: str, paths: list[str], as_documents: bool
) -> dict[str, Any]:
    """Give the Worker a text, and then files; returns what Hermes expects of a sender."""
    with contextlib.ExitStack() as stack:
        found = []
        for path in paths:
            try:
                found.append((path, stack.enter_context(os.fdopen(files.opened(path), "rb"))))
            except files.NotSentError as error:
                text = (
                    f"{text}\n\n(I could not send you the file {os.path.basename(path)}: {error}.)"
                )
        answer = {"success": True}
        if text.strip():
            answer = keep(place, text.lstrip())
        for path, file in found:
            if "error" in answer:
                break
            kind = "document" if as_documents else files.kind_of(path)
            told = {"kind": kind, "called": os.path.basename(path), "mime": files.type_of(path)}
            answer = keep(place | told, file)
    return answer


def keep(told: dict[str, Any], what: str | BinaryIO) -> dict[str, Any]:
    """Give the Worker something to send, a text or a file; returns what Hermes expects of a sender.

    What is asked again has the same name, so that it is kept once.
    """
    told = {**told, "name": secrets.token_hex(16)}
    until = time.monotonic() + PATIENCE
    while True:
        try:
            _ask(told, what)
        except urllib.error.HTTPError as error:
            if error.code < 500 or time.monotonic() > until:
                return {"error": _words(error)}
        except OSError as error:
            if time.monotonic() > until:
                return {"error": f"the Worker cannot be reached: {error}"}
        else:
            return {
                "success": True,
                "platform": told["platform"],
                "chat_id": told["chat"],
                "message_id": "kept",
            }
        time.sleep(PAUSE)


def _ask(told: dict[str, Any], what: str | BinaryIO) -> None:
    headers = {"Authorization": f"Bearer {os.environ.get(CAPABILITY, '')}"}
    body: bytes | BinaryIO
    if isinstance(what, str):
        headers["Content-Type"] = "application/json"
        body = json.dumps({**told, "text": what}).encode()
    else:
        what.seek(0)
        headers["Content-Type"] = "application/octet-stream"
        headers["Content-Length"] = str(os.fstat(what.fileno()).st_size)
        headers[FILE] = urllib.parse.quote(json.dumps(told))
        body = what
    request = urllib.request.Request(os.environ[ADDRESS], body, headers)  # noqa: S310 - the Worker's
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=ANSWERS) as answer:
        answer.read()


def _words(error: urllib.error.HTTPError) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
        return str(json.loads(error.read())["error"]["message"])
    return f"the Worker answers {error.code}"


def _sending(work: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(work)
    def wrapped(*args: Any, **more: Any) -> Any:
        with _platforms_are_there():
            return work(*args, **more)

    return wrapped


@contextlib.contextmanager
def _platforms_are_there() -> Iterator[None]:
    token = _sends.set(True)
    try:
        yield
    finally:
        _sends.reset(token)
