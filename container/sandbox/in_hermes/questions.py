# SPDX-License-Identifier: Apache-2.0
"""What Hermes asks people while it works, and what they answer to it: `mended()`.

Hermes waits in the middle of a turn for somebody to approve a command or to answer a question of
its model's, and before some commands for a confirmation. In 0.19 it finds nobody to ask by its
relay: it looks for a channel of the platform's name, and takes silence for the answer. So where the
session is one of the relay's, the question goes as the relay's contract has it (`prompt`), and it
is kept here how it is answered. By a button it is answered once, and by nobody when Hermes waits
for it no more; what is typed answers it as Hermes takes it, when it was written after the question
and belongs to its session. A Hermes whose relay asks by itself is left alone.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Literal, NamedTuple

MOST = 256
"""Of so many questions, the last ones, it is known what was answered."""
SENT_WITHIN = 15.0
"""Whoever waits for a question to be sent waits so long, in seconds; so do Hermes' own channels."""
LONGEST_LABEL = 60
"""The longest words on a button, in characters."""

APPROVALS = {
    "once": "Approve once",
    "session": "Approve for this session",
    "always": "Approve always",
    "deny": "Deny",
}
CAN = {"allow_permanent": True, "smart_denied": False}
"""What may be chosen of these, where Hermes does not say."""
CONFIRMATIONS = {"once": "Approve once", "always": "Approve always", "cancel": "Cancel"}
TYPED_APPROVALS = ("approve", "deny")
"""The commands that answer a question for approval."""

Verdict = Literal["taken", "given", "none"]
"""Of what was typed: it is an answer and was taken; Hermes is to be given it at once; or it is none."""


class Place(NamedTuple):
    """Where a session of the relay's is: its adapter, the chat, what leads to its topic, and Hermes' loop."""

    adapter: Any
    chat: str
    metadata: dict[str, Any] | None
    loop: asyncio.AbstractEventLoop


class Question:
    """What Hermes waits for.

    options: id -> words on the button; choose: answers it by an option's id, and tells whether it was waited for; say:
    the same by words of one's own, or None where these are no answer; typed: the commands that answer it.
    """

    def __init__(
        self,
        session: str,
        options: dict[str, str],
        choose: Callable[[str], bool],
        say: Callable[[str], bool] | None = None,
        typed: tuple[str, ...] = (),
    ) -> None:
        self.session = session
        self.options = options
        self.choose = choose
        self.say = say
        self.typed = typed
        # The number of the last message that came before it; None until it was sent.
        self.after: int | None = None
        # What was answered.
        self.answer: str | None = None


class Questions:
    """What Hermes asked, by the names that it was sent under."""

    def __init__(self) -> None:
        self._asked: OrderedDict[str, Question] = OrderedDict()
        # By the key of a session.
        self._places: OrderedDict[str, Place] = OrderedDict()
        # Hermes asks in its thread, and is answered in the bridge's.
        self._lock = threading.Lock()

    def add(self, question: Question) -> str:
        """Note one that is about to be sent; returns its name."""
        name = secrets.token_hex(8)
        with self._lock:
            self._asked[name] = question
            while len(self._asked) > MOST:
                self._asked.popitem(last=False)
        return name

    def hear(self, adapter: Any, source: Any) -> None:
        """Note where a session is of which the relay brings a message. To be called in Hermes' loop."""
        thread = {"thread_id": source.thread_id} if source.thread_id else None
        place = Place(adapter, source.chat_id, thread, asyncio.get_running_loop())
        session = session_of(adapter, source)
        self._places[session] = place
        self._places.move_to_end(session)
        while len(self._places) > MOST:
            self._places.popitem(last=False)

    def place(self, session: str) -> Place | None:
        """Return where a session is; None for one that is none of the relay's."""
        return self._places.get(session)

    def _all(self) -> list[Question]:
        with self._lock:
            return list(self._asked.values())

    def sent(self, name: str, after: int) -> None:
        """Note that one was sent: what has a later number than `after` may answer it."""
        question = self._asked.get(name)
        if question is not None:
            question.after = after

    def press(self, name: str, option: str) -> str | None:
        """Answer a question by a button; returns what it was answered, or None when nobody waits for that."""
        question = self._asked.get(name)
        if question is None:
            return None
        if question.answer is None and option in question.options and question.choose(option):
            question.answer = question.options[option]
        return question.answer

    def typed(self, event: dict[str, Any], number: int) -> Verdict:
        """Answer a question by what somebody wrote. event: as the relay has it; number: of the message."""
        from gateway.relay.ws_transport import _event_from_wire

        waiting = [
            one
            for one in self._all()
            if one.answer is None and one.after is not None and one.after < number
        ]
        if not waiting:
            return "none"
        said = _event_from_wire(event)
        command = said.get_command()
        for question in waiting:
            place = self.place(question.session)
            if place is None or question.session != session_of(place.adapter, said.source):
                continue
            if command in question.typed:
                return "given"
            if command is None and question.say is not None and question.say(said.text):
                question.answer = said.text
                return "taken"
        return "none"


