# SPDX-License-Identifier: Apache-2.0
"""Three people write by two platforms while everything dies at each step that a message takes: each is answered.

By Telegram they send pictures too, are sent files, and press buttons below what Hermes asks them.

`HERMES_MESSAGES=200 pytest -s` of this file writes more than the few of each run, and everything dies at every step;
`HERMES_MESSAGES_SEED` throws other dice. What was seen is printed.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psutil
from plays import Deployment, wait_until
from test_channels import made_by_hermes, png, was_seen
from test_survival import processes

from tests.standins.platform_api import Answer
from tests.standins.provider import Provider, last_user_text
from tests.standins.slack import Slack
from tests.standins.telegram import Telegram

MESSAGES = int(os.environ.get("HERMES_MESSAGES", "20"))
SEED = int(os.environ.get("HERMES_MESSAGES_SEED", "1"))
OUTSIDE = "https://hermes.example.com"
STEPS = ("received", "stored", "woken", "handed over", "answered", "sent", "accepted", "recorded")
"""What happens to a message, as a platform or the model's provider sees it.

sent: the answer comes to the platform, which fails to take it; accepted: it took it, and says so after the blow.
"""
VICTIMS = ("hermes", "sandbox", "workerd", "sleep", "deploy")
MANY = 5
"""So many wait for their answers at the same time."""
MARK = "(I do not know whether this reached you before.)"
CHOICES = ("up", "down")
QUESTION = "❓"
"""Before what Hermes' model asks."""
FILES = 4
"""So many of what lies with Hermes are sent, each of them once or more."""
PATIENCE = 300
"""Seconds after which what does not come is a failure, on a busy machine too."""


def blows(dice: random.Random) -> list[tuple[str, str]]:
    """Return at which step which thing dies, each step at least once; all of both where there are enough messages."""
    every = list(itertools.product(STEPS, VICTIMS))
    if len(every) <= MESSAGES // 2:
        return dice.sample(every, len(every))
    # Nobody hears what a platform took when the Worker dies just then.
    others = [step for step in STEPS if step != "accepted"]
    dealt = ["hermes", "sandbox", *VICTIMS]
    chosen = zip(others, dice.sample(dealt, len(dealt)), strict=True)
    return dice.sample([("accepted", "workerd"), *chosen], len(STEPS))


@dataclass
class Fate:
    """What is to die when a message comes to a step. `strike` is called by whoever sees a step."""

    strike: Callable[[str], None]
    step: str = ""
    victim: str = ""
    struck: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def arm(self, step: str, victim: str) -> None:
        """Let it fall at the next one that comes to this step."""
        self.struck.clear()
        self.step, self.victim = step, victim

    def at(self, step: str) -> None:
        """See a message at a step."""
        with self.lock:
            if step != self.step:
                return
            self.step = ""
            self.strike(self.victim)
            self.struck.set()


class WatchedTelegram(Telegram):
    """A Telegram that tells what it sees, and loses its words where it is to; who sees a button presses it."""

    fate: Fate

    def deliver(self, update: dict[str, Any], hook: dict[str, Any]) -> bool:
        self.fate.at("received")
        taken = super().deliver(update, hook)
        if taken:
            self.fate.at("stored")
        return taken

    def call(self, method: str, said: dict[str, Any]) -> tuple[int, Any, int | None]:
        if method == "sendChatAction":
            self.fate.at("woken")
        if method != "sendMessage":
            return super().call(method, said)
        if self.fate.step == "sent":
            self.fate.at("sent")
            return 500, "Internal Server Error", None
        answer = super().call(method, said)
        if answer[0] == 200 and said.get("reply_markup"):
            (asked,) = [one for one in self.sent if one.id == answer[1]["message_id"]]
            self.press(asked, CHOICES[0], asked.chat)
        self.fate.at("accepted")
        return answer


