# SPDX-License-Identifier: Apache-2.0
"""What Hermes sends to people besides text goes by the bridge of its relay: `mend()`.

Hermes finds files in an answer and has its channel send them; its relay has no way to do so in 0.19,
and says in words that it could not. So that gets the methods which Hermes' own channels have: each
offers its file to the Worker, which fetches it and keeps it until the platform took it. A Hermes
whose relay has these methods is left alone.

A turn whose answer holds files is over when the last of them is with the Worker, and not with its
text: whoever dies in between is given the message again.
"""

from __future__ import annotations

import asyncio
import contextvars
import mimetypes
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LARGEST = 25 * 1024 * 1024
"""The largest file that is sent, in bytes; so Hermes' relay contract has it."""
SPOKEN = (".ogg", ".opus")
"""What is sent as something spoken, and no piece of music."""
KEPT_OF_METADATA = ("thread_id", "notify")

Offer = Callable[[str, dict[str, Any], int], Any]
"""Offers the Worker what is behind a file descriptor, on a platform, as an action of Hermes' relay; the future is its
answer.
"""


class _Turn:
    """What Hermes is at: a message, whether its answer holds files, and how many it sent."""

    def __init__(self, message: str) -> None:
        self.message = message
        self.has_files = False
        self.parts = 0


class NotSentError(Exception):
    """Why a file is not sent, for who was to get it."""


_turn: contextvars.ContextVar[_Turn | None] = contextvars.ContextVar("turn", default=None)


def mend(relay: Any, offer: Offer) -> None:
    """Have the relay's adapter send files. relay: Hermes' module with it."""
    adapter = relay.RelayAdapter
    methods = _methods(relay, offer)
    if any(name in vars(adapter) for name in methods):
        return
    for name, method in {**methods, **_watching(adapter)}.items():
        setattr(adapter, name, method)


