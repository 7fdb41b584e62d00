# SPDX-License-Identifier: Apache-2.0
"""Hermes asks people in the middle of a turn; what is judged is what becomes of what it asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from plays import Deployment, wait_until
from test_channels import ANN, BOB, STRANGER, to, waiting

from tests.standins.provider import Provider
from tests.standins.telegram import Sent, Telegram
from tests.standins.webhooks import Sender, send

ALERTS = Sender("hmac", "secret-of-alerts")


@pytest.fixture(scope="module")
def telegram() -> Iterator[Telegram]:
    with Telegram(token="4243:AAstand-in_token_of_who_asks_012345") as running:
        yield running


@pytest.fixture(scope="module")
def curious(
    make_deployment: Callable[..., Deployment], telegram: Telegram, provider: Provider
) -> Deployment:
    """A Hermes that may do more than is good, and has to ask for it."""
    made = make_deployment(
        "curious",
        hermes_channels={
            "telegram": {"token": telegram.token, "allow": [ANN, BOB]},
            "hooks": {
                "alerts": {"kind": "hmac", "secret": ALERTS.secret, "prompt": "{note.text}"}
                | {"chat": f"telegram:{ANN}"}
            },
        },
        hermes_telegram_api_url=telegram.url,
        hermes_host_tools=True,
        hermes_config={"initial": {"approvals": {"mode": "manual", "timeout": 900}}},
        hermes_default_model="custom/stand-in",
        hermes_provider_base_url=provider.url + "/v1",
        custom_api_key=provider.key,
    )
    made.deploy()
    return made


def asks(
    telegram: Telegram, user: int, question: str, *choices: str, chat: int | None = None
) -> tuple[int, Sent]:
    """Have Hermes' model ask somebody in the middle of a turn; returns that turn's message, and the question."""
    order = json.dumps({"question": question, **({"choices": choices} if choices else {})})
    called = "" if chat is None else f"@{telegram.name} "
    return telegram.write(f"{called}Please call clarify {order}", user, chat), telegram.await_text(
        question
    )


def told_its_model(provider: Provider, words: str, since: int) -> bool:
    """Tell whether a tool of Hermes' returned some words. since: which calls came before."""
    asked = [one.body["messages"] for one in provider.seen[since:] if one.body]
    return any(
        words in json.dumps(one["content"])
        for all_ in asked
        for one in all_
        if one["role"] == "tool"
    )


def test_what_hermes_asks_is_answered_by_a_button_once(
    curious: Deployment, telegram: Telegram, provider: Provider
) -> None:
    since = len(provider.seen)
    asked, question = asks(telegram, ANN, "Which colour?", "a deep blue", "red")
    assert [label for label, _ in question.buttons] == ["a deep blue", "red"]
    presses = [telegram.press(question, "red"), telegram.press(question, "a deep blue")]
    settled = telegram.await_change(question, "→ red")
    assert settled.buttons == ()
    assert "Which colour?" in telegram.await_answer(asked).text
    assert told_its_model(provider, "red", since)
    wait_until(lambda: all(telegram.presses[one] for one in presses), "both presses to be heard")
    wait_until(lambda: waiting(curious) == 0, "an end")
    assert telegram.await_change(question, "Which colour?").text.endswith("→ red")

    # Of a question that its Hermes forgot nobody is woken.
    _, question = asks(telegram, ANN, "Shall I go on?", "yes", "no")
    use_stop = telegram.write("/stop", ANN)
    assert telegram.await_answer(use_stop).text
    wait_until(lambda: waiting(curious) == 0, "an end")
    assert curious.call("POST", "/api/instance/sleep").status == 200
    late = telegram.press(question, "yes")
    assert telegram.await_change(question, "I do not wait for this any more").buttons == ()
    wait_until(lambda: telegram.presses[late], "the press to be heard")
    wait_until(lambda: waiting(curious) == 0, "an end")
    assert curious.status()["state"] == "asleep"


