# SPDX-License-Identifier: Apache-2.0
"""Stand-in for Telegram's Bot API on loopback, as strict as the real one where the product meets it.

A wrong token gets 401, a method that there is not 404. `getUpdates` is refused (409) while a webhook is set; a webhook
must have an https address. Messages of nothing, or of more than 4096 UTF-16 units, and chats that the bot does not know
are refused (400), whoever blocked the bot too (403), and a chat that gets too many is told to wait (429). Updates wait
until they were confirmed by a later offset, or the webhook answered 2xx. A file is told of by a name, got at a path
that `getFile` tells, with the token in it, and not larger than 20 MB. A file that the bot sends comes in a form of a
known length, in the field that its method names, not empty and not larger than 50 MB; what is sent as a picture is one,
not larger than 10 MB, of no more than 10,000 pixels in width and height together, and no longer than 20 times its
other side. A button's data have 1 to 64 bytes; a press is told of with the message as it is then, and is answered once;
of a message only the bot's own is changed, and not into what it is. Facts: core.telegram.org/bots/api.
"""

from __future__ import annotations

import json
import re
import struct
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.standins import multipart
from tests.standins.outbox import Outbox

LONGEST = 4096
LARGEST_FILE = 20 * 1024 * 1024
LARGEST_SENT = 50 * 1024 * 1024
LARGEST_PHOTO = 10 * 1024 * 1024
LONGEST_CAPTION = 1024
PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")
TEXTS = ("text", "caption", "parse_mode", "action", "url", "secret_token", "file_id", "name")
"""What is a text although it may look like a number."""
SECRET = re.compile(r"[A-Za-z0-9_-]{1,256}")


@dataclass
class Sent:
    """One message that the bot sent."""

    chat: int
    thread: int | None
    text: str
    reply_to: int | None
    id: int
    at: float
    kind: str = "message"
    file: multipart.File | None = None
    buttons: tuple[tuple[str, str], ...] = ()
    """The words of each, and what it sends back."""