def session_of(adapter: Any, source: Any) -> str:
    """Return the key of a message's session, as Hermes' channels make it."""
    from gateway.session import build_session_key

    extra = adapter.config.extra
    return str(
        build_session_key(
            source,
            group_sessions_per_user=extra.get("group_sessions_per_user", True),
            thread_sessions_per_user=extra.get("thread_sessions_per_user", False),
        )
    )


def _tools(name: str) -> Any:
    """Return a module of Hermes' package `tools`, which is not the one that a type checker finds here."""
    return importlib.import_module(f"tools.{name}")


def _label(choice: str) -> str:
    return choice if len(choice) <= LONGEST_LABEL else f"{choice[: LONGEST_LABEL - 1]}…"


async def _sent(
    questions: Questions, place: Place, kind: str, words: str, typed: str, question: Question
) -> bool:
    """Ask; returns whether the Worker took it. typed: how it is answered where there are no buttons."""
    name = questions.add(question)
    adapter, chat = place.adapter, place.chat
    options = [{"id": option, "label": label} for option, label in question.options.items()]
    answer = await adapter._transport.send_outbound(
        {
            "op": "prompt",
            "chat_id": chat,
            "prompt_kind": kind,
            "prompt_id": name,
            "content": words,
            "typed": typed,
            "options": options,
            "metadata": adapter._with_scope(chat, place.metadata),
        },
        platform=adapter._platform_by_chat.get(str(chat)),
    )
    return bool(answer.get("success"))


def _in_loop(place: Place, asking: Coroutine[Any, Any, bool]) -> bool:
    """Ask from another thread than Hermes' loop's."""
    sending = asyncio.run_coroutine_threadsafe(asking, place.loop)
    try:
        return sending.result(SENT_WITHIN)
    except Exception:  # noqa: BLE001 - whatever it was, nobody was asked
        sending.cancel()
        return False


def _approvals(approval: Any, questions: Questions) -> None:
    """Have Hermes ask for the approval of commands. approval: its module for that."""
    register = approval.register_gateway_notify

    def register_gateway_notify(session_key: str, cb: Any) -> None:
        place = questions.place(session_key)

        def ask(data: dict[str, Any]) -> None:
            if place is not None and not _ask_approval(
                approval, questions, session_key, place, data
            ):
                raise ConnectionError("nobody could be asked")

        register(session_key, cb if place is None else ask)

    approval.register_gateway_notify = register_gateway_notify


def _ask_approval(
    approval: Any, questions: Questions, session: str, place: Place, data: dict[str, Any]
) -> bool:
    from gateway import run

    command = run._redact_approval_command(data.get("command", ""))
    can = {name: data.get(name, usual) for name, usual in CAN.items()}
    reason = data.get("description", "dangerous command")
    shown = run._format_exec_approval_fallback(command, reason, "/", **can)
    words, typed = shown.rsplit("\n\n", 1)
    left_out = {"session", "always"} if can["smart_denied"] else set()
    if not can["allow_permanent"]:
        left_out.add("always")
    options = {name: label for name, label in APPROVALS.items() if name not in left_out}
    question = Question(
        session,
        options,
        lambda option: _approve(approval, session, data, option),
        typed=TYPED_APPROVALS,
    )
    return _in_loop(place, _sent(questions, place, "approval", words, typed, question))


def _approve(approval: Any, session: str, data: dict[str, Any], option: str) -> bool:
    """Answer one of a session's questions for approval, and no other; returns whether it was waited for."""
    # Hermes answers the oldest one of a session.
    with approval._lock:
        queue = approval._gateway_queues.get(session, [])
        mine = [one for one in queue if one.data is data]
        if not mine:
            return False
        queue.remove(mine[0])
        queue.insert(0, mine[0])
    return bool(approval.resolve_gateway_approval(session, option))