def test_what_hermes_asks_is_answered_by_what_is_written_and_by_nobody_else(
    curious: Deployment, telegram: Telegram, provider: Provider
) -> None:
    since = len(provider.seen)
    asked, _ = asks(telegram, ANN, "What is its name?")
    telegram.write("Ada, I think", ANN)
    assert "What is its name?" in telegram.await_answer(asked).text
    assert told_its_model(provider, "Ada, I think", since)

    # In a group it is for whom it asked; others' messages are their own, and wait.
    asked, question = asks(telegram, ANN, "How many?", "three", "four", chat=-901)
    others = telegram.write(f"@{telegram.name} four, says Bob", BOB, -901)
    assert telegram.press(question, "four", STRANGER) in telegram.presses
    mine = telegram.write(f"@{telegram.name} 1", ANN, -901)
    telegram.await_answer(asked)
    assert "four, says Bob" in telegram.await_answer(others).text
    assert told_its_model(provider, "three", since)
    wait_until(lambda: waiting(curious) == 0, "an end")
    assert telegram.answers(mine) == []
    assert "→" not in telegram.await_change(question, "How many?").text

    # Neither is it a program that answers it.
    asked, question = asks(telegram, ANN, "Which door?", "left", "right")
    assert send(to(curious, "alerts"), ALERTS.delivery("right")) == (200, "new")
    telegram.press(question, "left")
    telegram.await_answer(asked)
    assert told_its_model(provider, "left", since)
    wait_until(lambda: waiting(curious) == 0, "an end")


def test_a_command_that_is_to_be_confirmed_is_confirmed_by_a_button(
    curious: Deployment, telegram: Telegram
) -> None:
    telegram.await_answer(telegram.write("remember the number nine", BOB))
    telegram.write("/new", BOB)
    question = telegram.await_text("Confirm /new")
    sent = len(telegram.sent)
    telegram.press(question, "Approve once", BOB)
    assert telegram.await_change(question, "→ Approve once").buttons == ()

    def says_so() -> bool:
        said = [one.text.lower() for one in telegram.sent[sent:] if one.chat == BOB]
        return any("session" in text for text in said)

    wait_until(says_so, "Hermes to say that it did")
    wait_until(lambda: waiting(curious) == 0, "an end")


def junk(deployment: Deployment, name: str) -> tuple[Path, str]:
    """Make a folder in Hermes' home; returns it, and the message by which its model is to remove it."""
    (home,) = deployment.state.glob("engine/disks/*/disk/home/.hermes")
    (home / name / "deep").mkdir(parents=True)
    there = f"{deployment.environment()['HERMES_HOME']}/{name}"
    return home / name, f"Please call terminal {json.dumps({'command': f'rm -rf {there}'})}"


def test_what_is_to_be_approved_is_done_when_it_is_and_not_else(
    curious: Deployment, telegram: Telegram
) -> None:
    assert curious.call("POST", "/api/instance/wake").status == 200
    folder, order = junk(curious, "pressed")
    asked, question = telegram.write(order, ANN), telegram.await_text("/pressed")
    assert [label for label, _ in question.buttons][::3] == ["Approve once", "Deny"]
    assert folder.exists()
    telegram.press(question, "Approve once")
    telegram.await_answer(asked)
    assert not folder.exists()

    folder, order = junk(curious, "denied")
    asked, question = telegram.write(order, ANN), telegram.await_text("/denied")
    telegram.press(question, "Deny")
    telegram.await_answer(asked)
    assert folder.exists()

    folder, order = junk(curious, "typed")
    asked, question = telegram.write(order, ANN), telegram.await_text("/typed")
    # What is no answer waits, and an old button answers nothing else.
    talk = telegram.write("what a day", ANN)
    approved = telegram.write("/approve", ANN)
    telegram.await_answer(asked)
    assert telegram.await_answer(approved).text
    assert "what a day" in telegram.await_answer(talk).text
    assert not folder.exists()

    folder, order = junk(curious, "kept")
    asked, newer = telegram.write(order, ANN), telegram.await_text("/kept")
    telegram.press(question, "Approve once")
    telegram.await_change(question, "I do not wait for this any more")
    assert folder.exists()
    telegram.press(newer, "Deny")
    telegram.await_answer(asked)
    assert folder.exists()
    wait_until(lambda: waiting(curious) == 0, "an end")