class WatchedSlack(Slack):
    """A Slack that does the same. It delivers again until it is heard, which the real one does for an hour."""

    fate: Fate

    def ask(self, url: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        taken: list[tuple[int, bytes]] = []

        def is_heard() -> bool:
            self.fate.at("received")
            with suppress(OSError):
                taken[:] = [super(WatchedSlack, self).ask(url, body, headers)]
            return bool(taken) and taken[0][0] == 200

        wait_until(is_heard, "Slack to be heard", 120)
        self.fate.at("stored")
        return taken[0]

    def answer(self, method: str, path: str, authorization: str, body: bytes, kind: str) -> Answer:
        if not path.endswith("chat.postMessage"):
            return super().answer(method, path, authorization, body, kind)
        if self.fate.step == "sent":
            self.fate.at("sent")
            return 500, {}
        answer = super().answer(method, path, authorization, body, kind)
        self.fate.at("accepted")
        return answer


@dataclass
class Writer:
    """Somebody who writes: how, one way after the other, and what each message was answered with so far."""

    name: str
    ways: Iterator[Callable[[str], object]]
    said: Callable[[], list[str]]
    written: list[str] = field(default_factory=list)

    def writes(self, word: str) -> None:
        """Write a word; it is answered with the same."""
        self.written.append(word)
        next(self.ways)(word)

    def answers(self, word: str) -> list[str]:
        return [text for text in self.said() if word in text]

    def unanswered(self) -> list[str]:
        return [word for word in self.written if not self.answers(word)]


class Things:
    """What comes with messages by Telegram, besides words, and what became of that."""

    def __init__(self, telegram: Telegram, made: Deployment) -> None:
        self._telegram = telegram
        self.pictures: list[bytes] = []
        self.asked: list[str] = []
        self.files = {f"shown-{number}.png": png() for number in range(FILES)}
        self._paths = [made_by_hermes(made, name, data) for name, data in self.files.items()]
        self._next = itertools.cycle(self._paths)
        self.shown: list[str] = []

    def ways(self, chat: int) -> Iterator[Callable[[str], object]]:
        """Return how somebody writes, for ever."""
        write = self._telegram.write

        def picture(word: str) -> None:
            self.pictures.append(png())
            sizes = [self._telegram.attached(self.pictures[-1])]
            write(None, chat, photo=sizes, caption=f"Say {word}")

        def question(word: str) -> None:
            self.asked.append(word)
            order = json.dumps({"question": f"{word}?", "choices": CHOICES})
            write(f"Please call clarify {order}", chat)

        def file(word: str) -> None:
            path = next(self._next)
            self.shown.append(os.path.basename(path))
            write(f"Say {word} MEDIA:{path}", chat)

        plain = partial(self._say, chat)
        return itertools.cycle([picture, question, file, plain])

    def _say(self, chat: int, word: str) -> None:
        self._telegram.write(f"Say {word}", chat)

    def judge(self, provider: Provider) -> int:
        """See that each came to where it is to; returns how often a file came once more, which was marked."""
        assert all(was_seen(one, provider, 0) for one in self.pictures)
        # One that is marked may be the only one that came: nobody knew.
        asked = [one for one in self._telegram.sent if QUESTION in one.text]
        for word in self.asked:
            came = [one for one in asked if f"{word}?" in one.text]
            assert came, (word, [one.text for one in self._telegram.sent if word in one.text])
            last = came[-1]
            assert (last.buttons, last.text.endswith(f"→ {CHOICES[0]}")) == ((), True), last
        doubles = 0
        for name, data in self.files.items():
            came = [one for one in self._telegram.sent if one.file and one.file.name == name]
            assert all(one.file and one.file.data == data for one in came)
            marked = sum(one.text.startswith(MARK) for one in came)
            seen = [(one.id, one.at, one.text) for one in came]
            times = self.shown.count(name)
            assert len(came) - marked <= times <= len(came), (name, self.shown, seen)
            doubles += len(came) - times
        return doubles


def watch_provider(provider: Provider, fate: Fate) -> None:
    """Have a provider tell what it sees."""
    plain = provider._server.RequestHandlerClass

    class Watched(plain):  # type: ignore[misc, valid-type]
        def _openai(self, body: dict[str, Any]) -> None:
            """Answer what a person wrote, as a model does, and not Hermes' own word of a turn that was cut."""
            asked = body["messages"]
            while asked and not is_of_a_turn(asked[-1]):
                asked = asked[:-1]
            if asked and isinstance(said := asked[-1]["content"], str):
                asked = [*asked[:-1], {**asked[-1], "content": with_files_once(said)}]
            super()._openai({**body, "messages": asked or body["messages"]})

        def _events(self, events: Any) -> None:
            fate.at("handed over")
            super()._events(events)
            fate.at("answered")

    provider._server.RequestHandlerClass = Watched


def with_files_once(text: str) -> str:
    """Return what is asked, with each file named once.

    Of a turn that was cut Hermes says the words twice, before a note of its own and after it, and no model sends a file
    twice for that.
    """
    for name in set(re.findall(r"MEDIA:\S+", text)):
        before, _, after = text.partition(name)
        text = before + name + after.replace(name, "")
    return text


def is_of_a_turn(message: dict[str, Any]) -> bool:
    """Tell whether something is what a person wrote, or what a tool of the same turn said."""
    return message["role"] == "tool" or "word-" in last_user_text([message])


class Siege:
    """A deployment, what may happen to it, and what did."""

    def __init__(self, made: Deployment, plays: ThreadPoolExecutor) -> None:
        self.made, self.struck = made, list[tuple[str, str]]()
        self.writers: list[Writer] = []
        self._plays, self._working = plays, list[Future[Any]]()

    def strike(self, victim: str) -> None:
        """Let it happen; a deploy and a sleep go on while messages do."""
        if victim == "deploy":
            self.made.variables["hermes_env"] = {"ROUND": str(len(self.struck))}
            self._working.append(self._plays.submit(self.made.deploy))
        elif victim == "sleep":
            self._working.append(self._plays.submit(self.made.call, "POST", "/api/instance/sleep"))
        else:
            found = self._processes()
            # What is not there yet cannot die; what wakes it can, unless it is just coming again.
            with suppress(KeyError, psutil.NoSuchProcess):
                (found.get(victim) or found["workerd"]).kill()

    def settle(self) -> None:
        """Wait until what was begun is over: a deploy that fails is a failure."""
        while self._working:
            self._working.pop().result(timeout=PATIENCE)

    def _processes(self) -> dict[str, psutil.Process]:
        """What runs, by its name; Hermes' sandbox is what Hermes was started by."""
        found = dict(processes(self.made))
        with suppress(KeyError, psutil.NoSuchProcess):
            found["sandbox"] = found["hermes"].parent() or found["hermes"]
        return found

    def unanswered(self) -> list[str]:
        """What nobody has answered yet."""
        return [word for one in self.writers for word in one.unanswered()]

    def until_answered(self, but: int = 0) -> None:
        """Wait until all is answered but so many; tells what was seen when that does not come."""
        wait_until(lambda: self._is_answered(but), self._told, PATIENCE)

    def _is_answered(self, but: int) -> bool:
        return len(self.unanswered()) <= but and (but > 0 or self._waiting() == 0)

    def _told(self) -> str:
        seen = {one.name: one.said() for one in self.writers}
        return f"after {self.struck}: an answer to {self.unanswered()} in {seen}"

    def _waiting(self) -> int:
        """How many messages wait."""
        channels = self.made.status()["channels"]
        return sum(int(one["waiting"]) for one in channels.values())


def test_each_message_is_answered_whatever_dies_at_whichever_step(
    make_deployment: Callable[..., Deployment], provider: Provider
) -> None:
    dice = random.Random(SEED)  # noqa: S311 - nothing is to be kept secret
    telegram, slack = WatchedTelegram(), WatchedSlack()
    with telegram, slack, ThreadPoolExecutor(1) as plays:
        app = {"token": slack.token, "signing_secret": slack.secret, "api_url": slack.url}
        made = make_deployment(
            "besieged",
            hermes_channels={
                "telegram": {"token": telegram.token, "allow": [77, 88]},
                "slack": {**app, "allow": ["U0ANN00"]},
            },
            hermes_public_url=OUTSIDE,
            hermes_telegram_api_url=telegram.url,
            hermes_default_model="custom/stand-in",
            hermes_provider_base_url=provider.url + "/v1",
            custom_api_key=provider.key,
        )
        siege = Siege(made, plays)
        telegram.fate = slack.fate = fate = Fate(siege.strike)
        made.deploy()
        telegram.reaches[OUTSIDE] = made.url
        slack.set_request_url(f"{made.url}/channels/slack")
        watch_provider(provider, fate)

        things = Things(telegram, made)
        # What lies with Hermes is as safe as all that is.
        assert made.call("POST", "/api/instance/backups").status == 200

        def of(chat: int) -> Callable[[], list[str]]:
            """Return what somebody is answered; a question is none."""
            return lambda: [
                one.text
                for one in telegram.sent
                if one.chat == chat and one.kind == "message" and QUESTION not in one.text
            ]

        writers = [
            Writer("Ann", things.ways(77), of(77)),
            Writer("Bob", things.ways(88), of(88)),
            Writer(
                "Cy",
                itertools.repeat(lambda word: slack.write(f"Say {word}", "U0ANN00", "D0ANN00")),
                lambda: [one.text for one in slack.sent],
            ),
        ]

        siege.writers = writers
        words = (f"word-{number:03}." for number in itertools.count(1))
        plan = blows(dice)
        for number, (step, victim) in enumerate(plan):
            share = MESSAGES * (number + 1) // len(plan) - MESSAGES * number // len(plan)
            if dice.random() < 0.4:
                # It is refused while a turn does not end.
                made.call("POST", "/api/instance/sleep")
            if step != "recorded":
                fate.arm(step, victim)
            # A person in Telegram is among them: Slack shows nobody that it wakes.
            for writer in [dice.choice(writers[:2]), *dice.choices(writers, k=share - 1)]:
                writer.writes(next(words))
            if step == "recorded":
                siege.until_answered()
                siege.strike(victim)
            else:
                assert fate.struck.wait(PATIENCE), (
                    f"nothing is {step}; unanswered: {siege.unanswered()}"
                )
            siege.struck.append((step, victim))

            siege.settle()
            siege.until_answered(MANY)
        siege.until_answered()
        judge(writers, siege.struck, made.status(), things.judge(provider))


def judge(
    writers: list[Writer], struck: list[tuple[str, str]], status: dict[str, Any], doubles: int
) -> None:
    """See that everybody got what they should, in its order, and no more than has to be. doubles: of files."""
    for one in writers:
        said, firsts = one.said(), []
        for word in one.written:
            answers = one.answers(word)
            assert all("The stand-in heard" in text for text in answers), answers
            assert all(text.startswith(MARK) for text in answers[1:]), answers
            doubles += len(answers) - 1
            firsts.append(said.index(answers[0]))
        assert firsts == sorted(firsts), (one.name, said)
    counts = {
        name: sum(channel[name] for channel in status["channels"].values())
        for name in ("again", "twice", "dropped", "refused")
    }
    told = f"{sum(len(one.written) for one in writers)} messages, {len(struck)} blows: {counts}"
    print(f"\n{told}, seen twice: {doubles}")
    # Whoever dies at one message's step may die between a platform's word and our note of another one.
    assert doubles <= sum(
        step == "accepted" or victim in ("workerd", "deploy") for step, victim in struck
    )
    assert doubles <= counts["twice"]
    assert (counts["dropped"], counts["refused"], status["unanswered"]) == (0, 0, [])