def _clarifications(clarify: Any, questions: Questions) -> None:
    """Have Hermes' model ask. clarify: the module with its tool for that."""
    tool = clarify.clarify_tool

    def clarify_tool(question: str, choices: Any = None, callback: Any = None) -> Any:
        session = _tools("approval").get_current_session_key("")
        place = questions.place(session)
        if place is None or callback is None:
            return tool(question, choices, callback)
        return tool(question, choices, lambda *asked: _clarify(questions, session, place, *asked))

    clarify.clarify_tool = clarify_tool


def _clarify(
    questions: Questions, session: str, place: Place, question: str, choices: list[str] | None
) -> str:
    """Ask, and return what was answered or why there is no answer."""
    clarify_gateway = _tools("clarify_gateway")
    suggested = list(choices or [])
    name = secrets.token_hex(5)
    clarify_gateway.register(name, session, question, suggested or None)
    lines = [f"{number}. {choice}" for number, choice in enumerate(suggested, 1)]
    words = "\n".join([f"❓ {question}", *(["", *lines] if lines else [])])
    hint = "Reply with the number, the option text, or your own answer." if lines else ""

    def choose(option: str) -> bool:
        return bool(clarify_gateway.resolve_gateway_clarify(name, suggested[int(option)]))

    def say(text: str) -> bool:
        waits = clarify_gateway.get_pending_for_session(session, include_choice_prompts=True)
        return (
            waits is not None
            and waits.clarify_id == name
            and bool(clarify_gateway.resolve_text_response_for_session(session, text))
        )

    options = {str(at): _label(choice) for at, choice in enumerate(suggested)}
    asked = Question(session, options, choose, say)
    if not _in_loop(place, _sent(questions, place, "clarify", words, hint, asked)):
        clarify_gateway.clear_session(session)
        return "[clarify prompt could not be delivered]"
    patience = float(clarify_gateway.get_clarify_timeout())
    answer = clarify_gateway.wait_for_response(name, patience)
    return answer or f"[user did not respond within {int(patience / 60)}m]"


def _confirmations(run: Any, questions: Questions) -> None:
    """Have Hermes ask before some commands. run: its module with the gateway."""
    request = run.GatewayRunner._request_slash_confirm

    async def _request_slash_confirm(self: Any, *, event: Any, **asked: Any) -> Any:
        words = await request(self, event=event, **asked)
        session = self._session_key_for_source(event.source)
        place = questions.place(session)
        # Where Hermes asked by itself it says nothing more.
        if not words or place is None:
            return words
        return None if await _confirm(questions, session, place, words) else words

    run.GatewayRunner._request_slash_confirm = _request_slash_confirm


async def _confirm(questions: Questions, session: str, place: Place, words: str) -> bool:
    slash_confirm = _tools("slash_confirm")
    waits = slash_confirm.get_pending(session)
    if waits is None:
        return False

    async def confirm(option: str) -> None:
        said = await slash_confirm.resolve(session, waits["confirm_id"], option)
        if said:
            await place.adapter.send(place.chat, said, metadata=place.metadata)

    def choose(option: str) -> bool:
        now = slash_confirm.get_pending(session)
        if now is None or now["confirm_id"] != waits["confirm_id"]:
            return False
        if slash_confirm.clear_if_stale(session):
            return False
        asyncio.run_coroutine_threadsafe(confirm(option), place.loop)
        return True

    question = Question(session, CONFIRMATIONS, choose)
    return await _sent(questions, place, "choice", words, "", question)


def _hearing(relay: Any, questions: Questions) -> None:
    """Note of what comes by the relay where its session is; not of one that asks by itself."""
    adapter = relay.RelayAdapter
    if "send_clarify" in vars(adapter) or "send_exec_approval" in vars(adapter):
        return
    heard = adapter.handle_message

    async def handle_message(self: Any, event: Any) -> None:
        questions.hear(self, event.source)
        await heard(self, event)

    adapter.handle_message = handle_message


def mended(questions: Questions) -> dict[str, Callable[[Any], None]]:
    """Return what is to be done to modules of Hermes' as they are imported, by their names."""
    mends = {
        "gateway.relay.adapter": _hearing,
        "tools.approval": _approvals,
        "tools.clarify_tool": _clarifications,
        "gateway.run": _confirmations,
    }
    return {name: functools.partial(mend, questions=questions) for name, mend in mends.items()}