def _methods(relay: Any, offer: Offer) -> dict[str, Callable[..., Any]]:
    of_hermes = relay.BasePlatformAdapter

    async def deliver(
        adapter: Any, kind: str, chat: str, path: str, name: str, caption: Any, metadata: Any
    ) -> Any:
        name = name or os.path.basename(path)
        try:
            answer = await _offered(offer, adapter, kind, chat, path, name, caption, metadata)
        except NotSentError as error:
            words = f"{caption or ''}\n(I could not send you the file {name}: {error}.)"
            await adapter.send(chat, words.strip(), metadata=metadata)
            return relay.SendResult(success=False, error=str(error))
        return relay.SendResult(success=True, message_id=answer.get("message_id"))

    async def send_image_file(
        self: Any,
        chat_id: str,
        image_path: str,
        caption: str | None = None,
        reply_to: str | None = None,
        metadata: dict[str, Any] | None = None,
        **_: Any,
    ) -> Any:
        return await deliver(self, "image", chat_id, image_path, "", caption, metadata)

    async def send_voice(
        self: Any,
        chat_id: str,
        audio_path: str,
        caption: str | None = None,
        reply_to: str | None = None,
        metadata: dict[str, Any] | None = None,
        **_: Any,
    ) -> Any:
        kind = "voice" if Path(audio_path).suffix.lower() in SPOKEN else "audio"
        return await deliver(self, kind, chat_id, audio_path, "", caption, metadata)

    async def send_video(
        self: Any,
        chat_id: str,
        video_path: str,
        caption: str | None = None,
        reply_to: str | None = None,
        metadata: dict[str, Any] | None = None,
        **_: Any,
    ) -> Any:
        return await deliver(self, "video", chat_id, video_path, "", caption, metadata)

    async def send_document(
        self: Any,
        chat_id: str,
        file_path: str,
        caption: str | None = None,
        file_name: str | None = None,
        reply_to: str | None = None,
        metadata: dict[str, Any] | None = None,
        **_: Any,
    ) -> Any:
        return await deliver(
            self, "document", chat_id, file_path, file_name or "", caption, metadata
        )

    async def send_image(
        self: Any,
        chat_id: str,
        image_url: str,
        caption: str | None = None,
        reply_to: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Any:
        path = await _fetched(image_url)
        if path is not None:
            return await deliver(self, "image", chat_id, path, "", caption, metadata)
        return await of_hermes.send_image(self, chat_id, image_url, caption, reply_to, metadata)

    made = (send_image_file, send_voice, send_video, send_document, send_image)
    return {method.__name__: method for method in made}


def _watching(adapter: Any) -> dict[str, Callable[..., Any]]:
    """Return methods by which it is known of which message's answer something is a part."""
    set_handler, send = adapter.set_message_handler, adapter.send

    def set_message_handler(self: Any, handler: Callable[[Any], Any]) -> None:
        async def handle(event: Any) -> Any:
            turn = _Turn(str(event.message_id or ""))
            _turn.set(turn)
            answer = await handler(event)
            turn.has_files = bool(answer) and _holds_files(self, answer)
            return answer

        set_handler(self, handle)

    async def sending(
        self: Any,
        chat_id: str,
        content: str,
        reply_to: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Any:
        turn = _turn.get()
        if turn is not None and turn.has_files and (metadata or {}).get("notify"):
            metadata = {**(metadata or {}), "files_follow": True}
        return await send(self, chat_id, content, reply_to, metadata)

    return {"set_message_handler": set_message_handler, "send": sending}


def _holds_files(adapter: Any, answer: str) -> bool:
    """Tell whether Hermes finds files in an answer, as it looks for them itself."""
    media, rest = adapter.extract_media(answer)
    images, rest = adapter.extract_images(rest)
    return bool(media or images or adapter.extract_local_files(rest)[0])


async def _offered(
    offer: Offer,
    adapter: Any,
    kind: str,
    chat: str,
    path: str,
    name: str,
    caption: str | None,
    metadata: dict[str, Any] | None,
) -> dict[str, Any]:
    """Have the Worker fetch a file; returns what it answers. Raises NotSentError."""
    turn = _turn.get()
    part = 0
    if turn is not None:
        part, turn.parts = turn.parts, turn.parts + 1
    file = opened(path)
    try:
        action = {
            "chat_id": chat,
            "media_kind": kind,
            "filename": name,
            "mime": type_of(name) or type_of(path),
            "size": os.fstat(file).st_size,
            "content": caption or "",
            "metadata": {
                key: value for key, value in (metadata or {}).items() if key in KEPT_OF_METADATA
            },
            "answers": turn.message if turn is not None else None,
            "part": part,
        }
        platform = adapter._platform_by_chat.get(str(chat), "")
        answer: dict[str, Any] = await asyncio.wrap_future(offer(platform, action, file))
    finally:
        os.close(file)
    if not answer.get("success"):
        raise NotSentError(answer.get("error") or "the Worker did not take it")
    return answer


def type_of(name: str) -> str:
    """Return a file's media type by its name; empty for one that is not known."""
    return mimetypes.guess_type(name)[0] or ""


def kind_of(path: str) -> str:
    """Return as what a file is sent by its name, as Hermes' relay contract calls it."""
    ending = Path(path).suffix.lower()
    if ending in SPOKEN:
        return "voice"
    kind = type_of(path).partition("/")[0]
    return kind if kind in ("image", "audio", "video") else "document"


def opened(path: str) -> int:
    """Open a file that Hermes may give away, by its own rules. Raises NotSentError."""
    from gateway.platforms.base import validate_media_delivery_path

    allowed = validate_media_delivery_path(path)
    own = os.environ.get("SANDBOX_RUN")
    if allowed is None or (own and Path(allowed).is_relative_to(Path(own).resolve())):
        raise NotSentError("it is none that I may give away")
    try:
        file = os.open(allowed, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise NotSentError("it cannot be read") from error
    found = os.fstat(file)
    why = ""
    if not stat.S_ISREG(found.st_mode):
        why = "it is no file"
    elif found.st_size == 0:
        why = "it is empty"
    elif found.st_size > LARGEST:
        why = f"it is larger than {LARGEST // 1024 // 1024} MB"
    if why:
        os.close(file)
        raise NotSentError(why)
    return file


async def _fetched(url: str) -> str | None:
    """Fetch a picture as Hermes does for its own channels; returns where it is, or None."""
    from gateway.platforms.base import cache_image_from_url

    kind = Path(urlsplit(url).path).suffix.lower()
    known = kind in (".jpg", ".jpeg", ".png", ".gif", ".webp")
    try:
        return str(await cache_image_from_url(url, kind if known else ".jpg"))
    except Exception:  # noqa: BLE001 - the link itself is sent then, whatever it was
        return None