@dataclass
class Telegram(Outbox[Sent]):
    """A running stand-in. `url` has no trailing slash.

    token: of the bot; name: its username; reaches: where the https addresses of webhooks really lead, by their
    beginning; opener: by which they are reached; blocked: chats whose people blocked the bot; busy: chat -> how often
    it is told to wait.
    """

    token: str = "4242:AAstand-in_token_0123456789abcdefghij"
    name: str = "hermes_test_bot"
    reaches: dict[str, str] = field(default_factory=dict)
    opener: urllib.request.OpenerDirector = field(default_factory=urllib.request.build_opener)
    blocked: set[int] = field(default_factory=set)
    busy: dict[int, int] = field(default_factory=dict)
    webhook: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    typing: list[int] = field(default_factory=list)
    presses: dict[str, bool] = field(default_factory=dict)
    """Each by its name, and whether the bot answered it."""
    last_error: str | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    """A path that was told -> what is there."""

    def __enter__(self) -> Telegram:
        self._changed = threading.Condition()
        self._updates: list[dict[str, Any]] = []
        self._known: set[int] = set()
        self._named: dict[str, bytes] = {}
        self._ids = iter(range(1, 1_000_000))
        self._ends = False
        handler = type("Handler", (_Handler,), {"telegram": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        for work in (self._server.serve_forever, self._deliver):
            threading.Thread(target=work, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where its API is served."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def write(self, text: str | None, user: int = 77, chat: int | None = None, **more: Any) -> int:
        """Write to the bot; returns the message's number. more: further fields of the message."""
        with self._changed:
            number = next(self._ids)
            at = user if chat is None else chat
            self._known.add(at)
            kind = "private" if at > 0 else "supergroup"
            message = {
                "message_id": number,
                "from": {"id": user, "is_bot": False, "first_name": f"User{user}"},
                "chat": {"id": at, "type": kind},
                "date": int(time.time()),
                **({} if text is None else {"text": text}),
                **more,
            }
            self._updates.append({"update_id": 1000 + next(self._ids), "message": message})
            self._changed.notify_all()
        return number

    def edit(self, number: int, text: str, user: int) -> None:
        """Change a message that somebody wrote to the bot alone."""
        with self._changed:
            message = {
                "message_id": number,
                "from": {"id": user, "is_bot": False, "first_name": f"User{user}"},
                "chat": {"id": user, "type": "private"},
                "date": int(time.time()),
                "edit_date": int(time.time()),
                "text": text,
            }
            self._updates.append({"update_id": 1000 + next(self._ids), "edited_message": message})
            self._changed.notify_all()

    def press(self, message: Sent, label: str, user: int = 77) -> str:
        """Press a button below a message of the bot's, as it was then; returns the press's name."""
        data = dict(message.buttons)[label]
        with self._changed:
            name = str(7_000_000 + next(self._ids))
            self.presses[name] = False
            query = {
                "id": name,
                "from": {"id": user, "is_bot": False, "first_name": f"User{user}"},
                "message": {
                    "message_id": message.id,
                    "from": {"id": int(self.token.split(":")[0]), "is_bot": True},
                    "chat": {
                        "id": message.chat,
                        "type": "private" if message.chat > 0 else "supergroup",
                    },
                    "date": int(time.time()),
                    "text": message.text,
                    **({} if message.thread is None else {"message_thread_id": message.thread}),
                },
                "chat_instance": "1",
                "data": data,
            }
            self._updates.append({"update_id": 1000 + next(self._ids), "callback_query": query})
            self._changed.notify_all()
        return name

    def await_change(self, message: Sent, words: str, seconds: float = 60.0) -> Sent:
        """Return a message of the bot's once it says some words. Raises AssertionError when it does not in time."""

        def now() -> Sent:
            return next(one for one in self.sent if one.id == message.id)

        with self._changed:
            if self._changed.wait_for(lambda: words in now().text, seconds):
                return now()
        raise AssertionError(f"{now()} does not say {words!r}; presses: {self.presses}")

    def _answercallbackquery(self, said: dict[str, Any]) -> tuple[int, Any, None]:
        name = said.get("callback_query_id")
        with self._changed:
            if self.presses.get(str(name)) is not False:
                why = "query is too old and response timeout expired or query ID is invalid"
                return 400, f"Bad Request: {why}", None
            self.presses[str(name)] = True
            self._changed.notify_all()
        return 200, True, None

    def _editmessagetext(self, said: dict[str, Any]) -> tuple[int, Any, None]:
        text, buttons = said.get("text", ""), buttons_of(said)
        where = int(said["chat_id"]), int(said["message_id"])
        if why := why_no_text(text) or why_no_buttons(buttons):
            return 400, f"Bad Request: {why}", None
        with self._changed:
            found = [one for one in self.sent if (one.chat, one.id) == where]
            if not found or found[0].file is not None:
                return 400, "Bad Request: message to edit not found", None
            if (found[0].text, found[0].buttons) == (text, buttons):
                return 400, "Bad Request: message is not modified", None
            self.sent[self.sent.index(found[0])] = replace(found[0], text=text, buttons=buttons)
            self._changed.notify_all()
        return 200, {"message_id": where[1], "chat": {"id": where[0]}, "text": text}, None

    def attached(self, data: bytes, **more: Any) -> dict[str, Any]:
        """Return how a message tells of a file with these bytes. more: its name and type."""
        name = f"AgAD{next(self._ids)}"
        self._named[name] = data
        return {"file_id": name, "file_unique_id": f"u{name}", "file_size": len(data)} | more

    def _getfile(self, said: dict[str, Any]) -> tuple[int, Any, None]:
        name = said.get("file_id", "")
        if name not in self._named:
            return 400, "Bad Request: wrong file_id or the file is temporarily unavailable", None
        if len(self._named[name]) > LARGEST_FILE:
            return 400, "Bad Request: file is too big", None
        path = f"documents/file_{next(self._ids)}"
        self.files[path] = self._named[name]
        return 200, {"file_id": name, "file_path": path}, None

    def answers(self, message: int) -> list[Sent]:
        """Return what the bot answered to a message."""
        return [one for one in self.sent if one.reply_to == message]

    def await_answer(self, message: int, seconds: float = 60.0) -> Sent:
        """Return the first answer to a message. Raises AssertionError when there is none in time."""
        with self._changed:
            if self._changed.wait_for(lambda: self.answers(message), seconds):
                return self.answers(message)[0]
        raise AssertionError(f"no answer to {message}; sent: {self.sent}, waiting: {self.waiting}")

    def await_text(self, words: str, seconds: float = 60.0) -> Sent:
        """Return the first message with some words. Raises AssertionError when there is none in time."""

        def found() -> list[Sent]:
            return [one for one in self.sent if words in one.text]

        with self._changed:
            if self._changed.wait_for(found, seconds):
                return found()[0]
        raise AssertionError(f"nothing says {words!r}; sent: {self.sent}, waiting: {self.waiting}")

    @property
    def waiting(self) -> int:
        """How many updates nobody has taken."""
        return len(self._updates)

    def call(self, method: str, said: dict[str, Any]) -> tuple[int, Any, int | None]:
        """Answer one call: status, result or description, seconds to wait."""
        self.calls.append((method, said))
        handle = getattr(self, f"_{method.lower()}", None)
        return (404, "Not Found", None) if handle is None else handle(said)

    def _getme(self, _said: dict[str, Any]) -> tuple[int, Any, None]:
        number = int(self.token.split(":")[0])
        told = {"id": number, "is_bot": True, "first_name": "Hermes", "username": self.name}
        return 200, told, None

    def _getwebhookinfo(self, _said: dict[str, Any]) -> tuple[int, Any, None]:
        info = {"url": self.webhook.get("url", ""), "pending_update_count": len(self._updates)}
        return (
            200,
            info | ({"last_error_message": self.last_error} if self.last_error else {}),
            None,
        )

    def _setwebhook(self, said: dict[str, Any]) -> tuple[int, Any, None]:
        if not said["url"].startswith("https://"):
            return 400, "Bad Request: bad webhook: An HTTPS URL must be provided for webhook", None
        if not SECRET.fullmatch(said.get("secret_token", "x")):
            return 400, "Bad Request: secret token contains unallowed characters", None
        with self._changed:
            self.webhook, self.last_error = said, None
            self._changed.notify_all()
        return 200, True, None

    def _deletewebhook(self, said: dict[str, Any]) -> tuple[int, Any, None]:
        with self._changed:
            self.webhook = {}
            if said.get("drop_pending_updates"):
                self._updates.clear()
        return 200, True, None

    def _getupdates(self, said: dict[str, Any]) -> tuple[int, Any, None]:
        if self.webhook:
            return 409, "Conflict: can't use getUpdates method while webhook is active", None
        offset = said.get("offset", 0)
        with self._changed:
            self._updates[:] = [one for one in self._updates if one["update_id"] >= offset]
            self._keep_allowed(said)
            self._changed.wait_for(lambda: self._updates or self._ends, said.get("timeout", 0))
            self._keep_allowed(said)
            return 200, self._updates[:100], None

    def _keep_allowed(self, said: dict[str, Any]) -> None:
        """Forget what the bot does not want to be told of."""
        allowed = said.get("allowed_updates") or ["message", "edited_message", "callback_query"]
        self._updates[:] = [one for one in self._updates if any(kind in one for kind in allowed)]

    def _sendchataction(self, said: dict[str, Any]) -> tuple[int, Any, None]:
        self.typing.append(int(said["chat_id"]))
        return 200, True, None

    def _sendmessage(self, said: dict[str, Any]) -> tuple[int, Any, int | None]:
        text = said.get("text", "")
        if why := why_no_text(text) or why_no_buttons(buttons_of(said)):
            return 400, f"Bad Request: {why}", None
        return self._note(said, text)

    def _note(
        self, said: dict[str, Any], text: str, kind: str = "message", file: Any = None
    ) -> tuple[int, Any, int | None]:
        chat = int(said["chat_id"])
        if chat not in self._known:
            return 400, "Bad Request: chat not found", None
        if chat in self.blocked:
            return 403, "Forbidden: bot was blocked by the user", None
        if self.busy.get(chat, 0) > 0:
            self.busy[chat] -= 1
            return 429, "Too Many Requests: retry after 1", 1
        reply = said.get("reply_parameters", {}).get("message_id")
        thread = said.get("message_thread_id")
        with self._changed:
            number = next(self._ids)
            where = chat, None if thread is None else int(thread)
            buttons = buttons_of(said)
            at = time.monotonic()
            self.sent.append(Sent(*where, text, reply, number, at, kind, file, buttons))
            self._changed.notify_all()
        kind = "private" if chat > 0 else "supergroup"
        told = {"message_id": number, "chat": {"id": chat, "type": kind}, "date": int(time.time())}
        return 200, told | {"text": text}, None

    def send_file(
        self, kind: str, said: dict[str, Any], files: dict[str, multipart.File]
    ) -> tuple[int, Any, int | None]:
        """Answer one call that sends a file: status, result or description, seconds to wait."""
        self.calls.append((f"send{kind.capitalize()}", said))
        file, text = files.get(kind), said.get("caption", "")
        if file is None:
            return 400, f"Bad Request: there is no {kind} in the request", None
        if not file.data:
            return 400, "Bad Request: file must be non-empty", None
        if len(file.data) > LARGEST_SENT:
            return 413, "Request Entity Too Large", None
        if len(text.encode("utf-16-le")) // 2 > LONGEST_CAPTION:
            return 400, "Bad Request: message caption is too long", None
        if kind == "photo" and (why := why_no_photo(file.data)):
            return 400, f"Bad Request: {why}", None
        return self._note(said, text, kind, file)

    def _deliver(self) -> None:
        """Send updates to the webhook, one after the other, again until it takes them."""
        while not self._ends:
            with self._changed:
                self._changed.wait_for(lambda: (self.webhook and self._updates) or self._ends, 1)
                if self._ends or not (self.webhook and self._updates):
                    continue
                self._keep_allowed(self.webhook)
                if not self._updates:
                    continue
                update, hook = self._updates[0], self.webhook
            if self.deliver(update, hook):
                with self._changed:
                    self._updates[:] = [one for one in self._updates if one is not update]
            else:
                time.sleep(0.2)

    def deliver(self, update: dict[str, Any], hook: dict[str, Any]) -> bool:
        """Send one update to a webhook; tell whether it was taken."""
        address = hook["url"]
        for begins, really in self.reaches.items():
            address = address.replace(begins, really, 1)
        headers = {"Content-Type": "application/json"}
        if "secret_token" in hook:
            headers["X-Telegram-Bot-Api-Secret-Token"] = hook["secret_token"]
        request = urllib.request.Request(address, json.dumps(update).encode(), headers)
        try:
            with self.opener.open(request, timeout=60) as answer:
                return bool(200 <= answer.status < 300)
        except urllib.error.HTTPError as error:
            self.last_error = f"Wrong response from the webhook: {error.code}"
        except OSError:
            self.last_error = "Connection refused"
        return False


def of_a_form(body: bytes) -> dict[str, Any]:
    """Return what a form says, as JSON would: numbers are numbers, and lists and mappings are no texts."""
    said: dict[str, Any] = {}
    for name, value in urllib.parse.parse_qsl(body.decode()):
        said[name] = value if name in TEXTS else json.loads(value)
    return said


def buttons_of(said: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the buttons of a message that the bot sends: the words of each, and what it sends back."""
    rows = said.get("reply_markup", {}).get("inline_keyboard", [])
    return tuple((one["text"], one.get("callback_data", "")) for row in rows for one in row)


def why_no_text(text: str) -> str | None:
    """Return why a message has no text that Telegram takes, or None."""
    if not text.strip():
        return "message text is empty"
    return "message is too long" if len(text.encode("utf-16-le")) // 2 > LONGEST else None


def why_no_buttons(buttons: tuple[tuple[str, str], ...]) -> str | None:
    """Return why Telegram does not take some buttons, or None."""
    if any(not label.strip() for label, _ in buttons):
        return "text buttons are not allowed to be empty"
    if any(not 1 <= len(data.encode()) <= 64 for _, data in buttons):
        return "BUTTON_DATA_INVALID"
    return None


def why_no_photo(data: bytes) -> str | None:
    """Return why Telegram shows something as no picture, or None. Sizes are read of PNG alone."""
    if len(data) > LARGEST_PHOTO:
        return "file is too big"
    if not data.startswith(PICTURES):
        return "IMAGE_PROCESS_FAILED"
    if data.startswith(PICTURES[1]):
        width, height = struct.unpack(">II", data[16:24])
        if width + height > 10_000 or max(width, height) > 20 * min(width, height):
            return "PHOTO_INVALID_DIMENSIONS"
    return None


class _Handler(BaseHTTPRequestHandler):
    telegram: Telegram
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Keep the test's output to the test's own words."""

    def do_GET(self) -> None:
        match = re.fullmatch(r"/file/bot([^/]+)/(.+)", self.path)
        found = self.telegram.files.get(match[2]) if match else None
        status = 200 if match and match[1] == self.telegram.token and found is not None else 404
        body = found if status == 200 and found is not None else b'{"ok": false}'
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        match = re.fullmatch(r"/bot([^/]+)/(\w+)", self.path)
        kind = self.headers.get("Content-Type", "")
        sends = (
            re.fullmatch(r"send(photo|animation|voice|audio|video|document)", match[2].lower())
            if match
            else None
        )
        if kind.startswith("multipart/form-data"):
            said, files = multipart.read(kind, body)
        elif kind.startswith("application/x-www-form-urlencoded"):
            said, files = of_a_form(body), {}
        else:
            said, files = json.loads(body or b"{}"), {}
        if match is None:
            status, result, wait = 404, "Not Found", None
        elif match[1] != self.telegram.token:
            status, result, wait = 401, "Unauthorized", None
        elif sends is not None:
            status, result, wait = self.telegram.send_file(sends[1], said, files)
        else:
            status, result, wait = self.telegram.call(match[2], said)
        answer: dict[str, Any] = {"ok": status == 200}
        if status == 200:
            answer["result"] = result
        else:
            answer |= {"error_code": status, "description": result}
            if wait is not None:
                answer["parameters"] = {"retry_after": wait}
        body = json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            return
